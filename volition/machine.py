"""Where a number came from: the code, the versions, the machine and the CPU time."""

import ctypes
import functools
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import volition
from volition.errors import VolitionError


@functools.cache  # of the code as it was loaded
def commit() -> str | None:
    """The commit of the code that runs, `-dirty` when its files differ from it; None outside a repository."""
    package = Path(volition.__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", package, *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # an installed package may lie inside a stranger's repository (its .venv): only a tracked one counts
    if not git("ls-files", "__init__.py"):
        return None
    head = git("rev-parse", "--short=12", "HEAD")
    return head and head + ("-dirty" if git("status", "--porcelain", ".") else "")


@functools.cache
def machine() -> dict[str, Any]:
    """CPU model, usable cores and GPU."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model,
        "cores": cores,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {
        "python": platform.python_version(),
        "volition": volition.__version__,
        "torch": torch.__version__,
    }
    for name in ("numpy", "gymnasium"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return {name: str(version) for name, version in found.items()}


def cpu_seconds() -> float:
    """CPU time of this process, its threads and its finished children, in seconds."""
    times = os.times()  # counts in hundredths: too coarse for this process, well enough for its children
    return time.process_time() + times.children_user + times.children_system


def device(name: str) -> torch.device:
    """The device that auto, cpu or cuda names; VolitionError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise VolitionError(f"there is no device {name!r} for training: use auto, cpu or cuda")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise VolitionError("this machine or this build of torch has no CUDA device: use --device cpu or auto")
    return found


def provenance() -> dict[str, Any]:
    """Commit, versions, machine and the time now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"commit": commit(), "versions": versions(), "machine": machine(), "time": now}


def trim_memory() -> None:
    """Give free memory back to the system.

    glibc's heap falls to pieces under training's many aligned blocks of changing size, and grows without bound until
    this is called now and then. Other C libraries have no such call.
    """
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the machine has instructions for bfloat16 products; elsewhere they would be slower than float32's."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
