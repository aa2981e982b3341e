"""Search with a trigger: where it begins again, what a cross covers, what is counted; the agent's targets."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from volition.applications import caicedo
from volition.applications._tree_lessons import lesson_windows
from volition.applications._tree_sight import Canvas, Maps, Seen
from volition.applications._trigger_images import put_first, split_by, wanted
from volition.applications._trigger_scores import effort, fixed, precision, reached
from volition.applications._trigger_search import MEMORY, PATIENCE, TRIGGER, Oracle, Trail, crossed, search, starts
from volition.core.windows import CAICEDO, iou, transform
from volition.data.boxes import Box, BoxedImages, pack

SIZE = torch.tensor([[200, 100], [80, 120]])


def always(action: int):
    def choose(window: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(window),), action), window[:, 0]

    return choose


def test_searches_begin_with_the_whole_image_then_in_its_corners() -> None:
    assert starts(SIZE)[0].tolist() == [
        [0, 0, 200, 100], [0, 0, 150, 75], [50, 0, 200, 75], [0, 25, 150, 100], [50, 25, 200, 100],
    ]  # fmt: skip


def test_a_trigger_begins_anew_and_forgets() -> None:
    seen, marks = [], []

    def choose(window: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(history)
        step = len(seen) - 1
        return torch.tensor([TRIGGER if step == 2 else 5, 5]), torch.zeros(2)

    trail = search(choose, SIZE, 5, lambda image, window: marks.append((image.tolist(), window.clone())))
    assert trail.window.shape == (2, 5, 4) and trail.fired.nonzero().tolist() == [[0, 2]]
    ((image, window),) = marks
    assert image == [0] and torch.equal(window, trail.window[:1, 2])
    assert torch.equal(trail.window[0, 3], starts(SIZE)[0, 1])  # from the first corner
    assert seen[3][0].tolist() == [0] * MEMORY and seen[3][1].tolist() == [0] * (MEMORY - 3) + [6] * 3
    assert torch.equal(trail.window[1, 1], transform(trail.window[1:, 0], SIZE[1:])[0, 5])


def test_a_search_without_a_trigger_begins_anew_after_forty_actions() -> None:
    trail = search(always(CAICEDO.index("smaller")), SIZE, 2 * PATIENCE + 1)
    for turn in range(3):
        assert torch.equal(trail.window[:, turn * PATIENCE], starts(SIZE)[:, turn])


def test_the_oracle_triggers_on_each_object_once() -> None:
    objects = torch.tensor([[[20.0, 10, 120, 80], [150, 50, 190, 90]], [[10, 10, 70, 100], [0, 0, 0, 0]]])
    trail = search(Oracle(SIZE, objects, torch.Generator().manual_seed(0)), SIZE, 200)
    assert trail.fired.sum(1).tolist() == [2, 1]
    hits = iou(trail.window, objects)[trail.fired].amax(-1)
    assert (hits >= 0.6).all()
    assert len(effort(trail, objects)) == 3
    kept = torch.zeros(2, 2, dtype=torch.bool)
    assert precision(trail.window, trail.worth, trail.fired, objects, kept) == 100.0


def test_a_cross_covers_the_middle_thirds() -> None:
    pixels = torch.full((1, 3, 12, 20), 9, dtype=torch.uint8)
    marked = crossed(pixels, torch.tensor([[2.0, 3, 11, 12]]))[0, 0]
    cross = torch.zeros(12, 20, dtype=torch.bool)
    cross[6:9, 2:11] = cross[3:12, 5:8] = True
    assert torch.equal(marked == 0, cross) and bool((marked[~cross] == 9).all())


def test_effort_counts_from_trigger_to_trigger_and_finds_each_object_once() -> None:
    a, b, no = [0.0, 0, 10, 10], [50.0, 50, 60, 60], [80.0, 0, 90, 5]
    window = torch.tensor([[no, a, a, b, a, b]])
    action = torch.tensor([[TRIGGER, 0, TRIGGER, 1, TRIGGER, TRIGGER]])
    trail = Trail(window, action, torch.zeros(1, 6))
    objects = torch.tensor([[a, b, [0, 0, 0, 0]]])
    assert effort(trail, objects).tolist() == [3, 3]
    difficult = torch.tensor([[False, True, False]])
    assert reached(window[:, :1], objects, difficult) == 0 and reached(window[:, :2], objects, difficult) == 100


def test_precision_ranks_by_score_and_suppresses_doubles() -> None:
    a, b = [0.0, 0, 10, 10], [50.0, 50, 60, 60]
    window, objects = torch.tensor([[a, a, b]]), torch.tensor([[a]])
    none, every = torch.zeros(1, 1, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    assert precision(window, torch.tensor([[0.9, 0.8, 0.1]]), every, objects, none) == 100
    assert precision(window, torch.tensor([[0.2, 0.1, 0.9]]), every, objects, none) == 50
    assert precision(window, torch.tensor([[0.2, 0.1, 0.9]]), every & False, objects, none) == 0


def test_fixed_windows_are_shares_of_each_image() -> None:
    trail = fixed(torch.tensor([[0.0, 0.5, 0.5, 1.0]]), SIZE)
    assert trail.window[:, 0].tolist() == [[0, 50, 100, 100], [0, 60, 40, 120]] and bool(trail.fired.all())


def test_images_are_split_by_class() -> None:
    box = (10.0, 10, 60, 60)
    objects = [[Box(*box, 0)], [Box(*box, 1), Box(*box, 2)], [Box(*box, 2)], [Box(*box, 0)]]
    images = pack("four", ("a", "b", "c"), tuple("1234"), [(100, 100)] * 4, objects, None)
    own = split_by(images, "b")
    assert own.classes == ("b", "other") and own.ids == ("2", "1")
    assert own.label.tolist() == [[0, 1], [1, -1]]
    assert wanted("", images) == "a"


def test_the_class_looked_for_comes_first() -> None:
    objects = [[Box(10.0, 10, 60, 60, 1), Box(10.0, 10, 60, 60, 2)], [Box(10.0, 10, 60, 60, 0)]]
    images = pack("two", ("a", "b", "c"), tuple("12"), [(100, 100)] * 2, objects, None)
    first = put_first(images, "b")
    assert first.classes == ("b", "a", "c")
    assert first.label.tolist() == [[0, 2], [1, -1]]
    assert put_first(images, "a").label.equal(images.label)


class Fake(torch.nn.Module):
    """Q that is 1 for every action everywhere, but 2 for the third."""

    def values(self, seen: object, image: Tensor, window: Tensor, history: Tensor, other: object = None) -> Tensor:
        q = torch.ones(len(image), 9)
        q[:, 2] = 2.0
        return q


def test_targets_are_bootstrapped_but_for_the_trigger() -> None:
    batch = {
        "image": torch.tensor([0]),
        "window": torch.tensor([[0, 0, 200, 100]]),
        "history": torch.zeros(1, MEMORY, dtype=torch.int8),
        "action": torch.tensor([8], dtype=torch.uint8),
        "reward": torch.tensor([[1, 1, 1, 1, 1, -1, -1, -1, 3]], dtype=torch.int8),
    }

    class Seen:
        size = SIZE

    config = dataclasses.replace(caicedo.VARIANTS["tiny"], asked=1, ask_trigger=False, gamma=0.5)

    def learn(action: int, asked: int = 1, ask_trigger: bool = False) -> tuple[Tensor, Tensor]:
        batch["action"] = torch.tensor([action], dtype=torch.uint8)
        draw = torch.Generator().manual_seed(0)
        how = dataclasses.replace(config, asked=asked, ask_trigger=ask_trigger)
        return caicedo.learn(how, Fake(), None, Seen(), batch, draw)  # pyrefly: ignore

    # y: 1 + ½·2 = 2 for the first, −1 + ½·2 = 0 for the seventh, and 3 for the trigger; Q is 1, but 2 for the third
    for action, loss in ((0, 0.5), (2, 0.0), (6, 0.5), (8, 2.0)):
        assert_close(learn(action)[0], torch.tensor(loss))
    assert_close(learn(0, ask_trigger=True)[0], torch.tensor(0.5 + 2.0))  # the trigger pays 3 here too, and Q is 1
    loss, q = learn(2, 3)
    assert q.shape == (1, 3) and q[0, 0] == 2.0 and loss > 0


def easy(count: int, seed: int) -> BoxedImages:
    """Pictures of 64×64 with a plain rectangle each on dark grain: red ones are of class "red", blue ones "blue"."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 30, (count, 2), generator=draw)
    high = low + torch.randint(16, 35, (count, 2), generator=draw)
    kind = torch.randint(2, (count,), generator=draw).tolist()
    grain = torch.randint(60, (count, 3, 64, 64), generator=draw, dtype=torch.uint8)
    boxes = []
    for picture, (x1, y1, x2, y2), k in zip(grain, torch.cat([low, high], 1).tolist(), kind, strict=True):
        picture[2 * k, y1:y2, x1:x2] = 220
        boxes.append(Box(x1, y1, x2, y2, k))
    ids = [str(i) for i in range(count)]
    return pack("easy", ("red", "blue"), ids, [(64, 64)] * count, [[box] for box in boxes], grain.__getitem__)


def test_where_to_trigger_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """On new pictures Q of the trigger ranks windows of IoU ≥ 0.6 above others, those around the other class too."""
    monkeypatch.setattr(caicedo, "load_images", lambda config, run, split: easy(200, 0))
    config = dataclasses.replace(
        caicedo.VARIANTS["tiny"], label="red", side=64, channels=8, units=32, lessons=60, head_lessons=60,
        lesson_images=8, head_windows=16, updates=300, num_envs=16, steps=20, capacity=4_000, batch=64,
        learning_starts=500, elsewhere=32, hidden=(64,), lr=3e-3,
    )  # fmt: skip
    agent, images = caicedo.train(config), easy(100, 1)
    seen = Seen(agent.sight, Maps(agent.sight, Canvas(images, 64), torch.device("cpu"), False))
    window = lesson_windows(images.boxes, images.count, images.size, 32, torch.Generator().manual_seed(0))
    image = torch.arange(100).repeat_interleave(32)
    with torch.no_grad():
        q = agent.values(seen, image, window.flatten(0, 1), torch.zeros(3200, MEMORY, dtype=torch.int8))[:, TRIGGER]
    right = (iou(window, images.boxes * (images.label == 0).unsqueeze(-1)) >= 0.6).any(-1).flatten()
    above = (q[right].unsqueeze(1) > q[~right]).double().mean()
    assert above > 0.9
