"""Boards of Go to look at: as text, and as pixels."""

import numpy as np

from volition.envs import go

COLUMNS = "ABCDEFGHJKLMNOPQRSTUVWXYZ"  # there is no column I
MARKS = np.array([".", "X", "O"])
CELL = 24  # pixels of a side of the square around each point
WOOD, LINE, DARK, LIGHT = (225, 185, 115), (95, 70, 35), (20, 20, 20), (245, 245, 245)


def colours(rows: np.ndarray) -> np.ndarray:
    """`EMPTY`, `BLACK` or `WHITE` at each point, `[K, N, N]`, of games `[K, S]`."""
    n = int(rows[0, go.SIZE])
    r, c = np.divmod(np.arange(n * n), n)
    return rows[:, go.HEAD + 8 * ((r + 1) * (n + 1) + c + 1) + go.COLOUR].reshape(-1, n, n)


def text(row: np.ndarray) -> str:
    """The board of one game in lines, X black and O white, with its coordinates; row 0 is the uppermost."""
    board, n = colours(row[None])[0], int(row[go.SIZE])
    header = "   " + " ".join(COLUMNS[:n])
    lines = [f"{n - r:2} {' '.join(MARKS[board[r]])} {n - r}" for r in range(n)]
    return "\n".join([header, *lines, header])


def picture(row: np.ndarray) -> np.ndarray:
    """The board of one game, uint8 `[24·N, 24·N, 3]`, with a mark on the last stone."""
    board, n = colours(row[None])[0], int(row[go.SIZE])
    frame = np.full((n * CELL, n * CELL, 3), WOOD, np.uint8)
    middle = np.arange(n) * CELL + CELL // 2
    frame[middle, CELL // 2 : n * CELL - CELL // 2] = LINE
    frame[CELL // 2 : n * CELL - CELL // 2, middle] = LINE
    across = np.arange(CELL) - CELL / 2 + 0.5
    far = np.hypot(across[:, None], across)  # of a pixel from the middle of its square
    last = divmod(int(go.to_action(n, row[go.LAST])), n)
    for r, c in np.argwhere(board != go.EMPTY):
        square = frame[r * CELL : (r + 1) * CELL, c * CELL : (c + 1) * CELL]
        stone, mark = (DARK, LIGHT) if board[r, c] == go.BLACK else (LIGHT, DARK)
        square[far < 0.46 * CELL] = stone
        if (r, c) == last:
            square[far < 0.15 * CELL] = mark
    return frame
