"""Matches between players of any `Game`, all games of a match side by side, so that networks see many at once."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from volition.core.game import Game, Positions
from volition.core.search import Evaluate, Forest, Rollout, Search


class Player(Protocol):
    """One who plays many games at a time."""

    def begin(self, game: Any, positions: Positions) -> None:
        """New games at `positions` `[G]`."""
        ...

    def choose(self, positions: Positions, mine: np.ndarray) -> np.ndarray:
        """Actions `[G]`, of which those of the games `mine` `[G]` count."""
        ...

    def play(self, actions: np.ndarray) -> None:
        """What was played in each game `[G]`, by whom ever; nothing happens in those that are over."""
        ...


class Searcher:
    """Plays the most visited move of a search, whose subtrees it keeps."""

    def __init__(self, search: Search, evaluate: Evaluate, rollout: Callable[[Any], Rollout] | None = None) -> None:
        self.search, self.evaluate, self.rollout = search, evaluate, rollout

    def begin(self, game: Any, positions: Positions) -> None:
        rollout = self.rollout(game) if self.rollout else None
        self.forest = Forest(game, positions, self.search, self.evaluate, rollout)

    def choose(self, positions: Positions, mine: np.ndarray) -> np.ndarray:
        self.forest.run(alive=mine)
        return self.forest.visits().argmax(1)

    def play(self, actions: np.ndarray) -> None:
        self.forest.play(actions)


def match(game: Game, one: Player, other: Player, openings: np.ndarray) -> float:
    """Games won by `one`, draws ½, from the openings, actions `[G, D]`; `one` begins in every second game.

    So each opening should be there twice, once for either.
    """
    count = len(openings)
    positions = game.start(count)
    for t in range(openings.shape[1]):
        game.play(positions, openings[:, t])
    for player in (one, other):
        player.begin(game, positions)
    moves = np.full(count, openings.shape[1])
    first = np.arange(count) % 2 == 0
    while (going := np.isnan(game.outcome(positions))).any():
        ours = first == (moves % 2 == 0)
        actions = np.zeros(count, np.int64)
        for player, mine in ((one, ours & going), (other, ~ours & going)):
            if mine.any():
                actions[mine] = player.choose(positions, mine)[mine]
        game.play(positions, actions)
        moves += going
        for player in (one, other):
            player.play(actions)
    beginner = game.outcome(positions) * np.where(moves % 2 == 0, 1, -1)
    return float((0.5 + 0.5 * np.where(first, beginner, -beginner)).sum())
