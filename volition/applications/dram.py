"""DRAM, the deep recurrent attention model: find several digits on a large canvas and name them together.

Ba, Mnih and Kavukcuoglu (2015), "Multiple object recognition with visual attention".

state    r⁽¹⁾_t and r⁽²⁾_t of two stacked LSTMs; g_t = f_what(ρ(x, l_t)) ⊙ f_where(l_t) is what it sees; r⁽²⁾_0 comes
         from a context network, which sees the whole canvas coarsely
action   where to look, l_t ~ N(f_l(r⁽²⁾_{t−1}), σ²), the first place too, and after the last glimpse the answer,
         f_a(r⁽¹⁾_T): which pair of digits, or what is their sum
reward   1 if the answer is right, else 0
training REINFORCE with a learned baseline for where to look, cross-entropy for the answer
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.applications._glimpse_picture import draw_glimpses
from volition.core.distributions import Categorical, DiagonalGaussian, Distribution, Product
from volition.core.losses import policy_gradient
from volition.core.rollout import rollout
from volition.data import images as image_data
from volition.envs.glimpse import GlimpseVectorEnv, named
from volition.errors import VolitionError
from volition.machine import multiplies_bf16
from volition.nets.deep_attention import DeepAttention
from volition.nets.mlp import mlp
from volition.run import Run

TEST_SEED, EVALUATION_BATCH = 0, 500  # every evaluation sees the same test canvases
EPOCH = 60_000  # images


@dataclass(frozen=True)
class Config:
    task: Literal["pairs-100", "addition-100"] = "pairs-100"
    """Name the two digits without their order, 55 classes (section 4.1), or their sum, 19 (section 4.2)."""
    images: str = "digits"
    """"digits" is MNIST where it is found, else the built-in handwriting; or the path of your own .npz."""
    context: bool = True
    """Whether a context network begins r⁽²⁾; without one the first glimpse is blind."""
    glimpses: int = 4
    """Glimpses per canvas, T (section 4.1)."""
    size: int = 16
    """Side of each patch of a glimpse in values."""
    scales: int = 4
    """Patches per glimpse, each twice as wide as the one before."""
    units: int = 256
    """Units of each LSTM; 512 in the paper."""
    unit: float = 0.4
    """Unit of the locations in half canvas widths: 20 pixels of 100 in the paper, "very sensitive"."""
    std: float = 1.2
    """Standard deviation σ of the location at the beginning, in such units; 0.03 in the paper."""
    final_std: float = 0.15
    """… and at the end, linearly; the paper's σ is fixed."""
    reward: Literal["right", "log"] = "log"
    """"right" is the paper's 1 or 0; "log" is log p_T(y), in whose place the paper puts it."""
    baseline: Literal["state", "privileged"] = "privileged"
    """b(r_t) as in the paper, or b(r_t, y, log p_t(y)): unbiased as well, for the label does not depend on l_t."""
    auxiliary: float = 1.0
    """Weight of the cross-entropy of earlier glimpses' answers at the beginning; the paper asks only after the last."""
    final_auxiliary: float = 0.0
    """… and at the end, linearly."""
    optimizer: Literal["adam", "nesterov"] = "adam"
    """Adam, or SGD with Nesterov's momentum 0.9 as in the paper."""
    lr: float = 3e-3
    """Learning rate at the beginning."""
    location_lr: float = 1e-3
    """The same for all that chooses locations: REINFORCE alone trains it."""
    decay: float = 0.0
    """Factor of both per 60,000 images, 0.97 in the paper; 0 lowers them linearly to 0."""
    batch: int = 256
    """Canvases per update."""
    updates: int = 9_500
    """Updates of training."""
    bf16: bool = True
    """Multiply matrices in bfloat16 where the machine can; weights, probabilities, losses are float32."""
    validation: int = 0
    """Train images to keep aside and evaluate on instead of the test set: tune with this, never without."""
    canvases: int = 10_000
    """Canvases of an evaluation."""
    rolls: int = 10
    """Roll-outs per canvas whose mean log-probability `evaluate` reports apart from the single one."""

    def __post_init__(self) -> None:
        for name in ("glimpses", "size", "scales", "units", "batch", "updates", "rolls", "canvases"):
            if getattr(self, name) < 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("unit", "std", "final_std", "lr", "location_lr"):
            if getattr(self, name) <= 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be more than 0")
        for name in ("auxiliary", "final_auxiliary", "validation", "decay"):
            if getattr(self, name) < 0:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be 0 or more")


VARIANTS = {
    "tiny": Config(size=12, scales=3, units=32, batch=16, updates=30, bf16=False, canvases=200, rolls=2),
    "laptop": Config(),
    "no-context": Config(context=False),
    "addition": Config(task="addition-100"),
    # the paper's own training
    "paper": Config(
        units=512, std=0.03, final_std=0.03, reward="right", baseline="state", auxiliary=0.0, optimizer="nesterov",
        lr=0.01, location_lr=0.01, decay=0.97, batch=128, updates=100_000, bf16=False,
    ),
}  # fmt: skip
PAPER = {
    "metric": "error",
    "unit": "%",
    "better": "lower",
    "baselines": ("error_random_glimpses", "error_chance"),
    "data": "MNIST",
    "source": "Ba 2015, tables 1 and 2",
    "rows": {"laptop": 5.0, "no-context": 7.0, "addition": 2.5, "paper": 5.0},
}


class Look(NamedTuple):
    """T glimpses of B canvases, with gradients: the places, what chose them from which memory, and the answers."""

    place: Tensor  # [T, B, 2]: l_1 … l_T as drawn
    where: DiagonalGaussian  # of which each was drawn
    memory: Tensor  # [T, B, 2·units]: r⁽¹⁾ and r⁽²⁾ before each
    what: Categorical  # [T, B]: π(y|r⁽¹⁾_t) after each
    before: Categorical  # [T, B]: the same before each
    reward: Tensor  # [B]
    glimpse: Tensor  # [T, B, k·g·g]


def train(config: Config, run: Run | None = None) -> DeepAttention:
    """Train on canvases drawn on the fly; the test set is never looked at."""
    run = run or Run()
    env = make_env(config, run, "train", config.batch)
    run.dataset = env.images.name
    env.reset(seed=run.seed)
    policy = make_policy(config, run, env)
    baseline = Baseline(2 * config.units, env.classes, config.baseline == "privileged").to(run.device)
    optimizer = make_optimizer(config, policy, baseline)
    run.track(policy=policy, baseline=baseline, optimizer=optimizer, env=env)
    bf16 = config.bf16 and multiplies_bf16(run.device)
    for update in run.loop(config.updates):
        left = 1 - update / config.updates
        share = config.decay ** (update * config.batch // EPOCH) if config.decay else left
        for group in optimizer.param_groups:
            group["lr"] = share * group["full_lr"]
        policy.std.fill_(config.final_std + left * (config.std - config.final_std))
        early = config.final_auxiliary + left * (config.auxiliary - config.final_auxiliary)

        label = env.label
        with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
            seen = look(env, policy, run.generator)
            losses = hybrid_loss(config, baseline, seen, label, early)
        run.log(update, **losses, error=100 * (1 - seen.reward.mean()))

        optimizer.zero_grad(set_to_none=True)
        sum(losses.values(), start=torch.zeros((), device=run.device)).backward()
        optimizer.step()
    return policy


def look(env: GlimpseVectorEnv, policy: DeepAttention, generator: torch.Generator, greedy: bool = False) -> Look:
    """One episode of the canvases in view, with gradients where they are enabled."""
    start = policy.begin(env.pictures)
    chooser, before = parts(policy.act(start.lower.h, start.upper.h))
    place = (chooser.mode() if greedy else chooser.sample(generator)).detach()  # an action is data
    grad, obs = torch.is_grad_enabled(), env.first(place)
    episode, _, _ = rollout(
        env, policy, obs, start, env.glimpses, generator=generator, greedy=greedy, grad=grad
    )  # fmt: skip
    where, what = parts(episode.distribution)
    states = [start, *(output.state for output in episode.outputs[:-1])]
    return Look(
        torch.cat([place[None], episode.action["location"][:-1]]),
        DiagonalGaussian(torch.cat([chooser.mean[None], where.mean[:-1]]), chooser.std),
        torch.stack([torch.cat([state.lower.h.float(), state.upper.h.float()], -1) for state in states]),
        what,
        Categorical(torch.cat([before.logits[None], what.logits[:-1]])),
        episode.reward[-1],
        episode.obs["glimpse"],
    )


def parts(distribution: Distribution | None) -> tuple[DiagonalGaussian, Categorical]:
    """Where to look and what it is, out of their product."""
    assert isinstance(distribution, Product) and isinstance(distribution.parts, dict)
    return distribution.parts["location"], distribution.parts["label"]


def hybrid_loss(config: Config, baseline: "Baseline", seen: Look, label: Tensor, early: float) -> dict[str, Tensor]:
    """What an episode teaches: cross-entropy for the answer, REINFORCE for where to look, and the baseline.

    L = −log p_T(y) − early·mean_{t<T} log p_t(y) + Σ_t (−log π(l_t|r⁽²⁾_{t−1})·(R − b_t) + (R − b_t)²); γ = 1, so every
    return is the last reward R. The place that the last step chooses is left out, for nobody looks there.
    """
    labels = label.expand(config.glimpses, -1)
    log_p = seen.what.log_prob(labels)  # log p_t(y) [T, B]
    b = baseline(seen.memory.detach(), label, seen.before.log_prob(labels).detach())
    reward = seen.reward if config.reward == "right" else log_p[-1].detach()
    losses = {
        "cross_entropy": -log_p[-1].mean(),
        "location": policy_gradient(seen.where.log_prob(seen.place), reward - b).sum(0).mean(),
        "baseline": (reward - b).square().sum(0).mean(),
    }
    if early and config.glimpses > 1:
        losses["early"] = -early * log_p[:-1].mean()
    return losses


class Baseline(nn.Module):
    """b_t: the reward expected from r_{t−1} and, privileged, from the true label and the present log p(y)."""

    def __init__(self, memory: int, classes: int, privileged: bool) -> None:
        super().__init__()
        self.classes = classes if privileged else 0
        self.net = mlp([memory + classes + 1, 128, 1]) if privileged else nn.Linear(memory, 1)

    def forward(self, memory: Tensor, label: Tensor, log_p: Tensor) -> Tensor:
        """Memory `[T, B, 2·units]`, label `[B]`, log_p `[T, B]` -> b `[T, B]`."""
        if self.classes:
            one_hot = F.one_hot(label, self.classes).to(memory.dtype).expand(len(memory), -1, -1)
            memory = torch.cat([memory, one_hot, log_p[..., None].to(memory.dtype)], -1)
        return self.net(memory).squeeze(-1).float()


def make_env(config: Config, run: Run, split: str, batch: int) -> GlimpseVectorEnv:
    """The task of the settings as a batch of episodes in tensors on the run's device."""
    images = image_data.load(config.images, run.data, config.validation)
    return GlimpseVectorEnv(
        batch, config.task, config.glimpses, config.size, config.scales, split, images,
        tensors=True, device=run.device,
    )  # fmt: skip


def make_policy(config: Config, run: Run, env: GlimpseVectorEnv) -> DeepAttention:
    """The agent of the settings with fresh weights."""
    side = (env.sensor.height, env.sensor.width)
    glimpse = config.scales * config.size**2
    network = DeepAttention(glimpse, env.classes, config.units, config.std, config.unit, config.context, side)
    return network.to(run.device)


def make_optimizer(config: Config, policy: DeepAttention, baseline: Baseline) -> torch.optim.Optimizer:
    """Adam or the paper's SGD; what REINFORCE trains has a learning rate of its own."""
    chooses = [p for key, p in policy.named_parameters() if key.startswith(("upper", "locate", "context"))]
    own = {id(p) for p in chooses}
    rest = [p for p in policy.parameters() if id(p) not in own]
    rates = ((config.lr, [*rest, *baseline.parameters()]), (config.location_lr, chooses))
    groups = [{"params": parameters, "lr": lr, "full_lr": lr} for lr, parameters in rates]
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, fused=True)
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True)


@torch.no_grad()
def evaluate(config: Config, run: Run) -> dict[str, float | list[float]]:
    """Test errors in %: one roll-out of the mean policy, M sampled ones, random glimpses, and after each glimpse."""
    env = make_env(config, run, "test", min(config.canvases, EVALUATION_BATCH))
    run.dataset = env.images.name
    policy = make_policy(config, run, env)
    run.track(policy=policy)
    env.reset(seed=TEST_SEED)
    generator = torch.Generator(run.device).manual_seed(TEST_SEED)
    wrong: dict[str, Tensor] = {}
    batches = -(-config.canvases // env.num_envs)
    for _ in range(batches):
        canvases, label = env.pictures, env.label

        def again(roll: Callable[[], Tensor], canvases: Tensor = canvases, label: Tensor = label) -> Tensor:
            env.reset(options={"images": canvases, "labels": label})
            return roll()

        rolls = [again(lambda: look(env, policy, generator).what.log_probs) for _ in range(config.rolls)]
        log_p = {
            "error": again(lambda: look(env, policy, generator, greedy=True).what.log_probs),
            "error_rolls": torch.stack(rolls).mean(0)[-1:],
            "error_random_glimpses": again(lambda: blind(env, policy, generator))[-1:],
        }
        for key, value in log_p.items():  # [steps, B, classes] -> the number of wrong answers at each step
            miss = (value.argmax(-1) != label).sum(-1)
            wrong[key] = wrong.get(key, torch.zeros_like(miss)) + miss
        env.reset()
    total = batches * env.num_envs
    errors = {key: (100 * miss / total).tolist() for key, miss in wrong.items()}
    results = {key: steps[-1] for key, steps in errors.items()}
    return results | {"error_chance": chance(env), "error_by_glimpse": errors["error"]}


def chance(env: GlimpseVectorEnv) -> float:
    """Error in % of one who always gives the most common answer."""
    p = env.labels.bincount() / len(env.labels)
    digit = torch.arange(len(p), device=env.device)
    answers = named(env.task, torch.cartesian_prod(digit, digit))
    return 100 * (1 - p.new_zeros(env.classes).index_add(0, answers, torch.outer(p, p).flatten()).max().item())


def blind(env: GlimpseVectorEnv, policy: DeepAttention, generator: torch.Generator) -> Tensor:
    """log p_t of every class after each of T glimpses at uniformly random places `[T, B, classes]`."""
    state, log_p = policy.begin(env.pictures), []
    for _ in range(env.glimpses):
        place = torch.rand(env.location.shape, generator=generator, device=env.device) * 2 - 1
        output = policy(env.first(place), state)
        state = output.state
        log_p.append(parts(output.distribution)[1].log_probs)
    return torch.stack(log_p)


@torch.no_grad()
def watch(config: Config, run: Run) -> list[Path]:
    """Pictures of four test canvases: the path of the glimpses, what each scale saw, and the belief after each."""
    count = 4
    env = make_env(config, run, "test", count)
    policy = make_policy(config, run, env)
    run.track(policy=policy)
    env.reset(seed=run.seed)
    pictures, label = env.pictures, env.label
    seen = look(env, policy, run.generator, greedy=True)
    patches = seen.glimpse.unflatten(2, (config.scales, config.size, config.size))
    place = seen.place.clamp(-1, 1)
    picture, location, patch, prob = (x.cpu().numpy() for x in (pictures, place, patches, seen.what.probs))
    return [
        draw_glimpses(
            run.path(f"glimpses-{i + 1}.png"), picture[i], location[:, i], patch[:, i], prob[:, i], int(label[i])
        )
        for i in range(count)
    ]
