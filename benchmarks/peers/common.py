"""What the drivers of rl_speed.py share: settings, clocks, and the one line of JSON that a driver prints.

A driver runs in the peers' own Python, so nothing here needs more than the standard library.
"""

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

ENV, GAME = "CartPole-v1", "ALE/Breakout-v5"
GOAL, EPISODES = 475.0, 100  # "solved" is a mean return of 475 over 100 episodes, as Gymnasium registers CartPole-v1


@dataclass(frozen=True)
class PPO:
    """Actor and critic of 64-64 tanh units each, Adam (ε 1e-5), gradient norm .5; `value` weighs the squared error.

    With `env` an Atari game both are linear layers on one convolutional network (Mnih 2015, 512 units), and the game is
    played as there: 4 frames a step, 4 grey pictures of 84 × 84, a lost life ends an episode, rewards cut to ±1.
    """

    env: str = ENV
    num_envs: int = 8
    steps: int = 128
    minibatch: int = 256
    epochs: int = 4
    gamma: float = 0.99
    lam: float = 0.95
    lr: float = 2.5e-4
    anneal: bool = True
    clip: float = 0.2
    anneal_clip: bool = False
    value_clip: bool = False
    value: float = 0.5
    entropy: float = 0.0
    total: int = 98 * 1024


@dataclass(frozen=True)
class A2C:
    """The same networks, RMSProp (α .99, ε 1e-5), gradient norm .5."""

    num_envs: int = 8
    steps: int = 5
    gamma: float = 0.99
    lam: float = 1.0
    lr: float = 7e-4
    value: float = 0.5
    entropy: float = 0.0
    total: int = 2_500 * 40


@dataclass(frozen=True)
class DQN:
    """One network of 120-84 ReLU units, Adam; ε falls from 1 to .05 over the first half of `total` steps."""

    num_envs: int = 1
    replay: int = 10_000
    gamma: float = 0.99
    lr: float = 2.5e-4
    batch: int = 128
    train_every: int = 10
    target_every: int = 500
    learning_starts: int = 10_000
    total: int = 200_000


Setting = PPO | A2C | DQN
SETTINGS: dict[str, Setting] = {
    # Stable-Baselines3's defaults, its zoo's CartPole-v1, CleanRL's ppo.py with 8 environments
    "ppo-A": PPO(steps=2048, minibatch=64, epochs=10, lr=3e-4, anneal=False, total=6 * 16_384),
    "ppo-B": PPO(steps=32, epochs=20, gamma=0.98, lam=0.8, lr=1e-3, anneal_clip=True, total=390 * 256),
    "ppo-C": PPO(value_clip=True, value=0.25, entropy=0.01),
    # what our recipe does unless told otherwise: more environments, larger minibatches
    "ppo-D": PPO(
        num_envs=64, steps=32, minibatch=512, epochs=6, gamma=0.98, lam=0.9, lr=3e-3, value=0.25, total=74 * 2048
    ),
    # many environments: 1,024, a million steps
    "ppo-E": PPO(
        num_envs=1_024,
        steps=32,
        minibatch=8_192,
        lr=3e-3,
        value_clip=True,
        value=0.25,
        entropy=0.01,
        total=31 * 32_768,
    ),
    "atari": PPO(env=GAME, clip=0.1, entropy=0.01, total=6 * 1_024),  # Schulman 2017, with 4 epochs
    "a2c": A2C(),  # Stable-Baselines3's defaults, 8 environments as its zoo
    "dqn": DQN(),  # CleanRL's dqn.py, which trains for 500,000 steps
}


def small(setting: Setting) -> Setting:
    """The same kind of work, a few updates of it."""
    if isinstance(setting, DQN):
        return replace(setting, total=600, learning_starts=200)
    steps = min(setting.steps, 128)
    return replace(setting, steps=steps, total=3 * setting.num_envs * steps)


def cpu_seconds() -> float:
    """CPU time of this process, its threads and its finished children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


class Solved(Exception):
    """Leaves a training that has no other way out."""


class Meter:
    """Clocks of one training, its last 100 returns, and when their mean first reached 475."""

    def __init__(self, solve: bool = False, folder: Path | None = None) -> None:
        self.solve, self.folder = solve, folder
        self.returns: deque[float] = deque(maxlen=EPISODES)
        self.final: float | None = None
        self.compile_seconds = 0.0
        self.cpu = self.wall = 0.0
        self.steps = 0
        self.solved: tuple[float, int] | None = None

    def start(self) -> None:
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()

    def stop(self, steps: int) -> None:
        self.cpu, self.wall = cpu_seconds() - self._cpu, time.perf_counter() - self._wall
        self.steps = steps

    def episode(self, value: float, steps: int) -> bool:
        """Count an episode that ended after `steps` steps in all; whether training may stop."""
        self.returns.append(value)
        mean = sum(self.returns) / len(self.returns)
        if len(self.returns) == EPISODES:
            return self.mean(mean, steps)
        self.final = mean
        return False

    def mean(self, value: float, steps: int) -> bool:
        """The mean return of the last 100 episodes, for libraries that keep it; whether training may stop."""
        self.final = value
        if value >= GOAL and self.solved is None:
            self.solved = cpu_seconds() - self._cpu, steps
        return self.solve and self.solved is not None


def main(
    name: str, train: Callable[[Setting, int, Meter], None], packages: tuple[str, ...], warm_up: bool = True
) -> None:
    """Train once as the command line says and print the line; `train` starts and stops the meter.

    A few untimed updates come first, for what libraries import, build and cache at their first use; a driver whose
    library compiles warms up by itself and says what that took.
    """
    parser = argparse.ArgumentParser(description=f"one measurement of {name}")
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--steps", type=int, default=0, help="environment steps; 0 for the setting's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--solve", action="store_true", help=f"stop at a mean return of {GOAL:g}")
    parser.add_argument("--folder", type=Path, help="the peer's checkout, where it is no package")
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.setting]
    if arguments.steps:
        setting = replace(setting, total=arguments.steps)
    if warm_up:
        train(small(setting), arguments.seed, Meter(folder=arguments.folder))
    meter = Meter(arguments.solve, arguments.folder)
    train(setting, arguments.seed, meter)
    algorithm, _, kind = arguments.setting.partition("-")
    line = {
        "name": name, "algorithm": algorithm, "setting": kind, "seed": arguments.seed, "steps": meter.steps,
        "cpu_seconds": round(meter.cpu, 4), "wall_seconds": round(meter.wall, 4),
        "compile_seconds": round(meter.compile_seconds, 3),
        "final_return": None if meter.final is None else round(meter.final, 2),
        "solved_cpu_seconds": round(meter.solved[0], 3) if meter.solved else None,
        "solved_steps": meter.solved[1] if meter.solved else None,
        "packages": {package: metadata.version(package) for package in packages},
    }  # fmt: skip
    print(json.dumps(line))
