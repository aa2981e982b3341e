"""Over-optimisation of a reward model, measured by the hidden score (Gao, Schulman and Hilton 2022).

    python benchmarks/overoptimisation.py --run runs/instructgpt-laptop-0 [--episodes 10240]
    python benchmarks/overoptimisation.py --draw PICTURE.png

From the fine-tuned policy of a finished and evaluated `volition train instructgpt`, PPO without pretraining text is run
against three reward models (that run's, one that learned from a tenth of the rankings, one of a tenth of the
parameters) at several prices β of a nat of KL, and PPO-ptx against the first. Each line in results/benchmarks/ has one
run's proxy score, hidden score and KL over training, and what evaluate finds. The picture shows both scores against
√KL, means over seeds, beside them best-of-n, whose KL is log n − (n − 1)/n; and the loss on pretraining text by β.
"""

import argparse
import json
import math
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from volition.machine import provenance

OUT = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "overoptimisation.jsonl"
BETAS = {"all rankings": (0.0, 0.02, 0.1, 0.3), "a tenth of the rankings": (0.0,), "small": (0.0,)}
PTX = {"all rankings": (0.0, 0.02), "a tenth of the rankings": (), "small": ()}
RANKED = 600
SMALL = ["--gpt.width", "32", "--gpt.layers", "1", "--updates", "1500", "--mix", "0.1"]  # of the policy's tokens
BEST = "best of n"


def volition(*words: str | Path) -> None:
    """Run the command line."""
    subprocess.run([sys.executable, "-m", "volition", *words], check=True, stdout=subprocess.DEVNULL)


def train(folder: Path, recipe: str, *flags: str) -> None:
    """Train in `folder`, or go on there."""
    volition("train", recipe, "--quiet", "--run", folder, *flags)


def last(folder: Path) -> dict[str, Any]:
    """What evaluate found of the run."""
    return json.loads((folder / "results.jsonl").read_text().splitlines()[-1])["metrics"]


def judges(run: Path, seed: str) -> dict[str, Path]:
    """The folders of the reward models."""
    few, small = run / "few", run / "small"
    train(few, "reward_model", "--seed", seed, "--model", str(run / "sft/model"), "--ranked", str(RANKED))
    train(run / "small-sft", "sft", "--seed", seed, *SMALL)
    ranked = str(run / "reward/rankings.jsonl")
    train(small, "reward_model", "--seed", seed, "--model", str(run / "small-sft/model"), "--preferences", ranked)
    return dict(zip(BETAS, (run / "reward/model", few / "model", small / "model"), strict=True))


def measure(run: Path, episodes: int) -> None:
    """Append a line for each reward model and β, and one for best-of-n."""
    seed = str(json.loads((run / "config.json").read_text())["seed"])
    lines = []
    for judge, reward in judges(run, seed).items():
        for beta, ptx in [*((beta, 0.0) for beta in BETAS[judge]), *((beta, 1.0) for beta in PTX[judge])]:
            folder = run / f"ppo {judge} {beta} {ptx}".replace(" ", "-")
            flags = ["--seed", seed, "--model", str(run / "sft/model"), "--reward", str(reward)]
            flags += ["--beta", str(beta), "--ptx", str(ptx), "--episodes", str(episodes)]
            train(folder, "ppo_ptx", *flags)
            if not (folder / "results.jsonl").exists():
                volition("evaluate", folder)
            rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            curve = [{key: row[key] for key in ("episodes", "kl", "reward", "gold")} for row in rows if "gold" in row]
            lines.append({"judge": judge, "beta": beta, "ptx": ptx, "curve": curve, "metrics": last(folder)})
    found, points = last(run), []
    for n in (2**i for i in range(20)):
        if f"best_of_{n}_gold" in found:
            score = {key: found[f"best_of_{n}_{key}"] for key in ("reward", "gold")}
            points.append({"n": n, "kl": math.log(n) - (n - 1) / n} | score)
    lines.append({"judge": BEST, "curve": points})
    with OUT.open("a", encoding="utf-8") as file:
        for line in lines:
            line = {"benchmark": "overoptimisation", "seed": int(seed), "episodes": episodes} | line
            file.write(json.dumps(line | provenance()) + "\n")


def draw(path: Path) -> None:
    """Scores with the full reward model at several β and with each at β = 0; loss on pretraining text by β."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in OUT.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right, tax = figure.subplots(1, 3)
    right.sharey(left)
    full = next(iter(BETAS))
    for i, beta in enumerate(BETAS[full]):
        some = [line for line in lines if line["judge"] == full and line["beta"] == beta and not line["ptx"]]
        show(left, f"β = {beta:g}", f"C{i}", some)
    show(left, BEST, "black", [line for line in lines if line["judge"] == BEST])
    for i, judge in enumerate(BETAS):
        some = [line for line in lines if line["judge"] == judge and not line["beta"] and not line["ptx"]]
        show(right, judge, f"C{i}", some)
    left.set_title("one reward model, several prices of KL")
    right.set_title("several reward models, β = 0")
    for axes in (left, right):
        axes.set_xlabel("√KL from the fine-tuned model (√nats)")
        axes.legend()
    forget(tax, [line for line in lines if line["judge"] == full])
    left.set_ylabel("gain in hidden score (—), reward model (- -)")
    figure.savefig(path, dpi=120)


def show(axes: Any, name: str, colour: str, lines: list[dict[str, Any]]) -> None:
    """Gains over each curve's first point against √KL: means over seeds of what was seen at the same time."""
    seen = defaultdict[int, list[tuple[float, float, float]]](list)
    for line in lines:
        first = line["curve"][0]
        for i, row in enumerate(line["curve"]):
            gains = (row[key] - first[key] for key in ("gold", "reward"))
            seen[i].append((max(0.0, row["kl"]) ** 0.5, *gains))
    if seen:
        root, gold, proxy = zip(
            *([sum(x) / len(x) for x in zip(*rows, strict=True)] for rows in seen.values()), strict=True
        )
        axes.plot(root, gold, "-", color=colour, label=name)
        axes.plot(root, proxy, "--", color=colour, alpha=0.5)


def forget(axes: Any, lines: list[dict[str, Any]]) -> None:
    """Loss on pretraining text over the fine-tuned model's, by β: each seed a dot, the means joined."""
    for i, (ptx, name) in enumerate(((0.0, "PPO"), (1.0, "PPO-ptx"))):
        seen = defaultdict[float, list[float]](list)
        for line in lines:
            if line["ptx"] == ptx:
                found = line["metrics"]
                seen[line["beta"]].append(found["pretraining_loss"] - found["sft_pretraining_loss"])
        betas = sorted(seen)
        places = [BETAS[lines[0]["judge"]].index(beta) for beta in betas]
        for place, beta in zip(places, betas, strict=True):
            axes.plot([place] * len(seen[beta]), seen[beta], ".", color=f"C{i}")
        axes.plot(places, [sum(seen[beta]) / len(seen[beta]) for beta in betas], color=f"C{i}", label=name)
    axes.axhline(0, color="0.7")
    axes.set_xticks(range(len(BETAS[lines[0]["judge"]])), [f"{beta:g}" for beta in BETAS[lines[0]["judge"]]])
    axes.set_title("the alignment tax")
    axes.set_xlabel("β")
    axes.set_ylabel("loss on pretraining text, change (nats)")
    axes.legend()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--episodes", type=int, default=10_240)
    parser.add_argument("--draw", type=Path)
    given = parser.parse_args()
    if given.run:
        measure(given.run, given.episodes)
    if given.draw:
        draw(given.draw)


if __name__ == "__main__":
    main()
