"""The collector against episodes written down beforehand: nothing lost, nothing invented, whatever the autoreset."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor, nn
from torch.testing import assert_close

from volition.algorithms._actor_critic import learn_from
from volition.core.collect import Collector, Steps
from volition.core.distributions import Categorical
from volition.core.policy import PolicyOutput, tree_map
from volition.envs.agent import Agent
from volition.envs.tensor_env import TensorEnv
from volition.envs.vector import make

# (length, truncated) of each row's episodes, over and over
TAPES = [[(2, False), (3, True)], [(1, True), (4, False)], [(5, True)]]
GAMMA, LAM = 0.9, 0.8


def reward(row: Any, episode: Any, t: Any, action: Any) -> Any:
    """Differs in every step of every row."""
    return row + 0.5 * episode - 0.25 * t + 0.125 * action


class Tapes(VectorEnv):
    """obs = (row, episode, t) in NumPy or tensors, either autoreset, its state saved or not; dtype as asked."""

    def __init__(self, late: bool, tensors: bool = False, masks: bool = False, dtype: Any = np.float32) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP if late else AutoresetMode.SAME_STEP}
        self.late, self.tensors, self.masks = late, tensors, masks
        self.num_envs = len(TAPES)
        self.single_observation_space = spaces.Box(-99, 99, (3,), dtype)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(-99, 99, (len(TAPES), 3), dtype)
        self.action_space = spaces.MultiDiscrete([2] * len(TAPES))
        self.buffer = np.zeros((len(TAPES), 3), dtype)  # one for ever, as some environments have it

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self.episode, self.t = np.zeros(len(TAPES), int), np.zeros(len(TAPES), int)
        self.ended = np.zeros(len(TAPES), bool)
        return self._give(self._obs()), self._info()

    def _obs(self) -> np.ndarray:
        self.buffer[:] = np.stack([np.arange(len(TAPES)), self.episode, self.t], 1)
        return self.buffer

    def _give(self, x: np.ndarray) -> Any:
        return torch.from_numpy(x) if self.tensors else x

    def _info(self) -> dict[str, Any]:
        mask = np.stack([np.ones(len(TAPES), bool), self.t % 2 == 0], 1)  # action 1 at even times only
        return {"action_mask": self._give(mask)} if self.masks else {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        actions = np.asarray(actions)
        dummy = self.ended
        gain = np.where(dummy, 0.0, reward(np.arange(len(TAPES)), self.episode, self.t, actions))
        self.t = np.where(dummy, 0, self.t + 1)
        self.episode = self.episode + dummy
        plans = [tape[e % len(tape)] for tape, e in zip(TAPES, self.episode, strict=True)]
        done = ~dummy & (self.t == [length for length, _ in plans])
        cut = done & [truncated for _, truncated in plans]
        info = {}
        if self.late:
            self.ended = done
        elif done.any():
            info["final_obs"] = self._give(self._obs().copy())
            self.episode, self.t = self.episode + done, np.where(done, 0, self.t)
        info |= self._info()
        return self._give(self._obs()), self._give(gain), self._give(done & ~cut), self._give(cut), info

    def state_dict(self) -> dict[str, Any]:
        return {name: torch.as_tensor(getattr(self, name)) for name in ("episode", "t", "ended")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.numpy().copy())


def choose(obs: Any, fresh: Any) -> Any:
    """An action that depends on every part of the obs."""
    x = 3 * obs[:, 0] + 2 * obs[:, 1] + obs[:, 2]
    return (x % 2).astype(np.int64) if isinstance(x, np.ndarray) else (x % 2).long()


def reference(row: int, count: int) -> list[dict[str, Any]]:
    """The first `count` transitions of a row, by the book."""
    found: list[dict[str, Any]] = []
    episode = 0
    while len(found) < count:
        length, truncated = TAPES[row][episode % len(TAPES[row])]
        for t in range(length):
            action = (3 * row + 2 * episode + t) % 2
            last = t == length - 1
            found.append(
                {
                    "obs": [row, episode, t],
                    "action": action,
                    "reward": reward(row, episode, t, action),
                    "terminated": last and not truncated,
                    "truncated": last and truncated,
                    # where an episode terminated nothing follows that could count
                    "next_obs": None if last and not truncated else [row, episode, t + 1],
                    "fresh": t == 0,
                }
            )
        episode += 1
    return found[:count]


KINDS = {
    "same": lambda: Tapes(False),
    "next": lambda: Tapes(True),
    "same-tensors": lambda: Tapes(False, tensors=True),
    "next-tensors": lambda: Tapes(True, tensors=True),
    "same-float64": lambda: Tapes(False, dtype=np.float64),
    "next-float64": lambda: Tapes(True, dtype=np.float64),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def world(kind: str) -> TensorEnv:
    env = TensorEnv(KINDS[kind]())
    env.reset(seed=0)
    return env


def rows_of(steps: Steps, row: int) -> list[dict[str, Any]]:
    """The valid transitions of a row."""
    next_obs, found = steps.next_obs(), []
    for t in range(len(steps.reward)):
        if steps.valid[t, row]:
            found.append(
                {
                    "obs": steps.obs[t, row].tolist(),
                    "action": steps.action[t, row].item(),
                    "reward": steps.reward[t, row].item(),
                    "terminated": steps.terminated[t, row].item(),
                    "truncated": steps.truncated[t, row].item(),
                    "next_obs": None if steps.terminated[t, row] else next_obs[t, row].tolist(),
                    "fresh": steps.fresh[t, row].item(),
                }
            )
    return found


class Linear(nn.Module):
    """Fair coin, V(s) = 2·row + 3·episode + 5·t."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0, 5.0]))

    def forward(self, obs: Tensor, state: None = None, mask: Tensor | None = None) -> PolicyOutput:
        return PolicyOutput(Categorical(torch.zeros(*obs.shape[:-1], 2), mask), None, obs.float() @ self.weight)

    def initial_state(self, batch: int) -> None:
        return None


def value(obs: list[int] | None) -> float:
    return 0.0 if obs is None else 2.0 * obs[0] + 3.0 * obs[1] + 5.0 * obs[2]


def advantages(rows: list[dict[str, Any]]) -> list[float]:
    """GAE of one row's transitions, backwards in a loop."""
    a, found = 0.0, []
    for row in reversed(rows):
        discount = 0.0 if row["terminated"] else GAMMA
        delta = row["reward"] + discount * value(row["next_obs"]) - value(row["obs"])
        a = delta + discount * LAM * (0.0 if row["terminated"] or row["truncated"] else a)
        found.append(a)
    return found[::-1]


@every_kind
@pytest.mark.parametrize("length", [1, 4, 13])
def test_transitions_and_advantages_are_those_of_the_episodes(kind: str, length: int) -> None:
    env = world(kind)
    collector = Collector(env, length)
    assert collector.arrays == ("tensors" not in kind)
    agent = Agent(Linear(), env.single_observation_space, env.single_action_space)
    found: list[list[dict[str, Any]]] = [[] for _ in TAPES]
    for _ in range(26 // length):
        steps = collector.collect(choose)
        assert steps.obs.dtype == torch.float32 and steps.reward.dtype == torch.float32
        experience, _ = learn_from(agent, steps, None, GAMMA, LAM, steps.reward)
        for row in range(len(TAPES)):
            mine = rows_of(steps, row)
            found[row] += mine
            valid = steps.valid[:, row]
            a, v, target = (
                x.view(length, -1)[valid, row] for x in (experience.advantage, experience.value, experience.target)
            )
            assert_close(a, torch.tensor(advantages(mine)), rtol=1e-5, atol=1e-5)
            assert_close(target, a + v)
    for row in range(len(TAPES)):
        assert found[row] == reference(row, len(found[row]))
    # every step is one of an episode, but for the reset after each end of one
    ends = [sum(r["terminated"] or r["truncated"] for r in rows) for rows in found]
    count = 26 // length * length
    for rows, ended in zip(found, ends, strict=True):
        late = "next" in kind
        last = rows[-1]["terminated"] or rows[-1]["truncated"]
        assert len(rows) in ((count - ended, count - ended + last) if late else (count,))
    assert env.steps == sum(len(rows) for rows in found)


@every_kind
def test_the_dummy_row_is_not_learned_from(kind: str) -> None:
    env = world(kind)
    steps = Collector(env, 8).collect(choose)
    assert steps.valid.all() == ("same" in kind)
    if "next" in kind:
        # row 1: 1 step and a reset, 4 steps and a reset, 1 step
        assert steps.valid[:, 1].tolist() == [True, False, True, True, True, True, False, True]
        assert steps.done[:, 1].tolist() == [True, True, False, False, False, True, True, True]
    agent = Agent(Linear(), env.single_observation_space, env.single_action_space)
    rows = learn_from(agent, steps, None, GAMMA, LAM, steps.reward)[0].rows()
    assert rows.total == steps.valid.sum() and rows.valid.all()
    assert_close(rows.obs, steps.obs[:-1][steps.valid])


@pytest.mark.parametrize("kind", ["same", "next"])
def test_truncation_bootstraps_from_the_last_obs_and_termination_from_nothing(kind: str) -> None:
    env = world(kind)
    steps = Collector(env, 6).collect(choose)
    agent = Agent(Linear(), env.single_observation_space, env.single_action_space)
    one_step, _ = learn_from(agent, steps, None, 1.0, 0.0, steps.reward)
    a = one_step.advantage.view(6, -1)
    # row 0 terminated at t = 1: r = 0.5·0 − 0.25 + 0.125·1 = −0.125, V(0, 0, 1) = 5; nothing follows
    assert a[1, 0].item() == pytest.approx(-0.125 - 5.0)
    # row 1 was cut off at t = 0: r = 1 + 0.125·1 = 1.125 and V(1, 0, 1) − V(1, 0, 0) = 5
    assert a[0, 1].item() == pytest.approx(1.125 + 5.0)
    places, final = steps.final
    assert [place % 3 for place in places.tolist()].count(1) == int(steps.truncated[:, 1].sum())
    assert_close(final[:1], torch.tensor([[1.0, 0.0, 1.0]]))


def test_a_float64_environment_has_final_obs_like_its_others() -> None:
    steps = Collector(world("same-float64"), 6).collect(choose)
    assert steps.final[1].dtype == torch.float32 and len(steps.final[0]) > 0
    assert steps.next_obs().dtype == torch.float32


@every_kind
def test_episode_statistics(kind: str) -> None:
    env = world(kind)
    collector = Collector(env, 7)
    ended: list[tuple[float, int]] = []
    for k in range(1, 5):
        collector.collect(choose)
        ended = []
        for row in range(len(TAPES)):
            total, length, spent = 0.0, 0, 0
            for step in reference(row, 7 * k):
                if spent == 7 * k:
                    break
                spent += 1
                total, length = total + step["reward"], length + 1
                if step["terminated"] or step["truncated"]:
                    ended.append((total, length))
                    total, length = 0.0, 0
                    spent += "next" in kind
    statistics = collector.statistics
    assert statistics.episodes == len(ended)
    assert sorted(zip(statistics.returns, statistics.lengths, strict=True)) == sorted(ended)
    assert statistics.mean_return == pytest.approx(sum(r for r, _ in ended) / len(ended))


@every_kind
@pytest.mark.parametrize("masks", [False, True])
def test_state_round_trip_in_the_middle_of_episodes(kind: str, masks: bool) -> None:
    def begin() -> tuple[TensorEnv, Collector]:
        inner = KINDS[kind]()
        inner.masks = masks
        env = TensorEnv(inner)
        env.reset(seed=0)
        return env, Collector(env, 4)

    env, collector = begin()
    for played in range(6):  # so that each part of an episode is where it stops once
        states = copy.deepcopy((env.state_dict(), collector.state_dict()))
        env2, collector2 = begin()
        env2.load_state_dict(states[0])
        collector2.load_state_dict(states[1])
        one, other = collector.collect(choose), collector2.collect(choose)
        assert_close(one._asdict(), other._asdict(), rtol=0, atol=0)
        assert_close(vars(collector.statistics), vars(collector2.statistics), rtol=0, atol=0)
        assert env.steps == env2.steps > 0
        if played == 0:
            assert one.fresh[0].all()


def test_memory_is_made_once_and_given_again() -> None:
    collector = Collector(world("same"), 3)
    one = collector.collect(choose)
    kept = one.obs.clone()
    two = collector.collect(choose)
    assert one.obs.data_ptr() == two.obs.data_ptr() and one.action.data_ptr() == two.action.data_ptr()
    assert_close(two.obs[0], kept[-1], rtol=0, atol=0)  # goes on where it stopped
    next_obs = two.next_obs()
    assert_close(next_obs[~two.truncated], two.obs[1:][~two.truncated], rtol=0, atol=0)
    next_obs.fill_(7.0)  # a copy, where an obs had to be put in
    assert len(two.final[0]) and not bool((two.obs == 7).any())


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_masks_stand_beside_the_obs_they_belong_to(tensors: bool, late: bool) -> None:
    env = TensorEnv(Tapes(late, tensors, masks=True))
    env.reset(seed=0)
    collector = Collector(env, 9)
    for _ in range(2):
        steps = collector.collect(choose)
        assert steps.mask is not None and steps.mask.shape == (10, 3, 2) and steps.mask[..., 0].all()
        assert_close(steps.mask[..., 1], steps.obs[..., 2] % 2 == 0)
    assert Collector(world("same"), 2).collect(choose).mask is None


@pytest.mark.parametrize("tensors", [False, True])
def test_act_sees_rows_of_the_right_kind_and_where_episodes_begin(tensors: bool) -> None:
    env = TensorEnv(Tapes(False, tensors))
    env.reset(seed=0)
    seen = []

    def act(obs: Any, fresh: Any) -> Any:
        assert isinstance(obs, Tensor if tensors else np.ndarray) and isinstance(fresh, type(obs))
        seen.append((obs[:, 2] == 0).tolist() == fresh.tolist())
        return choose(obs, fresh)

    Collector(env, 20).collect(act)
    assert seen == [True] * 20


class Trees(gymnasium.Env):
    """Obs and actions of all kinds; obs say which actions came before; ends after 3 steps, cut off."""

    observation_space = spaces.Dict({"n": spaces.Discrete(5, start=1), "x": spaces.Box(-9, 9, (2,), np.float64)})
    action_space = spaces.Tuple((spaces.Discrete(3, start=-1), spaces.Box(-1, 1, (2,))))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self.t = 0
        return {"n": 1, "x": np.zeros(2)}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        choice, push = action
        assert choice in (-1, 0, 1) and push.shape == (2,) and abs(push).max() <= 1
        return {"n": 1 + self.t, "x": np.array(push, np.float64)}, float(choice), False, self.t == 3, {}


@pytest.mark.parametrize("late", [False, True])
def test_trees_of_obs_and_actions(late: bool) -> None:
    if late:
        env = TensorEnv(SyncVectorEnv([Trees] * 2, autoreset_mode=AutoresetMode.NEXT_STEP))
    else:
        env = make(Trees, 2)
    env.reset(seed=0)

    def act(obs: Any, fresh: Any) -> Any:
        assert set(obs) == {"n", "x"}
        return (obs["n"] % 3, np.stack([obs["n"] / 10.0 - 0.3, np.full(2, 5.0)], 1).astype(np.float32))

    steps = Collector(env, 9).collect(act)
    assert steps.obs["n"].dtype == torch.int64 and steps.obs["x"].dtype == torch.float32
    time = [1, 2, 3, 4] if late else [1, 2, 3]
    expected = torch.tensor((time * 4)[:10])
    assert_close(steps.obs["n"][:, 1], expected)
    following = steps.next_obs()
    valid = steps.valid[:, 0]
    assert_close(following["n"][valid, 0], steps.obs["n"][:-1][valid, 0] + 1)  # 4 at the end of each episode
    # what is stored is the policy's form: counted from 0, and not clipped
    assert_close(steps.action[0], steps.obs["n"][:-1] % 3)
    assert bool((steps.action[1][..., 1] == 5).all())
    assert_close(steps.reward[valid, 0], (steps.action[0][valid, 0] - 1).float())
    clipped = steps.action[1].clamp(-1, 1)
    assert_close(following["x"][valid, 0], clipped[valid, 0], rtol=0, atol=0)


def test_gymnasiums_own_vector_environment_and_ours_play_the_same_cartpole() -> None:
    """NEXT_STEP of a real SyncVectorEnv against SAME_STEP of the same environments."""

    def seeded(late: bool) -> TensorEnv:
        fns = [lambda: gymnasium.wrappers.TimeLimit(gymnasium.make("CartPole-v1").unwrapped, 12)] * 3
        mode = AutoresetMode.NEXT_STEP if late else AutoresetMode.SAME_STEP
        env = TensorEnv(SyncVectorEnv(fns, autoreset_mode=mode))
        env.reset(seed=3)
        return env

    def act(obs: Any, fresh: Any) -> Any:
        return (obs[:, 2] > 0.02).astype(np.int64)

    found = []
    for late in (False, True):
        steps = Collector(seeded(late), 60).collect(act)
        parts: dict[str, Any] = {
            "obs": steps.obs[:-1], "action": steps.action, "reward": steps.reward, "terminated": steps.terminated,
            "truncated": steps.truncated, "next_obs": steps.next_obs(),
        }  # fmt: skip
        found.append([tree_map(lambda x, n=n, valid=steps.valid: x[valid[:, n], n], parts) for n in range(3)])
    for same, late in zip(*found, strict=True):
        count = len(late["reward"])
        assert 40 < count < 60 and late["truncated"].any()
        assert_close({name: x[:count] for name, x in same.items()}, late, rtol=0, atol=0)


def test_it_wants_a_reset_first() -> None:
    with pytest.raises(ValueError, match="reset"):
        Collector(TensorEnv(Tapes(False)), 2).collect(choose)
