"""One position of each game, or whole games? What Silver et al. (2016) say of the value network's lessons, measured.

python benchmarks/go_value.py --run RUN --updates 800

From the games that a run of alphago played (stage 4) value networks learn, each from the weights of stage 1 and with as
many updates: from one position of each game; from all positions of these games; from all positions of so few of them
that there are as many positions as in the first. All are measured on one position of each game kept aside.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from volition import machine
from volition.applications import alphago
from volition.applications._go_lessons import OwnGames, value_error
from volition.applications._go_net import Judge, frozen
from volition.envs.go_replay import Moves
from volition.run import Run
from volition.stage import Stage

MOST = 10_000  # positions to measure on


def error(net: torch.nn.Module, moves: Moves, size: int) -> dict[str, float]:
    """The network's mean squared error and the best constant's."""
    judge, index = Judge(frozen(net), size, seed=None), np.arange(len(moves))
    index = np.random.default_rng(0).permutation(index)[:MOST]
    values = np.concatenate(
        [judge(moves.positions(part)[0])[1] for part in np.array_split(index, len(index) // 1_000 + 1)]
    )
    return value_error(values, moves.outcome(index))


def main() -> None:
    """Train three networks and write a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of alphago")
    parser.add_argument("--updates", type=int, default=800)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/go_value.jsonl"))
    args = parser.parse_args()
    run = Run.open(args.run, alphago.Config)
    config = replace(run.config, value=replace(run.config.value, updates=args.updates, policy=0.0))
    own = OwnGames(config.rules)
    Stage(run, "games", 0).track(games=own)
    sigma = alphago.trained(run, "supervised")
    one, test = own.positions(config.value.held)
    whole, _ = own.positions(config.value.held, whole=True)
    few = whole.take(np.flatnonzero(whole.game < np.searchsorted(np.cumsum(np.bincount(whole.game)), len(one))))
    for name, moves in {"one position a game": one, "whole games": whole, "as many, whole games": few}.items():
        memory = Run(seed=run.seed)
        with memory:
            net = alphago.learn_value(config, Stage(memory, "value", 0), sigma, None, moves)
        line = {
            "benchmark": "go_value",
            "lessons": name,
            "games": len(np.unique(moves.game)),
            "positions": len(moves),
            "updates": args.updates,
            "train": error(net, moves, config.size),
            "test": error(net, test, config.size),
            "stage_1_test": error(sigma, test, config.size),
            "trained": {"commit": (run.trained_by or {}).get("commit"), "seed": run.seed},
            **machine.provenance(),
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with args.out.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(name, line["games"], line["positions"], line["train"], line["test"], flush=True)


if __name__ == "__main__":
    main()
