"""What a window agent's recall is worth: the same table for trees that see nothing, that see the truth, and the bound.

All of them see only sizes and boxes, so that they can be had without a single picture. Every search gives, for each
object, the IoU of its best window among the first c, `[C, N, M]`; `recall` makes percentages of it.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from volition.applications._tree_limits import THRESHOLDS, bound, fitted, grid, planned, untie
from volition.core.windows import (
    ACTIONS,
    HIT,
    SCALING,
    Choose,
    area,
    best_iou,
    best_of_each,
    iou,
    mean_of_both,
    moves,
    rewards,
    tree,
    whole,
)

LARGE = 2000  # square pixels: an object above this counts as large (Jie et al. 2016, section 4)
COUNTS = (15, 31, 63, 255, 1023)  # windows of trees of 4, 5, 6, 8 and 10 levels

Make = Callable[[Tensor], Choose]
"""Numbers of images `[n]` -> how to choose their windows' children."""
Oracle = Callable[[Tensor, Tensor, torch.Generator], Choose]
"""Sizes and objects of n images, and what ties are broken by -> how to choose their windows' children."""
Rows = dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]]
"""Name -> numbers of windows, and what finds each object's best IoU `[C, N, M]`."""


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
                action = untie(rise, generator).argmax(-1)
                torch.maximum(best, reach[torch.arange(len(best)), action], out=best)
                chosen.append(action + (group.start or 0))
        return torch.stack(chosen, -1).unflatten(-1, (-1, 2))

    return choose


def _overlaps(windows: Tensor, size: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of each object with the windows now, `[n, W, M]`, and after each action, `[n, W, 13, M]`."""
    return iou(windows, boxes), iou(moves(windows, size.unsqueeze(1)), boxes.unsqueeze(1))


def _best(scores: Tensor, generator: torch.Generator) -> Tensor:
    return best_of_each(untie(scores, generator))


def fixed(shares: Tensor, size: Tensor, boxes: Tensor, counts: tuple[int, ...], *, chunk: int = 64) -> Tensor:
    """As `search`, for the same windows in every image, given in shares of it `[W, 4]`."""
    return _each(chunk, size, boxes, counts, lambda i: shares * torch.cat([size[i], size[i]], -1).unsqueeze(1))


def floors(
    size: Tensor,
    boxes: Tensor,
    generator: torch.Generator,
    counts: tuple[int, ...] = COUNTS,
    trained: tuple[Tensor, Tensor] | None = None,
) -> Rows:
    """All rows that need no picture; what they find is for `recall`.

    `trained`, sizes and boxes of the training images, adds the windows fitted to them. A single path has no use for
    more than 63 windows, and beyond that the bound takes too long, as a perfect Q does beyond 31.
    """
    few, shallow = (tuple(count for count in counts if count <= most) for most in (63, 31))
    rows: Rows = {}

    def tree_of(name: str, make: Make) -> None:
        rows[name] = counts, lambda: search(make, size, boxes, counts)

    def path_of(name: str, make: Make) -> None:
        rows[name] = few, lambda: path(lambda i: flip(make(i), generator), size, boxes, few)

    def blind(images: Tensor) -> Choose:
        return at_random(generator)

    tree_of("random", blind)
    path_of("random path", blind)
    rows["grid"] = counts, lambda: torch.cat([fixed(grid(count), size, boxes, (count,)) for count in counts])
    if trained:
        rows["fitted windows"] = counts, lambda: fixed(fitted(*trained, counts[-1]), size, boxes, counts)
    for name, oracle in (("greedy oracle", greedy), ("IoU oracle", gain), ("coverage oracle", coverage)):
        tree_of(name, make := partial(_for, oracle, size, boxes, generator))
        if oracle is greedy:
            path_of(f"{name}, path", make)
    for name, value in (("perfect Q, best", partial(torch.amax, dim=-1)), ("perfect Q, both", mean_of_both)):
        rows[name] = shallow, partial(planned, size, boxes, shallow, 0.9, value, generator)
    rows["bound"] = few, lambda: bound(size, boxes, few)
    return {name: row for name, row in rows.items() if row[0]}


def _for(oracle: Oracle, size: Tensor, boxes: Tensor, generator: torch.Generator, images: Tensor) -> Choose:
    return oracle(size[images], boxes[images], generator)
