"""Images for one that looks for a single class: which class, and which images show it."""

from dataclasses import replace

import torch

from volition.data.boxes import BoxedImages
from volition.errors import VolitionError


def wanted(label: str, images: BoxedImages) -> str:
    """The class `label`, or without a name the one that most images show."""
    if label and label not in images.classes:
        raise VolitionError(f"label {label!r} is no class of {images.name}: {', '.join(images.classes)}")
    shown = [(images.label == i).any(1).sum() for i in range(len(images.classes))]
    return label or images.classes[int(torch.stack(shown).argmax())]


def put_first(images: BoxedImages, label: str) -> BoxedImages:
    """The same with `label` as class 0, in the place of what was."""
    old, classes = images.classes.index(label), list(images.classes)
    classes[0], classes[old] = classes[old], classes[0]
    kind = torch.where(images.label == old, 0, torch.where(images.label == 0, old, images.label))
    return replace(images, classes=tuple(classes), label=kind)


def one_of_two(images: BoxedImages, label: str) -> BoxedImages:
    """The same with two classes, `label` and all others."""
    kind = torch.where(images.label == images.classes.index(label), 0, torch.where(images.label < 0, -1, 1))
    return replace(images, classes=(label, "other"), label=kind)


def split_by(images: BoxedImages, label: str) -> BoxedImages:
    """The images that show the class, in which episodes are, and as many that do not."""
    shown = (images.label == images.classes.index(label)).any(1)
    barren = (~shown).nonzero()[: int(shown.sum()), 0]
    return one_of_two(images, label).subset(torch.cat([shown.nonzero()[:, 0], barren]))
