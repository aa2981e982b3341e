"""What a player thinks, told by the Go Text Protocol while it thinks: for Sabaki, Lizzie and GoGui."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from volition.applications._go_player import Candidate, Player
from volition.envs import go
from volition.envs.go_life import owners
from volition.errors import VolitionError
from volition.gtp_board import COLOURS, colour_of, vertex, whole

SLICE = 0.05  # seconds of search between two looks whether something is asked
GAMES = 200  # random games of a picture of who owns what

Waiting = Callable[[float], bool]
"""Whether a command is there or comes within these seconds."""
Told = Callable[[list[Candidate], int], str]
"""Candidates on a board of a size, in one line."""

GOGUI = (
    "dboard/Policy/volition-policy",
    "dboard/Owners/volition-owners",
    "gfx/Search/volition-search",
    "string/Value/volition-value",
)


class Wish(NamedTuple):
    """What an analysis is asked for."""

    colour: int
    interval: float = 1.0
    """Seconds between two reports."""
    most: int = 1_000
    """Moves of a report."""
    ownership: bool = False


def wish(words: list[str], turn: int) -> Wish:
    """Arguments `[COLOUR] [CENTISECONDS] [interval CENTISECONDS] [maxmoves N] [minmoves N] [ownership true]`."""
    rest = list(words)
    colour = colour_of(rest.pop(0)) if rest and rest[0].lower() in COLOURS else turn
    found = Wish(colour)
    if rest and rest[0].isdigit():
        found = found._replace(interval=max(whole(rest), 1) / 100)
        rest.pop(0)
    while rest:
        name, value = rest.pop(0), rest.pop(0) if rest else ""
        if name == "interval":
            found = found._replace(interval=max(whole([value]), 1) / 100)
        elif name == "maxmoves":
            found = found._replace(most=max(whole([value]), 1))
        elif name == "ownership" and value in ("true", "false"):
            found = found._replace(ownership=value == "true")
        elif name != "minmoves":
            raise VolitionError(f"syntax error: no {name} here; interval, maxmoves and ownership are known")
    return found


def lz(found: list[Candidate], size: int) -> str:
    """Candidates in one line as Leela Zero tells them: shares in hundredths of a per cent."""
    return " ".join(
        f"info move {vertex(c.action, size)} visits {c.visits} winrate {5_000 * (c.value + 1):.0f} "
        f"prior {10_000 * c.prior:.0f} order {i} pv {_line(c, size)}"
        for i, c in enumerate(found)
    )


def kata(found: list[Candidate], size: int) -> str:
    """Candidates in one line as KataGo tells them: shares of 1."""
    return " ".join(
        f"info move {vertex(c.action, size)} visits {c.visits} winrate {(c.value + 1) / 2:.6f} "
        f"prior {c.prior:.6f} order {i} pv {_line(c, size)}"
        for i, c in enumerate(found)
    )


def analyze(player: Player, wanted: Wish, told: Told, ask: Waiting) -> Iterator[str]:
    """Reports until another command is there, at least one."""
    stop = False
    while not stop:
        until = time.monotonic() + wanted.interval
        while not stop and (left := until - time.monotonic()) > 0:
            going = player.think(wanted.colour, min(SLICE, left))
            stop = ask(0.0 if going else max(until - time.monotonic(), 0.0))
        yield _report(player, wanted, told)


def thinking(player: Player, wanted: Wish, told: Told, seconds: float) -> Iterator[str]:
    """Reports of a search that takes so many seconds."""
    ends = time.monotonic() + seconds
    while True:
        going = player.think(wanted.colour, min(wanted.interval, max(ends - time.monotonic(), 0.0)))
        yield _report(player, wanted, told)
        if not going or time.monotonic() >= ends:
            return


def policy(player: Player) -> str:
    """The network's probability of each point, as GoGui's dboard."""
    if player.evaluate is None:
        raise VolitionError("this player has no network, so no policy: it was started without --run")
    logits = np.where(player.legal(player.turn), player.evaluate(player.positions)[0][0], -np.inf)
    shares = np.exp(logits - logits.max())
    return _grid(shares[:-1] / shares.sum(), player.rules.size)


def owned(player: Player) -> str:
    """Who owns each point at the end of random games, from −1 for white to 1 for black, as GoGui's dboard."""
    return _grid(owners(player.rules, player.positions, GAMES, player.random)[0], player.rules.size)


def visits(player: Player) -> str:
    """The last search as GoGui's gfx: shares of visits in %, and the values of its moves for black."""
    found, size = player.candidates(), player.rules.size
    total, sign = max(sum(c.visits for c in found), 1), 1 if player.turn == go.BLACK else -1
    points = [c for c in found if c.action < size * size]
    labels = " ".join(f"{vertex(c.action, size)} {100 * c.visits / total:.0f}" for c in points)
    values = " ".join(f"{vertex(c.action, size)} {sign * c.value:.2f}" for c in points)
    return f"LABEL {labels}\nINFLUENCE {values}" if points else ""


def value(player: Player) -> str:
    """What the last search thinks of the game."""
    found = player.candidates()
    if not found:
        return "nothing was searched here"
    side = "black" if player.turn == go.BLACK else "white"
    return f"{side} wins {50 + 50 * found[0].value:.1f} %, {sum(c.visits for c in found)} visits"


def _report(player: Player, wanted: Wish, told: Told) -> str:
    line = told(player.candidates()[: wanted.most], player.rules.size)
    if wanted.ownership and line:
        sign = 1 if wanted.colour == go.BLACK else -1
        mine = sign * owners(player.rules, player.positions, GAMES, player.random)[0]
        line += " ownership " + " ".join(f"{share:.3f}" for share in mine)
    return line + "\n" if line else ""


def _line(candidate: Candidate, size: int) -> str:
    return " ".join(vertex(action, size) for action in candidate.line)


def _grid(shares: np.ndarray, size: int) -> str:
    return "\n".join(" ".join(f"{share:.4f}" for share in row) for row in shares.reshape(size, size))
