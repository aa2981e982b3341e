"""Readers of labelled images: right on good files, one clear error on every damaged one."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from volition.data import catalog
from volition.data.images import MNIST_FILES, builtin_digits, load, read_idx, read_npz
from volition.errors import VolitionError

DATA = os.environ.get("VOLITION_DATA")  # read before conftest hides it from the other tests


def idx(array: np.ndarray) -> bytes:
    """The idx form of a uint8 array, by its definition."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def small_mnist(folder: Path, zipped: bool = True) -> Path:
    """A folder like MNIST's with 30 train and 20 test images of 28×28."""
    random = np.random.default_rng(0)
    where = folder / "mnist"
    where.mkdir(parents=True)
    for name, count in zip(MNIST_FILES, (30, 30, 20, 20), strict=True):
        shape, top = ((count, 28, 28), 256) if "images" in name else ((count,), 10)
        data = idx(random.integers(top, size=shape, dtype=np.uint8))
        if zipped:
            (where / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
        else:
            (where / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("zipped", [True, False])
def test_mnist_folder_round_trip(tmp_path: Path, zipped: bool) -> None:
    images = load(folder=small_mnist(tmp_path, zipped))
    random = np.random.default_rng(0)
    assert images.name == "mnist, not MNIST"  # the files' digests tell: papers' figures are not for these
    assert images.train_images.shape == (30, 28, 28) and images.test_labels.shape == (20,)
    expected = random.integers(256, size=(30, 28, 28), dtype=np.uint8)
    assert torch.equal(images.train_images, torch.from_numpy(expected))


def test_validation_takes_the_place_of_the_test_set(tmp_path: Path) -> None:
    folder = small_mnist(tmp_path)
    whole, part = load(folder=folder), load(folder=folder, validation=10)
    assert torch.equal(part.test_images, whole.train_images[-10:])
    assert torch.equal(part.train_images, whole.train_images[:-10])
    assert part.name != whole.name  # so that it never stands beside a paper's figure
    with pytest.raises(VolitionError, match="leaves none to train on"):
        load(folder=folder, validation=30)


@pytest.mark.skipif(not DATA or not catalog.find("mnist", Path(DATA)), reason="no MNIST in $VOLITION_DATA")
def test_real_mnist() -> None:
    images = load(folder=Path(str(DATA)))
    assert images.name == "MNIST"
    assert images.train_images.shape == (60_000, 28, 28) and images.test_images.shape == (10_000, 28, 28)
    assert images.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # the well-known first ten
    assert images.test_labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_builtin_digits_are_centred_and_split_by_writer_order() -> None:
    images = builtin_digits()
    assert images.train_images.shape == (1297, 28, 28) and images.test_images.shape == (500, 28, 28)
    assert images.classes == 10 and images.train_images.dtype == torch.uint8
    border = images.train_images.clone()
    border[:, 4:24, 4:24] = 0
    assert not border.any() and images.train_images.float().mean() > 10


def test_idx_damage_is_named(tmp_path: Path) -> None:
    good = idx(np.arange(60, dtype=np.uint8).reshape(5, 3, 4))
    path = tmp_path / "images"

    def refused(data: bytes, match: str) -> None:
        path.write_bytes(data)
        with pytest.raises(VolitionError, match=match):
            read_idx(path)

    path.write_bytes(good)
    assert read_idx(path).tolist() == np.arange(60).reshape(5, 3, 4).tolist()
    refused(b"", "not an idx file")
    refused(b"\x89PNG" + good, "not an idx file")
    refused(good[:3] + b"\x09" + good[4:], "rank 9")
    refused(good[:2] + b"\x0d" + good[3:], "type 0x0d")
    refused(good[:9], "header is damaged")
    refused(good[:-1], "holds 59")
    refused(good + b"\0", "holds more")
    refused(good[:4] + b"\x7f" + good[5:], r"holds 60|header is damaged")  # a size of two thousand million
    refused(gzip.compress(good)[:-5], "cannot be read")


def test_idx_fuzz(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    array = random.integers(256, size=(9, 6, 5), dtype=np.uint8)
    forms = [idx(array), gzip.compress(idx(array), mtime=0)]
    path, refused = tmp_path / "fuzzed", 0
    for case in range(600):
        data = bytearray(forms[case % 2])
        if case % 3:
            for bit in random.integers(8 * len(data), size=random.integers(1, 4)):
                data[bit // 8] ^= 1 << (bit % 8)
        else:
            data = data[: random.integers(len(data))]
        path.write_bytes(data)
        try:
            found = read_idx(path)
            assert found.dtype == np.uint8 and found.size <= len(data) * 1032  # deflate's limit: nothing made up
        except VolitionError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 300


def test_own_npz(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    x, y = np.zeros((6, 10, 12), np.uint8), np.array([0, 1, 2, 0, 1, 2])
    np.savez(path, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    images = read_npz(path)
    assert images.name == "mine" and images.classes == 3 and images.train_images.shape == (6, 10, 12)
    for change, match in (
        ({"x_train": x.astype(np.float32)}, "must be uint8"),
        ({"y_train": y[:5]}, "6 train images but 5 labels"),
        ({"y_test": np.array([0, -1])}, "labels reach from -1"),
        ({"x_test": np.zeros((2, 9, 12), np.uint8)}, "test images are"),
    ):
        np.savez(path, **(dict(x_train=x, y_train=y, x_test=x[:2], y_test=y[:2]) | change))
        with pytest.raises(VolitionError, match=match):
            read_npz(path)
    np.savez(path, x_train=x)
    with pytest.raises(VolitionError, match="lacks x_test, y_test, y_train"):
        read_npz(path)


def test_npz_fuzz_and_no_pickle(tmp_path: Path) -> None:
    random, path = np.random.default_rng(2), tmp_path / "fuzzed.npz"
    x, y = random.integers(256, size=(6, 5, 5), dtype=np.uint8), np.arange(6)
    np.savez_compressed(path, x_train=x, y_train=y, x_test=x, y_test=y)
    good = path.read_bytes()
    for case in range(400):
        data = bytearray(good)
        if case % 3:
            for bit in random.integers(8 * len(data), size=random.integers(1, 4)):
                data[bit // 8] ^= 1 << (bit % 8)
        else:
            data = data[: random.integers(len(data))]
        path.write_bytes(data)
        try:
            read_npz(path)
        except VolitionError as error:
            assert "\n" not in str(error)
    path.write_bytes(b"")
    np.save(tmp_path / "single.npy", x)
    with pytest.raises(VolitionError, match="single array"):
        read_npz(tmp_path / "single.npy")
    np.savez(path, x_train=np.array([object()]), y_train=y, x_test=x, y_test=y)
    with pytest.raises(VolitionError, match=r"pickle|Object"):
        read_npz(path)
