"""Recorded games on the board again: which of them are legal, and the positions in which their moves were played."""

from dataclasses import dataclass

import numpy as np

from volition.core.game import Positions
from volition.data.go_games import Games
from volition.envs import go
from volition.envs.go import jit
from volition.envs.go_game import KO, Go


@dataclass(frozen=True, eq=False)
class Moves:
    """Every legal move of many games: `game` and `ply` int32 `[M]` say which, `whose` int8 1 black, −1 white."""

    games: Games
    rules: Go
    game: np.ndarray
    ply: np.ndarray
    whose: np.ndarray
    broken: int
    """Games that are left off before their end, at a move that is not legal."""
    _stones: np.ndarray
    """Where in `games.setup` the stones of each game begin."""

    def take(self, index: np.ndarray) -> "Moves":
        """The moves of `index`."""
        kept = self.game[index], self.ply[index], self.whose[index]
        return Moves(self.games, self.rules, *kept, self.broken, self._stones)

    def __len__(self) -> int:
        return len(self.game)

    def positions(self, index: np.ndarray) -> tuple[Positions, np.ndarray]:
        """The positions before the moves of `index` `[K]`, and these moves as actions `[K]`."""
        rows = np.empty((len(index), go.row_length(self.rules.size)), np.int32)
        # recorded moves are legal by what was checked once; nobody searches from here, so boards before are not kept
        games, game, ply = self.games, self.game[index], self.ply[index]
        _positions(games.moves, games.start, games.first, games.setup, self._stones, self.rules.size, game, ply, rows)
        history = np.zeros((len(index), 0), np.int64)
        return Positions(rows, history), games.moves[games.start[game] + ply].astype(np.int64)

    def outcome(self, index: np.ndarray) -> np.ndarray:
        """Who won, float32 `[K]`: 1 the side that plays the move, −1 the other, 0 nobody; nan where it is not known."""
        winner = self.games.winner[self.game[index]]
        return np.where(winner == 2, np.nan, winner * self.whose[index]).astype(np.float32)


def replay(games: Games, rules: Go) -> Moves:
    """Play every game until its end or its first illegal move."""
    stones = np.concatenate([[0], np.cumsum(games.handicap, dtype=np.int64)])
    legal = np.zeros(len(games.first), np.int32)
    _replay(games.moves, games.start, games.first, games.setup, stones, rules.size, KO[rules.ko], legal)
    game = np.repeat(np.arange(len(legal), dtype=np.int32), legal)
    ply = np.arange(len(game), dtype=np.int32) - np.repeat(np.cumsum(legal) - legal, legal).astype(np.int32)
    whose = (games.first[game] * (1 - 2 * (ply & 1))).astype(np.int8)
    broken = int((legal < np.diff(games.start)).sum())
    return Moves(games, rules, game, ply, whose, broken, stones)


@jit
def _begin(row, size, first, stones):
    go.clear(row, size)
    for s in stones:
        row[go.TURN] = go.BLACK
        go.play(row, go.to_point(size, np.int64(s)))
    row[go.TURN] = go.BLACK if first == 1 else go.WHITE
    row[go.MOVES] = row[go.LAST] = row[go.BEFORE] = 0
    for p in range(go.points(size)):
        row[go.at(p, go.AGE)] = 0


@jit
def _replay(moves, start, first, setup, stones, size, rule, legal):
    row = np.empty(go.HEAD + 10 * go.points(size), np.int32)
    for g in range(len(legal)):
        _begin(row, size, first[g], setup[stones[g] : stones[g + 1]])
        count = start[g + 1] - start[g]
        past = np.empty(count + 1, np.int64)
        past[0] = go.board_key(row, rule)
        while legal[g] < count:
            p = go.to_point(size, np.int64(moves[start[g] + legal[g]]))
            if not go.legal(row, p) or go.repeats(row, p, past[: legal[g] + 1], rule):
                break
            go.play(row, p)
            legal[g] += 1
            past[legal[g]] = go.board_key(row, rule)


@jit
def _positions(moves, start, first, setup, stones, size, game, ply, rows):
    for k in range(len(game)):
        g = game[k]
        _begin(rows[k], size, first[g], setup[stones[g] : stones[g + 1]])
        for i in range(start[g], start[g] + ply[k]):
            go.play(rows[k], go.to_point(size, np.int64(moves[i])))
