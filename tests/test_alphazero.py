"""AlphaZero: games seen from all sides, who won, what is remembered, and perfect play of tic-tac-toe."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from volition.applications import alphazero
from volition.applications._actors import actors
from volition.applications._zero_board import Eye, Net, board
from volition.core.match import match
from volition.envs.go_planes import INVERSE
from volition.envs.lines import CONNECT_FOUR, HEAD, TIC_TAC_TOE, Line, LineGames, solve
from volition.errors import VolitionError

GAMES = (("tictactoe", 3), ("connect4", 0), ("go", 5))


def some_positions(game, count: int, moves: int):
    rng, positions = np.random.default_rng(0), game.start(count)
    for _ in range(moves):
        legal = game.legal(positions)
        game.play(positions, (rng.random(legal.shape) * legal).argmax(1))
    return positions


@pytest.mark.parametrize(("name", "size"), GAMES)
def test_a_board_turned_is_the_game_turned(name: str, size: int) -> None:
    of = board(name, size)
    for code in of.codes:
        one, other, rng = of.game.start(1), of.game.start(1), np.random.default_rng(code)
        for _ in range(4):
            legal = of.game.legal(one)
            action = np.array([rng.choice(np.flatnonzero(legal[0]))])
            chosen = np.zeros((1, of.game.actions))
            chosen[0, action] = 1
            turned = of.moved(chosen, np.array([code])).argmax(1)
            of.game.play(one, action)
            of.game.play(other, turned)
        assert np.array_equal(of.turned(of.look(one), np.array([code])), of.look(other))


@pytest.mark.parametrize(("name", "size"), GAMES)
def test_turned_there_and_back(name: str, size: int) -> None:
    of, rng = board(name, size), np.random.default_rng(0)
    values, codes = rng.random((30, of.game.actions)), rng.choice(of.codes, 30)
    assert np.array_equal(of.moved(of.moved(values, codes), INVERSE[codes]), values)


def test_the_mean_over_symmetries_is_what_an_eye_gives_on_average() -> None:
    torch.manual_seed(0)
    of = board("connect4", 0)
    net = Net(of, 1, 8).eval()
    positions = some_positions(of.game, 1, 5)
    eye = Eye(of, net, np.random.default_rng(0))
    seen = {tuple(np.round(eye(positions)[0][0], 4)) for _ in range(20)}
    mirror = of.turned(of.look(positions), np.array([2]))
    plain, flipped = (net(torch.from_numpy(x).float())[0][0].detach().numpy() for x in (of.look(positions), mirror))
    assert seen == {tuple(np.round(plain, 4)), tuple(np.round(flipped[::-1], 4))}


def test_perfect_play_by_minimax() -> None:
    positions, values, each = solve(TIC_TAC_TOE)
    assert len(positions.rows) == 4_520
    start = positions.rows[:, 1] == 0
    assert values[start] == 0 and (each[start] == 0).all()
    # a corner is answered by the middle only
    corner = (positions.rows[:, 1] == 1) & (positions.rows[:, HEAD] == 1)
    assert each[corner][0, 1:].tolist() == [-1, -1, -1, 0, -1, -1, -1, -1]
    positions, values, _ = solve(Line(3, 3, 2))  # two in a row: whoever begins wins
    assert values[positions.rows[:, 1] == 0] == 1


def test_random_games_end_as_often_as_counted() -> None:
    # tic-tac-toe at random: the beginner wins 737/1260, the other 363/1260, 8/63 are drawn
    count = 20_000
    results = LineGames(TIC_TAC_TOE)(TIC_TAC_TOE.start(count))
    shares = [(results == r).mean() for r in (1, -1, 0)]
    assert shares == pytest.approx([737 / 1260, 363 / 1260, 8 / 63], abs=4 * 0.5 / count**0.5)
    ended = some_positions(CONNECT_FOUR, 50, 60)
    assert np.array_equal(LineGames(CONNECT_FOUR)(ended), CONNECT_FOUR.outcome(ended))


@pytest.mark.parametrize("root", ["gumbel", "puct"])
def test_who_won_is_told_from_the_view_of_each_position(root) -> None:
    config = alphazero.Config(
        game="tictactoe", root=root, simulations=4, considered=4, together=12, games=12, blocks=1, channels=4
    )
    of, rng = config.board, np.random.default_rng(0)
    eye = Eye(of, Net(of, 1, 4), rng)
    planes, policy, won, moves = alphazero.self_play(config, of, eye, rng)
    assert len(planes) == round(moves * 12) and np.allclose(policy.sum(1), 1, atol=1e-5)
    taken = planes.reshape(len(planes), 2, 9).any(1)
    assert policy[taken].max() < 1e-6
    lines = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]
    flat = planes.reshape(len(planes), 2, 9)
    for seen, result in zip(flat, won, strict=True):
        # the last position of a game that was won: the side to move has two of three, and has won
        if seen.sum() == 8 and result != 0:
            assert result == 1 and any(seen[0, list(line)].sum() == 2 for line in lines)


def test_the_games_are_the_same_in_other_processes() -> None:
    config = replace(alphazero.VARIANTS["tiny"], updates=2)
    alone, others = (alphazero.train(replace(config, workers=workers)) for workers in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), others.parameters(), strict=True))


def fail(weights, seed):
    os._exit(3)


def test_a_process_that_ends_is_told() -> None:
    with actors(fail, 1) as play, pytest.raises(VolitionError, match="ended by itself"):
        play({}, [1])


def test_the_oldest_positions_are_forgotten() -> None:
    of, rng = board("connect4", 0), np.random.default_rng(0)
    memory = alphazero.Memory(of, 10)
    planes = rng.integers(0, 2, (14, 2, 6, 7), dtype=np.uint8)
    for part in (slice(0, 8), slice(8, 14)):
        count = len(planes[part])
        memory.add(planes[part], np.zeros((count, 7), np.float32), np.arange(14, dtype=np.float32)[part])
    assert memory.won.tolist() == list(range(4, 14))
    seen, _, won = memory.draw(50, rng)
    assert np.array_equal(seen, planes[won.astype(int)])
    again = alphazero.Memory(of, 10)
    again.load_state_dict(memory.state_dict())
    assert np.array_equal(again.draw(5, np.random.default_rng(1))[0], memory.draw(5, np.random.default_rng(1))[0])


def test_it_learns_tic_tac_toe() -> None:
    config = replace(alphazero.VARIANTS["tictactoe"], updates=10, steps=20, games=32, together=32, simulations=16)
    net = alphazero.train(config)
    of = config.board
    trained = alphazero.perfect(of, 16, Eye(of, net, np.random.default_rng(0)))
    torch.manual_seed(1)
    fresh = alphazero.perfect(of, 16, Eye(of, Net(of, 2, 32), np.random.default_rng(0)))
    assert trained > 91 and trained > fresh + 3, (trained, fresh)


def test_a_search_of_random_games_beats_random_moves() -> None:
    of = board("connect4", 0)
    openings = np.array([alphazero.random_opening(of.game, np.random.default_rng(g // 2)) for g in range(20)])
    assert match(of.game, alphazero.uct(of, 200), alphazero.uct(of, 2), openings) > 16
