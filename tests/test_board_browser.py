"""The board in a real browser: a game is played to its end by clicks and keys, on a desk and on a phone."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

pytest.importorskip("numba")

from volition.applications._go_player import Player
from volition.core.search import Search
from volition.data import sgf
from volition.envs.go_game import Go
from volition.gtp import action_of
from volition.web.board import create
from volition.web.opponent import Opponent

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium")
SIZES: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 860}},
    "phone": {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True},
}


class Server:
    """The board in this process; it can go away and come back at the same address."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        # few simulations, so that it never resigns and takes no time
        player = Player(Go(5, 0.5), search=Search(simulations=50))
        self.opponent = Opponent(player, {5, 13}, 30.0, "UCT")
        self.server = uvicorn.Server(uvicorn.Config(create(self.opponent), port=self.port, log_level="critical"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        yield play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])  # CI runs as root


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser: Any, server: Server) -> Iterator[Any]:
    context = browser.new_context(**SIZES[request.param], accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(30_000)  # numba may have to compile
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
    own = (f"http://127.0.0.1:{server.port}/", "blob:")
    page.on("request", lambda asked: None if asked.url.startswith(own) else wrong.append(asked.url))
    page.goto(f"http://127.0.0.1:{server.port}")
    page.wait_for_selector("#status:has-text('Your turn')")
    yield page
    context.close()
    assert wrong == []


def press(page: Any, vertex: str, n: int = 5) -> None:
    """Click or tap a point of the board."""
    row, column = divmod(action_of(vertex, n), n)
    board = page.locator("#board")
    scale = board.bounding_box()["width"] / ((n - 1) * 40 + 60)
    at = {"x": (36 + 40 * column) * scale, "y": (24 + 40 * row) * scale}
    (board.tap if page.viewport_size["width"] < 500 else board.click)(position=at)


def counted(page: Any, stones: int) -> None:
    """Wait until so many stones are on the board, and it is one's turn."""
    page.wait_for_selector("#status:has-text('Your turn')")
    found = page.locator("#stones circle")
    for _ in range(500):
        if found.count() == stones:
            return
        page.wait_for_timeout(10)
    raise AssertionError(f"{found.count()} stones, not {stones}")


def download(page: Any) -> Any:
    with page.expect_download() as coming:
        page.click("#save")
    return sgf.parse(Path(coming.value.path()).read_text())


def test_a_game_by_clicks(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    press(page, "C3")
    counted(page, 2)
    press(page, "C3")
    page.wait_for_selector("#message.wrong:text-is('C3 is occupied')")
    counted(page, 2)
    assert page.locator("#overlay *").count() == 0 and page.locator("#show-priors").is_disabled()
    page.check("#show-visits", force=True)
    numbers = page.locator("#overlay text")
    visits = [int(text) for text in numbers.all_text_contents()]
    assert 0 < sum(visits) <= 50 and max(visits) >= 2
    page.check("#show-values", force=True)
    assert any(text.endswith("%") for text in numbers.all_text_contents())
    page.click("#undo")
    counted(page, 0)
    page.click("#hint")
    page.wait_for_selector("#message:has-text('Hint: ')")
    assert page.locator("#overlay .best").count() == 1
    press(page, "C3")
    counted(page, 2)
    # to the end: any empty point that is not refused, and a pass once the other side has passed
    passed = False
    while "wins" not in page.locator("#status").inner_text():
        before = page.locator("#status").inner_text()
        if "passed" in before or passed:
            page.click("#pass")
            page.wait_for_timeout(50)
        else:
            passed = not somewhere(page)
        page.wait_for_selector("#status:text-matches('Your turn|wins|won|draw')")
    score = page.locator("#status").inner_text()
    assert "Dead stones count until they are taken" in page.locator("#message").inner_text()
    assert page.locator("#marks .owner").count() > 10
    game = download(page)
    assert game.size == 5 and game.komi == 0.5 and game.black == "You" and game.moves[-2:].tolist() == [25, 25]
    side, points = game.result.split("+")
    assert score == f"{'Black' if side == 'B' else 'White'} wins by {points}."
    rules = Go(5, 0.5)
    positions = rules.start(1)
    for action in game.moves:
        assert rules.legal(positions)[0, action]
        rules.play(positions, np.array([action]))
    assert rules.score(positions)[0] == float(points) * (1 if side == "B" else -1)
    assert "%" in page.locator("#curve figcaption").inner_text() and page.locator("#curve .win").count() == 1


def somewhere(page: Any) -> bool:
    """Play the first point that is empty and not refused; False if there is none."""
    script = "stones => stones.map(s => s.cx.baseVal.value / 40 + s.cy.baseVal.value / 8)"
    taken = {round(at) for at in page.locator("#stones circle").evaluate_all(script)}
    for action in sorted({*range(25)} - taken, key=lambda a: (a * 7) % 25):
        press(page, "ABCDE"[action % 5] + str(5 - action // 5))
        page.wait_for_selector("#pass:not([disabled]), #status:text-matches('wins|won|draw')")
        if not page.locator("#message.wrong").count():
            return True
    return False


def test_keys_white_resignation_and_reload(page: Any) -> None:
    page.click("#setup summary")
    page.select_option("#you", "2")
    page.fill("#komi", "3.5")
    page.click("#begin button")
    counted(page, 1)  # it has begun
    page.focus("#board")
    page.keyboard.press("ArrowLeft")  # the cursor comes to the middle
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    said = page.locator("#said").text_content()
    if said == "A5 black":  # it may have begun there
        page.keyboard.press("ArrowRight")
        said = page.locator("#said").text_content()
    assert said in ("A5 empty", "B5 empty")
    page.keyboard.press("Enter")
    counted(page, 3)
    page.reload()
    counted(page, 3)
    page.keyboard.press("p")
    page.wait_for_selector("#status:text-matches('Your turn|wins')")
    page.click("#resign")
    page.wait_for_selector("#status:text-is('White resigned: UCT won.')")
    game = download(page)
    assert game.result == "B+R" and game.white == "You" and game.komi == 3.5 and game.moves[1] == "AB".index(said[0])
    page.click("#undo")  # a resignation is taken back alone
    page.wait_for_selector("#status:has-text('Your turn')")
    assert len(download(page).moves) == len(game.moves)


@pytest.mark.parametrize("page", ["desk"], indirect=True)
def test_the_server_goes_away_and_comes_back(page: Any, server: Server) -> None:
    press(page, "C3")
    counted(page, 2)
    server.stop()
    press(page, "A1")
    page.wait_for_selector("#notice:has-text('the game is kept in this tab')")
    server.start()
    page.wait_for_selector("#status:has-text('Your turn')")
    game = download(page)
    assert len(game.moves) >= 4 and game.moves[2] == 20


@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_small_points_are_tapped_twice(page: Any) -> None:
    page.click("#setup summary")
    page.select_option("#size", "13")
    page.click("#begin button")
    counted(page, 0)
    press(page, "D4", 13)
    page.wait_for_selector("#message:text-is('Tap D4 again to play there.')")
    assert page.locator("#stones circle").count() == 0
    press(page, "D4", 13)
    counted(page, 2)
