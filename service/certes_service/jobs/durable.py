"""The durable queue: the only module that knows DBOS, and the one place that relies on more than it promises.

What is not in its documentation, and held by ``tests/service/test_durable.py`` against the pinned version:

- a workflow that another process left PENDING is handed over by name of its executor, conditionally, to a queue;
- a step or workflow that ends in a ``BaseException`` records nothing: that is how a worker lets go of a job;
- pickled rows are refused: the one function that would unpickle is replaced;
- how many jobs of a queue run here is counted in memory, and what was started without the queue can be counted too;
- an outcome is recorded only by the execution that owns the row.

One process has one of these (DBOS keeps its state in the module).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions, SetWorkflowID, _serialization
from dbos._dbos import _get_dbos_instance
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
#: Jobs that were started here without their queue.
_direct: set[str] = set()


@DBOS.workflow(name="certes.job")
def _job(job: str) -> str:
    # One step: how far it came stands in the job's row and its checkpoint, which only its owner can write.
    return DBOS.run_step({"name": "work"}, _step, job)


def _step(job: str) -> str:
    if _work is None:
        raise LetGo
    with _counted(job):
        return _work(job)


@contextlib.contextmanager
def _counted(job: str) -> Iterator[None]:
    """While a job runs that was started without its queue, the queue takes one less here.

    It would wait for a solver that is busy otherwise, past the reach of other workers and of more urgent jobs.
    """
    if job not in _direct:
        yield
        return
    _direct.discard(job)
    entry = _get_dbos_instance()._active_workflows_set.add(job, SOLVE)
    try:
        yield
    finally:
        entry.release()


class Durable:
    """The durable queue of this process.

    Args:
        url: SQLAlchemy's URL of its tables.
        executor: name of this process, used by no other, ever.
        work: does a job, given its name; called in a thread of its own. :class:`LetGo` leaves the job pending.
        queues: queues to take jobs from; none: jobs are only handed in.
        solvers: how many jobs of the queue ``solve`` may run here at once; of ``train`` one.
        poll: seconds between two looks at a queue.

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
            notification_listener_polling_interval_sec=1.0,
            scheduler_polling_interval_sec=3600.0,
        )
        self._dbos = DBOS(config=config)
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

    def start(self, job: str) -> None:
        """Work on a job here and now, without the queue.

        Raises:
            StorageError: it could not be noted.
        """
        _direct.add(job)
        try:
            with _storage(), SetWorkflowID(job):
                DBOS.start_workflow(_job, job)
        except BaseException:
            _direct.discard(job)
            raise

    def enqueue(self, job: str, queue: str, priority: int = 0) -> None:
        """Put a job into a queue; one that is known already stays as it is.

        Raises:
            StorageError: it could not be noted.
        """
        with _storage(), SetWorkflowID(job), SetEnqueueOptions(priority=_NORMAL - priority):
            DBOS.enqueue_workflow(queue, _job, job)

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
            return bool(self._dbos._sys_db.reenqueue_for_recovery(job, [executor], queue))

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
        global _work
        _work = None
        _direct.clear()
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
