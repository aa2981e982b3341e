"""Lines of a program that talks to us, read beside what it asked for, so that a search hears the next command."""

import io
import queue
import threading
from collections.abc import Iterable, Iterator


def raw(lines: Iterable[str]) -> Iterator[str]:
    """Lines of a stream as they come; bytes that are no text become marks that no command knows.

    A file is read without Python's buffer, whose lock a reader that still waits would hold when the program ends.
    """
    try:
        number = lines.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        yield from lines
        return
    stream = io.FileIO(number, closefd=False)
    while line := stream.readline():
        yield line.decode("utf-8", "replace")


class Inbox:
    """Lines of a stream, read by a thread of their own."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._next: list[str | None] = []  # seen by `waiting`
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def get(self) -> str | None:
        """The next line, once it is there; None at the end."""
        return self._next.pop() if self._next else self._queue.get()

    def waiting(self, seconds: float = 0.0) -> bool:
        """Whether a line, or the end, is there or comes within these seconds."""
        if not self._next:
            try:
                self._next.append(self._queue.get(timeout=seconds) if seconds > 0 else self._queue.get_nowait())
            except queue.Empty:
                return False
        return True

    def _read(self, lines: Iterable[str]) -> None:
        try:
            for line in raw(lines):
                self._queue.put(line)
        finally:
            self._queue.put(None)
