"""PASCAL VOC folders: Annotations/*.xml, ImageSets/Main/*.txt, JPEGImages; read, and written from any boxes."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from volition.data.boxes import PICTURES, Box, BoxedImages, clip, pack, reader
from volition.errors import VolitionError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
Named = tuple[str, Box]


def load(folder: Path, sets: Sequence[tuple[str, str]] = (("2007", "test"),), name: str = "") -> BoxedImages:
    """The pictures of some image sets, each (year, set): VOC2007/ImageSets/Main/test.txt below `folder` is the default.

    A year "" is `folder` itself, a set "" all that is annotated. The classes are those of classes.txt, one a line,
    where there is one, else VOC's twenty if they suffice, else the names found, in order of the alphabet. Without
    JPEGImages there are annotations only. VOC's boxes count from 1 and include their last pixel; ours do not.
    """
    ids, size, objects, paths = [], [], [], []
    for year, part in sets:
        root = folder / f"VOC{year}" if year else folder
        here = _ids(root, part)
        pictures = _pictures(root)
        for number in here:
            wide_tall, found = read_xml(root / "Annotations" / f"{number}.xml")
            size.append(wide_tall)
            objects.append(found)
            if pictures:
                if number not in pictures:
                    raise VolitionError(f"{root / 'JPEGImages' / number}.jpg is missing: put the picture there")
                paths.append(pictures[number])
        ids += here
    if paths and len(paths) < len(ids):
        raise VolitionError(f"{folder}: pictures for only some of its sets: fill JPEGImages of each year, or of none")
    names = _classes([folder / f"VOC{year}" if year else folder for year, _ in sets], objects)
    number = {label: i for i, label in enumerate(names)}
    boxes = []
    for image, found in zip(ids, objects, strict=True):
        if unknown := {label for label, _ in found} - number.keys():
            raise VolitionError(f"{image}.xml: {sorted(unknown)[0]} is not in classes.txt of {folder}: add it there")
        boxes.append([box._replace(label=number[label]) for label, box in found])
    title = name or ", ".join(f"{folder.name if not year else f'VOC{year}'} {part}".strip() for year, part in sets)
    return pack(title, names, ids, size, boxes, reader(paths, size) if paths else None)


def read_xml(path: Path) -> tuple[tuple[int, int], list[Named]]:
    """One annotation: the picture's width and height, and its objects by name."""
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise VolitionError(f"{path} is missing: put the annotation there, or take it out of the image set") from None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise VolitionError(f"{path} is not sound XML ({' '.join(str(error).split())}): fetch it again") from None

    def number(element: ElementTree.Element, tag: str, default: float | None = None) -> float:
        text = element.findtext(tag)
        if text is None and default is not None:
            return default
        try:
            value = float(text or "")
        except ValueError:
            value = float("nan")
        if not abs(value) < 1e6:
            raise VolitionError(f"{path}: <{tag}> of <{element.tag}> should be a number and is {text!r}: mend it")
        return value

    width, height = int(number(root, "size/width")), int(number(root, "size/height"))
    if width < 1 or height < 1:
        raise VolitionError(f"{path}: <size> says {width}×{height}: write the picture's true width and height there")
    objects = []
    for found in root.findall("object"):
        name, bounds = (found.findtext("name") or "").strip(), found.find("bndbox")
        if not name or bounds is None:
            raise VolitionError(f"{path}: an <object> lacks its {'<bndbox>' if name else '<name>'}: add it")
        x1, y1, x2, y2 = (number(bounds, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
        flags = (number(found, tag, 0.0) > 0 for tag in ("difficult", "truncated"))
        objects.append((name, clip(Box(x1 - 1, y1 - 1, x2, y2, -1, *flags), width, height, str(path))))
    return (width, height), objects


def write(images: BoxedImages, folder: Path, part: str = "train") -> None:
    """Write pictures and boxes as a VOC folder, image set `part`; `load(folder, (("", part),))` reads it back.

    Pictures become JPEG of quality 95, so their pixels change a little; boxes, classes and flags stay exact.
    """
    if not re.fullmatch(r"\w+", part):
        raise VolitionError(f"the image set {part!r} should be a word, as train or test are")
    names = [image.replace("/", "_") for image in images.ids]
    if len(set(names)) < len(names):
        raise VolitionError(f"{images.name}: two pictures have the same name, so one would take the other's place")
    try:
        _write(images, names, folder, part)
    except OSError as error:
        raise VolitionError(f"cannot write {error.filename or folder} ({error.strerror}): mend it") from None


def _write(images: BoxedImages, names: list[str], folder: Path, part: str) -> None:
    for place in ("Annotations", "ImageSets/Main", "JPEGImages")[: 3 if images.images else 2]:
        (folder / place).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        tree = ElementTree.ElementTree(_annotation(images, i, f"{name}.jpg"))
        ElementTree.indent(tree)
        tree.write(folder / "Annotations" / f"{name}.xml", encoding="utf-8")
        if images.images:
            picture = Image.fromarray(images.pixels(i).permute(1, 2, 0).numpy())
            picture.save(folder / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)
    (folder / "ImageSets/Main" / f"{part}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    (folder / "classes.txt").write_text("".join(f"{label}\n" for label in images.classes), encoding="utf-8")


def _annotation(images: BoxedImages, index: int, file: str) -> ElementTree.Element:
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
        child = ElementTree.SubElement(parent, tag)
        child.text = None if text is None else str(text)
        return child

    add(root, "filename", file)
    size = add(root, "size")
    width, height = images.size[index].tolist()
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        add(size, tag, value)
    for j in range(int(images.count[index])):
        found = add(root, "object")
        add(found, "name", images.classes[int(images.label[index, j])])
        add(found, "truncated", int(images.truncated[index, j]))
        add(found, "difficult", int(images.difficult[index, j]))
        bounds = add(found, "bndbox")
        x1, y1, x2, y2 = images.boxes[index, j].double().tolist()
        for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            add(bounds, tag, int(value) if value == int(value) else value)
    return root


def _ids(root: Path, part: str) -> list[str]:
    """The pictures of an image set; all that is annotated for ""."""
    if not part:
        found = sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
        if not found:
            raise VolitionError(f"{root / 'Annotations'} holds no .xml: put VOC annotations there")
        return found
    path = root / "ImageSets/Main" / f"{part}.txt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        there = sorted(p.stem for p in path.parent.glob("*.txt") if "_" not in p.stem)
        raise VolitionError(f"{path} is missing; sets that are there: {', '.join(there) or 'none'}") from None
    except (OSError, ValueError) as error:
        raise VolitionError(f"{path} cannot be read ({error}): fetch it again") from None
    found = [words[0] for line in lines if (words := line.split())]
    if not found:
        raise VolitionError(f"{path} names no pictures: one a line is needed")
    return found


def _pictures(root: Path) -> dict[str, Path]:
    folder = root / "JPEGImages"
    return {p.stem: p for p in folder.iterdir() if p.suffix.lower() in PICTURES} if folder.is_dir() else {}


def _classes(roots: list[Path], objects: list[list[Named]]) -> tuple[str, ...]:
    for root in roots:
        if (path := root / "classes.txt").is_file():
            try:
                lines = path.read_text(encoding="utf-8").split("\n")
            except (OSError, ValueError) as error:
                raise VolitionError(f"{path} cannot be read ({error}): one class a line is needed") from None
            return tuple(dict.fromkeys(name for line in lines if (name := line.strip())))
    found = {name for each in objects for name, _ in each}
    return CLASSES if found <= set(CLASSES) else tuple(sorted(found))
