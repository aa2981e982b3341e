"""Ratings: two players by hand, many by simulation, and who cannot be compared."""

import numpy as np
import pytest

from volition.core.ratings import agresti_coull, elo, expected


def test_two_players_by_hand() -> None:
    rating, error = elo(np.array([[0, 25], [75, 0]]), prior=0)
    assert rating == pytest.approx([0, 400 * np.log10(3)])
    # information n·p·(1 − p) = 100 · 3/16
    assert error == pytest.approx([0, 400 / np.log(10) / np.sqrt(100 * 3 / 16)])
    assert expected(rating[1]) == pytest.approx(0.75)


def test_a_chain_adds_up() -> None:
    points = np.array([[0, 50, 0], [150, 0, 20], [0, 80, 0.0]])
    rating, _ = elo(points, prior=0)
    assert rating == pytest.approx([0, 400 * np.log10(3), 400 * np.log10(3) + 400 * np.log10(4)])


def test_who_won_all_has_a_rating() -> None:
    rating, error = elo(np.array([[0, 0], [10, 0.0]]))
    assert rating[1] == pytest.approx(400 * np.log10(10.5 / 0.5)) and np.isfinite(error).all()


def test_intervals_hold_what_is_true() -> None:
    rng, truth, inside = np.random.default_rng(0), np.array([0, 100, -150, 300.0]), 0
    for _ in range(200):
        points = np.zeros((4, 4))
        for i in range(4):
            for j in range(i):
                points[i, j] = rng.binomial(100, expected(truth[i] - truth[j]))
                points[j, i] = 100 - points[i, j]
        rating, error = elo(points, prior=0)
        inside += (np.abs(rating - truth)[1:] < 1.96 * error[1:]).sum()
    assert 0.92 < inside / 600 < 0.98


def test_strangers_cannot_be_compared() -> None:
    points = np.zeros((4, 4))
    points[0, 1] = points[2, 3] = 5
    with pytest.raises(ValueError, match="connected"):
        elo(points)


def test_the_interval_of_a_share() -> None:
    # 8 of 20 is the table's [22, 61] of the project's notes, by the formula: (8 + 1.92)/(20 + 3.84) = 0.416 ± 0.198
    low, high = agresti_coull(8, 20)
    assert (round(low, 1), round(high, 1)) == (21.8, 61.4)
