"""Where the states of a small MDP lie on a map, and a picture of V and π there."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from torch import Tensor

from volition.errors import VolitionError

ARROWS = {"←": (-1, 0), "→": (1, 0), "↑": (0, -1), "↓": (0, 1)}
MOST_CELLS = 900  # above this, arrows and numbers are too small to read


@dataclass(frozen=True)
class Grid:
    """A map of the states: panels name → state at each cell `[rows, cols]`, −1 where there is none.

    letters `[rows, cols]` stand in the cells, "" for plain ground; nobody acts in cells with a solid letter;
    actions are arrows or short texts; walls are the cells (row, col) with a wall on their right.
    """

    panels: dict[str, np.ndarray]
    letters: np.ndarray
    actions: tuple[str, ...]
    solid: str = ""
    walls: tuple[tuple[int, int], ...] = ()


def lake(text: str) -> dict[str, Any]:
    """The options of FrozenLake for a map: a name, or rows of S, F, H, G joined by "/"."""
    if text in ("4x4", "8x8"):
        return {"map_name": text}
    rows = text.upper().split("/")
    if len({len(row) for row in rows}) != 1 or set("".join(rows)) - set("SFHG") or "S" not in text.upper():
        raise VolitionError(
            f"map {text!r} is neither 4x4 nor 8x8 nor rows of equal length of S, F, H, G with an S, "
            "as in SFFF/FHFH/FFFH/HFFG"
        )
    return {"desc": rows}


def grid_of(env: gymnasium.Env) -> Grid | None:
    """The map of FrozenLake, CliffWalking or Taxi; None for any other environment."""
    inner: Any = env.unwrapped
    kind = type(inner).__name__
    if kind == "FrozenLakeEnv":
        letters = np.char.decode(inner.desc)
        cells = np.arange(letters.size).reshape(letters.shape)
        return Grid({"": cells}, np.where(letters == "F", "", letters), ("←", "↓", "→", "↑"), solid="HG")
    if kind == "CliffWalkingEnv":
        cells = np.arange(math.prod(inner.shape)).reshape(inner.shape)
        letters = np.full(inner.shape, "")
        letters[-1, 0], letters[-1, 1:-1], letters[-1, -1] = "S", "C", "G"
        return Grid({"": cells}, letters, ("↑", "→", "↓", "←"), solid="CG")
    if kind == "TaxiEnv":
        drawing = np.char.decode(inner.desc)[1:-1]
        walls = tuple((int(r), int(c)) for r, c in np.argwhere(drawing[:, 2:-1:2] == "|"))
        stands = ("R", "G", "Y", "B")  # in Gymnasium's order; passenger 4 sits in the taxi
        panels = {
            f"passenger {'in the taxi' if p == 4 else 'waits at ' + stands[p]}, to G": np.array(
                [[inner.encode(row, column, p, 1) for column in range(5)] for row in range(5)]
            )
            for p in (4, 0, 2, 3)
        }
        return Grid(panels, np.char.strip(drawing[:, 1::2]), ("↓", "↑", "→", "←", "pick", "drop"), walls=walls)
    return None


def strip_grid(states: int, actions: int) -> Grid:
    """States without a map, in order, as rows of about √S; actions by number."""
    columns = math.ceil(math.sqrt(states))
    cells = np.full(columns * math.ceil(states / columns), -1)
    cells[:states] = np.arange(states)
    cells = cells.reshape(-1, columns)
    return Grid({"": cells}, np.full(cells.shape, ""), tuple(str(a) for a in range(actions)))


def draw_values(path: Path, value: Tensor, policy: Tensor, grid: Grid, title: str) -> None:
    """Write a PNG of V `[S]` as colours and π(a|s) `[S, A]` as an arrow or text for each action taken."""
    import matplotlib
    from matplotlib.figure import Figure

    v, pi = value.numpy(), policy.numpy()
    rows, columns = grid.letters.shape
    solid = np.isin(grid.letters, list(grid.solid))
    shown = np.concatenate([v[cells[(cells >= 0) & ~solid]] for cells in grid.panels.values()])
    low, high = (shown.min(), shown.max()) if len(shown) else (0.0, 1.0)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="#e8e8e8")
    cell = min(0.85, 12 / columns)
    across = math.ceil(math.sqrt(len(grid.panels)))
    down = math.ceil(len(grid.panels) / across)
    size = (across * columns * cell + 1.6, down * (rows * cell + 0.45) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    figure.suptitle(title, fontsize=12)
    image = None
    for axis, (name, cells) in zip(axes.flat, grid.panels.items(), strict=False):
        hidden = solid | (cells < 0)
        image = axis.imshow(np.ma.masked_array(v[cells], hidden), cmap=colours, vmin=low, vmax=max(high, low + 1e-9))
        axis.set_title(name, fontsize=10)
        axis.set_xticks(np.arange(-0.5, columns), [])
        axis.set_yticks(np.arange(-0.5, rows), [])
        axis.grid(color="white", linewidth=1)
        axis.tick_params(length=0)
        for row, column in grid.walls:
            axis.plot([column + 0.5] * 2, [row - 0.5, row + 0.5], color="black", linewidth=4, zorder=4)
        if cells.size > MOST_CELLS:
            continue
        for (row, column), state in np.ndenumerate(cells):
            letter = grid.letters[row, column]
            if state < 0:
                continue
            if hidden[row, column]:
                look = {"G": "#1a7f37", "T": "#1a7f37"}.get(letter, "#8a8a8a")
                axis.text(column, row, letter, ha="center", va="center", color=look, weight="bold", fontsize=15)
                continue
            # black on the bright half of the colours, white on the dark half
            ink = "black" if v[state] > low + 0.6 * (high - low) else "white"
            small = {"color": ink, "fontsize": 7 if cell > 0.6 else 5}
            axis.text(column, row + 0.36, f"{v[state]:.3g}", ha="center", va="center", **small)
            axis.text(column - 0.36, row - 0.32, letter, ha="center", va="center", weight="bold", **small)
            for action in np.flatnonzero(pi[state] > 1e-6):
                _draw_action(axis, row - 0.06, column, grid.actions[action], ink, cell)
    for axis in list(axes.flat)[len(grid.panels) :]:
        axis.axis("off")
    if image is not None:
        figure.colorbar(image, ax=axes, label="V", shrink=0.8, aspect=30)
    figure.savefig(path, dpi=130)


def _draw_action(axis: Any, row: float, column: float, action: str, ink: str, cell: float) -> None:
    if action not in ARROWS:
        axis.text(column, row, action, ha="center", va="center", color=ink, fontsize=9 if cell > 0.6 else 6)
        return
    x, y = ARROWS[action]
    style = {"arrowstyle": "-|>", "color": ink, "linewidth": 1.6, "mutation_scale": 11 * min(1, cell / 0.6)}
    tail, tip = (column - 0.2 * x, row - 0.2 * y), (column + 0.24 * x, row + 0.24 * y)
    axis.annotate("", xy=tip, xytext=tail, arrowprops=style | {"shrinkA": 0, "shrinkB": 0})
