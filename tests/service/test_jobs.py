"""Jobs through the durable queue: answered once, cancelled for real, handed over when a worker dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.errors import InputError
from certes_service.jobs.board import Board, Superseded, Wanted
from certes_service.jobs.desk import Answered, Desk
from certes_service.jobs.job import Job
from certes_service.problems import Crowded, JobFailed
from certes_service.questions import certificates
from certes_service.questions.certificates import CertificateQuestion
from certes_service.settings import Settings
from certes_service.solving.pool import SolverCrashed
from certes_service.solving.task import Task
from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.store import Store
from certes_service.tenancy.callers import LOCAL, Caller

from tests.service.asking import SMALL, SPEC, weights
from tests.service.inside import ask, at_work, wait_for

OTHER = Caller("other", LOCAL.scopes)


def small(scale: float) -> CertificateQuestion:
    return certificates.question(dict(SPEC), weights(W=np.array(SMALL) * scale), "net.safetensors")


def long(seed: int, seconds: float = 60.0) -> CertificateQuestion:
    """A question that keeps a solver busy for about so many seconds."""
    matrix = np.random.default_rng(seed).standard_normal((60, 60)) / np.sqrt(60)
    spec = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh", "condition": "lure", "backend": "cvxpy-scs"}
    return certificates.question({**spec, "seconds": seconds}, weights(W=0.6 * matrix), "long.safetensors")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with at_work(tmp_path_factory.mktemp("jobs"), beat_seconds=0.5, lease_seconds=3.0) as made:
        yield made


def test_an_answer_is_computed_once_and_remembered_by_its_tenant_alone(desk: Desk) -> None:
    first, second = ask(desk, small(1.0), wait=30), ask(desk, small(1.0), wait=30)
    assert isinstance(first, Answered)
    assert isinstance(second, Answered)
    assert (first.answer["verdict"], first.answer["cached"], second.answer["cached"]) == ("contracting", False, True)
    assert {**first.answer, "cached": True} == second.answer
    digest = first.answer["certificate"]["digest"]
    assert desk.store.certificate(OTHER.tenant, digest) is None
    assert asyncio.run(desk.stored(LOCAL.tenant, digest)) is not None
    theirs = ask(desk, small(1.0), OTHER, wait=30)
    assert isinstance(theirs, Answered)
    assert theirs.answer["cached"] is False


def test_the_same_question_twice_at_once_is_computed_once(desk: Desk) -> None:
    before = sum(1 for kind, _ in desk.works.observer.seen if kind == "solved")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ask(desk, small(0.9), wait=0), range(4)))
    names = {entry.id for entry in found if isinstance(entry, Job)}
    for name in names:
        job = wait_for(lambda name=name: (now := desk.board.get(name)) and now.ended and now, 30)
        assert (job.state, job.attempt) == ("done", 1)
    assert sum(1 for kind, _ in desk.works.observer.seen if kind == "solved") == before + 1


def test_a_job_whose_answer_was_found_meanwhile_is_not_solved(desk: Desk) -> None:
    question = small(0.55)
    first = ask(desk, question, wait=30)
    assert isinstance(first, Answered)
    before = list(desk.works.observer.seen)
    request = {"parts": question.parts(), "needs": []}
    data = desk.blobs.put(LOCAL.tenant, question.weights)
    digest = question.digest(desk.settings)
    job, new = desk.board.open(Wanted(LOCAL.tenant, "certificate", digest, request, data, question.name), 10, anew=True)
    assert new
    assert desk.works.durable is not None
    desk.works.durable.enqueue(job.id, "solve")
    ended = wait_for(lambda: (now := desk.board.get(job.id)) and now.ended and now, 30)
    assert desk.works.observer.seen == before
    assert desk.answer_of(ended) == {name: value for name, value in first.answer.items() if name != "cached"}


@pytest.mark.parametrize("store", [True, False])
def test_an_answer_about_other_weights_is_none(desk: Desk, monkeypatch: pytest.MonkeyPatch, store: bool) -> None:
    real = desk.pool.run

    def mixed_up(task: Task, **how: Any) -> Any:
        return real(replace(task, weights=small(0.31).weights), **how)

    monkeypatch.setattr(desk.pool, "run", mixed_up)
    with pytest.raises(JobFailed if store else SolverCrashed) as failed:
        ask(desk, small(0.32), wait=30, store=store)
    if isinstance(failed.value, JobFailed):
        assert failed.value.members["status"] == 500
    assert desk.store.answer(LOCAL.tenant, small(0.32).digest(desk.settings)) is None


def test_who_lost_a_job_writes_nothing(settings: Settings) -> None:
    database = Database(settings.database_url)
    database.migrate()
    try:
        board = Board(database)
        job, _ = board.open(Wanted("local", "certificate", "0" * 64, {}, None, "x"), 2)
        first, second = board.take(job.id, "one"), board.take(job.id, "two")
        assert first is not None
        assert second is not None
        for write in (
            lambda connection: board.write(connection, first, checkpoint="1" * 64),
            lambda connection: board.end(connection, first, "done", answer={"verdict": "contracting"}),
        ):
            with pytest.raises(Superseded), database.begin() as connection:
                write(connection)
        board.release(first)
        assert (board.still(first), board.still(second)) == ("superseded", None)
        now = board.get(job.id)
        assert now is not None
        assert (now.state, now.owner, now.checkpoint, now.answer) == ("running", "two", None, None)
        board.cancel(job.id, "local")
        with pytest.raises(Superseded):
            board.note(second, checkpoint="1" * 64)
    finally:
        database.close()


def test_idempotency_keys(desk: Desk) -> None:
    first = ask(desk, small(0.8), wait=30, key="once")
    again = ask(desk, small(0.8), wait=30, key="once")
    assert isinstance(first, Answered)
    assert isinstance(again, Answered)
    assert first.job == again.job is not None
    with pytest.raises(InputError) as refused:
        ask(desk, small(0.7), wait=30, key="once")
    assert refused.value.slug == "key-reused"


def test_nothing_is_kept_if_it_is_not_to_be(desk: Desk) -> None:
    before = {blob.digest for blob in desk.blobs.walk()}
    found = ask(desk, small(0.66), wait=30, store=False)
    assert isinstance(found, Answered)
    assert found.answer["certificate"]["envelope"]
    assert {blob.digest for blob in desk.blobs.walk()} == before
    assert desk.store.certificate(LOCAL.tenant, found.answer["certificate"]["digest"]) is None


def test_cancelling_ends_the_computation(desk: Desk) -> None:
    job = ask(desk, long(1), wait=0)
    assert isinstance(job, Job)
    assert wait_for(lambda: desk.pool.free == 0, 30)
    assert asyncio.run(desk.cancel(OTHER.tenant, job.id)) is None, "another tenant's job is no job"
    cancelled = asyncio.run(desk.cancel(LOCAL.tenant, job.id))
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    assert wait_for(lambda: desk.pool.free == 1, 2 * 3), "the solver is gone"
    ended = desk.board.get(job.id)
    assert ended is not None
    assert (ended.state, ended.answer) == ("cancelled", None)


def test_a_deadline_is_kept(desk: Desk) -> None:
    """The solver gets what is left of it: it stops by itself, with what it has by then, or is stopped."""
    began = time.monotonic()
    found = ask(desk, long(2), wait=50, deadline=1.5)
    assert isinstance(found, Answered)
    assert found.answer["verdict"] == "contracting" or found.answer["reason"] in ("deadline", "too-large")
    assert time.monotonic() - began < 45, "not the minute that was asked for"


def test_a_failed_question_is_the_callers_problem(desk: Desk) -> None:
    bad = certificates.question(dict(SPEC), weights(V=SMALL), "net.safetensors")
    before = len(desk.board.page(LOCAL.tenant, 200))
    with pytest.raises(InputError) as refused:
        ask(desk, bad, wait=30)
    assert refused.value.field == "tensors.W"
    assert len(desk.board.page(LOCAL.tenant, 200)) == before, "it never was a job"


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    given = {"database": request.getfixturevalue("postgres_url")} if request.param == "postgresql" else {}
    return Settings(data=tmp_path, beat_seconds=0.5, lease_seconds=2.0, solvers=1, **given)


WORKER = """
import sys
from certes_service.jobs.worker import run
from certes_service.settings import Settings
run(Settings.read(), ["solve"], "cpu", lambda name: print(name, flush=True))
"""


def worker(settings: Settings) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CERTES_")}
    env |= {"CERTES_DATA": str(settings.data), "CERTES_BEAT_SECONDS": "0.5", "CERTES_LEASE_SECONDS": "2"}
    env |= {"CERTES_SOLVERS": "1", "CERTES_GRACE_SECONDS": "0.5"}
    if settings.database is not None:
        env["CERTES_DATABASE"] = settings.database.get_secret_value()
    child = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True, env=env)
    assert child.stdout is not None
    assert child.stdout.readline().strip()
    return child


@pytest.mark.slow
def test_a_killed_workers_job_goes_on_elsewhere(settings: Settings) -> None:
    database = Database(settings.database_url)
    workers = [worker(settings) for _ in range(2)]
    try:
        board, blobs = Board(database), Blobs(settings.blobs_url)
        question = long(3, 10.0)
        request = {"parts": question.parts(), "needs": []}
        data = blobs.put("local", question.weights)
        wanted = Wanted("local", "certificate", question.digest(settings), request, data, question.name)
        job, new = board.open(wanted, 10)
        assert new
        taken = wait_for(lambda: (now := board.get(job.id)) and now.state == "running" and now, 40)
        assert taken, "the watchdog hands in what nobody dispatched, and a worker takes it"
        owner = next(child for child in workers if f"-{child.pid}-" in taken.owner)
        owner.send_signal(signal.SIGKILL)
        again = wait_for(lambda: (now := board.get(job.id)) and now.attempt == 2 and now, 30)
        assert again, "taken up within 30 s"
        assert again.owner != taken.owner
        with pytest.raises(Superseded):
            board.note(taken, progress={"phase": "the dead do not write"})
        ended = wait_for(lambda: (now := board.get(job.id)) and now.ended and now, 60)
        assert ended.state == "done"
        assert ended.answer["verdict"] == "contracting"
        remembered = Store(database, blobs).answer("local", wanted.question)
        assert remembered is not None
        assert remembered["certificate"]["digest"] == ended.answer["certificate"]["digest"]
    finally:
        for child in workers:
            child.kill()
            child.communicate()
        database.close()


def test_only_so_many_jobs_of_a_tenant(settings: Settings) -> None:
    database = Database(settings.database_url)
    database.migrate()
    try:
        board = Board(database)
        for k in range(2):
            board.open(Wanted("local", "certificate", f"{k:064d}", {}, None, "x"), 2)
        assert not board.open(Wanted("local", "certificate", f"{0:064d}", {}, None, "x"), 2)[1]
        with pytest.raises(Crowded):
            board.open(Wanted("local", "certificate", f"{2:064d}", {}, None, "x"), 2)
        assert board.open(Wanted("other", "certificate", f"{2:064d}", {}, None, "x"), 2)[1]
    finally:
        database.close()
