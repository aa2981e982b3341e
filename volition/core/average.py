"""A slow copy of what is learned: the exponential moving average of weights."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """θ̄ ← d·θ̄ + (1 − d)·θ for each parameter that learns, θ̄ beginning as θ (Ouyang 2022, appendix C.4: d = 0.992)."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = [p for p in parameters if p.requires_grad], decay
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        for value, p in zip(self.values, self.parameters, strict=True):
            value.lerp_(p, 1 - self.decay)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Within the block the parameters hold their averages."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for p, value in zip(self.parameters, self.values, strict=True):
            kept = p.detach().clone()
            p.copy_(value)
            value.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        if [x.shape for x in state["values"]] != [x.shape for x in self.values]:
            raise ValueError("averages of other weights")
        for value, saved in zip(self.values, state["values"], strict=True):
            value.copy_(saved)
