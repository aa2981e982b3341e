"""A3C: A2C when alone; several workers change the same weights, stop together and leave nobody behind."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import Launcher, steps  # pyrefly: ignore

from volition import checkpoint
from volition.algorithms import _workers, a2c, a3c
from volition.algorithms._actor_critic import make_agent
from volition.core.flat import Flat
from volition.envs.vector import make
from volition.errors import VolitionError
from volition.run import Run

# nearer to the paper than the defaults
PLAIN: dict[str, Any] = {"horizon": 5, "lam": 1.0, "lr": 7e-4, "entropy": 0.01, "normalize_advantage": False}
SMALL: dict[str, Any] = PLAIN | {"hidden": (8,), "steps": 600}


class Levers(gymnasium.Env):
    """Episodes of 4 steps in which lever 1 pays; `event` happens at the 30th step of this copy."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, event: Callable[[], Any] = lambda: None) -> None:
        self.event, self.count = event, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        if self.count == 30:
            self.event()
        obs = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return obs, float(action), self.count % 4 == 0, False, {}


def boom() -> None:
    raise ValueError("the lever\nbroke")


def in_memory(seed: int = 0) -> Run:
    return Run(device="cpu", seed=seed)


def children(pid: int) -> list[int]:
    """The processes that `pid` has started and that live."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in found if alive(int(child))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(what: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


# ---- one worker


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"memory": 6},
        {"normalize_advantage": True, "lam": 0.9, "horizon": 7, "anneal": False},
        {"env": "MountainCarContinuous-v0", "limit": 40},
    ],
    ids=["plain", "memory", "settings", "continuous"],
)
def test_one_worker_is_a2c_with_one_environment_bit_for_bit(changed: dict[str, Any]) -> None:
    config = a3c.Config(workers=1, meet_every=7, **(SMALL | changed))
    both = {field.name for field in fields(a2c.Config)} & {field.name for field in fields(config)}
    one = a3c.train(config, in_memory(3))
    other = a2c.train(a2c.Config(num_envs=1, **{name: getattr(config, name) for name in both}), in_memory(3))
    assert list(one.state_dict()) == list(other.state_dict())
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(a.detach().numpy().tobytes() == b.detach().numpy().tobytes() for a, b in pairs)


def test_meetings_change_nothing() -> None:
    weights = [
        torch.cat([p.flatten() for p in a3c.train(a3c.Config(workers=1, meet_every=k, **SMALL)).parameters()])
        for k in (1, 11, 1000)
    ]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


def test_an_update_is_made_of_an_old_gradient_and_the_newest_weights() -> None:
    """While worker 0 plays, worker 1 changes θ and v; worker 0's gradient is of the θ that it copied before."""
    config = a3c.Config(workers=2, hidden=(4,), horizon=5, steps=1000, lr=0.01, eps=0.1, max_norm=0.3)
    torch.manual_seed(0)
    flat = Flat(make_agent(config, make(Levers)))
    shared = a3c.Shared(flat.data, torch.full_like(flat.data, 0.5))
    zero, one = (a3c.Worker(config, Levers, shared, s, torch.Generator().manual_seed(s)) for s in (0, 1))
    before, between = shared.theta.clone(), []
    play = zero.collector.collect

    def collect(act: Any) -> Any:
        steps = play(act)
        one.learn(0)
        between.extend([shared.theta.clone(), shared.v.clone()])
        return steps

    zero.collector.collect = collect  # pyrefly: ignore
    norm = zero.learn(20)["gradient"]
    theta, v = between
    assert not torch.equal(theta, before)
    assert torch.equal(zero.flat.data, before) and torch.equal(one.flat.data, before)
    g = zero.flat.grad
    torch.testing.assert_close(g.norm(), torch.clamp(norm, max=0.3))
    # of 1000 steps in all each worker has 500, 100 updates: after 20 of them lr is 0.8 of what it was
    expected = 0.99 * v + 0.01 * g**2
    torch.testing.assert_close(shared.v, expected)
    torch.testing.assert_close(shared.theta, theta - 0.8 * 0.01 * g / (expected + 0.1).sqrt())


# ---- several


@pytest.mark.parametrize("memory", [0, 4])
def test_workers_share_the_steps_and_the_weights(memory: int) -> None:
    config = a3c.Config(workers=3, memory=memory, limit=20, meet_every=8, **SMALL)
    first = a3c.train(a3c.Config(workers=3, memory=memory, **(SMALL | {"lr": 0.0})), in_memory())
    run = Run(device="cpu", log_every=1)
    agent = a3c.train(config, run)
    assert [line["steps"] for line in run.history] == [3 * 5 * 8 * k for k in (1, 2, 3, 4, 5)]
    assert run.step == 5 and not multiprocessing.active_children()
    moved = [not torch.equal(p, q) for p, q in zip(agent.parameters(), first.parameters(), strict=True)]
    assert all(moved) and all(p.isfinite().all() for p in agent.parameters())
    assert set(run.history[0]) == {
        "update",
        "episode_return",
        "policy_loss",
        "value_loss",
        "entropy",
        "gradient",
        "steps",
    }


def test_workers_play_different_episodes() -> None:
    config = a3c.Config(workers=2, **SMALL)
    flat = Flat(make_agent(config, make("CartPole-v1")))
    flat.data.share_memory_()
    shared = a3c.Shared(flat.data, torch.ones_like(flat.data).share_memory_())
    with _workers.Workers(partial(a3c.Worker, config, "CartPole-v1", shared), 2, in_memory()) as workers:
        workers.start()
        workers.play(0, 1)
        one, other = workers.state_dict()["workers"]
    assert not torch.equal(one["env"]["obs"], other["env"]["obs"])
    for name in ("generator", "torch"):
        assert not torch.equal(one["random"][name], other["random"][name])
    assert not torch.equal(one["random"]["python"][1], other["random"]["python"][1])


def test_their_cpu_seconds_count() -> None:
    def burn() -> None:
        end = time.process_time() + 0.4
        while time.process_time() < end:
            pass

    run = in_memory()
    a3c.train(a3c.Config(workers=2, hidden=(4,), steps=400), run, lambda: Levers(burn))
    assert run.spent[0] > 0.8


@pytest.mark.parametrize("workers", [1, 2])
def test_learning_from_an_environment_of_ones_own(workers: int) -> None:
    config = a3c.Config(workers=workers, **(PLAIN | {"hidden": (8,), "steps": 3_000, "lr": 0.03, "gamma": 0.0}))
    agent = a3c.train(config, None, Levers)
    actions = agent.act(np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32))
    assert actions.mean() > 0.9  # at random it is 0.5


# ---- when something ends


def test_a_failure_is_one_line_and_leaves_no_process() -> None:
    with pytest.raises(VolitionError) as caught:
        a3c.train(a3c.Config(workers=2, hidden=(4,), steps=100_000), None, lambda: Levers(boom))
    assert str(caught.value) in [f"worker {n}: ValueError: the lever broke" for n in (0, 1)]
    assert "in boom" in caught.value.__notes__[0]  # which a traceback shows
    assert not multiprocessing.active_children()


def test_a_failure_in_the_making_too() -> None:
    made = []

    def environment() -> Levers:
        made.append(1)
        if len(made) > 1:  # the first is the main process's own
            raise VolitionError("no more levers")
        return Levers()

    with pytest.raises(VolitionError, match=r"^worker [01]: no more levers$"):
        a3c.train(a3c.Config(workers=2, **SMALL), None, environment)
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_reported() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(VolitionError, match=r"^worker [01] was ended by SIGKILL \(out of memory\?\)$"):
        a3c.train(a3c.Config(workers=2, hidden=(4,), steps=100_000), None, lambda: Levers(die))
    assert not multiprocessing.active_children()


def test_ctrl_c_in_memory_ends_at_once_in_the_midst_of_a_round() -> None:
    def interrupt() -> None:
        os.kill(os.getppid(), signal.SIGINT)

    began, before = (
        time.monotonic(),
        signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # a shell's job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            config = a3c.Config(workers=2, hidden=(4,), steps=10_000_000, meet_every=1_000_000)
            a3c.train(config, None, lambda: Levers(interrupt))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not multiprocessing.active_children()
    assert time.monotonic() - began < 20  # a round would take minutes


LONG = ["train", "a3c:tiny", "--workers", "2", "--steps", "2000000", "--quiet", "--run"]
MEET = ["--meet-every", "10"]


@pytest.fixture
def job(toy: Path, launch: Launcher) -> Any:
    """A training of two workers that has a checkpoint: (the job, its workers, the folder)."""
    folder = toy / "many"
    job = launch([*LONG, str(folder), *MEET], toy, folder, {"VOLITION_SAVE_UPDATES": "5"})
    job.reach(10)
    workers = children(job.pid)
    assert len(workers) == 2, job.text
    yield job, workers, folder
    for pid in (job.pid, *workers):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_main_process_leaves_no_orphans_and_can_be_gone_on_with(job: Any, toy: Path, launch: Launcher) -> None:
    main, workers, folder = job
    main.kill(signal.SIGKILL)
    assert main.wait() == -signal.SIGKILL
    wait_until(lambda: not any(map(alive, workers)))
    before, _ = checkpoint.newest(folder / "checkpoints")
    assert before is not None
    again = launch([*LONG, str(folder), *MEET], toy, folder, {"VOLITION_SAVE_UPDATES": "5"})
    again.reach(before["step"] + 10)
    again.kill(signal.SIGINT)
    assert again.wait() == 130, again.text
    after, _ = checkpoint.newest(folder / "checkpoints")
    assert after is not None and after["step"] >= before["step"] + 10
    # a round is 10 updates of 5 steps for each worker, and none is lost or played twice
    for state in (before, after):
        played = [worker["env"]["steps"] for worker in state["objects"]["workers"]["workers"]]
        assert played == [50 * state["step"]] * 2


def test_ctrl_c_reaches_all_and_the_main_process_saves(job: Any) -> None:
    main, workers, folder = job
    for pid in (*workers, main.pid):  # as a terminal does
        os.kill(pid, signal.SIGINT)
    assert main.wait() == 130
    stopped = steps(folder)[-1]
    assert f"stopped at update {stopped} of 20000, saved in {folder}" in main.text and "Traceback" not in main.text
    assert not any(map(alive, workers))


def test_a_command_whose_worker_dies_says_so_in_one_line(job: Any) -> None:
    main, workers, _ = job
    os.kill(workers[1], signal.SIGKILL)
    assert main.wait() == 2
    assert main.text == "volition: worker 1 was ended by SIGKILL (out of memory?)\n"
    assert not any(map(alive, workers))


# ---- fresh processes, as on other systems


def test_spawned_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "start_method", lambda: "spawn")
    run = Run(device="cpu", log_every=1)
    a3c.train(a3c.Config(workers=2, **SMALL), run)
    assert run.history[-1]["steps"] == 600
    assert not multiprocessing.active_children()


def test_what_cannot_be_sent_to_a_fresh_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "start_method", lambda: "spawn")
    with pytest.raises(VolitionError, match=r"^cannot start worker 0 \(.*lambda"):
        a3c.train(a3c.Config(workers=2, **SMALL), None, lambda: Levers())
    assert not multiprocessing.active_children()


# ---- mistakes


def test_mistakes_are_named() -> None:
    for changed in ({"workers": 0}, {"meet_every": 0}, {"lr": -1.0}, {"gamma": 1.5}, {"hidden": ()}, {"eps": -1.0}):
        with pytest.raises(VolitionError, match=next(iter(changed))):
            a3c.Config(**changed)  # pyrefly: ignore
    with pytest.raises(VolitionError, match="for 2 workers give a function"):
        a3c.train(a3c.Config(workers=2), None, Levers())
    run = in_memory()
    run.device = torch.device("cuda")
    with pytest.raises(VolitionError, match="--device cpu"):
        a3c.train(a3c.Config(), run)
