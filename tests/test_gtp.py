"""The Go Text Protocol, and the player behind it."""

import io
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from volition.applications._go_net import Judge, frozen, make_net
from volition.applications._go_player import Player
from volition.cli import main
from volition.core.search import Search
from volition.envs import go
from volition.envs.go_game import Go
from volition.gtp import Engine, action_of, vertex


@pytest.fixture
def engine() -> Engine:
    return Engine(Player(Go(5, 0.5), search=Search(simulations=300), seconds=600))


def ask(engine: Engine, *lines: str) -> list[str]:
    return [engine.answer(line) or "" for line in lines]


def test_vertices() -> None:
    assert [vertex(a, 9) for a in (0, 8, 72, 80, 81)] == ["A9", "J9", "A1", "J1", "pass"]
    assert all(action_of(vertex(a, 19), 19) == a for a in range(362)) and action_of("d4", 9) == 48


def test_answers_have_the_protocols_form(engine: Engine) -> None:
    assert ask(engine, "protocol_version", "7 name", " ", "# nothing", "3\tversion # why")[:4] == [
        "= 2\n\n", "=7 Volition\n\n", "", "",
    ]  # fmt: skip
    assert engine.answer("nonsense") == "? unknown command\n\n" and engine.answer("12") == "?12 no command\n\n"
    assert engine.answer("known_command genmove") == "= true\n\n"
    assert engine.answer("known_command fly") == "= false\n\n"
    for command in (engine.answer("list_commands") or "").removeprefix("= ").split():
        assert engine.answer(f"known_command {command}") == "= true\n\n"


def test_mistakes_are_answered_and_change_nothing(engine: Engine) -> None:
    assert ask(engine, "play b c3") == ["=\n\n"]
    before = engine.player.positions.rows.copy()
    bad = (
        "play w c3", "play w k9", "play w i3", "play x a1", "play w", "genmove", "komi x", "komi nan",
        "boardsize 99", "boardsize", "time_left b", "loadsgf /nowhere", "loadsgf", "time_settings 1 2",
    )  # fmt: skip
    for line in bad:
        assert (engine.answer(line) or "").startswith("? "), line
    assert (engine.player.positions.rows == before).all()
    assert ask(engine, "undo", "undo") == ["=\n\n", "? cannot undo\n\n"]


def test_superko_is_an_illegal_move() -> None:
    engine = Engine(Player(Go(5, 0.5)))
    ask(engine, *(f"play b {v}" for v in ("b5", "a4", "b3")), *(f"play w {v}" for v in ("c5", "d4", "c3", "b4")))
    assert ask(engine, "play b c4", "play w b4") == ["=\n\n", "? illegal move\n\n"]


def test_a_game_to_its_end(engine: Engine) -> None:
    turn = "b"
    for _ in range(120):
        said = engine.answer(f"genmove {turn}") or ""
        assert said.startswith("= ")
        if said.strip() == "= resign" or engine.player.positions.rows[0, go.PASSES] == 2:
            break
        turn = "w" if turn == "b" else "b"
    score = (engine.answer("final_score") or "").split()[1]
    assert score[:2] in ("B+", "W+") and len(engine.player.played) > 8
    assert "A B C D E" in (engine.answer("showboard") or "")
    assert engine.answer("clear_board") == "=\n\n" and not engine.player.played


def test_komi_and_undo_keep_the_game(engine: Engine) -> None:
    ask(engine, "play b c3", "play w c2", "komi 3.5")
    assert [vertex(action, 5) for _, action in engine.player.played] == ["C3", "C2"]
    assert engine.player.rules.komi == 3.5 and engine.answer("final_score") == "= W+3.5\n\n"
    ask(engine, "undo")
    assert engine.player.turn == go.WHITE and engine.answer("final_score") == "= B+21.5\n\n"


def test_loadsgf(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "game.sgf"
    path.write_text("(;GM[1]SZ[5]KM[2.5];B[cc];W[cd];B[dd])")
    assert engine.answer(f"loadsgf {path} 3") == "=\n\n"
    assert [vertex(action, 5) for _, action in engine.player.played] == ["C3", "C2"]
    assert engine.answer(f"loadsgf {path}") == "=\n\n" and len(engine.player.played) == 3
    path.write_text("(;GM[1]SZ[5];B[c")
    assert engine.answer(f"loadsgf {path}") == "? cannot load file\n\n" and len(engine.player.played) == 3


def test_clock() -> None:
    player = Player(Go(9), seconds=3.0)
    assert player.budget(None, 0) == 3.0 and player.budget(1000.0, 0) == 3.0
    assert player.budget(10.0, 0) < 10 / 30 and player.budget(1.0, 10) == pytest.approx(0.05)
    # whatever it thinks, the clock of a game of 10 s never runs out
    left = 10.0
    for _ in range(120):
        budget = player.budget(left, 0)
        left -= budget
        player.played += [(1, 81), (2, 81)]
    assert left > 0
    engine = Engine(player)
    assert engine.answer("time_settings 0 5 0") == "=\n\n" and engine.left[go.BLACK] is None
    assert engine.answer("time_left w 4.5 0") == "=\n\n" and engine.left[go.WHITE] == (4.5, 0)


def test_a_network_plays_and_keeps_its_tree() -> None:
    judge = Judge(frozen(make_net(5, 1, 8)), 5)
    player = Player(Go(5, 0.5), judge, search=Search(simulations=60), seconds=600)  # time to compile
    action = player.choose(go.BLACK)
    assert action is not None and player.visits.sum() == 60
    player.play(go.BLACK, action)
    assert player._forest is not None and 0 < player._forest.root_visits()[0] < 60
    # a network sees the same in a turned board
    rules, rng = Go(5, 0.5), np.random.default_rng(0)
    positions = rules.start(1)
    for _ in range(8):
        rules.play(positions, np.array([rng.choice(np.flatnonzero(rules.legal(positions)[0]))]))
    eight = Judge(make_net(5, 1, 8), 5, ensemble=True)
    probs = np.exp(eight(positions)[0])
    assert probs.sum() == pytest.approx(1.0, abs=1e-5)


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("boardsize 5\n1 genmove b\nquit\nname\n"))
    assert main(["play", "go", "--gtp", "--size", "5", "--seconds", "0.1"]) == 0
    said = capsys.readouterr().out.split("\n\n")
    assert said[0] == "=" and said[1].startswith("=1 ") and said[2] == "=" and said[3] == ""
    assert main(["play", "go"]) == 2 and "--gtp" in capsys.readouterr().err
    assert main(["play", "go", "--gtp", "--run", "/nowhere"]) == 2
    assert main(["play", "go", "--gtp", "--size", "40"]) == 2
