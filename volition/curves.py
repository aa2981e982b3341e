"""Learning curves over seeds: mean and a band in which it lies with 95 % confidence; `volition curves`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volition.core.statistics import bootstrap_band, running_mean
from volition.errors import VolitionError
from volition.folder import read_config
from volition.looking import run_folders
from volition.settings import differences
from volition.terminal import Parser
from volition.zoo import nearest

POINTS = 200  # of a curve
History = list[dict[str, float]]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def curves(words: list[str]) -> None:
    """Draw the learning curves of run folders."""
    parser = Parser(
        "curves",
        "Draw the learning curves of run folders over environment steps, else updates: one line for each kind of\n"
        "run, the mean over its seeds, with a 95 % bootstrap band; dotted where not every seed has got so far.\n"
        "Runs that still train are drawn as far as they are.",
        "volition curves runs/reinforce-none-* runs/reinforce-learned-* --out baselines.png",
    )
    parser.add_argument("dirs", metavar="DIR", type=Path, nargs="+", help="run folder, or a sweep's")
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("curves.png"),
        help="picture to write: .png, .svg or .pdf (default: curves.png)")  # fmt: skip
    parser.add_argument("--metric", action="append", metavar="NAME", help="draw only this one; may be repeated")
    args = parser.parse_args(words)
    if args.out.suffix not in (".png", ".svg", ".pdf"):
        raise VolitionError(f"--out is {args.out}: its name must end in .png, .svg or .pdf")
    runs = {folder: (read_config(folder), read_history(folder)) for folder in run_folders(args.dirs)}
    names = labels([saved for saved, _ in runs.values()])
    groups: dict[str, list[History]] = {}
    for label, (_, history) in zip(names, runs.values(), strict=True):
        groups.setdefault(label, []).append(history)
    first = next(iter(runs.values()))[0]
    alike = len({saved["recipe"] for saved, _ in runs.values()}) == 1
    title = f"{first['recipe']}:{first['variant']}" if len(groups) == 1 else first["recipe"] if alike else ""
    draw_bands(groups, args.out, title, args.metric)
    print(args.out)


def read_history(folder: Path) -> History:
    """The lines of metrics.jsonl; a last one that is still being written is left out."""
    path = folder / "metrics.jsonl"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise VolitionError(f"{folder} has no metrics.jsonl yet: train it first") from None
    except (OSError, ValueError) as error:
        raise VolitionError(f"cannot read {path} ({error}): mend it") from None
    lines = text.splitlines()
    if text and not text.endswith("\n"):
        lines.pop()
    try:
        history = [json.loads(line) for line in lines]
        if not all(isinstance(line["update"], int) for line in history):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise VolitionError(f"{path} is damaged: its lines should be metrics; train the run again") from None
    return history


def labels(saved: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each run that only its seed leaves open: recipe and variant, then the settings that differ."""
    kinds = [f"{s['recipe']}:{s['variant']}" for s in saved]
    found = []
    for kind, mine in zip(kinds, saved, strict=True):
        others = [s["config"] for other, s in zip(kinds, saved, strict=True) if other == kind]
        varied = {name for config in others for name in differences(others[0], config)}
        words = [f"{name}={_look_up(mine['config'], name)}" for name in sorted(varied)]
        same = len(set(kinds)) == 1
        found.append(", ".join(words) if words and same else " ".join([kind, *words]))
    return found


def _look_up(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def curve(history: History, name: str, over: str) -> Curve:
    """x and y `[n]` of one run, y smoothed by a running mean where there are many points."""
    points = [(line[over], line[name]) for line in history if name in line and over in line]
    x, y = np.array([p[0] for p in points]), np.array([p[1] for p in points], dtype=np.float64)
    return x, running_mean(y, len(y) // 40)


def together(runs: Sequence[Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """x `[points]`, the runs at x `[runs, points]` (nan beyond their ends), and the last x that all have reached."""
    begin, end = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
    at = np.linspace(begin, max(x[-1] for x, _ in runs), POINTS)
    rows = [np.interp(at, x, y, left=math.nan, right=math.nan) for x, y in runs]
    return at, np.stack(rows), end


def draw_bands(groups: Mapping[str, Sequence[History]], path: Path, title: str, only: list[str] | None = None) -> None:
    """Draw to `path` a panel per metric, and in it for each group of runs the mean and its 95 % band."""
    histories = [history for group in groups.values() for history in group if history]
    over = "steps" if histories and all("steps" in history[0] for history in histories) else "update"
    found = dict.fromkeys(name for history in histories for line in history for name in line)
    names = [name for name in found if name not in ("update", "steps")]
    for name in only or ():
        if name not in names:
            known = f"there are {', '.join(names) or 'none yet'}"
            raise VolitionError(f"no metric {name!r}; {nearest(name, names, known)}")
    names = only or names
    if not names:
        raise VolitionError("the runs have no metrics yet: train them first")
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    wide = 5.2 if len(names) == 1 else 4.0
    legend = 0.22 * math.ceil(len(groups) / 3) if len(groups) > 1 else 0.0
    figure = Figure(figsize=(max(wide * columns, 5.2), 2.7 * rows + 0.5 + legend), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=11)
    colours = [colormaps["tab10"](i) if len(groups) <= 10 else colormaps["turbo"](i / (len(groups) - 1))
               for i in range(len(groups))]  # fmt: skip
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        for (label, group), colour in zip(groups.items(), colours, strict=True):
            runs = [c for history in group if len((c := curve(history, name, over))[0])]
            if runs:
                _draw_group(axes, runs, colour, label if i == 0 else "")
        axes.set_title(name.replace("_", " "), fontsize=10, loc="left")
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if i >= len(names) - columns:
            axes.set_xlabel("environment steps" if over == "steps" else "updates", fontsize=8)
    if len(groups) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(groups), 3), fontsize=8, frameon=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise VolitionError(f"cannot write {path} ({error.strerror}): give another file") from None


def _draw_group(axes: Any, runs: Sequence[Curve], colour: Any, label: str) -> None:
    x, rows, end = together(runs)
    whole = x <= end
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    marker = "" if whole.sum() > 1 and x[0] < x[-1] else "o"
    axes.plot(x[whole], rows[:, whole].mean(0), color=colour, marker=marker, linewidth=1.5,
        label=f"{label} ({seeds})" if label else None)  # fmt: skip
    if len(runs) > 1 and whole.any():
        low, high = bootstrap_band(rows[:, whole], np.random.default_rng(0))
        axes.fill_between(x[whole], low, high, color=colour, alpha=0.2, linewidth=0)
    rest = (x >= end) & np.isfinite(rows).any(0)
    if len(runs) > 1 and rest.any() and not whole.all():
        axes.plot(x[rest], np.nanmean(rows[:, rest], axis=0), ":", color=colour, linewidth=1.2)
