"""Runs of a sweep as processes of their own: started, watched, and stopped so that each saves itself."""

import ctypes
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volition.errors import VolitionError

LOG = "sweep.log"  # in the run's folder: what the process printed
INTERRUPTED = 130
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl
PAUSE = 0.1  # seconds between two looks


@dataclass
class Child:
    """One run: the words of `volition train` and `volition evaluate` that it consists of."""

    label: str
    folder: Path
    seed: int
    total: dict[str, int]  # updates and environment steps at most, as metrics.jsonl names them
    train: list[str]
    evaluate: list[str]
    state: str = "waiting"  # training, evaluating, done, failed, stopped
    reason: str = ""
    begun: float = 0.0
    seconds: float = 0.0
    process: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """How it is called in tables and messages."""
        return f"{self.label}, seed {self.seed}" if self.label else f"seed {self.seed}"

    @property
    def result(self) -> dict[str, Any] | None:
        """The line that these very words have appended to results.jsonl when training was whole."""
        try:
            text = (self.folder / "results.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise VolitionError(f"cannot read {self.folder / 'results.jsonl'} ({error}): mend or remove it") from None
        command = shlex.join(["volition", "evaluate", *self.evaluate])
        found = None
        for row in text.splitlines():
            try:
                line = json.loads(row)
                if line["finished"] and line["command"] == command and line["seed"] == self.seed:
                    found = line
            except (ValueError, KeyError, TypeError):  # half a line of a process that was killed
                continue
        return found

    def newest(self) -> dict[str, float]:
        """The last whole line of metrics.jsonl."""
        try:
            with (self.folder / "metrics.jsonl").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 8192))
                rows = file.read().split(b"\n")
            return json.loads(rows[-2]) if len(rows) > 1 else {}
        except (OSError, ValueError):
            return {}

    def start(self) -> None:
        """Begin, or go on."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOG).open("wb") as log:
                what = [os.getpid(), str(self.folder), self.train, self.evaluate]
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "volition.children", json.dumps(what)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,  # Ctrl-C reaches the sweep alone, which hands it on once
                )  # fmt: skip
        except OSError as error:
            where = error.filename or self.folder
            raise VolitionError(f"cannot start {self.name} ({where}: {error.strerror}): mend it and go on") from None
        self.state, self.begun = "training", time.monotonic()

    def poll(self) -> bool:
        """Whether it has ended; `state` and `reason` then say how."""
        status = self.process.poll()
        self.seconds = time.monotonic() - self.begun
        if status is None:
            return False
        self.process = None
        if status == 0 and self.result is not None:
            self.state = "done"
        elif status == INTERRUPTED or status in (-signal.SIGINT, -signal.SIGTERM):
            self.state = "stopped"
        else:
            self.state = "failed"
            self.reason = self._last_words() or f"it ended with status {status} and said nothing"
        return True

    def _last_words(self) -> str:
        try:
            text = (self.folder / LOG).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        rows = [row.strip() for row in text.splitlines() if row.strip()]
        return rows[-1].removeprefix("volition: ") if rows else ""

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


class Stop:
    """Ctrl-C and SIGTERM, counted instead of raised."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, number: int, frame: Any) -> None:
        self.times += 1


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within it signals are counted by the `Stop`."""
    stop = Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def play(
    more: Callable[[], Child | None], jobs: int, ended: Callable[[Child], None], show: Callable[[list[Child]], None]
) -> bool:
    """Run what `more` gives, `jobs` at a time; True when all have ended, False when a signal stopped them.

    `more` returns None when there is nothing to begin now. At the first signal each run ends its update and saves
    itself, at the second they stop at once, at the third they are killed.
    """
    running: list[Child] = []
    sent = 0
    with stoppable() as stop:
        try:
            while True:
                for child in list(running):
                    if child.poll():
                        running.remove(child)
                        ended(child)
                while not stop.times and len(running) < jobs and (child := more()):
                    child.start()
                    running.append(child)
                if not running:
                    return not stop.times
                while sent < stop.times:
                    sent += 1
                    for child in running:
                        child.send(signal.SIGINT if sent < 3 else signal.SIGKILL)
                show(running)
                time.sleep(PAUSE)
        finally:
            for child in running:
                child.send(signal.SIGTERM)


def wait_for(folder: Path, seconds: float = 60.0) -> None:
    """Wait for a run that still saves itself after its sweep was killed."""
    end = time.monotonic() + seconds
    try:
        with (folder / "lock").open("r+") as lock:
            while time.monotonic() < end:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    time.sleep(PAUSE)
    except OSError:  # none has trained here, or the run itself will say what is wrong
        return


def work(parent: int, folder: str, train: list[str], evaluate: list[str]) -> int:
    """What a child does: the two commands, in a process that does not outlive the sweep."""
    from volition.cli import main

    if hasattr(libc := ctypes.CDLL(None), "prctl"):
        libc.prctl(DIES_WITH_PARENT, signal.SIGTERM)  # on which a run saves itself
        if os.getppid() != parent:
            return INTERRUPTED
    wait_for(Path(folder))
    return main(["train", *train]) or main(["evaluate", *evaluate])


if __name__ == "__main__":
    sys.exit(work(*json.loads(sys.argv[1])))
