"""Search with a trigger: one window per image moves until it triggers, is marked there, and begins again elsewhere.

(Caicedo and Lazebnik 2015, section 3.4 and 4.1)
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from volition.applications._tree_sight import CHUNK, Canvas, Seen, Sight
from volition.core.schedules import epsilon_greedy
from volition.core.windows import CAICEDO, iou, remember, transform
from volition.nets.regions import range_maxima

TRIGGER = CAICEDO.index("trigger")
MEMORY = 10  # actions that the agent remembers
PATIENCE = 40  # actions without a trigger after which a search begins elsewhere
ENOUGH = 0.6  # IoU from which a trigger is paid for

Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(windows `[N, 4]`, histories `[N, 10]`) -> actions `[N]`, and what triggering here is worth `[N]`."""
Mark = Callable[[Tensor, Tensor], None]
"""Images `[K]` and the windows `[K, 4]` in which they were triggered."""


class Trail(NamedTuple):
    """S windows attended in each of N images, what was done there, and the worth of triggering there."""

    window: Tensor  # [N, S, 4]
    action: Tensor  # [N, S]
    worth: Tensor  # [N, S]

    @property
    def fired(self) -> Tensor:
        """Where it triggered `[N, S]`."""
        return self.action == TRIGGER


def starts(size: Tensor) -> Tensor:
    """Where searches begin, in turn: the whole image, then three quarters of it from each corner -> `[N, 5, 4]`."""
    low = torch.tensor([[0, 0], [0, 0], [1, 0], [0, 1], [1, 1]], device=size.device) / 4
    side = torch.tensor([[1.0], [0.75], [0.75], [0.75], [0.75]], device=size.device)
    return (torch.cat([low, low + side], 1) * size.float().repeat(1, 2).unsqueeze(1)).round()


def search(choose: Choose, size: Tensor, steps: int, mark: Mark | None = None) -> Trail:
    """`steps` actions in every image, all images side by side; a trigger, or 40 actions without one, begins anew."""
    begin, every = starts(size), torch.arange(len(size), device=size.device)
    window, turn, since = begin[:, 0], torch.zeros_like(every), torch.zeros_like(every)
    history = torch.zeros(len(size), MEMORY, dtype=torch.int8, device=size.device)
    record = []
    for _ in range(steps):
        action, worth = choose(window, history)
        record.append((window, action, worth))
        fired = action == TRIGGER
        if mark is not None and fired.any():
            mark(every[fired], window[fired])
        after = torch.cat([transform(window, size), window.unsqueeze(1)], 1)[every, action]
        since = since + 1
        anew = fired | (since >= PATIENCE)
        turn = turn + anew.long()
        window = torch.where(anew.unsqueeze(1), begin[every, turn % begin.shape[1]], after)
        history, since = remember(history, action) * ~anew.unsqueeze(1), since * ~anew
    return Trail(*(torch.stack(field, 1) for field in zip(*record, strict=True)))


def at_random(count: int, generator: torch.Generator) -> Choose:
    """Any action, by chance, in `count` images; all triggers are worth the same."""

    def choose(window: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        action = torch.randint(len(CAICEDO), (count,), generator=generator, device=window.device)
        return action, torch.zeros(count, device=window.device)

    return choose


class Oracle:
    """Knows the objects `[N, M, 4]`: goes where the IoU with one not yet found rises most, and triggers from 0.6 on.

    Where no action raises it, any; an object is found once a trigger's IoU with it is the highest.
    """

    def __init__(self, size: Tensor, objects: Tensor, generator: torch.Generator) -> None:
        self.size, self.left, self.generator = size, objects.clone(), generator

    def __call__(self, window: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        overlap = iou(torch.cat([window.unsqueeze(1), transform(window, self.size)], 1), self.left)
        now, which = overlap[:, 0].max(-1)
        rise = (overlap[:, 1:] - overlap[:, :1]).amax(-1)
        lucky = epsilon_greedy(rise, 1.0, self.generator)
        action = torch.where(rise.amax(-1) > 0, rise.argmax(-1), lucky)
        fired = now >= ENOUGH
        image = fired.nonzero()[:, 0]
        self.left[image, which[image]] = 0
        return torch.where(fired, TRIGGER, action), now


class Marked:
    """Images as a search leaves them: each trigger paints a black cross over its window, which inhibits return.

    `seen` are their features, made anew where a cross was painted.
    """

    def __init__(self, sight: Sight, seen: Seen, canvas: Canvas) -> None:
        self.sight, self.maps = sight, copy.copy(seen.maps)
        self.maps.maxima = seen.maps.maxima.clone()
        self.seen = copy.copy(seen)
        self.seen.maps = self.maps
        self.pixels = canvas.draw(torch.arange(len(seen.size))).to(seen.size.device)

    @torch.no_grad()
    def paint(self, image: Tensor, window: Tensor) -> None:
        """Cover the middle thirds of windows `[K, 4]` of images `[K]`, and look at these images again."""
        for i, w in zip(image.split(CHUNK), window.split(CHUNK), strict=True):
            self.pixels[i] = crossed(self.pixels[i], w * self.maps.scale[i])
            with torch.autocast(w.device.type, torch.bfloat16, enabled=self.maps.bf16):
                made = self.sight.backbone(self.pixels[i]).to(self.maps.maxima.dtype)
            self.maps.maxima[:, :, i] = range_maxima(made)


def crossed(pixels: Tensor, window: Tensor) -> Tensor:
    """Pictures `[K, 3, H, W]` with a black cross over windows `[K, 4]`, its bars a third of them."""
    height, width = pixels.shape[-2:]
    third = (window[:, 2:] - window[:, :2]) / 3
    x, y = torch.arange(width, device=pixels.device) + 0.5, torch.arange(height, device=pixels.device) + 0.5

    def between(at: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return (at >= low[:, None]) & (at < high[:, None])

    wide, thin = (between(x, window[:, 0] + d * third[:, 0], window[:, 2] - d * third[:, 0]) for d in (0, 1))
    tall, flat = (between(y, window[:, 1] + d * third[:, 1], window[:, 3] - d * third[:, 1]) for d in (0, 1))
    cross = (wide[:, None, :] & flat[:, :, None]) | (thin[:, None, :] & tall[:, :, None])
    return pixels * ~cross.unsqueeze(1)
