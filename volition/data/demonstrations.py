"""Demonstrations: prompts with the completion that somebody wrote, in our own form and in everybody else's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from volition.data import rows
from volition.data.rows import Row, cue, last_answer, listed, text
from volition.errors import VolitionError


@dataclass(frozen=True)
class Demonstration:
    """A prompt, what was answered, and the use case where it is known."""

    prompt: str
    completion: str
    kind: str = ""


def read(path: str | Path) -> list[Demonstration]:
    """All demonstrations of a file; the form of each row is told by its fields (FORMS). HH's may say nothing."""
    return [_read(row, where) for where, row in rows.read(path)]


def prompts(path: str | Path) -> list[str]:
    """The different prompts of a file, of rows with `prompt` or in any form of a demonstration."""
    found = (
        cue(row["prompt"], text(row["prompt"], where, "prompt")) if "prompt" in row else _read(row, where).prompt
        for where, row in rows.read(path)
    )
    return list(dict.fromkeys(found))


def _read(row: Row, where: str) -> Demonstration:
    form = next((read for needed, read in FORMS if needed <= row.keys()), None)
    if form is None:
        has = ", ".join(map(str, row)) or "none"
        raise VolitionError(f"{where}: no demonstration is known with the fields {has}; give prompt and completion")
    return form(row, where)


def _ours(row: Row, where: str) -> Demonstration:
    prompt, kind = cue(row["prompt"], text(row["prompt"], where, "prompt")), row.get("kind", "")
    if not isinstance(kind, str):
        raise VolitionError(f"{where}: 'kind' is {kind}; it must be a text")
    return Demonstration(prompt, text(row["completion"], where, "completion"), kind)


def _messages(row: Row, where: str) -> Demonstration:
    """Turns, the last of which is learned."""
    turns = listed(row["messages"], where, "messages")
    if len(turns) < 2 or not isinstance(turns[-1], dict) or turns[-1].get("role", turns[-1].get("from")) in (
        "user", "human", "system",
    ):  # fmt: skip
        raise VolitionError(f"{where}: 'messages' must end with a turn of the assistant, after one of the user")
    before = turns[:-1]
    return Demonstration(cue(before, text(before, where, "messages")), text(turns[-1:], where, "messages"))


def _with_input(instruction: str, given: str, answer: str) -> Callable[[Row, str], Demonstration]:
    """An instruction, perhaps with a text that it is about (Alpaca, Dolly)."""

    def form(row: Row, where: str) -> Demonstration:
        about = text(row.get(given, ""), where, given, empty=True).strip()
        asked = text(row[instruction], where, instruction).strip() + (f"\n\n{about}" if about else "")
        return Demonstration(f"{asked}\n\n", text(row[answer], where, answer), str(row.get("category", "")))

    return form


def _question(row: Row, where: str) -> Demonstration:
    """GSM8K: a question and its worked answer."""
    return Demonstration(f"{text(row['question'], where, 'question')}\n", text(row["answer"], where, "answer"))


def _chosen(row: Row, where: str) -> Demonstration:
    """HH: the last answer of the conversation that was preferred."""
    prompt, answer = last_answer(text(row["chosen"], where, "chosen"))
    if not prompt:
        raise VolitionError(f"{where}: 'chosen' has no turn that begins with Assistant:")
    return Demonstration(prompt, text(answer, where, "chosen", empty=True))


FORMS: tuple[tuple[set[str], Callable[[Row, str], Demonstration]], ...] = (
    ({"prompt", "completion"}, _ours),
    ({"messages"}, _messages),
    ({"instruction", "output"}, _with_input("instruction", "input", "output")),
    ({"instruction", "response"}, _with_input("instruction", "context", "response")),
    ({"question", "answer"}, _question),
    ({"chosen"}, _chosen),
)
