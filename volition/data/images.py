"""Labelled grey images: MNIST's idx files, a user's own .npz, or scikit-learn's digits when there is neither."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from volition.data import catalog
from volition.errors import VolitionError

IDX_TYPES = {0x08: np.uint8}  # the only element type of the MNIST family; others are refused by name
MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class LabelledImages:
    """Train and test images `[N, H, W]` uint8 with labels `[N]` int64 in 0 … classes − 1."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int


def load(source: str = "digits", folder: Path | None = None, validation: int = 0) -> LabelledImages:
    """The images that `source` names: a path to an .npz file, or "digits" = MNIST in `folder`, else the built-in ones.

    With `validation` the last so many train images take the place of the test set, which stays unseen: for tuning.
    """
    if source != "digits":
        images = read_npz(Path(source))
    else:
        files = catalog.find("mnist", folder)
        images = read_mnist(files) if files else builtin_digits()
    if not validation:
        return images
    if not 0 < validation < len(images.train_labels):
        raise VolitionError(
            f"validation = {validation} of {len(images.train_labels)} train images leaves none to train on"
        )
    x, y = images.train_images, images.train_labels
    return LabelledImages(
        f"{images.name}, {validation} train images held out",
        x[:-validation], y[:-validation], x[-validation:], y[-validation:], images.classes,
    )  # fmt: skip


def read_mnist(files: dict[str, Path]) -> LabelledImages:
    """MNIST, or a set in its format, from its four idx files (LeCun et al. 1998), each plain or gzipped."""
    train_images, train_labels, test_images, test_labels = (read_idx(files[name]) for name in MNIST_FILES)
    where = files[MNIST_FILES[0]].parent
    # other sets come in the same files: only the published digests are MNIST, whose figures papers report
    name = f"{where.name}, not MNIST" if catalog.wrong("mnist", files) else "MNIST"
    return _checked(name, where, train_images, train_labels, test_images, test_labels)


def read_idx(path: Path) -> np.ndarray:
    """One idx file: 0, 0, type, rank, then rank big-endian int32 sizes, then the values; gzipped if it starts so."""
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else open(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0":
                raise VolitionError(
                    f"{path} is not an idx file: it begins with {head.hex(' ') or 'nothing'}, not 00 00"
                )
            if head[2] not in IDX_TYPES or not 1 <= head[3] <= 3:
                raise VolitionError(f"{path}: idx type {head[2]:#04x} of rank {head[3]} is not bytes of rank 1 to 3")
            sizes = file.read(4 * head[3])
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
            count = int(np.prod(shape, dtype=object))
            if len(sizes) < 4 * head[3] or not 0 < count < 2**33:
                raise VolitionError(f"{path}: the idx header is damaged (shape {shape}); fetch the file again")
            # Read in pieces: a damaged header must not make us ask for gigabytes before the data run out.
            pieces, left = [], count + 1
            while left > 0 and (piece := file.read(min(left, 1 << 24))):
                pieces.append(piece)
                left -= len(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise VolitionError(f"{path} cannot be read: {error}; fetch the file again") from error
    found = count + 1 - left
    if found != count:
        more = "more" if found > count else found
        raise VolitionError(f"{path}: the header promises {count} values of shape {shape}, the file holds {more}")
    return np.frombuffer(b"".join(pieces), np.uint8).reshape(shape)


def read_npz(path: Path) -> LabelledImages:
    """A user's own images: .npz with uint8 x_train, x_test `[N, H, W]` and integer y_train, y_test `[N]`."""
    wanted = ("x_train", "y_train", "x_test", "y_test")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            missing = sorted(set(wanted) - set(archive.files))
            if missing:
                raise VolitionError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(archive.files)}")
            arrays = [archive[key] for key in wanted]
    except VolitionError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each complain of damage in many ways
        raise VolitionError(f"{path} cannot be read as .npz: {' '.join(str(error).split())}") from None
    return _checked(path.stem, path, *arrays)


def builtin_digits() -> LabelledImages:
    """Real handwriting without a download: scikit-learn's 1,797 digits of 8×8 in the form of MNIST.

    Each is enlarged to 20×20 and centred in 28×28 as MNIST's are. The last 500 are the test set: the digits come in
    the order of their writers, so most of those were written by people whom training never sees.
    """
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    pixels, labels = digits.data, digits.target
    images = torch.from_numpy(pixels).view(-1, 1, 8, 8).float() * (255 / 16)
    images = torch.nn.functional.interpolate(images, size=20, mode="bicubic", align_corners=False)
    images = torch.nn.functional.pad(images.round().clamp(0, 255), (4, 4, 4, 4))[:, 0].to(torch.uint8).numpy()
    return _checked("built-in digits", Path("sklearn"), images[:-500], labels[:-500], images[-500:], labels[-500:])


def _checked(
    name: str, where: Path, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> LabelledImages:
    splits = ((x_train, y_train), (x_test, y_test))
    for split, (x, y) in zip(("train", "test"), splits, strict=True):
        if x.dtype != np.uint8 or x.ndim != 3 or not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
            raise VolitionError(
                f"{where}: {split} images must be uint8 [N, H, W] and labels integers [N]; "
                f"found {x.dtype} {list(x.shape)} and {y.dtype} {list(y.shape)}"
            )
        if len(x) != len(y) or not len(x):
            raise VolitionError(f"{where}: {len(x)} {split} images but {len(y)} labels")
        if x.shape[1:] != x_train.shape[1:]:
            raise VolitionError(f"{where}: test images are {x.shape[1:]}, train images {x_train.shape[1:]}")
        if y.min() < 0 or y.max() > 999:
            raise VolitionError(f"{where}: {split} labels reach from {y.min()} to {y.max()}; they must lie in 0 … 999")
    classes = int(max(y_train.max(), y_test.max())) + 1
    train, test = ((torch.from_numpy(x.copy()), torch.from_numpy(y.astype(np.int64))) for x, y in splits)
    return LabelledImages(name, *train, *test, classes)
