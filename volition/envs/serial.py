"""Python environments played one after the other, with little around each step."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

Write = Callable[[int, Any], None]


class SerialVectorEnv(SyncVectorEnv):
    """Gymnasium's SyncVectorEnv with SAME_STEP autoreset, in a third of the time around a step.

    What `step` returns is written over by the next. An info is made only of what the environments tell.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env]]) -> None:
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        self._write = _writer(self.single_observation_space, self._observations)
        self._trees = isinstance(self.single_action_space, spaces.Dict | spaces.Tuple)
        self._steps = [env.step for env in self.envs]

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every environment, and begin the next episode at once where one ends."""
        rows = iterate(self.action_space, actions) if self._trees else actions
        rewards, terminations, truncations = self._rewards, self._terminations, self._truncations
        infos: dict[str, Any] = {}
        i = 0
        for action, step in zip(rows, self._steps, strict=True):
            obs, rewards[i], over, cut, info = step(action)
            terminations[i], truncations[i] = over, cut
            if over or cut:
                infos = self._add_info(infos, {"final_obs": obs, "final_info": info}, i)
                obs, info = self.envs[i].reset()
            if info:
                infos = self._add_info(infos, info, i)
            self._env_obs[i] = obs
            self._write(i, obs)
            i += 1
        return self._observations, rewards, terminations, truncations, infos


def _writer(space: spaces.Space[Any], out: Any) -> Write:
    """A function that puts one environment's obs into the batch, as fast as its kind allows."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        keys = list(space.keys()) if isinstance(space, spaces.Dict) else list(range(len(space)))
        parts = [(key, _writer(space[key], out[key])) for key in keys]

        def write(i: int, obs: Any) -> None:
            for key, part in parts:
                part(i, obs[key])

        return write
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return out.__setitem__  # any number may become a float; the shape was checked by the reset
    return lambda i, obs: np.copyto(out[i : i + 1], obs, casting="same_kind")  # no float may become a whole number
