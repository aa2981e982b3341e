"""Checkpoint files: written whole or not at all, named by their digest, loaded without pickle."""

import contextlib
import hashlib
import os
import random
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch

from volition import distributed
from volition.errors import VolitionError

FORMAT = 1
KEEP = 2
NAME = re.compile(r"step-(\d{9,})-([0-9a-f]{16})\.pt")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "settings": dict,
    "step": int,
    "finished": int,
    "objects": dict,
    "random": dict,
    "metrics": dict,
    "cpu_seconds": float,
    "wall_seconds": float,
}


class Damaged(Exception):
    """A checkpoint file that cannot be what was written; the message is the reason."""


class _Hashed:
    """A file that digests what passes through it and remembers the first error, which torch.save hides."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def plain(value: Any, where: str) -> Any:
    """The same value made only of what `weights_only` loads; ValueError names the first thing that is not."""
    if value is None or type(value) in (bool, int, float, str):  # exact: np.float64 is a float, yet pickled
        return value
    if isinstance(value, torch.Tensor):
        value = distributed.whole(value.detach())
        # a view would drag its whole storage into the file
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if isinstance(value, dict):
        items = OrderedDict((plain(k, where), plain(v, f"{where}[{k!r}]")) for k, v in value.items())
        if hasattr(value, "_metadata"):  # nn.Module's own versions of its layers
            items.__dict__["_metadata"] = value._metadata
            return items
        return dict(items)
    if type(value) in (list, tuple):
        return type(value)(plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise ValueError(f"{where} is a {kind}; state_dict() may hold only tensors, numbers, strings, lists and dicts")


def write(path: Path, state: dict[str, Any]) -> str:
    """Write `state` to `path` and fsync it; the first 16 hex digits of its sha256, or OSError."""
    out = _Hashed(path)
    try:
        torch.save(state, cast(IO[bytes], out))
        out.flush()
        os.fsync(out.file.fileno())
    except Exception as error:
        raise out.error or error from None
    finally:
        out.file.close()
    return out.digest.hexdigest()[:16]


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Save `state` in `folder` so that a reader sees all of it or nothing, and keep the last two."""
    temporary = folder / f".saving-{os.getpid()}"
    try:
        digest = write(temporary, state)
        path = folder / f"step-{state['step']:09d}-{digest}.pt"
        temporary.rename(path)
        sync(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise VolitionError(
            f"cannot save step {state['step']} in {folder} ({error.strerror or error}); "
            "the last good checkpoint is kept: make room or mend the folder and run the same command again"
        ) from None
    for old in [old for old in named(folder) if NAME.fullmatch(old.name)][KEEP:]:
        old.unlink(missing_ok=True)
    return path


def sync(folder: Path) -> None:
    """Make the names in `folder` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def named(folder: Path) -> list[Path]:
    """The checkpoint files of `folder`, newest first; files with strange names come last."""

    def step(path: Path) -> tuple[int, float]:
        match = NAME.fullmatch(path.name)
        return (int(match[1]), path.stat().st_mtime) if match else (-1, 0.0)

    while True:
        try:
            return sorted(folder.glob("*.pt"), key=step, reverse=True)
        except FileNotFoundError:  # a training process dropped one between the listing and the look
            continue


def load(path: Path) -> dict[str, Any]:
    """The state in the file `path`; raises Damaged unless name, digest, format and contents agree."""
    match = NAME.fullmatch(path.name)
    if not match:
        raise Damaged("its name is not step-<step>-<digest>.pt")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest()[:16] != match[2]:
            raise Damaged("its content is not what was saved")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever torch says about a file that is not a checkpoint
        raise Damaged(f"not a checkpoint: {type(error).__name__}") from None
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise Damaged("not a checkpoint of Volition")
    if state["format"] != FORMAT:
        raise VolitionError(
            f"{path} has format {state['format']}, this Volition reads {FORMAT}: use the one that wrote it"
        )
    wrong = [name for name, kind in FIELDS.items() if not isinstance(state.get(name), kind)]
    if wrong or state["step"] != int(match[1]):
        raise Damaged(f"its {wrong[0] if wrong else 'step'} is not what was saved")
    return state


def newest(folder: Path) -> tuple[dict[str, Any] | None, list[tuple[Path, str]]]:
    """The newest good state of `folder` (None where there is no file) and the damaged files met before it."""
    while True:
        damaged: list[tuple[Path, str]] = []
        try:
            for path in named(folder):
                try:
                    return load(path), damaged
                except Damaged as error:
                    damaged.append((path, str(error)))
        except FileNotFoundError:  # replaced by a newer one while we looked
            continue
        except OSError as error:
            raise VolitionError(f"cannot read {error.filename or folder} ({error.strerror}); mend the folder") from None
        if damaged:
            reasons = "; ".join(f"{path.name}: {reason}" for path, reason in damaged)
            raise VolitionError(
                f"every checkpoint in {folder} is damaged ({reasons}); put a good copy there, "
                "or delete them to train from the beginning"
            )
        return None, []


def random_states(generator: torch.Generator) -> dict[str, Any]:
    """Every random state a recipe can draw from: torch, CUDA, NumPy's legacy, Python's and the run's own."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    assert kind == "MT19937" and isinstance(keys, np.ndarray)
    version, numbers, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "generator": generator.get_state(),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(numbers, dtype=torch.int64), next_gauss],
    }


def set_random_states(state: dict[str, Any], generator: torch.Generator) -> None:
    """Put back what `random_states` returned."""
    torch.set_rng_state(state["torch"])
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, device)
    generator.set_state(state["generator"])
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, numbers, next_gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), next_gauss))


@contextlib.contextmanager
def undisturbed(generator: torch.Generator) -> Iterator[None]:
    """Leave every random state as it was: rich, for one, draws from Python's as it is imported."""
    states = random_states(generator)
    yield
    set_random_states(states, generator)
