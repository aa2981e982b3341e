"""What the drivers of feedback_speed.py share: the cases, the data, and the clock between two steps.

A driver trains without end and calls `pace` after each step; the parent says when to go on, so that several libraries
take turns step by step. Drivers run in the peers' own Python: nothing here needs more than the standard library.
"""

import ctypes
import gc
import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCAB, LAYERS, WIDTH, HEADS, CONTEXT = 8192, 4, 256, 4, 256
EOS, PAD = 0, 1
LR, BETAS, EPSILON, MAX_NORM = 1e-5, (0.9, 0.95), 1e-5, 1.0  # of Adam; a small lr keeps every step's work the same
GAMMA, LAM, CLIP, KL = 1.0, 0.95, 0.2, 0.02


@dataclass(frozen=True)
class Case:
    """`batch` texts, rankings or completions a step, of so many tokens, EOS counted."""

    batch: int
    prompt: int
    completion: int
    shortest: int = 0
    """Completions have from so many tokens on, and share rows; 0: all have `completion`."""
    ways: int = 0
    """Completions of a prompt that were ranked."""
    epochs: int = 0
    minibatches: int = 0
    ptx: bool = False

    @property
    def kind(self) -> str:
        return "reward" if self.ways else "ppo" if self.epochs else "sft"


CASES = {
    "sft": Case(16, 1, 127),
    "sft-prompts": Case(16, 64, 64),
    "sft-lengths": Case(28, 1, 127, shortest=15),
    "reward-2": Case(24, 32, 32, ways=2),
    "reward-4": Case(8, 32, 32, ways=4),
    "reward-9": Case(2, 32, 32, ways=9),
    "reward-9-long": Case(1, 192, 32, ways=9),
    "ppo-4x1": Case(64, 32, 32, epochs=4, minibatches=1),
    "ppo-1x8": Case(64, 32, 32, epochs=1, minibatches=8),
    "ptx-1x8": Case(64, 32, 32, epochs=1, minibatches=8, ptx=True),
}


def words(rng: random.Random, count: int) -> str:
    """Random words, each of them a token."""
    return " ".join(f"w{rng.randrange(2, VOCAB)}" for _ in range(count))


def rows(case: Case, count: int = 320) -> list[dict[str, Any]]:
    """Rows as our recipes read them; the last word of a text is the EOS that both sides add."""
    rng, found = random.Random(0), []
    for _ in range(count):
        sizes = [rng.randint(case.shortest or case.completion, case.completion) for _ in range(case.ways or 1)]
        prompt, said = words(rng, case.prompt), [words(rng, size - 1) for size in sizes]
        if case.kind == "reward":
            found.append({"prompt": prompt, "completions": said, "rank": list(range(1, case.ways + 1))})
        elif case.kind == "sft":
            found.append({"prompt": prompt, "completion": said[0]})
        else:
            found.append({"prompt": prompt, "text": words(rng, case.prompt + case.completion - 1)})
    return found


def memory() -> dict[str, float]:
    """MiB that this process holds now, and its peak since it was last forgotten."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}


def pacer() -> Callable[..., None]:
    """`pace(**more)`: says what the step since the last call took, and waits to be told to go on.

    The first call, before the first step, says what was loaded. Only this writes to what was standard output.
    """
    wire = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    first, start, base = True, 0.0, 0.0

    def pace(**more: Any) -> None:
        nonlocal first, start, base
        if first:
            first = False
            gc.collect()
            if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
                libc.malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak
            base = memory()["VmRSS"]
        else:
            more |= {"cpu_seconds": time.process_time() - start, "peak_mib": memory()["VmHWM"] - base}
        wire.write(json.dumps(more) + "\n")
        wire.flush()
        if not sys.stdin.readline():
            os._exit(0)  # enough: training knows no end of its own
        start = time.process_time()

    return pace
