"""The picture of a search with a trigger: the ways to its triggers, what they held, and the objects."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from volition.core.windows import area, iou

RIGHT, WRONG, OBJECT = "#2ca02c", "#d62728", "#17becf"
MOST = 4  # triggers whose ways are shown, the first ones


def draw_trail(path: Path, picture: np.ndarray, window: Tensor, fired: Tensor, objects: Tensor, name: str) -> Path:
    """A panel for each of the first triggers: the windows `[S, 4]` since the one before, early ones dark.

    A window that triggered is green where its IoU with one of the objects `[M, 4]` is at least ½, else red; those of
    earlier panels are crossed out, as the agent sees them. Without a trigger all windows are one panel.
    """
    ends = fired.nonzero()[:MOST, 0].tolist() or [len(window) - 1]
    best = iou(window, objects).amax(1)
    figure = Figure(figsize=(3.4 * len(ends), 3.0), layout="constrained")
    height, width = picture.shape[:2]
    begin, crossed = 0, []
    for panel, end in zip(figure.subplots(1, len(ends), squeeze=False)[0], ends, strict=True):
        panel.imshow(picture, extent=(0, width, height, 0))
        panel.set(xlim=(-3, width + 3), ylim=(height + 3, -3), xticks=[], yticks=[])
        for x1, y1, x2, y2 in crossed:
            a, b = (x2 - x1) / 3, (y2 - y1) / 3
            panel.add_patch(Rectangle((x1, y1 + b), x2 - x1, b, color="black"))
            panel.add_patch(Rectangle((x1 + a, y1), a, y2 - y1, color="black"))
        for box in objects[area(objects) > 0]:
            frame(panel, box, OBJECT, 2.0, "--")
        way = range(begin, end + 1)
        for step in way:
            frame(panel, window[step], colormaps["plasma"]((step - begin) / max(1, len(way))), 0.8)
        if fired[end]:
            frame(panel, window[end], RIGHT if best[end] >= 0.5 else WRONG, 2.6)
            panel.set_title(f"trigger after {len(way)} windows: IoU {best[end]:.2f}", fontsize=9)
            crossed.append(window[end].tolist())
        else:
            panel.set_title(f"no trigger in {len(way)} windows", fontsize=9)
        begin = end + 1
    figure.suptitle(f"looking for: {name}", fontsize=10)
    figure.savefig(path, dpi=110)
    return path


def frame(panel: Axes, box: Tensor, colour: object, thick: float, style: str = "-") -> None:
    """The border of a box."""
    x1, y1, x2, y2 = box.tolist()
    panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=thick, ls=style))
