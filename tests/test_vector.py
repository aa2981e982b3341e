"""Gymnasium environments in tensors: shapes, ends, every kind of space, and exact resume in the middle of episodes."""

import copy
import io
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import Tensor
from torch.testing import assert_close

from volition.core.policy import Tree, tree_map
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
    with pytest.raises(VolitionError, match="cannot be put back"):
        make(vector).load_state_dict(env.state_dict())
    with pytest.raises(VolitionError, match="SAME_STEP"):
        make(gymnasium.wrappers.vector.RecordEpisodeStatistics(
            SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")], autoreset_mode=AutoresetMode.DISABLED)
        ))  # fmt: skip


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
