"""Actors, with a critic or without: π(a|s) and V(s) from fully connected networks, and with memory from a GRU."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.core.distributions import Distribution
from volition.core.policy import PolicyOutput, Tree
from volition.nets.mlp import mlp

START = 0.01  # scale of the last layer's first weights: π begins near uniform, or centred, in every state


class Actor(nn.Module):
    """π(a|s) and V(s) from two networks that share nothing; stateless.

    `encode` maps obs to `[…, inputs]`, `distribution` maps outputs `[…, len(varies)]` to π; outputs where `varies`
    is False are parameters of their own that no state changes.
    """

    def __init__(
        self,
        encode: Callable[[Tree], Tensor],
        inputs: int,
        distribution: Callable[..., Distribution],
        varies: Sequence[bool],
        hidden: Sequence[int] = (64, 64),
        critic: bool = True,
    ) -> None:
        super().__init__()
        self.encode = encode
        self.trunk = _trunk(inputs, hidden)
        self.actor = _Head(hidden[-1] if hidden else inputs, varies, distribution)
        self.critic = mlp([inputs, *hidden, 1], nn.Tanh) if critic else None

    def forward(self, obs: Tree, state: None = None, mask: Tensor | None = None) -> PolicyOutput:
        """Obs `[…, *]` → π(·|s) and V(s) `[…]`; mask `[…, A]` is True where an action is allowed."""
        x = self.encode(obs)
        return PolicyOutput(
            self.actor(self.trunk(x), mask), None, None if self.critic is None else self.critic(x).squeeze(-1)
        )

    def initial_state(self, batch: int) -> None:
        """Nothing is remembered."""
        return None


class RecurrentActor(nn.Module):
    """π(a|h_t) and V(h_t), h_t = GRU(o_t, h_{t−1}): for environments that do not show their whole state.

    Arguments as Actor's; `memory` is the size of h. The critic reads the actor's memory.
    """

    def __init__(
        self,
        encode: Callable[[Tree], Tensor],
        inputs: int,
        distribution: Callable[..., Distribution],
        varies: Sequence[bool],
        hidden: Sequence[int] = (64,),
        critic: bool = True,
        memory: int = 64,
    ) -> None:
        super().__init__()
        self.encode = encode
        self.trunk = _trunk(inputs, hidden)
        self.cell = nn.GRUCell(hidden[-1] if hidden else inputs, memory)
        self.actor = _Head(memory, varies, distribution)
        self.critic = nn.Linear(memory, 1) if critic else None

    def forward(self, obs: Tree, state: Tensor, mask: Tensor | None = None) -> PolicyOutput:
        """Obs `[B, *]`, h_{t−1} `[B, memory]` → π, h_t and V; mask `[B, A]` is True where an action is allowed."""
        return self._act(self.cell(self.trunk(self.encode(obs)), state), mask)

    def sequence(self, obs: Tree, state: Tensor, done: Tensor, mask: Tensor | None = None) -> PolicyOutput:
        """T steps at once from h_0 `[B, memory]`: obs `[T, B, *]`; h starts anew after each done `[T, B]`."""
        x, memory = self.trunk(self.encode(obs)), []
        for t in range(len(x)):
            state = self.cell(x[t], state)
            memory.append(state)
            state = state * ~done[t].unsqueeze(-1)
        return self._act(torch.stack(memory), mask)

    def _act(self, h: Tensor, mask: Tensor | None) -> PolicyOutput:
        return PolicyOutput(self.actor(h, mask), h, None if self.critic is None else self.critic(h).squeeze(-1))

    def initial_state(self, batch: int) -> Tensor:
        """h_0 = 0 `[B, memory]`."""
        return self.cell.weight_hh.new_zeros(batch, self.cell.hidden_size)


class _Head(nn.Linear):
    """The last layer: outputs that should not vary with the state are their bias alone."""

    def __init__(self, inputs: int, varies: Sequence[bool], distribution: Callable[..., Distribution]) -> None:
        super().__init__(inputs, len(varies))
        self.distribution = distribution
        self.register_buffer("varies", None if all(varies) else torch.tensor(varies).unsqueeze(-1), persistent=False)
        with torch.no_grad():
            self.weight.mul_(START)
            self.bias.zero_()

    varies: Tensor | None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Distribution:  # pyrefly: ignore
        weight = self.weight if self.varies is None else self.weight * self.varies
        y = F.linear(x, weight, self.bias)
        return self.distribution(y) if mask is None else self.distribution(y, mask)


def _trunk(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(mlp([inputs, *hidden], nn.Tanh), nn.Tanh()) if hidden else nn.Sequential()
