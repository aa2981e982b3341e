"""RAM plays Catch: follow a falling ball with a small retina, and be under it when it lands.

Mnih, Heess, Graves and Kavukcuoglu (2014), "Recurrent models of visual attention", section 4.2.

state    h_t of an LSTM, all that the agent remembers; g_t = f_g(ρ(x_t, l_{t−1}), l_{t−1}) is what it sees of the screen
action   where to look next, l_t ~ N(f_l(h_t), σ²), and the paddle's move, a_t ~ softmax(f_a(h_t)): left, stay, right
reward   1 if the ball lands on the paddle, else 0
training the policy gradient with a learned baseline trains everything, for where to look and what to do are both
         actions and there are no labels; of each batch of games several careful steps (Schulman 2017), or one
         (the paper's REINFORCE)
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from volition.core.distributions import Categorical, DiagonalGaussian, Distribution, Product
from volition.core.losses import clipped_surrogate, entropy_bonus, value_loss
from volition.core.normalize import normalize_advantage
from volition.core.policy import tree_map
from volition.core.returns import gae
from volition.core.rollout import rollout
from volition.core.trajectory import Trajectory
from volition.envs.catch import STAY, STEPS, CatchVectorEnv
from volition.errors import VolitionError
from volition.machine import multiplies_bf16
from volition.nets.glimpse_player import GlimpsePlayer
from volition.nets.mlp import mlp
from volition.run import Run

TEST_SEED, EVALUATION_BATCH, TRUTH = 0, 1_000, 6  # every evaluation plays the same games


@dataclass(frozen=True)
class Config:
    model: Literal["ram", "random"] = "ram"
    """The agent, or its control that looks at random places and learns only what to do."""
    size: int = 6
    """Side of each patch of a glimpse in values, g (section 4.2)."""
    scales: int = 3
    """Patches per glimpse, each twice as wide as the one before, k (section 4.2)."""
    units: int = 256
    """Units of the LSTM (section 4.2)."""
    std: float = 0.15
    """Standard deviation σ of the location at the beginning, in half screen widths."""
    final_std: float = 0.05
    """… and at the end, linearly; the paper's σ is fixed."""
    baseline: Literal["state", "privileged"] = "privileged"
    """b(h_t) as in the paper, or b(h_t, ball, paddle): unbiased as well, for it knows no more than was before a_t."""
    lam: float = 0.8
    """λ of the advantage estimate; with 1 it is the paper's R − b_t. γ = 1."""
    epochs: int = 3
    """Passes over each batch of games; one pass in one part is REINFORCE."""
    minibatches: int = 2
    """Parts of the games that a pass is cut into, each one step of the optimiser."""
    clip: float = 0.2
    """ε: how far a probability may move in a batch before its advantage stops counting."""
    entropy: float = 0.01
    """Weight of the entropy of the moves, which keeps the agent exploring."""
    normalize: bool = True
    """Shift and scale the advantages of each part to mean 0 and standard deviation 1."""
    max_norm: float = 0.5
    """Length to which a longer gradient is cut; 0 for no such bound."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or SGD with momentum 0.9 as in the paper."""
    lr: float = 2e-3
    """Learning rate at the beginning, annealed linearly to 0."""
    baseline_lr: float = 3e-3
    """The same for the baseline."""
    batch: int = 256
    """Games per update, of 23 steps each."""
    updates: int = 1_500
    """Updates of training."""
    bf16: bool = True
    """Multiply matrices in bfloat16 where the machine can; weights, probabilities, losses are float32."""
    games: int = 5_000
    """Games of an evaluation."""

    def __post_init__(self) -> None:
        for name in ("size", "scales", "units", "epochs", "minibatches", "batch", "updates", "games"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("std", "final_std", "lr", "baseline_lr"):
            if getattr(self, name) <= 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be more than 0")
        for name in ("clip", "entropy", "max_norm"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.lam <= 1 or self.minibatches > self.batch:
            raise VolitionError(f"lam {self.lam} must lie in 0 … 1, minibatches {self.minibatches} in 1 … batch")


VARIANTS = {
    "tiny": Config(units=32, batch=16, updates=30, bf16=False, games=200),
    "laptop": Config(),
    "random": Config(model="random"),
    # the paper's own training as far as it is told: REINFORCE with b_t(h), σ fixed, 20 million frames
    "paper": Config(
        std=0.2, final_std=0.2, baseline="state", lam=1.0, epochs=1, minibatches=1, entropy=0.0, normalize=False,
        max_norm=0.0, optimizer="sgd", lr=1e-2, batch=20, updates=43_500, bf16=False,
    ),
}  # fmt: skip
PAPER = {
    "metric": "caught",
    "unit": "%",
    "better": "higher",
    "baselines": ("caught_random_glimpses", "caught_random_moves"),
    "data": "built-in",
    "source": "Mnih 2014, section 4.2: roughly 85 %",
    "rows": {"laptop": 85.0, "paper": 85.0},
}


class Baseline(nn.Module):
    """b_t: the reward expected from h_t and, privileged, where everything is; in float32: differences count."""

    def __init__(self, units: int, privileged: bool) -> None:
        super().__init__()
        self.net = mlp([units + TRUTH, 128, 128, 1]) if privileged else nn.Linear(units, 1)

    def forward(self, h: Tensor, obs: dict[str, Tensor]) -> Tensor:
        """h `[T, B, units]`, truth in obs `[T, B, 6]` -> b `[T, B]`; it teaches h nothing."""
        known = [obs["truth"]] if "truth" in obs else []
        with torch.autocast(h.device.type, enabled=False):
            return self.net(torch.cat([h.detach().float(), *known], -1)).squeeze(-1)


def train(config: Config, run: Run | None = None) -> GlimpsePlayer:
    """Play a batch of games, improve on them, and so on."""
    run = run or Run()
    env = make_env(config, run, config.batch)
    env.reset(seed=run.seed)
    policy = make_policy(config, run)
    baseline = Baseline(config.units, config.baseline == "privileged").to(run.device)
    optimizer = make_optimizer(config, policy, baseline)
    run.track(policy=policy, baseline=baseline, optimizer=optimizer, env=env)
    # The actor is the policy in bfloat16: in many small steps, casting as one goes costs more than it saves.
    actor = copy.deepcopy(policy).requires_grad_(False)
    bf16 = config.bf16 and multiplies_bf16(run.device)
    if bf16:
        actor.to(torch.bfloat16)
    actor.std = policy.std

    for update in run.loop(config.updates):
        left = 1 - update / config.updates
        for group in optimizer.param_groups:
            group["lr"] = left * group["full_lr"]
        policy.std.fill_(config.final_std + left * (config.std - config.final_std))
        torch._foreach_copy_(list(actor.parameters()), list(policy.parameters()))

        games = judged(play(env, actor, run.generator), baseline)
        advantage = gae(games.reward, games.discount, games.done, games.next_value, games.value, config.lam)
        losses = {}
        for _ in range(config.epochs):
            order = torch.randperm(config.batch, generator=run.generator, device=run.device)
            for part in order.chunk(config.minibatches):
                with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
                    losses = policy_losses(config, policy, baseline, games, advantage, part)
                optimizer.zero_grad(set_to_none=True)
                sum(losses.values(), start=torch.zeros((), device=run.device)).backward()
                if config.max_norm:
                    torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_norm)
                optimizer.step()
        run.log(update, caught=100 * games.reward[-1].mean(), **losses)
    return policy


@torch.no_grad()
def judged(games: Trajectory, baseline: Baseline) -> Trajectory:
    """The games with b_t for the value of each step; there is nothing after the last."""
    value = baseline(torch.stack([output.state.h for output in games.outputs]), games.obs)
    return replace(games, value=value, next_value=torch.cat([value[1:], torch.zeros_like(value[:1])]))


def policy_losses(
    config: Config, policy: GlimpsePlayer, baseline: Baseline, games: Trajectory, advantage: Tensor, part: Tensor
) -> dict[str, Tensor]:
    """What the games `part` teach: where to look, what to do, the baseline, and not to be too sure; means over steps.

    L = −min(r·A, clip(r)·A) for l_t and for a_t, each with its own r = π/π_old, + ½(R − b)² − entropy·H(a_t); l_T is
    left out, for nobody looks there. In the first step on new games r = 1, and this is REINFORCE's gradient.
    """
    batch = tree_map(lambda x: x[:, part], {"obs": games.obs, "action": games.action, "done": games.done})
    output = policy.sequence(batch["obs"], policy.initial_state(len(part)), batch["done"])
    (where, what), (old_where, old_what) = parts(output.distribution), parts(games.distribution)
    advantage, reward = advantage[:, part], games.reward.sum(0)[part].expand(STEPS, -1)
    if config.normalize:
        advantage = normalize_advantage(advantage)
    location, move = batch["action"]["location"], batch["action"]["move"]
    old_location = old_where.log_prob(games.action["location"])[:-1, part]
    old_move = old_what.log_prob(games.action["move"])[:, part]
    losses = {
        "move": clipped_surrogate(what.log_prob(move), old_move, advantage, config.clip).mean(),
        "baseline": value_loss(baseline(output.state.h, batch["obs"]), reward).mean(),
        "entropy": entropy_bonus(what.entropy(), config.entropy).mean(),
    }
    if config.model == "ram":  # the control's locations are not its own
        look = clipped_surrogate(where.log_prob(location)[:-1], old_location, advantage[:-1], config.clip)
        losses["location"] = look.sum() / move.numel()
    return losses


def parts(distribution: Distribution | None) -> tuple[DiagonalGaussian, Categorical]:
    """Where to look next and what to do, out of their product."""
    assert isinstance(distribution, Product) and isinstance(distribution.parts, dict)
    return distribution.parts["location"], distribution.parts["move"]


def play(env: CatchVectorEnv, policy: GlimpsePlayer, generator: torch.Generator, greedy: bool = False) -> Trajectory:
    """One whole game in every environment, `[23, B]`."""
    start = policy.initial_state(env.num_envs)
    games, _, _ = rollout(env, policy, env.obs, start, STEPS, generator=generator, greedy=greedy)
    return games


def make_env(config: Config, run: Run, games: int) -> CatchVectorEnv:
    """A batch of games in tensors on the run's device."""
    return CatchVectorEnv(
        games, config.size, config.scales, random_glimpses=config.model == "random",
        truth=config.baseline == "privileged", tensors=True, device=run.device,
    )  # fmt: skip


def make_policy(config: Config, run: Run) -> GlimpsePlayer:
    """The agent with fresh weights."""
    return GlimpsePlayer(config.size, config.scales, 3, config.units, config.std).to(run.device)


def make_optimizer(config: Config, policy: GlimpsePlayer, baseline: Baseline) -> torch.optim.Optimizer:
    """Adam or the paper's SGD, with a learning rate of its own for the baseline."""
    rates = ((policy, config.lr), (baseline, config.baseline_lr))
    groups = [{"params": [*net.parameters()], "lr": lr, "full_lr": lr} for net, lr in rates]
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, eps=1e-5, fused=True)
    return torch.optim.SGD(groups, momentum=0.9)


@torch.no_grad()
def evaluate(config: Config, run: Run) -> dict[str, float]:
    """Caught balls in %: of the most probable actions and of sampled ones, and of those that the agent stands beside.

    With random glimpses (the same weights, greedy moves), with random moves, of one who sees the ball and runs after
    it, and of one who sees everything and knows where it will land: the most that the rules allow.
    """
    env = make_env(config, run, min(config.games, EVALUATION_BATCH))
    policy = make_policy(config, run)
    run.track(policy=policy)
    generator = torch.Generator(run.device).manual_seed(TEST_SEED)
    rows = {
        "caught": lambda: play(env, policy, generator, greedy=True).reward[-1],
        "caught_sampled": lambda: play(env, policy, generator).reward[-1],
        "caught_random_glimpses": lambda: play(env, policy, generator, greedy=True).reward[-1],
        "caught_random_moves": lambda: walk(env, lambda: torch.randint(3, env.paddle.shape, generator=generator)),
        "caught_follower": lambda: walk(env, lambda: towards(env.ball, env.paddle)),
        "caught_oracle": lambda: walk(env, lambda: towards(env.landing, env.paddle)),
    }
    batches = -(-config.games // env.num_envs)
    results = {}
    for name, row in rows.items():
        env.random_glimpses = config.model == "random" or name == "caught_random_glimpses"
        env.reset(seed=TEST_SEED)
        results[name] = 100 * torch.cat([row() for _ in range(batches)]).mean().item()
    return results | {"games": float(batches * env.num_envs)}


def walk(env: CatchVectorEnv, choose: Callable[[], Tensor]) -> Tensor:
    """A game in every environment by one who does not need to look: whether it was won `[B]`."""
    reward = torch.zeros(env.num_envs)
    for _ in range(STEPS):
        _, reward, *_ = env.step({"location": env.location, "move": choose().to(env.device)})
    return reward


def towards(goal: Tensor, paddle: Tensor) -> Tensor:
    """The move that brings the paddle's two columns under the column `goal`."""
    return STAY + (goal > paddle + 1).long() - (goal < paddle).long()


@torch.no_grad()
def watch(config: Config, run: Run) -> list[Path]:
    """Six games of the most probable actions as a moving picture, the first also as a strip of pictures."""
    from PIL import Image

    env = make_env(config, run, 1)
    policy = make_policy(config, run)
    run.track(policy=policy)
    env.reset(seed=run.seed)
    frames, lasting = [], []
    for _ in range(6):
        obs, state = env.obs, policy.initial_state(1)
        for t in range(STEPS):
            output = policy(obs, state)
            state, (obs, *_) = output.state, env.step(output.distribution.mode())
            frames.append(Image.fromarray(env.picture()))
            lasting.append(1_000 if t == STEPS - 1 else 120)  # milliseconds
    film, strip = run.path("catch.gif"), run.path("catch.png")
    frames[0].save(film, save_all=True, append_images=frames[1:], duration=lasting, loop=0)
    shown = [frames[t].reduce(2) for t in range(0, STEPS, 2)]
    width, height = shown[0].width + 4, shown[0].height + 4
    sheet = Image.new("RGB", (6 * width, 2 * height), "white")
    for k, picture in enumerate(shown):
        sheet.paste(picture, (k % 6 * width + 2, k // 6 * height + 2))
    sheet.save(strip)
    return [film, strip]
