"""Inputs brought to one scale before a network sees them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from volition.core.normalize import RunningMoments
from volition.core.policy import Tree

CLIP = 10.0


class Normalizer(nn.Module):
    """obs ↦ (x − μ)/σ clipped to ±10, where x `[…, size]` is the encoded obs; μ and σ are those of `set`."""

    mean: Tensor
    std: Tensor

    def __init__(self, encode: Callable[[Tree], Tensor], size: int) -> None:
        super().__init__()
        self.encode = encode
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def set(self, moments: RunningMoments) -> None:
        """Take over the mean and standard deviation of all inputs so far."""
        self.mean.copy_(moments.mean)
        self.std.copy_((moments.variance + 1e-8).sqrt())

    def forward(self, obs: Tree) -> Tensor:
        """Obs `[…, *]` → `[…, size]`."""
        return ((self.encode(obs) - self.mean) / self.std).clamp_(-CLIP, CLIP)
