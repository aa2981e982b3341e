"""An environment's position as the random state its episode began with and the actions since."""

import json
from typing import Any

import gymnasium
import numpy as np
import torch

from volition.core.policy import tree_map


class Recorded(gymnasium.Wrapper):
    """Remembers how the episode under way came about, so that it can be lived through again.

    `record` is the random state of `np_random` before the last reset (or the reset's seed), the reset's options and
    the actions since; setting it replays them. An episode of a million steps is a million actions remembered.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._start: dict[str, Any] | None = None
        self._actions: list[Any] = []
        self.replayed_obs: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begin an episode and a new record."""
        random = self.random_state if seed is None else ""
        self._start, self._actions = {"seed": seed, "options": options, "random": random}, []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """One step, noted; the action must not be written to afterwards."""
        self._actions.append(action)
        return self.env.step(action)

    @property
    def limit(self) -> int | None:
        """Steps after which a TimeLimit below cuts the episode off."""
        env, limits = self.env, []
        while isinstance(env, gymnasium.Wrapper):
            if isinstance(env, gymnasium.wrappers.TimeLimit):
                limits.append(env._max_episode_steps)
            env = env.env
        return min(limits, default=None)

    @property
    def random_state(self) -> str:
        """The state of `np_random` as JSON; empty where the environment has no such generator."""
        generator = getattr(self.env.unwrapped, "np_random", None)
        if not isinstance(generator, np.random.Generator):
            return ""
        return json.dumps(generator.bit_generator.state, default=lambda x: x.tolist())

    @property
    def record(self) -> dict[str, Any] | None:
        """Seed, options and random state of the last reset, the actions since `[L, …]`, and the random state now."""
        if self._start is None:
            return None
        actions = tree_map(lambda *rows: np.stack(rows), *self._actions) if self._actions else None
        return {**self._start, "actions": actions, "length": len(self._actions), "then": self.random_state}

    @record.setter
    def record(self, record: dict[str, Any]) -> None:
        if record["random"]:
            kind = type(self.env.unwrapped.np_random.bit_generator)
            generator = np.random.Generator(kind(0))  # a new one: the old one may be shared
            generator.bit_generator.state = json.loads(record["random"])
            self.env.unwrapped.np_random = generator
        self.replayed_obs, _ = self.env.reset(seed=record["seed"], options=record["options"])
        self._start = {key: record[key] for key in ("seed", "options", "random")}
        self._actions = [tree_map(lambda x, t=t: x[t], record["actions"]) for t in range(record["length"])]
        for action in self._actions:
            self.replayed_obs, *_ = self.env.step(action)


def as_tensors(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """A record as a checkpoint holds it."""
    return record and record | {"actions": tree_map(torch.from_numpy, record["actions"])}


def as_arrays(record: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `as_tensors`."""
    return record | {"actions": tree_map(lambda x: x.cpu().numpy(), record["actions"])}
