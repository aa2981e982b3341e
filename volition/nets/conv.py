"""Convolutional networks for images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NatureCNN(nn.Module):
    """32 filters 8×8 stride 4, 64 of 4×4 stride 2, 64 of 3×3 stride 1, then `units` fully connected; ReLU after each.

    Images `[…, C, H, W]`, bytes or numbers of 0 … 255, become `[…, size]`; units = 0 leaves the last layer out.
    With `last`, images have their channels last. (Mnih 2015, methods: 84 × 84, 512 units)
    """

    def __init__(self, shape: Sequence[int], units: int = 512, last: bool = False) -> None:
        super().__init__()
        self.last = last
        channels, height, width = shape
        side = [conv_size(n) for n in (height, width)]
        if min(side) < 1:
            raise ValueError(f"images of {height} × {width} are too small: this network needs 36 × 36")
        self.conv = nn.Sequential(
            nn.Conv2d(channels, 32, 8, 4), nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2), nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1), nn.ReLU(),
        )  # fmt: skip
        features = 64 * math.prod(side)
        self.linear = nn.Sequential(nn.Linear(features, units), nn.ReLU()) if units else nn.Identity()
        self.size = units or features

    def forward(self, image: Tensor) -> Tensor:
        """`[…, C, H, W]` → `[…, size]`."""
        image = image.movedim(-1, -3) if self.last else image
        first, kind = self.conv[0], image.device.type
        assert isinstance(first, nn.Conv2d)
        low = torch.is_autocast_enabled(kind)
        # with channels last these convolutions take half as long on a CPU, and bytes are the cheapest to rearrange
        x = image.reshape(-1, *image.shape[-3:]).contiguous(memory_format=torch.channels_last)
        x = x.to(torch.get_autocast_dtype(kind) if low else first.weight.dtype)
        # the weights are divided by 255, not the pixels: there are far fewer of them, and bytes are exact in bfloat16
        x = F.conv2d(x, first.weight / 255, first.bias, first.stride)
        return self.linear(self.conv[1:](x).movedim(1, -1).flatten(1)).reshape(*image.shape[:-3], self.size)


def image_shape(space: Any) -> tuple[int, int, int] | None:
    """(C, H, W) of a Box of bytes that is an image large enough for `NatureCNN`, or a stack of grey ones; else None."""
    shape = getattr(space, "shape", None) or ()
    if len(shape) != 3 or getattr(space, "dtype", None) != np.uint8:
        return None
    channels, height, width = shape if shape[0] < shape[2] else (shape[2], *shape[:2])
    return (channels, height, width) if min(conv_size(height), conv_size(width)) >= 1 else None


def conv_size(pixels: int) -> int:
    """What the three convolutions leave of a side: 84 → 20 → 9 → 7."""
    for kernel, stride in ((8, 4), (4, 2), (3, 1)):
        pixels = (pixels - kernel) // stride + 1
    return pixels
