"""POST /v1/trainings: from data to a certified network that anybody can check, over a real server and real workers."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from certes.certificate.assembly_check import verify_assembly
from certes.composition.description import read
from certes.sequences import DataSet
from certes.trainings import Architecture, Plan
from certes.weights import to_bytes
from certes_service.questions.trainings import TrainingFailed, question
from certes_service.samples_training import TRAINING, TRAINING_REQUEST

from tests.service.conftest import Running
from tests.service.workers import fleet

ARCHITECTURE: dict[str, Any] = {"kind": "singular", "modules": [4, 3], "step": [0.1, 0.5]}
WAIT = {"Prefer": "wait=60"}


def arrays(count: int = 48, seed: int = 0) -> dict[str, Any]:
    """Sequences whose class is the sign of their sum."""
    inputs = np.random.default_rng(seed).normal(size=(count, 8, 2)).astype(np.float32)
    return {"inputs": inputs, "labels": (inputs.sum((1, 2)) > 0).astype(np.int64)}


def post(
    http: httpx.Client, data: dict[str, Any] | bytes | None = None, headers: dict[str, str] | None = None,
    architecture: dict[str, Any] = ARCHITECTURE, form: dict[str, str] | None = None, **plan: Any,
) -> httpx.Response:  # fmt: skip
    options = {name: plan.pop(name) for name in ("seconds", "keep") if name in plan}
    spec = {"architecture": architecture, "plan": {"epochs": 3, "batch": 16, **plan}, **options}
    body = data if isinstance(data, bytes) else to_bytes(data or arrays())
    files = {"data": ("sums.safetensors", body)}
    given = {"spec": json.dumps(spec), **(form or {})}
    return http.post("/v1/trainings", data=given, files=files, headers=WAIT if headers is None else headers)


def fetched(http: httpx.Client, answer: dict[str, Any], folder: Path) -> Path:
    """The certificate of the whole with everything it names, and the weights, as files."""
    folder.mkdir(parents=True)
    for entry in answer["certificate"]["documents"]:
        suffix = "assembly" if entry["kind"] == "assembly" else "certificate"
        envelope = http.get(entry["href"])
        (folder / f"{entry['digest']}.{suffix}.json").write_bytes(envelope.content)
        proof = http.get(entry["proof"])
        name = proof.headers["content-disposition"].split('filename="')[1].rstrip('"')
        (folder / name).write_bytes(proof.content)
    (folder / "weights.safetensors").write_bytes(http.get(answer["weights"]["href"]).content)
    (folder / "assembly.json").write_text(json.dumps(answer["assembly"]))
    return folder / f"{answer['certificate']['digest']}.assembly.json"


def test_what_was_trained_can_be_checked_by_anybody(http: httpx.Client, tmp_path: Path) -> None:
    response = post(http)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["verdict"] == "contracting"
    assert answer["factor"] < 1
    assert [entry["epoch"] for entry in answer["curve"]] == [1, 2, 3]
    path = fetched(http, answer, tmp_path / "out")
    report = verify_assembly(path, tmp_path / "out")
    assert report.valid, report
    assert read(tmp_path / "out" / "assembly.json").assembly.size == 7
    again = post(http).json()
    assert again["cached"]
    assert again["certificate"]["digest"] == answer["certificate"]["digest"]


def test_as_the_library_trains(http: httpx.Client, tmp_path: Path) -> None:
    from certes.nn.train import train

    answer = post(http, arrays(seed=3)).json()
    plan = Plan(epochs=3, batch=16)
    made = train(Architecture.parse(ARCHITECTURE), DataSet.of(**arrays(seed=3)), plan, tmp_path / "out")
    assert made.digest == answer["certificate"]["digest"], "the same bits"
    assert made.report["test_accuracy"] == answer["test_accuracy"]


def test_the_example_of_the_document(http: httpx.Client) -> None:
    answer = http.post("/v1/trainings", json=TRAINING_REQUEST, headers=WAIT).json()
    assert set(answer) == set(TRAINING)
    assert answer["factor"] == pytest.approx(TRAINING["factor"], abs=1e-4)
    assert answer["assembly"] == TRAINING["assembly"]


def test_regression(http: httpx.Client) -> None:
    inputs = np.random.default_rng(1).normal(size=(40, 6, 1)).astype(np.float32)
    answer = post(http, {"inputs": inputs, "targets": inputs.sum(1)}).json()
    assert answer["task"] == "regression"
    assert answer["test_rmse"] > 0
    assert "validation_rmse" in answer["curve"][0]


def test_it_is_a_job_and_tells_every_epoch(http: httpx.Client) -> None:
    response = post(http, arrays(seed=4), {}, epochs=6)
    assert response.status_code == 202, "nobody waits unless asked"
    job = response.json()
    assert job["kind"] == "training"
    told: list[dict[str, Any]] = []
    with http.stream("GET", job["events"]) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                told.append(json.loads(line[5:]))
    assert told[-1]["state"] == "done"
    phases = [entry["progress"] for entry in told if entry["progress"]]
    assert any("epoch" in progress["message"] for progress in phases)
    assert http.get(job["href"]).json()["answer"]["epochs"] == 6


def test_cancel_stops_it(http: httpx.Client) -> None:
    job = post(http, arrays(400), {}, epochs=100_000, batch=4).json()
    trained = Path(tempfile.gettempdir())

    def scratch() -> set[Path]:
        return set(trained.glob("certes-solver-*/certes-training-*"))

    before = scratch()
    wait_until(lambda: scratch() - before)
    (folder,) = scratch() - before
    assert http.delete(job["href"]).status_code in (200, 204)
    assert http.get(job["href"]).json()["state"] == "cancelled"
    wait_until(lambda: not folder.parent.exists(), 10)


def test_without_an_epoch_in_time_it_has_failed(http: httpx.Client) -> None:
    response = post(http, arrays(2000, 5), epochs=5, batch=1, seconds=0.5)
    assert response.status_code == 422, response.text
    assert response.json()["type"].endswith("training-deadline")


def test_the_best_epoch_in_time_is_the_answer(http: httpx.Client) -> None:
    answer = post(http, arrays(seed=6), epochs=1_000_000, seconds=3.0).json()
    assert answer["ended"] == "deadline"
    assert answer["verdict"] == "contracting"


def test_one_that_diverges_has_failed(http: httpx.Client) -> None:
    data = arrays(seed=7)
    wild = {"inputs": data["inputs"], "targets": data["inputs"].sum((1, 2))}
    response = post(http, wild, learning_rate=10.0, clip=1e9, epochs=200, warmup=0.0, noise=100.0)
    if response.status_code == 200:  # it may survive: then it is certified
        assert response.json()["verdict"] == "contracting"
    else:
        assert response.json()["type"].endswith("training-diverged")


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"data": b"no weights"}, 422, "data"),
        ({"data": {"inputs": np.zeros((4, 2, 1))}}, 422, "data"),
        ({"data": {"inputs": np.full((8, 2, 1), np.nan), "labels": np.zeros(8, int)}}, 422, "data.inputs"),
        ({"data": {"inputs": np.zeros((8, 2, 1)), "labels": np.zeros(7, int)}}, 422, "data.labels"),
        ({"data": {"inputs": np.zeros((0, 2, 1)), "labels": np.zeros(0, int)}}, 422, "data.inputs"),
        ({"architecture": {"modules": []}}, 422, "spec.architecture.modules"),
        ({"architecture": {"modules": [4000, 4000]}}, 413, "spec.architecture.modules"),
        ({"architecture": {"modules": [3], "kind": "wild"}}, 422, "spec.architecture.kind"),
        ({"architecture": {"modules": [3], "level": 0.99, "step": 1.5}}, 422, "spec.architecture.step"),
        ({"epochs": 0}, 422, "spec.plan.epochs"),
        ({"epochz": 1}, 422, "spec.plan.epochz"),
        ({"jitter": 2}, 422, "spec.plan.jitter"),
        ({"seconds": -1.0}, 422, "spec.seconds"),
        ({"form": {"store": "false"}}, 422, "store"),
    ],
)
def test_what_cannot_be_is_said_before_a_job(
    http: httpx.Client, change: dict[str, Any], status: int, field: str
) -> None:
    before = len(http.get("/v1/jobs").json()["jobs"])
    response = post(http, **change)
    assert response.status_code == status, response.text
    assert response.json()["field"].startswith(field)
    assert len(http.get("/v1/jobs").json()["jobs"]) == before


def test_a_solver_that_was_ended_has_no_answer() -> None:
    made = question({"architecture": ARCHITECTURE}, to_bytes(arrays()), "x.safetensors")
    with pytest.raises(TrainingFailed) as error:
        made.undecided("memory", "too much")
    assert error.value.slug == "training-memory"
    assert type(made).rebuild(json.loads(json.dumps(made.parts())), made.weights, made.name) == made


def test_the_page_shows_the_curve(http: httpx.Client) -> None:
    job = post(http, arrays(seed=8), {}).json()
    wait_until(lambda: http.get(job["href"]).json()["state"] == "done")
    page = http.get(f"/jobs/{job['id']}").text
    assert "on data that chose nothing" in page
    assert "Download the weights" in page
    curve = http.get(f"/jobs/{job['id']}/curve").text
    assert curve.count("<polyline") == 3
    assert 'aria-label="Loss.' in curve
    assert "hx-trigger" not in curve, "it moves no more"
    assert http.get("/jobs/00000000000000000000000000000000/curve").status_code == 404


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_worker_costs_no_bit(serve: Callable[..., Running], tmp_path: Path) -> None:
    """SIGKILL in the middle: another process goes on from the last checkpoint, and ends with the same weights."""
    data, epochs = arrays(600, 9), 25
    with serve().client() as http:
        undisturbed = post(http, data, {"Prefer": "wait=300"}, epochs=epochs, batch=8).json()
    with fleet(tmp_path / "fleet", 0, beat_seconds=0.5, lease_seconds=2.0) as several, several.client() as http:
        first = several.start("train")
        job = post(http, data, {}, epochs=epochs, batch=8).json()

        def epoch() -> int:
            progress = http.get(job["href"]).json()["progress"]
            return 0 if not progress else int(progress["message"].split()[1])

        wait_until(lambda: epoch() >= 5)
        first.kill()
        several.start("train")
        wait_until(lambda: http.get(job["href"]).json()["state"] == "done", 120)
        found = http.get(job["href"]).json()
        assert found["attempt"] == 2
        assert found["answer"]["weights"]["sha256"] == undisturbed["weights"]["sha256"]
        assert found["answer"]["certificate"]["digest"] == undisturbed["certificate"]["digest"]
