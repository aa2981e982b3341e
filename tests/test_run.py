"""Runs: means worked by hand, exact resume, and no file on disk that makes them fail in any but one way."""

import errno
import hashlib
import json
import os
import random
import shutil
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from volition import checkpoint, machine
from volition.errors import VolitionError
from volition.folder import data_folder, read_config
from volition.progress import Progress
from volition.run import Interrupted, Run
from volition.settings import differences, make_config, plain_config


@dataclass(frozen=True)
class Inner:
    depth: int = 2


@dataclass(frozen=True)
class Config:
    lr: float = 0.5
    sizes: tuple[int, ...] = (3, 4)
    pair: tuple[int, str] = (1, "a")
    kind: Literal["a", "b"] = "a"
    path: Path | None = None
    inner: Inner = field(default_factory=Inner)


class Counter:
    """The least thing that can be tracked."""

    def __init__(self, count: Any = 0) -> None:
        self.count = count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def make(folder: Path, **changes: Any) -> Run:
    settings: dict[str, Any] = {"recipe": "toy", "variant": "tiny", "config": Config(), "quiet": True}
    return Run(folder, **(settings | changes))


def train(folder: Path, updates: int, save: int = 0, fail: int = -1, **changes: Any) -> list[float]:
    """Draw a number per update and count, saving every `save` updates; the numbers drawn in this process."""
    drawn = []
    with pytest.MonkeyPatch.context() as patch, make(folder, **changes) as run:
        patch.setenv("VOLITION_SAVE_UPDATES", str(save))
        counter, net = Counter(), torch.nn.Linear(2, 2)
        run.track(counter=counter, net=net)
        for update in run.loop(updates):
            number = torch.rand((), generator=run.generator) + torch.rand(()) + np.random.rand() + random.random()
            counter.count += 1
            drawn.append(number.item())
            run.log(update, number=number)
            if update == fail:
                raise ZeroDivisionError
    return drawn


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ---- metrics


def test_means_over_intervals(tmp_path: Path) -> None:
    with make(tmp_path, log_every=2) as run:
        for update in run.loop(5):
            run.log(update, a=torch.tensor(float(update)))
            if update % 2:
                run.log(update, b=10 * update)
    # a: (0 + 1)/2, (2 + 3)/2, 4; b: 10, 30, and none in the last interval
    assert lines(tmp_path) == [
        {"update": 2, "a": 0.5, "b": 10.0},
        {"update": 4, "a": 2.5, "b": 30.0},
        {"update": 5, "a": 4.0},
    ]
    assert run.history == lines(tmp_path)


def test_a_metric_is_a_scalar() -> None:
    run = Run()
    with pytest.raises(ValueError, match=r"'a' has shape \(2,\)"):
        run.log(0, a=torch.zeros(2))


def test_curves_are_a_picture(tmp_path: Path) -> None:
    train(tmp_path, 100, log_every=1)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


# ---- resume


def test_resume_within_an_interval_is_exact(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    drawn = train(whole, 20, log_every=6)
    with pytest.raises(ZeroDivisionError):
        train(part, 20, save=8, fail=13, log_every=6)
    # saved at step 8, of which 6 are in the file and 2 under way; the lines and draws up to 13 are undone
    assert [line["update"] for line in lines(part)] == [6, 12]
    assert names(part)[0].startswith("step-000000008")
    assert train(part, 20, log_every=6) == drawn[8:]
    assert (part / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_saving_disturbs_no_random_state(tmp_path: Path) -> None:
    assert train(tmp_path / "a", 9) == train(tmp_path / "b", 9, save=2)


def test_progress_and_curves_disturb_no_random_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any) -> Any:
        random.random(), np.random.rand(), torch.rand(())
        return real(*_)

    before = train(tmp_path / "a", 4)
    real: Any = Progress
    monkeypatch.setattr("volition.run.Progress", greedy)
    assert train(tmp_path / "b", 4) == before
    monkeypatch.undo()
    real = print
    monkeypatch.setattr("volition.run.draw", greedy)
    with make(tmp_path / "c") as run:
        drawn = [(random.random(), np.random.rand(), torch.rand(()).item()) for n in (2, 4) for _ in run.loop(n)]
    with make(tmp_path / "d") as run:
        assert drawn == [(random.random(), np.random.rand(), torch.rand(()).item()) for _ in run.loop(4)]


def test_keeps_the_last_two(tmp_path: Path) -> None:
    train(tmp_path, 9, save=2)
    assert [name[:14] for name in names(tmp_path)] == ["step-000000008", "step-000000009"]


def test_seed_streams_differ_from_one_another_and_between_seeds(tmp_path: Path) -> None:
    def draw(run: Run) -> list[float]:
        return [
            torch.rand((), generator=run.generator).item(),
            torch.rand(()).item(),
            np.random.rand(),
            random.random(),
        ]

    drawn = draw(Run(seed=0)) + draw(Run(seed=1))
    train(tmp_path, 1)
    drawn += draw(Run.open(tmp_path))
    assert len(set(drawn)) == len(drawn)
    assert draw(Run(seed=0)) == drawn[:4]


def test_break_and_error_in_the_body(tmp_path: Path) -> None:
    with make(tmp_path / "a") as run:
        for update in run.loop(10):
            run.log(update, x=1.0)
            if update == 3:
                break
    assert run.step == 4 and run.finished and names(tmp_path / "a")[0].startswith("step-000000004")
    assert lines(tmp_path / "a") == [{"update": 4, "x": 1.0}]
    with make(tmp_path / "a") as run:
        assert list(run.loop(10)) == []
    with pytest.raises(KeyError), make(tmp_path / "b") as run:
        for update in run.loop(10):
            if update == 3:
                raise KeyError
    assert names(tmp_path / "b") == []  # half an update is not a state to go on from


def test_loops_follow_one_another(tmp_path: Path) -> None:
    with make(tmp_path) as run:
        assert list(run.loop(2)) == [0, 1]
        for _ in run.loop(5):
            break  # after update 2
        assert list(run.loop(6)) == [3, 4, 5]
    with make(tmp_path) as run:
        assert list(run.loop(2)) == list(run.loop(5)) == list(run.loop(6)) == []
        assert run.finished
        assert list(run.loop(7)) == [6]


def test_spent_time_adds_up_and_stops_with_the_training(tmp_path: Path) -> None:
    train(tmp_path, 3)
    with make(tmp_path) as run:
        list(run.loop(3))
        before = run.spent
        sum(range(1_000_000))
        assert run.spent == before and min(before) > 0


def test_a_thread_can_train(tmp_path: Path) -> None:
    thread = threading.Thread(target=train, args=(tmp_path, 3))
    thread.start()
    thread.join()
    assert names(tmp_path)[0].startswith("step-000000003")


def test_interrupted_is_not_an_ordinary_exception() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt) and not issubclass(Interrupted, Exception)


# ---- refusals


def refused(match: str):
    return pytest.raises(VolitionError, match=match)


def test_second_process_is_refused_and_looking_is_not(tmp_path: Path) -> None:
    train(tmp_path, 2)
    with make(tmp_path) as run:
        with refused(f"in use by process {os.getpid()}"):
            make(tmp_path)
        looking = Run.open(tmp_path, Config)
        counter = Counter()
        looking.track(counter=counter)
        assert (counter.count, looking.step, looking.config) == (2, 2, run.config)
    make(tmp_path).close()


def test_looking_writes_no_checkpoint_and_needs_one(tmp_path: Path) -> None:
    make(tmp_path).close()
    run = Run.open(tmp_path)
    with refused("no checkpoint in .* yet"):
        run.track(counter=Counter())
    with pytest.raises(ValueError, match="cannot train"):
        list(run.loop(3))
    with refused("is not a run folder"):
        Run.open(tmp_path / "nothing")


@dataclass(frozen=True)
class Later(Config):
    """The same recipe, grown by a setting."""

    more: int = 7


def test_a_setting_that_came_later_has_its_default_to_look(tmp_path: Path) -> None:
    train(tmp_path, 2)
    looking = Run.open(tmp_path, Later)
    looking.track(counter=Counter())
    assert looking.config == Later() and looking.step == 2
    with refused(r"more: '\(absent\)' there, 7 here"), make(tmp_path, config=Later()):
        pass  # but training does not go on with what it did not have


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"config": Config(lr=0.25)}, "lr: 0.5 there, 0.25 here"),
        ({"config": Config(inner=Inner(3))}, "inner.depth: 2 there, 3 here"),
        ({"config": Config(sizes=(3,))}, r"sizes: \[3, 4\] there, \[3\] here"),
        ({"seed": 7}, "seed: 0 there, 7 here"),
        ({"recipe": "other"}, "recipe: 'toy' there, 'other' here"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    train(tmp_path, 2)
    with refused(what):
        make(tmp_path, **changes)
    make(tmp_path).close()  # and the lock was let go


def test_other_settings_are_fine_where_nothing_was_saved(tmp_path: Path) -> None:
    make(tmp_path, seed=1).close()
    make(tmp_path, seed=2).close()
    assert read_config(tmp_path)["seed"] == 2


def test_other_data_is_refused(tmp_path: Path) -> None:
    train(tmp_path, 2)
    with make(tmp_path) as run:
        run.dataset = "MNIST"
        run.track(counter=Counter(), net=torch.nn.Linear(2, 2))
        with refused("trained on built-in and would go on with MNIST"):
            list(run.loop(4))


def test_objects_that_do_not_fit(tmp_path: Path) -> None:
    train(tmp_path, 2)
    with make(tmp_path) as run:
        with refused(r"does not fit 'net' \(.*size mismatch for weight") as error:
            run.track(net=torch.nn.Linear(2, 3))
        assert "\n" not in str(error.value)
    with make(tmp_path) as run:
        with refused("has no 'new'"):
            run.track(new=Counter())
    with make(tmp_path) as run:
        run.track(net=torch.nn.Linear(2, 2))
        with refused("holds 'counter', not tracked here"):
            list(run.loop(4))
    with pytest.raises(ValueError, match="'a' is tracked already"):
        run = Run()
        run.track(a=Counter())
        run.track(a=Counter())


@pytest.mark.parametrize("bad", [np.float64(1), np.zeros(2), {1}, [torch.float32], {"a": (print,)}])
def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path, bad: Any) -> None:
    with make(tmp_path) as run:
        run.track(thing=Counter(bad))
        with pytest.raises(ValueError, match=r"thing\['count'\].* is a .*; state_dict\(\) may hold only"):
            list(run.loop(1))


def test_plain_states_come_back_as_they_were(tmp_path: Path) -> None:
    state = [
        None,
        True,
        2**127,
        -1.5,
        "ü",
        (1, [2]),
        {"a": {3: torch.arange(3)}},
        torch.zeros(0, 2),
        float("inf"),
    ]
    with make(tmp_path) as run:
        run.track(thing=Counter(state), net=torch.nn.BatchNorm1d(2))
        list(run.loop(1))
    back = Counter()
    Run.open(tmp_path).track(thing=back, net=torch.nn.BatchNorm1d(2))
    assert repr(back.count) == repr(state)


def test_a_view_does_not_drag_its_storage_along(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    checkpoint.write(path, {"a": checkpoint.plain(torch.zeros(1_000_000)[:10], "a")})
    assert path.stat().st_size < 10_000


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("no device 'tpu9'"):
        Run(device="tpu9")
    if not torch.cuda.is_available():
        with refused("no CUDA device: use --device cpu"):
            Run(device="cuda")
    with refused("log_every and threads must be 1 or more"):
        Run(log_every=0)
    with refused("--data is .*none, which is not a folder"):
        Run(data=tmp_path / "none")
    monkeypatch.setenv("VOLITION_DATA", str(tmp_path))
    assert Run().data == data_folder() == tmp_path
    monkeypatch.setenv("VOLITION_DATA", "/none")
    with refused(r"\$VOLITION_DATA is /none"):
        Run()


def test_tensorboard_is_asked_for_and_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with refused(r"pip install 'volition\[tensorboard\]'"):
        make(tmp_path, tensorboard=True)
    make(tmp_path).close()


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with refused("cannot use .* as a run folder"):
            make(folder)


# ---- values that are not finite


def broken(run: Run, where: str) -> None:
    first, second = torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)
    net = torch.nn.Sequential(first, second)
    optimizer = torch.optim.Adam(net.parameters())
    run.track(policy=net, optimizer=optimizer)
    for update in run.loop(9):
        loss = net(torch.randn(4, 3)).square().mean()
        if update == 5:
            victim = {
                "parameter": first.weight.data[1, :],
                "gradient": torch.zeros(1) if first.bias.grad is None else first.bias.grad[:1],
                "buffer": torch.zeros(1) if second.running_var is None else second.running_var[:1],
                "optimizer": optimizer.state[first.bias]["exp_avg"][1:],
                "loss": torch.zeros(1),
            }[where]
            victim.fill_(float("inf"))
            loss = loss * float("nan")
        run.log(update, loss=loss)
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("parameter", r"policy.0.weight: 3 of 6 values"),
        ("gradient", r"policy.0.bias.grad: 1 of 2 values"),
        ("buffer", r"policy.1.running_var: 1 of 2 values"),
        ("optimizer", r"optimizer.state\[1\].exp_avg: 1 of 2 values"),
        ("loss", "every tracked tensor is finite, the first bad one is loss itself"),
    ],
)
def test_not_finite_names_the_first_bad_tensor(
    tmp_path: Path, where: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused(f"loss is not finite at update 5: {named}.*failed-000000005.pt.*last good checkpoint is kept"):
        monkeypatch.setenv("VOLITION_SAVE_UPDATES", "2")
        with make(tmp_path) as run:
            broken(run, where)
    assert [name[:14] for name in names(tmp_path)] == ["step-000000002", "step-000000004"]
    saved = torch.load(tmp_path / "failed-000000005.pt", weights_only=True)
    assert saved["step"] == 5 and "policy" in saved["objects"]
    with make(tmp_path) as run:
        assert run.step == 4


def test_not_finite_in_memory() -> None:
    with refused("loss is not finite at update 5: every tracked tensor is finite.*itself; try"):
        broken(Run(), "loss")


# ---- disks


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, 4)
    before = names(tmp_path)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with make(tmp_path) as run:
        run.track(counter=Counter(), net=torch.nn.Linear(2, 2))
        monkeypatch.setattr(checkpoint.os, "fsync", full)
        with refused("cannot save step 6 .*No space left on device.*last good checkpoint is kept"):
            list(run.loop(6))
    assert names(tmp_path) == before  # no temporary file either


def test_a_device_that_is_full_for_real() -> None:
    with pytest.raises(OSError) as error:
        checkpoint.write(Path("/dev/full"), {"a": torch.zeros(1_000_000)})
    assert error.value.errno == errno.ENOSPC


def test_leftovers_of_a_killed_save_go(tmp_path: Path) -> None:
    train(tmp_path, 2)
    (tmp_path / "checkpoints" / ".saving-123").write_bytes(b"half")
    make(tmp_path).close()
    assert len(names(tmp_path)) == 1


def test_damaged_metrics_are_put_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, 20)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(damaged := path.read_bytes()[:-5])
    train(tmp_path, 30)
    assert "metrics.jsonl is damaged; it is kept as metrics.damaged" in capsys.readouterr().err
    assert (tmp_path / "metrics.damaged").read_bytes() == damaged
    assert [line["update"] for line in lines(tmp_path)] == [30]


# ---- damage to anything


class Bomb:
    """What a hostile checkpoint would hold."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_bomb_is_never_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", 2)
    mark = tmp_path / "boom"
    for name in ("step-000000009-0123456789abcdef.pt", None):
        bomb = tmp_path / "bomb.pt"
        torch.save({"format": checkpoint.FORMAT, "step": 9, "objects": Bomb(mark)}, bomb)
        digest = hashlib.sha256(bomb.read_bytes()).hexdigest()[:16]
        target = tmp_path / "run" / "checkpoints" / (name or f"step-000000009-{digest}.pt")
        bomb.rename(target)
        looking = Run.open(tmp_path / "run")
        looking.track(counter=Counter())
        with make(tmp_path / "run") as run:
            assert run.step == looking.step == 2
        said = capsys.readouterr().err
        assert f"checkpoint {target} is damaged" in said and "going on from step 2" in said
        assert not target.exists() and target.with_suffix(".damaged").exists()
    assert not mark.exists()
    # the bomb would have gone off, had it been loaded as pickles are
    torch.load(target.with_suffix(".damaged"), weights_only=False)
    assert mark.exists()


def test_when_all_are_damaged_the_folder_is_named(tmp_path: Path) -> None:
    train(tmp_path, 6, save=3)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with refused(
        f"every checkpoint in {tmp_path}/checkpoints is damaged .*step-000000006.*step-000000003.*delete them"
    ):
        make(tmp_path)
    assert len(names(tmp_path)) == 2  # nothing was removed


def test_a_renamed_checkpoint_is_damaged(tmp_path: Path) -> None:
    train(tmp_path, 6, save=3)
    newest = next((tmp_path / "checkpoints").glob("step-000000006-*"))
    newest.rename(newest.with_name(newest.name.replace("6-", "8-", 1)))
    mine = tmp_path / "checkpoints" / "mine.pt"
    mine.write_bytes(b"")
    with make(tmp_path) as run:
        assert run.step == 3
    train(tmp_path, 9, save=1)
    assert mine.exists()  # what we did not write we do not remove


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, 2)
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with refused("has format 1, this Volition reads 2"):
        make(tmp_path)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Cut the data, or flip some of its bits, or replace a stretch."""
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        start = rng.randrange(len(data))
        return data[:start] + rng.randbytes(rng.randint(1, 20)) + data[start + rng.randint(0, 20) :]
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("part", range(4))
def test_no_damage_does_more_than_say_so(tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volition.run.draw", lambda *_: None)  # pictures are slow and not in question
    origin = tmp_path / "origin"
    train(origin, 30, save=15)
    older, newest = sorted((origin / "checkpoints").iterdir())
    rng = random.Random(part)
    fallbacks = refusals = 0
    for case in range(75):
        folder = tmp_path / f"case{case}"
        shutil.copytree(origin, folder)
        target = folder / rng.choice(["newest", "forged", "both", "config.json", "metrics.jsonl"])
        if target.name in ("newest", "both", "forged"):
            damaged = mutate(newest.read_bytes(), rng)
            path = folder / "checkpoints" / newest.name
            path.write_bytes(damaged)
            if target.name == "forged":  # with a digest that is right: only weights_only protects now
                path.rename(path.with_name(f"step-000000030-{hashlib.sha256(damaged).hexdigest()[:16]}.pt"))
            if target.name == "both":
                path = folder / "checkpoints" / older.name
                path.write_bytes(mutate(path.read_bytes(), rng))
        else:
            target.write_bytes(mutate(target.read_bytes(), rng))
        for look in (True, False):
            counter, net = Counter(), torch.nn.Linear(2, 2)
            try:
                if look:
                    run = Run.open(folder, Config)
                    run.track(counter=counter, net=net)
                else:
                    with make(folder) as run:
                        run.track(counter=counter, net=net)
                        list(run.loop(31))
                        assert read_config(folder)["config"] == plain_config(Config())
                assert run.step in ((15, 30) if look else (31,))
                fallbacks += run.step == 15
            except VolitionError as error:
                assert "\n" not in str(error) and str(folder) in str(error)
                refusals += 1
        shutil.rmtree(folder)
    assert fallbacks > 5 and refusals > 5  # both ways were gone


# ---- settings and results


def test_settings_survive_json() -> None:
    config = Config(lr=1, sizes=(), pair=(3, "x"), kind="b", path=Path("/a"), inner=Inner(5))
    back = make_config(Config, json.loads(json.dumps(plain_config(config))))
    assert back == config and type(back.lr) is float and type(back.path) is type(Path())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "x"),
        ("lr", True),
        ("sizes", 3),
        ("sizes", ["a"]),
        ("pair", [1]),
        ("kind", "c"),
        ("path", 3),
        ("inner", 1),
        ("new", 1),
    ],
)
def test_settings_of_a_wrong_kind_are_named(name: str, value: Any) -> None:
    with refused(f"config: .*{name}"):
        make_config(Config, plain_config(Config()) | {name: value})


def test_differences_name_nested_fields() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": 3}, "e": 0}
    now = {"a": 1, "b": {"c": [1], "d": 3}, "f": 0}
    assert differences(before, now) == {"b.c": ([1, 2], [1]), "e": (0, "(absent)"), "f": ("(absent)", 0)}


def test_a_result_says_where_it_comes_from(tmp_path: Path) -> None:
    train(tmp_path, 4, seed=3, config=Config(lr=0.25))
    run = Run.open(tmp_path, Config, command="volition evaluate x")
    run.track(counter=Counter())
    run.dataset = "MNIST"
    run.record({"error": torch.tensor(2.5), "steps": [1, 2.0]}, Config())
    (line,) = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert line["metrics"] == {"error": 2.5, "steps": [1.0, 2.0]}
    assert (line["recipe"], line["variant"], line["seed"], line["updates"]) == ("toy", "tiny", 3, 4)
    assert (line["data"], line["trained_on"], line["changed"]) == ("MNIST", "built-in", {"lr": 0.25})
    assert line["command"] == "volition evaluate x" and line["versions"]["torch"] == torch.__version__
    assert line["machine"]["cores"] >= 1 and line["commit"] == machine.commit()
    with refused("the evaluation gave error = nan"):
        run.record({"error": float("nan")})


def test_memory_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run()
    run.track(counter=Counter())
    for update in run.loop(20):
        run.log(update, x=update)
    assert [line["x"] for line in run.history] == [4.5, 14.5]
    run.path("picture.png").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_death_before_the_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "killed", 8, fail=5, log_every=2)  # lines for updates 2 and 4 are written, no checkpoint is
    assert (tmp_path / "killed" / "metrics.jsonl").read_text().count("\n") == 2 and not names(tmp_path / "killed")
    train(tmp_path / "killed", 8, log_every=2)
    train(tmp_path / "whole", 8, log_every=2)
    killed, whole = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("killed", "whole"))
    assert killed == whole
