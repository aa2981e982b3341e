"""Generated pictures with boxes: handwritten digits and shapes on textured grounds, with VOC's sizes of boxes."""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops, ImageDraw
from torch import Tensor

from volition.data import images
from volition.data.boxes import Box, BoxedImages, pack
from volition.data.shapes import SHAPES, outline
from volition.data.textures import Dice, blob, colours, noise, stroke, surface, tint
from volition.errors import VolitionError

WIDTH, HEIGHT = 500, 375  # VOC's commonest size
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = DIGITS + SHAPES
SMALLEST = 6  # pixels: below this neither a digit nor a shape can be told

# Measured on VOC07 trainval, difficult objects included, by the number of objects in the picture (1, 2, 3, 4, more):
# the share of pictures; quantiles of √(box area / picture area) at LEVELS; mean and sd of log(width / height).
COUNTS = (0.372, 0.233, 0.118, 0.075, 0.202)
LEVELS = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
SIDES = (
    (0.045, 0.160, 0.236, 0.414, 0.648, 0.809, 0.919, 1.0),
    (0.035, 0.104, 0.153, 0.283, 0.454, 0.645, 0.796, 1.0),
    (0.021, 0.076, 0.104, 0.178, 0.325, 0.529, 0.713, 1.0),
    (0.024, 0.066, 0.091, 0.164, 0.301, 0.483, 0.649, 1.0),
    (0.018, 0.046, 0.059, 0.095, 0.163, 0.287, 0.448, 1.0),
)
CROWDED = 0.9  # our pictures end at five objects, VOC's do not: boxes of the last row shrink, so that 81 % are large
ASPECTS = ((0.22, 0.55), (-0.05, 0.58), (-0.12, 0.60), (-0.16, 0.62), (-0.27, 0.65))

INK = 100  # of 255: a digit's box is drawn around pixels at least so bright
EDGE = [min(255, max(0, (v - INK) * 4 + 128)) for v in range(256)]  # an enlarged digit has a blurred edge: sharpen it
DIM = [180 + v * 75 // 255 for v in range(256)]


@dataclass(frozen=True)
class Thing:
    """One object of a scene before it is painted; `source` is the digit's index, or a shape's angle in turns."""

    box: Box
    source: float
    side: int  # the side that the picture's border cuts off: left, top, right, bottom; −1: none
    part: float  # the part of it that is in view
    faint: bool


def generate(split: str = "train", count: int = 1000, seed: int = 0, folder: Path | None = None) -> BoxedImages:
    """`count` pictures of 500×375; picture i depends on (seed, split, i) only.

    The digits are MNIST's where `folder` holds them, else the built-in ones; the splits use different digits. Boxes
    are made now, pixels at each call of `pixels`. Difficult are objects that are faint, tiny or much covered.
    """
    if split not in ("train", "test") or count < 1:
        raise VolitionError(f"scenes come as train or test, and at least one of them: {split}, {count}")
    found = images.load("digits", folder)
    pictures, labels = getattr(found, f"{split}_images"), getattr(found, f"{split}_labels")
    if found.classes != 10:
        raise VolitionError(f"{found.name} has {found.classes} classes; scenes need the ten digits")
    inked = (pictures >= INK).flatten(1).any(1)
    pictures, labels = pictures[inked], labels[inked].tolist()
    if not labels:
        raise VolitionError(f"the {split} images of {found.name} show no ink: scenes need digits, bright on black")
    aspects = _aspects(pictures)

    def plan(index: int) -> tuple[Dice, list[Thing]]:
        word = hashlib.blake2b(f"{seed} {split} {index}".encode(), digest_size=4).digest()
        dice = Dice(torch.Generator().manual_seed(int.from_bytes(word, "big")))
        return dice, layout(dice, aspects, labels)

    def read(index: int) -> Tensor:
        dice, things = plan(index)
        return paint(dice, things, pictures)

    objects = [[thing.box for thing in plan(i)[1]] for i in range(count)]
    return pack(
        f"scenes of {found.name}", CLASSES, [f"{split}-{seed}-{i:06}" for i in range(count)],
        [(WIDTH, HEIGHT)] * count, objects, read,
    )  # fmt: skip


def layout(dice: Dice, aspects: list[float], labels: list[int]) -> list[Thing]:
    """What stands where in one picture, the largest first: later things are painted over earlier ones."""
    row, share = 0, dice.unit()
    while row < len(COUNTS) - 1 and share >= COUNTS[row]:
        share -= COUNTS[row]
        row += 1
    sizes = sorted((_size(dice, row) for _ in range(row + 1)), key=lambda size: size[0] * size[1], reverse=True)
    things: list[Thing] = []
    for wide, tall in sizes:
        side = dice.below(4) if dice.chance(0.25) else -1
        part = dice.unit(0.4, 0.9) if side >= 0 else 1.0
        best, least = (0, 0), math.inf
        for _ in range(8):
            left, top = dice.below(WIDTH - wide + 1), dice.below(HEIGHT - tall + 1)
            left = 0 if side == 0 else WIDTH - wide if side == 2 else left
            top = 0 if side == 1 else HEIGHT - tall if side == 3 else top
            covered = max((_covered(t.box, left, top, wide, tall) for t in things), default=0)
            if covered < least:
                best, least = (left, top), covered
            if covered <= 0.3:
                break
        label, source = _kind(dice, wide / tall, aspects, labels)
        faint = dice.chance(0.1)
        difficult = faint or wide * tall < 500
        box = Box(*best, best[0] + wide, best[1] + tall, label, difficult, side >= 0)
        things.append(Thing(box, source, side, part, faint))
    for i, thing in enumerate(things):
        hidden = sum(_covered(thing.box, *t.box[:2], t.box.x2 - t.box.x1, t.box.y2 - t.box.y1) for t in things[i + 1 :])
        if hidden > 0.4:
            things[i] = replace(thing, box=thing.box._replace(difficult=True))
    return things


def paint(dice: Dice, things: list[Thing], pictures: Tensor) -> Tensor:
    """The pixels `[3, H, W]` uint8 of a layout: ground, clutter, the things, strokes across them, light and grain."""
    canvas = surface(dice, WIDTH, HEIGHT)
    for _ in range(1 + dice.below(6)):  # clutter that is nothing
        wide, tall = (round(side * math.exp(dice.unit(-3.2, -0.5))) for side in (WIDTH, HEIGHT))
        place = dice.below(WIDTH) - wide // 2, dice.below(HEIGHT) - tall // 2
        canvas.paste(surface(dice, wide, tall), place, blob(dice, wide, tall))
    for _ in range(dice.below(5)):
        stroke(dice, canvas, dice.unit(1, 9))
    for thing in things:
        x1, y1, x2, y2 = (int(value) for value in thing.box[:4])
        ground = canvas.resize((1, 1), Image.Resampling.BOX, (x1, y1, x2, y2)).getpixel((0, 0))
        assert isinstance(ground, tuple)
        away = dice.unit(30, 45) if thing.faint else dice.unit(70, 150)
        both = colours(dice, ground, away)
        base = max(both, key=lambda c: -sum(max(0.0, v - 255, -v) for v in c) + 1e-3 * dice.unit())
        mask = _mask(thing, pictures)
        cell = dice.unit(0.15, 0.6) * min(mask.size) + 3
        body = tint(noise(dice, *mask.size, cell), *colours(dice, base, dice.unit(5, 15 if thing.faint else 40)))
        canvas.paste(body, (x1, y1), mask)
    if dice.chance(0.3):
        for _ in range(1 + dice.below(2)):
            stroke(dice, canvas, dice.unit(1, 6))
    light = noise(dice, WIDTH, HEIGHT, 250).point(DIM)
    grain = Image.fromarray(dice.bytes(HEIGHT, WIDTH) >> (3 + dice.below(3)))
    bands = [ImageChops.add(ImageChops.multiply(band, light), grain) for band in canvas.split()]
    return torch.from_numpy(np.stack([np.asarray(band) for band in bands]))


def _size(dice: Dice, row: int) -> tuple[int, int]:
    """Width and height of a box in a picture with row + 1 objects."""
    area = float(np.interp(dice.unit(), LEVELS, SIDES[row])) ** 2 * WIDTH * HEIGHT
    area *= CROWDED**2 if row == len(SIDES) - 1 else 1
    mean, sd = ASPECTS[row]
    aspect = math.exp(min(max(mean + sd * dice.normal(), -1.8), 1.8))
    wide = min(max(round(math.sqrt(area * aspect)), SMALLEST), WIDTH)
    tall = min(max(round(area / wide), SMALLEST), HEIGHT)
    return min(max(round(area / tall), wide), WIDTH), tall  # what the height could not hold, the width takes


def _covered(box: Box, left: float, top: float, wide: float, tall: float) -> float:
    """The part of `box` that another, later one hides."""
    across = min(box.x2, left + wide) - max(box.x1, left)
    down = min(box.y2, top + tall) - max(box.y1, top)
    return max(across, 0) * max(down, 0) / ((box.x2 - box.x1) * (box.y2 - box.y1))


def _kind(dice: Dice, aspect: float, aspects: list[float], labels: list[int]) -> tuple[int, float]:
    """Class and source: a shape, or of three digits the one that must be stretched least."""
    if dice.chance(0.4):
        return len(DIGITS) + dice.below(len(SHAPES)), dice.unit()
    tried = [dice.below(len(labels)) for _ in range(3)]
    index = min(tried, key=lambda i: abs(math.log(aspects[i] / aspect)))
    return labels[index], index


def _aspects(pictures: Tensor) -> list[float]:
    """Width over height of the ink of every digit."""
    dark = pictures >= INK
    columns, rows = dark.any(1).int(), dark.any(2).int()
    first, last = (lines.argmax(1) for lines in (columns, rows)), (lines.flip(1).argmax(1) for lines in (columns, rows))
    wide, tall = (lines.shape[1] - a - b for lines, a, b in zip((columns, rows), first, last, strict=True))
    return (wide / tall).tolist()


def _mask(thing: Thing, pictures: Tensor) -> Image.Image:
    """How much of each pixel of its box a thing covers; what is in view of it fills the box to all four sides."""
    size = int(thing.box.x2 - thing.box.x1), int(thing.box.y2 - thing.box.y1)
    if thing.box.label < len(DIGITS):
        digit = pictures[int(thing.source)].numpy()
        return Image.fromarray(digit).resize(size, Image.Resampling.BICUBIC, _in_view(digit, thing)).point(EDGE)
    fine = 4 if max(size) < 100 else 2  # drawn larger and shrunk, so that edges are smooth
    large = size[0] * fine, size[1] * fine
    mask = Image.new("L", large)
    outer, inner = outline(CLASSES[thing.box.label], thing.source, thing.side, thing.part)
    for fill, points in ((255, outer), (0, inner)):
        if len(points):
            ImageDraw.Draw(mask).polygon((points * (np.array(large) - 1)).flatten().tolist(), fill=fill)
    return mask.reduce(fine)


def _in_view(digit: np.ndarray, thing: Thing) -> tuple[int, int, int, int]:
    """The box of a digit's ink, or of the part of it that the border leaves."""
    x1, y1, x2, y2 = _extent(digit >= INK)
    if thing.side < 0:
        return x1, y1, x2, y2
    wide, tall = max(2, round(thing.part * (x2 - x1))), max(2, round(thing.part * (y2 - y1)))
    x1, y1, x2, y2 = (
        (x2 - wide, y1, x2, y2),
        (x1, y2 - tall, x2, y2),
        (x1, y1, x1 + wide, y2),
        (x1, y1, x2, y1 + tall),
    )[thing.side]
    left, top, right, bottom = _extent(digit[y1:y2, x1:x2] >= INK)
    return x1 + left, y1 + top, x1 + right, y1 + bottom


def _extent(dark: np.ndarray) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(dark.any(0)), np.flatnonzero(dark.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
