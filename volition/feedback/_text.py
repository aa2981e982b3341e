"""What the recipes of this chapter read, as tokens: demonstrations, prompts and pretraining text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from volition.data import demonstrations, instructions, rows
from volition.data.demonstrations import Demonstration
from volition.data.tokens import Tokens
from volition.errors import VolitionError
from volition.nets.language import context
from volition.progress import say

T = TypeVar("T")
SPLITS = ("train", "valid", "test")
BUILT_IN = {"train": 8000, "valid": 200, "test": 300}  # prompts of the built-in task


@dataclass(frozen=True)
class Gpt:
    """The model that is made where no folder is given."""

    vocab: int = 640
    """Tokens of the byte-level BPE."""
    layers: int = 2
    """Layers."""
    width: int = 128
    """Width."""
    heads: int = 4
    """Heads of attention."""
    context: int = 128
    """Tokens that it can look back on."""


@dataclass(frozen=True)
class Text:
    """Everything as tokens; `gold` scores (prompt, completion) of the built-in task, None for one's own prompts."""

    tokens: Tokens
    demonstrations: dict[str, list[tuple[list[int], list[int]]]]  # prompt, completion with EOS
    prompts: dict[str, list[str]]
    pretraining: dict[str, list[list[int]]]
    gold: Callable[[str, str], float] | None
    name: str


def gather(
    model: str, gpt: Gpt, completion: int, demonstrated: str = "", prompted: str = "", pretrained: str = ""
) -> Text:
    """Read and encode; what does not fit into the context is left out, told and counted.

    Of files of one's own a tenth is kept aside to validate with and another to test with.
    """
    room = context(model) if model else gpt.context
    if completion >= room:
        raise VolitionError(f"completions of {completion} tokens leave no room for a prompt in a context of {room}")
    given, prompts, stories = sources(demonstrated, prompted, pretrained)
    if model:
        tokens = Tokens.load(model)
    else:
        seen = [text for d in given["train"] for text in (d.prompt, d.completion)]
        tokens = Tokens.train([*seen, *prompts["train"], *stories["train"]], gpt.vocab)
    pairs = {
        split: fitting(
            [(tokens.encode(d.prompt), [*tokens.encode(d.completion), tokens.eos]) for d in rows],
            lambda pair: len(pair[0]) + len(pair[1]) <= room,
            f"{split} demonstrations longer than {room} tokens",
        )
        for split, rows in given.items()
    }
    asked = {
        split: fitting(
            texts,
            lambda text: 0 < len(tokens.encode(text)) <= room - completion,
            f"{split} prompts empty or longer than {room - completion} tokens",
        )
        for split, texts in prompts.items()
    }
    ids = {split: [[*tokens.encode(text), tokens.eos][:room] for text in texts] for split, texts in stories.items()}
    own = [Path(path).name for path in (demonstrated, prompted, pretrained) if path]
    gold = None if demonstrated or prompted else instructions.gold
    return Text(tokens, pairs, asked, ids, gold, " and ".join(own) or "built-in")


def sources(
    demonstrated: str, prompted: str, pretrained: str
) -> tuple[dict[str, list[Demonstration]], dict[str, list[str]], dict[str, list[str]]]:
    """Demonstrations, prompts and pretraining text of files, or built-in ones, as texts by split."""
    if demonstrated:
        read = demonstrations.read(demonstrated)
        given = _parts(
            fitting(read, lambda d: bool(d.completion.strip()), "demonstrations that say nothing"), demonstrated
        )
    else:
        given = {split: instructions.demonstrations(split, BUILT_IN[split]) for split in SPLITS}
    if prompted:
        prompts = _parts(_prompts(prompted), prompted)
    elif demonstrated:
        prompts = {split: [d.prompt for d in given[split]] for split in SPLITS}
    else:
        prompts = {split: instructions.prompts(split, BUILT_IN[split], seed=1) for split in SPLITS}
    stories = _parts(_stories(pretrained) if pretrained else instructions.pretraining(4000), pretrained)
    return given, prompts, stories


def _parts(rows: list[T], where: str) -> dict[str, list[T]]:
    """Every tenth row to validate, every other tenth to test, the rest to train."""
    if len(rows) < 10:
        raise VolitionError(f"{where} holds {len(rows)} rows: ten are needed, one of them to validate and one to test")
    names = ["valid" if i % 10 == 8 else "test" if i % 10 == 9 else "train" for i in range(len(rows))]
    return {split: [row for row, name in zip(rows, names, strict=True) if name == split] for split in SPLITS}


def fitting(rows: list[T], fits: Callable[[T], bool], what: str) -> list[T]:
    """The rows that fit; how many do not is told."""
    kept = [row for row in rows if fits(row)]
    if not kept:
        raise VolitionError(f"all {what}: there is nothing left to learn from")
    if len(kept) < len(rows):
        say(f"volition: {len(rows) - len(kept)} of {len(rows)} {what} are left out")
    return kept


def _prompts(path: str) -> list[str]:
    """Prompts of a plain file, one a line, or of rows, as `demonstrations.prompts` reads them."""
    return demonstrations.prompts(path) if _holds_rows(path) else _plain(path, "\n")


def _stories(path: str) -> list[str]:
    """Texts of a plain file, a paragraph each, or of rows with `text`."""
    if not _holds_rows(path):
        return _plain(path, "\n\n")
    return [rows.text(row.get("text"), where, "text") for where, row in rows.read(path)]


def _holds_rows(path: str) -> bool:
    return path.removesuffix(".gz").endswith((".json", ".jsonl"))


def _plain(path: str, apart: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VolitionError(f"{path} cannot be read ({error}): give a file in UTF-8") from None
    return [part for part in text.split(apart) if part.strip()]
