"""A worker: a process that takes jobs from queues until it is told to end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from certes.errors import InputError

from certes_service.jobs.job import TRAIN
from certes_service.jobs.runner import Observer
from certes_service.jobs.works import Works
from certes_service.settings import Settings
from certes_service.solving.process import environment

#: Makes a number where training would compute; in a process as solvers are, as it holds on to the device.
_PROBE = "import sys, torch; torch.zeros(1, device=sys.argv[1])"
_PROBE_SECONDS = 120.0


def run(
    settings: Settings,
    queues: Sequence[str],
    device: str,
    ready: Callable[[str], None],
    observer: Observer | None = None,
) -> None:
    """Work until SIGTERM or SIGINT; then running jobs may end, and the rest goes to other workers.

    Args:
        settings: of the service.
        queues: ``solve``, ``train`` or both.
        device: where training computes (``cpu``, ``cuda:0``).
        ready: called once, with the worker's name, when it takes jobs.
        observer: told of jobs; has ``handed_over(count)`` besides.

    Raises:
        InputError: it would train on a device that is not there. StorageError: database or blobs cannot be used.
    """
    if TRAIN in queues and device != "cpu":
        _check(device)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    works = Works(settings, queues, observer, device)
    try:
        works.start()
        ready(works.name)
        over.wait()
    finally:
        works.stop(settings.grace_seconds)


def _check(device: str) -> None:
    """Raise InputError unless torch can compute there: better no worker than one with which every job fails."""
    command = [sys.executable, "-P", "-c", _PROBE, device]
    try:
        found = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
        said = "" if found.returncode == 0 else (found.stderr.strip().splitlines() or ["nothing was said"])[-1]
    except subprocess.TimeoutExpired:
        said = f"no answer in {_PROBE_SECONDS:.0f} s"
    if said:
        raise InputError("device", f"{device[:60]}: {said[:200]}", "a device that torch has here", "unknown-value")
