"""The label store: prompts, who was given which, and every ranking made on the labelling page (`volition label`)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from volition.data.preferences import Preference
from volition.errors import VolitionError

try:
    import sqlalchemy as sa
    from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, String, Table, Text
except ModuleNotFoundError:
    raise VolitionError("the label store needs SQLAlchemy: pip install 'volition[web]'") from None

METADATA = sa.MetaData()
LABELERS = Table(
    "labelers", METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), unique=True, nullable=False),
    Column("token", String(64), unique=True),  # SHA-256 of the personal token; none: may not sign in
)  # fmt: skip
SESSIONS = Table(
    "sessions", METADATA,
    Column("cookie", String(64), primary_key=True),  # SHA-256
    Column("labeler", ForeignKey("labelers.id"), nullable=False, index=True),
    Column("csrf", String(64), nullable=False),
    Column("until", Float, nullable=False),
)  # fmt: skip
IMAGES = Table(
    "images", METADATA,
    Column("digest", String(64), primary_key=True),
    Column("kind", String(20), nullable=False),  # png, jpeg, webp, gif
    Column("data", LargeBinary, nullable=False),
)  # fmt: skip
PROMPTS = Table(
    "prompts", METADATA,
    Column("id", Integer, primary_key=True),
    Column("digest", String(64), unique=True, nullable=False),  # of the prompt and its completions in any order
    Column("prompt", Text, nullable=False),
    Column("completions", JSON, nullable=False),  # [{text or image, model?}, …]
    Column("meta", JSON, nullable=False),
    Column("wanted", Integer, nullable=False),  # number of labelers
)  # fmt: skip
ASSIGNMENTS = Table(
    "assignments", METADATA,
    Column("id", Integer, primary_key=True),
    Column("prompt", ForeignKey("prompts.id"), nullable=False, index=True),
    Column("labeler", ForeignKey("labelers.id"), nullable=False),
    Column("state", String(8), nullable=False),  # open, ranked, skipped
    Column("order", JSON, nullable=False),  # places of the completions in the order they are shown in
    Column("begun", Float, nullable=False),
    Column("given", Float, nullable=False),  # anew after an undo
    Column("done", Float),
    Index("one_assignment", "labeler", "prompt", unique=True),
)  # fmt: skip
RANKINGS = Table(
    "rankings", METADATA,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), unique=True, nullable=False),  # made by the page: sent twice, a ranking counts once
    Column("prompt", ForeignKey("prompts.id"), nullable=False),
    Column("labeler", ForeignKey("labelers.id"), nullable=False),
    Column("rank", JSON, nullable=False),
    Column("ratings", JSON, nullable=False),  # 1–7 or none, of each completion
    Column("flags", JSON, nullable=False),  # names of what was marked, of each completion
    Column("note", Text, nullable=False),
    Column("seconds", Float),
    Column("at", Float, nullable=False),
    Column("current", Boolean, nullable=False),  # replaced rankings are kept
    Index("one_ranking", "labeler", "prompt", unique=True, sqlite_where=sa.text("current"),
          postgresql_where=sa.text("current")),
)  # fmt: skip


class Store:
    """A connection to a label store: a file of SQLite, or the URL of a PostgreSQL database."""

    def __init__(self, place: str | Path, create: bool = False) -> None:
        place = str(place)
        sqlite = "://" not in place
        if sqlite and not create and not Path(place).exists():
            raise VolitionError(f"there is no label store {place}; volition label import {place} FILE makes one")
        url = f"sqlite:///{place}" if sqlite else place.replace("postgresql://", "postgresql+psycopg://", 1)
        try:
            # a thread waits for a connection rather than failing
            self.engine = sa.create_engine(url, pool_size=8, max_overflow=0, pool_timeout=60)
            if sqlite:
                sa.event.listen(self.engine, "connect", _durable)
                sa.event.listen(self.engine, "begin", _begin)
            if create:
                METADATA.create_all(self.engine)
            elif not sa.inspect(self.engine).has_table("rankings"):
                raise VolitionError(f"{place} is no label store; volition label import makes one")
        except ModuleNotFoundError as error:
            raise VolitionError(f"{_hidden(url)} needs the package {error.name}: pip install it") from None
        except sa.exc.SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise VolitionError(f"no label store opens at {_hidden(place)}: {reason}") from None
        self.sqlite, self._one = sqlite, threading.Lock()

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction, alone in this store where that is SQLite's; on the disk when the block is left."""
        if self.sqlite:  # SQLite's own waiting is not fair: of 40 writers some would starve
            with self._one, self.engine.begin() as connection:
                yield connection
        else:
            with self.engine.begin() as connection:
                yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and hinders nobody who writes."""
        with self.engine.connect().execution_options(reading=True) as connection:
            yield connection

    def alone(self, connection: sa.Connection) -> None:
        """Let no other transaction that asks for the same go on before this one has ended."""
        if not self.sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(5)"))


def _hidden(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True) if "://" in url else url


def _durable(connection: Any, _: Any) -> None:
    """WAL, so that readers and the writer go together; FULL, so that a commit has reached the disk (sqlite.org/wal)."""
    connection.isolation_level = None  # transactions begin where SQLAlchemy begins them, in _begin
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    # a transaction that first reads and then writes could not be begun anew: take the writer's place at once
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def clean(text: str) -> str:
    """The text without what a database refuses: NUL, and halves of surrogate pairs, which become "?"."""
    return text.replace("\0", "").encode(errors="replace").decode()


def said(completion: dict[str, Any]) -> str:
    """What stands for a completion in a file: its text, or where export puts its image."""
    return completion["text"] if "text" in completion else f"images/{completion['image']}"


def read(place: str | Path | Store) -> list[Preference]:
    """All rankings that stand, with their ratings and flags in `meta`."""
    store = place if isinstance(place, Store) else Store(place)
    r = RANKINGS.c
    columns = (PROMPTS.c.prompt, PROMPTS.c.completions, PROMPTS.c.meta, LABELERS.c.name,
               r.rank, r.ratings, r.flags, r.note, r.seconds)  # fmt: skip
    query = (
        sa.select(*columns)
        .select_from(RANKINGS.join(PROMPTS, RANKINGS.c.prompt == PROMPTS.c.id).join(LABELERS))
        .where(RANKINGS.c.current)
        .order_by(RANKINGS.c.prompt, RANKINGS.c.id)
    )
    found = []
    with store.read() as connection:
        for row in connection.execute(query):
            prompt, completions, meta, name = row[:4]
            more = {
                "models": [c.get("model") for c in completions] if any("model" in c for c in completions) else None,
                "images": any("image" in c for c in completions),
                "ratings": row.ratings if any(row.ratings) else None,
                "flags": row.flags if any(row.flags) else None,
                "note": row.note,
            }
            meta = meta | {field: value for field, value in more.items() if value}
            texts = tuple(said(c) for c in completions)
            found.append(Preference(prompt, texts, tuple(row.rank), name, row.seconds, meta))
    if not found:
        raise VolitionError(f"{'the label store' if isinstance(place, Store) else place} holds no ranking yet")
    return found


def images(store: Store) -> Iterator[tuple[str, bytes]]:
    """Every picture that is a completion: the name that rankings call it by, and its file's bytes."""
    with store.read() as connection:
        for row in connection.execute(sa.select(IMAGES)):
            yield f"{row.digest}.{row.kind}", row.data
