"""The labelling page over HTTP: who is let in, what is kept out, and 40 labelers of whom no ranking may be lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path

import httpx
import pytest
import uvicorn
from PIL import Image

from volition.data import labels
from volition.data.labels import Store
from volition.web import app, bring, people

ATTACK = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">{{ 7*7 }}\"'</li>"


def fill(store: Store, folder: Path, count: int, k: int = 4) -> None:
    rows = [
        {"prompt": f"p{i} {ATTACK}", "completions": [f"{ATTACK} {i}{c}" for c in "abcdefghi"[:k]]} for i in range(count)
    ]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = bring.Brought()
    asked, images = bring.read([folder / "in.jsonl"], found)
    bring.bring(store, asked, images, found, 0, 2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "labels.db", create=True)
    fill(made, tmp_path, 3)
    return made


@pytest.fixture
def base(store: Store) -> Iterator[str]:
    """The address of a server in this process."""
    server = uvicorn.Server(uvicorn.Config(app.create(store), port=0, log_level="error"))
    server.install_signal_handlers = lambda: None  # pyrefly: ignore
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


class Person:
    """A browser's doings, without its looks."""

    def __init__(self, base: str, token: str) -> None:
        self.http = httpx.Client(base_url=base, headers={"origin": base}, timeout=60, verify=False)  # no TLS here
        self.entered = self.http.post("/sign-in", data={"token": token})
        self.csrf = ""

    def look(self) -> str:
        page = self.http.get("/").raise_for_status().text
        self.csrf = re.findall('data-csrf="(.+?)"', page)[0]
        return page

    def assignment(self) -> int | None:
        found = re.findall('data-assignment="(.+?)"', self.look())
        return int(found[0]) if found else None

    def post(self, path: str, headers: dict | None = None, **body: object) -> httpx.Response:
        return self.http.post(path, json=body, headers={"x-csrf-token": self.csrf} | (headers or {}))

    def rank(self, assignment: int, key: str, k: int = 4) -> httpx.Response:
        rank = list(range(1, k + 1))
        return self.post(
            "/rank", assignment=assignment, key=key, rank=rank, ratings=[None] * k, flags=[[]] * k, seconds=1
        )


@pytest.fixture
def ann(base: str, store: Store) -> Iterator[Person]:
    person = Person(base, people.invite(store, "ann"))
    yield person
    person.http.close()


def test_cookies_and_headers(ann: Person) -> None:
    cookie = ann.entered.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    for path in ("/", "/sign-in", "/static/label.js", "/nothing", "/images/0"):
        headers = ann.http.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert ann.http.get("/").headers["cache-control"] == "no-store"


def test_texts_are_texts(ann: Person) -> None:
    page = ann.look()
    assert "<script>document" not in page and 'onerror="' not in page
    assert unescape(page).count(ATTACK) == 5  # the prompt and four completions, as they were written
    assert re.findall(r"<script[^>]*>", page) == ['<script src="/static/label.js" defer>']
    assert not re.search(r'(style|\son\w+)="', page)


@pytest.mark.parametrize("token", ["", "x", "ann", "x" * 190, "' OR 1=1 --", "\0", "ü"])
def test_nobody_enters_without_a_token(base: str, store: Store, token: str) -> None:
    people.invite(store, "ann")
    stranger = Person(base, token)
    assert stranger.entered.status_code == 401
    assert "set-cookie" not in stranger.entered.headers
    assert stranger.http.get("/").headers["location"] == "/sign-in"
    for path in ("/rank", "/skip", "/undo", "/sign-out"):
        assert stranger.post(path, assignment=1).status_code == 401
    assert stranger.http.get("/images/0").status_code == 401


def test_nobody_acts_for_another(ann: Person, base: str, store: Store) -> None:
    ben = Person(base, people.invite(store, "ben"))
    mine, his = ann.assignment(), ben.assignment()
    assert mine and his and mine != his
    assert ben.rank(mine, "k" * 32).status_code == 404
    assert ben.post("/skip", assignment=mine).status_code == 404
    assert ben.post("/undo", assignment=mine).status_code == 404
    assert ben.post("/skip", {"x-csrf-token": ann.csrf}, assignment=his).status_code == 403
    people.revoke(store, "ben")
    assert ben.rank(his, "k" * 32).status_code == 401


def test_other_sites_change_nothing(ann: Person, store: Store) -> None:
    assignment = ann.assignment()
    assert assignment
    for foreign in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"x-csrf-token": ""},
        {"x-csrf-token": "ü".encode()},
    ):
        assert ann.post("/skip", foreign, assignment=assignment).status_code == 403
    assert ann.http.post("/sign-in", headers={"origin": "https://evil.example"}).status_code == 403
    assert ann.assignment() == assignment
    assert ann.post("/skip", {"sec-fetch-site": "same-origin"}, assignment=assignment).status_code == 200
    assert ann.assignment() != assignment


def test_bodies(ann: Person, base: str) -> None:
    ann.look()
    headers = {"x-csrf-token": ann.csrf}
    assert ann.http.post("/rank", content=b" " * 70_000, headers=headers).status_code == 413
    parts = (b" " * 1000 for _ in range(70))  # without a length
    assert ann.http.post("/rank", content=parts, headers=headers).status_code == 413
    assert ann.http.post("/sign-in", content=b"token=" + b"x" * 70_000).status_code == 413
    for body in (b"", b"{", b"[]", b"3", b"\xff", b"[" * 30_000, b'{"assignment": true}', b'{"assignment": 1e9}'):
        assert ann.http.post("/rank", content=body, headers=headers).status_code == 400, body
    assert ann.post("/rank", assignment=2**70).status_code == 400
    assert ann.http.get("/rank").status_code == 405
    assert ann.http.get("/static/../app.py").status_code == 404
    assert ann.http.get("/static/%2e%2e/app.py").status_code == 404


def test_rank_twice_undo_sign_out(ann: Person, store: Store) -> None:
    first = ann.assignment()
    assert first
    for _ in range(2):
        assert ann.rank(first, "k" * 32).json() == {"saved": True}
    assert ann.rank(first, "l" * 32).status_code == 409
    assert ann.rank(first, "short").status_code == 422
    assert f'data-last="{first}"' in ann.look()
    assert ann.post("/undo", assignment=first).status_code == 200
    assert ann.assignment() == first
    assert "&#34;rank&#34;: [1, 2, 3, 4]" in ann.look()
    assert ann.post("/sign-out").status_code == 200
    assert ann.http.get("/").status_code == 303
    assert len(labels.read(store)) == 1


def test_images_are_for_labelers_only(ann: Person, base: str, store: Store, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "i.jsonl").write_text('{"prompt": "p", "completions": [{"image": "a.png"}, "no image"]}')
    found = bring.Brought()
    asked, images = bring.read([tmp_path / "i.jsonl"], found)
    bring.bring(store, asked, images, found, 0, 2)
    (digest,) = images
    answer = ann.http.get(f"/images/{digest}")
    assert answer.content == (tmp_path / "a.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert httpx.get(f"{base}/images/{digest}").status_code == 401


def test_forty_at_a_time(base: str, store: Store, tmp_path: Path) -> None:
    """Each sends every ranking twice at a time; together they do all prompts, each once."""
    fill(store, tmp_path, 103)  # three of them are there already
    tokens = [people.invite(store, f"labeler {i}") for i in range(40)]
    together = threading.Barrier(40)

    def labour(token: str) -> int:
        person = Person(base, token)
        together.wait()
        count = 0
        while (assignment := person.assignment()) is not None:
            key = os.urandom(16).hex()
            with ThreadPoolExecutor(2) as twice:
                answers = list(twice.map(person.rank, [assignment] * 2, [key] * 2))
            assert [a.status_code for a in answers] == [200, 200]
            count += 1
        return count

    with ThreadPoolExecutor(40) as pool:
        counts = list(pool.map(labour, tokens))
    assert sum(counts) == 103
    found = labels.read(store)
    assert len(found) == 103 and set(Counter(p.prompt for p in found).values()) == {1}
    by = Counter(p.labeler for p in found)
    assert [by[f"labeler {i}"] for i in range(40)] == counts


def serve(folder: Path, port: int) -> subprocess.Popen:
    words = [sys.executable, "-m", "volition", "label", "serve", "labels.db", "--port", str(port)]
    server = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    for _ in range(6000):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server
        except OSError:
            assert server.poll() is None
            time.sleep(0.02)
    raise AssertionError("the server does not answer")


def test_killed_at_any_time(tmp_path: Path) -> None:
    """Killed while eight label, again and again: what was acknowledged is there, and nothing twice."""
    store = Store(tmp_path / "labels.db", create=True)
    fill(store, tmp_path, 400)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve(tmp_path, port)
    tokens = [people.invite(store, f"labeler {i}") for i in range(8)]
    stop = threading.Event()
    acknowledged: list[tuple[str, str]] = []  # (labeler, prompt)

    def labour(i: int) -> None:
        person = Person(f"http://127.0.0.1:{port}", tokens[i])
        while not stop.is_set():
            try:
                page = person.look()
                assignment = int(re.findall('data-assignment="(.+?)"', page)[0])
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            prompt, key = re.findall(r'<div class="text">(p\d+) ', page)[0], os.urandom(16).hex()
            while True:  # as the page does: the same key until there is an answer
                try:
                    answer = person.rank(assignment, key)
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            assert answer.status_code == 200, answer.text
            acknowledged.append((f"labeler {i}", prompt))

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(labour, i) for i in range(8)]
        try:
            for kill in range(2):
                enough = len(acknowledged) + 17 + kill
                while len(acknowledged) < enough and not any(job.done() for job in jobs):
                    time.sleep(0.001)
                os.kill(server.pid, signal.SIGKILL)
                server.wait()
                server = serve(tmp_path, port)
        finally:
            stop.set()
        for job in jobs:
            job.result()
    server.kill()
    server.wait()
    found = Counter((p.labeler, p.prompt.split()[0]) for p in labels.read(store))
    assert set(found.values()) == {1}
    assert len(acknowledged) == len(set(acknowledged)) > 34
    assert set(acknowledged) == set(found)
