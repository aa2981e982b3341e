"""Networks for Q(s,a): plain ones with a backward pass by hand; dueling, distributional, noisy ones by autograd."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.core.distributions import Categorical
from volition.core.policy import PolicyOutput, Tree
from volition.nets.mlp import mlp
from volition.nets.stack import orthogonal


class QPolicy(nn.Module):
    """What all of them are as a policy: argmax_a Q(s,a), or with probability `epsilon` any legal action."""

    epsilon: float = 0.0

    def q(self, obs: Tree) -> Tensor:
        """Q(s,·) `[B, A]`."""
        raise NotImplementedError

    def forward(self, obs: Tree, state: None = None, mask: Tensor | None = None) -> PolicyOutput:
        """Obs `[B, *]` → π(·|s) and max_a Q(s,a); mask `[B, A]` is True where an action is legal."""
        q = legal(self.q(obs), mask)
        best, allowed = q.max(-1), q.isfinite()
        probs = allowed * (self.epsilon / allowed.sum(-1, keepdim=True))
        probs.scatter_add_(-1, best.indices[:, None], torch.full_like(probs, 1 - self.epsilon))
        return PolicyOutput(Categorical(probs.log()), None, best.values)

    def initial_state(self, batch: int) -> None:
        """Nothing is remembered."""
        return None

    def draw(self, generator: torch.Generator) -> None:
        """New noise, where the network has any."""


class QStack(QPolicy):
    """Q(s,·) of ReLU layers of the sizes `hidden`, with a backward pass by hand and a forward pass in NumPy.

    h_l = max(h_{l−1}·W_l + b_l, 0) and Q = h_L·Wᵀ + b: matrices are kept so that products with few columns are fast.
    `remember` and `backward` want `torch.no_grad`. First weights are orthogonal with gain √2, 1 for the last; biases 0.
    """

    def __init__(self, encode: Callable[[Tree], Tensor], inputs: int, actions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.encode = encode
        sizes = [inputs, *hidden]
        self.weights = nn.ParameterList(orthogonal(*s, math.sqrt(2)) for s in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(size) for size in hidden)
        self.last = nn.Parameter(orthogonal(actions, sizes[-1], 1.0))
        self.last_bias = nn.Parameter(torch.zeros(actions))
        self.layers = list(zip(self.weights, self.biases, strict=True))  # indexing a ParameterList takes 4 µs

    def q(self, obs: Tree) -> Tensor:
        return self.remember(self.encode(obs))[-1]

    def remember(self, x: Tensor) -> list[Tensor]:
        """Encoded obs `[B, inputs]` and what each layer made of them, the last being Q `[B, A]`."""
        memory = [x]
        for weight, bias in self.layers:
            x = torch.addmm(bias, x, weight).relu_()
            memory.append(x)
        memory.append(F.linear(x, self.last, self.last_bias))
        return memory

    def backward(self, memory: list[Tensor], gradient: Tensor) -> None:
        """Write ∂L/∂W and ∂L/∂b into the parameters' `.grad`, given ∂L/∂Q `[B, A]`.

        ∂L/∂z = ∂L/∂h · [h > 0];  ∂L/∂W = h_{l−1}ᵀ·∂L/∂z;  ∂L/∂h_{l−1} = ∂L/∂z·Wᵀ.
        """
        torch.mm(gradient.t(), memory[-2], out=self.last.grad)  # pyrefly: ignore
        torch.sum(gradient, 0, out=self.last_bias.grad)  # pyrefly: ignore
        gradient = torch.mm(gradient, self.last)
        for l in range(len(self.layers) - 1, -1, -1):
            weight, bias = self.layers[l]
            gradient = torch.ops.aten.threshold_backward(gradient, memory[l + 1], 0.0)
            torch.mm(memory[l].t(), gradient, out=weight.grad)  # pyrefly: ignore
            torch.sum(gradient, 0, out=bias.grad)  # pyrefly: ignore
            if l:
                gradient = torch.mm(gradient, weight.t())

    def in_numpy(self) -> Callable[[np.ndarray], np.ndarray]:
        """What maps encoded obs `[B, inputs]` to Q `[B, A]` in NumPy, on the weights as they are."""
        layers = [(w.detach().numpy(), b.detach().numpy()) for w, b in self.layers]
        last, bias = self.last.detach().numpy().T, self.last_bias.detach().numpy()

        def forward(x: np.ndarray) -> np.ndarray:
            for w, b in layers:
                x = x @ w
                x += b
                np.maximum(x, 0.0, out=x)
            x = x @ last
            x += bias
            return x

        return forward


class QNetwork(QPolicy):
    """Q(s,·) from features `trunk(obs)` `[B, features]` and one or two streams of `units` hidden units.

    dueling: Q = V + A − mean_a A, of two streams (Wang 2016, eq. 9). atoms `[K]`: the return's distribution,
    p(z_k|s,a) = softmax of logits `[B, A, K]`, and Q = Σ_k z_k·p_k (Bellemare 2017). noisy: both layers of each
    stream are `NoisyLinear`. All three together are Rainbow's (Hessel 2018).
    """

    atoms: Tensor | None

    def __init__(
        self,
        trunk: Callable[[Tree], Tensor],
        features: int,
        actions: int,
        units: int = 512,
        *,
        dueling: bool = False,
        atoms: Tensor | None = None,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.actions = trunk, actions
        self.register_buffer("atoms", atoms, persistent=False)
        self.each = 1 if atoms is None else len(atoms)
        linear = NoisyLinear if noisy else nn.Linear

        def stream(outputs: int) -> nn.Sequential:
            return nn.Sequential(linear(features, units), nn.ReLU(), linear(units, outputs))

        self.advantage = stream(actions * self.each)
        self.value = stream(self.each) if dueling else None
        self.noisy = [layer for layer in self.modules() if isinstance(layer, NoisyLinear)]

    def logits(self, obs: Tree) -> Tensor:
        """Outputs `[B, A, K]`; K = 1 without atoms, and then they are Q."""
        x = self.trunk(obs)
        advantage = self.advantage(x).unflatten(-1, (self.actions, self.each))
        if self.value is None:
            return advantage
        return self.value(x).unsqueeze(-2) + advantage - advantage.mean(-2, keepdim=True)

    def expected(self, logits: Tensor) -> Tensor:
        """Q `[B, A]` of outputs `[B, A, K]`."""
        return logits.squeeze(-1) if self.atoms is None else logits.softmax(-1) @ self.atoms

    def q(self, obs: Tree) -> Tensor:
        return self.expected(self.logits(obs))

    def draw(self, generator: torch.Generator) -> None:
        places = [noise for layer in self.noisy for noise in (layer.noise_in, layer.noise_out)]
        if places:
            sizes = [len(noise) for noise in places]
            x = torch.randn(sum(sizes), generator=generator, device=generator.device)
            for noise, part in zip(places, (x.sign() * x.abs().sqrt_()).split(sizes), strict=True):
                noise.copy_(part)


class Encoded(nn.Module):
    """Obs as vectors, then ReLU layers of the given sizes, in → …, a ReLU after the last too."""

    def __init__(self, encode: Callable[[Tree], Tensor], sizes: Sequence[int]) -> None:
        super().__init__()
        self.encode = encode
        self.layers = nn.Sequential(mlp(sizes), nn.ReLU()) if len(sizes) > 1 else nn.Identity()

    def forward(self, obs: Tree) -> Tensor:
        """`[B, *]` → `[B, sizes[−1]]`."""
        return self.layers(self.encode(obs))


class NoisyLinear(nn.Module):
    """y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b, ε_w = f(ε_out) f(ε_in)ᵀ, ε_b = f(ε_out), f(x) = sgn(x)·√|x|.

    f(ε) is in noise_in and noise_out, which `QNetwork.draw` draws; it counts in training mode only. μ ~ U(±1/√inputs),
    σ = 0.5/√inputs at first. (Fortunato 2018, eq. 9–11 and §3.2)
    """

    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, inputs: int, outputs: int, sigma: float = 0.5) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))
        self.register_buffer("noise_in", torch.zeros(inputs), persistent=False)
        self.register_buffer("noise_out", torch.zeros(outputs), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[…, inputs]` → `[…, outputs]`."""
        y = F.linear(x, self.weight, self.bias)
        if not self.training:
            return y
        # (σ_w ⊙ f(ε_out) f(ε_in)ᵀ) x = f(ε_out) ⊙ σ_w (f(ε_in) ⊙ x): no noise matrix is made
        return torch.addcmul(y, self.noise_out, F.linear(x * self.noise_in, self.weight_sigma, self.bias_sigma))


def legal(q: Tensor, mask: Tensor | None) -> Tensor:
    """Q with −∞ where an action is not allowed, `[B, A]`."""
    return q if mask is None else q.masked_fill(~mask, -torch.inf)
