"""Random games of Go by our rules and by OpenSpiel's: the same legal moves and boards all along, the same score.

    python benchmarks/go_equal.py --peer PYTHON [--seed 0]

PYTHON is that of a virtual environment with open_spiel. In half of the games every legal move has the same chance, also
the pass and moves that fill an eye; in the others own eyes are kept, so that living groups remain to be counted. At
each position the sets of legal moves and the boards are compared, at the end the score, and that it is the end.

Known difference: OpenSpiel knows simple ko only, and ends the game as a draw as soon as a whole board comes back. So
its legal moves are those of our `ko="simple"`; the moves that our `ko="positional"` forbids beyond them must be just
those after which OpenSpiel ends the game, and where one of them is drawn the game is over. Lines go to
results/benchmarks/; the exit status is 1 if anything differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from volition.envs.go_game import Go
from volition.envs.go_random import random_actions
from volition.envs.go_render import colours
from volition.machine import provenance

ROOT = Path(__file__).resolve().parent
OUT = ROOT.parent / "results" / "benchmarks" / "go_equal.jsonl"
WORK = ((3, 4_000, 1_000), (5, 4_000, 1_000), (9, 6_000, 1_000), (19, 400, 100))  # board, games, how many at a time
COUNTED, REPEATED = 1, 2  # how a game has ended


def games(size: int, count: int, seed: int) -> dict[str, np.ndarray]:
    """`count` random games move by move: actions `[T, K]` (−1 after the end), masks and boards before each."""
    simple, positional = Go(size, 0.0, "simple"), Go(size, 0.0, "positional")
    rng, random = np.random.default_rng(seed), np.array([2 * seed + 1], np.uint64)
    positions, ended = simple.start(count), np.zeros(count, np.int8)
    record: dict[str, list[np.ndarray]] = {"actions": [], "legal": [], "superko": [], "boards": []}
    while not ended.all():
        legal, allowed = simple.legal(positions), positional.legal(positions)  # one history serves both rules
        drawn = (rng.random(legal.shape) * legal).argmax(1)
        actions = np.where(np.arange(count) % 2, drawn, random_actions(simple, positions, random))
        actions = np.where(ended, -1, actions)
        record["actions"].append(actions.astype(np.int16))
        record["legal"].append(np.packbits(legal, axis=1))
        record["superko"].append(np.packbits(legal & ~allowed, axis=1))
        record["boards"].append(colours(positions.rows).reshape(count, -1).astype(np.int8))
        going = np.flatnonzero(ended == 0)
        repeated = going[~allowed[going, actions[going]]]
        ended[repeated] = REPEATED
        simple.play(positions, np.where(ended, size * size, actions))  # what is over stays as it is
        ended[(ended == 0) & simple.over(positions)] = COUNTED
    found = {name: np.stack(rows) for name, rows in record.items()}
    found |= {"ended": ended, "score": simple.score(positions).astype(np.int16)}
    return found | {"size": np.array(size), "limit": np.array(simple.moves)}


def main() -> None:
    """Compare, write lines of results, and tell by the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, metavar="PYTHON")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    different = 0
    for size, count, batch in WORK:
        total: dict[str, int] = {}
        openspiel = ""
        for part in range(count // batch):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "games.npz"
                seed = arguments.seed * 1_000_003 + part
                np.savez(path, **games(size, batch, seed))  # pyrefly: ignore - no name there is an option of savez
                command = [arguments.peer, str(ROOT / "peers" / "openspiel_replay.py"), str(path)]
                said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            openspiel = said.pop("openspiel")
            total = {name: total.get(name, 0) + number for name, number in said.items()}
        found = sum(number for name, number in total.items() if name.startswith("different"))
        different += found
        print(
            f"{size}x{size}: {count:,} games, {total['positions']:,} positions, {total['legal_moves']:,} legal moves, "
            f"{total['repetitions']:,} games ended by a board that came back, {total['superko_moves']:,} moves that "
            f"superko forbids: {found} differences"
        )
        line = {"benchmark": "go_equal", "size": size, "games": count, "seed": arguments.seed, **total}
        with open(OUT, "a") as results:
            results.write(json.dumps(line | {"openspiel": openspiel} | provenance()) + "\n")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
