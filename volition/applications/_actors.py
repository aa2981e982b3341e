"""Where self-play happens: weights and seeds go out, lessons come back, in whatever processes.

A learner needs no more than `lessons = play(weights, seeds)`. What a seed's games are follows from the weights and the
seed alone, so that they are the same wherever and in whatever order they are played.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from volition.errors import VolitionError

T = TypeVar("T")
Weights = dict[str, Tensor]


@contextmanager
def actors(play: Callable[[Weights, int], T], workers: int) -> Iterator[Callable[[Weights, Sequence[int]], list[T]]]:
    """`play(weights, seed)` for many seeds: in this process, or in `workers` others, to which it must be picklable.

    The others have one thread each, leave Ctrl-C to this one, and end when it is gone, even by SIGKILL.
    """
    if workers == 0:
        yield lambda weights, seeds: [play(weights, seed) for seed in seeds]
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would not survive the threads of autograd
    pool = ProcessPoolExecutor(workers, spawn, _begin, (os.getpid(),))

    def everywhere(weights: Weights, seeds: Sequence[int]) -> list[T]:
        plain = {name: value.detach().cpu().numpy() for name, value in weights.items()}
        try:
            return list(pool.map(_play, [play] * len(seeds), [plain] * len(seeds), seeds))
        except BrokenProcessPool:
            raise VolitionError("a process that plays has ended by itself, perhaps for want of memory") from None

    try:
        yield everywhere
    finally:
        pool.shutdown(cancel_futures=True)


def seeds(rng: np.random.Generator, count: int) -> list[int]:
    """So many seeds for `play`."""
    return [int(x) for x in rng.integers(2**62, size=count)]


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _play(play: Callable[[Weights, int], Any], weights: dict[str, np.ndarray], seed: int) -> Any:
    return play({name: torch.from_numpy(value) for name, value in weights.items()}, seed)
