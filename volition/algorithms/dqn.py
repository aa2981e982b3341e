"""DQN and Rainbow, deep Q-learning: a network for Q(s,a), taught by what a replay remembers.

Mnih et al. (2015), "Human-level control through deep reinforcement learning"; Hessel et al. (2018), "Rainbow".

state    s_t, an observation
action   a_t, one of a few: argmax_a Q(s_t,a), or with probability ε any
reward   r_t
training L = ℓ(r + γ max_a' Q⁻(s',a') − Q(s,a)) on transitions (s,a,r,s') drawn from the last million;
         Q⁻ is Q as it was some updates ago. The six parts of Rainbow are settings: double, dueling, prioritised,
         n steps, distributional (atoms) and noisy
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from volition.algorithms._episodes import build, film, report
from volition.algorithms._off_policy import Explorer, Memory
from volition.core.categorical import cross_entropy, project
from volition.core.centred import CentredRMSProp
from volition.core.collect import Collector
from volition.core.flat import Flat, FlatAdam
from volition.core.losses import chosen, double_q_target, huber, q_target, squared
from volition.core.schedules import linear
from volition.envs.agent import Agent
from volition.envs.spaces import encoder
from volition.envs.vector import TensorEnv
from volition.errors import VolitionError
from volition.nets.conv import NatureCNN, image_shape
from volition.nets.q import Encoded, QNetwork, QPolicy, QStack, legal
from volition.run import Run

LOOK = 10  # updates between two that are logged in detail


@dataclass(frozen=True)
class Config:
    env: str = "CartPole-v1"
    """A Gymnasium environment with Discrete actions; one of your own is written module:Name-v0."""
    num_envs: int = 8
    """Environments played side by side."""
    horizon: int = 8
    """Steps of each environment between two rounds of learning."""
    gradient_steps: int = 16
    """Updates in a round."""
    steps: int = 200_000
    """Environment steps of training."""
    learning_starts: int = 1_000
    """Steps before the first update."""
    capacity: int = 100_000
    """Transitions that the replay remembers."""
    batch: int = 64
    """Transitions in an update."""
    gamma: float = 0.99
    """Discount γ."""
    lr: float = 3e-3
    """Learning rate."""
    anneal: bool = True
    """Lower it linearly to 0."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Adam, or the centred RMSProp of the paper."""
    adam_eps: float = 1e-8
    """ε of Adam."""
    loss: Literal["huber", "squared"] = "squared"
    """ℓ: Huber's cuts the gradient of an error to ±1 (Mnih 2015), and rare ends that cost 100 then count for little."""
    max_norm: float = 10.0
    """Length to which a longer gradient is cut; 0 for no such bound."""
    target_every: int = 1
    """Updates between two copies of Q into the target network Q⁻."""
    tau: float = 0.01
    """Share of Q in such a copy, the rest being what Q⁻ was; 1 in the paper."""
    epsilon: float = 1.0
    """Probability ε of an action at random, at the start."""
    epsilon_end: float = 0.05
    """ε after `epsilon_steps`."""
    epsilon_steps: int = 20_000
    """Steps in which ε falls."""
    epsilon_test: float = 0.0
    """ε of the agent that is evaluated as `return`; `greedy_return` is without."""
    double: bool = True
    """The online network chooses a', the target network says what it is worth (van Hasselt 2016)."""
    dueling: bool = False
    """Q(s,a) = V(s) + A(s,a) − mean A(s,·) (Wang 2016)."""
    prioritised: bool = False
    """Draw what surprised more often (Schaul 2016)."""
    alpha: float = 0.5
    """Power α of the priorities (Hessel 2018, table 1: ω)."""
    beta: float = 0.4
    """β of the weights that make up for it, at the start; 1 at the end (Hessel 2018, table 1)."""
    n: int = 3
    """Steps of reward before Q⁻ takes over."""
    atoms: int = 1
    """Atoms of the return's distribution; 1 for the mean alone (Bellemare 2017: 51)."""
    low: float = 0.0
    """Value of the first atom."""
    high: float = 100.0
    """Value of the last atom."""
    noisy: bool = False
    """Explore by noise on the weights instead of ε (Fortunato 2018)."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of each hidden layer; for images only the last counts, after the convolutions of Mnih 2015."""
    frames: bool = False
    """The obs is a stack of frames [k, H, W]: keep each frame once."""
    clip_reward: float = 0.0
    """Rewards are cut to ± this; 0 for no such bound (Mnih 2015, methods: 1)."""
    limit: int = 0
    """Steps after which an episode is cut off; 0 keeps the environment's own limit."""

    def __post_init__(self) -> None:
        least = {"num_envs": 1, "horizon": 1, "gradient_steps": 1, "steps": 1, "capacity": 1, "batch": 1, "n": 1}
        least |= {"target_every": 1, "atoms": 1, "lr": 0, "max_norm": 0, "learning_starts": 0, "limit": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be {bound} or more")
        for name in ("gamma", "tau", "epsilon", "epsilon_end", "epsilon_test", "alpha", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must lie in 0 … 1")
        if self.atoms > 1 and not self.low < self.high:
            raise VolitionError(f"low {self.low} must be less than high {self.high}")
        if not self.hidden or any(units < 1 for units in self.hidden):
            raise VolitionError(f"hidden {self.hidden} must hold at least one number, all above 0")


LAPTOP = Config()
RAINBOW = replace(
    LAPTOP, dueling=True, prioritised=True, atoms=51, noisy=True, epsilon=0.0, epsilon_end=0.0, steps=100_000,
    gradient_steps=8, tau=0.02,
)  # fmt: skip
# Mnih 2015, extended data table 1: 4 frames per step, so 200 M frames are 50 M steps
ATARI = Config(
    env="ALE/SpaceInvaders-v5", num_envs=1, horizon=4, gradient_steps=1, steps=50_000_000, learning_starts=50_000,
    capacity=1_000_000, batch=32, lr=2.5e-4, anneal=False, optimizer="rmsprop", loss="huber", max_norm=0.0,
    target_every=10_000, tau=1.0, double=False, n=1, epsilon_end=0.1, epsilon_steps=1_000_000, epsilon_test=0.05,
    hidden=(512,), frames=True, clip_reward=1.0,
)  # fmt: skip
VARIANTS = {
    "tiny": Config(
        num_envs=2, horizon=8, gradient_steps=1, steps=800, learning_starts=64, capacity=256, batch=16, hidden=(16,),
        epsilon_steps=400, limit=50, prioritised=True, n=2, double=True,
    ),
    "laptop": LAPTOP,
    "acrobot": replace(LAPTOP, env="Acrobot-v1"),
    "lunarlander": replace(
        LAPTOP, env="LunarLander-v3", steps=300_000, epsilon_steps=60_000, batch=128, hidden=(128, 128)
    ),
    # CleanRL's dqn.py, for comparing speeds
    "cleanrl": Config(
        num_envs=1, horizon=10, gradient_steps=1, steps=500_000, learning_starts=10_000, capacity=10_000, batch=128,
        lr=2.5e-4, anneal=False, max_norm=0.0, target_every=50, tau=1.0, double=False, n=1, epsilon_steps=250_000,
        hidden=(120, 84),
    ),
    "rainbow": RAINBOW,
    "without-double": replace(RAINBOW, double=False),
    "without-dueling": replace(RAINBOW, dueling=False),
    "without-prioritised": replace(RAINBOW, prioritised=False),
    "without-n": replace(RAINBOW, n=1),
    "without-atoms": replace(RAINBOW, atoms=1),
    "without-noisy": replace(RAINBOW, noisy=False, epsilon=1.0, epsilon_end=0.05),
    "atari-2015": ATARI,
    # Hessel 2018, table 1
    "atari-rainbow": replace(
        ATARI, double=True, dueling=True, prioritised=True, n=3, atoms=51, low=-10.0, high=10.0, noisy=True,
        epsilon=0.0, epsilon_end=0.0, epsilon_test=0.0, optimizer="adam", lr=6.25e-5, adam_eps=1.5e-4, max_norm=10.0,
        learning_starts=20_000, target_every=2_000,
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
    """Play a little, remember it, learn from what the replay draws, and so on."""
    run = run or Run()
    world = build(config.env, run, env, config.num_envs, training=True, limit=config.limit)
    world.reset(seed=run.seed)
    agent, target = (make_agent(config, world).to(run.device) for _ in range(2))
    target.load_state_dict(agent.state_dict())
    flat, still = Flat(agent), Flat(target)
    optimizer = (
        FlatAdam(flat, config.lr, eps=config.adam_eps)
        if config.optimizer == "adam"
        else CentredRMSProp(flat, config.lr)
    )
    alpha = config.alpha if config.prioritised else None
    memory = Memory(world, config.capacity, config.gamma, config.n, alpha, config.frames, config.clip_reward)
    collector, explorer = Collector(world, config.horizon), Explorer(agent.net, world, run.generator, config.horizon)
    run.track(policy=agent, target=target, optimizer=optimizer, env=world, collector=collector, memory=memory)
    played = config.horizon * world.num_envs  # steps between two rounds of updates
    first = max(0, math.ceil(config.learning_starts / played) - 1)
    for update in run.loop(math.ceil(config.steps / played)):
        step = update * played
        epsilon = linear(step, config.epsilon, config.epsilon_end, config.epsilon_steps)
        memory.add(collector.collect(explorer.with_epsilon(epsilon)))
        look = update % LOOK == LOOK - 1
        if look:
            run.log(update, episode_return=collector.statistics.mean_return, epsilon=epsilon, steps=world.steps)
        if update < first or not memory.ready:
            continue

        lr = config.lr * (1 - step / config.steps if config.anneal else 1)
        beta = linear(step, config.beta, 1.0, config.steps)
        q = error = torch.zeros(1)
        for i in range(config.gradient_steps):
            if ((update - first) * config.gradient_steps + i) % config.target_every == 0:
                still.data.lerp_(flat.data, config.tau)
            batch, index, weight = memory.sample(config.batch, beta, run.generator)
            q, error = learn(config, agent.net, target.net, flat, batch, weight, run.generator)
            if config.max_norm:
                flat.clip_grad_norm(config.max_norm)
            optimizer.step(lr)
            if index is not None:
                memory.update(index, error)
        if look:
            run.log(update, error=error.abs().mean(), q=q.mean())
    return agent.eval()


def learn(
    config: Config,
    net: QPolicy,
    target: QPolicy,
    flat: Flat,
    batch: dict[str, Any],
    weight: Tensor | None,
    draw: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Leave ∂L/∂θ of a batch in `flat.grad`; returns Q(s,a) and the errors that it saw, `[B]`.

    Where nothing needs autograd: ∂L/∂Q(s,a) is the error, cut to ±1 by Huber's loss, and 0 for other actions.
    """
    if isinstance(net, QNetwork) and isinstance(target, QNetwork):
        return learn_by_autograd(config, net, target, flat, batch, weight, draw)
    assert isinstance(net, QStack) and isinstance(target, QStack)
    with torch.no_grad():
        memory = net.remember(net.encode(batch["obs"]))
        next_obs, mask = net.encode(batch["next_obs"]), batch.get("next_mask")
        following = target.remember(next_obs)[-1]
        if config.double:
            online = legal(net.remember(next_obs)[-1], mask)
            y = double_q_target(batch["reward"], batch["discount"], online, following)
        else:
            y = q_target(batch["reward"], batch["discount"], legal(following, mask))
        taken = chosen(memory[-1], batch["action"])
        error = taken - y
        gradient = error.clamp(-1, 1) if config.loss == "huber" else error
        gradient = gradient * (1 / len(error) if weight is None else weight / len(error))
        every = torch.zeros_like(memory[-1]).scatter_(1, batch["action"].unsqueeze(1), gradient.unsqueeze(1))
        net.backward(memory, every)
    return taken, error


def learn_by_autograd(
    config: Config,
    net: QNetwork,
    target: QNetwork,
    flat: Flat,
    batch: dict[str, Any],
    weight: Tensor | None,
    draw: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The same for networks with two streams, atoms, noise or convolutions."""
    net.draw(draw)
    target.draw(draw)
    rows = torch.arange(len(batch["reward"]), device=batch["reward"].device)
    with torch.no_grad():
        following, mask = target.logits(batch["next_obs"]), batch.get("next_mask")
        judge = net.q(batch["next_obs"]) if config.double else target.expected(following)
        there = following[rows, legal(judge, mask).argmax(-1)]  # of s' and the best a' there, [B, K]
        if net.atoms is None:
            y = batch["reward"] + batch["discount"] * there.squeeze(-1)
        else:
            y = project(batch["reward"], batch["discount"], there.softmax(-1), net.atoms)
    logits = net.logits(batch["obs"])[rows, batch["action"]]
    if net.atoms is None:
        taken = logits.squeeze(-1)
        error = taken - y
        loss = huber(error) if config.loss == "huber" else squared(error)
    else:
        taken = logits.detach().softmax(-1) @ net.atoms
        loss = error = cross_entropy(logits.log_softmax(-1), y)  # which is also its priority (Hessel 2018)
    flat.zero_grad()
    (loss if weight is None else loss * weight).mean().backward()
    return taken.detach(), error.detach()


def make_agent(config: Config, env: TensorEnv) -> Agent:
    """Networks with fresh weights for the environment's spaces."""
    see, act = env.single_observation_space, env.single_action_space
    if not isinstance(act, spaces.Discrete):
        raise VolitionError(f"DQN chooses among a few actions: it needs a Discrete action space, not {act}; train ppo")
    net = make_net(config, see, int(act.n))
    net.epsilon = config.epsilon_test
    return Agent(net, see, act)


def make_net(config: Config, see: spaces.Space[Any], actions: int) -> QPolicy:
    """Convolutions for images of bytes, fully connected layers for all else; the last hidden layer is the streams'."""
    *below, units = config.hidden
    if (shape := image_shape(see)) is not None:
        trunk: Any = NatureCNN(shape, units=0, last=shape != see.shape)
        features = trunk.size
    else:
        code = encoder(see)
        if not (config.dueling or config.noisy or config.atoms > 1):
            return QStack(code.encode, code.size, actions, config.hidden)
        trunk, features = Encoded(code.encode, [code.size, *below]), below[-1] if below else code.size
    atoms = torch.linspace(config.low, config.high, config.atoms) if config.atoms > 1 else None
    return QNetwork(trunk, features, actions, units, dueling=config.dueling, atoms=atoms, noisy=config.noisy)


def load(config: Config, run: Run, env: Any = None) -> Agent:
    """The agent of a run."""
    world = build(config.env, run, env, 1, limit=config.limit)
    agent = make_agent(config, world).to(run.device)
    run.track(policy=agent)
    return agent.eval()


def evaluate(config: Config, run: Run, env: Any = None, *, episodes: int = 100) -> dict[str, float | list[float]]:
    """Undiscounted return of whole episodes: with ε of `epsilon_test`, greedy, and with random actions; mean and sd."""
    return report(load(config, run, env), config.env, run, env, episodes, config.limit)


def watch(config: Config, run: Run, env: Any = None) -> list[Path]:
    """A greedy episode as a moving picture where the environment can be drawn, else as curves."""
    return [film(load(config, run, env), config.env, run, env, config.limit)]
