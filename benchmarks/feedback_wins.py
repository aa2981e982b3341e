"""Policies of the built-in task against each other: hidden scores of their answers to the same test prompts.

    python benchmarks/feedback_wins.py --run runs/instructgpt-laptop-0 [--also DPO=runs/dpo-laptop-0/model …]
    python benchmarks/feedback_wins.py --table

From a finished `volition train instructgpt`: SFT, the best of 16 by its reward model, PPO and PPO-ptx, and any other
policy that began from the same SFT. A win is a higher hidden score for the same prompt, a tie half of one.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch import Tensor

from volition.data import instructions
from volition.data.tokens import Tokens
from volition.feedback._models import complete, make, scores
from volition.feedback._show import judge, win_rate
from volition.feedback._text import BUILT_IN, Gpt
from volition.machine import provenance
from volition.nets.language import Scalar

OUT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "feedback_wins.jsonl"
BEST_OF, COMPLETION = 16, 48


def answers(folder: Path, prompts: list[str], seed: int) -> list[str]:
    """One answer to each prompt."""
    tokens = Tokens.load(folder)
    model = make(str(folder), Gpt(), 0, tokens)
    return complete(model, prompts, tokens, COMPLETION, torch.Generator().manual_seed(seed))


def best(policy: Path, reward: Path, prompts: list[str], seed: int) -> list[str]:
    """The answer that the reward model likes best, of BEST_OF to each prompt."""
    each = [prompt for prompt in prompts for _ in range(BEST_OF)]
    said = answers(policy, each, seed)
    liked = scores(Scalar.load(reward), each, said, Tokens.load(reward)).view(-1, BEST_OF).argmax(1)
    return [said[i * BEST_OF + n] for i, n in enumerate(liked.tolist())]


def measure(run: Path, also: dict[str, Path]) -> None:
    """Append one line: mean scores, and the wins of each row's policy over each column's."""
    seed = json.loads((run / "config.json").read_text())["seed"]
    prompts = instructions.prompts("test", BUILT_IN["test"], seed=1)
    policies = {"PPO": run / "ppo/model", "PPO-ptx": run / "ptx/model"} | also
    said = {"SFT": answers(run / "sft/model", prompts, seed)}
    said[f"best of {BEST_OF}"] = best(run / "sft/model", run / "reward/model", prompts, seed + 1000)
    said |= {name: answers(folder, prompts, seed) for name, folder in policies.items()}
    gold: dict[str, Tensor] = {name: judge(instructions.gold, prompts, some) for name, some in said.items()}
    line = {
        "benchmark": "feedback_wins", "seed": seed, "prompts": len(prompts),
        "gold": {name: x.mean().item() for name, x in gold.items()},
        "wins": {a: {b: win_rate(x, y) for b, y in gold.items() if b != a} for a, x in gold.items()},
    }  # fmt: skip
    with OUT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | provenance()) + "\n")


def table() -> None:
    """Means over seeds as Markdown."""
    lines = [json.loads(line) for line in OUT.read_text(encoding="utf-8").splitlines()]
    names = list(lines[0]["gold"])
    print(f"| wins of … against …, % | {' | '.join(names)} | hidden score |\n|{'---|' * (len(names) + 2)}")
    for a in names:
        wins = [f"{100 * statistics.mean(line['wins'][a][b] for line in lines):.0f}" if a != b else "–" for b in names]
        gold = [line["gold"][a] for line in lines]
        spread = f" ± {statistics.stdev(gold):.2f}" if len(gold) > 1 else ""
        print(f"| {a} | {' | '.join(wins)} | {statistics.mean(gold):.2f}{spread} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--also", nargs="*", default=[], metavar="NAME=DIR")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.run:
        measure(given.run, {name: Path(folder) for name, _, folder in (each.partition("=") for each in given.also)})
    if given.table:
        table()


if __name__ == "__main__":
    main()
