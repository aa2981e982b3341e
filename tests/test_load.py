"""volition.load: what a run has trained, in one call, and what it says where that cannot be."""

import json
import random
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import volition
from volition import zoo
from volition.cli import main
from volition.envs.agent import Agent
from volition.errors import VolitionError

LOAD = """

def load(config, run, env=None):
    policy = build(config)
    run.track(policy=policy)
    policy.env = env
    return policy
"""


def refused(match: str):
    return pytest.raises(VolitionError, match=match)


@pytest.fixture
def loadable(toy: Path) -> Path:
    """The toy with a `load`, trained."""
    path = toy.parent / "own" / "toy.py"
    path.write_text(path.read_text() + LOAD)
    assert main(["train", "toy:tiny", "--quiet"]) == 0
    return toy / "runs/toy-tiny-0"


def test_the_weights_come_back(loadable: Path) -> None:
    agent = volition.load(loadable)
    (checkpoint,) = (loadable / "checkpoints").glob("step-*.pt")
    saved = torch.load(checkpoint, weights_only=True)["objects"]["policy"]
    assert torch.equal(agent.weight, saved["weight"]) and agent.env is None
    env = object()
    assert volition.load(str(loadable), env).env is env


def test_no_random_state_changes(loadable: Path) -> None:
    volition.load(loadable)  # whatever is imported on the way has been imported
    torch.manual_seed(1), np.random.seed(2), random.seed(3)
    expected = torch.rand(()).item(), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(2), random.seed(3)
    volition.load(loadable)
    assert (torch.rand(()).item(), np.random.rand(), random.random()) == expected


def test_what_cannot_be_loaded(toy: Path, tmp_path: Path) -> None:
    with refused("nowhere is not a run folder"):
        volition.load("nowhere")
    assert main(["train", "toy:tiny", "--quiet"]) == 0
    with refused(r"toy cannot be loaded: .*toy.py has no load\(config, run, env\)"):
        volition.load("runs/toy-tiny-0")


def test_no_checkpoint_and_no_recipe(loadable: Path, tmp_path: Path) -> None:
    for path in (loadable / "checkpoints").iterdir():
        path.unlink()
    with refused("there is no checkpoint in .*toy-tiny-0 yet: train it first"):
        volition.load(loadable)
    config = json.loads((loadable / "config.json").read_text())
    (loadable / "config.json").write_text(json.dumps(config | {"recipe": "gone"}))
    with refused("no recipe 'gone'"):
        volition.load(loadable)


def test_importing_volition_imports_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "gymnasium", "tyro", "rich", "matplotlib"]
    code = f"import sys, volition\nvolition.load\nassert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", [recipe.name for recipe in zoo.recipes() if hasattr(recipe.load(), "load")])
def test_every_agent_acts(name: str, toy: Path) -> None:
    config = zoo.resolve(name)[0].load().VARIANTS["tiny"]
    steps = getattr(config, "steps", 0)
    little = ["--steps", str(steps // 8)] if steps else ["--updates", "2"]
    assert main(["train", f"{name}:tiny", "--quiet", "--run", "a", *little]) == 0
    agent = volition.load("a")
    env = gymnasium.make(config.env)
    assert isinstance(agent, Agent) and agent.action_space == env.action_space
    obs, _ = env.reset(seed=0)
    assert agent.initial_state(1) is None and env.action_space.contains(agent.act(obs, greedy=True))
