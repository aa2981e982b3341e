"""The record of a game of Go, as files hold it: moves and results, before any rules are applied."""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

OUTCOME = re.compile(r"([bw])(?:lack|hite)?\s*\+\s*(?:(\d|[.,]\d)|(r)|([tf]))?", re.IGNORECASE)
COUNTED, RESIGNED, FORFEITED, UNKNOWN = "counted", "resigned", "forfeited", "unknown"


@dataclass(frozen=True, eq=False)
class Record:
    """The main line of a game of Go: points are row·size + col from the top left, and size² is a pass."""

    size: int
    """Lines of the board."""
    moves: np.ndarray
    """int16 `[N]`: points."""
    colours: np.ndarray
    """int8 `[N]`: who played each move, 1 black and -1 white; they need not alternate."""
    komi: float | None = None
    """What white gets besides; None where the text has no number."""
    rules: str = ""
    """The rules, as written."""
    result: str = ""
    """The result, as written; `winner` and `how` read it."""
    handicap: int = 0
    """Stones that black was given, by the text's HA; where they lie is in `setup`."""
    black: str = ""
    """The name of who played black."""
    white: str = ""
    """The name of who played white."""
    black_rank: str = ""
    """Their rank, as written: 25k, 7d, 7 dan, ? …"""
    white_rank: str = ""
    """Their rank, as written."""
    setup: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """Points of the black and the white stones that lay there before the first move."""
    player: int = 0
    """Who is to begin by the text's PL, 1 or -1; 0 where it does not say."""

    @property
    def first(self) -> int:
        """Who begins: 1 black, -1 white."""
        if len(self.colours):
            return int(self.colours[0])
        return self.player or (-1 if self.handicap > 1 or (self.setup[0] and not self.setup[1]) else 1)

    @property
    def winner(self) -> int | None:
        """1 black, -1 white, 0 a draw; None where there is no result."""
        return outcome(self.result)[0]

    @property
    def how(self) -> str:
        """How the result came about: "counted", "resigned", "forfeited" (on time too), "unknown"."""
        return outcome(self.result)[1]

    @property
    def scored(self) -> bool:
        """Whether the final position was counted, so that the result says something about its points."""
        return self.how == COUNTED


@lru_cache(4096)
def outcome(result: str) -> tuple[int | None, str]:
    """The winner (1, -1, 0 or None) and how the result came about, of the text of RE."""
    text = result.strip()
    if text.lower() in ("0", "draw", "jigo"):
        return 0, COUNTED
    if not (found := OUTCOME.match(text)):
        return None, UNKNOWN
    how = next((how for how, part in zip((COUNTED, RESIGNED, FORFEITED), found.groups()[1:], strict=True) if part), "")
    return (1 if found[1] in "bB" else -1), how or UNKNOWN
