"""The lecture's τ: what happened, time-major."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from volition.core.distributions import Distribution
from volition.core.policy import PolicyOutput, Tree, tree_map


@dataclass(frozen=True)
class Transition:
    """One step (s, a, r, γ·(1 − terminated), s′) of a batch `[B, …]`: the discount says whether s′ counts."""

    obs: Tree
    action: Tree
    reward: Tensor
    discount: Tensor
    next_obs: Tree


@dataclass(frozen=True)
class Trajectory:
    """τ = {s₁, a₁, r₁, …, s_T, a_T, r_T} of B environments, every field `[T, B, …]`.

    discount = γ·(1 − terminated); done = terminated or truncated; next_value = V(s_{t+1}) as step t saw it, before
    any reset; mask is False where a row only pads. value and next_value are zero for a policy without a critic.
    state is the recurrent state before the first step; distribution is π(·|s_t) over `[T, B]` as it acted; outputs
    holds the policy's T outputs, with gradients if the graph through time was kept.
    """

    obs: Tree
    action: Tree
    log_prob: Tensor
    reward: Tensor
    discount: Tensor
    done: Tensor
    value: Tensor
    next_value: Tensor
    mask: Tensor
    state: Tree = None
    distribution: Distribution | None = None
    outputs: tuple[PolicyOutput, ...] = ()

    def __post_init__(self) -> None:
        shape = self.reward.shape
        for field in ("log_prob", "discount", "done", "value", "next_value", "mask"):
            if getattr(self, field).shape != shape:
                raise ValueError(f"Trajectory.{field} is {tuple(getattr(self, field).shape)}, reward {tuple(shape)}")

    @property
    def steps(self) -> int:
        """Environment steps that count: the number of True in mask."""
        return int(self.mask.sum())

    def to(self, device: torch.device | str) -> "Trajectory":
        """The same trajectory on `device`, but for distribution and outputs, which stay where they are."""
        moved = {
            f.name: tree_map(lambda x: x.to(device), getattr(self, f.name))
            for f in fields(self)
            if f.name not in ("distribution", "outputs")
        }
        return replace(self, **moved)
