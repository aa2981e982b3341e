"""π(a|h_t) and V(h_t) with a memory: two networks side by side, each with a GRU of its own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from volition.core.distributions import Distribution
from volition.core.policy import PolicyOutput, Tree
from volition.nets.actor_critic import START
from volition.nets.stack import Activation, Stack, orthogonal


class RecurrentActorCritic(nn.Module):
    """Actor and critic share nothing: on one memory the critic's far larger gradient would decide what is remembered.

    h_t = (1 − z)·n + z·h_{t−1};  r, z = σ(W x_t + U h_{t−1} + b);  n = tanh(W x_t + b + r·(U h_{t−1} + b′))
    (Cho 2014). Arguments as those of `ActorCritic`; `memory` is the size of each h, the state is `[B, 2, memory]`.
    """

    def __init__(
        self,
        encode: Callable[[Tree], Tensor],
        inputs: int,
        distribution: Callable[..., Distribution],
        varies: Sequence[bool],
        hidden: Sequence[int] = (64,),
        memory: int = 64,
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        self.encode, self.distribution, self.memory = encode, distribution, memory
        self.stack = Stack(2, [inputs, *hidden], activation)
        units = hidden[-1]

        def gates(size: int) -> nn.Parameter:  # r, z and n, of both
            return nn.Parameter(
                torch.stack([torch.cat([orthogonal(size, memory, 1.0) for _ in range(3)], 1) for _ in range(2)])
            )

        self.see, self.recall = gates(units), gates(memory)
        self.see_bias = nn.Parameter(torch.zeros(2, 1, 3 * memory))
        self.recall_bias = nn.Parameter(torch.zeros(2, 1, 3 * memory))
        self.actor = nn.Parameter(orthogonal(memory, len(varies), START) * torch.tensor(varies))
        self.actor_bias = nn.Parameter(torch.zeros(len(varies)))
        self.critic = nn.Parameter(orthogonal(memory, 1, 1.0))
        self.critic_bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("varies", None if all(varies) else torch.tensor(varies), persistent=False)

    varies: Tensor | None

    def forward(self, obs: Tree, state: Tensor, mask: Tensor | None = None) -> PolicyOutput:
        """Obs `[B, *]`, h_{t−1} `[B, 2, memory]` → π, h_t and V; mask `[B, A]` is True where an action is allowed."""
        h = self._remember(self._seen(obs), state.transpose(0, 1))
        return self._act(h, h.transpose(0, 1), mask)

    def sequence(self, obs: Tree, state: Tensor, done: Tensor, mask: Tensor | None = None) -> PolicyOutput:
        """T steps at once from h_0 `[B, 2, memory]`: obs `[T, B, *]`; h starts anew after each done `[T, B]`.

        The states it returns are those after each step, `[T, B, 2, memory]`.
        """
        seen, h, memory = self._seen(obs), state.transpose(0, 1), []
        keep = done.logical_not().to(h.dtype).unsqueeze(-1)
        for x, k in zip(seen.unbind(1), keep, strict=True):
            h = self._remember(x, h)
            memory.append(h)
            h = h * k
        both = torch.stack(memory, 1)
        return self._act(both, both.movedim(0, -2), mask)

    def initial_state(self, batch: int) -> Tensor:
        """h_0 = 0 `[B, 2, memory]`."""
        return self.recall.new_zeros(batch, 2, self.memory)

    def _seen(self, obs: Tree) -> Tensor:
        """What the obs say to the gates, of all steps at once: `[2, …, 3·memory]`."""
        x = self.stack(self.encode(obs))
        return torch.baddbmm(self.see_bias, x.flatten(1, -2), self.see).view(*x.shape[:-1], 3 * self.memory)

    def _remember(self, x: Tensor, h: Tensor) -> Tensor:
        old = torch.baddbmm(self.recall_bias, h, self.recall)
        m = self.memory
        r, z = (x[..., : 2 * m] + old[..., : 2 * m]).sigmoid().chunk(2, -1)
        new = torch.addcmul(x[..., 2 * m :], r, old[..., 2 * m :]).tanh()
        return torch.lerp(new, h, z)

    def _act(self, h: Tensor, state: Tensor, mask: Tensor | None) -> PolicyOutput:
        weight = self.actor if self.varies is None else self.actor * self.varies
        y = h[0] @ weight + self.actor_bias
        pi = self.distribution(y) if mask is None else self.distribution(y, mask)
        return PolicyOutput(pi, state, (h[1] @ self.critic + self.critic_bias).squeeze(-1))
