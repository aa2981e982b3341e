"""Go for PettingZoo: its own tests, and a game by hand."""

import functools
import importlib
import sys

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("pettingzoo")

from pettingzoo.test import api_test, seed_test
from pettingzoo.test.render_test import render_test

from volition.envs import go_aec
from volition.envs.go_game import Go
from volition.envs.go_planes import small_planes
from volition.errors import VolitionError

PASS = 9  # on 3×3


@pytest.mark.filterwarnings("ignore:Observation")  # PettingZoo warns of any Dict that is not a game of its own
@pytest.mark.parametrize("settings", [{"size": 5}, {"size": 4, "planes": 49, "ko": "situational"}])
def test_pettingzoos_tests(settings: dict, capsys: pytest.CaptureFixture) -> None:
    api_test(go_aec.env(**settings), num_cycles=100)
    api_test(go_aec.GoAEC(**settings), num_cycles=100)
    seed_test(lambda: go_aec.env(**settings), num_cycles=50)
    render_test(functools.partial(go_aec.env, **settings))
    assert " A B C D" in capsys.readouterr().out  # of the mode human


def test_a_game_by_hand() -> None:
    env = go_aec.env(3, komi=0.5)
    env.reset(seed=0)
    assert env.agents == ["black_0", "white_0"] and env.agent_selection == "black_0"
    env.step(4)
    obs, reward, *_ = env.last()
    assert env.agent_selection == "white_0" and reward == 0
    assert obs["observation"][1, 1, 1] == 1 and obs["action_mask"].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]
    black = env.observe("black_0")
    assert black["observation"][0, 1, 1] == 1 and black["observation"][16].all() and not black["action_mask"].any()
    env.step(PASS)
    env.step(PASS)
    assert env.rewards == {"black_0": 1.0, "white_0": -1.0} and all(env.terminations.values())
    assert env.infos == {"black_0": {"score": 8.5}, "white_0": {"score": -8.5}}
    assert not env.observe("white_0")["action_mask"].any()
    env.step(None)
    env.step(None)
    assert env.agents == []


def test_whoever_moves_sees_what_the_rules_say() -> None:
    env, rules, rng = go_aec.GoAEC(4, limit=30), Go(4, limit=30), np.random.default_rng(0)
    for _ in range(5):
        env.reset()
        board, count = rules.start(1), 0
        for _ in env.agent_iter():
            obs, reward, terminated, _, _ = env.last()
            if terminated:
                assert reward == (np.sign(rules.score(board)[0]) * (1 if env.agent_selection == "black_0" else -1))
                env.step(None)
                continue
            assert np.array_equal(obs["observation"], small_planes(board)[0]) and reward == 0
            assert np.array_equal(obs["action_mask"], rules.legal(board)[0])
            action = int(rng.choice(np.flatnonzero(obs["action_mask"])))
            env.step(action)
            rules.play(board, np.array([action]))
            count += 1
        assert rules.over(board)[0] and count <= 30


def test_draws_pay_nobody() -> None:
    env = go_aec.env(3, komi=0.0)
    env.reset()
    env.step(PASS)
    env.step(PASS)
    assert env.rewards == {"black_0": 0.0, "white_0": 0.0} and all(env.terminations.values())


def test_illegal_moves() -> None:
    raw = go_aec.GoAEC(3)
    raw.reset()
    raw.step(4)
    for action in (4, -1, PASS + 1, None):
        with pytest.raises(VolitionError, match="of white_0 is illegal"):
            raw.step(action)
    wrapped = go_aec.env(3)
    wrapped.reset()
    wrapped.step(4)
    wrapped.step(4)
    assert wrapped.rewards == {"black_0": 0, "white_0": -1.0} and all(wrapped.terminations.values())
    for wrong in ({"planes": 17}, {"render_mode": "film"}, {"size": 1}):
        with pytest.raises(VolitionError):
            go_aec.GoAEC(**wrong)


def test_without_pettingzoo_one_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    with pytest.raises(VolitionError, match="pip install"):
        importlib.reload(go_aec)
    monkeypatch.undo()
    importlib.reload(go_aec)
