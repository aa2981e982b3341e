"""Games of Go to learn from: files, folders and archives of SGF as packed arrays, split by game.

Nothing is checked against the rules here: whoever learns from the moves replays them.
"""

import gzip
import hashlib
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from volition.data import sgf
from volition.data.go_record import COUNTED, FORFEITED, RESIGNED, UNKNOWN, Record
from volition.errors import VolitionError

HOW = (UNKNOWN, COUNTED, RESIGNED, FORFEITED)
NO_WINNER = 2
MOST_KOMI = 1e6  # what is beyond is no komi, nor always a float32
PLAIN = (".sgf", ".sgfs", ".sgf.gz", ".sgfs.gz")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
RANK = re.compile(r"(\d{1,2})\s*([kdp])", re.IGNORECASE)
UNREADABLE = (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


@dataclass(frozen=True, eq=False)
class Games:
    """G games of one size of board; points are row·size + col from the top left, and size² is a pass."""

    size: int
    """Lines of the board."""
    moves: np.ndarray
    """uint16 `[M]`: the moves of all games, one game after the other; colours alternate within a game."""
    start: np.ndarray
    """int64 `[G+1]`: game g has the moves `start[g]:start[g + 1]`."""
    first: np.ndarray
    """int8 `[G]`: who begins, 1 black and -1 white."""
    winner: np.ndarray
    """int8 `[G]`: 1 black, -1 white, 0 a draw, 2 unknown."""
    how: np.ndarray
    """uint8 `[G]`: the place in `HOW` of how the result came about; HOW[1] is counted."""
    komi: np.ndarray
    """float32 `[G]`: what white gets besides; nan where the file has no such number."""
    handicap: np.ndarray
    """uint8 `[G]`: black stones that lie there before the first move."""
    black_rank: np.ndarray
    """int8 `[G]`: as `rank` has it."""
    white_rank: np.ndarray
    """int8 `[G]`: as `rank` has it."""
    setup: np.ndarray
    """uint16 `[S]`: points of the handicap stones, one game after the other, `handicap[g]` for each."""
    key: np.ndarray
    """uint64 `[G]`: a hash of stones and moves; no two are the same."""
    sources: tuple[tuple[str, int], ...]
    """Files in the order of the games, with how many games each gave."""
    skipped: dict[str, list[str]]
    """What was left out: for each reason the names of files, of members of archives, and the numbers of games."""

    def __len__(self) -> int:
        return len(self.first)

    def stones(self, game: int) -> np.ndarray:
        """The points of a game's handicap stones."""
        end = int(self.handicap[: game + 1].sum(dtype=np.int64))
        return self.setup[end - int(self.handicap[game]) : end]


@lru_cache(4096)
def rank(text: str) -> int:
    """A rank as a number that grows with strength: 25k = -25 … 1k = -1, 1d = 1 … 9d = 9, 1p = 10 … 9p = 18, else 0.

    Some servers know amateurs above 9d: they count as 9.
    """
    found = RANK.match(text.strip())
    if not found:
        return 0
    number, kind = int(found[1]), found[2].lower()
    if kind == "k":
        return -number
    return (min(number, 9) + (9 if kind == "p" else 0)) if number else 0


def load(path: str | Path | Sequence[Path], size: int, min_moves: int = 1) -> Games:
    """All games on boards of `size` lines in a file, an archive, a folder with all that is below it, or some of these.

    Left out, counted and named are damaged games, those on other boards or of fewer than `min_moves` moves, those whose
    colours do not alternate, those with other stones set up than a handicap's, and all but the first of equal games.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else list(path)
    for path in paths:
        if not path.exists():
            kinds = ", ".join(PLAIN + ARCHIVES)
            raise VolitionError(f"{path} is not there: give a file or a folder of Go games ({kinds})")
    moves, setup, rows = bytearray(), bytearray(), []
    known: set[bytes] = set()
    sources: list[tuple[str, int]] = []
    skipped: dict[str, list[str]] = {}
    for file in (file for path in paths for file in files(path)):
        before = len(rows)
        for name, game in _records(file):
            if isinstance(game, VolitionError):
                skipped.setdefault("damaged", []).append(f"{name}: {game}")
                continue
            if reason := _unfit(game, size, min_moves):
                skipped.setdefault(reason, []).append(name)
                continue
            played = game.moves.astype("<u2").tobytes()
            stones = np.array(game.setup[0], "<u2").tobytes()
            key = hashlib.blake2b(b"%d,%d;" % (game.first, len(stones)) + stones + played, digest_size=8).digest()
            if key in known:
                skipped.setdefault("the same game again", []).append(name)
                continue
            known.add(key)
            moves += played
            setup += stones
            rows.append(
                (
                    len(game.moves),
                    game.first,
                    NO_WINNER if game.winner is None else game.winner,
                    HOW.index(game.how),
                    np.nan if game.komi is None or abs(game.komi) > MOST_KOMI else game.komi,
                    len(game.setup[0]),
                    rank(game.black_rank),
                    rank(game.white_rank),
                    int.from_bytes(key, "little"),
                )
            )
        sources.append((str(file), len(rows) - before))
    if not rows:
        what = "; ".join(f"{len(names)} {reason}, such as {names[0]}" for reason, names in skipped.items())
        places = ", ".join(map(str, paths))
        raise VolitionError(
            f"{places} holds no game on {size}×{size} to learn from ({what or 'no file of games'}): "
            f"give SGF files of that size ({', '.join(PLAIN + ARCHIVES)})"
        )
    types = (np.int64, np.int8, np.int8, np.uint8, np.float32, np.uint8, np.int8, np.int8, np.uint64)
    columns = [np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    return Games(
        size,
        np.frombuffer(bytes(moves), "<u2").astype(np.uint16),
        np.concatenate([[0], columns[0].cumsum()]),
        *columns[1:8],
        setup=np.frombuffer(bytes(setup), "<u2").astype(np.uint16),
        key=columns[8],
        sources=tuple(sources),
        skipped=skipped,
    )


def take(games: Games, which: np.ndarray) -> Games:
    """Some of the games, by number; sources and what was skipped stay those of all."""
    chosen = [np.arange(games.start[g], games.start[g + 1]) for g in which]
    stones = [games.stones(g) for g in which]
    one = ("first", "winner", "how", "komi", "handicap", "black_rank", "white_rank", "key")
    return replace(
        games,
        moves=games.moves[np.concatenate(chosen)] if chosen else games.moves[:0],
        start=np.concatenate([[0], np.diff(games.start)[which].cumsum()]),
        setup=np.concatenate(stones) if stones else games.setup[:0],
        **{name: getattr(games, name)[which] for name in one},
    )


def split(games: Games, validation: float, test: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the games to train with, for validation and for the test, of which those two are about these parts.

    Where a game goes depends on its stones and moves and on the seed alone, so it stays there when files are added.
    """
    if not (0 <= validation and 0 <= test and validation + test < 1):
        raise VolitionError(f"validation {validation} and test {test} are parts of the games: together less than 1")
    with np.errstate(over="ignore"):  # the multiplications of splitmix64 are meant modulo 2⁶⁴
        mixed = games.key + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    place = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**53  # in [0, 1)
    tested, valid = place < test, (place >= test) & (place < test + validation)
    return np.flatnonzero(~tested & ~valid), np.flatnonzero(valid), np.flatnonzero(tested)


def files(path: Path) -> list[Path]:
    """The files of games at a place, sorted; a file that is named itself may end as it likes."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.name.lower().endswith(PLAIN + ARCHIVES) and p.is_file())


def _unfit(game: Record, size: int, min_moves: int) -> str:
    """Why a game cannot be learned from here; "" if it can."""
    if game.size != size:
        return "on another board"
    if len(game.moves) < min_moves:
        return f"of fewer than {min_moves} moves"
    if (game.colours[1:] == game.colours[:-1]).any():
        return "colours do not alternate"
    black, white = game.setup
    if (black or white) and (white or not 1 < len(black) == game.handicap < 256 or game.first != -1):
        return "stones set up that are no handicap"
    if game.handicap > 1 and not black:
        return "handicap stones are missing"
    return ""


def _records(file: Path) -> Iterator[tuple[str, Record | VolitionError]]:
    """Each game of a file or an archive with its name, and what cannot be read of it."""
    try:
        for name, read in contents(file):
            number = 0
            try:
                for number, game in enumerate(sgf.each(sgf.decode(read())), 1):
                    yield (name if number == 1 else f"{name}, game {number}"), game
            except UNREADABLE as error:
                yield name, VolitionError(f"it cannot be read ({error})")
            else:
                if not number:
                    yield name, VolitionError("no game is in it")
    except UNREADABLE as error:
        yield str(file), VolitionError(f"it cannot be read ({error})")


def contents(file: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The name of a file, or of those in an archive, with what reads it, to be called before the next is asked for."""
    lower = file.name.lower()
    if lower.endswith(".zip"):
        with zipfile.ZipFile(file) as zipped:
            for name in zipped.namelist():
                if name.lower().endswith(PLAIN):
                    yield f"{file}/{name}", partial(_unzip, name, partial(zipped.read, name))
    elif lower.endswith(ARCHIVES):
        with tarfile.open(file, "r|*") as packed:
            for member in packed:
                if member.name.lower().endswith(PLAIN) and (opened := packed.extractfile(member)):
                    yield f"{file}/{member.name}", partial(_unzip, member.name, opened.read)
    else:
        yield str(file), partial(_unzip, file.name, file.read_bytes)


def _unzip(name: str, read: Callable[[], bytes]) -> bytes:
    return gzip.decompress(read()) if name.lower().endswith(".gz") else read()
