"""Monte Carlo tree search over any `Game`, many trees at once: APV-MCTS of AlphaGo, AlphaZero's search, Gumbel's root.

A round is: descend K times from each root, follow the moves, evaluate all leaves in one call, note what came back. What
evaluates enters as functions: `evaluate(positions) -> logits [K, A], value [K]` and `rollout(positions) -> result [K]`,
values and results in −1 … 1 for the side to move. λ = 0 asks for no rollouts, λ = 1 (and even priors) for no network.
With `ahead` the network works in a thread of its own while further rounds descend and play their rollouts. Rounds come
back in the order in which they went, so that a search is the same whichever thread is faster.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from volition.core.game import Game, Positions
from volition.core.tree import (
    LEAF,
    PENDING,
    Rule,
    Trees,
    back_out,
    bring,
    descend,
    edge_value,
    grow,
    jit,
    keep,
    note,
    plant,
    principal,
)

Evaluate = Callable[[Positions], tuple[np.ndarray, np.ndarray]]
Rollout = Callable[[Positions], np.ndarray]
DEPTH = 128  # a descent goes no deeper


@dataclass(frozen=True)
class Search:
    """Settings of a search; the defaults are AlphaZero's kind, `ALPHAGO` the 2016 paper's."""

    simulations: int = 400
    """Descents per move, those of a kept subtree included."""
    batch: int = 8
    """Descents per tree before their leaves are evaluated together."""
    ahead: int = 0
    """Rounds that may wait for the network while the next descends; virtual loss keeps them apart."""
    c: float = 1.5
    """Weight of the prior, c_puct."""
    lam: float = 0.0
    """λ: weight of rollouts in Q; 1 − λ is the network's."""
    loss: float = 1.0
    """Games that a descent under way counts as lost (virtual loss, n_vl)."""
    threshold: int = 0
    """Visits of an edge after which its node is made and evaluated by the network (n_thr)."""
    temperature: float = 1.0
    """Of the priors, softmax(logits / temperature) (β)."""
    urgency: float = 0.2
    """How much worse than its node's mean value an edge is thought that was never tried, times √(ΣP tried)."""
    nodes: int = 0
    """Room for nodes; 0 is what `simulations` need."""


ALPHAGO = Search(ahead=1, c=5.0, lam=0.5, loss=3.0, threshold=40, temperature=0.67)  # extended data table 5 there


class _Round(NamedTuple):
    """K descents of which the evaluation is under way."""

    tree: np.ndarray
    edges: np.ndarray
    depth: np.ndarray
    growing: np.ndarray
    ended: np.ndarray
    ask: np.ndarray
    answer: "Future[_Answer] | _Answer"
    result: np.ndarray


_Answer = tuple[np.ndarray, np.ndarray, np.ndarray]  # logits [asked, A], legal [asked, A], value [K]


class Forest:
    """Trees over the positions `roots` `[G]`, which are played on by `play`; subtrees are kept."""

    def __init__(
        self, game: Game, roots: Positions, search: Search, evaluate: Evaluate, rollout: Rollout | None = None
    ) -> None:
        if search.lam > 0 and rollout is None:
            raise ValueError("a search with lam > 0 needs a function for rollouts")
        self.game, self.search, self.evaluate, self.rollout = game, search, evaluate, rollout
        self.roots = Positions(roots.rows.copy(), roots.history.copy())
        count = len(roots.rows)
        nodes = search.nodes or 2 * search.simulations + 2 * search.batch + 2
        self.trees: Trees = plant(count, nodes, nodes * min(game.actions, 64) + game.actions)
        self.rule = Rule(search.c, search.lam, search.loss, search.urgency)
        shape = search.ahead + 1, count * search.batch
        self._tree = np.empty(shape, np.int32)
        self._edges = np.empty((*shape, DEPTH), np.int32)
        self._actions = np.empty((*shape, DEPTH), np.int16)
        self._depth = np.empty(shape, np.int32)
        self._grow = np.empty(shape, np.bool_)
        self._away: deque[_Round] = deque()
        self._slot = 0
        self._thread = ThreadPoolExecutor(1) if search.ahead else None
        self._everyone = np.arange(count)
        self.root_value = np.full(count, np.nan, np.float32)  # what `evaluate` thought of the roots; of kept ones, Q

    def run(self, simulations: int | None = None, seconds: float = np.inf, alive: np.ndarray | None = None) -> None:
        """Descend until every root (of those `alive` `[G]`) has `simulations` visits, or the time is up.

        No round is begun that would end too late if it took as long as the one before. In 0 seconds the roots are
        evaluated and that is all.
        """
        wanted = self.search.simulations if simulations is None else simulations
        until = time.monotonic() + seconds
        alive = self.make_roots(alive)
        asked, took = np.empty(len(alive), np.int64), 0.0
        while (began := time.monotonic()) + took < until:
            _asked(self.trees, asked)
            left = np.where(alive, wanted - asked, 0)
            if left.max(initial=0) <= 0:
                break
            if not self.round(np.minimum(left, self.search.batch)):
                if not self._away:
                    break
                self._receive(len(self._away) - 1)  # until then there is nothing to descend to
            took = time.monotonic() - began
        self.settle()

    def round(self, wanted: np.ndarray, begin: np.ndarray | None = None) -> int:
        """Descend wanted `[G]` times from each root, by its edge begin `[G]` where that is not −1; the number made.

        At most `ahead` rounds are still away afterwards, until `settle`.
        """
        if begin is None:
            begin = np.full(len(wanted), -1)
        i = self._slot
        made, leaves = _gather(
            self.trees, self.rule, self.search.threshold, wanted, begin,
            self._tree[i], self._edges[i], self._actions[i], self._depth[i], self._grow[i],
        )  # fmt: skip
        if leaves:
            self._send(i, leaves)
            self._slot = (i + 1) % len(self._tree)
            self._receive(self.search.ahead)
        return made

    def settle(self) -> None:
        """Wait for all rounds that are away."""
        self._receive(0)

    def _send(self, slot: int, leaves: int) -> None:
        tree, depth, growing = self._tree[slot, :leaves], self._depth[slot, :leaves], self._grow[slot, :leaves]
        positions = self.game.follow(self.roots, tree, self._actions[slot, :leaves], depth)
        ended = self.game.outcome(positions)
        ask = growing & np.isnan(ended)
        work = positions, ask, ended.copy()
        answer = self._thread.submit(self._ask, *work) if self._thread else self._ask(*work)
        result = ended.copy()
        if self.rollout is not None and self.search.lam > 0:
            on = np.isnan(ended)
            if on.any():
                result[on] = self.rollout(positions.take(on))
        self._away.append(_Round(tree, self._edges[slot], depth, growing, ended, ask, answer, result))

    def _receive(self, most: int) -> None:
        """Note what came of the oldest rounds until at most so many are away."""
        while len(self._away) > most:
            done = self._away.popleft()
            logits, legal, value = done.answer.result() if isinstance(done.answer, Future) else done.answer
            _scatter(
                self.trees, done.tree, done.edges, done.depth, done.growing, done.ask, logits, legal,
                self.search.temperature, done.ended, value, done.result,
            )  # fmt: skip

    def play(self, actions: np.ndarray) -> None:
        """Play an action `[G]` at each root and keep what is known of where it leads."""
        self.settle()
        self.root_value = -self.values()[self._everyone, actions]
        _keep(self.trees, actions)
        self.game.play(self.roots, actions)

    def restart(self, positions: Positions) -> None:
        """Begin anew at `positions` `[G]` in the same memory."""
        self._away.clear()  # what is still to come back is of trees that are no more
        self.roots.rows[:], self.roots.history[:] = positions.rows, positions.history
        self.trees.used[:] = 0

    def root_visits(self) -> np.ndarray:
        """Visits of each root's edges in all `[G]`."""
        return self.visits().sum(-1)

    def visits(self) -> np.ndarray:
        """Visits of each action at the root, int32 `[G, A]`."""
        return self._of_root(self.trees.visits, 0)

    def values(self) -> np.ndarray:
        """Q of each action at the root for the side to move, float32 `[G, A]`; nan where never tried."""
        found = np.full((len(self._everyone), self.game.actions), np.nan, np.float32)
        _values(self.trees, self.rule, found)
        return found

    def priors(self) -> np.ndarray:
        """Priors at the root `[G, A]`; 0 for what is not legal."""
        return self._of_root(self.trees.prior, 0)

    def line(self, action: int, tree: int = 0, most: int = 16) -> np.ndarray:
        """The principal variation `[D]` of an action at the root of one tree, the action itself first."""
        actions = np.empty(most, np.int16)
        return actions[: principal(self.trees, tree, action, actions)]

    def set_priors(self, priors: np.ndarray) -> None:
        """Replace the priors at the roots `[G, A]`, for noise in self-play; before the first descent."""
        _set_priors(self.trees, priors)

    def edges(self, actions: np.ndarray) -> np.ndarray:
        """The roots' edges of an action `[G]` each, for `round`'s begin; −1 where it is not legal."""
        found = np.full((len(self._everyone), self.game.actions), -1, np.int32)
        _root_edges(self.trees, found)
        return found[self._everyone, actions]

    def make_roots(self, alive: np.ndarray | None = None) -> np.ndarray:
        """Evaluate roots that are not yet; which of them (of those `alive` `[G]`) are not over, bool `[G]`."""
        self._make_roots()
        going = np.isnan(self.trees.ended[:, 0])
        return going if alive is None else going & alive

    def _of_root(self, values: np.ndarray, empty: float) -> np.ndarray:
        found = np.full((len(self._everyone), self.game.actions), empty, values.dtype)
        _root_rows(self.trees, values, found)
        return found

    def _make_roots(self) -> None:
        new = np.flatnonzero(self.trees.used[:, 0] == 0)
        if len(new) == 0:
            return
        positions = self.roots.take(new)
        ended = self.game.outcome(positions)
        ask = np.isnan(ended)
        logits, legal, self.root_value[new] = self._ask(positions, ask, ended.copy())
        _roots(self.trees, new, ask, logits, legal, self.search.temperature, ended)

    def _ask(self, positions: Positions, ask: np.ndarray, value: np.ndarray) -> _Answer:
        """Logits and legal actions `[asked, A]` of the positions to ask for, and value `[K]` with theirs filled in."""
        if not ask.any():
            nothing = np.empty((0, self.game.actions), np.float32)
            return nothing, nothing.astype(np.bool_), value
        if not ask.all():
            positions = positions.take(ask)
        logits, value[ask] = self.evaluate(positions)
        return np.ascontiguousarray(logits, np.float32), self.game.legal(positions), value


def even(actions: int) -> Evaluate:
    """For searches without a network: even priors, and no value, so that λ must be 1."""

    def evaluate(positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        count = len(positions.rows)
        return np.zeros((count, actions), np.float32), np.full(count, np.nan, np.float32)

    return evaluate


@jit
def _gather(trees, rule, threshold, wanted, begin, tree, edges, actions, depth, growing):
    made, k = 0, 0
    for g in range(len(wanted)):
        for _ in range(wanted[g]):
            depth[k], node = descend(trees, g, rule, begin[g], edges[k], actions[k])
            if node == PENDING:
                back_out(trees, g, edges[k], depth[k])
                break
            made += 1
            if node >= 0 and trees.count[g, node] == 0:
                note(trees, g, edges[k], depth[k], trees.ended[g, node], trees.ended[g, node])
                continue
            e = edges[k, depth[k] - 1]
            tree[k] = g
            growing[k] = node == LEAF and trees.visits[g, e] + trees.flight[g, e] > threshold
            if growing[k]:
                trees.child[g, e] = PENDING
            k += 1
    return made, k


@jit
def _scatter(trees, tree, edges, depth, growing, ask, logits, legal, temperature, ended, value, result):
    nothing = np.zeros(0, np.bool_)
    asked = 0
    for k in range(len(tree)):
        g = tree[k]
        if growing[k]:
            e = edges[k, depth[k] - 1]
            if ask[k]:
                grow(trees, g, e, logits[asked], legal[asked], temperature, np.float32(np.nan))
                asked += 1
            else:
                grow(trees, g, e, logits[0:0].ravel(), nothing, temperature, ended[k])
        note(trees, g, edges[k], depth[k], value[k], result[k])


@jit
def _asked(trees, found):
    for g in range(len(found)):
        found[g] = 0
        if trees.used[g, 0]:
            for e in range(trees.first[g, 0], trees.first[g, 0] + trees.count[g, 0]):
                found[g] += trees.visits[g, e] + trees.flight[g, e]


@jit
def _roots(trees, new, ask, logits, legal, temperature, ended):
    nothing = np.zeros(0, np.bool_)
    asked = 0
    for k in range(len(new)):
        if ask[k]:
            grow(trees, new[k], -1, logits[asked], legal[asked], temperature, np.float32(np.nan))
            asked += 1
        else:
            grow(trees, new[k], -1, logits[0:0].ravel(), nothing, temperature, ended[k])


@jit
def _keep(trees, actions):
    for g in range(len(actions)):
        keep(trees, g, actions[g])


@jit
def _root_rows(trees, values, found):
    for g in range(len(found)):
        if trees.used[g, 0]:
            for e in range(trees.first[g, 0], trees.first[g, 0] + trees.count[g, 0]):
                found[g, trees.action[g, e]] = values[g, e]


@jit
def _root_edges(trees, found):
    for g in range(len(found)):
        if trees.used[g, 0]:
            for e in range(trees.first[g, 0], trees.first[g, 0] + trees.count[g, 0]):
                found[g, trees.action[g, e]] = e


@jit
def _values(trees, rule, found):
    for g in range(len(found)):
        if trees.used[g, 0]:
            for e in range(trees.first[g, 0], trees.first[g, 0] + trees.count[g, 0]):
                if trees.visits[g, e]:
                    found[g, trees.action[g, e]] = edge_value(trees, g, e, rule, 0.0)


@jit
def _set_priors(trees, priors):
    for g in range(len(priors)):
        first, count = trees.first[g, 0], trees.count[g, 0]
        if trees.used[g, 0] == 0 or count == 0:
            continue
        for e in range(first, first + count):
            trees.prior[g, e] = priors[g, trees.action[g, e]]
        bring(trees, g, 0)
