"""A solver process: takes one task after the other from its pipe, and answers.

It is started by :mod:`certes_service.solving.process` in a session of its own, with nothing in its environment that is
worth stealing. It ends with its parent, however that ends: the system kills it (``PR_SET_PDEATHSIG``), and the end of
the pipe does where there is no such call.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import certes
import numpy as np
from certes.errors import CertesError

from certes_service.questions.base import Context
from certes_service.questions.kinds import by_name
from certes_service.solving import protocol
from certes_service.solving.protocol import Decoder, Message
from certes_service.solving.task import Task

#: Seconds between two reports of progress.
_PAUSE = 0.25
#: Address space beyond the limit: stacks and arenas of threads, modules that load late.
_HEADROOM = 256 * 2**20
#: Open files of a solver; training may read data sets.
_FILES, _FILES_TRAINING = 64, 1024
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Work until the pipe ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    given = parser.parse_args()
    _settle(given.parent)
    solver = Solver(*_pipes(), given.kinds, given.memory)
    warm_up()
    solver.ready()
    while solver.next():
        pass


def warm_up() -> None:
    """Load what a certificate needs: by making one."""
    certes.certify(certes.RateNetwork(np.array([[0.2, -0.5], [0.4, 0.1]]), activation="tanh"))


class Solver:
    """Tasks from one pipe, answers into another.

    Args:
        source: descriptor that tasks are read from.
        target: descriptor that messages are written to.
        kinds: table of kinds of questions, see :func:`certes_service.questions.kinds.table`.
        memory: bytes that a task may take.
    """

    def __init__(self, source: int, target: int, kinds: str, memory: int) -> None:
        self._source, self._target, self._kinds, self._memory = source, target, kinds, memory
        self._decoder = Decoder()
        self._writing = threading.Lock()
        self._voice = _Voice(self._send)
        self._base = 0

    def ready(self) -> None:
        """Say that everything is loaded; what is mapped by now is not counted as memory of a task."""
        self._base = _mapped()
        self._send(Message({"type": "ready"}))

    def next(self) -> bool:
        """Do one task; False: there are no more."""
        message = protocol.read(self._source, self._decoder)
        if message is None:
            return False
        self._send(Message({"type": "started"}))
        self._send(self._answer(message))
        return True

    def _answer(self, message: Message) -> Message:
        try:
            task, seconds = Task.read(message)
            kind = by_name(task.kind, self._kinds)
            self._limit(trains=bool(getattr(kind, "trains", False)))
            context = Context(
                task.limits,
                seconds,
                task.device,
                task.resume,
                task.attachments,
                task.spent,
                *self._voice.begin(),
            )
            found = protocol.solved_message(kind.rebuild(task.parts, task.weights, task.name).solve(context))
        except MemoryError:
            found = Message({"type": "memory"})
        except CertesError as error:
            found = protocol.error_message(error)
        except Exception as error:
            # the stack of a new thread did not fit
            full = isinstance(error, RuntimeError) and "can't start new thread" in str(error)
            text = "".join(traceback.format_exception(error))
            found = Message({"type": "memory"} if full else {"type": "crashed", "text": text})
        finally:
            self._voice.end()
            _soft(resource.RLIMIT_AS, resource.RLIM_INFINITY)  # what was found has to be told
        return found

    def _limit(self, *, trains: bool) -> None:
        """Training maps far more than it uses (CUDA): there the parent watches the memory in use instead."""
        _soft(resource.RLIMIT_NOFILE, _FILES_TRAINING if trains else _FILES)
        _soft(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY if trains else 0)
        _soft(resource.RLIMIT_AS, resource.RLIM_INFINITY if trains else self._base + self._memory + _HEADROOM)

    def _send(self, message: Message) -> None:
        with self._writing:
            protocol.write(self._target, message)


class _Voice:
    """Progress and checkpoints of the task that is being done.

    Of much progress a few reports a second are passed on, the latest always: by a thread of its own, should nothing
    follow. What threads of a task say after its end is dropped.

    Args:
        send: writes a message.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send, self._changed = send, threading.Condition()
        self._task: object = None
        self._told: dict[str, Any] | None = None
        threading.Thread(target=self._pass_on, name="progress", daemon=True).start()

    def begin(self) -> tuple[Callable[[dict[str, Any]], None], Callable[[bytes], None]]:
        """What a new task tells its progress to, and what it gives checkpoints to."""
        task = object()

        def progress(told: dict[str, Any]) -> None:
            with self._changed:
                if self._task is task:
                    self._told = told
                    self._changed.notify()

        def checkpoint(data: bytes) -> None:
            with self._changed:
                if self._task is task:
                    self._send(Message({"type": "checkpoint"}, {"checkpoint": data}))

        with self._changed:
            self._task, self._told = task, None
        return progress, checkpoint

    def end(self) -> None:
        """The task is done: nothing more is told of it."""
        with self._changed:
            self._task = self._told = None

    def _pass_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._told is not None)
                self._send(Message({"type": "progress", "progress": self._told}))
                self._told = None
            time.sleep(_PAUSE)


def _settle(parent: int) -> None:
    """Low priority, no core files, first in line if the machine runs out of memory, and an end with the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to act on
    with contextlib.suppress(OSError):
        os.nice(10)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _soft(resource.RLIMIT_NOFILE, _FILES)


def _pipes() -> tuple[int, int]:
    """Both pipes under new descriptors that no child inherits; prints go to stderr, and there is nothing to read."""
    source, target = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return source, target


def _mapped() -> int:
    """Bytes of address space in use; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _soft(limit: int, value: int) -> None:
    """Set a soft limit, as far as the hard one lets."""
    hard = resource.getrlimit(limit)[1]
    if hard != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > hard):
        value = hard
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(limit, (value, hard))


if __name__ == "__main__":
    main()
