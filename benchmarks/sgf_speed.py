"""Speed of reading Go games against sgfmill: texts in memory to the points of the main line, in turn.

    python benchmarks/sgf_speed.py --data DIR --peer PYTHON [--games 2000] [--rounds 7]

PYTHON is that of a virtual environment with sgfmill, DIR the folder in which `volition data` finds ogs9_dan and kgs19.
Both read the same games on one thread and must come to the same points; ours reads the names, the result and the stones
set up too. Printed are medians of games per CPU-second and of the ratios of the same round. Lines go to
results/benchmarks/.
"""

import argparse
import gzip
import json
import statistics
import subprocess
import tempfile
import time
from itertools import islice
from pathlib import Path

from volition.data import catalog, go_games, sgf
from volition.machine import provenance

ROOT = Path(__file__).resolve().parent
OUT = ROOT.parent / "results" / "benchmarks" / "sgf_speed.jsonl"


def texts(name: str, folder: Path, count: int) -> list[str]:
    """The first games of a set of the catalog; of KGS those of 2015."""
    found = list(catalog.find(name, folder).values())
    if name == "ogs9_dan":
        return sgf.decode(gzip.decompress(found[0].read_bytes())).splitlines()[:count]
    (archive,) = (path for path in found if "2015" in path.name)
    return [sgf.decode(read()) for _, read in islice(go_games.contents(archive), count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", required=True, metavar="PYTHON")
    parser.add_argument("--games", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for name in ("ogs9_dan", "kgs19"):
        games = texts(name, arguments.data, arguments.games)
        ours, theirs, read = [], [], []
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            json.dump(games, file)
            file.flush()
            for _ in range(arguments.rounds):
                begin = time.process_time()
                read = [sgf.parse(text) for text in games]
                ours.append(time.process_time() - begin)
                command = [arguments.peer, str(ROOT / "peers" / "sgfmill_reader.py"), file.name]
                said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                theirs.append(said["seconds"])
                assert said["points"] == [game.moves.tolist() for game in read], "the two read different moves"
        moves = sum(len(game.moves) for game in read)
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        rates = [len(games) / statistics.median(times) for times in (ours, theirs)]
        print(f"{name}: {len(games)} games, {moves:,} moves; games per CPU-second: ", end="")
        print(f"ours {rates[0]:,.0f}, sgfmill {rates[1]:,.0f}; ratio {ratio:.1f}")
        line = {"benchmark": "sgf_speed", "set": name, "games": len(games), "moves": moves, "ratio": ratio}
        line |= {"cpu_seconds": {"Volition": ours, "sgfmill": theirs}}
        with open(OUT, "a") as results:
            results.write(json.dumps(line | provenance()) + "\n")


if __name__ == "__main__":
    main()
