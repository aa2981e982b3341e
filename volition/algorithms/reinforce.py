"""REINFORCE, the policy gradient with a baseline: do more of what turned out better than expected.

Williams (1992), "Simple statistical gradient-following algorithms for connectionist reinforcement learning".

state    s_t, an observation (with memory: all observations so far)
action   a_t ~ p(a|s_t, θ), of any kind that Gymnasium's spaces describe
reward   r_t; R(τ) = Σ_t r_t, or discounted
training θ ← θ + η·(1/N) Σ_n Σ_t (R(τⁿ) − b) ∇ log p(a_tⁿ|s_tⁿ, θ) over N episodes, played anew for each update
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from volition.algorithms._episodes import build, film, report
from volition.core.losses import entropy_bonus, masked_mean, policy_gradient, value_loss
from volition.core.returns import discounted_return
from volition.core.rollout import rollout, unroll
from volition.core.trajectory import Trajectory
from volition.envs.agent import Agent
from volition.envs.spaces import action_head, encoder
from volition.envs.vector import TensorEnv
from volition.errors import VolitionError
from volition.nets.actor import Actor, RecurrentActor
from volition.run import Run

LIMIT = 1_000  # steps of an episode where the environment has no limit of its own


@dataclass(frozen=True)
class Config:
    env: str = "CartPole-v1"
    """A Gymnasium environment; one of your own is written module:Name-v0."""
    num_envs: int = 16
    """Episodes per update, N."""
    weighting: Literal["episode", "to_go"] = "to_go"
    """What an action is weighted by: R(τ) of the whole episode, or the rewards that came after it."""
    baseline: Literal["none", "constant", "time", "learned"] = "learned"
    """b: none, the mean weight over the other episodes' steps, their mean at the same step, or a learned V(s_t)."""
    gamma: float = 0.99
    """Discount γ; below 1 a learned V also stands for what a time limit cuts off."""
    lr: float = 1e-2
    """Learning rate η of the policy."""
    critic_lr: float = 1e-2
    """Learning rate of V."""
    anneal: bool = True
    """Lower both linearly to 0."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or the plain gradient step θ ← θ + η∇."""
    normalize: bool = True
    """Divide R − b by its root mean square over the batch, so that η need not fit the size of the rewards."""
    entropy: float = 0.0
    """Weight of the entropy H(p(·|s_t)), which keeps the policy exploring."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of policy and V."""
    memory: int = 0
    """Units of a GRU for environments that do not show their whole state; 0 for none."""
    limit: int = 0
    """Steps after which an episode is cut off; 0 keeps the environment's own limit (1,000 if it has none)."""
    updates: int = 120
    """Updates of training."""
    steps: int = 0
    """Stop after so many environment steps, discarded ones included; 0 for no such bound."""

    def __post_init__(self) -> None:
        for name in ("num_envs", "updates"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lr", "critic_lr", "entropy", "memory", "limit", "steps"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.gamma <= 1 or any(units < 1 for units in self.hidden):
            raise VolitionError(f"gamma {self.gamma} must lie in 0 … 1 and hidden {self.hidden} hold numbers above 0")


VARIANTS = {
    "tiny": Config(num_envs=4, hidden=(16,), limit=50, updates=30),
    "laptop": Config(),
    # the lecture's estimate as it stands on the slide, by plain gradient steps
    "paper": Config(
        weighting="episode", baseline="constant", gamma=1.0, lr=1e-3, anneal=False, optimizer="sgd", normalize=False,
        updates=10_000, steps=1_000_000,
    ),
    # the baselines side by side, at equal environment steps
    "none": Config(baseline="none", updates=10_000, steps=300_000),
    "constant": Config(baseline="constant", updates=10_000, steps=300_000),
    "time": Config(baseline="time", updates=10_000, steps=300_000),
    "learned": Config(updates=10_000, steps=300_000),
}  # fmt: skip
PAPER = {
    "metric": "return",
    "unit": "per episode",
    "better": "higher",
    "baselines": ("random_return",),
    "data": "",
    "source": "",
    "rows": {},
}


def train(config: Config, run: Run | None = None, env: Any = None) -> Agent:
    """Play N episodes, make one step along the estimated gradient, and so on."""
    run = run or Run()
    if config.num_envs < 2 and config.baseline in ("constant", "time"):
        raise VolitionError(f"the {config.baseline} baseline is the mean of other episodes: num_envs must be 2 or more")
    world = build(config.env, run, env, config.num_envs, True, limit=config.limit)
    world.reset(seed=run.seed)
    policy = make_agent(config, world).to(run.device)
    optimizer = make_optimizer(config, policy)
    run.track(policy=policy, optimizer=optimizer, env=world)
    for update in run.loop(config.updates):
        done = max(update / config.updates, world.steps / config.steps if config.steps else 0.0)
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * (1 - done if config.anneal else 1)

        episodes = play(config, world, policy, run.generator)
        mask, count = episodes.mask, world.num_envs
        now = unroll(policy, episodes)
        weight = returns(config, episodes)
        advantage = weight - baseline(config, weight, mask, now.value.detach())
        if config.normalize:
            # by the root mean square: taking the mean away would be one more baseline
            advantage = advantage / (masked_mean(advantage.square(), mask).sqrt() + 1e-8)
        loss = policy_gradient(now.log_prob, advantage) + entropy_bonus(now.entropy, config.entropy)
        loss = torch.where(mask, loss, 0.0).sum() / count  # (1/N) Σ_n Σ_t
        total = loss
        if config.baseline == "learned":
            total = total + torch.where(mask, value_loss(now.value, weight), 0.0).sum() / mask.sum()
        earned = torch.where(mask, episodes.reward, 0.0).sum(0).mean()
        entropy = torch.where(mask, now.entropy, 0.0).sum() / mask.sum()
        run.log(update, episode_return=earned, length=mask.sum() / count, entropy=entropy, loss=loss, steps=world.steps)

        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        if config.steps and world.steps >= config.steps:
            break
    return policy


def play(config: Config, env: TensorEnv, policy: Agent, generator: torch.Generator, greedy: bool = False) -> Trajectory:
    """One new episode in every environment, `[T, N]` with T the longest."""
    # Whole episodes from fresh starts: keeping the first to finish of many would favour the short ones.
    obs, _ = env.reset()
    state = policy.initial_state(env.num_envs)
    episodes, _, _ = rollout(
        env, policy, obs, state, env.limit or LIMIT,
        gamma=config.gamma, generator=generator, greedy=greedy, until_done=True,
    )  # fmt: skip
    return episodes


def returns(config: Config, episodes: Trajectory) -> Tensor:
    """R(τ) or the return from step t, `[T, N]`: what the action at t is weighted by, before the baseline."""
    bootstrap = config.gamma < 1 and config.baseline == "learned" and config.weighting == "to_go"
    # with γ = 1 the time limit is part of the game, and without a critic nothing can stand for what it cut off
    following = episodes.next_value if bootstrap else torch.zeros_like(episodes.reward)
    to_go = discounted_return(episodes.reward, episodes.discount, episodes.done, following)
    return to_go if config.weighting == "to_go" else to_go[:1].expand_as(to_go)


def baseline(config: Config, weight: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    """b `[T, N]`: nothing in it depends on a_t, so the gradient's mean stays as it is.

    The two means leave the episode itself out: its own return would depend on its actions.
    """
    weight = torch.where(mask, weight, 0.0)
    if config.baseline == "learned":
        return value  # V before this update saw the returns it is subtracted from
    if config.baseline == "constant":
        total, steps = weight.sum(0), mask.sum(0)
        return ((total.sum() - total) / (steps.sum() - steps)).expand_as(weight)
    if config.baseline == "time":  # 0 where no other episode got that far: they have nothing left to gain
        others = mask.sum(1, keepdim=True) - mask.long()
        return (weight.sum(1, keepdim=True) - weight) / others.clamp(min=1)
    return torch.zeros_like(weight)


def make_agent(config: Config, env: TensorEnv) -> Agent:
    """The networks for the environment's spaces, with fresh weights."""
    see, act = encoder(env.single_observation_space), action_head(env.single_action_space)
    arguments = (see.encode, see.size, act.distribution, act.varies, config.hidden, config.baseline == "learned")
    net = RecurrentActor(*arguments, config.memory) if config.memory else Actor(*arguments)
    return Agent(net, env.single_observation_space, env.single_action_space)


def make_optimizer(config: Config, policy: Agent) -> torch.optim.Optimizer:
    """Adam or plain gradient steps, with a learning rate of its own for V."""
    critic = [] if policy.net.critic is None else [*policy.net.critic.parameters()]
    own = {id(p) for p in critic}
    actor = [p for p in policy.parameters() if id(p) not in own]
    groups = [{"params": actor, "lr": config.lr, "full_lr": config.lr}]
    if critic:
        groups.append({"params": critic, "lr": config.critic_lr, "full_lr": config.critic_lr})
    return torch.optim.Adam(groups, fused=True) if config.optimizer == "adam" else torch.optim.SGD(groups)


def load(config: Config, run: Run, env: Any = None) -> Agent:
    """The agent of a run."""
    world = build(config.env, run, env, 1, limit=config.limit)
    policy = make_agent(config, world).to(run.device)
    run.track(policy=policy)
    return policy


def evaluate(config: Config, run: Run, env: Any = None, *, episodes: int = 100) -> dict[str, float | list[float]]:
    """Undiscounted return of whole episodes: sampled as trained, greedy, and with random actions; mean and sd."""
    return report(load(config, run, env), config.env, run, env, episodes, config.limit)


def watch(config: Config, run: Run, env: Any = None) -> list[Path]:
    """A greedy episode as a moving picture where the environment can be drawn, else as curves."""
    return [film(load(config, run, env), config.env, run, env, config.limit)]
