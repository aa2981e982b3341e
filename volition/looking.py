"""Commands that look into run folders: `volition evaluate` and `volition watch`."""

import argparse
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from volition import zoo
from volition.errors import VolitionError
from volition.terminal import Parser, print_table

GIVEN = ("config", "run", "env")  # what every recipe's evaluate takes
SPREADS = {"_sd": "sd", "_se": "se"}  # ends of names that belong to the metric before


def evaluate(words: list[str]) -> None:
    """Measure trained runs, print each and what they say together, and note the results."""
    parser = Parser(
        "evaluate",
        "Measure trained runs, print the results and add each to its DIR/results.jsonl for volition table.\n"
        "With several folders, runs that differ in their seed only are put together: mean ± sd, and the\n"
        "interquartile mean (IQM) with a 95 % bootstrap interval (Agarwal et al. 2021); the folder of a sweep\n"
        "stands for its runs.\n"
        "It may be used while the runs are still training. With a DIR, --help shows what its recipe adds.",
        "volition evaluate runs/reinforce-laptop-*",
    )
    parser.add_argument("dirs", metavar="DIR", type=Path, nargs="+", help="run folder, or a sweep's")
    # the recipes of the run folders among the words say which flags there are
    named = [folder for folder in run_folders([Path(w) for w in words if w[:1] != "-"]) if _is_run(folder)]
    first = [Path(word) for word in words[:1] if not word.startswith("-")]  # says why it is none
    modules = {folder: _module(folder) for folder in named or first}
    flags = add_flags(parser, [module.evaluate for module in modules.values()])
    args = _parse(parser, words)
    from volition.folder import read_config

    folders = run_folders(args.dirs)
    for folder in folders:  # all of them before the first is measured
        read_config(folder)
        modules[folder] = modules.get(folder) or _module(folder)
        for name in flags & vars(args).keys():
            if name not in own_parameters(modules[folder].evaluate):
                raise VolitionError(f"the recipe of {folder} has no --{name.replace('_', '-')} to evaluate with")
    lines, failed = [], 0
    for folder in folders:
        try:
            run = _open(modules[folder], folder, args, shlex.join(["volition", "evaluate", *words]))
            given = {name: vars(args)[name] for name in flags & vars(args).keys()}
            measured = modules[folder].evaluate(run.config, run, **given)
            lines.append(run.record(measured, modules[folder].VARIANTS.get(run.variant)))
        except VolitionError as error:
            if len(folders) == 1:
                raise
            failed += 1
            print(f"volition: {folder}: {error}", file=sys.stderr)
            continue
        what = f"{run.name}, seed {run.seed}, {run.step:,} updates, data: {run.dataset}"
        print_table(("", what), _rows(lines[-1]["metrics"]))
        paper = getattr(modules[folder], "PAPER", None)
        if paper and run.variant in paper.get("rows", {}) and paper["data"] not in (run.dataset, run.trained_on):
            print(f"The paper's figure was measured on {paper['data']}, so it is not comparable and not shown.")
    if len(folders) == 1:
        print_table(zoo.COLUMNS, zoo.table(lines))
    else:
        print_together(lines)
    if failed:
        raise VolitionError(f"{failed} of {len(folders)} runs could not be measured (above)")


def watch(words: list[str]) -> None:
    """Draw what a trained agent does."""
    parser = Parser(
        "watch",
        "Draw what the agent of a run does; the paths of the pictures are printed. An episode becomes a GIF\n"
        "where its environment can be drawn (Gymnasium's own need pip install 'volition[film]'), else curves.",
        "volition watch runs/ram-laptop-0",
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="run folder")
    args = _parse(parser, words)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures need no screen, and pygame complains where none is
    module = _module(args.dir)
    run = _open(module, args.dir, args, shlex.join(["volition", "watch", *words]))
    if not hasattr(module, "watch"):
        raise VolitionError(f"{run.recipe} has nothing to watch: its figures are all there is; see volition evaluate")
    for path in module.watch(run.config, run):
        print(path)


# ---- a recipe's own flags


def own_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of what a recipe's evaluate takes beyond `(config, run, env)`: simple values only."""
    found = inspect.signature(function).parameters
    simple = {name: p.default for name, p in found.items() if isinstance(p.default, bool | int | float | str)}
    return {name: default for name, default in simple.items() if name not in GIVEN}


def add_flags(parser: argparse.ArgumentParser, functions: list[Callable[..., Any]]) -> set[str]:
    """Make them flags; the arguments hold only those that were given. Their names are returned."""
    wanted = {name: default for function in functions for name, default in own_parameters(function).items()}
    for name, default in wanted.items():
        flag, about = f"--{name.replace('_', '-')}", f"setting of the recipe's evaluation (default: {default})"
        if isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=about)
        else:
            kind = _count if name == "episodes" else type(default)
            about = f"episodes of each row (default: {default})" if name == "episodes" else about
            parser.add_argument(
                flag, type=kind, default=argparse.SUPPRESS, metavar=type(default).__name__.upper(), help=about
            )
    return set(wanted)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


# ---- run folders


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The run folders that are meant: a sweep's folder stands for those in it, and files that `*` gave are left out."""
    found: list[Path] = []
    for path in paths:
        inner = [] if (path / "config.json").exists() else sorted(file.parent for file in path.glob("*/config.json"))
        if inner or not path.is_file() or len(paths) == 1:
            found += inner or [path]
    return list(dict.fromkeys(found))


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _module(folder: Path) -> Any:
    from volition.folder import read_config

    return zoo.resolve(read_config(folder)["recipe"])[0].load()


def _parse(parser: Parser, words: list[str]) -> argparse.Namespace:
    parser.add_argument("--data", metavar="DIR", help="folder with real data (default: the one it was trained with)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args(words)
    if args.threads < 1:
        raise VolitionError("--threads must be 1 or more")
    return args


def _open(module: Any, folder: Path, args: argparse.Namespace, command: str) -> Any:
    """The run, opened for looking only."""
    import torch

    from volition.run import Run

    torch.set_num_threads(args.threads)
    return Run.open(folder, module.Config, device=args.device, data=args.data, command=command)


# ---- what is printed


def _rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Each metric with its spread, if it has one, on a line."""
    rows = []
    for name, value in metrics.items():
        if _belongs(name, metrics):
            continue
        values = value if isinstance(value, list) else [value]
        spreads = [f" ± {metrics[name + end]:.3g} {word}" for end, word in SPREADS.items() if name + end in metrics]
        rows.append((name.replace("_", " "), "  ".join(f"{v:.4g}" for v in values) + "".join(spreads)))
    return rows


def _belongs(name: str, metrics: dict[str, Any]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in metrics for end in SPREADS)


def print_together(lines: list[dict[str, Any]]) -> None:
    """Over the seeds of each kind of run: mean ± sd, interquartile mean and its interval, lowest and highest."""
    for seeds in zoo.groups(lines):
        metrics = seeds[0]["metrics"]
        rows = []
        for name in metrics:
            values = zoo.scores(seeds, name)
            if not _belongs(name, metrics) and values:
                ends = f"{min(values):.4g} … {max(values):.4g}"
                rows.append((name.replace("_", " "), zoo.spread(values), zoo.interquartile(values) or "–", ends))
        count = f"{len(seeds)} seeds" if len(seeds) > 1 else "1 seed"
        columns = (f"{zoo.title(seeds[0])}, {count}", "mean ± sd", "IQM, 95 %", "lowest … highest")
        print_table(columns, rows)
