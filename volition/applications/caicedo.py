"""Active localisation: an agent deforms a window over an image until it holds an object, and says so by a trigger.

Caicedo and Lazebnik (2015), "Active object localization with deep reinforcement learning".

state    the features of the window and the last 10 actions
action   one of 9: four shift the window, four scale or stretch it, each by a fifth of its sides; one is the trigger
reward   the sign of the change of IoU with an object of the class; 3 for a trigger at IoU ≥ 0.6, −3 for another
training Q-learning; what is done at random is drawn among the actions that pay (guided exploration).
         At test time a trigger paints a black cross over its window, and the search begins again
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from volition.applications._tree_agent import WindowQ
from volition.applications._tree_lessons import Lessons
from volition.applications._tree_limits import grid
from volition.applications._tree_sight import Canvas, Maps, Seen, Sight
from volition.applications._trigger_agent import TriggerAgent
from volition.applications._trigger_images import one_of_two, put_first, split_by, wanted
from volition.applications._trigger_picture import draw_trail
from volition.applications._trigger_scores import fixed, judged, report
from volition.applications._trigger_search import (
    MEMORY,
    TRIGGER,
    Marked,
    Oracle,
    Trail,
    at_random,
    search,
)
from volition.core.flat import Flat, FlatAdam
from volition.core.losses import q_target, squared
from volition.core.replay import Replay
from volition.core.schedules import epsilon_greedy, linear
from volition.core.windows import CAICEDO, remember, transform
from volition.data import boxes as box_data
from volition.data.boxes import BoxedImages
from volition.envs.windows import WindowsVectorEnv
from volition.errors import VolitionError
from volition.machine import multiplies_bf16
from volition.nets.regions import RegionHead, SmallBackbone
from volition.nets.vgg import load_vgg16
from volition.run import Run

TEST_SEED, SIDE_BY_SIDE = 0, 250  # every evaluation draws the same random actions; images searched at once


@dataclass(frozen=True)
class Config:
    images: str = "scenes"
    """"scenes" are generated; "voc07" and "voc07+12" are looked for in --data; or the path of your own pictures."""
    label: str = ""
    """Class to look for; without a name the one that most training images show."""
    train_images: int = 8_000
    """Images to train on, 0 for all; 0 scenes are 1,000."""
    test_images: int = 1_000
    """Images to test on, 0 for all."""
    weights: str = ""
    """File of VGG-16's weights; without one a small backbone learns all classes of all training images first."""
    side: int = 250
    """Pixels to which an image's longer side is shrunk for the backbone; 500 for VGG-16."""
    units: int = 256
    """Features of a window; VGG-16's fc6 has 4096."""
    channels: int = 64
    """Channels of the small backbone's maps; its inner layers go with them."""
    lessons: int = 6_000
    """Updates of the small backbone, before all else."""
    lesson_images: int = 8
    """Images in each of them."""
    lesson_lr: float = 2e-3
    """Learning rate of these and the next, annealed linearly to 0."""
    head_lessons: int = 600
    """Updates of the window's features and of the detector that scores windows; of VGG-16's only the latter."""
    head_windows: int = 32
    """Windows of each of their 32 images."""
    updates: int = 2_500
    """Updates of Q."""
    num_envs: int = 32
    """Images that the agent searches side by side while it trains."""
    steps: int = 40
    """Actions after which an episode is cut off."""
    asked: int = 2
    """Actions learned from in each state: the taken one, and others, for what each pays and leads to is known while
    one trains; 1 in the paper."""
    ask_trigger: bool = True
    """What a trigger would pay is learned in every state; in the paper where it was done, which is one in twenty."""
    elsewhere: int = 128
    """Windows in an update that lie in images without the class, where a trigger pays −3; 0 in the paper."""
    capacity: int = 100_000
    """Transitions that the replay remembers."""
    batch: int = 256
    """Transitions in an update."""
    learning_starts: int = 2_000
    """Transitions before the first update of Q."""
    gamma: float = 0.5
    """Discount γ, of which the paper says nothing; reproductions have 0.9."""
    lr: float = 1e-3
    """Learning rate of Q, annealed linearly to 0."""
    tau: float = 0.01
    """Share of Q in the target network after each update, the rest being what it was."""
    epsilon: float = 1.0
    """Probability ε of an action at random, at the start (section 4.2)."""
    epsilon_end: float = 0.1
    """ε after the first third of the updates, 5 of 15 epochs (section 4.2)."""
    guided: float = 1.0
    """Share of the actions at random that are drawn among those that pay (section 4.2)."""
    hidden: tuple[int, ...] = (512, 256)
    """Units of Q's hidden layers; 1024, 1024 in the paper, with dropout."""
    context: tuple[float, ...] = (1.0, 1.5)
    """The state holds the features of the window so many times as wide and high; 1.17 is the paper's 16 pixels."""
    place: bool = True
    """The state holds the window's corners too; in the paper the history alone tells them."""
    own_head: bool = False
    """Q's features of a window begin as the detector's and learn on; in the paper, and here, they stay as they are."""
    regions: int = 200
    """Windows attended in an image at test time (section 5)."""
    bf16: bool = True
    """Features and products in bfloat16 where the machine can."""
    validation: int = 0
    """Train images to keep aside and evaluate on instead of the test set: tune with this, never without."""

    def __post_init__(self) -> None:
        least = {"train_images": 0, "test_images": 0, "side": 32, "units": 1, "lessons": 0, "lesson_images": 2}
        least |= {
            "channels": 1,
            "head_lessons": 0,
            "head_windows": 2,
            "updates": 1,
            "num_envs": 1,
            "steps": 1,
            "capacity": 1,
            "batch": 1,
        }
        least |= {"learning_starts": 0, "elsewhere": 0, "regions": 10, "validation": 0, "lr": 0, "lesson_lr": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be {bound} or more")
        for name in ("gamma", "tau", "epsilon", "epsilon_end", "guided"):
            if not 0 <= getattr(self, name) <= 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must lie in 0 … 1")
        for name in ("hidden", "context"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise VolitionError(f"{name} {getattr(self, name)} must hold at least one number, all above 0")


VARIANTS = {
    "tiny": Config(
        train_images=40, test_images=30, side=96, channels=4, units=8, lessons=6, lesson_images=4, head_lessons=4,
        head_windows=4, updates=16, num_envs=4, steps=6, capacity=64, batch=4, learning_starts=16, elsewhere=4,
        hidden=(16,), regions=12, bf16=False,
    ),
    "laptop": Config(),
    # what the paper tells of its settings, with VGG-16 for its ZF-5 and without dropout; another class by --label
    "voc": Config(
        images="voc07+12", label="aeroplane", train_images=0, test_images=0, weights="vgg16.safetensors", side=500,
        units=4096, updates=150_000, num_envs=1, asked=1, elsewhere=0, batch=100, gamma=0.9, lr=1e-4,
        hidden=(1024, 1024), context=(7 / 6,), place=False, ask_trigger=False,
    ),
}  # fmt: skip
PAPER = {
    "metric": "ap",
    "unit": "%",
    "better": "higher",
    "baselines": ("ap_random", "ap_grid"),
    "data": "",
    "source": "Caicedo 2015, table 1: 43.9 triggered, 46.1 attended, means over the 20 classes of VOC 2007",
    "rows": {},
}


def train(config: Config, run: Run | None = None) -> TriggerAgent:
    """The backbone's lessons; then features of the images that matter, once; then Q-learning."""
    run = run or Run()
    images = load_images(config, run, "train")
    label = wanted(config.label, images)
    run.dataset = f"{images.name}, {label}"
    # VGG-16 has nothing to learn from other images, whose maps would fill the memory
    own = split_by(images, label) if config.weights else put_first(images, label)
    agent = make_agent(config, len(own.classes)).to(run.device)
    target = copy.deepcopy(agent.net).requires_grad_(False)
    flat, still = Flat(agent.net), Flat(target)
    optimizer = FlatAdam(flat, config.lr)
    lessons = Lessons(
        agent.sight, Canvas(own, config.side), run.device, config.bf16 and multiplies_bf16(run.device),
        0 if config.weights else config.lessons, config.head_lessons, config.lesson_images, config.head_windows,
        config.lesson_lr,
    )  # fmt: skip
    env = WindowsVectorEnv(
        config.num_envs, own, "trigger", config.steps, own.classes[0], tensors=True, device=run.device
    )
    env.reset(seed=run.seed)
    memory = Replay(config.capacity, observed(env, env.image), run.device)
    run.track(policy=agent, target=target, lessons=lessons, optimizer=optimizer, env=env, memory=memory)
    barren = (own.label != 0).all(1).nonzero()[:, 0].to(run.device)
    seen = None

    for update in run.loop(lessons.total + config.updates):
        if update < lessons.total:
            run.log(update, **lessons.learn(update, run.generator))
            continue
        seen, at = seen or lessons.seen(), update - lessons.total
        if at == 0:
            agent.net.begin(agent.sight)
            still.data.copy_(flat.data)
        epsilon = linear(at, config.epsilon, config.epsilon_end, config.updates // 3)
        while True:
            reward = play(config, agent, seen, env, memory, epsilon, run.generator)
            if len(memory) >= min(config.learning_starts, config.capacity):
                break
        still.data.lerp_(flat.data, config.tau)
        flat.zero_grad()
        batch = memory.sample(config.batch, run.generator)
        loss, q = learn(config, agent, target, seen, batch, run.generator)
        if config.elsewhere and len(barren):
            loss = loss + nowhere(config, agent, seen, batch, barren, run.generator)
        loss.backward()
        flat.clip_grad_norm(10.0)
        optimizer.step(config.lr * (1 - at / config.updates))
        found = (reward == 3).float().mean()
        run.log(update, reward=reward.mean(), found=found, q=q.mean(), loss=loss)
    return agent.eval()


def observed(env: WindowsVectorEnv, action: Tensor) -> dict[str, Tensor]:
    """What is remembered of a step, 32 bytes: where it led follows from these."""
    obs = env.obs
    return {
        "image": obs["image"].int(),
        "window": obs["window"].short(),
        "history": obs["history"],
        "action": action.to(torch.uint8),
        "reward": env.payoffs.to(torch.int8),
    }


@torch.no_grad()
def play(
    config: Config,
    agent: TriggerAgent,
    seen: Seen,
    env: WindowsVectorEnv,
    memory: Replay,
    epsilon: float,
    generator: torch.Generator,
) -> Tensor:
    """One action in every image, remembered; returns what they paid `[B]`."""
    obs, pays = env.obs, env.payoffs > 0
    q = agent.values(seen, obs["image"], obs["window"], obs["history"])
    guided, coin = torch.rand(2, config.num_envs, generator=generator, device=q.device)
    allowed = pays | (~pays.any(-1) | (guided >= config.guided)).unsqueeze(1)
    lucky = epsilon_greedy(q, 1.0, generator, allowed)
    action = torch.where(coin < epsilon, lucky, q.argmax(-1))
    memory.add(observed(env, action))
    return env.step(action)[1]


def learn(
    config: Config,
    agent: TriggerAgent,
    target: WindowQ,
    seen: Seen,
    batch: dict[str, Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """½(r + γ max Q⁻(s',·) − Q(s,a))² and Q(s,a) of the actions taken and of others; a trigger ends an episode.

    With `ask_trigger` the same for the trigger in all states, with as much weight as the others together.
    """
    image, window, history = batch["image"].long(), batch["window"].float(), batch["history"]
    q = agent.values(seen, image, window, history)
    with torch.no_grad():
        others = torch.randint(len(CAICEDO), (len(q), config.asked - 1), generator=generator, device=q.device)
        action = torch.cat([batch["action"].long().unsqueeze(1), others], 1)
        after = torch.cat([transform(window, seen.size[image]), window.unsqueeze(1)], 1)
        goes_on, following = action != TRIGGER, q.new_zeros(*action.shape, len(CAICEDO))
        row = goes_on.nonzero()[:, 0]
        past = remember(history[row], action[goes_on])
        following[goes_on] = agent.values(seen, image[row], after[row, action[goes_on]], past, target)
        y = q_target(batch["reward"].float().gather(1, action), config.gamma * goes_on, following)
    trigger, q = q[:, TRIGGER], q.gather(1, action)
    loss = squared(q - y).mean()
    if config.ask_trigger:
        loss = loss + squared(trigger - batch["reward"][:, TRIGGER].float()).mean()
    return loss, q.detach()


def nowhere(
    config: Config,
    agent: TriggerAgent,
    seen: Seen,
    batch: dict[str, Tensor],
    barren: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """½(−3 − Q(s, trigger))², where s are windows of the batch in images `barren`, which do not show the class."""
    few = min(config.elsewhere, config.batch)
    pick = torch.randint(len(barren), (few,), generator=generator, device=barren.device)
    old, image = batch["image"][:few].long(), barren[pick]
    window = batch["window"][:few] / seen.size[old].repeat(1, 2) * seen.size[image].repeat(1, 2)
    q = agent.values(seen, image, window.round(), batch["history"][:few])
    return few / config.batch * squared(q[:, TRIGGER] + 3).mean()


def make_agent(config: Config, classes: int) -> TriggerAgent:
    """Fresh weights, but for those of VGG-16."""
    if config.weights:
        sight = Sight(*load_vgg16(Path(config.weights)), classes)
    else:
        backbone = SmallBackbone(config.channels, max(config.channels // 4, 1))
        sight = Sight(backbone, RegionHead(backbone.channels, config.units), classes)
    return TriggerAgent(sight, config.hidden, config.context, config.place, config.own_head)


def load_images(config: Config, run: Run, split: str) -> BoxedImages:
    """The images of the settings; with `validation` the last train images take the place of the test set."""
    count = config.train_images if split == "train" or config.validation else config.test_images
    return box_data.load(config.images, run.data, split, count, validation=config.validation)


@torch.no_grad()
def trails(
    config: Config, agent: TriggerAgent, seen: Seen, canvas: Canvas, objects: Tensor, generator: torch.Generator
) -> dict[str, Trail]:
    """What the agent attends in all images of `seen`, and what those beside it do."""
    size, shares = seen.size, grid(config.regions)
    marked = Marked(agent.sight, seen, canvas)
    found = {
        "": search(agent.greedy(marked.seen), size, config.regions, marked.paint),
        "random": search(at_random(len(size), generator), size, config.regions),
        "grid": fixed(shares, size),
        "oracle": search(Oracle(size, objects, generator), size, config.regions),
    }
    image = torch.arange(len(size), device=size.device).repeat_interleave(config.regions)
    blank = torch.zeros(len(image), MEMORY, dtype=torch.int8, device=size.device)
    q = agent.values(seen, image, found["grid"].window.flatten(0, 1), blank)
    found["grid"] = found["grid"]._replace(worth=q[:, TRIGGER].view(len(size), -1))
    return found


@torch.no_grad()
def evaluate(config: Config, run: Run) -> dict[str, float | list[float]]:
    """AP in % of a class: of the windows that triggered and of all attended, ranked by the detector or by Q.

    Beside: random actions, as many fixed windows, and an oracle that knows the objects and goes greedily. `recall`
    and `recall_10` count objects that any attended window, or one of the first ten, has IoU ≥ ½ with; `effort` is the
    mean number of actions per right trigger.
    """
    agent, images = trained(config, run)
    generator = torch.Generator(run.device).manual_seed(TEST_SEED)
    objects = (images.boxes * (images.label == 0).unsqueeze(-1)).to(run.device)
    rows: dict[str, list[tuple[Tensor, ...]]] = {}
    for index in torch.arange(len(images)).split(SIDE_BY_SIDE):
        canvas = Canvas(images.subset(index), config.side)
        seen = Seen(agent.sight, Maps(agent.sight, canvas, run.device, config.bf16 and multiplies_bf16(run.device)))
        for name, trail in trails(config, agent, seen, canvas, objects[index], generator).items():
            score = judged(agent.sight.detector, seen, trail.window)
            rows.setdefault(name, []).append((*trail, score))
    results: dict[str, float | list[float]] = {}
    for name, parts in rows.items():
        *fields, score = (torch.cat(field) for field in zip(*parts, strict=True))
        found = report(Trail(*fields), score, objects, images.difficult.to(run.device))
        leave = {"": (), "grid": ("effort", "effort_median", "ap_attended", "ap_attended_by_q")}
        unwanted = leave.get(name, ("ap_by_q", "ap_attended_by_q"))
        results |= {f"{key}_{name}".rstrip("_"): value for key, value in found.items() if key not in unwanted}
    return results


@torch.no_grad()
def watch(config: Config, run: Run) -> list[Path]:
    """Pictures of test images that show the class: the windows in order, those that triggered, right and wrong."""
    agent, images = trained(config, run)
    images = images.subset((images.label == 0).any(1).nonzero()[:4, 0])
    canvas = Canvas(images, config.side)
    seen = Seen(agent.sight, Maps(agent.sight, canvas, run.device, config.bf16 and multiplies_bf16(run.device)))
    marked = Marked(agent.sight, seen, canvas)
    trail = search(agent.greedy(marked.seen), seen.size, min(config.regions, 60), marked.paint)
    objects = images.boxes * (images.label == 0).unsqueeze(-1)
    return [
        draw_trail(
            run.path(f"search-{i + 1}.png"), images.pixels(i).permute(1, 2, 0).numpy(), trail.window[i].cpu(),
            trail.fired[i].cpu(), objects[i], images.classes[0],
        )
        for i in range(len(images))
    ]  # fmt: skip


def trained(config: Config, run: Run) -> tuple[TriggerAgent, BoxedImages]:
    """The trained agent, and test images of which class 0 is the one that it looks for."""
    images = load_images(config, run, "test")
    taught = load_images(config, run, "train")
    label = wanted(config.label, taught)
    run.dataset = f"{images.name}, {label}"
    agent = make_agent(config, 2 if config.weights else len(taught.classes)).to(run.device)
    run.track(policy=agent)
    return agent.eval(), one_of_two(images, label)
