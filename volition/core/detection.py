"""Detection: suppression of doubles, average precision as PASCAL VOC defines it, boxes as corrections of others."""

import torch
from torch import Tensor

from volition.core.windows import iou

LARGEST = 4.135  # log(1000 / 16): a correction never makes a side more than 62.5 times as long


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression: indices of the boxes `[N, 4]` that are kept, the best score first.

    In the order of scores a box is kept unless a kept one overlaps it with IoU > threshold. The greedy rule has one
    solution; iterating it for all boxes at once reaches that in as many rounds as the longest chain of overlaps.
    """
    order = scores.argsort(descending=True, stable=True)
    overlaps = (iou(boxes[order], boxes[order]) > threshold).triu(1)  # [better, worse]
    keep = torch.ones_like(order, dtype=torch.bool)
    while True:
        following = ~(overlaps & keep[:, None]).any(0)
        if torch.equal(following, keep):
            return order[keep]
        keep = following


def average_precision(
    image: Tensor,
    boxes: Tensor,
    scores: Tensor,
    truth: Tensor,
    difficult: Tensor,
    threshold: float = 0.5,
    eleven: bool = False,
) -> float:
    """AP of one class: the area under its precision-recall curve; NaN without a true object.

    Detections `[D]`: number of the image, box `[D, 4]`, score; truth `[N, M, 4]`, padded with empty boxes, and
    difficult `[N, M]`. In the order of scores each detection is compared with the object of its image that it overlaps
    most. It is right if their IoU ≥ threshold and no better detection had that object; it does not count if the object
    is difficult; it is false otherwise, doubles too. `eleven`: the mean of the best precision at recalls ≥ 0, .1, … 1
    (VOC 2007); else the area under the curve, made monotone (VOC 2010 on). (Everingham et al. 2010)
    """
    real = (truth[..., 2] > truth[..., 0]) & (truth[..., 3] > truth[..., 1])
    wanted = int((real & ~difficult).sum())
    if not wanted:
        return float("nan")
    if not len(scores):
        return 0.0
    order = scores.argsort(descending=True, stable=True)
    image, boxes = image[order], boxes[order]
    overlap, which = iou(boxes[:, None], truth[image])[:, 0].max(-1)  # [D]
    hit = overlap >= threshold
    ignored = hit & difficult[image, which]
    which = image * truth.shape[1] + which
    # the first detection of each object: the smallest place in the order among those that hit it
    place = torch.arange(len(order), device=order.device)
    late = torch.full((truth.shape[0] * truth.shape[1],), len(order), device=order.device)
    first = late.scatter_reduce(0, which[hit], place[hit], "amin")
    right = hit & ~ignored & (first[which] == place)
    right = right[~ignored].double().cumsum(0)
    recall, precision = right / wanted, right / torch.arange(1, len(right) + 1, device=right.device)
    if not len(right):
        return 0.0
    best = precision.flip(0).cummax(0).values.flip(0)  # the best precision at this recall or a higher one
    if eleven:
        levels = torch.arange(11, dtype=recall.dtype, device=recall.device) / 10
        at = torch.searchsorted(recall, levels)
        return torch.cat([best, best.new_zeros(1)])[at].mean().item()
    return (recall.diff(prepend=recall.new_zeros(1)) * best).sum().item()


def encode(windows: Tensor, boxes: Tensor) -> Tensor:
    """How a window becomes a box: t = ((Gₓ − Pₓ)/P_w, (G_y − P_y)/P_h, ln G_w/P_w, ln G_h/P_h), centres and sizes.

    `[…, 4]`, `[…, 4]` -> `[…, 4]`. (Girshick et al. 2014, eqs. 6-9)
    """
    centre, size = _centre(windows)
    target, wanted = _centre(boxes)
    return torch.cat([(target - centre) / size, (wanted / size).log()], -1)


def decode(windows: Tensor, deltas: Tensor) -> Tensor:
    """The boxes that `deltas` make of `windows`: the inverse of `encode`. (Girshick et al. 2014, eqs. 1-4)"""
    centre, size = _centre(windows)
    centre = centre + deltas[..., :2] * size
    half = size * deltas[..., 2:].clamp(max=LARGEST).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def _centre(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
