"""Small environments in which seeing is not enough: CartPole without velocities, and a cue to be remembered."""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.vector.utils import batch_space

from volition.errors import VolitionError

PLACES = [0, 2]  # of CartPole's obs: where the cart is and how the pole leans


class CartPoleNoVelocity(CartPoleEnv):
    """CartPole whose obs `[2]` are positions only: velocities must be remembered from the steps before."""

    def __init__(self, sutton_barto_reward: bool = False, render_mode: str | None = None) -> None:
        super().__init__(sutton_barto_reward, render_mode)
        self.observation_space = _places(self.observation_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode."""
        obs, info = super().reset(seed=seed, options=options)
        return obs[PLACES], info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, Literal[False], dict]:
        """Push the cart left or right."""
        obs, reward, terminated, truncated, info = super().step(action)
        return obs[PLACES], reward, terminated, truncated, info


class CartPoleNoVelocityVector(CartPoleVectorEnv):
    """B of them in NumPy, by Gymnasium's own vector form."""

    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        super().__init__(num_envs, **settings)
        self.single_observation_space = _places(self.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin B episodes."""
        obs, info = super().reset(seed=seed, options=options)
        return obs[:, PLACES], info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Push each cart left or right."""
        obs, reward, terminated, truncated, info = super().step(action)
        return obs[:, PLACES], reward, terminated, truncated, info


class Memory(gymnasium.Env):
    """One of `cues` is shown, then `blanks` times nothing, then a question: naming the cue earns 1, all else 0.

    obs: 0 nothing, 1 … cues the cue, cues + 1 the question. The optimum is 1; without memory it is 1/cues.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, cues: int = 2, blanks: int = 4, render_mode: str | None = None) -> None:
        if cues < 1 or blanks < 0:
            raise VolitionError(f"Memory-v0: cues {cues} must be 1 or more, and blanks {blanks} 0 or more")
        self.cues, self.blanks, self.render_mode = cues, blanks, render_mode
        self.observation_space, self.action_space = spaces.Discrete(cues + 2), spaces.Discrete(cues)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        """Show a cue."""
        super().reset(seed=seed)
        self.cue, self.steps = int(self.np_random.integers(self.cues)), 0
        return 1 + self.cue, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict]:
        """Wait or, at the question, answer."""
        self.steps += 1
        if self.steps == self.blanks + 2:
            return 0, float(action == self.cue), True, False, {}
        return self.cues + 1 if self.steps == self.blanks + 1 else 0, 0.0, False, False, {}


def _places(space: Any) -> spaces.Box:
    return spaces.Box(space.low[PLACES], space.high[PLACES])
