"""The works of one process without a socket, for tests that put faults into it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from certes_service.jobs.desk import Answered, Asking, Desk
from certes_service.jobs.job import Job
from certes_service.jobs.works import Silent, Works
from certes_service.questions.base import Question, Solved
from certes_service.settings import Settings
from certes_service.tenancy.callers import LOCAL, Caller


class Seeing(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def solved(self, job: Job, solved: Solved, seconds: float) -> None:
        self.seen.append(("solved", job.id))


@contextmanager
def at_work(data: Path, **settings: Any) -> Iterator[Desk]:
    """A desk over running works; the queue allows only one at a time in a process."""
    works = Works(Settings(data=data, **{"solvers": 1, **settings}), ("solve",), Seeing())
    works.start()
    made = Desk(works)
    try:
        yield made
    finally:
        made.close()
        works.stop(1.0)


def ask(desk: Desk, question: Question, caller: Caller = LOCAL, **how: Any) -> Answered | Job:
    return asyncio.run(desk.ask(caller, question, Asking(**how)))


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return found
