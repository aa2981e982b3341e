"""Boxes in COCO's JSON: images, annotations with bbox = x, y, width, height, and categories."""

import json
import math
from pathlib import Path
from typing import Any

from volition.data.boxes import Box, BoxedImages, clip, pack, reader
from volition.errors import VolitionError


def load(path: Path, pictures: Path | None = None, name: str = "") -> BoxedImages:
    """The boxes of a COCO file and the pictures that it names, in the folder `pictures` (None: annotations only).

    Classes come in the order of their category numbers. Crowds count as difficult, as COCO's own evaluation neither
    asks for nor punishes them; the few boxes of zero width or height that COCO holds are left out.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise VolitionError(f"{path} is missing: give the path of a COCO .json file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise VolitionError(f"{path} is not sound JSON ({' '.join(str(error).split())}): fetch it again") from None
    if not isinstance(content, dict):
        raise VolitionError(f"{path} is not a COCO file: it should hold images, annotations and categories")
    entries = {key: content.get(key) for key in ("images", "annotations", "categories")}
    for key, rows in entries.items():
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise VolitionError(f"{path} is not a COCO file: {key} should be a list of objects in braces")
    images: list[dict[str, Any]] = entries["images"] or []
    categories = sorted((_get(path, c, "id", int), _get(path, c, "name", str)) for c in entries["categories"] or [])
    label = {number: i for i, (number, _) in enumerate(categories)}
    ids = [_get(path, image, "file_name", str) for image in images]
    size = [(_get(path, image, "width", int), _get(path, image, "height", int)) for image in images]
    place = {_get(path, image, "id", int): i for i, image in enumerate(images)}
    if len(place) < len(images) or len(label) < len(categories):
        raise VolitionError(f"{path}: an id of images or categories comes twice: give each its own")
    objects: list[list[Box]] = [[] for _ in ids]
    for row in entries["annotations"] or []:
        where = f"{path}: annotation {row.get('id')}"
        image, category = place.get(_get(path, row, "image_id", int)), label.get(_get(path, row, "category_id", int))
        box = row.get("bbox")
        if image is None or category is None:
            lost = "image_id" if image is None else "category_id"
            raise VolitionError(f"{where} has the {lost} {row.get(lost)}, which {path.name} does not hold: mend it")
        if (
            not isinstance(box, list)
            or len(box) != 4
            or not all(isinstance(v, int | float) and math.isfinite(v) for v in box)
        ):
            raise VolitionError(f"{where}: bbox should be four numbers, x, y, width and height, and is {box}")
        x, y, wide, tall = box
        if wide > 0 and tall > 0:
            found = Box(x, y, x + wide, y + tall, category, bool(row.get("iscrowd", 0)))
            objects[image].append(clip(found, *size[image], where))
    read = None
    if pictures is not None:
        files = [pictures / file for file in ids]
        if missing := next((file for file in files if not file.is_file()), None):
            raise VolitionError(f"{missing} is missing: put the picture there, or take it out of {path}")
        read = reader(files, size)
    return pack(name or path.stem, [title for _, title in categories], ids, size, objects, read)


def _get(path: Path, row: dict[str, Any], key: str, kind: type) -> Any:
    value = row.get(key)
    if not isinstance(value, kind) or isinstance(value, bool) or (key in ("width", "height") and value < 1):
        what = "a whole number above 0" if key in ("width", "height") else "text" if kind is str else "a whole number"
        raise VolitionError(f"{path}: {key} should be {what} and is {value!r}, in {str(row)[:80]}")
    return value
