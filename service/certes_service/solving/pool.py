"""A pool of solver processes: warm, limited, replaced when they are killed.

A question is answered in a process of its own group, so that it can be killed at any moment with all that it started,
and so that no input can take the service down. Processes are used again, one task at a time; after a kill, a crash, a
training or many tasks a fresh one takes the place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from certes.errors import CertesError

from certes_service.questions.base import Solved, Spent
from certes_service.questions.kinds import TABLE, by_name, rebuild
from certes_service.solving import protocol
from certes_service.solving.process import (
    LOOK,
    Exhausted,
    Lost,
    Process,
    SolverCrashed,
    SolverKilled,
    Stopped,
    checkpoint_of,
    progress_of,
)
from certes_service.solving.protocol import GarbledError, Message
from certes_service.solving.task import Task

__all__ = ["Pool", "SolverCrashed", "SolverKilled", "Stopped"]

log = logging.getLogger("certes.service")

Watch = Callable[[], str | None]

#: Tasks after which a process is replaced, and memory in use beyond that of a fresh one.
_TASKS, _GROWTH = 500, 512 * 2**20
#: A solver stops by itself at its time limit; it is killed when it is late by this, in seconds and relative.
_LATE, _LATE_SHARE = 10.0, 0.2
#: Processes that may be found dead one after the other before a task is given up.
_TRIES = 3
#: Seconds until the next try when no process could be started, and that closing waits for tasks.
_AGAIN, _CLOSING = 1.0, 20.0


class Pool:
    """Solver processes of one worker. All methods may be called from any thread.

    Args:
        size: how many.
        memory_bytes: that a task may take, beyond what is loaded before it.
        warm: start them now, and replacements at once; otherwise when they are wanted.
        kinds: table of kinds of questions, see :func:`certes_service.questions.kinds.table`.
        late: seconds beyond the time limit after which a task is killed; None: some seconds and a share of the limit.
    """

    def __init__(
        self, size: int, memory_bytes: int, *, warm: bool = True, kinds: str = TABLE, late: float | None = None
    ) -> None:
        self.size = size
        self._memory, self._warm, self._kinds, self._late = memory_bytes, warm, kinds, late
        self._changed = threading.Condition()
        self._all: set[Process] = set()
        self._idle: list[Process] = []
        self._wanted = 0
        self._closed = False
        self._failure: OSError | None = None
        # a solver dies with the thread that started it: this one lives as long as the pool
        self._keeper = threading.Thread(target=self._keep, name="certes-solvers", daemon=True)
        self._keeper.start()

    @property
    def free(self) -> int:
        """Tasks that would find a process at once."""
        with self._changed:
            busy = len(self._all) - len(self._idle)
            return 0 if self._closed else max(self.size - busy - self._wanted, 0)

    def run(
        self,
        task: Task,
        *,
        seconds: float,
        watch: Watch = lambda: None,
        on_progress: Callable[[dict[str, Any]], None] = lambda _: None,
        on_checkpoint: Callable[[bytes], None] = lambda _: None,
    ) -> Solved:
        """Answer a question in a solver process; waits for a free one, and for the answer.

        Args:
            task: the question.
            seconds: time limit, from the moment at which a process begins with it.
            watch: asked about every 0.25 s, also while it waits; a reason kills the process.
            on_progress: told of progress, in this thread.
            on_checkpoint: given checkpoints, in this thread.

        Returns:
            The answer; undecided, with the reason ``deadline`` or ``memory``, if the process had to be ended here: it
            was late, or over its own limit of memory.

        Raises:
            InputError: as the question does. MissingExtraError: likewise.
            Stopped: the watch gave a reason, or the pool was closed (``shutdown``).
            SolverKilled: the process was ended from outside. SolverCrashed: a defect. Neither says anything about the
            question.
        """

        def tell(message: Message) -> None:
            if message.type == "progress":
                on_progress(progress_of(message))
            else:
                on_checkpoint(checkpoint_of(message))

        message = task.message(seconds)
        late = _LATE + _LATE_SHARE * seconds if self._late is None else self._late
        lost: Lost | None = None
        for _ in range(_TRIES):
            process, kept = self._take(watch), False
            try:
                found = process.work(message, seconds + late, lambda: self._over(watch), tell)
                try:
                    answer = self._judged(task, found)
                except CertesError:
                    kept = self._give_back(process, task, found)
                    raise
                kept = self._give_back(process, task, found)
                return answer
            except Lost as error:
                lost = error
            except Exhausted as spent:
                if self._closed:
                    raise Stopped("shutdown") from None
                return self._undecided(task, "memory" if spent.reason == "memory" else "deadline", seconds)
            except (SolverCrashed, SolverKilled):
                if self._closed:
                    raise Stopped("shutdown") from None
                raise
            finally:
                if not kept:
                    self._remove(process)
        raise Stopped("shutdown") if self._closed else SolverCrashed(f"no solver process lives long enough: {lost}")

    def close(self) -> None:
        """End every process; whoever waits for one gets :class:`Stopped`."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            for process in self._all:
                process.kill()
            self._changed.notify_all()
        for process in idle:
            self._remove(process)
        self._keeper.join(_CLOSING)
        until = time.monotonic() + _CLOSING
        with self._changed:
            while self._all and time.monotonic() < until:
                self._changed.wait(LOOK)

    def _over(self, watch: Watch) -> str | None:
        return "shutdown" if self._closed else watch()

    def _judged(self, task: Task, found: Message) -> Solved:
        try:
            if found.type == "solved":
                return protocol.solved_of(found)
            if found.type == "memory":
                return self._undecided(task, "memory", 0.0)
            if found.type == "refused":
                raise protocol.error_of(found)
        except GarbledError as error:
            raise SolverCrashed(f"a solver process wrote {error}") from error
        raise SolverCrashed(str(found.header.get("text", f"an unknown message {found.type!r}")))

    def _undecided(self, task: Task, reason: Spent, seconds: float) -> Solved:
        detail = f"the solver was ended: its time limit of {seconds:g} s is over. To try: more time"
        if reason == "memory":
            detail = f"the solver was ended: it needs more than {self._memory} bytes of memory. To try: more memory"
        question = rebuild(task.kind, task.parts, task.weights, task.name, self._kinds)
        return question.undecided(reason, detail)

    def _take(self, watch: Watch) -> Process:
        """A process that lives; waits for one."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()
        try:
            while True:
                if (reason := self._over(watch)) is not None:
                    raise Stopped(reason)
                with self._changed:
                    if not self._idle:
                        if self._failure is not None and not self._all:
                            raise SolverCrashed(f"no solver process can be started: {self._failure}")
                        self._changed.wait(LOOK)
                    process = self._idle.pop() if self._idle else None
                if process is not None and process.alive:
                    return process
                if process is not None:
                    self._remove(process)
        finally:
            with self._changed:
                self._wanted -= 1

    def _give_back(self, process: Process, task: Task, found: Message) -> bool:
        """For the next task, if it is as good as new; whether it is."""
        trains = bool(getattr(by_name(task.kind, self._kinds), "trains", False))
        tired = process.tasks >= _TASKS or process.memory > process.fresh + _GROWTH
        if trains or tired or found.type not in ("solved", "refused"):
            return False
        with self._changed:
            if self._closed:
                return False
            self._idle.append(process)
            self._changed.notify_all()
            return True

    def _remove(self, process: Process) -> None:
        process.end()
        with self._changed:
            self._all.discard(process)
            self._changed.notify_all()

    def _missing(self) -> bool:
        busy = len(self._all) - len(self._idle)
        wanted = self.size if self._warm else min(self.size, busy + self._wanted)
        return len(self._all) < wanted

    def _keep(self) -> None:
        """Start processes that are missing, until the pool is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._missing())
                if self._closed:
                    return
            try:
                process = Process(self._memory, self._kinds)
            except OSError as error:
                log.error("a solver process cannot be started: %s", error)
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed, _AGAIN)
                continue
            if not self._joined(process):
                process.end()

    def _joined(self, process: Process) -> bool:
        """Take a new process in; False: the pool was closed meanwhile."""
        with self._changed:
            if self._closed:
                return False
            self._failure = None
            self._all.add(process)
            self._idle.insert(0, process)  # those that are warm are taken first
            self._changed.notify_all()
            return True
