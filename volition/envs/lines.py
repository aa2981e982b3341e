"""Games of stones in a line, as a `Game`: tic-tac-toe and, where stones fall to the bottom, Connect Four."""

from dataclasses import dataclass

import numpy as np

from volition.core.game import Positions
from volition.core.tree import jit

TURN, MOVES, WON, HEAD = 0, 1, 2, 3  # a row: whose turn 1 or 2, moves played, who has won, then the squares


@dataclass(frozen=True)
class Line:
    """Whoever first has `line` stones in a row, column or diagonal has won; actions are squares r·W + c, or columns."""

    height: int = 3
    width: int = 3
    line: int = 3
    fall: bool = False
    """Whether a stone falls to the lowest free square of the column that is the action."""

    @property
    def actions(self) -> int:
        """Squares, or columns where stones fall."""
        return self.width if self.fall else self.height * self.width

    def start(self, count: int) -> Positions:
        """Empty boards, 1 to move."""
        rows = np.zeros((count, HEAD + self.height * self.width), np.int32)
        rows[:, TURN] = 1
        return Positions(rows, np.zeros((count, 0), np.int64))

    def legal(self, positions: Positions) -> np.ndarray:
        """Free squares, or columns with room, bool `[K, A]`; none where the game is over."""
        free = positions.rows[:, HEAD : HEAD + self.actions] == 0  # of a column, the top square says it
        return free & np.isnan(self.outcome(positions))[:, None]

    def play(self, positions: Positions, actions: np.ndarray) -> None:
        """Play one legal action `[K]` in each position, in place; nothing happens where the game is over."""
        _play(positions.rows, actions, self.height, self.width, self.line, self.fall)

    def follow(self, positions: Positions, index: np.ndarray, paths: np.ndarray, lengths: np.ndarray) -> Positions:
        """New positions `[K]`: position index `[K]` after the first lengths `[K]` actions of paths `[K, D]`."""
        rows = positions.rows[index]
        _follow(rows, paths, lengths, self.height, self.width, self.line, self.fall)
        return Positions(rows, positions.history[index])

    def outcome(self, positions: Positions) -> np.ndarray:
        """1 if the side to move has won, −1 lost, 0 drawn, float32 `[K]`; nan where the game goes on."""
        rows = positions.rows
        result = np.where(rows[:, MOVES] == self.height * self.width, 0.0, np.nan).astype(np.float32)
        won = rows[:, WON] > 0
        result[won] = np.where(rows[won, WON] == rows[won, TURN], 1.0, -1.0)
        return result

    def planes(self, positions: Positions) -> np.ndarray:
        """Own stones and the other's, uint8 `[K, 2, H, W]`, from the view of the side to move."""
        squares = positions.rows[:, HEAD:].reshape(-1, self.height, self.width)
        turn = positions.rows[:, TURN, None, None]
        return np.stack([squares == turn, squares == 3 - turn], 1).astype(np.uint8)


TIC_TAC_TOE = Line()
CONNECT_FOUR = Line(6, 7, 4, fall=True)


@jit
def _put(row, action, height, width, line, fall):
    if row[WON] or row[MOVES] == height * width:
        return
    me, square = row[TURN], action
    if fall:
        while square + width < height * width and row[HEAD + square + width] == 0:
            square += width
    row[HEAD + square] = me
    row[TURN] = 3 - me
    row[MOVES] += 1
    r, c = square // width, square % width
    for dr, dc in ((0, 1), (1, 0), (1, 1), (1, -1)):
        count = 1
        for sign in (-1, 1):
            y, x = r + sign * dr, c + sign * dc
            while 0 <= y < height and 0 <= x < width and row[HEAD + y * width + x] == me:
                count += 1
                y += sign * dr
                x += sign * dc
        if count >= line:
            row[WON] = me


@jit
def _play(rows, actions, height, width, line, fall):
    for k in range(len(rows)):
        _put(rows[k], np.int64(actions[k]), height, width, line, fall)


@jit
def _follow(rows, paths, lengths, height, width, line, fall):
    for k in range(len(rows)):
        for d in range(lengths[k]):
            _put(rows[k], np.int64(paths[k, d]), height, width, line, fall)
