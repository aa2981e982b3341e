"""Replay of single steps: a uniform ring buffer, and n-step transitions put together on the way into one."""

from typing import Any

import torch
from torch import Tensor

from volition.core.policy import Tree, tree_map


class Replay:
    """The last `capacity` transitions, drawn uniformly with replacement (Lin 1992).

    example is a batch `[B, …]`: a tree of tensors, commonly {obs, action, reward, discount, next_obs}, of
    which the shapes and types are kept. Memory is reserved once. state_dict holds views of the buffer:
    write it before the next add.
    """

    def __init__(self, capacity: int, example: Tree, device: torch.device | str | None = None) -> None:
        if capacity < 1:
            raise ValueError("capacity must be 1 or more")
        self.capacity, self.size, self.position = capacity, 0, 0

        def reserve(x: Tensor) -> Tensor:
            return torch.empty((capacity, *x.shape[1:]), dtype=x.dtype, device=device or x.device)

        self.storage: Tree = tree_map(reserve, example)
        self.device = _leaves(self.storage)[0].device

    def __len__(self) -> int:
        return self.size

    def add(self, batch: Tree) -> Tensor:
        """Store B transitions `[B, …]` over the oldest ones; returns their places `[B]`."""
        count = len(_leaves(batch)[0])
        if count > self.capacity:
            raise ValueError(f"{count} transitions at once do not fit a replay of {self.capacity}")
        index = (self.position + torch.arange(count, device=self.device)) % self.capacity

        def write(row: Tensor, x: Tensor) -> None:
            if x.shape != (count, *row.shape[1:]):
                raise ValueError(f"expected [{count}, *{list(row.shape[1:])}], was given {list(x.shape)}")
            row[index] = x.to(row)

        tree_map(write, self.storage, batch)
        self.position = (self.position + count) % self.capacity
        self.size = min(self.size + count, self.capacity)
        return index

    def get(self, index: Tensor) -> Tree:
        """The transitions at places `[B]`."""
        return tree_map(lambda row: row[index], self.storage)

    def sample(self, batch: int, generator: torch.Generator) -> Tree:
        """`batch` transitions, each drawn with probability 1/N."""
        if self.size == 0:
            raise ValueError("the replay is empty")
        index = torch.randint(self.size, (batch,), generator=generator, device=generator.device)
        return self.get(index.to(self.device))

    def state_dict(self) -> dict[str, Any]:
        return {
            "storage": tree_map(lambda row: row[: self.size], self.storage),
            "capacity": self.capacity,
            "size": self.size,
            "position": self.position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["capacity"] != self.capacity:
            raise ValueError(f"a replay of {state['capacity']} does not fit one of {self.capacity}")
        self.size, self.position = state["size"], state["position"]

        def copy(row: Tensor, saved: Tensor) -> None:
            row[: self.size].copy_(saved)

        tree_map(copy, self.storage, state["storage"])


class NStep:
    """n-step transitions of B environments, right across the ends of episodes (Sutton 1988).

    reward = Σ_{i<m} γ^i r_{t+i}, discount = γ^m (1 − terminated), next_obs = s_{t+m}, where m = n, or fewer
    where the episode ended first. A truncated episode ends in its own final_obs and keeps its bootstrap; a
    terminated one has none.
    """

    def __init__(self, n: int, gamma: float) -> None:
        if n < 1:
            raise ValueError("n must be 1 or more")
        self.n, self.gamma = n, gamma
        self.slot = 0
        self.ring: Tree = None  # {obs, action} of the last n steps, [n, B, …]
        self.reward: Tensor | None = None  # Σ γ^i r so far, [n, B]
        self.waiting: Tensor | None = None  # steps of this episode that are not out yet, [B]

    def add(
        self, obs: Tree, action: Tree, reward: Tensor, terminated: Tensor, truncated: Tensor, next_obs: Tree
    ) -> dict[str, Any]:
        """One step of each environment, all `[B, …]`; returns the transitions `[K, …]` now complete, K ≤ n·B.

        next_obs is final_obs where the step ended an episode, not the first obs of the next one. Order:
        oldest first.
        """
        step = {"obs": obs, "action": action}
        if self.reward is None or self.waiting is None:
            self.ring = tree_map(lambda x: x.new_zeros((self.n, *x.shape)), step)
            self.reward = reward.new_zeros((self.n, *reward.shape))
            self.waiting = torch.zeros_like(reward, dtype=torch.long)
        elif self.reward.device != reward.device:  # a checkpoint's tensors lie on the CPU
            held = (self.ring, self.reward, self.waiting)
            self.ring, self.reward, self.waiting = tree_map(lambda x: x.to(reward.device), held)
        tree_map(lambda row, x: row[self.slot].copy_(x), self.ring, step)
        self.reward[self.slot] = 0
        waiting = (self.waiting + 1).clamp(max=self.n)

        # slots from the oldest step to this one, and how many steps ago each was
        ago = torch.arange(self.n - 1, -1, -1, device=reward.device)
        order = (self.slot - ago) % self.n
        live = ago[:, None] < waiting
        gains = self.gamma ** ago.to(reward)[:, None] * reward
        self.reward[order] += torch.where(live, gains, 0)

        done = terminated | truncated
        row, env = (live & (done | (ago[:, None] == self.n - 1))).nonzero(as_tuple=True)
        place = order[row]
        out = tree_map(lambda x: x[place, env], self.ring)
        out["reward"] = self.reward[place, env]
        out["discount"] = self.gamma ** (ago[row] + 1).to(reward) * (~terminated[env]).to(reward)
        out["next_obs"] = tree_map(lambda x: x[env], next_obs)
        self.waiting = torch.where(done, 0, waiting)
        self.slot = (self.slot + 1) % self.n
        return out

    def state_dict(self) -> dict[str, Any]:
        return {
            "ring": self.ring,
            "reward": self.reward,
            "waiting": self.waiting,
            "slot": self.slot,
            "n": self.n,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["n"] != self.n:
            raise ValueError(f"{state['n']}-step transitions do not continue as {self.n}-step ones")
        clone = tree_map(torch.clone, {k: state[k] for k in ("ring", "reward", "waiting")})
        self.ring, self.reward, self.waiting, self.slot = *clone.values(), state["slot"]


def _leaves(tree: Tree) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(found.append, tree)
    return found
