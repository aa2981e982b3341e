"""Records of Go games: what is written is read again, as people's files have it or damaged."""

import gzip
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volition.data import catalog, sgf
from volition.data.go_record import Record, outcome
from volition.errors import VolitionError

DATA = os.environ.get("VOLITION_DATA")  # read before conftest hides it from the other tests


def same(a: Record, b: Record) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Record) if f.name != "setup"
    ) and (a.setup == b.setup)


words = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" []\\();:"), max_size=12).map(
    lambda text: " ".join(text.split())
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    size = draw(st.integers(2, 25))
    moves = draw(st.lists(st.tuples(st.integers(0, size * size), st.sampled_from([1, -1])), max_size=30))
    stones = draw(st.lists(st.integers(0, size * size - 1), unique=True, max_size=6))
    parted = draw(st.integers(0, len(stones)))
    return Record(
        size,
        np.array([point for point, _ in moves], np.int16),
        np.array([colour for _, colour in moves], np.int8),
        draw(st.none() | st.floats(-400, 400)),
        *(draw(words) for _ in range(2)),
        draw(st.integers(0, 99)),
        *(draw(words) for _ in range(4)),
        setup=(tuple(sorted(stones[:parted])), tuple(sorted(stones[parted:]))),
        player=draw(st.sampled_from([0, 1, -1])),
    )


@settings(deadline=None)
@given(records(), st.data())
def test_what_is_written_is_read_again(record: Record, data: st.DataObject) -> None:
    comments = data.draw(st.none() | st.lists(words, min_size=len(record.moves), max_size=len(record.moves)))
    text = sgf.write(record, comments)
    assert same(sgf.parse(text), record)
    assert same(sgf.parse(sgf.decode(text.encode())), record)
    assert [same(r, record) for r in sgf.parse_all(text + text)] == [True, True]
    for said in comments or []:
        assert not said or f"C[{sgf._escape(said)}]" in text


@settings(deadline=None)
@given(records(), st.data())
def test_the_quick_way_and_the_slow_way_read_the_same(record: Record, data: st.DataObject) -> None:
    """Long names and spaces keep a text from being read in one piece; what it says stays the same."""
    plain = replace(record, rules="", result="", black="", white="", black_rank="", white_rank="")
    slow = sgf.write(plain).replace(";B[", ";Black [ ").replace(";W[", ";Wh\n[").replace("SZ[", "SiZe[")
    slow = slow.replace("Wh", "W").replace("[ ]", "[]")
    assert same(sgf.parse(slow), plain)
    cut = data.draw(st.integers(0, len(record.moves)))  # a comment somewhere parts the run
    comments = ["a ) ; ( ] [ B[aa]" if i == cut else "" for i in range(len(record.moves))]
    assert same(sgf.parse(sgf.write(record, comments)), record)


@settings(deadline=None)
@given(st.text(alphabet="(;)[]\\BWASZCabt9: \n", max_size=60) | st.binary(max_size=60).map(sgf.decode))
def test_any_text_is_games_or_told_mistakes(text: str) -> None:
    for game in sgf.each(text):
        assert isinstance(game, (Record, VolitionError))
        if isinstance(game, Record):
            assert same(sgf.parse(sgf.write(game)), game)


def test_points_go_row_by_row_from_the_top_left() -> None:
    record = sgf.parse("(;SZ[9];B[ba];W[ab];B[ii];W[];B[tt])")
    assert record.moves.tolist() == [1, 9, 80, 81, 81]
    assert record.colours.tolist() == [1, -1, 1, -1, 1]
    assert record.moves.dtype == np.int16 and record.colours.dtype == np.int8
    assert sgf.parse("(;SZ[21];B[tt])").moves.tolist() == [19 * 21 + 19]  # no pass on a board that has this point


@pytest.mark.parametrize(
    ("text", "moves"),
    [
        ("(;SZ[9];B[aa];W[bb])", [0, 10]),
        ("\ufeffFrom: me\n(a game)\n( ;\nSZ[9]\n;B[aa]\n\n;W\n[bb]\n)\nbye", [0, 10]),
        ("(;SZ[9](;B[aa](;W[bb])(;W[cc]))(;B[dd];W[ee]))", [0, 10]),  # the first way of each fork
        ("(;SZ[9];B[aa](;W[bb](;B[cc]))(;W[cc]C[(;B[dd\\])]))", [0, 10, 20]),
        ("(;FF[1]SiZe[9];Black[aa];White[bb])", [0, 10]),
        ("(;SZ[9]B[aa];W[bb])", [0, 10]),  # a move in the root
        ("(;SZ[9];B[aa]BL[10.5]C[x];W[bb]WL[3])", [0, 10]),
        ("(;SZ[9];;B[aa]C[a\\]b;W[cc\\]];;W[bb];)", [0, 10]),
        ("(;B[aa]SZ[9];W[bb])", [0, 10]),  # the size after what needs it
        ("(;SZ[9:9]GM[1];b[aa];w[bb];N[end])", [0, 10]),
        ("(;SZ[9];B[aa];W[bb]TW[aa][bb:cc]TB[dd])", [0, 10]),
        ("(;SZ[9];B[ aa ];W[bb])", [0, 10]),
        ("(;GM[1])", []),
    ],
)
def test_files_as_they_are_found(text: str, moves: list[int]) -> None:
    record = sgf.parse(text)
    assert record.moves.tolist() == moves
    assert record.size == (9 if moves else 19)  # FF[4]: 19 where nothing is said


def test_what_is_told_of_a_game() -> None:
    record = sgf.parse(
        "(;GM[1]SZ[9]KM[6,5]RU[Japanese]PB[a\\]\\\\b\\\nc\n d]"
        "PW[Zoë]BR[7 dan]HA[2]AB[aa:bb][cc]AE[ba]AW[ii]AB[hh];W[dd];RE[W+R])"
    )
    assert (record.komi, record.rules, record.result, record.handicap) == (6.5, "Japanese", "W+R", 2)
    assert (record.black, record.white, record.black_rank, record.white_rank) == ("a]\\bc d", "Zoë", "7 dan", "")
    assert record.setup == ((0, 9, 10, 20, 70), (80,))
    assert (record.winner, record.how, record.scored, record.first) == (-1, "resigned", False, -1)
    for komi in ("KM[]", "KM[?]", "KM[nan]", "KM[1e999]", ""):
        assert sgf.parse(f"(;{komi}GM[1])").komi is None


@pytest.mark.parametrize(
    ("text", "first"),
    [("", 1), ("PL[W]", -1), ("PL[black]HA[2]AB[aa][bb]", 1), ("HA[2]AB[aa][bb]", -1), ("AB[aa]AW[bb]", 1)],
)
def test_who_begins(text: str, first: int) -> None:
    assert sgf.parse(f"(;SZ[9]{text})").first == first
    assert sgf.parse(f"(;SZ[9]{text};B[cc])").first == 1
    assert sgf.parse(f"(;SZ[9]{text};W[cc])").first == -1


@pytest.mark.parametrize(
    ("text", "winner", "how"),
    [
        ("B+3.5", 1, "counted"),
        ("W+.5", -1, "counted"),
        ("w + 12", -1, "counted"),
        ("Black+3", 1, "counted"),
        ("0", 0, "counted"),
        ("Draw", 0, "counted"),
        ("jigo", 0, "counted"),
        ("B+R", 1, "resigned"),
        ("W+Resign", -1, "resigned"),
        ("B+T", 1, "forfeited"),
        ("W+Time", -1, "forfeited"),
        ("W+Forfeit", -1, "forfeited"),
        ("B+", 1, "unknown"),
        ("Void", None, "unknown"),
        ("?", None, "unknown"),
        ("", None, "unknown"),
        ("Bob+3", None, "unknown"),
    ],
)
def test_results(text: str, winner: int | None, how: str) -> None:
    assert outcome(text) == (winner, how)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no game is there"),
        ("(SZ[9])", "no game is there"),
        ("(;SZ[9];B[aa]", r'game 1: the text ends before the game does: a "\)" is missing'),
        ("(;SZ[9];B[aa];W[b", r"no SGF, at character 13: ';W\[b'|no SGF, at character 14: 'W\[b'"),
        ("(;SZ[9];B[aa]junk;W[bb])", "no SGF, at character 13: 'junk;W"),
        ("(;SZ[9];B[aa];W[jj])", r"move 2, W\[jj\], is neither a point of a board of 9 lines nor a pass"),
        ("(;SZ[21];B[uu];W[vv])", r"move 2, W\[vv\]"),
        ("(;SZ[9];B[aa];W[b])", r"the node of move 2 holds W\[b\], which is no point"),
        ("(;SZ[9];B[AA])", r"the node of move 1 holds B\[AA\]"),
        ("(;SZ[9];B[aa];W[bb][cc])", r"the node of move 2 holds W\[bb\]\[cc\]"),
        ("(;SZ[9];B[aa]W[bb])", "the node of move 2 holds W beside B"),
        ("(;SZ[9];AB[aa]W[bb])", "the node of move 1 holds W beside AB"),
        ("(;SZ[9];B[aa];W[bb];AB[cc])", "AB sets up stones after move 2"),
        ("(;SZ[9]AB[aa]AW[aa])", r"AW\[aa\] lays a stone where one of the other colour lies"),
        ("(;SZ[9]AB[aa:jj])", r"AB\[aa:jj\] is no point"),
        ("(;SZ[26])", r"SZ\[26\] is no board"),
        ("(;SZ[1])", r"SZ\[1\] is no board"),
        ("(;SZ[9:13])", r"SZ\[9:13\] is no board"),
        ("(;SZ[nine])", r"SZ\[nine\] is no board"),
        ("(;GM[2]SZ[8])", r"GM\[2\] is another game"),
        ("(;SZ[9];B[aa])(;SZ[9];B[aa];W[zz])", r"game 2: move 2, W\[zz\]"),
        ("(;SZ[9];B[aa]\n(;SZ[9];B[bb]))", 'SZ begins another game within this one: a "\\)" is missing'),
    ],
)
def test_damage_is_named(text: str, said: str) -> None:
    with pytest.raises(VolitionError, match=said):
        sgf.parse_all(text)


def test_damaged_games_do_not_hide_the_others() -> None:
    good = "(;FF[4]SZ[9];B[aa];W[bb](;B[cc])(;B[dd]))\n"
    for bad in ("(;FF[4]SZ[9];B[aa]\n", "(;FF[4]SZ[9];B[zz](;W[aa])(;W[bb]))\n", "(;FF[4]SZ[9];B[aa\n"):
        found = list(sgf.each(good + bad + good))
        assert [isinstance(game, Record) for game in found] == [True, False, True], bad
    with pytest.raises(VolitionError, match="the text holds 2"):
        sgf.parse(good + good)


def test_charsets() -> None:
    text = "(;CA[{}]SZ[9]PB[Zoë 本因坊];B[aa])"
    assert sgf.parse(sgf.decode(text.format("UTF-8").encode())).black == "Zoë 本因坊"
    assert sgf.parse(sgf.decode(text.format("gb18030").encode("gb18030"))).black == "Zoë 本因坊"
    assert sgf.parse(sgf.decode(b"\xef\xbb\xbf" + text.format("").encode())).black == "Zoë 本因坊"
    assert sgf.parse(sgf.decode(text.format("").encode("utf-16"))).black == "Zoë 本因坊"
    for named in ("", "UTF-8", "utf-16", "hex", "no such"):  # what it says is not what it is
        assert sgf.parse(sgf.decode(f"(;CA[{named}]SZ[9]PB[Zoë];B[aa])".encode("latin-1"))).black == "Zoë"


def test_what_cannot_be_written() -> None:
    good = sgf.parse("(;SZ[9];B[aa];W[bb])")
    bad = {"size": 26, "moves": np.array([0, 82]), "colours": np.array([1, 0]), "setup": ((81,), ())}
    for name, value in bad.items():
        with pytest.raises(VolitionError):
            sgf.write(replace(good, **{name: value}))
    with pytest.raises(VolitionError, match="comments: 1 for 2 moves"):
        sgf.write(good, ["one"])


@pytest.mark.skipif(not DATA or not catalog.find("ogs9_dan", Path(DATA)), reason="no games of OGS in $VOLITION_DATA")
def test_every_game_of_ogs_is_read_and_written() -> None:
    (path,) = catalog.find("ogs9_dan", Path(str(DATA))).values()
    assert not catalog.wrong("ogs9_dan", catalog.find("ogs9_dan", Path(str(DATA))))
    games = sgf.parse_all(sgf.decode(gzip.decompress(path.read_bytes())))
    assert len(games) == 18387 and sum(len(game.moves) for game in games) == 868763
    assert all(same(sgf.parse(sgf.write(game)), game) for game in games[::37])
