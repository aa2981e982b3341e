"""The small environments: CartPole's own physics under fewer numbers, and a memory task whose optimum is known."""

import gymnasium
import numpy as np
import pytest
import torch

import volition.envs  # noqa: F401 - registers
from volition.envs.classic import CartPoleNoVelocityVector
from volition.envs.vector import make
from volition.errors import VolitionError


def test_cartpole_without_velocities_is_cartpole() -> None:
    env, full = gymnasium.make("volition/CartPoleNoVelocity-v0"), gymnasium.make("CartPole-v1")
    ends = 0
    one, two = env.reset(seed=1), full.reset(seed=1)
    for t in range(300):
        np.testing.assert_array_equal(one[0], two[0][[0, 2]])
        assert env.observation_space.contains(one[0]) and one[1:] == two[1:]
        over = t > 0 and (one[2] or one[3])
        ends += over
        one, two = (env.reset(), full.reset()) if over else (env.step(t % 3 > 0), full.step(t % 3 > 0))
        if over:
            one, two = env.step(0), full.step(0)
    assert ends > 5 and env.spec is not None and env.spec.max_episode_steps == 500


def test_its_vector_form() -> None:
    env = make("volition/CartPoleNoVelocity-v0", 6)
    assert isinstance(env.env, CartPoleNoVelocityVector) and env.limit == 500
    full = gymnasium.make_vec("CartPole-v1", 6, vectorization_mode="vector_entry_point")
    obs, _ = env.reset(seed=2)
    whole, _ = full.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(60):
        assert env.single_observation_space.contains(obs[0].numpy())
        np.testing.assert_array_equal(obs.numpy(), whole[:, [0, 2]])
        action = rng.integers(2, size=6)
        obs, reward, *_ = env.step(torch.from_numpy(action))
        whole, pay, *_ = full.step(action)
        np.testing.assert_array_equal(reward, pay)
    other = make("volition/CartPoleNoVelocity-v0", 6)
    other.load_state_dict(env.state_dict())
    for t in range(30):
        action = torch.full((6,), t % 2)
        assert torch.equal(env.step(action)[0], other.step(action)[0])


@pytest.mark.parametrize(("cues", "blanks"), [(2, 4), (3, 0), (5, 1)])
def test_memory_pays_who_remembers(cues: int, blanks: int) -> None:
    env = make("volition/Memory-v0", 40, options={"cues": cues, "blanks": blanks})
    obs, _ = env.reset(seed=0)
    seen = set()
    for _ in range(3):
        cue = obs
        seen |= set(cue.tolist())
        for t in range(blanks + 1):
            obs, reward, terminated, truncated, _ = env.step(torch.full((40,), t % cues))
            assert (reward == 0).all() and not (terminated | truncated).any()
            assert (obs == (0 if t < blanks else cues + 1)).all()
        answer = torch.where(torch.arange(40) % 2 == 0, cue - 1, cue % cues)  # right, and one too far
        obs, reward, terminated, truncated, _ = env.step(answer)
        assert terminated.all() and not truncated.any()
        assert reward.tolist() == [1.0, 0.0] * 20
    assert seen == set(range(1, cues + 1))


def test_mistakes() -> None:
    with pytest.raises(VolitionError, match="cues 0"):
        make("volition/Memory-v0", options={"cues": 0})
