"""The command line as a user meets it: every mistake gets one line that helps, and exit status 2."""

import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import Launcher, steps  # pyrefly: ignore
from safetensors.torch import load_file

from volition import __version__, zoo
from volition.cli import COMMANDS, main
from volition.data import boxes, catalog
from volition.errors import VolitionError
from volition.run import Run


def said(capsys: pytest.CaptureFixture[str], words: str, status: int = 0) -> str:
    """What a command prints, on stdout where it succeeds and on stderr where it fails."""
    capsys.readouterr()
    try:
        ended = main(words.split())
    except SystemExit as leaving:  # argparse and tyro leave so
        ended = leaving.code
    out, err = capsys.readouterr()
    assert ended == status, err
    return err if status else out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian toy", "no command 'trian'; did you mean 'train'?"),
        (
            "zzz",
            "no command 'zzz'; the commands are list, train, evaluate, watch, sweep, curves, table, "
            "export, play, serve, label, data",
        ),
        ("train tooy", "no recipe 'tooy'; did you mean 'toy'?"),
        ("train toy:tyni", "no variant 'tyni' of toy; did you mean 'tiny'?"),
        ("train --lr 3 toy", "the recipe comes first: volition train RECIPE --lr 3 toy"),
        ("list --marckdown", "volition list has no flag --marckdown; try volition list --help"),
        ("table --markdwn", "volition table has no flag --markdwn; did you mean '--markdown'?"),
        ("table", "no results yet in results/ and runs/; volition evaluate DIR makes one"),
        ("table --from nowhere", "there is no nowhere to read results from"),
        (
            "evaluate",
            "volition evaluate: the following arguments are required: DIR; try volition evaluate --help",
        ),
        (
            "evaluate nowhere --episods 3",
            "nowhere is not a run folder (it has no config.json); volition train makes one",
        ),
        ("evaluate nowhere", "nowhere is not a run folder (it has no config.json); volition train makes one"),
        ("watch nowhere", "nowhere is not a run folder (it has no config.json); volition train makes one"),
        (
            "export nowhere out",
            "nowhere is not a run folder (it has no config.json); volition train makes one",
        ),
        (
            "data --scenes out --count 0",
            "--count 0: write at least one scene",
        ),
        (
            "data --data nowhere",
            "--data is nowhere, which is not a folder; volition data says what belongs there",
        ),
        ("train toy:tiny --device tpu9", "there is no device 'tpu9' for training: use auto, cpu or cuda"),
        ("train toy:tiny --threads 0", "log_every and threads must be 1 or more, seed 0 or more"),
        ("train toy:tiny --seed -1", "log_every and threads must be 1 or more, seed 0 or more"),
    ],
)
def test_mistakes_get_one_line(words: str, message: str, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, words, 2) == f"volition: {message}\n"


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--lrr 1", "--lr FLOAT"),
        ("--updats 3", "--updates INT"),
        ("--tread 3", "--threads INT"),
        ("--lr x", "'x'"),
    ],
)
def test_mistyped_settings(flag: str, hint: str, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hint in said(capsys, f"train toy:tiny {flag}", 2)
    assert not (toy / "runs").exists()


def test_help_has_an_example_for_every_command(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = said(capsys, "--help")
    for command in COMMANDS:
        assert f"\n  {command} " in top
        text = said(capsys, f"{command} --help")
        assert "example" in text and f"\n  volition {command}" in text
    assert said(capsys, "", 2) == ""  # the help went to stdout
    assert said(capsys, "--version") == f"volition {__version__}\n"
    text = said(capsys, "train toy --help")
    assert "It is here to be killed." in text and "Leave the loop by break" in text and "--save-every" in text
    assert "(default: 300)" in text  # the variant's own


def test_list(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "list")
    assert "\nown\n  toy " in text and "A toy: fits a line" in text and "variants: tiny, laptop" in text
    assert all(recipe.name in text for recipe in zoo.recipes())


def test_settings_reach_the_run(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "train toy:tiny --lr 0.5 --sizes 3 1 --seed 4 --updates 5 --log-every 1 --quiet")
    config = json.loads((toy / "runs/toy-tiny-4/config.json").read_text())
    assert config["config"] == {"updates": 5, "lr": 0.5, "sizes": [3, 1], "stop_at": -1, "nan_at": -1}
    assert config["command"].startswith("volition train toy:tiny --lr 0.5") and config["seed"] == 4
    assert (toy / "runs/toy-tiny-4/metrics.jsonl").read_text().count("\n") == 5
    message = said(capsys, "train toy:tiny --seed 4", 2)
    assert "lr: 0.5 there, 0.01 here" in message and "another folder with --run" in message
    said(capsys, "evaluate runs/toy-tiny-4")
    table = said(capsys, "table --markdown")
    assert "| toy:tiny (updates=5, lr=0.5) | built-in |  | error " in table


def test_evaluate_shows_no_paper_beside_a_stand_in(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "train toy:tiny --quiet")
    text = said(capsys, "evaluate runs/toy-tiny-0")
    assert "12.5" not in text and "measured on Lines, so it is not comparable" in text
    assert "chance" in text and "built-in" in text


TALLY = '''"""Tally: evaluates as it is told."""
from dataclasses import dataclass
import torch
from volition.run import Run

@dataclass(frozen=True)
class Config:
    updates: int = 1
    """Updates."""

VARIANTS = {"tiny": Config()}
PAPER = {"metric": "score", "unit": "", "better": "higher", "baselines": ("chance",), "data": "", "source": "",
    "rows": {}}

def train(config, run=None):
    run = run or Run()
    policy = torch.nn.Linear(1, 1)
    run.track(policy=policy)
    for update in run.loop(config.updates):
        run.log(update, loss=1.0)

def evaluate(config, run, env=None, *, episodes: int = 10, fast: bool = False):
    run.track(policy=torch.nn.Linear(1, 1))
    return {"score": run.seed + episodes, "score_sd": 0.5, "fast": fast, "chance": 1.0}
'''


@pytest.fixture
def tally(toy: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Five runs, seeds 0 … 4, of a recipe whose evaluation has flags."""
    (toy.parent / "own/tally.py").write_text(TALLY)
    sys.modules.pop("own_recipes.tally", None)
    for seed in range(5):
        said(capsys, f"train tally --quiet --seed {seed} --run r{seed}")
    return toy


def rows(text: str) -> list[list[str]]:
    """The cells of printed tables."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


def test_the_recipes_own_flags(tally: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "evaluate r0 --help")
    assert "--episodes INT" in text and "(default: 10)" in text and "--fast, --no-fast" in text
    assert "--episodes" not in said(capsys, "evaluate --help")
    text = said(capsys, "evaluate r0 --episodes 3 --fast")
    assert ["score", "3 ± 0.5 sd"] in rows(text) and ["fast", "1"] in rows(text)
    assert ["score", "10 ± 0.5 sd"] in rows(said(capsys, "evaluate r0"))
    lines = [json.loads(line) for line in Path("r0/results.jsonl").read_text().splitlines()]
    assert [line["command"] for line in lines] == ["volition evaluate r0 --episodes 3 --fast", "volition evaluate r0"]
    hint = "volition: volition evaluate has no flag --episods; did you mean '--episodes'"
    assert said(capsys, "evaluate r0 --episods 3", 2).startswith(hint)
    assert "'0' is not a whole number above 0" in said(capsys, "evaluate r0 --episodes 0", 2)
    said(capsys, "train toy:tiny --quiet")
    assert "the recipe of runs/toy-tiny-0 has no --episodes" in said(
        capsys, "evaluate r0 runs/toy-tiny-0 --episodes 3", 2
    )


def test_evaluate_puts_seeds_together(tally: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "evaluate r0 r1 r2 r3 r4 r0 --episodes 6")
    found = rows(text)
    assert sum(["chance", "1"] == row for row in found) == 5  # each, and r0 once
    # seeds 0 … 4 score 6 … 10: mean 8, sd √(10/4) = 1.58, IQM (7 + 8 + 9)/3 = 8
    (row,) = [row for row in found if row[0] == "score" and len(row) == 4]
    assert row[1] == "8 ± 1.6" and row[2].startswith("8 [") and row[3] == "6 … 10"
    assert any(row[0] == "tally:tiny, 5 seeds" for row in found)
    assert not any(row[0] == "score sd" for row in found)
    assert all(len(Path(f"r{i}/results.jsonl").read_text().splitlines()) == 1 for i in range(5))


def test_evaluate_goes_on_past_a_broken_run(tally: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("r1/checkpoints").iterdir():
        path.unlink()
    assert main(["evaluate", "r0", "r1", "r2"]) == 2
    out, err = capsys.readouterr()
    assert "r1: there is no checkpoint in r1 yet" in err and "1 of 3 runs could not be measured" in err
    assert "tally:tiny, 2 seeds" in out


def test_curves(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lr, seed in (("0.01", 0), ("0.01", 1), ("0.1", 0)):
        said(capsys, f"train toy:tiny --quiet --lr {lr} --seed {seed} --run lr{lr}-{seed} --log-every 2")
    assert said(capsys, "curves lr0.01-0 lr0.01-1 lr0.1-0 --out a/b.svg") == "a/b.svg\n"
    assert Path("a/b.svg").stat().st_size > 1000
    assert said(capsys, "curves lr0.01-0 --metric loss") == "curves.png\n"
    assert said(capsys, "curves . curves.png") == "curves.png\n"  # all runs in a folder; a file among folders is none
    assert ", 2 seeds" in said(capsys, "evaluate . curves.png")
    assert "curves.png is not a run folder" in said(capsys, "curves curves.png", 2)
    assert "no metric 'los'; did you mean 'loss'?" in said(capsys, "curves lr0.01-0 --metric los", 2)
    assert "must end in .png, .svg or .pdf" in said(capsys, "curves lr0.01-0 --out a.txt", 2)
    Path("lr0.1-0/metrics.jsonl").write_text("[]\n")
    assert "metrics.jsonl is damaged" in said(capsys, "curves lr0.1-0", 2)
    Path("lr0.1-0/metrics.jsonl").unlink()
    assert "lr0.1-0 has no metrics.jsonl yet: train it first" in said(capsys, "curves lr0.1-0", 2)


def test_not_a_number_stops_with_one_line(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, "train toy:tiny --nan-at 20 --quiet", 2)
    assert message.startswith("volition: loss is not finite at update 20: ") and message.count("\n") == 1


def test_export(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "train toy:tiny --quiet")
    printed = said(capsys, "export runs/toy-tiny-0 out")
    assert printed == "out/policy.safetensors\nout/policy.json\n"
    weights = load_file(toy / "out/policy.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {"weight": (1, 3), "bias": (1,)}
    about = json.loads((toy / "out/policy.json").read_text())
    assert (about["recipe"], about["updates"], about["trained_on"]) == ("toy", 60, "built-in")
    assert "give --force" in said(capsys, "export runs/toy-tiny-0 out", 2)
    said(capsys, "export runs/toy-tiny-0 out --force")
    (toy / "file").write_text("")
    assert "cannot write to file" in said(capsys, "export runs/toy-tiny-0 file", 2)
    said(capsys, "export runs/toy-tiny-0 half --half")
    halves = load_file(toy / "half/policy.safetensors")
    assert all(torch.equal(halves[name], weights[name].half()) for name in weights)
    assert "has no 'net'" in said(capsys, "export runs/toy-tiny-0 other --name net", 2)


def test_looking_while_it_trains(toy: Path, launch: Launcher, capsys: pytest.CaptureFixture[str]) -> None:
    folder = toy / "busy"
    words = ["train", "toy:tiny", "--updates", "1000000", "--run", "busy"]
    job = launch(words, toy, folder, {"VOLITION_SAVE_UPDATES": "5"})
    job.reach(20)
    assert f"in use by process {job.pid}" in said(capsys, "train toy:tiny --updates 1000000 --run busy", 2)
    for _ in range(3):
        said(capsys, "evaluate busy")
        said(capsys, "watch busy")
        said(capsys, "export busy out --force")
    job.kill(signal.SIGTERM)
    assert job.wait() == 130 and "to go on: volition train toy:tiny --updates 1000000 --run busy" in job.text
    results = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    found = [result["updates"] for result in results]
    assert not any(result["finished"] for result in results)
    assert len(found) == 3 and found == sorted(found) and steps(folder)[-1] >= found[-1]


def test_a_closed_pipe_is_quiet(toy: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, "-m", "volition", "list"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


# ---- data


def fake(folder: Path, zipped: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in catalog.CATALOG[0].files:
        name = f"{file.name}.gz" if zipped else file.name
        (folder / name).write_bytes(gzip.compress(b"x") if zipped else b"x")


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_mnist_is_found_in_each_layout(place: str, zipped: bool, tmp_path: Path) -> None:
    assert catalog.find("mnist", tmp_path) == catalog.find("mnist", None) == {}
    fake(tmp_path / place, zipped)
    found = catalog.find("mnist", tmp_path)
    assert set(found) == {file.name for file in catalog.CATALOG[0].files}
    assert all(path.is_file() and path.parent == tmp_path / place for path in found.values())
    found["t10k-labels-idx1-ubyte"].unlink()
    with pytest.raises(VolitionError, match=r"holds only a part of mnist: add t10k-labels-idx1-ubyte\(.gz\)"):
        catalog.find("mnist", tmp_path)
    other = tmp_path / ("MNIST/raw" if place == "mnist" else "mnist")
    fake(other)  # a whole one elsewhere is good enough
    assert catalog.find("mnist", tmp_path)["t10k-labels-idx1-ubyte"].parent == other


def test_the_data_of_a_run_must_stay(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (toy / "d").mkdir()
    said(capsys, "train toy:tiny --quiet --data d")
    (toy / "d").rmdir()
    with pytest.raises(
        VolitionError, match=r"the data folder .*/d is gone: bring it back, or name another with --data"
    ):
        catalog.find("mnist", Run.open("runs/toy-tiny-0").data)
    said(capsys, "export runs/toy-tiny-0 out")  # needs none


def test_scenes_are_written_as_a_folder_that_is_read_again(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 scenes to train on" in said(capsys, "data --scenes out --count 2")
    assert [len(boxes.load("out", split=split)) for split in ("train", "test")] == [2, 2]


def test_data_says_what_is_there(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "data")
    assert "nowhere (give --data DIR or set VOLITION_DATA)" in text and "there:      no" in text
    assert "to get it:" in text and "DIR/mnist, DIR/MNIST/raw, DIR" in text
    fake(toy / "d/mnist")
    text = said(capsys, "data --data d")
    assert "yes, in d/mnist; md5 is not the published one: train-images-idx3-ubyte.gz" in text
    (toy / "d/mnist/t10k-labels-idx1-ubyte.gz").unlink()
    assert "in part: " in said(capsys, "data --data d")


def test_md5_right_and_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    zipped = tmp_path / "b.gz"
    zipped.write_bytes(b"y")
    md5 = [hashlib.md5(data).hexdigest() for data in (b"x", b"y")]
    files = (catalog.File("a", md5[0], "0"), catalog.File("b", "0", md5[1]), catalog.File("c", md5[1], "0"))
    monkeypatch.setattr(catalog, "CATALOG", (catalog.DataSet("s", "S", files, ("",), "", ""),))
    assert catalog.wrong("s", {"a": path, "b": zipped, "c": path}) == [path]


def test_threads_are_set(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    try:
        said(capsys, "train toy:tiny --quiet --threads 2")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
