"""Dead stones, living groups and seki, on boards made by hand."""

import numpy as np
import pytest

pytest.importorskip("numba")

from test_go import board

from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_life import ALIVE, DEAD, EMPTY, SEKI, owners, status, without

# one white stone where black lives with two other eyes
LONE = "...XO.. .O.XO.. ...XO.. XXXXO.. .X.XO.. XXXXO.. OOOOO.."


def random() -> np.ndarray:
    return np.array([12345], np.uint64)


def judged(text: str, turn: int = go.BLACK) -> str:
    rules, positions = board(text, turn)
    found = status(rules, positions, random())[0].reshape(rules.size, rules.size)
    return " ".join("".join("ADS."[x] for x in line) for line in found)


def test_a_stone_in_the_others_corner_is_dead() -> None:
    assert judged(LONE) == "...AA.. .D.AA.. ...AA.. AAAAA.. .A.AA.. AAAAA.. AAAAA.."
    assert judged(LONE, go.WHITE) == judged(LONE)


def test_two_eyes_live_and_a_large_eye_with_a_stone_in_its_middle_does_not() -> None:
    assert judged(".X.XO XXXXO OOOOO ..... .....")[:11] == ".A.AA AAAAA"
    # three points in a row: white's stone is on the one that matters
    assert judged(".O.XO.. XXXXO.. OOOOO.. ....... ....... ....... .......")[:15] == ".A.DA.. DDDDA.."


def test_seki() -> None:
    text = "OXXX.OX. OXXX.OX. OOOOOOX. XXXXXXX. ........ ........ ........ ........"
    assert judged(text).split()[:4] == ["SSSS.SA.", "SSSS.SA.", "SSSSSSA.", "AAAAAAA."]
    # neither moves, so black keeps what it has there
    rules, positions = board(text)
    calm = owners(rules, positions, 200, random(), careful=True)[0].reshape(8, 8)
    assert (calm[:2, 1:4] > 0.7).all() and (calm[2, :6] < -0.9).all()


def test_owners_of_a_settled_board_and_of_an_empty_one() -> None:
    rules, positions = board("XXXXX X.X.X XXXXX ..... .....")
    assert (owners(rules, positions, 50, random()) == 1).all()
    empty = Go(5).start(3)
    rows = empty.rows.copy()
    mean = owners(Go(5), empty, 400, random())
    assert mean.shape == (3, 25) and (np.abs(mean.mean(1)) < 0.15).all()  # both begin half of the games
    assert (empty.rows == rows).all()
    # colours changed, owners changed
    (rules, one), (_, other) = board(LONE), board(LONE.translate(str.maketrans("XO", "OX")))
    assert owners(rules, one, 400, random()) == pytest.approx(-owners(rules, other, 400, random()), abs=0.3)


def test_boards_without_their_dead_stones() -> None:
    rules, positions = board(LONE)
    dead = status(rules, positions, random()) == DEAD
    cleared = without(positions, dead)
    assert rules.score(positions)[0] + rules.komi == 15 - 26 and rules.score(cleared)[0] + rules.komi == 24 - 25
    assert positions.rows[0, go.EMPTIES] == 24 and cleared.rows[0, go.EMPTIES] == 25
    found = status(rules, positions, random())[0]
    assert [(found == kind).sum() for kind in (ALIVE, DEAD, SEKI, EMPTY)] == [24, 1, 0, 24]
