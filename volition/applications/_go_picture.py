"""A game as a row of boards: stones, what the policy would play, what the search visited, and who is thought to win."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from volition.envs import go


def draw_boards(
    path: Path, size: int, rows: np.ndarray, priors: np.ndarray, visits: np.ndarray, values: np.ndarray
) -> Path:
    """Rows `[K]` of positions side by side: squares for priors `[K, A]`, numbers for shares of visits `[K, A]` in %."""
    count = len(rows)
    figure = Figure(figsize=(3.2 * count, 3.6), layout="constrained")
    for k, axes in enumerate(np.atleast_1d(np.asarray(figure.subplots(1, count)))):
        row = rows[k]
        axes.set_facecolor("#e8c98a")
        for i in range(size):
            axes.plot([0, size - 1], [i, i], [i, i], [0, size - 1], color="#00000055", lw=0.6, zorder=1)
        share = visits[k] / max(visits[k].sum(), 1)
        for a in range(size * size):
            r, c = divmod(a, size)
            colour = row[go.at((r + 1) * (size + 1) + c + 1, go.COLOUR)]
            if colour != go.EMPTY:
                face = "black" if colour == go.BLACK else "white"
                axes.scatter(c, r, s=110, c=face, edgecolors="black", linewidths=0.6, zorder=3)
            else:
                axes.scatter(c, r, s=200 * np.sqrt(priors[k, a]), c="tab:blue", marker="s", alpha=0.5, zorder=2)
                if share[a] >= 0.01:
                    axes.text(c, r, f"{100 * share[a]:.0f}", ha="center", va="center", fontsize=7, zorder=4)
        side = "black" if row[go.TURN] == go.BLACK else "white"
        axes.set_title(f"move {row[go.MOVES] + 1}: {side}, wins {50 + 50 * values[k]:.0f} %", fontsize=9)
        axes.set(xlim=(-0.7, size - 0.3), ylim=(size - 0.3, -0.7), xticks=[], yticks=[], aspect="equal")
    figure.savefig(path, dpi=110)
    return path
