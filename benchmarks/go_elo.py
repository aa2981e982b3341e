"""Elo ratings of our players of Go from a round robin, and what each part of AlphaGo's search is worth.

python benchmarks/go_elo.py --run RUN --simulations 64 --games 50

After the paper's extended data table 7: p is the policy p_σ for priors, v the value network, r rollouts of p_π;
searches without p take their priors from p_π. `policy` and `reinforced` play p_σ and p_ρ alone, their most probable
moves. All searches have as many simulations a move, not as much time. A pair of games begins with the same four random
moves, once with each colour; the boards are counted as they stand. Pairs that are in the file of results already, from
the same commit, are not played again.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from volition import machine
from volition.applications import alphago
from volition.applications._go_match import Imitator, Uct, pairs
from volition.applications._go_net import Judge, frozen
from volition.core.game import Positions
from volition.core.match import Player, Searcher, match
from volition.core.ratings import elo
from volition.core.search import Search
from volition.envs.go_rollout import PolicyGames, RolloutPolicy
from volition.envs.go_selfplay import any_move
from volition.run import Run

ANCHOR = "uct 1000"  # has 0
PARTS = ("pvr", "pv", "pr", "vr", "v", "r")


def fast_priors(policy: RolloutPolicy, positions: Positions) -> np.ndarray:
    """Logits of p_π, which gives no move nothing at all."""
    return np.log(policy.probabilities(positions) + 1e-4)


def players(run: Run, search: Search) -> dict[str, Player]:
    """All players by name."""
    size, bf16 = run.config.size, run.config.bf16
    policy = alphago.rollout_policy(run)
    nets = {stage: frozen(alphago.trained(run, stage), bf16) for stage in ("supervised", "reinforce", "value")}
    judge = Judge(nets["value"], size)

    def both(parts: str) -> Player:
        def evaluate(positions: Positions) -> tuple[np.ndarray, np.ndarray]:
            if parts == "r":
                return fast_priors(policy, positions), np.full(len(positions.rows), np.nan, np.float32)
            logits, value = judge(positions)
            return logits if "p" in parts else fast_priors(policy, positions), value

        lam = {"vr": 0.5, "v": 0.0, "r": 1.0, "": 0.0}[parts.replace("p", "")]
        return Searcher(replace(search, lam=lam), evaluate, (lambda rules: PolicyGames(rules, policy)) if lam else None)

    found: dict[str, Player] = {
        "random": Imitator(any_move, temperature=1.0),
        "rollout": Imitator(lambda positions: fast_priors(policy, positions), temperature=1.0),
        "uct 1000": Uct(1_000),
    }
    for name, stage in (("policy", "supervised"), ("reinforced", "reinforce")):
        alone = Judge(nets[stage], size)
        found[name] = Imitator(lambda positions, alone=alone: alone(positions)[0])
    return found | {f"{parts} {search.simulations}": both(parts) for parts in PARTS}


def main() -> None:
    """Play what is missing, write a line for each pair, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of alphago")
    parser.add_argument("--simulations", type=int, default=64)
    parser.add_argument("--games", type=int, default=50, help="of each pair")
    parser.add_argument("--only", nargs="*", help="names of players; all otherwise")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/go_elo.jsonl"))
    args = parser.parse_args()
    run = Run.open(args.run, alphago.Config)
    rules = run.config.rules
    all_players = players(run, Search(simulations=args.simulations))
    names = [name for name in all_players if not args.only or name in args.only]
    here = machine.provenance()
    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    known = {(a["one"], a["other"]): a for a in lines if a["commit"] == here["commit"] and a["games"] == args.games}
    points: Any = np.zeros((len(names), len(names)))
    meetings = [(i, j) for i in range(len(names)) for j in range(i)]
    # neighbours first: what is interrupted says something already
    for i, j in sorted(meetings, key=lambda pair: pair[0] - pair[1]):
        line = known.get((names[i], names[j]))
        if line is None:
            began = time.process_time()
            won = match(rules, all_players[names[i]], all_players[names[j]], pairs(rules, args.games))
            line = {
                "benchmark": "go_elo",
                "one": names[i],
                "other": names[j],
                "games": args.games,
                "won": won,
                "cpu_seconds": time.process_time() - began,
                "trained": {"commit": (run.trained_by or {}).get("commit"), "seed": run.seed},
                **here,
            }
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with args.out.open("a") as out:
                out.write(json.dumps(line) + "\n")
        print(f"{names[i]:>12} {line['won']:5.1f} of {args.games} against {names[j]}", flush=True)
        points[i, j], points[j, i] = line["won"], args.games - line["won"]
    rating, error = elo(points, names.index(ANCHOR) if ANCHOR in names else 0)
    for i in np.argsort(-rating):
        print(f"{names[i]:>12} {rating[i]:6.0f} ± {1.96 * error[i]:.0f}")


if __name__ == "__main__":
    main()
