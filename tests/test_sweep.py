"""Sweeps: what words mean, what is run, what is told of it, and that no signal or failure costs more than it must."""

import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Launcher, steps  # pyrefly: ignore

from volition import zoo
from volition.board import Board, _progress
from volition.children import Child
from volition.cli import main
from volition.curves import curve, draw_bands, labels, together
from volition.errors import VolitionError
from volition.plan import Plan, folder_name, read_flags, read_seeds
from volition.search import Range, Search, read_range

optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="the extra sweep is not installed")


class Ended:
    """A process that is over."""

    def __init__(self, status: int) -> None:
        self.status = status

    def poll(self) -> int:
        return self.status


@pytest.fixture
def here(toy: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Children run in this process, one after the other: the same commands, quicker. The words of each are kept."""
    begun: list[list[str]] = []

    def start(child: Child) -> None:
        begun.append(child.train)
        child.state, child.begun = "training", time.monotonic()
        child.process = Ended(main(["train", *child.train]) or main(["evaluate", *child.evaluate]))

    monkeypatch.setattr(Child, "start", start)
    monkeypatch.setattr("volition.run.draw", lambda *_: None)  # each run's own picture
    return begun


def plan(*words: str) -> Plan:
    recipe, variant = zoo.resolve("toy:tiny")
    return Plan(recipe, variant, list(words))


def mistake(capsys: pytest.CaptureFixture[str], words: str) -> str:
    assert main(["sweep", *shlex.split(words)]) == 2
    return capsys.readouterr().err.removeprefix("volition: ").strip()


# ---- words


def test_flags_in_each_spelling() -> None:
    assert read_flags(["--lr", "1,2", "--hidden", "64,", "32", "16", "--x=3", "y=1..2"]) == {
        "lr": ["1,2"], "hidden": ["64,", "32", "16"], "x": ["3"], "y": ["1..2"],
    }  # fmt: skip
    assert read_flags(["--no-anneal", "--save_every", "-1"]) == {"no-anneal": [], "save-every": ["-1"]}


def test_seeds() -> None:
    assert read_seeds("3") == [0, 1, 2] and read_seeds("7,3,7") == [7, 3] and read_seeds("4,") == [4]


def test_grid_is_every_combination(toy: Path) -> None:
    points = plan("--lr", "1e-2,0.01,0.1", "--sizes", "3", "1,", "3", "1", "--updates", "5,6", "--seeds", "2").grid()
    # 1e-2 and 0.01 are one, and so are the two sizes
    assert [point.label for point in points] == [
        "lr=0.01, updates=5", "lr=0.01, updates=6", "lr=0.1, updates=5", "lr=0.1, updates=6",
    ]  # fmt: skip
    first = points[0].children[1]
    assert first.folder == Path("runs/toy-tiny-sweep/lr=0.01,sizes=3x1,updates=5-1")
    assert first.train == [
        "toy:tiny", "--lr", "1e-2", "--sizes", "3", "1", "--updates", "5", "--seed", "1", "--run", str(first.folder),
        "--quiet",
    ]  # fmt: skip
    assert first.name == "lr=0.01, updates=5, seed 1" and first.total == {"update": 5}


def test_folder_names_are_safe_and_differ() -> None:
    assert folder_name({"lr": "0.1", "n": "64x64"}) == "lr=0.1,n=64x64" and folder_name({}) == ""
    odd = [folder_name({"env": env}) for env in ("my/env:Name v0", "my_env:Name v0", "../..", "x" * 300)]
    assert len(set(odd)) == 4 and all(len(name) < 110 and "/" not in name and " " not in name for name in odd)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds 3 toy", "the recipe comes first: volition sweep RECIPE --seeds 3 toy"),
        ("tooy", "no recipe 'tooy'; did you mean 'toy'?"),
        ("toy:tiny --jbs 3", "volition sweep toy:tiny has no flag --jbs; did you mean '--jobs' or '--sizes'?"),
        ("toy:tiny --seed 3", "volition sweep has no flag --seed: --seeds gives the seeds"),
        ("toy:tiny --run x", "volition sweep has no flag --run: --out names the folder of all runs"),
        ("toy:tiny --seeds x", "--seeds is 'x': write how many, as in 5, or which, as in 0,3,7"),
        ("toy:tiny --seeds 0", "--seeds is '0': write how many, as in 5, or which, as in 0,3,7"),
        ("toy:tiny --jobs 0", "--jobs is '0': a whole number above 0 is needed"),
        ("toy:tiny --jobs", "--jobs takes one value, not none"),
        ("toy:tiny --lr", "--lr needs a value, or several as in --lr A,B,C"),
        ("toy:tiny --lr 1 --lr 2", "--lr is given twice: write --lr A,B,C"),
        ("toy:tiny 0.1", "'0.1' belongs to no flag: write --setting 0.1"),
        ("toy:tiny --lr 1..2", "--lr is a range: ranges are for --search N"),
        ("toy:tiny --search 3", "--search needs a range or values to choose from, as in --lr 1e-4..1e-2:log"),
        ("toy:tiny --search 3 --lr 0..1:log", "--lr 0..1:log is no range: write low..high, with low above 0 for :log"),
        ("toy:tiny --search 3 --lr 2..1", "--lr 2..1 is no range: write low..high, with low above 0 for :log"),
        (
            "toy:tiny --search 3 --updates 1..2.5",
            "--updates 1..2.5: updates is a whole number, so both ends must be",
        ),
    ],
)
def test_mistakes_get_one_line(words: str, message: str, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mistake(capsys, words) == message
    assert not (toy / "runs").exists()


def test_a_value_of_a_wrong_kind_starts_nothing(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", "toy:tiny", "--lr", "0.1,x"])
    assert "'x'" in capsys.readouterr().err and not (toy / "runs").exists()


def test_help_shows_the_settings(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "toy", "--help"]) == 0
    text = capsys.readouterr().out
    assert "settings of toy:laptop" in text and "\n  --updates 300\n" in text and "\n  --sizes 3 1\n" in text


def test_the_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\nfrom volition.cli import main\nmain(['sweep'])\nassert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# ---- grids


def test_table_curves_and_results(here: list, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "toy:tiny", "--lr", "0.01,0.1", "--seeds", "3", "--updates", "20", "--log-every", "2"]
    assert main([*words, "--jobs", "1"]) == 0
    out, err = capsys.readouterr()
    folder = Path("runs/toy-tiny-sweep")
    assert len(here) == 6 and "[6/6] lr=0.1, seed 2: done" in err
    assert (folder / "curves.png").stat().st_size > 5000
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    means = {}
    for lr in (0.01, 0.1):
        errors = [line["metrics"]["error"] for line in lines if line["changed"].get("lr", 0.01) == lr]
        (row,) = [line.split("  ") for line in out.splitlines() if line.startswith(f" lr={lr} ")]
        cells = [cell.strip() for cell in row if cell.strip()]
        # without bounds of 3 and 4 the IQM is the mean; the baseline is always 90
        assert cells[1] == zoo.spread(errors) and cells[2] == zoo.interquartile(errors) and cells[3] == "90 ± 0"
        assert len(errors) == 3 and cells[4] == "3"
        means[lr] = np.mean(errors)
    assert f"best mean error: lr={min(means, key=means.__getitem__)}" in out

    assert main(words) == 0  # again: nothing is run, nothing is noted twice
    out, err = capsys.readouterr()
    assert len(here) == 6 and "6 of 6 runs are done already" in err
    assert (folder / "results.jsonl").read_text().count("\n") == 6

    assert main([*words[:3], "0.1,0.2", *words[4:]]) == 0  # another value: only its runs
    assert len(here) == 9 and "3 of 6 runs are done already" in capsys.readouterr().err
    assert main(["table", "--markdown"]) == 0  # the sweep's results, once each
    table = capsys.readouterr().out
    assert table.count("| 3 | 20 |") == 3


def test_a_run_is_the_same_as_by_hand(here: list, toy: Path) -> None:
    assert main(["sweep", "toy:tiny", "--seeds", "4,", "--lr", "0.1", "--out", "s"]) == 0
    assert main(["train", "toy:tiny", "--lr", "0.1", "--seed", "4", "--run", "t", "--quiet"]) == 0
    metrics = [Path(path, "metrics.jsonl").read_bytes() for path in ("s/lr=0.1-4", "t")]
    assert metrics[0] == metrics[1]
    config = [json.loads(Path(path, "config.json").read_text())["config"] for path in ("s/lr=0.1-4", "t")]
    assert config[0] == config[1]


def test_other_settings_in_the_same_folder_are_refused(here: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "toy:tiny", "--seeds", "1", "--updates", "9", "--out", "s"]) == 0
    path = Path("s/updates=9-0/config.json")
    path.write_text(path.read_text().replace('"lr": 0.01', '"lr": 0.5'))
    message = mistake(capsys, "toy:tiny --seeds 1 --updates 9 --out s")
    assert message.endswith("holds a run with other settings (lr: 0.5 there, 0.01 here): give another --out")


def test_bools_and_flags_of_the_evaluation(here: list, toy: Path) -> None:
    source = (toy.parent / "own/toy.py").read_text()
    source = source.replace("class Config:\n", 'class Config:\n    fast: bool = False\n    """Fast."""\n')
    source = source.replace("def evaluate(config, run):", "def evaluate(config, run, env=None, *, episodes: int = 7):")
    source = source.replace('"chance": 90.0', '"chance": episodes')
    (toy.parent / "own/toys.py").write_text(source)
    words = ["sweep", "toys:tiny", "--seeds", "1", "--updates", "2", "--out", "s"]
    assert main([*words, "--fast", "true,false", "--episodes", "3"]) == 0
    assert {tuple(train[1:2]) for train in here} == {("--updates",)}
    assert [word for train in here for word in train if "fast" in word and "=" not in word] == ["--fast", "--no-fast"]
    lines = [json.loads(line) for line in Path("s/results.jsonl").read_text().splitlines()]
    assert [line["metrics"]["chance"] for line in lines] == [3, 3]
    assert main([*words, "--no-fast", "--episodes", "4"]) == 0  # measured anew, with other flags; trained no more
    assert [json.loads(line)["updates"] for line in Path("s/updates=2,fast=false-0/metrics.jsonl").read_text().split(
        "\n") if '"updates"' in line] == []  # fmt: skip
    assert len(Path("s/updates=2,fast=false-0/results.jsonl").read_text().splitlines()) == 2
    with pytest.raises(VolitionError, match="volition sweep: argument --episodes: 'x' is not a whole number above 0"):
        recipe, variant = zoo.resolve("toys:tiny")
        Plan(recipe, variant, ["--episodes", "x"])


# ---- real processes


def test_a_failure_stops_no_other_and_is_told(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "toy:tiny", "--seeds", "1", "--nan-at", "12,-1", "--jobs", "2"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    folder = Path("runs/toy-tiny-sweep")
    reason = "nan-at=12, seed 0: loss is not finite at update 12"
    assert err.count(reason) == 1 and f"failed: {reason.partition(': ')[2]}" in err
    assert "volition: 1 of 2 runs failed (above); the same command tries them again" in err
    assert " nan-at=-1 " in out and " nan-at=12 " not in out
    assert "loss is not finite" in (folder / "nan-at=12-0/sweep.log").read_text()
    assert (folder / "results.jsonl").read_text().count("\n") == 1
    assert steps(folder / "nan-at=-1-0") == [60]
    # the same, bit for bit, as the two commands by hand
    assert main(["train", "toy:tiny", "--run", "t", "--quiet"]) == 0
    assert Path("t/metrics.jsonl").read_bytes() == (folder / "nan-at=-1-0/metrics.jsonl").read_bytes()


LONG = ["sweep", "toy:tiny", "--updates", "1000000", "--save-every", "0.05", "--out", "s", "--jobs", "2", "--seeds"]


def wait_until(what: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def owner(folder: Path) -> int:
    """The process that trains, or trained last, in a run folder."""
    return int((folder / "lock").read_text())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_lets_every_run_save_and_the_command_goes_on(toy: Path, launch: Launcher) -> None:
    folders = [toy / f"s/updates=1000000-{seed}" for seed in (0, 1)]
    job = launch([*LONG, "2"], toy)
    wait_until(lambda: all(steps(folder) for folder in folders))
    children = [owner(folder) for folder in folders]
    job.kill(signal.SIGINT)
    assert job.wait() == 130
    assert not any(map(alive, children))
    assert "stopped with 0 of 2 runs done, those under way saved; to go on: volition sweep toy:tiny" in job.text
    for folder in folders:
        # saved where it was, which a kill alone would not have done
        assert f"stopped at update {steps(folder)[-1]} of 1000000" in (folder / "sweep.log").read_text()


def test_a_killed_sweep_leaves_no_orphans(toy: Path, launch: Launcher) -> None:
    folder = toy / "s/updates=1000000-0"
    job = launch([*LONG, "1"], toy)
    wait_until(lambda: steps(folder))
    child = owner(folder)
    assert alive(child)
    job.kill(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    wait_until(lambda: not alive(child))
    assert f"stopped at update {steps(folder)[-1]} of" in (folder / "sweep.log").read_text()


# ---- search


def test_ranges() -> None:
    assert read_range("lr", "1e-4..1e-2:log", False) == Range(1e-4, 1e-2, True, False)
    assert read_range("n", "-3..5", True) == Range(-3, 5, False, True)
    assert read_range("lr", "0.1,0.2", False) is None and read_range("env", "a..b", False) is None


@optuna
def test_search_proposes_within_and_remembers(tmp_path: Path) -> None:
    space: dict[str, Any] = {"lr": Range(1e-4, 1e-1, True, False), "n": Range(2, 9, False, True), "c": ["a", "b"]}

    def search(count: int, better: str = "lower", about: Any = 0) -> Search:
        return Search(tmp_path, space, count, better, about)

    first, seen = search(4), []
    while (settings := first.ask()) is not None:
        seen.append(settings)
        assert 1e-4 <= float(settings["lr"]) <= 1e-1 and 2 <= int(settings["n"]) <= 9 and settings["c"] in ("a", "b")
        assert len(settings["lr"].strip("0.").replace(".", "").split("e")[0]) <= 4  # four digits
    first.tell(seen[0], 3.0)
    first.tell(seen[1], None)  # failed
    second = search(5)  # killed with two under way: they come again, then one more
    assert second.known == [seen[0]]
    assert [second.ask(), second.ask()] == seen[2:]
    assert second.ask() not in [*seen, None] and second.ask() is None
    second.tell(seen[2], 1.0)
    assert second.study.best_value == 1.0
    assert search(5).study.best_value == 1.0 and len(search(5).known) == 2
    with pytest.raises(VolitionError, match=r"trials\.jsonl is of another search"):
        search(4, about=1)
    (tmp_path / "trials.jsonl").write_text("3\n")
    with pytest.raises(VolitionError, match=r"cannot read .*trials\.jsonl"):
        search(4)


@optuna
def test_search_runs_trials(here: list, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "toy:tiny", "--lr", "0.001..0.5:log", "--seeds", "2", "--updates", "10", "--log-every", "2"]
    assert main([*words, "--search", "3", "--jobs", "2"]) == 0
    out, _ = capsys.readouterr()
    assert len(here) == 6 and out.count(" lr=") >= 3
    errors = [float(line.split()[1]) for line in out.splitlines() if line.startswith(" lr=")]
    assert errors == sorted(errors)  # the least first: toy's error is better lower
    assert main([*words, "--search", "4"]) == 0  # one more
    assert len(here) == 8 and sum(line.startswith(" lr=") for line in capsys.readouterr().out.splitlines()) == 4


def test_search_without_optuna(toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert mistake(capsys, "toy:tiny --search 2 --lr 0.1..0.2").endswith("pip install 'volition[sweep]'")


# ---- progress and curves


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    yield Child("lr=1", tmp_path, 3, {"update": 100, "steps": 1000}, [], [])


def test_progress_of_a_child(child: Child) -> None:
    path = child.folder / "metrics.jsonl"
    assert _progress(child, child.newest()) == "begins"
    for text, shown in (
        ('{"update": 10}\n', "10%"),
        ('{"update": 20, "steps": 450}\n', "45%"),  # whichever bound is nearer
        ('{"update": 20, "steps": 450}\n{"update": 30, "st', "45%"),  # half a line is not there yet
        ('{"update": 100}\n', "evaluates"),
    ):
        path.write_text(text)
        assert _progress(child, child.newest()) == shown
    child.total = {}
    assert _progress(child, child.newest()) == "update 100"


def test_board_says_a_line_for_each(child: Child, capsys: pytest.CaptureFixture[str]) -> None:
    board = Board("toy", 3)
    board.found()
    child.state, child.reason = "failed", "no space left"
    with board:
        board.ended(child)
        board.due = 0
        board.show([child])
    err = capsys.readouterr().err
    assert err == (
        "toy: 1 of 3 runs are done already\n[2/3] lr=1, seed 3: failed: no space left\n"
        "toy: 1 of 3 done, 1 failed; lr=1, seed 3 begins\n"
    )


def test_curves_are_put_together() -> None:
    one = [{"update": u, "r": float(u)} for u in (10, 20, 30)]
    two = [{"update": u, "r": 2.0 * u} for u in (20, 40)]
    runs = [curve(history, "r", "update") for history in (one, two)]
    x, rows, end = together(runs)
    assert (x[0], x[-1], end) == (20, 40, 30)  # from where all have begun; to 30 both are there
    np.testing.assert_allclose(rows[0][x <= 30], x[x <= 30])
    np.testing.assert_allclose(rows[1], 2 * x)
    assert np.isnan(rows[0][x > 30]).all()


def test_labels_name_what_differs() -> None:
    base = {"recipe": "a", "variant": "v", "config": {"lr": 1, "n": 2}}
    other = base | {"config": {"lr": 3, "n": 2}}
    assert labels([base, other, base]) == ["lr=1", "lr=3", "lr=1"]
    assert labels([base, base]) == ["a:v", "a:v"]
    assert labels([base, base | {"variant": "w"}]) == ["a:v", "a:w"]


def test_steps_are_the_axis_where_all_have_them(tmp_path: Path) -> None:
    with_steps = [[{"update": u, "steps": 8 * u, "r": u * seed} for u in range(1, 4)] for seed in (1, 2)]
    draw_bands({"a": with_steps, "b": with_steps[:1]}, tmp_path / "a.svg", "t")
    draw_bands({"a": with_steps, "b": [[{"update": 1, "r": 2.0}]]}, tmp_path / "b.svg", "t")
    with pytest.raises(VolitionError, match="the runs have no metrics yet"):
        draw_bands({"a": [[]]}, tmp_path / "c.png", "")
    with pytest.raises(VolitionError, match="no metric 's'"):
        draw_bands({"a": with_steps}, tmp_path / "c.png", "", ["s"])
    assert (tmp_path / "a.svg").stat().st_size > 0 and os.path.getsize(tmp_path / "b.svg") > 0
