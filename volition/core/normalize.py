"""Running moments, and what is divided by them: observations, rewards, advantages."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class RunningMoments:
    """Mean and variance of everything seen so far, one batch at a time, in float64 (Chan 1979, eq. 2.1).

    With n, μ, M = Σ(x − μ)² of each part and δ = μ_B − μ_A: μ = μ_A + δ n_B/n, M = M_A + M_B + δ² n_A n_B/n.
    """

    def __init__(self, shape: Sequence[int] = (), device: torch.device | str | None = None) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(tuple(shape), dtype=torch.float64, device=device)
        self.squares = torch.zeros(tuple(shape), dtype=torch.float64, device=device)  # M

    @property
    def variance(self) -> Tensor:
        """M/n (that of the population), or 1 before anything was seen; `[*shape]` float64."""
        return torch.where(self.count > 0, self.squares / self.count.clamp(min=1), 1)

    def update(self, x: Tensor) -> None:
        """Take in a batch `[…, *shape]`."""
        x = x.detach().to(self.mean).reshape(-1, *self.mean.shape)
        if len(x) == 0:
            return
        mean = x.mean(0)
        squares = (x - mean).square().sum(0)
        count = self.count + len(x)
        delta = mean - self.mean
        self.mean = self.mean + delta * len(x) / count
        self.squares = self.squares + squares + delta.square() * self.count * len(x) / count
        self.count = count

    def normalize(self, x: Tensor, clip: float = 10.0, epsilon: float = 1e-8) -> Tensor:
        """(x − μ)/√(σ² + ε) clipped to ±clip, in the type of x (float32 for integers); `[…, *shape]`."""
        z = (x - self.mean) / (self.variance + epsilon).sqrt()
        return z.clamp(-clip, clip).to(x.dtype if x.is_floating_point() else torch.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["mean"].shape != self.mean.shape:
            raise ValueError(f"moments of {list(state['mean'].shape)} do not fit {list(self.mean.shape)}")
        for name in ("count", "mean", "squares"):
            setattr(self, name, state[name].to(self.mean).clone())


class ReturnNormalizer:
    """Divides rewards by the standard deviation of the discounted return so far (Engstrom 2020, §3 and A.2).

    R_t = γ R_{t−1} (1 − done_{t−1}) + r_t for each environment; r_t/√(Var R + ε), clipped. The mean stays:
    taking it away would change which behaviour is best.
    """

    def __init__(self, num_envs: int, gamma: float, device: torch.device | str | None = None) -> None:
        self.gamma = gamma
        self.moments = RunningMoments(device=device)
        self.total = torch.zeros(num_envs, dtype=torch.float64, device=device)  # R

    def update(self, reward: Tensor, done: Tensor, valid: Tensor | None = None) -> None:
        """Take in one step of each environment, `[B]`; done = terminated or truncated; what is not valid is no step."""
        self.total = self.gamma * self.total + reward
        self.moments.update(self.total if valid is None else self.total[valid])
        self.total = torch.where(done, 0, self.total)

    def normalize(self, reward: Tensor, clip: float = 10.0, epsilon: float = 1e-8) -> Tensor:
        """r/√(Var R + ε) clipped to ±clip; `[…]`."""
        return (reward / (self.moments.variance + epsilon).sqrt()).clamp(-clip, clip).to(reward.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self.moments.state_dict(), "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["total"].shape != self.total.shape:
            raise ValueError(f"returns of {len(state['total'])} environments do not fit {len(self.total)}")
        self.moments.load_state_dict(state["moments"])
        self.total = state["total"].to(self.total).clone()


def normalize_advantage(advantage: Tensor, mask: Tensor | None = None, epsilon: float = 1e-8) -> Tensor:
    """(A − μ)/(σ + ε) with μ, σ over the entries where mask is True (all, when None), 0 elsewhere; `[T, B]`.

    σ is that of the population; one entry alone gives 0.
    """
    if mask is None:
        std, mean = torch.std_mean(advantage, correction=0)
        return (advantage - mean) / (std + epsilon)
    weight = mask.to(advantage)
    count = weight.sum().clamp(min=1)
    advantage = torch.where(weight > 0, advantage, 0.0)  # padding may hold anything, nan too
    mean = advantage.sum() / count
    centred = (advantage - mean) * weight
    return centred / ((centred.square().sum() / count).sqrt() + epsilon)
