"""What Tree-RL's agent sees: networks that learn from boxes, and their features of a set of images, computed once."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.core.detection import encode
from volition.core.windows import area, iou, whole
from volition.data.boxes import BoxedImages
from volition.nets.regions import Detector, RegionHead, SmallBackbone, range_maxima, roi_max_pool
from volition.nets.vgg import VGGBackbone

OVERLAP = 0.5  # IoU from which a window is taken for the object in it (Girshick 2015, section 2.3)
SPREAD = (0.1, 0.1, 0.2, 0.2)  # by which Fast R-CNN's code divides the deltas of a box
CHUNK = 16  # images through the backbone at once


class Sight(nn.Module):
    """Images → maps (`backbone`), pooled windows → features (`head`), features → classes and boxes (`detector`).

    `cell` says of every cell of a map what it lies in, 1 + classes scores, and how far that reaches to four sides: it
    is what the backbone learns by, and is not used afterwards.
    """

    def __init__(self, backbone: SmallBackbone | VGGBackbone, head: RegionHead, classes: int) -> None:
        super().__init__()
        self.backbone, self.head, self.detector = backbone, head, Detector(head.units, classes)
        self.cell = nn.Conv2d(backbone.channels, 1 + classes + 4, 1)
        nn.init.normal_(self.cell.weight, std=0.01)

    def cell_loss(self, pixels: Tensor, boxes: Tensor, label: Tensor) -> dict[str, Tensor]:
        """The smallest object around each cell's centre, if any: cross-entropy of its class, −ln IoU of its box.

        Of pictures `[N, 3, H, W]` with objects `[N, M, 4]`, label −1 being none. An object's cells share a weight of 1,
        in proportion to their centredness √(min(l, r)/max(l, r) · min(t, b)/max(t, b)), so that a large one counts no
        more than a small one; those outside of all share 1 too (Tian 2019, section 3.1 and eq. 3).
        """
        found = self.cell(self.backbone(pixels)).permute(0, 2, 3, 1).float()
        stride, most = self.backbone.stride, label.shape[1]
        y, x = (stride * (torch.arange(n, device=boxes.device) + 0.5) for n in found.shape[1:3])
        here = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None, :, :, None]  # [1, h, w, 1, 2]
        box = boxes[:, None, None]
        near, far = here - box[..., :2], box[..., 2:] - here  # left and top, right and bottom [N, h, w, M, 2]
        inside = ((near > 0) & (far > 0)).all(-1) & (label >= 0)[:, None, None]
        least, which = area(box).expand(inside.shape).masked_fill(~inside, torch.inf).min(-1)
        image, row, column = least.isfinite().nonzero().unbind(1)  # the K cells that lie in an object
        which = which[image, row, column]
        near, far = near[image, row, column, which], far[image, row, column, which]
        share = (torch.minimum(near, far) / torch.maximum(near, far)).prod(-1).sqrt()
        each = torch.zeros(len(label) * most, device=boxes.device).index_add_(0, image * most + which, share)
        share, objects = share / each[image * most + which], (each > 0).sum().clamp(min=1)
        true = torch.zeros(found.shape[:3], dtype=torch.int64, device=boxes.device)
        true[image, row, column] = label[image, which] + 1
        cost = F.cross_entropy(found[..., :-4].flatten(0, 2), true.flatten(), reduction="none").view_as(true)
        nothing = true == 0
        ground = (cost * nothing).sum() / nothing.sum().clamp(min=1)
        guess = found[image, row, column, -4:].clamp(-5, 5).exp() * 5 * stride
        overlap = iou(_around(guess)[:, None], _around(torch.cat([near, far], -1))[:, None]).flatten()
        return {
            "cell_class": ground + (cost[image, row, column] * share).sum() / objects,
            "cell_box": -(overlap.clamp(min=1e-4).log() * share).sum() / objects,
        }

    def window_loss(self, pooled: Tensor, window: Tensor, boxes: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Fast R-CNN's two losses on windows `[N, R, 4]`, pooled `[N·R, …]`, of images with objects `[N, M, 4]`.

        Cross-entropy of the class, 0 where no object reaches IoU ½, and smooth L1 of the true class's deltas
        (Girshick 2015, eq. 1-3).
        """
        overlap, which = iou(window, boxes).max(-1)  # [N, R]
        true = torch.where(overlap >= OVERLAP, label.gather(1, which) + 1, 0).flatten()
        score, delta = self.detector(self.head(pooled))
        hit = true.nonzero().squeeze(-1)
        box = boxes.gather(1, which[..., None].expand(-1, -1, 4)).flatten(0, 1)[hit]
        wanted = encode(window.flatten(0, 1)[hit], box) / torch.tensor(SPREAD, device=box.device)
        off = F.smooth_l1_loss(delta[hit, true[hit] - 1].float(), wanted, reduction="sum") / len(true)
        return {"window_class": F.cross_entropy(score.float(), true), "window_box": off}


def _around(reach: Tensor) -> Tensor:
    """The box that reaches left, top, right and bottom of the origin by `[…, 4]`."""
    return torch.cat([-reach[..., :2], reach[..., 2:]], -1)


class Canvas:
    """Pictures of many sizes as batches of one size: larger ones shrunk to `side`, then padded with grey.

    Each picture is read, or made, once and kept.
    """

    def __init__(self, images: BoxedImages, side: int) -> None:
        self.images = images
        shrink = (side / images.size.amax(1, keepdim=True)).clamp(max=1.0)
        self.size = (images.size * shrink).round().long().clamp(min=1)
        self.scale = (self.size / images.size).repeat(1, 2)  # of boxes [N, 4]
        self.width, self.height = self.size.amax(0).tolist()
        self._kept = torch.empty(len(images), 3, self.height, self.width, dtype=torch.uint8)
        self._known = [False] * len(images)

    def draw(self, index: Tensor) -> Tensor:
        """Pictures `index` `[B]` -> `[B, 3, H, W]` of bytes."""
        for i in index.tolist():
            if not self._known[i]:
                self._keep(i, self.images.pixels(i))
        return self._kept[index]

    def _keep(self, i: int, pixels: Tensor) -> None:
        width, height = self.size[i].tolist()
        if pixels.shape[1:] != (height, width):
            pixels = F.interpolate(pixels[None].float(), (height, width), mode="area")[0].round().to(torch.uint8)
        self._kept[i].fill_(128)
        self._kept[i, :, :height, :width] = pixels
        self._known[i] = True


class Maps:
    """The backbone's maps of all pictures of a canvas, once; in bfloat16 where `bf16`."""

    def __init__(self, sight: Sight, canvas: Canvas, device: torch.device, bf16: bool) -> None:
        self.bf16, self.images = bf16, canvas.images
        self.size, self.scale = canvas.images.size.to(device), canvas.scale.to(device)
        self.stride, self.bins = sight.backbone.stride, sight.head.size
        dtype, parts = torch.bfloat16 if bf16 else torch.float32, []
        sight.backbone.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for index in torch.arange(len(canvas.images)).split(CHUNK):
                parts.append(range_maxima(sight.backbone(canvas.draw(index).to(device)).to(dtype)))
        self.maxima = torch.cat(parts, 2)

    def pool(self, image: Tensor, window: Tensor) -> Tensor:
        """RoI max-pooling of windows `[K, 4]`, in the images' own pixels, of images `[K]`, `[K, 7, 7, C]`."""
        return roi_max_pool(self.maxima, image, window * self.scale[image], self.stride, self.bins)


class Seen:
    """The features of images, as they are from now on: `look` costs a pooling and one matrix product.

    `pooled` `[N, 7, 7, C]` is each image as one window, `whole` `[N, units]` its features.
    """

    def __init__(self, sight: Sight, maps: Maps) -> None:
        self.maps, self.size, self.bf16 = maps, maps.size, maps.bf16
        self.head = copy.deepcopy(sight.head).to(maps.maxima.dtype).requires_grad_(False)
        every = torch.arange(len(self.size), device=self.size.device).split(256)
        self.pooled = torch.cat([maps.pool(i, whole(self.size[i])) for i in every])
        self.whole = torch.cat([self.head(part) for part in self.pooled.split(256)]).float()

    @torch.no_grad()
    def look(self, image: Tensor, window: Tensor) -> Tensor:
        """Features `[K, units]` of windows `[K, 4]` of images `[K]`."""
        return self.head(self.maps.pool(image, window))
