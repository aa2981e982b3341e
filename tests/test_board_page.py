"""The board over HTTP: games as requests tell them, what is refused and why, and replies of a search."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("starlette")

from starlette.testclient import TestClient

from volition.applications._go_net import Judge, frozen, make_net
from volition.applications._go_player import Player
from volition.cli import main
from volition.core.search import Search
from volition.data import sgf
from volition.envs.go_game import Go
from volition.gtp import action_of
from volition.web import opponent as opponents
from volition.web.board import create
from volition.web.game import Game, forbidden, state
from volition.web.opponent import Opponent

PASS = 25  # on 5×5


def uct() -> Opponent:
    return Opponent(Player(Go(5, 0.5), search=Search(simulations=200)), set(range(2, 26)), 600.0, "UCT")


@pytest.fixture(scope="module")
def page() -> Iterator[TestClient]:
    with TestClient(create(uct()), headers={"origin": "http://testserver"}) as client:
        yield client


def moves(text: str, size: int = 5) -> list[int]:
    return [action_of(word, size) for word in text.split()]


def ask(page: TestClient, path: str, status: int = 200, **more: Any) -> dict[str, Any]:
    answer = page.post(path, json={"size": 5, "komi": 0.5, "moves": [], "seconds": 30} | more)
    assert answer.status_code == status, answer.text
    return answer.json() if status == 200 else {"error": answer.json()["error"]}


def test_the_page(page: TestClient) -> None:
    answer = page.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
    assert re.findall(r"<script[^>]*>", answer.text) == ['<script src="/static/board.js" defer>']
    assert not re.search(r'(style|\son\w+)="', answer.text) and "http" not in answer.text
    for name in re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text):
        assert page.get(name).status_code == 200


def test_a_position(page: TestClient) -> None:
    found = ask(page, "/position", moves=moves("B5 A5 pass C3 A4"))  # black takes A5
    board = np.array(found["board"]).reshape(5, 5)
    assert board[0].tolist() == [0, 1, 0, 0, 0] and board[1, 0] == 1 and board[2, 2] == 2
    assert found["captures"] == [1, 0] and found["turn"] == 2 and not found["over"]


def test_the_end_is_counted(page: TestClient) -> None:
    wall = moves("B1 D1 B2 D2 B3 D3 B4 D4 B5 D5 pass pass")
    found = ask(page, "/position", moves=wall, komi=2)
    assert found["over"] and found["area"] == [10, 10] and found["score"] == -2
    assert np.array(found["owner"]).reshape(5, 5).tolist() == [[1, 1, 0, 2, 2]] * 5
    assert "over" in ask(page, "/position", 422, moves=[*wall, 2])["error"]
    for path in ("/reply", "/hint"):
        assert ask(page, path, 409, moves=wall)["error"] == "the game is over"


KO = "B5 C5 A4 D4 B3 C3 C4 B4"  # white's stone at B4 has taken, black may not take back at once


@pytest.mark.parametrize(
    ("played", "wrong", "why"),
    [
        ("C3", "C3", "C3 is occupied"),
        ("B5 C3 A4", "A5", "A5 would be suicide"),
        (KO, "C4", "C4 is forbidden by ko"),
    ],
)
def test_illegal_moves_are_told_why(page: TestClient, played: str, wrong: str, why: str) -> None:
    ask(page, "/position", moves=moves(played))
    assert ask(page, "/position", 422, moves=moves(f"{played} {wrong}"))["error"].startswith(why)
    assert ask(page, "/reply", 422, moves=moves(f"{played} {wrong}"))["error"].startswith(why)


def slowly(board: tuple[int, ...], n: int, action: int, colour: int) -> tuple[int, ...] | None:
    """The board after a move on an empty point, stone by stone; None where it is suicide."""
    new = list(board)
    new[action] = colour

    def near(a: int) -> list[int]:
        r, c = divmod(a, n)
        ways = ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1))
        return [y * n + x for y, x in ways if 0 <= y < n and 0 <= x < n]

    def chain(a: int) -> set[int]:
        found, grown = {a}, True
        while grown:
            more = {b for s in found for b in near(s) if new[b] == new[a]} - found
            found, grown = found | more, bool(more)
        return found

    for foe in near(action):
        if new[foe] == 3 - colour and not any(new[b] == 0 for s in chain(foe) for b in near(s)):
            for stone in chain(foe):
                new[stone] = 0
    return tuple(new) if any(new[b] == 0 for s in chain(action) for b in near(s)) else None


def test_reasons_are_the_true_ones() -> None:
    """In random games on boards so small that they come back: what is forbidden, and why, as stones say one by one."""
    rng = np.random.default_rng(0)
    count = dict.fromkeys(("occupied", "suicide", "by ko", "superko"), 0)
    for n in [2, 3] * 60:
        rules = Go(n, 0.5)
        game = Game(rules, [], rules.start(1))
        before = [(0,) * n * n]
        while not game.over:
            turn, board, free = 1 + len(game.moves) % 2, before[-1], [n * n]
            for action in range(n * n):
                said = forbidden(rules, game.positions, action)
                after = slowly(board, n, action, turn) if board[action] == 0 else None
                if said is None:
                    assert after and after not in before
                    free.append(action)
                    continue
                (why,) = (word for word in count if word in said)
                count[why] += 1
                assert (why == "occupied") == (board[action] != 0)
                assert (why == "suicide") == (board[action] == 0 and after is None)
                assert why != "by ko" or after == before[-2]
                assert why != "superko" or after in before[:-1]
            game.add(int(rng.choice(free)))
            before.append(tuple(state(game)["board"]))
    assert min(count.values()) > 5, count


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"[]", 400, "no JSON object"),
        (b"\xff", 400, "no JSON"),
        (b"[" * 30_000, 400, "no JSON"),
        (b" " * 70_000, 413, "64 KiB"),
        (b"{}", 422, "no such size"),
        (b'{"size": true, "komi": 7, "moves": []}', 422, "no such size"),
        (b'{"size": 26, "komi": 7, "moves": []}', 422, "26 size: this opponent plays on boards of side 2 to 25"),
        (b'{"size": 5, "komi": NaN, "moves": []}', 422, "komi"),
        (b'{"size": 5, "komi": 1e999, "moves": []}', 422, "komi"),
        (b'{"size": 5, "komi": "7", "moves": []}', 422, "komi"),
        (b'{"size": 5, "komi": 1%b, "moves": []}' % (b"0" * 400), 422, "komi"),
        (b'{"size": 5, "komi": 7, "moves": {}}', 422, "0 to 25"),
        (b'{"size": 5, "komi": 7, "moves": [26]}', 422, "0 to 25"),
        (b'{"size": 5, "komi": 7, "moves": [-1]}', 422, "0 to 25"),
        (b'{"size": 5, "komi": 7, "moves": [true]}', 422, "0 to 25"),
        (b'{"size": 5, "komi": 7, "moves": [1.0]}', 422, "0 to 25"),
        (b'{"size": 5, "komi": 7, "moves": [%b25]}' % (b"25," * 75), 422, "at most 75 moves, not 76"),
        (b'{"size": 5, "komi": 7, "moves": [25, 25, 3]}', 422, "move 3: the game is over"),
    ],
)  # fmt: skip
def test_what_is_no_game_is_refused(page: TestClient, body: bytes, status: int, why: str) -> None:
    for path in ("/position", "/reply", "/hint", "/game.sgf"):
        answer = page.post(path, content=body)
        assert answer.status_code == status and why in answer.json()["error"], answer.text


@pytest.mark.parametrize("seconds", [0, -1, 31, "1", None, True, float("nan"), float("inf"), 10**400])
def test_seconds(page: TestClient, seconds: Any) -> None:
    body = json.dumps({"size": 5, "komi": 0.5, "moves": [], "seconds": seconds})
    assert page.post("/reply", content=body).status_code == 422


def test_other_sites_let_nobody_think(page: TestClient) -> None:
    for foreign in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert page.post("/reply", json={}, headers=foreign).status_code == 403


def test_replies_and_hints(page: TestClient) -> None:
    start = moves("C3 C2")
    hint = ask(page, "/hint", moves=start)
    assert "state" not in hint and sum(hint["visits"]) == 200 and hint["priors"] is None
    assert hint["action"] == int(np.argmax(hint["visits"])) and 0 <= hint["win"] <= 1
    for visits, value in zip(hint["visits"], hint["values"], strict=True):
        assert (value is None) == (visits == 0) and (value is None or -1 <= value <= 1)
    assert hint["win"] == pytest.approx((hint["values"][hint["action"]] + 1) / 2, abs=1e-3)
    reply = ask(page, "/reply", moves=start)
    after = ask(page, "/position", moves=[*start, reply["action"]])
    assert reply["state"] == after and after["board"][reply["action"]] == 1


def test_a_game_is_played_to_its_end(page: TestClient) -> None:
    """Both sides are asked of the server: every move is legal, and at the end the file says what the page says."""
    played: list[int] = []
    while True:
        reply = ask(page, "/reply", moves=played)
        resigned = 0 if reply["action"] is not None else 1 + len(played) % 2
        if resigned:
            break
        played.append(reply["action"])
        if reply["state"]["over"]:
            break
    answer = page.post("/game.sgf", json={"size": 5, "komi": 0.5, "moves": played, "you": 2, "resigned": resigned})
    game = sgf.parse(answer.text)
    assert game.moves.tolist() == played and game.komi == 0.5 and game.white == "You" and game.black == "Volition UCT"
    assert game.how == ("resigned" if resigned else "counted")
    if not resigned:
        assert game.winner == np.sign(ask(page, "/position", moves=played)["score"])
    assert game.winner in (1, -1)
    assert ask(page, "/game.sgf", 422, moves=played, you=0)["error"].startswith("you must be")


def test_two_games_at_a_time_do_not_mix(page: TestClient) -> None:
    """Threads that each play their own game on one player, of different sizes and komi, with takebacks in between."""

    def play(size: int) -> None:
        rng, played = np.random.default_rng(size), []
        for turn in range(8):
            reply = ask(page, "/reply", size=size, komi=size, moves=played)
            assert len(reply["visits"]) == size**2 + 1
            if reply["action"] is None or reply["state"]["over"]:
                return
            played.append(reply["action"])
            shown = ask(page, "/position", size=size, komi=size, moves=played)
            assert reply["state"] == shown
            for action in rng.permutation(np.flatnonzero(np.array(shown["board"]) == 0)).tolist():
                if page.post("/position", json={"size": size, "komi": 0, "moves": [*played, action]}).is_success:
                    break
            played.append(action)
            if turn == 3:
                played = played[:-4]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(play, (4, 5, 6)))


def test_too_many_wait() -> None:
    """While the player is busy WAITING requests wait, one more is sent away, and positions are answered still."""
    opponent = uct()
    with TestClient(create(opponent), headers={"origin": "http://testserver"}) as page:
        with ThreadPoolExecutor(opponents.WAITING) as pool:
            opponent._lock.acquire()
            waiting = [pool.submit(ask, page, "/reply") for _ in range(opponents.WAITING)]
            while opponent.waiting < opponents.WAITING:
                assert not any(job.done() for job in waiting)
            assert "busy" in ask(page, "/hint", 503)["error"]
            assert ask(page, "/position")["turn"] == 1
            opponent._lock.release()
            assert all(job.result()["state"]["turn"] == 2 for job in waiting)
        assert opponent.waiting == 0 and ask(page, "/hint")["action"] is not None


def test_a_network_keeps_its_tree_and_shows_its_policy() -> None:
    judge = Judge(frozen(make_net(5, 1, 8)), 5)
    opponent = Opponent(Player(Go(5, 0.5), judge, search=Search(simulations=60)), {5}, 600.0, "net")
    opponent.warm()  # the time to compile is none to think
    with TestClient(create(opponent), headers={"origin": "http://testserver"}) as page:
        assert "boards of side 5 only" in ask(page, "/position", 422, size=9)["error"]
        reply = ask(page, "/reply")
        assert sum(reply["priors"]) == pytest.approx(1.0, abs=0.01) and sum(reply["visits"]) == 60
        before = opponent.player.positions.rows
        answer = next(a for a in range(PASS) if a != reply["action"])
        ask(page, "/hint", moves=[reply["action"], answer])
        assert opponent.player.positions.rows is before  # played on, not begun anew
        ask(page, "/hint", moves=[reply["action"]])  # after a takeback it is
        assert [a for _, a in opponent.player.played] == [reply["action"]]

        def fail(_: object) -> None:
            raise RuntimeError("no memory")

        another = [answer]
        opponent.player.judge = fail  # pyrefly: ignore
        with pytest.raises(RuntimeError):
            ask(page, "/reply", moves=another)
        opponent.player.evaluate = judge
        assert len(ask(page, "/reply", moves=another)["visits"]) == 26


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("serve --seconds 0", "--seconds 0: it must be more than 0 and at most 30"),
        ("serve --komi nan", "--komi nan: it must be from -500 to 500"),
        ("serve --size 40", "a board of side 40: it must be 2 to 25"),
        ("serve --run nowhere", "nowhere is not a run folder"),
        ("serve --prot 1", "volition serve has no flag --prot; did you mean '--port'"),
    ],
)
def test_mistakes_on_the_command_line(capsys: pytest.CaptureFixture[str], words: str, message: str) -> None:
    try:
        assert main(words.split()) == 2
    finally:
        assert message in capsys.readouterr().err
