"""Whole episodes: what an agent earns in them, and one to look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import torch
from torch import Tensor

from volition.core.collect import Act, Collector
from volition.core.policy import tree_map, tree_stack
from volition.core.trajectory import Trajectory
from volition.envs.agent import Agent, Player
from volition.envs.film import filmed
from volition.envs.spaces import action_head
from volition.envs.vector import TensorEnv, make
from volition.errors import VolitionError
from volition.run import Run

SIDE_BY_SIDE = 25  # environments of an evaluation, at most
LIMIT = 10_000  # steps of an evaluated episode where the environment has no limit of its own
BLOCK = 32  # steps played between two looks at what has ended


def build(name: str, run: Run, env: Any, num_envs: int, training: bool = False, **settings: Any) -> TensorEnv:
    """`num_envs` of the environment `name`, or of one's own; Atari games say that they are the real thing."""
    if env is None and name.startswith("ALE/"):
        run.dataset = "ALE"
    own = name if env is None else env
    alone = isinstance(own, gymnasium.Env)  # one object cannot be many
    return make(own, 1 if alone else num_envs, training=training, device=run.device, **settings)


def scores(env: TensorEnv, act: Act, episodes: int) -> Tensor:
    """Undiscounted returns of `episodes` whole episodes, from a fresh reset.

    Every environment plays the same number of them: taking the first to end would favour the short.
    """
    each = -(-episodes // env.num_envs)
    ended: list[list[float]] = [[] for _ in range(env.num_envs)]
    collector, total, length, limit = Collector(env, BLOCK), [0.0] * env.num_envs, 0, (env.limit or LIMIT) + 1
    while any(len(returns) < each for returns in ended):
        steps = collector.collect(act)
        rewards, dones, valid = (x.tolist() for x in (steps.reward, steps.done, steps.valid))
        for t in range(BLOCK):
            for n in range(env.num_envs):
                if valid[t][n]:
                    total[n] += rewards[t][n]
                    if dones[t][n]:
                        ended[n].append(total[n])
                        total[n] = 0.0
        length += BLOCK
        if length > limit * each + BLOCK:
            raise VolitionError(f"an episode of {env.env} has not ended after {limit - 1:,} steps: set limit")
    return torch.tensor([returns[i] for i in range(each) for returns in ended][:episodes])


def report(
    agent: Agent, name: str, run: Run, env: Any = None, episodes: int = 100, limit: int = 0
) -> dict[str, float | list[float]]:
    """Mean and standard deviation of the return of whole episodes: sampled, greedy, and of random actions."""
    if episodes < 1:
        raise VolitionError(f"episodes is {episodes}; it must be 1 or more")
    world = build(name, run, env, min(episodes, SIDE_BY_SIDE), limit=limit)
    if not world.limit and env is None:
        world.close()
        world = build(name, run, env, min(episodes, SIDE_BY_SIDE), limit=LIMIT)
    rows: dict[str, Callable[[], Act]] = {
        "return": lambda: Player(agent, world, run.generator, BLOCK),
        "greedy_return": lambda: Player(agent, world, run.generator, BLOCK, greedy=True),
        "random_return": lambda: random_actions(world, run.seed),
    }
    results: dict[str, float | list[float]] = {"episodes": episodes}
    for name, actor in rows.items():
        world.reset(seed=run.seed)
        earned = scores(world, actor(), episodes)
        results |= {name: earned.mean().item(), f"{name}_sd": earned.std(correction=min(1, episodes - 1)).item()}
    if env is None:
        world.close()
    return results


def random_actions(env: TensorEnv, seed: int) -> Act:
    """Uniformly random actions, of the legal ones where the environment says which they are."""
    env.seed_actions(seed)
    generator, choices = torch.Generator(env.device).manual_seed(seed), action_head(env.single_action_space)

    def act(obs: Any, fresh: Any) -> Any:
        if env.mask is not None:
            legal = torch.as_tensor(env.mask).to(env.device)
            action = choices.distribution(torch.zeros_like(legal, dtype=torch.float), legal).sample(generator)
        else:
            action = env.sample()
        return tree_map(lambda x: x.numpy(), action) if env.arrays and env.device.type == "cpu" else action

    return act


def film(agent: Agent, name: str, run: Run, env: Any = None, limit: int = 0) -> Path:
    """A greedy episode as a moving picture where the environment can be drawn, else as curves."""
    world, reel = filmed(name if env is None else env, limit, run.device)
    world.reset(seed=run.seed)
    player, rows = Player(agent, world, run.generator, greedy=True), []
    collector = Collector(world, 1)
    for _ in range(world.limit or LIMIT):
        steps = collector.collect(player)
        rows.append({"obs": steps.obs, "action": steps.action, "reward": steps.reward})
        rows[-1] = tree_map(lambda x: x[0, :1].clone(), rows[-1])  # of many environments the first
        if steps.done[0, 0]:
            break
    played = tree_stack(rows)
    zeros = torch.zeros_like(played["reward"])
    episode = Trajectory(
        **played, log_prob=zeros, discount=zeros, done=zeros.bool(), value=zeros, next_value=zeros,
        mask=torch.ones_like(zeros, dtype=torch.bool),
    )  # fmt: skip
    title = f"{name if env is None else world.env}: a greedy episode, return {played['reward'].sum():g}"
    return reel.develop(run.path("episode"), episode, title)
