"""Several processes of the service over one database, started and killed at will."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.service.conftest import Running, environment, running, settings_file
from tests.service.forked import Forked


@dataclass
class Worker:
    """A worker, and what it logs."""

    name: str
    process: Forked = field(repr=False)
    log: Path

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """At once, with its solvers: as if the machine had lost power."""
        self.signal(signal.SIGSTOP)  # or it might see its solvers die first, and say so
        for child in children(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.process.kill()
        self.process.wait(20)


@dataclass
class Fleet:
    """An API that works on nothing, and workers."""

    api: Running
    settings: dict[str, Any]
    workers: list[Worker]

    def start(self, queue: str = "solve") -> Worker:
        """Another worker."""
        number = len(self.workers)
        file = settings_file(self.api.data, **self.settings)
        log = self.api.data.with_name(f"worker-{number}.log")
        log.write_text("")
        process = Forked(["worker", "--queue", queue], environment(CERTES_CONFIG=str(file)), log)
        line = process.stdout.readline()
        assert line.startswith("Certes works as "), (line, log.read_text())
        worker = Worker(line.strip().rpartition(" ")[2], process, log)
        self.workers.append(worker)
        return worker

    def client(self, **options: Any) -> httpx.Client:
        return self.api.client(**options)


def children(parent: int) -> list[int]:
    """Processes that it has begun, and those that they have begun."""
    found: list[int] = []
    for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            mine = [int(child) for child in tasks.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in mine:
            found += [child, *children(child)]
    return found


@contextmanager
def fleet(data: Path, count: int, **settings: Any) -> Iterator[Fleet]:
    """An API without a worker, and so many workers; small times, unless others are given."""
    given = {"worker": False, "solvers": 1, "beat_seconds": 0.5, "lease_seconds": 3.0, "poll_seconds": 0.2, **settings}
    with ExitStack() as stack:
        api = stack.enter_context(running(data, **given))
        made = Fleet(api, {"port": 0, "grace_seconds": 1.0, **given}, [])
        try:
            for _ in range(count):
                made.start()
            yield made
        finally:
            for worker in made.workers:
                worker.signal(signal.SIGCONT)
                worker.process.terminate()
            for worker in made.workers:
                try:
                    worker.process.wait(20)
                except subprocess.TimeoutExpired:
                    worker.kill()
                worker.process.stdout.close()


def followed(http: httpx.Client, job: str) -> list[tuple[str, dict[str, Any]]]:
    """All events of a job until its stream ends."""
    found: list[tuple[str, dict[str, Any]]] = []
    kind = ""
    with http.stream("GET", f"{job}/events", timeout=120) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((kind, json.loads(line.removeprefix("data: "))))
    return found
