"""What the recipes of tabular processes share: the process of the settings, and how a table of π plays in it."""

from bisect import bisect_right
from pathlib import Path
from typing import Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from volition.core.mdp import MDP
from volition.envs.grid import Grid, grid_of, lake, strip_grid
from volition.envs.tabular import MDPEnv, from_gymnasium, read_npz
from volition.envs.vector import make_one
from volition.errors import VolitionError
from volition.run import Run


class Settings(Protocol):
    """The settings that say which process it is, and how it is played."""

    @property
    def env(self) -> str: ...
    @property
    def map(self) -> str: ...
    @property
    def slippery(self) -> bool: ...
    @property
    def gamma(self) -> float: ...
    @property
    def updates(self) -> int: ...
    @property
    def episodes(self) -> int: ...
    @property
    def limit(self) -> int: ...


def problem(config: Settings, run: Run, env: gymnasium.Env | None = None) -> tuple[MDP, gymnasium.Env, Grid]:
    """The MDP of the settings, or of the user's own `env`, the environment to play it in and a map of its states."""
    if config.episodes < 2 or config.updates < 1 or config.limit < 0:
        raise VolitionError("episodes must be at least 2, updates at least 1 and limit at least 0")
    limit = config.limit or 1_000
    if env is None and config.env.endswith(".npz"):
        run.dataset = Path(config.env).name
        mdp, grid = read_npz(config.env, config.gamma)
        env = gymnasium.wrappers.TimeLimit(MDPEnv(mdp), limit)
        return mdp, env, grid or strip_grid(mdp.states, mdp.actions)
    env = single(config) if env is None else env
    mdp = from_gymnasium(env, config.gamma)
    if env.spec is not None and env.spec.max_episode_steps is None:
        env = gymnasium.wrappers.TimeLimit(env, limit)
    return mdp, env, grid_of(env) or strip_grid(mdp.states, mdp.actions)


def single(config: Settings) -> gymnasium.Env:
    """One environment of the settings."""
    options = {"max_episode_steps": config.limit} if config.limit else {}
    if config.env.startswith("FrozenLake"):
        options |= lake(config.map) | {"is_slippery": config.slippery}
    elif config.env.startswith("CliffWalking"):
        options |= {"is_slippery": config.slippery}
    return make_one(config.env, options)


def simulate(
    env: gymnasium.Env, pi: Tensor, gamma: float, episodes: int, seed: int, grid: Grid | None = None, first: int = 0
) -> dict[str, float]:
    """Play π(a|s) `[S, A]` in the environment: means over episodes, and their standard errors (_se).

    return, discounted return, success (terminated, and not in a hole) and steps; states are counted from `first`.
    """
    generator = torch.Generator().manual_seed(seed)
    cumulative = pi.cumsum(-1).clamp(max=1).tolist()
    letters = {} if grid is None else dict(zip(next(iter(grid.panels.values())).flat, grid.letters.flat, strict=True))
    begin = int(getattr(env.action_space, "start", 0))
    rows, uniform = [], list[float]()
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        total, discounted, steps, discount, done, terminated = 0.0, 0.0, 0, 1.0, False, False
        while not done:
            if steps % 128 == 0:  # one draw for many steps
                uniform = torch.rand(128, generator=generator, dtype=torch.float64).tolist()
            row = cumulative[obs - first]
            action = min(bisect_right(row, uniform[steps % 128]), len(row) - 1)
            obs, reward, terminated, truncated, _ = env.step(action + begin)
            total, discounted = total + float(reward), discounted + discount * float(reward)
            steps, discount, done = steps + 1, discount * gamma, terminated or truncated
        rows.append((total, discounted, float(terminated and letters.get(obs) != "H"), steps))
    table = np.array(rows)
    mean, error = table.mean(0), table.std(0, ddof=1) / np.sqrt(len(table))
    names = ("return", "discounted", "success", "steps")
    errors = {f"{name}_se": e for name, e in zip(names, error.tolist(), strict=True)}
    return dict(zip(names, mean.tolist(), strict=True)) | errors
