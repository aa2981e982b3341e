"""How a small backbone comes to see, before any reward: from the boxes of the training images, in two stages."""

from typing import Any

import torch
from torch import Tensor, nn

from volition.applications._tree_sight import Canvas, Maps, Seen, Sight
from volition.core.flat import Flat, FlatAdam
from volition.core.windows import ACTIONS, moves, whole

IMAGES = 32  # of which a lesson of the second stage takes windows


class Lessons:
    """First `cells` updates of the backbone, `images` pictures each; then `windows` updates of head and detector.

    The second stage pools from maps that are there for good, so that an update costs a fraction of the first's: each
    has `each` windows of 32 images. `lr` falls linearly to 0 in both. Optimisers are the state; the rest is `sight`'s.
    """

    def __init__(
        self,
        sight: Sight,
        canvas: Canvas,
        device: torch.device,
        bf16: bool,
        cells: int = 3_000,
        windows: int = 600,
        images: int = 8,
        each: int = 32,
        lr: float = 1.5e-3,
    ) -> None:
        self.sight, self.canvas, self.device, self.bf16 = sight, canvas, device, bf16
        self.cells, self.windows, self.images, self.each, self.lr = cells, windows, images, each, lr
        self.total = cells + windows
        # VGG-16's weights are read from a file and stay as they are
        head = [part for part in (sight.head, sight.detector) if next(part.parameters()).requires_grad]
        self.first = FlatAdam(Flat(nn.ModuleList([sight.backbone, sight.cell])), lr) if cells else None
        self.second = FlatAdam(Flat(nn.ModuleList(head)), lr) if windows else None
        self._maps: Maps | None = None

    def learn(self, update: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Lesson number `update`; what it cost."""
        cells = update < self.cells
        optimizer = self.first if cells else self.second
        losses = self._cells(generator) if cells else self._windows(generator)
        assert optimizer
        optimizer.flat.zero_grad()
        sum(losses.values(), start=torch.zeros((), device=self.device)).backward()
        left = 1 - update / self.cells if cells else 1 - (update - self.cells) / self.windows
        optimizer.step(self.lr * left)
        return {name: loss.detach() for name, loss in losses.items()}

    def seen(self) -> Seen:
        """The features of all images after the last lesson."""
        return Seen(self.sight, self.maps)

    @property
    def maps(self) -> Maps:
        """The maps of all images, made when they are asked for first: the backbone must have learned by then."""
        if self._maps is None:
            self._maps = Maps(self.sight, self.canvas, self.device, self.bf16)
        return self._maps

    def _cells(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A few images, or their mirror images."""
        images, canvas = self.canvas.images, self.canvas
        index = torch.randint(len(images), (self.images,), generator=generator, device=self.device).cpu()
        pixels, label = canvas.draw(index).to(self.device), images.label[index].to(self.device)
        boxes = (images.boxes[index] * canvas.scale[index, None]).to(self.device)
        if bool(torch.rand((), generator=generator, device=self.device) < 0.5):
            left, top, right, bottom = boxes.unbind(-1)
            pixels, boxes = pixels.flip(3), torch.stack([canvas.width - right, top, canvas.width - left, bottom], -1)
        self.sight.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.sight.cell_loss(pixels, boxes, label)

    def _windows(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Windows of a few images."""
        images, maps = self.canvas.images, self.maps
        index = torch.randint(len(images), (IMAGES,), generator=generator, device=self.device)
        at = index.cpu()
        boxes, label, count = (x[at].to(self.device) for x in (images.boxes, images.label, images.count))
        window = lesson_windows(boxes, count, maps.size[index], self.each, generator)
        pooled = maps.pool(index.repeat_interleave(self.each), window.flatten(0, 1))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.sight.window_loss(pooled, window, boxes, label)

    def state_dict(self) -> dict[str, Any]:
        """The optimisers."""
        return {"optimizers": [optimizer and optimizer.state_dict() for optimizer in (self.first, self.second)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        for optimizer, saved in zip((self.first, self.second), state["optimizers"], strict=True):
            if optimizer:
                optimizer.load_state_dict(saved)


def lesson_windows(boxes: Tensor, count: Tensor, size: Tensor, each: int, generator: torch.Generator) -> Tensor:
    """Windows to learn classes from, `each` per image `[B, each, 4]`: half near objects, half as an agent meets them.

    Near: an object `[B, M, 4]` with its centre and sides changed at random. Met: up to 6 random moves from the whole
    image.
    """
    batch, near = len(boxes), each // 2

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=boxes.device)

    share = torch.rand(batch, near, generator=generator, device=boxes.device)
    pick = (share * count[:, None]).long()
    box = boxes.gather(1, pick[..., None].expand(-1, -1, 4))
    side = box[..., 2:] - box[..., :2]
    centre = (box[..., 2:] + box[..., :2]) / 2 + 0.2 * side * noise(batch, near, 2)
    side = side * (0.3 * noise(batch, near, 2)).exp()
    limit = size[:, None].float()
    low = torch.minimum((centre - side / 2).clamp(min=0), limit - 8)
    high = torch.maximum(torch.minimum(centre + side / 2, limit), low + 8)
    met = whole(size)[:, None].expand(-1, each - near, -1)
    for _ in range(6):
        steps = torch.randint(len(ACTIONS) + 5, met.shape[:2], generator=generator, device=boxes.device)
        after = moves(met, size[:, None])
        after = torch.cat([after, met[..., None, :].expand(-1, -1, 5, -1)], -2)  # or it stays where it is
        met = after.gather(2, steps[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
    return torch.cat([torch.cat([low, high], -1).round(), met], 1)
