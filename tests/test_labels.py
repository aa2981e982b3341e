"""The label store: what goes in, who gets what, what stays, what comes out."""

import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image

from volition.cli import main
from volition.data import labels, preferences
from volition.data.labels import PROMPTS, RANKINGS, Store
from volition.data.preferences import Preference
from volition.errors import VolitionError
from volition.web import bring, people, report, work

POSTGRES = os.environ.get("VOLITION_TEST_POSTGRES")  # URL of a database to throw away, as postgresql://me@/test
PLACES = ["sqlite", pytest.param("postgres", marks=pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL named"))]


@pytest.fixture(params=PLACES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    if request.param == "sqlite":
        yield Store(tmp_path / "labels.db", create=True)
        return
    assert POSTGRES
    made = Store(POSTGRES, create=True)
    labels.METADATA.drop_all(made.engine)
    labels.METADATA.create_all(made.engine)
    yield made
    made.engine.dispose()


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def fill(store: Store, path: Path, *rows: Any, share: float = 0, copies: int = 2) -> bring.Brought:
    """Import rows from a file at this path."""
    found = bring.Brought()
    asked, images = bring.read([write(path, *rows)], found)
    bring.bring(store, asked, images, found, share, copies)
    return found


def asks(count: int, k: int = 4) -> list[dict[str, Any]]:
    return [{"prompt": f"p{i}", "completions": [f"{i}{c}" for c in "abcdefghi"[:k]]} for i in range(count)]


def join(store: Store, *names: str) -> list[int]:
    with store.write() as connection:
        return [people.labeler(connection, name) for name in names]


def answer(rank: list[int], **more: Any) -> dict[str, Any]:
    return {"rank": rank, "ratings": [None] * len(rank), "flags": [[] for _ in rank], "seconds": 0.0} | more


def key() -> str:
    return uuid.uuid4().hex


def best_first(task: work.Task) -> list[int]:
    """Ranks, in the order shown, of one who likes the alphabet."""
    texts = [c["text"] for c in task.completions]
    return [sorted(texts).index(t) + 1 for t in texts]


def test_a_ranking_is_kept_in_the_order_of_the_file(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path / "a.jsonl", *asks(12, 9))
    (ann,) = join(store, "ann")
    orders = set()
    while (task := work.task(store, ann)) is not None:
        orders.add(tuple(c["text"][-1] for c in task.completions))
        ratings = [1 + r % 7 for r in best_first(task)]
        flags = [["task"] if r == 1 else [] for r in best_first(task)]
        more = {"ratings": ratings, "flags": flags, "note": "x\0\ud800", "seconds": 1e8}
        work.rank(store, ann, task.assignment, key(), answer(best_first(task), **more))
    assert len(orders) > 6  # of 362880 orders twelve are drawn
    found = labels.read(store)
    assert len(found) == 12
    for p in found:
        assert p.rank == tuple(range(1, 10))
        assert p.meta["ratings"] == [2, 3, 4, 5, 6, 7, 1, 2, 3]
        assert p.meta["flags"] == [["task"]] + [[]] * 8
        assert (p.labeler, p.meta["note"]) == ("ann", "x?")
        assert p.seconds is not None and p.seconds < 60  # not more than has passed since the prompt was given


def test_everybody_gets_what_is_wanted_and_nothing_twice(store: Store, tmp_path: Path) -> None:
    brought = fill(store, tmp_path / "a.jsonl", *asks(20), share=0.25, copies=3)
    assert (brought.prompts, brought.shared) == (20, 5)
    who = join(store, "ann", "ben", "eve", "joe")
    asleep = 0
    while asleep < len(who):  # in turns, until a whole round finds nothing
        asleep = 0
        for w in who:
            task = work.task(store, w)
            asleep += task is None
            if task is not None:
                work.rank(store, w, task.assignment, key(), answer(best_first(task)))
    by = Counter(p.prompt for p in labels.read(store))
    assert Counter(by.values()) == {1: 15, 3: 5}
    assert max(Counter((p.prompt, p.labeler) for p in labels.read(store)).values()) == 1
    with store.read() as connection:
        wanted = dict(connection.execute(sa.select(PROMPTS.c.prompt, PROMPTS.c.wanted)).all())
    assert by == wanted
    done = work.progress(store, who[0])
    assert (done.done, done.all) == (30, 30)


def test_the_same_prompt_until_it_is_done_and_to_others_after_the_lease(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path / "a.jsonl", *asks(1))
    ann, ben = join(store, "ann", "ben")
    first = work.task(store, ann, now=1000.0)
    assert first is not None
    assert work.task(store, ann, now=1001.0) == first  # in the same order, too
    assert work.task(store, ben, now=1002.0) is None
    again = work.task(store, ben, now=1001.0 + work.LEASE)
    assert again is not None
    work.rank(store, ben, again.assignment, key(), answer([1, 2, 3, 4]))
    work.rank(store, ann, first.assignment, key(), answer([1, 1, 2, 2]))  # late, but not lost
    assert len(labels.read(store)) == 2


def test_sent_twice_kept_once(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path / "a.jsonl", *asks(2))
    ann, ben = join(store, "ann", "ben")
    task, same = work.task(store, ann), key()
    assert task is not None
    with ThreadPoolExecutor(8) as pool:  # at a time
        list(pool.map(lambda _: work.rank(store, ann, task.assignment, same, answer([1, 2, 3, 4])), range(16)))
    assert len(labels.read(store)) == 1
    with pytest.raises(work.Refused, match="ranked already"):
        work.rank(store, ann, task.assignment, key(), answer([4, 3, 2, 1]))
    other = work.task(store, ben)
    assert other is not None
    with pytest.raises(work.Refused, match="not yours"):
        work.rank(store, ben, task.assignment, key(), answer([1, 2, 3, 4]))
    with pytest.raises(work.Refused, match="belongs to another"):
        work.rank(store, ben, other.assignment, same, answer([1, 2, 3, 4]))


def test_undo_and_skip(store: Store, tmp_path: Path) -> None:
    fill(store, tmp_path / "a.jsonl", *asks(2))
    ann, ben = join(store, "ann", "ben")
    task = work.task(store, ann)
    assert task is not None
    work.rank(store, ann, task.assignment, key(), answer([1, 1, 2, 3], note="hm", ratings=[7, None, 1, 2]))
    assert work.progress(store, ann).last == task.assignment
    work.undo(store, ann, task.assignment)
    work.undo(store, ann, task.assignment)  # the answer got lost: asked again, it does no more
    again = work.task(store, ann)
    assert again is not None and again.assignment == task.assignment
    assert again.completions == task.completions
    assert again.before is not None
    assert (again.before["rank"], again.before["ratings"]) == ([1, 1, 2, 3], [7, None, 1, 2])
    assert len(labels.read(store)) == 1  # it counts until another takes its place
    work.rank(store, ann, task.assignment, key(), answer([4, 3, 2, 1]))
    assert len(labels.read(store)) == 1
    with store.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(RANKINGS)) == 2
    work.undo(store, ann, task.assignment)
    work.skip(store, ann, task.assignment)
    work.skip(store, ann, task.assignment)
    with pytest.raises(VolitionError, match="no ranking yet"):
        labels.read(store)
    nxt = work.task(store, ann)
    assert nxt is not None and nxt.prompt != task.prompt
    given = work.task(store, ben)
    assert given is not None and given.prompt == task.prompt  # who skips leaves it to another
    with pytest.raises(work.Refused, match="not yours"):
        work.undo(store, ben, task.assignment)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "an object"),
        ({}, "rank must list 4"),
        (answer([1, 2, 3]), "rank must list 4"),
        (answer([1, 2, 3, 5]), "rank must be"),
        (answer([0, 1, 2, 3]), "rank must be"),
        (answer([True, 2, 3, 4]), "rank must be"),
        (answer([1, 2, 3, 4], ratings=[8, None, None, None]), "ratings"),
        (answer([1, 2, 3, 4], flags=[["bad"], [], [], []]), "unknown flag"),
        (answer([1, 2, 3, 4], flags=[[[]], [], [], []]), "unknown flag"),
        (answer([1, 2, 3, 4], note="x" * 4001), "a note"),
        (answer([1, 2, 3, 4], seconds="9"), "seconds"),
        (answer([1, 2, 3, 4], seconds=float("nan")), "seconds"),
    ],
)
def test_what_is_no_ranking_is_refused(tmp_path: Path, given: Any, message: str) -> None:
    store = Store(tmp_path / "labels.db", create=True)
    fill(store, tmp_path / "a.jsonl", *asks(1))
    (ann,) = join(store, "ann")
    task = work.task(store, ann)
    assert task is not None
    with pytest.raises(work.Refused, match=message):
        work.rank(store, ann, task.assignment, key(), given)
    with pytest.raises(VolitionError, match="no ranking yet"):
        labels.read(store)


def test_tokens_are_kept_as_hashes(store: Store) -> None:
    token = people.invite(store, "ann")
    cookie = people.sign_in(store, token)
    assert cookie
    who = people.signed_in(store, cookie)
    assert who is not None and who.name == "ann"
    with store.read() as connection:
        kept = [str(row) for t in labels.METADATA.tables.values() for row in connection.execute(sa.select(t))]
    assert not any(token in row or cookie in row for row in kept)
    assert people.sign_in(store, token + "x") is None
    assert people.sign_in(store, "") is None
    people.invite(store, "ann")  # a new token: the old one and its sessions are worth nothing
    assert people.sign_in(store, token) is None
    assert people.signed_in(store, cookie) is None
    with pytest.raises(VolitionError, match="nobody named 'bob'"):
        people.revoke(store, "bob")


def test_one_file_per_model(tmp_path: Path) -> None:
    store = Store(tmp_path / "labels.db", create=True)
    files = [
        write(tmp_path / f"{m}.jsonl", {"prompt": "p", "response": t}, {"prompt": "q", "response": t})
        for m, t in (("one", " x"), ("two", "y"), ("three", "x "), ("four", " "))
    ]
    found = bring.Brought()
    asked, images = bring.read(files, found)
    bring.bring(store, asked, images, found, 0, 2)
    assert (found.prompts, found.repeated, found.empty) == (2, 2, 2)
    with store.read() as connection:
        (p, _) = connection.scalars(sa.select(PROMPTS.c.completions))
    assert p == [{"text": " x", "model": "one, three"}, {"text": "y", "model": "two"}]


def test_out_and_in_again(store: Store, tmp_path: Path) -> None:
    """What is exported is read by everybody who reads preferences, and brings the same into another store."""
    fill(store, tmp_path / "a.jsonl", *[a | {"meta": {"use": "chat"}} for a in asks(5)], share=1)
    for who in join(store, "ann", "ben"):
        while (task := work.task(store, who)) is not None:
            work.rank(store, who, task.assignment, key(), answer(best_first(task), ratings=[1, 2, 3, 4], note="n"))
    before = labels.read(store)
    preferences.write(tmp_path / "out.jsonl", before)
    assert preferences.read(tmp_path / "out.jsonl") == before
    if store.sqlite:  # whoever reads preferences reads the store itself
        assert preferences.read(tmp_path / "labels.db") == before
    elif POSTGRES:
        assert preferences.read(POSTGRES) == before
    second = Store(tmp_path / "second.db", create=True)
    for _ in range(2):  # the second time everything is there already
        found = bring.Brought()
        asked, images = bring.read([tmp_path / "out.jsonl"], found)
        bring.bring(second, asked, images, found, 0, 2)
        assert labels.read(second) == before
    assert (found.prompts, found.known, found.rankings) == (0, 5, 0)
    # the same completions in another order are the same prompt
    turned = Preference("p0", before[0].completions[::-1], (4, 3, 2, 1), "joe")
    preferences.write(tmp_path / "turned.jsonl", [turned])
    asked, images = bring.read([tmp_path / "turned.jsonl"], found)
    bring.bring(second, asked, images, found, 0, 2)
    assert next(p for p in labels.read(second) if p.labeler == "joe").rank == (1, 2, 3, 4)


TASK = {"prompt": "p", "items": [{"id": 1, "title": "t", "body": "x"}, {"id": 2, "body": "y"}]}
RANKER = {"type": "ranker", "value": {"ranker": {"rank": ["2", "1"]}}}


@pytest.mark.parametrize(
    ("row", "rankings"),
    [
        (TASK, 0),
        ({"data": TASK}, 0),
        ({"data": TASK, "annotations": []}, 0),
        ({"data": TASK, "annotations": [{"completed_by": 3, "result": [RANKER]}]}, 1),
        ({"prompt": "p", "chosen": "y", "rejected": "x"}, 1),
        ({"chosen": "\n\nHuman: p\n\nAssistant: y", "rejected": "\n\nHuman: p\n\nAssistant: x"}, 1),
        ({"query": "p", "sample0": "x", "sample1": "y", "best": 1}, 1),
        ({"info": {"post": "p"}, "summaries": [{"text": "x"}, {"text": "y"}], "choice": 1}, 1),
        ({"prompt": "p", "completions": [{"text": "x", "model": "m"}, {"completion": "y"}]}, 0),
        ({"prompt": [{"role": "user", "content": "p"}], "completions": ["x", "y"]}, 0),
    ],
)
def test_other_peoples_forms(tmp_path: Path, row: dict[str, Any], rankings: int) -> None:
    store = Store(tmp_path / "labels.db", create=True)
    found = fill(store, tmp_path / "file.jsonl", row)
    assert (found.prompts, found.rankings) == (1, rankings)
    with store.read() as connection:
        texts = [c["text"].strip() for c in connection.scalars(sa.select(PROMPTS.c.completions)).one()]
    assert sorted(texts) == ["x", "y"]
    if rankings:
        (p,) = labels.read(store)
        assert p.completions[p.rank.index(1)].strip() == "y"
        assert p.labeler in ("3", "file")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p"}, "bad.jsonl, line 1: no ranking is known with the fields prompt"),
        ({"prompt": "p", "completions": "x"}, "line 1: 'completions' is \"x\"; it must be a list"),
        ({"prompt": "", "completions": ["x", "y"]}, "line 1: 'prompt' is empty"),
        ({"prompt": "p", "completions": ["x", 3]}, "line 1: 'completion 2' is 3"),
        ({"prompt": "p", "completions": list("abcdefghij")}, "10 completions of 'p': at most 9"),
        ({"prompt": "p", "completions": ["x", "y"], "meta": 3}, "line 1: 'meta' is 3"),
        ({"prompt": "p", "completions": [{"image": "no.png"}, "y"]}, "no.png is no image of PNG"),
        ({"prompt": "p", "completions": [{"image": "bad.jsonl"}, "y"]}, "bad.jsonl is no image of PNG"),
    ],
)
def test_mistakes_in_files(
    tmp_path: Path, row: Any, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "bad.jsonl", row)
    assert main(["label", "import", "labels.db", "bad.jsonl"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "labels.db").exists()


def test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("a.png", "b.jpg")):
        Image.new("RGB", (8, 8), (80 * i, 9, 9)).save(tmp_path / name)
    write(
        tmp_path / "in.jsonl", {"prompt": "red", "completions": [{"image": "a.png", "model": "m"}, {"image": "b.jpg"}]}
    )
    assert main(["label", "import", "labels.db", "in.jsonl"]) == 0
    store = Store("labels.db")
    (ann,) = join(store, "ann")
    task = work.task(store, ann)
    assert task is not None
    work.rank(store, ann, task.assignment, key(), answer([1, 1]))
    assert main(["label", "export", "labels.db", "out.jsonl"]) == 0
    (found,) = preferences.read("out.jsonl")
    assert found.meta["images"] and found.rank == (1, 1)
    assert [Image.open(name).format for name in found.completions] == ["PNG", "JPEG"]


def test_stats_by_hand(store: Store, tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "completions": ["x", "y", "z"], "rank": r, "labeler": who, "seconds": s,
         "meta": {"ratings": [7, 4, 1]}}
        for who, r, s in (("ann", [1, 2, 3], 30), ("ben", [1, 3, 2], 60))
    ]  # fmt: skip
    rows.append({"prompt": "q", "completions": ["x", "y"], "rank": [1, 1], "labeler": "ann", "seconds": 90})
    fill(store, tmp_path / "a.jsonl", *rows)
    found = report.stats(store)
    assert (found["prompts"], found["rankings"], found["prompts with several labelers"]) == (2, 3, 1)
    assert found["equal pairs"] == pytest.approx(2 / 3)
    assert found["tau"] == pytest.approx(1 / 3)
    assert found["rating alpha"] == 1
    ann, ben = found["labelers"]
    assert ann == {"labeler": "ann", "rankings": 2, "skipped": 0, "seconds": 60, "an hour": 60,
                   "equal pairs": pytest.approx(2 / 3)}  # fmt: skip
    assert ben["an hour"] == 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("label serv x", "volition label has no command 'serv'; did you mean 'serve'?"),
        ("label stats no.db", "there is no label store no.db; volition label import no.db FILE makes one"),
        ("label stats other.db", "no label store opens at other.db: file is not a database"),
        ("label stats empty.db", "empty.db is no label store"),
        ("label import new.db none.jsonl", "none.jsonl cannot be read"),
        ("label import new.db none.jsonl --share 3", "--share 3.0: it is a share, from 0 to 1"),
        ("label import new.db none.jsonl --copies 1", "agreement needs 2"),
        ("label stats nodb://me:secret@host/x", "no label store opens at nodb://me:***@host/x"),
    ],
)
def test_mistakes(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.db").write_text("something else altogether, and quite long " * 99)
    (tmp_path / "empty.db").touch()
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new.db").exists()
