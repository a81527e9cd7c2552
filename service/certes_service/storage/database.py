"""The database: SQLite in a file, or PostgreSQL; one transaction at a time, and errors that say what is the matter."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from certes_service.storage.errors import CorruptedError, StorageError

log = logging.getLogger("certes.service")

#: Locks of the database that our own processes agree on (PostgreSQL's advisory locks).
_MIGRATING, _NAMING, _KEEPING = 0x43455254_0001, 0x43455254_0002, 0x43455254_0003
_WRITE = "certes_write"
#: A server that went away is noticed within half a minute, also in the middle of a question.
_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20000,
    "application_name": "certes",
}
_BUSY_SECONDS = 30.0


class Database:
    """A database.

    Args:
        url: SQLAlchemy's, ``sqlite:///PATH`` or ``postgresql+psycopg://USER:PASSWORD@HOST/NAME``.

    Attributes:
        engine: SQLAlchemy's engine.
        is_sqlite: whether it is a SQLite file.

    Raises:
        StorageError: the directory of the SQLite file cannot be created.
    """

    def __init__(self, url: str) -> None:
        address = sa.make_url(url)
        self.is_sqlite = address.get_backend_name() == "sqlite"
        self.path = Path(address.database or "") if self.is_sqlite else None
        if self.path is not None:
            self._make_folder(self.path.parent)
            self.engine = sa.create_engine(address, connect_args={"timeout": _BUSY_SECONDS}, max_overflow=-1)
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
        else:
            patience = {name: value for name, value in _PATIENCE.items() if name not in address.query}
            self.engine = sa.create_engine(
                address, connect_args=patience, pool_pre_ping=True, max_overflow=20, pool_timeout=20
            )

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction that may write: all of it happens, or nothing.

        On SQLite there is one at a time, from its beginning on; so what was read in it stays true until its end.

        Raises:
            StorageError: the database cannot be reached or written.
        """
        with self._transaction(write=True) as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and hinders no writer.

        Raises:
            StorageError: the database cannot be reached or read.
        """
        with self._transaction(write=False) as connection:
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A transaction that reads everything as it is at one moment.

        Raises:
            StorageError: the database cannot be reached or read.
        """
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}  # SQLite reads like that anyway
        opened = self.engine.connect().execution_options(**{_WRITE: False}, **options)
        with _told(), opened as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def _transaction(self, *, write: bool) -> Iterator[sa.Connection]:
        with _told(), self.engine.connect().execution_options(**{_WRITE: write}) as connection, connection.begin():
            yield connection

    def migrate(self) -> None:
        """Bring the tables to the state that this version needs; any number of processes may do it at once.

        Raises:
            StorageError: the database cannot be written, or was used by a newer version.
        """
        from certes_service.storage.migrations.run import upgrade

        with _told(), self._alone() as connection:
            upgrade(connection)

    def check(self) -> None:
        """Whether it can be read and written at this moment, as far as it says.

        Raises:
            StorageError: it cannot.
        """
        if self.path is not None and not os.access(self.path, os.W_OK):
            raise StorageError("the database is not there or cannot be written")
        with self.read() as connection:
            connection.execute(sa.text("SELECT 1 FROM alembic_version"))
            if not self.is_sqlite and connection.execute(sa.text("SHOW transaction_read_only")).scalar_one() == "on":
                raise StorageError("the database is read-only")

    def now(self, connection: sa.Connection) -> float:
        """The database's own clock, in seconds since 1970: one clock for all processes.

        A SQLite file has that of its machine.
        """
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def naming(self, connection: sa.Connection) -> None:
        """Until the end of this transaction no blob is collected: the caller is about to name some.

        On SQLite a writing transaction is alone anyway.
        """
        if not self.is_sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": _NAMING})

    def collecting(self, connection: sa.Connection, patience: float = 2.0) -> bool:
        """Until the end of this transaction nobody names a blob; False if others were naming all the time.

        Args:
            connection: in a writing transaction.
            patience: how long to wait, in seconds; those who want to name blobs wait behind it.
        """
        if self.is_sqlite:
            return True
        connection.execute(sa.text(f"SET LOCAL lock_timeout = {int(patience * 1000)}"))
        try:
            with connection.begin_nested():
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _NAMING})
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":
                raise
            return False
        return True

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Nothing is collected until it is left: a backup copies what was named when it began.

        Raises:
            StorageError: the database cannot be reached.
        """
        with self._kept(exclusive=False):
            yield

    @contextlib.contextmanager
    def sole_collector(self) -> Iterator[bool]:
        """True for one collector at a time, and never during a backup; False for all others, without waiting.

        Raises:
            StorageError: the database cannot be reached.
        """
        with self._kept(exclusive=True) as alone:
            yield alone

    @contextlib.contextmanager
    def _kept(self, *, exclusive: bool) -> Iterator[bool]:
        if self.path is not None:
            with _locked(Path(f"{self.path}.collecting"), exclusive, wait=not exclusive) as held:
                yield held
            return
        lock = "pg_try_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
        with self.read() as connection:
            got = connection.execute(sa.text(f"SELECT {lock}(:lock)"), {"lock": _KEEPING}).scalar()
            yield got is not False

    def upsert(
        self, connection: sa.Connection, table: sa.Table, values: Mapping[str, Any], update: Sequence[str] | None
    ) -> None:
        """Insert a row; if its primary key is there, set the named columns to the new values (None: change nothing)."""
        insert = sqlite.insert if self.is_sqlite else postgresql.insert
        statement = insert(table).values(dict(values))
        key = list(table.primary_key)
        if update is None:
            connection.execute(statement.on_conflict_do_nothing(index_elements=key))
            return
        # A null says nothing new: what was known before stays.
        new = {name: sa.func.coalesce(statement.excluded[name], table.c[name]) for name in update}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=new))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[sa.Connection]:
        """A writing transaction, one at a time among all processes that want one like it."""
        if self.path is None:
            with self.engine.begin() as connection:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATING})
                yield connection
            return
        with _locked(Path(f"{self.path}.lock"), exclusive=True), self.engine.connect() as connection:
            # kept in the file; the change is refused, without any waiting, while others have it open
            connection.connection.cursor().execute("PRAGMA journal_mode = WAL")
            with connection.execution_options(**{_WRITE: True}).begin():
                yield connection

    @staticmethod
    def _make_folder(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"the directory {folder} cannot be used: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(path: Path, exclusive: bool, *, wait: bool = True) -> Iterator[bool]:
    """Hold a file's lock, which ends with the process; False if it is not to be had without waiting."""
    try:
        file = path.open("ab")
    except OSError as error:
        raise StorageError(f"the database cannot be used: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where they are said to begin
    for pragma in ("synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {int(_BUSY_SECONDS * 1000)}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITE, True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors of the database as StorageError. Those that a caller can do something about stay as they are."""
    try:
        yield
    except (exc.IntegrityError, exc.ProgrammingError, exc.DataError, exc.NotSupportedError) as error:
        if not error.connection_invalidated:
            raise
        raise StorageError("the database cannot be reached") from error
    except exc.TimeoutError as error:
        raise StorageError("the database is busy: no connection became free") from error
    except exc.DBAPIError as error:
        raise _storage_error(error) from error


def _storage_error(error: exc.DBAPIError) -> StorageError:
    """What to say; addresses and statements are only for the log."""
    said = str(error.orig).strip().splitlines()
    log.warning("database: %s", said[0] if said else type(error.orig).__name__)
    state = getattr(error.orig, "sqlstate", None)
    if type(error) is exc.DatabaseError or state in ("XX001", "XX002"):
        return CorruptedError("the database is damaged")
    if type(error.orig).__module__.startswith("sqlite3"):
        return StorageError(f"the database cannot be used: {error.orig}")
    if error.connection_invalidated or state is None or state[:2] in ("08", "57"):
        return StorageError("the database cannot be reached")
    return StorageError(f"the database cannot be used: {type(error.orig).__name__}")
