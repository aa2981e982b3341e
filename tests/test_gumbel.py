"""Exploring at the root: the halving's plan, σ and v_mix by hand, and that search improves the policy."""

import numpy as np
import pytest

pytest.importorskip("numba")

from volition.core.gumbel import completed, dirichlet, gumbel, halving, improved, transformed
from volition.core.search import Forest, Search
from volition.envs.lines import CONNECT_FOUR, TIC_TAC_TOE


def test_halving_by_hand() -> None:
    assert halving(16, 4) == [(4, 2), (2, 4)]
    assert halving(32, 16) == [(16, 1), (8, 1), (4, 2)]
    assert halving(10, 4) == [(4, 1), (2, 2), (2, 1)]
    assert halving(3, 8) == [(3, 1)]
    assert halving(7, 1) == [(1, 7)]
    for simulations in range(1, 80):
        for considered in range(1, 20):
            assert sum(count * each for count, each in halving(simulations, considered)) == simulations


def test_values_by_hand() -> None:
    q, visits = np.array([[0.5, np.nan, -1.0]]), np.array([[3, 0, 1]])
    priors, value = np.array([[0.2, 0.5, 0.3]]), np.array([0.1])
    mixed = (0.1 + 4 * (0.2 * 0.5 - 0.3) / 0.5) / 5
    assert completed(q, visits, priors, value) == pytest.approx(np.array([[0.5, mixed, -1.0]]))
    assert transformed(np.array([[0.5, -1.0]]), np.array([[3, 1]])) == pytest.approx(np.array([[53 * 0.75, 0.0]]))


def bandit(count: int, logits: np.ndarray, worth: np.ndarray) -> Forest:
    """Connect Four of which only the first move matters: `evaluate` knows exactly what a first move is worth."""
    game = CONNECT_FOUR

    def evaluate(positions):
        bottom = positions.rows[:, 3 + 35 :]
        first = np.where(positions.rows[:, 1] == 0, -1, (bottom == 1).argmax(1))
        value = np.where(first < 0, 0.0, -worth[first])  # for the side to move, who is the other
        moved = positions.rows[:, 1]
        return np.tile(logits, (len(value), 1)), np.where(moved % 2 == 1, value, -value).astype(np.float32)

    return Forest(game, game.start(count), Search(simulations=64), evaluate)


@pytest.mark.parametrize(("simulations", "considered"), [(4, 2), (8, 4), (16, 7)])
def test_the_policy_improves(simulations: int, considered: int) -> None:
    rng = np.random.default_rng(0)
    logits, worth = rng.normal(size=7).astype(np.float32), rng.uniform(-1, 1, 7)
    policy = np.exp(logits) / np.exp(logits).sum()
    forest = bandit(2_000, logits, worth)
    actions, _ = gumbel(forest, simulations, considered, rng)
    assert (forest.root_visits() == simulations).all()
    gained = worth[actions]
    # with exact values the chosen action is on average better than the policy's (Danihelka 2022, section 3)
    assert gained.mean() - 3 * gained.std() / np.sqrt(2_000) > policy @ worth
    target = improved(forest)
    assert target.sum(1) == pytest.approx(np.ones(2_000), abs=1e-5)
    assert (target @ worth > policy @ worth).all()


def test_without_noise_the_best_of_all_is_played() -> None:
    worth = np.linspace(-0.5, 0.5, 7)[[3, 6, 0, 2, 5, 1, 4]]
    actions, _ = gumbel(bandit(3, np.zeros(7, np.float32), worth), 14, 7, np.random.default_rng(0), noise=0.0)
    assert actions.tolist() == [1, 1, 1]


def test_games_that_are_over_are_left_alone() -> None:
    game = TIC_TAC_TOE
    positions = game.start(2)
    for move in (0, 3, 1, 4):
        game.play(positions, np.array([move, move]))
    game.play(positions, np.array([2, 8]))  # the first is won

    def evaluate(leaves):
        return np.zeros((len(leaves.rows), 9), np.float32), np.zeros(len(leaves.rows), np.float32)

    forest = Forest(game, positions, Search(simulations=40), evaluate)
    actions, _ = gumbel(forest, 40, 9, np.random.default_rng(0), noise=0.0)
    assert forest.root_visits().tolist() == [0, 40] and actions[1] == 5  # wins at once


def test_noise_is_mixed_over_what_is_legal() -> None:
    forest = bandit(500, np.array([0, 1, 2, 0, 0, 0, 0], np.float32), np.zeros(7))
    for column in np.full((6, 500), 2):
        forest.play(column)
    forest.make_roots()
    before = forest.priors()
    dirichlet(forest, 0.5, 0.25, np.random.default_rng(0))
    after = forest.priors()
    assert (after[:, 2] == 0).all() and after.sum(1) == pytest.approx(np.ones(500), abs=1e-5)
    noise = (after - 0.75 * before) / 0.25
    others = [0, 1, 3, 4, 5, 6]
    assert (noise[:, others] > -1e-5).all()
    # a symmetric Dirichlet of six: mean 1/6, variance (1/6)(5/6)/(6α + 1)
    assert noise[:, others].mean(0) == pytest.approx(np.full(6, 1 / 6), abs=0.04)
    assert noise[:, others].var() == pytest.approx(5 / 36 / 4, rel=0.15)
