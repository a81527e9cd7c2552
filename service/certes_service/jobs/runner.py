"""What a worker does with a job: take it, run it in a solver process, sign, enter what came of it.

The answer, the certificates and the end of the job are entered in one transaction that holds only if this attempt
still owns the job. Blobs are written before it: until then nothing names them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import structlog
from certes.errors import CertesError, InputError

from certes_service import problems
from certes_service.jobs.board import Board, Superseded
from certes_service.jobs.durable import LetGo
from certes_service.jobs.job import TRAIN, Job
from certes_service.questions.base import LEAST, Attachment, Finished, Solved
from certes_service.questions.signing import finished
from certes_service.settings import Settings
from certes_service.solving.pool import Pool, SolverKilled, Stopped
from certes_service.solving.task import Task
from certes_service.storage.blobs import Blobs
from certes_service.storage.errors import CorruptedError, StorageError
from certes_service.storage.retention import retire
from certes_service.storage.store import Row, Store, without_envelope

log = logging.getLogger("certes.service")
T = TypeVar("T")

#: After so many workers a job is given up: it kills what works on it.
MOST_ATTEMPTS = 20
#: So often a worker tries a job whose solver is ended from outside; the pauses in between grow by so many seconds.
MOST_KILLS, _PAUSE = 3, 1.0
#: Seconds between two looks at the job's row while it is solved, and two notes of how long a training took.
_LOOK, _NOTE = 0.3, 5.0
#: Seconds between two tries while the database is away.
_AGAIN = 1.0
#: How often the writing of blobs is tried before the job fails: a full disk seldom mends itself.
_BLOB_TRIES = 3
#: Seconds after which a checkpoint that was followed by another is thrown away.
_SETTLED = 5.0


class Observer(Protocol):
    """What is told of jobs (metrics and the log)."""

    def solved(self, job: Job, solved: Solved, seconds: float) -> None:
        """A solver came to an answer."""
        ...

    def ended(self, job: Job, state: str, seconds: float) -> None:
        """A job ended here."""
        ...

    def killed(self, reason: str) -> None:
        """A solver was killed."""
        ...


class Runner:
    """Does the jobs of this process.

    Args:
        settings: limits and the signing key.
        executor: name of this process.
        board: the jobs.
        store: certificates and answers.
        blobs: weights and checkpoints.
        pool: solver processes.
        observer: told of jobs.
        device: where training computes.
    """

    def __init__(
        self,
        settings: Settings,
        executor: str,
        board: Board,
        store: Store,
        blobs: Blobs,
        pool: Pool,
        observer: Observer,
        device: str = "cpu",
    ) -> None:
        self._settings, self._executor, self._device = settings, executor, device
        self._board, self._store, self._blobs, self._pool = board, store, blobs, pool
        self._observer = observer
        self._key = settings.private_key
        self._leaving = threading.Event()
        self.running: set[str] = set()
        self.ended: Callable[[str], None] = lambda _: None

    def leave(self) -> None:
        """Let go of every job: solvers are killed, the jobs stay for other workers."""
        self._leaving.set()

    def work(self, name: str) -> str:
        """Do one job, to its end.

        Raises:
            LetGo: this process ends, or the job is not its any more.
        """
        started = time.monotonic()
        job = self._patiently(lambda: self._board.take(name, self._executor))
        if job is None:
            return "over"
        self.running.add(name)
        try:
            with structlog.contextvars.bound_contextvars(job=name):
                state = self._done(job)
                log.info("job ended: %s", state)
            self._observer.ended(job, state, time.monotonic() - started)
            return state
        except Superseded:
            log.info("job %s is not ours any more", name)
            return "superseded"
        finally:
            self.running.discard(name)
            self.ended(name)

    def _done(self, job: Job) -> str:
        """Solve and enter; whatever goes wrong with the job itself is its outcome."""
        if job.attempt > MOST_ATTEMPTS:
            return self._failed(job, _problem(500, "internal", "Every worker that took this job died."))
        try:
            known = self._patiently(lambda: self._store.answer(job.tenant, job.question))
            if known is not None:  # found by another job between the question and this one
                return self._enter(job, without_envelope(known))
            made = finished(self._solved(job), self._key, job.weights)
            rows = self._staged(job, made)
        except Stopped as stopped:
            return self._stopped(job, stopped.reason)
        except SolverKilled as killed:
            log.error("job %s: %s", job.id, killed)
            return self._failed(job, _problem(503, problems.KILLED, f"{killed}. Tried {MOST_KILLS} times"))
        except InputError as error:
            return self._failed(job, problems.members(error))
        except StorageError as error:
            return self._failed(job, _problem(503, "storage", str(error)))
        except CertesError as error:
            return self._failed(job, problems.members(error))
        except Superseded:
            raise
        except Exception:
            log.exception("job %s", job.id)
            return self._failed(job, _problem(500, "internal", problems.INTERNAL))

        return self._enter(job, made.answer, rows, lasting=made.lasting)

    def _enter(self, job: Job, answer: dict[str, Any], rows: Sequence[Row] = (), *, lasting: bool = True) -> str:
        """Enter answer, certificates and the end of the job, all or nothing."""

        def enter() -> None:
            with self._store.database.begin() as connection:
                self._board.end(connection, job, "done", answer=answer, error=None)
                remembered = answer if rows and lasting and answer.get("certificate") else None
                self._store.enter(connection, job.tenant, rows, job.question, remembered)

        self._patiently(enter)
        return "done"

    def _solved(self, job: Job) -> Solved:
        """Solve; again, from the last checkpoint, if a solver was ended from outside: memory may be free by then."""
        name = job.id
        for tried in range(1, MOST_KILLS + 1):
            try:
                return self._once(job)
            except SolverKilled as killed:
                if tried == MOST_KILLS:
                    raise
                log.warning("job %s, try %d of %d: %s", job.id, tried, MOST_KILLS, killed)
                if self._leaving.wait(_PAUSE * tried):
                    raise Stopped("shutdown") from None
                now = self._patiently(lambda: self._board.get(name))
                if now is not None:
                    job = replace(job, checkpoint=now.checkpoint, spent=now.spent)  # as the attempt that it is
        raise AssertionError

    def _once(self, job: Job) -> Solved:
        weights, resume, needed = self._patiently(lambda: self._material(job))
        limit = self._settings.train_seconds if job.queue == TRAIN else self._settings.solve_seconds
        task = Task.of(
            job.kind, job.request, weights, job.name, needed, self._settings, resume, self._device, job.spent
        )
        spent, states = _Spent(self._board, job), _States(self._board, self._blobs, job)
        watch, began = _Watch(self._board, job, self._leaving, spent), time.monotonic()
        try:
            solved = self._pool.run(
                task,
                seconds=self._seconds(job, limit),
                watch=watch,
                on_progress=lambda progress: self._note(job, lambda: self._board.note(job, progress=progress)),
                on_checkpoint=lambda data: self._note(job, lambda: states.keep(data)),
            )
        except Superseded:  # a note found it out before the watch did
            raise Stopped(self._patiently(lambda: self._board.still(job)) or "superseded") from None
        finally:
            spent.note()
        self._observer.solved(job, solved, time.monotonic() - began)
        return solved

    def _material(self, job: Job) -> tuple[bytes, bytes | None, dict[str, Attachment]]:
        """What a solver needs: weights, the last checkpoint, the certificates that the question names."""
        resume = None if job.checkpoint is None else self._blobs.get(job.tenant, job.checkpoint)
        return self._blob(job, job.weights), resume, attached(self._store, job.tenant, job.request.get("needs", ()))

    def _seconds(self, job: Job, limit: float) -> float:
        """Seconds that the solver may take: what earlier attempts left of the limit."""
        left = self._patiently(lambda: self._board.left(job))
        return max(min(limit - job.spent, limit if left is None else left), LEAST)

    def _blob(self, job: Job, digest: str | None) -> bytes:
        data = None if digest is None else self._blobs.get(job.tenant, digest)
        if data is None:
            raise CorruptedError("the weights of the job are not in the store any more")
        return data

    def _note(self, job: Job, write: Callable[[], None]) -> None:
        """Progress and checkpoints: lost ones cost time and nothing else."""
        try:
            write()
        except StorageError as error:
            log.warning("job %s: %s", job.id, error)

    def _staged(self, job: Job, made: Finished) -> Sequence[Row]:
        for left in reversed(range(_BLOB_TRIES)):
            try:
                return self._store.stage(job.tenant, made.documents)
            except StorageError:
                if not left or self._leaving.wait(_AGAIN / 2):
                    raise
        raise AssertionError

    def _stopped(self, job: Job, reason: str) -> str:
        self._observer.killed(reason)
        if reason == "shutdown":
            self._patiently(lambda: self._board.release(job))
            raise LetGo
        if reason == "superseded":
            raise Superseded(job.id)
        return reason  # cancelled: the row says so already

    def _failed(self, job: Job, error: dict[str, Any]) -> str:
        def enter() -> None:
            with self._store.database.begin() as connection:
                self._board.end(connection, job, "failed", error=error)

        self._patiently(enter)
        return "failed"

    def _patiently(self, write: Callable[[], T]) -> T:
        """Read or write, as soon as storage is there; a process that ends lets go of the job instead.

        Raises:
            CorruptedError: no waiting mends that.
        """
        while True:
            try:
                return write()
            except CorruptedError:
                raise
            except StorageError as error:
                log.warning("waiting for storage: %s", error)
                if self._leaving.wait(_AGAIN):
                    raise LetGo from error


class _Watch:
    """Asked all the time whether a solver has to stop; looks at the job's row now and then."""

    def __init__(self, board: Board, job: Job, leaving: threading.Event, spent: _Spent) -> None:
        self._board, self._job, self._leaving, self._spent = board, job, leaving, spent
        self._next = 0.0

    def __call__(self) -> str | None:
        if self._leaving.is_set():
            return "shutdown"
        if time.monotonic() < self._next:
            return None
        self._spent.note(_NOTE)
        try:
            return self._board.still(self._job)
        except StorageError as error:
            log.warning("job %s: %s", self._job.id, error)
            return None
        finally:
            self._next = time.monotonic() + _LOOK


class _Spent:
    """How long a training takes: what earlier attempts took, and this one.

    Of other kinds nothing is noted: they begin anew, and need the time that they ask for.

    Args:
        board: the jobs.
        job: as it was taken.
    """

    def __init__(self, board: Board, job: Job) -> None:
        self._board, self._job = board, job
        self._began = self._noted = time.monotonic()

    def note(self, pause: float = 0.0) -> None:
        """Write it to the job's row, if the last note is older than a pause; a note that fails is made good later."""
        now = time.monotonic()
        if self._job.queue != TRAIN or now - self._noted < pause:
            return
        self._noted = now
        try:
            self._board.note(self._job, spent=self._job.spent + now - self._began)
        except StorageError as error:
            log.warning("job %s: %s", self._job.id, error)
        except Superseded:
            pass  # whoever has it now counts from what was noted before


class _States:
    """The checkpoints of one attempt at a job; those that were followed by another go soon: they may be large.

    Args:
        board: the jobs.
        blobs: where checkpoints are.
        job: as it was taken.
    """

    def __init__(self, board: Board, blobs: Blobs, job: Job) -> None:
        self._board, self._blobs, self._job = board, blobs, job
        self._earlier: dict[str, float] = {}
        self._last = job.checkpoint

    def keep(self, data: bytes) -> None:
        """Keep a checkpoint instead of the one before.

        Raises:
            StorageError: it could not be kept. Superseded: the job is not this worker's any more.
        """
        digest, now = self._blobs.put(self._job.tenant, data), time.monotonic()
        self._board.note(self._job, checkpoint=digest)
        if self._last is not None:
            self._earlier[self._last] = now
        self._earlier.pop(digest, None)
        self._last = digest
        if self._earlier and now - min(self._earlier.values()) > _SETTLED:  # several at once: others collect, too
            tenant, digests = self._job.tenant, list(self._earlier)
            left = retire(self._board.database, self._blobs, tenant, digests, _SETTLED)
            self._earlier = {name: self._earlier[name] for name in left}


def attached(store: Store, tenant: str, digests: Iterable[str]) -> dict[str, Attachment]:
    """Those of a tenant's certificates that a question refers to, as a solver process gets them.

    Raises:
        StorageError: one of them cannot be read intact.
    """
    found: dict[str, Attachment] = {}
    for digest in digests:
        stored = store.certificate(tenant, digest)
        if stored is not None:
            made = store.weights(tenant, digest)
            found[digest] = Attachment(stored.envelope, stored.proof, None if made is None else made[0])
    return found


def _problem(status: int, slug: str, detail: str) -> dict[str, Any]:
    return problems.body(status, slug, detail)
