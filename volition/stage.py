"""One step of a recipe of several: its own recipe sees a run, which lies within the whole one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from volition.run import Run


class Stage:
    """Updates `first` … of `run`, counted from 0; files lie in the folder `name`, objects and metrics begin with it.

    Stages follow one another: made when all before it are done, a stage that has not begun yet begins here, with the
    random states as they were left, also in a process that went on from a checkpoint.
    """

    def __init__(self, run: Run, name: str, first: int) -> None:
        self.run, self.label, self.first = run, name, first
        self.name, self.seed, self.device, self.quiet = f"{run.name} {name}", run.seed, run.device, run.quiet
        self.sharded = run.sharded
        self.end = first  # the update after its last, once its loop has begun
        if run.step <= first:
            run.resume()

    @property
    def folder(self) -> Path | None:
        return None if self.run.folder is None else self.path("")

    @property
    def generator(self) -> torch.Generator:
        return self.run.generator

    @property
    def dataset(self) -> str:
        return self.run.dataset

    @dataset.setter
    def dataset(self, name: str) -> None:
        self.run.dataset = name

    def path(self, name: str) -> Path:
        """Where to put the file `name`."""
        folder = self.run.path(self.label)
        folder.mkdir(exist_ok=True)
        return folder / name

    def track(self, **objects: Any) -> None:
        """As `Run.track`."""
        self.run.track(**{f"{self.label}_{name}": thing for name, thing in objects.items()})

    def saved(self, name: str) -> dict[str, Any]:
        """As `Run.saved`."""
        return self.run.saved(f"{self.label}_{name}")

    def loop(self, updates: int) -> Iterator[int]:
        """Yield the updates of this stage that are still to do."""
        self.end = self.first + updates
        if self.run.step >= self.end:
            return  # done before
        inner: Any = self.run.loop(self.end)
        try:
            for update in inner:
                yield update - self.first
        finally:
            inner.close()

    def log(self, update: int, **scalars: float | torch.Tensor) -> None:
        """As `Run.log`."""
        self.run.log(self.first + update, **{f"{self.label}_{name}": value for name, value in scalars.items()})
