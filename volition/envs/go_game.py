"""Go as a `Game` for searches and learners: batches of positions, their legal moves with superko, and who won."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from volition.core.game import Positions
from volition.envs import go
from volition.envs.go import jit
from volition.errors import VolitionError

KO = {"simple": go.SIMPLE, "positional": go.POSITIONAL, "situational": go.SITUATIONAL}


@dataclass(frozen=True)
class Go:
    """Rules: area scoring, suicide forbidden; over after two passes, or at `limit` moves as the board then stands.

    Actions are r·N + c, row 0 at the top, and N² for a pass.
    """

    size: int = 9
    """Side of the board N."""
    komi: float = 7.0
    """Points for white; with a whole number games can be drawn."""
    ko: Literal["simple", "positional", "situational"] = "positional"
    """Which boards may not come back: the last but one; any; any with the same side to move."""
    limit: int = 0
    """Moves after which a game is counted as it stands; 0 is 3N²."""

    def __post_init__(self) -> None:
        if not 2 <= self.size <= go.LARGEST:
            raise VolitionError(f"a board of side {self.size}: it must be 2 to {go.LARGEST}")
        if self.ko not in KO:
            raise VolitionError(f"ko rule {self.ko!r}: it must be {', '.join(KO)}")
        if self.limit < 0:
            raise VolitionError(f"limit is {self.limit}; it must be 0 or more")

    @property
    def actions(self) -> int:
        """N² points and the pass."""
        return self.size**2 + 1

    @property
    def moves(self) -> int:
        """The most moves of a game."""
        return self.limit or 3 * self.size**2

    def start(self, count: int) -> Positions:
        """Empty boards, black to move."""
        rows = np.empty((count, go.row_length(self.size)), np.int32)
        history = np.zeros((count, self.moves + 1), np.int64)
        _start(rows, history, self.size, KO[self.ko])
        return Positions(rows, history)

    def laid(self, black: Sequence[int], white: Sequence[int] = (), turn: int = go.BLACK) -> Positions:
        """A game that begins with stones on these points; an error if one lies on another or a chain cannot breathe."""
        positions = self.start(1)
        row = positions.rows[0]
        for colour, stones in ((go.BLACK, black), (go.WHITE, white)):
            for action in stones:
                row[go.TURN], row[go.KO] = colour, go.PASS
                point = go.to_point(self.size, action)
                if point == go.PASS or not go.legal(row, point):
                    raise VolitionError(f"a stone set up on point {action} lies on another or has no liberty")
                go.play(row, point)
        if row[go.TAKEN]:
            raise VolitionError("stones set up around others leave them no liberty")
        row[[go.KO, go.MOVES, go.LAST, go.BEFORE, go.PASSES]], row[go.TURN] = 0, turn
        row[go.HEAD + go.AGE : go.HEAD + 8 * go.points(self.size) : 8] = 0
        positions.history[0, 0] = go.board_key(row, KO[self.ko])
        return positions

    def legal(self, positions: Positions) -> np.ndarray:
        """Legal actions, bool `[K, N² + 1]`; the pass always is."""
        mask = np.empty((len(positions.rows), self.actions), np.bool_)
        _legal(*positions, KO[self.ko], mask)
        return mask

    def play(self, positions: Positions, actions: np.ndarray) -> None:
        """Play one legal action `[K]` in each position, in place; positions that are over stay as they are."""
        _play(*positions, actions, KO[self.ko], self.moves)

    def follow(self, positions: Positions, index: np.ndarray, paths: np.ndarray, lengths: np.ndarray) -> Positions:
        """New positions `[K]`: position index `[K]` after the first lengths `[K]` actions of paths `[K, D]`."""
        rows = np.empty((len(index), positions.rows.shape[1]), np.int32)
        history = np.empty((len(index), positions.history.shape[1]), np.int64)
        _follow(*positions, index, paths, lengths, KO[self.ko], self.moves, rows, history)
        return Positions(rows, history)

    def over(self, positions: Positions) -> np.ndarray:
        """Which games are over, bool `[K]`."""
        return (positions.rows[:, go.PASSES] >= 2) | (positions.rows[:, go.MOVES] >= self.moves)

    def score(self, positions: Positions) -> np.ndarray:
        """Black's points less white's and komi, float32 `[K]`: area of the board as it stands (Tromp–Taylor)."""
        points = np.empty(len(positions.rows), np.int32)
        _score(positions.rows, points)
        return (points - self.komi).astype(np.float32)

    def outcome(self, positions: Positions) -> np.ndarray:
        """1 if the side to move has won, −1 lost, 0 drawn, float32 `[K]`; nan where the game goes on."""
        result = np.full(len(positions.rows), np.nan, np.float32)
        over = self.over(positions)
        if over.any():
            ended = positions.take(over)
            black = np.sign(self.score(ended))
            result[over] = np.where(ended.rows[:, go.TURN] == go.BLACK, black, -black)
        return result


@jit
def _start(rows, history, size, rule):
    for k in range(len(rows)):
        go.clear(rows[k], size)
        history[k, 0] = go.board_key(rows[k], rule)


@jit
def _legal(rows, history, rule, mask):
    for k in range(len(rows)):
        go.legal_mask(rows[k], history[k, : rows[k, go.MOVES] + 1], rule, mask[k])


@jit
def step(row, history, action, rule, limit):
    """Play an action and note the new board in the game's history; nothing happens where the game is over."""
    if row[go.PASSES] >= 2 or row[go.MOVES] >= limit:
        return
    go.play(row, go.to_point(row[go.SIZE], action))
    history[row[go.MOVES]] = go.board_key(row, rule)


@jit
def _play(rows, history, actions, rule, limit):
    for k in range(len(rows)):
        step(rows[k], history[k], np.int64(actions[k]), rule, limit)


@jit
def _follow(rows, history, index, paths, lengths, rule, limit, new_rows, new_history):
    for k in range(len(index)):
        i = index[k]
        go.copy(rows[i], new_rows[k])
        count = rows[i, go.MOVES] + 1
        new_history[k, :count] = history[i, :count]
        for d in range(lengths[k]):
            step(new_rows[k], new_history[k], np.int64(paths[k, d]), rule, limit)


@jit
def _score(rows, score):
    owner = np.empty(go.points(rows[0, go.SIZE]), np.int8)
    for k in range(len(rows)):
        score[k] = go.area(rows[k], owner)
