"""The labelling page in a real browser: sets are ranked by drag and by keyboard, on a desk and on a phone."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from volition.data import labels
from volition.data.labels import Store
from volition.web import app, bring, people

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium")
LONG = "A line that goes on.\n" * 40
ATTACK = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
SIZES: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 860}},
    "phone": {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        yield play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])  # CI runs as root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "labels.db", create=True)
    rows = [{"prompt": f"p{i} {ATTACK}", "completions": ["a short", f"b {LONG}", f"c {ATTACK}", "d"]} for i in range(3)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = bring.Brought()
    asked, images = bring.read([tmp_path / "in.jsonl"], found)
    bring.bring(made, asked, images, found, 0, 2)
    return made


class Server:
    """The page in this process; it can go away and come back at the same address."""

    def __init__(self, store: Store) -> None:
        self.store, self.port = store, 0
        self.start()

    def start(self) -> None:
        self.server = uvicorn.Server(uvicorn.Config(app.create(self.store), port=self.port, log_level="critical"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()


@pytest.fixture
def server(store: Store) -> Iterator[Server]:
    made = Server(store)
    yield made
    made.stop()


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser: Any, server: Server, store: Store) -> Iterator[Any]:
    """A page on which somebody has signed in."""
    context = browser.new_context(**SIZES[request.param], reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append("a dialog"))
    page.goto(f"http://127.0.0.1:{server.port}")
    page.fill("#token", people.invite(store, "ann"))
    page.click("button.main")
    arrived(page, "#list")
    yield page
    context.close()
    assert wrong == []


def arrived(page: Any, sign: str) -> None:
    """Wait for the next page: a deferred script runs after what it acts on can be seen, and keys before it are lost."""
    page.wait_for_selector(sign)
    page.wait_for_load_state()


def order(page: Any) -> list[tuple[str, str]]:
    """First letter and place of each card, from the top down."""
    script = "cards => cards.map(c => [c.querySelector('.text').textContent[0], c.querySelector('.place').textContent])"
    return [tuple(pair) for pair in page.locator(".card").evaluate_all(script)]


def card(page: Any, letter: str) -> Any:
    index = page.locator(".card").evaluate_all(
        "(cards, letter) => cards.find(c => c.querySelector('.text').textContent[0] === letter).dataset.index", letter
    )
    return page.locator(f"#card-{index}")


def drag(page: Any, letter: str, above: Any) -> None:
    """Drag a card to just above another element: as the others shrink meanwhile, look where that is then."""
    grip = card(page, letter).locator(".grip")
    grip.evaluate("grip => grip.scrollIntoView({ block: 'center' })")
    box = grip.bounding_box()
    x, y = box["x"] + 12, box["y"] + 20
    touch = page.context.new_cdp_session(page) if page.viewport_size["width"] < 500 else None

    def finger(kind: str, y: float) -> None:
        if touch:
            points = [] if kind == "touchEnd" else [{"x": x, "y": y}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        elif kind == "touchMove":
            page.mouse.move(x, y)
        else:
            page.mouse.move(x, y)
            (page.mouse.down if kind == "touchStart" else page.mouse.up)()

    finger("touchStart", y)
    page.wait_for_selector(".held")
    for _ in range(200):  # the page scrolls by itself near its edges
        goal = above.bounding_box()["y"] + 6
        near = min(max(goal, 30), page.viewport_size["height"] - 90)
        y += max(-60, min(60, near - y))
        finger("touchMove", y)
        page.wait_for_timeout(20)
        if abs(above.bounding_box()["y"] + 6 - y) < 2:
            break
    page.wait_for_timeout(50)
    finger("touchEnd", y)
    page.wait_for_selector(".held", state="detached")


def submit(page: Any) -> None:
    page.keyboard.press("Control+Enter")
    arrived(page, "#mine:text-is('1')")


def test_rank_by_drag(page: Any, store: Store) -> None:
    divider = page.locator("#rest")
    assert page.locator("#submit").is_disabled()
    drag(page, "c", divider)
    assert order(page)[0] == ("c", "1")
    drag(page, "a", card(page, "c"))
    assert order(page)[:2] == [("a", "1"), ("c", "2")]
    drag(page, "d", divider)
    assert order(page)[:3] == [("a", "1"), ("c", "2"), ("d", "3")]
    drag(page, "b", card(page, "d"))
    assert order(page) == [("a", "1"), ("c", "2"), ("b", "3"), ("d", "4")]
    card(page, "c").locator(".relation").click()
    assert order(page) == [("a", "1"), ("c", "1"), ("b", "2"), ("d", "3")]
    drag(page, "d", card(page, "c"))  # between two that are tied
    assert order(page) == [("a", "1"), ("d", "1"), ("c", "1"), ("b", "2")]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#submit")
    page.wait_for_selector("#mine:text-is('1')")
    (found,) = labels.read(store)
    assert found.rank == (1, 2, 1, 1)
    assert page.title() == "Ranking"  # nothing that a completion said has run


def test_rank_by_keyboard(page: Any, store: Store) -> None:
    press = page.keyboard.press
    page.keyboard.press("j")
    for letter, keys in (("b", "1"), ("c", "1"), ("d", "Enter"), ("a", "2"), ("d", "Alt+ArrowUp"), ("d", "=")):
        card(page, letter).focus()
        press(keys)
        assert card(page, letter).evaluate("card => card === document.activeElement")
    assert order(page) == [("c", "1"), ("a", "2"), ("d", "2"), ("b", "3")]
    card(page, "c").locator(".rating input").nth(6).focus()
    press("Space")
    card(page, "c").focus()
    press("f")
    card(page, "c").locator(".flags input").nth(1).check()
    page.fill("#note", "just so; s and u and 1 are letters here")
    page.wait_for_timeout(1100)
    page.reload()  # all of it is still there
    assert order(page) == [("c", "1"), ("a", "2"), ("d", "2"), ("b", "3")]
    submit(page)
    (found,) = labels.read(store)
    assert found.rank == (2, 3, 1, 2)
    assert found.meta["ratings"] == [None, None, 7, None]
    assert found.meta["flags"] == [[], [], ["inappropriate"], []]
    assert found.meta["note"].startswith("just so")
    assert found.seconds is not None and found.seconds >= 1
    with page.expect_navigation():
        press("u")  # undo: the ranking as it was
    page.wait_for_selector("#submit:text-is('Submit')")
    undone = sorted(order(page), key=lambda at: at[::-1])  # ties stand as they were first shown, by chance
    assert undone == [("c", "1"), ("a", "2"), ("d", "2"), ("b", "3")]
    card(page, "b").focus()
    press("1")
    with page.expect_navigation():
        press("Control+Enter")
    (found,) = labels.read(store)
    assert found.rank == (3, 1, 2, 3)
    with page.expect_navigation():
        press("s")
    assert page.locator(".prompt .text").inner_text().startswith("p2")
    page.click("#leave")
    page.wait_for_selector("#token")


def test_the_server_goes_away_and_comes_back(page: Any, server: Server, store: Store) -> None:
    for letter in "abcd":
        card(page, letter).focus()
        page.keyboard.press("Enter")
    server.stop()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#notice:has-text('Not saved yet')")
    with pytest.raises(Exception, match="no ranking yet"):
        labels.read(store)
    server.start()
    page.wait_for_selector("#mine:text-is('1')")
    (found,) = labels.read(store)
    assert found.rank == (1, 2, 3, 4)
