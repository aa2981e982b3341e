"""Detection on proposals: perfect windows are a perfect detector, doubles and padding are none, tuning learns."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from volition.applications import tree_rl
from volition.applications._tree_detection import Detections, compare, detect, mean_ap, proposers, suppress, tune
from volition.core.detection import encode, nms
from volition.core.windows import iou
from volition.data.boxes import Box, BoxedImages, pack
from volition.errors import VolitionError
from volition.nets.regions import Detector
from volition.run import Run

A, B, C = (10.0, 10.0, 60.0, 60.0), (100.0, 20.0, 180.0, 70.0), (20.0, 30.0, 120.0, 90.0)


def pictures() -> BoxedImages:
    """Three images of 200×100 with classes a and b; the object of the last is difficult, but for one."""
    objects = [[Box(*A, 0), Box(*B, 1)], [Box(*C, 1)], [Box(*A, 1, True), Box(*B, 0)]]
    return pack("three", ("a", "b"), ("1", "2", "3"), [(200, 100)] * 3, objects, None)


class Knows:
    """Sight that knows the truth: the features of a window are its overlap with each class, and where its object is."""

    def __init__(self, images: BoxedImages) -> None:
        self.images, self.size = images, images.size

    def look(self, image: Tensor, window: Tensor) -> Tensor:
        boxes, label = self.images.boxes[image], self.images.label[image]
        overlap, which = iou(window[:, None], boxes)[:, 0].max(-1)
        rows = torch.arange(len(image))
        delta = encode(window, boxes[rows, which]) / torch.tensor([0.1, 0.1, 0.2, 0.2])
        return torch.cat([overlap[:, None], label[rows, which][:, None], delta], 1)

    def detector(self, features: Tensor) -> tuple[Tensor, Tensor]:
        score = torch.zeros(len(features), 3)
        score[:, 0] = 5 * (0.5 - features[:, 0])
        score[torch.arange(len(features)), 1 + features[:, 1].long()] = 10 * features[:, 0]
        delta = torch.where(features[:, :1] > 0.2, features[:, 2:], 0.0)
        return score, delta[:, None].expand(-1, 2, -1)


def test_perfect_windows_are_a_perfect_detector() -> None:
    images = pictures()
    seen = Knows(images)
    found = detect(seen.detector, seen, images.boxes)
    best = found.score > 0.9
    assert found.image[best].tolist() == [0, 0, 1, 2, 2]
    assert_close(found.box[best], torch.tensor([A, B, C, B, A]))
    assert mean_ap(found, images) == {"map": 100.0, "map07": 100.0}


def test_deltas_move_a_window_onto_its_object() -> None:
    images = pictures()
    seen = Knows(images)
    windows = torch.tensor([[[5.0, 0, 70, 55]], [[0.0, 30, 100, 100]], [[90.0, 0, 200, 80]]])
    found = detect(seen.detector, seen, windows, score=0.6)
    assert_close(found.box, torch.tensor([A, C, B]))
    assert found.label.tolist() == [0, 1, 0]


def test_doubles_of_one_class_are_suppressed_and_padding_is_never_detected() -> None:
    images = pictures()
    seen = Knows(images)

    def both(features: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor([[0.0, 3.0, 2.9]]).expand(len(features), -1), torch.zeros(len(features), 2, 4)

    windows = torch.zeros(3, 4, 4)
    windows[1, :3] = torch.tensor([A, A, B])
    found = detect(both, seen, windows)
    assert found.image.tolist() == [1] * 4  # two places, each of both classes
    assert sorted(zip(found.label.tolist(), found.box[:, 0].tolist(), strict=True)) == [
        (0, 10.0), (0, 100.0), (1, 10.0), (1, 100.0),
    ]  # fmt: skip
    assert found.score.tolist() == sorted(found.score.tolist(), reverse=True)
    assert len(detect(both, seen, windows, most=3).score) == 3
    nothing = detect(both, seen, torch.zeros(3, 4, 4))
    assert len(nothing.score) == 0 and mean_ap(nothing, images) == {"map": 0.0, "map07": 0.0}


def test_suppression_of_many_groups_is_that_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    low, side = 50 * torch.rand(400, 2, generator=generator), 5 + 40 * torch.rand(400, 2, generator=generator)
    box, score = torch.cat([low, low + side], 1), torch.rand(400, generator=generator)
    group = torch.randint(7, (400,), generator=generator)
    kept = set(suppress(box, score, group, 0.3).tolist())
    one_by_one = set()
    for g in range(7):
        place = (group == g).nonzero()[:, 0]
        one_by_one |= set(place[nms(box[place], score[place], 0.3)].tolist())
    assert kept == one_by_one and 7 < len(kept) < 300


def test_map_by_hand() -> None:
    images = pictures()
    # a: wrong, then right, of 2: precision ½ at recall ½; b: right, then a double, of 2 that are not difficult;
    # the difficult one neither helps nor harms
    image, label = torch.tensor([1, 0, 0, 0, 2]), torch.tensor([0, 0, 1, 1, 1])
    box, score = torch.tensor([A, A, B, B, A]), torch.tensor([0.9, 0.8, 0.9, 0.8, 0.95])
    result = mean_ap(Detections(image, label, score, box), images)
    assert_close(result["map"], 100 * (0.25 + 0.5) / 2)
    assert_close(result["map07"], 100 * (6 / 11 / 2 + 6 / 11) / 2)  # recalls 0, .1, … .5


class Looks:
    """Features that tell the class, without any truth: the window's corners, in two classes of places."""

    def __init__(self, size: Tensor) -> None:
        self.size = size

    def look(self, image: Tensor, window: Tensor) -> Tensor:
        x = window / 200
        return torch.cat([x, (x[:, :1] < 0.25).float(), (x[:, 3:] - x[:, 1:2]), torch.ones(len(x), 1)], 1)


def test_tuning_teaches_the_class_of_proposals_and_leaves_the_old_detector_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.cat([torch.randint(2, (60, 1, 1), generator=generator) * 100.0 + 10, torch.full((60, 1, 1), 20.0)], 2)
    boxes = torch.cat([first, first + 50], 2)
    label = (first[:, :, 0] > 50).long()
    shift = 4 * torch.randn(60, 8, 2, generator=generator).repeat(1, 1, 2)
    far = torch.tensor([60.0, 0.0, 90.0, 15.0]).expand(60, 4, 4)
    windows = torch.cat([(boxes + shift).clamp(min=0), far], 1)
    torch.manual_seed(0)
    old = Detector(7, 2)
    before = [p.clone() for p in old.parameters()]
    seen = Looks(torch.tensor([[200, 100]] * 60))
    new = tune(old, seen, windows, boxes, label, generator, updates=300, batch=64, lr=2e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, old.parameters(), strict=True))
    image = torch.arange(60).repeat_interleave(12)
    score, _ = new(seen.look(image, windows.flatten(0, 1)))
    overlap = iou(windows, boxes)[..., 0].flatten()
    true = torch.where(overlap >= 0.5, label.repeat_interleave(12) + 1, 0)
    assert (score.argmax(-1) == true).float().mean() > 0.95


def test_nothing_to_tune_on_is_said() -> None:
    seen = Looks(torch.tensor([[200, 100]]))
    with pytest.raises(VolitionError, match="no proposal overlaps"):
        empty = torch.zeros(1, 1, 4)
        tune(Detector(7, 2), seen, torch.tensor([[A]]), empty, -torch.ones(1, 1).long(), torch.Generator())


def test_classes_to_test_are_those_to_train() -> None:
    train = pictures()
    with pytest.raises(VolitionError, match="three has classes a, c to test, a, b to train"):
        tree_rl.look(tree_rl.Config(), Run(), replace(train, classes=("a", "c")), train)


def test_a_detector_is_a_module_of_nets() -> None:
    images = pictures()
    module: nn.Module = Detector(6, 2)
    assert len(detect(module, Knows(images), images.boxes, score=0.0, overlap=1.0).score) == 2 * 5


def test_kinds_of_proposals_are_compared_at_equal_numbers_of_windows() -> None:
    images, generator = pictures(), torch.Generator().manual_seed(0)
    seen = Knows(images)

    def searcher(seen: Knows):
        return lambda image: lambda windows, history: torch.tensor([4, 7]).expand(*windows.shape[:2], 2)

    kinds = proposers(searcher, images.size, images.boxes, 7, generator)
    assert list(kinds) == ["", "random", "grid", "fitted"]
    for propose in kinds.values():
        windows = propose(seen, 7)
        assert windows.shape == (3, 7, 4) and bool((windows[..., 2:] <= images.size[:, None]).all())
    assert kinds[""](seen, 3)[0].tolist() == [[0, 0, 200, 100], [45, 22, 155, 78], [0, 25, 200, 100]]
    torch.manual_seed(0)
    found = compare(Detector(6, 2), (seen, images), (seen, images), kinds, (3, 7), generator)
    names = ["", "_random", "_grid", "_fitted"]
    assert set(found) == {f"{key}_{count}{name}" for key in ("map", "map07") for count in (3, 7) for name in names}
    assert found["map_7_fitted"] > found["map_3"]  # fitted to these very objects
