"""Outlines of the shapes in generated scenes."""

import math
from functools import cache

import numpy as np

SHAPES = ("disc", "ring", "triangle", "arrow", "star")


def outline(name: str, turns: float, side: int = -1, part: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Corners `[n, 2]` of a shape and of its hole: turned, cut, stretched so that it fills 0 … 1 both ways.

    Of the cut shape `part` is left; `side` is where it is cut: 0 left, 1 top, 2 right, 3 bottom, −1 nowhere.
    """
    outer, inner = (corners @ _rotation(turns) for corners in _unit(name))
    low, high = outer.min(0), outer.max(0)
    if side >= 0:
        axis, lower = side % 2, side < 2
        span = high[axis] - low[axis]
        edge = high[axis] - part * span if lower else low[axis] + part * span
        outer, inner = (_cut(corners, axis, edge, lower) for corners in (outer, inner))
        low, high = outer.min(0), outer.max(0)
    return (outer - low) / (high - low), (inner - low) / (high - low)


@cache
def _unit(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a shape and of the hole in it, around (0, 0)."""

    def turn(corners: int, *radii: float) -> np.ndarray:
        angle = np.arange(corners) * 2 * math.pi / corners
        radius = np.resize(radii, corners)
        return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], 1)

    none = np.zeros((0, 2))
    # no cross: that is the mark with which `caicedo` covers what it has found
    half = np.array([(0, -1), (0.9, -0.1), (0.35, -0.1), (0.35, 1)])
    return {
        "disc": (turn(48, 1), none),
        "ring": (turn(48, 1), turn(48, 0.55)),
        "triangle": (turn(3, 1), none),
        "arrow": (np.concatenate([half, half[:0:-1] * (-1, 1)]), none),
        "star": (turn(10, 1, 0.42), none),
    }[name]


def _rotation(turns: float) -> np.ndarray:
    c, s = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    return np.array([[c, s], [-s, c]])


def _cut(points: np.ndarray, axis: int, edge: float, lower: bool) -> np.ndarray:
    """A polygon without what lies below (or above) `edge` (Sutherland and Hodgman 1974, one side)."""
    kept = []
    for a, b in zip(points, np.roll(points, -1, 0), strict=True):
        inside = [(p[axis] >= edge) == lower for p in (a, b)]
        if inside[0]:
            kept.append(a)
        if inside[0] != inside[1]:
            kept.append(a + (b - a) * (edge - a[axis]) / (b[axis] - a[axis]))
    return np.array(kept) if kept else np.zeros((0, 2))
