"""Games of self-play on 9×9 per CPU-hour of one core, and how much faster several processes play the same games.

    OMP_NUM_THREADS=1 python benchmarks/go_selfplay.py [--workers 2] [--rounds 3]

Two kinds: policy against policy with the network that ships, its moves drawn (alphago's stages 3 and 4), in lots of 64
games; and alphazero's games with an untrained network of that size, 16 simulations a move with Gumbel's root, 16 games
side by side. Lines go to results/benchmarks/.
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from volition.applications import alphazero
from volition.applications._actors import actors
from volition.applications._go_lots import LOT, Table, both, duels
from volition.applications._go_net import shipped
from volition.envs.go_game import Go
from volition.machine import provenance

OUT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "go_selfplay.jsonl"
SEARCHED, SIMULATIONS = 16, 16  # games of search side by side, and simulations of a move


def main() -> None:
    """Measure and write lines of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, settings = shipped()
    size = {name: settings[name] for name in ("size", "blocks", "channels", "layers")}
    table = Table(Go(9, settings["komi"]), size, True, "cpu", LOT)
    config = alphazero.Config(
        game="go",
        size=9,
        simulations=SIMULATIONS,
        considered=16,
        blocks=size["blocks"],
        channels=size["channels"],
        together=SEARCHED,
    )
    untrained = alphazero.Net(config.board, config.blocks, config.channels)
    kinds: dict[str, tuple[Any, dict[str, torch.Tensor], int]] = {
        "policy against policy": (partial(duels, table, 1.0), both(net, net), LOT),
        f"search with {config.simulations} simulations": (
            partial(alphazero.games_of, config, "cpu"),
            untrained.state_dict(),
            SEARCHED,
        ),
    }
    for name, (play, weights, games) in kinds.items():
        play(weights, 0)
        hour, alone, together = [], [], []
        with actors(play, arguments.workers) as played:
            played(weights, list(range(arguments.workers)))  # they compile, or read what was compiled
            for seed in range(arguments.rounds):
                lots = [1000 * seed + k for k in range(arguments.workers)]
                begin, cpu = time.perf_counter(), time.process_time()
                for lot in lots:
                    play(weights, lot)
                hour.append(3600 * games * len(lots) / (time.process_time() - cpu))
                alone.append(time.perf_counter() - begin)
                begin = time.perf_counter()
                played(weights, lots)
                together.append(time.perf_counter() - begin)
        line = {
            "benchmark": "go_selfplay",
            "games": name,
            "network": f"{size['blocks']} blocks of {size['channels']}",
            "games_per_cpu_hour": hour,
            "workers": arguments.workers,
            "times_faster": statistics.median(a / b for a, b in zip(alone, together, strict=True)),
        }
        faster = f"{arguments.workers} processes {line['times_faster']:.2f} times as fast as this one"
        print(f"{name}: {statistics.median(hour):.0f} games a CPU-hour; {faster}", flush=True)
        OUT.parent.mkdir(parents=True, exist_ok=True)
        with open(OUT, "a") as results:
            results.write(json.dumps(line | provenance()) + "\n")


if __name__ == "__main__":
    main()
