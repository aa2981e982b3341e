"""Games of Go that need no download: UCT with random games plays itself."""

import numpy as np

from volition.data.go_games import HOW, Games
from volition.data.go_record import COUNTED
from volition.envs.go_game import Go
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
    keys = np.array([hash(tuple(moves)) & (2**64 - 1) for moves in played], np.uint64)
    ranks = np.zeros(count, np.int8)
    return Games(
        size=rules.size,
        moves=np.concatenate([np.array(moves, np.uint16) for moves in played]),
        start=np.concatenate([[0], np.cumsum([len(moves) for moves in played])]),
        first=np.ones(count, np.int8),
        winner=winner,
        how=np.full(count, HOW.index(COUNTED), np.uint8),
        komi=np.full(count, rules.komi, np.float32),
        handicap=np.zeros(count, np.uint8),
        black_rank=ranks,
        white_rank=ranks,
        setup=np.zeros(0, np.uint16),
        key=keys,
        sources=(),
        skipped={},
    )
