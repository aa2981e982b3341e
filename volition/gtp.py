"""The Go Text Protocol, version 2: a player behind standard input and output, for GoGui, Sabaki and referees."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import numpy as np

from volition import __version__
from volition.applications._go_player import Player
from volition.data import sgf
from volition.envs import go
from volition.envs.go_game import Go
from volition.envs.go_render import COLUMNS, text
from volition.errors import VolitionError

COLOURS = {"b": go.BLACK, "black": go.BLACK, "w": go.WHITE, "white": go.WHITE}


def vertex(action: int, size: int) -> str:
    """An action as GTP writes it: A1 is the lower left corner, there is no column I."""
    if action == size * size:
        return "pass"
    return f"{COLUMNS[action % size]}{size - action // size}"


def action_of(text: str, size: int) -> int:
    """The action of a vertex."""
    if text.lower() == "pass":
        return size * size
    found = re.fullmatch(r"([A-HJ-Za-hj-z])(\d{1,2})", text)
    if not found or COLUMNS.index(found[1].upper()) >= size or not 1 <= int(found[2]) <= size:
        raise VolitionError(f"invalid vertex {text}")
    return (size - int(found[2])) * size + COLUMNS.index(found[1].upper())


class Engine:
    """Answers GTP's commands for a player; `sizes` are the boards that it can play on."""

    def __init__(self, player: Player, sizes: Iterable[int] = range(2, go.LARGEST + 1)) -> None:
        self.player, self.sizes = player, set(sizes)
        self.left: dict[int, tuple[float, int] | None] = {go.BLACK: None, go.WHITE: None}
        self.commands: dict[str, Callable[[list[str]], str]] = {
            "protocol_version": lambda _: "2",
            "name": lambda _: "Volition",
            "version": lambda _: __version__,
            "list_commands": lambda _: "\n".join(self.commands),
            "known_command": lambda words: "true" if words and words[0] in self.commands else "false",
            "quit": lambda _: "",
            "boardsize": self.boardsize,
            "clear_board": self.clear_board,
            "komi": self.komi,
            "play": self.play,
            "genmove": self.genmove,
            "undo": self.undo,
            "time_settings": self.time_settings,
            "time_left": self.time_left,
            "final_score": self.final_score,
            "loadsgf": self.loadsgf,
            "showboard": self.showboard,
        }

    def answer(self, line: str) -> str | None:
        """The answer to one line, or None where GTP asks for none: empty lines and comments."""
        line = "".join(c for c in line.split("#")[0].replace("\t", " ") if c >= " ").strip()
        if not line:
            return None
        words = line.split()
        number = words.pop(0) if words[0].isdigit() else ""
        if not words:
            return f"?{number} no command\n\n"
        command = self.commands.get(words[0])
        if command is None:
            return f"?{number} unknown command\n\n"
        try:
            return f"={number} {command(words[1:])}".rstrip() + "\n\n"
        except VolitionError as error:
            return f"?{number} {error}\n\n"

    def warm(self) -> None:
        """Have everything compiled before the clock runs: numba does so at first use, and keeps it on disk."""
        rules, seconds = self.player.rules, self.player.seconds
        self.player.seconds = 0.01
        for colour in (go.BLACK, go.WHITE):
            self.player.play(colour, self.player.choose(colour) or 0)
        self.player.clear(rules)
        self.player.seconds = seconds

    def serve(self, lines: Iterable[str], out: IO[str]) -> None:
        """Answer lines until `quit` or their end."""
        for line in lines:
            answer = self.answer(line)
            if answer is not None:
                out.write(answer)
                out.flush()
            if line.split("#")[0].split()[-1:] == ["quit"]:
                return

    def boardsize(self, words: list[str]) -> str:
        size = int(_numbers(words, 1)[0])
        if size not in self.sizes:
            raise VolitionError("unacceptable size")
        self._begin(Go(size, self.player.rules.komi, self.player.rules.ko))
        return ""

    def clear_board(self, _: list[str]) -> str:
        self._begin(self.player.rules)
        return ""

    def komi(self, words: list[str]) -> str:
        rules, played = self.player.rules, self.player.played
        self.player.clear(Go(rules.size, _numbers(words, 1)[0], rules.ko))
        for colour, action in played:
            self.player.play(colour, action)
        return ""

    def play(self, words: list[str]) -> str:
        if len(words) != 2 or words[0].lower() not in COLOURS:
            raise VolitionError("syntax error: play COLOUR VERTEX")
        self.player.play(COLOURS[words[0].lower()], action_of(words[1], self.player.rules.size))
        return ""

    def genmove(self, words: list[str]) -> str:
        if len(words) != 1 or words[0].lower() not in COLOURS:
            raise VolitionError("syntax error: genmove COLOUR")
        colour = COLOURS[words[0].lower()]
        left = self.left[colour]
        action = self.player.choose(colour, *(left or (None, 0)))
        if action is None:
            return "resign"
        self.player.play(colour, action)
        return vertex(action, self.player.rules.size)

    def undo(self, _: list[str]) -> str:
        self.player.undo()
        return ""

    def time_settings(self, words: list[str]) -> str:
        main, extra, stones = _numbers(words, 3)
        # 0 stones with extra time are no limit, by the protocol's own odd rule
        clock = None if extra > 0 and stones == 0 else (main, 0) if main > 0 else (extra, int(stones))
        self.left = {go.BLACK: clock, go.WHITE: clock}
        return ""

    def time_left(self, words: list[str]) -> str:
        if len(words) != 3 or words[0].lower() not in COLOURS:
            raise VolitionError("syntax error: time_left COLOUR SECONDS STONES")
        seconds, stones = _numbers(words[1:], 2)
        self.left[COLOURS[words[0].lower()]] = (seconds, int(stones))
        return ""

    def final_score(self, _: list[str]) -> str:
        score = self.player.score()
        return "0" if score == 0 else f"{'B' if score > 0 else 'W'}+{abs(score):g}"

    def loadsgf(self, words: list[str]) -> str:
        if not words:
            raise VolitionError("syntax error: loadsgf FILE [MOVE]")
        try:
            game = sgf.parse(sgf.decode(Path(words[0]).read_bytes()))
        except (OSError, VolitionError):
            raise VolitionError("cannot load file") from None
        if game.size not in self.sizes or any(len(points) for points in game.setup):
            raise VolitionError(f"cannot load file: a board of {game.size} or stones set up are not for this player")
        komi = self.player.rules.komi if game.komi is None else game.komi
        self._begin(Go(game.size, komi, self.player.rules.ko))
        most = int(_numbers(words[1:], 1)[0]) - 1 if len(words) > 1 else len(game.moves)
        for colour, action in list(zip(game.colours, game.moves, strict=True))[:most]:
            self.player.play(go.BLACK if colour == 1 else go.WHITE, int(action))
        return ""

    def showboard(self, _: list[str]) -> str:
        return "\n" + text(self.player.positions.rows[0])

    def _begin(self, rules: Go) -> None:
        self.player.clear(rules)


def _numbers(words: list[str], count: int) -> list[float]:
    try:
        found = [float(word) for word in words[:count]]
        if len(found) < count or not np.isfinite(found).all():
            raise ValueError
    except ValueError:
        raise VolitionError(f"syntax error: {count} number{'s' if count > 1 else ''} wanted") from None
    return found
