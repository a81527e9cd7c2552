"""Everything that one process of the service consists of, and the order in which it starts and ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from certes_service.jobs.board import Board
from certes_service.jobs.durable import Durable
from certes_service.jobs.executors import Executors, Heart, new_name
from certes_service.jobs.job import Job
from certes_service.jobs.runner import Observer, Runner
from certes_service.jobs.watchdog import Watchdog
from certes_service.questions.base import Solved
from certes_service.settings import Settings
from certes_service.solving import scratch
from certes_service.solving.pool import Pool
from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.errors import StorageError
from certes_service.storage.keeper import Keeper
from certes_service.storage.store import Store
from certes_service.tenancy import signing

log = logging.getLogger("certes.service")


class Silent:
    """An observer that does nothing."""

    def solved(self, job: Job, solved: Solved, seconds: float) -> None:
        """Nothing."""

    def ended(self, job: Job, state: str, seconds: float) -> None:
        """Nothing."""

    def killed(self, reason: str) -> None:
        """Nothing."""

    def handed_over(self, count: int) -> None:
        """Nothing."""


class Works:
    """The parts, before anything runs: database and blobs can be used, nothing is listened to.

    Args:
        settings: of the service.
        queues: queues that this process takes jobs from; none: it only hands them in.
        observer: told of jobs; has ``handed_over(count)`` besides.
        device: where training computes.

    Raises:
        StorageError: the database or the blobs cannot be used. InputError: the signing key cannot sign.
    """

    def __init__(
        self, settings: Settings, queues: Sequence[str], observer: Observer | None = None, device: str = "cpu"
    ) -> None:
        self.settings, self.queues = settings, tuple(queues)
        self.observer: Any = observer or Silent()
        self.name = new_name()
        if settings.database is None or settings.blobs is None:
            try:
                settings.data.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                said = f"the data directory {settings.data} cannot be used: {error.strerror or error}"
                raise StorageError(said) from error
        self.database = Database(settings.database_url)
        self.database.migrate()
        signing.record(self.database, settings.private_key)  # a key that cannot sign is noticed now
        self.blobs = Blobs(settings.blobs_url, settings.blob_options)
        self.store = Store(self.database, self.blobs)
        self.board = Board(self.database)
        self.executors = Executors(self.database)
        self.pool = Pool(settings.solvers, settings.solver_memory_bytes)
        self.runner = Runner(settings, self.name, self.board, self.store, self.blobs, self.pool, self.observer, device)
        self.durable: Durable | None = None
        self._heart: Heart | None = None
        self._watchdog: Watchdog | None = None
        self._keeper = Keeper(self.database, self.blobs, settings)

    def start(self) -> None:
        """Give signs of life, take jobs, look after others.

        Raises:
            StorageError: the database cannot be used.
        """
        scratch.sweep()
        # known as living before anything can be taken under this name
        self._heart = Heart(self.executors, self.name, self.queues, self.settings.beat_seconds)
        self.durable = Durable(
            self.settings.jobs_url,
            self.name,
            self.runner.work,
            self.queues,
            self.settings.solvers,
            self.settings.poll_seconds,
        )
        handed_over: Callable[[int], None] = self.observer.handed_over
        self._watchdog = Watchdog(self.board, self.executors, self.durable, self.settings.lease_seconds, handed_over)
        self._watchdog.start()
        self._keeper.start()

    def stop(self, grace: float) -> None:
        """End: no new jobs, running ones may end within ``grace`` seconds, the rest goes to other workers at once."""
        self._keeper.stop()
        if self._watchdog is not None:
            self._watchdog.stop()
        if self.durable is not None:
            self.durable.stop_listening()
        self._drain(grace)
        self.runner.leave()
        self._drain(5.0)
        self.pool.close()
        if self.durable is not None:
            self._hand_back(self.durable)
            self.durable.close()
        if self._heart is not None:
            self._heart.stop()
        self.database.close()

    def _drain(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.runner.running and time.monotonic() < until:
            time.sleep(0.02)

    def _hand_back(self, durable: Durable) -> None:
        """What this process let go of need not wait for its lease to end."""
        try:
            for name, queue in durable.pending().get(self.name, ()):
                job = self.board.get(name)
                if job is not None:
                    durable.hand_over(name, self.name, queue or job.queue)
        except StorageError as error:
            log.warning("jobs of this process wait for its lease to end: %s", error)
