"""Tree-RL: an agent that scales and moves a window over an image finds its objects, two children per window.

Jie, Liang, Feng, Jin, Lu and Yan (2016), "Tree-structured reinforcement learning for sequential object localization".

state    the features of the window and of the whole image, and the last 50 actions
action   one of 13: five scale the window to a part of it, eight translate or deform it
reward   5 for the first window of an episode with IoU > ½ with an object, else 1 if IoU with any object rose, else −1
training Q-learning; the exploiting action is the best scaling or the best other one, by the toss of a coin.
         At test time every window spawns both, so that L levels are a tree of 2^L − 1 windows
"""

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from volition.applications._tree_agent import TreeAgent, WindowQ, pack, unpack
from volition.applications._tree_detection import compare, proposers
from volition.applications._tree_lessons import Lessons
from volition.applications._tree_picture import draw_tree
from volition.applications._tree_rows import COUNTS, flip, floors, path, recall, search
from volition.applications._tree_sight import Canvas, Maps, Seen, Sight
from volition.core.flat import Flat, FlatAdam
from volition.core.losses import squared
from volition.core.replay import Replay
from volition.core.schedules import linear
from volition.core.windows import ACTIONS, best_of_each, mean_of_both, moves, remember, tree, whole
from volition.data import boxes as box_data
from volition.data.boxes import BoxedImages
from volition.envs.windows import WindowsVectorEnv
from volition.errors import VolitionError
from volition.machine import multiplies_bf16
from volition.nets.regions import RegionHead, SmallBackbone
from volition.nets.vgg import load_vgg16
from volition.run import Run

TEST_SEED = 0  # every evaluation has the same coins
TAUGHT = 1_000  # training images whose proposals teach the detectors that are compared


@dataclass(frozen=True)
class Config:
    images: str = "scenes"
    """"scenes" are generated; "voc07" and "voc07+12" are looked for in --data; or the path of your own pictures."""
    train_images: int = 8_000
    """Images to train on, 0 for all; 0 scenes are 1,000."""
    test_images: int = 500
    """Images to test on, 0 for all."""
    weights: str = ""
    """File of VGG-16's weights; without one a small backbone learns from the training images' boxes first."""
    side: int = 250
    """Pixels to which an image's longer side is shrunk for the backbone; 500 for VGG-16."""
    channels: int = 64
    """Channels of the small backbone's maps; its inner layers go with them."""
    units: int = 256
    """Features of a window; VGG-16's fc6 has 4096."""
    lessons: int = 6_000
    """Updates of the small backbone, before all else."""
    lesson_images: int = 8
    """Images in each of them."""
    lesson_lr: float = 2e-3
    """Learning rate of the backbone and of the head, annealed linearly to 0."""
    head_lessons: int = 600
    """Updates of the window's features and Fast R-CNN's two answers, on the maps of the backbone as it is then."""
    head_windows: int = 32
    """Windows of each of 32 images in those updates."""
    updates: int = 6_000
    """Updates of Q."""
    num_envs: int = 64
    """Images that the agent searches side by side while it trains."""
    steps: int = 8
    """Actions in an episode; 50 in the paper, though its trees are 10 levels deep at most."""
    ends: bool = True
    """The last action's value is its reward alone; in the paper an episode is cut off, and Q looks beyond."""
    asked: int = 3
    """Actions learned from in each state: the taken one, and others, for what each pays and leads to is known while
    one trains; 1 in the paper."""
    backup: Literal["max", "both"] = "both"
    """Value of a window: that of its best action, or the mean of the two that make its children."""
    capacity: int = 200_000
    """Transitions that the replay remembers."""
    batch: int = 384
    """Transitions in an update."""
    learning_starts: int = 2_000
    """Transitions before the first update of Q."""
    gamma: float = 0.9
    """Discount γ (section 3.2)."""
    lr: float = 1e-3
    """Learning rate of Q, annealed linearly to 0."""
    tau: float = 0.01
    """Share of Q in the target network after each update, the rest being what it was."""
    epsilon: float = 1.0
    """Probability ε of an action at random, at the start (section 3.2)."""
    epsilon_end: float = 0.1
    """ε after the first 40 % of the updates, 10 of 25 epochs (section 3.2)."""
    hidden: tuple[int, ...] = (512, 512)
    """Units of Q's hidden layers; 4096, 1024, 1024, 1024 in the paper."""
    place: bool = True
    """The state holds the window's corners too; in the paper the history alone tells them."""
    own_head: bool = True
    """Q's features of a window begin as Fast R-CNN's and learn on; in the paper they stay as they are."""
    apart: float = 0.8
    """IoU that a window has at most with those before it in its tree, where there is a choice; 1 in the paper: any."""
    levels: int = 6
    """Levels of the tree that is drawn."""
    most: int = 1023
    """Windows of the largest tree that is evaluated, after those of 15, 31, 63 and 255."""
    bf16: bool = True
    """Features and products in bfloat16 where the machine can."""
    validation: int = 0
    """Train images to keep aside and evaluate on instead of the test set: tune with this, never without."""

    def __post_init__(self) -> None:
        least = {"train_images": 0, "test_images": 0, "side": 32, "units": 1, "lessons": 0, "lesson_images": 2}
        least |= {
            "channels": 4,
            "head_lessons": 0,
            "head_windows": 2,
            "updates": 1,
            "num_envs": 1,
            "steps": 1,
            "capacity": 1,
            "batch": 1,
            "levels": 2,
        }
        least |= {"asked": 1, "most": 31, "learning_starts": 0, "validation": 0, "lr": 0, "lesson_lr": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must be {bound} or more")
        for name in ("gamma", "tau", "epsilon", "epsilon_end", "apart"):
            if not 0 <= getattr(self, name) <= 1:
                raise VolitionError(f"{name} is {getattr(self, name)}; it must lie in 0 … 1")
        if not self.hidden or min(self.hidden) < 1:
            raise VolitionError(f"hidden {self.hidden} must hold at least one number, all above 0")


VARIANTS = {
    "tiny": Config(
        train_images=6, test_images=4, side=64, channels=4, units=8, lessons=6, lesson_images=2, head_lessons=4,
        head_windows=2, updates=20, num_envs=4, steps=3, capacity=60, batch=4, learning_starts=8, hidden=(16,),
        levels=4, most=63, bf16=False,
    ),
    "laptop": Config(),
    # section 3 and figure 3; 16.5k images · 25 epochs · 50 steps are 20 M actions, and an update of 64 for each of 4
    "voc": Config(
        images="voc07+12", train_images=0, test_images=0, weights="vgg16.safetensors", side=500, units=4096,
        head_lessons=0, updates=5_000_000, num_envs=4, steps=50, ends=False, asked=1, backup="max",
        capacity=800_000, batch=64, learning_starts=10_000, lr=1e-4, tau=1e-3, hidden=(4096, 1024, 1024, 1024),
        place=False, own_head=False, apart=1.0,
    ),
}  # fmt: skip
PAPER = {
    "metric": "recall_63",
    "unit": "% of objects",
    "better": "higher",
    "baselines": ("random_63", "greedy_oracle_63", "path_63"),
    "data": "VOC2007",
    "source": "Jie 2016, table 2",
    "rows": {"voc": 74.8},
}


def train(config: Config, run: Run | None = None) -> TreeAgent:
    """The small backbone's lessons, if there is one to teach; then features once per image; then Q-learning."""
    run = run or Run()
    images = load_images(config, run, "train")
    run.dataset = images.name
    agent = make_agent(config, len(images.classes)).to(run.device)
    target = copy.deepcopy(agent.net).requires_grad_(False)
    flat, still = Flat(agent.net), Flat(target)
    optimizer = FlatAdam(flat, config.lr)
    canvas, bf16 = Canvas(images, config.side), config.bf16 and multiplies_bf16(run.device)
    lessons = Lessons(
        agent.sight, canvas, run.device, bf16, 0 if config.weights else config.lessons, config.head_lessons,
        config.lesson_images, config.head_windows, config.lesson_lr,
    )  # fmt: skip
    env = WindowsVectorEnv(config.num_envs, images, steps=config.steps, tensors=True, device=run.device)
    env.reset(seed=run.seed)
    memory = Replay(config.capacity, observed(env, env.image), run.device)
    run.track(policy=agent, target=target, optimizer=optimizer, env=env, memory=memory)
    run.track(lessons=lessons)
    seen = None

    for update in run.loop(lessons.total + config.updates):
        if update < lessons.total:
            run.log(update, **lessons.learn(update, run.generator))
            continue
        seen, at = seen or lessons.seen(), update - lessons.total
        if at == 0:
            agent.net.begin(agent.sight)
            still.data.copy_(flat.data)
        epsilon = linear(at, config.epsilon, config.epsilon_end, int(0.4 * config.updates))
        while True:
            reward = play(config, agent, seen, env, memory, epsilon, run.generator)
            if len(memory) >= min(config.learning_starts, config.capacity):
                break
        still.data.lerp_(flat.data, config.tau)
        flat.zero_grad()
        error, q = learn(config, agent, target, seen, memory.sample(config.batch, run.generator), run.generator)
        squared(error).mean().backward()
        flat.clip_grad_norm(10.0)
        optimizer.step(config.lr * (1 - at / config.updates))
        found = (reward > 1).float().mean()
        run.log(update, reward=reward.mean(), found=found, q=q.mean(), error=error.abs().mean())
    return agent.eval()


def observed(env: WindowsVectorEnv, action: Tensor) -> dict[str, Tensor]:
    """What is remembered of a step, 51 bytes: where it led and how it went on follow from these."""
    obs = env.obs
    return {
        "image": obs["image"].int(),
        "window": obs["window"].short(),
        "history": pack(obs["history"]),
        "action": action.to(torch.uint8),
        "reward": env.payoffs.to(torch.int8),
    }


@torch.no_grad()
def play(
    config: Config,
    agent: TreeAgent,
    seen: Seen,
    env: WindowsVectorEnv,
    memory: Replay,
    epsilon: float,
    generator: torch.Generator,
) -> Tensor:
    """One action in every image, remembered; returns what they paid `[B]`."""
    obs, count = env.obs, config.num_envs
    q = agent.values(seen, obs["image"], obs["window"][:, None], obs["history"][:, None])[:, 0]
    scaling, coin, lottery = torch.rand(3, count, generator=generator, device=q.device)
    both = best_of_each(q)
    best = torch.where(scaling < 0.5, both[:, 0], both[:, 1])
    action = torch.where(coin < epsilon, (lottery * len(ACTIONS)).long(), best)
    memory.add(observed(env, action))
    return env.step(action)[1]


def learn(
    config: Config,
    agent: TreeAgent,
    target: WindowQ,
    seen: Seen,
    batch: dict[str, Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Errors Q(s,a) − (r + γ V⁻(s')) and Q(s,a), `[B, asked]`, of the action taken and of others."""
    image, window, history = batch["image"].long(), batch["window"].float(), unpack(batch["history"])
    count, last = len(image), (history > 0).sum(-1) == config.steps - 1
    q = agent.values(seen, image, window[:, None], history[:, None])[:, 0]
    with torch.no_grad():
        lot = torch.rand(count, len(ACTIONS), generator=generator, device=image.device)
        lot.scatter_(1, batch["action"].long()[:, None], -1.0)  # the taken one comes first
        action = lot.argsort(-1)[:, : config.asked]
        reward = batch["reward"].float().gather(1, action)
        after = moves(window, seen.size[image]).gather(1, action[..., None].expand(-1, -1, 4))
        past = remember(history[:, None].expand(-1, action.shape[1], -1), action)
        following = agent.values(seen, image, after, past, target)
        value = following.amax(-1) if config.backup == "max" else mean_of_both(following)
        if config.ends:
            value = value.masked_fill(last[:, None], 0.0)
        y = reward + config.gamma * value
    q = q.gather(1, action)
    return q - y, q.detach()


def make_agent(config: Config, classes: int) -> TreeAgent:
    """Fresh weights, but for those of VGG-16."""
    if config.weights:
        sight = Sight(*load_vgg16(Path(config.weights)), classes)
    else:
        backbone = SmallBackbone(config.channels, max(config.channels // 4, 1))
        sight = Sight(backbone, RegionHead(backbone.channels, config.units), classes)
    return TreeAgent(sight, config.hidden, config.place, config.own_head)


def load_images(config: Config, run: Run, split: str) -> BoxedImages:
    """The images of the settings; with `validation` the last train images take the place of the test set."""
    count = config.train_images if split == "train" or config.validation else config.test_images
    return box_data.load(config.images, run.data, split, count, validation=config.validation)


@torch.no_grad()
def evaluate(config: Config, run: Run) -> dict[str, float | list[float]]:
    """Recall in % of the learned tree and, from the same objects, of all that it must be read beside.

    `recall_31` and `recall_63` count all objects at IoU ½; lists are IoU 0.5, 0.6 and 0.7. `plain` is the tree without
    `apart`, `path` a single path. `map_31` and `map_63` are the mAP of a detector of as many proposals, `map07_…` by
    eleven points.
    """
    images, train = load_images(config, run, "test"), load_images(config, run, "train")
    agent, seen = look(config, run, images, train)
    size, boxes = images.size.to(run.device), images.boxes.to(run.device)
    counts = tuple(count for count in COUNTS if count <= config.most)
    few = tuple(count for count in counts if count <= 63)
    generator = torch.Generator(run.device).manual_seed(TEST_SEED)
    plain, make = agent.searcher(seen), agent.searcher(seen, config.apart)
    rows = [("", counts, search(make, size, boxes, counts))]
    rows.append(("plain", counts, search(plain, size, boxes, counts)))
    rows.append(("path", few, path(lambda i: flip(plain(i), generator), size, boxes, few)))
    trained = train.size.to(run.device), train.boxes.to(run.device)
    beside = floors(size, boxes, generator, counts, trained)
    rows += [(name, widths, best()) for name, (widths, best) in beside.items()]
    results: dict[str, float | list[float]] = {}
    for name, widths, best in rows:
        table = recall(best, boxes, images.difficult.to(run.device), widths)
        for key, values in table.items():
            if not name or "no difficult" not in key:
                results[f"{name} {key}".strip()] = values
        for count in widths:
            results[f"{name or 'recall'}_{count}".replace(" ", "_")] = table[f"{count} all"][0]
    taught = train.subset(range(min(TAUGHT, len(train))))
    searcher = partial(agent.searcher, apart=config.apart)
    kinds = proposers(searcher, taught.size.to(run.device), taught.boxes.to(run.device), few[-1], generator)
    both = (seen, images), (eyes(config, run, agent, taught), taught)
    return results | compare(agent.sight.detector, *both, kinds, few[-2:], generator)


@torch.no_grad()
def watch(config: Config, run: Run) -> list[Path]:
    """Pictures of four test images: the tree by level, and the way to each object."""
    images = load_images(config, run, "test")
    images = images.subset(range(min(4, len(images))))
    agent, seen = look(config, run, images, load_images(config, run, "train"))
    every = torch.arange(len(images), device=run.device)
    windows = tree(agent.searcher(seen, config.apart)(every), whole(seen.size), seen.size, config.levels).cpu()
    pictures = [images.pixels(i).permute(1, 2, 0).numpy() for i in range(len(images))]
    names = [[images.classes[label] if label >= 0 else "" for label in row] for row in images.label.tolist()]
    return [
        draw_tree(run.path(f"tree-{i + 1}.png"), pictures[i], windows[i], images.boxes[i], names[i])
        for i in range(len(images))
    ]


def look(config: Config, run: Run, images: BoxedImages, train: BoxedImages) -> tuple[TreeAgent, Seen]:
    """The trained agent and its features of images, whose classes must be those it was trained on."""
    if images.classes != train.classes:
        here, there = (", ".join(each.classes) for each in (images, train))
        raise VolitionError(f"{images.name} has classes {here} to test, {there} to train: list them all in classes.txt")
    run.dataset = images.name
    agent = make_agent(config, len(train.classes)).to(run.device)
    run.track(policy=agent)
    return agent.eval(), eyes(config, run, agent, images)


def eyes(config: Config, run: Run, agent: TreeAgent, images: BoxedImages) -> Seen:
    """The agent's features of images."""
    bf16 = config.bf16 and multiplies_bf16(run.device)
    return Seen(agent.sight, Maps(agent.sight, Canvas(images, config.side), run.device, bf16))
