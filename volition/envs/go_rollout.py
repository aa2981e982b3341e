"""The rollout policy of AlphaGo: a linear softmax over small patterns, fast enough to play games to their end.

log π(p) = Σ of the weights of the features of p (`go_patterns`), less a constant, over legal moves that fill no own eye
(Silver et al. 2016, Methods and Extended Data table 4).
"""

import numpy as np
import torch

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go import PASS, SIZE, TURN, jit
from volition.envs.go_game import Go
from volition.envs.go_patterns import MOST, SQUARE, WEIGHTS, last_move, look, memory, square, squares
from volition.envs.go_uct import result


@jit
def rate(row, table, factors, value, room):
    """value `[P]`: eʷ of all moves, 0 for those not to be played; table `[2²⁰]` of squares, factors of the others."""
    see, count, work, moves, found, spots, features = room
    w = row[SIZE] + 1
    look(row, see, count)
    value[:] = 0
    first = np.uintp(go.HEAD + 8 * len(see))
    for i in range(row[go.EMPTIES]):
        p = row[first + np.uintp(i)]
        value[p] = table[square(see, p, w)]
    value[row[go.KO]] = 0
    for i in range(last_move(row, see, work, moves, found, spots, features)):
        value[spots[i]] *= factors[features[i]]


@jit
def _choose(row, value, random):
    """A point with probability in proportion to its value; `PASS` if all are 0."""
    total = np.float32(0)
    first = np.uintp(go.HEAD + 8 * len(value))
    for i in range(row[go.EMPTIES]):
        total += value[row[first + np.uintp(i)]]
    left = np.float32(total * (go.next_random(random) * 2.0**-32))
    move = PASS
    for i in range(row[go.EMPTIES]):
        p = row[first + np.uintp(i)]
        if value[p] > 0:
            move = p
            left -= value[p]
            if left < 0:
                break
    return move


@jit
def rollout(row, table, factors, random, limit, value, room):
    """Play by the policy until both sides have passed, or `limit` moves are played."""
    while row[go.PASSES] < 2 and row[go.MOVES] < limit:
        rate(row, table, factors, value, room)
        go.play(row, _choose(row, value, random))


@jit
def play_out(rows, table, factors, random, limit, komi, results):
    """Play the rows to their end, in place; results `[K]` for the side that was to move."""
    n = rows[0, SIZE]
    room, value, owner = memory(n), np.empty(go.points(n), np.float32), np.empty(go.points(n), np.int8)
    for k in range(len(rows)):
        turn = rows[k, TURN]
        rollout(rows[k], table, factors, random, limit, value, room)
        results[k] = result(rows[k], owner, komi) * (1 if rows[k, TURN] == turn else -1)


@jit
def _probabilities(rows, table, factors, out):
    n = rows[0, SIZE]
    room, value = memory(n), np.empty(go.points(n), np.float32)
    for k in range(len(rows)):
        rate(rows[k], table, factors, value, room)
        total = value.sum()
        for a in range(n * n):
            out[k, a] = value[go.to_point(n, a)] / total if total > 0 else 0
        out[k, n * n] = total == 0


@jit
def _gradient(rows, actions, least, allowed, weights, gradient, touched):
    """Adds the gradient of Σ log π(a) to gradient `[WEIGHTS]`; the sum, positions counted and places touched."""
    n = rows[0, SIZE]
    w = n + 1
    size = go.points(n)
    see, count, work, moves, found, spots, features = memory(n)
    logit, code = np.empty(size, np.float64), np.empty(size, np.int32)
    likelihood, counted, places = 0.0, 0, 0
    for k in range(len(rows)):
        row, move = rows[k], go.to_point(n, np.int64(actions[k]))
        look(row, see, count)
        logit[:] = -np.inf
        for i in range(row[go.EMPTIES]):
            p = row[go.free_at(row, i)]
            x = square(see, p, w)
            code[p] = SQUARE + least[x]
            if allowed[x] and p != row[go.KO]:
                logit[p] = weights[code[p]]
        if move == PASS or logit[move] == -np.inf:
            continue
        total = last_move(row, see, work, moves, found, spots, features)
        for i in range(total):
            logit[spots[i]] += weights[features[i]]
        top = logit.max()
        norm = top + np.log(np.exp(logit - top).sum())
        likelihood += logit[move] - norm
        counted += 1
        for i in range(row[go.EMPTIES]):
            p = row[go.free_at(row, i)]
            if logit[p] > -np.inf:
                gradient[code[p]] += (p == move) - np.exp(logit[p] - norm)
                touched[places] = code[p]
                places += 1
        for i in range(total):
            p = spots[i]
            if logit[p] > -np.inf:
                gradient[features[i]] += (p == move) - np.exp(logit[p] - norm)
                touched[places] = features[i]
                places += 1
    return likelihood, counted, places


@jit
def _fit(rows, actions, least, allowed, weights, squares, batch, lr):
    gradient = np.zeros(len(weights), np.float64)
    touched = np.empty(batch * (rows[0, SIZE] ** 2 + MOST), np.int32)
    likelihood, counted = 0.0, 0
    for start in range(0, len(rows), batch):
        end = min(start + batch, len(rows))
        got, more, places = _gradient(rows[start:end], actions[start:end], least, allowed, weights, gradient, touched)
        likelihood += got
        counted += more
        for j in range(places):
            i = touched[j]
            g = gradient[i]
            gradient[i] = 0
            if g != 0:
                squares[i] += g * g
                weights[i] += lr * g / np.sqrt(squares[i] + 1e-8)
    return likelihood, counted


def playable(row: np.ndarray) -> dict[int, list[int]]:
    """The actions that the policy may play in a position `[S]`, and the features of each: for looking at them."""
    n = int(row[SIZE])
    see, count, work, moves, found, spots, features = memory(n)
    look(row, see, count)
    total = last_move(row, see, work, moves, found, spots, features)
    least, allowed = squares()
    actions = {}
    for a in range(n * n):
        p = go.to_point(n, a)
        if see[p] == 0 and p != row[go.KO] and allowed[code := square(see, p, n + 1)]:
            actions[a] = [int(i) for i in features[:total][spots[:total] == p]] + [int(SQUARE + least[code])]
    return actions


class RolloutPolicy:
    """The policy with its weights, float32 `[WEIGHTS]`; all 0 is a random game."""

    def __init__(self, weights: np.ndarray | None = None) -> None:
        self.weights = np.zeros(WEIGHTS, np.float32) if weights is None else weights
        self.squares = np.zeros(WEIGHTS, np.float32)  # sums of squared gradients

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Weights and sums of squared gradients; most of them are 0, so only the others are kept, with their places."""
        places = np.flatnonzero(self.squares)
        kept = {"places": places, "weights": self.weights[places], "squares": self.squares[places]}
        return {name: torch.from_numpy(array) for name, array in kept.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from `state_dict()`."""
        places = state["places"].numpy()
        self.weights[:], self.squares[:] = 0, 0
        self.weights[places], self.squares[places] = state["weights"].numpy(), state["squares"].numpy()

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """eʷ of each code of a square `[2²⁰]`, 0 where it forbids to play, and of the other features."""
        least, allowed = squares()
        return np.exp(self.weights[SQUARE:])[least] * allowed, np.exp(self.weights[:SQUARE])

    def probabilities(self, positions: Positions) -> np.ndarray:
        """π, float32 `[K, N² + 1]`; the pass has 1 where there is no other move, else 0."""
        n = positions.rows[0, SIZE]
        out = np.empty((len(positions.rows), n * n + 1), np.float32)
        _probabilities(positions.rows, *self.tables(), out)
        return out

    def gradient(self, positions: Positions, actions: np.ndarray) -> tuple[float, np.ndarray, int]:
        """Σ log π(a) over actions `[K]` that the policy can play, its gradient `[WEIGHTS]`, and how many they are."""
        gradient = np.zeros(WEIGHTS, np.float64)
        touched = np.empty(len(actions) * (positions.rows[0, SIZE] ** 2 + MOST), np.int32)
        value, counted, _ = _gradient(positions.rows, actions, *squares(), self.weights, gradient, touched)
        return value, gradient, counted

    def fit(self, positions: Positions, actions: np.ndarray, batch: int = 16, lr: float = 0.05) -> float:
        """One pass of Adagrad over the positions in their order; mean log π(a) on the way."""
        value, counted = _fit(positions.rows, actions, *squares(), self.weights, self.squares, batch, lr)
        return value / max(counted, 1)


class PolicyGames:
    """A `rollout` for searches: results `[K]` of one game of the policy from each position, for the side to move."""

    def __init__(self, rules: Go, policy: RolloutPolicy, seed: int = 0) -> None:
        self.rules, self.factors = rules, policy.tables()
        self.random = np.array([seed * 2 + 0x9E3779B97F4A7C15 & (2**64 - 1) | 1], np.uint64)

    def __call__(self, positions: Positions) -> np.ndarray:
        results = np.empty(len(positions.rows), np.float32)
        play_out(positions.rows.copy(), *self.factors, self.random, self.rules.moves, self.rules.komi, results)
        return results
