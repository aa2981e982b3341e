"""Microseconds per Go position for the input planes, and per move of the rollout policy, on one core.

    python benchmarks/go_features.py

Positions are of random games, each stopped at a random move; the rollout policy has random weights and plays whole
games from the empty board. CPU time of each round. There is no peer: what stands beside them is a random move.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_patterns import WEIGHTS
from volition.envs.go_planes import planes, small_planes
from volition.envs.go_rollout import PolicyGames, RolloutPolicy, play_out
from volition.machine import commit, machine, versions


def some_positions(rules: Go, count: int) -> Positions:
    """Positions of random games."""
    rng, random = np.random.default_rng(0), np.array([1], np.uint64)
    positions = rules.start(count)
    for row in positions.rows:
        go.random_game(row, random, int(rng.integers(1, rules.size**2)))
    return positions


def microseconds(work: Callable[[], int], rounds: int) -> list[float]:
    """CPU time of one of the things that `work` does and counts, in each round."""
    work()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        done = work()
        times.append(round((time.process_time() - start) / done * 1e6, 2))
    return times


def measure(size: int, rounds: int) -> dict[str, list[float]]:
    """All times on one size of board."""
    rules = Go(size)
    positions, empty = some_positions(rules, 1000), rules.start(50)
    out = np.empty((1000, 48, size, size), np.uint8)
    small = np.empty((1000, 18, size, size), np.uint8)
    weights = np.random.default_rng(0).standard_normal(WEIGHTS) * 0.3
    games = PolicyGames(rules, RolloutPolicy(weights.astype(np.float32)))
    results = np.empty(50, np.float32)

    def policy_moves() -> int:
        rows = empty.rows.copy()
        play_out(rows, *games.factors, games.random, rules.moves, rules.komi, results)
        return int(rows[:, go.MOVES].sum())

    def random_moves() -> int:
        rows = empty.rows.copy()
        for row in rows:
            go.random_game(row, games.random, rules.moves)
        return int(rows[:, go.MOVES].sum())

    work: dict[str, Callable[[], int]] = {
        "48 planes without ladders, a position": lambda: len(planes(positions, ladders=False, out=out)),
        "48 planes, a position": lambda: len(planes(positions, out=out)),
        "18 planes, a position": lambda: len(small_planes(positions, out=small)),
        "rollout policy, a move": policy_moves,
        "random game, a move": random_moves,
    }
    return {name: microseconds(do, rounds) for name, do in work.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/go_features.jsonl"))
    arguments = parser.parse_args()
    for size in (9, 19):
        times = measure(size, arguments.rounds)
        for name, values in times.items():
            print(f"{size}x{size}  {name:40s} {statistics.median(values):7.2f} µs")
        line = {
            "benchmark": "go_features", "size": size, "threads": 1, "rounds": arguments.rounds,
            "cpu_microseconds": times, "commit": commit(), "versions": versions(), "machine": machine(),
        }  # fmt: skip
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with open(arguments.out, "a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
