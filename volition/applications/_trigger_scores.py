"""What searches with a trigger are worth: average precision of a class, recall, actions per detection."""

import math

import torch
from torch import Tensor

from volition.applications._tree_detection import FEATURES, SUPPRESS, suppress
from volition.applications._tree_sight import OVERLAP, Seen
from volition.applications._trigger_search import TRIGGER, Trail
from volition.core.detection import average_precision
from volition.core.windows import area, iou, whole
from volition.nets.regions import Detector


@torch.no_grad()
def judged(detector: Detector, seen: Seen, window: Tensor) -> Tensor:
    """The detector's probability of its first class in windows `[N, S, 4]` of all N images -> `[N, S]`."""
    image = torch.arange(len(window), device=window.device).repeat_interleave(window.shape[1])
    parts = zip(image.split(FEATURES), window.flatten(0, 1).split(FEATURES), strict=True)
    score = torch.cat([detector(seen.look(i, w).float())[0] for i, w in parts])
    return score.softmax(-1)[:, 1].view(window.shape[:2])


def report(trail: Trail, score: Tensor, objects: Tensor, difficult: Tensor) -> dict[str, float]:
    """AP of the windows that triggered and of all attended, by `score` `[N, S]` or by their worth; recall; effort.

    Objects `[N, M, 4]`, padded with empty boxes, and difficult `[N, M]`. Effort is actions per right trigger.
    """
    every, window = torch.ones_like(trail.fired), trail.window
    found = {
        f"ap{which}{by}": precision(window, rank, kept, objects, difficult)
        for which, kept in (("", trail.fired), ("_attended", every))
        for by, rank in (("", score), ("_by_q", trail.worth))
    }
    found["recall"] = reached(window, objects, difficult)
    found["recall_10"] = reached(window[:, :10], objects, difficult)
    took = effort(trail, objects).float()
    return found | ({"effort": took.mean().item(), "effort_median": took.median().item()} if len(took) else {})


def precision(window: Tensor, score: Tensor, kept: Tensor, objects: Tensor, difficult: Tensor) -> float:
    """AP in % of the windows `[N, S, 4]` that are `kept` `[N, S]`, ranked by score, doubles in an image suppressed."""
    image, place = kept.nonzero().unbind(1)
    window, score = window[image, place], score[image, place]
    best = suppress(window, score, image, SUPPRESS)
    value = average_precision(image[best], window[best], score[best], objects, difficult)
    return 0.0 if math.isnan(value) else 100 * value


def effort(trail: Trail, objects: Tensor) -> Tensor:
    """Actions that each right trigger took since the one before in its image, `[D]`.

    Right is the first with IoU ≥ ½ with an object `[N, M, 4]`; those that found nothing are counted towards the next.
    """
    hit = (iou(trail.window, objects) >= OVERLAP) & trail.fired.unsqueeze(-1)  # [N, S, M]
    steps = trail.window.shape[1]
    time = torch.where(hit.any(1), hit.int().argmax(1) + 1, steps + 1).sort(-1).values  # [N, M]
    since = time.diff(dim=-1, prepend=torch.zeros_like(time[:, :1]))
    return since[(time <= steps) & (since > 0)]  # two objects under one trigger are one detection


def reached(window: Tensor, objects: Tensor, difficult: Tensor) -> float:
    """Share in % of the objects `[N, M, 4]`, but for difficult ones, that a window `[N, S, 4]` has IoU ≥ ½ with."""
    real = (area(objects) > 0) & ~difficult
    best = iou(window, objects).amax(1)[real]
    return 100 * float((best >= OVERLAP).double().mean()) if len(best) else 0.0


def fixed(shares: Tensor, size: Tensor) -> Trail:
    """The same windows `[S, 4]`, in shares of each image `[N, 2]`, as if an agent had triggered in all of them."""
    window = shares.to(size.device) * whole(size)[:, 2:].repeat(1, 2).unsqueeze(1)
    action = torch.full(window.shape[:2], TRIGGER, device=size.device)
    return Trail(window, action, torch.zeros(action.shape, device=size.device))
