"""The watchdog and the table of processes: only the dead lose their jobs, and no job is forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from certes_service.jobs.board import Board, Wanted
from certes_service.jobs.durable import Durable
from certes_service.jobs.executors import Executors, Heart, new_name
from certes_service.jobs.job import Job
from certes_service.jobs.watchdog import Watchdog
from certes_service.storage.database import Database
from certes_service.storage.tables import executors as table
from certes_service.storage.tables import jobs

LEASE = 10.0


@dataclass
class Queue:
    """A queue that says what it was told to say, and notes what is done to it."""

    works: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    done: list[tuple[Any, ...]] = field(default_factory=list)

    def pending(self) -> dict[str, list[tuple[str, str | None]]]:
        return self.works

    def hand_over(self, job: str, executor: str, queue: str) -> bool:
        self.done.append(("hand over", job, executor, queue))
        return True

    def states(self, names: list[str]) -> dict[str, str]:
        return {name: self.known[name] for name in names if name in self.known}

    def has_ended(self, state: str) -> bool:
        return Durable.has_ended(state)

    def enqueue(self, job: str, queue: str, priority: int) -> None:
        self.done.append(("enqueue", job, queue, priority))

    def cancel(self, job: str) -> None:
        self.done.append(("cancel", job))


@dataclass
class Watched:
    """A watchdog, and what it looks after."""

    board: Board
    table: Executors
    queue: Queue
    dog: Watchdog
    told: list[int]

    def job(self, question: str = "d", age: float = 0.0, **more: Any) -> Job:
        job, _ = self.board.open(Wanted("one", "certificate", question * 64, {}, None, "w", **more), 10)
        with self.board.database.begin() as connection:
            then = self.board.database.now(connection) - age
            connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(created=then))
        return job

    def silence(self, name: str, seconds: float) -> None:
        with self.board.database.begin() as connection:
            then = self.board.database.now(connection) - seconds
            connection.execute(sa.update(table).where(table.c.id == name).values(beat=then))

    def state(self, job: Job) -> str:
        found = self.board.get(job.id)
        assert found is not None
        return found.state


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    database = Database(f"sqlite:///{tmp_path / 'certes.db'}")
    database.migrate()
    board, executors, queue, told = Board(database), Executors(database), Queue(), list[int]()
    yield Watched(board, executors, queue, Watchdog(board, executors, cast(Durable, queue), LEASE, told.append), told)
    database.close()


def test_only_the_dead_lose_their_jobs(watched: Watched) -> None:
    """Who beats keeps his; who is silent, or is in no table at all, loses them and leaves the table."""
    mine, theirs, lost = (watched.job(question) for question in "def")
    for name in ("living", "silent"):
        watched.table.beat(name, ("solve",))
    watched.silence("silent", LEASE + 5)
    watched.queue.works = {
        "living": [(mine.id, "solve")], "silent": [(theirs.id, None)], "unknown": [(lost.id, "solve")],
        "gone": [("0" * 32, "solve")],
    }  # fmt: skip
    assert watched.dog.look() == 2
    assert sorted(watched.queue.done) == sorted(
        [("hand over", theirs.id, "silent", "solve"), ("hand over", lost.id, "unknown", "solve")]
    )
    assert watched.told == [2]
    assert set(watched.table.known()) == {"living"}


def test_who_is_within_his_lease_is_not_dead(watched: Watched) -> None:
    job = watched.job()
    watched.table.beat("late", ("solve",))
    watched.silence("late", LEASE - 3)
    watched.queue.works = {"late": [(job.id, "solve")]}
    assert watched.dog.look() == 0
    assert (watched.queue.done, watched.told) == ([], [])
    assert watched.table.silent(LEASE) == []


def test_who_waits_past_his_deadline_is_told(watched: Watched) -> None:
    late, waits = watched.job("d", deadline=60.0), watched.job("e", deadline=60.0)
    with watched.board.database.begin() as connection:
        connection.execute(sa.update(jobs).where(jobs.c.id == late.id).values(deadline=1.0))
    watched.dog.look()
    assert (watched.state(late), watched.state(waits)) == ("failed", "queued")
    assert watched.queue.done == [("cancel", late.id)]


def test_a_forgotten_job_is_handed_in_again(watched: Watched) -> None:
    """Who handed it in has died before the queue knew it. A young one may be on its way."""
    old = watched.job("d", 60.0, priority=3)
    watched.job("e")
    known = watched.job("f", 60.0)
    watched.queue.known = {known.id: "ENQUEUED"}
    watched.dog.look()
    assert watched.queue.done == [("enqueue", old.id, "solve", 3)]
    with watched.board.database.read() as connection:
        assert connection.execute(sa.select(jobs.c.dispatched).where(jobs.c.id == old.id)).scalar() is True
    assert watched.state(known) == "queued"


@pytest.mark.parametrize("state", ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "SUCCESS", "CANCELLED"])
def test_a_job_that_the_queue_has_done_with_fails(watched: Watched, state: str) -> None:
    """Each of its workers died: it is told, and nothing was certified."""
    job, busy = watched.job("d", 60.0), watched.job("e", 60.0)
    watched.queue.known = {job.id: state, busy.id: "PENDING"}
    watched.dog.look()
    failed = watched.board.get(job.id)
    assert failed is not None
    assert failed.error is not None
    assert (failed.state, failed.answer, failed.error["status"]) == ("failed", None, 500)
    assert watched.state(busy) == "queued"


def test_signs_of_life_are_ones_own(watched: Watched) -> None:
    """Nobody keeps another alive, or strikes him off."""
    assert watched.table.beat("one", ("solve",)) is False, "it was not in the table"
    watched.table.beat("two", ())
    assert watched.table.known() == {"one": ("solve",), "two": ()}
    for name in ("one", "two"):
        watched.silence(name, LEASE + 5)
    assert watched.table.beat("one", ("solve",)) is True
    assert watched.table.silent(LEASE) == ["two"]
    watched.table.strike("one", LEASE)
    assert set(watched.table.known()) == {"one", "two"}, "it is back, or not the one that was meant"
    watched.table.strike("two", LEASE)
    assert set(watched.table.known()) == {"one"}
    watched.table.strike("one", None)
    assert watched.table.known() == {}


def test_a_heart_that_stops_leaves_the_table(watched: Watched) -> None:
    name = new_name()
    assert name != new_name(), "of no two processes"
    heart = Heart(watched.table, name, ("solve",), 0.02)
    watched.silence(name, LEASE + 5)
    until = time.monotonic() + 10
    while watched.table.silent(LEASE) and time.monotonic() < until:
        time.sleep(0.01)
    assert watched.table.silent(LEASE) == [], "it beats"
    heart.stop()
    assert watched.table.known() == {}
