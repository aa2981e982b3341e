"""Games to learn from: every place they are kept in gives the same, what is left out is named, splits are by game."""

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from volition.data import catalog, go_games, sgf
from volition.data.go_games import HOW, Games, load, rank, split, take
from volition.errors import VolitionError

DATA = os.environ.get("VOLITION_DATA")  # read before conftest hides it from the other tests


def game(seed: int, moves: int = 20, head: str = "RE[B+R]KM[5.5]BR[7d]WR[12k]", first: str = "B", size: int = 9) -> str:
    """A game of random points, which no rules have seen."""
    points = np.random.default_rng(seed).integers(0, size, (moves, 2))
    both = "BW" if first == "B" else "WB"
    played = "".join(f";{both[i % 2]}[{chr(97 + x)}{chr(97 + y)}]" for i, (x, y) in enumerate(points))
    return f"(;FF[4]GM[1]SZ[{size}]{head}{played})"


GAMES = [game(i) for i in range(7)]


def tar(path: Path, mode: str) -> None:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for i, text in enumerate(GAMES):
            info = tarfile.TarInfo(f"a/{i}.sgf")
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text.encode()))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for i, text in enumerate(GAMES):
            packed.writestr(f"{i}.SGF", text)
        packed.writestr("readme.txt", "no game")


def folder(path: Path) -> None:
    for i, text in enumerate(GAMES):
        (path / str(i // 3)).mkdir(parents=True, exist_ok=True)
        (path / str(i // 3) / f"{i}.sgf").write_text(text)
    (path / "notes.txt").write_text("no game")


PLACES: dict[str, Callable[[Path], object]] = {
    "many.sgf": lambda path: path.write_text("\n".join(GAMES)),
    "many.sgfs": lambda path: path.write_text("".join(GAMES)),
    "many.sgfs.gz": lambda path: path.write_bytes(gzip.compress("\n".join(GAMES).encode())),
    "a.zip": zipped,
    "a.tar": lambda path: tar(path, "w"),
    "a.tar.gz": lambda path: tar(path, "w:gz"),
    "a.tgz": lambda path: tar(path, "w:gz"),
    "a.tar.xz": lambda path: tar(path, "w:xz"),
    "folder": folder,
    "any name": lambda path: path.write_text("\n".join(GAMES)),
}


def equal(a: Games, b: Games, *but: str) -> None:
    for field in fields(Games):
        if field.name not in but:
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), field.name)


@pytest.mark.parametrize("place", PLACES)
def test_every_place_gives_the_same(place: str, tmp_path: Path) -> None:
    PLACES[place](tmp_path / place)
    found = load(tmp_path / place, 9)
    read = [sgf.parse(text) for text in GAMES]
    assert len(found) == 7 and not found.skipped
    assert sum(count for _, count in found.sources) == 7
    for i, record in enumerate(read):
        assert found.moves[found.start[i] : found.start[i + 1]].tolist() == record.moves.tolist()
    assert found.moves.dtype == np.uint16 and found.start.dtype == np.int64 and found.key.dtype == np.uint64
    assert set(found.first) == set(found.winner) == {1} and set(found.how) == {HOW.index("resigned")}
    assert set(found.komi) == {5.5} and set(found.black_rank) == {7} and set(found.white_rank) == {-12}
    assert not found.handicap.any() and not len(found.setup)


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    texts = {
        "a.sgf": GAMES[0] + GAMES[1].replace(";W[", ";W[z", 1) + GAMES[2],
        "b.sgf": GAMES[0],
        "c.sgf": game(8, moves=3),
        "d.sgf": game(8, size=13),
        "e.sgf": GAMES[3].replace(";W[", ";B["),
        "f.sgf": game(9, head="AB[aa][bb]"),
        "g.sgf": game(9, head="HA[2]"),
        "h.sgf": game(9, head="HA[2]AB[aa][bb]AW[cc]", first="W"),
        "i.sgf": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "j.sgfs.gz").write_bytes(gzip.compress(GAMES[4].encode())[:-9])
    PLACES["a.tar.gz"](tmp_path / "k.tar.gz")
    (tmp_path / "k.tar.gz").write_bytes((tmp_path / "k.tar.gz").read_bytes()[:-40])
    (tmp_path / "l.zip").write_text("no archive")
    found = load(tmp_path, 9, min_moves=4)
    names = {
        reason: [Path(name.split(": ")[0]).relative_to(tmp_path).as_posix() for name in many]
        for reason, many in found.skipped.items()
    }
    damaged = names.pop("damaged")
    assert damaged[:3] == ["a.sgf, game 2", "i.sgf", "j.sgfs.gz"] and damaged[-2:] == ["k.tar.gz", "l.zip"]
    assert "the node of move 2 holds W[z" in found.skipped["damaged"][0]
    again = names.pop("the same game again")
    assert again[0] == "b.sgf" and all(name.startswith("k.tar.gz/a/") for name in again[1:])
    assert names == {
        "of fewer than 4 moves": ["c.sgf"],
        "on another board": ["d.sgf"],
        "colours do not alternate": ["e.sgf"],
        "stones set up that are no handicap": ["f.sgf", "h.sgf"],
        "handicap stones are missing": ["g.sgf"],
    }
    assert dict(found.sources)[str(tmp_path / "a.sgf")] == 2
    with pytest.raises(VolitionError, match=r"holds no game on 19×19 to learn from \(.* on another board, such as"):
        load(tmp_path, 19)
    with pytest.raises(VolitionError, match="is not there"):
        load(tmp_path / "nowhere", 9)


def test_handicap_stones_are_kept(tmp_path: Path) -> None:
    heads = ("", "HA[2]AB[ba][ab]", "RE[W+2.5]", "HA[3]AB[aa][bb][cc]RE[0]", "HA[1]RE[?]BR[9p]WR[x]")
    many = [game(i, head=head, first="W" if "AB" in head else "B") for i, head in enumerate(heads)]
    (tmp_path / "a.sgf").write_text("\n".join(many))
    found = load(tmp_path / "a.sgf", 9)
    stones = [[], [1, 9], [], [0, 10, 20], []]
    assert [found.stones(g).tolist() for g in range(5)] == stones
    assert found.handicap.tolist() == [0, 2, 0, 3, 0] and found.first.tolist() == [1, -1, 1, -1, 1]
    assert found.winner.tolist() == [2, 2, -1, 0, 2] and np.isnan(found.komi).all()
    assert [HOW[i] for i in found.how] == ["unknown", "unknown", "counted", "counted", "unknown"]
    assert found.black_rank.tolist() == [0, 0, 0, 0, 18] and not found.white_rank.any()
    some = take(found, np.array([3, 1]))
    assert [some.stones(g).tolist() for g in range(2)] == [stones[3], stones[1]]
    assert some.winner.tolist() == [0, 2] and some.start.tolist() == [0, 20, 40]
    assert some.moves.tolist() == [*found.moves[60:80], *found.moves[20:40]]
    equal(take(found, np.arange(5)), found)
    assert len(take(found, np.arange(0))) == 0 and take(found, np.arange(0)).start.tolist() == [0]


def test_numbers_beyond_all_sense(tmp_path: Path) -> None:
    stones = "".join(f"[{chr(97 + p % 19)}{chr(97 + p // 19)}]" for p in range(300))
    many = [game(0, head=f"HA[300]AB{stones}", first="W", size=19), game(1, head="KM[1e300]", size=19)]
    (tmp_path / "a.sgf").write_text("".join(many))
    found = load(tmp_path, 19)
    assert len(found) == 1 and np.isnan(found.komi[0])
    assert len(found.skipped["stones set up that are no handicap"]) == 1


def test_games_that_differ_in_their_stones_alone_are_two(tmp_path: Path) -> None:
    heads = ("HA[2]AB[ba][ab]", "HA[2]AB[ba][cc]", "HA[2]AB[ba][cc]PB[someone]")
    (tmp_path / "a.sgf").write_text("".join(game(0, head=head, first="W") for head in heads))
    found = load(tmp_path / "a.sgf", 9)
    assert len(found) == 2 and len(found.skipped["the same game again"]) == 1


def test_a_split_is_by_game_and_stays_when_games_are_added(tmp_path: Path) -> None:
    many = [game(i, moves=12) for i in range(2000)]
    (tmp_path / "b.sgfs").write_text("\n".join(many[1000:]))
    few = load(tmp_path, 9)
    (tmp_path / "a.sgfs").write_text("\n".join(many[:1000]))
    all_ = load(tmp_path, 9)
    before, after = split(few, 0.1, 0.2, seed=3), split(all_, 0.1, 0.2, seed=3)
    for part, whole in zip(before, after, strict=True):
        assert set(few.key[part]) == set(all_.key[whole]) & set(few.key)
    assert sorted(np.concatenate(after)) == list(range(2000))
    for part, share in zip(after, (0.7, 0.1, 0.2), strict=True):  # five standard deviations of a fair draw
        assert abs(len(part) - 2000 * share) < 5 * (2000 * share * (1 - share)) ** 0.5
    other = split(all_, 0.1, 0.2, seed=4)
    assert len(set(other[2]) & set(after[2])) < 0.5 * len(after[2])
    assert [len(part) for part in split(all_, 0, 0)] == [2000, 0, 0]
    for parts in ((0.5, 0.5), (-0.1, 0.1)):
        with pytest.raises(VolitionError, match="together less than 1"):
            split(all_, *parts)


@pytest.mark.parametrize(
    ("text", "number"),
    [("25k", -25), ("1k", -1), ("1d", 1), ("7 dan", 7), ("6d?", 6), ("9p", 18), ("1p", 10), ("10d", 9), ("30 Kyu", -30)]
    + [(text, 0) for text in ("", "?", "-", "-3k", "0k", "0d", "dan", "NR")],
)
def test_ranks(text: str, number: int) -> None:
    assert rank(text) == number


@pytest.mark.skipif(not DATA or not catalog.find("kgs19", Path(DATA)), reason="no games of KGS in $VOLITION_DATA")
def test_the_archives_of_kgs() -> None:
    found = catalog.find("kgs19", Path(str(DATA)))
    assert not catalog.wrong("kgs19", found)
    games = load(next(iter(found.values())).parent, 19)
    left_out = {reason: len(names) for reason, names in games.skipped.items()}
    assert left_out == {"of fewer than 1 moves": 43, "the same game again": 15, "handicap stones are missing": 2}
    assert len(games) == 21552 - 60 and len(games.moves) == 4301348
    assert (games.handicap > 1).sum() == 8599 and set(games.first[games.handicap > 1]) == {-1}
    assert len(go_games.files(next(iter(found.values())).parent)) == 4
