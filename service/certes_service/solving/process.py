"""One solver process, seen from the worker that started it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from certes_service.solving import scratch
from certes_service.solving.protocol import Decoder, GarbledError, Message

#: What a solver may know of its surroundings. Never: keys, addresses of databases, anything of CERTES_*.
ALLOWED = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME",
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES",
)  # fmt: skip
#: One thread per solver: the pool is the parallelism. Arenas of malloc count as address space.
_FIXED = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUTF8": "1",
}
#: Seconds between two looks at the watch, the clock and the memory.
LOOK = 0.25
#: Seconds that a process may take until it begins with its first task.
_START = 120.0
#: Seconds that a process whose pipe ended is given to end.
_LAST = 1.0
#: Memory beyond the limit that a process may use: what is loaded before the first task, CUDA's own.
_LOADED = 2**30
_CHUNK, _PIPE, _TAIL = 2**20, 2**20, 4096
#: Signals by which a process ends for a fault of its own; any other one came from outside.
_FAULTS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
)
#: What libraries say when memory is at an end and they give up.
_FULL = ("MemoryError", "bad_alloc", "Memory allocation", "Cannot allocate memory", "out of memory")


class Stopped(Exception):
    """A task was given up from outside; its process is dead.

    Attributes:
        reason: what the watch said.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SolverCrashed(Exception):
    """A defect: a solver process ended in the middle of a task, or failed in a way that no question should."""


class SolverKilled(Exception):
    """A solver process was ended from outside, by the system or by somebody: that says nothing about the question.

    Args:
        number: of the signal.
        used: bytes of memory that were in use when it was last looked at.
    """

    def __init__(self, number: int, used: int) -> None:
        name = signal.Signals(number).name if number in set(signal.Signals) else "no name"
        said = f"the solver was ended by signal {number} ({name}), which this service did not send"
        why = ". The system sends it when the memory of the machine is at an end" if number == signal.SIGKILL else ""
        super().__init__(f"{said}; it used {used} bytes of memory{why}")
        self.number, self.used = number, used


class Lost(Exception):
    """The process was dead before it began: another one may do the task."""


class Exhausted(Exception):
    """Time or memory is used up.

    Attributes:
        reason: ``deadline`` or ``memory``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def environment() -> dict[str, str]:
    """The environment of a solver."""
    found = {name: os.environ[name] for name in ALLOWED if name in os.environ}
    if paths := found.get("PYTHONPATH"):  # it works elsewhere
        found["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in paths.split(os.pathsep) if entry)
    return found | _FIXED


class Process:
    """A process that takes tasks, one at a time. Start it in a thread that lives as long as it: it dies with that.

    Args:
        memory: bytes that a task may take.
        kinds: table of kinds of questions.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, memory: int, kinds: str) -> None:
        self._scratch = scratch.make()
        command = [sys.executable, "-P", "-m", "certes_service.solving.child"]
        command += ["--kinds", kinds, "--parent", str(os.getpid()), "--memory", str(memory)]
        pipe, env = subprocess.PIPE, environment()
        if self._scratch is not None:
            env["TMPDIR"] = self._scratch
        try:
            self._popen = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, cwd="/", env=env, start_new_session=True
            )
        except OSError:
            self._clean()
            raise
        streams = (self._popen.stdin, self._popen.stdout, self._popen.stderr)
        self._stdin, self._stdout, self._stderr = (stream.fileno() for stream in streams if stream is not None)
        for descriptor in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(descriptor, False)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # a limit of the system's
                fcntl.fcntl(self._stdin, fcntl.F_SETPIPE_SZ, _PIPE)
        self.pid = self._popen.pid
        self.tasks = self.fresh = 0
        self._memory, self._used = memory, 0
        self._decoder = Decoder(2 * memory + _LOADED)
        self._said = b""
        self._lock = threading.Lock()
        self._gone = False

    @property
    def memory(self) -> int:
        """Bytes of memory in use; 0 where the system does not say."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0

    @property
    def alive(self) -> bool:
        """Whether it runs; asked without collecting its end, so that its number stays its own."""
        with self._lock:
            if self._gone:
                return False
            try:
                return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            except ChildProcessError:
                return False

    def kill(self) -> None:
        """Kill it with all that it started."""
        with self._lock:
            if not self._gone:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kill it, and wait for its end; its status."""
        with self._lock:
            if self._gone:
                return self._popen.returncode
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            status = self._popen.wait()
            self._gone = True
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._clean()
        return status

    def _clean(self) -> None:
        """A training that was killed leaves files behind."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def work(
        self,
        task: Message,
        seconds: float,
        watch: Callable[[], str | None],
        tell: Callable[[Message], None],
    ) -> Message:
        """Hand in a task and wait for what comes of it. The process is to be ended after any exception.

        Args:
            task: the task.
            seconds: from its beginning to the kill.
            watch: asked about every 0.25 s; a reason ends the task.
            tell: given progress and checkpoints.

        Raises:
            Stopped: the watch gave a reason. Exhausted: time or memory is used up. Lost: it was dead before it began.
            SolverKilled: it was ended from outside. SolverCrashed: it died, or wrote what is no message.
        """
        self.tasks += 1
        until, started, look = time.monotonic() + _START, False, 0.0
        with _Pipes(self, task) as pipes:
            while True:
                try:
                    for message in pipes.messages(LOOK):
                        if message.type == "started":
                            until, started = time.monotonic() + seconds, True
                        elif message.type == "ready":
                            self.fresh = self.memory
                        elif not started:  # of an earlier task: it answers nothing
                            raise GarbledError(f"a message of type {message.type!r} before it began")
                        elif message.type in ("progress", "checkpoint"):
                            tell(message)
                        else:
                            return message
                except GarbledError as error:
                    raise SolverCrashed(f"a solver process wrote {error}") from error
                except EOFError:
                    raise self._dead(started=started) from None
                now = time.monotonic()
                if now < look:
                    continue
                look = now + LOOK
                if (reason := watch()) is not None:
                    raise Stopped(reason)
                if not self.alive and not pipes.more:  # what it forked may hold the pipe open
                    raise self._dead(started=started)
                if now >= until:
                    if not started:
                        raise SolverCrashed(f"no start in {_START:.0f} s: {self._tail()}")
                    raise Exhausted("deadline")
                self._used = self.memory or self._used
                if self._used > self._memory + _LOADED:
                    raise Exhausted("memory")

    def _dead(self, *, started: bool) -> Exception:
        """Why it is dead, judged by its end and its last words."""
        patience = time.monotonic() + _LAST  # its end comes a moment after that of the pipe
        while self.alive and time.monotonic() < patience:
            time.sleep(0.005)
        ended_itself = not self.alive
        self._drain()
        status = self.end()
        if not started and ended_itself:
            return Lost(f"status {status}: {self._tail()}")
        if ended_itself and status < 0 and -status not in _FAULTS:
            return SolverKilled(-status, self._used)
        if any(word in self._tail() for word in _FULL):
            return Exhausted("memory")
        return SolverCrashed(f"a solver process ended with status {status}: {self._tail()}")

    def _tail(self) -> str:
        return self._said[-_TAIL:].decode("utf-8", "replace").strip()

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._stderr, _CHUNK):
                self._said = (self._said + data)[-_TAIL:]


class _Pipes:
    """Writes a task and reads messages, neither waiting for the other."""

    def __init__(self, process: Process, task: Message) -> None:
        self._process = process
        self._chunks = task.chunks()
        self._left = memoryview(b"")
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> _Pipes:
        self._selector.register(self._process._stdin, selectors.EVENT_WRITE)
        self._selector.register(self._process._stdout, selectors.EVENT_READ)
        self._selector.register(self._process._stderr, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def messages(self, seconds: float) -> Iterator[Message]:
        """What comes in within some seconds.

        Raises:
            EOFError: the process closed its pipe. GarbledError: no message.
        """
        ready = {key.fd for key, _ in self._selector.select(seconds)}
        if self._process._stderr in ready:
            self._hear()
        if self._process._stdin in ready:
            self._write()
        if self._process._stdout in ready:
            data = os.read(self._process._stdout, _CHUNK)
            if not data:
                raise EOFError
            yield from self._process._decoder.feed(data)

    @property
    def more(self) -> bool:
        """Whether there is something to read, or the end of the pipe."""
        return any(key.fd == self._process._stdout for key, _ in self._selector.select(0))

    def _hear(self) -> None:
        data = os.read(self._process._stderr, _CHUNK)
        self._process._said = (self._process._said + data)[-_TAIL:]
        if not data:
            self._selector.unregister(self._process._stderr)

    def _write(self) -> None:
        """As much as the pipe takes; the end of a process is seen where it is read."""
        try:
            if not self._left:
                self._left = memoryview(next(self._chunks, b""))
            if self._left:
                self._left = self._left[os.write(self._process._stdin, self._left) :]
                return
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        self._selector.unregister(self._process._stdin)


def progress_of(message: Message) -> dict[str, Any]:
    """The progress that a message tells.

    Raises:
        GarbledError: none.
    """
    progress = message.header.get("progress")
    if not isinstance(progress, dict):
        raise GarbledError("progress that is none")
    return progress


def checkpoint_of(message: Message) -> bytes:
    """The checkpoint that a message brings.

    Raises:
        GarbledError: none.
    """
    if "checkpoint" not in message.blobs:
        raise GarbledError("a checkpoint that is none")
    return message.blobs["checkpoint"]
