"""Players of Go for matches, and how their games begin."""

import numpy as np

from volition.core.game import Positions
from volition.envs.go_game import Go
from volition.envs.go_selfplay import Policy, open_moves, sample
from volition.envs.go_uct import uct

OPENING = 4  # random moves that both games of a pair begin with


class Imitator:
    """Plays by a policy alone: its most probable move, or at a temperature."""

    def __init__(self, policy: Policy, temperature: float = 0.0, seed: int = 0) -> None:
        self.policy, self.temperature, self.rng = policy, temperature, np.random.default_rng(seed)

    def begin(self, game: Go, positions: Positions) -> None:
        self.rules = game

    def choose(self, positions: Positions, mine: np.ndarray) -> np.ndarray:
        chosen, here = np.zeros(len(mine), np.int64), positions.take(mine)
        mask = open_moves(self.rules, here)
        chosen[mine] = sample(self.policy(here), mask, self.temperature, self.rng)
        return chosen

    def play(self, actions: np.ndarray) -> None:
        pass


class Uct:
    """UCT with random games, which needs no learning."""

    def __init__(self, simulations: int, seed: int = 0) -> None:
        self.simulations, self.random = simulations, np.array([2 * seed + 1], np.uint64)

    def begin(self, game: Go, positions: Positions) -> None:
        self.rules = game

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


def pairs(rules: Go, games: int, seed: int = 0) -> np.ndarray:
    """Openings `[G, 4]` of a match, each for two games, one with either colour."""
    return np.array([opening(rules, seed + g // 2) for g in range(games)])
