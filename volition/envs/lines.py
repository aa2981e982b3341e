"""Games of stones in a line, as a `Game`: tic-tac-toe and, where stones fall to the bottom, Connect Four."""

from dataclasses import dataclass

import numpy as np

from volition.core.game import Positions
from volition.core.tree import jit
from volition.envs.go import next_random

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


class LineGames:
    """A `rollout` for searches: results `[K]` of one random game from each position, for the side to move."""

    def __init__(self, game: Line, seed: int = 0) -> None:
        self.game = game
        self.random = np.array([seed * 2 + 0x9E3779B97F4A7C15 & (2**64 - 1) | 1], np.uint64)

    def __call__(self, positions: Positions) -> np.ndarray:
        results = np.empty(len(positions.rows), np.float32)
        game = self.game
        _judge(positions.rows.copy(), self.random, game.height, game.width, game.line, game.fall, results)
        return results


def solve(game: Line) -> tuple[Positions, np.ndarray, np.ndarray]:
    """Perfect play of a small game: all positions in which it goes on, their values `[K]`, and of each action `[K, A]`.

    Values are 1, 0 or −1 for the side to move; of an action that is not legal it is nan. All positions have to fit
    into memory: tic-tac-toe has 4,520.
    """
    layers = [np.unique(game.start(1).rows, axis=0)]
    while len(rows := layers[-1]):
        positions = Positions(rows, np.zeros((len(rows), 0), np.int64))
        at, actions = np.nonzero(game.legal(positions))
        after = game.follow(positions, at, actions[:, None], np.ones(len(at), np.int64))
        layers.append(np.unique(after.rows, axis=0) if len(at) else after.rows)
    known: dict[bytes, float] = {}
    found = []
    for rows in reversed(layers):
        positions = Positions(rows, np.zeros((len(rows), 0), np.int64))
        values = game.outcome(positions)
        each = np.full((len(rows), game.actions), np.nan, np.float32)
        at, actions = np.nonzero(game.legal(positions))
        after = game.follow(positions, at, actions[:, None], np.ones(len(at), np.int64))
        each[at, actions] = [-known[row.tobytes()] for row in after.rows]
        going = np.isnan(values)
        values[going] = np.nanmax(each[going], axis=1) if going.any() else 0
        known |= {row.tobytes(): float(value) for row, value in zip(rows, values, strict=True)}
        found.append((rows[going], values[going], each[going]))
    rows, values, each = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Positions(rows, np.zeros((len(rows), 0), np.int64)), values, each


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
def _judge(rows, random, height, width, line, fall, results):
    actions = width if fall else height * width
    for k in range(len(rows)):
        row, turn = rows[k], rows[k, TURN]
        while row[WON] == 0 and row[MOVES] < height * width:
            a = (next_random(random) * actions) >> np.int64(32)
            if row[HEAD + a] == 0:
                _put(row, a, height, width, line, fall)
        results[k] = 0.0 if row[WON] == 0 else 1.0 if row[WON] == turn else -1.0


@jit
def _play(rows, actions, height, width, line, fall):
    for k in range(len(rows)):
        _put(rows[k], np.int64(actions[k]), height, width, line, fall)


@jit
def _follow(rows, paths, lengths, height, width, line, fall):
    for k in range(len(rows)):
        for d in range(lengths[k]):
            _put(rows[k], np.int64(paths[k, d]), height, width, line, fall)
