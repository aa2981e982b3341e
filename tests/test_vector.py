"""Gymnasium environments in tensors: shapes, ends, every kind of space, and exact resume in the middle of episodes."""

import copy
import gc
import io
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor
from torch.testing import assert_close

from volition.core.policy import Tree, tree_map
from volition.envs.serial import SerialVectorEnv
from volition.envs.snapshot import restore, snapshot
from volition.envs.spaces import from_space, to_space
from volition.envs.vector import TensorEnv, make
from volition.errors import VolitionError


def through_disk(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(a: Tree, b: Tree) -> None:
    tree_map(lambda x, y: assert_close(x, y, rtol=0, atol=0), a, b)


class Zoo(gymnasium.Env):
    """All kinds of spaces; checks that each action is in its space, and tells it back as its obs."""

    observation_space = spaces.Dict(
        act=spaces.Box(-9.0, 9.0, (2,), np.float64),
        pair=spaces.Tuple([spaces.Discrete(9, start=-4), spaces.Box(0, 255, (2, 2), np.uint8)]),
    )
    action_space = spaces.Dict(
        bits=spaces.MultiBinary(2),
        box=spaces.Box(-1.0, 1.0, (2, 1), np.float64),
        pair=spaces.Tuple([spaces.Discrete(3, start=-1), spaces.MultiDiscrete([2, 4])]),
    )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._obs(np.zeros(2), int(self.np_random.integers(-4, 5))), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.t += 1
        obs = self._obs(action["box"].ravel() * 2, int(action["pair"][0]))
        return obs, float(action["pair"][1].sum()), self.t == 3, False, {}

    def _obs(self, act: np.ndarray, k: int) -> Any:
        return {"act": act, "pair": (k, np.full((2, 2), self.__dict__.get("t", 0), np.uint8))}


class Unfaithful(gymnasium.Env):
    """Draws from a generator that no reset puts back."""

    observation_space = spaces.Box(0.0, 1.0, (1,))
    action_space = spaces.Discrete(2)
    own = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self.own.random(1).astype(np.float32), 0.0, False, False, {}


def test_tensors_and_ends() -> None:
    env = make("CartPole-v1", 3)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (3, 4) and obs.dtype == torch.float32 and env.obs is obs and env.limit == 500
    assert len({tuple(row) for row in obs.tolist()}) == 3
    reference = [gymnasium.make("CartPole-v1") for _ in range(3)]
    seeds = [int(n) for n in np.random.SeedSequence(0).generate_state(3)]
    singles = [e.reset(seed=s)[0] for e, s in zip(reference, seeds, strict=True)]
    assert_close(obs, torch.tensor(np.stack(singles)))
    ends = 0
    for t in range(60):
        action = torch.tensor([t % 2, 0, 1])
        before, snapshot = obs, obs.clone()
        obs, reward, terminated, truncated, info = env.step(action)
        assert_close(before, snapshot, rtol=0, atol=0)  # what was given out is never written to again
        assert reward.dtype == torch.float32 and terminated.dtype == truncated.dtype == torch.bool
        for i, e in enumerate(reference):  # SAME_STEP, brute force
            single, r, over, cut, _ = e.step(int(action[i]))
            assert r == reward[i] and over == terminated[i] and cut == truncated[i]
            if over or cut:
                ends += 1
                assert_close(info["final_obs"][i], torch.tensor(single))
                single, _ = e.reset()
            assert_close(obs[i], torch.tensor(single))
    assert ends > 8 and env.steps == 180


def test_seeds_do_not_share_episodes() -> None:
    env = make("CartPole-v1", 4)
    first, second = env.reset(seed=0)[0], env.reset(seed=1)[0]
    assert not (first[:, None] == second).all(-1).any()
    assert_same(env.reset(seed=0)[0], first)


class Masked(gymnasium.Env):
    """Two choices, of which the one just taken is illegal; ends after three; its infos come and go."""

    observation_space = spaces.Discrete(7)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = 0
        return int(self.np_random.integers(7)), {"action_mask": np.ones(2, np.int8)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        mask = np.array([action != 0, action != 1], np.int8)
        info = {"action_mask": mask, "own": {"t": self.t, "word": "w" * self.t}}
        if self.t == 2:
            info |= {"twice": 2.0 * self.t, "flag": True}
        return self.t, float(self.np_random.random()), False, self.t == 3, info


def same_info(a: Any, b: Any) -> None:
    """Equal keys, types and values, at every depth."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same_info(a[key], b[key])
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        for x, y in zip(a, b, strict=True):
            same_info(x, y)
    else:
        np.testing.assert_array_equal(a, b)
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None)


@pytest.mark.parametrize(
    "build", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Taxi-v4", "Blackjack-v1", Zoo, Masked]
)
def test_serial_equals_gymnasiums_own(build: Any) -> None:
    def one() -> gymnasium.Env:
        env = gymnasium.make(build) if isinstance(build, str) else build()
        return gymnasium.wrappers.TimeLimit(env, 9)

    ours, theirs = SerialVectorEnv([one] * 3), SyncVectorEnv([one] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    same_info(ours.reset(seed=2), theirs.reset(seed=2))
    ours.action_space.seed(0)
    ends = 0
    for _ in range(40):
        action = ours.action_space.sample()
        a, b = ours.step(action), theirs.step(action)
        same_info(a, b)
        ends += "final_obs" in a[4]
    assert ends >= 3
    mask = np.array([True, False, True])
    same_info(ours.reset(options={"reset_mask": mask}), theirs.reset(options={"reset_mask": mask}))
    same_info(ours.get_attr("spec"), theirs.get_attr("spec"))


def test_a_float_is_not_made_a_whole_number() -> None:
    class Half(Masked):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            return 0.5, 0.0, False, False, {}

    env = make(Half, 2)
    env.reset(seed=0)
    with pytest.raises(TypeError):
        env.step(torch.tensor([0, 0]))


@pytest.mark.parametrize("build", ["CartPole-v1", "Pendulum-v1", Zoo, "vector"])
def test_arrays_say_what_tensors_say(build: Any) -> None:
    def new() -> TensorEnv:
        if build == "vector":
            return make(gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point"))
        return make(build, 3, limit=9)

    env, other = new(), new()
    assert other.arrays
    env.reset(seed=1), other.reset(seed=1)
    env.seed_actions(0)
    ends = 0
    for t in range(40):
        action = env.sample()
        obs, reward, terminated, truncated, info = env.step(action)
        arrays = other.step_arrays(tree_map(Tensor.numpy, action))
        for mine, yours in zip((obs, reward, terminated, truncated), arrays, strict=False):
            tree_map(lambda x, y: np.testing.assert_array_equal(x, np.asarray(y, x.numpy().dtype)), mine, yours)
        told = arrays[4]
        assert ("ignored" in info) == ("ignored" in told)
        if "ignored" in told:
            assert told["ignored"].tolist() == info["ignored"].tolist() and told["ignored"].any()
        if "final_obs" in told:
            done, last, final = terminated | truncated, info["final_obs"], told["final_obs"]
            tree_map(lambda x, y, d=done: np.testing.assert_array_equal(x[d], np.asarray(y)[d]), last, final)
        ends += int((terminated | truncated).sum())
        if t % 3 == 0:  # made when asked for
            assert_same(other.obs, obs)
        assert env.steps == other.steps
    assert ends >= 3


def test_legal_actions() -> None:
    env = make(Masked, 2)
    assert env.mask is None
    env.reset(seed=0)
    assert env.mask is not None and env.mask.dtype == bool and env.mask.tolist() == [[True, True]] * 2
    env.step(torch.tensor([0, 1]))
    assert env.mask.tolist() == [[False, True], [True, False]]
    other = make(Masked, 2)
    other.load_state_dict(through_disk(env.state_dict()))
    assert other.mask is not None and other.mask.tolist() == env.mask.tolist()
    env.step(torch.tensor([1, 0]))
    env.step(torch.tensor([1, 0]))  # the end: all is legal in the new episode
    assert env.mask.tolist() == [[True, True]] * 2
    taxi = make("Taxi-v4", 2)
    taxi.reset(seed=0)
    assert taxi.mask is not None and taxi.mask.shape == (2, 6)
    (one, _), places = taxi.env.get_attr("unwrapped"), taxi.obs.tolist()
    assert taxi.mask.tolist() == [one.action_mask(place).astype(bool).tolist() for place in places]
    assert not taxi.mask.all()


def test_a_limit_truncates_and_keeps_the_final_obs() -> None:
    env = make("Pendulum-v1", 2, limit=4)
    env.reset(seed=0)
    assert env.limit == 4
    for t in range(1, 9):
        before, _, terminated, truncated, info = env.step(torch.full((2, 1), 9.0))  # clipped to its bounds
        assert not terminated.any() and truncated.tolist() == [t % 4 == 0] * 2
        if t % 4 == 0:
            assert info["final_obs"].shape == (2, 3) and not torch.equal(info["final_obs"], before)


def test_trees_of_every_space() -> None:
    env = make(Zoo, 2)
    obs, _ = env.reset(seed=1)
    assert obs["act"].dtype == torch.float32 and obs["pair"][0].dtype == torch.int64
    assert obs["pair"][1].shape == (2, 2, 2) and obs["pair"][1].dtype == torch.uint8
    action = {
        "bits": torch.tensor([[1, 0], [0, 1]], dtype=torch.int8),
        "box": torch.tensor([[0.5, 3.0], [-3.0, 0.25]]),
        "pair": (torch.tensor([0, 2]), torch.tensor([[1, 3], [0, 2]])),
    }
    for t in range(3):
        obs, reward, terminated, _, info = env.step(action)
        last = info["final_obs"] if t == 2 else obs
        assert_close(last["act"], torch.tensor([[1.0, 2.0], [-2.0, 0.5]]))
        assert last["pair"][0].tolist() == [-1, 1]  # choices count from 0, the space starts at −1
        assert reward.tolist() == [4.0, 2.0] and terminated.tolist() == [t == 2] * 2
    assert last["pair"][1].unique().tolist() == [3] and obs["pair"][1].unique().tolist() == [0]
    env.seed_actions(4)
    drawn = env.sample()
    env.step(drawn)
    env.seed_actions(4)
    assert_same(env.sample(), drawn)
    assert_same(drawn, from_space(Zoo.action_space, to_space(Zoo.action_space, drawn)))


ENVS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {},
    "Acrobot-v1": {"limit": 30},
    "Pendulum-v1": {},
    "FrozenLake-v1": {},
    "Taxi-v4": {},
    "Blackjack-v1": {},
    "MountainCarContinuous-v0": {"limit": 25},
    "volition/Glimpse-v0": {},
    "volition/Catch-v0": {},
    "volition/Windows-v0": {"options": {"steps": 20, "side": 16}},
}


@pytest.mark.parametrize("name", ENVS)
def test_resumes_in_the_middle_of_episodes(name: str) -> None:
    env = make(name, 3, **ENVS[name])
    env.reset(seed=5)
    env.seed_actions(0)
    for _ in range(37):
        env.step(env.sample())
    state = through_disk(copy.deepcopy(env.state_dict()))
    actions = [env.sample() for _ in range(230)]
    other = make(name, 3, **ENVS[name])
    other.load_state_dict(state)
    assert other.steps == env.steps == 111
    assert_same(other.obs, env.obs)
    ends = 0
    for action in actions:  # 230 steps: every TimeLimit strikes, at the same step
        one, two = env.step(action), other.step(action)
        assert_same(one[:4], two[:4])
        ends += int((one[2] | one[3]).sum())
        if "final_obs" in one[4]:
            assert_same(one[4]["final_obs"], two[4]["final_obs"])
    assert ends >= 3
    assert_same(env.reset()[0], other.reset()[0])
    third = make(name, 3, **ENVS[name])
    third.load_state_dict(through_disk(other.state_dict()))
    assert_same(third.step(actions[0])[0], other.step(actions[0])[0])


def test_resumes_trees_wrappers_and_options() -> None:
    def build() -> gymnasium.Env:
        return gymnasium.wrappers.TimeLimit(gymnasium.wrappers.TimeAwareObservation(gymnasium.make("CartPole-v1")), 7)

    for make_it in (lambda: make(Zoo, 2), lambda: make(build, 2)):
        env, other = make_it(), make_it()
        env.reset(seed=3)
        for _ in range(5):
            env.step(env.sample())
        other.load_state_dict(through_disk(env.state_dict()))
        for _ in range(9):
            action = env.sample()
            assert_same(env.step(action)[:4], other.step(action)[:4])
    env, other = make("CartPole-v1", 2), make("CartPole-v1", 2)
    env.reset(options={"low": -0.2, "high": -0.1})  # without a seed: the random state is saved instead
    env.step(torch.tensor([0, 1]))
    other.load_state_dict(through_disk(env.state_dict()))
    assert_same(other.obs, env.obs)


def test_a_state_before_the_first_reset() -> None:
    env = make("CartPole-v1", 2)
    env.load_state_dict(through_disk(env.state_dict()))
    assert env.reset(seed=0)[0].shape == (2, 4)


def test_an_environment_that_does_not_replay_is_refused() -> None:
    env = make(Unfaithful, 2)
    env.reset(seed=0)
    env.step(torch.tensor([0, 1]))
    with pytest.raises(VolitionError, match="does not replay"):
        make(Unfaithful, 2).load_state_dict(env.state_dict())
    cart = make("CartPole-v1", 2)
    cart.reset(seed=0)
    cart.step(torch.tensor([0, 1]))
    state = cart.state_dict()
    state["obs"] = state["obs"] + 1e-7
    with pytest.raises(VolitionError, match="does not replay"):
        make("CartPole-v1", 2).load_state_dict(state)
    with pytest.raises(VolitionError, match="of 2 environments, not of 3"):
        make("CartPole-v1", 3).load_state_dict(state)


def test_asynchronous_equals_synchronous_and_resumes() -> None:
    sync, later = make("CartPole-v1", 2), make("CartPole-v1", 2, asynchronous=True)
    try:
        assert isinstance(later.env, AsyncVectorEnv)
        assert_same(sync.reset(seed=0)[0], later.reset(seed=0)[0])
        for t in range(25):
            a, b = (env.step(torch.tensor([1, t % 2])) for env in (sync, later))
            assert_same(a[:4], b[:4])
        state = through_disk(later.state_dict())
        later.step(torch.tensor([0, 0]))
        later.load_state_dict(state)
        for t in range(25):
            assert_same(*(env.step(torch.tensor([1, t % 2]))[:4] for env in (sync, later)))
    finally:
        later.close()


def gone(pids: list[int]) -> bool:
    """Whether the processes have ended, within some seconds."""

    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    end = time.monotonic() + 20
    while any(map(runs, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(runs, pids))


def play_for_ever(pipe: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    env = make("CartPole-v1", 2, asynchronous=True)
    env.reset(seed=0)
    vector: Any = env.env
    pipe.send([process.pid for process in vector.processes])
    while True:
        env.step(torch.tensor([0, 1]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_master(number: int) -> None:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    master = fork.Process(target=play_for_ever, args=(there,))
    master.start()
    assert here.poll(60) and master.pid
    pids = here.recv()
    assert len(pids) == 2
    os.kill(master.pid, number)
    master.join(20)
    assert master.exitcode and gone(pids)


def test_workers_end_with_an_error_and_with_their_environment() -> None:
    for end in ("error", "forgotten", "closed"):
        env = make("CartPole-v1", 2, asynchronous=True)
        env.reset(seed=0)
        vector: Any = env.env
        pids = [process.pid for process in vector.processes]
        del vector
        if end == "error":
            with pytest.raises(AssertionError):
                env.step(torch.tensor([0, 7]))
        if end == "closed":
            env.close()
        del env
        gc.collect()
        assert gone(pids)


def test_a_ready_sync_vector_env_is_taken_over() -> None:
    ready = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2)  # NEXT_STEP, Gymnasium's default
    env, same = make(ready), make("CartPole-v1", 2)
    assert_same(env.reset(seed=0)[0], same.reset(seed=0)[0])
    for _ in range(30):
        action = torch.tensor([1, 1])
        assert_same(env.step(action)[:4], same.step(action)[:4])
    other = make("CartPole-v1", 2)
    other.load_state_dict(env.state_dict())
    assert_same(other.obs, env.obs)


def test_next_step_autoreset_is_told() -> None:
    vector = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    assert vector.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    env = make(vector)
    assert env.limit == 500
    env.reset(seed=0)
    ended = torch.zeros(3, dtype=torch.bool)
    seen = 0
    for _ in range(50):
        before = env.obs
        obs, reward, terminated, truncated, info = env.step(torch.tensor([1, 0, 1]))
        ignored = info.get("ignored", torch.zeros(3, dtype=torch.bool))
        assert torch.equal(ignored, ended)
        assert (reward[ignored] == 0).all() and (obs[ignored].abs() <= 0.05).all()  # a first obs
        assert terminated[ignored].all() and (obs[~ignored] - before[~ignored]).abs().max() < 1
        ended = (terminated | truncated) & ~ignored
        assert_same(info["final_obs"], obs)
        seen += int(ignored.sum())
    assert seen > 6
    assert env.steps == 150 - seen
    with pytest.raises(VolitionError, match="SAME_STEP"):
        make(gymnasium.wrappers.vector.RecordEpisodeStatistics(
            SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")], autoreset_mode=AutoresetMode.DISABLED)
        ))  # fmt: skip


def test_gymnasiums_own_vector_form_is_used_and_resumes() -> None:
    assert isinstance(make("CartPole-v1", 4).env, SerialVectorEnv)
    for options, limit in (({}, 0), ({"sutton_barto_reward": True}, 12)):
        env, other = (make("CartPole-v1", 5, options=options, limit=limit) for _ in range(2))
        assert isinstance(env.env, CartPoleVectorEnv) and env.limit == (limit or 500)
        env.reset(seed=3)
        env.seed_actions(0)
        for _ in range(41):
            env.step(env.sample())
        other.load_state_dict(through_disk(copy.deepcopy(env.state_dict())))
        assert other.steps == env.steps < 205
        assert_same(other.obs, env.obs)
        ends = 0
        for _ in range(60):
            action = env.sample()
            one, two = env.step(action), other.step(action)
            assert_same(one[:4], two[:4])
            assert ("ignored" in one[4]) == ("ignored" in two[4])
            ends += "ignored" in one[4]
            assert not one[3].any() or limit
        assert ends > 5
        assert_same(env.reset()[0], other.reset()[0])
    with pytest.raises(VolitionError, match="of 5 environments, not of 6"):
        make("CartPole-v1", 6).load_state_dict(env.state_dict())
    # no vector form: another process each, an option that it does not know, other spaces than the single one's
    assert isinstance(make("volition/Glimpse-v0", 5, options={"task": "centred"}).env, SerialVectorEnv)


class Drift(VectorEnv):
    """A random walk with all kinds of things inside, two of them twice, and a matter that tests may choose."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    num_envs = 2
    single_observation_space = spaces.Box(-99.0, 99.0, (1,))
    single_action_space = spaces.Discrete(2)
    action_space = spaces.MultiDiscrete([2, 2])

    def __init__(self) -> None:
        self.history: deque[Any] = deque(maxlen=3)
        self.stats = {"mean": np.float32(0.5), 3: [(1, None)]}
        self.part = Part()
        self.matter: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.part.noise = self.np_random
        self.x = self.part.x = np.zeros((2, 1), np.float32)
        return self.x, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict]:
        self.part.x += self.part.noise.normal(size=(2, 1)) + self.stats["mean"]  # x too: it is the same array
        self.history.append(self.np_random.random(2))
        no = np.zeros(2, bool)
        return self.x, np.stack(self.history).sum(0), no, no, {}


class Part:
    noise: np.random.Generator
    x: np.ndarray


class Slots(Part):
    __slots__ = ("hidden",)


def test_snapshots_keep_what_is_one_thing_one_thing() -> None:
    env, other = make(Drift()), make(Drift())
    env.reset(seed=0)
    for _ in range(5):
        env.step(torch.zeros(2))
    env.env.stats["mean"] = np.float32(0.75)  # type: ignore
    other.load_state_dict(through_disk(env.state_dict()))
    inner: Any = other.env
    assert inner.x is inner.part.x and inner.part.noise is inner.np_random and type(inner.stats["mean"]) is np.float32
    assert inner.history.maxlen == 3 and len(inner.history) == 3
    for _ in range(5):
        assert_same(env.step(torch.zeros(2))[:4], other.step(torch.zeros(2))[:4])
    wrapped = [make(gymnasium.wrappers.vector.NormalizeObservation(CartPoleVectorEnv(2))) for _ in range(2)]
    wrapped[0].reset(seed=0)
    wrapped[0].step(torch.ones(2))
    wrapped[1].load_state_dict(through_disk(wrapped[0].state_dict()))
    assert_same(*(each.step(torch.ones(2))[:2] for each in wrapped))


def test_what_cannot_be_saved_is_named() -> None:
    shared = np.zeros(4)
    for matter, words in (
        (threading.Lock(), r"Drift.matter is a _thread.lock"),
        ([shared, shared[1:]], r"Drift.matter\[1\] and Drift.matter\[0\] share memory"),
        (Slots(), "Slots"),
        ({"a": np.array(["x"])}, r"Drift.matter\['a'\] is an array of <U1"),
        ({(0, 1): 2}, "dict"),
    ):
        env = make(Drift())
        env.reset(seed=0)
        env.env.matter = matter  # type: ignore
        state = through_disk(env.state_dict())  # training goes on
        with pytest.raises(VolitionError, match=words):
            env.load_state_dict(state)
    state = make(Drift()).state_dict()
    with pytest.raises(VolitionError, match="not of"):
        restore(Part(), snapshot(make(Drift()).env))


def test_an_environment_in_tensors_passes_through() -> None:
    from volition.envs.glimpse import GlimpseVectorEnv

    def glimpses() -> TensorEnv:
        return make(GlimpseVectorEnv(4, "centred", glimpses=3, size=8, scales=1, tensors=True))

    env, other = glimpses(), glimpses()
    obs, _ = env.reset(seed=0)
    assert isinstance(obs["glimpse"], Tensor)

    def step(env: TensorEnv, t: int) -> Any:
        return env.step({"location": torch.full((4, 2), 0.1 * t), "label": torch.arange(4)})[:4]

    for t in range(4):
        step(env, t)
    other.load_state_dict(through_disk(env.state_dict()))
    for t in range(7):
        assert_same(step(env, t), step(other, t))


def test_mistakes_in_one_line() -> None:
    for call, words in (
        (lambda: make("CartPol-v1"), "did you mean CartPole-v1"),
        (lambda: make("CartPole-v7"), "CartPole-v7"),
        (lambda: make("nowhere_to_be_found:My-v0"), "nowhere_to_be_found"),
        (lambda: make("CartPole-v1", options={"colour": 3}), "colour"),
        (lambda: make("CartPole-v1", 0), "num_envs"),
        (lambda: make(gymnasium.make("CartPole-v1"), 2), "a function that makes one"),
        (lambda: make(lambda: 3), "gave int"),  # type: ignore
        (lambda: make(3), "no environment"),  # type: ignore
    ):
        with pytest.raises(VolitionError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)

    class Words(Unfaithful):
        observation_space = spaces.Dict(note=spaces.Text(5))

    with pytest.raises(VolitionError, match="Text"):
        make(Words, 1)


def test_one_ready_environment_is_used_itself() -> None:
    single = gymnasium.make("CartPole-v1")
    env = make(single)
    obs, _ = env.reset(seed=0)
    assert_close(obs[0], torch.tensor(np.asarray(single.get_wrapper_attr("state"), np.float32)))
