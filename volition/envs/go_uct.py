"""Random games as judges of Go positions, and UCT with nothing else: the search that needs no learning at all."""

import time

import numpy as np

from volition.core.game import Positions
from volition.core.tree import LEAF, Rule, descend, grow, jit, note, plant
from volition.envs import go
from volition.envs.go_game import KO, Go, step

UCB = Rule(c=0.5, lam=1.0, ucb=True)  # Kocsis and Szepesvári 2006; results in −1 … 1
BLOCK = 500  # simulations between two looks at the clock


class RandomGames:
    """A `rollout` for searches: results `[K]` of one random game from each position, for the side to move."""

    def __init__(self, rules: Go, seed: int = 0) -> None:
        self.rules = rules
        self.random = np.array([seed * 2 + 0x9E3779B97F4A7C15 & (2**64 - 1) | 1], np.uint64)

    def __call__(self, positions: Positions) -> np.ndarray:
        result = np.empty(len(positions.rows), np.float32)
        _judge(positions.rows, self.random, self.rules.moves, self.rules.komi, result)
        return result


def uct(
    rules: Go, position: Positions, simulations: int, random: np.ndarray, rule: Rule = UCB, seconds: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Visits `[A]` and Q `[A]` (nan where never tried) at the root after UCT with one random game per descent.

    The side to move plays no point that fills an own eye, and passes only where nothing else is left or the game would
    be won by it at once. random is uint64 `[1]`, the state of the generator.
    """
    trees = plant(1, simulations + 1, (simulations + 1) * min(rules.actions, 64) + rules.actions)
    ends, done = time.monotonic() + seconds, 0
    while done < simulations:
        block = min(BLOCK if np.isfinite(seconds) else simulations, simulations - done)
        _uct(trees, *position, block, random, rule, KO[rules.ko], rules.moves, rules.komi)
        done += block
        if time.monotonic() >= ends:
            break
    visits, values = np.zeros(rules.actions, np.int32), np.full(rules.actions, np.nan, np.float32)
    edges = slice(trees.first[0, 0], trees.first[0, 0] + trees.count[0, 0])
    actions = trees.action[0, edges]
    visits[actions] = trees.visits[0, edges]
    with np.errstate(invalid="ignore"):
        values[actions] = trees.rollout_sum[0, edges] / trees.visits[0, edges]
    return visits, values


@jit
def result(row, owner, komi):
    """1 if the side to move has more than the other as the board stands, −1 if less, 0 if as much."""
    score = go.area(row, owner) - komi
    sign = np.float32(0.0 if score == 0 else 1.0 if score > 0 else -1.0)
    return sign if row[go.TURN] == go.BLACK else -sign


@jit
def _judge(rows, random, limit, komi, results):
    owner = np.empty(go.points(rows[0, go.SIZE]), np.int8)
    work = np.empty_like(rows[0])
    for k in range(len(rows)):
        work[:] = rows[k]
        go.random_game(work, random, limit)
        black = result(work, owner, komi) if work[go.TURN] == go.BLACK else -result(work, owner, komi)
        results[k] = black if rows[k, go.TURN] == go.BLACK else -black


@jit
def sensible(row, history, rule, mask):
    """mask `[N² + 1]`: legal moves that fill no own eye; the pass if there is none, or if it ends the game."""
    go.legal_mask(row, history, rule, mask)
    n, some = row[go.SIZE], False
    for i in range(row[go.EMPTIES]):
        p = row[go.free_at(row, i)]
        a = go.to_action(n, p)
        mask[a] = mask[a] and not go.own_eye(row, p, row[go.TURN])
        some |= mask[a]
    mask[n * n] = not some or row[go.PASSES] == 1


@jit
def _grow(trees, edge, row, history, random, rule, limit, owner, komi, mask, logits):
    if row[go.PASSES] >= 2 or row[go.MOVES] >= limit:
        grow(trees, 0, edge, logits, mask, 1.0, result(row, owner, komi))
        return
    sensible(row, history[: row[go.MOVES] + 1], rule, mask)
    for a in range(len(logits)):
        logits[a] = go.next_random(random) * 2.0**-40  # edges in any order, priors as good as even
    grow(trees, 0, edge, logits, mask, 1.0, np.float32(np.nan))


@jit
def _uct(trees, rows, history, simulations, random, rule, ko, limit, komi):
    actions = rows[0, go.SIZE] ** 2 + 1
    mask, logits = np.empty(actions, np.bool_), np.empty(actions, np.float32)
    owner = np.empty(go.points(rows[0, go.SIZE]), np.int8)
    edges, path = np.empty(limit, np.int32), np.empty(limit, np.int16)
    row, past = np.empty_like(rows[0]), history[0].copy()
    if trees.used[0, 0] == 0:
        _grow(trees, -1, rows[0], history[0], random, ko, limit, owner, komi, mask, logits)
    for _ in range(simulations):
        depth, node = descend(trees, 0, rule, -1, edges, path)
        if node >= 0:
            note(trees, 0, edges, depth, np.float32(np.nan), trees.ended[0, node])
            continue
        row[:] = rows[0]
        for d in range(depth):
            step(row, past, np.int64(path[d]), ko, limit)
        node = LEAF
        if trees.visits[0, edges[depth - 1]]:
            _grow(trees, edges[depth - 1], row, past, random, ko, limit, owner, komi, mask, logits)
        turn = row[go.TURN]
        go.random_game(row, random, limit)
        sign = result(row, owner, komi)
        note(trees, 0, edges, depth, np.float32(np.nan), sign if row[go.TURN] == turn else -sign)
