"""Processes that torchrun started learn one model together: each computes its rows of a batch, gradients are summed.

All draw the same random numbers, for the whole batch, and then take rows rank, rank + size, …; so all are in one state
at all times, the one in which a single process with that batch would be, and a checkpoint fits any number of them.
A loss is a mean over the whole batch: a process has its rows' share of it, and shares are summed, never averaged.
In one process nothing here does anything. That there are several is known to torch.distributed alone.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from volition.errors import VolitionError

PATIENCE = timedelta(hours=12)  # others wait while the first trains a small GPT; who is lost is noticed at once
BUCKET = 2**25  # gradients are sent in parts of about this many numbers


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Be one of torchrun's processes for the length of the block; only the first speaks, or the first to fail."""
    try:
        store, number, count = next(dist.rendezvous("env://"))
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise VolitionError(f"torchrun's processes do not find each other ({_short(error)})") from None
    try:
        with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as silent:
            if number:
                silent.enter_context(contextlib.redirect_stdout(nowhere))
                silent.enter_context(contextlib.redirect_stderr(nowhere))
            yield
            wait()
    except KeyboardInterrupt:  # of all together
        if number:
            raise SystemExit(130) from None
        raise
    except Exception as error:
        if not _is_first(store):  # the same mistake, or what it led to
            raise SystemExit(2) from None
        if isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise VolitionError(
                f"process {number} of {count} has lost another, which was killed or failed ({_short(error)}); "
                "the same command goes on from the last checkpoint"
            ) from None
        raise
    dist.destroy_process_group()


def _is_first(store: dist.Store) -> bool:
    """Whether no other process has failed before; causes come before what they lead to."""
    try:
        return store.add("volition/failed", 1) == 1
    except RuntimeError:  # it went with the process that kept it
        return True


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank() == 0


def check(device: torch.device) -> None:
    """VolitionError where two processes would share a GPU."""
    if size() > 1 and device.type == "cuda":
        here, there = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
        if here > there:
            raise VolitionError(f"{here} processes here and {there} GPUs: give torchrun --nproc-per-node {there}")


# ---- a batch


def mine(count: int) -> slice:
    """Which of the `count` rows of a batch are computed here."""
    if count < size():
        raise VolitionError(f"{size()} processes have no row each of {count}: make batches larger, or fewer processes")
    return slice(rank(), None, size())


def fraction(count: int) -> float:
    """This process' part of what all count together: what a mean over its rows weighs in that over all."""
    return count / _reduced([count])[0] if size() > 1 else 1.0


def gather(rows: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The whole batch of `count` rows from each process' own, `[its rows, …]` each → `[count, …]`."""
    if size() == 1:
        return rows
    most = -(-count // size())
    found = {}
    for name, x in rows.items():
        padded = torch.cat([x, x.new_zeros(most - len(x), *x.shape[1:])])
        parts = [torch.empty_like(padded) for _ in range(size())]
        dist.all_gather(parts, padded)
        found[name] = torch.stack(parts, 1).flatten(0, 1)[:count]  # row i is the (i // size)-th of process i % size
    return found


def summed(shares: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars of which each process has a share, whole."""
    if size() == 1:
        return shares
    device = next(iter(shares.values())).device
    total = torch.stack([x.detach().to(device, torch.double) for x in shares.values()])
    dist.all_reduce(total)
    return dict(zip(shares, total, strict=True))


@torch.no_grad()
def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Gradients summed over all processes, in each; those of sharded parameters are summed in the backward pass."""
    if size() == 1:
        return
    bucket: list[Tensor] = []
    alone = [p for p in parameters if not hasattr(p, "full_tensor")]
    for i, p in enumerate(alone):
        if p.grad is None:  # here no row reached it, elsewhere one may have
            p.grad = torch.zeros_like(p)
        bucket.append(p.grad)
        if i + 1 == len(alone) or sum(x.numel() for x in bucket) >= BUCKET:
            flat = torch.cat([x.flatten() for x in bucket])
            dist.all_reduce(flat)
            for x, part in zip(bucket, flat.split([x.numel() for x in bucket]), strict=True):
                x.copy_(part.view_as(x))
            bucket = []


# ---- what all must agree on


def wait() -> None:
    """Go on when all processes are here."""
    if size() > 1:
        _reduced([0])


def agreed(value: Any) -> Any:
    """The first process' value, in all."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, device=torch.device("cpu"))
    return box[0]


def either(*flags: bool) -> tuple[bool, ...]:
    """Each flag: whether it is up in any process."""
    return tuple(x > 0 for x in _reduced(flags)) if size() > 1 else flags


def total(value: float) -> float:
    """The sum over all processes."""
    return _reduced([value])[0] if size() > 1 else value


def _reduced(values: Iterable[float]) -> list[float]:
    """Sums over processes, on the CPU: no GPU is waited for."""
    found = torch.tensor([float(x) for x in values], dtype=torch.double)
    dist.all_reduce(found)
    return found.tolist()


# ---- tensors in parts (FSDP2's, volition/nets/sharded.py)


def whole(x: Tensor) -> Tensor:
    """The tensor; one that lies in parts as a whole on the first process' CPU, to be called by all."""
    if not hasattr(x, "full_tensor"):
        return x
    found: Tensor = x.full_tensor()
    return found.cpu() if first() or found.dim() == 0 else found[:0]


@contextlib.contextmanager
def filling() -> Iterator[None]:
    """Within the block `x.copy_(whole)` gives each process its part, where x lies in parts."""
    if size() == 1:
        yield
        return
    from torch.distributed.tensor.experimental import implicit_replication

    with implicit_replication():
        yield
