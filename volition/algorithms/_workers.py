"""Workers that train side by side: one in this process, or several in their own, which never outlive it."""

import io
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Generator

from volition.checkpoint import plain, random_states, set_random_states
from volition.errors import VolitionError
from volition.machine import trim_memory
from volition.run import Run

GRACE = 5.0  # seconds that a process has for leaving, in the midst of a slow step perhaps, before it is killed
TRIM = 10.0  # seconds between two trims of a worker's memory


class Worker(Protocol):
    """What can work here."""

    def play(self, first: int, count: int, check: Callable[[], None]) -> dict[str, float]:
        """Do updates number `first` to `first + count − 1`; call `check` before each, which may raise."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that playing on depends on, but for the random states."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        ...

    def close(self) -> None:
        """Let go of what is not memory."""
        ...


class Workers:
    """`count` of what `build(seed, generator)` makes, all asked at once; they work only until they have answered.

    One is built at once and in this process, with the run's own seed and generator. Several are built by `start`, in
    processes with seeds of their own; then `build` must find all that is to be shared in shared memory.

    Processes are forked, which takes milliseconds and any environment, where that is safe: on Linux without a GPU,
    whose driver and autograd threads do not survive it. Elsewhere they are fresh ones (spawn) that import everything
    again, and `build` is pickled. Each has one thread. Ctrl-C and SIGTERM, which are often sent to a whole group of
    processes, are left to this one: it ends its processes by `with`. They also end by themselves, between two updates
    at the latest, when this process is gone, even by SIGKILL.
    """

    def __init__(self, build: Callable[[int, Generator], Worker], count: int, run: Run) -> None:
        self.build, self.count, self.run = build, count, run
        self.alone = build(run.seed, run.generator) if count == 1 else None
        self.stop = torch.zeros(1).share_memory_()
        self.processes: list[Any] = []
        self.pipes: list[Any] = []
        self.states: list[dict[str, Any]] | None = None  # to begin with, or those of the end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start the processes, if there are to be any."""
        if self.alone is not None:
            return
        context: Any = multiprocessing.get_context(method := start_method())
        # these wait until the processes are ready to ignore them
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        try:
            for number in range(self.count):
                mine, theirs = context.Pipe()
                self.pipes.append(mine)
                # a fork would hold open our ends of the pipes, and the lock of the run's folder
                inherited = [*self.pipes, self.run] if method == "fork" else []
                state = None if self.states is None else pack(self.states[number])
                seeds = np.random.SeedSequence([self.run.seed, 2, number]).generate_state(5).tolist()
                args = (theirs, inherited, os.getpid(), self.build, seeds, self.stop, state)
                process = context.Process(target=serve, args=args, daemon=True)
                try:
                    with warnings.catch_warnings():  # from Python 3.12 on: of idle threads of NumPy's, which mind forks
                        warnings.simplefilter("ignore", DeprecationWarning)
                        process.start()
                except Exception as error:  # pickle raises whatever it likes
                    raise VolitionError(f"cannot start worker {number} ({' '.join(str(error).split())})") from None
                finally:
                    theirs.close()
                self.processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def play(self, first: int, count: int) -> list[dict[str, float]]:
        """`count` updates of each worker, from its number `first` on, and what each tells of them."""
        if self.alone is not None:
            return [self.alone.play(first, count, lambda: None)]
        return self._ask("play", first, count)

    def finish(self) -> None:
        """End the processes before the run's last checkpoint, so that their CPU seconds count in it."""
        if self.alone is None:
            self.states = self.state_dict()["workers"]
            self._end()

    def state_dict(self) -> dict[str, Any]:
        """Each worker's own: they are asked only when a checkpoint is due."""
        if self.alone is not None:
            return {"workers": [self.alone.state_dict()]}
        return {"workers": [unpack(state) for state in self._ask("save")] if self.pipes else self.states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; processes do so when they start."""
        self.states = state["workers"]
        if self.alone is not None:
            self.alone.load_state_dict(state["workers"][0])

    def _ask(self, *what: Any) -> list[Any]:
        """The answers of all; VolitionError as soon as one fails."""
        for pipe in self.pipes:
            with suppress(OSError):  # whose process is gone will not answer either
                pipe.send(what)
        answers, waiting = [None] * self.count, list(self.pipes)
        while waiting:
            for pipe in wait(waiting):
                number = self.pipes.index(pipe)
                waiting.remove(pipe)
                try:
                    answers[number], failure = self.pipes[number].recv()
                except (EOFError, OSError):
                    self.processes[number].join(GRACE)
                    raise VolitionError(f"worker {number} {ended(self.processes[number].exitcode)}") from None
                if failure:
                    what, trace = failure
                    error = VolitionError(f"worker {number}: {what}")
                    if trace:
                        error.add_note(trace)  # Python shows it; the command line shows one line
                    raise error
        return answers

    def _end(self) -> None:
        self.stop.fill_(1)
        for pipe in self.pipes:
            pipe.close()
        end = time.monotonic() + GRACE
        try:
            for process in self.processes:
                process.join(max(0.0, end - time.monotonic()))
        finally:
            for process in self.processes:
                process.kill()
                process.join()
        self.pipes, self.processes = [], []


def serve(
    pipe: Connection,
    inherited: list[Any],
    parent: int,
    build: Callable[[int, Generator], Worker],
    seeds: list[int],
    stop: torch.Tensor,
    state: bytes | None,
) -> None:
    """The life of a worker's process: questions come through the pipe, answers go back; the first failure ends it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)  # SIG_IGN would pass on to a simulator that env starts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
    for thing in inherited:
        thing.close()
    torch.set_num_threads(1)
    torch.manual_seed(seeds[0])
    np.random.seed(seeds[1])
    random.seed(seeds[2])
    generator, told = Generator().manual_seed(seeds[3]), stop.numpy()

    def check() -> None:
        if told[0] or os.getppid() != parent:
            raise EOFError

    with suppress(OSError):  # of a pipe whose other end is closed
        try:
            with closing(build(seeds[4], generator)) as worker:
                if state is not None:
                    saved = unpack(state)
                    worker.load_state_dict(saved)
                    set_random_states(saved["random"], generator)
                trimmed = time.monotonic()
                while True:
                    name, *numbers = pipe.recv()
                    if name == "play":
                        pipe.send((worker.play(*numbers, check=check), None))
                    else:
                        pipe.send((pack(worker.state_dict() | {"random": random_states(generator)}), None))
                    if time.monotonic() - trimmed >= TRIM:
                        trim_memory()
                        trimmed = time.monotonic()
        except VolitionError as error:
            pipe.send((None, (str(error), "")))
        except BaseException as error:
            pipe.send((None, (f"{type(error).__name__}: {' '.join(str(error).split())}", traceback.format_exc())))


def start_method() -> str:
    """How processes begin here: fork or spawn."""
    return "fork" if sys.platform == "linux" and not torch.cuda.is_available() else "spawn"


def ended(status: int | None) -> str:
    """How a process ended that could not tell."""
    if status is None or status >= 0:
        return f"ended with status {status}"
    return f"was ended by {signal.Signals(-status).name}{' (out of memory?)' if -status == signal.SIGKILL else ''}"


def pack(state: dict[str, Any]) -> bytes:
    """A state as bytes: tensors sent as they are would stay in the memory of a process that may end."""
    file = io.BytesIO()
    torch.save(plain(state, "worker"), file)
    return file.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """The inverse of `pack`."""
    return torch.load(io.BytesIO(data), weights_only=True)
