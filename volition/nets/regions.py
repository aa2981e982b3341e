"""Networks that look at windows of an image: features once per image, pooled for any number of windows in one call."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volition.nets.mlp import mlp


def range_maxima(features: Tensor, levels: int = 2) -> Tensor:
    """Maxima over blocks of 2^i × 2^j cells of maps `[N, C, h, w]`, channels last → `[levels, levels, N, h, w, C]`.

    m[i, j, n, y, x] = max of f[n, :, y … y + 2^i − 1, x … x + 2^j − 1], cut off at the border. levels = 1 is the maps
    alone, four times as small as 2, whose blocks make large windows four times as cheap to pool.
    """
    column = [features.permute(0, 2, 3, 1)]
    for i in range(levels - 1):
        column.append(_ahead(column[-1], 1 << i, 1))
    rows = []
    for row in column:
        rows.append([row])
        for j in range(levels - 1):
            rows[-1].append(_ahead(rows[-1][-1], 1 << j, 2))
    return torch.stack([torch.stack(row) for row in rows])


def roi_max_pool(maxima: Tensor, image: Tensor, boxes: Tensor, stride: int, size: int = 7) -> Tensor:
    """RoI max-pooling of windows `boxes` `[K, 4]` (x1, y1, x2, y2, pixels) of images `[K]` → `[K, size, size, C]`.

    A window covers cells round(x1/stride) … round((x2 − 1)/stride), at least one; bin p of its L cells is
    ⌊p·L/size⌋ … ⌈(p + 1)·L/size⌉ − 1, and its value the maximum there (Girshick 2015, section 2.1; He 2014). A bin is
    covered by the largest blocks of `maxima` that fit, so that no step loops over windows.
    """
    levels, _, count, height, width, channels = maxima.shape
    boxes = boxes.float()
    top, tall, up = _bins(boxes[:, 1], boxes[:, 3], stride, size, height, levels)
    left, wide, along = _bins(boxes[:, 0], boxes[:, 2], stride, size, width, levels)
    rows = maxima.reshape(-1, channels)
    plane = ((up * levels)[:, :, None] + along[:, None, :]) * count + image.long()[:, None, None]  # [K, size, size]
    many_y, many_x = _blocks(tall, up), _blocks(wide, along)  # blocks that cover a bin [K, size]

    def place(i: int, j: int) -> Tensor:
        y = top + torch.minimum(i << up, tall - (1 << up)).clamp_min(0)
        x = left + torch.minimum(j << along, wide - (1 << along)).clamp_min(0)
        return ((plane * height + y[:, :, None]) * width + x[:, None, :]).flatten()

    out = rows.index_select(0, place(0, 0))
    for i in range(int(many_y.max()) if len(boxes) else 0):
        for j in range(int(many_x.max())):
            if i or j:
                open_bins = (i < many_y)[:, :, None] & (j < many_x)[:, None, :]
                index = open_bins.flatten().nonzero().squeeze(-1)
                more = rows.index_select(0, place(i, j)[index])
                out.index_copy_(0, index, torch.maximum(out.index_select(0, index), more))
    return out.view(len(boxes), size, size, channels)


def _ahead(x: Tensor, step: int, dim: int) -> Tensor:
    """max(x_i, x_{i+step}) along `dim`; near the end, where there is no x_{i+step}, x_i."""
    length = x.shape[dim]
    if length <= step:
        return x
    both = torch.maximum(x.narrow(dim, 0, length - step), x.narrow(dim, step, length - step))
    return torch.cat([both, x.narrow(dim, length - step, step)], dim)


def _bins(low: Tensor, high: Tensor, stride: int, size: int, cells: int, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """First cell, cells, and log₂ of the block's side, of each bin along one axis, `[K, size]` each."""
    first = (low / stride + 0.5).floor().long().clamp(0, cells - 1)
    last = torch.maximum(((high - 1) / stride + 0.5).floor().long().clamp(max=cells - 1), first)
    length, p = (last - first + 1)[:, None], torch.arange(size, device=low.device)
    start = p * length // size
    many = -(-(p + 1) * length // size) - start
    level = torch.zeros_like(many)
    for i in range(1, levels):
        level += many >= 1 << i
    return first[:, None] + start, many, level


def _blocks(many: Tensor, level: Tensor) -> Tensor:
    """⌈many / 2^level⌉."""
    return (many + (1 << level) - 1) >> level


class SmallBackbone(nn.Module):
    """A feature pyramid: images `[N, 3, H, W]` of bytes → `[N, channels, ⌈H/8⌉, ⌈W/8⌉]`, each seeing far around.

    Blocks of 4 × 4 pixels become cells, then residual stages at 4, 8, 16 and 32 pixels per cell; on the way back each
    coarser map is added to the next finer one (Lin 2017). `width` is the unit of the stages' channels. Meant for
    images shrunk to half of what VGG-16 is given.
    """

    stride = 8

    def __init__(self, channels: int = 64, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(48, 2 * width), Residual(2 * width))
        wide = [2 * width, 4 * width, 8 * width, 8 * width]
        stages = [nn.Sequential(_convolution(i, o, stride=2), Residual(o)) for i, o in pairwise(wide)]
        stages[-1].append(Residual(wide[-1]))
        self.stages = nn.ModuleList(stages)
        self.across = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in wide[1:])
        self.out, self.channels = _convolution(channels, channels), channels

    def forward(self, image: Tensor) -> Tensor:
        """Bytes `[N, 3, H, W]` → features."""
        image = F.pad(image, (0, -image.shape[3] % 4, 0, -image.shape[2] % 4), value=128)
        x = F.pixel_unshuffle(image, 4).to(memory_format=torch.channels_last, dtype=torch.float32)
        x = self.stem(x * (1 / 128) - 1)
        found = [x := stage(x) for stage in self.stages]
        up = self.across[-1](found[-1])
        for stage, across in zip(found[-2::-1], self.across[-2::-1], strict=True):
            up = across(stage) + F.interpolate(up, size=stage.shape[-2:])
        return self.out(up)


class Residual(nn.Module):
    """ReLU(x + two convolutions of x), which begins as ReLU(x) (He 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, h, w]` → the same shape."""
        return F.relu(x + self.norm(self.second(self.first(x))))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class RegionHead(nn.Module):
    """What a pooled window is made into: `[K, size, size, C]` → ReLU(Linear) `[K, units]`, VGG's fc6 by its place."""

    def __init__(self, channels: int, units: int, size: int = 7) -> None:
        super().__init__()
        self.size, self.units = size, units
        self.linear = nn.Linear(size * size * channels, units)

    def forward(self, pooled: Tensor) -> Tensor:
        """`[K, size, size, C]` → `[K, units]`."""
        return F.relu(self.linear(pooled.flatten(1)))


class Detector(nn.Module):
    """Fast R-CNN's two answers about a window: class scores `[K, 1 + classes]`, class 0 being none, and the deltas

    of its box for each class `[K, classes, 4]` (Girshick 2015, section 2.1).
    """

    def __init__(self, units: int, classes: int) -> None:
        super().__init__()
        self.score, self.box = nn.Linear(units, 1 + classes), nn.Linear(units, 4 * classes)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.normal_(self.box.weight, std=0.001)
        for layer in (self.score, self.box):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`[K, units]` → scores and deltas."""
        return self.score(features), self.box(features).unflatten(-1, (-1, 4))


class RegionQ(nn.Module):
    """Q(s,·) of the state [window | whole image | history | place], whose first layer is never multiplied as one.

    W·[window | whole | history | place] = W₁·window + W₂·whole + Σ_i E[i, a_i] + W₄·place: the second term is computed
    once per image, and the third is a sum of rows, one for each of the `history` last actions, instead of a product
    with history·actions bits that are nearly all 0. place, the window's corners, is left out if `place` is 0.
    (Jie 2016, figure 3: 4096 + 4096 + 50·13 → 4096 → 1024 → 1024 → 1024 → 13)
    """

    def __init__(
        self, window: int, whole: int, history: int, actions: int, hidden: Sequence[int], place: int = 0
    ) -> None:
        super().__init__()
        self.actions = actions
        first, *rest = hidden
        self.window = nn.Linear(window, first)
        self.whole = nn.Linear(whole, first, bias=False)
        self.place = nn.Linear(place, first, bias=False) if place else None
        # Row 0 is no action. An action so long ago that no training episode had it adds nothing.
        self.past = nn.Parameter(torch.zeros(1 + history * actions, first))
        self.rest = mlp([first, *rest, actions])

    def image_part(self, whole: Tensor) -> Tensor:
        """W₂·whole `[N, whole]` → `[N, first]`, once per image."""
        return self.whole(whole)

    def forward(self, window: Tensor, image_part: Tensor, history: Tensor, place: Tensor | None = None) -> Tensor:
        """Q `[K, actions]` of features `[K, window]`, image parts `[K, first]`, actions `[K, T]`: a + 1, 0 for none.

        The newest action stands last; T may be less than `history` where all before it are none.
        """
        x = self.window(window) + image_part + self._past(history)
        if self.place is not None:
            x = x + self.place(place)
        return self.rest(F.relu(x))

    def _past(self, history: Tensor) -> Tensor:
        length = (len(self.past) - 1) // self.actions
        position = torch.arange(length - history.shape[-1], length, device=history.device) * self.actions
        row = torch.where(history > 0, position + history, 0)
        return F.embedding_bag(row, self.past, mode="sum", padding_idx=0)
