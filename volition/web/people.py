"""Who may label: personal tokens and sessions, of which the store keeps hashes only."""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from volition.data.labels import LABELERS, SESSIONS, Store
from volition.errors import VolitionError

SESSION = 30 * 86_400.0  # seconds that a sign-in lasts


@dataclass(frozen=True)
class Labeler:
    """Somebody who is signed in."""

    id: int
    name: str
    csrf: str


def digest(secret: str) -> str:
    """SHA-256 in hexadecimal; a secret of 160 random bits or more needs no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def labeler(connection: sa.Connection, name: str) -> Any:
    """The number of the labeler of this name, who is noted if unknown."""
    found = connection.scalar(sa.select(LABELERS.c.id).where(LABELERS.c.name == name))
    return found or connection.scalar(LABELERS.insert().values(name=name).returning(LABELERS.c.id))


def invite(store: Store, name: str) -> str:
    """A new token for a labeler, who is signed out everywhere; it can be read here and never again."""
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise VolitionError(f"{name!r} is no labeler's name; give 1 to 100 printable characters")
    token = secrets.token_urlsafe(24)
    with store.write() as connection:
        _let_in(connection, labeler(connection, name), digest(token))
    return token


def revoke(store: Store, name: str) -> None:
    """Make a labeler's token worth nothing and sign him out; his rankings stay."""
    with store.write() as connection:
        found = connection.scalar(sa.select(LABELERS.c.id).where(LABELERS.c.name == name))
        if found is None:
            raise VolitionError(f"nobody named {name!r} labels here; volition label stats lists the labelers")
        _let_in(connection, found, None)


def _let_in(connection: sa.Connection, who: int, token: str | None) -> None:
    connection.execute(LABELERS.update().where(LABELERS.c.id == who).values(token=token))
    connection.execute(SESSIONS.delete().where(SESSIONS.c.labeler == who))


def sign_in(store: Store, token: str) -> str | None:
    """The cookie of a new session, or None if nobody has this token."""
    cookie, now = secrets.token_urlsafe(24), time.time()
    with store.write() as connection:
        who = connection.scalar(sa.select(LABELERS.c.id).where(LABELERS.c.token == digest(token)))
        if who is None:
            return None
        connection.execute(SESSIONS.delete().where(SESSIONS.c.until < now))
        row = {"cookie": digest(cookie), "labeler": who, "csrf": secrets.token_urlsafe(24), "until": now + SESSION}
        connection.execute(SESSIONS.insert().values(row))
    return cookie


def signed_in(store: Store, cookie: str | None) -> Labeler | None:
    """Whose session this is."""
    if not cookie:
        return None
    query = sa.select(LABELERS.c.id, LABELERS.c.name, SESSIONS.c.csrf).join_from(SESSIONS, LABELERS)
    with store.read() as connection:
        row = connection.execute(
            query.where(SESSIONS.c.cookie == digest(cookie), SESSIONS.c.until > time.time())
        ).first()
    return Labeler(*row) if row else None


def sign_out(store: Store, cookie: str) -> None:
    """End a session."""
    with store.write() as connection:
        connection.execute(SESSIONS.delete().where(SESSIONS.c.cookie == digest(cookie)))


def equal(a: str, b: str) -> bool:
    """Whether two secrets are the same, in a time that does not tell where they differ."""
    return secrets.compare_digest(a.encode(errors="replace"), b.encode())
