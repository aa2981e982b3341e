"""Playing T steps at a time into memory that is made once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from volition.core.policy import Tree, tree_leaf, tree_map
from volition.core.rollout import EpisodeStatistics
from volition.errors import VolitionError

Act = Callable[[Tree, Any], Tree]


class Steps(NamedTuple):
    """T steps of N environments: views of the collector's memory, which the next `collect` overwrites.

    obs `[T+1, N, …]`, action `[T, N, …]`, reward, terminated, truncated `[T, N]`; `valid` is False on the rows that an
    environment spent on a reset. `fresh` `[T+1, N]` is True where an episode begins. `final` holds the places t·N + n
    `[K]` of the steps that were truncated and the obs `[K, …]` they led to. `mask` `[T+1, N, A]`, if the
    environment says which actions are legal.
    """

    obs: Tree
    action: Tree
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    fresh: Tensor
    final: tuple[Tensor, Tree]
    mask: Tensor | None

    @property
    def done(self) -> Tensor:
        """Whether step t ended its episode `[T, N]`."""
        return self.fresh[1:]

    def next_obs(self) -> Tree:
        """s_{t+1} as step t saw it `[T, N, …]`: before any reset where it matters, which is where t was truncated."""
        places, final = self.final
        following = tree_map(lambda x: x[1:], self.obs)
        if len(places) == 0:
            return following

        def put(x: Tensor, last: Tensor) -> Tensor:
            x = x.clone()
            x.view(-1, *x.shape[2:])[places] = last
            return x

        return tree_map(put, following, final)

    def next_value(self, value: Tensor, final_value: Tensor | None) -> Tensor:
        """V(s_{t+1}) as step t saw it `[T, N]`, from V of `obs` `[T+1, N]` and of `final` `[K]`, if there are any."""
        following = value[1:]
        if final_value is not None:
            following = following.clone()
            following.view(-1)[self.final[0]] = final_value
        return following


class Collector:
    """Plays T steps of an environment (`volition.envs.vector`) at a time; goes on where it stopped.

    `collect(act)` calls `act(obs, fresh)` with the rows `[N, …]` of each step: NumPy arrays for environments that
    speak NumPy, on a CPU, and tensors for others (`arrays` says which); it answers with actions `[N, …]` of that kind.
    """

    def __init__(self, env: Any, steps: int) -> None:
        self.env, self.steps, self.num_envs = env, steps, env.num_envs
        self.arrays = bool(env.arrays) and env.device.type == "cpu"
        self.statistics = EpisodeStatistics(env.num_envs)
        self._memory: dict[str, Tree] = {}
        self._nowhere = torch.empty(0, dtype=torch.long, device=env.device)
        self._begun = False

    def collect(self, act: Act) -> Steps:
        """Play T steps."""
        if self.env.obs is None:
            raise ValueError("reset the environment first")
        if not self._memory:
            self._reserve()
        memory, rows = self._memory, self._rows
        obs_rows, fresh_rows, mask_rows = rows["obs"], rows["fresh"], rows["mask"]
        self._start(obs_rows, fresh_rows, mask_rows)
        memory["valid"].fill_(True)
        step = self.env.step_arrays if self.arrays else self.env.step
        reward_rows, terminated_rows, truncated_rows = rows["reward"], rows["terminated"], rows["truncated"]
        finals: list[tuple[int, Any, Tree]] = []
        for t in range(self.steps):
            action = act(obs_rows[t], fresh_rows[t])
            obs, reward, terminated, truncated, info = step(action)
            if t == 0 and rows["action"] is None:
                self._reserve_actions(action)
            _put(rows["action"][t], action)
            _put(obs_rows[t + 1], obs)
            reward_rows[t][...] = reward
            terminated_rows[t][...] = terminated
            truncated_rows[t][...] = truncated
            fresh_rows[t + 1][...] = terminated | truncated
            if info:
                if "ignored" in info:
                    rows["valid"][t][...] = ~info["ignored"]
                if "final_obs" in info and truncated.any():
                    places = truncated.nonzero()
                    places = places[0] if self.arrays else places.squeeze(-1)
                    finals.append((t, places, _select(info["final_obs"], places)))
            if mask_rows is not None:
                mask_rows[t + 1][...] = self._mask()
        steps = Steps(
            *(memory[name] for name in ("obs", "action", "reward", "terminated", "truncated", "valid", "fresh")),
            final=self._final(finals),
            mask=memory["mask"],
        )
        if mask_rows is None and self.env.mask is not None:
            raise VolitionError(
                f"{self.env.env} tells its action_mask after a step, but not at its reset: tell it always"
            )
        games = getattr(self.env.env, "games", None)
        if games is None:
            self.statistics.update(steps.reward, steps.done, steps.valid)
        else:  # the environment knows what a whole game is, and its score: lives may end episodes, rewards be clipped
            self.statistics.add(games)
            games.clear()
        return steps

    def state_dict(self) -> dict[str, Any]:
        """Which episodes are about to begin, and the episodes under way; the environment is tracked by itself."""
        state = {"statistics": self.statistics.state_dict(), "fresh": None}
        return state | {"fresh": self._memory["fresh"][-1]} if self._memory else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`, with an environment that does too."""
        self.statistics.load_state_dict(state["statistics"])
        if state["fresh"] is not None:
            self._reserve()
            self._memory["fresh"][-1].copy_(state["fresh"])
            self._begun = True

    def _start(self, obs_rows: list[Tree], fresh_rows: list[Any], mask_rows: list[Any] | None) -> None:
        """Row 0 is where the last collect stopped, as the environment tells it."""
        _put(obs_rows[0], tree_map(lambda x: x.numpy(), self.env.obs) if self.arrays else self.env.obs)
        if self._begun:
            fresh_rows[0][...] = fresh_rows[-1]
        else:
            fresh_rows[0][...] = True
        if mask_rows is not None:
            mask_rows[0][...] = self._mask()
        self._begun = True

    def _mask(self) -> Any:
        return np.asarray(self.env.mask) if self.arrays else torch.as_tensor(self.env.mask)

    def _reserve(self) -> None:
        shape, device = (self.steps, self.num_envs), self.env.device

        def more(x: Tensor) -> Tensor:
            return torch.empty(self.steps + 1, *x.shape, dtype=x.dtype, device=device)

        flags = {name: torch.zeros(shape, dtype=torch.bool, device=device) for name in ("terminated", "truncated")}
        self._memory = flags | {
            "obs": tree_map(more, self.env.obs),
            "action": None,
            "reward": torch.zeros(shape, device=device),
            "valid": torch.ones(shape, dtype=torch.bool, device=device),
            "fresh": torch.ones(self.steps + 1, self.num_envs, dtype=torch.bool, device=device),
            "mask": None if self.env.mask is None else more(torch.as_tensor(self.env.mask)),
        }
        # the rows of all steps are made once: indexing anew at each step would cost as much as a small network
        self._rows: dict[str, Any] = {name: self._views(x) for name, x in self._memory.items()}

    def _reserve_actions(self, action: Tree) -> None:
        """The first action shows their form."""
        like = tree_map(torch.as_tensor, action)
        empty = tree_map(lambda x: torch.empty(self.steps, *x.shape, dtype=x.dtype, device=self.env.device), like)
        self._memory["action"], self._rows["action"] = empty, self._views(empty)

    def _views(self, tree: Tree) -> list[Tree] | None:
        if tree is None:
            return None
        length = len(tree_leaf(tree))
        return [tree_map(lambda x, t=t: x[t].numpy() if self.arrays else x[t], tree) for t in range(length)]

    def _final(self, finals: list[tuple[int, Any, Tree]]) -> tuple[Tensor, Tree]:
        memory = self._memory
        if finals:
            places = torch.cat([torch.as_tensor(n) + t * self.num_envs for t, n, _ in finals])
            final = tree_map(lambda *x: torch.cat([torch.as_tensor(y) for y in x]), *(f for _, _, f in finals))
            return places, tree_map(lambda x, like: x.to(like.dtype), final, memory["obs"])
        if self.arrays and not memory["truncated"].numpy().any():
            return self._nowhere, None
        # an environment that resets late shows an episode's last obs as the next one
        places = (memory["truncated"] & memory["valid"]).flatten().nonzero().squeeze(-1)
        if len(places) == 0:
            return self._nowhere, None
        return places, tree_map(lambda x: x[1:].flatten(0, 1)[places], memory["obs"])


def _put(to: Tree, what: Tree) -> None:
    """Copy into memory that is there."""
    if isinstance(to, dict):
        for key, part in to.items():
            _put(part, what[key])
    elif isinstance(to, tuple | list):
        for part, x in zip(to, what, strict=True):
            _put(part, x)
    else:
        to[...] = what


def _select(tree: Tree, places: Any) -> Tree:
    return tree_map(lambda x: x[places], tree)
