"""The recurrent attention network of Mnih et al. (2014): glimpse, core, location and answer networks (figure 1)."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.core.distributions import Categorical, DiagonalGaussian, Product
from volition.core.policy import PolicyOutput
from volition.nets.mlp import mlp

WHAT, HIDDEN = 128, 256  # units of what and of where; of the glimpse network's output and the core (section 4)


class Memory(NamedTuple):
    """h_t, all that is remembered, and for the backward pass what it came from: what and where, and g_t; `[…, 256]`."""

    h: Tensor
    seen: Tensor
    glimpse: Tensor


class RecurrentAttention(nn.Module):
    """A policy over {location, label}: g_t = f_g(ρ, l), h_t = f_h(h_{t−1}, g_t), l_t ~ N(f_l(h_t), σ²), y ~ f_a(h_t).

    `glimpse` values come in, `classes` can be answered; f_l is linear or has `location_units` hidden units. With
    `random_location` the control of the paper: l_t is uniform, whatever was seen.
    """

    std: Tensor

    def __init__(
        self, glimpse: int, classes: int, location_units: int = 0, std: float = 0.2, random_location: bool = False
    ) -> None:
        super().__init__()
        self.what, self.where = nn.Linear(glimpse, WHAT), nn.Linear(2, WHAT)
        self.glimpse = nn.Linear(2 * WHAT, HIDDEN)
        self.core_in, self.core = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.locate = mlp([HIDDEN, location_units, 2] if location_units else [HIDDEN, 2])
        self.answer = nn.Linear(HIDDEN, classes)
        # He's gain for ReLU layers, and a core that begins by remembering half of h: most pixels are black, and with
        # PyTorch's default the signal shrinks from layer to layer and learning starts much later.
        for layer in (self.what, self.where, self.glimpse, self.core_in):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.core.weight = nn.Parameter(0.5 * torch.eye(HIDDEN))
        self.register_buffer("std", torch.tensor(std))
        self.random_location = random_location

    def forward(self, obs: dict[str, Tensor], state: Memory) -> PolicyOutput:
        """One glimpse: obs = {glimpse `[B, k·g·g]`, location `[B, 2]`}."""
        seen, glimpse = self._see(obs)
        h = F.relu(self.core_in(glimpse) + self.core(state.h))
        return PolicyOutput(self.act(h), Memory(h, seen, glimpse))

    def initial_state(self, batch: int) -> Memory:
        """h_0 = 0 `[B, 256]`."""
        return Memory(*(self.core.weight.new_zeros(batch, HIDDEN) for _ in Memory._fields))

    def sequence(self, obs: dict[str, Tensor], state: Memory, done: Tensor) -> PolicyOutput:
        """Whole episodes at once, every field `[T, B, …]`, with gradients: only the core goes step by step."""
        seen, glimpse = self._see(obs)
        h, memory = state.h, []
        for x, ended in zip(self.core_in(glimpse), done, strict=True):
            h = F.relu(x + self.core(h))
            memory.append(h)
            h = h * ~ended[:, None]  # the next episode begins with h_0 = 0
        stacked = torch.stack(memory)
        return PolicyOutput(self.act(stacked), Memory(stacked, seen, glimpse))

    def replayed(self, obs: dict[str, Tensor], memory: Memory) -> Tensor:
        """h `[T, B, 256]` of episodes that were played with these weights, differentiable without a second look."""
        layers = (self.what, self.where, self.glimpse, self.core_in)
        weights = [p for layer in layers for p in (layer.weight, layer.bias)]
        played = (obs["glimpse"], obs["location"], memory.seen, memory.glimpse, memory.h)
        return _Replayed.apply(*(x.to(memory.h.dtype) for x in played), *weights, self.core.weight)  # type: ignore[return-value]

    def act(self, h: Tensor) -> Product:
        """π(location, label | h). REINFORCE trains f_l alone and cross-entropy all the rest: f_l reads a detached h."""
        location = UniformLocation(h) if self.random_location else DiagonalGaussian(self.locate(h.detach()), self.std)
        return Product({"location": location, "label": Categorical(self.answer(h))})

    def _see(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        glimpse, location = (obs[key].to(self.what.weight.dtype) for key in ("glimpse", "location"))
        seen = F.relu(torch.cat([self.what(glimpse), self.where(location)], -1))
        return seen, F.relu(self.glimpse(seen))


class _Replayed(torch.autograd.Function):
    """Backpropagation through time by hand: the forward pass was done when acting, in the same arithmetic.

    δ_t = (∂L/∂h_t + W_coreᵀ δ_{t+1}) ⊙ [h_t > 0] goes step by step; every weight's gradient is then one product over
    all T·B rows, where autograd would make T small ones and add them up.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return inputs[4].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        ((x, location, seen, glimpse, h), weights) = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        _, _, _, _, w_glimpse, _, w_in, _, w_core = (w.to(h.dtype) for w in weights)
        delta = [_relu_backward(grad[-1], h[-1])]
        for t in range(len(h) - 2, -1, -1):
            delta.append(_relu_backward(torch.addmm(grad[t], delta[-1], w_core), h[t]))
        delta = torch.stack(delta[::-1])
        d_core = delta[1:].flatten(0, 1).T @ h[:-1].flatten(0, 1)  # h_0 = 0 adds nothing
        d_in, d_in_bias, d_glimpse_out = _linear_backward(delta, glimpse, w_in)
        d_glimpse_out = _relu_backward(d_glimpse_out, glimpse.flatten(0, 1))
        d_glimpse, d_glimpse_bias, d_seen = _linear_backward(d_glimpse_out, seen, w_glimpse)
        d_seen = _relu_backward(d_seen, seen.flatten(0, 1))
        d_what, d_what_bias, _ = _linear_backward(d_seen[:, :WHAT], x, None)
        d_where, d_where_bias, _ = _linear_backward(d_seen[:, WHAT:], location, None)
        found = (d_what, d_what_bias, d_where, d_where_bias, d_glimpse, d_glimpse_bias, d_in, d_in_bias, d_core)
        return (None,) * 5 + tuple(d.to(w.dtype) for d, w in zip(found, weights, strict=True))


def _relu_backward(delta: Tensor, y: Tensor) -> Tensor:
    """Of y = ReLU(x) with δ = ∂L/∂y: δ ⊙ [y > 0], by the kernel that autograd uses too."""
    return torch.ops.aten.threshold_backward(delta, y, 0)


def _linear_backward(delta: Tensor, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of y = x Wᵀ + b with δ = ∂L/∂y over all rows: ∂L/∂W = δᵀ x, ∂L/∂b = Σ δ, ∂L/∂x = δ W (empty without W)."""
    delta = delta.flatten(0, -2)
    d_x = delta.new_empty(0) if weight is None else delta @ weight
    return delta.T @ x.flatten(0, -2), delta.sum(0, dtype=torch.float32), d_x


class UniformLocation:
    """Anywhere in the image, whatever was seen: what the paper calls random glimpses."""

    def __init__(self, like: Tensor) -> None:
        self.like = like[..., :2].detach()

    def sample(self, generator: torch.Generator) -> Tensor:
        """l ~ U([−1, 1]²) `[…, 2]`."""
        return torch.rand(self.like.shape, generator=generator, device=self.like.device) * 2 - 1

    def mode(self) -> Tensor:
        """Every place is as likely; the centre stands for them `[…, 2]`."""
        return torch.zeros_like(self.like)

    def log_prob(self, location: Tensor) -> Tensor:
        """log ¼ everywhere `[…]`."""
        return location.new_full(location.shape[:-1], 0.25).log()

    def entropy(self) -> Tensor:
        """H = log 4, the area's logarithm `[…]`."""
        return self.like.new_full(self.like.shape[:-1], 4.0).log()

    def kl(self, other: "UniformLocation") -> Tensor:
        """KL = 0: there is only one such distribution `[…]`."""
        return torch.zeros_like(self.like[..., 0])
