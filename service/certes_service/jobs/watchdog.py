"""The watchdog: hands the jobs of dead workers over, and lets no job be forgotten. Every process has one.

All of it is conditional in the database, so any number of watchdogs may do it at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from certes_service.jobs.board import Board
from certes_service.jobs.durable import Durable
from certes_service.jobs.executors import Executors
from certes_service.jobs.job import Job, queue_of
from certes_service.storage.errors import StorageError

log = logging.getLogger("certes.service")

#: A job older than this that the queue does not know was left behind by a process that died while it handed it in.
_FORGOTTEN_SECONDS = 10.0


class Watchdog:
    """Looks after the jobs of all processes.

    Args:
        board: the jobs.
        executors: the processes.
        durable: the queue.
        lease: silence in seconds after which a process counts as dead.
        handed_over: called with a number of jobs.
    """

    def __init__(
        self,
        board: Board,
        executors: Executors,
        durable: Durable,
        lease: float,
        handed_over: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._board, self._executors, self._durable = board, executors, durable
        self._lease, self._handed_over = lease, handed_over
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look in a thread of its own, three times a lease."""
        self._thread = threading.Thread(target=self._run, name="certes-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(self._lease / 3):
            try:
                self.look()
            except StorageError as error:
                log.warning("watchdog: %s", error)
            except Exception:
                log.exception("watchdog")

    def look(self) -> int:
        """Look once; returns how many jobs were handed over.

        Raises:
            StorageError: the database cannot be used.
        """
        count = self._dead()
        self._expire()
        self._forgotten()
        if count:
            log.warning("%d jobs of dead workers go to others", count)
            self._handed_over(count)
        return count

    def _dead(self) -> int:
        silent = set(self._executors.silent(self._lease))
        pending = self._durable.pending()  # before the table of the living: who starts meanwhile is in the second
        living = set(self._executors.known()) - silent
        count = 0
        for executor, jobs in pending.items():
            if executor in living:
                continue
            for name, queue in jobs:
                job = self._board.get(name)
                if job is not None and self._durable.hand_over(name, executor, queue or queue_of(job.kind)):
                    count += 1
        for executor in silent:
            self._executors.strike(executor, self._lease)
        return count

    def _expire(self) -> None:
        for job in self._board.late():
            problem = {"type": "urn:certes:error:deadline", "title": "Deadline", "status": 504}
            problem["detail"] = "the deadline passed before a worker was free"
            if self._board.give_up(job.id, problem):
                self._durable.cancel(job.id)

    def _forgotten(self) -> None:
        alive = {job.id: job for job in self._board.alive(_FORGOTTEN_SECONDS)}
        states = self._durable.states(list(alive))
        for name, job in alive.items():
            state = states.get(name)
            if state is None:
                self._durable.enqueue(name, job.queue, job.priority)
                self._board.dispatched(name)
            elif self._durable.has_ended(state) and (now := self._board.get(name)) is not None and not now.ended:
                self._mend(now, state)

    def _mend(self, job: Job, state: str) -> None:
        """The queue has done with a job that has no outcome: workers died with it again and again."""
        log.error("job %s has no outcome, and is %s in the queue", job.id, state)
        detail = "Every worker that took this job died. It has been logged; nothing was certified."
        problem = {"type": "urn:certes:error:internal", "title": "Internal", "status": 500, "detail": detail}
        self._board.give_up(job.id, problem)
