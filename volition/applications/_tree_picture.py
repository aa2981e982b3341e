"""The picture of a tree of windows: all of them by level, and the way to each object, found or missed."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from volition.core.windows import HIT, area, iou

FOUND, MISSED = "#2ca02c", "#d62728"
MOST = 4  # objects whose ways are shown, the largest first


def draw_tree(path: Path, picture: np.ndarray, windows: Tensor, boxes: Tensor, names: list[str]) -> Path:
    """The image `[H, W, 3]` with its tree `[W, 4]` in level order, and a panel for each object `[M, 4]`, named.

    A way goes from the whole image to the window that meets the object best; an object counts as found above IoU ½.
    """
    height, width = picture.shape[:2]
    real = area(boxes) > 0
    overlap = iou(windows, boxes)
    best = overlap.max(0)
    order = [int(i) for i in area(boxes).argsort(descending=True) if real[i]][:MOST]
    levels = len(windows).bit_length()
    shades = [colormaps["plasma"](0.9 * level / max(levels - 1, 1)) for level in range(levels)]
    figure = Figure(figsize=(3.4 * (2 + len(order)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(order), squeeze=False, width_ratios=[1.6] + [1] * len(order))[0]
    for panel in axes:
        panel.imshow(picture, extent=(0, width, height, 0))
        panel.set(xlim=(-3, width + 3), ylim=(height + 3, -3), xticks=[], yticks=[])
    for number in range(len(windows) - 1, -1, -1):
        level = (number + 1).bit_length() - 1
        _frame(axes[0], windows[number], shades[level], 2.4 - 1.6 * level / levels)
    for m in torch.nonzero(real).flatten().tolist():
        _frame(axes[0], boxes[m], FOUND if best.values[m] > HIT else MISSED, 2.0, "--")
    found = int((best.values > HIT)[real].sum())
    axes[0].set_title(
        f"{len(windows)} windows in {levels} levels: {found} of {int(real.sum())} objects found", fontsize=9
    )
    for panel, m in zip(axes[1:], order, strict=True):
        value = float(best.values[m])
        colour = FOUND if value > HIT else MISSED
        way = lineage(int(best.indices[m]))
        for number in way:
            _frame(panel, windows[number], shades[(number + 1).bit_length() - 1], 1.6)
        _frame(panel, boxes[m], colour, 2.2, "--")
        kinds = "".join("s" if number % 2 else "t" for number in way[1:]) or "at once"
        panel.set_title(f"{names[m]}: IoU {value:.2f}  {kinds}", fontsize=9, color=colour)
    handles = [Rectangle((0, 0), 1, 1, fill=False, ec=shade, lw=1.6) for shade in shades]
    labels = [f"level {level + 1}" for level in range(levels)]
    handles += [Rectangle((0, 0), 1, 1, fill=False, ec=c, lw=2, ls="--") for c in (FOUND, MISSED)]
    figure.legend(
        handles, [*labels, "found", "missed"], loc="outside lower center", ncols=levels + 2, fontsize=7, frameon=False,
        title="the way to an object: s, a child by scaling; t, by translation or deformation", title_fontsize=7,
    )  # fmt: skip
    figure.savefig(path, dpi=110)
    return path


def lineage(number: int) -> list[int]:
    """From the whole image, 0, to window `number` of a tree in level order."""
    way = [number]
    while way[-1]:
        way.append((way[-1] - 1) // 2)
    return way[::-1]


def _frame(panel, box: Tensor, colour: object, thick: float, style: str = "-") -> None:
    x1, y1, x2, y2 = box.tolist()
    panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=thick, ls=style))
