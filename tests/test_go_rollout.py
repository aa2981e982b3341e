"""The rollout policy of Go: probabilities, patterns, gradient, learning, and games to their end."""

import numpy as np
import pytest
from test_go_planes import diagram, turned_row

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_patterns import DIAMOND, NAKADE, NEIGHBOUR, RESPONSE, SAVE, SQUARE, WEIGHTS, squares
from volition.envs.go_planes import symmetries
from volition.envs.go_rollout import PolicyGames, RolloutPolicy, playable


def random_weights(seed, scale=0.5):
    return (np.random.default_rng(seed).standard_normal(WEIGHTS) * scale).astype(np.float32)


def some_positions(n, count, seed):
    """Positions of games between random players, each from another game."""
    rng = np.random.default_rng(seed)
    positions = Go(n).start(count)
    random = np.array([seed + 99], np.uint64)
    for row in positions.rows:
        for _ in range(rng.integers(1, n * n)):
            go.play(row, go.random_move(row, random))
    return positions


def test_without_weights_all_sensible_moves_are_alike():
    for n in (2, 5, 9, 19):
        positions = some_positions(n, 20, n)
        pi = RolloutPolicy().probabilities(positions)
        np.testing.assert_allclose(pi.sum(1), 1, rtol=1e-5)
        for k, row in enumerate(positions.rows):
            points = [go.to_point(n, a) for a in range(n * n)]
            may = np.array([go.legal(row, p) and not go.own_eye(row, p, row[go.TURN]) for p in points])
            np.testing.assert_array_equal(pi[k, :-1] > 0, may)
            assert pi[k, -1] == (not may.any())


def test_probabilities_are_a_softmax_of_summed_weights():
    positions = some_positions(9, 40, 4)
    weights = random_weights(0)
    pi = RolloutPolicy(weights).probabilities(positions)
    for k in range(40):
        found = playable(positions.rows[k])
        scores = {a: sum(float(weights[i]) for i in indices) for a, indices in found.items()}
        total = sum(np.exp(s) for s in scores.values())
        for a in range(81):
            np.testing.assert_allclose(pi[k, a], np.exp(scores[a]) / total if a in scores else 0, rtol=1e-4, atol=1e-7)


def test_symmetric_positions_and_swapped_colours_have_the_same_features():
    positions = some_positions(9, 16, 5)
    weights = random_weights(1)
    policy = RolloutPolicy(weights)
    pi = policy.probabilities(positions)
    for s in range(8):
        turned = Positions(np.array([turned_row(row, s, 9) for row in positions.rows]), positions.history)
        np.testing.assert_allclose(policy.probabilities(turned)[:, symmetries(9)[s]], pi, rtol=1e-4, atol=1e-7)
    swapped = positions.rows.copy()
    for row in swapped:
        row[go.TURN] = 3 - row[go.TURN]
        for p in range(go.points(9)):
            if row[go.at(p, go.COLOUR)] in (go.BLACK, go.WHITE):
                row[go.at(p, go.COLOUR)] = 3 - row[go.at(p, go.COLOUR)]
    np.testing.assert_allclose(policy.probabilities(Positions(swapped, positions.history)), pi, rtol=1e-5)


def after_last(text, turn, last):
    """The position of a diagram in which `last` (r, c) was the last move."""
    positions = diagram(text, turn)
    n = positions.rows[0, go.SIZE]
    positions.rows[0, go.LAST] = go.to_point(n, last[0] * n + last[1])
    return positions


def marked(positions, features):
    found = playable(positions.rows[0])
    n = positions.rows[0, go.SIZE]
    return {(a // n, a % n) for a, indices in found.items() if any(i in features for i in indices)}


def test_features_of_the_last_move_on_diagrams():
    empty = """
    .......
    .......
    .......
    ...X...
    .......
    .......
    ......."""
    positions = after_last(empty, go.WHITE, (3, 3))
    near = {(r, c) for r in range(7) for c in range(7) if 0 < abs(r - 3) + abs(c - 3) < 3}
    assert marked(positions, {RESPONSE}) == near == marked(positions, set(range(DIAMOND, SQUARE)))
    assert marked(positions, {NEIGHBOUR}) == {p for p in near if max(abs(p[0] - 3), abs(p[1] - 3)) == 1}
    kinds = {i for indices in playable(positions.rows[0]).values() for i in indices if DIAMOND <= i < SQUARE}
    assert len(kinds) == 3  # beside, a diagonal step, two away: four symmetric points each
    saved = after_last("OX... .OX.. OX... ..... .....", go.WHITE, (2, 1))
    assert marked(saved, {SAVE}) == {(0, 2)}  # takes; running to (1, 0) leaves one liberty
    three = """
    X...X..
    XXXXX..
    .......
    .......
    .......
    .......
    ......."""
    heart = after_last(three, go.WHITE, (0, 4))
    assert marked(heart, set(range(NAKADE, NAKADE + 12))) == {(0, 2)}
    assert marked(heart, {NAKADE}) == {(0, 2)}  # three points, of which one has two neighbours
    own = after_last(three, go.BLACK, (0, 4))
    assert marked(own, set(range(NAKADE, NAKADE + 12))) == set()


def test_squares_are_the_same_in_all_symmetries():
    least, playable_codes = squares()
    np.testing.assert_array_equal(least[least], least)
    np.testing.assert_array_equal(playable_codes[least], playable_codes)
    assert len(np.unique(least)) < 2**20 / 7.5


def test_gradient_equals_finite_differences():
    positions = some_positions(9, 6, 6)
    weights = random_weights(2)
    policy = RolloutPolicy(weights)
    actions = policy.probabilities(positions).argmax(1)
    value, gradient, counted = policy.gradient(positions, actions)
    assert counted == 6
    np.testing.assert_allclose(value, np.log(policy.probabilities(positions)[np.arange(6), actions]).sum(), rtol=1e-5)
    places = np.flatnonzero(gradient)
    for i in [RESPONSE, NEIGHBOUR, *np.random.default_rng(0).choice(places, 20)]:
        values = []
        for step in (0.01, -0.01):
            moved = weights.copy()
            moved[i] += step
            values.append(RolloutPolicy(moved).gradient(positions, actions)[0])
        np.testing.assert_allclose((values[0] - values[1]) / 0.02, gradient[i], atol=1e-3)


def test_moves_that_the_policy_cannot_play_are_left_out():
    positions = some_positions(5, 4, 7)
    _, gradient, counted = RolloutPolicy().gradient(positions, np.full(4, 25))
    assert counted == 0 and not gradient.any()


def test_learns_from_a_teacher():
    rng = np.random.default_rng(8)
    teacher = np.zeros(WEIGHTS, np.float32)
    teacher[[RESPONSE, SAVE, NEIGHBOUR]] = 1.0, 2.0, 1.0
    teacher[SQUARE:] = rng.standard_normal(2**20)
    positions = some_positions(9, 3000, 8)
    pi = RolloutPolicy(teacher).probabilities(positions)
    actions = (pi.cumsum(1) > rng.random((3000, 1))).argmax(1)
    train, test = slice(0, 2500), slice(2500, 3000)
    student = RolloutPolicy()

    def score(policy):
        value, _, counted = policy.gradient(positions.take(test), actions[test])
        return value / counted

    uniform = score(student)
    for _ in range(3):
        student.fit(positions.take(train), actions[train])
    assert uniform + 0.4 < score(student) <= score(RolloutPolicy(teacher)) + 0.05


@pytest.mark.parametrize("n", [5, 9])
def test_games_end_and_fill_no_eye(n):
    rules = Go(n)
    policy = RolloutPolicy(random_weights(3, 0.3))
    games = PolicyGames(rules, policy, 1)
    results = games(rules.start(50))
    assert set(results) <= {-1, 0, 1} and len(set(results)) > 1
    np.testing.assert_array_equal(results, PolicyGames(rules, policy, 1)(rules.start(50)))
    position = rules.start(1)
    rng = np.random.default_rng(1)
    while not rules.over(position)[0]:
        pi = policy.probabilities(position)[0].astype(float)
        action = rng.choice(n * n + 1, p=pi / pi.sum())
        row = position.rows[0]
        p = go.to_point(n, action)
        assert go.legal(row, p) and (p == go.PASS or not go.own_eye(row, p, row[go.TURN]))
        go.play(row, p)
    assert position.rows[0, go.PASSES] == 2 or position.rows[0, go.MOVES] == rules.moves
