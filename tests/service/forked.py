"""Processes of the service that are forked from one that has imported it: a start then takes no second of imports.

What runs is the command line as it is, with its own environment, streams and process id. Tests of starting itself, of
the environment and of what is installed start an interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, TextIO

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "certes_client.cli",
        "certes_service.app",
        "certes_service.cli",
        "certes_service.server",
        "certes_service.jobs.worker",
    ]
)


def _run(arguments: Sequence[str], env: Mapping[str, str], streams: Sequence[Any]) -> None:
    """In the child."""
    os.environ.clear()
    os.environ.update(env)
    for number, stream in zip((1, 2), streams, strict=True):
        descriptor = stream.detach()
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["certes", *arguments]
    from certes_client.cli import main

    main(list(arguments))


class Forked:
    """The command line as a process; as :class:`subprocess.Popen`, as far as the tests need it.

    Args:
        arguments: of the command line.
        env: its whole environment.
        stderr: where that goes, after what is there.
    """

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], stderr: Path) -> None:
        self.args = list(arguments)
        reading, writing = os.pipe()
        errors = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            self._process = _CONTEXT.Process(target=_run, args=(self.args, dict(env), _Streams((writing, errors))))
            self._process.start()
        finally:
            os.close(writing)
            os.close(errors)
        self.stdout: TextIO = os.fdopen(reading)
        pid = self._process.pid
        assert pid is not None
        self.pid = pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Streams:
    """Descriptors on their way into a process that is being started."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = descriptors

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([DupFd(descriptor) for descriptor in self._descriptors],)


def completed(arguments: Sequence[object], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, as :func:`subprocess.run` does with ``capture_output``."""
    with tempfile.NamedTemporaryFile("r") as stderr:
        process = Forked([str(argument) for argument in arguments], env, Path(stderr.name))
        with process.stdout:
            stdout = process.stdout.read()
        return subprocess.CompletedProcess(process.args, process.wait(120), stdout, stderr.read())
