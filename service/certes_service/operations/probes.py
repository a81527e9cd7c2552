"""Whether the service can do its work at this moment: the database, the blobs, the queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from certes_service.jobs.desk import Desk
from certes_service.storage.errors import StorageError

#: Seconds that one part may take to answer, and for which an answer is given again.
_PATIENCE, _FRESH = 2.0, 1.0


@dataclass(frozen=True)
class Part:
    """One part of the service; ``reason``: why it is not ready."""

    name: str
    reason: str | None

    @property
    def ready(self) -> bool:
        """Whether it works."""
        return self.reason is None


class Readiness:
    """Asks the parts, each in a thread of its own that is asked nothing else before it has answered.

    Args:
        desk: what the service consists of.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._checks: dict[str, Callable[[], None]] = {
            "database": desk.database.check, "blobs": desk.blobs.check, "queue": self._queue
        }  # fmt: skip
        self._threads = {name: ThreadPoolExecutor(1, f"certes-ready-{name}") for name in self._checks}
        self._pending: dict[str, asyncio.Future[str | None]] = {}
        self._seen: tuple[float, list[Part]] | None = None
        self._lock = asyncio.Lock()

    async def parts(self) -> list[Part]:
        """What each part says; one that does not answer in time is not ready."""
        async with self._lock:  # who asks meanwhile gets the same answer
            if self._seen is None or time.monotonic() - self._seen[0] > _FRESH:
                found = await asyncio.gather(*(self._ask(name) for name in self._checks))
                self._seen = (time.monotonic(), list(found))
            parts = self._seen[1]
        if self._desk.leaving.is_set():
            return [*parts, Part("process", "it is about to end")]
        return parts

    async def _ask(self, name: str) -> Part:
        loop = asyncio.get_running_loop()
        if (asked := self._pending.get(name)) is None:
            asked = loop.run_in_executor(self._threads[name], _reason, self._checks[name])
            self._pending[name] = asked
        done, _ = await asyncio.wait([asked], timeout=_PATIENCE)
        if not done:
            return Part(name, f"no answer within {_PATIENCE:g} seconds")
        del self._pending[name]
        return Part(name, asked.result())

    def _queue(self) -> None:
        durable = self._desk.works.durable
        if durable is None:
            raise StorageError("the queue is not open")
        durable.ready()


def _reason(check: Callable[[], None]) -> str | None:
    try:
        check()
    except StorageError as error:
        return str(error)
    return None
