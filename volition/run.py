"""One folder per run: settings, metrics, checkpoints, random states, exact resume."""

import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

import numpy as np
import torch

from volition import checkpoint, distributed, machine
from volition.errors import VolitionError
from volition.folder import data_folder, read_config, take, write_config
from volition.machine import cpu_seconds, provenance, trim_memory
from volition.metrics import Metrics, draw, first_bad, tensorboard_writer
from volition.progress import Progress, say
from volition.results import append_result, result_line
from volition.settings import ABSENT, differences, make_config, plain_config

FORCE = "VOLITION_SAVE_UPDATES"  # tests: save every so many updates, whatever the clock says
ANOTHER = "use the version of Volition that wrote it, or another folder with --run"


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or SIGTERM after saving; the message says how to go on."""


class Run:
    """A training run in `folder`, or in memory without one; goes on from the newest good checkpoint there.

    Use it as `with Run(folder, …) as run:`. Leaving the block without an error ends the run also where the
    recipe left its loop by `break`, and lets go of the folder. Making a run seeds torch, NumPy and Python's random.
    """

    _lock: IO[str] | None

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        recipe: str = "",
        variant: str = "",
        config: Any = None,
        seed: int = 0,
        device: str = "auto",
        data: str | Path | None = None,
        threads: int | None = None,
        sharded: bool = False,
        save_every: float = 60.0,
        log_every: int = 10,
        tensorboard: bool = False,
        quiet: bool | None = None,
        command: str = "",
    ) -> None:
        if log_every < 1 or seed < 0 or (threads is not None and threads < 1):
            raise VolitionError("log_every and threads must be 1 or more, seed 0 or more")
        self._begin(folder, device, data_folder(data), seed, stream=0)
        self.recipe, self.variant, self.config, self.command = recipe, variant, config, command
        self.save_every, self.log_every = save_every, log_every
        self.quiet = folder is None if quiet is None else quiet
        if threads is not None:
            torch.set_num_threads(threads)
        distributed.check(self.device)
        self.sharded = sharded
        if sharded and distributed.size() == 1:
            raise VolitionError("--sharded spreads a model over several processes: start them with torchrun")
        writes = distributed.first()
        self._metrics = Metrics(self.folder / "metrics.jsonl" if self.folder and writes else None)
        if self.folder is not None and writes:
            self._lock = take(self.folder)
        try:
            if self.folder is not None:
                if writes:
                    self._restore(self.folder, threads)
                distributed.wait()  # until nothing is mended any more
                if not writes:
                    self._restore(self.folder, threads)
                if distributed.agreed(self.step) != self.step:
                    raise VolitionError(f"{self.folder} is not the same for all processes: give a folder they share")
            board = tensorboard and writes
            self._board = tensorboard_writer(self.path("tensorboard"), self.step) if board else None
        except BaseException:
            self.close()
            raise

    def _begin(self, folder: str | Path | None, device: str, data: Path | None, seed: int, stream: int) -> None:
        self.folder = None if folder is None else Path(folder)
        self.device = machine.device(device)
        self.data = data
        self.seed = seed
        self.step = 0
        # a recipe that reads real data says so by writing the name of PAPER["data"] here, before its loop
        self.dataset = "built-in"
        self.trained_on: str | None = None
        self.trained_by: dict[str, Any] | None = None  # command and commit, of a run opened for looking
        self.read_only = False
        self.sharded = False
        self._objects: dict[str, Any] = {}
        self._restored: dict[str, Any] | None = None
        self._finished = 0  # the largest number of updates that a loop was asked for and ended
        self._left: int | None = None  # that number, while a body has left its loop
        self._stop = False
        self._lock = None
        self._temporary: str | None = None
        self._spent = (0.0, 0.0)  # CPU and wall seconds before the clock was started
        self._clock: tuple[float, float] | None = (cpu_seconds(), time.monotonic())
        import_module("rich.style")  # draws from Python's random then, and scikit-learn does it in the midst of a run
        # streams that differ, so that initial weights, sampled noise and evaluation never share numbers
        seeds = [int(n) for n in np.random.SeedSequence([seed, stream]).generate_state(4)]
        torch.manual_seed(seeds[0])
        np.random.seed(seeds[1])
        random.seed(seeds[2])
        self.generator = torch.Generator(self.device).manual_seed(seeds[3])

    @classmethod
    def open(
        cls,
        folder: str | Path,
        kind: type | None = None,
        *,
        device: str = "auto",
        data: str | Path | None = None,
        command: str = "",
    ) -> Self:
        """The run in `folder` for looking only, even while it trains; its config is a `kind`, else a dict."""
        saved = read_config(folder)
        run = cls.__new__(cls)
        # what it was trained with, whatever $VOLITION_DATA says now
        trained_with = Path(saved["data"]) if saved["data"] else None
        run._begin(folder, device, data_folder(data) if data else trained_with, saved["seed"], stream=1)
        run.recipe, run.variant, run.command = saved["recipe"], saved["variant"], command
        config = saved["config"]
        run.config = make_config(kind, config, f"{Path(folder) / 'config.json'}") if kind else config
        run.quiet, run.read_only = True, True
        run.trained_by = {key: saved.get(key) for key in ("command", "commit")}
        run._clock = None
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._settle()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the folder; what came after the last checkpoint is not saved."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def path(self, name: str) -> Path:
        """Where to put the file `name`: in the run's folder, or in a temporary one for a run in memory."""
        if self.folder is not None:
            return self.folder / name
        if self._temporary is None:
            self._temporary = distributed.agreed(tempfile.mkdtemp(prefix="volition-") if distributed.first() else "")
        return Path(self._temporary) / name

    # ---- what a recipe calls

    def track(self, **objects: Any) -> None:
        """Save these objects (state_dict, load_state_dict) with the run; restored at once from a checkpoint.

        Everything that the loop reads is tracked, or made before this.
        """
        for name, thing in objects.items():
            if name in self._objects:
                raise ValueError(f"{name!r} is tracked already")
            if self.read_only and self._restored is None:
                self._look()
            self._objects[name] = thing
            if self._restored is None:
                continue
            state = self.saved(name)
            try:
                with distributed.filling():
                    thing.load_state_dict(state)
            except VolitionError:
                raise
            except Exception as error:  # each kind of object complains in its own way
                reason = " ".join(str(error).split())[:300]
                raise VolitionError(
                    f"the checkpoint in {self.folder} does not fit {name!r} ({reason}): {ANOTHER}"
                ) from None

    def loop(self, updates: int) -> Iterator[int]:
        """Yield the updates still to do, up to `updates`; counts, saves and minds Ctrl-C after each body.

        A `break` ends training early and counts as finished; further loops with larger `updates` may follow.
        """
        if self.read_only:
            raise ValueError("a run opened for looking cannot train")
        self._settle()
        if self._finished >= updates:
            if self._restored is not None:
                self._clock = None
                if not self.quiet:
                    say(f"{self.name} is finished ({self.step} updates in {self.folder}); nothing to train")
            return
        self._go_on()
        with checkpoint.undisturbed(self.generator):
            progress = Progress(self.name, self.step, updates, self.quiet)
        handlers = self._catch_signals()
        self._saved_at = self._trimmed_at = time.monotonic()
        forced = int(os.environ.get(FORCE, 0))
        try:
            while self.step < updates:
                try:
                    yield self.step
                except GeneratorExit:
                    self._left = updates  # by break or by an error: only the one who holds the run can tell
                    raise
                line = self._count()
                progress.show(self.step, line)
                if self.step >= updates:
                    break
                now = time.monotonic()
                stop, due = distributed.either(self._stop, now - self._saved_at >= self.save_every)
                if stop:
                    self._save()
                    how = self.command or "make the same call"
                    raise Interrupted(
                        f"stopped at update {self.step} of {updates}, saved in {self.folder}; to go on: {how}"
                    )
                if now - self._trimmed_at >= 10:
                    trim_memory()
                    self._trimmed_at = now
                if due or (forced and self.step % forced == 0):
                    self._save()
            self._end(updates)
        finally:
            progress.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def resume(self) -> None:
        """Go on here and now, as the next loop would: what is tracked after this is new, not in the checkpoint.

        For a recipe of several steps that was stopped just between two of them.
        """
        if self._restored is not None and not self.read_only:
            self._go_on()

    def saved(self, name: str) -> dict[str, Any]:
        """The state of the object `name` in the newest good checkpoint of a run opened for looking."""
        if self._restored is None:
            self._look()
        assert self._restored is not None
        if name not in self._restored["objects"]:
            raise VolitionError(f"the checkpoint in {self.folder} has no {name!r}: {ANOTHER}")
        return self._restored["objects"][name]

    def log(self, update: int, **scalars: float | torch.Tensor) -> None:
        """Record scalars of `update`; their means over each interval of `log_every` updates are written."""
        for name, value in scalars.items():
            if not self._metrics.add(name, value):
                self._fail(name, update)

    def record(self, results: dict[str, Any], variant_config: Any = None) -> dict[str, Any]:
        """Append `results` to results.jsonl with all that places and repeats them; the line is returned."""
        self._settle()
        line = result_line(self, results, variant_config)
        if self.folder is not None:
            append_result(self.folder, line)
        return line

    @property
    def name(self) -> str:
        """Recipe and variant, as the command line writes them."""
        return f"{self.recipe}:{self.variant}" if self.variant else self.recipe or "run"

    @property
    def finished(self) -> bool:
        """Whether the training so far is whole: its last loop ended, by itself or by break."""
        return self.step > 0 and self._finished >= self.step

    @property
    def history(self) -> list[dict[str, float]]:
        """The lines of metrics so far."""
        return self._metrics.history

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to belong to this run."""
        config = self.config if isinstance(self.config, dict) else plain_config(self.config)
        return {"recipe": self.recipe, "seed": self.seed, "device": self.device.type, "config": config}

    @property
    def spent(self) -> tuple[float, float]:
        """CPU and wall seconds of training so far, over all its processes."""
        if self._clock is None:
            return self._spent
        cpu, wall = self._clock
        return self._spent[0] + distributed.total(cpu_seconds() - cpu), self._spent[1] + time.monotonic() - wall

    # ---- inside

    def _restore(self, folder: Path, threads: int | None) -> None:
        state, damaged = checkpoint.newest(folder / "checkpoints")
        if state is not None:
            self._take_state(state)
            for path, reason in damaged:
                path.rename(path.with_suffix(".damaged"))  # so that it is not counted among the last two
                say(f"volition: checkpoint {path} is damaged ({reason}); going on from step {self.step}")
            try:
                notice = self._metrics.load_state_dict(state["metrics"])
            except (KeyError, TypeError, ValueError, AttributeError):
                raise VolitionError(f"the newest checkpoint in {folder} has no metrics: {ANOTHER}") from None
            if notice:
                say(f"volition: {notice}")
        else:
            self._metrics.begin()
        if not distributed.first():
            return
        if state is not None:
            try:
                if not self._differences(read_config(folder)):
                    return
            except VolitionError:
                say(f"volition: {folder / 'config.json'} is missing or damaged; it is written anew")
        write_config(
            folder,
            self.settings
            | {
                "variant": self.variant,
                "data": None if self.data is None else str(self.data.resolve()),
                "threads": threads,
                "command": self.command,
                **provenance(),
            },
        )

    def _look(self) -> None:
        assert self.folder is not None
        state, damaged = checkpoint.newest(self.folder / "checkpoints")
        if state is None:
            raise VolitionError(f"there is no checkpoint in {self.folder} yet: train it first")
        self._take_state(state)
        for path, reason in damaged:
            say(f"volition: checkpoint {path} is damaged ({reason}); looking at step {self.step}")

    def _take_state(self, state: dict[str, Any]) -> None:
        if found := self._differences(state["settings"]):
            what = ", ".join(f"{name}: {before!r} there, {now!r} here" for name, (before, now) in found.items())
            raise VolitionError(
                f"the checkpoint in {self.folder} was made with other settings ({what}); "
                "give the same settings to go on, or another folder with --run"
            )
        self._restored = state
        self.step, self._finished = state["step"], state["finished"]
        self._spent = (state["cpu_seconds"], state["wall_seconds"])
        self.trained_on = str(state["settings"].get("dataset"))

    def _differences(self, saved: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Settings that differ; a config's fields go by their own names. To look, what came later may be absent."""
        mine = self.settings
        alike = {"config"} | ({"device"} if self.read_only else set())
        found = {n: (saved.get(n), now) for n, now in mine.items() if n not in alike and saved.get(n) != now}
        inner = differences(saved.get("config"), mine["config"])
        return found | {n: pair for n, pair in inner.items() if not (self.read_only and pair[0] == ABSENT)}

    def _go_on(self) -> None:
        """Before the first update of this process: put back the random states, when all else is in place."""
        self._stop = False
        self._clock = self._clock or (cpu_seconds(), time.monotonic())
        state, self._restored = self._restored, None
        if state is None:
            self.trained_on = self.dataset
            if not self.quiet and self.dataset != "built-in":
                say(f"data: {self.dataset}")
            return
        if lost := sorted(set(state["objects"]) - set(self._objects)):
            raise VolitionError(f"the checkpoint in {self.folder} holds {lost[0]!r}, not tracked here: {ANOTHER}")
        if self.trained_on != self.dataset:
            raise VolitionError(
                f"the run in {self.folder} was trained on {self.trained_on} and would go on with "
                f"{self.dataset}: give the same --data, or another folder with --run"
            )
        try:
            checkpoint.set_random_states(state["random"], self.generator)
        except Exception as error:  # torch and NumPy each complain in their own way
            reason = " ".join(str(error).split())[:200]
            raise VolitionError(f"the random states in {self.folder} do not fit ({reason}): {ANOTHER}") from None

    def _count(self) -> dict[str, float] | None:
        self.step += 1
        return self._flush() if self.step % self.log_every == 0 else None

    def _flush(self) -> dict[str, float] | None:
        if name := self._metrics.settle():
            self._fail(name, self.step - 1)
        line = self._metrics.flush(self.step)
        if line and self._board:
            for name, value in line.items():
                if name != "update":
                    self._board.add_scalar(name, value, self.step)
        return line

    def _save(self) -> None:
        """Write a checkpoint between two updates; nothing random is drawn or changed."""
        if self.folder is None or self._restored is not None:  # in memory, or nothing was trained since
            return
        if name := self._metrics.settle():
            self._fail(name, self.step - 1)
        state = self._state()
        if distributed.first():
            checkpoint.save(self.folder / "checkpoints", state)
        self._saved_at = time.monotonic()

    def _end(self, updates: int) -> None:
        self._flush()
        self._finished = updates
        self._spent, self._clock = self.spent, None
        if self.folder is None:
            return
        self._save()
        if not distributed.first():
            return
        if self._board:
            self._board.flush()
        try:
            with checkpoint.undisturbed(self.generator):
                draw(self.history, self.folder / "curves.png", f"{self.name}, seed {self.seed}")
        except OSError as error:
            say(f"volition: curves.png was not drawn ({error.strerror or error}); all else is saved")

    def _settle(self) -> None:
        """End a loop that its body left: whoever gets here without an error met a break."""
        if self._left is not None:
            updates, self._left = self._left, None
            self._count()
            self._end(updates)
            if not self.quiet:
                say(f"{self.name}: done at update {self.step}, before the {updates} allowed")

    def _state(self) -> dict[str, Any]:
        cpu, wall = self.spent
        return {
            "format": checkpoint.FORMAT,
            "settings": self.settings | {"variant": self.variant, "dataset": self.dataset},
            "step": self.step,
            "finished": self._finished,
            "objects": {n: checkpoint.plain(thing.state_dict(), n) for n, thing in self._objects.items()},
            "random": checkpoint.random_states(self.generator),
            "metrics": self._metrics.state_dict(),
            "cpu_seconds": cpu,
            "wall_seconds": wall,
        }

    def _catch_signals(self) -> dict[int, Any]:
        if self.folder is None or threading.current_thread() is not threading.main_thread():
            return {}

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stop:
                if distributed.size() > 1:  # torchrun repeats the signal at once, and ends all after 30 seconds
                    return
                raise KeyboardInterrupt
            self._stop = True
            say("\nvolition: saving after this update; once more to stop at once")

        return {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _fail(self, name: str, update: int) -> None:
        bad, kept = first_bad(self._objects), ""
        bad = bad or f"every tracked tensor is finite, the first bad one is {name} itself"
        if self.folder is not None:
            path = self.folder / f"failed-{self.step:09d}.pt"
            state = self._state()
            try:
                if distributed.first():
                    checkpoint.write(path, state)
                kept = f"; the state is in {path}, the last good checkpoint is kept"
            except OSError as error:
                kept = f"; the state could not be saved ({error.strerror or error})"
        raise VolitionError(f"{name} is not finite at update {update}: {bad}{kept}; try a smaller lr or another seed")
