"""Recall on VOC 2007's test boxes of all that sees no picture: what a window agent's recall is to be read beside.

    python benchmarks/tree_rows.py --data DIR [--most 63] [--seeds 0 1 2] [--rows random grid …]

DIR holds VOC2007/ as PASCAL's archives have it; pictures are not needed. Lines go to results/benchmarks/. With
`--most 1023` an oracle, a perfect Q or the bound takes up to a minute.
"""

import argparse
import json
from pathlib import Path

import torch

from volition.applications._tree_rows import COUNTS, floors, recall
from volition.data import voc
from volition.machine import provenance

OUT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "tree_rows.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--most", type=int, choices=COUNTS, default=63, help="windows of the largest tree")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="these only")
    arguments = parser.parse_args()
    train, test = (voc.load(arguments.data, (("2007", split),)) for split in ("trainval", "test"))
    counts = tuple(count for count in COUNTS if count <= arguments.most)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator()
    rows = floors(test.size, test.boxes, generator, counts, (train.size, train.boxes))
    if unknown := set(arguments.rows or ()) - rows.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(map(repr, rows))}")
    for seed in arguments.seeds:
        for row in arguments.rows or rows:
            generator.manual_seed(seed)
            few, find = rows[row]
            best = find()
            found = recall(best, test.boxes, test.difficult, few)
            for count in few:
                print(f"{row:22s}{count:5d}", *(f"{value:6.1f}" for value in found[f"{count} all"]), flush=True)
            rounded = {name: [round(value, 2) for value in values] for name, values in found.items()}
            line = {"benchmark": "tree_rows", "data": test.name, "row": row, "seed": seed, "recall": rounded}
            with open(OUT, "a") as file:
                file.write(json.dumps(line | provenance()) + "\n")


if __name__ == "__main__":
    main()
