"""Network search on 9×9 against mctx with pgx, in turn, on one thread; and what of its time is not the network.

    OMP_NUM_THREADS=1 python benchmarks/go_puct.py --peer PYTHON [--rounds 3]

PYTHON is that of a virtual environment with mctx, pgx and jax. Either side searches from the empty board, some trees
side by side, with a residual network of 4 blocks of 64 channels: ours on the 18 small planes, and beside the ratio on
AlphaGo's 49 with ladders read to their end; theirs on pgx's 17; float32, ours also in bfloat16 where it pays.
Printed are simulations per CPU-second, medians, and the ratio of the same round. The share outside the network is
measured by the same search with one that answers at once: tree, rules, planes and their conversion. Lines go to
results/benchmarks/.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from volition.applications._go_net import PLANES, Judge, frozen, make_net
from volition.core.search import Forest, Search
from volition.envs.go_game import Go
from volition.envs.go_planes import SMALL
from volition.machine import multiplies_bf16, provenance

ROOT = Path(__file__).resolve().parent
OUT = ROOT.parent / "results" / "benchmarks" / "go_puct.jsonl"
SIMULATIONS = 64
# trees side by side, descents of each before their leaves are evaluated together
WORK = ((1, 8), (1, 32), (16, 4), (64, 1))


class Instant(nn.Module):
    """Answers at once what a network said of the position before: priors that look like a network's."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.like = nn.Parameter(like, requires_grad=False)  # its type is what planes are converted to

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        return self.like.float().expand(len(planes), -1).clone(), torch.zeros(len(planes))


def ours(net: nn.Module, count: int, trees: int, batch: int, repeats: int) -> float:
    """CPU-seconds of searches from the empty board."""
    rules, judge = Go(9), Judge(net, 9, count=count)
    begin = time.process_time()
    for _ in range(repeats):
        Forest(rules, rules.start(trees), Search(SIMULATIONS, batch=batch), judge).run()
    return time.process_time() - begin


def main() -> None:
    """Measure and write lines of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON", help="of a virtual environment with mctx and pgx; none: no peer")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    types = [False, True] if multiplies_bf16(torch.device("cpu")) else [False]
    nets = {
        f"{count} planes, {'bfloat16' if bf16 else 'float32'}": (frozen(make_net(9, 4, 64, count=count), bf16), count)
        for count in (SMALL, PLANES)
        for bf16 in types
    }
    like = torch.randn(82)
    instant = {name: Instant(like.to(next(net.parameters()).dtype)) for name, (net, _) in nets.items()}
    for trees, batch in WORK:
        repeats = max(1, 64 // trees)
        count = trees * SIMULATIONS * repeats
        rates: dict[str, list[float]] = {name: [] for name in (*nets, "mctx")}
        outside: dict[str, list[float]] = {name: [] for name in nets}
        versions: dict[str, str] = {}
        for net, planes in nets.values():
            ours(net, planes, trees, batch, 1)
        for _ in range(arguments.rounds):
            for name, (net, planes) in nets.items():
                seconds = ours(net, planes, trees, batch, repeats)
                rates[name].append(count / seconds)
                outside[name].append(ours(instant[name], planes, trees, batch, repeats) / seconds)
            if arguments.peer:
                command = [arguments.peer, str(ROOT / "peers" / "mctx_go.py"), str(trees), str(SIMULATIONS)]
                command.append(str(max(1, repeats // 2)))
                said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                rates["mctx"].append(trees * SIMULATIONS * max(1, repeats // 2) / said.pop("seconds"))
                versions = said
        line = {
            "benchmark": "go_puct",
            "trees": trees,
            "batch": batch,
            "simulations": SIMULATIONS,
            "per_cpu_second": rates,
            "share_outside_network": {name: statistics.median(found) for name, found in outside.items()},
            "ratio": {
                name: statistics.median(a / b for a, b in zip(rates[name], rates["mctx"], strict=True))
                for name in (nets if rates["mctx"] else ())
            },
            **versions,
        }
        medians = {name: round(float(np.median(found))) for name, found in rates.items() if found}
        print(
            f"{trees} trees × {batch}: {medians}\n   ratio {line['ratio']}\n   outside {line['share_outside_network']}"
        )
        OUT.parent.mkdir(parents=True, exist_ok=True)
        with open(OUT, "a") as results:
            results.write(json.dumps(line | provenance()) + "\n")


if __name__ == "__main__":
    main()
