"""Search trees in flat arrays, many at once, compiled: descend to a leaf, grow it, note what came of it, keep a part.

A tree knows nothing of its game. Node 0 is the root; the edges of a node, one per legal action, lie side by side: first
the `seen` ones that were descended, then of the others that with the largest prior, which is all that a descent has to
know of them (most nodes are visited too seldom to be worth sorting their edges). An edge keeps what
APV-MCTS keeps (Silver et al. 2016, methods): prior P, visits N, the sums of network values W_v over N_v and of rollout
results W_r over N, and how many descents are under way. All values are from the view of the one who plays the edge.
"""

from typing import NamedTuple

import numpy as np

from volition.core.compiled import jit

LEAF, PENDING = -1, -2  # what an edge without a node is: nobody's yet, or being evaluated


class Trees(NamedTuple):
    """G trees with room for M nodes and E edges each; node arrays `[G, M]`, edge arrays `[G, E]`."""

    used: np.ndarray  # [G, 2]: nodes and edges so far
    first: np.ndarray  # the first edge of a node
    count: np.ndarray  # how many it has; 0 where the game is over
    seen: np.ndarray  # how many of them were ever descended
    ended: np.ndarray  # value for the side to move where the game is over, else nan
    action: np.ndarray
    prior: np.ndarray
    visits: np.ndarray
    value_visits: np.ndarray
    value_sum: np.ndarray
    rollout_sum: np.ndarray
    flight: np.ndarray  # descents that have not come back
    child: np.ndarray  # node, LEAF or PENDING


class Rule(NamedTuple):
    """How a descent chooses: argmax Q + u with u = c·P·√ΣN / (1 + N), or UCB1's c·√(ln ΣN / N)."""

    c: float = 1.5
    lam: float = 0.0  # λ: Q = (1 − λ)·W_v/N_v + λ·W_r/N
    loss: float = 1.0  # games that a descent under way counts as lost, n_vl
    urgency: float = 0.2  # an edge never tried has its node's mean value less this·√(ΣP tried)
    ucb: bool = False


def plant(count: int, nodes: int, edges: int) -> Trees:
    """Empty trees."""

    def zeros(size: int, kind: type) -> np.ndarray:
        return np.zeros((count, size), kind)

    return Trees(
        used=zeros(2, np.int32),
        first=zeros(nodes, np.int32),
        count=zeros(nodes, np.int32),
        seen=zeros(nodes, np.int32),
        ended=np.full((count, nodes), np.nan, np.float32),
        action=zeros(edges, np.int16),
        prior=zeros(edges, np.float32),
        visits=zeros(edges, np.int32),
        value_visits=zeros(edges, np.int32),
        value_sum=zeros(edges, np.float32),
        rollout_sum=zeros(edges, np.float32),
        flight=zeros(edges, np.int32),
        child=np.full((count, edges), LEAF, np.int32),
    )


@jit
def edge_value(trees, g, e, rule, away):
    """Q of an edge as if `away` games more were lost; nan if nothing came back from it and none is away."""
    visits, values = trees.visits[g, e], trees.value_visits[g, e]
    if rule.lam == 0.0:
        return (trees.value_sum[g, e] - away) / (values + away)
    rollout = (trees.rollout_sum[g, e] - away) / (visits + away)
    if rule.lam == 1.0 or values == 0:
        return rollout
    return (1.0 - rule.lam) * trees.value_sum[g, e] / values + rule.lam * rollout


@jit
def choose(trees, g, node, rule):
    """The edge that a descent takes from a node."""
    first, seen = trees.first[g, node], trees.seen[g, node]
    total, tried, mean, back = 0.0, 0.0, 0.0, 0
    for e in range(first, first + seen):
        n = trees.visits[g, e] + trees.flight[g, e]
        total += n
        tried += trees.prior[g, e]
        if trees.visits[g, e]:
            mean += trees.visits[g, e] * edge_value(trees, g, e, rule, 0.0)
            back += trees.visits[g, e]
    more = seen < trees.count[g, node]
    if more and rule.ucb:
        best, best_score = first + seen, np.inf
    elif more:
        q = mean / back - rule.urgency * np.sqrt(tried) if back else 0.0
        best, best_score = first + seen, q + rule.c * trees.prior[g, first + seen] * np.sqrt(max(total, 1.0))
    else:
        best, best_score = first, -np.inf
    root, log = np.sqrt(max(total, 1.0)), np.log(max(total, 1.0))
    for e in range(first, first + seen):
        away = rule.loss * trees.flight[g, e]
        n = trees.visits[g, e] + away
        q = edge_value(trees, g, e, rule, away) if n else 0.0
        u = rule.c * np.sqrt(log / n) if rule.ucb else rule.c * trees.prior[g, e] * root / (1.0 + n)
        if q + u > best_score:
            best, best_score = e, q + u
    return best


@jit
def bring(trees, g, node):
    """Put the edge with the largest prior of those never descended before the others of them."""
    to = trees.first[g, node] + trees.seen[g, node]
    best = to
    for e in range(to + 1, trees.first[g, node] + trees.count[g, node]):
        if trees.prior[g, e] > trees.prior[g, best]:
            best = e
    if best != to:
        action, prior = trees.action[g, to], trees.prior[g, to]
        trees.action[g, to], trees.prior[g, to] = trees.action[g, best], trees.prior[g, best]
        trees.action[g, best], trees.prior[g, best] = action, prior


@jit
def descend(trees, g, rule, begin, edges, actions):
    """Go down to a leaf, by the root's edge `begin` unless that is −1; (depth, node or LEAF or PENDING).

    edges and actions `[D]` are filled; after D steps the descent ends wherever it is. Every edge on the way counts one
    more descent under way, until `note` or `back_out`.
    """
    node, depth = 0, 0
    while True:
        if trees.count[g, node] == 0 or depth == len(edges):
            return depth, node
        e = begin if depth == 0 and begin >= 0 else choose(trees, g, node, rule)
        if e >= trees.first[g, node] + trees.seen[g, node]:
            trees.seen[g, node] = e - trees.first[g, node] + 1
            bring(trees, g, node)
        trees.flight[g, e] += 1
        edges[depth], actions[depth] = e, trees.action[g, e]
        depth += 1
        node = trees.child[g, e]
        if node < 0:
            return depth, node


@jit
def note(trees, g, edges, depth, value, result):
    """A descent has come back with the network's value and a rollout's result for the side to move; nan is none."""
    for d in range(depth - 1, -1, -1):
        e = edges[d]
        value, result = -value, -result
        trees.flight[g, e] -= 1
        trees.visits[g, e] += 1
        if not np.isnan(value):
            trees.value_visits[g, e] += 1
            trees.value_sum[g, e] += value
        if not np.isnan(result):
            trees.rollout_sum[g, e] += result


@jit
def back_out(trees, g, edges, depth):
    """A descent found nothing to do: as if it had not been."""
    for d in range(depth):
        trees.flight[g, edges[d]] -= 1


@jit
def grow(trees, g, edge, logits, legal, temperature, ended):
    """Make the node that an edge leads to, or the root if edge is −1; its number, or LEAF where there is no room.

    logits `[A]` become priors softmax(logits / temperature) over the legal `[A]`; ended is the value of a game that is
    over for the side to move, or nan.
    """
    node, first = trees.used[g, 0], trees.used[g, 1]
    count = 0
    if np.isnan(ended):
        for a in range(len(legal)):
            count += legal[a]
    if node == trees.first.shape[1] or first + count > trees.action.shape[1]:
        if edge >= 0:
            trees.child[g, edge] = LEAF
        return LEAF
    trees.used[g, 0], trees.used[g, 1] = node + 1, first + count
    trees.first[g, node], trees.count[g, node], trees.seen[g, node] = first, count, 0
    trees.ended[g, node] = ended
    if edge >= 0:
        trees.child[g, edge] = node
    if count == 0:
        return node
    top, total, e = -np.inf, 0.0, first
    for a in range(len(legal)):
        if legal[a]:
            top = max(top, logits[a])
    for a in range(len(legal)):
        if legal[a]:
            p = np.exp((logits[a] - top) / temperature)
            trees.action[g, e], trees.prior[g, e] = a, p
            total += p
            e += 1
    for e in range(first, first + count):
        trees.prior[g, e] /= total
        trees.visits[g, e] = trees.value_visits[g, e] = trees.flight[g, e] = 0
        trees.value_sum[g, e] = trees.rollout_sum[g, e] = 0.0
        trees.child[g, e] = LEAF
    bring(trees, g, node)
    return node


@jit
def keep(trees, g, action):
    """Make the node behind an action of the root the new root and forget all else; False if there is no such node."""
    first = trees.first[g, 0]
    root = LEAF
    if trees.used[g, 0]:
        for e in range(first, first + trees.count[g, 0]):
            if trees.action[g, e] == action:
                root = trees.child[g, e]
    if root < 0:
        trees.used[g] = 0
        return False
    # children have larger numbers than parents, in nodes and edges: what is kept can be moved down in that order
    used = trees.used[g, 0]
    number = np.full(used, LEAF, np.int32)
    number[root] = 0
    nodes, edges = 0, 0
    for node in range(root, used):
        if number[node] == LEAF:
            continue
        number[node] = nodes
        first, count = trees.first[g, node], trees.count[g, node]
        trees.first[g, nodes], trees.count[g, nodes] = edges, count
        trees.seen[g, nodes], trees.ended[g, nodes] = trees.seen[g, node], trees.ended[g, node]
        for i in range(count):
            e, to = first + i, edges + i
            child = trees.child[g, e]
            if child >= 0:
                number[child] = 0  # to be kept; numbered when its turn comes
            trees.action[g, to], trees.prior[g, to], trees.child[g, to] = trees.action[g, e], trees.prior[g, e], child
            trees.visits[g, to], trees.value_visits[g, to] = trees.visits[g, e], trees.value_visits[g, e]
            trees.value_sum[g, to], trees.rollout_sum[g, to] = trees.value_sum[g, e], trees.rollout_sum[g, e]
            trees.flight[g, to] = trees.flight[g, e]
        nodes += 1
        edges += count
    for e in range(edges):
        if trees.child[g, e] >= 0:
            trees.child[g, e] = number[trees.child[g, e]]
    trees.used[g, 0], trees.used[g, 1] = nodes, edges
    return True


@jit
def principal(trees, g, action, actions):
    """Fill actions `[D]` with the principal variation that begins with an action of the root; how many there are.

    After the first, each is the most visited of its node; it ends where no edge was ever descended.
    """
    node, count = 0, 0
    while node >= 0 and count < len(actions) and trees.used[g, 0]:
        best, most = -1, 0
        for e in range(trees.first[g, node], trees.first[g, node] + trees.count[g, node]):
            wanted = trees.action[g, e] == action if count == 0 else trees.visits[g, e] > most
            if wanted:
                best, most = e, trees.visits[g, e]
        if best < 0:
            break
        actions[count] = trees.action[g, best]
        count += 1
        node = trees.child[g, best]
    return count
