"""What the one module that knows DBOS relies on, held against the pinned version, on both databases."""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from certes_service.jobs.durable import APPLICATION_VERSION, Durable, LetGo, _Active, _Bell, _is_news, _plain, _step
from certes_service.settings import Settings
from certes_service.storage.errors import StorageError
from dbos import DBOS, _serialization
from dbos._error import DBOSWorkflowCancelledError


class Work:
    """What is called for jobs: notes them, and does as it was told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.does: Callable[[str], str] = lambda _: "done"
        self.leave = threading.Event()

    def __call__(self, job: str) -> str:
        self.seen.append(job)
        return self.does(job)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    given = {"database": request.getfixturevalue("postgres_url")} if request.param == "postgresql" else {}
    return Settings(data=tmp_path, **given).jobs_url


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def durable(url: str, work: Work) -> Iterator[Durable]:
    made = Durable(url, "one", work, ("solve",), 2, 0.1)
    yield made
    work.leave.set()
    made.close()


def until(condition: Callable[[], Any], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def name() -> str:
    return uuid.uuid4().hex


def test_a_job_is_done_once_however_often_it_is_handed_in(durable: Durable, work: Work) -> None:
    job = name()
    for _ in range(2):
        durable.enqueue(job, "solve")
    assert until(lambda: durable.states([job]).get(job) == "SUCCESS")
    durable.enqueue(job, "solve")
    assert work.seen == [job]
    assert durable.states([name()]) == {}
    assert durable.has_ended("SUCCESS")
    assert not durable.has_ended("PENDING")


def test_who_lets_go_leaves_the_job_to_its_next_owner(durable: Durable, work: Work) -> None:
    job = name()

    def let_go(_: str) -> str:
        raise LetGo

    work.does = let_go
    durable.enqueue(job, "solve")
    assert until(lambda: work.seen == [job])
    time.sleep(0.3)  # an outcome would be written by now
    assert durable.states([job]) == {job: "PENDING"}
    assert [entry[0] for entry in durable.pending()["one"]] == [job]
    work.does = lambda _: "done"
    assert durable.hand_over(job, "one")
    assert until(lambda: durable.states([job])[job] == "SUCCESS")
    assert work.seen == [job, job]


def test_handing_over_is_conditional_on_the_executor(durable: Durable, work: Work) -> None:
    job = name()

    def wait(_: str) -> str:
        work.leave.wait(20)
        return "done"

    work.does = wait
    durable.enqueue(job, "solve")
    assert until(lambda: work.seen == [job])
    assert not durable.hand_over(job, "another"), "it is not the other's to lose"
    assert durable.states([job]) == {job: "PENDING"}
    assert not durable.hand_over(name(), "one")
    work.leave.set()
    assert until(lambda: durable.states([job])[job] == "SUCCESS")
    assert not durable.hand_over(job, "one"), "what has ended is nobody's"


def test_the_highest_priority_goes_first(durable: Durable, work: Work) -> None:
    """Two solvers are busy, and one becomes free: what waits is taken in the order of its priority, not of its age."""
    busy = [name(), name()]
    second = threading.Event()
    work.does = lambda job: "done" if (second if job == busy[1] else work.leave).wait(20) else "late"
    try:
        for job in busy:
            durable.enqueue(job, "solve")
        assert until(lambda: len(work.seen) == 2)
        low, high = name(), name()
        durable.enqueue(low, "solve", -5)
        durable.enqueue(high, "solve", 5)
        work.leave.set()
        assert until(lambda: len(work.seen) == 4)
        assert work.seen[2:] == [high, low]
    finally:
        second.set()


@pytest.mark.cases(1)
def test_nothing_waits_for_the_next_poll(url: str, work: Work) -> None:
    """What is handed in here is taken at once, and so is the next job when a place becomes free: in their order."""
    durable = Durable(url, "one", work, ("solve",), 1, 3600.0)
    try:
        jobs = [name() for _ in range(6)]
        first = jobs[0]
        work.does = lambda job: "done" if job != first or work.leave.wait(20) else "late"
        # the threads for the queues are there after a second at most, and look for a first time after one poll
        assert until(lambda: (durable.look(), "queue-worker-solve" in {t.name for t in threading.enumerate()})[1])
        for job in jobs[:-1]:
            durable.enqueue(job, "solve")
        assert until(lambda: work.seen == [first])
        durable.enqueue(jobs[-1], "solve", 5)
        time.sleep(0.3)
        assert work.seen == [first], "there is one solver"
        work.leave.set()
        assert until(lambda: len(work.seen) == 6)
        assert work.seen == [first, jobs[-1], *jobs[1:-1]]
    finally:
        work.leave.set()
        durable.close()


@pytest.mark.cases(1)
def test_many_looks_take_no_more_than_there_are_places(url: str, work: Work) -> None:
    durable = Durable(url, "one", work, ("solve",), 2, 3600.0)
    most = running = 0
    lock = threading.Lock()

    def does(_: str) -> str:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return "done"

    work.does = does
    active, taken = durable._dbos._active_workflows_set, []
    take = active.take
    active.take = lambda job, queue: (taken.append(job), take(job, queue))
    try:
        jobs = [name() for _ in range(40)]
        for job in jobs:
            durable.enqueue(job, "solve")
            durable.look()
        assert until(lambda: (durable.look(), len(work.seen) == 40)[1])
        assert most <= 2
        assert sorted(work.seen) == sorted(taken) == sorted(jobs)
    finally:
        durable.close()


def test_what_was_taken_counts_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []
    active = _Active(lambda: ends.append(active.count_for_queue("solve")))
    active.take("a", "solve")
    active.take("b", "train")
    assert active.count_for_queue("solve") == 1
    entry = active.add("a", "solve")
    assert active.count_for_queue("solve") == 1, "once, not twice"
    entry.release()
    assert ends == [0], "told when it is over, not before"
    monkeypatch.setattr("certes_service.jobs.durable._BEGINS", 0.0)
    assert active.count_for_queue("train") == 0, "what never began takes no place for ever"


def test_a_bell_wakes_each_that_waits_once(durable: Durable) -> None:
    bell = _Bell.of(threading.Event())
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(bell.wait(20))) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    bell.ring()
    for thread in threads:
        thread.join(20)
    assert woken == [False] * 3
    assert bell.wait(20) is False, "it rang since this thread's last wait"
    began = time.monotonic()
    assert bell.wait(0.05) is False
    assert time.monotonic() - began >= 0.04, "and has not rung since"
    bell.set()
    assert bell.wait(20) is True


def test_what_is_cancelled_in_the_queue_is_not_done(durable: Durable, work: Work) -> None:
    job = name()
    durable.enqueue(job, "train")  # nobody here listens to it
    durable.cancel(job)
    assert durable.states([job]) == {job: "CANCELLED"}
    assert work.seen == []


def test_rows_are_portable_json_and_pickles_are_refused(durable: Durable, work: Work) -> None:
    job = name()
    durable.enqueue(job, "train")
    table = durable._dbos._sys_db.tables.workflow_status
    with durable._dbos._sys_db.engine.begin() as connection:
        row = connection.execute(sa.select(table).where(table.c.workflow_uuid == job)).mappings().one()
        assert (row["serialization"], row["application_version"]) == ("portable_json", APPLICATION_VERSION)
        assert durable.foreign() == 0
        foreign = table.c.workflow_uuid == job
        connection.execute(sa.update(table).where(foreign).values(serialization=None))
    assert durable.foreign() == 1
    with pytest.raises(TypeError, match="pickled"):
        _serialization.DefaultSerializer().deserialize(b64encode(pickle.dumps("x")).decode())


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        Durable(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}", "one", lambda _: "", ("solve",))


def test_only_what_is_worked_on_by_this_version_is_pending(durable: Durable, work: Work) -> None:
    """What waits or has ended is nobody's to hand over, and another version's jobs are another's."""
    waits, done, busy = name(), name(), name()
    durable.enqueue(waits, "train")
    durable.enqueue(done, "solve")
    assert until(lambda: durable.states([done])[done] == "SUCCESS")
    assert durable.pending() == {}
    work.does = lambda _: "done" if work.leave.wait(20) else "late"
    durable.enqueue(busy, "solve")
    assert until(lambda: busy in work.seen)
    assert durable.pending() == {"one": [(busy, "solve")]}
    table = durable._dbos._sys_db.tables.workflow_status
    with durable._dbos._sys_db.engine.begin() as connection:
        mine = table.c.workflow_uuid == busy
        connection.execute(sa.update(table).where(mine).values(application_version="another"))
    assert durable.pending() == {}


def test_who_listens_no_more_takes_nothing(durable: Durable, work: Work) -> None:
    first, second = name(), name()
    durable.enqueue(first, "solve")
    assert until(lambda: work.seen == [first])
    durable.stop_listening()
    time.sleep(0.2)
    durable.enqueue(second, "solve")
    time.sleep(0.5)
    assert work.seen == [first]
    assert durable.states([second]) == {second: "ENQUEUED"}


def test_one_training_at_a_time(url: str, work: Work) -> None:
    """Each takes all of the machine, however many solvers there may be."""
    durable = Durable(url, "one", work, ("train",), 4, 0.05)
    try:
        jobs = [name() for _ in range(3)]
        work.does = lambda _: "done" if work.leave.wait(20) else "late"
        for job in jobs:
            durable.enqueue(job, "train")
        assert until(lambda: len(work.seen) == 1)
        time.sleep(0.5)
        assert len(work.seen) == 1
        work.leave.set()
        assert until(lambda: sorted(work.seen) == sorted(jobs))
    finally:
        work.leave.set()
        durable.close()


def test_who_only_hands_in_does_not_say_how_a_queue_is_worked_on(url: str, work: Work) -> None:
    made = Durable(url, "worker", work, ("solve",), 3, 0.2)
    made.close()
    made = Durable(url, "api", work, (), 1, 5.0)
    try:
        found = DBOS.retrieve_queue("solve")
        assert found is not None
        assert (found.worker_concurrency, found.polling_interval_sec) == (3, 0.2)
    finally:
        made.close()


def test_an_ended_queue_records_nothing_of_what_still_runs(durable: Durable, work: Work) -> None:
    durable.close()
    with pytest.raises(LetGo):
        _step(name())
    assert work.seen == []


def test_a_cancelled_job_that_comes_to_its_end_is_no_news() -> None:
    def record(message: str, error: Exception | None = None) -> logging.LogRecord:
        return logging.LogRecord(
            "dbos", 40, "x", 1, message, None, None if error is None else (type(error), error, None)
        )

    assert _is_news(record("failed", RuntimeError("x")))
    assert _is_news(record("failed"))
    assert not _is_news(record("failed", DBOSWorkflowCancelledError("x")))
    assert not _is_news(record("x is no longer owned by this execution"))


def test_statements_and_their_values_are_not_told() -> None:
    error = sa.exc.OperationalError("SELECT secret", {"key": "hidden"}, Exception("no such table\nDETAIL: hidden"))
    assert _plain(error) == "no such table"
