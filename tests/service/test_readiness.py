"""Readiness by itself: each part is asked, none for ever, and an old answer is not given for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from certes_service.jobs.desk import Desk
from certes_service.operations import probes
from certes_service.operations.probes import Readiness
from certes_service.storage.errors import StorageError


class Parts:
    """What a desk consists of, as far as it is asked whether it is ready."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.does: dict[str, Callable[[], None]] = {}
        self.leaving = asyncio.Event()
        self.database, self.blobs = (
            SimpleNamespace(check=self.part("database")),
            SimpleNamespace(check=self.part("blobs")),
        )
        self.works = SimpleNamespace(durable=SimpleNamespace(ready=self.part("queue")))

    def part(self, name: str) -> Callable[[], None]:
        def check() -> None:
            self.asked.append(name)
            self.does.get(name, lambda: None)()

        return check


def missing(readiness: Readiness) -> Any:
    async def ask() -> dict[str, str | None]:
        return {part.name: part.reason for part in await readiness.parts() if not part.ready}

    return ask()


def away() -> None:
    raise StorageError("away")


@pytest.mark.parametrize("name", ["database", "blobs", "queue"])
def test_each_part_is_asked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(probes, "_FRESH", 0.0)
    parts = Parts()

    async def look() -> None:
        readiness = Readiness(cast(Desk, parts))
        assert await missing(readiness) == {}
        parts.does[name] = away
        assert await missing(readiness) == {name: "away"}
        del parts.does[name]
        assert await missing(readiness) == {}, "and again, once it is back"

    asyncio.run(look())
    assert sorted(parts.asked) == sorted(["database", "blobs", "queue"] * 3)


def test_a_queue_that_is_not_open_is_not_ready() -> None:
    parts = Parts()
    parts.works.durable = None

    async def look() -> None:
        assert list(await missing(Readiness(cast(Desk, parts)))) == ["queue"]

    asyncio.run(look())


def test_who_asks_often_asks_the_parts_once() -> None:
    parts = Parts()

    async def look() -> None:
        readiness = Readiness(cast(Desk, parts))
        await asyncio.gather(*(missing(readiness) for _ in range(5)))

    asyncio.run(look())
    assert sorted(parts.asked) == ["blobs", "database", "queue"]


def test_a_part_that_hangs_is_not_ready_and_is_asked_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads do not pile up behind it; and once it answers it is asked anew."""
    monkeypatch.setattr(probes, "_FRESH", 0.0)
    monkeypatch.setattr(probes, "_PATIENCE", 0.05)
    parts, back = Parts(), threading.Event()
    parts.does["database"] = lambda: None if back.wait(20) else away()

    async def look() -> None:
        readiness = Readiness(cast(Desk, parts))
        for _ in range(3):
            assert "no answer" in (await missing(readiness))["database"]
        assert parts.asked.count("database") == 1
        back.set()
        while await missing(readiness):
            await asyncio.sleep(0.01)
        parts.does["database"] = away
        while not await missing(readiness):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(look(), 20))


def test_an_ending_process_is_not_ready() -> None:
    parts = Parts()

    async def look() -> None:
        readiness = Readiness(cast(Desk, parts))
        assert await missing(readiness) == {}
        parts.leaving.set()
        assert list(await missing(readiness)) == ["process"], "at once, whatever was said before"

    asyncio.run(look())
