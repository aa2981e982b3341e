"""Every recipe keeps the promises of a run: it works, it repeats, it goes on after any kill unharmed."""

import functools
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Launcher, steps  # pyrefly: ignore

from volition import checkpoint, zoo
from volition.cli import main

NAMES = ["toy", *(recipe.name for recipe in zoo.recipes())]
every_recipe = pytest.mark.parametrize("name", NAMES)


def final(folder: Path) -> dict:
    """The last checkpoint but for the time it took."""
    state, damaged = checkpoint.newest(folder / "checkpoints")
    assert state is not None and not damaged
    return {name: value for name, value in state.items() if not name.endswith("_seconds")}


def assert_same(a: object, b: object, where: str = "state") -> None:
    """Equal to the last bit, tensors included."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape, where
        assert a.numpy(force=True).tobytes() == b.numpy(force=True).tobytes(), where
    elif isinstance(a, dict):
        assert isinstance(b, dict) and list(a) == list(b), where
        for name in a:
            assert_same(a[name], b[name], f"{where}[{name!r}]")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple) and len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def command(name: str, folder: Path | str) -> list[str]:
    return ["train", f"{name}:tiny", "--run", str(folder), "--quiet", "--log-every", "4"]


@pytest.fixture(scope="module")
def whole(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a recipe's run that nothing interrupted, made once in a process of its own."""

    @functools.cache
    def train(name: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / name
        job = launch(command(name, folder), folder.parent)
        assert job.wait() == 0, job.text
        return folder

    return train


@every_recipe
def test_train_evaluate_watch_table(name: str, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"{name}:tiny"]) == 0
    folder = toy / "runs" / f"{name}-tiny-0"
    assert (folder / "curves.png").stat().st_size > 1000
    assert capsys.readouterr().out.endswith(f"next: volition evaluate runs/{name}-tiny-0\n")
    assert main(["evaluate", str(folder)]) == 0
    (line,) = (folder / "results.jsonl").read_text().splitlines()
    result = json.loads(line)
    assert (result["recipe"], result["variant"], result["changed"], result["seed"]) == (name, "tiny", {}, 0)
    assert result["finished"]
    assert result["cpu_seconds"] > 0 and result["updates"] == steps(folder)[-1]
    paper = next(recipe for recipe in zoo.recipes() if recipe.name == name).paper
    if paper:
        assert paper["metric"] in result["metrics"] and set(paper["baselines"]) <= set(result["metrics"])
    capsys.readouterr()
    assert main(["watch", str(folder)]) == 0
    pictures = capsys.readouterr().out.splitlines()
    assert pictures and all(Path(picture).stat().st_size > 0 for picture in pictures)
    assert main(["table", name, "--markdown"]) == 0
    assert f"| {name}:tiny |" in capsys.readouterr().out


@every_recipe
def test_same_command_twice_gives_the_same_metrics(name: str, toy: Path, whole: Callable[[str], Path]) -> None:
    assert main(command(name, "a")) == 0
    first, second = ((folder / "metrics.jsonl").read_bytes() for folder in (toy / "a", whole(name)))
    assert first == second and first.count(b"\n") >= 1
    assert_same(final(toy / "a"), final(whole(name)))


@every_recipe
def test_another_seed_gives_other_states(name: str, toy: Path, whole: Callable[[str], Path]) -> None:
    assert main([*command(name, "b"), "--seed", "1"]) == 0
    one, other = (final(folder)["random"]["generator"] for folder in (whole(name), toy / "b"))
    assert not torch.equal(one, other)


@every_recipe
def test_killed_and_resumed_equals_uninterrupted(
    name: str, toy: Path, launch: Launcher, whole: Callable[[str], Path]
) -> None:
    killed = toy / "killed"
    # checkpoints after every update here and none but the last there: when it saves must not matter either
    total = steps(whole(name))[-1]
    rng = random.Random(name)
    hits = 0
    for _ in range(5 if name == "toy" else 3):
        job = launch(command(name, killed), toy, killed, {"VOLITION_SAVE_UPDATES": "1"})
        done = steps(killed)[-1] if steps(killed) else 0
        job.reach(min(total, done + rng.randint(1, max(1, total // 5))))
        job.kill(signal.SIGKILL)
        hits += job.wait() == -signal.SIGKILL and 0 < steps(killed)[-1] < total
    job = launch(command(name, killed), toy, killed, {"VOLITION_SAVE_UPDATES": "7"})
    assert job.wait() == 0, job.text
    assert hits or total < 5, "no kill came in time"
    assert_same(final(whole(name)), final(killed))
    assert (whole(name) / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()


@every_recipe
def test_ctrl_c_saves_and_says_how_to_go_on(
    name: str, toy: Path, launch: Launcher, whole: Callable[[str], Path]
) -> None:
    total = steps(whole(name))[-1]
    for number in (signal.SIGINT, signal.SIGTERM) if name == "toy" else (signal.SIGINT,):
        folder = toy / f"stopped-{number}"
        job = launch(command(name, folder), toy, folder, {"VOLITION_SAVE_UPDATES": "1"})
        job.reach(max(1, total // 3))
        job.kill(number)
        status = job.wait()
        if status == 130:
            stopped = steps(folder)[-1]
            assert f"stopped at update {stopped} of" in job.text and "Traceback" not in job.text
            assert f"to go on: volition train {name}:tiny --run {folder}" in job.text
        else:  # it was done before the signal came
            assert status in (0, -number) and total < 40, job.text
        assert launch(command(name, folder), toy).wait() == 0
        assert_same(final(whole(name)), final(folder))


def test_a_finished_run_trains_nothing(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "toy:tiny"]) == 0
    before = {path: path.read_bytes() for path in toy.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["train", "toy:tiny"]) == 0
    assert "toy:tiny is finished (60 updates" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in toy.rglob("*") if path.is_file()}
    assert before == after


def test_break_counts_as_finished(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "toy:tiny", "--stop-at", "16", "--run", "a"]
    assert main(words) == 0
    assert steps(toy / "a") == [17]  # updates 0 … 16
    assert main(words) == 0
    assert "finished (17 updates" in capsys.readouterr().err
    assert steps(toy / "a") == [17]


def test_a_recipe_called_from_python_leaves_nothing_on_disk(toy: Path) -> None:
    recipe, _ = zoo.resolve("toy:tiny")
    module = recipe.load()
    first, second = module.train(module.Config()), module.train(module.Config())
    assert_same(dict(first.state_dict()), dict(second.state_dict()))
    assert list(toy.iterdir()) == []
