"""Tenants, and the limits that differ for some of them."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa
from certes.errors import InputError, TooLargeError
from sqlalchemy.exc import IntegrityError

from certes_service.settings import Settings
from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.tables import tenants
from certes_service.tenancy.callers import LOCAL

log = logging.getLogger("certes.service")
#: How long limits are remembered, in seconds: so long a change takes to reach every process.
FRESH_SECONDS = 5.0
_REMEMBERED = 10_000


@dataclass(frozen=True)
class Limits:
    """What one tenant may use.

    Attributes:
        requests_per_minute: requests, in one process.
        queue: jobs that may wait or run at once.
        max_body_bytes: largest request body; never more than the service's own, which guards its memory.
        tenant_bytes: bytes that may be kept.
    """

    requests_per_minute: int
    queue: int
    max_body_bytes: int
    tenant_bytes: int

    @classmethod
    def of(cls, settings: Settings, changed: dict[str, int]) -> Limits:
        """The service's limits, some of them changed."""
        usual = {entry.name: getattr(settings, entry.name) for entry in fields(cls)}
        limits = usual | changed
        limits["max_body_bytes"] = min(limits["max_body_bytes"], settings.max_body_bytes)
        return cls(**limits)


@dataclass(frozen=True)
class Tenant:
    """One tenant; ``limits`` are those that differ from the service's."""

    id: str
    name: str
    created: float
    limits: dict[str, int]

    def json(self) -> dict[str, Any]:
        """As JSON; times in seconds since 1970."""
        return asdict(self)


class Tenants:
    """The tenants.

    Args:
        database: where they are.
        settings: limits of everybody for whom nothing else was said.
        clock: seconds, for ever upwards.
    """

    def __init__(self, database: Database, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.database = database
        self.settings = settings
        self._clock = clock
        self._known: dict[str, tuple[float, Limits]] = {}
        self._lock = threading.Lock()

    def list(self) -> tuple[Tenant, ...]:
        """All, by name.

        Raises:
            StorageError: the database cannot be read.
        """
        with self.database.read() as connection:
            rows = connection.execute(sa.select(tenants).order_by(tenants.c.name)).all()
        return tuple(Tenant(row.id, row.name, row.created, _changed(row.id, row.limits)) for row in rows)

    def change(self, name: str, limits: dict[str, int | None]) -> Tenant:
        """Set limits of a tenant, who is made if there is none of that name; None: the service's own again.

        Raises:
            InputError: an impossible name or limit. StorageError: the database cannot be written.
        """
        for field, value in limits.items():
            if field not in _FIELDS:
                raise InputError("limits", repr(field)[:80], ", ".join(_FIELDS), "unknown-name")
            if value is not None and not 1 <= value < 2**63:
                raise InputError(field, str(value)[:80], "a whole number from 1 on", "not-positive")
        with self.database.begin() as connection:
            now = self.database.now(connection)
            tenant = enter(connection, name, now)
            row = connection.execute(sa.select(tenants).where(tenants.c.id == tenant)).one()
            changed: dict[str, int | None] = {**_changed(tenant, row.limits), **limits}
            kept = {field: value for field, value in changed.items() if value is not None}
            text = json.dumps(kept, sort_keys=True) if kept else None
            connection.execute(sa.update(tenants).where(tenants.c.id == tenant).values(limits=text))
        with self._lock:
            self._known.pop(tenant, None)
        return Tenant(tenant, row.name, row.created, kept)

    def limits_of(self, tenant: str) -> Limits:
        """What a tenant may use, at most :data:`FRESH_SECONDS` old. Blocks: for a thread.

        Raises:
            StorageError: the database cannot be read.
        """
        found = self.known(tenant)
        if found is not None:
            return found
        with self.database.read() as connection:
            text = connection.execute(sa.select(tenants.c.limits).where(tenants.c.id == tenant)).scalar()
        limits = Limits.of(self.settings, _changed(tenant, text))
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[tenant] = (self._clock(), limits)
        return limits

    def queue_limit(self, tenant: str) -> int:
        """How many jobs of a tenant may wait or run at once. Blocks: for a thread.

        Raises:
            StorageError: the database cannot be read.
        """
        return self.limits_of(tenant).queue

    def known(self, tenant: str) -> Limits | None:
        """What is remembered of a tenant's limits; None: they have to be looked up."""
        with self._lock:
            since, limits = self._known.get(tenant, (0.0, None))
        return limits if limits is not None and self._clock() - since < FRESH_SECONDS else None


def enter(connection: sa.Connection, name: str, now: float) -> str:
    """The id of the tenant of that name, who is made if there is none.

    What was made without keys belongs to the tenant ``local``: keys of that name go on with it.

    Raises:
        InputError: not a name.
    """
    if not 1 <= len(name) <= 100 or not name.isprintable() or name != name.strip():
        raise InputError("tenant", repr(name)[:120], "1 to 100 printable characters", "bad-name")
    asked = sa.select(tenants.c.id).where(tenants.c.name == name)
    known = connection.execute(asked).scalar()
    if known is None:
        made = LOCAL.tenant if name == LOCAL.tenant else secrets.token_hex(8)
        with contextlib.suppress(IntegrityError), connection.begin_nested():  # another was quicker: it is his then
            connection.execute(sa.insert(tenants).values(id=made, name=name, created=now, limits=None))
        known = connection.execute(asked).scalar_one()
    return str(known)


def check_room(blobs: Blobs, tenants: Tenants, tenant: str, size: int) -> None:
    """Refuse what would not fit beside all that a tenant keeps already. Blocks: for a thread.

    What other processes have written within the last minute may not be counted yet.

    Args:
        blobs: where the bytes are to go.
        tenants: whose limit applies.
        tenant: whose they are to be.
        size: bytes.

    Raises:
        TooLargeError: beyond the tenant's limit (HTTP 413). StorageError: what is kept cannot be counted.
    """
    limit, kept = tenants.limits_of(tenant).tenant_bytes, blobs.size(tenant)
    if kept + size > limit:
        raise TooLargeError("body", f"{size} bytes, beside {kept} bytes that are kept already", limit)


_FIELDS = tuple(entry.name for entry in fields(Limits))


def _changed(tenant: str, text: str | None) -> dict[str, int]:
    """The limits that a row changes. One that makes no sense is left out, loudly: the service's own applies."""
    if text is None:
        return {}
    try:
        given = json.loads(text)
        changed = {
            field: value
            for field, value in given.items()
            if field in _FIELDS and type(value) is int and 1 <= value < 2**63
        }
    except (ValueError, AttributeError):
        given, changed = None, {}
    if changed != given:
        log.error("tenants: the limits of %s cannot be read in full; the service's own apply", tenant)
    return changed
