"""The Go Text Protocol, and the player behind it."""

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from volition.applications._go_net import Judge, frozen, make_net
from volition.applications._go_player import Player
from volition.cli import main
from volition.core import search as forests
from volition.core import tree
from volition.core.search import Search
from volition.envs import go, go_uct
from volition.envs.go_game import Go
from volition.errors import VolitionError
from volition.gtp import Engine
from volition.gtp_board import action_of, handicap, vertex
from volition.gtp_clock import CALM, LATENCY, Clock


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


def test_all_commands_are_known_and_answer_whatever_they_are_given(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # savesgf writes what it is told to
    commands = (engine.answer("list_commands") or "").removeprefix("= ").split()
    assert len(set(commands)) == len(commands) > 30
    for line in (engine.answer("gogui-analyze_commands") or "").removeprefix("= ").split():
        assert line.split("/")[0] in ("dboard", "gfx", "string") and line.split("/")[2] in commands
    for command in set(commands) - {"quit"}:
        for words in ("", " b", " 3", " c3 c4", " x y z", f" {tmp_path}", " ---", " true true", " nan", " 1e999 -1"):
            assert (engine.answer(command + words) or "")[:2] in ("= ", "=\n", "? "), command + words
    assert engine.answer("name") == "= Volition\n\n"


def test_what_a_terminal_may_send(engine: Engine) -> None:
    assert engine.answer("1 name\r\n") == "=1 Volition\n\n" and engine.answer("\r\n") is None
    assert engine.answer("\x07na\x01me\x7f") == "= Volition\n\n" and engine.answer("\t # play b c3") is None
    assert engine.answer("²") == "? unknown command\n\n" and engine.answer("play b ü1") == "? invalid vertex ?1\n\n"
    out = io.StringIO()
    engine.serve(["known_command quit\n", "3 quit\n", "name\n"], out)
    assert out.getvalue() == "= true\n\n=3\n\n"


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
    assert (engine.answer(f"loadsgf {path}") or "").startswith("? cannot load file: ") and len(
        engine.player.played
    ) == 3


def test_clock() -> None:
    player = Player(Go(9), seconds=3.0)
    assert player.budget(None, 0) == 3.0 and player.budget(1000.0, 0) == 3.0
    assert player.budget(10.0, 0) < 10 / 30 and player.budget(1.2, 10) == pytest.approx(0.05)
    # whatever it thinks, the clock of a game of 10 s never runs out
    left = 10.0
    for _ in range(120):
        budget = player.budget(left, 0)
        left -= budget
        player.played += [(1, 81), (2, 81)]
    assert left > 0
    engine = Engine(player)
    assert engine.answer("time_settings 0 5 0") == "=\n\n" and engine.clocks[go.BLACK].share()[0] is None
    assert engine.answer("time_left w 4.5 0") == "=\n\n" and engine.clocks[go.WHITE].share() == (4.5, 0, 0.0)


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


@pytest.mark.parametrize("network", [False, True])
def test_memory_is_made_with_the_board(network: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def plant(*sizes: int):
        made.append(sizes)
        return tree.plant(*sizes)

    for module in (forests, go_uct):
        monkeypatch.setattr(module, "plant", plant)
    judge = Judge(frozen(make_net(5, 1, 8)), 5) if network else None
    engine = Engine(Player(Go(5, 0.5), judge, search=Search(simulations=40), seconds=600))
    assert len(made) == 1
    for komi in ("0.5", "1.5"):
        ask(engine, f"komi {komi}", "clear_board")
        boards = len(made)
        ask(
            engine,
            "genmove b",
            "play w C3",
            "undo",
            "play b pass",
            "genmove w",
            "genmove w",
            "clear_board",
            "genmove b",
        )
        assert len(made) == boards and engine.player.visits.sum() > 0
    assert boards == 2


def test_without_time_the_priors_play() -> None:
    asked = []

    def judge(positions):
        asked.append(len(positions.rows))
        logits = np.zeros((len(positions.rows), 26), np.float32)
        logits[:, 12] = 3
        return logits, np.zeros(len(positions.rows), np.float32)

    player = Player(Go(5, 0.5), judge, search=Search(simulations=100))
    assert player.choose(go.BLACK, 0.0) == 12 and asked == [1]
    player.play(go.BLACK, 12)
    assert player.choose(go.WHITE, 0.0) in player.legal(go.WHITE).nonzero()[0] and asked == [1, 1]
    assert not player.think(go.WHITE, 0.0) and player.think(go.WHITE, 600.0) and player.visits.sum() == 100


def test_what_a_pass_wins_is_passed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = lone(tmp_path, -20, "W")  # black wins by either count
    monkeypatch.setattr(Player, "think", None)  # calling it would raise
    assert ask(engine, "play w pass", "genmove b") == ["=\n\n", "= pass\n\n"]
    engine = lone(tmp_path, -5, "W")  # by one only
    with pytest.raises(TypeError):
        ask(engine, "play w pass", "genmove b")
    engine = lone(tmp_path, -20, "B")  # nobody has passed
    with pytest.raises(TypeError):
        engine.answer("genmove b")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("boardsize 5\n1 genmove b\nquit\nname\n"))
    assert main(["play", "go", "--gtp", "--size", "5", "--seconds", "0.1"]) == 0
    said = capsys.readouterr().out.split("\n\n")
    assert said[0] == "=" and said[1].startswith("=1 ") and said[2] == "=" and said[3] == ""
    assert main(["play", "go"]) == 2 and "--gtp" in capsys.readouterr().err
    assert main(["play", "go", "--gtp", "--run", "/nowhere"]) == 2
    assert main(["play", "go", "--gtp", "--size", "40"]) == 2


@pytest.mark.parametrize(
    ("size", "stones", "points"),
    [
        (19, 2, "D4 Q16"),
        (19, 3, "D4 Q16 D16"),
        (19, 5, "D4 Q16 D16 Q4 K10"),
        (19, 8, "D4 Q16 D16 Q4 D10 Q10 K4 K16"),
        (13, 7, "D4 K10 D10 K4 D7 K7 G7"),
        (9, 9, "C3 G7 C7 G3 C5 G5 E3 E7 E5"),
        (8, 4, "C3 F6 C6 F3"),
        (7, 4, "C3 E5 C5 E3"),
    ],
)
def test_fixed_handicap(size: int, stones: int, points: str) -> None:
    engine = Engine(Player(Go(size, 0.5)))
    assert engine.answer(f"fixed_handicap {stones}") == f"= {points}\n\n"
    assert engine.player.turn == go.WHITE and engine.player.rules.komi == 0.5
    assert ask(engine, f"fixed_handicap {stones}", "undo") == ["? board not empty\n\n", "? cannot undo\n\n"]
    ask(engine, "play w b2", "komi 5.5", "undo")
    lie = engine.answer("final_status_list alive") or ""
    assert sorted(lie.removeprefix("=").split()) == sorted(points.split()) and engine.player.turn == go.WHITE
    assert ask(engine, "clear_board", f"place_free_handicap {stones}") == ["=\n\n", f"= {points}\n\n"]
    most = 4 if size in (7, 8) else 9
    assert ask(engine, "clear_board", "place_free_handicap 60")[1].count(" ") == most
    assert ask(engine, "clear_board", f"fixed_handicap {most + 1}")[1] == "? invalid number of stones\n\n"


def test_free_handicap() -> None:
    engine = Engine(Player(Go(5, 0.5)))
    for wrong in ("A1", "A1 A1", "A1 pass", "", *(" ".join(vertex(a, 5) for a in range(n)) for n in (25,))):
        assert engine.answer(f"set_free_handicap {wrong}") == "? bad vertex list\n\n", wrong
    assert ask(engine, "set_free_handicap A1 F9", "fixed_handicap 2", "place_free_handicap 2") == [
        "? invalid vertex F9\n\n", "? invalid number of stones\n\n", "? invalid number of stones\n\n",
    ]  # fmt: skip
    assert ask(engine, "set_free_handicap A1 B2") == ["=\n\n"] and engine.player.turn == go.WHITE
    assert engine.player.positions.rows[0, go.MOVES] == 0
    with pytest.raises(VolitionError):
        handicap(2, 6)


# one white stone where black lives with two other eyes: black has 15 : 26 as the board stands, and 24 : 25 without it
LONE = "(;GM[1]SZ[7]KM[{komi}]AB[da][db][dc][ad]:[dd][be][de][af]:[df]AW[bb][ea]:[eg][ag]:[dg]PL[{turn}])"


def lone(tmp_path: Path, komi: float, turn: str, simulations: int = 2000) -> Engine:
    path = tmp_path / "lone.sgf"
    path.write_text(LONE.format(komi=komi, turn=turn).replace("]:[", ":"))
    engine = Engine(Player(Go(9), search=Search(simulations=simulations), seconds=600))
    assert engine.answer(f"loadsgf {path}") == "=\n\n"
    return engine


def test_dead_stones_are_taken_off_in_the_score(tmp_path: Path) -> None:
    engine = lone(tmp_path, 0.5, "B")
    assert ask(engine, "final_score", "final_status_list dead") == ["= W+1.5\n\n", "= B6\n\n"]
    assert engine.player.score() == -11.5 and engine.player.turn == go.BLACK
    alive = (engine.answer("final_status_list alive") or "").removeprefix("= ").strip().split("\n")
    assert len(alive) == 2 and sum(len(chain.split()) for chain in alive) == 24
    assert (engine.answer("final_status_list gone") or "").startswith("? syntax error")


def test_a_pass_shall_win_by_either_count(tmp_path: Path) -> None:
    engine = lone(tmp_path, -5, "W")  # black has lost by 6 as the board stands, and won by 4 without the dead stone
    player = engine.player
    assert ask(engine, "play w pass", "final_score") == ["=\n\n", "= B+4\n\n"] and not player.settled()
    said, moves = "", 0
    while said != "= pass\n\n" and moves < 60:
        said, moves = engine.answer("genmove b") or "", moves + 1
        if moves == 1:
            assert said not in ("= pass\n\n", "= resign\n\n")
        if said != "= pass\n\n":
            ask(engine, "play w pass")
    assert said == "= pass\n\n" and player.score() > 0 and player.count() > 0
    # a pass that leaves the result open gives way to a move that is about as good, and to no other
    engine = lone(tmp_path, -5, "B")
    player, stop, move = engine.player, 49, action_of("A7", 7)
    player.think(go.BLACK)
    player.visits[:], player.values[:] = 0, np.nan
    player.visits[[stop, move]], player.values[[stop, move]] = (100, 10), (0.5, 0.3)
    assert player.decide() == move
    player.values[move] = -0.9
    assert player.decide() == stop
    player.replay(Go(7, 5.0), [])  # lost by either count
    player.visits[[stop, move]], player.values[[stop, move]] = (100, 10), (0.5, 0.5)
    assert player.settled() and player.decide() == stop


def test_who_is_won_only_by_dead_stones_does_not_resign(tmp_path: Path) -> None:
    engine = lone(tmp_path, -5, "B")  # white wins as the board stands, and loses without its stone
    player = engine.player
    ask(engine, "play b pass")
    player.think(go.WHITE)
    best = int(player.visits.argmax())
    player.values[best] = -0.99
    assert player.decide() == 49
    # nor does it argue for ever, though each move of its own may look better than the pass
    engine = lone(tmp_path, -5, "W")
    said = []
    for _ in range(6):
        ask(engine, "play b pass")
        said.append(engine.answer("genmove w"))
        if said[-1] == "= pass\n\n":
            break
    assert 1 <= len(said) <= 4 and said[-1] == "= pass\n\n"


def test_cleanup_takes_dead_stones(tmp_path: Path) -> None:
    engine = lone(tmp_path, 0.5, "B")
    for _ in range(4):  # its four liberties
        assert engine.answer("kgs-genmove_cleanup b") in [f"= {v}\n\n" for v in ("A6", "B5", "B7", "C6")]
        ask(engine, "play w pass")
    assert engine.player.score() == engine.player.count() == -1.5
    assert ask(engine, "kgs-genmove_cleanup b", "kgs-genmove_cleanup w") == ["= pass\n\n"] * 2


def patient(engine: Engine, *steps: tuple[str, int]) -> str:
    """What a stream says that is sent the next line once so many reports are there."""
    out = io.StringIO()

    def lines() -> Iterator[str]:
        for line, reports in steps:
            yield line + "\n"
            while out.getvalue().count("order 0") < reports:
                time.sleep(0.01)

    engine.serve(lines(), out)
    return out.getvalue()


def test_analysis_goes_on_until_the_next_command(engine: Engine) -> None:
    engine.player.search = Search(simulations=100_000)
    said = patient(engine, ("play b c3", 0), ("7 lz-analyze 2", 3), ("8 name", 3), ("quit", 0)).split("\n\n")
    assert said[0] == "=" and said[2:] == ["=8 Volition", "=", ""]
    first, *reports = said[1].split("\n")
    assert first == "=7" and len(reports) >= 3
    visits = []
    for report in reports:
        moves = [m.split() for m in report.split("info ")[1:]]
        assert [m[::2][:5] for m in moves] == [["move", "visits", "winrate", "prior", "order"]] * len(moves)
        assert [int(m[9]) for m in moves] == list(range(len(moves))) and all(m[11] == m[1] for m in moves)
        assert all(0 <= int(m[5]) <= 10_000 for m in moves)
        visits.append(sum(int(m[3]) for m in moves))
        assert [int(m[3]) for m in moves] == sorted((int(m[3]) for m in moves), reverse=True)
    assert visits == sorted(visits) and visits[-1] > visits[0]
    assert len(engine.player.played) == 1


def test_analysis_by_kata_and_in_scripts(engine: Engine) -> None:
    # nobody waits: one report
    said = engine.answer("kata-analyze w interval 1 maxmoves 2 ownership true") or ""
    assert said.startswith("=\ninfo move ") and said.endswith("\n\n") and said.count("info") == 2
    owned = [float(x) for x in said.split("ownership ")[1].split()]
    assert len(owned) == 25 and all(-1 <= x <= 1 for x in owned)
    assert "kata-analyze" in (engine.answer("list_commands") or "")
    for wrong in ("lz-analyze b x", "lz-analyze b 10 avoid b c3 5", "kata-analyze ownership maybe"):
        assert (engine.answer(wrong) or "").startswith("? syntax error"), wrong
    said = (engine.answer("lz-genmove_analyze b 5") or "").split("\n")
    assert said[0] == "=" and said[-3].startswith("play ") and said[-2:] == ["", ""]
    assert engine.player.played == [(go.BLACK, action_of(said[-3].split()[1], 5))]
    assert (engine.answer("reg_genmove w") or "").startswith("= ") and len(engine.player.played) == 1


def test_pictures_for_gogui(engine: Engine) -> None:
    assert (engine.answer("volition-policy") or "").startswith("? this player has no network")
    assert engine.answer("volition-search") == "=\n\n"
    ask(engine, "play b c3", "lz-analyze w 1")
    label, influence = (engine.answer("volition-search") or "").removeprefix("= ").strip().split("\n")
    assert label.split()[0] == "LABEL" and influence.split()[0] == "INFLUENCE" and label.split()[1::2][0][0] in "ABCDE"
    assert "white wins" in (engine.answer("volition-value") or "")
    net = Engine(Player(Go(5, 0.5), Judge(frozen(make_net(5, 1, 8)), 5), search=Search(simulations=20)), {5})
    for command, engines in (("volition-policy", [net]), ("volition-owners", [net, engine])):
        for each in engines:
            grid = np.array((each.answer(command) or "").removeprefix("= ").split(), float)
            assert grid.shape == (25,) and (np.abs(grid) <= 1).all()
    assert net.answer("boardsize 9") == "? unacceptable size\n\n" and net.player.rules.size == 5


def test_the_clock_counts_what_nobody_tells_it() -> None:
    clock = Clock()
    assert clock.share() == (None, 0, 0.0)
    clock.set(10, 0, 0)
    clock.spend(3 - LATENCY, late=1)
    assert clock.share() == (6.0, 0, -1.0)  # the next may be as late
    clock.spend(100)
    assert clock.share() == (0.0, 0, -CALM)
    clock.set(10, 30, 5)  # ten seconds, then thirty for each five moves
    assert clock.share() == (10.0, 0, 6.0)
    clock.spend(12 - LATENCY)  # two of them are overtime's, and so is the move
    assert clock.share() == (28.0, 4, 0.0)
    for _ in range(4):
        clock.spend(1)
    assert clock.share() == (30.0, 5, 0.0)
    clock.tell(7, 2)
    assert clock.share() == (7.0, 2, 0.0)
    clock.tell(8, 0)
    assert clock.share() == (8.0, 0, 6.0)
    clock.tell(7.5, 0)  # half a second that only the referee has seen
    assert clock.share() == (7.5, 0, 5.5)
    clock.tell(2, 0)  # too much for that: it was set anew
    clock.tell(30, 0)
    assert clock.share() == (30.0, 0, 5.5)
    clock.set(0, 20, 4)
    assert clock.share() == (20.0, 4, 0.0)
    clock.set(0, 20, 0)
    assert clock.share() == (None, 0, 0.0)
    for wrong in ((-1, 0, 0), (0, 1, 1.5)):
        with pytest.raises(VolitionError):
            clock.set(*wrong)


def test_own_moves_take_time_from_the_clock(engine: Engine) -> None:
    ask(engine, "time_settings 60 0 0", "genmove b", "lz-genmove_analyze b 10", "play b a1", "reg_genmove b")
    left = engine.clocks[go.BLACK].share()[0]
    assert left is not None and left <= 60 - 2 * LATENCY and engine.clocks[go.WHITE].share()[0] == 60
    player = engine.player
    assert player.budget(4.0, 0, spare=2.0) > 2.0 > player.budget(4.0, 0) > 0 and player.budget(0.0, 0) == 0.0


def test_games_are_written_and_read_again(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "game.sgf"
    ask(engine, "set_free_handicap c3 b2", "play w d4", "play b pass", "play w pass")
    assert engine.answer(f"savesgf {path}") == "=\n\n"
    board, said = engine.answer("showboard"), engine.answer("printsgf") or ""
    assert said.strip() == "= " + path.read_text().strip() and "HA[2]" in said and "AB[cc][bd]" in said
    assert f"RE[{(engine.answer('final_score') or '')[2:].strip()}]" in said
    again = Engine(Player(Go(9, 7)))
    assert again.answer(f"loadsgf {path}") == "=\n\n" and again.answer("showboard") == board
    assert again.player.rules.komi == 0.5 and len(again.player.played) == 3 and again.player.turn == go.BLACK
    assert ask(again, f"loadsgf {path} 1", "undo") == ["=\n\n", "? cannot undo\n\n"]
    assert again.player.turn == go.WHITE
    assert (again.answer(f"savesgf {tmp_path}") or "").startswith("? cannot save file: ")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(;GM[1]SZ[9];B[cc])", "its board is 9, this player's 5"),
        ("(;GM[1]SZ[5];B[cc];W[cc])", "move 2: illegal move"),
        ("(;GM[1]SZ[5]AB[ab][ba]AW[aa];B[cc])", "its stones: "),
        ("(;GM[1]SZ[5];B[zz])", "move 1, B[zz]"),
        ("(;GM[2]SZ[8];B[cc])", "another game than Go"),
        ("nothing", "no game is there"),
    ],
)
def test_what_cannot_be_loaded_changes_nothing(tmp_path: Path, text: str, why: str) -> None:
    engine = Engine(Player(Go(5, 0.5)), {5})
    ask(engine, "set_free_handicap c3 b2", "play w d4")
    before = engine.player.positions.rows.copy()
    path = tmp_path / "game.sgf"
    path.write_text(text)
    said = engine.answer(f"loadsgf {path}") or ""
    assert said.startswith("? cannot load file: ") and why in said and said.count("\n") == 2
    assert (engine.player.positions.rows == before).all() and engine.answer("undo") == "=\n\n"


PLAY = [sys.executable, "-m", "volition", "play", "go", "--gtp", "--size", "5", "--seconds", "0.01"]


def test_a_real_pipe_with_noise_and_an_end() -> None:
    noise = b"name\r\n\xff\xfe\x00\n5 genmove b\n\nlz-analyze 1\n6 showboard"
    ended = subprocess.run(PLAY, input=noise, capture_output=True, check=False)
    said = ended.stdout.decode().replace("\r", "").split("\n\n")
    assert ended.returncode == 0 and ended.stderr == b""
    assert said[:2] == ["= Volition", "? unknown command"] and said[2].startswith("=5 ")
    assert said[3].startswith("=\ninfo move") and said[4].startswith("=6")


def test_ctrl_c_ends_it_at_once() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # a shell lets what it starts in the background, perhaps these tests, ignore Ctrl-C
    with subprocess.Popen(PLAY, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"name\nlz-analyze 1\n")
        process.stdin.flush()
        while b"info" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)  # reads on: nobody can leave whose last lines nobody takes
        assert process.returncode == 130 and errors == b""
