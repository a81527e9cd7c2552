"""API keys: made once, shown once, kept as a hash.

A key reads ``certes_ID_SECRET``: sixteen hexadecimal digits and 32 random bytes in base64url. The whole text is hashed
with sha256; 256 random bits need no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from certes.errors import InputError

from certes_service.storage.database import Database
from certes_service.storage.errors import StorageError
from certes_service.storage.tables import keys, sessions, tenants
from certes_service.tenancy.callers import SCOPES, Caller, parse_scopes
from certes_service.tenancy.tenants import enter

log = logging.getLogger("certes.service")
_KEY = re.compile(r"certes_([0-9a-f]{16})_[A-Za-z0-9_-]{43}", re.ASCII)
_NAMED = re.compile(r"(?:certes_)?([0-9a-f]{16})(?:_[A-Za-z0-9_-]{43})?", re.ASCII)
_DAY = 86400.0
#: The use of a key is noted at most this often, in seconds: reading must not become writing.
USED_SECONDS = 60.0
_NOBODY = "0" * 64


@dataclass(frozen=True)
class Key:
    """What is known of a key; times in seconds since 1970.

    Attributes:
        id: its public name.
        tenant: name of the tenant.
        name: what it is for, in its owner's words.
        scopes: of :data:`~certes_service.tenancy.callers.SCOPES`.
        created: when it was made.
        expires: from when on it is refused; None: never.
        revoked: since when it is refused for ever; None: it is not.
        used: when it was last used, to the minute; None: never.
    """

    id: str
    tenant: str
    name: str
    scopes: frozenset[str]
    created: float
    expires: float | None
    revoked: float | None
    used: float | None

    def state(self, now: float) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "valid" if alive(self.revoked, self.expires, now) else "expired"

    def json(self) -> dict[str, Any]:
        """As JSON, scopes as a list."""
        return {**vars(self), "scopes": _ordered(self.scopes)}


class Keys:
    """The keys of all tenants. Everything here blocks: for a thread.

    Args:
        database: where they are.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(
        self, tenant: str, scopes: frozenset[str], name: str = "", expires_days: float | None = None
    ) -> tuple[Key, str]:
        """Make a key; the tenant is made if there is none of that name.

        Args:
            tenant: name of the tenant.
            scopes: what it is good for.
            name: what it is for, in words.
            expires_days: after how many days it is refused; None: never.

        Returns:
            What is known of it, and the key itself, which is kept nowhere.

        Raises:
            InputError: an impossible name, scope or time. StorageError: the database cannot be written.
        """
        scopes = parse_scopes(scopes)
        if len(name) > 200 or not name.isprintable():
            raise InputError("name", repr(name)[:120], "at most 200 printable characters", "bad-name")
        if expires_days is not None and not 0 < expires_days <= 36500:
            raise InputError("expires-days", str(expires_days)[:80], "from above 0 to 36500 days", "not-positive")
        identity = secrets.token_hex(8)
        secret = f"certes_{identity}_{secrets.token_urlsafe(32)}"
        with self.database.begin() as connection:
            now = self.database.now(connection)
            owner = enter(connection, tenant, now)
            expires = None if expires_days is None else now + expires_days * _DAY
            row = {
                "id": identity, "tenant": owner, "name": name, "hash": hash_of(secret),
                "scopes": " ".join(_ordered(scopes)), "created": now, "expires": expires,
            }  # fmt: skip
            connection.execute(sa.insert(keys).values(**row))
        return Key(identity, tenant, name, scopes, now, expires, None, None), secret

    def list(self, tenant: str | None = None) -> tuple[Key, ...]:
        """All keys, or those of one tenant (by name), oldest first; revoked and expired ones too.

        Raises:
            StorageError: the database cannot be read.
        """
        asked = sa.select(keys, tenants.c.name.label("owner")).join(tenants, tenants.c.id == keys.c.tenant)
        if tenant is not None:
            asked = asked.where(tenants.c.name == tenant)
        with self.database.read() as connection:
            rows = connection.execute(asked.order_by(keys.c.created, keys.c.id)).all()
        return tuple(
            Key(
                row.id, row.owner, row.name, frozenset(row.scopes.split()),
                row.created, row.expires, row.revoked, row.used,
            )
            for row in rows
        )  # fmt: skip

    def usable(self) -> bool:
        """Whether there is a key at all with which somebody could ask at this moment.

        Raises:
            StorageError: the database cannot be read.
        """
        with self.database.read() as connection:
            rows = connection.execute(sa.select(keys.c.revoked, keys.c.expires)).all()
            now = self.database.now(connection)
        return any(alive(row.revoked, row.expires, now) for row in rows)

    def revoke(self, key: str) -> Key:
        """Refuse a key from now on, and end its sessions. Once revoked it stays so, and says since when.

        Args:
            key: its id, or the whole key.

        Raises:
            InputError: there is no such key (slug ``unknown-key``). StorageError: the database cannot be written.
        """
        found = _NAMED.fullmatch(key)
        identity = found[1] if found else ""
        with self.database.begin() as connection:
            now = self.database.now(connection)
            wanted = keys.c.id == identity
            if connection.execute(sa.select(keys.c.id).where(wanted)).scalar() is None:
                shown = repr(identity or key[:40]) if not key.startswith("certes_") else repr(identity)
                raise InputError("key", shown, "the id of a key (certes keys list)", "unknown-key")
            connection.execute(sa.update(keys).where(wanted, keys.c.revoked.is_(None)).values(revoked=now))
            connection.execute(sa.delete(sessions).where(sessions.c.key == identity))
        return next(entry for entry in self.list() if entry.id == identity)

    def authenticate(self, secret: str) -> Caller | None:
        """Whose key this is; None if it is nobody's, or was revoked, or has expired.

        A key that does not exist costs what one costs that does: one question to the database, one comparison in
        constant time.

        Raises:
            StorageError: the database cannot be read.
        """
        found = _KEY.fullmatch(secret)
        if found is None:
            return None
        with self.database.read() as connection:
            row = connection.execute(sa.select(keys).where(keys.c.id == found[1])).one_or_none()
            now = self.database.now(connection)
        expected = _NOBODY if row is None else row.hash
        right = hmac.compare_digest(hash_of(secret), expected)
        if row is None or not right or not alive(row.revoked, row.expires, now):
            return None
        if row.used is None or now - row.used >= USED_SECONDS:
            self._note_use(row.id, now)
        return Caller(row.tenant, frozenset(row.scopes.split()), row.id)

    def _note_use(self, identity: str, now: float) -> None:
        stale = sa.or_(keys.c.used.is_(None), keys.c.used <= now - USED_SECONDS)
        try:
            with self.database.begin() as connection:
                connection.execute(sa.update(keys).where(keys.c.id == identity, stale).values(used=now))
        except StorageError as error:  # a full disk: who only reads is still served
            log.warning("keys: the use of %s could not be noted: %s", identity, error)


def hash_of(secret: str) -> str:
    """What is kept of a secret: its sha256, in hex."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def alive(revoked: float | None, expires: float | None, now: float) -> bool:
    """Whether a key may be used; in the very moment of its expiry it may not."""
    return revoked is None and (expires is None or now < expires)


def _ordered(scopes: frozenset[str]) -> list[str]:
    return [scope for scope in SCOPES if scope in scopes]
