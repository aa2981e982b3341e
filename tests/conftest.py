"""A toy recipe with every kind of state, and a launcher of commands that can be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # as training does: small networks, and other processes beside

TOY = '''"""A toy: fits a line while drawing from every random state there is.

It is here to be killed.
"""

import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from volition.run import Run


@dataclass(frozen=True)
class Config:
    updates: int = 60
    """Updates of training."""
    lr: float = 0.01
    """Learning rate."""
    sizes: tuple[int, ...] = (3, 1)
    """In and out."""
    stop_at: int = -1
    """Leave the loop by break at this update."""
    nan_at: int = -1
    """Log a value that is not a number at this update."""


VARIANTS = {"tiny": Config(), "laptop": Config(updates=300)}
PAPER = {
    "metric": "error", "unit": "%", "better": "lower", "baselines": ("chance",),
    "data": "Lines", "source": "none", "rows": {"tiny": 12.5},
}


class Env:
    """Counts, so that a lost position shows."""

    def __init__(self):
        self.count = 0

    def step(self, generator):
        self.count += 1
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        return torch.randn(4, 3, generator=generator), noise * math.sin(self.count)

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def build(config):
    return torch.nn.Linear(*config.sizes)


def train(config, run=None):
    run = run or Run()
    policy, env = build(config), Env()
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.lr)
    run.track(policy=policy, optimizer=optimizer, env=env)
    for update in run.loop(config.updates):
        x, noise = env.step(run.generator)
        loss = (policy(x).squeeze(-1) - x.sum(-1) - noise).square().mean()
        run.log(update, loss=float("nan") if update == config.nan_at else loss, count=env.count)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update == config.stop_at:
            break
    return policy


def evaluate(config, run):
    policy = build(config)
    run.track(policy=policy)
    weights = policy.weight.flatten().tolist()
    return {"error": sum(map(abs, weights)), "chance": 90.0, "each": weights}


def watch(config, run):
    path = run.path("toy.txt")
    path.write_text("a picture")
    return [path]
'''

SERVER = """
import json, os, sys
import torch, volition.cli, volition.run, volition.options, volition.zoo
import matplotlib.figure, matplotlib.backends.backend_agg
import sklearn.datasets
for recipe in volition.zoo.recipes():
    recipe.load()
torch.optim.Adam([torch.zeros(1, requires_grad=True)]).zero_grad()  # imports torch's slower half
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.update(job["env"])
        os.chdir(job["cwd"])
        out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os._exit(volition.cli.main(job["words"]))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Job:
    """One command in a process of its own."""

    def __init__(self, server: subprocess.Popen[str], out: Path, folder: Path | None) -> None:
        assert server.stdout
        self.server, self.out, self.folder = server, out, folder
        self.pid = int(server.stdout.readline())

    def reach(self, step: int) -> None:
        """Wait until there is a checkpoint of `step` or later, or the command has ended."""
        assert self.folder
        end = time.monotonic() + 60
        while time.monotonic() < end and steps(self.folder)[-1:] < [step]:
            if (state := Path(f"/proc/{self.pid}/stat")).exists() and state.read_text().split()[2] == "Z":
                return
            if not state.exists():
                return
            time.sleep(0.001)

    def kill(self, number: int) -> None:
        """Send a signal, if the command still runs."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def wait(self) -> int:
        """The exit status; negative when a signal ended it."""
        assert self.server.stdout
        return os.waitstatus_to_exitcode(int(self.server.stdout.readline()))

    @property
    def text(self) -> str:
        """What it printed."""
        return self.out.read_text()


class Launcher:
    """Starts `volition` commands by forking a process that has imported torch already: real, yet quick."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(
        self,
        words: list[str],
        cwd: Path,
        folder: Path | None = None,
        env: dict[str, str] | None = None,
        printed: str = "printed.txt",
    ) -> Job:
        assert self.server.stdin
        out = cwd / printed
        own = {name: value for name, value in os.environ.items() if name.startswith("VOLITION_")} | (env or {})
        job = {"words": words, "cwd": str(cwd), "out": str(out), "env": own}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return Job(self.server, out, folder)


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a run folder, in order."""
    return sorted(int(path.name.split("-")[1]) for path in (folder / "checkpoints").glob("step-*.pt"))


def launcher() -> Iterator[Launcher]:
    """A launcher that ends with the block or fixture that it serves."""
    one = Launcher()
    yield one
    assert one.server.stdin
    one.server.stdin.close()
    one.server.wait(60)


launch = pytest.fixture(scope="session")(launcher)


@pytest.fixture(autouse=True)
def same_signals_and_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test may leave a signal handler behind, nor see the user's own data and recipes."""
    monkeypatch.delenv("VOLITION_DATA", raising=False)
    monkeypatch.delenv("VOLITION_RECIPES", raising=False)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder for commands, with the toy recipe known to them."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "toy.py").write_text(TOY)
    (own / "_helper.py").write_text("VARIANTS = {}\n")
    sys.modules.pop("own_recipes.toy", None)
    monkeypatch.setenv("VOLITION_RECIPES", str(own))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work
