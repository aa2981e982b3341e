"""A game of Go as a request tells it: its moves, replayed by the rules, and what the board then is."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from volition.core.game import Positions
from volition.data import sgf
from volition.data.go_record import Record
from volition.envs import go
from volition.envs.go_game import KO, Go
from volition.envs.go_render import COLUMNS, colours
from volition.web.guard import Refused

MOST_KOMI = 500.0


@dataclass(frozen=True, eq=False)
class Game:
    """Actions `moves` from the empty board, black first and in turn, and the position after them."""

    rules: Go
    moves: list[int]
    positions: Positions
    """One position."""

    @property
    def row(self) -> np.ndarray:
        """The position as the rules hold it, int32 `[S]`."""
        return self.positions.rows[0]

    @property
    def over(self) -> bool:
        """After two passes, or the most moves of a game."""
        return bool(self.rules.over(self.positions)[0])

    def add(self, action: int) -> None:
        """Play on; Refused with the reason where the rules forbid it."""
        if self.over:
            raise Refused(422, f"move {len(self.moves) + 1}: the game is over")
        wrong = forbidden(self.rules, self.positions, action)
        if wrong:
            raise Refused(422, wrong)
        self.rules.play(self.positions, np.array([action]))
        self.moves.append(action)


def read(body: dict[str, Any], sizes: set[int]) -> Game:
    """The game of a request: `size` (one of `sizes`), `komi` and `moves`, actions from the empty board."""
    size, komi, moves = body.get("size"), body.get("komi"), body.get("moves")
    if type(size) is not int or size not in sizes:
        asked = size if type(size) is int and 0 <= size < 100 else "no such"
        only = "2 to 25" if len(sizes) > 1 else f"{min(sizes)} only"
        raise Refused(422, f"a board of {asked} size: this opponent plays on boards of side {only}")
    if not isinstance(komi, int | float) or isinstance(komi, bool) or not abs(komi) <= MOST_KOMI:  # nan is not
        raise Refused(422, f"komi must be a number from -{MOST_KOMI:g} to {MOST_KOMI:g}")
    rules = Go(size, float(komi))
    if not isinstance(moves, list) or any(type(a) is not int or not 0 <= a <= size**2 for a in moves):
        raise Refused(422, f"moves must be a list of numbers from 0 to {size**2}, which is the pass")
    if len(moves) > rules.moves:
        raise Refused(422, f"a game on this board has at most {rules.moves} moves, not {len(moves)}")
    game = Game(rules, [], rules.start(1))
    for action in moves:
        game.add(action)
    return game


def forbidden(rules: Go, positions: Positions, action: int) -> str | None:
    """Why an action may not be played in the one position given, or None where it may."""
    if rules.legal(positions)[0, action]:
        return None
    row, n = positions.rows[0], rules.size
    point, name = go.to_point(n, action), f"{COLUMNS[action % n]}{n - action // n}"
    if row[go.at(point, go.COLOUR)] != go.EMPTY:
        return f"{name} is occupied"
    if point == row[go.KO]:
        return f"{name} is forbidden by ko: it would bring back the board before the last move; play elsewhere first"
    if go.repeats(row, point, positions.history[0, : row[go.MOVES] + 1], KO[rules.ko]):
        return f"{name} is forbidden by superko: this very board was there before"
    return f"{name} would be suicide: the stones would have no liberty and take none"


def state(game: Game) -> dict[str, Any]:
    """What a page shows of the position; `captures` are stones taken by black and by white."""
    row, n, moves = game.row, game.rules.size, game.moves
    board = colours(game.positions.rows)[0].ravel()
    played = [sum(a < n * n for a in moves[first::2]) for first in (0, 1)]
    lost = [played[i] - int((board == colour).sum()) for i, colour in enumerate((go.BLACK, go.WHITE))]
    found: dict[str, Any] = {
        "board": board.tolist(),
        "turn": int(row[go.TURN]),
        "captures": lost[::-1],
        "moves": len(moves),
        "over": game.over,
    }
    if game.over:
        owner = np.empty(go.points(n), np.int8)
        go.area(row, owner)
        owners = np.array([owner[go.to_point(n, a)] for a in range(n * n)])
        found["owner"] = owners.tolist()
        found["area"] = [int((owners == colour).sum()) for colour in (go.BLACK, go.WHITE)]
        found["score"] = float(game.rules.score(game.positions)[0])
    return found


def record(game: Game, body: dict[str, Any], opponent: str) -> str:
    """The game as SGF: `you` is the colour of the person, `resigned` who gave up, 1 black, 2 white, 0 nobody."""
    you, resigned = body.get("you"), body.get("resigned", 0)
    if you not in (go.BLACK, go.WHITE) or resigned not in (0, go.BLACK, go.WHITE):
        raise Refused(422, "you must be 1 (black) or 2 (white), and resigned 0, 1 or 2")
    result, names = "", ("You", f"Volition {opponent}") if you == go.BLACK else (f"Volition {opponent}", "You")
    if resigned:
        result = "W+R" if resigned == go.BLACK else "B+R"
    elif game.over:
        score = float(game.rules.score(game.positions)[0])
        result = "0" if score == 0 else f"{'B' if score > 0 else 'W'}+{abs(score):g}"
    turns = np.where(np.arange(len(game.moves)) % 2 == 0, 1, -1).astype(np.int8)
    return sgf.write(
        Record(
            game.rules.size, np.array(game.moves, np.int16), turns, game.rules.komi, rules="Chinese", result=result,
            black=names[0], white=names[1],
        )
    )  # fmt: skip
