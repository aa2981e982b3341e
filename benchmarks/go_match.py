"""Games of our players against GNU Go or Pachi over GTP: wins with a 95 % interval, both colours, by two counts.

python benchmarks/go_match.py --simulations 400 --level 10 --games 100              the network that ships
python benchmarks/go_match.py --run RUN …                                           a trained network with its search
python benchmarks/go_match.py --simulations 0 …                                     the policy alone
python benchmarks/go_match.py --uct 5000 …                                          UCT with random games
python benchmarks/go_match.py --opponent PATH/pachi --playouts 1000 …               against Pachi

GNU Go 3.8 (Debian's package gnugo) and Pachi (no package: Debian's `pachi` is another game) play by area and positional
superko; Pachi on one thread without network or opening book. Each pair of games begins with the same four random moves,
once with either colour. A game ends after two passes, when one resigns, or at 3N² moves; it is counted by the opponent,
which takes dead stones off, and as the board stands (Tromp–Taylor). The first is the result.
"""

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np

from volition import machine
from volition.applications import alphago
from volition.applications._go_match import OPENING, opening
from volition.applications._go_net import Judge, frozen, shipped
from volition.applications._go_player import Player
from volition.core.ratings import agresti_coull
from volition.core.search import Search
from volition.envs import go
from volition.envs.go_game import Go
from volition.gtp import action_of, vertex
from volition.run import Run


def gnugo(level: int, seed: int) -> list[str]:
    """The command that starts GNU Go."""
    program = shutil.which("gnugo") or "/usr/games/gnugo"
    return [program, *f"--mode gtp --level {level} --chinese-rules --positional-superko --seed {seed}".split()]


def pachi(program: str, playouts: int, seed: int) -> list[str]:
    """The command that starts Pachi; playouts are those of a move, kept subtrees included."""
    return [program, *f"-d 0 -s {seed} -r chinese --nodcnn -f {os.devnull} -t ={playouts} threads=1".split()]


class Opponent:
    """A program that speaks GTP, as a subprocess."""

    def __init__(self, rules: Go, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for said in (f"boardsize {rules.size}", "clear_board", f"komi {rules.komi}"):
            self.ask(said)

    def ask(self, command: str) -> str:
        """The answer to a command."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()).strip() or not lines:
            lines.append(line.strip())
        if not lines[0].startswith("="):
            raise RuntimeError(f"{command}: {lines}")
        return "\n".join(lines)[1:].strip()

    def quit(self) -> float:
        """End it; the CPU-seconds that it took."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.ask("quit")
        self.process.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_game(player: Player, rules: Go, foe: Opponent, seed: int, colour: int, policy: bool) -> dict[str, float]:
    """A game in which we have a colour: points for us by either count, moves, and CPU-seconds a move of each side."""
    names = {go.BLACK: "b", go.WHITE: "w"}
    player.clear(rules)
    begin, mine, theirs, spent, turn, resigned = opening(rules, seed // 2), 0, 0, 0.0, go.BLACK, 0
    while not rules.over(player.positions)[0]:
        if len(player.played) < OPENING:
            start = begin[len(player.played)]
            foe.ask(f"play {names[turn]} {vertex(start, rules.size)}")
            action: int | None = start
        elif turn == colour:
            t = time.process_time()
            action = best_of_policy(player) if policy else player.choose(turn)
            spent, mine = spent + time.process_time() - t, mine + 1
            if action is not None:
                foe.ask(f"play {names[turn]} {vertex(action, rules.size)}")
        else:
            said = foe.ask(f"genmove {names[turn]}")
            theirs += 1
            action = None if said.lower() == "resign" else action_of(said, rules.size)
        if action is None:
            resigned = turn
            break
        player.play(turn, action)
        turn = 3 - turn
    sign = 1 if colour == go.BLACK else -1
    board = sign * player.score()
    if resigned:
        counted = -math.inf if resigned == colour else math.inf
    else:
        said = foe.ask("final_score")
        counted = 0.0 if said == "0" else sign * (1 if said[0] == "B" else -1) * float(said[2:])
    return {
        "counted": counted,
        "board": board,
        "moves": len(player.played),
        "seconds": spent / max(mine, 1),
        "opponents_seconds": foe.quit() / max(theirs, 1),
        "ended": not resigned,
    }


def best_of_policy(player: Player) -> int:
    """The most probable legal move; a pass only where it is that."""
    assert player.evaluate is not None
    logits, _ = player.evaluate(player.positions)
    return int(np.where(player.legal(player.turn), logits[0], -np.inf).argmax())


def main() -> None:
    """Play and write one line of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run folder of alphago; else the network that ships")
    parser.add_argument(
        "--stage", default="", choices=["supervised", "reinforce", "value"], help="whose network (default: the last)"
    )
    parser.add_argument("--simulations", type=int, default=800, help="per move; 0 is the policy alone")
    parser.add_argument("--seconds", type=float, default=math.inf, help="most seconds a move")
    parser.add_argument("--uct", type=int, default=0, help="simulations of UCT instead of a network")
    parser.add_argument("--opponent", default="gnugo", help="gnugo, or the path of a Pachi")
    parser.add_argument("--level", type=int, default=10, help="of GNU Go")
    parser.add_argument("--playouts", type=int, default=1000, help="of Pachi per move")
    parser.add_argument("--games", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no pair of games begins after these")
    parser.add_argument("--komi", type=float, default=7.0)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/go_match.jsonl"))
    args = parser.parse_args()
    if args.uct:
        rules, evaluate, search, name = Go(9, args.komi), None, Search(simulations=args.uct), f"uct {args.uct}"
        stage = None
    else:
        if args.run:
            run = Run.open(args.run, alphago.Config)
            stage = args.stage or run.config.searched
            net, size = alphago.trained(run, stage), run.config.size
        else:
            net, settings = shipped()
            stage, size = "value", settings["size"]
        rules = Go(size, args.komi)
        evaluate = Judge(frozen(net), size)
        search = Search(simulations=max(args.simulations, 1))
        name = f"network {args.simulations}" if args.simulations else "policy"
    player = Player(rules, evaluate, search=search, seconds=args.seconds)
    against, command = f"GNU Go 3.8 level {args.level}", partial(gnugo, args.level)
    if args.opponent != "gnugo":
        command = partial(pachi, args.opponent, args.playouts)
        probe = Opponent(rules, command(0))
        against = f"Pachi {probe.ask('version')}, {args.playouts} playouts"
        probe.quit()
    games, won, until = [], 0.0, time.monotonic() + 60 * args.minutes
    for g in range(args.games):
        if g % 2 == 0 and time.monotonic() > until:
            break
        colour = go.BLACK if g % 2 == 0 else go.WHITE
        games.append(one_game(player, rules, Opponent(rules, command(1000 + g)), 1000 + g, colour, name == "policy"))
        won = sum(1.0 if game["counted"] > 0 else 0.5 if game["counted"] == 0 else 0.0 for game in games)
        print(g + 1, won, games[-1], flush=True)
    low, high = agresti_coull(won, len(games))
    line = {
        "benchmark": "go_match",
        "player": name,
        "stage": stage,
        "size": rules.size,
        "opponent": against,
        "komi": args.komi,
        "games": len(games),
        "wins": won,
        "percent": 100 * won / len(games),
        "interval": [low, high],
        "wins_as_board_stands": sum(game["board"] > 0 for game in games),
        "counts_disagree": sum(
            bool(np.sign(game["counted"]) != np.sign(game["board"])) for game in games if game["ended"]
        ),
        "resigned": sum(not game["ended"] for game in games),
        "cpu_seconds_a_move": float(np.median([game["seconds"] for game in games])),
        "opponents_cpu_seconds_a_move": float(np.median([game["opponents_seconds"] for game in games])),
        "moves": float(np.mean([game["moves"] for game in games])),
        **machine.provenance(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
