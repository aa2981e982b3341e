"""What the commands share on a terminal: a parser that helps, and tables."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from volition import zoo
from volition.errors import VolitionError


class Parser(argparse.ArgumentParser):
    """The parser of one command; complains in one line and proposes the nearest flag."""

    def __init__(self, command: str, what: str, example: str) -> None:
        super().__init__(
            prog=f"volition {command}",
            description=what,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print and exit with."""
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown and unknown[0].startswith("-"):
            proposal = zoo.nearest(unknown[0], flags, f"try {self.prog} --help")
            raise VolitionError(f"{self.prog} has no flag {unknown[0]}; {proposal}")
        raise VolitionError(f"{self.prog}: {message}; try {self.prog} --help")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table on stdout."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # a pipe has no width of its own: leave lines whole there
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(*columns, box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
