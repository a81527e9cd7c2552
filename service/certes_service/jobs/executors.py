"""Signs of life: which processes work on jobs, by the database's clock."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Sequence

import sqlalchemy as sa
from certes._version import __version__

from certes_service.storage.database import Database
from certes_service.storage.errors import StorageError
from certes_service.storage.tables import executors

log = logging.getLogger("certes.service")


def new_name() -> str:
    """A name for this process that no other process ever has, on any machine."""
    return f"{socket.gethostname()[:100]}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


class Executors:
    """The table of working processes.

    Args:
        database: where it is.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def beat(self, name: str, queues: Sequence[str]) -> bool:
        """A sign of life; whether the process was still in the table: otherwise it was given up, and is back."""
        with self.database.begin() as connection:
            now = self.database.now(connection)
            mine = sa.update(executors).where(executors.c.id == name).values(beat=now)
            if connection.execute(mine).rowcount:
                return True
            row = {
                "id": name,
                "host": socket.gethostname()[:200],
                "pid": os.getpid(),
                "queues": ",".join(queues),
                "version": __version__,
                "started": now,
                "beat": now,
            }
            connection.execute(sa.insert(executors).values(row))
            return False

    def silent(self, lease: float) -> list[str]:
        """Processes that gave no sign of life for that many seconds."""
        with self.database.read() as connection:
            before = self.database.now(connection) - lease
            return list(connection.execute(sa.select(executors.c.id).where(executors.c.beat < before)).scalars())

    def known(self) -> dict[str, tuple[str, ...]]:
        """Process -> the queues it takes jobs from."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(executors.c.id, executors.c.queues))
            return {name: tuple(filter(None, queues.split(","))) for name, queues in rows}

    def strike(self, name: str, lease: float | None) -> None:
        """Take a process off the table, if it is still silent; None: in any case."""
        with self.database.begin() as connection:
            gone = sa.delete(executors).where(executors.c.id == name)
            if lease is not None:
                gone = gone.where(executors.c.beat < self.database.now(connection) - lease)
            connection.execute(gone)


class Heart:
    """Beats in a thread of its own until it is stopped.

    Args:
        table: where it beats.
        name: name of this process.
        queues: queues it takes jobs from.
        every: seconds between two beats.

    Raises:
        StorageError: the first beat fails.
    """

    def __init__(self, table: Executors, name: str, queues: Sequence[str], every: float) -> None:
        self._table, self._name, self._queues, self._every = table, name, tuple(queues), every
        self._stop = threading.Event()
        table.beat(name, self._queues)
        self._thread = threading.Thread(target=self._run, name="certes-heart", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                if not self._table.beat(self._name, self._queues):
                    # Its jobs may be others' by now: each finds that out at its next write.
                    log.warning("executor %s was given up and is back", self._name)
            except StorageError as error:
                log.warning("no sign of life could be given: %s", error)

    def stop(self) -> None:
        """Stop; the process leaves the table."""
        self._stop.set()
        self._thread.join(timeout=10)
        try:
            self._table.strike(self._name, None)
        except StorageError as error:
            log.warning("the table of executors could not be left: %s", error)
