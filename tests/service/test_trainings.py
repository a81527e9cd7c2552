"""POST /v1/trainings: from data to a certified network that anybody can check, over a real server and real workers."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from certes.certificate.assembly_check import verify_assembly
from certes.composition.description import read
from certes.input_gate import InputGate
from certes.sequences import DataSet
from certes.trainings import Architecture, Plan
from certes.weights import to_bytes
from certes_service.samples_training import TRAINING, TRAINING_REQUEST

from tests.service.conftest import Running, create_key, running
from tests.service.test_verifications import PRIVATE, PUBLIC
from tests.service.workers import fleet, followed

ARCHITECTURE: dict[str, Any] = {"kind": "singular", "modules": [4, 3], "step": [0.1, 0.5]}
WAIT = {"Prefer": "wait=60"}


def arrays(count: int = 48, seed: int = 0) -> dict[str, Any]:
    """Sequences whose class is the sign of their sum."""
    inputs = np.random.default_rng(seed).normal(size=(count, 8, 2)).astype(np.float32)
    return {"inputs": inputs, "labels": (inputs.sum((1, 2)) > 0).astype(np.int64)}


def npz(**given: Any) -> bytes:
    """An .npz file, pickles and all."""
    file = io.BytesIO()
    np.savez_compressed(file, **given)
    return file.getvalue()


#: One class of two thousand million.
LARGE = {"inputs": np.zeros((8, 2, 1)), "labels": np.array([2**31 - 1] + [0] * 7)}


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


def test_a_gate_is_trained_and_told(http: httpx.Client, tmp_path: Path) -> None:
    """In the answer, in the description, and on the page."""
    answer = post(http, architecture=ARCHITECTURE | {"gate": 0.2}, epochs=1).json()
    assert answer["gate"] == InputGate(0.2).to_json(None, answer["factor"])
    fetched(http, answer, tmp_path / "out")
    assert read(tmp_path / "out" / "assembly.json").compose().gated == answer["gate"]
    jobs = http.get("/v1/jobs").json()["jobs"]
    page = http.get(f"/jobs/{jobs[0]['id']}").text
    assert "for every share of the step from 0.2 to 1" in " ".join(page.split())
    assert post(http, architecture=ARCHITECTURE | {"gate": 0.0}).status_code == 422


@pytest.mark.slow
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
    for name, module in answer["assembly"]["modules"].items():
        shown = TRAINING["assembly"]["modules"][name]
        assert module.pop("metric") == pytest.approx(shown["metric"], abs=1e-4)
        assert module == {entry: value for entry, value in shown.items() if entry != "metric"}
    assert answer["assembly"] | {"modules": 0} == TRAINING["assembly"] | {"modules": 0}


def test_regression(http: httpx.Client) -> None:
    inputs = np.random.default_rng(1).normal(size=(40, 6, 1)).astype(np.float32)
    answer = post(http, {"inputs": inputs, "targets": inputs.sum(1)}).json()
    assert answer["task"] == "regression"
    assert answer["test_rmse"] > 0
    assert "validation_rmse" in answer["curve"][0]


def test_it_is_a_job_and_tells_every_epoch(http: httpx.Client) -> None:
    response = post(http, arrays(seed=4), {}, epochs=60)
    assert response.status_code == 202, "nobody waits unless asked"
    job = response.json()
    assert job["kind"] == "training"
    events = followed(http, job["href"])
    assert events[-1][0] == "end"
    assert events[-1][1]["state"] == "done"
    told = [entry["progress"] for _, entry in events if entry["progress"]]
    epochs = [progress["curve"][-1]["epoch"] for progress in told]
    assert told, "nothing was told"
    assert epochs == sorted(epochs)
    assert all(progress["message"].startswith(f"epoch {progress['curve'][-1]['epoch']} of 60, ") for progress in told)
    assert all(0 < progress["fraction"] <= 1 and len(progress["curve"]) <= 100 for progress in told)
    assert http.get(job["href"]).json()["answer"]["epochs"] == 60


def test_cancel_stops_it(http: httpx.Client) -> None:
    job = post(http, arrays(400), {}, epochs=10_000, batch=4).json()
    trained = Path(tempfile.gettempdir())

    def scratch() -> set[Path]:
        return set(trained.glob("certes-solver-*/certes-training-*"))

    before = scratch()
    wait_until(lambda: scratch() - before)
    (folder,) = scratch() - before
    assert http.delete(job["href"]).status_code in (200, 204)
    assert http.get(job["href"]).json()["state"] == "cancelled"
    wait_until(lambda: not folder.parent.exists(), 10)


@pytest.mark.slow
def test_without_an_epoch_in_time_it_has_failed(http: httpx.Client) -> None:
    response = post(http, arrays(2000, 5), epochs=5, batch=1, seconds=0.5)
    assert response.status_code == 422, response.text
    assert response.json()["type"].endswith("training-deadline")


@pytest.mark.slow
def test_the_best_epoch_in_time_is_the_answer(http: httpx.Client) -> None:
    answer = post(http, arrays(seed=6), epochs=10_000, seconds=3.0).json()
    assert answer["ended"] == "deadline"
    assert answer["verdict"] == "contracting"
    assert post(http, arrays(seed=6), epochs=10_000, seconds=3.0).json()["cached"], "its limit is part of the question"


@pytest.mark.slow
def test_a_deadline_cuts_it_short_for_this_job_alone(http: httpx.Client) -> None:
    data = arrays(seed=7)
    first = post(http, data, epochs=10_000, form={"deadline": "5"}).json()
    assert first["ended"] == "deadline"
    assert first["verdict"] == "contracting"
    again = post(http, data, {}, epochs=10_000)
    assert again.status_code == 202, "what was cut short is no answer to who has time"
    assert http.delete(again.json()["href"]).status_code in (200, 204)


@pytest.mark.slow
def test_arrays_of_numpy(http: httpx.Client) -> None:
    data = arrays(seed=10)
    file = io.BytesIO()
    np.savez_compressed(file, **data, names=np.array(["of no account"]))
    one = post(http, file.getvalue()).json()
    other = post(http, data).json()
    assert one["certificate"]["digest"] == other["certificate"]["digest"], "the same bits, whatever they came in"


def test_the_same_key_is_the_same_job(http: httpx.Client) -> None:
    key = {"Idempotency-Key": "training-one"}
    job = post(http, arrays(seed=11), key).json()
    assert post(http, arrays(seed=11), key | WAIT).json()["cached"]
    assert len([entry for entry in http.get("/v1/jobs").json()["jobs"] if entry["id"] == job["id"]]) == 1
    response = post(http, arrays(seed=12), key)
    assert response.status_code == 422
    assert response.json()["field"] == "Idempotency-Key"


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, httpx.Client]]:
    """Two tenants of a service that signs; and one who may not train."""
    made = {}
    data = tmp_path_factory.mktemp("teams") / "data"
    with running(data, keys=True, solvers=1, signing_key=PRIVATE[0]) as server:
        for name, scope in (("one", "train"), ("two", "train"), ("reader", "certify")):
            key = create_key(name, "--scope", scope, "--data", str(data))
            made[name] = server.client(headers={"Authorization": f"Bearer {key}"})
        yield made
        for client in made.values():
            client.close()


@pytest.mark.slow
def test_who_may_train_and_see_it(teams: dict[str, httpx.Client], tmp_path: Path) -> None:
    refused = post(teams["reader"])
    assert refused.status_code == 403
    assert refused.json()["type"].endswith("scope-missing")
    job = post(teams["one"], headers={}).json()
    wait_until(lambda: teams["one"].get(job["href"]).json()["state"] == "done")
    answer = teams["one"].get(job["href"]).json()["answer"]
    assert answer["certificate"]["signed"]
    places = [job["href"], job["events"], f"/jobs/{job['id']}/curve", answer["weights"]["href"]]
    places += [entry["href"] for entry in answer["certificate"]["documents"]]
    assert [teams["one"].get(place).status_code for place in places] == [200] * len(places)
    assert [teams["two"].get(place).status_code for place in places] == [404] * len(places)
    assert teams["two"].delete(job["href"]).status_code == 404
    assert not post(teams["two"]).json()["cached"], "another tenant's answers are his"
    path = fetched(teams["one"], answer, tmp_path / "out")
    assert verify_assembly(path, tmp_path / "out", key=PUBLIC[0].encode()).valid
    assert not verify_assembly(path, tmp_path / "out", key=PUBLIC[1].encode()).valid


@pytest.mark.slow
def test_the_page_takes_a_file_without_scripts_where_keys_are_on(teams: dict[str, httpx.Client]) -> None:
    """What a browser sends: the fields of the form in their order, and the file after the token."""
    known = teams["one"]
    with httpx.Client(base_url=known.base_url, timeout=60) as http:
        http.post("/login", data={"key": known.headers["Authorization"].removeprefix("Bearer ")})
        page = http.get("/").text
        form = page[page.index('name="what" value="training"') - 400 :]
        token = re.findall(r'<input type="hidden" name="csrf" value="([^"]+)">', form)[0]
        fields: list[tuple[str, Any]] = [
            ("csrf", (None, token)),
            ("what", (None, "training")),
            ("weights", ("sums.npz", npz(**arrays(seed=21)))),
            ("spec", (None, json.dumps({"architecture": ARCHITECTURE, "plan": {"epochs": 1}}))),
        ]
        sent = http.post("/ask", files=fields)
        assert sent.status_code == 303, sent.text
        assert http.get(sent.headers["location"]).status_code == 200
        assert http.post("/ask", files=fields[1:]).status_code == 403


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
        ({"data": LARGE}, 413, "data.labels"),
        ({"data": {"inputs": np.zeros((4, 2, 50_000)), "labels": np.zeros(4, int)}}, 413, "data.inputs"),
        ({"data": npz(inputs=np.zeros((8, 2, 1)))}, 422, "data"),
        ({"data": npz(inputs=np.full((8, 2, 1), np.inf), labels=np.zeros(8, int))}, 422, "data.inputs"),
        ({"data": npz(inputs=np.array([[[{}]]] * 8), labels=np.zeros(8, int))}, 422, "data"),
        ({"data": npz(inputs=np.zeros((8, 2, 1)), labels=np.zeros(8, int))[:-40]}, 422, "data"),
        ({"data": npz(inputs=np.zeros((8, 2**20, 1)), labels=np.zeros(8, int))}, 413, "data"),
        ({"epochs": 0}, 422, "spec.plan.epochs"),
        ({"epochs": 10_001}, 413, "spec.plan.epochs"),
        ({"seconds": 61.0}, 413, "spec.seconds"),
        ({"keep": -1}, 422, "spec.keep"),
        ({"epochz": 1}, 422, "spec.plan.epochz"),
        ({"jitter": 2}, 422, "spec.plan.jitter"),
        ({"seconds": -1.0}, 422, "spec.seconds"),
        ({"form": {"store": "false"}}, 422, "store"),
    ],
)
def test_what_cannot_be_is_said_before_a_job(
    http: httpx.Client, change: dict[str, Any], status: int, field: str
) -> None:
    def youngest() -> list[str]:
        return [job["id"] for job in http.get("/v1/jobs").json()["jobs"][:1]]

    before = youngest()
    response = post(http, **change)
    assert response.status_code == status, response.text
    assert response.json()["field"].startswith(field)
    assert youngest() == before


def test_the_page_shows_the_curve(http: httpx.Client) -> None:
    job = post(http, arrays(seed=8), {}).json()
    wait_until(lambda: http.get(job["href"]).json()["state"] == "done")
    page = http.get(f"/jobs/{job['id']}").text
    assert "on data that chose nothing" in page
    assert "Download the weights" in page
    curve = http.get(f"/jobs/{job['id']}/curve").text
    assert curve.count("<polyline") == 3
    assert 'aria-label="Loss.' in curve
    digest = http.get(job["href"]).json()["answer"]["certificate"]["digest"]
    graph = http.get(f"/certificates/{digest}/graph")
    assert graph.status_code == 200
    assert "<svg" in graph.text
    assert "hx-trigger" not in curve, "it moves no more"
    assert "<script" not in curve
    assert "style=" not in curve
    assert http.get("/jobs/00000000000000000000000000000000/curve").status_code == 404


@pytest.mark.slow
def test_the_page_has_a_form_for_it(http: httpx.Client) -> None:
    assert 'value="training"' in http.get("/").text
    spec = {"architecture": ARCHITECTURE, "plan": {"epochs": 2, "batch": 16}}
    sent = {"what": "training", "spec": json.dumps(spec)}
    response = http.post("/ask", files={"weights": ("sums.npz", npz(**arrays(seed=13)))}, data=sent)
    assert response.status_code == 303
    job = response.headers["location"].removeprefix("/jobs/")
    wait_until(lambda: http.get(f"/v1/jobs/{job}").json()["state"] == "done")
    for change in ({"spec": "[]"}, {"spec": "{}"}, {"spec": "{"}):
        wrong = http.post("/ask", files={"weights": ("x", npz(**arrays()))}, data=sent | change)
        assert 400 <= wrong.status_code < 500, change


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

        def kept() -> bool:
            with closing(sqlite3.connect(several.api.data / "certes.db")) as rows:
                return rows.execute("SELECT checkpoint FROM jobs").fetchone()[0] is not None

        def epoch() -> int:
            progress = http.get(job["href"]).json()["progress"]
            return 0 if not progress else int(progress["message"].split()[1])

        wait_until(lambda: epoch() >= 5 and kept())
        first.kill()
        several.start("train")
        wait_until(lambda: http.get(job["href"]).json()["state"] == "done", 120)
        found = http.get(job["href"]).json()
        assert found["attempt"] == 2
        assert found["answer"]["weights"]["sha256"] == undisturbed["weights"]["sha256"]
        assert found["answer"]["certificate"]["digest"] == undisturbed["certificate"]["digest"]
