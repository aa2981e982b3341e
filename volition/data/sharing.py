"""Several completions of one prompt in one row: the prompt is computed once, and no completion sees another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from volition.data.packing import Tokens


@dataclass(frozen=True)
class Shared:
    """Rows `[B, T]`: prompt but its last token, then for each completion that last token again and its own.

    So what precedes a token in the row precedes it in the text. ids, where (places within the text), asked (tokens of
    completions) and owner (of which completion) are `[B, T]`, sees is `[B, 1, T, T]`, and last, the column of each
    completion's last token, 0 where a prompt has fewer than others, `[B, K]`.
    """

    ids: Tensor
    sees: Tensor
    where: Tensor
    asked: Tensor
    owner: Tensor
    last: Tensor

    def to(self, device: torch.device) -> "Shared":
        """The same on another device."""
        return Shared(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def sums(self, x: Tensor) -> Tensor:
        """Σ over the tokens asked for of each completion; x `[B, T]` → `[B, K]`."""
        found = x.new_zeros(self.last.shape)
        return found.scatter_add(1, self.owner, x.masked_fill(~self.asked, 0.0))


def share(prompts: Sequence[Tokens], completions: Sequence[Sequence[Tokens]], pad: int) -> Shared:
    """One row for each prompt, which has one token or more, with all its completions."""
    wide = max(len(p) - 1 + sum(len(c) + 1 for c in some) for p, some in zip(prompts, completions, strict=True))
    ids, where = torch.full((len(prompts), wide), pad), torch.zeros(len(prompts), wide, dtype=torch.long)
    asked, owner = torch.zeros(ids.shape, dtype=torch.bool), torch.zeros_like(ids)
    last = torch.zeros(len(prompts), max(map(len, completions)), dtype=torch.long)
    part = torch.full(ids.shape, -1)  # 0 the prompt, from 1 on completions, −1 padding
    for b, (prompt, some) in enumerate(zip(prompts, completions, strict=True)):
        start = len(prompt) - 1
        ids[b, :start], where[b, :start], part[b, :start] = torch.tensor(prompt[:-1]), torch.arange(start), 0
        for k, completion in enumerate(some):
            end = start + 1 + len(completion)
            ids[b, start:end] = torch.tensor([prompt[-1], *completion])
            where[b, start:end] = torch.arange(len(prompt) - 1, len(prompt) + len(completion))
            part[b, start:end], owner[b, start:end] = k + 1, k
            asked[b, start + 1 : end] = True
            last[b, k] = end - 1
            start = end
    above, below = part.unsqueeze(2), part.unsqueeze(1)  # who looks, what is looked at
    sees = (above == below) | ((below == 0) & (above > 0))
    return Shared(ids, (sees & torch.ones(wide, wide, dtype=torch.bool).tril()).unsqueeze(1), where, asked, owner, last)
