"""Volition: the recipes `ppo`, `a2c` and `dqn` in memory, as anyone calls them."""

import importlib
from typing import Any

import torch

from benchmarks.peers.common import A2C, ENV, PPO, Meter, Setting, Solved, main
from volition.run import Run


class Watched(Run):
    """A run in memory that shows the meter what the recipe logs: the mean return of its last 100 episodes."""

    meter: Meter
    world: Any = None

    def track(self, **objects: Any) -> None:
        super().track(**objects)
        self.world = objects.get("env", self.world)

    def log(self, update: int, **scalars: float | torch.Tensor) -> None:
        super().log(update, **scalars)
        if "episode_return" in scalars and self.meter.mean(float(scalars["episode_return"]), self.world.steps):
            raise Solved


def config(setting: Setting, low: bool = False) -> tuple[Any, Any]:
    """The recipe and its settings; `low` computes convolutions in bfloat16."""
    if isinstance(setting, PPO):
        recipe: Any = importlib.import_module("volition.algorithms.ppo")
        return recipe, recipe.Config(
            env=setting.env, num_envs=setting.num_envs, horizon=setting.steps, epochs=setting.epochs,
            minibatches=setting.num_envs * setting.steps // setting.minibatch, gamma=setting.gamma, lam=setting.lam,
            clip=setting.clip, clip_value=setting.clip if setting.value_clip else 0.0, lr=setting.lr,
            anneal=setting.anneal, anneal_clip=setting.anneal_clip, value_coef=2 * setting.value,
            entropy=setting.entropy, max_norm=0.5, hidden=(64, 64) if setting.env == ENV else (512,), activation="tanh",
            low_precision=low, steps=setting.total,
        )  # fmt: skip
    if isinstance(setting, A2C):
        recipe = importlib.import_module("volition.algorithms.a2c")
        return recipe, recipe.Config(
            env=ENV, num_envs=setting.num_envs, horizon=setting.steps, gamma=setting.gamma, lam=setting.lam,
            lr=setting.lr, anneal=False, optimizer="rmsprop", eps=1e-10, square=0.0, value_coef=2 * setting.value,
            entropy=setting.entropy, max_norm=0.5, normalize_advantage=False, hidden=(64, 64), activation="tanh",
            steps=setting.total,
        )  # fmt: skip
    recipe = importlib.import_module("volition.algorithms.dqn")
    return recipe, recipe.Config(
        env=ENV, num_envs=setting.num_envs, horizon=setting.train_every, gradient_steps=1, steps=setting.total,
        learning_starts=setting.learning_starts, capacity=setting.replay, batch=setting.batch, gamma=setting.gamma,
        lr=setting.lr, anneal=False, optimizer="adam", loss="squared", max_norm=0.0, epsilon=1.0, epsilon_end=0.05,
        double=False, dueling=False, prioritised=False, n=1, atoms=1, noisy=False, tau=1.0,
        target_every=setting.target_every // setting.train_every, epsilon_steps=setting.total // 2, hidden=(120, 84),
    )  # fmt: skip


def train(setting: Setting, seed: int, meter: Meter, env: Any = None, low: bool = False) -> None:
    recipe, settings = config(setting, low)
    run = Watched(seed=seed, device="cpu")
    run.meter = meter
    meter.start()
    try:
        recipe.train(settings, run, env)
    except Solved:
        pass
    meter.stop(run.world.steps)  # without those that an environment spends on a reset


if __name__ == "__main__":
    main("Volition", train, ("torch", "gymnasium", "numpy"))
