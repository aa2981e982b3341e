"""Suppression of doubles, PASCAL's average precision and box corrections, by hand and against plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from volition.core.detection import average_precision, decode, encode, nms
from volition.core.windows import iou


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not any((iou(boxes[i : i + 1], boxes[k : k + 1]) > threshold).item() for k in kept):
            kept.append(i)
    return kept


def test_nms_by_hand() -> None:
    # IoU of the first two is 50/150 = 1/3; the third touches none; the fourth lies inside the first: 25/100
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 5, 5]])
    scores = torch.tensor([0.5, 0.9, 0.1, 0.7])
    assert nms(boxes, scores, 0.3).tolist() == [1, 3, 2]
    assert nms(boxes, scores, 0.34).tolist() == [1, 3, 0, 2]
    assert nms(boxes, scores, 0.2).tolist() == [1, 3, 2]  # 3 falls to no kept box: the first is gone already
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []


def test_what_a_suppressed_box_overlaps_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])  # a chain: 6/14, 6/14, 2/18
    assert nms(boxes, torch.tensor([3.0, 2, 1]), 0.4).tolist() == [0, 2]


@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([0.0, 0.2, 0.5, 0.8]))
def test_nms_is_the_greedy_rule(seed: int, count: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * 20], 1).round()
    scores = (torch.rand(count, generator=generator) * 5).round()  # with ties
    assert nms(boxes, scores, threshold).tolist() == plain_nms(boxes, scores, threshold)


SQUARE = torch.tensor([0.0, 0, 10, 10])


def squares(*left: float) -> Tensor:
    return SQUARE + torch.tensor(left)[:, None] * torch.tensor([1.0, 0, 1, 0])


def test_average_precision_by_hand() -> None:
    # image 0: objects at 0 and 20; image 1: one at 0, and padding
    truth = torch.zeros(2, 2, 4)
    truth[0], truth[1, 0] = squares(0, 20), SQUARE
    easy = torch.zeros(2, 2, dtype=torch.bool)
    # by score: right, a double, false, right -> precision 1, ½, ⅓, ½ at recall ⅓, ⅓, ⅓, ⅔; the third object is missed
    image, scores = torch.tensor([0, 0, 1, 1]), torch.tensor([0.9, 0.8, 0.7, 0.6])
    boxes = squares(1, 0, 50, 2)
    assert average_precision(image, boxes, scores, truth, easy) == pytest.approx(1 / 3 + 1 / 3 * 1 / 2)
    # recall ≥ 0, .1, .2, .3: precision 1; .4, .5, .6: ½; above: 0
    assert average_precision(image, boxes, scores, truth, easy, eleven=True) == pytest.approx((4 + 3 * 0.5) / 11)
    shuffled = torch.tensor([2, 0, 3, 1])
    again = average_precision(image[shuffled], boxes[shuffled], scores[shuffled], truth, easy)
    assert again == pytest.approx(1 / 2)


def test_difficult_objects_neither_help_nor_harm() -> None:
    truth, difficult = squares(0, 20)[None], torch.tensor([[False, True]])
    image, scores = torch.zeros(4, dtype=torch.int64), torch.tensor([0.9, 0.8, 0.7, 0.6])
    boxes = squares(20, 21, 0, 60)  # two on the difficult one, which count for nothing; right; false
    assert average_precision(image, boxes, scores, truth, difficult) == 1.0
    assert average_precision(image[:2], boxes[:2], scores[:2], truth, difficult) == 0.0
    assert math.isnan(average_precision(image, boxes, scores, truth, torch.ones(1, 2, dtype=torch.bool)))


def test_a_detection_belongs_to_the_object_it_overlaps_most() -> None:
    # both detections overlap both objects with IoU ≥ ½ but are nearest to the first: the second is a double
    truth, easy = squares(0, 3)[None], torch.zeros(1, 2, dtype=torch.bool)
    image, scores = torch.zeros(2, dtype=torch.int64), torch.tensor([0.9, 0.8])
    assert average_precision(image, squares(0, 1), scores, truth, easy) == pytest.approx(0.5)


def test_the_threshold_itself_is_enough() -> None:
    truth, easy = SQUARE.view(1, 1, 4), torch.zeros(1, 1, dtype=torch.bool)
    half = torch.tensor([[0.0, 0, 10, 5]])  # IoU is ½ exactly
    at = torch.zeros(1, dtype=torch.int64), half, torch.ones(1), truth, easy
    assert average_precision(*at) == 1.0 and average_precision(*at, threshold=0.6) == 0.0
    none = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0), truth, easy
    assert average_precision(*none) == 0.0


def plain_ap(image: Tensor, boxes: Tensor, scores: Tensor, truth: Tensor, difficult: Tensor, eleven: bool) -> float:
    """The development kit's VOCevaldet and VOCap, statement by statement."""
    taken, right = set(), []
    for d in scores.argsort(descending=True, stable=True).tolist():
        at = int(image[d])
        best, j = -1.0, -1
        for k in range(truth.shape[1]):
            overlap = iou(boxes[d : d + 1], truth[at, k : k + 1]).item()
            if overlap > best:
                best, j = overlap, k
        if best < 0.5:
            right.append(0)
        elif not difficult[at, j]:
            right.append(int((at, j) not in taken))
            taken.add((at, j))
    wanted = int(((truth[..., 2] > truth[..., 0]) & ~difficult).sum())
    hits = np.cumsum(right)
    recall, precision = hits / wanted, hits / np.arange(1, len(right) + 1)
    if eleven:
        return float(np.mean([max(precision[recall >= t], default=0) for t in np.arange(11) / 10]))
    r, p = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for i in range(len(p) - 2, -1, -1):
        p[i] = max(p[i], p[i + 1])
    return float(sum((r[i] - r[i - 1]) * p[i] for i in range(1, len(r))))


@given(st.integers(0, 10_000), st.booleans())
def test_average_precision_is_the_development_kits(seed: int, eleven: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = (torch.rand(3, 4, 2, generator=generator) * 20).round()
    truth = torch.cat([corner, corner + 4 + (torch.rand(3, 4, 2, generator=generator) * 8).round()], -1)
    truth[1, 2:] = 0  # padding
    difficult = torch.rand(3, 4, generator=generator) < 0.3
    difficult[0, 0] = False
    image = torch.randint(3, (25,), generator=generator)
    which = torch.randint(2, (25,), generator=generator)
    boxes = truth[image, which] + torch.randint(-1, 2, (25, 4), generator=generator)
    scores = torch.rand(25, generator=generator)
    found = average_precision(image, boxes, scores, truth, difficult, eleven=eleven)
    assert found == pytest.approx(plain_ap(image, boxes, scores, truth, difficult, eleven), abs=1e-9)


def test_corrections_by_hand_and_back() -> None:
    window, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 0, 25, 10]])
    # centres (5, 10) and (15, 5): 10/10 right, −5/20 down; twice as wide, half as tall
    assert torch.allclose(encode(window, box), torch.tensor([[1, -0.25, math.log(2), -math.log(2)]]))
    assert torch.allclose(decode(window, encode(window, box)), box, atol=1e-5)
    assert torch.equal(encode(window, window), torch.zeros(1, 4))
    assert decode(window, torch.tensor([[0.0, 0, 99, 0]])).isfinite().all()
    many = torch.rand(50, 4) * 30
    many[:, 2:] += many[:, :2] + 1
    assert torch.allclose(decode(many, encode(many, many.flip(0))), many.flip(0), atol=1e-4)
