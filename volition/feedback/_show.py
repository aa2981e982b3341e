"""Completions side by side with what judges say of them."""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

Judge = Callable[[str, str], float]


def judge(score: Judge, prompts: Sequence[str], said: Sequence[str]) -> Tensor:
    """The score of each completion, `[N]`."""
    return torch.tensor([score(p, c) for p, c in zip(prompts, said, strict=True)])


def win_rate(mine: Tensor, other: Tensor) -> float:
    """How often mine scores higher, a tie being half a win; `[N]`, `[N]`."""
    return ((mine > other).float() + 0.5 * (mine == other).float()).mean().item()


def side_by_side(
    prompts: Sequence[str], said: Mapping[str, Sequence[str]], judges: Mapping[str, Judge], path: Path
) -> Path:
    """Write each prompt with the completion of each policy and, in brackets, each judge's score of it."""
    lines, width = [], max(map(len, said))
    for i, prompt in enumerate(prompts):
        lines.append(textwrap.fill(prompt.strip(), 100))
        for name, completions in said.items():
            marks = ", ".join(f"{who} {score(prompt, completions[i]):+.2f}" for who, score in judges.items())
            body = textwrap.fill(completions[i].strip() or "(nothing)", 90, subsequent_indent=" " * (width + 4))
            lines.append(f"  {name:<{width}}  {body}" + (f"  [{marks}]" if marks else ""))
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def read_history(path: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics, but for one that is being written."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def draw_frontier(histories: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> Path:
    """Reward and, dashed, the hidden score against √KL from the start, one colour a run (after Gao 2022, figure 1)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for i, (name, history) in enumerate(histories.items()):
        for measure, line in (("reward", "-"), ("gold", "--")):
            seen = [row for row in history if measure in row and "kl" in row]
            if seen:
                roots = [max(0.0, row["kl"]) ** 0.5 for row in seen]
                axes.plot(roots, [row[measure] for row in seen], line, color=f"C{i}", label=f"{name}: {measure}")
    axes.set_xlabel("√KL from the model at the start (nats)")
    axes.set_ylabel("mean score")
    if axes.has_data():
        axes.legend()
    figure.savefig(path, dpi=120)
    return path


def draw_calibration(gaps: Sequence[float], wins: Sequence[float], path: Path) -> Path:
    """How often the higher score was ranked higher, against σ(|difference|), in tenths of the pairs; grey: exact."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    order = sorted(range(len(gaps)), key=gaps.__getitem__)
    tenths = [order[i * len(order) // 10 : (i + 1) * len(order) // 10] for i in range(10)]
    sure = torch.tensor(list(gaps)).sigmoid().tolist()
    points = [(sum(sure[i] for i in some), sum(wins[i] for i in some), len(some)) for some in tenths if some]
    axes.plot([0.5, 1], [0.5, 1], color="0.7")
    axes.plot([s / n for s, _, n in points], [w / n for _, w, n in points], "o-")
    axes.set_xlabel("probability that the reward model gives")
    axes.set_ylabel("share of pairs ranked so")
    figure.savefig(path, dpi=120)
    return path
