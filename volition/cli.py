"""The command line: one word, then its own arguments; nothing heavy is imported before it is needed."""

import errno
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from volition import __version__, zoo
from volition.errors import VolitionError
from volition.terminal import Parser, print_table

HELP = """usage: volition COMMAND …

Learning by reward: agents that look, watch, move, play, talk and paint.

  list       the recipes and their variants
  train      train a recipe; the same command goes on where it stopped
  evaluate   measure trained runs and note the results
  watch      draw what a trained agent does
  sweep      train seeds and grids of settings side by side, or search them
  curves     draw learning curves over seeds
  table      our results beside the papers'
  export     weights of a run as safetensors
  play       play Go against what was trained, by GTP
  serve      play Go against it in a browser
  label      people rank completions on a page of your own; their agreement
  data       real data sets: what is there, where it is looked for, how to get it

Begin with:  volition train ram:tiny
Help:        volition COMMAND --help
"""


# ---- list, table, data: nothing is trained, torch stays away


def list_(words: list[str]) -> None:
    """Show chapters, recipes, variants and summaries."""
    parser = Parser("list", "The recipes, by chapter, each with its variants.", "volition list")
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
    parser = Parser(
        "table",
        "Results in results/ and runs/ of this folder beside the papers' figures: mean ± sd over seeds and, from\n"
        "three seeds on, the interquartile mean (IQM) with a 95 % bootstrap interval (Agarwal et al. 2021).\n"
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
    print(zoo.markdown(rows)) if args.markdown else print_table(zoo.COLUMNS, rows)


def write_scenes(out: Path, count: int, folder: Path | None) -> None:
    """Generated pictures with boxes, as files to look at or to begin one's own set from."""
    from volition.data import scenes, voc

    if count < 1:
        raise VolitionError(f"--count {count}: write at least one scene")
    for split in ("train", "test"):
        voc.write(scenes.generate(split, count, folder=folder), out, split)
    print(f"{count} scenes to train on and {count} to test on, with boxes, in {out}")


def data(words: list[str]) -> None:
    """Show the catalog of real data, or write built-in scenes."""
    from volition.data import catalog
    from volition.folder import data_folder

    parser = Parser(
        "data",
        "Real data sets: what is there (with its md5 checked), where it is looked for and how to get it.\n"
        "Without them recipes use built-in stand-ins, and say so in every result.",
        "volition data --data ~/data",
    )
    parser.add_argument("--data", metavar="DIR", help="folder to look in (default: $VOLITION_DATA)")
    parser.add_argument("--scenes", metavar="OUT", type=Path, help="write the built-in scenes there as a VOC folder")
    parser.add_argument("--count", metavar="N", type=int, default=100, help="scenes to train on and as many to test on")
    args = parser.parse_args(words)
    folder = data_folder(args.data)
    if args.scenes is not None:
        write_scenes(args.scenes, args.count, folder)
        return
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
    if not _several():
        return _train(words)
    from volition.distributed import group

    with group():
        _train(words)


def _several() -> bool:
    """Whether torchrun started this process and others."""
    return "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def _train(words: list[str]) -> None:
    recipe, variant = zoo.resolve(words[0])
    from volition import distributed
    from volition.options import parse

    module = recipe.load()
    if distributed.size() > 1 and not getattr(module, "DISTRIBUTED", False):
        raise VolitionError(f"{recipe.name} trains in one process: start it without torchrun")
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
        sharded=options.sharded,
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


# ---- what is done with run folders


def evaluate(words: list[str]) -> None:
    """Measure trained runs and note the results."""
    from volition import looking

    looking.evaluate(words)


def watch(words: list[str]) -> None:
    """Draw what a trained agent does."""
    from volition import looking

    looking.watch(words)


def sweep(words: list[str]) -> None:
    """Train seeds and grids of settings in processes of their own."""
    from volition.sweep import sweep as command

    command(words)


def curves(words: list[str]) -> None:
    """Draw learning curves over seeds."""
    from volition.curves import curves as command

    command(words)


def export(words: list[str]) -> None:
    """Write a run's weights for others."""
    parser = Parser(
        "export",
        "Write the weights of a run's policy to OUT/policy.safetensors, and its settings to OUT/policy.json;\n"
        "or those of another network that it trained.",
        "volition export runs/ram-laptop-0 my-ram",
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="run folder")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument("--name", default="policy", help="which network: value_net of alphago, net of alphazero, …")
    parser.add_argument("--half", action="store_true", help="in float16, at half the size")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    args = parser.parse_args(words)
    from volition.export import write

    for path in write(args.dir, args.out, args.force, args.name, args.half):
        print(path)


def label(words: list[str]) -> None:
    """The labelling page and its store."""
    from volition.web.command import label as command

    command(words)


def play(words: list[str]) -> None:
    """Play against what was trained."""
    from volition.play import play as command

    command(words)


def serve(words: list[str]) -> None:
    """Play in a browser."""
    from volition.play import serve as command

    command(words)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": list_,
    "train": train,
    "evaluate": evaluate,
    "watch": watch,
    "sweep": sweep,
    "curves": curves,
    "table": table,
    "export": export,
    "play": play,
    "serve": serve,
    "label": label,
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
        if words[0] != "train" and _several():
            if os.environ.get("RANK") != "0":
                return 2
            raise VolitionError(f"torchrun is for volition train: call volition {words[0]} alone")
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
