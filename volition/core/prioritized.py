"""Prioritised experience replay (Schaul 2016): what surprised is drawn more often, and weighted back."""

from typing import Any

import torch
from torch import Tensor

from volition.core.policy import Tree
from volition.core.replay import Replay

WIDTH = 64  # children per node: few levels, and a row of them still fits in cache


class SumTree:
    """Draws i with probability p_i / Σ p in log₆₄ N steps, for a whole batch at once; float64.

    levels[0] are the p_i in rows of 64; every number of a higher level is the sum of one row of the level
    below, up to the last, which is a single row.
    """

    def __init__(self, capacity: int, device: torch.device | str | None = None) -> None:
        self.levels: list[Tensor] = []
        rows = capacity
        while rows > 1 or not self.levels:
            rows = -(-rows // WIDTH)
            self.levels.append(torch.zeros(rows, WIDTH, dtype=torch.float64, device=device))

    @property
    def total(self) -> Tensor:
        """Σ p, a scalar tensor."""
        return self.levels[-1].sum()

    def get(self, index: Tensor) -> Tensor:
        """p_i at places `[B]`."""
        return self.levels[0].view(-1)[index]

    def set(self, index: Tensor, priority: Tensor) -> None:
        """p_i ← priority ≥ 0, both `[B]`; where a place occurs twice its greatest priority counts."""
        leaves = self.levels[0].view(-1)
        leaves.scatter_reduce_(0, index, priority.double(), "amax", include_self=False)
        for below, level in zip(self.levels, self.levels[1:], strict=False):
            index = index // WIDTH
            level.view(-1)[index] = below[index].sum(-1)

    def find(self, mass: Tensor) -> Tensor:
        """i with Σ_{j<i} p_j ≤ mass < Σ_{j≤i} p_j for mass in [0, Σ p), `[B]`; never one with p_i = 0."""
        index, mass = torch.zeros_like(mass, dtype=torch.long), mass.double()
        for level in reversed(self.levels):
            row = level[index]
            upto = row.cumsum(-1)
            # rounding may push a mass past either end of its row, and there are places with p = 0
            mass = torch.minimum(mass, torch.nextafter(upto[:, -1], torch.zeros_like(mass))).clamp(min=0)
            child = (upto <= mass[:, None]).sum(-1, keepdim=True)
            mass = mass - (upto - row).gather(-1, child).squeeze(-1)
            index = index * WIDTH + child.squeeze(-1)
        return index


class Priorities:
    """P(i) = p_i^α / Σ_k p_k^α over places, weights w_i = (N · P(i))^−β / max_j w_j (Schaul 2016, eq. 1, §3.4).

    α = 0.6 and β from 0.4 to 1 are the paper's for proportional priorities (§4). New transitions get the
    greatest priority so far, so that each is seen (algorithm 1, line 6). The maximum of w is over the batch.
    """

    def __init__(self, capacity: int, alpha: float = 0.6, device: torch.device | str | None = None) -> None:
        self.tree = SumTree(capacity, device)
        self.alpha = alpha
        self.greatest = 1.0  # p_1 = 1 (algorithm 1, line 2)

    def begin(self, index: Tensor) -> None:
        """The greatest priority so far for places `[B]`."""
        self.tree.set(
            index, torch.full(index.shape, self.greatest**self.alpha, dtype=torch.float64, device=index.device)
        )

    def forget(self, index: Tensor) -> None:
        """Places `[B]` that must not be drawn."""
        self.tree.set(index, torch.zeros(index.shape, dtype=torch.float64, device=index.device))

    def draw(self, batch: int, generator: torch.Generator, parts: bool = True) -> Tensor:
        """Places `[B]`: one from each of B equal parts of Σ p (appendix B.2.1), or each from anywhere."""
        uniform = torch.rand(batch, generator=generator, dtype=torch.float64, device=generator.device)
        if parts:
            uniform = (torch.arange(batch, device=uniform.device) + uniform) / batch
        total = self.tree.total
        return self.tree.find(uniform.to(total.device) * total)

    def weight(self, index: Tensor, count: int, beta: float) -> Tensor:
        """w_i `[B]` of places that were drawn from `count` transitions."""
        weight = (count * self.tree.get(index) / self.tree.total) ** -beta
        return (weight / weight.max()).float()

    def update(self, index: Tensor, error: Tensor, epsilon: float = 1e-6) -> None:
        """p_i ← |δ_i| + ε for the places and TD errors `[B]` of a batch (§3.3)."""
        priority = error.detach().abs().double() + epsilon
        self.greatest = max(self.greatest, priority.max().item())
        self.tree.set(index, priority**self.alpha)

    def state_dict(self) -> dict[str, Any]:
        # the sums go along as they are: adding them up anew may round anew
        return {"levels": self.tree.levels, "greatest": self.greatest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.greatest = state["greatest"]
        for level, saved in zip(self.tree.levels, state["levels"], strict=True):
            level.copy_(saved)


class PrioritizedReplay:
    """A `Replay` drawn with P(i) ∝ p_i^α (Schaul 2016)."""

    def __init__(
        self, capacity: int, example: Tree, alpha: float = 0.6, device: torch.device | str | None = None
    ) -> None:
        self.replay = Replay(capacity, example, device)
        self.priorities = Priorities(capacity, alpha, self.replay.device)

    def __len__(self) -> int:
        return len(self.replay)

    def add(self, batch: Tree) -> Tensor:
        """Store B transitions `[B, …]` over the oldest ones; returns their places `[B]`."""
        index = self.replay.add(batch)
        self.priorities.begin(index)
        return index

    def sample(self, batch: int, beta: float, generator: torch.Generator) -> tuple[Tree, Tensor, Tensor]:
        """`batch` transitions, their places and weights w `[B]`."""
        if len(self) == 0:
            raise ValueError("the replay is empty")
        index = self.priorities.draw(batch, generator)
        return self.replay.get(index), index, self.priorities.weight(index, len(self), beta)

    def update(self, index: Tensor, error: Tensor, epsilon: float = 1e-6) -> None:
        """p_i ← |δ_i| + ε for the places and TD errors `[B]` of a batch."""
        self.priorities.update(index, error, epsilon)

    def state_dict(self) -> dict[str, Any]:
        return {"replay": self.replay.state_dict(), "priorities": self.priorities.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.replay.load_state_dict(state["replay"])
        self.priorities.load_state_dict(state["priorities"])
