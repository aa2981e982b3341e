"""Games of Go that need no download: UCT with random games plays itself."""

import numpy as np

from volition.data.go_games import Games
from volition.envs.go_game import Go
from volition.envs.go_selfplay import record
from volition.envs.go_uct import uct

OPENING = 4  # moves drawn in proportion to visits, so that games differ


def uct_games(rules: Go, count: int, simulations: int, seed: int = 0) -> Games:
    """`count` games with so many simulations a move, played to their end and counted; players without a rank."""
    random, rng = np.array([2 * seed + 1], np.uint64), np.random.default_rng(seed)
    played: list[list[int]] = []
    winner = np.empty(count, np.int8)
    for g in range(count):
        positions, moves = rules.start(1), []
        while not rules.over(positions)[0]:
            visits, _ = uct(rules, positions, simulations, random)
            best = visits.argmax() if len(moves) >= OPENING else rng.choice(len(visits), p=visits / visits.sum())
            moves.append(int(best))
            rules.play(positions, np.array([best]))
        winner[g] = np.sign(rules.score(positions)[0])
        played.append(moves)
    length = np.array([len(moves) for moves in played])
    padded = np.zeros((count, length.max(initial=0)), np.uint16)
    for g, moves in enumerate(played):
        padded[g, : len(moves)] = moves
    return record(rules, padded, length, winner)
