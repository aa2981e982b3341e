"""The deep recurrent attention network of Ba, Mnih and Kavukcuoglu (2015), section 3."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.core.distributions import Categorical, DiagonalGaussian, Product
from volition.core.policy import PolicyOutput
from volition.nets.lstm import LSTM, Cell
from volition.nets.mlp import mlp

COARSE = 4  # side of the squares of pixels whose means the context network sees


class Layers(NamedTuple):
    """The memories of the two LSTMs: r⁽¹⁾, from which the answer comes, and r⁽²⁾, which chooses where to look."""

    lower: Cell
    upper: Cell


class DeepAttention(nn.Module):
    """A policy over {location, label}: g_t = f_what(ρ) ⊙ f_where(l), r⁽¹⁾_t = LSTM(g_t), r⁽²⁾_t = LSTM(r⁽¹⁾_t).

    l_t ~ N(f_l(r⁽²⁾_t), σ²), y ~ f_a(r⁽¹⁾_t). r⁽²⁾_0 is what the context network makes of the coarse image, or 0
    without `context`; r⁽¹⁾_0 = 0, so that the answer can only rest on what was looked at. r⁽²⁾ reads a detached r⁽¹⁾:
    cross-entropy trains what sees and answers; REINFORCE trains r⁽²⁾, f_l and the context network, and nothing else.
    Locations are in half image widths; f_l and `std` are in units of `unit` half widths.
    """

    std: Tensor

    def __init__(
        self, glimpse: int, classes: int, units: int, std: float, unit: float, context: bool, side: tuple[int, int]
    ) -> None:
        super().__init__()
        self.unit = unit
        self.what, self.where = nn.Sequential(mlp([glimpse, units, units]), nn.ReLU()), nn.Linear(2, units)
        self.lower, self.upper = LSTM(units, units), LSTM(units, units)
        self.locate, self.answer = mlp([units, 256, 2]), mlp([units, 256, classes])
        self.context = None
        if context:
            height, width = ((n // COARSE - 5) // 2 + 1 - 4 for n in side)
            self.context = nn.Sequential(
                nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3),
                nn.ReLU(), nn.Flatten(), nn.Linear(32 * height * width, units),
            )  # fmt: skip
        for layer in self.what.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.ones_(self.where.bias)  # at first a product with nearly 1
        with torch.no_grad():  # and at first it looks near the centre
            *_, weight, bias = self.locate.parameters()
            weight.mul_(0.1)
            bias.zero_()
        self.register_buffer("std", torch.tensor(std))

    def begin(self, pictures: Tensor) -> Layers:
        """The memories before the first glimpse, of canvases `[B, H, W]` uint8, of which it sees a coarse version."""
        start = self.initial_state(len(pictures))
        if self.context is None:
            return start
        coarse = F.avg_pool2d(pictures[:, None].to(self.where.weight.dtype) / 255, COARSE)
        h = self.context(coarse).tanh()
        return Layers(start.lower, Cell(h, start.upper.c))

    def forward(self, obs: dict[str, Tensor], state: Layers) -> PolicyOutput:
        """One glimpse: obs = {glimpse `[B, k·g·g]`, location `[B, 2]`}."""
        glimpse, location = (obs[key].to(self.where.weight.dtype) for key in ("glimpse", "location"))
        lower = self.lower(self.what(glimpse) * F.relu(self.where(location)), state.lower)
        upper = self.upper(lower.h.detach(), state.upper)
        return PolicyOutput(self.act(lower.h, upper.h), Layers(lower, upper))

    def initial_state(self, batch: int) -> Layers:
        """Nothing is remembered, and nothing is known."""
        return Layers(self.lower.initial_state(batch), self.upper.initial_state(batch))

    def act(self, lower: Tensor, upper: Tensor) -> Product:
        """π(location, label | r⁽¹⁾, r⁽²⁾) of r⁽¹⁾ and r⁽²⁾ `[…, units]`."""
        mean = self.locate(upper.to(self.where.weight.dtype)).float()
        location = DiagonalGaussian(self.unit * mean, self.unit * self.std)
        return Product({"location": location, "label": Categorical(self.answer(lower.to(self.where.weight.dtype)))})
