"""Several processes learn what one does: equal weights, equal metrics, one folder, one voice, and no hanging."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Job, Launcher, launcher, steps  # pyrefly: ignore
from test_recipes import final  # pyrefly: ignore
from transformers import AutoModelForCausalLM

from volition import distributed
from volition.cli import main
from volition.errors import VolitionError
from volition.feedback._models import place
from volition.nets.language import Scalar, small_gpt
from volition.run import Run

Two = Callable[..., list[Job]]


second = pytest.fixture(scope="module")(launcher)  # beside the session's, for the second of two processes


@pytest.fixture
def two(toy: Path, launch: Launcher, second: Launcher) -> Two:
    """Starts a command in two processes, as torchrun does but sooner."""

    stores = []

    def start(words: list[str], folder: Path | None = None, **env: str) -> list[Job]:
        # torchrun keeps the store in which processes find each other: it outlives any of them
        stores.append(torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        jobs = []
        for number, start_one in enumerate((launch, second)):
            place = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(stores[-1].port)}
            place |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "VOLITION_RECIPES": str(toy.parent / "own")}
            jobs.append(start_one(words, toy, folder, place | env, f"printed-{number}.txt"))
        return jobs

    return start


def ended(jobs: list[Job]) -> list[int]:
    return [job.wait() for job in jobs]


def command(name: str, folder: str, *more: str) -> list[str]:
    return ["train", f"{name}:tiny", "--run", folder, "--quiet", "--log-every", "1", *more]


def assert_near(a: Any, b: Any, where: str = "state") -> None:
    """Equal but for sums in another order: float32's 6e-8, through Adam, whose steps are lr·m/(√v + 1e-5), over tens
    of updates. The observed difference is below 1e-6; that of another batch would be of the order lr, 1e-4 or more."""
    if isinstance(a, torch.Tensor) and a.is_floating_point():
        torch.testing.assert_close(b, a, atol=5e-6, rtol=1e-5, msg=lambda text: f"{where}: {text}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for name in a:
            assert_near(a[name], b[name], f"{where}[{name!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_near(x, y, f"{where}[{i}]")
    elif isinstance(a, float):
        assert b == pytest.approx(a, rel=1e-5, abs=1e-5), where
    else:
        assert a == b, where


def assert_same_run(one: Path, other: Path) -> None:
    """Equal in all that is learned, drawn and logged, and in the model that is left."""
    a, b = final(one), final(other)
    for name in ("settings", "step", "finished", "objects", "random"):
        assert_near(a[name], b[name], name)
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other)]
    assert_near(*lines, "metrics")
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}


# shares that are not equal: 7, 9 and 5 rows for two
RECIPES = {
    "sft": ["--batch", "7", "--mix", "0.3"],
    "reward_model": ["--batch", "5"],
    "ppo_ptx": ["--batch", "9", "--episodes", "27"],
    "dpo": ["--batch", "5"],
    "grpo": ["--batch", "3", "--group", "3", "--episodes", "27"],
}


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_learn_what_one_does(name: str, toy: Path, two: Two) -> None:
    assert main(command(name, "one", *RECIPES[name])) == 0
    jobs = two(command(name, "two", *RECIPES[name]))
    assert ended(jobs) == [0, 0], [job.text for job in jobs]
    assert jobs[1].text == "", "the second process speaks"
    assert_same_run(toy / "one", toy / "two")


def test_a_sharded_run_is_the_same_and_leaves_the_whole_model(toy: Path, two: Two) -> None:
    assert main(command("ppo_ptx", "one", *RECIPES["ppo_ptx"])) == 0
    jobs = two(command("ppo_ptx", "two", *RECIPES["ppo_ptx"], "--sharded"))
    assert ended(jobs) == [0, 0], [job.text for job in jobs]
    assert_same_run(toy / "one", toy / "two")
    models = [AutoModelForCausalLM.from_pretrained(toy / run / "model") for run in ("one", "two")]
    assert_near(*(dict(model.state_dict()) for model in models))
    assert models[1].lm_head.weight is models[1].transformer.wte.weight
    sizes = [(toy / run / "model" / "model.safetensors").stat().st_size for run in ("one", "two")]
    assert sizes[0] == sizes[1]


def test_a_checkpoint_goes_on_in_any_number_of_processes(toy: Path, two: Two) -> None:
    """A signal to one process stops both after one update, saved; one or two processes end where one alone does."""
    words = ("--reading", "0", "--updates", "40")
    assert main(command("sft", "one", *words)) == 0
    jobs = two(command("sft", "two", *words, "--sharded"), toy / "two", VOLITION_SAVE_UPDATES="1")
    jobs[1].reach(3)
    jobs[1].kill(signal.SIGTERM)
    assert ended(jobs) == [130, 130], [job.text for job in jobs]
    stopped = steps(toy / "two")[-1]
    assert 3 <= stopped < 40 and f"stopped at update {stopped} of 40" in jobs[0].text
    shutil.copytree("two", "again")
    assert main(command("sft", "again", *words)) == 0
    assert ended(two(command("sft", "two", *words, "--sharded"))) == [0, 0]
    for folder in ("again", "two"):
        assert_same_run(toy / "one", toy / folder)


def test_a_killed_process_ends_all_and_the_command_goes_on(toy: Path) -> None:
    """With torchrun itself: nothing hangs, one line says what happened, and the work until then is kept."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*run, "-m", "--", "volition", *command("sft", "a", "--reading", "0", "--updates", "5000")]
    env = os.environ | {"VOLITION_SAVE_UPDATES": "1", "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 300  # on a machine with much else to do
        while job.poll() is None and time.monotonic() < end and not steps(Path("a")):
            time.sleep(0.05)
        os.kill(int(Path("a/lock").read_text()), signal.SIGKILL)  # the first process holds the folder
        text = job.communicate(timeout=120)[1]
    finally:
        job.kill()
    assert job.returncode != 0
    (line,) = (line for line in text.splitlines() if line.startswith("volition: process"))
    assert "process 1 of 2 has lost another" in line and "goes on from the last checkpoint" in line
    reached = steps(Path("a"))[-1]
    assert 0 < reached < 5000
    with Run.open("a") as left:
        assert left.saved("policy") and left.step == reached


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "toy:tiny"], "toy trains in one process: start it without torchrun"),
        (["train", "sft:tiny", "--batch", "1"], "2 processes have no row each of 1"),
        (["train", "sft:tiny", "--model", "nowhere"], "there is no folder nowhere"),
        (["evaluate", "runs/a"], "torchrun is for volition train"),
    ],
)
def test_mistakes_are_told_once(words: list[str], told: str, two: Two) -> None:
    jobs = two(words)
    assert ended(jobs) == [2, 2]
    text = "".join(job.text for job in jobs)
    assert told in text and text.count("\n") == 1, text


def test_one_process_is_not_sharded(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sft:tiny", "--sharded"]) == 2
    assert "start them with torchrun" in capsys.readouterr().err
    model = small_gpt(20, 0, 1, 8, 1, 8, 2)
    assert place(model, Run()) is model


def test_adapters_are_not_sharded() -> None:
    from peft import LoraConfig, get_peft_model

    from volition.nets.sharded import shard

    wanted = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    with pytest.raises(VolitionError, match="adapters are not sharded"):
        shard(Scalar(get_peft_model(small_gpt(20, 0, 1, 8, 1, 8, 2), wanted)), torch.device("cpu"))


def test_one_process_computes_all_and_asks_nobody() -> None:
    rows, x = list(range(5)), {"a": torch.arange(3.0)}
    assert rows[distributed.mine(5)] == rows and distributed.fraction(3) == 1.0
    assert distributed.gather(x, 3) is x and distributed.summed(x) is x
    assert distributed.either(True, False) == (True, False) and distributed.agreed("a") == "a"
    assert distributed.whole(x["a"]) is x["a"] and distributed.total(2.5) == 2.5
