"""Flags of `volition train`: a recipe's settings, a variant being their defaults, and those of every run."""

import dataclasses
import inspect
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import tyro

Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of every run."""

    run: Folder = None
    """Folder of the run, else runs/RECIPE-VARIANT-SEED; one that holds this run goes on."""
    seed: int = 0
    """Seed of every random state."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    data: Folder = None
    """Folder with real data, else $VOLITION_DATA, else built-in stand-ins; see volition data."""
    threads: int = 1
    """CPU threads; small networks are fastest on one."""
    sharded: bool = False
    """Spread the models' weights over torchrun's processes (FSDP2), where one of them does not fit into one."""
    save_every: float = 60.0
    """Seconds between checkpoints."""
    log_every: int = 10
    """Updates between lines of metrics.jsonl, each the mean over them."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard as well."""
    quiet: bool = False
    """Show no progress."""


def parse(module: ModuleType, name: str, variant: str, words: list[str], command: str = "train") -> tuple[Any, Options]:
    """The settings and options that the flags `words` give; tyro prints help and mistakes and exits."""
    # a recipe of several systems has settings of one name: theirs are told apart as --system.name
    top, flat = tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes
    # the names of the fields are the titles of the groups in the help
    kind = dataclasses.make_dataclass("Train", [("recipe", Annotated[module.Config, top]), ("run", flat[Options])])
    if {"-h", "--help"} & set(words):
        print(inspect.cleandoc(module.__doc__ or ""), end="\n\n")  # tyro would join its lines
    given = tyro.cli(
        kind,
        args=words,
        default=kind(module.VARIANTS[variant], Options()),
        prog=f"volition {command} {name}:{variant}",
        description="",
    )
    return given.recipe, given.run
