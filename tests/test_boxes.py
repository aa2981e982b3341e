"""Readers of pictures with boxes: right on good files, one clear error that names the file on every damaged one."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from volition.data import catalog, coco, own, voc
from volition.data.boxes import Box, load, pack
from volition.errors import VolitionError

DATA = os.environ.get("VOLITION_DATA")  # read before conftest hides it from the other tests

XML = """<annotation><filename>a.jpg</filename><size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>dog</name><truncated>1</truncated><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
<part><name>head</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part></object>
<object><name>person</name><difficult>1</difficult>
<bndbox><ymin>3</ymin><ymax>4</ymax><xmin>10.5</xmin><xmax>60</xmax></bndbox></object></annotation>"""
COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 60, "height": 40},
        {"id": 3, "file_name": "b.png", "width": 60, "height": 40},
    ],
    "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 90, "bbox": [10, 5, 20, 30.5], "iscrowd": 0},
        {"id": 2, "image_id": 3, "category_id": 1, "bbox": [0, 0, 60.01, 40], "iscrowd": 1},
        {"id": 3, "image_id": 3, "category_id": 1, "bbox": [4, 4, 0, 9]},
    ],
}
CSV = "file,label,x1,y1,x2,y2,difficult\na.png,cat,0,0,30,40,0\nb.png,,,,,,\na.png,ant,5,6,7.5,8,1\n"


def picture(path: Path, value: int = 0, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 100, 200)).save(path)
    return path


def small_voc(root: Path, count: int = 1, pictures: bool = True, part: str = "test") -> Path:
    """A VOC folder whose pictures all have the annotation above."""
    names = [f"{i:06}" for i in range(count)]
    for name in names:
        (root / "Annotations").mkdir(parents=True, exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(XML)
        if pictures:
            picture(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
    return root


def refused(call: Callable[..., object], *given: object, match: str) -> None:
    with pytest.raises(VolitionError, match=match) as caught:
        call(*given)
    assert "\n" not in str(caught.value)


# ---- VOC


def test_voc_boxes_count_from_0_and_end_outside(tmp_path: Path) -> None:
    small_voc(tmp_path / "VOC2007", 2)
    found = voc.load(tmp_path)
    assert found.name == "VOC2007 test" and found.classes == voc.CLASSES and len(found) == 2
    assert found.size.tolist() == [[60, 40]] * 2 and found.count.tolist() == [2, 2]
    assert found.boxes[0].tolist() == [[0, 1, 30, 40], [9.5, 2, 60, 4]]  # the part is no object
    assert found.label[0].tolist() == [voc.CLASSES.index("dog"), voc.CLASSES.index("person")]
    assert found.difficult[0].tolist() == [False, True] and found.truncated[0].tolist() == [True, False]
    pixels = found.pixels(1)
    assert pixels.shape == (3, 40, 60) and pixels.dtype == torch.uint8
    assert pixels.float().mean((1, 2)).tolist() == pytest.approx([0, 100, 200], abs=2)


def test_annotations_without_pictures(tmp_path: Path) -> None:
    small_voc(tmp_path / "VOC2007", 1, pictures=False)
    found = voc.load(tmp_path)
    assert not found.images and not found.subset([0]).images
    refused(found.pixels, 0, match="VOC2007 test holds annotations without pictures")


def test_voc_damage_is_named(tmp_path: Path) -> None:
    root = small_voc(tmp_path / "VOC2007", 3)
    path = root / "Annotations/000001.xml"

    def read(text: str, match: str) -> None:
        path.write_text(text)
        refused(voc.load, tmp_path, match=f"000001.xml.*{match}")

    read("", "not sound XML")
    read(XML[:-5], "not sound XML")
    read(XML.replace("<width>60</width>", ""), "<size/width> of <annotation> should be a number and is None")
    read(XML.replace(">60</width>", ">0</width>"), "says 0×40: write the picture's true")
    read(XML.replace(">30</xmax>", ">thirty</xmax>"), "<xmax> of <bndbox> should be a number and is 'thirty'")
    read(XML.replace(">30</xmax>", ">inf</xmax>"), "should be a number")
    read(XML.replace(">30</xmax>", ">0</xmax>"), "is empty: x2 > x1")
    read(XML.replace("<ymin>2</ymin><xmax>30</xmax><ymax>40<", "<ymin>50</ymin><xmax>30</xmax><ymax>60<"), "outside")
    read(XML.replace("<name>dog</name>", ""), "lacks its <name>")
    read(XML.replace("bndbox", "box"), "lacks its <bndbox>")
    path.unlink()
    refused(voc.load, tmp_path, match=r"000001.xml is missing: put the annotation there")
    path.write_text(XML)
    refused(voc.load, tmp_path, [("2007", "val")], match=r"val.txt is missing; sets that are there: test")
    (root / "JPEGImages/000002.jpg").unlink()
    refused(voc.load, tmp_path, match=r"000002.jpg is missing: put the picture there")
    (root / "ImageSets/Main/test.txt").write_text("\n")
    refused(voc.load, tmp_path, match=r"test.txt names no pictures")


def test_xml_fuzz(tmp_path: Path) -> None:
    random, path, bad = np.random.default_rng(0), tmp_path / "a.xml", 0
    for case in range(400):
        data = bytearray(XML.encode())
        for bit in random.integers(8 * len(data), size=random.integers(1, 4)):
            data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data if case % 3 else data[: random.integers(len(data))])
        try:
            size, objects = voc.read_xml(path)
            assert min(size) > 0 and all(
                0 <= b.x1 < b.x2 <= size[0] and 0 <= b.y1 < b.y2 <= size[1] for _, b in objects
            )
        except VolitionError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            bad += 1
    assert bad > 200


def test_pictures_that_do_not_fit_or_cannot_be_read(tmp_path: Path) -> None:
    root = small_voc(tmp_path / "VOC2007", 2)
    found, path = voc.load(tmp_path), root / "JPEGImages/000000.jpg"
    good = path.read_bytes()
    picture(path, size=(61, 40))
    refused(found.pixels, 0, match=r"000000.jpg is 61×40, but its annotation says 60×40")
    for damage in (b"", b"not a picture", good[: len(good) // 2]):
        path.write_bytes(damage)
        refused(found.pixels, 0, match=r"000000.jpg cannot be read as a picture .*: fetch it again")
    path.unlink()
    refused(found.pixels, 0, match=r"000000.jpg is missing")
    assert found.pixels(1).shape == (3, 40, 60)


def test_own_classes_of_a_voc_folder(tmp_path: Path) -> None:
    root = small_voc(tmp_path)
    path = root / "Annotations/000000.xml"
    path.write_text(XML.replace("dog", "zebra"))
    assert voc.load(root, [("", "test")]).classes == ("person", "zebra")
    (root / "classes.txt").write_text("zebra\nbird\nperson\n")
    found = voc.load(root, [("", "")])
    assert found.classes == ("zebra", "bird", "person") and found.label.tolist() == [[0, 2]]
    (root / "classes.txt").write_text("zebra\n")
    refused(voc.load, root, [("", "test")], match=r"person is not in classes.txt")


def test_fractions_and_odd_names_survive_writing(tmp_path: Path) -> None:
    made = pack(
        "mine", ("a & b", "<c>"), ("x/1.png", "é"), [(50, 40)] * 2,
        [[Box(0.25, 1 / 3, 49.9, 40, 1, True, True)], [Box(3, 3, 4, 5, 0), Box(1, 2, 3, 4, 1)]], None,
    )  # fmt: skip
    voc.write(made, tmp_path, "train")
    back = voc.load(tmp_path, [("", "train")])
    for field in ("size", "label", "difficult", "truncated", "count"):
        assert torch.equal(getattr(back, field), getattr(made, field)), field
    assert torch.allclose(back.boxes, made.boxes, rtol=0, atol=1e-6)
    assert back.classes == made.classes and back.ids == ("x_1.png", "é") and not back.images
    refused(voc.write, pack("m", ("a",), ("x/1", "x_1"), [(5, 5)] * 2, [[], []], None), tmp_path, match="same name")
    refused(voc.write, made, tmp_path, "../x", match="should be a word")
    (tmp_path / "file").write_text("")
    refused(voc.write, made, tmp_path / "file", match="cannot write .*file")


# ---- COCO


def test_coco(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(COCO))
    found = coco.load(path)
    assert found.ids == ("a.png", "b.png") and found.classes == ("person", "brush")
    assert found.count.tolist() == [0, 2] and not found.images  # the box without width is left out
    assert found.boxes[1].tolist() == [[10, 5, 30, 35.5], [0, 0, 60, 40]]  # cut to the picture
    assert found.label.tolist() == [[-1, -1], [1, 0]] and found.difficult[1].tolist() == [False, True]
    refused(coco.load, path, tmp_path, match=r"a.png is missing")
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png", 9)
    assert coco.load(path, tmp_path).pixels(1)[0].unique().tolist() == [9]


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        ("images", None, "images should be a list of objects"),
        ("images", [3], "images should be a list"),
        ("images 0 width", 0, "width should be a whole number above 0 and is 0"),
        ("images 0 width", True, "width should be"),
        ("images 0 file_name", 5, "file_name should be text"),
        ("images 1 id", 7, "comes twice"),
        ("categories 0 id", "x", "id should be a whole number"),
        ("annotations 0 image_id", 99, "annotation 1 has the image_id 99"),
        ("annotations 0 image_id", [1], "image_id should be a whole number"),
        ("annotations 0 category_id", 99, "annotation 1 has the category_id 99"),
        ("annotations 0 bbox", [1, 2, 3], "bbox should be four numbers"),
        ("annotations 0 bbox", [1, 2, 3, "4"], "bbox should be four numbers"),
        ("annotations 0 bbox", [1, 2, 3, float("nan")], "bbox should be four numbers"),
        ("annotations 0 bbox", [100, 2, 3, 4], "annotation 1: the box .* lies outside"),
    ],
)
def test_coco_damage_is_named(tmp_path: Path, place: str, value: object, match: str) -> None:
    content = json.loads(json.dumps(COCO))
    *way, last = (int(word) if word.isdigit() else word for word in place.split())
    target = content
    for word in way:
        target = target[word]
    target[last] = value
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    refused(coco.load, path, match=f"boxes.json.*{match}")


def test_broken_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    refused(coco.load, path, match="boxes.json is missing")
    for text in ("", json.dumps(COCO)[:-9], "\x00", "[" * 100_000):
        path.write_text(text)
        refused(coco.load, path, match="boxes.json is not sound JSON")
    path.write_text("[]")
    refused(coco.load, path, match="boxes.json is not a COCO file")


# ---- CSV


def test_csv(tmp_path: Path) -> None:
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png", 9)
    path = tmp_path / "boxes.csv"
    path.write_text("\ufeff" + CSV, encoding="utf-8")  # as spreadsheets save it
    found = own.read(tmp_path)
    assert found.name == tmp_path.name and found.ids == ("a.png", "b.png") and found.classes == ("ant", "cat")
    assert found.boxes[0].tolist() == [[0, 0, 30, 40], [5, 6, 7.5, 8]] and found.label[0].tolist() == [1, 0]
    assert found.count.tolist() == [2, 0] and found.difficult[0].tolist() == [False, True]
    assert found.pixels(1)[0].unique().tolist() == [9]
    for text, match in (
        ("", "the first line lacks file, label"),
        (CSV.replace("x2", "w"), "the first line lacks x2"),
        (CSV.replace("30,40", "30,"), "line 2: a label and four numbers"),
        (CSV.replace("30,40", "30,forty"), "line 2: a label and four numbers"),
        (CSV.replace("cat", ""), "line 2: a label and four numbers"),
        (CSV.replace("5,6,7.5,8", "7.5,6,5,8"), "line 4: the box .* is empty"),
        (CSV.replace("5,6,7.5,8", ".5,.6,.7,.8"), "line 4: boxes are in pixels"),
        (CSV.replace("7.5,8,1", "7.5,8,yes"), "line 4: difficult is 0 or 1"),
        (CSV.replace("a.png,cat", ",cat"), "line 2: no file is named"),
    ):
        path.write_text(text)
        refused(own.read, tmp_path, match=f"boxes.csv.*{match}")
    path.write_text(CSV.replace("b.png", ""))  # a line of commas, as spreadsheets leave them
    assert own.read(tmp_path).ids == ("a.png",)
    path.write_text(CSV.replace("b.png", "c.png"))
    refused(own.read, tmp_path, match=r"c.png is missing")
    path.write_bytes(b"\xff\xfe\x00" + CSV.encode())
    refused(own.read, tmp_path, match="boxes.csv")
    path.write_text(CSV)
    (tmp_path / "a.png").write_bytes(b"no")
    refused(own.read, tmp_path, match=r"a.png cannot be read as a picture")


# ---- by name, splits


def test_every_fifth_is_the_test_unless_folders_or_sets_say_it(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    with ((picture(flat / "0.png").parent) / "boxes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(own.COLUMNS)
        for i in range(11):
            picture(flat / f"{i:02}.png", i)
            table.writerow([f"{i:02}.png", "dot", 1, 2, 3, 4 + i])
    train, test = (load(str(flat), split=split) for split in ("train", "test"))
    assert test.ids == ("04.png", "09.png") and len(train) == 9 and not set(train.ids) & set(test.ids)
    assert test.boxes[1, 0].tolist() == [1, 2, 3, 13] and test.pixels(1)[0].unique().tolist() == [9]
    held = load(str(flat), split="test", validation=3)
    assert held.ids == train.ids[-3:] and load(str(flat), validation=3).ids == train.ids[:-3]
    refused(lambda: load(str(flat), validation=9), match="leaves none to train on")

    both = tmp_path / "both"
    for split in ("train", "test"):
        (both / split).mkdir(parents=True)
        picture(both / split / "a.png"), picture(both / split / "b.png")
        (both / split / "boxes.json").write_text(json.dumps(COCO))
    assert len(load(str(both), split="test")) == 2

    root = small_voc(tmp_path / "voc", 6, part="train")
    (root / "ImageSets/Main/val.txt").write_text("000005\n")
    assert load(str(root), split="test").ids == ("000005",) and len(load(str(root))) == 6

    layout = tmp_path / "coco"
    (layout / "annotations").mkdir(parents=True)
    content = COCO | {"images": [{"id": i, "file_name": f"{i}.png", "width": 60, "height": 40} for i in range(8)]}
    (layout / "annotations/instances_val2017.json").write_text(json.dumps(content))
    for i in range(8):
        picture(layout / f"val2017/{i}.png", i)
    found = load(str(layout / "annotations/instances_val2017.json"), split="test")
    assert found.ids == ("4.png",) and found.pixels(0)[0].unique().tolist() == [4]


def test_load_refuses(tmp_path: Path) -> None:
    refused(load, "voc07", match="voc2007 is not there: volition data says how")
    refused(load, "voc07+12", tmp_path, match="voc2007 is not in")
    refused(load, str(tmp_path), match="holds no boxes that can be read: .* the names are scenes, voc07 and voc07")
    refused(load, "sceens", match="sceens holds no boxes")
    refused(load, "scenes", None, "val", match="there is no 'val'")
    small_voc(tmp_path / "VOC2007", part="trainval")
    refused(load, "voc07", tmp_path, match=r"only a part of voc2007: add VOC2007/ImageSets/Main/test.txt, or")


def test_scenes_by_name() -> None:
    assert load().name == "scenes of built-in digits" and len(load(count=7)) == 7
    held = load(count=7, split="test", validation=4)
    assert held.ids == load(count=11).ids[7:] and torch.equal(held.pixels(0), load(count=11).pixels(7))


def test_subset_keeps_all_fields_in_order() -> None:
    made = load(count=30)
    part = made.subset(torch.tensor([20, 3, 3]))
    assert part.ids == (made.ids[20], made.ids[3], made.ids[3])
    most = int(made.count[[20, 3]].max())
    assert part.boxes.shape == (3, most, 4) and torch.equal(part.boxes[0], made.boxes[20, :most])
    assert torch.equal(part.subset([1]).pixels(0), made.pixels(3)) and len(made.subset([])) == 0


@pytest.mark.skipif(not DATA or not catalog.find("voc2007", Path(DATA)), reason="no VOC2007 in $VOLITION_DATA")
def test_real_voc() -> None:
    found = load("voc07", Path(str(DATA)), "test")
    assert len(found) == 4952 and found.count.sum() == 14_976
    real = found.label >= 0
    assert (real & ~found.difficult).sum() == 12_032
    area = (found.boxes[..., 2:] - found.boxes[..., :2]).prod(-1)[real]
    assert (area > 2000).float().mean().item() == pytest.approx(0.81, abs=0.005)
    # the objects of each class that the challenge counts, from its development kit's tables
    person = found.classes.index("person")
    assert ((found.label == person) & ~found.difficult).sum() == 4528
    assert not catalog.wrong("voc2007", catalog.find("voc2007", Path(str(DATA))))
