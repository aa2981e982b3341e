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


class PrioritizedReplay:
    """P(i) = p_i^α / Σ_k p_k^α, weights w_i = (N · P(i))^−β / max_j w_j (Schaul 2016, eq. 1, §3.4).

    α = 0.6 and β from 0.4 to 1 are the paper's for proportional priorities (§4). New transitions get the
    greatest priority so far, so that each is seen (algorithm 1, line 6). The maximum of w is over the
    batch.
    """

    def __init__(
        self, capacity: int, example: Tree, alpha: float = 0.6, device: torch.device | str | None = None
    ) -> None:
        self.replay = Replay(capacity, example, device)
        self.tree = SumTree(capacity, self.replay.device)
        self.alpha = alpha
        self.greatest = 1.0  # p_1 = 1 (algorithm 1, line 2)

    def __len__(self) -> int:
        return len(self.replay)

    def add(self, batch: Tree) -> Tensor:
        """Store B transitions `[B, …]` over the oldest ones; returns their places `[B]`."""
        index = self.replay.add(batch)
        self.tree.set(
            index, torch.full(index.shape, self.greatest**self.alpha, dtype=torch.float64, device=index.device)
        )
        return index

    def sample(self, batch: int, beta: float, generator: torch.Generator) -> tuple[Tree, Tensor, Tensor]:
        """`batch` transitions, their places and weights w `[B]`: one from each of B equal parts of Σ p."""
        if len(self) == 0:
            raise ValueError("the replay is empty")
        uniform = torch.rand(batch, generator=generator, dtype=torch.float64, device=generator.device)
        uniform = uniform.to(self.replay.device)
        part = torch.arange(batch, device=uniform.device)
        index = self.tree.find((part + uniform) / batch * self.tree.total)  # appendix B.2.1
        probability = self.tree.get(index) / self.tree.total
        weight = (len(self) * probability) ** -beta
        return self.replay.get(index), index, (weight / weight.max()).float()

    def update(self, index: Tensor, error: Tensor, epsilon: float = 1e-6) -> None:
        """p_i ← |δ_i| + ε for the places and TD errors `[B]` of a batch (§3.3)."""
        priority = error.detach().abs().double() + epsilon
        self.greatest = max(self.greatest, priority.max().item())
        self.tree.set(index, priority**self.alpha)

    def state_dict(self) -> dict[str, Any]:
        used = -(-len(self) // WIDTH)
        # the sums go along as they are: adding them up anew may round anew
        levels = [self.tree.levels[0][:used], *self.tree.levels[1:]]
        return {"replay": self.replay.state_dict(), "levels": levels, "greatest": self.greatest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.replay.load_state_dict(state["replay"])
        self.greatest = state["greatest"]
        for level, saved in zip(self.tree.levels, state["levels"], strict=True):
            level.zero_()
            level[: len(saved)] = saved.to(level)
