"""Rankings to learn from: of a file, or by simulated labelers of the completions of a policy; as rows of tokens."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from volition import distributed
from volition.data import instructions, preferences
from volition.data.labelers import TEAM, Labeler
from volition.data.preferences import Preference, pairs
from volition.data.sharing import Shared, share
from volition.data.tokens import Tokens
from volition.errors import VolitionError
from volition.feedback._models import complete
from volition.feedback._text import Text, fitting
from volition.nets.language import log_probs
from volition.progress import say
from volition.run import Run

HIRED, HELD_OUT = TEAM[:-1], TEAM[-1:]  # whose rankings are learned from, and who only tests
Rankings = dict[str, list[Preference]]


def rankings(
    own: list[Preference], policy: Any, tokens: Tokens, count: int, ways: int, completion: int, room: int, run: Run
) -> Rankings:
    """train and test rankings, no prompt in both, of at most `room` tokens: a user's own, or simulated without them.

    The simulated test has a labeler who was held out. Simulated ones lie in the run's folder as rankings.jsonl, like
    those of people.
    """
    if own:
        found = {
            "train": [p for p in own if crc32(p.prompt.encode()) % 10],
            "test": [p for p in own if not crc32(p.prompt.encode()) % 10],
        }
    else:
        kept = run.path("rankings.jsonl")
        if not distributed.agreed(kept.exists()):
            if not run.quiet:
                say(f"volition: simulated labelers rank {ways} completions of {count} prompts (or give --preferences)")
            half = kept.with_suffix(".half")
            # by all processes alike: a sharded policy speaks where all ask it to
            found = simulated(policy, tokens, count, ways, completion, room, run.seed)
            if distributed.first():
                preferences.write(half, found)
                half.rename(kept)
            distributed.wait()
        every = preferences.read(kept)
        found = {split: [p for p in every if p.meta["split"] == split] for split in ("train", "test")}
    return {split: _fitting(rows, tokens, room, split) for split, rows in found.items()}


def simulated(
    policy: Any, tokens: Tokens, count: int, ways: int, completion: int, room: int, seed: int
) -> list[Preference]:
    """`ways` completions of each of `count` train and a few test prompts, ranked by labelers in turn.

    All random numbers are of the seed alone.
    """
    device = next(policy.parameters()).device
    found = []
    for number, (split, total) in enumerate({"train": count, "test": min(count, 300)}.items()):
        asked = instructions.prompts(split, total, seed=2)
        asked = [prompt for prompt in asked if len(tokens.encode(prompt)) + completion <= room]
        generator = torch.Generator(device).manual_seed(2 * seed + number)
        said = complete(policy, [p for p in asked for _ in range(ways)], tokens, completion, generator)
        rng = random.Random(f"labelers {split} {seed}")
        team: Sequence[Labeler] = HIRED if split == "train" else HIRED + HELD_OUT
        for i, prompt in enumerate(asked):
            # nobody is asked to rank a text against itself
            some = list(dict.fromkeys(said[i * ways : (i + 1) * ways]))
            if len(some) > 1:
                ranked = team[i % len(team)].rank(prompt, some, rng)
                found.append(Preference(prompt, ranked.completions, ranked.rank, ranked.labeler, meta={"split": split}))
    return found


def _fitting(rows: list[Preference], tokens: Tokens, room: int, split: str) -> list[Preference]:
    """Rows with a pair to learn from that the model can look back on; how many are not is told."""
    ranked = [row for row in rows if pairs(row)]
    long = {
        row.prompt for row in ranked
        if len(tokens.encode(row.prompt)) + max(len(tokens.encode(c)) for c in row.completions) >= room
    }  # fmt: skip
    kept = [row for row in ranked if row.prompt not in long]
    if len(kept) < len(ranked):
        say(f"volition: {len(ranked) - len(kept)} of {len(ranked)} {split} rankings exceed {room} tokens; left out")
    if len(ranked) < len(rows):
        say(f"volition: {len(rows) - len(ranked)} of {len(rows)} {split} rankings hold nothing but ties; left out")
    if not kept:
        raise VolitionError(f"no {split} rankings are left: give more of them, a tenth of the prompts are for the test")
    return kept


def own_prompts(text: Text, rows: Rankings, completion: int, room: int) -> Text:
    """The text with the prompts of a user's rankings; of those the built-in ones' hidden score knows nothing."""
    asked = {
        split: fitting(
            list(dict.fromkeys(p.prompt for p in some)),
            lambda prompt: len(text.tokens.encode(prompt)) <= room - completion,
            f"{split} prompts longer than {room - completion} tokens",
        )
        for split, some in rows.items()
    }
    return replace(text, prompts=text.prompts | asked, gold=None)


def rows_of_pairs(rows: Sequence[Preference]) -> list[Preference]:
    """Every pair as a row of its own."""
    return [
        Preference(p.prompt, (p.completions[w], p.completions[l]), (1, 2), p.labeler) for p in rows for w, l in pairs(p)
    ]


def batch(rows: Sequence[Preference], tokens: Tokens, device: torch.device) -> tuple[Shared, Tensor]:
    """All completions of each prompt in a row, each ending in EOS, and their ranks `[B, K]`."""
    ids = [[[*tokens.encode(c), tokens.eos] for c in p.completions] for p in rows]
    shared = share([tokens.encode(p.prompt) for p in rows], ids, tokens.pad).to(device)
    rank = torch.zeros(shared.last.shape, dtype=torch.long)
    for b, p in enumerate(rows):
        rank[b, : len(p.rank)] = torch.tensor(p.rank)
    return shared, rank.to(device)


def shared_scores(model: Any, shared: Shared) -> Tensor:
    """A reward model's score of each completion, read at its last token; `[B, K]`."""
    return model(shared.ids, shared.sees, shared.where).gather(1, shared.last)


def shared_log_probs(model: Any, shared: Shared) -> Tensor:
    """log π of each whole completion; `[B, K]`."""
    return shared.sums(log_probs(model, shared.ids, shared.sees, shared.asked, shared.where))
