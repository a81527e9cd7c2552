"""Jobs over HTTP: waiting, cancelling, deadlines, priorities, idempotency, and nobody else's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.asking import SMALL, SPEC, assert_problem, weights
from tests.service.conftest import Running, create_key, running
from tests.service.inside import wait_for
from tests.service.test_workers import ask, ended
from tests.service.workers import children

Serve = Callable[..., Running]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with one solver."""
    with running(tmp_path_factory.mktemp("alone") / "data", solvers=1, beat_seconds=0.5, lease_seconds=3.0) as server:
        yield server


@pytest.fixture
def http(alone: Running) -> Iterator[httpx.Client]:
    with alone.client() as client:
        yield client


def quick(http: httpx.Client, scale: float, prefer: str | None = None, **more: Any) -> httpx.Response:
    headers = {key: value for key, value in {"Prefer": prefer, **more.pop("headers", {})}.items() if value is not None}
    tensors = {"W": (np.array(SMALL) * scale).tolist()}
    return http.post("/v1/certificates", json={"spec": SPEC, "tensors": tensors, **more}, headers=headers)


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0", "respond-async, wait=0"])
def test_a_call_that_does_not_wait_is_told_of_its_job(http: httpx.Client, prefer: str) -> None:
    response = quick(http, 0.5 + len(prefer) / 100, prefer)
    assert response.status_code == 202
    assert response.headers["location"] == response.json()["href"]
    assert response.headers["retry-after"]
    assert response.headers["preference-applied"]
    found = ended(http, response.headers["location"])
    assert found["attempt"] == 1
    again = quick(http, 0.5 + len(prefer) / 100)
    assert again.status_code == 200
    assert again.json()["cached"] is True, "not computed twice"
    assert {**again.json(), "cached": None} == {**found["answer"], "cached": None}  # type: ignore[dict-item]


def test_a_call_waits_as_long_as_it_says(http: httpx.Client) -> None:
    job = ask(http, 11, 6.0)
    began = time.monotonic()
    matrix = 0.6 * np.random.default_rng(11).standard_normal((60, 60)) / np.sqrt(60)
    spec = {**SPEC, "condition": "lure", "backend": "cvxpy-scs", "seconds": 6.0}
    body = {"spec": spec, "tensors": {"W": matrix.tolist()}}
    response = http.post("/v1/certificates", json=body, headers={"Prefer": "wait=1"})
    assert response.status_code == 202
    assert response.headers["location"] == job, "the same question is the same job"
    assert 0.9 < time.monotonic() - began < 4.0
    response = http.post("/v1/certificates", json=body, headers={"Prefer": "wait=40"})
    assert response.status_code == 200
    http.delete(job)


@pytest.mark.parametrize("bad", ["wait=-1", "wait=soon", "wait=9999999"])
def test_a_wait_that_is_none(http: httpx.Client, bad: str) -> None:
    assert_problem(quick(http, 0.9, bad), 422, "wait", "Prefer")


def test_cancelling_ends_the_computation_within_two_seconds(alone: Running, http: httpx.Client) -> None:
    """The solver is gone, not only told to go; a machine that is busy with other things gets three tries."""
    took = []
    for seed in (120, 121, 122):
        job = ask(http, seed, 50.0)
        solver = wait_for(lambda: _busy(alone.process.pid), 30)
        assert solver
        assert http.delete(job).json()["state"] == "cancelled"
        cancelled = time.monotonic()
        assert wait_for(lambda solver=solver: not any(Path(f"/proc/{pid}").exists() for pid in solver), 10)
        took.append(time.monotonic() - cancelled)
        assert http.delete(job).json()["state"] == "cancelled", "again: nothing changes"
        if took[-1] < 2.0:
            break
    assert min(took) < 2.0, took
    assert quick(http, 0.61).json()["verdict"] == "contracting", "and the next is solved"


def _busy(parent: int) -> list[int]:
    """Processes below it that use the processor."""
    before = {pid: _ticks(pid) for pid in children(parent)}
    time.sleep(0.3)
    return [pid for pid, ticks in before.items() if _ticks(pid) > ticks + 10]


def _ticks(pid: int) -> int:
    """Hundredths of a second that it has used."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _pieces(stream: httpx.Response) -> Iterator[dict[str, str]]:
    """Events, and comments under the name ``comment``, as they arrive."""
    found: dict[str, str] = {}
    for line in stream.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            found[name or "comment"] = value
        elif found:
            yield found
            found = {}


def test_who_comes_again_is_told_what_he_missed_and_no_end_twice(http: httpx.Client) -> None:
    job = ask(http, 15, 50.0)
    seen: list[dict[str, str]] = []
    with http.stream("GET", f"{job}/events") as stream:
        for piece in _pieces(stream):
            seen.append(piece)
            if json.loads(piece["data"])["progress"]:
                break
    assert len({piece["id"] for piece in seen}) == len(seen)
    known = seen[-1]["id"]
    with http.stream("GET", f"{job}/events", headers={"Last-Event-ID": known}) as stream:
        pieces = _pieces(stream)
        first = next(pieces)
        http.delete(job)
        rest = [first, *pieces]
    assert known not in [piece.get("id") for piece in rest], "what came before is not told again"
    assert [piece["event"] for piece in rest if "event" in piece].count("end") == 1
    end = rest[-1]
    assert json.loads(end["data"])["state"] == "cancelled"
    for missed in ({}, {"Last-Event-ID": known}, {"Last-Event-ID": "no such id"}, {"Last-Event-ID": ""}):
        with http.stream("GET", f"{job}/events", headers=missed) as stream:
            assert list(_pieces(stream)) == [end], "the end was missed"
    again = http.get(f"{job}/events", headers={"Last-Event-ID": end["id"]})
    assert (again.status_code, again.content) == (204, b""), "an EventSource ends here"


def test_a_queued_job_is_cancelled_and_never_begins(http: httpx.Client) -> None:
    first, second = ask(http, 13, 50.0), ask(http, 14, 50.0)
    assert http.delete(second).json()["state"] == "cancelled"
    http.delete(first)
    found = http.get(second).json()
    assert (found["attempt"], found["started"]) == (0, None)
    assert_problem(http.get(f"/v1/jobs/{'0' * 32}"), 404, "unknown-job")
    assert_problem(http.delete("/v1/jobs/nonsense"), 404, "unknown-job")


def test_who_waits_for_a_job_that_is_cancelled_is_told(http: httpx.Client) -> None:
    job = ask(http, 15, 50.0)
    matrix = 0.6 * np.random.default_rng(15).standard_normal((60, 60)) / np.sqrt(60)
    spec = {**SPEC, "condition": "lure", "backend": "cvxpy-scs", "seconds": 50.0}
    body = {"spec": spec, "tensors": {"W": matrix.tolist()}}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, "/v1/certificates", json=body, headers={"Prefer": "wait=40"})
        time.sleep(0.5)
        http.delete(job)
        response = waiting.result()
    assert_problem(response, 409, "cancelled")
    assert response.headers["content-location"] == job


def test_a_deadline_passes_in_the_queue(http: httpx.Client) -> None:
    first = ask(http, 16, 30.0)
    late = ask(http, 17, 5.0, deadline=1.0)
    found = ended(http, late, 20)
    assert found["state"] == "failed"
    assert found["error"]["status"] == 504  # type: ignore[index]
    http.delete(first)


def test_the_urgent_come_first(http: httpx.Client) -> None:
    first = ask(http, 18, 30.0)
    assert wait_for(lambda: http.get(first).json()["state"] == "running", 20)
    jobs = {priority: ask(http, 19 + priority, 0.2, priority=priority) for priority in (-5, 0, 9, 5)}
    http.delete(first)
    started = {priority: str(ended(http, job)["started"]) for priority, job in jobs.items()}
    assert sorted(started, key=lambda priority: started[priority]) == [9, 5, 0, -5]


def test_idempotency_keys(http: httpx.Client) -> None:
    one = quick(http, 0.41, "respond-async", headers={"Idempotency-Key": "k-1"})
    two = quick(http, 0.41, "respond-async", headers={"Idempotency-Key": "k-1"})
    assert two.status_code in (200, 202)
    ended(http, one.headers["location"])
    assert_problem(quick(http, 0.42, headers={"Idempotency-Key": "k-1"}), 422, "key-reused", "Idempotency-Key")
    assert_problem(quick(http, 0.43, headers={"Idempotency-Key": ""}), 422, "malformed-key")
    assert_problem(quick(http, 0.43, headers={"Idempotency-Key": "x" * 300}), 422, "malformed-key")


def test_the_same_question_from_many_is_computed_once(http: httpx.Client) -> None:
    before = len(http.get("/v1/jobs?limit=200").json()["jobs"])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: quick(http, 0.77), range(8)))
    assert {response.status_code for response in answers} == {200}
    assert sum(not response.json()["cached"] for response in answers) == 1
    assert len(http.get("/v1/jobs?limit=200").json()["jobs"]) == before + 1


def test_pages_of_jobs(http: httpx.Client) -> None:
    for k in range(5):
        quick(http, 0.31 + k / 1000)
    whole = [job["id"] for job in http.get("/v1/jobs?limit=200").json()["jobs"]]
    paged: list[str] = []
    before = ""
    while True:
        page = http.get(f"/v1/jobs?limit=2{before}").json()
        paged += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert paged == whole
    done = http.get("/v1/jobs?state=done&limit=200").json()["jobs"]
    assert {job["state"] for job in done} == {"done"}
    assert http.get("/v1/jobs?state=sleeping").status_code == 422


def test_nothing_is_kept_if_it_is_not_to_be(serve: Serve) -> None:
    server = serve()
    with server.client() as http:
        answer = quick(http, 0.9, store=False).json()
        assert answer["verdict"] == "contracting"
        assert http.get(answer["certificate"]["href"]).status_code == 404
        assert http.get("/v1/jobs").json()["jobs"] == []
        assert http.get("/v1/certificates").json()["certificates"] == []
        assert not [path for path in (server.data / "blobs").rglob("*") if path.is_file()]
        assert quick(http, 0.9, store=False).json()["cached"] is False


@pytest.mark.cases(1)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_tenants_see_nothing_of_each_other(tmp_path: Path, postgres_url: str, database: str) -> None:
    """Everything of another tenant is 404, his lists are without it, and his answers are no faster."""
    settings: dict[str, Any] = {"keys": True, "solvers": 1}
    if database == "postgresql":
        settings["database"] = postgres_url
    with running(tmp_path / "data", **settings) as server:
        keys = {}
        for tenant in ("one", "two"):
            file = server.data.with_name(f"{server.data.name}.toml")
            keys[tenant] = create_key(tenant, CERTES_CONFIG=str(file))
        one, two = (server.client(headers={"Authorization": f"Bearer {keys[tenant]}"}) for tenant in ("one", "two"))
        with one, two:
            files = {"spec": (None, json.dumps(SPEC), "application/json"), "weights": ("w", weights())}
            asked = one.post("/v1/projections", files=files, headers={"Idempotency-Key": "mine", "Prefer": "wait=30"})
            link = asked.json()["certificate"]
            job = one.get("/v1/jobs").json()["jobs"][0]["href"]
            paths = (
                link["href"],
                link["proof"],
                f"{link['href']}/weights",
                f"{link['href']}/badge.svg",
                job,
                f"{job}/events",
            )
            for path in paths:
                assert one.get(path).status_code == 200, path
                assert two.get(path).status_code == 404, path
            assert two.get(f"{link['href']}/figure.svg").status_code == 404
            assert two.get("/v1/jobs").json()["jobs"] == two.get("/v1/certificates").json()["certificates"] == []
            assert two.delete(job).status_code == 404
            assert two.delete(link["href"]).status_code == 404
            assert two.patch(link["href"], json={"public": True}).status_code == 404
            theirs = two.post("/v1/projections", files=files, headers={"Idempotency-Key": "mine", "Prefer": "wait=30"})
            assert theirs.json()["cached"] is False
            assert two.get("/v1/jobs").json()["jobs"][0]["href"] != job
            assert two.delete(link["href"]).status_code == 204, "his own of the same name"
            assert one.get(link["href"]).status_code == 200
            module = {"modules": {"m": {"certificate": link["digest"]}}, "couplings": []}
            body = {"spec": (None, json.dumps(module), "application/json"), "weights": ("w", weights())}
            assert two.post("/v1/assemblies", files=body).status_code == 422, "nor can it be composed with"
            assert one.post("/v1/certificates", headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert one.patch(link["href"], json={"public": True}).json()["public"] is True
            assert two.get(link["href"]).status_code == 200
            assert two.get(f"{link['href']}/weights").status_code == 404
            mine = one.get(f"{link['href']}/weights")
            assert (mine.status_code, mine.headers["cache-control"].split(",")[0]) == (200, "private")
            assert two.delete(link["href"]).status_code == 404
