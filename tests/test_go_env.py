"""Go as an environment: rules and results are those of `Go`, games resume, and other libraries' checks pass."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

pytest.importorskip("numba")

from test_go import board  # pyrefly: ignore

import volition.envs  # noqa: F401 - registers
from volition.algorithms import ppo
from volition.core.game import Positions
from volition.core.policy import tree_map
from volition.envs import go
from volition.envs.go_env import GoEnv, GoVectorEnv, see
from volition.envs.go_game import Go
from volition.envs.go_planes import planes, small_planes
from volition.envs.go_random import random_actions
from volition.envs.go_uct import sensible
from volition.envs.serial import SerialVectorEnv
from volition.envs.vector import make
from volition.errors import VolitionError

PASS = 9  # on 3×3


def any_legal(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the actions that the mask `[B, A]` allows, all alike."""
    return (rng.random(mask.shape) * mask).argmax(-1)


def passes(positions: Positions) -> np.ndarray:
    return np.full(len(positions.rows), PASS)


@pytest.mark.parametrize(
    "settings",
    [{}, {"size": 5, "opponent": None}, {"size": 3, "planes": 49, "colour": "white"}, {"opponent": None, "planes": 48}],
)
def test_gymnasiums_checks(settings: dict[str, Any]) -> None:
    env = gym.make("volition/Go-v0", render_mode="rgb_array", **settings)
    check_env(env.unwrapped)
    assert gym.make("volition/Go5x5-v0").action_space == gym.spaces.Discrete(26)
    vector = gym.make_vec("volition/Go-v0", num_envs=3, vectorization_mode="vector_entry_point", **settings)
    obs, info = vector.reset(seed=3)
    vector.action_space.seed(0)
    ended = 0
    for _ in range(150):
        assert vector.observation_space.contains(obs)
        action = vector.action_space.sample(mask=tuple(info["action_mask"]))
        obs, reward, terminated, truncated, info = vector.step(action)
        assert reward.dtype == np.float32 and not truncated.any() and not reward[~terminated].any()
        if terminated.any():
            assert vector.observation_space.contains(info["final_obs"]) and not info["final_info"]["illegal"].any()
            ended += terminated.sum()
    assert ended or settings.get("size", 9) == 9


def test_both_sides_by_hand() -> None:
    env = GoVectorEnv(2, size=3, komi=0.5, opponent=None)
    obs, info = env.reset(seed=0)
    assert info["action_mask"].all() and (obs[:, 16] == 1).all()  # black is to play
    obs, reward, terminated, *_ = env.step(np.array([4, PASS]))
    assert obs[0, 1, 1, 1] == 1 and obs[0].sum() == obs[0, [1, 9, 10, 15]].sum()  # white sees the black stone
    assert not reward.any() and not terminated.any()
    _, reward, terminated, _, info = env.step(np.array([PASS, PASS]))
    # the second game is over, and white, who moved last, has won the empty board by komi
    assert terminated.tolist() == [False, True] and reward.tolist() == [0.0, 1.0]
    assert info["final_info"]["score"][1] == 0.5 and info["final_obs"][1, 17].all()
    assert env.positions.rows[:, go.MOVES].tolist() == [2, 0]  # and another has begun
    _, reward, terminated, _, info = env.step(np.array([PASS, 0]))
    assert terminated.tolist() == [True, False] and reward.tolist() == [1.0, 0.0]  # black has all nine points
    assert info["final_info"]["score"][0] == 8.5


@pytest.mark.parametrize(("colour", "reward", "score"), [("black", 1.0, 8.5), ("white", 1.0, 9.5)])
def test_an_opponent_that_passes(colour: Any, reward: float, score: float) -> None:
    asked = []

    def opponent(positions: Positions) -> np.ndarray:
        asked.append(positions.rows[:, go.TURN].tolist())
        return passes(positions)

    env = GoEnv(size=3, komi=0.5, opponent=opponent, colour=colour)
    obs, _ = env.reset(seed=1)
    assert (obs[16] == 1).all() == (colour == "black")
    assert (obs[17] == 1).all() == (colour == "white")  # it has passed already
    obs, got, terminated, _, _ = env.step(4)
    assert got == 0.0 and not terminated and obs[0, 1, 1] == 1
    _, got, terminated, truncated, info = env.step(PASS)
    assert (got, terminated, truncated) == (reward, True, False) and info["score"] == score
    assert asked == [[go.WHITE if colour == "black" else go.BLACK]] * (1 if colour == "black" else 2)


@pytest.mark.parametrize("ko", ["simple", "positional", "situational"])
@pytest.mark.parametrize("opponent", ["own", None])
def test_games_are_those_of_the_rules(ko: Any, opponent: str | None) -> None:
    """Every obs, mask and reward, from the moves alone played again on another board."""
    rules, rng, count = Go(4, 0.5, ko), np.random.default_rng(0), 6
    boards, sides, random = rules.start(count), np.zeros(count, np.int64), np.array([5], np.uint64)
    answers: list[tuple[np.ndarray, np.ndarray]] = []

    def answer(positions: Positions) -> np.ndarray:
        actions = random_actions(rules, positions, random)
        answers.append((positions.rows.copy(), actions))
        return actions

    env = GoVectorEnv(count, size=4, komi=0.5, ko=ko, opponent=answer if opponent else None)

    def follow() -> None:
        """Play what the opponent was asked, in the games whose boards it saw."""
        for rows, actions in answers:
            turn = iter(zip(rows, actions, strict=True))
            for k in range(count):
                if waits[k]:
                    row, action = next(turn)
                    assert np.array_equal(row[: go.HEAD], boards.rows[k, : go.HEAD])
                    rules.play(Positions(boards.rows[k : k + 1], boards.history[k : k + 1]), np.array([action]))
        answers.clear()

    obs, info = env.reset(seed=2)
    sides = env.colour.copy()
    waits = sides == go.WHITE
    follow()
    results = []
    for _ in range(400):
        assert np.array_equal(info["action_mask"], rules.legal(boards))
        assert np.array_equal(obs, small_planes(boards))
        action = any_legal(info["action_mask"], rng)
        moved = boards.rows[:, go.TURN].copy()
        rules.play(boards, action)
        obs, reward, terminated, _, info = env.step(action)
        waits = ~rules.over(boards) & bool(opponent)
        replies, begins = answers[: int(waits.any())], answers[int(waits.any()) :]
        answers[:] = replies
        follow()
        over = rules.over(boards)
        assert np.array_equal(over, terminated)
        black = np.sign(rules.score(boards))
        side = sides if opponent else moved
        assert np.array_equal(reward, np.where(over, np.where(side == go.BLACK, black, -black), 0))
        results += reward[over].tolist()
        if over.any():
            assert np.array_equal(info["final_obs"][over], small_planes(boards.take(over)))
            fresh = rules.start(int(over.sum()))
            boards.rows[over], boards.history[over] = fresh
            sides = env.colour.copy()
            waits, answers[:] = over & (sides == go.WHITE), begins
            follow()
    assert {1.0, -1.0} <= set(results) and len(results) > 20


def test_the_random_opponent_is_uniform_and_keeps_its_eyes() -> None:
    rules, positions = board("X.X.O XXXO. .O.OO XX.O. .X.OO", go.BLACK)
    mask = np.empty(26, np.bool_)
    sensible(positions.rows[0], positions.history[0, :1], 1, mask)
    good = np.flatnonzero(mask[:25])
    many = positions.take(np.zeros(20_000, np.int64))
    counts = np.bincount(random_actions(rules, many, np.array([9], np.uint64)), minlength=26)
    assert counts[1] == 0 and len(good) > 2 and counts[good].sum() == 20_000  # (0, 1) is black's eye
    expected = 20_000 / len(good)
    assert ((counts[good] - expected) ** 2 / expected).sum() < 30  # χ² of a few degrees of freedom
    rules, positions = board("X.X XXX X.X", go.BLACK)
    assert random_actions(rules, positions, np.array([9], np.uint64)).tolist() == [PASS]
    found = {}
    for ko in ("simple", "positional"):
        rules, positions = board(".XO.. XO.O. .XO.. ..... .....", go.BLACK, Go(5, 0.5, ko))
        for action in (24, 20, 7):  # the last takes (1, 1)
            rules.play(positions, np.array([action]))
        positions.rows[0, go.KO] = go.PASS  # so that only the history forbids to take back
        found[ko] = random_actions(rules, positions.take(np.zeros(1_000, np.int64)), np.array([9], np.uint64))
    assert (found["simple"] == 6).any() and not (found["positional"] == 6).any()


def test_colours_are_drawn_evenly_and_games_repeat_by_seed() -> None:
    env = GoVectorEnv(2_000, size=3)
    env.reset(seed=0)
    assert 900 < (env.colour == go.BLACK).sum() < 1_100
    assert (env.positions.rows[:, go.MOVES] == (env.colour == go.WHITE)).all()

    def play(seed: int) -> list[np.ndarray]:
        one, rng = GoVectorEnv(4, size=4), np.random.default_rng(0)
        seen, info = one.reset(seed=seed)
        found = [seen]
        for _ in range(60):
            seen, reward, *_, info = one.step(any_legal(info["action_mask"], rng))
            found += [seen, reward]
        return found

    assert all(np.array_equal(a, b) for a, b in zip(play(1), play(1), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(play(1), play(2), strict=True))


@pytest.mark.parametrize("count", [2, 6])  # one after the other, and the vector form
def test_a_saved_game_goes_on(count: int) -> None:
    def play(world: Any, steps: int, seed: int) -> list[torch.Tensor]:
        rng, found = np.random.default_rng(seed), []
        for _ in range(steps):
            obs, reward, *_ = world.step(torch.from_numpy(any_legal(np.asarray(world.mask), rng)))
            found += [obs, reward, torch.as_tensor(world.mask)]
        return found

    one, two = make("volition/Go5x5-v0", count), make("volition/Go5x5-v0", count)
    assert isinstance(one.env, GoVectorEnv if count > 4 else SerialVectorEnv)
    one.reset(seed=4)
    play(one, 40, 0)
    saved = tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, one.state_dict())
    after = play(one, 60, 1)
    two.reset(seed=9)
    two.load_state_dict(saved)
    assert all(torch.equal(a, b) for a, b in zip(after, play(two, 60, 1), strict=True))


def test_a_saved_game_of_another_board_is_refused() -> None:
    env = GoVectorEnv(3, size=4)
    env.reset(seed=0)
    for other in (GoVectorEnv(2, size=4), GoVectorEnv(3, size=5), GoVectorEnv(3, size=4, limit=10)):
        with pytest.raises(VolitionError, match="was saved with"):
            other.load_state_dict(env.state_dict())


def test_tensors_are_the_same_games() -> None:
    arrays, tensors = GoVectorEnv(4, size=3), GoVectorEnv(4, size=3, tensors=True)
    rng = np.random.default_rng(0)
    (a, info), (b, other) = arrays.reset(seed=1), tensors.reset(seed=1)
    for _ in range(50):
        assert isinstance(b, torch.Tensor) and np.array_equal(a, b.numpy())
        assert np.array_equal(info["action_mask"], other["action_mask"].numpy())
        action = any_legal(info["action_mask"], rng)
        a, reward, _, _, info = arrays.step(action)
        b, same, _, _, other = tensors.step(torch.from_numpy(action))
        assert np.array_equal(reward, same.numpy()) and info.keys() == other.keys()


def test_illegal_actions_lose_or_raise() -> None:
    env = GoVectorEnv(4, size=3, opponent=None)
    env.reset(seed=0)
    env.step(np.array([4, 4, 4, 4]))
    _, reward, terminated, _, info = env.step(np.array([4, 0, -1, PASS + 1]))
    assert reward.tolist() == [-1.0, 0.0, -1.0, -1.0] and terminated.tolist() == [True, False, True, True]
    assert info["final_info"]["illegal"].tolist() == terminated.tolist()
    assert env.positions.rows[:, go.MOVES].tolist() == [0, 2, 0, 0]
    strict = GoVectorEnv(4, size=3, opponent=passes, colour="black", illegal="raises")
    strict.reset(seed=0)
    strict.step(np.array([4, 4, 4, 4]))
    before = strict.positions.rows.copy()
    with pytest.raises(VolitionError, match="action 4 is illegal in game 1"):
        strict.step(np.array([0, 4, 0, 0]))
    assert np.array_equal(before, strict.positions.rows)  # nothing was played
    for wrong in (np.array([0, 0]), np.array([0.0, 1, 2, 3]), 0):
        with pytest.raises(VolitionError, match="one whole number for each of 4"):
            strict.step(wrong)


@pytest.mark.parametrize(
    "answer", [lambda p: np.full(len(p.rows), 4), lambda p: np.zeros(0, int), lambda p: [PASS + 1]]
)
def test_an_opponent_that_cheats_is_told(answer: Any) -> None:
    env = GoVectorEnv(1, size=3, opponent=answer, colour="black")
    env.reset(seed=0)
    with pytest.raises(VolitionError, match="opponent"):
        env.step(np.array([4]))


def test_bad_settings() -> None:
    for wrong in (
        {"num_envs": 0}, {"opponent": "uct"}, {"colour": "red"}, {"planes": 17}, {"illegal": "ignored"}, {"size": 1},
        {"ko": "none"}, {"limit": 1},
    ):  # fmt: skip
        with pytest.raises(VolitionError):
            GoVectorEnv(**wrong)
    with pytest.raises(VolitionError, match="refused"):
        make("volition/Go-v0", options={"sise": 9})


def test_planes_are_those_asked_for() -> None:
    for count in (48, 49):
        env = GoEnv(size=5, planes=count, opponent=None)
        obs, _ = env.reset(seed=0)
        obs, *_ = env.step(7)
        assert obs.dtype == np.float32 and np.array_equal(obs, planes(env.vector.positions, count)[0])
        assert np.array_equal(see(env.vector.positions, count)[0], obs)


def test_pictures_show_the_last_step_not_the_next_game() -> None:
    env = GoVectorEnv(1, size=3, opponent=None, render_mode="ansi")
    env.reset(seed=0)
    for action in (1, 6, PASS, PASS):
        env.step(np.array([action]))
    (shown,) = env.render() or ()
    assert shown.splitlines()[1:4] == [" 3 . X . 3", " 2 . . . 2", " 1 O . . 1"]
    assert env.positions.rows[0, go.MOVES] == 0
    one = GoEnv(size=3, opponent=None, render_mode="rgb_array")
    one.reset(seed=0)
    one.step(1)
    one.step(6)
    frame = one.render()
    assert frame.shape == (72, 72, 3) and frame.dtype == np.uint8
    brightness = frame[4::24, 8::24].mean(-1)  # beside the middle, within a stone
    assert brightness[0, 1] < 50 and brightness[2, 0] > 240 and 100 < brightness[1, 1] < 230
    assert GoEnv(size=3).render() is None


def test_ppo_plays_it_with_masks() -> None:
    env = GoVectorEnv(16, size=3, illegal="raises")  # any illegal action would be told
    config = ppo.Config(num_envs=16, horizon=16, hidden=(16,), epochs=2, gamma=1.0, steps=16 * 16 * 6)
    agent = ppo.train(config, env=env)
    obs, info = env.reset(seed=5)
    action = agent.act(obs, mask=info["action_mask"])
    assert info["action_mask"][np.arange(16), action].all()


def test_a_trained_agent_can_be_the_opponent() -> None:
    agent = ppo.train(ppo.Config(num_envs=8, horizon=8, hidden=(8,), steps=64), env=GoVectorEnv(8, size=3))
    rules = Go(3)

    def opponent(positions: Positions) -> np.ndarray:
        return agent.act(small_planes(positions), mask=rules.legal(positions))

    env, rng, results = GoVectorEnv(8, size=3, opponent=opponent), np.random.default_rng(0), []
    _, info = env.reset(seed=0)
    for _ in range(100):
        _, reward, terminated, _, info = env.step(any_legal(info["action_mask"], rng))
        results += reward[terminated].tolist()
    assert len(results) > 10
