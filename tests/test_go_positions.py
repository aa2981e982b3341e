"""Positions of Go worked by hand: snapback, seki, ko fights, cycles that superko ends; and all legal boards counted."""

import numpy as np
import pytest

pytest.importorskip("numba")

from test_go import at, board, legal, put  # pyrefly: ignore

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go_game import KO, Go
from volition.envs.go_random import random_actions
from volition.envs.go_render import colours

B, W = go.BLACK, go.WHITE


def shown(positions: Positions) -> list[str]:
    """The board as `board` reads it."""
    return ["".join(".XO"[colour] for colour in line) for line in colours(positions.rows)[0]]


def owners(rules: Go, positions: Positions) -> tuple[int, int, int]:
    """Points of black, of white and of nobody."""
    owner = np.empty(go.points(rules.size), np.int8)
    score = go.area(positions.rows[0], owner)
    black, white, nobody = (int((owner == colour).sum()) for colour in (B, W, go.EMPTY))
    assert score == black - white and black + white + nobody == rules.size**2
    return black, white, nobody


def taken(positions: Positions) -> int:
    return int(positions.rows[0, go.TAKEN])


@pytest.mark.parametrize("ko", KO)
def test_snapback(ko: str) -> None:
    text = ".OX.. .OX.. XX... ..... ....."
    rules, positions = board(text, B, Go(5, 0.5, ko))
    put(rules, positions, (0, 0), (1, 0))  # black throws a stone in, white takes it
    assert taken(positions) == 1 and positions.rows[0, go.KO] == go.PASS
    put(rules, positions, (0, 0))  # and loses three where it has taken one: no ko, and no board comes back
    assert taken(positions) == 4 and shown(positions) == ["X.X..", "..X..", "XX...", ".....", "....."]
    # two that have taken one, with one liberty and one stone beside it: still no ko
    rules, positions = board("..OX. OXX.. OX... ..... .....", B, Go(5, 0.5, ko))
    put(rules, positions, (0, 0), (0, 1), (0, 0))
    assert taken(positions) == 3 and shown(positions)[:2] == ["X..X.", "OXX.."]


def test_one_stone_takes_four_chains() -> None:
    rules, positions = board("..X.. .XOX. XO.OX .XOX. ..X..", B)
    after = rules.start(1)
    after.rows[:], after.history[:] = positions
    after.rows[0, go.TURN] = W
    assert not legal(rules, after, 2, 2)  # white would join all four, and the five have no liberty
    put(rules, positions, (2, 2))
    assert taken(positions) == 4 and positions.rows[0, go.KO] == go.PASS
    assert shown(positions) == ["..X..", ".X.X.", "X.X.X", ".X.X.", "..X.."]
    assert owners(rules, positions) == (25, 0, 0)
    assert not any(legal(rules, positions, *p) for p in ((1, 2), (2, 1), (2, 3), (3, 2)))  # suicide of one stone


SHARED = "X.OX.X. XXOXXXX X.OX.X. XOOXXXX OXXXXXX OOOOOOO O.O.OOO"
EYES = ".XOOOX. XXO.OXX X.OOOX. XOOXXXX OXXXXXX OOOOOOO O.O.OOO"


def test_seki_with_two_shared_liberties() -> None:
    rules, positions = board(SHARED, B)
    # five stones on either side live without an eye: (0, 1) and (2, 1) belong to nobody
    assert owners(rules, positions) == (27, 20, 2)
    for turn in (B, W):
        for first, second in (((0, 1), (2, 1)), ((2, 1), (0, 1))):
            rules, positions = board(SHARED, turn)
            put(rules, positions, first, second)  # who fills one is taken by the other
            assert taken(positions) == 6
            assert colours(positions.rows)[0, 1, 1 if turn == B else 2] == go.EMPTY
        assert not any(go.own_eye(positions.rows[0], at(7, r, 1), turn) for r in (0, 2))


def test_seki_with_an_eye_each() -> None:
    rules, positions = board(EYES, B)
    assert owners(rules, positions) == (22, 26, 1)  # each has its eye, nobody the shared liberty
    row, random = positions.rows[0], np.array([3], np.uint64)
    assert go.own_eye(row, at(7, 0, 0), B) and go.own_eye(row, at(7, 1, 3), W)
    assert not go.own_eye(row, at(7, 2, 1), B) and not go.own_eye(row, at(7, 2, 1), W)
    assert not legal(rules, positions, 1, 3)  # nor can black play into white's eye
    # random games keep the eyes and yet know no seki: the shared liberty is all that is left, and loses the stones
    assert {int(random_actions(rules, positions, random)[0]) for _ in range(50)} == {2 * 7 + 1}
    assert {int(go.random_move(row, random)) for _ in range(50)} == {at(7, 2, 1)}
    put(rules, positions, (2, 1))
    assert {int(random_actions(rules, positions, random)[0]) for _ in range(50)} == {0}
    put(rules, positions, (0, 0))
    assert taken(positions) == 6 and owners(rules, positions) == (16, 33, 0)


@pytest.mark.parametrize("ko", KO)
def test_a_ko_fight(ko: str) -> None:
    """Black takes, white threatens and takes back, black threatens and takes back, white has no threat, black fills."""
    text = ".XO.... XO.O... .XO.... ....... .O...X. OX...OX ......."
    rules, positions = board(text, B, Go(7, 0.5, ko))
    put(rules, positions, (1, 2))
    assert not legal(rules, positions, 1, 1)
    put(rules, positions, (5, 2), (6, 1))  # atari, and out
    put(rules, positions, (1, 1))
    assert not legal(rules, positions, 1, 2)
    put(rules, positions, (5, 4), (6, 5))
    put(rules, positions, (1, 2))
    assert not legal(rules, positions, 1, 1)
    put(rules, positions, (3, 6), (1, 1))
    assert taken(positions) == 3 and shown(positions)[:3] == [".XO....", "XXXO...", ".XO...."]
    assert go.liberties(positions.rows[0], at(7, 1, 2), 9) == 3  # (0, 0), (2, 0) and (3, 1)


def test_send_two_return_one() -> None:
    """White adds a stone, black takes both, white takes back one: the board of before, with the other side to move."""
    text = ".O.O. XXO.. .XO.. ..... ....."
    send, take, back = (0, 0), (0, 2), (0, 1)
    rules, positions = board(text, W, Go(5, 0.5, "positional"))
    put(rules, positions, send, take)
    assert taken(positions) == 2 and not legal(rules, positions, *back)

    rules, positions = board(text, W, Go(5, 0.5, "situational"))
    put(rules, positions, send, take, back)  # it is black's turn now, so this is another situation
    assert shown(positions) == text.split() and taken(positions) == 3
    rules.play(positions, np.array([25]))  # a pass is always allowed
    assert not legal(rules, positions, *send)  # but this would be the second time

    rules, positions = board(text, W, Go(5, 0.5, "simple"))
    for cycle in range(1, 5):
        put(rules, positions, send, take, back)
        rules.play(positions, np.array([25]))
        assert taken(positions) == 3 * cycle and shown(positions) == text.split()


def test_triple_ko() -> None:
    """Six moves take round three kos and bring the board back, the same side to move: for ever under simple ko only."""
    open_to_black, open_to_white = ".XO...... XO.O..... .XO......", ".XO...... X.XO..... .XO......"
    text = " ".join((open_to_black, open_to_white, open_to_black))
    cycle = [(1, 2), (4, 1), (7, 2), (1, 1), (4, 2), (7, 1)]
    for ko in ("positional", "situational"):
        rules, positions = board(text, B, Go(9, 0.5, ko))
        put(rules, positions, *cycle[:-1])
        assert not legal(rules, positions, *cycle[-1])
        put(rules, positions, (0, 8))  # a move elsewhere makes all later boards new
        put(rules, positions, (8, 8), cycle[-1])
    rules, positions = board(text, B, Go(9, 0.5, "simple"))
    for _ in range(3):
        put(rules, positions, *cycle)
        assert shown(positions) == text.split()
    assert taken(positions) == 18


@pytest.mark.parametrize(("n", "boards"), [(2, 57), (3, 12_675)])
def test_all_legal_boards_are_reached_and_no_other(n: int, boards: int) -> None:
    """From the empty board, by moves and single passes (counts: Tromp and Farnebäck, Combinatorics of Go, 2007)."""
    rules = Go(n, 0.5, "simple", limit=100)
    positions, known, seen = rules.start(1), np.zeros(1, np.int64), np.zeros(0, np.int64)
    while True:
        mask = rules.legal(positions)
        mask[:, -1] &= positions.rows[:, go.PASSES] == 0
        index, actions = np.nonzero(mask)
        if not len(index):
            break
        after = rules.follow(positions, index, actions[:, None], np.ones(len(index), np.int64))
        stones = colours(after.rows).reshape(-1, n * n) @ 3 ** np.arange(n * n)
        known = np.union1d(known, stones)
        turn, ko, passes = (after.rows[:, field].astype(np.int64) for field in (go.TURN, go.KO, go.PASSES))
        code, first = np.unique(((stones * 100 + ko) * 3 + turn) * 2 + passes, return_index=True)
        fresh = ~np.isin(code, seen)
        seen = np.union1d(seen, code)
        positions = after.take(first[fresh])
    assert len(known) == boards
