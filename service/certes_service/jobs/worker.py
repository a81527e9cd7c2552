"""A worker: a process that takes jobs from queues until it is told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence

from certes_service.jobs.runner import Observer
from certes_service.jobs.works import Works
from certes_service.settings import Settings


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
        StorageError: the database or the blobs cannot be used.
    """
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
