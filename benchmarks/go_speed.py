"""Speed of random games of Go and of UCT with them against OpenSpiel's C++ and Pachi, in turn, on one thread.

    python benchmarks/go_speed.py --peer PYTHON [--pachi PROGRAM] [--rounds 5]

PYTHON is that of a virtual environment with open_spiel. Random games go from the empty board to two passes; ours fill
no own eyes, OpenSpiel's, called move by move from Python, fill them. UCT runs from the empty board with one random game
per simulation, on either side wholly compiled. Pachi's games follow rules of thumb: they cost more than random ones and
are worth more. Printed are medians per CPU-second and of the ratios of the same round. Lines go to results/benchmarks/.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np

from volition.envs.go_game import Go
from volition.envs.go_uct import RandomGames, uct
from volition.machine import provenance

ROOT = Path(__file__).resolve().parent
OUT = ROOT.parent / "results" / "benchmarks" / "go_speed.jsonl"
# what, board, how many for us and for the peer: about a second each
WORK = (
    ("playouts", 9, 50_000, 4_000), ("playouts", 19, 10_000, 300),
    ("uct", 9, 50_000, 8_000), ("uct", 19, 10_000, 600),
)  # fmt: skip


def ours(what: str, size: int, count: int) -> float:
    """CPU-seconds of our random games or simulations."""
    rules, random = Go(size, 7.5), np.array([7], np.uint64)
    if what == "playouts":
        start, judge = rules.start(count), RandomGames(rules)
        begin = time.process_time()
        judge(start)
    else:
        begin = time.process_time()
        uct(rules, rules.start(1), count, random)
    return time.process_time() - begin


def pachi(program: str, count: int) -> float:
    """CPU-seconds of Pachi's simulations on an empty 9×9, without those of its start."""
    command = [program, *f"-d 0 -s 7 -r chinese --nodcnn -f {os.devnull} -t ={count} threads=1".split()]
    begin, used = "boardsize 9\nclear_board\nkomi 7.5\n", []
    for said in (begin + "genmove b\nquit\n", begin + "quit\n"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, input=said, check=True, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return used[0] - used[1]


def main() -> None:
    """Measure and write lines of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, metavar="PYTHON")
    parser.add_argument("--pachi", metavar="PROGRAM", help="a Pachi to be timed beside UCT on 9×9")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for what, size, mine, theirs in WORK:
        ours(what, size, 10)  # compiled before it is timed
        rates: dict[str, list[float]] = {"Volition": [], "OpenSpiel": []}
        for _ in range(arguments.rounds):
            rates["Volition"].append(mine / ours(what, size, mine))
            command = [arguments.peer, str(ROOT / "peers" / "openspiel_go.py"), what, str(size), str(theirs)]
            said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rates["OpenSpiel"].append(theirs / said["seconds"])
            if arguments.pachi and (what, size) == ("uct", 9):
                rates.setdefault("Pachi", []).append(theirs / pachi(arguments.pachi, theirs))
        mine_rates = rates["Volition"]
        ratio = {
            peer: statistics.median(a / b for a, b in zip(mine_rates, found, strict=True))
            for peer, found in rates.items()
            if peer != "Volition"
        }
        medians = {name: round(statistics.median(found)) for name, found in rates.items()}
        print(f"{what} {size}x{size}, a CPU-second: {medians}; ratio {ratio}")
        line = {"benchmark": "go_speed", "what": what, "size": size, "ratio": ratio, "per_cpu_second": rates}
        with open(OUT, "a") as results:
            results.write(json.dumps(line | provenance()) + "\n")


if __name__ == "__main__":
    main()
