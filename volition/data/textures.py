"""Textures, blobs and strokes that generated scenes are painted with: a few calls of Pillow each."""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

UNIT = np.arange(256) / 255


class Dice:
    """Random numbers of one picture; drawn from the generator in few calls, for single ones are slow."""

    def __init__(self, generator: torch.Generator, ahead: int = 256) -> None:
        self.generator, self._ahead, self._left = generator, ahead, iter(())

    def unit(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number between `low` and `high`."""
        number = next(self._left, None)
        if number is None:
            self._left = iter(torch.rand(self._ahead, generator=self.generator, dtype=torch.float64).tolist())
            number = next(self._left)
        return low + (high - low) * number

    def below(self, bound: int) -> int:
        """A whole number of 0 … bound − 1."""
        return int(self.unit() * bound)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def normal(self) -> float:
        """A number of the standard normal distribution (Box and Muller)."""
        return math.sqrt(-2 * math.log(1 - self.unit())) * math.cos(2 * math.pi * self.unit())

    def bytes(self, *shape: int) -> np.ndarray:
        """Random bytes of this shape."""
        count = math.prod(shape)  # eight from each number
        numbers = torch.randint(-(2**63), 2**63 - 1, (count // 8 + 1,), generator=self.generator)
        return numbers.numpy().view(np.uint8)[:count].reshape(shape)


def noise(dice: Dice, width: int, height: int, cell: float) -> Image.Image:
    """Smooth grey noise whose spots are about `cell` pixels wide."""
    grid = dice.bytes(max(2, round(height / cell) + 1), max(2, round(width / cell) + 1))
    spots = Image.fromarray(grid)
    if cell > 24:  # smooth first at an eighth of the size, which is cheaper
        spots = spots.resize((width // 8 + 2, height // 8 + 2), Image.Resampling.BICUBIC)
    return spots.resize((width, height), Image.Resampling.BILINEAR)


def rough(dice: Dice, width: int, height: int, cell: float) -> Image.Image:
    """Noise of three sizes of spots, each a third as wide as the last: plaster, grass, cloud."""
    first, second, third = (noise(dice, width, height, max(cell / 3**i, 1.5)) for i in range(3))
    return Image.blend(Image.blend(first, second, dice.unit(0.25, 0.5)), third, dice.unit(0.1, 0.35))


def grating(dice: Dice, width: int, height: int, cell: float) -> Image.Image:
    """Stripes `cell` pixels wide in any direction, more or less bent: cloth, water, wood."""
    angle, bend = dice.unit(0, math.pi), dice.unit(0, 6) * dice.unit()
    x = np.arange(width, dtype=np.float32)[None] * np.float32(math.cos(angle) * math.pi / cell)
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(math.sin(angle) * math.pi / cell)
    phase = np.asarray(noise(dice, width, height, 6 * cell), np.float32) * np.float32(bend / 255)
    phase += x
    phase += y
    np.sin(phase, out=phase)
    phase *= dice.unit(60, 400)  # from waves to sharp stripes
    phase += 128
    return Image.fromarray(np.clip(phase, 0, 255, out=phase).astype(np.uint8))


def bricks(dice: Dice, width: int, height: int, cell: float) -> Image.Image:
    """Bricks of different greys with joints between them: walls, tiles, windows."""
    tall, wide = max(3, round(cell * dice.unit(0.5, 1.2))), max(4, round(cell * dice.unit(1, 2.5)))
    joint, shift, rows = max(1, round(cell / dice.unit(8, 20))), dice.unit(0, 0.5) * wide, height // tall + 1
    along = np.arange(width) + (np.arange(rows) * shift).astype(np.int64)[:, None]
    shade = dice.bytes(rows, 64)[np.arange(rows)[:, None], (along // wide) % 64] // 2 + 64
    mortar = dice.below(256)
    shade[along % wide < joint] = mortar
    wall = np.repeat(shade, tall, axis=0)
    for i in range(joint):
        wall[i::tall] = mortar
    return Image.fromarray(wall[:height])


def colours(dice: Dice, base: tuple[float, ...], spread: float) -> list[tuple[float, ...]]:
    """Two colours on both sides of `base`, `spread` from it, mostly lighter and darker."""
    way = [1 + 0.6 * dice.normal() for _ in range(3)]
    length = math.sqrt(sum(part * part for part in way)) or 1.0
    return [tuple(c + side * spread * part / length for c, part in zip(base, way, strict=True)) for side in (-1, 1)]


def tint(grey: Image.Image, dark: tuple[float, ...], light: tuple[float, ...]) -> Image.Image:
    """A grey picture in colours: black becomes `dark`, white `light`."""
    ramp = np.array(dark)[:, None] + np.outer(np.subtract(light, dark), UNIT)
    coloured = grey.copy()
    coloured.putpalette(ramp.clip(0, 255).round().astype(np.uint8).T.tobytes())
    return coloured.convert("RGB")


@cache
def photographs() -> tuple[tuple[Image.Image, ...], ...]:
    """The bands of the two photographs, a temple and a flower, that come with scikit-learn."""
    from sklearn.datasets import load_sample_images

    found: Any = load_sample_images()
    return tuple(Image.fromarray(picture).split() for picture in found.images)


def photograph(dice: Dice, width: int, height: int) -> Image.Image:
    """A piece of a photograph, perhaps mirrored, with its colours in another order and a new contrast."""
    bands = photographs()[dice.below(2)]
    scale = dice.unit(0.25, 1.0) * min(bands[0].width / width, bands[0].height / height)
    left, top = dice.unit(0, bands[0].width - scale * width), dice.unit(0, bands[0].height - scale * height)
    box = (left, top, left + scale * width, top + scale * height)
    pieces = [band.resize((width, height), Image.Resampling.BILINEAR, box) for band in bands]
    first, low, high = dice.below(3), dice.unit(0, 60), dice.unit(150, 255)
    table = (low + (high - low) * UNIT).round().astype(int).tolist()
    picture = Image.merge("RGB", [pieces[(first + i) % 3].point(table) for i in range(3)])
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if dice.chance(0.5) else picture


def surface(dice: Dice, width: int, height: int) -> Image.Image:
    """A coloured texture of any kind; one in four is a piece of a photograph."""
    kind = dice.unit()
    if kind < 0.25:
        return photograph(dice, width, height)
    base = tuple(dice.unit(40, 215) for _ in range(3))
    grey = sum(base) / 3  # real surfaces are seldom of a pure colour
    base = tuple(grey + dice.unit(0.2, 0.8) * (c - grey) for c in base)
    cell = math.exp(dice.unit(math.log(6), math.log(90)))
    if kind < 0.65:
        pattern = rough(dice, width, height, 2 * cell)
    else:
        pattern = (grating if kind < 0.85 else bricks)(dice, width, height, cell)
    return tint(pattern, *colours(dice, base, dice.unit(15, 75)))


def blob(dice: Dice, width: int, height: int) -> Image.Image:
    """The mask of a patch with a ragged edge."""
    points = []
    corners = 7 + dice.below(10)
    for k in range(corners):
        angle, radius = 2 * math.pi * k / corners, dice.unit(0.55, 1)
        points.append((width * (0.5 + 0.5 * radius * math.cos(angle)), height * (0.5 + 0.5 * radius * math.sin(angle))))
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    return mask


def stroke(dice: Dice, picture: Image.Image, thick: float) -> None:
    """Draw a bent line across a part of the picture: a branch, a wire, an edge."""
    x, y, angle = dice.unit(0, picture.width), dice.unit(0, picture.height), dice.unit(0, 2 * math.pi)
    points, turn, pace = [(x, y)], dice.unit(-0.5, 0.5), dice.unit(10, 60)
    for _ in range(3 + dice.below(8)):
        angle += turn * dice.unit(0, 1)
        x, y = x + pace * math.cos(angle), y + pace * math.sin(angle)
        points.append((x, y))
    colour = tuple(dice.below(256) for _ in range(3))
    ImageDraw.Draw(picture).line(points, fill=colour, width=max(1, round(thick)), joint="curve")
