"""Texts of different lengths in one batch: padded rows, and rows that several texts share without seeing each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Tokens = Sequence[int]


@dataclass(frozen=True)
class Packed:
    """Rows shared by texts: ids, `where` (places within the text), asked `[N, T]`; sees `[N, 1, T, T]`."""

    ids: Tensor
    sees: Tensor
    asked: Tensor
    where: Tensor


def pad_left(rows: Sequence[Tokens], pad: int) -> tuple[Tensor, Tensor]:
    """ids and mask `[N, T]`, each row ending in the last column."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        if row:
            ids[i, -len(row) :], mask[i, -len(row) :] = torch.tensor(row), True
    return ids, mask


def first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Numbers of the texts that share each row of `room` tokens, longest first (first-fit decreasing; Johnson 1973)."""
    rows: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[i] > room:
            raise ValueError(f"a text of {lengths[i]} tokens does not fit into {room}")
        row = next((r for r, free in enumerate(left) if free >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(i)
        left[row] -= lengths[i]
    return rows


def pack(prompts: Sequence[Tokens], completions: Sequence[Tokens], pad: int) -> Packed:
    """Texts prompt + completion in as few rows of the longest's length as first-fit finds.

    Asked are the completions' tokens; of one without prompt all but its first, which nothing precedes.
    """
    texts = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    room = max(map(len, texts))
    rows = first_fit([len(text) for text in texts], room)
    shape = (len(rows), room)
    ids, where = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    asked, owner = torch.zeros(shape, dtype=torch.bool), torch.full(shape, -1)
    for r, row in enumerate(rows):
        start = 0
        for i in row:
            end = start + len(texts[i])
            ids[r, start:end], where[r, start:end] = torch.tensor(texts[i]), torch.arange(end - start)
            owner[r, start:end] = i
            asked[r, start + max(1, len(prompts[i])) : end] = True
            start = end
    # padding looks at padding, so that no place looks at nothing
    sees = (owner[:, :, None] == owner[:, None]) & torch.ones(room, room, dtype=torch.bool).tril()
    return Packed(ids, sees.unsqueeze(1), asked, where)
