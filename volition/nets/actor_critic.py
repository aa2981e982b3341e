"""π(a|s) and V(s) from two small networks, learned from without autograd's bookkeeping."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from volition.core.distributions import Categorical, Distribution
from volition.core.policy import PolicyOutput, Tree
from volition.nets.stack import Activation, Stack, orthogonal

START = 0.01  # gain of the policy's last layer: π begins near uniform, or centred, in every state


class Judgement(NamedTuple):
    """log π(a|s), H(π(·|s)) and V(s) `[B]` of a batch, and `backward(∂L/∂log π, ∂L/∂H, ∂L/∂V)` to the parameters."""

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    backward: Callable[[Tensor, Tensor, Tensor], None]


class ActorCritic(nn.Module):
    """Two networks of the same hidden sizes that share their input and nothing else; stateless.

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
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        self.encode, self.distribution = encode, distribution
        self.stack = Stack(2, [inputs, *hidden], activation)
        self.actor = nn.Parameter(orthogonal(hidden[-1], len(varies), START) * torch.tensor(varies))
        self.actor_bias = nn.Parameter(torch.zeros(len(varies)))
        self.critic = nn.Parameter(orthogonal(hidden[-1], 1, 1.0))
        self.critic_bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("varies", None if all(varies) else torch.tensor(varies), persistent=False)

    varies: Tensor | None

    def forward(self, obs: Tree, state: None = None, mask: Tensor | None = None) -> PolicyOutput:
        """Obs `[…, *]` → π(·|s) and V(s) `[…]`; mask `[…, A]` is True where an action is allowed."""
        mine, critics = self.stack(self.encode(obs)).unbind(0)
        weight = self.actor if self.varies is None else self.actor * self.varies
        pi = _distribution(self.distribution, mine @ weight + self.actor_bias, mask)
        return PolicyOutput(pi, None, (critics @ self.critic + self.critic_bias).squeeze(-1))

    def initial_state(self, batch: int) -> None:
        """Nothing is remembered."""
        return None

    @torch.no_grad()
    def values(self, obs: Tree) -> Tensor:
        """V(s) `[B]` without a graph."""
        return self._value(self.stack.remember(self.encode(obs))[-1])

    @torch.no_grad()
    def judge(self, obs: Tree, action: Tree, mask: Tensor | None = None) -> Judgement:
        """The policy's view of actions taken, all `[B, …]`; its `backward` writes every parameter's `.grad`."""
        memory = self.stack.remember(self.encode(obs))
        h = memory[-1]
        y = torch.addmm(self.actor_bias, h[0], self.actor)  # columns that do not vary have weight 0, always
        log_prob, entropy, head = _judge(self.distribution, y, mask, action)

        @torch.no_grad()
        def backward(d_log_prob: Tensor, d_entropy: Tensor, d_value: Tensor) -> None:
            d_y, d_v = head(d_log_prob, d_entropy), d_value.unsqueeze(-1)
            torch.mm(h[0].T, d_y, out=self.actor.grad)  # pyrefly: ignore
            if self.varies is not None:
                self.actor.grad.mul_(self.varies)  # pyrefly: ignore
            torch.sum(d_y, 0, out=self.actor_bias.grad)  # pyrefly: ignore
            torch.mm(h[1].T, d_v, out=self.critic.grad)  # pyrefly: ignore
            torch.sum(d_v, 0, out=self.critic_bias.grad)  # pyrefly: ignore
            gradient = torch.empty_like(h)
            torch.mm(d_y, self.actor.T, out=gradient[0])
            torch.mul(d_v, self.critic.T, out=gradient[1])
            self.stack.backward(memory, gradient)

        return Judgement(log_prob, entropy, self._value(h), backward)

    def outputs(self) -> Callable[[np.ndarray], np.ndarray]:
        """What maps encoded obs `[B, inputs]` to the policy's outputs `[B, A]` in NumPy, on the weights as they are."""
        layers, last, bias = self.stack.arrays(0), self.actor.detach().numpy(), self.actor_bias.detach().numpy()
        relu = self.stack.activation == "relu"

        def forward(x: np.ndarray) -> np.ndarray:
            for w, b in layers:
                x = x @ w
                x += b
                x = np.maximum(x, 0.0, out=x) if relu else np.tanh(x, out=x)
            x = x @ last
            x += bias
            return x

        return forward

    def _value(self, h: Tensor) -> Tensor:
        return torch.addmm(self.critic_bias, h[1], self.critic).squeeze(-1)


def judge(output: PolicyOutput, action: Tree) -> Judgement:
    """The same for any policy's output with a graph: autograd adds to the parameters' `.grad`."""
    log_prob, entropy, value = output.distribution.log_prob(action), output.distribution.entropy(), output.value
    assert value is not None

    def backward(*gradients: Tensor) -> None:
        torch.autograd.backward([log_prob, entropy, value], gradients)

    return Judgement(log_prob.detach(), entropy.detach(), value.detach(), backward)


def _distribution(distribution: Callable[..., Distribution], y: Tensor, mask: Tensor | None) -> Distribution:
    return distribution(y) if mask is None else distribution(y, mask)


def _judge(
    distribution: Callable[..., Distribution], y: Tensor, mask: Tensor | None, action: Tree
) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """log π(a), H and what maps ∂L/∂log π and ∂L/∂H to ∂L/∂y: in closed form where there is one."""
    pi = _distribution(distribution, y, mask)
    if isinstance(pi, Categorical):
        return pi.log_prob(action), pi.entropy(), lambda *gradients: pi.gradient(action, *gradients)
    with torch.enable_grad():
        y = y.requires_grad_()
        pi = _distribution(distribution, y, mask)
        both = [pi.log_prob(action), pi.entropy()]

    def head(*gradients: Tensor) -> Tensor:
        used = [(x, g) for x, g in zip(both, gradients, strict=True) if x.requires_grad]
        return torch.autograd.grad([x for x, _ in used], y, [g.expand_as(x) for x, g in used])[0]

    return both[0].detach(), both[1].detach(), head
