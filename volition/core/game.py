"""What a search or a learner needs to know of a game for two, many positions at a time."""

from typing import NamedTuple, Protocol

import numpy as np


class Positions(NamedTuple):
    """K positions: `rows` int32 `[K, S]`, laid out as the game likes, `history` int64 `[K, H]`, keys of what was."""

    rows: np.ndarray
    history: np.ndarray

    def take(self, index: slice | np.ndarray) -> "Positions":
        """Those of `index`: views for a slice, else copies."""
        return Positions(self.rows[index], self.history[index])


class Game(Protocol):
    """Rules of a game for two who move in turn and of whom one wins what the other loses."""

    @property
    def actions(self) -> int:
        """Number of actions A; which are legal depends on the position."""
        ...

    def start(self, count: int) -> Positions:
        """`count` games at their beginning."""
        ...

    def legal(self, positions: Positions) -> np.ndarray:
        """Which actions are legal, bool `[K, A]`; at least one where the game is not over."""
        ...

    def play(self, positions: Positions, actions: np.ndarray) -> None:
        """Play one legal action `[K]` in each position, in place."""
        ...

    def follow(self, positions: Positions, index: np.ndarray, paths: np.ndarray, lengths: np.ndarray) -> Positions:
        """New positions `[K]`: position index `[K]` after the first lengths `[K]` actions of paths `[K, D]`."""
        ...

    def outcome(self, positions: Positions) -> np.ndarray:
        """float32 `[K]`: 1 if the side to move has won, −1 lost, 0 drawn; nan where the game goes on."""
        ...
