"""Generated pictures: the same whatever the order, boxes that fit what is painted, VOC's sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from volition.data import boxes, scenes, voc
from volition.data.scenes import CLASSES, DIGITS, HEIGHT, SMALLEST, WIDTH, Thing, generate
from volition.data.shapes import SHAPES, outline
from volition.data.textures import Dice, bricks, grating, noise, photograph, rough
from volition.errors import VolitionError


def test_a_picture_depends_on_seed_split_and_number_only() -> None:
    whole, few = generate("train", 40), generate("train", 9)
    assert torch.equal(whole.pixels(7), whole.pixels(7))
    assert torch.equal(whole.pixels(8), few.pixels(8))
    assert torch.equal(whole.boxes[8, : whole.count[8]], few.boxes[8, : few.count[8]])
    assert whole.ids[8] == few.ids[8]
    for other in (generate("train", 9, seed=1), generate("test", 9)):
        assert not torch.equal(other.pixels(8), few.pixels(8)) and other.ids[8] != few.ids[8]


def test_fields_hang_together() -> None:
    made = generate("test", 300)
    assert len(made) == 300 and made.classes == CLASSES and made.images
    assert made.size.tolist() == [[WIDTH, HEIGHT]] * 300
    assert made.boxes.dtype == torch.float32 and made.boxes.shape == (300, 5, 4)
    assert made.label.dtype == torch.int64 and made.difficult.dtype == made.truncated.dtype == torch.bool
    real = torch.arange(5) < made.count[:, None]
    assert torch.equal(real, made.label >= 0) and made.count.min() == 1 and made.count.max() == 5
    assert not made.boxes[~real].any() and not made.difficult[~real].any()
    x1, y1, x2, y2 = made.boxes[real].unbind(-1)
    assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= WIDTH).all() and (y2 <= HEIGHT).all()
    assert torch.minimum(x2 - x1, y2 - y1).min() >= SMALLEST
    assert made.label[real].unique().tolist() == list(range(15))
    pixels = made.pixels(3)
    assert pixels.shape == (3, HEIGHT, WIDTH) and pixels.dtype == torch.uint8 and pixels.is_contiguous()


def test_sizes_are_those_of_voc() -> None:
    made = generate("train", 1500)
    real = made.label >= 0
    wide_tall = (made.boxes[..., 2:] - made.boxes[..., :2])[real]
    area = wide_tall.prod(-1)
    # VOC07 trainval: 81 % above 2,000 pixels; median of √(area / picture) .26 and tenths .075 … .71; sd of aspect .64
    assert (area > 2000).float().mean().item() == pytest.approx(0.81, abs=0.03)
    side = (area / (WIDTH * HEIGHT)).sqrt()
    assert side.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist() == pytest.approx([0.075, 0.27, 0.73], abs=0.04)
    assert (wide_tall[:, 0] / wide_tall[:, 1]).log().std().item() == pytest.approx(0.62, abs=0.06)
    assert made.count.float().mean().item() == pytest.approx(2.5, abs=0.15)
    assert 0.1 < made.difficult[real].float().mean().item() < 0.25


@pytest.mark.parametrize("label", range(len(CLASSES)))
@pytest.mark.parametrize("side", [-1, 0, 1, 2, 3])
def test_a_thing_fills_its_box(label: int, side: int) -> None:
    digits = scenes.images.builtin_digits()
    index = next(i for i, digit in enumerate(digits.train_labels.tolist()) if digit == label % len(DIGITS))
    for wide, tall in ((8, 6), (30, 61), (300, 150)):
        box = boxes.Box(10, 20, 10 + wide, 20 + tall, label)
        source = index if label < len(DIGITS) else 0.13
        mask = scenes._mask(Thing(box, source, side, 0.6 if side >= 0 else 1.0, False), digits.train_images)
        covered = np.asarray(mask)
        assert covered.shape == (tall, wide) and covered.max() > 200
        rows, columns = np.flatnonzero((covered > 60).any(1)), np.flatnonzero((covered > 60).any(0))
        assert rows[0] <= 1 + tall // 12 and rows[-1] >= tall - 2 - tall // 12
        assert columns[0] <= 1 + wide // 12 and columns[-1] >= wide - 2 - wide // 12


def test_things_show_in_their_boxes_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found = scenes.images.builtin_digits()
    aspects, labels, contrasts = scenes._aspects(found.train_images), found.train_labels.tolist(), []
    for i in range(30):
        dice = Dice(torch.Generator().manual_seed(i))
        things = scenes.layout(dice, aspects, labels)
        state, left = dice.generator.get_state(), list(dice._left)

        def painted(state: torch.Tensor = state, left: list = left, things: list[Thing] = things) -> torch.Tensor:
            again = Dice(torch.Generator())
            again.generator.set_state(state)
            again._left = iter(left)
            return scenes.paint(again, things, found.train_images).int()

        full = painted()
        with monkeypatch.context() as without:
            without.setattr(scenes, "_mask", lambda thing, _: Image.new("L", extent(thing)))
            change = (full - painted()).abs().sum(0)  # the same picture without its things
        outside = torch.ones_like(change, dtype=torch.bool)
        for thing in things:
            x1, y1, x2, y2 = (int(v) for v in thing.box[:4])
            outside[y1:y2, x1:x2] = False
            inside = change[y1:y2, x1:x2]
            contrasts += [] if thing.box.difficult else [inside[inside > 0].float().mean().item()]
        assert not change[outside].any()
        assert 20 < full.float().mean() < 235
    assert min(contrasts) > 20 and np.median(contrasts) > 90  # sum of the three bands: visible, and not in all alike


def extent(thing: Thing) -> tuple[int, int]:
    return int(thing.box.x2 - thing.box.x1), int(thing.box.y2 - thing.box.y1)


def test_outlines_by_hand() -> None:
    # a triangle with its tip up, its left half cut off, then stretched to the unit square
    corners, hole = outline("triangle", 0.0, side=0, part=0.5)
    assert not len(hole)
    assert sorted(map(tuple, corners.round(6).tolist())) == [(0, 0), (0, 1), (1, 1)]
    for name in SHAPES:
        for side in (-1, 0, 1, 2, 3):
            corners, hole = outline(name, 0.3, side, 0.7)
            assert corners.min(0).tolist() == pytest.approx([0, 0]) and corners.max(0).tolist() == pytest.approx([1, 1])
            assert (len(hole) > 0) == (name == "ring") and (not len(hole) or (0 <= hole.min() and hole.max() <= 1))


def test_textures_fill_any_size() -> None:
    dice = Dice(torch.Generator().manual_seed(0))
    for width, height in ((1, 1), (3, 40), (500, 375)):
        for cell in (3, 11, 120):
            for kind in (noise, rough, grating, bricks):
                assert kind(dice, width, height, cell).size == (width, height)
        assert photograph(dice, width, height).size == (width, height)
    numbers = [dice.unit() for _ in range(2000)]
    assert 0.47 < sum(numbers) / 2000 < 0.53 and 0 <= min(numbers) and max(numbers) < 1
    assert abs(np.mean([dice.normal() for _ in range(2000)])) < 0.1
    assert dice.bytes(100, 100).mean() == pytest.approx(127.5, abs=3)


def test_scenes_become_a_voc_folder_and_come_back(tmp_path: Path) -> None:
    made = generate("test", 6)
    voc.write(made, tmp_path, "test")
    back = voc.load(tmp_path, (("", "test"),))
    for field in ("size", "boxes", "label", "difficult", "truncated", "count"):
        assert torch.equal(getattr(back, field), getattr(made, field)), field
    assert back.ids == made.ids and back.classes == made.classes
    assert (back.pixels(2).float() - made.pixels(2).float()).abs().mean() < 6  # JPEG
    assert torch.equal(boxes.load(str(tmp_path), split="test").boxes, made.boxes)


def test_refused() -> None:
    with pytest.raises(VolitionError, match="train or test"):
        generate("val")
    with pytest.raises(VolitionError, match="at least one"):
        generate("train", 0)
