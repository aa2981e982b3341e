"""Pictures with boxes around their objects: one type for generated scenes, PASCAL VOC, COCO and a user's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from volition.errors import VolitionError

VOC = {  # by name: the image sets to train with and to test on that papers use
    "voc07": ((("2007", "trainval"),), (("2007", "test"),)),
    "voc07+12": ((("2007", "trainval"), ("2012", "trainval")), (("2007", "test"),)),
}
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Box(NamedTuple):
    """One object: pixels from x1, y1 to x2, y2, which lie outside; its class; hard to see; not wholly in view."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: int
    difficult: bool = False
    truncated: bool = False


@dataclass(frozen=True, eq=False)
class BoxedImages:
    """N pictures with at most M objects each; `boxes` are padded with zeros, `label` with −1.

    `pixels(i)` makes or reads a picture anew at each call. `read` is None where only annotations are at hand.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    size: Tensor  # [N, 2] int64: width, height
    boxes: Tensor  # [N, M, 4] float32: x1, y1, x2, y2
    label: Tensor  # [N, M] int64
    difficult: Tensor  # [N, M] bool
    truncated: Tensor  # [N, M] bool
    count: Tensor  # [N] int64: objects of each picture
    read: Callable[[int], Tensor] | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def images(self) -> bool:
        """Whether there are pictures, not only annotations."""
        return self.read is not None

    def pixels(self, index: int) -> Tensor:
        """The picture `index` `[3, H, W]` uint8."""
        if self.read is None:
            raise VolitionError(f"{self.name} holds annotations without pictures: nothing can look at it")
        return self.read(int(index))

    def subset(self, index: Sequence[int] | Tensor) -> "BoxedImages":
        """The pictures `index` only, in that order."""
        at, read = torch.as_tensor(index, dtype=torch.int64), self.read
        count = self.count[at]
        most = int(count.max()) if len(at) else 0
        numbers = at.tolist()
        return BoxedImages(
            self.name, self.classes, tuple(self.ids[i] for i in numbers), self.size[at],
            self.boxes[at, :most], self.label[at, :most], self.difficult[at, :most], self.truncated[at, :most], count,
            None if read is None else lambda i: read(numbers[i]),
        )  # fmt: skip


def pack(
    name: str,
    classes: Sequence[str],
    ids: Sequence[str],
    size: Sequence[tuple[int, int]],
    objects: Sequence[Sequence[Box]],
    read: Callable[[int], Tensor] | None,
) -> BoxedImages:
    """Lists of boxes, one for each picture, as one `BoxedImages`."""
    if not ids:
        raise VolitionError(f"{name} holds no pictures")
    count = torch.tensor([len(found) for found in objects])
    table = np.zeros((len(ids), max(int(count.max()), 1), 7))
    table[:, :, 4] = -1
    for i, found in enumerate(objects):
        if found:
            table[i, : len(found)] = found
    numbers = torch.from_numpy(table)
    return BoxedImages(
        name, tuple(classes), tuple(ids), torch.tensor(size), numbers[..., :4].float(), numbers[..., 4].long(),
        numbers[..., 5].bool(), numbers[..., 6].bool(), count, read,
    )  # fmt: skip


def clip(box: Box, width: int, height: int, where: str) -> Box:
    """The part of a box that lies in the picture; boxes may reach a little over its border, as rounding makes them."""
    x1, y1, x2, y2 = box[:4]
    if x2 <= x1 or y2 <= y1:
        raise VolitionError(f"{where}: the box {x1:g}, {y1:g}, {x2:g}, {y2:g} is empty: x2 > x1 and y2 > y1 are needed")
    cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise VolitionError(
            f"{where}: the box {x1:g}, {y1:g}, {x2:g}, {y2:g} lies outside its picture of {width}×{height}"
        )
    return Box(*cut, *box[4:])


def open_picture(path: Path) -> Image.Image:
    """A picture file; its header only, until its pixels are asked for."""
    try:
        return Image.open(path)
    except Exception as error:  # Pillow complains of damage in many ways
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> VolitionError:
    """What to say of a picture that cannot be opened or decoded."""
    if isinstance(error, FileNotFoundError):
        return VolitionError(f"{path} is missing: put the picture there, or take it out of the annotations")
    return VolitionError(f"{path} cannot be read as a picture ({' '.join(str(error).split())}): fetch it again")


def reader(paths: Sequence[Path], size: Sequence[tuple[int, int]]) -> Callable[[int], Tensor]:
    """The function that reads picture i of `paths`, whose width and height must be as annotated."""

    def read(index: int) -> Tensor:
        path, wanted = paths[index], tuple(size[index])
        with open_picture(path) as picture:
            if picture.size != wanted:
                found = "×".join(map(str, picture.size))
                raise VolitionError(
                    f"{path} is {found}, but its annotation says {wanted[0]}×{wanted[1]}: boxes would not fit it"
                )
            try:
                pixels = np.array(picture.convert("RGB"))
            except Exception as error:
                raise unreadable(path, error) from None
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    return read


def load(
    source: str = "scenes",
    folder: Path | None = None,
    split: str = "train",
    count: int = 0,
    seed: int = 0,
    validation: int = 0,
) -> BoxedImages:
    """The first `count` train or test pictures that `source` names, 0 for all; `folder` is the data folder.

    "scenes" are generated with `seed`, 1,000 of them where `count` is 0; "voc07" and "voc07+12" are looked for in
    `folder`; anything else is a path: of a COCO file, or of a folder with boxes.csv (file, label, x1, y1, x2, y2,
    perhaps difficult), with boxes.json in COCO's form, or in VOC's form. Such a folder may hold folders train and test,
    each in one of these forms; else, unless VOC's image sets say it, every fifth picture is for the test. With
    `validation` the last so many train pictures take the place of the test set, which stays unseen: for tuning.
    """
    from volition.data import own, scenes  # which build on this module

    if split not in ("train", "test"):
        raise VolitionError(f"pictures are split into train and test; there is no {split!r}")
    if validation:
        whole = load(source, folder, "train", count and count + validation, seed)
        keep = len(whole) - validation
        if validation < 0 or keep < 1:
            raise VolitionError(f"validation = {validation} of {len(whole)} train pictures leaves none to train on")
        return whole.subset(range(keep) if split == "train" else range(keep, len(whole)))
    if source == "scenes":
        return scenes.generate(split, count or 1000, seed, folder)
    found = _pascal(source, folder, split) if source in VOC else own.load(Path(source), split)
    return found.subset(range(count)) if 0 < count < len(found) else found


def _pascal(source: str, folder: Path | None, split: str) -> BoxedImages:
    """The image sets of VOC that `source` stands for, which lie in one folder."""
    from volition.data import catalog, voc

    sets = VOC[source][split == "test"]
    roots = []
    for name in (f"voc{year}" for year, _ in sets):
        if not (found := catalog.find(name, folder)):
            raise VolitionError(f"{name} is not {f'in {folder}' if folder else 'there'}: volition data says how")
        roots.append(next(iter(found.values())).parents[3])
    if len(set(roots)) > 1:
        raise VolitionError(f"VOC2007 and VOC2012 lie in different folders: put both in {roots[0]}")
    return voc.load(roots[0], sets)
