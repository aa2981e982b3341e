"""The Go Text Protocol, version 2: a player behind standard input and output, for GoGui, Sabaki and referees."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from volition import __version__, gtp_analysis, gtp_record
from volition.applications._go_player import Player
from volition.envs import go, go_life
from volition.envs.go_game import Go
from volition.envs.go_render import text
from volition.errors import VolitionError
from volition.gtp_board import COLOURS, action_of, colour_of, handicap, numbers, vertex, whole
from volition.gtp_clock import Clock
from volition.gtp_lines import Inbox

STATUS = {"alive": go_life.ALIVE, "dead": go_life.DEAD, "seki": go_life.SEKI}


class Engine:
    """Answers GTP's commands for a player; `sizes` are the boards that it can play on."""

    def __init__(self, player: Player, sizes: Iterable[int] = range(2, go.LARGEST + 1)) -> None:
        self.player, self.sizes = player, set(sizes)
        self.clocks = {go.BLACK: Clock(), go.WHITE: Clock()}
        self.quitting = False
        self.waiting: gtp_analysis.Waiting = lambda _: True  # without a stream an analysis is one report
        self.commands: dict[str, Callable[[list[str]], str | Iterator[str]]] = {
            "protocol_version": lambda _: "2",
            "name": lambda _: "Volition",
            "version": lambda _: __version__,
            "list_commands": lambda _: "\n".join(self.commands),
            "known_command": lambda words: "true" if words and words[0] in self.commands else "false",
            "quit": self.quit,
            "boardsize": self.boardsize,
            "clear_board": self.clear_board,
            "komi": self.komi,
            "fixed_handicap": self.fixed_handicap,
            "place_free_handicap": self.place_free_handicap,
            "set_free_handicap": self.set_free_handicap,
            "play": self.play,
            "genmove": self.genmove,
            "reg_genmove": self.reg_genmove,
            "kgs-genmove_cleanup": self.genmove_cleanup,
            "undo": self.undo,
            "time_settings": self.time_settings,
            "time_left": self.time_left,
            "final_score": self.final_score,
            "final_status_list": self.final_status_list,
            "loadsgf": self.loadsgf,
            "printsgf": lambda _: gtp_record.text(self.player).rstrip(),
            "savesgf": self.savesgf,
            "showboard": lambda _: "\n" + text(self.player.positions.rows[0]),
            "lz-analyze": lambda words: self.analyze(words, gtp_analysis.lz),
            "lz-genmove_analyze": lambda words: self.genmove_analyze(words, gtp_analysis.lz),
            "kata-analyze": lambda words: self.analyze(words, gtp_analysis.kata),
            "kata-genmove_analyze": lambda words: self.genmove_analyze(words, gtp_analysis.kata),
            "gogui-analyze_commands": lambda _: "\n".join(gtp_analysis.GOGUI),
            "volition-policy": lambda _: gtp_analysis.policy(self.player),
            "volition-owners": lambda _: gtp_analysis.owned(self.player),
            "volition-search": lambda _: gtp_analysis.visits(self.player),
            "volition-value": lambda _: gtp_analysis.value(self.player),
        }

    def answer(self, line: str) -> str | None:
        """The answer to one line, or None where GTP asks for none: empty lines and comments."""
        return "".join(self.parts(line)) or None

    def parts(self, line: str) -> Iterator[str]:
        """The answer to one line, in parts as they come."""
        words = "".join(c for c in line.split("#")[0].replace("\t", " ") if c >= " " and c != "\x7f").split()
        if not words:
            return
        number = words.pop(0) if words[0].isascii() and words[0].isdigit() else ""
        if not words:
            yield f"?{number} no command\n\n"
            return
        command = self.commands.get(words[0])
        if command is None:
            yield f"?{number} unknown command\n\n"
            return
        try:
            found = command(words[1:])
            if isinstance(found, str):
                yield f"={number} {found}".rstrip() + "\n\n"
                return
            yield f"={number}\n"
            yield from found
            yield "\n"
        except VolitionError as error:  # what it repeats may be no text that every terminal writes
            yield f"?{number} {error}".encode("ascii", "replace").decode() + "\n\n"

    def warm(self) -> None:
        """Have everything compiled before the clock runs: numba does so at first use, and keeps it on disk."""
        rules, seconds = self.player.rules, self.player.seconds
        self.player.seconds = 0.01
        for colour in (go.BLACK, go.WHITE):
            self.player.play(colour, self.player.choose(colour) or 0)
        self.player.candidates()
        self.player.play(go.BLACK, rules.size**2)
        self.player.choose(go.WHITE)
        self.player.clear(rules)
        self.player.seconds = seconds

    def serve(self, lines: Iterable[str], out: IO[str]) -> None:
        """Answer lines until `quit` or their end."""
        inbox = Inbox(lines)
        self.waiting = inbox.waiting
        while not self.quitting and (line := inbox.get()) is not None:
            for part in self.parts(line):
                out.write(part)
                out.flush()

    def quit(self, _: list[str]) -> str:
        self.quitting = True
        return ""

    def boardsize(self, words: list[str]) -> str:
        size = whole(words)
        if size not in self.sizes:
            raise VolitionError("unacceptable size")
        self.player.clear(Go(size, self.player.rules.komi, self.player.rules.ko))
        return ""

    def clear_board(self, _: list[str]) -> str:
        self.player.clear(self.player.rules)
        return ""

    def komi(self, words: list[str]) -> str:
        rules = self.player.rules
        self.player.replay(Go(rules.size, numbers(words, 1)[0], rules.ko), self.player.played)
        return ""

    def fixed_handicap(self, words: list[str]) -> str:
        return self._handicap(handicap(whole(words), self.player.rules.size))

    def place_free_handicap(self, words: list[str]) -> str:
        """Fixed points, and fewer stones than asked for where there are no more of these."""
        size = self.player.rules.size
        most = 4 if size == 7 or size % 2 == 0 else 9
        return self._handicap(handicap(min(whole(words), most), size))

    def set_free_handicap(self, words: list[str]) -> str:
        size = self.player.rules.size
        points = [action_of(word, size) for word in words]
        if len(points) < 2 or len(set(points)) < len(points) or size * size in points or len(points) >= size * size:
            raise VolitionError("bad vertex list")
        self._handicap(points)
        return ""

    def play(self, words: list[str]) -> str:
        if len(words) != 2 or words[0].lower() not in COLOURS:
            raise VolitionError("syntax error: play COLOUR VERTEX")
        self.player.play(COLOURS[words[0].lower()], action_of(words[1], self.player.rules.size))
        return ""

    def genmove(self, words: list[str]) -> str:
        return self._move(words, self.player.choose)

    def genmove_cleanup(self, words: list[str]) -> str:
        """As `genmove`, and no pass while dead stones of the other side are on the board."""
        return self._move(words, self.player.clean)

    def reg_genmove(self, words: list[str]) -> str:
        return self._vertex(self.player.choose(self._colour(words)))

    def undo(self, _: list[str]) -> str:
        self.player.undo()
        return ""

    def time_settings(self, words: list[str]) -> str:
        settings = numbers(words, 3)
        for clock in self.clocks.values():
            clock.set(*settings)
        return ""

    def time_left(self, words: list[str]) -> str:
        if len(words) != 3 or words[0].lower() not in COLOURS:
            raise VolitionError("syntax error: time_left COLOUR SECONDS STONES")
        seconds, stones = numbers(words[1:], 2)
        self.clocks[COLOURS[words[0].lower()]].tell(seconds, stones)
        return ""

    def final_score(self, _: list[str]) -> str:
        return gtp_record.result(self.player.count())

    def final_status_list(self, words: list[str]) -> str:
        """Chains of one status, each in a line."""
        if len(words) != 1 or words[0] not in STATUS:
            raise VolitionError("syntax error: final_status_list alive|dead|seki")
        size, row = self.player.rules.size, self.player.positions.rows[0]
        chains: dict[int, list[str]] = {}
        for action in np.flatnonzero(self.player.status() == STATUS[words[0]]):
            chain = int(row[go.at(go.to_point(size, int(action)), go.CHAIN)])
            chains.setdefault(chain, []).append(vertex(int(action), size))
        return "\n".join(" ".join(chain) for chain in chains.values())

    def loadsgf(self, words: list[str]) -> str:
        """A game up to, and without, a move; the game before stays where it cannot be loaded."""
        if not words:
            raise VolitionError("syntax error: loadsgf FILE [MOVE]")
        most = max(whole(words[1:]) - 1, 0) if len(words) > 1 else None
        gtp_record.load(self.player, Path(words[0]), self.sizes, most)
        return ""

    def savesgf(self, words: list[str]) -> str:
        if len(words) != 1:
            raise VolitionError("syntax error: savesgf FILE")
        try:
            Path(words[0]).write_text(gtp_record.text(self.player), encoding="utf-8")
        except OSError as error:
            raise VolitionError(f"cannot save file: {error.strerror}") from None
        return ""

    def analyze(self, words: list[str], told: gtp_analysis.Told) -> Iterator[str]:
        wanted = gtp_analysis.wish(words, self.player.turn)
        return gtp_analysis.analyze(self.player, wanted, told, self.waiting)

    def genmove_analyze(self, words: list[str], told: gtp_analysis.Told) -> Iterator[str]:
        wanted = gtp_analysis.wish(words, self.player.turn)
        return self._told_move(wanted, told)

    def _told_move(self, wanted: gtp_analysis.Wish, told: gtp_analysis.Told) -> Iterator[str]:
        begun, budget = time.monotonic(), self.player.budget(*self.clocks[wanted.colour].share())
        yield from gtp_analysis.thinking(self.player, wanted, told, budget)
        action = self.player.decide()
        if action is not None:
            self.player.play(wanted.colour, action)
        self._spend(wanted.colour, time.monotonic() - begun, budget)
        yield f"play {self._vertex(action)}\n"

    def _move(self, words: list[str], choose: Callable[..., int | None]) -> str:
        begun, colour = time.monotonic(), self._colour(words)
        share = self.clocks[colour].share()
        budget, action = self.player.budget(*share), choose(colour, *share)
        if action is not None:
            self.player.play(colour, action)
        self._spend(colour, time.monotonic() - begun, budget)
        return self._vertex(action)

    def _spend(self, colour: int, seconds: float, budget: float) -> None:
        self.clocks[colour].spend(seconds, max(0.0, seconds - budget))

    def _vertex(self, action: int | None) -> str:
        return "resign" if action is None else vertex(action, self.player.rules.size)

    def _colour(self, words: list[str]) -> int:
        if len(words) != 1:
            raise VolitionError("syntax error: one colour wanted")
        return colour_of(words[0])

    def _handicap(self, points: list[int]) -> str:
        player = self.player
        if player.played or player.laid:
            raise VolitionError("board not empty")
        player.lay(points, turn=go.WHITE)
        return " ".join(vertex(point, player.rules.size) for point in points)
