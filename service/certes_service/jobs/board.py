"""The table of jobs: who asked what, who works on it, what it came to.

Every write of a worker is conditional on the attempt in which it took the job. A worker that was stopped, whose job
went to another and who then wakes up, finds its writes refused (:class:`Superseded`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from certes.errors import InputError
from sqlalchemy.exc import IntegrityError

from certes_service.jobs.job import Job, State, queue_of
from certes_service.problems import Crowded
from certes_service.storage.database import Database
from certes_service.storage.tables import answers, idempotency, jobs

_ALIVE = ("queued", "running")


class Superseded(Exception):
    """The job is not this worker's any more: it was cancelled, has ended, or was handed to another."""


class Remembered(Exception):
    """The question was answered meanwhile: no job is needed."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        tenant: who asks.
        kind: of question.
        question: its digest.
        request: what rebuilds it (JSON).
        weights: digest of its blob.
        name: name of the weights' file.
        priority: higher goes first.
        deadline: seconds from now after which it is given up; None: never.
        key: idempotency key.
    """

    tenant: str
    kind: str
    question: str
    request: dict[str, Any]
    weights: str | None
    name: str
    priority: int = 0
    deadline: float | None = None
    key: str | None = None


class Board:
    """The jobs.

    Args:
        database: where they are.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def open(self, wanted: Wanted, most: int, *, anew: bool = False) -> tuple[Job, bool]:
        """A job for a question: the one that is alive already, or a new one; and whether it is new.

        Args:
            wanted: the question.
            most: how many jobs of the tenant may be alive.
            anew: open one even if an answer is remembered, because that is damaged.

        Raises:
            Remembered: the question was answered since it was last looked up.
            InputError: the idempotency key was used for another question. Crowded: too many are alive.
        """
        for _ in range(20):
            try:
                with self.database.begin() as connection:
                    return self._open(connection, wanted, most, anew)
            except IntegrityError:
                continue  # somebody else asked the same at the same moment: theirs is the job now
        raise RuntimeError("a job that is alive and cannot be found")

    def _open(self, connection: sa.Connection, wanted: Wanted, most: int, anew: bool) -> tuple[Job, bool]:
        mine = jobs.c.tenant == wanted.tenant
        alive = jobs.c.state.in_(_ALIVE)
        now = self.database.now(connection)
        if wanted.key is not None:
            known = self._keyed(connection, wanted.tenant, wanted.key, wanted.question)
            if known is not None:
                return known, False
        same = connection.execute(sa.select(jobs).where(mine, jobs.c.question == wanted.question, alive)).mappings()
        row = same.first()
        if row is None:
            # no job is alive now, so whoever answered has ended, and his answer is there to be seen
            remembered = sa.select(answers.c.question).where(
                answers.c.tenant == wanted.tenant, answers.c.question == wanted.question
            )
            if not anew and connection.execute(remembered).first() is not None:
                raise Remembered
            count = connection.execute(sa.select(sa.func.count()).select_from(jobs).where(mine, alive)).scalar_one()
            if count >= most:
                raise Crowded(f"{count} jobs wait or run; {most} may")
            row = self._insert(connection, wanted, now)
            new = True
        else:
            new = False
        job = Job.of(row)
        if wanted.key is not None:
            connection.execute(
                sa.insert(idempotency).values(
                    tenant=wanted.tenant, key=wanted.key, question=wanted.question, job=job.id, created=now
                )
            )
        return job, new

    @staticmethod
    def _insert(connection: sa.Connection, wanted: Wanted, now: float) -> sa.RowMapping:
        values = {
            "id": uuid.uuid4().hex,
            "tenant": wanted.tenant,
            "kind": wanted.kind,
            "queue": queue_of(wanted.kind),
            "question": wanted.question,
            "request": json.dumps(wanted.request),
            "weights": wanted.weights,
            "name": wanted.name,
            "state": "queued",
            "priority": wanted.priority,
            "deadline": None if wanted.deadline is None else now + wanted.deadline,
            "created": now,
            "attempt": 0,
            "dispatched": False,
        }
        return connection.execute(sa.insert(jobs).values(values).returning(jobs)).mappings().one()

    def keyed(self, tenant: str, key: str, question: str) -> Job | None:
        """The job that an idempotency key stands for; None if the key is new, or its job is gone.

        Raises:
            InputError: it was used for another question.
        """
        with self.database.read() as connection:
            return self._keyed(connection, tenant, key, question)

    @staticmethod
    def _keyed(connection: sa.Connection, tenant: str, key: str, question: str) -> Job | None:
        where = (idempotency.c.tenant == tenant, idempotency.c.key == key)
        used = connection.execute(sa.select(idempotency).where(*where)).mappings().first()
        if used is None:
            return None
        if used["question"] != question:
            expected = "a new key, or the same request as before"
            raise InputError("Idempotency-Key", "a key that was used for another request", expected, "key-reused")
        row = connection.execute(sa.select(jobs).where(jobs.c.id == used["job"])).mappings().first()
        if row is None:  # cleaned away since
            connection.execute(sa.delete(idempotency).where(*where))
            return None
        return Job.of(row)

    def get(self, job: str, tenant: str | None = None) -> Job | None:
        """A job by its name; of another tenant it is as if there were none."""
        where = [jobs.c.id == job] + ([] if tenant is None else [jobs.c.tenant == tenant])
        with self.database.read() as connection:
            row = connection.execute(sa.select(jobs).where(*where)).mappings().first()
        return None if row is None else Job.of(row)

    def latest(self, tenant: str, question: str) -> Job | None:
        """The youngest job that answered a question; None if none is kept."""
        query = sa.select(jobs).where(
            jobs.c.tenant == tenant, jobs.c.question == question, jobs.c.state == "done", jobs.c.answer.is_not(None)
        )
        with self.database.read() as connection:
            row = connection.execute(query.order_by(jobs.c.created.desc()).limit(1)).mappings().first()
        return None if row is None else Job.of(row)

    def page(
        self, tenant: str, limit: int = 50, before: tuple[float, str] | None = None, states: Sequence[State] = ()
    ) -> list[Job]:
        """A tenant's jobs, the youngest first; ``before``: time and name of the last one of the page before."""
        query = sa.select(jobs).where(jobs.c.tenant == tenant)
        if before is not None:
            at = sa.tuple_(jobs.c.created, jobs.c.id)
            query = query.where(at < sa.tuple_(*map(sa.literal, before)))
        if states:
            query = query.where(jobs.c.state.in_(states))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit)).mappings()
            return [Job.of(row) for row in rows]

    def dispatched(self, job: str) -> None:
        """Note that the durable queue knows the job."""
        with self.database.begin() as connection:
            connection.execute(sa.update(jobs).where(jobs.c.id == job).values(dispatched=True))

    def take(self, job: str, owner: str) -> Job | None:
        """Begin to work on it, as its only owner from now on; None if it has ended (or is gone)."""
        with self.database.begin() as connection:
            now = self.database.now(connection)
            taken = (
                sa.update(jobs)
                .where(jobs.c.id == job, jobs.c.state.in_(_ALIVE))
                .values(
                    state="running",
                    owner=owner,
                    attempt=jobs.c.attempt + 1,
                    started=sa.func.coalesce(jobs.c.started, now),
                    dispatched=True,
                )
                .returning(jobs)
            )
            row = connection.execute(taken).mappings().first()
        return None if row is None else Job.of(row)

    def still(self, job: Job) -> str | None:
        """Why its worker has to stop: ``cancelled`` or ``superseded``; None: it goes on."""
        with self.database.read() as connection:
            query = sa.select(jobs.c.state, jobs.c.attempt).where(jobs.c.id == job.id)
            row = connection.execute(query).first()
        if row is None or row.state == "cancelled":
            return "cancelled"
        return None if (row.state, row.attempt) == ("running", job.attempt) else "superseded"

    def left(self, job: Job) -> float | None:
        """Seconds until its deadline, by the clock that set it; None: it has none."""
        if job.deadline is None:
            return None
        with self.database.read() as connection:
            return job.deadline - self.database.now(connection)

    def note(self, job: Job, **values: Any) -> None:
        """Write progress or a checkpoint.

        Raises:
            Superseded: it is not this worker's any more.
        """
        with self.database.begin() as connection:
            self.write(connection, job, **values)

    def write(self, connection: sa.Connection, job: Job, **values: Any) -> None:
        """Write to a job, if this attempt still owns it; dictionaries become JSON.

        Raises:
            Superseded: it is not this worker's any more.
        """
        plain = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in values.items()}
        mine = (jobs.c.id == job.id, jobs.c.state == "running", jobs.c.attempt == job.attempt)
        if connection.execute(sa.update(jobs).where(*mine).values(plain)).rowcount != 1:
            raise Superseded(job.id)

    def end(self, connection: sa.Connection, job: Job, state: State, **values: Any) -> None:
        """End a job, in a transaction with what it came to.

        Raises:
            Superseded: it is not this worker's any more.
        """
        self.write(connection, job, state=state, finished=self.database.now(connection), checkpoint=None, **values)

    def release(self, job: Job) -> None:
        """Give it back, to be taken by another; nothing happens if it is not this worker's any more."""
        with self.database.begin() as connection:
            mine = (jobs.c.id == job.id, jobs.c.state == "running", jobs.c.attempt == job.attempt)
            connection.execute(sa.update(jobs).where(*mine).values(state="queued", owner=None))

    def cancel(self, job: str, tenant: str) -> Job | None:
        """Cancel a job that is alive; returns it as it is now, None if there is none."""
        with self.database.begin() as connection:
            mine = (jobs.c.id == job, jobs.c.tenant == tenant)
            values = {"state": "cancelled", "finished": self.database.now(connection), "checkpoint": None}
            connection.execute(sa.update(jobs).where(*mine, jobs.c.state.in_(_ALIVE)).values(values))
            row = connection.execute(sa.select(jobs).where(*mine)).mappings().first()
        return None if row is None else Job.of(row)

    def give_up(self, job: str, error: dict[str, Any]) -> bool:
        """Let a job fail that no worker can end any more; whether it was alive."""
        with self.database.begin() as connection:
            values = {"state": "failed", "finished": self.database.now(connection), "error": json.dumps(error)}
            values["checkpoint"] = None  # nobody goes on from it: its blob is garbage now, and not in a month
            alive = (jobs.c.id == job, jobs.c.state.in_(_ALIVE))
            return connection.execute(sa.update(jobs).where(*alive).values(values)).rowcount == 1

    def alive(self, older: float) -> list[Job]:
        """Jobs that have been alive for at least so many seconds, oldest first."""
        with self.database.read() as connection:
            before = self.database.now(connection) - older
            query = sa.select(jobs).where(jobs.c.state.in_(_ALIVE), jobs.c.created <= before)
            return [Job.of(row) for row in connection.execute(query.order_by(jobs.c.created).limit(1000)).mappings()]

    def late(self) -> list[Job]:
        """Jobs that still wait although their deadline has passed."""
        with self.database.read() as connection:
            query = sa.select(jobs).where(jobs.c.state == "queued", jobs.c.deadline < self.database.now(connection))
            return [Job.of(row) for row in connection.execute(query.limit(1000)).mappings()]

    def depths(self) -> dict[tuple[str, str], int]:
        """(queue, state) -> how many jobs."""
        query = (
            sa.select(jobs.c.queue, jobs.c.state, sa.func.count())
            .where(jobs.c.state.in_(_ALIVE))
            .group_by(jobs.c.queue, jobs.c.state)
        )
        with self.database.read() as connection:
            return {(queue, state): count for queue, state, count in connection.execute(query)}
