"""A long short-term memory (Hochreiter 1997, with forget gates) that goes step by step or over whole sequences."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cell(NamedTuple):
    """What an LSTM remembers: h, which others read, and c, which only its gates see; both `[B, units]`."""

    h: Tensor
    c: Tensor


class LSTM(nn.Module):
    """h_t = o·tanh(c_t), c_t = f·c_{t−1} + i·n;  i, f, o = σ(…) and n = tanh(…) of what is linear in x_t and h_{t−1}.

    The forget gates begin at σ(1): what is seen in the first steps is not lost before learning has begun.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.see, self.recall = nn.Linear(inputs, 4 * units), nn.Linear(units, 4 * units, bias=False)
        nn.init.orthogonal_(self.recall.weight)
        nn.init.zeros_(self.see.bias)
        nn.init.ones_(self.see.bias[units : 2 * units])

    def forward(self, x: Tensor, state: Cell) -> Cell:
        """One step: x `[B, inputs]`."""
        return self._step(self.see(x), state)

    def sequence(self, x: Tensor, state: Cell, done: Tensor | None = None) -> Cell:
        """T steps at once, x `[T, B, inputs]` -> h and c after each, `[T, B, units]`; both begin at 0 after a done."""
        cells = []
        for t, gates in enumerate(self.see(x)):
            state = self._step(gates, state)
            cells.append(state)
            if done is not None and done[t].any():
                state = Cell(*(part * ~done[t].unsqueeze(-1) for part in state))
        return Cell(*(torch.stack(parts) for parts in zip(*cells, strict=True)))

    def initial_state(self, batch: int) -> Cell:
        """Nothing is remembered: h = c = 0."""
        h = self.recall.weight.new_zeros(batch, self.units)
        return Cell(h, h.float())

    def _step(self, gates: Tensor, state: Cell) -> Cell:
        gates = gates + F.linear(state.h.to(gates.dtype), self.recall.weight)
        i, f, o, n = gates.chunk(4, -1)
        c = f.sigmoid() * state.c + i.sigmoid() * n.tanh()
        return Cell((o.sigmoid() * c.tanh()).to(gates.dtype), c)
