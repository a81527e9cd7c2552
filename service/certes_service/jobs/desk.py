"""What the API does for a question: answer it from memory, or make a job of it, and wait a while for its end."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from certes.errors import InputError

from certes_service import problems
from certes_service.jobs.board import Remembered, Wanted
from certes_service.jobs.job import Job, State
from certes_service.jobs.runner import attached
from certes_service.jobs.works import Works
from certes_service.questions.base import Question, Solved
from certes_service.questions.signing import finished
from certes_service.solving.pool import SolverKilled, Stopped
from certes_service.solving.task import Task
from certes_service.storage.errors import StorageError, sha256
from certes_service.storage.store import Stored
from certes_service.tenancy.callers import Caller

log = logging.getLogger("certes.service")
T = TypeVar("T")

#: Seconds between two looks at a job that another process works on: short at first, then longer.
_FIRST_LOOK, _LAST_LOOK = 0.05, 0.5
#: Seconds between two events of a job, and between two signs of life on a quiet stream.
_EVENT_SECONDS, _ALIVE_SECONDS = 0.3, 10.0
#: Attachments of questions that are answered without a job, and of verifications: none waits longer than this.
_THREADS = 32


@dataclass(frozen=True)
class Asking:
    """How something is asked.

    Attributes:
        wait: seconds to wait for the answer before it is left to a job; None: as the service is set.
        key: idempotency key.
        priority: -9 to 9, the highest first.
        deadline: seconds after which the job is given up; None: never.
        store: keep what comes of it; otherwise it is answered in the call or not at all.
    """

    wait: float | None = None
    key: str | None = None
    priority: int = 0
    deadline: float | None = None
    store: bool = True


@dataclass(frozen=True)
class Answered:
    """An answer, and the job that it came from, if it was computed just now."""

    answer: dict[str, Any]
    job: str | None = None


class Desk:
    """The API's side of the works.

    Args:
        works: the parts of this process; started before anything is asked.

    Attributes:
        queue_limit: how many jobs of a tenant may wait or run at once.
        check_room: raises TooLargeError if a tenant may not keep so many bytes more.
        leaving: set when this process is about to end: nobody waits any longer.
    """

    def __init__(self, works: Works) -> None:
        self.works, self.settings = works, works.settings
        self.store, self.database, self.blobs = works.store, works.database, works.blobs
        self.pool, self.board = works.pool, works.board
        self.queue_limit: Callable[[str], int] = lambda _: self.settings.queue
        self.check_room: Callable[[str, int], None] = lambda _, __: None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="certes-desk-")
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._solving = asyncio.Semaphore(self.settings.solvers)
        self._crowd = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self.leaving = asyncio.Event()
        works.runner.ended = self._ended

    async def ask(self, caller: Caller, question: Question, asking: Asking) -> Answered | Job:
        """Answer a question: from memory, by a job that ends in time, or with the job that goes on.

        Raises:
            InputError: the weights do not fit the question, or the idempotency key was another's.
            StorageError: it could not be kept. Crowded: too many jobs of the tenant wait.
            JobFailed: the job ended in a problem.
        """
        self._loop = asyncio.get_running_loop()
        tenant = caller.tenant
        digest = await self.in_thread(question.digest, self.settings)
        if not asking.store:
            return await self._at_once(tenant, question, asking)
        if asking.key is not None:
            known = await self.in_thread(self.board.keyed, tenant, asking.key, digest)
            if known is not None:
                return await self._awaited(known, asking, mine=False)
        answer = await self.in_thread(self._recall, tenant, digest)
        if answer is not None:
            return Answered(answer)
        await self.in_thread(question.check, self.settings)
        try:
            job, mine = await self.in_thread(self._open, tenant, question, digest, asking, False)
        except Remembered:  # answered between the look and the opening
            answer = await self.in_thread(self._recall, tenant, digest)
            if answer is not None:
                return Answered(answer)
            job, mine = await self.in_thread(self._open, tenant, question, digest, asking, True)
        if mine:
            log.info("job %s: %s", job.id, job.kind)
            await self.in_thread(self._dispatch, job)
        return await self._awaited(job, asking, mine=mine)

    def _open(self, tenant: str, question: Question, digest: str, asking: Asking, anew: bool) -> tuple[Job, bool]:
        self.check_room(tenant, len(question.weights))
        weights = self.blobs.put(tenant, question.weights)
        request = {"parts": question.parts(), "needs": sorted(question.needs())}
        wanted = Wanted(
            tenant, question.kind, digest, request, weights, question.name,
            asking.priority, asking.deadline, asking.key,
        )  # fmt: skip
        return self.board.open(wanted, self.queue_limit(tenant), anew=anew)

    def _dispatch(self, job: Job) -> None:
        """Hand it in. A worker of this process looks at once; whoever is free first takes it, in the queue's order."""
        durable = self.works.durable
        if durable is None:
            raise StorageError("the queue is not open")
        try:
            durable.enqueue(job.id, job.queue, job.priority)
        except StorageError as error:
            # the watchdog hands it in later; who waits learns that it is a job
            log.warning("job %s could not be handed in yet: %s", job.id, error)

    async def _awaited(self, job: Job, asking: Asking, *, mine: bool) -> Answered | Job:
        wait = self.settings.wait_seconds if asking.wait is None else asking.wait
        job = await self.until_ended(job, min(wait, self.settings.wait_most))
        if job.state == "done":
            answer = await self.in_thread(self.answer_of, job)
            assert answer is not None
            return Answered(answer | {"cached": not mine}, job.id)  # computed once, whoever waits for it
        if job.state == "failed":
            raise problems.JobFailed(job.id, job.error or {})
        return job

    async def until_ended(self, job: Job, seconds: float) -> Job:
        """The job when it has ended, or as it is after some seconds."""
        until, pause = time.monotonic() + seconds, _FIRST_LOOK
        event = asyncio.Event()
        self._waiting.setdefault(job.id, set()).add(event)
        try:
            while not job.ended and (left := until - time.monotonic()) > 0 and not self.leaving.is_set():
                # what ends in this process says so; a look at the row finds what ends elsewhere
                await _either(event, self.leaving, min(left, pause))
                event.clear()
                pause = min(pause * 1.5, _LAST_LOOK)
                job = await self._again(job)
        finally:
            waiting = self._waiting[job.id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[job.id]
        return job

    async def _again(self, job: Job) -> Job:
        """A job as it is now."""
        found: Job | None = await self.in_thread(self.board.get, job.id)
        return found or job

    def _ended(self, job: str) -> None:
        """Called in the thread that worked on the job."""
        if self._loop is None or self._loop.is_closed():
            return

        def tell() -> None:
            for event in self._waiting.get(job, ()):
                event.set()

        self._loop.call_soon_threadsafe(tell)

    async def _at_once(self, tenant: str, question: Question, asking: Asking) -> Answered:
        """Solve without a trace: no job, no row, no blob."""
        await self.in_thread(question.check, self.settings)
        wait = self.settings.wait_most if asking.wait is None else min(asking.wait, self.settings.wait_most)
        solved = await self._solve(tenant, question, max(wait, 0.01))
        made = finished(solved, self.settings.private_key, sha256(question.weights))
        return Answered(made.inline() | {"cached": False})

    async def verification(self, tenant: str, question: Question) -> dict[str, Any]:
        """Verify in a solver process; nothing is kept.

        Raises:
            InputError: no certificate, or weights that are no weight file. Busy: too many wait.
        """
        await self.in_thread(question.check, self.settings)
        solved = await self._solve(tenant, question, self.settings.solve_seconds)
        return dict(solved.answer)

    async def _solve(self, tenant: str, question: Question, seconds: float) -> Solved:
        if self._crowd >= self.settings.solvers + self.settings.queue:
            raise problems.Busy(f"{self._crowd} requests are being solved or wait for it")
        self._crowd += 1
        try:
            async with self._solving:
                return await self.in_thread(self._run, tenant, question, seconds)
        finally:
            self._crowd -= 1

    def _run(self, tenant: str, question: Question, seconds: float) -> Solved:
        task = Task.asking(question, self.settings, attached(self.store, tenant, question.needs()))
        try:
            return self.pool.run(task, seconds=seconds, watch=lambda: "shutdown" if self.leaving.is_set() else None)
        except Stopped as stopped:
            raise problems.Busy("the service is about to end") from stopped
        except SolverKilled as killed:
            raise problems.Killed(str(killed)) from killed

    async def job(self, tenant: str, job: str) -> Job | None:
        """A job of the tenant."""
        return await self.in_thread(self.board.get, job, tenant)

    async def told(self, job: Job) -> dict[str, Any]:
        """A job as JSON, its answer complete."""
        return await self.in_thread(lambda: job.json(self.answer_of(job)))

    async def jobs(
        self, tenant: str, limit: int = 50, before: tuple[float, str] | None = None, states: Sequence[State] = ()
    ) -> list[Job]:
        """A tenant's jobs, the youngest first; ``before``: time and name of the last one of the page before."""
        return await self.in_thread(self.board.page, tenant, limit, before, states)

    async def cancel(self, tenant: str, job: str) -> Job | None:
        """Cancel; the solver of a running one is killed within a second. None: there is no such job."""

        def cancel() -> Job | None:
            found = self.board.cancel(job, tenant)
            if found is not None and found.state == "cancelled" and self.works.durable is not None:
                self.works.durable.cancel(job)
            return found

        found = await self.in_thread(cancel)
        if found is not None:
            self._ended(job)
        return found

    async def events(self, tenant: str, job: str) -> AsyncIterator[Job | None]:
        """The job at each change until its end; None now and then when nothing changes."""
        told: tuple[Any, ...] | None = None
        quiet = time.monotonic()
        while (found := await self.job(tenant, job)) is not None:
            now = (found.state, found.attempt, json.dumps(found.progress))
            if now != told:
                told, quiet = now, time.monotonic()
                yield found
            elif time.monotonic() - quiet > _ALIVE_SECONDS:
                quiet = time.monotonic()
                yield None
            if found.ended or self.leaving.is_set():
                return
            await _either(self.leaving, None, _EVENT_SECONDS)

    def answer_of(self, job: Job) -> dict[str, Any] | None:
        """What a call would have returned: the stored answer with its certificate's envelope.

        Raises:
            StorageError: the certificate cannot be read intact.
        """
        return None if job.answer is None else self._complete(job.tenant, job.answer)

    def _complete(self, tenant: str, answer: dict[str, Any]) -> dict[str, Any]:
        link = answer.get("certificate")
        if not link:
            return answer
        stored = self.store.certificate(tenant, link["digest"])
        if stored is None:
            return answer  # removed since: its digest still says which it was
        return answer | {"certificate": link | {"envelope": json.loads(stored.envelope)}}

    def _recall(self, tenant: str, question: str) -> dict[str, Any] | None:
        answer = self.store.answer(tenant, question)
        return None if answer is None else answer | {"cached": True}

    async def stored(self, tenant: str, digest: str) -> Stored | None:
        """A certificate of the tenant.

        Raises:
            StorageError: it cannot be read intact.
        """
        return await self.in_thread(self.store.certificate, tenant, digest)

    async def in_thread(self, work: Callable[..., T], *given: Any) -> T:
        """Do something that waits, in one of the desk's threads."""
        context = contextvars.copy_context()  # the log says there, too, for which request it is
        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, work, *given)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _either(one: asyncio.Event, other: asyncio.Event | None, seconds: float) -> None:
    """Wait until an event is set, or for some seconds."""
    tasks = [asyncio.ensure_future(event.wait()) for event in (one, other) if event is not None]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def wait_of(prefer: str | None) -> float | None:
    """The wait that a ``Prefer`` header asks for (RFC 7240): ``wait=N``, or 0 for ``respond-async`` alone.

    Preferences that are not understood are left aside, as the RFC has it.

    Raises:
        InputError: a wait that is no number of seconds.
    """
    asked: float | None = None
    for part in (prefer or "").split(","):
        name, _, value = part.partition(";")[0].strip().partition("=")
        if name.strip().lower() == "wait":
            text = value.strip().strip('"')
            if not text.isascii() or not text.isdigit() or len(text) > 6:
                raise InputError("Prefer", f"wait={value[:40]}", "a whole number of seconds", "wait")
            asked = float(text)
        elif name.strip().lower() == "respond-async" and asked is None:
            asked = 0.0
    return asked
