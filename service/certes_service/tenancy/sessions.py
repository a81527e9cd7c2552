"""Logins on the page: a random cookie, kept as a hash, and a CSRF token that only the page can know.

A session is good as long as its key is, and for twelve hours at most.
"""

from __future__ import annotations

import hmac
import re
import secrets

import sqlalchemy as sa

from certes_service.settings import Settings
from certes_service.storage.database import Database
from certes_service.storage.tables import keys, sessions
from certes_service.tenancy.callers import Caller, Session
from certes_service.tenancy.keys import Keys, alive, hash_of

#: How long a login lasts, in seconds.
LIFETIME = 12 * 3600.0
#: The header in which a script of the page sends the CSRF token, and the field in which a form does.
CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf"
_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class Sessions:
    """The logins. Everything here blocks: for a thread.

    Args:
        database: where they are.
        keys: by which one logs in.
    """

    def __init__(self, database: Database, keys: Keys) -> None:
        self.database = database
        self.keys = keys

    def open(self, secret: str, old: str | None = None) -> tuple[Session, str] | None:
        """Log in with a key.

        Args:
            secret: the key.
            old: the cookie that came with it, whose session ends: nobody logs in to a session that others know.

        Returns:
            The session and the cookie's value; None if the key is not good.

        Raises:
            StorageError: the database cannot be written.
        """
        caller = self.keys.authenticate(secret)
        if caller is None:
            return None
        cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        with self.database.begin() as connection:
            now = self.database.now(connection)
            left = sessions.c.expires <= now
            if old is not None:
                left = sa.or_(left, sessions.c.hash == hash_of(old))
            connection.execute(sa.delete(sessions).where(left))
            row = {"hash": hash_of(cookie), "key": caller.key, "csrf": csrf, "created": now, "expires": now + LIFETIME}
            connection.execute(sa.insert(sessions).values(**row))
        return Session(caller, csrf, hash_of(cookie), now + LIFETIME), cookie

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie; None if there is none, or it is over, or its key is.

        Raises:
            StorageError: the database cannot be read.
        """
        if _COOKIE.fullmatch(cookie) is None:
            return None
        asked = (
            sa.select(
                sessions.c.hash, sessions.c.csrf, sessions.c.expires, keys.c.id, keys.c.tenant, keys.c.scopes,
                keys.c.revoked, keys.c.expires.label("key_expires"),
            )
            .join(keys, keys.c.id == sessions.c.key)
            .where(sessions.c.hash == hash_of(cookie))
        )  # fmt: skip
        with self.database.read() as connection:
            row = connection.execute(asked).one_or_none()
            now = self.database.now(connection)
        if row is None or now >= row.expires or not alive(row.revoked, row.key_expires, now):
            return None
        return Session(Caller(row.tenant, frozenset(row.scopes.split()), row.id), row.csrf, row.hash, row.expires)

    def close(self, session: Session) -> None:
        """Log out.

        Raises:
            StorageError: the database cannot be written.
        """
        with self.database.begin() as connection:
            connection.execute(sa.delete(sessions).where(sessions.c.hash == session.hash))


def cookie_name(settings: Settings) -> str:
    """Name of the cookie. With the prefix no other host of the domain and no plain http can set it."""
    return "__Host-certes_session" if settings.secure_cookies else "certes_session"


def set_cookie(settings: Settings, value: str | None) -> str:
    """The header ``Set-Cookie``; None: forget it."""
    parts = [f"{cookie_name(settings)}={value or ''}", "Path=/", "HttpOnly", "SameSite=Strict"]
    parts.append(f"Max-Age={int(LIFETIME) if value else 0}")
    return "; ".join([*parts, "Secure"] if settings.secure_cookies else parts)


def cookies(values: list[str], name: str) -> list[str]:
    """All values of a cookie in the headers ``Cookie``; more than one different: somebody has planted one."""
    found = [part.partition("=") for value in values for part in value.split(";")]
    return [value.strip() for key, equals, value in found if equals and key.strip() == name]


def same(one: str, other: str) -> bool:
    """Whether two tokens are the same, in constant time."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))
