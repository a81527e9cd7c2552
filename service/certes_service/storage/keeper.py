"""The keeper: throws away now and then what is not kept any longer. Every process has one, one at a time works."""

from __future__ import annotations

import logging
import random
import threading

from certes_service.settings import Settings
from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.errors import StorageError
from certes_service.storage.retention import collect

log = logging.getLogger("certes.service")
#: Part of the time between two collections by which they are spread, so that processes seldom meet.
_SPREAD = 0.2


class Keeper:
    """Collects in a thread of its own.

    Args:
        database: rows.
        blobs: bytes.
        settings: ``collect_seconds`` between two collections, and how long things are kept.
    """

    def __init__(self, database: Database, blobs: Blobs, settings: Settings) -> None:
        self._database, self._blobs, self._settings = database, blobs, settings
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the first collection is some time from now."""
        if self._settings.collect_seconds:
            self._thread = threading.Thread(target=self._run, name="certes-keeper", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop; a collection that is at work ends with the process, and leaves nothing but garbage."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.collect_seconds * random.uniform(1 - _SPREAD, 1 + _SPREAD)):
            try:
                done = collect(self._database, self._blobs, self._settings)
            except StorageError as error:
                log.warning("collection: %s", error)
            except Exception:
                log.exception("collection")
            else:
                log.info("collection: %s", done.json())
