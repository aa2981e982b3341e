"""What a window agent's recall is worth: the same table for trees that see nothing, that see the truth, and the bound.

All of them see only sizes and boxes, so that they can be had without a single picture. Every search gives, for each
object, the IoU of its best window among the first c, `[C, N, M]`; `recall` makes percentages of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from volition.core.windows import (
    ACTIONS,
    HIT,
    SCALING,
    Choose,
    area,
    best_iou,
    best_of_each,
    iou,
    moves,
    rewards,
    tree,
    whole,
)

LARGE = 2000  # square pixels: an object above this counts as large (Jie et al. 2016, section 4)
THRESHOLDS = (0.5, 0.6, 0.7)
COUNTS = (15, 31, 63, 255, 1023)  # windows of trees of 4, 5, 6, 8 and 10 levels

Make = Callable[[Tensor], Choose]
"""Numbers of images `[n]` -> how to choose their windows' children."""


def search(make: Make, size: Tensor, boxes: Tensor, counts: tuple[int, ...] = COUNTS, *, chunk: int = 64) -> Tensor:
    """Best IoU of every object after the first c windows of a tree: size `[N, 2]`, boxes `[N, M, 4]` -> `[C, N, M]`."""
    levels = (counts[-1] + 1).bit_length() - 1
    return _each(chunk, size, boxes, counts, lambda i: tree(make(i), whole(size[i]), size[i], levels))


def path(make: Make, size: Tensor, boxes: Tensor, counts: tuple[int, ...], *, chunk: int = 64) -> Tensor:
    """As `search`, along a single path; `make` gives functions that choose one action per window, as `flip` does."""
    return _each(chunk, size, boxes, counts, lambda i: tree(make(i), whole(size[i]), size[i], counts[-1]))


def _each(
    chunk: int, size: Tensor, boxes: Tensor, counts: tuple[int, ...], windows: Callable[[Tensor], Tensor]
) -> Tensor:
    parts = torch.arange(len(size), device=size.device).split(chunk)
    return torch.cat([best_iou(windows(i), boxes[i], counts) for i in parts], 1)


def recall(best: Tensor, boxes: Tensor, difficult: Tensor, counts: tuple[int, ...]) -> dict[str, list[float]]:
    """Recall in % at IoU 0.5, 0.6 and 0.7 by number of windows and kind of object, "31 large": best `[C, N, M]`.

    Difficult objects count, as in the paper's columns; "31 large, no difficult" leaves them out.
    """
    pixels = area(boxes)
    kinds = {"large": pixels > LARGE, "small": (pixels > 0) & (pixels <= LARGE), "all": pixels > 0}
    kinds |= {f"{name}, no difficult": mask & ~difficult for name, mask in kinds.items()}
    return {
        f"{count} {name}": [100 * float((found[mask] > t).double().mean()) for t in THRESHOLDS]
        for count, found in zip(counts, best, strict=True)
        for name, mask in kinds.items()
        if mask.any()
    }


def at_random(generator: torch.Generator) -> Choose:
    """Children by chance."""

    def choose(windows: Tensor, history: Tensor) -> Tensor:
        return best_of_each(torch.rand(*windows.shape[:2], len(ACTIONS), generator=generator, device=windows.device))

    return choose


def flip(choose: Choose, generator: torch.Generator) -> Choose:
    """Make a single path of a tree: either child by the throw of a coin (as Jie et al. explore, section 3.2)."""

    def one(windows: Tensor, history: Tensor) -> Tensor:
        both = choose(windows, history)
        coin = torch.randint(2, (*both.shape[:-1], 1), generator=generator, device=both.device)
        return both.gather(-1, coin)

    return one


def greedy(size: Tensor, boxes: Tensor, generator: torch.Generator) -> Choose:
    """Knows the objects `[n, M, 4]` and takes what the paper's reward pays most for, one step ahead; ties by chance.

    An object is new until a window of the tree, up to the level at hand, has found it.
    """
    hit = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)

    def choose(windows: Tensor, history: Tensor) -> Tensor:
        now, after = _overlaps(windows, size, boxes)
        hit.logical_or_((now > HIT).any(1))
        return _best(rewards(now, after, hit.unsqueeze(1)), generator)

    return choose


def gain(size: Tensor, boxes: Tensor, generator: torch.Generator) -> Choose:
    """Knows the objects and takes the step that raises the IoU most with one that no window has found yet.

    Where all are found, with any.
    """
    hit, real = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device), area(boxes) > 0

    def choose(windows: Tensor, history: Tensor) -> Tensor:
        now, after = _overlaps(windows, size, boxes)
        hit.logical_or_((now > HIT).any(1))
        left = real & ~hit
        wanted = torch.where(left.any(1, keepdim=True), left, real)
        rise = (after - now.unsqueeze(2)).masked_fill(~wanted[:, None, None], -1)
        return _best(rise.amax(-1), generator)

    return choose


def coverage(size: Tensor, boxes: Tensor, generator: torch.Generator) -> Choose:
    """Knows the objects and all windows so far, and takes, window by window, what lifts an object's best IoU most.

    The strongest of those that look one step ahead: it never spends a window on what another has done.
    """
    best, real = torch.zeros(boxes.shape[:2], device=boxes.device), area(boxes) > 0

    def choose(windows: Tensor, history: Tensor) -> Tensor:
        now, after = _overlaps(windows, size, boxes)
        torch.maximum(best, now.amax(1), out=best)
        chosen = []
        for w in range(windows.shape[1]):
            for group in (slice(0, SCALING), slice(SCALING, None)):
                reach = after[:, w, group]
                rise = (reach - best.unsqueeze(1)).masked_fill(~real.unsqueeze(1), -1).amax(-1)
                action = _untie(rise, generator).argmax(-1)
                torch.maximum(best, reach[torch.arange(len(best)), action], out=best)
                chosen.append(action + (group.start or 0))
        return torch.stack(chosen, -1).unflatten(-1, (-1, 2))

    return choose


def _overlaps(windows: Tensor, size: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of each object with the windows now, `[n, W, M]`, and after each action, `[n, W, 13, M]`."""
    return iou(windows, boxes), iou(moves(windows, size.unsqueeze(1)), boxes.unsqueeze(1))


def _untie(scores: Tensor, generator: torch.Generator) -> Tensor:
    return scores + 1e-5 * torch.rand(scores.shape, generator=generator, device=scores.device)


def _best(scores: Tensor, generator: torch.Generator) -> Tensor:
    return best_of_each(_untie(scores, generator))


def bound(size: Tensor, boxes: Tensor, levels: int) -> Tensor:
    """The best IoU that L − 1 actions of any kind can reach, for each object by itself -> `[N, M]`.

    No tree of L levels recalls more. The windows in reach depend on the image's size only; those that several ways lead
    to are followed once.
    """
    best = torch.zeros(boxes.shape[:2], device=boxes.device)
    sizes, which = size.unique(dim=0, return_inverse=True)
    for number, one in enumerate(sizes):
        windows = reach = whole(one[None])
        for _ in range(levels - 1):
            windows = _unique(moves(windows, one).flatten(0, 1))
            reach = torch.cat([reach, windows])
        images = (which == number).nonzero()[:, 0]
        objects = boxes[images]
        real = area(objects) > 0
        found = [iou(_unique(reach), part).amax(0) for part in objects[real].split(64)]
        best[images.unsqueeze(1).expand_as(real)[real], real.nonzero()[:, 1]] = torch.cat(found)
    return best


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


def fixed(shares: Tensor, size: Tensor, boxes: Tensor, counts: tuple[int, ...], *, chunk: int = 64) -> Tensor:
    """As `search`, for the same windows in every image, given in shares of it `[W, 4]`."""
    return _each(chunk, size, boxes, counts, lambda i: shares * torch.cat([size[i], size[i]], -1).unsqueeze(1))
