"""Records of Go games in SGF (FF[4], and older files as they are found), read and written.

The main line alone is read: of every fork the first way. The moves of a node or a long run of nodes are one match of
one regular expression, and all moves of a game become numbers at once, so that a hundred thousand games are a matter
of seconds.
"""

import codecs
import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from volition.data.go_record import Record
from volition.errors import VolitionError

SIZES = range(2, 26)
# no group is repeated possessively: in Python 3.11 such a group now and then keeps a part that does not match
VALUE = r"\[[^\]\\]*+(?:\\.[^\]\\]*+)*\]"
BEGIN = re.compile(r"\(\s*;")
ROOT = re.compile(r"\(\s*;\s*(?:FF|GM|SZ|CA|AP|ST)\s*\[")  # surely a game and not a variation
TOKEN = re.compile(rf"\s*(?:([A-Za-z][A-Za-z0-9_]*+)\s*((?:{VALUE}\s*)+)|([;()]))", re.DOTALL)
RUN = re.compile(r"\s*(?:;\s*+[BW]\s*+\[(?:[a-z]{2})?\]\s*+)+")  # nodes that hold a move and nothing else
PROPERTY = re.compile(rf"([A-Z]++)\s*((?:{VALUE}\s*)+)", re.DOTALL)
HEAD = re.compile(rf"\(\s*;\s*((?:(?![BW]\s*\[)[A-Z]++\s*(?:{VALUE}\s*)+)+)(?=[;()])", re.DOTALL)  # a root
POINT = re.compile(r"\[\s*([a-z]{2})?\s*\]\s*")
VALUES = re.compile(VALUE, re.DOTALL)
KEPT = frozenset("GM FF SZ KM RU RE HA PB PW BR WR PL".split())
SETUP = {"AB": 1, "AW": -1, "AE": 0}
COLOURS = np.where(np.arange(128) == ord("B"), 1, -1).astype(np.int8)


def parse(text: str) -> Record:
    """The one game of a text."""
    found = parse_all(text)
    if len(found) > 1:
        raise VolitionError(f"one game is wanted and the text holds {len(found)}: give it in a file of its own")
    return found[0]


def parse_all(text: str) -> list[Record]:
    """All games of a text; one that is damaged is an error that says which."""
    found = []
    for game in each(text):
        if isinstance(game, VolitionError):
            raise VolitionError(f"game {len(found) + 1}: {game}")
        found.append(game)
    if not found:
        raise VolitionError('no game is there: one begins with "(;"; give the text of an SGF file')
    return found


def each(text: str) -> Iterator[Record | VolitionError]:
    """Each game of a text, or what is wrong with it; after a damaged game it goes on at the next that is told apart."""
    begin = BEGIN.search(text)
    while begin:
        try:
            record, at = _game(text, begin.start())
            yield record
            begin = BEGIN.search(text, at)
        except VolitionError as error:
            yield error
            begin = ROOT.search(text, begin.end())


def decode(data: bytes) -> str:
    """The text of a file, by its byte order mark, the charset that it names, UTF-8, or else Latin-1."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    named = re.search(rb"CA\s*\[\s*([\w.:-]+)\s*\]", data[:2000])
    for name in (named[1].decode("ascii", "ignore") if named else "utf-8", "utf-8"):
        try:
            if BEGIN.search(text := data.decode(name)):
                return text
        except (LookupError, UnicodeError):  # no such charset, or not what the file is written in
            continue
    return data.decode("latin-1")


def _game(text: str, at: int) -> tuple[Record, int]:
    """The game that begins at `at`, and where it ends."""
    held: dict[str, str] = {}  # the last of each property of the game, as written
    played: list[str] = []  # of the moves, as written: ;B[dd]
    laid: list[tuple[str, str]] = []  # of the stones before them
    node: set[str] = set()  # what the node holds of both
    nodes, depth, ended = 0, 0, False
    if head := HEAD.match(text, at):  # most roots at once
        pairs = PROPERTY.findall(head[1])
        held = dict(pairs)
        if held.keys() & SETUP.keys():
            laid = [pair for pair in pairs if pair[0] in SETUP]
        nodes, depth, at = 1, 1, head.end()
    while token := TOKEN.match(text, at):
        at = token.end()
        name, values, mark = token.groups()
        if mark == "(":
            depth += 1
        elif mark == ")":
            ended, depth = True, depth - 1  # what follows the first one is variations
            if not depth:
                return _record(held, "".join("".join(played).split()), laid), at
        elif ended:
            continue
        elif mark:
            nodes, node = nodes + 1, set()
            if nodes > 1 and (run := RUN.match(text, token.start())):
                if run.end() == len(text) or text[run.end()] in ";()":
                    played.append(run[0])
                    at = run.end()
                elif (last := text.rindex(";", 0, run.end())) >= at:  # its last node holds more
                    played.append(text[token.start() : last])
                    at = last + 1
            continue
        else:
            name = name if name.isupper() else "".join(filter(str.isupper, name)) or name.upper()  # FF[3]: SiZe
            if name in ("B", "W"):
                if node or not (point := POINT.fullmatch(values)):
                    what = f"{name} beside {node.pop()}" if node else f"{name}{values[:24].strip()}, which is no point"
                    raise VolitionError(f"the node of move {_count(played) + 1} holds {what}; a node is for one move")
                node.add(name)
                played.append(f";{name}[{point[1] or ''}]")
            elif name in SETUP:
                if played:
                    raise VolitionError(f"{name} sets up stones after move {_count(played)}; they must lie there first")
                node.add(name)
                laid.append((name, values))
            elif name in KEPT:
                if nodes > 1 and name in ("GM", "FF", "SZ") and name in held:
                    raise VolitionError(f'{name} begins another game within this one: a ")" is missing before it')
                held[name] = values
    if not text[at:].strip():
        raise VolitionError('the text ends before the game does: a ")" is missing at its end')
    raise VolitionError(f"this is no SGF, at character {at}: {text[at : at + 24].strip()!r}")


def _count(played: list[str]) -> int:
    return sum(part.count(";") for part in played)


def _record(held: dict[str, str], played: str, laid: list[tuple[str, str]]) -> Record:
    told = {name: _simple(values) for name, values in held.items() if name in KEPT}
    if (game := told.get("GM", "1")) not in ("1", ""):
        raise VolitionError(f"GM[{game}] is another game than Go, which is GM[1]")
    lines = told.get("SZ") or "19"
    one, colon, other = lines.partition(":")
    if not one.isdecimal() or int(one) not in SIZES or (colon and other != one):
        raise VolitionError(f"SZ[{lines}] is no board that can be read: square ones of 2 to 25 lines can")
    size, handicap = int(one), told.get("HA", "")
    moves, colours = _numbers(played, size)
    return Record(
        size,
        moves,
        colours,
        _number(told.get("KM", "")),
        told.get("RU", ""),
        told.get("RE", ""),
        int(handicap) if handicap.isdecimal() and len(handicap) < 4 else 0,
        told.get("PB", ""),
        told.get("PW", ""),
        told.get("BR", ""),
        told.get("WR", ""),
        _stones(laid, size) if laid else ((), ()),
        {"b": 1, "1": 1, "w": -1, "2": -1}.get(told.get("PL", "")[:1].lower(), 0),
    )


@lru_cache(8192)
def _simple(values: str) -> str:
    """The first of a property's values, in one line and without escapes."""
    value = values[1 : values.index("]")]
    if "\\" in value:
        found = VALUES.match(values)
        assert found
        value = re.sub(r"\\(\r\n|\n\r|.)", lambda m: m[1].strip("\r\n"), found[0][1:-1], flags=re.DOTALL)
    return " ".join(value.split())


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@lru_cache
def _points(size: int) -> np.ndarray:
    """int16 `[65536]`: the point that two letters name, read as one number; -1 where they name none."""
    table = np.full(65536, -1, np.int16)
    letters = np.arange(97, 97 + size)
    table[(letters[None] + 256 * letters[:, None]).ravel()] = np.arange(size * size)  # first the column, then the row
    passes = ("~~", "tt") if size <= 19 else ("~~",)
    table[[int.from_bytes(word.encode(), "little") for word in passes]] = size * size
    return table


def _numbers(played: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and colours of moves that are written ;B[dd] or ;B[]."""
    raw = played.replace("[]", "[~~]").encode("ascii")  # six bytes a move, two letters from the fourth on
    points = _points(size)[np.frombuffer(raw[3:] + raw[:3], "<u2")[::3]]
    if raw and points.min() < 0:
        i = int(points.argmin())
        move = raw[6 * i + 1 : 6 * i + 6].decode("ascii")
        raise VolitionError(f"move {i + 1}, {move}, is neither a point of a board of {size} lines nor a pass")
    return points, COLOURS[np.frombuffer(raw, np.uint8)[1::6]]


def _stones(laid: list[tuple[str, str]], size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The black and the white stones that are set up; aa:cc is a rectangle."""
    stones: dict[int, int] = {}
    for name, values in laid:
        for value in VALUES.findall(values):
            word = "".join(value[1:-1].split())
            corners = [[ord(letter) - 97 for letter in corner] for corner in word.split(":")] if word else []
            if len(corners) > 2 or any(len(c) != 2 or not 0 <= min(c) <= max(c) < size for c in corners):
                raise VolitionError(f"{name}[{word[:24]}] is no point of a board of {size} lines")
            (left, top), (right, bottom) = (corners[0], corners[-1]) if corners else ((0, 0), (-1, -1))
            for point in (row * size + col for row in range(top, bottom + 1) for col in range(left, right + 1)):
                if name == "AE":
                    stones.pop(point, None)
                elif stones.setdefault(point, SETUP[name]) != SETUP[name]:
                    raise VolitionError(f"{name}[{word[:24]}] lays a stone where one of the other colour lies")
    black, white = (tuple(sorted(p for p, colour in stones.items() if colour == c)) for c in (1, -1))
    return black, white


def write(record: Record, comments: Sequence[str] | None = None) -> str:
    """A game as FF[4] in one text, `comments[i]` beside move i; what is empty or unknown is left out."""
    size, points = record.size, record.size**2
    if size not in SIZES:
        raise VolitionError(f"size: a board of {size} lines cannot be written, only 2 to 25")
    moves, colours = np.asarray(record.moves).tolist(), np.asarray(record.colours).tolist()
    if len(moves) != len(colours) or not set(colours) <= {1, -1}:
        raise VolitionError(f"colours: each of the {len(moves)} moves needs one, 1 for black or -1 for white")
    if comments is not None and len(comments) != len(moves):
        raise VolitionError(
            f"comments: {len(comments)} for {len(moves)} moves; give one for each, perhaps an empty one"
        )
    stones = [*record.setup[0], *record.setup[1]]
    if any(not 0 <= p <= points for p in moves) or any(not 0 <= p < points for p in stones):
        raise VolitionError(f"a move or a stone is off the board: points are 0 to {points - 1}, a pass is {points}")
    names = [f"{chr(97 + p % size)}{chr(97 + p // size)}" for p in range(points)] + [""]
    plain = {"KM": "" if record.komi is None else repr(float(record.komi)), "RU": record.rules, "RE": record.result}
    plain |= {"HA": str(record.handicap or ""), "PB": record.black, "PW": record.white}
    plain |= {"BR": record.black_rank, "WR": record.white_rank, "PL": {1: "B", -1: "W"}.get(record.player, "")}
    head = "".join(f"{name}[{_escape(' '.join(value.split()))}]" for name, value in plain.items() if value)
    for name, lie in zip(("AB", "AW"), record.setup, strict=True):
        head += name + "".join(f"[{names[p]}]" for p in lie) if lie else ""
    lines = [f"(;FF[4]CA[UTF-8]GM[1]SZ[{size}]{head}"]
    for i, (point, colour) in enumerate(zip(moves, colours, strict=True)):
        said = f"C[{_escape(comments[i])}]" if comments and comments[i] else ""
        move = f";{'B' if colour == 1 else 'W'}[{names[point]}]{said}"
        if i % 10:
            lines[-1] += move
        else:
            lines.append(move)
    return "\n".join(lines) + ")\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("]", "\\]")
