"""Games of sudden death over GTP: how many does our engine lose on time, by the referee's own clock?

python benchmarks/go_clock.py --games 200 --seconds 10                the network that ships, against itself
python benchmarks/go_clock.py --opponent gnugo --level 1 …            against GNU Go, whose time is not counted
python benchmarks/go_clock.py --run RUN …                             with a trained network
python benchmarks/go_clock.py --uct --size 19 …                       without one, on any board
python benchmarks/go_clock.py --silent …                              settings are told, the time left never
python benchmarks/go_clock.py --busy 4 …                              beside four processes that do nothing but compute
python benchmarks/go_clock.py --seconds 2 --overtime 3 --stones 5 …   main time, then 3 seconds for each five moves

Each side is a process of its own, `volition play go --gtp`. Its clock runs from the moment at which the referee writes
`genmove` until the answer is read. A game ends by two passes, resignation, 3N² moves, or a clock below 0.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from volition import machine

COLOURS = ("black", "white")


class Program:
    """A program behind GTP, with a clock or without."""

    def __init__(self, command: list[str], timed: bool) -> None:
        self.timed = timed
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command: str) -> str:
        """The answer to a command."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()).strip() or not lines:
            if not line:
                raise RuntimeError(f"a program ended at {command!r}")
            lines.append(line.strip())
        if not lines[0].startswith("="):
            raise RuntimeError(f"{command}: {lines}")
        return "\n".join(lines)[1:].strip()


class Watch:
    """The referee's clock of one side: main time, then `overtime` seconds for each `stones` moves."""

    def __init__(self, seconds: float, overtime: float, stones: int) -> None:
        self.left, self.overtime, self.stones, self.moves = seconds, overtime, stones, 0
        self.least = seconds

    def took(self, seconds: float) -> bool:
        """Count a move; False if it came too late."""
        self.left -= seconds
        if self.left < 0 and self.moves == 0 and self.stones:  # overtime begins
            self.left, self.moves = self.left + self.overtime, self.stones
        self.least = min(self.least, self.left)
        if self.left < 0:
            return False
        if self.moves:
            self.moves -= 1
            if self.moves == 0:
                self.left, self.moves = self.overtime, self.stones
        return True


def one_game(sides: tuple[Program, Program], args: argparse.Namespace) -> tuple[str, list[Watch], int]:
    """How a game ended ("black on time", "passes", …), both clocks, and its moves."""
    watches = [Watch(args.seconds if side.timed else math.inf, args.overtime, args.stones) for side in sides]
    for side in sides:
        side.ask("clear_board")
        if side.timed:
            side.ask(f"time_settings {args.seconds:g} {args.overtime:g} {args.stones}")
    passes, most = 0, 3 * args.size**2
    for move in range(most):
        turn = move % 2
        watch = watches[turn]
        if sides[turn].timed and not args.silent:
            for side in sides:
                if side.timed:
                    side.ask(f"time_left {COLOURS[turn]} {watch.left:.2f} {watch.moves}")
        begun = time.perf_counter()
        said = sides[turn].ask(f"genmove {COLOURS[turn]}")
        if not watch.took(time.perf_counter() - begun):
            return f"{COLOURS[turn]} on time", watches, move + 1
        if said.lower() == "resign":
            return "resigned", watches, move + 1
        passes = passes + 1 if said.lower() == "pass" else 0
        if passes == 2:
            return "passes", watches, move + 1
        sides[1 - turn].ask(f"play {COLOURS[turn]} {said}")
    return "moves", watches, most


def main() -> None:
    """Play and write one line of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0, help="main time of each side")
    parser.add_argument("--overtime", type=float, default=0.0, help="seconds of a period of Canadian overtime")
    parser.add_argument("--stones", type=int, default=0, help="moves of a period")
    parser.add_argument("--size", type=int, default=9)
    parser.add_argument("--opponent", choices=["self", "gnugo"], default="self")
    parser.add_argument("--level", type=int, default=1, help="of GNU Go")
    parser.add_argument("--run", type=Path, help="run folder of alphago; else the network that ships")
    parser.add_argument("--uct", action="store_true", help="no network: random games")
    parser.add_argument("--seed", type=int, default=0, help="of the players' random numbers")
    parser.add_argument("--silent", action="store_true", help="never send time_left")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside the games")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/go_clock.jsonl"))
    args = parser.parse_args()

    ours = [sys.executable, "-m", "volition", "play", "go", "--gtp", "--size", str(args.size)]
    ours += ["--run", str(args.run)] if args.run else ["--uct"] if args.uct else []
    gnugo = [
        shutil.which("gnugo") or "/usr/games/gnugo",
        "--mode",
        "gtp",
        "--chinese-rules",
        "--level",
        str(args.level),
    ]
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy)]
    me = Program([*ours, "--seed", str(2 * args.seed)], True)
    foe = Program([*ours, "--seed", str(2 * args.seed + 1)], True) if args.opponent == "self" else Program(gnugo, False)
    ends, lost, least, moves = [], 0, [], []
    try:
        for side in (me, foe):
            side.ask(f"boardsize {args.size}")
            side.ask("komi 7")
        for g in range(args.games):
            sides = (me, foe) if g % 2 == 0 else (foe, me)
            end, watches, length = one_game(sides, args)
            counted = [i for i in (0, 1) if args.opponent == "self" or sides[i] is me]
            lost += any(end == f"{COLOURS[i]} on time" for i in counted)
            least += [watches[i].least for i in counted]
            ends.append("time" if end.endswith("time") else end)
            moves.append(length)
            print(
                g + 1,
                end,
                length,
                [round(watch.left, 2) for watch in watches if watch.left < math.inf],
                "lost on time:",
                lost,
                flush=True,
            )
        for side in (me, foe):
            side.ask("quit")
    finally:
        for process in others:
            process.kill()
    line = {
        "benchmark": "go_clock",
        "player": "network" if args.run else "UCT" if args.uct else "the network that ships",
        "opponent": f"GNU Go 3.8 level {args.level}" if args.opponent == "gnugo" else "self",
        "size": args.size,
        "seed": args.seed,
        "clock": {"seconds": args.seconds, "overtime": args.overtime, "stones": args.stones, "told": not args.silent},
        "games": args.games,
        "clocks": len(least),
        "lost_on_time": lost,
        "least_seconds_left": min(least),
        "mean_of_least": float(np.mean(least)),
        "moves": float(np.mean(moves)),
        "ends": {end: ends.count(end) for end in sorted(set(ends))},
        "busy": args.busy,
        "load": os.getloadavg()[0],
        **machine.provenance(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
