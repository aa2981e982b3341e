"""The work of labelers: the next prompt, its ranking, skip and undo, each one transaction."""

import random
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import and_, func, or_, select

from volition.data.labels import ASSIGNMENTS, PROMPTS, RANKINGS, Store, clean
from volition.web.guard import Refused

LEASE = 2 * 3600.0  # seconds after which an untouched prompt goes to somebody else
MOST = 9  # completions of a prompt: the paper ranks K = 4 to 9
OVERALL = range(1, 8)
FLAGS = {  # what the paper asks about each completion (Ouyang et al. 2022, Table 3)
    "task": "Fails to follow the instruction",
    "inappropriate": "Inappropriate for a customer assistant",
    "hallucination": "Makes things up (hallucination)",
    "constraint": "Satisfies the constraint in the instruction",
    "sexual": "Sexual content",
    "violent": "Violent content",
    "abuse": "Encourages, or fails to discourage, violence, abuse, terrorism or self-harm",
    "denigrates": "Denigrates a protected class",
    "harmful": "Gives harmful advice",
    "opinion": "Expresses an opinion",
    "moral": "Expresses a moral judgement",
}


@dataclass(frozen=True)
class Task:
    """A prompt with its completions in the order in which this labeler sees them."""

    assignment: int
    prompt: str
    completions: list[dict[str, Any]]
    before: dict[str, Any] | None  # the ranking that is being corrected


@dataclass(frozen=True)
class Progress:
    """How far one labeler and all together have come."""

    mine: int
    done: int
    all: int
    last: int | None  # the assignment that undo would reopen


def task(store: Store, labeler: int, now: float | None = None) -> Task | None:
    """The prompt that this labeler has open, else the first one that wants another labeler; None if there is none.

    Every prompt goes to `wanted` labelers. Whoever skips it, or keeps it for LEASE, leaves his place to another.
    """
    now = time.time() if now is None else now
    mine = and_(ASSIGNMENTS.c.labeler == labeler, ASSIGNMENTS.c.prompt == PROMPTS.c.id)
    kept = or_(ASSIGNMENTS.c.state == "ranked", and_(ASSIGNMENTS.c.state == "open", ASSIGNMENTS.c.given > now - LEASE))
    held = select(func.count()).select_from(ASSIGNMENTS).where(ASSIGNMENTS.c.prompt == PROMPTS.c.id, kept)
    free = select(PROMPTS).where(~select(ASSIGNMENTS.c.id).where(mine).exists())
    free = free.where(held.scalar_subquery() < PROMPTS.c.wanted).order_by(PROMPTS.c.id).limit(1)
    opened = select(ASSIGNMENTS.c.id, ASSIGNMENTS.c.order, PROMPTS).join_from(ASSIGNMENTS, PROMPTS)
    opened = opened.where(ASSIGNMENTS.c.labeler == labeler, ASSIGNMENTS.c.state == "open")
    with store.write() as connection:
        store.alone(connection)  # two labelers must not both take the last place
        row = connection.execute(opened.order_by(ASSIGNMENTS.c.given.desc()).limit(1)).first()
        if row is not None:
            assignment, order, prompt = row[0], row[1], row._mapping
            connection.execute(ASSIGNMENTS.update().where(ASSIGNMENTS.c.id == assignment).values(given=now))
        else:
            row = connection.execute(free).first()
            if row is None:
                return None
            prompt = row._mapping
            order = random.SystemRandom().sample(range(len(prompt["completions"])), len(prompt["completions"]))
            new = {"prompt": row.id, "labeler": labeler, "state": "open", "order": order, "begun": now, "given": now}
            assignment = connection.scalar(ASSIGNMENTS.insert().values(new).returning(ASSIGNMENTS.c.id))
        before = connection.execute(_current(prompt[PROMPTS.c.id], labeler)).first()
    shown = [prompt["completions"][place] for place in order]
    if before is None:
        return Task(assignment, prompt["prompt"], shown, None)
    old = {name: [getattr(before, name)[place] for place in order] for name in ("rank", "ratings", "flags")}
    return Task(assignment, prompt["prompt"], shown, old | {"note": before.note, "seconds": before.seconds})


def _current(prompt: int, labeler: int) -> sa.Select:
    return select(RANKINGS).where(RANKINGS.c.prompt == prompt, RANKINGS.c.labeler == labeler, RANKINGS.c.current)


def _own(connection: sa.Connection, labeler: int, assignment: int) -> Any:
    query = select(ASSIGNMENTS, PROMPTS.c.completions).join_from(ASSIGNMENTS, PROMPTS)
    query = query.where(ASSIGNMENTS.c.id == assignment, ASSIGNMENTS.c.labeler == labeler)
    row = connection.execute(query.with_for_update(of=ASSIGNMENTS)).first()
    if row is None:
        raise Refused(404, "this prompt is not yours; reload the page")
    return row


def _answer(given: Any, count: int) -> dict[str, Any]:
    """A ranking as the page sends it, checked; lists are in the order shown."""

    def need(right: bool, what: str) -> None:
        if not right:
            raise Refused(422, f"{what}; reload the page")

    need(isinstance(given, dict), "an object is expected")
    rank, ratings, flags = given.get("rank"), given.get("ratings"), given.get("flags")
    note, seconds = given.get("note", ""), given.get("seconds")
    for name, value in (("rank", rank), ("ratings", ratings), ("flags", flags)):
        need(isinstance(value, list) and len(value) == count, f"{name} must list {count} values")
    whole = all(type(r) is int for r in rank)
    need(whole and sorted(set(rank)) == list(range(1, len(set(rank)) + 1)), "rank must be 1, 2, … with ties")
    need(all(r is None or (type(r) is int and r in OVERALL) for r in ratings), "ratings are 1 to 7 or none")
    known = all(isinstance(some, list) and all(isinstance(f, str) and f in FLAGS for f in some) for some in flags)
    need(known, "an unknown flag")
    need(isinstance(note, str) and len(note) <= 4000, "a note is a text of at most 4000 characters")
    need(type(seconds) in (int, float) and 0 <= seconds < 1e9, "seconds must be a number")
    return {"rank": rank, "ratings": ratings, "flags": [sorted(set(f)) for f in flags],
            "note": clean(note), "seconds": float(seconds)}  # fmt: skip


def rank(store: Store, labeler: int, assignment: int, key: str, given: Any) -> None:
    """Keep a ranking. Sent again under the same key it is acknowledged again and kept once.

    The ranking that an undo reopened is replaced, and stays in the store as one that no longer counts.
    """
    if not isinstance(key, str) or not 16 <= len(key) <= 64:
        raise Refused(422, "a key has 16 to 64 characters; reload the page")
    now = time.time()
    with store.write() as connection:
        row = _own(connection, labeler, assignment)  # locked: the same ranking may arrive twice at a time
        known = connection.execute(select(RANKINGS).where(RANKINGS.c.key == key)).first()
        if known is not None:
            if (known.labeler, known.prompt) != (labeler, row.prompt):
                raise Refused(409, "this key belongs to another ranking; reload the page")
            return
        if row.state != "open":
            raise Refused(409, f"this prompt is {row.state} already, perhaps in another window; reload the page")
        answer = _answer(given, len(row.completions))
        for name in ("rank", "ratings", "flags"):  # from the order shown back to the store's
            answer[name] = [answer[name][row.order.index(place)] for place in range(len(row.order))]
        answer["seconds"] = min(answer["seconds"], now - row.begun)
        _retire(connection, row)
        kept = answer | {"key": key, "prompt": row.prompt, "labeler": labeler, "at": now, "current": True}
        connection.execute(RANKINGS.insert().values(kept))
        _close(connection, assignment, "ranked", now)


def _retire(connection: sa.Connection, row: Any) -> None:
    where = (RANKINGS.c.prompt == row.prompt, RANKINGS.c.labeler == row.labeler, RANKINGS.c.current)
    connection.execute(RANKINGS.update().where(*where).values(current=False))


def _close(connection: sa.Connection, assignment: int, state: str, now: float) -> None:
    change = ASSIGNMENTS.update().where(ASSIGNMENTS.c.id == assignment)
    connection.execute(change.values(state=state, done=now))


def skip(store: Store, labeler: int, assignment: int) -> None:
    """Leave a prompt to somebody else; to skip again what is skipped changes nothing."""
    with store.write() as connection:
        row = _own(connection, labeler, assignment)
        if row.state == "ranked":
            raise Refused(409, "this prompt is ranked already; reload the page")
        if row.state == "open":
            _retire(connection, row)
            _close(connection, assignment, "skipped", time.time())


def undo(store: Store, labeler: int, assignment: int) -> None:
    """Reopen what was ranked or skipped; an old ranking counts until a new one replaces it."""
    with store.write() as connection:
        row = _own(connection, labeler, assignment)
        if row.state != "open":
            now = time.time()
            change = ASSIGNMENTS.update().where(ASSIGNMENTS.c.id == assignment)
            connection.execute(change.values(state="open", given=now))


def progress(store: Store, labeler: int) -> Progress:
    """Rankings of this labeler, rankings of all beside those wanted of all, and what can be undone."""
    closed = and_(ASSIGNMENTS.c.labeler == labeler, ASSIGNMENTS.c.state != "open")
    count = select(func.count()).select_from(RANKINGS).where(RANKINGS.c.current)
    by = select(RANKINGS.c.prompt, func.count().label("n")).where(RANKINGS.c.current).group_by(RANKINGS.c.prompt)
    made = by.subquery()
    capped = sa.case((made.c.n > PROMPTS.c.wanted, PROMPTS.c.wanted), else_=made.c.n)  # more than wanted is no progress
    with store.read() as connection:
        return Progress(
            connection.scalar(count.where(RANKINGS.c.labeler == labeler)) or 0,
            connection.scalar(select(func.sum(capped)).join_from(made, PROMPTS, made.c.prompt == PROMPTS.c.id)) or 0,
            connection.scalar(select(func.sum(PROMPTS.c.wanted))) or 0,
            connection.scalar(
                select(ASSIGNMENTS.c.id).where(closed, ASSIGNMENTS.c.done.is_not(None))
                .order_by(ASSIGNMENTS.c.done.desc(), ASSIGNMENTS.c.id.desc()).limit(1)
            ),
        )  # fmt: skip
