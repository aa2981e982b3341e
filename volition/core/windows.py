"""Windows over an image: how they overlap objects, how an agent moves them, what a move pays, and the tree of them.

A window or box is (x1, y1, x2, y2) in pixels; x2 and y2 lie outside. A size is (width, height). All windows are whole
pixels, kept in float32, so that they can be stored in 16 bits and are the same on every machine.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SMALLEST = 8  # pixels: the least side of a window; a quarter of it is still 2 whole pixels
HIT = 0.5  # an object is found by a window whose IoU with it is above this
HISTORY = 50  # actions that an agent remembers (Jie et al. 2016)
SCALING = 5  # the first actions scale the window, the others translate or deform it

# Every move takes the edges to (x1, y1) + share · (width, height); shares in 1/40, so that they are exact: 22/40 is the
# paper's 0.55 of each side, 10/40 its step of 0.25 (Jie et al. 2016, section 3.1).
_MOVES = {
    "top-left": (0, 0, 22, 22),
    "top-right": (18, 0, 40, 22),
    "bottom-left": (0, 18, 22, 40),
    "bottom-right": (18, 18, 40, 40),
    "centre": (9, 9, 31, 31),
    "right": (10, 0, 50, 40),
    "left": (-10, 0, 30, 40),
    "down": (0, 10, 40, 50),
    "up": (0, -10, 40, 30),
    "shrink-vertical": (0, 10, 40, 30),
    "shrink-horizontal": (10, 0, 30, 40),
    "stretch-vertical": (0, -10, 40, 50),
    "stretch-horizontal": (-10, 0, 50, 40),
}
# Caicedo & Lazebnik (2015), section 3.1, α = 0.2 = 8/40: a shift adds α to two edges, the others move both edges apart
# or together. The ninth action, the trigger, leaves the window where it is.
_TRANSFORMS = {
    "right": (8, 0, 48, 40),
    "left": (-8, 0, 32, 40),
    "down": (0, 8, 40, 48),
    "up": (0, -8, 40, 32),
    "bigger": (-8, -8, 48, 48),
    "smaller": (8, 8, 32, 32),
    "fatter": (-8, 0, 48, 40),
    "taller": (0, -8, 40, 48),
}
ACTIONS = tuple(_MOVES)
CAICEDO = (*_TRANSFORMS, "trigger")


def whole(size: Tensor) -> Tensor:
    """The window that covers all of an image: size `[…, 2]` -> `[…, 4]`."""
    return torch.cat([torch.zeros_like(size), size], -1).float()


def area(box: Tensor) -> Tensor:
    """Pixels in a box: `[…, 4]` -> `[…]`."""
    return (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU = |a ∩ b| / |a ∪ b|: `[…, N, 4]`, `[…, M, 4]` -> `[…, N, M]`; 0 where a box is empty."""
    a, b = a.unsqueeze(-2), b.unsqueeze(-3)
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp_(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp_(min=0)
    both = width.mul_(height)
    return both / (area(a) + area(b) - both).clamp_(min=1e-9)


def moves(window: Tensor, size: Tensor) -> Tensor:
    """The windows that each of the 13 `ACTIONS` leads to: `[…, 4]`, size `[…, 2]` -> `[…, 13, 4]`.

    What lies outside the image is cut off, edges are rounded to whole pixels, and a side below `SMALLEST` is widened.
    """
    return _change(window, size, list(_MOVES.values()))


def transform(window: Tensor, size: Tensor) -> Tensor:
    """The windows that the first 8 of Caicedo's actions lead to, cut and rounded as by `moves` -> `[…, 8, 4]`."""
    return _change(window, size, list(_TRANSFORMS.values()))


def _change(window: Tensor, size: Tensor, shares: list[tuple[int, ...]]) -> Tensor:
    share = torch.tensor(shares, dtype=torch.float32, device=window.device)
    window, size = window.float().unsqueeze(-2), size.float().unsqueeze(-2)
    first, side = window[..., :2], window[..., 2:] - window[..., :2]
    edge = ((40 * torch.cat([first, first], -1) + share * torch.cat([side, side], -1)) / 40).round_()
    edge = torch.minimum(edge.clamp_(min=0), torch.cat([size, size], -1))
    low, high = edge[..., :2], edge[..., 2:]
    least = size.clamp(max=SMALLEST)  # an image may be thinner still
    missing = (least - (high - low)).clamp_(min=0)
    low = torch.minimum((low - (missing / 2).floor_()).clamp_(min=0), size - least)
    return torch.cat([low, torch.maximum(high, low + least)], -1)


def rewards(before: Tensor, after: Tensor, hit: Tensor) -> Tensor:
    """What each move pays (Jie et al. 2016, eq. 1): IoU before `[…, M]`, after `[…, A, M]`, hit `[…, M]` -> `[…, A]`.

    r = +5 if some object not `hit` before is now found (IoU > 0.5); else +1 if the IoU with any object rose; else −1.
    """
    found = ((after > HIT) & ~hit.unsqueeze(-2)).any(-1)
    rose = (after > before.unsqueeze(-2)).any(-1)
    return torch.where(found, 5.0, torch.where(rose, 1.0, -1.0))


def trigger_rewards(before: Tensor, after: Tensor) -> Tensor:
    """What each of Caicedo's actions pays (2015, eq. 2 and 3): IoU `[…, M]`, `[…, 8, M]` -> `[…, 9]`.

    r = +1 if the IoU with the best object rose, else −1; the trigger pays +3 if that IoU is at least 0.6, else −3.
    """
    now = before.amax(-1, keepdim=True)
    change = torch.where(after.amax(-1) > now, 1.0, -1.0)
    return torch.cat([change, torch.where(now >= 0.6, 3.0, -3.0)], -1)


def remember(history: Tensor, action: Tensor) -> Tensor:
    """Append actions `[…]` to histories `[…, H]`: 0 is none, a + 1 is action a, the newest stands last."""
    return torch.cat([history[..., 1:], (action + 1).unsqueeze(-1).to(history.dtype)], -1)


def best_of_each(scores: Tensor) -> Tensor:
    """The best scaling action and the best other one: scores `[…, 13]` -> `[…, 2]`."""
    scaling, other = scores[..., :SCALING].argmax(-1), scores[..., SCALING:].argmax(-1)
    return torch.stack([scaling, other + SCALING], -1)


def mean_of_both(q: Tensor) -> Tensor:
    """Value of a window of which both children are made: the mean of Q of the two, `[…, 13]` -> `[…]`."""
    return (q[..., :SCALING].amax(-1) + q[..., SCALING:].amax(-1)) / 2


def best_apart(scores: Tensor, after: Tensor, found: Tensor, most: float) -> Tensor:
    """As `best_of_each`, but for children that repeat a window: `[N, W, 13]`, after `[N, W, 13, 4]` -> `[N, W, 2]`.

    The best whose IoU with every window so far, `found` `[N, F, 4]` and the children chosen before it, is `most` at
    most; the best of all where there is none.
    """
    chosen, every = [], torch.arange(len(found), device=found.device)
    for w in range(scores.shape[1]):
        for group in (slice(0, SCALING), slice(SCALING, None)):
            child = after[:, w, group]
            repeats = iou(child, found).amax(-1) > most
            repeats &= ~repeats.all(-1, keepdim=True)
            best = scores[:, w, group].masked_fill(repeats, -torch.inf).argmax(-1)
            found = torch.cat([found, child[every, best].unsqueeze(1)], 1)
            chosen.append(best + (group.start or 0))
    return torch.stack(chosen, -1).unflatten(-1, (-1, 2))


Choose = Callable[[Tensor, Tensor], Tensor]
"""(windows `[N, W, 4]`, history `[N, W, 50]` int8) -> the K actions that make each window's children `[N, W, K]`."""


def tree(choose: Choose, start: Tensor, size: Tensor, levels: int) -> Tensor:
    """Search from the windows `start` `[N, 4]`: every window spawns K children, level by level, for all images at once.

    `choose` is called once per level with all windows of it. With K = 2 (`best_of_each`) this is the tree of Jie et al.
    (2016), section 3.3: `[N, 2ᴸ − 1, 4]` in level order, the children of window i at 2i + 1 (scaling) and 2i + 2
    (translation), its parent at (i − 1) // 2; a tree of fewer levels is the beginning of one of more. With K = 1 it is
    a single path of L windows.
    """
    windows = start.float().unsqueeze(1)
    history = torch.zeros(len(start), 1, HISTORY, dtype=torch.int8, device=start.device)
    found = [windows]
    for _ in range(levels - 1):
        action = choose(windows, history)  # [N, W, K]
        branches = action.shape[-1]
        after = moves(windows, size.unsqueeze(1))
        windows = after.gather(2, action.unsqueeze(-1).expand(-1, -1, -1, 4)).flatten(1, 2)
        history = remember(history.repeat_interleave(branches, 1), action.flatten(1))
        found.append(windows)
    return torch.cat(found, 1)


def best_iou(windows: Tensor, boxes: Tensor, counts: tuple[int, ...]) -> Tensor:
    """IoU of each object with the best of the first c windows, for each c: `[N, W, 4]`, `[N, M, 4]` -> `[C, N, M]`.

    An object is recalled at a threshold if this is above it.
    """
    overlap = iou(windows, boxes)
    edges = (0, *counts)
    parts = [overlap[:, a:b].amax(1) for a, b in zip(edges, counts, strict=False)]
    return torch.stack(parts).cummax(0).values
