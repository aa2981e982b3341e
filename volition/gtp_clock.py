"""A player's clock by the Go Text Protocol: main time, then Canadian overtime; it also counts what nobody tells it."""

import numpy as np

from volition.errors import VolitionError

LATENCY = 0.02  # seconds of each move that the referee's clock counts and ours does not, on a machine with time for us
CALM = 0.9  # share of the last lateness that is still expected after a move that was in time
MOST = 1.0  # seconds that a referee's clock may be behind ours because a machine is busy, not because it was set anew


class Clock:
    """One side's time in seconds: `main`, then again and again `extra` for `stones` moves; no `limit`, no clock.

    `late` is by how much moves took longer than they were meant to: the largest of late, fading.
    """

    def __init__(self) -> None:
        self.limit = False
        self.main = self.extra = self.left = self.late = 0.0
        self.stones = self.moves = 0  # moves left in this period of overtime, 0 in main time

    def set(self, main: float, extra: float, stones: float) -> None:
        """`time_settings`; overtime for 0 stones is no limit, by the protocol's own rule."""
        if min(main, extra, stones) < 0 or stones != int(stones):
            raise VolitionError("syntax error: seconds and stones are 0 or more")
        self.limit = not (extra > 0 and stones == 0)
        self.main, self.extra, self.stones = main, extra, int(stones)
        self.left, self.moves, self.late = main, 0, 0.0
        if main == 0 and extra > 0:
            self.left, self.moves = extra, int(stones)

    def tell(self, left: float, moves: float) -> None:
        """`time_left`: the referee's clock is the one that counts."""
        if moves < 0 or moves != int(moves):
            raise VolitionError("syntax error: stones are 0 or more")
        if self.limit and moves == self.moves and 0 < self.left - left < MOST:
            self.late = max(self.late, self.left - left)  # what only the referee has seen
        self.limit = True
        self.left, self.moves = max(left, 0.0), int(moves)

    def spend(self, seconds: float, late: float = 0.0) -> None:
        """A move took so long, of which it was late by some.

        Who is late on a busy machine was woken up late as well, which only the referee has seen: that counts twice.
        """
        self.late = max(late, CALM * self.late)
        self.left -= seconds + LATENCY + late
        if self.moves:
            self.moves -= 1
            if self.moves == 0:
                self.left, self.moves = self.extra, self.stones
        elif self.left <= 0 and self.extra > 0:  # overtime has begun with this move
            self.left, self.moves = self.extra + self.left, self.stones - 1
            if self.moves == 0:
                self.left, self.moves = self.extra, self.stones
        self.left = max(self.left, 0.0)

    def share(self) -> tuple[float | None, int, float]:
        """What `Player.budget` asks for: seconds left, for how many moves, and what each move may take besides.

        That is overtime to come, less the lateness to be expected.
        """
        if not self.limit:
            return None, 0, 0.0
        spare = self.extra / self.stones if self.stones and not self.moves else 0.0
        return self.left, self.moves, float(np.nan_to_num(spare)) - self.late
