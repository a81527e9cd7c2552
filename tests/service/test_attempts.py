"""Attempts at one job: what ends a solver from outside, what is tried again, and whose time it is."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from certes_service.jobs import runner
from certes_service.jobs.board import Board, Wanted
from certes_service.jobs.desk import Desk
from certes_service.jobs.durable import LetGo
from certes_service.jobs.runner import Runner
from certes_service.jobs.works import Silent
from certes_service.problems import JobFailed, Killed
from certes_service.questions.base import Context, Limits, Solved
from certes_service.settings import Settings
from certes_service.solving.pool import SolverKilled, Stopped
from certes_service.solving.task import Task
from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.store import Store

from tests.service.conftest import Running
from tests.service.inside import ask, at_work
from tests.service.test_jobs import small
from tests.service.test_training_states import asked, context
from tests.service.test_trainings import arrays, post, wait_until

KILLED = SolverKilled(signal.SIGKILL, 123456789)


class Scripted:
    """A pool whose solvers do what they are told: a function of the task, one after the other."""

    def __init__(self, *does: Callable[..., Solved]) -> None:
        self.does, self.seen = list(does), []

    def run(self, task: Task, **how: Any) -> Solved:
        self.seen.append((task, how["seconds"]))
        return self.does.pop(0)(**how)


def dies(data: bytes = b"", seconds: float = 0.0, error: Exception = KILLED) -> Callable[..., Solved]:
    def run(on_checkpoint: Callable[[bytes], None], **_: Any) -> Solved:
        time.sleep(seconds)
        if data:
            on_checkpoint(data)
        raise error

    return run


def answers(**_: Any) -> Solved:
    return Solved({"verdict": "undecided", "certificate": None})


class Place:
    """A worker's parts over a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data=folder, train_seconds=100.0, solve_seconds=50.0)
        self.database, self.blobs = Database(self.settings.database_url), Blobs(self.settings.blobs_url)
        self.database.migrate()
        self.board, self.store = Board(self.database), Store(self.database, self.blobs)

    def opened(self, kind: str = "training") -> str:
        question = asked() if kind == "training" else small(1.0)
        weights = self.blobs.put("one", question.weights)
        wanted = Wanted("one", kind, question.digest(self.settings), {"parts": question.parts()}, weights, "x")
        return self.board.open(wanted, 10)[0].id

    def work(self, job: str, pool: Scripted) -> str:
        made: Any = pool
        return self.runner(made).work(job)

    def runner(self, pool: Any) -> Runner:
        return Runner(self.settings, "me", self.board, self.store, self.blobs, pool, Silent())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(runner, "_PAUSE", 0.0)
    made = Place(tmp_path)
    yield made
    made.database.close()


# --- solvers that are ended from outside


def test_it_is_tried_again_from_the_last_checkpoint(place: Place) -> None:
    job, pool = place.opened(), Scripted(dies(b"first"), dies(b"second"), answers)
    assert place.work(job, pool) == "done"
    assert [task.resume for task, _ in pool.seen] == [None, b"first", b"second"]
    ended = place.board.get(job)
    assert ended is not None
    assert (ended.attempt, ended.checkpoint) == (1, None), "one worker took it"


def test_it_is_not_tried_for_ever(place: Place) -> None:
    job, pool = place.opened(), Scripted(*[dies(b"state")] * 9)
    assert place.work(job, pool) == "failed"
    assert len(pool.seen) == 3
    ended = place.board.get(job)
    assert ended is not None
    assert ended.error is not None
    assert (ended.error["status"], ended.error["type"]) == (503, "urn:certes:error:solver-killed")
    for words in ("signal 9 (SIGKILL)", "123456789 bytes", "Tried 3 times"):
        assert words in ended.error["detail"]
    assert "memory limit" not in ended.error["detail"]


def test_what_another_took_meanwhile_is_not_tried_again(place: Place) -> None:
    job = place.opened()

    def lose(**_: Any) -> Solved:
        place.board.take(job, "another")
        raise KILLED

    def goes_on(on_checkpoint: Callable[[bytes], None], **_: Any) -> Solved:
        on_checkpoint(b"mine")
        raise AssertionError("it was not noticed")

    pool = Scripted(lose, goes_on)
    place.work(job, pool)
    now = place.board.get(job)
    assert now is not None
    assert (now.state, now.owner, now.checkpoint) == ("running", "another", None)


def test_who_has_to_leave_meanwhile_lets_go(place: Place) -> None:
    job, made = place.opened(), Scripted(dies())
    worker = place.runner(made)
    worker.leave()
    with pytest.raises(LetGo):
        worker.work(job)
    now = place.board.get(job)
    assert now is not None
    assert now.state == "queued"


def test_an_answer_at_once_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with at_work(tmp_path) as desk:
        monkeypatch.setattr(desk.pool, "run", lambda *_, **__: dies()(on_checkpoint=None))
        monkeypatch.setattr(runner, "_PAUSE", 0.0)
        with pytest.raises(Killed, match="signal 9"):
            ask(desk, small(1.0), wait=20, store=False)
        with pytest.raises(JobFailed) as failed:
            ask(desk, small(1.0), wait=20)
        assert failed.value.members["type"] == "urn:certes:error:solver-killed"
        assert isinstance(desk, Desk)


# --- whose time it is


def test_the_time_of_earlier_attempts_counts(place: Place) -> None:
    job = place.opened()
    with pytest.raises(LetGo):
        place.work(job, Scripted(dies(b"state", 0.4, Stopped("shutdown"))))
    now = place.board.get(job)
    assert now is not None
    assert 0.4 <= now.spent < 5.0
    pool = Scripted(dies(b"other", 0.3), answers)
    place.work(job, pool)
    (first, left), (second, less) = pool.seen
    assert first.spent == now.spent
    assert left == pytest.approx(100.0 - now.spent)
    assert second.spent >= now.spent + 0.3
    assert less == pytest.approx(100.0 - second.spent)


def test_no_attempt_gets_less_than_it_takes_to_hand_in(place: Place) -> None:
    job = place.opened()
    taken = place.board.take(job, "me")
    assert taken is not None
    place.board.note(taken, spent=1e6)
    pool = Scripted(answers)
    place.work(job, pool)
    assert pool.seen[0][1] == 0.01


def test_the_time_is_noted_while_it_goes_by(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is killed notes nothing at its end."""
    monkeypatch.setattr(runner, "_NOTE", 0.1)
    monkeypatch.setattr(runner, "_LOOK", 0.01)
    job = place.opened()

    def run(watch: Callable[[], str | None], **_: Any) -> Solved:
        until, notes = time.monotonic() + 0.6, set()
        while time.monotonic() < until:
            assert watch() is None
            now = place.board.get(job)
            assert now is not None
            notes.add(now.spent)
            time.sleep(0.02)
        assert len(notes) >= 3, notes
        assert max(notes) > 0.3
        return answers()

    assert place.work(job, Scripted(run)) == "done", "what fails inside is the outcome of the job"


def test_who_begins_anew_gets_the_whole_time(place: Place) -> None:
    job = place.opened("certificate")
    with pytest.raises(LetGo):
        place.work(job, Scripted(dies(b"", 0.2, Stopped("shutdown"))))
    pool = Scripted(answers)
    place.work(job, pool)
    assert (pool.seen[0][0].spent, pool.seen[0][1]) == (0.0, 50.0)


def test_the_seconds_of_a_question_are_what_is_left_of_them() -> None:
    def limit(asked: float | None, spent: float) -> float:
        return Context(Limits(1, 1), 100.0, spent=spent).limit(asked)

    assert [limit(*given) for given in ((60.0, 0.0), (60.0, 50.0), (60.0, 70.0), (600.0, 1.0), (None, 30.0))] == [
        60.0, 10.0, 0.01, 100.0, 100.0
    ]  # fmt: skip


@pytest.mark.slow
def test_a_training_whose_time_is_over_hands_in_the_best_so_far() -> None:
    states: list[bytes] = []
    asked(epochs=100, seconds=30.0).solve(context(on_checkpoint=states.append))
    found = asked(epochs=100, seconds=30.0).solve(context(resume=states[0], spent=31.0))
    assert (found.answer["ended"], found.lasting) == ("deadline", False)
    assert found.answer["epochs"] < 100


def test_the_task_carries_it() -> None:
    task = Task("training", {}, b"", "x", Limits(1, 1), spent=12.5)
    header = SimpleNamespace(**task.message(3.0).header)
    assert header.spent == 12.5
    assert Task.read(task.message(3.0))[0].spent == 12.5


# --- all of it, for real


@pytest.mark.slow
def test_a_killed_solver_costs_no_bit(serve: Callable[..., Running], tmp_path: Path) -> None:
    """SIGKILL to the solver, twice: the same worker goes on from the last checkpoint, to the same weights."""
    data, plan = arrays(600, 9), {"epochs": 25, "batch": 8}
    with serve().client() as http:
        undisturbed = post(http, data, {"Prefer": "wait=300"}, **plan).json()
    running = serve(data=tmp_path / "other")
    with running.client() as http:
        job = post(http, data, {}, **plan).json()
        for epoch in (4, 10):
            wait_until(lambda epoch=epoch: _epoch(http, job) >= epoch and _kept(running.data))
            os.kill(_solver(running.process.pid), signal.SIGKILL)
        wait_until(lambda: http.get(job["href"]).json()["state"] not in ("queued", "running"), 120)
        found = http.get(job["href"]).json()
        assert (found["state"], found["attempt"]) == ("done", 1), found["error"]
        assert found["answer"]["weights"]["sha256"] == undisturbed["weights"]["sha256"]


def _epoch(http: httpx.Client, job: dict[str, Any]) -> int:
    progress = http.get(job["href"]).json()["progress"]
    return int(progress["message"].split()[1]) if progress else 0


def _kept(data: Path) -> bool:
    with closing(sqlite3.connect(data / "certes.db")) as rows:
        return rows.execute("SELECT checkpoint FROM jobs").fetchone()[0] is not None


def _solver(parent: int) -> int:
    """The solver of a service that has used the processor most: the one that is training."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(words[1]) == parent:
            found[int(words[11])] = int(folder.name)
    return found[max(found)]
