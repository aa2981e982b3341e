"""Network search on 9×9 against mctx with pgx or TamaGo, in turn, on one thread; and what of it is not the network.

    OMP_NUM_THREADS=1 python benchmarks/go_puct.py --mctx PYTHON [--rounds 3]
    OMP_NUM_THREADS=1 python benchmarks/go_puct.py --tamago PYTHON CHECKOUT [--rounds 3]

PYTHON is that of a virtual environment with the peer. Either side searches from the empty board. Beside mctx, some
trees side by side, with a residual network of 4 blocks of 64 channels: ours on the 18 small planes, and beside the
ratio on AlphaGo's 49 with ladders read to their end; theirs on pgx's 17. Beside TamaGo one tree and its network of 6
blocks of 64 channels, on its 6 planes, with leaves evaluated one by one, which is what it does unless told, and some
together. Float32, ours also in bfloat16 where it pays. Printed are simulations per CPU-second, medians, and the ratio
of the same round. The share outside the network is measured by the same search with one that answers at once: tree,
rules, planes and their conversion. Lines go to results/benchmarks/.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

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
TAMAGO_SIMULATIONS, TAMAGO_BATCHES = 400, (1, 8, 32)


class Instant(nn.Module):
    """Answers at once what a network said of the position before: priors that look like a network's."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.said: dict[int, tuple[Tensor, Tensor]] = {}
        self.like = nn.Parameter(like, requires_grad=False)  # its type is what planes are converted to

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        if len(planes) not in self.said:
            self.said[len(planes)] = self.like.float().repeat(len(planes), 1), torch.zeros(len(planes))
        return self.said[len(planes)]


def ours(net: nn.Module, count: int, trees: int, batch: int, repeats: int, simulations: int = SIMULATIONS) -> float:
    """CPU-seconds of searches from the empty board."""
    rules, judge = Go(9), Judge(net, 9, count=count)
    begin = time.process_time()
    for _ in range(repeats):
        Forest(rules, rules.start(trees), Search(simulations, batch=batch), judge).run()
    return time.process_time() - begin


def theirs(command: list[str]) -> dict[str, Any]:
    """What a peer's script printed: seconds and versions."""
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def note(line: dict[str, Any]) -> None:
    """Print a line of results in short and write it."""
    medians = {name: round(float(np.median(found))) for name, found in line["per_cpu_second"].items() if found}
    print(f"{line['trees']} trees × {line['batch']}: {medians}\n   ratio {line['ratio']}")
    print(f"   outside {line['share_outside_network']}", flush=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with open(OUT, "a") as results:
        results.write(json.dumps(line | provenance()) + "\n")


def compare(
    nets: dict[str, tuple[nn.Module, int]],
    work: dict[str, int],
    rounds: int,
    repeats: int,
    peer: str | None,
    command: list[str],
) -> None:
    """Search in turn and write a line: nets by name with their planes, work as `trees`, `batch`, `simulations`."""
    like = torch.randn(82)
    instant = {name: Instant(like.to(next(net.parameters()).dtype)) for name, (net, _) in nets.items()}
    trees, batch, simulations = work["trees"], work["batch"], work["simulations"]
    rates: dict[str, list[float]] = {name: [] for name in nets} | ({peer: []} if peer else {})
    outside: dict[str, list[float]] = {name: [] for name in nets}
    versions: dict[str, str] = {}
    for net, planes in nets.values():
        ours(net, planes, trees, batch, 1, simulations)
    for _ in range(rounds):
        for name, (net, planes) in nets.items():
            seconds = ours(net, planes, trees, batch, repeats, simulations)
            rates[name].append(trees * simulations * repeats / seconds)
            outside[name].append(ours(instant[name], planes, trees, batch, repeats, simulations) / seconds)
        if peer:
            fewer = max(1, repeats // 2)
            versions = theirs([*command, str(fewer)])
            rates[peer].append(trees * simulations * fewer / versions.pop("seconds"))
    note(
        {"benchmark": "go_puct", **work, "per_cpu_second": rates}
        | {"share_outside_network": {name: statistics.median(found) for name, found in outside.items()}}
        | {
            "ratio": {
                name: statistics.median(a / b for a, b in zip(rates[name], rates[peer], strict=True)) for name in nets
            }
            if peer
            else {}
        }
        | versions
    )


def main() -> None:
    """Measure and write lines of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mctx", metavar="PYTHON", help="of a virtual environment with mctx and pgx; none: no peer")
    parser.add_argument("--tamago", nargs=2, metavar=("PYTHON", "CHECKOUT"), help="of TamaGo, instead of mctx")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    types = [False, True] if multiplies_bf16(torch.device("cpu")) else [False]

    def nets(blocks: int, counts: tuple[int, ...]) -> dict[str, tuple[nn.Module, int]]:
        return {
            f"{count} planes, {'bfloat16' if bf16 else 'float32'}": (
                frozen(make_net(9, blocks, 64, count=count), bf16),
                count,
            )
            for count in counts
            for bf16 in types
        }

    peers = ROOT / "peers"
    if arguments.tamago:
        python, checkout = arguments.tamago
        for batch in TAMAGO_BATCHES:
            work = {"trees": 1, "batch": batch, "simulations": TAMAGO_SIMULATIONS}
            command = [python, str(peers / "tamago_go.py"), checkout, str(TAMAGO_SIMULATIONS), str(batch)]
            compare(nets(6, (SMALL,)), work, arguments.rounds, 8, "TamaGo", command)
        return
    for trees, batch in WORK:
        work = {"trees": trees, "batch": batch, "simulations": SIMULATIONS}
        command = [arguments.mctx, str(peers / "mctx_go.py"), str(trees), str(SIMULATIONS)]
        peer = "mctx" if arguments.mctx else None
        compare(nets(4, (SMALL, PLANES)), work, arguments.rounds, max(1, 64 // trees), peer, command)


if __name__ == "__main__":
    main()
