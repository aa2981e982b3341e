"""The detection step after proposals, as Fast R-CNN's: classes and boxes of windows, and mAP as PASCAL computes it."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from volition.applications._tree_limits import fitted, grid
from volition.applications._tree_rows import Make, at_random
from volition.applications._tree_sight import OVERLAP, SPREAD
from volition.core.detection import average_precision, decode, encode
from volition.core.flat import Flat, FlatAdam
from volition.core.windows import area, iou, tree, whole
from volition.data.boxes import BoxedImages
from volition.errors import VolitionError
from volition.nets.regions import Detector

SCORE, SUPPRESS, MOST = 0.05, 0.3, 100  # least score, IoU of two of one object, detections per image (Girshick 2015)
FEATURES = 4096  # windows whose features are made at once


class Sees(Protocol):
    """What gives features of windows: `_tree_sight.Seen`."""

    size: Tensor  # [N, 2]

    def look(self, image: Tensor, window: Tensor) -> Tensor: ...


Propose = Callable[[Sees, int], Tensor]
"""Images and a number of windows W, 2ᴸ − 1 for some L -> windows `[N, W, 4]`."""


class Detections(NamedTuple):
    """D detections, image by image, the best of each first."""

    image: Tensor  # [D]
    label: Tensor  # [D]
    score: Tensor  # [D]
    box: Tensor  # [D, 4]


@torch.no_grad()
def detect(
    detector: Callable[[Tensor], tuple[Tensor, Tensor]],
    seen: Sees,
    windows: Tensor,
    *,
    score: float = SCORE,
    overlap: float = SUPPRESS,
    most: int = MOST,
) -> Detections:
    """What is in windows `[N, W, 4]` of the N images of `seen`; windows without area are padding.

    The score of a class is its softmax, its box the window moved by its deltas; of boxes of one class and image that
    overlap by more than `overlap` the best remains (Girshick 2015, section 2.1; 2014, section 2.2).
    """
    image, place = (area(windows) > 0).nonzero().unbind(1)
    parts = []
    for i, window in zip(image.split(FEATURES), windows[image, place].split(FEATURES), strict=True):
        value, delta = detector(seen.look(i, window).float())
        chance = value.float().softmax(-1)[:, 1:]
        row, label = (chance > score).nonzero().unbind(1)
        limit = seen.size[i[row]].float().repeat(1, 2)
        box = decode(window[row], delta[row, label].float() * torch.tensor(SPREAD, device=delta.device))
        box = torch.minimum(box.clamp(min=0), limit)
        parts.append(Detections(i[row], label, chance[row, label], box))
    found = Detections(*(torch.cat(field) for field in zip(*parts, strict=True)))
    kinds = int(found.label.max()) + 1 if len(found.label) else 1
    kept = suppress(found.box, found.score, found.image * kinds + found.label, overlap)
    kept = kept[found.score[kept].argsort(descending=True, stable=True)]
    kept = kept[found.image[kept].argsort(stable=True)]
    kept = kept[_rank(found.image[kept]) < most]
    return Detections(*(field[kept] for field in found))


def suppress(box: Tensor, score: Tensor, group: Tensor, overlap: float) -> Tensor:
    """Non-maximum suppression of `core.detection.nms` within each of many groups at once -> places of what remains.

    box `[D, 4]`, score and group `[D]`. The loop is over ranks: the r-th best of all groups is judged in one step.
    """
    order = score.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    _, row = group[order].unique_consecutive(return_inverse=True)
    rank = _rank(group[order])
    groups, most = (int(x.max()) + 1 if len(x) else 0 for x in (row, rank))
    boxes = box.new_zeros(groups, most, 4)
    boxes[row, rank] = box[order]
    alive = torch.ones(groups, most, dtype=torch.bool, device=box.device)
    for r in range(most - 1):
        near = iou(boxes[:, r : r + 1], boxes[:, r + 1 :])[:, 0] > overlap
        alive[:, r + 1 :] &= ~(near & alive[:, r : r + 1])
    return order[alive[row, rank]]


def _rank(group: Tensor) -> Tensor:
    """0, 1, 2, … within each run of equal numbers."""
    _, row, size = group.unique_consecutive(return_inverse=True, return_counts=True)
    return torch.arange(len(group), device=group.device) - (size.cumsum(0) - size)[row]


def mean_ap(found: Detections, images: BoxedImages, threshold: float = OVERLAP) -> dict[str, float]:
    """mAP in % as PASCAL computes it: "map" by the area under each class's curve, "map07" by eleven points.

    Of VOC 2010 on and of VOC 2007. Difficult objects do not count; nor do classes without any other.
    """
    precision: dict[str, list[float]] = {"map": [], "map07": []}
    for label in range(len(images.classes)):
        truth = (images.boxes * (images.label == label).unsqueeze(-1)).to(found.box.device)
        difficult, this = images.difficult.to(found.box.device), found.label == label
        for name, eleven in (("map", False), ("map07", True)):
            value = average_precision(
                found.image[this], found.box[this], found.score[this], truth, difficult, threshold, eleven
            )
            precision[name] += [] if math.isnan(value) else [100 * value]
    return {name: sum(values) / max(1, len(values)) for name, values in precision.items()}


@torch.enable_grad()  # within an evaluation too
def tune(
    detector: Detector,
    seen: Sees,
    windows: Tensor,
    boxes: Tensor,
    label: Tensor,
    generator: torch.Generator,
    *,
    updates: int = 600,
    batch: int = 512,
    foreground: float = 0.25,
    lr: float = 2e-3,
) -> Detector:
    """Another detector, taught on these proposals `[N, W, 4]` of training images, the features as they are.

    Batches hold a share of `foreground`, windows with IoU ≥ ½ with an object `[N, M, 4]` of class `label` `[N, M]`
    (Girshick 2015, section 2.3); the objects' own boxes are proposals too, as in Fast R-CNN's code.
    """
    windows = torch.cat([windows, boxes], 1)
    image, place = (area(windows) > 0).nonzero().unbind(1)
    window = windows[image, place]
    features = torch.cat([seen.look(i, w) for i, w in zip(image.split(FEATURES), window.split(FEATURES), strict=True)])
    overlap, which = (x[image, place] for x in iou(windows, boxes).max(-1))
    true = torch.where(overlap >= OVERLAP, label[image, which] + 1, 0)
    wanted = encode(window, boxes[image, which]) / torch.tensor(SPREAD, device=window.device)
    near, far = (true > 0).nonzero()[:, 0], (true == 0).nonzero()[:, 0]
    if not len(near):
        raise VolitionError("no proposal overlaps an object by half: there is nothing to teach a detector")
    few = round(foreground * batch) if len(far) else batch
    new = copy.deepcopy(detector).float().requires_grad_(True)
    flat = Flat(new)
    optimizer = FlatAdam(flat, lr)
    for update in range(updates):
        rows = [
            pool[torch.randint(len(pool), (count,), generator=generator, device=pool.device)]
            for pool, count in ((near, few), (far, batch - few))
            if count
        ]
        score, delta = new(features[torch.cat(rows)].float())
        hit, goal = torch.arange(few, device=score.device), true[torch.cat(rows)]
        off = F.smooth_l1_loss(delta[hit, goal[:few] - 1], wanted[rows[0]], reduction="sum") / batch
        flat.zero_grad()
        (F.cross_entropy(score, goal) + off).backward()
        optimizer.step(lr * (1 - update / updates))
    return new.requires_grad_(False)


def proposers(
    searcher: Callable[[Any], Make], size: Tensor, boxes: Tensor, most: int, generator: torch.Generator
) -> dict[str, Propose]:
    """What proposes windows: the learned tree (no name), a random one, the grid, and windows fitted to boxes.

    size `[N, 2]` and boxes `[N, M, 4]` are those of the training images; `most` windows are ever asked for.
    """
    shares = fitted(size, boxes, most)

    def by(make: Callable[[Sees], Make]) -> Propose:
        def propose(seen: Sees, count: int) -> Tensor:
            choose, levels = make(seen), (count + 1).bit_length() - 1
            parts = torch.arange(len(seen.size), device=seen.size.device).split(64)
            return torch.cat([tree(choose(i), whole(seen.size[i]), seen.size[i], levels) for i in parts])

        return propose

    def spread(windows: Callable[[int], Tensor]) -> Propose:
        return lambda seen, count: windows(count).to(seen.size.device) * seen.size.float().repeat(1, 2).unsqueeze(1)

    random = at_random(generator)
    return {
        "": by(searcher),
        "random": by(lambda seen: lambda image: random),
        "grid": spread(grid),
        "fitted": spread(lambda count: shares[:count]),
    }


def compare(
    detector: Detector,
    test: tuple[Sees, BoxedImages],
    train: tuple[Sees, BoxedImages],
    kinds: dict[str, Propose],
    counts: Iterable[int],
    generator: torch.Generator,
) -> dict[str, float]:
    """mAP of each kind of proposals at equal numbers of windows, "map_31_grid": features and images of both sets.

    Each has a detector tuned on its own proposals of the training images, as Fast R-CNN trains.
    """
    (seen, images), (known, taught) = test, train
    boxes, label = (x.to(known.size.device) for x in (taught.boxes, taught.label))
    results = {}
    for name, propose in kinds.items():
        for count in counts:
            tuned = tune(detector, known, propose(known, count), boxes, label, generator)
            found = mean_ap(detect(tuned, seen, propose(seen, count)), images)
            results |= {f"{key}_{count}_{name}".rstrip("_"): value for key, value in found.items()}
    return results
