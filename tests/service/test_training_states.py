"""Trainings without a server: what they go on from, what is kept of that, and how they fail."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from certes.errors import InputError
from certes.nn import product
from certes.nn.trainer import Trainer
from certes.trainings import Plan
from certes.weights import to_bytes
from certes_service.jobs import runner
from certes_service.jobs.board import Board, Superseded, Wanted
from certes_service.jobs.job import Job
from certes_service.jobs.runner import _States
from certes_service.jobs.works import Works
from certes_service.questions import trainings
from certes_service.questions.base import Context, Limits
from certes_service.questions.trainings import TrainingFailed, TrainingQuestion
from certes_service.settings import Settings
from certes_service.storage import retention
from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database

from tests.service.conftest import CERTES, environment
from tests.service.inside import wait_for
from tests.service.test_trainings import ARCHITECTURE, arrays


def asked(epochs: int = 5, seed: int = 0, **options: Any) -> TrainingQuestion:
    spec = {"architecture": ARCHITECTURE, "plan": {"epochs": epochs, "batch": 16}, **options}
    return trainings.question(spec, to_bytes(arrays(seed=seed)), "sums.safetensors")


def context(**more: Any) -> Context:
    return Context(Limits.of(Settings()), **{"seconds": 60.0, **more})


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after each epoch, however short."""
    monkeypatch.setattr(trainings, "_PAUSE", 0.0)
    monkeypatch.setattr(trainings, "_PAUSE_TIMES", 0.0)


# --- what it goes on from


def test_every_checkpoint_leads_to_the_same_bits(eager: None) -> None:
    states: list[bytes] = []
    whole = asked().solve(context(on_checkpoint=states.append))
    assert len(states) == 5
    for k, state in enumerate(states):
        told: list[dict[str, Any]] = []
        found = asked().solve(context(resume=state, on_progress=told.append))
        assert [entry["curve"][-1]["epoch"] for entry in told] == list(range(k + 2, 6)), "it did not start anew"
        assert (found.root, found.weights) == (whole.root, whole.weights)
        assert found.answer == whole.answer


def test_a_damaged_or_foreign_checkpoint_is_refused(eager: None) -> None:
    states: list[bytes] = []
    asked().solve(context(on_checkpoint=states.append))
    middle = len(states[2]) // 2
    flipped = states[2][:middle] + bytes([states[2][middle] ^ 1]) + states[2][middle + 1 :]
    for question, state, slug in (
        (asked(), b"", "damaged-checkpoint"),
        (asked(), states[2][:-8], "damaged-checkpoint"),
        (asked(seed=1), states[2], "wrong-checkpoint"),
        (asked(epochs=6), states[2], "wrong-checkpoint"),
    ):
        with pytest.raises(InputError) as error:
            question.solve(context(resume=state))
        assert error.value.slug == slug
    with pytest.raises(InputError):
        asked().solve(context(resume=flipped))


def test_short_epochs_are_not_all_kept() -> None:
    states: list[bytes] = []
    asked(epochs=40).solve(context(on_checkpoint=states.append))
    assert 1 <= len(states) < 20


@pytest.mark.parametrize("count", [1, 99, 100, 101, 250, 10_000])
def test_the_curve_that_is_told_is_of_bounded_length(count: int) -> None:
    curve = [{"epoch": k + 1, "loss": float("inf"), "validation_accuracy": 0.5} for k in range(count)]
    told: list[dict[str, Any]] = []
    trainer: Any = SimpleNamespace(curve=curve, epoch=count)
    trainings._told(context(on_progress=told.append), trainer, Plan(epochs=10_000))
    epochs = [entry["epoch"] for entry in told[0]["curve"]]
    assert len(epochs) == len(set(epochs)) <= 100
    assert len(epochs) >= min(count, 50)
    assert epochs == sorted(epochs)
    assert epochs[-1] == count, "the last one is always there"
    json.dumps(told, allow_nan=False)
    assert told[0]["message"].endswith("validation accuracy 0.5000")


# --- what is kept of it


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Board, Blobs, Job]]:
    settings = Settings(data=tmp_path)
    database, blobs = Database(settings.database_url), Blobs(settings.blobs_url)
    database.migrate()
    board = Board(database)
    made, _ = board.open(Wanted("one", "training", "ab" * 32, {}, None, "x"), 10)
    job = board.take(made.id, "worker")
    assert job is not None
    yield board, blobs, job
    database.close()


def blobs_of(blobs: Blobs) -> set[str]:
    return {blob.digest for blob in blobs.walk()}


def test_checkpoints_that_were_followed_go(place: tuple[Board, Blobs, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    board, blobs, job = place
    monkeypatch.setattr(runner, "_SETTLED", -1.0)
    mine = blobs.put("one", b"something else that nobody names")
    states = _States(board, blobs, job)
    for k in range(5):
        states.keep(f"state {k}".encode())
    now = board.get(job.id)
    assert now is not None
    assert now.checkpoint is not None
    assert blobs.get("one", now.checkpoint) == b"state 4"
    assert blobs_of(blobs) == {mine, now.checkpoint}
    states.keep(b"state 4")
    assert blobs_of(blobs) == {mine, now.checkpoint}, "the same state again is the last one"


def test_young_ones_and_those_of_a_backup_stay(
    place: tuple[Board, Blobs, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    board, blobs, job = place
    states = _States(board, blobs, job)
    for k in range(3):
        states.keep(f"state {k}".encode())
    assert len(blobs_of(blobs)) == 3
    monkeypatch.setattr(runner, "_SETTLED", -1.0)
    with board.database.keeping():
        states.keep(b"state 3")
        assert len(blobs_of(blobs)) == 4
    states.keep(b"state 4")
    assert len(blobs_of(blobs)) == 1, "asked about once more when the backup is over"


def test_what_another_job_names_stays(place: tuple[Board, Blobs, Job]) -> None:
    board, blobs, job = place
    digest = blobs.put("one", b"both came this far")
    board.note(job, checkpoint=digest)
    assert retention.retire(board.database, blobs, "one", [digest], -1.0) == [digest]
    board.note(job, checkpoint=None)
    assert retention.retire(board.database, blobs, "two", [digest], -1.0) == [], "of that tenant there is none"
    assert blobs.has("one", digest)
    assert retention.retire(board.database, blobs, "one", [digest], -1.0) == []
    assert not blobs.has("one", digest)


def test_who_lost_the_job_throws_nothing_away(place: tuple[Board, Blobs, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    board, blobs, job = place
    monkeypatch.setattr(runner, "_SETTLED", -1.0)
    states = _States(board, blobs, job)
    states.keep(b"state 0")
    assert board.take(job.id, "another") is not None
    with pytest.raises(Superseded):
        states.keep(b"state 1")
    now = board.get(job.id)
    assert now is not None
    assert now.checkpoint is not None
    assert blobs.get("one", now.checkpoint) == b"state 0"


# --- how it fails


def test_a_solver_that_was_ended_has_no_answer() -> None:
    made = asked()
    with pytest.raises(TrainingFailed) as error:
        made.undecided("memory", "too much")
    assert error.value.slug == "training-memory"
    assert type(made).rebuild(json.loads(json.dumps(made.parts())), made.weights, made.name) == made


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_no_network_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", lambda *_: "diverged")
        with pytest.raises(TrainingFailed) as error:
            asked().solve(context())
        assert error.value.slug == "training-diverged"
    undecided: Any = SimpleNamespace(verdict="undecided", reason="margin", detail="no proof")
    with monkeypatch.context() as patch:
        patch.setattr(product, "write", raising(product.NotCertified(undecided)))
        with pytest.raises(TrainingFailed) as error:
            asked().solve(context())
        assert error.value.slug == "training-not-certified"
    with pytest.raises(TrainingFailed) as error:
        asked().solve(context(seconds=1e-9))
    assert error.value.slug == "training-deadline"


@pytest.mark.parametrize(
    "said", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_does_not_suffice_is_no_defect(monkeypatch: pytest.MonkeyPatch, said: RuntimeError) -> None:
    monkeypatch.setattr(Trainer, "_gradients", raising(said))
    with pytest.raises(MemoryError):
        asked().solve(context())
    monkeypatch.setattr(Trainer, "_gradients", raising(RuntimeError("a defect")))
    with pytest.raises(RuntimeError, match="a defect"):
        asked().solve(context())


def test_what_its_own_limit_ends_is_an_answer_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda own, over: "deadline" if own.epoch == 2 else advance(own, over))
    for seconds, limit, lasting in ((5.0, 60.0, True), (60.0, 5.0, False), (None, 5.0, False)):
        options = {} if seconds is None else {"seconds": seconds}
        solved = asked(**options).solve(context(seconds=limit))
        assert solved.answer["ended"] == "deadline"
        assert solved.lasting is lasting


# --- where it computes


@pytest.mark.slow
def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    command = [*CERTES, "worker", "--queue", "train", "--device", "nonsense:0", "--data", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == 2
    assert "nonsense:0" in done.stderr
    assert not (tmp_path / "data").exists(), "it was refused before it took anything"


def test_the_device_of_a_worker_is_where_it_trains(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, solvers=1)
    works = Works(settings, ("train",), device="nonsense:0")
    works.start()
    try:
        question = asked()
        weights = works.blobs.put("one", question.weights)
        parts = {"parts": question.parts(), "needs": []}
        job, _ = works.board.open(Wanted("one", "training", "ab" * 32, parts, weights, question.name), 10)
        assert works.durable is not None
        works.durable.enqueue(job.id, job.queue, 0)
        assert wait_for(lambda: (now := works.board.get(job.id)) is not None and now.ended, 60)
        now = works.board.get(job.id)
        assert now is not None
        assert now.state == "failed"
        assert now.error is not None
        assert now.error["field"] == "device"
        assert "nonsense:0" in now.error["given"]
    finally:
        works.stop(1.0)
