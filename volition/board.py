"""Live progress of many runs: a small table on a terminal, a plain line for each that ends elsewhere."""

import sys
import time
from typing import Any, Self

from volition.children import Child
from volition.progress import say

BETWEEN = 60.0  # seconds between lines where there is no terminal


class Board:
    """What runs, how far it is, and how many of `total` have ended."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self.counts = {"done": 0, "failed": 0, "stopped": 0}
        self.before = 0  # done by an earlier call
        self.due = time.monotonic() + BETWEEN
        self.live: Any = None

    def __enter__(self) -> Self:
        if self.before:
            say(f"{self.name}: {self.before} of {self.total} runs are done already")
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # refreshed by show alone: a thread would be in the way of starting processes
            self.live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self.live.start()
            self.due = 0.0
        return self

    def __exit__(self, *_: Any) -> None:
        if self.live:
            self.live.stop()

    def found(self) -> None:
        """One was finished by an earlier call."""
        self.before += 1
        self.counts["done"] += 1

    def ended(self, child: Child) -> None:
        """One run more has ended: a line that stays."""
        self.counts[child.state] += 1
        what = f"{child.state} after {child.seconds:.0f} s"
        text = f"[{sum(self.counts.values())}/{self.total}] {child.name}: {child.reason and 'failed: '}"
        text += child.reason or f"{what}  {_scalars(child.newest(), 3)}"
        self.live.console.print(text, markup=False, highlight=False) if self.live else say(text.rstrip())

    def show(self, running: list[Child]) -> None:
        """Show the runs under way, if it is time to."""
        now = time.monotonic()
        if now < self.due:
            return
        if not self.live:
            self.due = now + BETWEEN
            about = "; ".join(f"{child.name} {_progress(child, child.newest())}".rstrip() for child in running)
            say(f"{self.name}: {self._summary()}; {about}")
            return
        from rich.text import Text

        self.due = now + 0.5
        rows = [(child, child.newest()) for child in running]
        cells = [(c.name, _progress(c, line), f"{now - c.begun:.0f} s", _scalars(line, 5)) for c, line in rows]
        wide = [max((len(row[i]) for row in cells), default=0) for i in range(3)]
        lines = [f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d}" for a, b, c, d in cells]
        text = "\n".join([*lines, f"{self.name}: {self._summary()}"])
        self.live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def _summary(self) -> str:
        other = [f"{n} {state}" for state, n in self.counts.items() if n and state != "done"]
        return ", ".join([f"{self.counts['done']} of {self.total} done", *other])


def _progress(child: Child, line: dict[str, float]) -> str:
    if not line:
        return "begins"
    done = max((line[name] / bound for name, bound in child.total.items() if name in line), default=0.0)
    return "evaluates" if done >= 1 else f"{done:.0%}" if done else f"update {line['update']:,}"


def _scalars(line: dict[str, float], most: int) -> str:
    names = [name for name in line if name != "update"][:most]
    return "  ".join(f"{name} {line[name]:.4g}" for name in names)
