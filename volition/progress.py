"""Live progress of a run: a bar on a terminal, a plain line now and then elsewhere, nothing when quiet."""

import sys
import time
from typing import Any


class Progress:
    """Shows how many of `total` updates are done; `show` follows each and costs a look at the clock."""

    def __init__(self, name: str, start: int, total: int, quiet: bool) -> None:
        self.name, self.first, self.total, self.quiet = name, start, total, quiet
        self.begun = time.monotonic()
        self.due = self.begun + (0.0 if sys.stderr.isatty() else 5.0)
        self.scalars = ""
        self.bar: Any = None
        self.task: Any = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console  # slow to import, and only needed on a terminal
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
            from rich.table import Column

            columns = (
                TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len(name))),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True, min_width=8)),
                TimeRemainingColumn(),
                TextColumn(
                    "{task.fields[scalars]}",
                    style="dim",
                    table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
                ),
            )
            self.bar = Bar(*columns, console=Console(stderr=True), refresh_per_second=4, expand=True)
            self.task = self.bar.add_task(name, total=total, completed=start, rate="", scalars="")
            self.bar.start()

    def show(self, step: int, line: dict[str, float] | None) -> None:
        """Show that `step` updates are done; `line` is a new line of metrics, if there is one."""
        if self.quiet:
            return
        if line:
            self.scalars = "  ".join(f"{name} {value:.4g}" for name, value in line.items() if name != "update")
        now = time.monotonic()
        if now < self.due and step < self.total:
            return
        rate = (step - self.first) / max(now - self.begun, 1e-9)
        speed = f"{rate:.3g}/s" if rate < 1000 else f"{rate:,.0f}/s"
        if self.bar:
            self.due = now + 0.25
            self.bar.update(self.task, completed=step, rate=speed, scalars=self.scalars)
        else:
            self.due = now + max(5.0, (now - self.begun) / 20)  # fewer lines as the run grows longer
            left = max(0, self.total - step) / max(rate, 1e-9)
            say(f"{self.name}: {step}/{self.total} updates, {speed}, {left:.0f} s left  {self.scalars}")

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self.bar:
            self.bar.stop()


def say(text: str) -> None:
    """One line on stderr: stdout belongs to results."""
    print(text, file=sys.stderr, flush=True)
