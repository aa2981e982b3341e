"""Taking dead stones off the board by playing on, where a referee asks for that."""

from dataclasses import replace

import numpy as np

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_life import without
from volition.envs.go_uct import Uct

NEARLY = 0.1  # values that are about the same


def cleanup(
    rules: Go, position: Positions, dead: np.ndarray, simulations: int, random: np.ndarray, seconds: float = np.inf
) -> int:
    """The action by which the side to move begins to take the other's dead stones `[N²]`; a pass if there are none.

    UCT by a komi with which it wins only what has as many points in the end as the count without dead stones.
    """
    row, stop = position.rows[0], rules.size**2
    mine = int(row[go.TURN])
    lies = np.array([row[go.at(go.to_point(rules.size, a), go.COLOUR)] for a in range(stop)])
    foes = (lies == 3 - mine) & dead
    if not foes.any():
        return stop
    score = float(rules.score(without(position, dead[None]))[0])
    strict = replace(rules, komi=rules.komi + score + (-0.5 if mine == go.BLACK else 0.5))
    tree = Uct(strict, position, simulations, random)
    tree.run(seconds=seconds)
    visits, values = tree.visits()[0], tree.values()[0]
    # there is no hurry in such a game: of what is about as good, that which takes the stones' liberties
    near = np.zeros(rules.actions, np.bool_)
    near[:stop] = _beside(foes.reshape(rules.size, -1)).ravel()
    near &= values >= np.nanmax(values) - NEARLY
    return int(np.where(near, visits, 0).argmax() if near.any() else visits.argmax())


def _beside(stones: np.ndarray) -> np.ndarray:
    """Points `[N, N]` with a neighbour among stones `[N, N]`."""
    near = np.zeros_like(stones)
    near[1:] |= stones[:-1]
    near[:-1] |= stones[1:]
    near[:, 1:] |= stones[:, :-1]
    near[:, :-1] |= stones[:, 1:]
    return near
