"""Self-play of Go: what may be played, whose turn it is, and the records that come of it."""

import numpy as np
import pytest

from volition.applications._go_lessons import OwnGames, value_error
from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_replay import replay
from volition.envs.go_rollout import RolloutPolicy
from volition.envs.go_selfplay import any_move, colours, open_moves, play_games, sample

RULES = Go(5, komi=0.5)


def after(moves: list[int], rules: Go = RULES):
    positions = rules.start(1)
    for move in moves:
        rules.play(positions, np.array([move]))
    return positions


def test_a_pass_only_of_a_settled_board() -> None:
    # black's wall in the second column, white's in the fourth; the third column touches both
    wall = [move for r in range(5) for move in (5 * r + 1, 5 * r + 3)]
    assert not open_moves(RULES, after(wall))[0, 25]
    # black fills the third column; white passes meanwhile, which nothing forbids to who replays
    closed = [*wall, *(move for r in range(5) for move in (5 * r + 2, 25))]
    assert open_moves(RULES, after(closed))[0, 25]
    assert not open_moves(RULES, RULES.start(1))[0, 25]


def test_own_eyes_stay_and_the_last_resort_is_a_pass() -> None:
    rules = Go(2, komi=0.5)
    # black has three of four points: the fourth is its eye, and white has no legal move
    positions = after([0, 4, 1, 4, 2, 4], rules)
    assert open_moves(rules, positions)[0].tolist() == [False] * 4 + [True]
    positions = after([0, 4, 1, 4, 2], rules)
    assert open_moves(rules, positions)[0].tolist() == [False, False, False, True, True]  # white may take


def test_samples_follow_the_softmax_over_what_is_allowed() -> None:
    logits = np.tile(np.log([0.5, 0.3, 0.1, 0.1]).astype(np.float32), (40_000, 1))
    mask = np.tile([True, True, False, True], (40_000, 1))
    rng = np.random.default_rng(0)
    share = np.bincount(sample(logits, mask, 1.0, rng), minlength=4) / 40_000
    assert np.allclose(share, [5 / 9, 3 / 9, 0, 1 / 9], atol=0.01)  # three standard deviations
    hot = np.bincount(sample(logits, mask, 2.0, rng), minlength=4) / 40_000
    assert np.allclose(hot[0] / hot[1], (5 / 3) ** 0.5, rtol=0.05)
    assert (sample(logits, mask, 0.0, rng) == 0).all()


def test_games_end_are_legal_and_counted() -> None:
    rng = np.random.default_rng(1)
    games = play_games(RULES, [any_move], np.zeros((50, RULES.moves), int), rng)
    moves = replay(games, RULES)
    assert moves.broken == 0 and len(moves) == games.start[-1]
    for g in range(50):
        positions = after(games.moves[games.start[g] : games.start[g + 1]].tolist())
        assert RULES.over(positions)[0]
        assert games.winner[g] == np.sign(RULES.score(positions)[0])


def test_everybody_plays_in_turn() -> None:
    asked: list[tuple[int, np.ndarray]] = []

    def player(number: int):
        def policy(positions):
            asked.append((number, positions.rows[:, [go.MOVES, go.TURN]].copy()))
            return any_move(positions)

        return policy

    turns = np.tile(np.where(np.arange(RULES.moves) < 3, 0, np.where(np.arange(RULES.moves) == 3, 1, 2)), (8, 1))
    play_games(RULES, [player(n) for n in range(3)], turns, np.random.default_rng(0))
    for number, seen in asked:
        assert {0: seen[:, 0].max() < 3, 1: (seen[:, 0] == 3).all(), 2: seen[:, 0].min() > 3}[number]
    asked.clear()
    black = np.arange(8) % 2
    play_games(RULES, [player(0), player(1)], colours(RULES, black, 1 - black), np.random.default_rng(0))
    first = [seen for number, seen in asked if number == 0 and seen[0, 0] == 0]
    assert len(first) == 1 and len(first[0]) == 4 and (first[0][:, 1] == go.BLACK).all()


def test_one_position_of_each_game() -> None:
    own = OwnGames(RULES)
    rng = np.random.default_rng(0)
    for _ in range(2):
        games = play_games(RULES, [any_move], np.zeros((20, RULES.moves), int), rng)
        own.add(games, np.full(20, 6))
        assert np.diff(games.start).min() > 6
    learn, held = own.positions(0.25)
    assert len(learn) + len(held) == len(own.length) == 40
    assert (learn.ply == 6).all() and len(np.unique(learn.game)) == len(learn)
    assert not set(learn.game) & set(held.game) and len(held) == 10
    whole, _ = own.positions(0.25, whole=True)
    assert len(whole) == (own.length[:30] - 6).sum()
    again = OwnGames(RULES)
    again.load_state_dict(own.state_dict())
    for name in ("moves", "length", "winner", "ply"):
        assert np.array_equal(getattr(again, name), getattr(own, name)), name


def test_games_over_too_early_are_left_out() -> None:
    own = OwnGames(RULES)
    games = play_games(RULES, [any_move], np.zeros((10, RULES.moves), int), np.random.default_rng(0))
    own.add(games, np.diff(games.start) - np.arange(10) % 2)  # the last move, or one beyond it
    assert len(own.length) == 5


def test_the_error_of_a_value() -> None:
    won = np.array([1, -1, 1, np.nan])
    found = value_error(np.array([0.5, 0.0, 1.0, 9.0]), won)
    assert found["value_mse"] == pytest.approx((0.25 + 1 + 0) / 3)
    assert found["value_mse_constant"] == pytest.approx(8 / 9)  # 1 − (1/3)²


def test_a_rollout_policy_comes_back() -> None:
    positions, rng = after([12, 6, 18]), np.random.default_rng(0)
    policy, again = RolloutPolicy(), RolloutPolicy()
    games = play_games(RULES, [any_move], np.zeros((10, RULES.moves), int), rng)
    moves = replay(games, RULES)
    policy.fit(*moves.positions(np.arange(len(moves))))
    again.load_state_dict(policy.state_dict())
    assert np.array_equal(again.weights, policy.weights) and np.array_equal(again.squares, policy.squares)
    assert np.array_equal(again.probabilities(positions), policy.probabilities(positions))
