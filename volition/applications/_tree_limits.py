"""Windows without an agent: the best that actions could reach, a sliding window, and windows fitted to boxes."""

from collections.abc import Callable

import torch
from torch import Tensor

from volition.core.windows import ACTIONS, HIT, area, best_of_each, iou, moves, rewards, whole

THRESHOLDS = (0.5, 0.6, 0.7)


def bound(size: Tensor, boxes: Tensor, counts: tuple[int, ...]) -> Tensor:
    """The best IoU that any actions could reach, for each object by itself and trees of c windows -> `[C, N, M]`.

    A window of a tree of 2ᴸ − 1 comes of L − 1 actions, so that no such tree recalls more. What is in reach depends on
    the image's size only, and windows that several ways lead to are followed once.
    """
    levels = [(count + 1).bit_length() - 1 for count in counts]
    best = torch.zeros(len(counts), *boxes.shape[:2], device=boxes.device)
    sizes, which = size.unique(dim=0, return_inverse=True)
    real = area(boxes) > 0
    for number, one in enumerate(sizes):
        image, place = (real & (which == number).unsqueeze(1)).nonzero().unbind(1)
        objects = boxes[image, place]
        found, windows = torch.zeros(len(objects), device=boxes.device), whole(one[None])
        for level in range(1, levels[-1] + 1):
            blocks = windows.split(1 + 2**18 // (1 + len(objects)))  # of a size that stays in the cache
            found = torch.stack([found, *(iou(block, objects).amax(0) for block in blocks)]).amax(0)
            if level in levels:
                best[levels.index(level), image, place] = found
            if level < levels[-1]:
                windows = _unique(moves(windows, one).flatten(0, 1))
    return best


def planned(
    size: Tensor,
    boxes: Tensor,
    counts: tuple[int, ...],
    gamma: float,
    value: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """As `bound`, of the tree that a perfect Q chooses for itself: what Q-learning with this reward can come to.

    Q(s,a) = r + γ V(s') backwards over all 13^(L−1) ways, on each of which an object is found once; `value` makes V
    of Q `[…, 13]`. Ties by chance. (Jie 2016, eq. 1)
    """
    levels = [(count + 1).bit_length() - 1 for count in counts]
    best = torch.zeros(len(counts), *boxes.shape[:2], device=boxes.device)
    for image in (area(boxes) > 0).any(1).nonzero()[:, 0].tolist():
        one, objects = size[image], boxes[image][area(boxes[image]) > 0]
        window, overlaps, pays = whole(one[None]), [], []
        hit = torch.zeros(1, len(objects), dtype=torch.bool, device=boxes.device)
        for level in range(levels[-1]):
            overlaps.append(iou(window[None], objects[None])[0])
            hit = hit | (overlaps[-1] > HIT)
            if level < levels[-1] - 1:
                window = moves(window, one).flatten(0, 1)
                after = iou(window[None], objects[None])[0].unflatten(0, (-1, len(ACTIONS)))
                pays.append(rewards(overlaps[-1], after, hit))
                hit = hit.repeat_interleave(len(ACTIONS), 0)
        for row, depth in enumerate(levels):
            q, later = [torch.zeros(0)] * (depth - 1), torch.zeros(len(ACTIONS) ** (depth - 1), device=boxes.device)
            for level in reversed(range(depth - 1)):
                q[level] = pays[level] + gamma * later.view(-1, len(ACTIONS))
                later = value(q[level])
            at, found = torch.zeros(1, dtype=torch.int64, device=boxes.device), overlaps[0].amax(0)
            for level in range(depth - 1):
                at = (at[:, None] * len(ACTIONS) + best_of_each(untie(q[level][at], generator))).flatten()
                found = torch.maximum(found, overlaps[level + 1][at].amax(0))
            best[row, image, : len(objects)] = found
    return best


def untie(scores: Tensor, generator: torch.Generator) -> Tensor:
    """The same, equal ones made unequal by chance."""
    return scores + 1e-5 * torch.rand(scores.shape, generator=generator, device=scores.device)


def _unique(windows: Tensor) -> Tensor:
    """Each window once; four whole numbers of 15 bits make one of 60."""
    shift = torch.tensor([45, 30, 15, 0], device=windows.device)
    key = (windows.long() << shift).sum(-1).unique()
    return ((key.unsqueeze(-1) >> shift) & 0x7FFF).float()


def grid(count: int) -> Tensor:
    """A sliding window, coarse to fine: `count` windows in shares of the image, `[count, 4]` in 0 … 1.

    Scale s = 0.7ʲ; aspects as the image, twice as wide and twice as high; half a window between two. Of the last scale,
    which does not fit wholly, windows at even distances are kept.
    """
    windows, j = torch.zeros(0, 4), 0
    while len(windows) < count:
        layer = []
        for stretch in (1.0, 2**0.5, 0.5**0.5) if j else (1.0,):
            width, height = min(0.7**j * stretch, 1.0), min(0.7**j / stretch, 1.0)
            x, y = (torch.linspace(0, 1 - side, 1 + round((1 - side) / (side / 2))) for side in (width, height))
            corner = torch.cartesian_prod(x, y)
            layer.append(torch.cat([corner, corner + torch.tensor([width, height])], 1))
        found = torch.cat(layer)
        keep = torch.linspace(0, len(found) - 1, min(len(found), count - len(windows))).round().long()
        windows, j = torch.cat([windows, found[keep]]), j + 1
    return windows


def fitted(size: Tensor, boxes: Tensor, count: int, cells: int = 10) -> Tensor:
    """The `count` fixed windows that recall most of the given (training) objects: in shares of the image `[count, 4]`.

    Greedy maximum coverage, counting an object once for each of the three thresholds, among all windows whose edges lie
    on a lattice of `cells` by `cells`. What training can do that never looks at a picture.
    """
    scale = torch.cat([size, size], -1).unsqueeze(1)
    objects = (boxes / scale)[area(boxes) > 0]
    low, high = torch.triu_indices(cells + 1, cells + 1, 1).float() / cells
    span = torch.cartesian_prod(torch.arange(len(low)), torch.arange(len(low)))
    pool = torch.stack([low[span[:, 0]], low[span[:, 1]], high[span[:, 0]], high[span[:, 1]]], 1)
    overlap = torch.cat([iou(part, pool) for part in objects.split(1024)])
    worth = sum((overlap > t).to(torch.int8) for t in THRESHOLDS)
    assert isinstance(worth, Tensor)
    chosen, pays = [], worth.sum(0, dtype=torch.int64)
    for _ in range(count):
        best = int(pays.argmax())
        chosen.append(best)
        better = worth[:, best] > 0
        rows = worth[better]
        rest = (rows - rows[:, best : best + 1]).clamp_(min=0)
        pays -= (rows - rest).sum(0, dtype=torch.int64)
        worth[better] = rest
    return pool[chosen]
