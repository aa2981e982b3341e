"""What the parts of training cost on one machine, and what bounds it: environment steps, acting, updating, products."""

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import nn
from torch.distributions import Categorical

from benchmarks.peers.common import ENV, GAME, PPO, SETTINGS, Meter, cpu_seconds
from benchmarks.peers.ours import train
from volition.algorithms import ppo
from volition.envs.agent import Player
from volition.envs.vector import make
from volition.run import Run


def cost(work: Callable[[], Any], seconds: float = 0.5) -> float:
    """CPU-microseconds of one call, the median of five rounds."""
    for _ in range(10):
        work()
    begin, times = cpu_seconds(), 0
    while cpu_seconds() - begin < seconds / 5:
        work()
        times += 1
    rounds = []
    for _ in range(5):
        begin = cpu_seconds()
        for _ in range(times):
            work()
        rounds.append((cpu_seconds() - begin) / times)
    return 1e6 * sorted(rounds)[2]


def stepping(env: Any, num_envs: int) -> Callable[[], Any]:
    """One step of a vector environment, or with `num_envs` 0 of a single one with its resets."""
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = itertools.cycle(rng.integers(0, 2, (1_000, num_envs)) if num_envs else rng.integers(0, 2, 1_000).tolist())

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(next(actions))
        if not num_envs and (terminated or truncated):
            env.reset()

    return step


def nets() -> tuple[nn.Module, nn.Module]:
    """Actor and critic as everyone writes them."""

    def net(out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, out))

    return net(2), net(1)


def eager_act(batch: int) -> Callable[[], Any]:
    actor, critic = nets()
    obs = np.random.default_rng(0).normal(size=(batch, 4)).astype(np.float32)

    def act() -> None:
        with torch.no_grad():
            x = torch.as_tensor(obs)
            distribution = Categorical(logits=actor(x))
            action = distribution.sample()
            distribution.log_prob(action), critic(x), action.numpy()

    return act


def our_act(batch: int) -> Callable[[], Any]:
    env = make(ENV, batch)
    env.reset(seed=0)
    agent = ppo.train(ppo.Config(env=ENV, num_envs=batch, steps=batch), Run(device="cpu"))
    player = Player(agent, env, torch.Generator().manual_seed(0), 128)
    obs, fresh = np.random.default_rng(0).normal(size=(batch, 4)).astype(np.float32), np.zeros(batch, bool)
    return lambda: player(obs, fresh)


def eager_update(minibatch: int) -> Callable[[], Any]:
    """One step on a PPO minibatch: loss, backward, clipping, Adam."""
    actor, critic = nets()
    weights = [*actor.parameters(), *critic.parameters()]
    optim = torch.optim.Adam(weights, lr=1e-5, eps=1e-5)
    obs, action = torch.randn(minibatch, 4), torch.randint(2, (minibatch,))
    log_prob, advantage, target = -torch.rand(minibatch), torch.randn(minibatch), torch.randn(minibatch)

    def update() -> None:
        distribution = Categorical(logits=actor(obs))
        ratio = (distribution.log_prob(action) - log_prob).exp()
        scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        surrogate = torch.min(ratio * scaled, ratio.clamp(0.8, 1.2) * scaled).mean()
        error = (critic(obs).squeeze(-1) - target).square().mean()
        loss = -surrogate + 0.5 * error - 0.01 * distribution.entropy().mean()
        optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 0.5)
        optim.step()

    return update


def our_update(setting: PPO) -> tuple[float, float]:
    """CPU-microseconds of one minibatch and of all the rest of one update, per environment step.

    From two trainings, the second with twice the epochs: they differ in nothing but minibatches.
    """
    size = setting.num_envs * setting.steps
    updates = max(8, 20_000 // size)
    times: list[float] = []
    for factor in (1, 2):
        rounds = []
        for seed in range(3):
            meter = Meter()
            train(replace(setting, epochs=factor * setting.epochs, total=updates * size), seed, meter)
            rounds.append(meter.cpu)
        times.append(sorted(rounds)[1])
    passes = updates * setting.epochs
    one = (times[1] - times[0]) / (passes * size / setting.minibatch)
    return 1e6 * one, 1e6 * (2 * times[0] - times[1]) / (updates * size)


def product_rate(dtype: torch.dtype) -> float:
    """Floating-point operations per CPU-second of a large product."""
    x, w = torch.randn(2048, 256, dtype=dtype), torch.randn(256, 256, dtype=dtype)
    return 2 * 2048 * 256 * 256 / (1e-6 * cost(lambda: nn.functional.linear(x, w)))


def floors() -> dict[str, Any]:
    """What no training can pass: bare steps of each vector environment, and the rate of products."""
    steps = {"one, 1": 1e6 / cost(stepping(gymnasium.make(ENV), 0))}
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    for kind, name in (("sync", "SyncVectorEnv"), ("vector_entry_point", "CartPoleVectorEnv")):
        for size in (8, 64, 1_024):
            env = gymnasium.make_vec(ENV, size, vectorization_mode=kind, vector_kwargs=mode if kind == "sync" else None)
            steps[f"{name}, {size}"] = size * 1e6 / cost(stepping(env, size))
    game = make(GAME, 8, training=True, options={"num_threads": 1})
    game.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 4, (1_000, 8))
    turn = itertools.cycle(actions)
    rates = {"product": torch.float32, "bfloat16_product": torch.bfloat16}
    return {
        "steps_per_cpu_second": steps,
        "game_steps_per_cpu_second": 8e6 / cost(lambda: game.step_arrays(next(turn)), 2.0),
    } | {f"{name}_flops_per_cpu_second": product_rate(dtype) for name, dtype in rates.items()}


def parts() -> dict[str, Any]:
    """Acting and updating, as everyone writes it and as ours does."""
    act: dict[str, float] = {}
    for size in (8, 64):
        act |= {f"eager, {size}": cost(eager_act(size)), f"Volition, {size}": cost(our_act(size))}
    update, rest = {f"eager, {size}": cost(eager_update(size)) for size in (64, 256, 512)}, {}
    for name in ("ppo-A", "ppo-B", "ppo-C", "ppo-D"):
        setting = SETTINGS[name]
        assert isinstance(setting, PPO)
        if name == "ppo-A":
            setting = replace(setting, steps=256)  # shorter, the same minibatches
        update[f"Volition, {setting.minibatch} ({name})"], rest[name] = our_update(setting)
    return {"act_microseconds": act, "update_microseconds": update, "rest_microseconds_per_step": rest}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(floors() | ({} if "--floors" in sys.argv else parts())))
