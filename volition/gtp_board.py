"""Go boards as the Go Text Protocol writes them: vertices, colours, handicap points."""

import re

import numpy as np

from volition.envs import go
from volition.envs.go_render import COLUMNS
from volition.errors import VolitionError

COLOURS = {"b": go.BLACK, "black": go.BLACK, "w": go.WHITE, "white": go.WHITE}


def vertex(action: int, size: int) -> str:
    """An action as GTP writes it: A1 is the lower left corner, there is no column I."""
    if action == size * size:
        return "pass"
    return f"{COLUMNS[action % size]}{size - action // size}"


def action_of(text: str, size: int) -> int:
    """The action of a vertex."""
    if text.lower() == "pass":
        return size * size
    found = re.fullmatch(r"([A-HJ-Za-hj-z])([0-9]{1,2})", text)
    if not found or COLUMNS.index(found[1].upper()) >= size or not 1 <= int(found[2]) <= size:
        raise VolitionError(f"invalid vertex {text}")
    return (size - int(found[2])) * size + COLUMNS.index(found[1].upper())


def colour_of(text: str) -> int:
    """`BLACK` or `WHITE` of b, black, w or white."""
    if text.lower() not in COLOURS:
        raise VolitionError(f"syntax error: {text} is no colour")
    return COLOURS[text.lower()]


def numbers(words: list[str], count: int) -> list[float]:
    """The first `count` words as numbers."""
    try:
        found = [float(word) for word in words[:count]]
        if len(found) < count or not np.isfinite(found).all():
            raise ValueError
    except ValueError:
        raise VolitionError(f"syntax error: {count} number{'s' if count > 1 else ''} wanted") from None
    return found


def whole(words: list[str]) -> int:
    """The first word as a whole number."""
    number = numbers(words, 1)[0]
    if number != int(number):
        raise VolitionError("syntax error: a whole number wanted")
    return int(number)


def handicap(stones: int, size: int) -> list[int]:
    """The points of fixed handicap stones (GTP 2, section 4.1.1).

    Boards smaller than 7 have none, those of 7 and of even sides at most 4, the others 9.
    """
    most = 0 if size < 7 else 4 if size == 7 or size % 2 == 0 else 9
    if not 2 <= stones <= most:
        raise VolitionError("invalid number of stones")
    low = 3 if size >= 13 else 2  # the fourth line or the third
    high, middle = size - 1 - low, size // 2
    corners = [(high, low), (low, high), (low, low), (high, high)]
    sides = [(middle, low), (middle, high), (high, middle), (low, middle)]
    points = corners[:stones] if stones < 5 else corners + sides[: (stones - 4) // 2 * 2]
    if stones > 4 and stones % 2:
        points.append((middle, middle))
    return [r * size + c for r, c in points]
