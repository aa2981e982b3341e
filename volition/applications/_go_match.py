"""Matches between players of Go, all games of a match side by side, so that networks see many positions at once."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from volition.core.game import Positions
from volition.core.search import Evaluate, Forest, Rollout, Search
from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_selfplay import Policy, open_moves, sample
from volition.envs.go_uct import uct

OPENING = 4  # random moves that both games of a pair begin with


class Player(Protocol):
    """One who plays many games at a time."""

    def begin(self, rules: Go, positions: Positions) -> None:
        """New games at `positions` `[G]`."""
        ...

    def choose(self, positions: Positions, mine: np.ndarray) -> np.ndarray:
        """Actions `[G]`, of which those of the games `mine` `[G]` count."""
        ...

    def play(self, actions: np.ndarray) -> None:
        """What was played in each game `[G]`, by whom ever; nothing happens in those that are over."""
        ...


class Imitator:
    """Plays by a policy alone: its most probable move, or at a temperature."""

    def __init__(self, policy: Policy, temperature: float = 0.0, seed: int = 0) -> None:
        self.policy, self.temperature, self.rng = policy, temperature, np.random.default_rng(seed)

    def begin(self, rules: Go, positions: Positions) -> None:
        self.rules = rules

    def choose(self, positions: Positions, mine: np.ndarray) -> np.ndarray:
        chosen, here = np.zeros(len(mine), np.int64), positions.take(mine)
        mask = open_moves(self.rules, here)
        chosen[mine] = sample(self.policy(here), mask, self.temperature, self.rng)
        return chosen

    def play(self, actions: np.ndarray) -> None:
        pass


class Searcher:
    """Plays the most visited move of a search, whose subtrees it keeps."""

    def __init__(self, search: Search, evaluate: Evaluate, rollout: Callable[[Go], Rollout] | None = None) -> None:
        self.search, self.evaluate, self.rollout = search, evaluate, rollout

    def begin(self, rules: Go, positions: Positions) -> None:
        rollout = self.rollout(rules) if self.rollout else None
        self.forest = Forest(rules, positions, self.search, self.evaluate, rollout)

    def choose(self, positions: Positions, mine: np.ndarray) -> np.ndarray:
        self.forest.run(alive=mine)
        return self.forest.visits().argmax(1)

    def play(self, actions: np.ndarray) -> None:
        self.forest.play(actions)


class Uct:
    """UCT with random games, which needs no learning."""

    def __init__(self, simulations: int, seed: int = 0) -> None:
        self.simulations, self.random = simulations, np.array([2 * seed + 1], np.uint64)

    def begin(self, rules: Go, positions: Positions) -> None:
        self.rules = rules

    def choose(self, positions: Positions, mine: np.ndarray) -> np.ndarray:
        chosen = np.zeros(len(mine), np.int64)
        for g in np.flatnonzero(mine):
            here = positions.take(np.array([g]))
            chosen[g] = uct(self.rules, here, self.simulations, self.random)[0].argmax()
        return chosen

    def play(self, actions: np.ndarray) -> None:
        pass


def opening(rules: Go, seed: int) -> list[int]:
    """Four random moves, none on the edge and none beside another, on boards of side 5 or more."""
    rng, chosen = np.random.default_rng(seed), []
    while len(chosen) < OPENING:
        inner = [divmod(a, rules.size) for a in range(rules.size**2)]
        inner = [(r, c) for r, c in inner if 0 < r < rules.size - 1 and 0 < c < rules.size - 1]
        chosen = []
        while inner and len(chosen) < OPENING:
            r, c = inner[rng.integers(len(inner))]
            chosen.append(r * rules.size + c)
            inner = [(s, d) for s, d in inner if abs(r - s) + abs(c - d) > 1]
    return chosen


def match(rules: Go, one: Player, other: Player, games: int, seed: int = 0) -> float:
    """Games won by `one`, draws ½, as the boards stand at their ends; in pairs from one opening, once with each colour.

    A game is over after two passes, or at the most moves of the rules.
    """
    begin = np.array([opening(rules, seed + g // 2) for g in range(games)])
    positions = rules.start(games)
    for t in range(OPENING):
        rules.play(positions, begin[:, t])
    first = np.arange(games) % 2 == 0
    for player in (one, other):
        player.begin(rules, positions)
    while not (over := rules.over(positions)).all():
        ours = first == (positions.rows[:, go.TURN] == go.BLACK)
        actions = np.zeros(games, np.int64)
        for player, mine in ((one, ours & ~over), (other, ~ours & ~over)):
            if mine.any():
                actions[mine] = player.choose(positions, mine)[mine]
        rules.play(positions, actions)
        for player in (one, other):
            player.play(actions)
    black = np.sign(rules.score(positions))
    return float((0.5 + 0.5 * np.where(first, black, -black)).sum())
