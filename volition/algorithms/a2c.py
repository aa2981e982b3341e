"""A2C, advantage actor-critic: the policy gradient with a critic, a few steps of many environments at a time.

Mnih et al. (2016), "Asynchronous methods for deep reinforcement learning", with the workers in step (see a3c).

state    s_t, an observation (with memory: all observations so far)
action   a_t ~ π(a|s_t, θ), of any kind that Gymnasium's spaces describe
reward   r_t
training after T steps of N environments one step on
         L = −log π(a_t|s_t)·A_t + c₁·½(V(s_t) − G_t)² − c₂·H(π(·|s_t)),  A_t = r_t + γV(s_{t+1}) − V(s_t) for T = 1
"""

from dataclasses import dataclass
from typing import Any, Literal

from volition.algorithms._actor_critic import actor_critic_gradient, evaluate, learn_from, load, make_agent, watch
from volition.algorithms._episodes import build
from volition.core.collect import Collector
from volition.core.flat import Flat, FlatAdam, FlatRMSProp
from volition.envs.agent import Agent, Player
from volition.errors import VolitionError
from volition.nets.stack import Activation
from volition.run import Run

__all__ = ["PAPER", "VARIANTS", "Config", "evaluate", "load", "train", "watch"]


@dataclass(frozen=True)
class Config:
    env: str = "CartPole-v1"
    """A Gymnasium environment; one of your own is written module:Name-v0."""
    num_envs: int = 8
    """Environments played side by side, N."""
    horizon: int = 16
    """Steps of each environment per update, T (Mnih 2016, §8: t_max = 5)."""
    gamma: float = 0.98
    """Discount γ."""
    lam: float = 0.95
    """λ of the generalised advantage estimate; 1 is the paper's n-step return."""
    lr: float = 3e-3
    """Learning rate."""
    anneal: bool = True
    """Lower it linearly to 0."""
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    """rmsprop (Mnih 2016) or adam."""
    eps: float = 1e-5
    """ε within RMSProp's root, or beside Adam's."""
    square: float = 1.0
    """What RMSProp's running square begins at: 0 in the paper, 1 in TensorFlow, which tames the first steps."""
    value_coef: float = 0.5
    """c₁, weight of the value loss."""
    entropy: float = 0.0
    """c₂, weight of the entropy, which keeps the policy exploring (Mnih 2016, §8: β = 0.01)."""
    max_norm: float = 0.5
    """Length to which a longer gradient is cut; 0 for no such bound."""
    normalize_advantage: bool = True
    """Shift and scale the advantages of each update to mean 0 and standard deviation 1."""
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
    steps: int = 400_000
    """Environment steps of training."""

    def __post_init__(self) -> None:
        for name in ("num_envs", "horizon", "steps"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lr", "entropy", "value_coef", "max_norm", "memory", "limit", "eps", "square"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1):
            raise VolitionError(f"gamma {self.gamma} and lam {self.lam} must lie in 0 … 1")
        if not self.hidden or any(units < 1 for units in self.hidden):
            raise VolitionError(f"hidden {self.hidden} must hold at least one number, all above 0")


VARIANTS = {
    "tiny": Config(num_envs=4, horizon=5, hidden=(16,), limit=50, steps=1_200),
    "laptop": Config(),
    # Stable-Baselines3's, for comparing speeds; its squared error has no ½, its ε of 1e-5 is outside the root
    "sb3": Config(
        num_envs=8,
        horizon=5,
        gamma=0.99,
        lam=1.0,
        lr=7e-4,
        anneal=False,
        eps=1e-10,
        square=0.0,
        value_coef=1.0,
        normalize_advantage=False,
    ),
}
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
    """Play T steps in N environments, take one step on them, and so on."""
    run = run or Run()
    world = build(
        config.env, run, env, config.num_envs, True, limit=config.limit, asynchronous=config.asynchronous
    )  # fmt: skip
    world.reset(seed=run.seed)
    agent = make_agent(config, world).to(run.device)
    flat = Flat(agent)
    if config.optimizer == "rmsprop":
        optimizer: FlatRMSProp | FlatAdam = FlatRMSProp(flat, config.lr, eps=config.eps, start=config.square)
    else:
        optimizer = FlatAdam(flat, config.lr, eps=config.eps)
    collector, player = Collector(world, config.horizon), Player(agent, world, run.generator, config.horizon)
    run.track(policy=agent, optimizer=optimizer, env=world, collector=collector, player=player)
    updates = -(-config.steps // (world.num_envs * config.horizon))
    for update in run.loop(updates):
        state = player.state
        steps = collector.collect(player)
        flat.zero_grad()
        experience, now = learn_from(agent, steps, state, config.gamma, config.lam, steps.reward, graph=True)
        losses = actor_critic_gradient(experience, now, config.value_coef, config.entropy, config.normalize_advantage)
        norm = flat.clip_grad_norm(config.max_norm)
        optimizer.step(config.lr * (1 - update / updates if config.anneal else 1))
        run.log(update, episode_return=collector.statistics.mean_return, **losses, gradient=norm, steps=world.steps)
    return agent
