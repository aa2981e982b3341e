"""Replay of single steps: a uniform ring buffer, and n-step transitions put together on the way into one."""

from collections.abc import Callable
from operator import itemgetter
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
        self._rows, self._pick = _leaves(self.storage)
        self._shapes = [row.shape[1:] for row in self._rows]
        self._build = _builder(self.storage)
        self.device = self._rows[0].device

    def __len__(self) -> int:
        return self.size

    def add(self, batch: Tree) -> Tensor:
        """Store B transitions `[B, …]` over the oldest ones; returns their places `[B]`."""
        given = [pick(batch) for pick in self._pick]
        count, start = len(given[0]), self.position
        if count > self.capacity:
            raise ValueError(f"{count} transitions at once do not fit a replay of {self.capacity}")
        for x, shape in zip(given, self._shapes, strict=True):
            if x.shape[1:] != shape or len(x) != count:
                raise ValueError(f"expected [{count}, *{list(shape)}], was given {list(x.shape)}")
        stop = start + count
        room = min(count, self.capacity - start)  # up to the end of the ring; the rest begins it anew
        for row, x in zip(self._rows, given, strict=True):
            if room == count:
                row[start:stop].copy_(x)
            else:
                row[start:].copy_(x[:room])
                row[: count - room].copy_(x[room:])
        self.position = stop % self.capacity
        self.size = min(self.size + count, self.capacity)
        index = torch.arange(start, stop, device=self.device)
        return index if room == count else index.remainder_(self.capacity)

    def get(self, index: Tensor) -> Tree:
        """The transitions at places `[B]`."""
        return self._build(iter([row.index_select(0, index) for row in self._rows]))

    def sample(self, batch: int, generator: torch.Generator) -> Tree:
        """`batch` transitions, each drawn with probability 1/N."""
        if self.size == 0:
            raise ValueError("the replay is empty")
        index = torch.randint(self.size, (batch,), generator=generator, device=generator.device)
        return self.get(index if index.device == self.device else index.to(self.device))

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
        self.waiting: dict[str, Any] | None = None  # the last n − 1 steps, [n − 1, B, …]; not all are still to come out

    def add(
        self,
        obs: Tree,
        action: Tree,
        reward: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        next_obs: Tree,
        valid: Tensor | None = None,
    ) -> dict[str, Any]:
        """T steps of each environment, all `[T, B, …]`; returns the transitions `[K, …]` now complete, oldest first.

        next_obs is final_obs where the step ended an episode, not the first obs of the next one. Steps that are not
        `valid` (an environment spent them on a reset) are no part of any transition; they follow the end of one.
        """
        if self.n == 1:
            discount = self.gamma * terminated.logical_not()
            step = {"obs": obs, "action": action, "reward": reward, "next_obs": next_obs, "discount": discount}
            flat = tree_map(_flatten, step)
            if valid is None or bool(valid.all()):
                return flat
            index = valid.flatten().nonzero().squeeze(-1)
            return tree_map(lambda x: x.index_select(0, index), flat)

        step = {"obs": obs, "action": action, "reward": reward, "terminated": terminated, "next_obs": next_obs}
        step |= {"done": terminated | truncated, "out": torch.ones_like(terminated) if valid is None else valid}
        if self.waiting is not None:
            waiting = tree_map(lambda x: x.to(reward.device), self.waiting)  # a checkpoint's tensors lie on the CPU
            step = tree_map(lambda *x: torch.cat(x), waiting, step)
        length, batch = step["reward"].shape
        gain, discount = torch.zeros_like(step["reward"]), torch.ones_like(step["reward"])
        last = torch.arange(length, device=gain.device)[:, None].expand(length, batch).clone()  # the m-th step
        live = torch.ones_like(step["done"])
        for i in range(min(self.n, length)):  # the i-th step after t is row t + i; the rows at the end lack it
            rows, ahead = slice(0, length - i), slice(i, length)
            now = live[rows]
            gain[rows] += self.gamma**i * torch.where(now, step["reward"][ahead], 0.0)
            discount[rows] *= torch.where(now, self.gamma * ~step["terminated"][ahead], 1.0)
            last[rows] += now & (i > 0)
            live[rows] = now & ~step["done"][ahead]
        whole = torch.arange(length, device=gain.device)[:, None] <= length - self.n
        complete = step["out"] & (whole | ~live)
        row, env = complete.nonzero(as_tuple=True)

        def keep(x: Tensor) -> Tensor:
            return x[max(0, length - self.n + 1) :].clone()

        self.waiting = tree_map(keep, step | {"out": step["out"] & ~complete})
        end = last[row, env]
        return {
            "obs": tree_map(lambda x: x[row, env], step["obs"]),
            "action": tree_map(lambda x: x[row, env], step["action"]),
            "reward": gain[row, env],
            "next_obs": tree_map(lambda x: x[end, env], step["next_obs"]),
            "discount": discount[row, env],
        }

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": self.waiting, "n": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["n"] != self.n:
            raise ValueError(f"{state['n']}-step transitions do not continue as {self.n}-step ones")
        self.waiting = tree_map(torch.clone, state["waiting"])


def _flatten(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def _leaves(tree: Tree) -> tuple[list[Tensor], list[Callable[[Tree], Tensor]]]:
    """The tensors of a tree, and functions that pick each from another tree of the same structure."""
    if isinstance(tree, Tensor):
        return [tree], [lambda tree: tree]
    found, picks = [], []
    for key in tree if isinstance(tree, dict) else range(len(tree)) if tree is not None else ():
        for x, pick in zip(*_leaves(tree[key]), strict=True):
            found.append(x)
            inner = isinstance(tree[key], Tensor)
            picks.append(itemgetter(key) if inner else lambda tree, key=key, pick=pick: pick(tree[key]))
    return found, picks


def _builder(tree: Tree) -> Callable[[Any], Tree]:
    """What makes a tree like this one of the next tensors of an iterator."""
    if tree is None:
        return lambda rows: None
    if isinstance(tree, dict):
        parts = {key: _builder(part) for key, part in tree.items()}
        return lambda rows: {key: part(rows) for key, part in parts.items()}
    if isinstance(tree, (tuple, list)):
        kind, items = type(tree), [_builder(part) for part in tree]
        named = hasattr(kind, "_fields")
        return lambda rows: kind(*(part(rows) for part in items)) if named else kind(part(rows) for part in items)
    return next
