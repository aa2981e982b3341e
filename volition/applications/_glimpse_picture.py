"""The picture of an agent that looks: where each glimpse was taken, what every scale saw, what the agent believed."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

PATH, RIGHT, WRONG, OTHER = "#ff7f0e", "#2ca02c", "#d62728", "#9bb7d4"


def draw_glimpses(
    path: Path, picture: np.ndarray, location: np.ndarray, patches: np.ndarray, probs: np.ndarray, label: int
) -> Path:
    """One column per glimpse: the image with the path so far, the patch of each scale, and p_t of every class.

    picture `[H, W]`, location `[T, 2]`, patches `[T, k, g, g]` in [0, 1], probs `[T, classes]`.
    """
    steps, scales, size, _ = patches.shape
    height, width = picture.shape
    centres = np.round((location + 1) / 2 * (width, height))  # pixel corners, as the sensor rounds them
    figure = Figure(figsize=(1.35 * steps + 0.6, 1.35 * (scales + 2)), layout="constrained")
    axes = figure.subplots(scales + 2, steps, squeeze=False)
    for t in range(steps):
        image, bars = axes[0, t], axes[-1, t]
        image.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
        for s in range(scales):
            side = size << s
            x, y = centres[t] - side // 2
            image.add_patch(Rectangle((x, y), side, side, fill=False, color=PATH, lw=1.4 - 0.3 * s))
        image.plot(*centres[: t + 1].T, color=PATH, lw=1, marker="o", ms=2.5, alpha=0.9)
        image.set(xlim=(0, width), ylim=(height, 0), title=f"glimpse {t + 1}")
        for s in range(scales):
            axes[1 + s, t].imshow(patches[t, s], cmap="gray", vmin=0, vmax=1)
            if t == 0:
                axes[1 + s, t].set_ylabel(f"{size << s} px")
        answer = int(probs[t].argmax())
        colours = [OTHER] * probs.shape[1]
        colours[answer] = RIGHT if answer == label else WRONG
        bars.bar(range(probs.shape[1]), probs[t], color=colours)
        bars.set(ylim=(0, 1), xticks=range(probs.shape[1]), yticks=[])
        bars.tick_params(axis="x", labelsize=6, length=0)
        bars.set_box_aspect(1)
        for panel in axes[:-1, t]:
            panel.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("image")
    axes[-1, 0].set_ylabel("belief")
    figure.suptitle(f"shown: {label}    answer: {int(probs[-1].argmax())}", fontsize=11)
    figure.savefig(path, dpi=110)
    return path
