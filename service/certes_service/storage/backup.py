"""Backups: every row in portable form, every blob that a row names, and a manifest of digests over both.

    manifest.json           format, and sha256 of each file of rows; written last, so that a backup without it is none
    rows/TABLE.jsonl        one JSON object per row
    blobs/TENANT/ab/DIGEST  bytes, named by their sha256

A backup is taken while the service runs: rows are one snapshot, blobs are never changed and not collected meanwhile. It
goes back into an empty service, of whichever database and place of blobs; nothing of it is believed before its digests
were checked. Logins and signs of life are left out; jobs that were under way begin anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from certes import strictjson
from certes.errors import InputError
from sqlalchemy.exc import DataError, IntegrityError

from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.errors import CorruptedError, is_digest
from certes_service.storage.retention import named_by
from certes_service.storage.tables import (
    answers,
    certificates,
    idempotency,
    jobs,
    keys,
    metadata,
    signing_keys,
    tenants,
)

FORMAT = "certes.backup/1"
MANIFEST = "manifest.json"
#: In the order in which they are put in: keys belong to tenants.
TABLES = (tenants, keys, signing_keys, certificates, answers, jobs, idempotency)
_BATCH = 500
_MOST = 64 * 2**20


@dataclass(frozen=True)
class Saved:
    """What is in a backup."""

    rows: int
    blobs: int
    bytes: int

    def json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def backup(database: Database, blobs: Blobs, folder: Path) -> Saved:
    """Write a backup.

    Args:
        database: rows.
        blobs: bytes.
        folder: made; it must not be there, or be empty.

    Raises:
        InputError: the folder is not empty, or cannot be written. StorageError: storage cannot be read.
        CorruptedError: a blob that a row names is damaged or missing; there is no backup then.
    """
    try:
        _empty(folder)
        with database.keeping():
            named, manifest = _rows(database, folder / "rows")
            count = size = 0
            for tenant, digest in named:
                data = blobs.get(tenant, digest)
                if data is None:
                    raise CorruptedError(f"the stored bytes of {digest} are missing")
                _write(folder / "blobs" / tenant / digest[:2] / digest, data)
                count, size = count + 1, size + len(data)
        rows = sum(entry["rows"] for entry in manifest.values())
        whole = {"format": FORMAT, "tables": manifest, "blobs": count, "bytes": size}
        _write(folder / MANIFEST, json.dumps(whole, indent=1).encode())
    except OSError as error:
        given = f"{folder}: {error.strerror or error}"
        raise InputError("folder", given, "a folder that can be written", "unwritable") from error
    return Saved(rows, count, size)


def _empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # weights, and hashes of keys
    if any(folder.iterdir()):
        raise InputError("folder", f"{folder}, which is not empty", "an empty folder, or a new one", "not-empty")


def _rows(database: Database, folder: Path) -> tuple[list[tuple[str, str]], dict[str, dict[str, Any]]]:
    """Write the rows; returns the blobs that they name, and what was written."""
    manifest: dict[str, dict[str, Any]] = {}
    with database.snapshot() as connection:
        for table in TABLES:
            lines = [
                json.dumps(dict(row), separators=(",", ":")) for row in connection.execute(sa.select(table)).mappings()
            ]
            data = "".join(line + "\n" for line in lines).encode()
            _write(folder / f"{table.name}.jsonl", data)
            manifest[table.name] = {"rows": len(lines), "sha256": hashlib.sha256(data).hexdigest()}
        owners = {tenant for table in (certificates, jobs) for tenant in connection.execute(
            sa.select(table.c.tenant).distinct()).scalars()}  # fmt: skip
        named = [(tenant, digest) for tenant in sorted(owners) for digest in sorted(named_by(connection, tenant))]
    return named, manifest


def restore(folder: Path, database: Database, blobs: Blobs) -> Saved:
    """Put a backup into an empty service; its tables are there already.

    Args:
        folder: of :func:`backup`.
        database: without rows.
        blobs: bytes; what is there stays.

    Raises:
        InputError: no backup, or one that was changed; or the service is not empty. Nothing was changed then.
        StorageError: storage cannot be written; the rows are put in last, in one transaction.
    """
    try:
        tables = _checked(folder)
    except OSError as error:
        given = f"{folder}: {error.strerror or error}"
        raise InputError("folder", given, "a backup that can be read", "unreadable") from error
    with database.read() as connection:
        for table in metadata.sorted_tables:
            if table.name not in ("executors", "sessions") and connection.execute(sa.select(table).limit(1)).first():
                expected = "a service that keeps nothing yet"
                raise InputError("data", f"a database with rows in {table.name!r}", expected, "not-empty")
    size = count = 0
    with database.keeping():
        for tenant, path in _blobs(folder):
            size, count = size + path.stat().st_size, count + 1
            blobs.put(tenant, path.read_bytes())
        try:
            with database.begin() as connection:
                for table, rows in tables.items():
                    for first in range(0, len(rows), _BATCH):
                        connection.execute(sa.insert(table), rows[first : first + _BATCH])
                begun = sa.update(jobs).where(jobs.c.state == "running")
                connection.execute(begun.values(state="queued", owner=None, dispatched=False))
        except (IntegrityError, DataError) as error:  # a key twice, or of no tenant
            raise _changed("rows that contradict each other") from error
    return Saved(sum(len(rows) for rows in tables.values()), count, size)


def _checked(folder: Path) -> dict[sa.Table, list[dict[str, Any]]]:
    """All rows, once every digest of the backup was found right.

    Raises:
        InputError: one was not.
    """
    manifest = strictjson.parse((folder / MANIFEST).read_bytes(), "folder", max_bytes=_MOST, max_depth=8)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _changed(f"{MANIFEST} of another format")
    stated = manifest.get("tables")
    found: dict[sa.Table, list[dict[str, Any]]] = {}
    for table in TABLES:
        data = (folder / "rows" / f"{table.name}.jsonl").read_bytes()
        said = stated.get(table.name) if isinstance(stated, dict) else None
        if not isinstance(said, dict) or hashlib.sha256(data).hexdigest() != said.get("sha256"):
            raise _changed(f"rows/{table.name}.jsonl with another sha256 than stated")
        found[table] = [_row(table, line) for line in data.splitlines()]
    there: dict[str, set[str]] = {}
    for tenant, path in _blobs(folder):
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            raise _changed(f"{path.relative_to(folder)} with other bytes than its name says")
        there.setdefault(tenant, set()).add(path.name)
    for table, columns in ((certificates, ("envelope", "proof", "weights")), (jobs, ("weights", "checkpoint"))):
        for row in found[table]:
            for column in columns:
                named = row.get(column)
                if named is not None and str(named) not in there.get(str(row["tenant"]), set()):
                    raise _changed(f"no blob {named}, which a row of {table.name} names")
    return found


def _row(table: sa.Table, line: bytes) -> dict[str, Any]:
    """A line of a file of rows, if it can be a row of that table: digests are no proof of who wrote them.

    Raises:
        InputError: it cannot.
    """
    row = strictjson.parse(line, "folder", max_bytes=_MOST, max_depth=2)
    needed = {column.name for column in table.columns if not column.nullable}
    if not isinstance(row, dict) or not needed <= row.keys() <= set(table.columns.keys()):
        raise _changed(f"rows/{table.name}.jsonl with a line that is no row")
    return row


def _blobs(folder: Path) -> Iterator[tuple[str, Path]]:
    """Tenant and file of every blob in a backup."""
    for path in sorted((folder / "blobs").glob("*/*/*")):
        if not is_digest(path.name) or path.is_symlink():
            raise _changed(f"{path.relative_to(folder)}, which is no blob")
        yield path.parts[-3], path


def _changed(given: str) -> InputError:
    return InputError("folder", given, "a backup as it was written", "damaged-backup")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
