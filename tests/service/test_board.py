"""The table of jobs by itself: whose a job is, who may write to it, and what has ended stays as it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from certes.errors import InputError
from certes_service.jobs.board import Board, Remembered, Superseded, Wanted
from certes_service.jobs.job import Job
from certes_service.storage.database import Database
from certes_service.storage.tables import answers, idempotency, jobs

D, E = "d" * 64, "e" * 64


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    database = Database(f"sqlite:///{tmp_path / 'certes.db'}")
    database.migrate()
    yield Board(database)
    database.close()


def opened(board: Board, tenant: str = "one", question: str = D, **more: Any) -> Job:
    return board.open(Wanted(tenant, "certificate", question, {}, None, "w", **more), 10)[0]


def taken(board: Board, tenant: str = "one", question: str = D) -> Job:
    job = board.take(opened(board, tenant, question).id, "worker")
    assert job is not None
    return job


def done(board: Board, tenant: str = "one", question: str = D, **values: Any) -> Job:
    job = taken(board, tenant, question)
    with board.database.begin() as connection:
        board.end(connection, job, "done", **{"answer": {"verdict": "contracting"}, **values})
    return job


def now(board: Board, job: Job) -> Job:
    found = board.get(job.id)
    assert found is not None
    return found


def change(board: Board, job: Job, **values: Any) -> None:
    with board.database.begin() as connection:
        connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(**values))


def remember(board: Board, tenant: str) -> None:
    with board.database.begin() as connection:
        row = {"tenant": tenant, "question": D, "answer": "{}", "created": 1.0}
        connection.execute(sa.insert(answers).values(**row))


def test_an_answer_that_is_remembered_needs_no_job(board: Board) -> None:
    """One's own: what another was answered is nothing that anybody may notice."""
    remember(board, "two")
    job = opened(board, "one")
    assert board.cancel(job.id, "one") is not None
    remember(board, "one")
    with pytest.raises(Remembered):
        opened(board, "one")
    assert board.open(Wanted("one", "certificate", D, {}, None, "w"), 10, anew=True)[1], "that answer was damaged"


def test_who_asks_at_the_same_moment_gets_the_job_of_the_quicker(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found none, and the database lets in one: the other looks again."""
    real, quicker = board._insert, list[str]()

    def insert(connection: sa.Connection, wanted: Wanted, now: float) -> sa.RowMapping:
        row = real(connection, wanted, now)
        if not quicker:
            quicker.append(row["id"])
            return real(connection, wanted, now)
        return row

    monkeypatch.setattr(board, "_insert", insert)
    job, new = board.open(Wanted("one", "certificate", D, {}, None, "w"), 10)
    assert new
    assert [entry.id for entry in board.page("one")] == [job.id]
    assert job.id not in quicker


def test_jobs_that_have_ended_take_no_room(board: Board) -> None:
    for question in (D, E):
        assert board.open(Wanted("one", "certificate", question, {}, None, "w"), 1)[1]
        assert board.cancel(board.page("one", 1)[0].id, "one") is not None


def test_who_asks_what_is_being_answered_gets_that_job_by_his_key_too(board: Board) -> None:
    job = opened(board)
    assert opened(board, key="k").id == job.id
    found = board.keyed("one", "k", D)
    assert found is not None
    assert found.id == job.id


def test_a_key_whose_job_was_cleaned_away_is_new_again(board: Board) -> None:
    job = opened(board, key="k")
    with board.database.begin() as connection:
        connection.execute(sa.delete(jobs).where(jobs.c.id == job.id))
    again = opened(board, key="k")
    assert again.id != job.id
    with board.database.read() as connection:
        assert connection.execute(sa.select(idempotency.c.job)).scalars().all() == [again.id]


def test_a_key_is_for_one_question(board: Board) -> None:
    opened(board, key="k")
    with pytest.raises(InputError) as caught:
        board.keyed("one", "k", E)
    assert caught.value.slug == "key-reused"
    assert board.keyed("two", "k", E) is None


def test_the_latest_answer_to_a_question(board: Board) -> None:
    """The tenant's youngest that has an answer, and not one that failed."""
    first = done(board)
    change(board, first, created=1.0)
    second = done(board)
    change(board, second, created=2.0)
    third = opened(board)
    assert board.give_up(third.id, {})
    for tenant, question in (("two", D), ("one", E)):
        done(board, tenant, question)
    found = board.latest("one", D)
    assert found is not None
    assert found.id == second.id
    assert board.latest("three", D) is None


def test_pages_by_state(board: Board) -> None:
    waits, ended = opened(board, question=D), done(board, question=E)
    assert [job.id for job in board.page("one", states=("queued",))] == [waits.id]
    assert [job.id for job in board.page("one", states=("done",))] == [ended.id]


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_what_has_ended_stays_as_it_ended(board: Board, state: Any) -> None:
    """Nobody takes it, cancels it, gives it up, gives it back or writes to it."""
    job = taken(board)
    with board.database.begin() as connection:
        board.end(connection, job, state)
    ended = now(board, job)
    assert (ended.state, ended.ended) == (state, True)
    assert board.take(job.id, "another") is None
    assert board.give_up(job.id, {"status": 504}) is False
    board.release(job)
    cancelled = board.cancel(job.id, "one")
    assert cancelled == ended, "told as it is"
    with pytest.raises(Superseded):
        board.note(job, progress={"phase": "late"})
    assert now(board, job) == ended
    assert board.still(job) == ("cancelled" if state == "cancelled" else "superseded")


def test_a_job_that_is_gone_is_no_work(board: Board) -> None:
    job = taken(board)
    with board.database.begin() as connection:
        connection.execute(sa.delete(jobs).where(jobs.c.id == job.id))
    assert board.still(job) == "cancelled"
    assert board.take(job.id, "another") is None


def test_an_end_leaves_no_checkpoint(board: Board) -> None:
    """Its blob is nobody's then, and may be collected."""
    job = taken(board)
    board.note(job, checkpoint=E)
    assert now(board, job).checkpoint == E
    with board.database.begin() as connection:
        board.end(connection, job, "done")
    ended = now(board, job)
    assert ended.checkpoint is None
    assert ended.finished is not None
    other = taken(board, question=E)
    board.note(other, checkpoint=E)
    cancelled = board.cancel(other.id, "one")
    assert cancelled is not None
    assert cancelled.checkpoint is None


def test_a_job_is_given_back_by_its_owner_alone(board: Board) -> None:
    first = taken(board)
    second = board.take(first.id, "two")
    assert second is not None
    assert second.attempt == first.attempt + 1
    assert second.started == first.started, "since somebody took it first"
    board.release(first)
    assert now(board, first).owner == "two"
    board.release(second)
    assert (now(board, first).state, now(board, first).owner) == ("queued", None)


def test_cancelling_is_for_its_tenant(board: Board) -> None:
    job = opened(board)
    assert board.cancel(job.id, "two") is None
    assert now(board, job).state == "queued"


def test_deadlines(board: Board) -> None:
    """Late are those that still wait: who works on a job ends it himself."""
    past, running = opened(board, question=D, deadline=60.0), opened(board, question=E, deadline=60.0)
    opened(board, question="f" * 64, deadline=60.0)
    opened(board, question="0" * 64)
    assert board.take(running.id, "worker") is not None
    assert board.late() == []
    left = board.left(now(board, past))
    assert left is not None
    assert 50.0 < left <= 60.0
    for job in (past, running):
        change(board, job, deadline=1.0)
    assert [job.id for job in board.late()] == [past.id]


def test_only_old_jobs_are_asked_for(board: Board) -> None:
    young, old, ended = opened(board, question=D), opened(board, question=E), done(board, question="f" * 64)
    for job in (old, ended):
        change(board, job, created=1.0)
    assert [job.id for job in board.alive(10.0)] == [old.id]
    assert {job.id for job in board.alive(0.0)} == {young.id, old.id}


def test_how_deep_the_queues_are(board: Board) -> None:
    opened(board, question=D)
    opened(board, "two", D)
    taken(board, question=E)
    done(board, question="f" * 64)
    board.open(Wanted("one", "training", "0" * 64, {}, None, "w"), 10)
    assert board.depths() == {("solve", "queued"): 2, ("solve", "running"): 1, ("train", "queued"): 1}


def test_a_failure_says_why(board: Board) -> None:
    job = taken(board)
    board.note(job, checkpoint=E)
    assert board.give_up(job.id, {"status": 504})
    failed = now(board, job)
    assert (failed.state, failed.error) == ("failed", json.loads('{"status": 504}'))
    assert failed.checkpoint is None, "its blob is nobody's, and may be collected"
    assert failed.finished is not None
