"""A player of Go that knows nothing but the rules and its own eyes: the weakest opponent whose games come to an end."""

import numpy as np

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go import jit
from volition.envs.go_game import KO, Go


def random_actions(rules: Go, positions: Positions, random: np.ndarray) -> np.ndarray:
    """One action for each position, int64 `[K]`: any legal move that fills no own eye, else the pass.

    Unlike the moves of random games inside a search these keep to superko too. random is uint64 `[1]`, the state of the
    generator, not 0.
    """
    actions = np.empty(len(positions.rows), np.int64)
    if len(actions):
        _random_actions(*positions, KO[rules.ko], random, actions)
    return actions


@jit
def draw_colours(count, random):
    """`BLACK` or `WHITE` with even chances, int64 `[count]`."""
    colours = np.empty(count, np.int64)
    for j in range(count):
        colours[j] = go.BLACK if go.next_random(random) & 1 else go.WHITE
    return colours


@jit
def _random_actions(rows, history, rule, random, actions):
    n = rows[0, go.SIZE]
    mask = np.empty(n * n + 1, np.bool_)
    for k in range(len(rows)):
        row = rows[k]
        go.legal_mask(row, history[k, : row[go.MOVES] + 1], rule, mask)
        count = 0
        for i in range(row[go.EMPTIES]):
            p = row[go.free_at(row, i)]
            a = go.to_action(n, p)
            mask[a] = mask[a] and not go.own_eye(row, p, row[go.TURN])
            count += mask[a]
        left = (go.next_random(random) * count) >> np.int64(32)
        actions[k] = n * n
        for a in range(n * n):
            if mask[a]:
                if left == 0:
                    actions[k] = a
                    break
                left -= 1
