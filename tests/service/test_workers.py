"""Workers that are killed, stopped, and told to end: every job has one answer, from whoever owns it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.service.asking import SPEC, post_file, weights
from tests.service.inside import wait_for
from tests.service.workers import children, fleet, followed


def ask(http: httpx.Client, seed: int, seconds: float = 4.0, **body: object) -> str:
    """A question that keeps a solver busy for about so many seconds; its job."""
    matrix = 0.6 * np.random.default_rng(seed).standard_normal((60, 60)) / np.sqrt(60)
    spec = {**SPEC, "condition": "lure", "backend": "cvxpy-scs", "seconds": seconds}
    response = http.post(
        "/v1/certificates", json={"spec": spec, "tensors": {"W": matrix.tolist()}, **body},
        headers={"Prefer": "respond-async"},
    )  # fmt: skip
    assert response.status_code == 202, response.text
    return response.headers["location"]


def ended(http: httpx.Client, job: str, seconds: float = 60.0) -> dict[str, object]:
    found = wait_for(lambda: (now := http.get(job).json())["finished"] and now, seconds)
    assert found, http.get(job).json()
    return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_killed_workers_job_goes_on_elsewhere(tmp_path: Path, postgres_url: str, database: str) -> None:
    """Within 30 seconds with the times that are the default: a beat of 5 s, a lease of 15 s."""
    settings = {"beat_seconds": 5.0, "lease_seconds": 15.0}
    if database == "postgresql":
        settings |= {"database": postgres_url}  # type: ignore[dict-item]
    with fleet(tmp_path / "data", 1, **settings) as made, made.client() as http:
        job = ask(http, 1, 3.0)
        assert wait_for(lambda: http.get(job).json()["state"] == "running", 20)
        made.start()
        killed = time.monotonic()
        made.workers[0].kill()
        again = wait_for(lambda: http.get(job).json()["attempt"] == 2, 60)
        assert again
        assert time.monotonic() - killed < 30, "a limit that the issue names"
        found = ended(http, job)
        assert (found["state"], found["attempt"]) == ("done", 2)


@pytest.mark.slow
def test_a_worker_that_was_stopped_past_its_lease_changes_nothing(tmp_path: Path, postgres_url: str) -> None:
    """SIGSTOP, its job goes to another and ends; SIGCONT: the answer, its time and the blobs stay as they are."""
    with fleet(tmp_path / "data", 1, database=postgres_url) as made, made.client() as http:
        job = ask(http, 2, 3.0)
        assert wait_for(lambda: http.get(job).json()["state"] == "running", 20)
        stopped = made.workers[0]
        for pid in [stopped.process.pid, *children(stopped.process.pid)]:
            os.kill(pid, signal.SIGSTOP)
        made.start()
        before = ended(http, job)
        assert (before["state"], before["attempt"]) == ("done", 2)
        blobs = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()}
        for pid in [stopped.process.pid, *children(stopped.process.pid)]:
            os.kill(pid, signal.SIGCONT)
        # it is alive again: give it work, so that one knows that it has seen what became of its job
        other = ask(http, 3, 0.5)
        ended(http, other)
        time.sleep(2.0)
        assert http.get(job).json() == before
        left = {path: path.stat().st_mtime_ns for path in blobs if path.exists()}
        assert left == blobs
        listed = http.get("/v1/jobs").json()["jobs"]
        assert len(listed) == 2


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_hands_its_job_over_at_once(tmp_path: Path) -> None:
    settings = {"beat_seconds": 20.0, "lease_seconds": 60.0, "grace_seconds": 0.2}
    with fleet(tmp_path / "data", 1, **settings) as made, made.client() as http:
        job = ask(http, 4, 3.0)
        assert wait_for(lambda: http.get(job).json()["state"] == "running", 20)
        made.start()
        made.workers[0].process.terminate()
        assert made.workers[0].process.wait(20) == 0
        found = ended(http, job, 50)
        assert (found["state"], found["attempt"]) == ("done", 2), "long before the lease of a minute is over"


@pytest.mark.slow
def test_the_api_is_killed_and_comes_back(tmp_path: Path) -> None:
    """Jobs go on without it, and their addresses are the same afterwards."""
    with fleet(tmp_path / "data", 1) as made:
        with made.client() as http:
            job = ask(http, 5, 3.0)
            assert wait_for(lambda: http.get(job).json()["state"] == "running", 20)
        made.api.process.kill()
        made.api.process.wait(20)
        with fleet(tmp_path / "data", 0) as again, again.client() as http:
            found = ended(http, job)
            assert (found["state"], found["attempt"]) == ("done", 1)


@pytest.mark.slow
def test_many_processes_on_one_sqlite_file(tmp_path: Path) -> None:
    """Three workers and an API: every question once, no lock that lasts."""
    with fleet(tmp_path / "data", 3) as made, made.client() as http:
        jobs = []
        for k in range(30):
            data = weights(W=np.array([[0.2, -0.5], [0.4, 0.1]]) * (0.5 + k / 64))
            jobs.append(post_file(http, data))
        assert all(response.status_code in (200, 202) for response in jobs)
        for entry in http.get("/v1/jobs?limit=100").json()["jobs"]:
            found = ended(http, entry["href"])
            assert (found["state"], found["attempt"]) == ("done", 1)
        assert len(http.get("/v1/jobs?limit=100").json()["jobs"]) == 30


@pytest.mark.slow
def test_a_row_of_another_serialisation_is_refused(tmp_path: Path) -> None:
    """Somebody who can write the queue's database puts a pickle into it: it is not unpickled."""
    marker = tmp_path / "unpickled"
    with fleet(tmp_path / "data", 1) as made, made.client() as http:
        assert post_file(http, weights()).status_code in (200, 202)
        ended(http, http.get("/v1/jobs").json()["jobs"][0]["href"])
        import base64
        import pickle

        class Evil:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(marker),)

        evil = base64.b64encode(pickle.dumps(((Evil(),), {}))).decode()
        with sqlite3.connect(tmp_path / "data" / "jobs.db", timeout=20) as database:
            columns = [row[1] for row in database.execute("PRAGMA table_info(workflow_status)")]
            names = ", ".join(f'"{name}"' for name in columns)
            values = {"workflow_uuid": "'evil'", "status": "'ENQUEUED'", "serialization": "NULL", "inputs": f"'{evil}'"}
            chosen = ", ".join(values.get(name, f'"{name}"') for name in columns)
            database.execute(f"INSERT INTO workflow_status ({names}) SELECT {chosen} FROM workflow_status LIMIT 1")
            database.execute("UPDATE workflow_status SET queue_name = 'solve' WHERE workflow_uuid = 'evil'")
        database.close()
        again = post_file(http, weights(W=[[0.3]]))
        assert again.status_code in (200, 202)
        for entry in http.get("/v1/jobs").json()["jobs"]:
            assert ended(http, entry["href"])["state"] == "done"
        time.sleep(1.0)
        assert not marker.exists()


@pytest.mark.slow
def test_events_of_a_job(tmp_path: Path) -> None:
    with fleet(tmp_path / "data", 1) as made, made.client() as http:
        job = ask(http, 6, 1.5)
        events = followed(http, job)
        kinds = [kind for kind, _ in events]
        assert kinds[0] == "state"
        assert kinds[-1] == "end"
        assert kinds.count("end") == 1
        assert set(kinds) <= {"state", "progress", "end"}
        states = [data["state"] for _, data in events]
        assert states == sorted(states, key=["queued", "running", "done"].index)
        assert events[-1][1]["answer"]["verdict"] in ("contracting", "undecided")
        late = followed(http, job)
        assert [kind for kind, _ in late] == ["end"], "who comes late has missed nothing"
        assert late[0][1] == events[-1][1]
