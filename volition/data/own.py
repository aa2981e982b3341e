"""A user's own pictures with boxes: a folder in one of three forms, or a COCO file."""

import csv
import math
from pathlib import Path

from volition.data import coco, voc
from volition.data.boxes import Box, BoxedImages, clip, open_picture, pack, reader
from volition.errors import VolitionError

COLUMNS = ("file", "label", "x1", "y1", "x2", "y2")


def load(path: Path, split: str) -> BoxedImages:
    """The train or test pictures of a folder or a COCO file, which says what is for the test as `boxes.load` tells."""
    if path.is_dir() and (path / split).is_dir():
        return read(path / split)
    if path.is_dir() and (part := _image_set(path, split)):
        return voc.load(path, (("", part),))
    whole = read(path)
    if len(whole) < 5:
        raise VolitionError(f"{path} holds {len(whole)} pictures: at least five are needed, one of them for the test")
    return whole.subset([i for i in range(len(whole)) if (i % 5 == 4) == (split == "test")])


def read(path: Path) -> BoxedImages:
    """All pictures of a folder, or of a COCO file."""
    if path.is_file() and path.suffix == ".json":
        # COCO's own layout: annotations/instances_val2017.json names pictures of val2017
        beside = path.parent.parent / path.stem.removeprefix("instances_")
        return coco.load(path, beside if path.parent.name == "annotations" and beside.is_dir() else path.parent)
    if (path / "boxes.csv").is_file():
        return read_csv(path / "boxes.csv")
    if (path / "boxes.json").is_file():
        return coco.load(path / "boxes.json", path, path.name)
    if (path / "Annotations").is_dir():
        return voc.load(path, (("", ""),))
    raise VolitionError(
        f"{path} holds no boxes that can be read: a folder with boxes.csv, boxes.json or Annotations, "
        "or a COCO .json, is needed; the names are scenes, voc07 and voc07+12"
    )


def read_csv(path: Path) -> BoxedImages:
    """Pictures beside a table with a row for each object: file, label, x1, y1, x2, y2 in pixels, perhaps difficult.

    x2 and y2 lie just outside the object. A row with nothing but a file is a picture without objects.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise VolitionError(f"{path} cannot be read ({error}): save it as CSV in UTF-8") from None
    head = [word.strip().lower() for word in rows[0]] if rows else []
    if missing := [name for name in COLUMNS if name not in head]:
        raise VolitionError(f"{path}: the first line lacks {', '.join(missing)}; it should be {','.join(COLUMNS)}")
    objects: dict[str, list[tuple[str, Box]]] = {}
    size: dict[str, tuple[int, int]] = {}
    for line, values in enumerate(rows[1:], 2):
        row = dict(zip(head, (value.strip() for value in values), strict=False))
        file = row.get("file", "")
        if not any(values):
            continue
        if not file:
            raise VolitionError(f"{path}, line {line}: no file is named: every row needs one")
        if file not in size:
            with open_picture(path.parent / file) as picture:
                size[file], objects[file] = picture.size, []
        if not any(row.get(name) for name in COLUMNS[1:]):
            continue
        x1, y1, x2, y2 = (_number(row.get(name, "")) for name in COLUMNS[2:])
        if not row.get("label") or not math.isfinite(x1 + y1 + x2 + y2):
            raise VolitionError(f"{path}, line {line}: a label and four numbers are needed, not {','.join(values)}")
        if row.get("difficult", "") not in ("", "0", "1"):
            raise VolitionError(f"{path}, line {line}: difficult is 0 or 1, not {row['difficult']}")
        if max(x1, y1, x2, y2) <= 1 < min(size[file]):
            raise VolitionError(f"{path}, line {line}: boxes are in pixels, not parts of the picture: multiply them")
        found = Box(x1, y1, x2, y2, -1, row.get("difficult") == "1")
        objects[file].append((row["label"], clip(found, *size[file], f"{path}, line {line}")))
    names = sorted({label for found in objects.values() for label, _ in found})
    ids = sorted(objects)
    boxes = [[box._replace(label=names.index(label)) for label, box in objects[file]] for file in ids]
    sizes = [size[file] for file in ids]
    return pack(path.parent.name, names, ids, sizes, boxes, reader([path.parent / file for file in ids], sizes))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _image_set(path: Path, split: str) -> str:
    """The image set of a VOC folder that serves as `split`; none without image sets, which is ""."""
    for name in ("trainval", "train") if split == "train" else ("test", "val"):
        if (path / "ImageSets/Main" / f"{name}.txt").is_file() and (path / "Annotations").is_dir():
            return name
    return ""
