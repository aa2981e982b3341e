"""A3C, asynchronous advantage actor-critic: workers that learn apart and change the same weights without a lock.

Mnih et al. (2016), "Asynchronous methods for deep reinforcement learning", algorithm S3.

state    s_t, an observation (with memory: all observations so far)
action   a_t ~ π(a|s_t, θ′), of any kind that Gymnasium's spaces describe
reward   r_t
training each worker for itself: θ′ ← θ; after T steps of its environment, with g = ∂L/∂θ′ of A2C's loss L,
         v ← αv + (1−α)g²,  θ ← θ − lr·g/√(v + ε)  on the θ and v of all

One worker is A2C with one environment, runs in the main process and repeats bit for bit. Several are processes, and in
what order they read and change θ is the operating system's affair: such a run can be gone on with, but never repeats.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from torch import Generator, Tensor

from volition.algorithms._actor_critic import actor_critic_gradient, evaluate, learn_from, load, make_agent, watch
from volition.algorithms._episodes import build
from volition.algorithms._workers import Workers
from volition.core.collect import Collector
from volition.core.flat import Flat, FlatRMSProp
from volition.envs.agent import Agent, Player
from volition.envs.vector import TensorEnv, make
from volition.errors import VolitionError
from volition.nets.stack import Activation
from volition.run import Run

__all__ = ["PAPER", "VARIANTS", "Config", "evaluate", "load", "train", "watch"]

WINDOW = 100  # finished episodes, of all workers together, of which the mean return is logged


@dataclass(frozen=True)
class Config:
    env: str = "CartPole-v1"
    """A Gymnasium environment; one of your own is written module:Name-v0."""
    workers: int = 4
    """Processes that play and learn, each in an environment of its own (16: Mnih 2016, §8); 1 needs none."""
    horizon: int = 16
    """Steps of a worker between two gradients, T (t_max = 5: Mnih 2016, §8)."""
    gamma: float = 0.99
    """Discount γ."""
    lam: float = 0.95
    """λ of the generalised advantage estimate; 1 is the paper's n-step return."""
    lr: float = 3e-3
    """Learning rate of RMSProp (about 7e-4 in the paper)."""
    anneal: bool = True
    """Lower it linearly to 0."""
    eps: float = 1e-5
    """ε within RMSProp's root; 0.1 is common where observations are images."""
    value_coef: float = 0.5
    """c₁, weight of the value loss."""
    entropy: float = 0.0
    """c₂, weight of the entropy, which keeps the policy exploring (β = 0.01: Mnih 2016, §8)."""
    max_norm: float = 0.5
    """Length to which a longer gradient is cut."""
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
    meet_every: int = 20
    """Updates of each worker between two meetings, at which the run is logged and saved: an update of the run."""
    steps: int = 300_000
    """Environment steps of training, of all workers together."""

    def __post_init__(self) -> None:
        for name in ("workers", "horizon", "meet_every", "steps"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("lr", "eps", "entropy", "value_coef", "max_norm", "memory", "limit"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1):
            raise VolitionError(f"gamma {self.gamma} and lam {self.lam} must lie in 0 … 1")
        if not self.hidden or any(units < 1 for units in self.hidden):
            raise VolitionError(f"hidden {self.hidden} must hold at least one number, all above 0")

    def updates(self, num_envs: int = 1) -> int:
        """Updates of each worker, of `num_envs` environments each."""
        return -(-self.steps // (self.workers * num_envs * self.horizon))


VARIANTS = {
    "tiny": Config(workers=1, horizon=5, hidden=(16,), limit=50, meet_every=4, steps=1_200),  # repeats bit for bit
    "laptop": Config(),
    "workers-1": Config(workers=1),
    "workers-4": Config(workers=4),
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


class Shared(NamedTuple):
    """What all workers read and change without asking, in shared memory: the weights θ and the mean squares v `[P]`."""

    theta: Tensor
    v: Tensor


class Worker:
    """An environment and a copy of the network, whose gradients go to the weights that all share."""

    def __init__(self, config: Config, env: Any, shared: Shared, seed: int, generator: Generator) -> None:
        self.config, self.shared = config, shared
        self.env = env if isinstance(env, TensorEnv) else make(env, limit=config.limit, training=True)
        self.env.reset(seed=seed)
        self.updates = config.updates(self.env.num_envs)
        # these first weights are never used: each update begins with a copy of θ
        self.agent = make_agent(config, self.env)
        self.flat = Flat(self.agent)
        mixed = copy.copy(self.flat)  # its own gradient, the weights of all
        mixed.data = shared.theta
        self.optimizer = rmsprop(config, mixed)
        self.optimizer.v = shared.v
        self.collector = Collector(self.env, config.horizon)
        self.player = Player(self.agent, self.env, generator, config.horizon)

    def learn(self, update: int) -> dict[str, Tensor]:
        """Once around algorithm S3's loop; returns the parts of the loss and ‖g‖₂."""
        config, player = self.config, self.player
        self.flat.data.copy_(self.shared.theta)
        state = player.state
        steps = self.collector.collect(player)
        self.flat.zero_grad()
        experience, now = learn_from(self.agent, steps, state, config.gamma, config.lam, steps.reward, graph=True)
        losses = actor_critic_gradient(experience, now, config.value_coef, config.entropy, config.normalize_advantage)
        losses["gradient"] = self.flat.clip_grad_norm(config.max_norm)
        self.optimizer.step(config.lr * (1 - update / self.updates if config.anneal else 1))
        return losses

    def play(self, first: int, count: int, check: Callable[[], None]) -> dict[str, float]:
        """Updates `first` to `first + count − 1` of this worker; their means, and its recent returns summed."""
        means: dict[str, float] = {}
        for update in range(first, first + count):
            check()
            for name, value in self.learn(update).items():
                means[name] = means.get(name, 0.0) + value.item() / count
        recent = -(-WINDOW // self.config.workers)
        returns = self.collector.statistics.returns[-recent:]
        return means | {"returned": sum(returns), "episodes": len(returns), "steps": self.env.steps}

    def state_dict(self) -> dict[str, Any]:
        """Where it is in its episode; what it has learned is in the weights."""
        return {name: getattr(self, name).state_dict() for name in ("env", "collector", "player")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        for name in ("env", "collector", "player"):
            getattr(self, name).load_state_dict(state[name])

    def close(self) -> None:
        """End the environment."""
        self.env.close()


def rmsprop(config: Config, flat: Flat) -> FlatRMSProp:
    """The paper's RMSProp, but that v starts at 1, which tames the first steps, as in A2C."""
    return FlatRMSProp(flat, config.lr, eps=config.eps, start=1.0)


def train(config: Config, run: Run | None = None, env: Any = None) -> Agent:
    """Let every worker play and learn for itself; meet now and then."""
    run = run or Run(device="cpu")
    if run.device.type != "cpu":
        raise VolitionError("the workers of a3c share the CPU's memory: train it with --device cpu")
    given = config.env if env is None else env
    if config.workers > 1 and not (isinstance(given, str) or callable(given)):
        raise VolitionError(f"{given} is one environment: for {config.workers} workers give a function that makes one")
    world = build(config.env, run, env, 1, True, limit=config.limit)
    agent = make_agent(config, world)
    flat = Flat(agent)
    flat.data.share_memory_()  # the parameters are views of it and move along
    optimizer = rmsprop(config, flat)
    shared = Shared(flat.data, optimizer.v.share_memory_())
    if config.workers > 1:
        world.close()  # each worker makes its own
    updates = config.updates(world.num_envs)
    rounds = -(-updates // config.meet_every)
    start = partial(Worker, config, world if config.workers == 1 else given, shared)
    with Workers(start, config.workers, run) as workers:
        run.track(policy=agent, optimizer=optimizer, workers=workers)
        if run.step < rounds:
            workers.start()
        for meeting in run.loop(rounds):
            first = meeting * config.meet_every
            told = workers.play(first, min(config.meet_every, updates - first))
            if meeting == rounds - 1:
                workers.finish()
            total = {name: sum(one[name] for one in told) for name in told[0]}
            returned, episodes, steps = (total.pop(name) for name in ("returned", "episodes", "steps"))
            means = {name: value / len(told) for name, value in total.items()}
            run.log(meeting, episode_return=returned / max(1, episodes), **means, steps=steps)
    return agent
