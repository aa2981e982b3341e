"""Canvases made on the fly: a digit as it is, at a random place, among clutter, or several digits at random places."""

import torch
from torch import Tensor

from volition.errors import VolitionError


class Canvas:
    """Mnih et al. (2014), section 4.1: the digit is placed first, then clutter, pieces of other digits, over it.

    A canvas is `size`×`size` (0: the image as it is). Every place where the digit fits wholly is equally likely, and
    so is every place of every clutter piece, a `patch`×`patch` cut from a random place of a random other image;
    where things overlap the brighter pixel is kept. All of a batch is made at once, in uint8. Several `digits` (Ba et
    al. 2015, section 4.1) lie apart: all ways to place their squares without overlap are equally likely.
    """

    def __init__(self, images: Tensor, size: int = 0, clutter: int = 0, patch: int = 8, digits: int = 1) -> None:
        height, width = images.shape[1:]
        if digits > 1 and size < digits * max(height, width):
            raise VolitionError(f"{digits} images of {height}×{width} may not fit a canvas of {size}×{size}")
        if (size and size < max(height, width)) or (clutter and patch > min(height, width)):
            raise VolitionError(
                f"images of {height}×{width} with clutter of {patch}×{patch} do not fit a canvas of {size}×{size}: "
                "use the task that shows them as they are (centred)"
            )
        if clutter and len(images) < 2:
            raise VolitionError("clutter is made of other images, and there is only one")
        self.images, self.patch, self.digits = images, patch, digits
        self.height, self.width = (size, size) if size else (height, width)
        self.clutter = clutter

    def draw(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Canvases `[B, height, width]` uint8 of the images `index` `[B]`, or `[B, digits]` if they are several."""
        count, height, width = self.images.shape
        batch, device = index.shape[0], index.device

        def at_random(bound: int, times: int = 1) -> Tensor:
            return torch.randint(bound, (batch, times), generator=generator, device=device)

        if self.digits > 1:
            canvas = self.images.new_zeros(batch, self.height * self.width)
            cells = _cells(height, width, self.width, device)
            for place, one in zip(self._apart(batch, generator, device).T, index.T, strict=True):
                canvas.scatter_(1, place[:, None] + cells, self.images.index_select(0, one).view(batch, -1))
            index = index[:, 0]
        elif (self.height, self.width) == (height, width):
            canvas = self.images.index_select(0, index).view(batch, -1)
        else:
            canvas = self.images.new_zeros(batch, self.height * self.width)
            place = at_random(self.height - height + 1) * self.width + at_random(self.width - width + 1)
            where = place + _cells(height, width, self.width, device)
            canvas.scatter_(1, where, self.images.index_select(0, index).view(batch, -1))
        if self.clutter:
            patch, pixels, times = self.patch, self.images.view(-1), self.clutter
            other = (index[:, None] + 1 + at_random(count - 1, times)) % count  # any image but the one on the canvas
            source = (other * height + at_random(height - patch + 1, times)) * width + at_random(
                width - patch + 1, times
            )
            target = at_random(self.height - patch + 1, times) * self.width + at_random(self.width - patch + 1, times)
            pieces = pixels.take(source[..., None] + _cells(patch, patch, width, device))  # [B, clutter, patch²]
            places = target[..., None] + _cells(patch, patch, self.width, device)
            for i in range(times):  # one after the other, for they may overlap
                canvas.scatter_(1, places[:, i], torch.maximum(canvas.gather(1, places[:, i]), pieces[:, i]))
        return canvas.view(batch, self.height, self.width)

    def _apart(self, batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """The first cell of each digit `[B, digits]`: places are drawn until no two squares overlap."""
        height, width = self.images.shape[1:]
        found = torch.empty(batch, self.digits, dtype=torch.int64, device=device)
        left = torch.arange(batch, device=device)
        while len(left):
            shape = len(left), 8, self.digits  # eight tries at once
            row = torch.randint(self.height - height + 1, shape, generator=generator, device=device)
            column = torch.randint(self.width - width + 1, shape, generator=generator, device=device)
            fits = torch.ones(shape[:2], dtype=torch.bool, device=device)
            for i in range(self.digits):
                for j in range(i):
                    apart = (row[..., i] - row[..., j]).abs() >= height
                    fits &= apart | ((column[..., i] - column[..., j]).abs() >= width)
            first = fits.byte().argmax(1)  # 0 also where none fits; that row is then left
            place = row * self.width + column
            found[left] = place[torch.arange(len(left), device=device), first]
            left = left[~fits.any(1)]
        return found


def _cells(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Offsets of a height×width rectangle in a picture whose rows are `stride` pixels apart."""
    return (torch.arange(height, device=device)[:, None] * stride + torch.arange(width, device=device)).view(-1)
