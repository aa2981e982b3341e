"""The command line: one word, then its own arguments; nothing heavy is imported before it is needed."""

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from volition import __version__, zoo
from volition.errors import VolitionError

HELP = """usage: volition COMMAND …

Learning by reward: agents that look, watch, move, play, talk and paint.

  list       the recipes and their variants
  train      train a recipe; the same command goes on where it stopped
  evaluate   measure a trained run and note the result
  watch      draw what a trained agent does
  table      our results beside the papers'
  export     weights of a run as safetensors
  data       real data sets: what is there, where it is looked for, how to get it

Begin with:  volition train ram:tiny
Help:        volition COMMAND --help
"""


class _Parser(argparse.ArgumentParser):
    """Complains in one line and proposes the nearest flag."""

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown and unknown[0].startswith("-"):
            proposal = zoo.nearest(unknown[0], flags, f"try {self.prog} --help")
            raise VolitionError(f"{self.prog} has no flag {unknown[0]}; {proposal}")
        raise VolitionError(f"{self.prog}: {message}; try {self.prog} --help")


def _parser(command: str, what: str, example: str) -> _Parser:
    return _Parser(
        prog=f"volition {command}",
        description=what,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]], title: str | None = None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # a pipe has no width of its own: leave lines whole there
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(*columns, box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)


# ---- list, table, data: nothing is trained, torch stays away


def list_(words: list[str]) -> None:
    """Show chapters, recipes, variants and summaries."""
    parser = _parser("list", "The recipes, by chapter, each with its variants.", "volition list")
    parser.parse_args(words)
    found = zoo.recipes()
    width = max((len(recipe.name) for recipe in found), default=0)
    for i, recipe in enumerate(found):
        if i == 0 or found[i - 1].chapter != recipe.chapter:
            print(f"{'' if i == 0 else chr(10)}{recipe.chapter}")
        print(f"  {recipe.name:<{width}}  {recipe.summary}")
        print(f"  {'':<{width}}  variants: {', '.join(recipe.variants)}")
    if found:
        print("\nvolition train RECIPE[:VARIANT] trains one; RECIPE --help shows its settings")


def table(words: list[str]) -> None:
    """Show results beside the papers'."""
    parser = _parser(
        "table",
        "Results in results/ and runs/ of this folder, mean ± sd over seeds, beside the papers' figures.\n"
        "A paper's figure is shown only beside results on the paper's own data and settings.",
        "volition table ram --markdown",
    )
    parser.add_argument("recipe", nargs="?", help="only this recipe")
    parser.add_argument("--markdown", action="store_true", help="print it as Markdown, for a README")
    parser.add_argument("--from", dest="folders", action="append", type=Path, default=[], metavar="PATH",
        help="a .jsonl file or a folder to read instead; may be repeated")  # fmt: skip
    args = parser.parse_args(words)
    only = zoo.resolve(args.recipe)[0].name if args.recipe else None
    for folder in args.folders:
        if not folder.exists():
            raise VolitionError(f"there is no {folder} to read results from")
    rows = zoo.table(zoo.results(*args.folders), only)
    if not rows:
        raise VolitionError("no results yet in results/ and runs/; volition evaluate DIR makes one")
    print(zoo.markdown(rows)) if args.markdown else _print_table(zoo.COLUMNS, rows)


def data(words: list[str]) -> None:
    """Show the catalog of real data."""
    from volition.data import catalog
    from volition.folder import data_folder

    parser = _parser(
        "data",
        "Real data sets: what is there (with its md5 checked), where it is looked for and how to get it.\n"
        "Without them recipes use built-in stand-ins, and say so in every result.",
        "volition data --data ~/data",
    )
    parser.add_argument("--data", metavar="DIR", help="folder to look in (default: $VOLITION_DATA)")
    args = parser.parse_args(words)
    folder = data_folder(args.data)
    print(f"looking in: {folder or 'nowhere (give --data DIR or set VOLITION_DATA)'}")
    for entry in catalog.CATALOG:
        print(f"\n{entry.name}  {entry.title}\n  used by:    {entry.used_by}")
        places = ", ".join(str((folder or Path("DIR")) / place) for place in entry.folders)
        print(f"  looked for: {places}")
        try:
            found = catalog.find(entry.name, folder)
        except VolitionError as error:
            print(f"  there:      in part: {error}")
            continue
        if not found:
            print(f"  there:      no\n  to get it:  {entry.how}")
            continue
        bad = ", ".join(path.name for path in catalog.wrong(entry.name, found))
        state = f"md5 is not the published one: {bad}" if bad else "md5 of every file is right"
        print(f"  there:      yes, in {next(iter(found.values())).parent}; {state}")


# ---- train

TRAIN_HELP = """usage: volition train RECIPE[:VARIANT] [--setting VALUE …] [--run DIR] [--seed N] …

Train a recipe; the variant is laptop when none is named. Everything goes into one folder, --run or else
runs/RECIPE-VARIANT-SEED: settings, metrics.jsonl, checkpoints, curves.png. The same command on the same
folder goes on from the last checkpoint (bit for bit on a CPU); Ctrl-C saves first.

examples:
  volition train ram                      the laptop variant
  volition train ram:tiny --seed 3        another variant, another seed
  volition train ram --help               all settings of a recipe and of runs
  volition list                           the recipes
"""


def train(words: list[str]) -> None:
    """Train a recipe in a run folder."""
    if not words or words[0] in ("-h", "--help"):
        print(TRAIN_HELP)
        return
    if words[0].startswith("-"):
        raise VolitionError(f"the recipe comes first: volition train RECIPE {shlex.join(words)}")
    recipe, variant = zoo.resolve(words[0])
    from volition.options import parse

    module = recipe.load()
    config, options = parse(module, recipe.name, variant, words[1:])
    from volition.run import Run

    folder = options.run or Path("runs") / f"{recipe.name}-{variant}-{options.seed}"
    with Run(
        folder,
        recipe=recipe.name,
        variant=variant,
        config=config,
        seed=options.seed,
        device=options.device,
        data=options.data,
        threads=options.threads,
        save_every=options.save_every,
        log_every=options.log_every,
        tensorboard=options.tensorboard,
        quiet=options.quiet,
        command=shlex.join(["volition", "train", *words]),
    ) as run:
        if hasattr(module, "prepare"):
            module.prepare(config, run)
        module.train(config, run)
    if not options.quiet:
        print(f"next: volition evaluate {shlex.quote(str(folder))}")


# ---- evaluate, watch, export: look into a run folder


def _look(parser: _Parser, words: list[str]) -> tuple[argparse.Namespace, Any, Any]:
    """The arguments, the recipe's module and the run, opened for looking only."""
    parser.add_argument("--data", metavar="DIR", help="folder with real data (default: the one it was trained with)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args(words)
    from volition.folder import read_config

    saved = read_config(args.dir)
    recipe, _ = zoo.resolve(saved["recipe"])
    module = recipe.load()
    import torch

    from volition.run import Run

    if args.threads < 1:
        raise VolitionError("--threads must be 1 or more")
    torch.set_num_threads(args.threads)
    command = shlex.join(["volition", parser.prog.split()[-1], *words])
    return (
        args,
        module,
        Run.open(args.dir, module.Config, device=args.device, data=args.data, command=command),
    )


def evaluate(words: list[str]) -> None:
    """Measure a trained run and note the result."""
    parser = _parser(
        "evaluate",
        "Measure a trained run, print the result and add it to DIR/results.jsonl for volition table.\n"
        "It may be used while the run is still training.",
        "volition evaluate runs/ram-laptop-0",
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="run folder")
    _, module, run = _look(parser, words)
    measured = module.evaluate(run.config, run)
    line = run.record(measured, module.VARIANTS.get(run.variant))
    rows: list[tuple[str, ...]] = []
    for name, value in line["metrics"].items():
        values = value if isinstance(value, list) else [value]
        rows.append((name.replace("_", " "), "  ".join(f"{v:.4g}" for v in values)))
    _print_table(("", f"{run.name}, seed {run.seed}, {run.step:,} updates, data: {run.dataset}"), rows)
    paper = getattr(module, "PAPER", None)
    if paper and run.variant in paper.get("rows", {}) and paper["data"] not in (run.dataset, run.trained_on):
        print(f"The paper's figure was measured on {paper['data']}, so it is not comparable and not shown.")
    _print_table(zoo.COLUMNS, zoo.table([line]))


def watch(words: list[str]) -> None:
    """Draw what a trained agent does."""
    parser = _parser(
        "watch",
        "Draw what the agent of a run does; the paths of the pictures are printed.",
        "volition watch runs/ram-laptop-0",
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="run folder")
    _, module, run = _look(parser, words)
    if not hasattr(module, "watch"):
        raise VolitionError(f"{run.recipe} has nothing to watch: its figures are all there is; see volition evaluate")
    for path in module.watch(run.config, run):
        print(path)


def export(words: list[str]) -> None:
    """Write a run's weights for others."""
    parser = _parser(
        "export",
        "Write the weights of a run's policy to OUT/policy.safetensors, and its settings to OUT/policy.json.",
        "volition export runs/ram-laptop-0 my-ram",
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="run folder")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    args = parser.parse_args(words)
    from volition.export import write

    for path in write(args.dir, args.out, args.force):
        print(path)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": list_,
    "train": train,
    "evaluate": evaluate,
    "watch": watch,
    "table": table,
    "export": export,
    "data": data,
}


def main(argv: list[str] | None = None) -> int:
    """Run the command of `argv`; the exit status: 0, 2 for a mistake of the user's, 130 when interrupted."""
    words = sys.argv[1:] if argv is None else argv
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(HELP, end="")
            return 0 if words else 2
        if words[0] in ("-V", "--version"):
            print(f"volition {__version__}")
            return 0
        if words[0] not in COMMANDS:
            known = "the commands are " + ", ".join(COMMANDS)
            raise VolitionError(f"no command {words[0]!r}; {zoo.nearest(words[0], COMMANDS, known)}")
        COMMANDS[words[0]](words[1:])
        sys.stdout.flush()
        return 0
    except VolitionError as error:
        print(f"volition: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:  # volition.run.Interrupted says how to go on
        if error.args:
            print(f"volition: {error}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # head and less stop reading when they have enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        full = error.errno == errno.ENOSPC
        where = error.filename or "standard output"
        print(f"volition: {'the disk is full' if full else error.strerror or error} ({where})", file=sys.stderr)
        return 2
