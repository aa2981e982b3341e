"""RAM, the recurrent attention model: look through a few glimpses, choose where to look next, name the image.

Mnih, Heess, Graves and Kavukcuoglu (2014), "Recurrent models of visual attention".

state    h_t = f_h(h_{t−1}, g_t), all that the agent remembers; g_t = f_g(ρ(x, l_{t−1}), l_{t−1}) is what it sees
action   where to look next, l_t ~ N(f_l(h_t), σ²), and after the last glimpse what the image shows, f_a(h_T)
reward   1 if the answer is right, else 0
training REINFORCE with a learned baseline for where to look, cross-entropy for what it is (the hybrid loss)
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.applications._glimpse_picture import draw_glimpses
from volition.core.distributions import Categorical, DiagonalGaussian, Distribution, Product
from volition.core.losses import policy_gradient
from volition.core.policy import tree_stack
from volition.core.rollout import rollout
from volition.core.trajectory import Trajectory
from volition.data import images as image_data
from volition.envs.glimpse import GlimpseVectorEnv
from volition.errors import VolitionError
from volition.machine import multiplies_bf16
from volition.nets.attention import HIDDEN, RecurrentAttention
from volition.nets.mlp import mlp
from volition.run import Run

TEST_SEED, EVALUATION_BATCH = 0, 1_000  # every evaluation sees the same test canvases


@dataclass(frozen=True)
class Config:
    task: Literal["centred", "translated-60", "cluttered-60", "cluttered-100"] = "cluttered-60"
    """What to look at: the image as it is, at a random place, or among clutter (section 4.1)."""
    images: str = "digits"
    """"digits" is MNIST where it is found, else the built-in handwriting; or the path of your own .npz."""
    model: Literal["ram", "random", "fc", "conv"] = "ram"
    """The agent, its control that looks at random places, or a baseline that sees the whole canvas."""
    glimpses: int = 8
    """Glimpses per image, T."""
    size: int = 12
    """Side of each patch of a glimpse in values, g."""
    scales: int = 3
    """Patches per glimpse, each twice as wide as the one before, k."""
    std: float = 0.25
    """Standard deviation σ of the location at the beginning, in half image widths."""
    final_std: float = 0.05
    """… and at the end, linearly; the paper's σ is fixed."""
    location_units: int = 128
    """Hidden units of the location network f_l; 0 makes it linear as in the paper."""
    reward: Literal["right", "expected"] = "expected"
    """"right" is the paper's 1 or 0; "expected" its mean under the answer's distribution, p_T(y): less noise."""
    baseline: Literal["state", "privileged"] = "privileged"
    """b(h_t) as in the paper, or b(h_t, y, log p_t(y)): unbiased as well, for the label does not depend on l_t."""
    auxiliary: float = 2.0
    """Weight of the cross-entropy of earlier glimpses' answers at the beginning; the paper asks only after the last."""
    final_auxiliary: float = 0.0
    """… and at the end, linearly: first glimpses cannot know, and would otherwise have most of the gradient."""
    units: int = 256
    """Units of each hidden layer of the fc baseline."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or SGD with momentum 0.9 as in the paper."""
    lr: float = 2e-3
    """Learning rate at the beginning, annealed linearly to 0."""
    location_lr: float = 5e-4
    """The same for the location network: REINFORCE alone trains it, so its loss weight would mean nothing to Adam."""
    batch: int = 256
    """Images per update."""
    updates: int = 4_000
    """Updates of training."""
    bf16: bool = True
    """Multiply the agent's matrices in bfloat16 where the machine can; weights, probabilities, losses are float32."""
    validation: int = 0
    """Train images to keep aside and evaluate on instead of the test set: tune with this, never without."""
    rolls: int = 10
    """Roll-outs per image whose mean log-probability `evaluate` reports apart from the single one."""

    def __post_init__(self) -> None:
        for name in ("glimpses", "size", "scales", "units", "batch", "updates", "rolls"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("std", "final_std", "lr", "location_lr"):
            if getattr(self, name) <= 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be more than 0")
        for name in ("location_units", "auxiliary", "final_auxiliary", "validation"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")


VARIANTS = {
    "tiny": Config(task="centred", glimpses=3, size=8, scales=1, batch=32, updates=30, rolls=2, bf16=False),
    "laptop": Config(updates=2_500),
    # Mnih 2014, table 1(a): 28×28
    "centred-2": Config(task="centred", glimpses=2, size=8, scales=1, batch=512, updates=6_000),
    "centred-3": Config(task="centred", glimpses=3, size=8, scales=1, batch=512, updates=6_000),
    "centred-4": Config(task="centred", glimpses=4, size=8, scales=1, batch=512, updates=6_000),
    "centred-5": Config(task="centred", glimpses=5, size=8, scales=1, batch=512, updates=6_000),
    "centred-6": Config(task="centred", glimpses=6, size=8, scales=1, batch=512, updates=6_000),
    "centred": Config(task="centred", glimpses=7, size=8, scales=1, batch=512, updates=6_000),
    "centred-fc": Config(task="centred", model="fc", lr=1e-3, batch=512, updates=6_000),
    "centred-conv": Config(task="centred", model="conv", lr=1e-3, batch=512, updates=6_000),
    # table 1(b): 60×60, translated
    "translated60": Config(task="translated-60", batch=512, updates=6_000),
    "translated60-4": Config(task="translated-60", glimpses=4, batch=512, updates=6_000),
    "translated60-6": Config(task="translated-60", glimpses=6, batch=512, updates=6_000),
    "translated60-fc64": Config(task="translated-60", model="fc", units=64, lr=1e-3, batch=512, updates=6_000),
    "translated60-fc256": Config(task="translated-60", model="fc", lr=1e-3, batch=512, updates=6_000),
    "translated60-conv": Config(task="translated-60", model="conv", lr=1e-3, batch=512, updates=6_000),
    # table 2(a): 60×60, translated and cluttered
    "cluttered60": Config(batch=512, updates=100_000),
    "cluttered60-4": Config(glimpses=4, batch=512, updates=100_000),
    "cluttered60-6": Config(glimpses=6, batch=512, updates=100_000),
    "cluttered60-random": Config(model="random", batch=512, updates=6_000),
    "cluttered60-fc64": Config(model="fc", units=64, lr=1e-3, batch=512, updates=6_000),
    "cluttered60-fc256": Config(model="fc", lr=1e-3, batch=512, updates=6_000),
    "cluttered60-conv": Config(model="conv", lr=1e-3, batch=512, updates=6_000),
    # table 2(b): 100×100, translated and cluttered
    "cluttered100": Config(task="cluttered-100", scales=4, batch=512, updates=100_000),
    "cluttered100-4": Config(task="cluttered-100", scales=4, glimpses=4, batch=512, updates=100_000),
    "cluttered100-6": Config(task="cluttered-100", scales=4, glimpses=6, batch=512, updates=100_000),
    "cluttered100-random": Config(task="cluttered-100", scales=4, model="random", batch=512, updates=6_000),
    "cluttered100-conv": Config(task="cluttered-100", model="conv", lr=1e-3, batch=512, updates=6_000),
    # the paper's own training but for the first weights: minibatch 20, SGD with momentum, σ fixed, no early answers
    "paper": Config(
        std=0.2, final_std=0.2, location_units=0, reward="right", baseline="state", auxiliary=0.0,
        optimizer="sgd", lr=1e-2, location_lr=1e-2, batch=20, updates=3_000_000, bf16=False,
    ),
}  # fmt: skip
PAPER = {
    "metric": "error",
    "unit": "%",
    "better": "lower",
    "baselines": ("error_random_glimpses", "error_chance"),
    "data": "MNIST",
    "source": "Mnih 2014, NIPS edition, tables 1 and 2",
    "rows": {
        "centred-2": 3.79, "centred-3": 1.51, "centred-4": 1.54, "centred-5": 1.34, "centred-6": 1.12, "centred": 1.07,
        "centred-fc": 1.69, "centred-conv": 1.21,
        "translated60": 1.20, "translated60-4": 1.54, "translated60-6": 1.22,
        "translated60-fc64": 6.42, "translated60-fc256": 2.63, "translated60-conv": 1.62,
        "cluttered60": 4.04, "cluttered60-4": 4.96, "cluttered60-6": 4.08, "cluttered60-random": 14.4,
        "cluttered60-fc64": 28.58, "cluttered60-fc256": 11.96, "cluttered60-conv": 8.09,
        "cluttered100": 8.11, "cluttered100-4": 9.41, "cluttered100-6": 8.31, "cluttered100-random": 28.4,
        "cluttered100-conv": 14.35,
        "paper": 4.04,
    },
}  # fmt: skip


def parts(distribution: Distribution | None) -> tuple[DiagonalGaussian, Categorical]:
    """Where to look next and what it is, out of their product."""
    assert isinstance(distribution, Product) and isinstance(distribution.parts, dict)
    return distribution.parts["location"], distribution.parts["label"]


class Baseline(nn.Module):
    """b_t: the reward expected from h_t and, privileged, from the true label and the present log p_t(y)."""

    def __init__(self, classes: int, privileged: bool) -> None:
        super().__init__()
        self.classes = classes if privileged else 0
        self.net = mlp([HIDDEN + classes + 1, 128, 1]) if privileged else nn.Linear(HIDDEN, 1)

    def forward(self, h: Tensor, label: Tensor, log_p: Tensor) -> Tensor:
        """h `[T, B, 256]`, label `[B]`, log_p `[T, B]` -> b `[T, B]`."""
        if self.classes:
            one_hot = F.one_hot(label, self.classes).to(h.dtype).expand(len(h), -1, -1)
            h = torch.cat([h, one_hot, log_p[..., None].to(h.dtype)], -1)
        return self.net(h).squeeze(-1).float()


class Whole(nn.Module):
    """The paper's baselines, which see the whole canvas: `[B, H, W]` uint8 -> logits `[B, classes]`."""

    def __init__(self, height: int, width: int, classes: int, config: Config) -> None:
        super().__init__()
        if config.model == "fc":
            self.net = nn.Sequential(nn.Flatten(), mlp([height * width, config.units, config.units, classes]))
        elif min(height, width) < 10:
            raise VolitionError(f"the conv baseline's filters of 10×10 do not fit images of {height}×{width}")
        else:  # one layer of 8 filters of 10×10, stride 5, then 256 units (section 4.1)
            maps = 8 * ((height - 10) // 5 + 1) * ((width - 10) // 5 + 1)
            self.net = nn.Sequential(
                nn.Unflatten(1, (1, height)), nn.Conv2d(1, 8, 10, stride=5), nn.ReLU(), nn.Flatten(),
                mlp([maps, 256, classes]),
            )  # fmt: skip

    def forward(self, canvases: Tensor) -> Tensor:
        """Logits of each class."""
        return self.net(canvases.float() / 255).float()


def train(config: Config, run: Run | None = None) -> nn.Module:
    """Train on canvases drawn on the fly; the test set is never looked at."""
    run = run or Run()
    env = make_env(config, run, "train", config.batch)
    run.dataset = env.images.name
    env.reset(seed=run.seed)
    policy = make_policy(config, run, env)
    if isinstance(policy, Whole):
        return train_whole(config, run, env, policy)
    baseline = Baseline(env.images.classes, config.baseline == "privileged").to(run.device)
    rest = [p for name, p in policy.named_parameters() if not name.startswith("locate")]
    optimizer = make_optimizer(
        config, (config.lr, [*rest, *baseline.parameters()]), (config.location_lr, policy.locate.parameters())
    )
    run.track(policy=policy, baseline=baseline, optimizer=optimizer, env=env)
    # The actor is the policy in bfloat16: in many small steps, casting as one goes costs more than it saves.
    actor = copy.deepcopy(policy).requires_grad_(False)
    bf16 = config.bf16 and multiplies_bf16(run.device)
    if bf16:
        actor.to(torch.bfloat16)
    actor.std = policy.std

    for update in run.loop(config.updates):
        left = anneal(optimizer, update, config)
        policy.std.fill_(config.final_std + left * (config.std - config.final_std))
        early = config.final_auxiliary + left * (config.auxiliary - config.final_auxiliary)
        torch._foreach_copy_(list(actor.parameters()), list(policy.parameters()))

        label = env.label
        start = actor.initial_state(config.batch)
        episode, _, _ = rollout(env, actor, env.obs, start, config.glimpses, generator=run.generator)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
            losses = hybrid_loss(config, policy, baseline, episode, label, early)
        run.log(update, **losses, error=100 * (1 - episode.reward[-1].mean()))

        optimizer.zero_grad(set_to_none=True)
        sum(losses.values(), start=torch.zeros(())).backward()
        optimizer.step()
    return policy


def hybrid_loss(
    config: Config, policy: RecurrentAttention, baseline: Baseline, episode: Trajectory, label: Tensor, early: float
) -> dict[str, Tensor]:
    """What an episode `[T, B]` teaches: cross-entropy for what it is, REINFORCE for where to look, and the baseline.

    L = −log p_T(y) − early·mean_{t<T} log p_t(y) + Σ_{t<T} (−log π(l_t|h_t)·(R − b_t) + (R − b_t)²); γ = 1, so every
    return is the last reward R, and l_T is left out, for nobody looks there (Mnih 2014, section 3.2).
    """
    memory = policy.replayed(episode.obs, tree_stack([output.state for output in episode.outputs]))
    where, what = parts(policy.act(memory))
    log_p = what.log_prob(label.expand(config.glimpses, -1))  # log p_t(y) [T, B]
    b = baseline(memory[:-1].detach(), label, log_p[:-1].detach())
    reward = episode.reward[-1] if config.reward == "right" else log_p[-1].detach().exp()
    log_prob = where.log_prob(episode.action["location"])[:-1]
    losses = {
        "cross_entropy": -log_p[-1].mean(),
        "location": policy_gradient(log_prob, reward - b).sum(0).mean(),
        "baseline": (reward - b).square().sum(0).mean(),
    }
    if early and config.glimpses > 1:
        losses["early"] = -early * log_p[:-1].mean()
    return losses


def train_whole(config: Config, run: Run, env: GlimpseVectorEnv, policy: Whole) -> Whole:
    """Plain supervised learning of a baseline on the same stream of canvases."""
    optimizer = make_optimizer(config, (config.lr, policy.parameters()))
    run.track(policy=policy, optimizer=optimizer, env=env)
    for update in run.loop(config.updates):
        anneal(optimizer, update, config)
        logits = policy(env.pictures)
        loss = F.cross_entropy(logits, env.label)
        run.log(update, cross_entropy=loss, error=100 * (logits.argmax(-1) != env.label).float().mean())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        env.reset()
    return policy


def make_env(config: Config, run: Run, split: str, batch: int) -> GlimpseVectorEnv:
    """The task of the settings as a batch of episodes in tensors on the run's device."""
    images = image_data.load(config.images, run.data, config.validation)
    return GlimpseVectorEnv(
        batch, config.task, config.glimpses, config.size, config.scales, split, images,
        tensors=True, device=run.device,
    )  # fmt: skip


def make_policy(config: Config, run: Run, env: GlimpseVectorEnv) -> RecurrentAttention | Whole:
    """The agent of the settings, or the baseline, with fresh weights."""
    if config.model in ("fc", "conv"):
        return Whole(env.sensor.height, env.sensor.width, env.images.classes, config).to(run.device)
    glimpse, random = config.scales * config.size**2, config.model == "random"
    network = RecurrentAttention(glimpse, env.images.classes, config.location_units, config.std, random)
    return network.to(run.device)


def make_optimizer(config: Config, *groups: tuple[float, Iterable[nn.Parameter]]) -> torch.optim.Optimizer:
    """Adam or the paper's SGD over groups of (learning rate, parameters)."""
    parameters = [{"params": [*group], "lr": lr, "full_lr": lr} for lr, group in groups]
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, fused=True)
    return torch.optim.SGD(parameters, momentum=0.9)


def anneal(optimizer: torch.optim.Optimizer, update: int, config: Config) -> float:
    """Set every learning rate to its share of the way left, 1 at first and 0 at the end, and return the share."""
    left = 1 - update / config.updates
    for group in optimizer.param_groups:
        group["lr"] = left * group["full_lr"]
    return left


@torch.no_grad()
def evaluate(config: Config, run: Run) -> dict[str, float | list[float]]:
    """Test errors in %: one roll-out of the mean policy, M roll-outs, random glimpses, and after each glimpse."""
    env = make_env(config, run, "test", EVALUATION_BATCH)
    run.dataset = env.images.name
    policy = make_policy(config, run, env)
    run.track(policy=policy)
    env.reset(seed=TEST_SEED)
    generator = torch.Generator(run.device).manual_seed(TEST_SEED)
    count = len(env.labels)
    index = torch.arange(count * max(1, round(5_000 / count)), device=run.device) % count
    wrong: dict[str, Tensor] = {}
    for chunk in index.split(EVALUATION_BATCH):
        canvases, label = env.canvas.draw(chunk, generator), env.labels[chunk]
        if isinstance(policy, Whole):
            log_p = {"error": policy(canvases)[None]}
        else:
            greedy = not policy.random_location
            rolls = [episode_log_p(policy, env, canvases, label, generator, greedy) for _ in range(config.rolls)]
            policy.random_location, kept = True, policy.random_location
            log_p = {
                "error": rolls[0],
                "error_rolls": torch.stack(rolls).mean(0)[-1:],
                "error_random_glimpses": episode_log_p(policy, env, canvases, label, generator, greedy=False)[-1:],
            }
            policy.random_location = kept
        for key, value in log_p.items():  # [steps, B, classes] -> the number of wrong answers at each step
            miss = (value.argmax(-1) != label).sum(-1)
            wrong[key] = wrong.get(key, torch.zeros_like(miss)) + miss
    errors = {key: (100 * miss / len(index)).tolist() for key, miss in wrong.items()}
    most_common = env.labels.bincount().max().item() / count
    results = {key: steps[-1] for key, steps in errors.items()} | {"error_chance": 100 * (1 - most_common)}
    return results | ({"error_by_glimpse": errors["error"]} if len(errors["error"]) > 1 else {})


def episode_log_p(
    policy: RecurrentAttention,
    env: GlimpseVectorEnv,
    canvases: Tensor,
    label: Tensor,
    generator: torch.Generator,
    greedy: bool,
) -> Tensor:
    """log p_t of every class after each glimpse `[T, B, classes]`, from random first places."""
    env.num_envs = len(label)
    obs, _ = env.reset(options={"images": canvases, "labels": label})
    start = policy.initial_state(len(label))
    episode, _, _ = rollout(env, policy, obs, start, env.glimpses, generator=generator, greedy=greedy)
    return parts(episode.distribution)[1].log_probs


@torch.no_grad()
def watch(config: Config, run: Run) -> list[Path]:
    """Pictures of four test images: the path of the glimpses, what each scale saw, and the belief after each."""
    count = 4
    env = make_env(config, run, "test", count)
    policy = make_policy(config, run, env)
    if isinstance(policy, Whole):
        raise VolitionError(f"a {config.model} baseline sees the whole image at once: there are no glimpses to watch")
    run.track(policy=policy)
    obs, _ = env.reset(seed=run.seed)
    pictures, label = env.pictures, env.label
    start = policy.initial_state(count)
    episode, _, _ = rollout(
        env, policy, obs, start, config.glimpses, generator=run.generator, greedy=not policy.random_location
    )
    patches = episode.obs["glimpse"].unflatten(2, (config.scales, config.size, config.size))
    probs = parts(episode.distribution)[1].probs
    picture, location, patch, prob = (x.cpu().numpy() for x in (pictures, episode.obs["location"], patches, probs))
    return [
        draw_glimpses(
            run.path(f"glimpses-{i + 1}.png"), picture[i], location[:, i], patch[:, i], prob[:, i], int(label[i])
        )
        for i in range(count)
    ]
