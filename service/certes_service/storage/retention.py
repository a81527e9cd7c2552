"""What is thrown away: rows that are older than the settings keep them, then blobs that no row names.

A blob goes only if no row of its tenant names it and it is old. Both are looked at once more in a transaction during
which nobody can name a blob; so one that is being written, or written again, at the same moment stays. A collector
that dies leaves garbage for the next one, and nothing else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from certes_service.settings import Settings
from certes_service.storage.blobs import Blob, Blobs
from certes_service.storage.database import Database
from certes_service.storage.tables import answers, certificates, idempotency, jobs, sessions

_DAY = 86400.0
_IDEMPOTENCY_DAYS = 2.0
_ENDED = ("done", "failed", "cancelled")
#: Rows or blobs in one transaction: others write in between.
_BATCH = 100
#: Every column that names a blob. A new one belongs here, or its blobs are garbage.
NAMING = (
    certificates.c.envelope,
    certificates.c.proof,
    certificates.c.weights,
    jobs.c.weights,
    jobs.c.checkpoint,
)


@dataclass(frozen=True)
class Collected:
    """What was thrown away.

    Attributes:
        jobs: ended jobs.
        answers: remembered answers.
        idempotency: idempotency keys.
        sessions: sessions of the page that had expired.
        blobs: blobs that nothing named.
        bytes: their size.
        alone: False if nothing was done because another collector, or a backup, was at work.
    """

    jobs: int = 0
    answers: int = 0
    idempotency: int = 0
    sessions: int = 0
    blobs: int = 0
    bytes: int = 0
    alone: bool = True

    def json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def collect(database: Database, blobs: Blobs, settings: Settings, now: float | None = None) -> Collected:
    """Throw away what is not kept any longer; any number of processes may do it at once, one of them does.

    Args:
        database: rows.
        blobs: bytes.
        settings: ``job_days``, ``answer_days``, ``blob_grace_seconds``.
        now: the time that rows are compared with, in seconds since 1970; default: the database's clock. A blob's age
            is always that of the store's clock.

    Raises:
        StorageError: storage cannot be used; what was thrown away until then was garbage.
    """
    with database.sole_collector() as alone:
        if not alone:
            return Collected(alone=False)
        if now is None:
            with database.read() as connection:
                now = database.now(connection)
        rows = _old_rows(database, settings, now)
        blobs.sweep()
        count, size = _garbage(database, blobs, settings.blob_grace_seconds)
        return Collected(rows["jobs"], rows["answers"], rows["idempotency"], rows["sessions"], blobs=count, bytes=size)


def _old_rows(database: Database, settings: Settings, now: float) -> dict[str, int]:
    ended = jobs.c.state.in_(_ENDED)
    alive = sa.exists().where(jobs.c.id == idempotency.c.job, sa.not_(ended))
    old = {
        jobs: sa.and_(ended, jobs.c.finished < now - settings.job_days * _DAY),
        answers: answers.c.created < now - settings.answer_days * _DAY,
        idempotency: sa.and_(idempotency.c.created < now - _IDEMPOTENCY_DAYS * _DAY, sa.not_(alive)),
        sessions: sessions.c.expires < now,
    }
    return {table.name: _delete(database, table, where) for table, where in old.items()}


def _delete(database: Database, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
    """Delete rows, a batch at a time; returns how many."""
    key = list(table.primary_key)
    count = 0
    while True:
        with database.begin() as connection:
            found = connection.execute(sa.select(*key).where(where).limit(_BATCH)).all()
            if found:
                these = sa.tuple_(*key).in_([tuple(row) for row in found])
                count += connection.execute(sa.delete(table).where(these, where)).rowcount
        if len(found) < _BATCH:
            return count


def _garbage(database: Database, blobs: Blobs, grace: float) -> tuple[int, int]:
    """Remove old blobs that no row names; returns how many, and their size."""
    count = size = 0
    for tenant, found in groupby(blobs.walk(), attrgetter("tenant")):
        with database.read() as connection:
            named = named_by(connection, tenant)
        old = [blob for blob in found if blob.age_seconds > grace and blob.digest not in named]
        del named
        for begin in range(0, len(old), _BATCH):
            gone = _remove(database, blobs, tenant, old[begin : begin + _BATCH], grace)
            count, size = count + len(gone), size + sum(blob.size for blob in gone)
    return count, size


def retire(database: Database, blobs: Blobs, tenant: str, digests: list[str], seconds: float) -> list[str]:
    """Remove blobs of a tenant before their time: those that no row names and that were written long enough ago.

    Args:
        database: rows.
        blobs: bytes.
        tenant: whose.
        digests: which; they may be gone already.
        seconds: age below which one stays: it may be about to be named.

    Returns:
        Those that are to be asked about once more: they were named or young, or a collector or a backup was at work.

    Raises:
        StorageError: storage cannot be used.
    """
    with database.sole_collector() as alone:
        if not alone:
            return digests
        gone = _remove(database, blobs, tenant, [Blob(tenant, digest, 0, 0.0) for digest in digests], seconds)
    removed = {blob.digest for blob in gone}
    return [digest for digest in digests if digest not in removed and blobs.has(tenant, digest)]


def _remove(database: Database, blobs: Blobs, tenant: str, candidates: list[Blob], grace: float) -> list[Blob]:
    """Remove those that are still old and that still nobody names; returns them."""
    now = blobs.now()
    gone = []
    with database.begin() as connection:
        if not database.collecting(connection):
            return []
        named = named_by(connection, tenant, [blob.digest for blob in candidates])
        for blob in candidates:
            written = blobs.written(tenant, blob.digest)
            if blob.digest not in named and written is not None and now - written > grace:
                blobs.remove(tenant, blob.digest)
                gone.append(blob)
    return gone


def named_by(connection: sa.Connection, tenant: str, among: list[str] | None = None) -> set[str]:
    """Digests of blobs that a tenant's rows name.

    Args:
        connection: in a transaction.
        tenant: whose.
        among: only these are looked for.
    """
    named: set[str] = set()
    for column in NAMING:
        query = sa.select(column).where(column.table.c.tenant == tenant, column.is_not(None))
        if among is not None:
            query = query.where(column.in_(among))
        named.update(connection.execute(query).scalars())
    return named
