"""Trees: bookkeeping by hand, subtrees, and perfect play of tic-tac-toe, which minimax knows."""

import threading
import time

import numpy as np
import pytest

pytest.importorskip("numba")

from volition.core.game import Positions
from volition.core.search import Forest, Search, even
from volition.core.tree import LEAF, Rule, back_out, choose, descend, edge_value, grow, keep, note, plant, principal
from volition.envs.lines import CONNECT_FOUR, TIC_TAC_TOE, Line

NAN = np.float32(np.nan)


def flat(game: Line):
    """A network that knows nothing: even priors, value 0."""

    def evaluate(positions: Positions):
        count = len(positions.rows)
        return np.zeros((count, game.actions), np.float32), np.zeros(count, np.float32)

    return evaluate


def replies(game: Line, position: Positions, actions: np.ndarray) -> Positions:
    count = len(actions)
    return game.follow(position, np.zeros(count, np.int64), actions[:, None], np.ones(count, np.int64))


def solve(game: Line, position: Positions, known: dict[bytes, float], met: dict[bytes, Positions]) -> float:
    """The value for the side to move under perfect play, and every position on the way."""
    key = position.rows.tobytes()
    if key not in known:
        outcome = float(game.outcome(position)[0])
        if np.isnan(outcome):
            met[key] = position
            actions = np.flatnonzero(game.legal(position)[0])
            after = replies(game, position, actions)
            outcome = max(-solve(game, after.take(slice(i, i + 1)), known, met) for i in range(len(actions)))
        known[key] = outcome
    return known[key]


def test_a_descent_by_hand() -> None:
    trees, rule = plant(1, 4, 12), Rule(c=1.0, urgency=0.0)
    edges, actions = np.zeros(8, np.int32), np.zeros(8, np.int16)
    legal = np.array([True, False, True])
    assert grow(trees, 0, -1, np.log(np.array([0.1, 0.8, 0.3], np.float32)), legal, 1.0, NAN) == 0
    assert trees.action[0, :2].tolist() == [2, 0]
    assert trees.prior[0, :2] == pytest.approx([0.75, 0.25])
    assert descend(trees, 0, rule, -1, edges, actions) == (1, LEAF) and actions[0] == 2
    trees.child[0, edges[0]] = -2
    # while that is away, edge 0 counts as one game lost: Q = −1, and the other is tried
    assert edge_value(trees, 0, 0, rule, 1.0) == -1.0
    assert choose(trees, 0, 0, rule) == 1
    assert grow(trees, 0, 0, np.zeros(3, np.float32), np.array([True, True, True]), 1.0, NAN) == 1
    note(trees, 0, edges, 1, np.float32(0.5), NAN)
    assert (trees.visits[0, 0], trees.flight[0, 0], trees.value_sum[0, 0]) == (1, 0, -0.5)
    # now Q + u is −0.5 + 0.75·√1/2 = −0.125 against the mean −0.5 + 0.25·√1 = −0.25
    assert choose(trees, 0, 0, rule) == 0
    depth, node = descend(trees, 0, rule, -1, edges, actions)
    assert (depth, node) == (2, LEAF)
    note(trees, 0, edges, 2, np.float32(1.0), np.float32(-1.0))
    assert trees.value_sum[0, 0] == -0.5 + 1.0 and trees.value_sum[0, edges[1]] == -1.0
    assert trees.rollout_sum[0, 0] == -1.0 and trees.rollout_sum[0, edges[1]] == 1.0
    before = trees.flight.copy()
    depth, _ = descend(trees, 0, rule, 1, edges, actions)
    assert edges[0] == 1
    back_out(trees, 0, edges, depth)
    assert (trees.flight == before).all() and trees.visits[0, 1] == 0


def test_lambda_mixes_what_is_kept_apart() -> None:
    trees = plant(1, 2, 4)
    grow(trees, 0, -1, np.zeros(1, np.float32), np.array([True]), 1.0, NAN)
    trees.visits[0, 0], trees.value_visits[0, 0] = 4, 2
    trees.value_sum[0, 0], trees.rollout_sum[0, 0] = 1.0, -1.0
    assert edge_value(trees, 0, 0, Rule(lam=0.0), 0.0) == 0.5
    assert edge_value(trees, 0, 0, Rule(lam=1.0), 0.0) == -0.25
    assert edge_value(trees, 0, 0, Rule(lam=0.5), 0.0) == pytest.approx(0.125)


def test_no_room_is_no_harm() -> None:
    forest = Forest(TIC_TAC_TOE, TIC_TAC_TOE.start(1), Search(simulations=300, nodes=5), flat(TIC_TAC_TOE))
    forest.run()
    assert forest.root_visits()[0] == 300 and forest.trees.used[0, 0] <= 5


@pytest.mark.parametrize(("batch", "ahead"), [(1, 0), (8, 0), (1, 3), (8, 1)])
def test_sums_hold_in_every_node(batch: int, ahead: int) -> None:
    search = Search(simulations=500, batch=batch, ahead=ahead)
    forest = Forest(CONNECT_FOUR, CONNECT_FOUR.start(3), search, flat(CONNECT_FOUR))
    forest.run()
    trees = forest.trees
    assert (trees.flight == 0).all() and forest.root_visits().tolist() == [500] * 3
    for g in range(3):
        for node in range(trees.used[g, 0]):
            edges = slice(trees.first[g, node], trees.first[g, node] + trees.count[g, node])
            assert trees.count[g, node] == 0 or trees.prior[g, edges].sum() == pytest.approx(1.0)
            for e in range(edges.start, edges.stop):
                child = trees.child[g, e]
                if child >= 0 and trees.count[g, child]:
                    below = slice(trees.first[g, child], trees.first[g, child] + trees.count[g, child])
                    assert trees.visits[g, e] == trees.visits[g, below].sum() + 1  # itself, when it was a leaf
                    # what came back through the edge is what its own evaluation and all below it said, turned round
                    assert trees.value_sum[g, e] == pytest.approx(-trees.value_sum[g, below].sum(), abs=1e-3)


def test_edges_are_tried_from_the_largest_prior_on() -> None:
    def evaluate(positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(int(np.abs(positions.rows).sum()))
        return 2 * rng.standard_normal((len(positions.rows), 7)).astype(np.float32), np.zeros(len(positions.rows))

    forest = Forest(CONNECT_FOUR, CONNECT_FOUR.start(2), Search(simulations=300), evaluate)
    some = 0
    for _ in range(3):
        forest.run()
        trees = forest.trees
        for g in range(2):
            for node in range(trees.used[g, 0]):
                first, seen, count = trees.first[g, node], trees.seen[g, node], trees.count[g, node]
                prior, visits = trees.prior[g, first : first + count], trees.visits[g, first : first + count]
                assert (np.diff(prior[:seen]) <= 0).all() and (visits[:seen] > 0).all() and (visits[seen:] == 0).all()
                assert seen == count or prior[seen] == prior[seen:].max() <= prior[:seen].min(initial=1.0)
                assert len(set(trees.action[g, first : first + count])) == count
                some += 0 < seen < count - 1
        forest.play(forest.visits().argmax(1))
    assert some > 100


def test_a_subtree_is_kept_whole() -> None:
    forest = Forest(CONNECT_FOUR, CONNECT_FOUR.start(2), Search(simulations=400), flat(CONNECT_FOUR))
    forest.run()
    trees, best = forest.trees, forest.visits().argmax(1)
    edge = int(np.flatnonzero(trees.action[0, : trees.count[0, 0]] == best[0])[0])
    child = trees.child[0, edge]
    below = slice(trees.first[0, child], trees.first[0, child] + trees.count[0, child])
    action, visits = trees.action[0, below].copy(), trees.visits[0, below].copy()
    forest.play(best)
    assert forest.visits()[0][action].tolist() == visits.tolist()
    used, grown = trees.used[0]
    assert trees.first[0, :used].max() + 7 >= grown and (trees.child[0, :grown] < used).all()
    forest.run()
    assert forest.root_visits().tolist() == [400, 400]
    assert not keep(trees, 0, 99) and trees.used[0, 0] == 0  # an action that nobody knows: begin anew


def test_the_network_thinks_while_the_next_round_descends() -> None:
    game, here, played = CONNECT_FOUR, threading.get_ident(), []
    further = threading.Event()

    def evaluate(positions: Positions):
        if threading.get_ident() != here:  # but for the root
            assert further.wait(60)
        return flat(game)(positions)

    def rollout(positions: Positions) -> np.ndarray:
        played.append(len(positions.rows))
        if len(played) == 2:
            further.set()  # only a second round can let the first one come back
        return np.zeros(len(positions.rows), np.float32)

    forest = Forest(game, game.start(2), Search(100, batch=3, lam=0.5, ahead=1), evaluate, rollout)
    forest.run()
    assert forest.root_visits().tolist() == [100, 100] and (forest.trees.flight == 0).all()


def test_a_search_ahead_does_not_depend_on_who_is_faster() -> None:
    game, found = CONNECT_FOUR, []
    for pause in (0.0, 0.002):

        def evaluate(positions: Positions, pause: float = pause):
            time.sleep(pause)
            rows = positions.rows.astype(np.int64)
            logits = np.sin(rows.sum(1, keepdims=True) * np.arange(1, game.actions + 1)).astype(np.float32)
            return logits, np.cos(rows.sum(1)).astype(np.float32)

        forest = Forest(game, game.start(3), Search(200, batch=4, ahead=2), evaluate)
        forest.run()
        found.append((forest.visits(), forest.values()))
    for slow, fast in zip(*found, strict=True):
        np.testing.assert_array_equal(slow, fast)


def test_a_network_that_fails_is_told_of() -> None:
    game, main = TIC_TAC_TOE, threading.get_ident()

    def evaluate(positions: Positions):
        if threading.get_ident() != main:
            raise ZeroDivisionError
        return flat(game)(positions)

    with pytest.raises(ZeroDivisionError):
        Forest(game, game.start(1), Search(50, ahead=1), evaluate).run()


@pytest.mark.parametrize(
    ("search", "rollouts"),
    [(Search(simulations=1600), False), (Search(1600, ahead=1), False), (Search(1600, lam=1.0, c=2.0), True)],
)
def test_tic_tac_toe_is_played_perfectly(search: Search, rollouts: bool) -> None:
    game, known, met = TIC_TAC_TOE, {}, {}
    assert solve(game, game.start(1), known, met) == 0.0 and len(met) == 4520
    rows = np.concatenate([position.rows for position in met.values()])
    rows = rows[:: 1 if not rollouts else 6]
    positions = Positions(rows, np.zeros((len(rows), 0), np.int64))
    random = np.random.default_rng(0)

    def rollout(leaves: Positions) -> np.ndarray:
        ended, turn = Positions(leaves.rows.copy(), leaves.history), leaves.rows[:, 0]
        while np.isnan(outcome := game.outcome(ended)).any():
            game.play(ended, np.argmax(game.legal(ended) * random.random((len(rows := ended.rows), 9)), 1))
        return np.where(rows[:, 0] == turn, outcome, -outcome).astype(np.float32) if len(leaves.rows) else outcome

    forest = Forest(game, positions, search, even(9) if rollouts else flat(game), rollout if rollouts else None)
    forest.run()
    best = forest.visits().argmax(1)
    after = game.follow(positions, np.arange(len(rows)), best[:, None], np.ones(len(rows), np.int64))
    worse = sum(
        -known[after.rows[i : i + 1].tobytes()] < known[positions.rows[i : i + 1].tobytes()] for i in range(len(rows))
    )
    assert worse == 0


def test_connect_four_wins_at_once_and_prevents_it() -> None:
    game = CONNECT_FOUR
    position = game.start(2)
    for column in (0, 6, 1, 6, 2):
        game.play(position, np.array([column, column]))
    game.play(position, np.array([5, 3]))  # one defends, one does not
    forest = Forest(game, position, Search(simulations=300), flat(game))
    forest.run()
    assert forest.visits()[0].argmax() == 3 or np.isnan(game.outcome(position)[0])
    undefended = game.start(1)
    for column in (0, 6, 1, 6, 2):
        game.play(undefended, np.array([column]))
    defence = Forest(game, undefended, Search(simulations=400), flat(game))
    defence.run()
    assert defence.visits()[0].argmax() == 3
    win = Forest(game, position.take(slice(0, 1)), Search(simulations=400), flat(game))
    win.run()
    assert win.visits()[0].argmax() == 3
    game.play(position, np.array([3, 0]))
    assert game.outcome(position)[0] == -1.0 and not game.legal(position)[0].any()


def test_no_rollout_is_asked_for_where_all_games_are_over() -> None:
    game, asked = TIC_TAC_TOE, []
    position = game.start(1)
    for square in (0, 2, 1, 3, 5, 4, 6, 7):
        game.play(position, np.array([square]))  # one square is left, and taking it ends the game

    def rollout(leaves: Positions) -> np.ndarray:
        asked.append(len(leaves.rows))
        return np.zeros(len(leaves.rows), np.float32)

    forest = Forest(game, position, Search(simulations=10, lam=1.0), even(9), rollout)
    forest.run()
    assert forest.root_visits()[0] == 10 and asked == []


def test_the_principal_variation_follows_the_most_visited() -> None:
    game, start = TIC_TAC_TOE, TIC_TAC_TOE.start(2)
    forest = Forest(game, start, Search(simulations=400, batch=1), flat(game))
    forest.run()
    for tree in (0, 1):
        for first in range(9):
            line, position = forest.line(first, tree), start.take(slice(tree, tree + 1))
            assert line[0] == first and len(line) <= 9
            position = Positions(position.rows.copy(), position.history.copy())
            for action in line:
                assert game.legal(position)[0, action]
                game.play(position, np.array([action]))
    best = int(forest.visits()[0].argmax())
    line = forest.line(best)
    forest.play(np.array([best, best]))
    assert line[1] == forest.visits()[0].argmax() and forest.line(int(line[1])).tolist() == line[1:].tolist()
    assert forest.line(4, most=1).tolist() == [4] or best == 4
    empty = np.empty(3, np.int16)
    assert principal(plant(1, 4, 12), 0, 0, empty) == 0
