"""Canvases made on the fly: a digit as it is, at a random place, or at a random place among clutter."""

import torch
from torch import Tensor


class Canvas:
    """Mnih et al. (2014), section 4.1: the digit is placed first, then clutter, pieces of other digits, over it.

    A canvas is `size`×`size` (0: the image as it is). Every place where the digit fits wholly is equally likely, and
    so is every place of every clutter piece, a `patch`×`patch` cut from a random place of a random other image;
    where things overlap the brighter pixel is kept. All of a batch is made at once, in uint8.
    """

    def __init__(self, images: Tensor, size: int = 0, clutter: int = 0, patch: int = 8) -> None:
        height, width = images.shape[1:]
        if (size and size < max(height, width)) or (clutter and patch > min(height, width)):
            raise ValueError(f"images of {height}×{width} and clutter of {patch}×{patch} do not fit on {size}×{size}")
        self.images, self.patch = images, patch
        self.height, self.width = (size, size) if size else (height, width)
        self.clutter = clutter

    def draw(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Canvases `[B, height, width]` uint8 of the images `index` `[B]`."""
        count, height, width = self.images.shape
        batch, device = index.shape[0], index.device

        def at_random(bound: int) -> Tensor:
            return torch.randint(bound, (batch, 1), generator=generator, device=device)

        if (self.height, self.width) == (height, width):
            canvas = self.images.index_select(0, index).view(batch, -1)
        else:
            canvas = self.images.new_zeros(batch, self.height * self.width)
            row, column = at_random(self.height - height + 1), at_random(self.width - width + 1)
            where = row * self.width + column + _cells(height, width, self.width, device)
            canvas.scatter_(1, where, self.images.index_select(0, index).view(batch, -1))
        pixels, patch = self.images.view(-1), self.patch
        for _ in range(self.clutter):
            # "other digits": any image but the one on the canvas
            other = (index[:, None] + 1 + at_random(count - 1)) % count
            row, column = at_random(height - patch + 1), at_random(width - patch + 1)
            source = other * (height * width) + row * width + column + _cells(patch, patch, width, device)
            row, column = at_random(self.height - patch + 1), at_random(self.width - patch + 1)
            target = row * self.width + column + _cells(patch, patch, self.width, device)
            canvas.scatter_(1, target, torch.maximum(canvas.gather(1, target), pixels.take(source)))
        return canvas.view(batch, self.height, self.width)


def _cells(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Offsets of a height×width rectangle in a picture whose rows are `stride` pixels apart."""
    return (torch.arange(height, device=device)[:, None] * stride + torch.arange(width, device=device)).view(-1)
