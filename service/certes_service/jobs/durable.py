"""The durable queue: the only module that knows DBOS, and the one place that relies on more than it promises.

What is not in its documentation, and held by ``tests/service/test_durable.py`` against the pinned version:

- a workflow that another process left PENDING is handed over by name of its executor, conditionally, to a queue;
- a step or workflow that ends in a ``BaseException`` records nothing: that is how a worker lets go of a job;
- pickled rows are refused: the one function that would unpickle is replaced;
- the threads that look at queues wait on one event, and what runs here is entered in one register: so a look can be had
  at once, when a job was handed in or a place became free, and nothing waits for the next poll;
- an outcome is recorded only by the execution that owns the row.

One process has one of these (DBOS keeps its state in the module).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import sqlalchemy as sa
from dbos import (
    DBOS,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetEnqueueOptions,
    SetWorkflowID,
    _core,
    _dbos,
    _queue,
    _serialization,
)
from dbos._error import DBOSAwaitedWorkflowCancelledError, DBOSException, DBOSWorkflowCancelledError
from sqlalchemy.exc import SQLAlchemyError

from certes_service.jobs.job import QUEUES, SOLVE, TRAIN
from certes_service.storage.errors import StorageError

__all__ = ["APPLICATION_VERSION", "Durable", "LetGo"]

#: Changes only when the shape of the workflow does: a worker of another version leaves a job alone.
APPLICATION_VERSION = "certes-jobs-1"
_NAME = "certes"
#: DBOS takes the smallest number first, from 1 on; a job's priority is -9 to 9, the highest first.
_NORMAL = 10
#: Seconds in which a job that was taken from the queue begins, if it ever does.
_BEGINS = 5.0
_TERMINAL = frozenset({"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})
log = logging.getLogger("certes.service")


class LetGo(BaseException):
    """Ends an execution without any outcome: the job stays pending, for its next owner.

    Not an Exception, so that nothing on the way takes it for a failure of the job.
    """


def _refuse_pickle(_: object, __: str) -> NoReturn:
    raise TypeError("a pickled row in the queue's database: only portable JSON is read")


_serialization.DefaultSerializer.deserialize = _refuse_pickle  # type: ignore[method-assign, assignment]

_work: Callable[[str], str] | None = None


@DBOS.workflow(name="certes.job")
def _job(job: str) -> str:
    # One step: how far it came stands in the job's row and its checkpoint, which only its owner can write.
    return DBOS.run_step({"name": "work"}, _step, job)


def _step(job: str) -> str:
    if _work is None:
        raise LetGo
    return _work(job)


class _Bell(threading.Event):
    """An event whose waiting threads can be woken without it being set; each wakes once for every ring."""

    _rings: int
    _heard: threading.local

    @classmethod
    def of(cls, event: threading.Event) -> _Bell:
        """The same event, from now on with a bell."""
        event.__dict__.update(_rings=0, _heard=threading.local())
        event.__class__ = cls
        assert isinstance(event, _Bell)
        return event

    def ring(self) -> None:
        """Wake who waits; who does not wait now will not wait the next time."""
        with self._cond:  # type: ignore[attr-defined]
            self._rings += 1
            self._cond.notify_all()  # type: ignore[attr-defined]

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is set; after the timeout, or when the bell rang since this thread's last wait."""
        heard = getattr(self._heard, "rings", 0)
        with self._cond:  # type: ignore[attr-defined]
            self._cond.wait_for(lambda: self.is_set() or self._rings != heard, timeout)  # type: ignore[attr-defined]
            self._heard.rings = self._rings
        return self.is_set()


_bell: _Bell | None = None
_queue_thread = _queue.queue_thread


def _with_bell(event: threading.Event, dbos: DBOS) -> None:
    global _bell
    _bell = _Bell.of(event)
    _queue_thread(event, dbos)


#: DBOS makes the event and hands it to nobody else.
_dbos.queue_thread = _with_bell  # type: ignore[assignment, attr-defined]


class _Active(_core.ActiveWorkflowById):
    """What runs here: says so when something ended, and counts what was taken but has not begun yet."""

    def __init__(self, ended: Callable[[], None]) -> None:
        super().__init__()
        self._ended = ended
        self._taken: dict[str, tuple[str | None, float]] = {}

    def take(self, key: str, queue: str | None) -> None:
        """Count from now on, until it begins: a second look may come before the thread of the first one's job."""
        with self._lock:
            self._taken[key] = (queue, time.monotonic())

    def add(self, key: str, queue_name: str | None = None, queue_partition_key: str | None = None) -> Any:
        with self._lock:
            self._taken.pop(key, None)
        return super().add(key, queue_name, queue_partition_key)

    def count_for_queue(self, queue_name: str) -> int:
        with self._lock:
            late = time.monotonic() - _BEGINS
            self._taken = {key: entry for key, entry in self._taken.items() if entry[1] > late}
            taken = sum(queue == queue_name for queue, _ in self._taken.values())
        return taken + super().count_for_queue(queue_name)

    def _remove(self, key: str, bucket: Any) -> None:
        super()._remove(key, bucket)
        self._ended()


_execute = _core.execute_dequeued_workflow


def _counted(dbos: DBOS, status: Any, owner_xid: str) -> Any:
    if isinstance(dbos._active_workflows_set, _Active):
        dbos._active_workflows_set.take(status["workflow_uuid"], status["queue_name"])
    return _execute(dbos, status, owner_xid)


_queue.execute_dequeued_workflow = _counted  # type: ignore[attr-defined]


class Durable:
    """The durable queue of this process.

    Args:
        url: SQLAlchemy's URL of its tables.
        executor: name of this process, used by no other, ever.
        work: does a job, given its name; called in a thread of its own. :class:`LetGo` leaves the job pending.
        queues: queues to take jobs from; none: jobs are only handed in.
        solvers: how many jobs of the queue ``solve`` may run here at once; of ``train`` one.
        poll: seconds between two looks at a queue, besides those when something changes here.

    Raises:
        StorageError: the database cannot be used.
    """

    def __init__(
        self,
        url: str,
        executor: str,
        work: Callable[[str], str],
        queues: Sequence[str],
        solvers: int = 1,
        poll: float = 0.5,
    ) -> None:
        global _work
        self.executor = executor
        self.queues = tuple(queues)
        self._lock = threading.Lock()
        _quiet()
        config = DBOSConfig(
            name=_NAME,
            system_database_url=url,
            executor_id=executor,
            application_version=APPLICATION_VERSION,
            serializer=DBOSPortableJSONSerializer(),
            log_level="WARNING",
            notification_listener_polling_interval_sec=0.1,  # nothing is notified; how long ending takes
            scheduler_polling_interval_sec=3600.0,
        )
        self._dbos = DBOS(config=config)
        self._dbos._active_workflows_set = _Active(self.look)
        _work = work
        try:
            DBOS.listen_queues(list(self.queues))
            DBOS.launch()
            _quiet()  # it has made a handler of its own meanwhile
            for name, most in ((SOLVE, solvers), (TRAIN, 1)):
                # whoever works on a queue says how; who only hands in leaves it as it is
                conflict: Any = "always_update" if name in self.queues else "never_update"
                DBOS.register_queue(name, worker_concurrency=most, polling_interval_sec=poll, on_conflict=conflict)
        except (SQLAlchemyError, DBOSException) as error:
            self.close()
            raise StorageError(f"the queue's database cannot be used: {_plain(error)}") from error

    def enqueue(self, job: str, queue: str, priority: int = 0) -> None:
        """Put a job into a queue; one that is known already stays as it is.

        Raises:
            StorageError: it could not be noted.
        """
        with _storage(), SetWorkflowID(job), SetEnqueueOptions(priority=_NORMAL - priority):
            DBOS.enqueue_workflow(queue, _job, job)
        self.look()

    def look(self) -> None:
        """Look at the queues now instead of at the next poll."""
        if self.queues and _bell is not None:
            _bell.ring()

    def cancel(self, job: str) -> None:
        """Take a job out of its queue, and record nothing of it any more."""
        with _storage():
            DBOS.cancel_workflow(job)

    def states(self, jobs: Sequence[str]) -> dict[str, str]:
        """Job -> its state in the queue; jobs that are not known are left out."""
        with _storage():
            found = self._dbos._sys_db.get_workflow_statuses(list(jobs))
            statuses: Mapping[str, Any] = (
                found if isinstance(found, Mapping) else {s["workflow_uuid"]: s for s in found}
            )
            return {name: str(status["status"]) for name, status in statuses.items() if status is not None}

    @staticmethod
    def has_ended(state: str) -> bool:
        """Whether a state of :meth:`states` is final."""
        return state in _TERMINAL

    def pending(self) -> dict[str, list[tuple[str, str | None]]]:
        """Executor -> the (job, queue) that it works on, as far as the database knows."""
        table = self._dbos._sys_db.tables.workflow_status
        query = sa.select(table.c.executor_id, table.c.workflow_uuid, table.c.queue_name).where(
            table.c.status == "PENDING", table.c.application_version == APPLICATION_VERSION
        )
        found: dict[str, list[tuple[str, str | None]]] = {}
        with _storage(), self._dbos._sys_db.engine.connect() as connection:
            for executor, job, queue in connection.execute(query):
                found.setdefault(executor, []).append((job, queue))
        return found

    def hand_over(self, job: str, executor: str, queue: str = SOLVE) -> bool:
        """Give a job that a dead executor works on back to a queue; whether it still was that executor's.

        Conditional on the executor, in one statement: if another took it meanwhile, nothing happens.
        """
        with _storage():
            given_back = bool(self._dbos._sys_db.reenqueue_for_recovery(job, [executor], queue))
        self.look()
        return given_back

    def foreign(self) -> int:
        """How many rows are in a serialisation that is not ours. They are refused when they are met."""
        table = self._dbos._sys_db.tables.workflow_status
        query = sa.select(sa.func.count()).where(
            sa.func.coalesce(table.c.serialization, "py_pickle") != "portable_json"
        )
        with _storage(), self._dbos._sys_db.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def ready(self) -> None:
        """Whether the queue answers.

        Raises:
            StorageError: it does not.
        """
        with _storage(), self._dbos._sys_db.engine.connect() as connection:
            connection.execute(sa.select(1))

    def stop_listening(self) -> None:
        """Take no new jobs from queues; what runs goes on."""
        for event in list(self._dbos.background_thread_stop_events):
            event.set()

    def close(self) -> None:
        """End. Executions that still run are given up without an outcome."""
        global _work, _bell
        _work = _bell = None
        with contextlib.suppress(Exception):
            DBOS.destroy(destroy_registry=False)


def _quiet() -> None:
    """Let the process's own log take what DBOS says, but for what is no news: a cancelled job that comes to an end."""
    logger = logging.getLogger("dbos")
    logger.handlers.clear()
    logger.propagate = True
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    over = isinstance(error, DBOSAwaitedWorkflowCancelledError | DBOSWorkflowCancelledError)
    return not over and "no longer owned by this execution" not in record.getMessage()


@contextlib.contextmanager
def _storage() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageError(f"the queue's database cannot be used: {_plain(error)}") from error


def _plain(error: BaseException) -> str:
    """The first line of what the driver said: the rest may show statements and their values."""
    cause = getattr(error, "orig", None) or error
    return str(cause).partition("\n")[0][:300]


#: Every kind that is not trained is solved.
assert set(QUEUES.values()) <= {SOLVE, TRAIN}
