"""Random games as judges of Go positions, and UCT with nothing else: the search that needs no learning at all."""

import time

import numpy as np

from volition.core.game import Positions
from volition.core.tree import LEAF, Rule, descend, grow, jit, keep, note, plant, principal
from volition.envs import go
from volition.envs.go_game import KO, Go, step

UCB = Rule(c=0.5, lam=1.0, ucb=True)  # Kocsis and Szepesvári 2006; results in −1 … 1
FIRST, BLOCK = 8, 100  # simulations before the first look at the clock, doubled from look to look up to BLOCK


class RandomGames:
    """A `rollout` for searches: results `[K]` of one random game from each position, for the side to move."""

    def __init__(self, rules: Go, seed: int = 0) -> None:
        self.rules = rules
        self.random = np.array([seed * 2 + 0x9E3779B97F4A7C15 & (2**64 - 1) | 1], np.uint64)

    def __call__(self, positions: Positions) -> np.ndarray:
        result = np.empty(len(positions.rows), np.float32)
        _judge(positions.rows, self.random, self.rules.moves, self.rules.komi, result)
        return result


class Uct:
    """UCT from one position, which goes on and keeps what it knows as `core.search.Forest` does, for one tree.

    The side to move plays no point that fills an own eye, and passes only where nothing else is left or the game would
    be won by it at once. random is uint64 `[1]`, the state of the generator; simulations is the most per move.
    """

    def __init__(self, rules: Go, position: Positions, simulations: int, random: np.ndarray, rule: Rule = UCB) -> None:
        self.rules, self.rule, self.random, self.simulations = rules, rule, random, simulations
        self.trees = plant(1, simulations + 1, (simulations + 1) * min(rules.actions, 64) + rules.actions)
        self.restart(position)

    def run(self, simulations: int | None = None, seconds: float = np.inf) -> None:
        """Simulate until the root has so many visits, or the time is up."""
        wanted = self.simulations if simulations is None else simulations
        begun, rules = time.monotonic(), self.rules
        ends, block = begun + seconds, FIRST
        while (left := wanted - int(self.root_visits()[0])) > 0:
            some = min(block, left) if np.isfinite(seconds) else left
            _uct(self.trees, *self.roots, some, self.random, self.rule, KO[rules.ko], rules.moves, rules.komi)
            took, begun = time.monotonic() - begun, time.monotonic()
            # the next, up to twice as many, must not end too late
            if begun + took * min(2.0, BLOCK / block) >= ends or rules.over(self.roots)[0]:
                return
            block = min(2 * block, BLOCK)

    def play(self, actions: np.ndarray) -> None:
        """Play an action `[1]` at the root and keep what is known of where it leads."""
        keep(self.trees, 0, np.int64(actions[0]))
        self.rules.play(self.roots, actions)

    def restart(self, position: Positions) -> None:
        """Begin anew at a position, in the same memory."""
        self.roots = Positions(position.rows.copy(), position.history.copy())
        self.trees.used[:] = 0

    def root_visits(self) -> np.ndarray:
        """Visits of the root's edges in all `[1]`."""
        return self.visits().sum(-1)

    def visits(self) -> np.ndarray:
        """Visits of each action at the root, int32 `[1, A]`."""
        return self._of_root(self.trees.visits, 0)

    def values(self) -> np.ndarray:
        """Q of each action at the root for the side to move, float32 `[1, A]`; nan where never tried."""
        with np.errstate(invalid="ignore"):
            return self._of_root(self.trees.rollout_sum, 0) / self.visits().astype(np.float32)

    def priors(self) -> np.ndarray:
        """Even shares `[1, A]` of the actions that are looked at."""
        shares, actions = np.zeros((1, self.rules.actions), np.float32), self.trees.action[0, self._edges()]
        shares[0, actions] = 1 / max(len(actions), 1)
        return shares

    def line(self, action: int, most: int = 16) -> np.ndarray:
        """The principal variation `[D]` of an action at the root, the action itself first."""
        actions = np.empty(most, np.int16)
        return actions[: principal(self.trees, 0, action, actions)]

    def _of_root(self, values: np.ndarray, empty: float) -> np.ndarray:
        found = np.full((1, self.rules.actions), empty, values.dtype)
        found[0, self.trees.action[0, self._edges()]] = values[0, self._edges()]
        return found

    def _edges(self) -> slice:
        first, count = int(self.trees.first[0, 0]), int(self.trees.count[0, 0])
        return slice(first, first + count) if self.trees.used[0, 0] else slice(0)


def uct(
    rules: Go, position: Positions, simulations: int, random: np.ndarray, rule: Rule = UCB, seconds: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Visits `[A]` and Q `[A]` (nan where never tried) at the root after UCT with one random game per descent."""
    tree = Uct(rules, position, simulations, random, rule)
    tree.run(seconds=seconds)
    return tree.visits()[0], tree.values()[0]


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
        go.copy(rows[k], work)
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
        go.copy(rows[0], row)
        for d in range(depth):
            step(row, past, np.int64(path[d]), ko, limit)
        node = LEAF
        if trees.visits[0, edges[depth - 1]]:
            _grow(trees, edges[depth - 1], row, past, random, ko, limit, owner, komi, mask, logits)
        turn = row[go.TURN]
        go.random_game(row, random, limit)
        sign = result(row, owner, komi)
        note(trees, 0, edges, depth, np.float32(np.nan), sign if row[go.TURN] == turn else -sign)
