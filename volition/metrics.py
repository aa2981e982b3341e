"""Metrics of a run: means over intervals, one JSON line each, the same for the same training; and curves."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch

from volition.core.statistics import running_mean
from volition.errors import VolitionError


class Metrics:
    """Gathers scalars; every interval writes their means as one line of `path`, kept in `history` too."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.history: list[dict[str, float]] = []
        self.under_way: dict[str, list[Any]] = {}  # name → [sum, count]
        self.digest = hashlib.sha256()
        self.offset = 0
        self.file = None

    def add(self, name: str, value: float | torch.Tensor) -> bool:
        """Add one value; False if it is known not to be finite (on CUDA that is seen when it settles)."""
        if isinstance(value, torch.Tensor):
            if value.numel() != 1:
                raise ValueError(f"metric {name!r} has shape {tuple(value.shape)}, a scalar is needed")
            value = value.detach()
            value = value.reshape(()).double() if value.is_cuda else value.item()
        total = self.under_way.setdefault(name, [0.0, 0])
        total[0] = total[0] + value
        total[1] += 1
        return isinstance(value, torch.Tensor) or math.isfinite(value)

    def settle(self) -> str | None:
        """Bring sums from the device; the first name whose sum is not finite."""
        for total in self.under_way.values():
            total[0] = float(total[0])
        return next((name for name, total in self.under_way.items() if not math.isfinite(total[0])), None)

    def flush(self, update: int) -> dict[str, float] | None:
        """Write the means so far as the line of `update`; None when nothing was gathered."""
        if not self.under_way:
            return None
        line = {"update": update} | {name: total / n for name, (total, n) in self.under_way.items()}
        self.under_way = {}
        self.history.append(line)
        if self.path is not None:
            data = (json.dumps(line) + "\n").encode()
            try:
                self.file = self.file or self.path.open("ab")
                self.file.write(data)
                self.file.flush()
            except OSError as error:
                raise VolitionError(
                    f"cannot write {self.path} ({error.strerror}); the last checkpoint is kept: "
                    "make room or mend the folder and run the same command again"
                ) from None
            self.digest.update(data)
            self.offset += len(data)
        return line

    def begin(self) -> None:
        """Forget what a run that was killed before its first checkpoint has written: it begins anew."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Where the file stands, and the interval under way."""
        self.settle()
        return {
            "offset": self.offset,
            "digest": self.digest.hexdigest(),
            "under_way": {name: list(total) for name, total in self.under_way.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Cut the file back to where it stood; one that does not fit is put aside, as the notice says."""
        self.under_way = {str(name): list(total) for name, total in state["under_way"].items()}
        if self.path is None:  # another process writes
            return None
        try:
            data = self.path.read_bytes()[: state["offset"]] if self.path.exists() else b""
            if hashlib.sha256(data).hexdigest() == state["digest"]:
                with self.path.open("ab") as file:
                    file.truncate(state["offset"])
                self.offset, self.digest = state["offset"], hashlib.sha256(data)
                self.history = [json.loads(line) for line in data.splitlines()]
                return None
            if self.path.exists():
                self.path.replace(aside := self.path.with_suffix(".damaged"))
                return f"{self.path} is damaged; it is kept as {aside.name} and a new one begins here"
            return f"{self.path} is gone; a new one begins here"
        except OSError as error:
            raise VolitionError(f"cannot use {self.path} ({error.strerror}); mend it or give another --run") from None


def draw(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Draw one small panel per metric over updates to the PNG `path`."""
    names = [name for name in dict.fromkeys(n for line in history for n in line) if name != "update"]
    if not names:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and only needed here
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    width, height = 4.0 * columns, 2.6 * rows + 0.4
    figure = Figure(figsize=(width, height), dpi=110)
    # room for labels in inches: a layout that measures them first takes as long again as drawing
    left, bottom, right, top = 0.6 / width, 0.45 / height, 1 - 0.1 / width, 1 - 0.6 / height
    figure.subplots_adjust(left, bottom, right, top, wspace=0.2, hspace=0.3)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        points = [(line["update"], line[name]) for line in history if name in line]
        x, y = [p[0] for p in points], [p[1] for p in points]
        many = len(points) > 40  # then a running mean says more than the raw line
        axes.plot(x, y, color="tab:blue", alpha=0.3 if many else 1.0, linewidth=1, marker="" if len(x) > 1 else "o")
        if many:
            axes.plot(x, running_mean(y, len(y) // 40), color="tab:blue", linewidth=1.6)
        axes.set_title(name, fontsize=10, loc="left")
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if i >= len(names) - columns:
            axes.set_xlabel("updates", fontsize=8)
    figure.savefig(path)


def first_bad(objects: dict[str, Any]) -> str | None:
    """The first tracked tensor that is not finite: parameters, gradients, buffers, then optimiser state."""
    modules = {name: thing for name, thing in objects.items() if isinstance(thing, torch.nn.Module)}
    parameters = [(f"{m}.{n}", p) for m, module in modules.items() for n, p in module.named_parameters()]
    found = parameters + [(f"{n}.grad", p.grad) for n, p in parameters if p.grad is not None]
    found += [(f"{m}.{n}", b) for m, module in modules.items() for n, b in module.named_buffers()]
    for name, thing in objects.items():
        if isinstance(thing, torch.optim.Optimizer):
            for i, state in thing.state_dict()["state"].items():
                found += [(f"{name}.state[{i}].{n}", v) for n, v in state.items() if isinstance(v, torch.Tensor)]
    for name, tensor in found:
        if tensor.is_floating_point() and (bad := int((~tensor.detach().isfinite()).sum())):
            return f"{name}: {bad} of {tensor.numel()} values not finite"
    return None


def tensorboard_writer(folder: Path, step: int) -> Any:
    """A writer of TensorBoard's files that goes on from `step`."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # two seconds to import, and only where asked for
    except ImportError:
        raise VolitionError("--tensorboard needs its package: pip install 'volition[tensorboard]'") from None
    return SummaryWriter(str(folder), purge_step=step)
