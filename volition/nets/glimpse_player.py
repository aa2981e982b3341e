"""The recurrent attention model as a player: where to look and what to do from the memory of an LSTM (Mnih 2014)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.core.distributions import Categorical, DiagonalGaussian, Product
from volition.core.policy import PolicyOutput
from volition.nets.attention import WHAT
from volition.nets.lstm import LSTM, Cell


class GlimpsePlayer(nn.Module):
    """g_t = f_g(ρ, l), h_t = LSTM(h_{t−1}, g_t);  l_t ~ N(W h_t, σ²), a_t ~ softmax(U h_t).

    obs = {glimpse `[B, k·g·g]`, location `[B, 2]`}; what else it holds is not looked at.
    """

    std: Tensor

    def __init__(self, size: int, scales: int, moves: int, units: int, std: float) -> None:
        super().__init__()
        self.what, self.where = nn.Linear(scales * size * size, WHAT), nn.Linear(2, WHAT)
        self.glimpse, self.core = nn.Linear(2 * WHAT, units), LSTM(units, units)
        self.locate, self.move = nn.Linear(units, 2), nn.Linear(units, moves)
        for layer in (self.what, self.where, self.glimpse):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            # One lit pixel is 1/4ˢ of patch s: in units of lit pixels all patches are equally loud.
            self.what.weight.unflatten(1, (scales, -1)).mul_(4.0 ** torch.arange(scales)[:, None])
            for head in (self.locate, self.move):
                head.weight.mul_(0.1)
        self.register_buffer("std", torch.tensor(std))

    def forward(self, obs: dict[str, Tensor], state: Cell) -> PolicyOutput:
        """One glimpse."""
        state = self.core(self._see(obs), state)
        return PolicyOutput(self._act(state.h), state)

    def sequence(self, obs: dict[str, Tensor], state: Cell, done: Tensor) -> PolicyOutput:
        """T glimpses at once, every field `[T, B, …]`, with gradients."""
        cells = self.core.sequence(self._see(obs), state, done)
        return PolicyOutput(self._act(cells.h), cells)

    def initial_state(self, batch: int) -> Cell:
        """Nothing is remembered."""
        return self.core.initial_state(batch)

    def _see(self, obs: dict[str, Tensor]) -> Tensor:
        glimpse, location = (obs[key].to(self.what.weight.dtype) for key in ("glimpse", "location"))
        seen = F.relu(torch.cat([self.what(glimpse), self.where(location)], -1))
        return F.relu(self.glimpse(seen))

    def _act(self, h: Tensor) -> Product:
        h = h.to(self.move.weight.dtype)
        return Product({"location": DiagonalGaussian(self.locate(h), self.std), "move": Categorical(self.move(h))})
