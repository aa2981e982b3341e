"""PPO, proximal policy optimisation: several careful steps from each batch of play.

Schulman et al. (2017), "Proximal policy optimization algorithms".

state    s_t, an observation (with memory: all observations so far)
action   a_t ~ π(a|s_t, θ), of any kind that Gymnasium's spaces describe
reward   r_t
training A_t by GAE(λ) from T steps of N environments; then K epochs of minibatches on
         L = −min(r_t·A_t, clip(r_t, 1 ± ε)·A_t) + c₁·½(V(s_t) − G_t)² − c₂·H(π(·|s_t)),  r_t = π/π_old
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from volition.algorithms._actor_critic import (
    Experience,
    evaluate,
    judge_again,
    learn_from,
    load,
    make_agent,
    watch,
)
from volition.algorithms._episodes import build
from volition.core.collect import Collector
from volition.core.flat import Flat, FlatAdam
from volition.core.gradients import clipped_surrogate, clipped_value_loss, value_loss
from volition.core.normalize import ReturnNormalizer, RunningMoments, normalize_advantage
from volition.core.policy import tree_map
from volition.envs.agent import Agent, Player
from volition.errors import VolitionError
from volition.nets.normalizer import Normalizer
from volition.nets.stack import Activation
from volition.run import Run

__all__ = ["PAPER", "VARIANTS", "Config", "evaluate", "load", "train", "watch"]


@dataclass(frozen=True)
class Config:
    env: str = "CartPole-v1"
    """A Gymnasium environment; one of your own is written module:Name-v0."""
    num_envs: int = 64
    """Environments played side by side, N."""
    horizon: int = 32
    """Steps of each environment per update, T."""
    epochs: int = 6
    """Passes over the N·T steps per update, K."""
    minibatches: int = 4
    """Parts that a pass is cut into, each one step of the optimiser; with memory, parts of the N sequences."""
    gamma: float = 0.98
    """Discount γ."""
    lam: float = 0.9
    """λ of the generalised advantage estimate."""
    clip: float = 0.2
    """ε: how far the probability of an action may move before its advantage stops counting."""
    clip_value: float = 0.0
    """How far V may move from what it was, likewise; 0 for no such bound."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    anneal: bool = True
    """Lower the learning rate linearly to 0."""
    anneal_clip: bool = False
    """Lower ε too."""
    value_coef: float = 0.5
    """c₁, weight of the value loss; the networks of π and V are apart, but the gradient is clipped as a whole."""
    entropy: float = 0.0
    """c₂, weight of the entropy, which keeps the policy exploring."""
    max_norm: float = 0.5
    """Length to which a longer gradient is cut; 0 for no such bound."""
    normalize_advantage: bool = True
    """Shift and scale the advantages of each minibatch to mean 0 and standard deviation 1."""
    normalize_obs: bool = False
    """Shift and scale the numbers of an obs to mean 0 and standard deviation 1 over all that was seen; not images."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of the discounted return."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of π and V; for images, of the layer after the convolutions."""
    activation: Activation = "tanh"
    """Nonlinearity of the hidden layers."""
    memory: int = 0
    """Units of a GRU for environments that do not show their whole state; 0 for none."""
    low_precision: bool = False
    """Compute convolutions in bfloat16, where the processor has instructions for it."""
    limit: int = 0
    """Steps after which an episode is cut off; 0 keeps the environment's own limit."""
    asynchronous: bool = False
    """One process per environment, for environments of which a step takes a millisecond or more."""
    steps: int = 150_000
    """Environment steps of training."""

    def __post_init__(self) -> None:
        for name in ("num_envs", "horizon", "epochs", "minibatches", "steps"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lr", "clip", "clip_value", "entropy", "value_coef", "max_norm", "memory", "limit"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1):
            raise VolitionError(f"gamma {self.gamma} and lam {self.lam} must lie in 0 … 1")
        if not self.hidden or any(units < 1 for units in self.hidden):
            raise VolitionError(f"hidden {self.hidden} must hold at least one number, all above 0")
        most = self.num_envs if self.memory else self.num_envs * self.horizon
        if self.minibatches > most:
            what = "sequences" if self.memory else "steps"
            raise VolitionError(f"minibatches is {self.minibatches}, but an update has only {most} {what}")


ATARI = Config(  # Schulman 2017, table 5; horizons and rates in its steps of 4 frames, 40 M frames in all
    env="ALE/SpaceInvaders-v5", num_envs=8, horizon=128, epochs=3, minibatches=4, gamma=0.99, lam=0.95, clip=0.1,
    lr=2.5e-4, anneal_clip=True, value_coef=1.0, entropy=0.01, hidden=(512,), steps=10_000_000,
)  # fmt: skip
HIDDEN = Config(
    env="volition/CartPoleNoVelocity-v0",
    hidden=(64,),
    normalize_obs=True,
    normalize_reward=True,
    lr=2e-3,
    minibatches=2,
    steps=250_000,
)
VARIANTS = {
    "tiny": Config(num_envs=4, horizon=16, epochs=2, minibatches=2, hidden=(16,), limit=50, steps=1_920),
    "laptop": Config(),
    "acrobot": Config(
        env="Acrobot-v1", num_envs=16, horizon=128, epochs=8, minibatches=8, gamma=0.99, lam=0.95, lr=1e-3,
        steps=200_000,
    ),
    "lunarlander": Config(
        env="LunarLander-v3", num_envs=16, horizon=256, epochs=6, minibatches=16, gamma=0.999, lam=0.98, lr=1e-3,
        entropy=0.01, steps=1_000_000,
    ),
    "pendulum": Config(
        env="Pendulum-v1", num_envs=8, horizon=256, epochs=10, minibatches=32, gamma=0.9, lam=0.95, lr=1e-3,
        steps=150_000,
    ),
    # the cart's and the pole's velocities are hidden: with a memory, and without
    "memory": replace(HIDDEN, memory=64),
    "no-memory": HIDDEN,
    "paper": ATARI,
    # an hour or so of one CPU core
    "spaceinvaders": replace(ATARI, epochs=4, low_precision=True, steps=1_000_000),
    "breakout": replace(ATARI, env="ALE/Breakout-v5", epochs=4, low_precision=True, steps=1_000_000),
    # others' settings for CartPole, for comparing speeds; their ½ of the squared error is not in the loss
    "sb3": Config(
        num_envs=8, horizon=2048, epochs=10, minibatches=256, lr=3e-4, anneal=False, value_coef=1.0, steps=100_000
    ),
    "zoo": Config(
        num_envs=8, horizon=32, epochs=20, minibatches=1, gamma=0.98, lam=0.8, lr=1e-3, anneal_clip=True,
        value_coef=1.0, steps=100_000,
    ),
    "cleanrl": Config(
        num_envs=8, horizon=128, epochs=4, minibatches=4, gamma=0.99, lam=0.95, lr=2.5e-4, clip_value=0.2,
        entropy=0.01, steps=500_000,
    ),
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
    """Play T steps in N environments, improve the policy on them for K epochs, and so on."""
    run = run or Run()
    world = build(
        config.env, run, env, config.num_envs, True, limit=config.limit, asynchronous=config.asynchronous
    )  # fmt: skip
    world.reset(seed=run.seed)
    agent = make_agent(config, world).to(run.device)
    flat = Flat(agent)
    optimizer = FlatAdam(flat, config.lr, eps=1e-5)  # ε of OpenAI's code
    collector, player = Collector(world, config.horizon), Player(agent, world, run.generator, config.horizon)
    scale = ReturnNormalizer(world.num_envs, config.gamma, run.device)
    normalizer = agent.net.encode if isinstance(getattr(agent.net, "encode", None), Normalizer) else None
    moments = RunningMoments((0 if normalizer is None else len(normalizer.mean),), run.device)
    run.track(
        policy=agent, optimizer=optimizer, env=world, collector=collector, player=player, scale=scale, moments=moments
    )
    updates = -(-config.steps // (world.num_envs * config.horizon))
    for update in run.loop(updates):
        left = 1 - update / updates
        lr = config.lr * (left if config.anneal else 1)
        clip = config.clip * (left if config.anneal_clip else 1)

        state = player.state
        steps = collector.collect(player)
        reward = steps.reward
        if config.normalize_reward:
            for r, done, valid in zip(reward, steps.done, steps.valid, strict=True):
                scale.update(r, done, valid)
            reward = scale.normalize(reward)
        experience, _ = learn_from(agent, steps, state, config.gamma, config.lam, reward)
        experience = experience.rows()
        if not experience.total:  # T = 1, and all environments spent it on a reset
            continue

        view, norm = {}, torch.zeros(())
        # fewer parts where resets left fewer steps than parts
        bounds = sorted({i * experience.total // config.minibatches for i in range(config.minibatches + 1)})
        for _ in range(config.epochs):
            order = torch.randperm(experience.total, generator=run.generator, device=run.device)
            shuffled = experience.take(order)
            for start, stop in pairwise(bounds):
                flat.zero_grad()
                view = surrogate_gradient(config, agent, shuffled.slice(start, stop), clip)
                norm = flat.clip_grad_norm(config.max_norm)
                optimizer.step(lr)

        if normalizer is not None:  # after learning, so that what acted and what learns saw the same
            obs = tree_map(lambda x: x[:-1], steps.obs)
            moments.update(normalizer.encode(obs)[steps.valid])
            normalizer.set(moments)
        ratio = view.pop("ratio")
        run.log(
            update,
            episode_return=collector.statistics.mean_return,
            **{name: x.mean() for name, x in view.items()},
            kl=(ratio - 1 - ratio.clamp(min=1e-30).log()).mean(),
            clipped=((ratio - 1).abs() > clip).float().mean(),
            gradient=norm,
            steps=world.steps,
        )
    return agent


def surrogate_gradient(config: Config, agent: Agent, batch: Experience, clip: float) -> dict[str, Tensor]:
    """Write or add ∂L/∂θ, L = mean(−min(r·A, clip(r)·A) + c₁·½(V − G)² − c₂·H); its parts, one number a step."""
    advantage = batch.advantage
    if config.normalize_advantage:
        advantage = normalize_advantage(advantage, batch.valid if config.memory else None)
    now = judge_again(agent, batch)
    loss, d_log_prob, ratio = clipped_surrogate(now.log_prob, batch.log_prob, advantage, clip)
    if config.clip_value:
        error, d_value = clipped_value_loss(now.value, batch.value, batch.target, config.clip_value)
    else:
        error, d_value = value_loss(now.value, batch.target)
    weight = batch.valid / batch.valid.sum()
    now.backward(d_log_prob.mul_(weight), -config.entropy * weight, d_value.mul_(weight * config.value_coef))
    parts = {"policy_loss": loss, "value_loss": error, "entropy": now.entropy, "ratio": ratio}
    return {name: x[batch.valid] for name, x in parts.items()} if config.memory else parts
