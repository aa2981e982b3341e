"""Many games of Go at once between policies, to their end: self-play, and matches of networks without a search.

Nobody fills an own eye. A pass is allowed only where nothing else is, or where the board is settled: each empty region
touches stones of one colour only, so that who passes leaves nothing open. Dead stones must so be taken, and a game is
counted as its board stands, by rules that everybody can repeat.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from volition.core.game import Positions
from volition.data.go_games import HOW, Games
from volition.data.go_record import COUNTED
from volition.envs import go
from volition.envs.go import jit
from volition.envs.go_game import KO, Go

Policy = Callable[[Positions], np.ndarray]
"""Logits float `[K, N² + 1]` of positions."""


def open_moves(rules: Go, positions: Positions) -> np.ndarray:
    """What self-play allows, bool `[K, N² + 1]`: legal, no own eye, and the pass only of a settled board."""
    mask = np.empty((len(positions.rows), rules.actions), np.bool_)
    _open_moves(*positions, KO[rules.ko], mask)
    return mask


def sample(logits: np.ndarray, mask: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Actions `[K]` from softmax(logits / temperature) over the mask; 0 is the most probable."""
    scores = np.where(mask, logits, -np.inf)
    if temperature > 0:
        # the largest of logits with Gumbel's noise has the softmax's distribution
        scores = scores / temperature + rng.gumbel(size=scores.shape)
    return scores.argmax(1)


def play_games(
    rules: Go,
    players: Sequence[Policy],
    turns: np.ndarray,
    rng: np.random.Generator,
    temperature: float = 1.0,
) -> Games:
    """Games `[G]` in which players[turns[g, t]] plays move t of game g; turns `[G, T]`, T the most moves of a game."""
    count = len(turns)
    positions = rules.start(count)
    moves = np.zeros((count, rules.moves), np.uint16)
    length = np.zeros(count, np.int64)
    while len(going := np.flatnonzero(~rules.over(positions))):
        here = positions.take(going)
        mask = open_moves(rules, here)
        side = turns[going, length[going]]
        logits = np.empty(mask.shape, np.float32)
        for number in np.unique(side):
            mine = np.flatnonzero(side == number)
            logits[mine] = players[number](here.take(mine))
        actions = sample(logits, mask, temperature, rng)
        rules.play(here, actions)
        positions.rows[going], positions.history[going] = here.rows, here.history
        moves[going, length[going]] = actions
        length[going] += 1
    return record(rules, moves, length, np.sign(rules.score(positions)).astype(np.int8))


def colours(rules: Go, black: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Turns `[G, T]` of games between the players black `[G]` and white `[G]`."""
    return np.where(np.arange(rules.moves) % 2 == 0, black[:, None], white[:, None])


def any_move(positions: Positions) -> np.ndarray:
    """The policy of one who plays anything: even logits `[K, N² + 1]`."""
    return np.zeros((len(positions.rows), int(positions.rows[0, go.SIZE]) ** 2 + 1), np.float32)


def record(rules: Go, moves: np.ndarray, length: np.ndarray, winner: np.ndarray) -> Games:
    """Games of moves `[G, T]`, of which the first length `[G]` count, and winner `[G]`: 1 black, −1 white, 0 none."""
    count = len(length)
    ranks = np.zeros(count, np.int8)
    # the split by game comes from these: not from Python's hash, which differs between processes
    digests = [hashlib.blake2b(moves[g, : length[g]].tobytes(), digest_size=8).digest() for g in range(count)]
    return Games(
        size=rules.size,
        moves=moves[np.arange(moves.shape[1]) < length[:, None]].astype(np.uint16),
        start=np.concatenate([[0], np.cumsum(length)]),
        first=np.ones(count, np.int8),
        winner=winner,
        how=np.full(count, HOW.index(COUNTED), np.uint8),
        komi=np.full(count, rules.komi, np.float32),
        handicap=np.zeros(count, np.uint8),
        black_rank=ranks,
        white_rank=ranks,
        setup=np.zeros(0, np.uint16),
        key=np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64),
        sources=(),
        skipped={},
    )


@jit
def _open_moves(rows, history, rule, mask):
    owner = np.empty(go.points(rows[0, go.SIZE]), np.int8)
    for k in range(len(rows)):
        row = rows[k]
        n = row[go.SIZE]
        go.legal_mask(row, history[k, : row[go.MOVES] + 1], rule, mask[k])
        go.area(row, owner)
        some, settled = False, True
        for i in range(row[go.EMPTIES]):
            p = row[go.free_at(row, i)]
            a = go.to_action(n, p)
            mask[k, a] = mask[k, a] and not go.own_eye(row, p, row[go.TURN])
            some |= mask[k, a]
            settled &= owner[p] != go.EMPTY
        mask[k, n * n] = settled or not some
