"""When things go wrong inside: damage, crashes, too much to do. Never a wrong answer, always a problem."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from certes_service.tenancy.callers import LOCAL

from tests.service.asking import SMALL, SPEC, assert_problem, post_file, weights
from tests.service.conftest import Running
from tests.service.inside import wait_for

Serve = Callable[..., Running]


def _blobs(data: Path) -> list[Path]:
    return [path for path in (data / "blobs").rglob("*") if path.is_file()]


def long(http: httpx.Client, seed: int, **body: Any) -> httpx.Response:
    """A question that keeps a solver busy for most of a minute; asked without waiting."""
    matrix = 0.6 * np.random.default_rng(seed).standard_normal((60, 60)) / np.sqrt(60)
    spec = {**SPEC, "condition": "lure", "backend": "cvxpy-scs", "seconds": 50.0}
    body = {"spec": spec, "tensors": {"W": matrix.tolist()}, **body}
    return http.post("/v1/certificates", json=body, headers={"Prefer": "respond-async"})


def test_damaged_blob_is_never_handed_out(serve: Serve) -> None:
    server = serve()
    with server.client() as http:
        link = post_file(http, weights()).json()["certificate"]
        for blob in _blobs(server.data):
            blob.write_bytes(blob.read_bytes()[:-1] + b"?")
        assert_problem(http.get(link["href"]), 503, "storage")
        assert_problem(http.get(link["proof"]), 503, "storage")
        again = post_file(http, weights()).json()
        assert again["certificate"]["digest"] == link["digest"], "asked anew, and the store is whole again"
        assert again["cached"] is False
        assert http.get(link["href"]).status_code == 200


def test_swapped_record_is_never_handed_out(serve: Serve) -> None:
    """The row of one certificate under the name of another: every blob is intact, and yet it is the wrong one."""
    server = serve()
    with server.client() as http:
        one, two = (post_file(http, weights(W=np.array(SMALL) * k)).json()["certificate"]["digest"] for k in (1, 0.5))
        with sqlite3.connect(server.data / "certes.db") as database:
            database.execute(
                "UPDATE certificates SET (envelope, proof) ="
                " (SELECT envelope, proof FROM certificates WHERE digest = ?) WHERE digest = ?",
                (two, one),
            )
        database.close()
        assert_problem(http.get(f"/v1/certificates/{one}"), 503, "storage")
        assert http.get(f"/v1/certificates/{two}").status_code == 200


def test_swapped_answer_is_never_handed_out(serve: Serve) -> None:
    """The remembered answer of one question in the row of another: asked anew."""
    server = serve()
    with server.client() as http:
        stable, unstable = (weights(W=np.array(SMALL) * k) for k in (1.0, 40.0))
        assert post_file(http, stable).json()["verdict"] == "contracting"
        with sqlite3.connect(server.data / "certes.db") as database:
            [(good,)] = database.execute("SELECT answer FROM answers").fetchall()
            assert post_file(http, unstable).json()["verdict"] == "not_contracting"
            database.execute("UPDATE answers SET answer = ?", (good,))
        database.close()
        again = post_file(http, unstable).json()
        assert (again["verdict"], again["cached"]) == ("not_contracting", False)


def test_crowded_and_busy_while_health_answers(serve: Serve) -> None:
    server = serve(solvers=1, queue=2)
    with server.client() as http, ThreadPoolExecutor(1) as pool:
        jobs = [long(http, seed) for seed in (1, 2)]
        assert [job.status_code for job in jobs] == [202, 202]
        assert http.get("/healthz").status_code == 200
        refused = long(http, 3)
        assert_problem(refused, 429, "crowded")
        assert refused.headers["retry-after"]
        assert long(http, 1).json()["id"] == jobs[0].json()["id"], "the same question is the same job"
        # what is answered without a job waits for a solver too, and not for ever
        asked = pool.submit(long, http, 4, store=False)
        assert http.get("/healthz").status_code == 200
        for job in jobs:
            assert http.delete(job.headers["location"]).json()["state"] == "cancelled"
        asked.result()
        assert post_file(http, weights()).json()["verdict"] == "contracting"


@pytest.mark.slow
def test_a_crowd_that_waits_for_solvers_is_refused(serve: Serve) -> None:
    """Verifications and questions that keep nothing are no jobs; they are counted all the same."""
    server = serve(solvers=1, queue=1)
    with server.client() as http, ThreadPoolExecutor(6) as pool:
        headers = {"Prefer": "wait=20"}
        matrix = (0.6 * np.random.default_rng(5).standard_normal((60, 60)) / np.sqrt(60)).tolist()
        spec = {**SPEC, "condition": "lure", "backend": "cvxpy-scs", "seconds": 3.0}

        def ask(scale: float) -> httpx.Response:
            tensors = {"W": (np.array(matrix) * scale).tolist()}
            return http.post(
                "/v1/certificates", json={"spec": spec, "tensors": tensors, "store": False}, headers=headers
            )

        answers = list(pool.map(ask, [1.0, 0.99, 0.98, 0.97, 0.96, 0.95]))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < 6
        for answer in refused:
            assert_problem(answer, 503, "busy")
            assert answer.headers["retry-after"]
        assert _blobs(server.data) == [], "and nothing was kept"


def test_a_solver_that_dies_is_a_problem_without_insides(serve: Serve) -> None:
    """A solver killed from outside, each time that it begins: the job ends in a problem, the service goes on."""
    server = serve(solvers=1)
    with server.client() as http:
        job = long(http, 6).headers["location"]

        def ended() -> Any:
            for child in _children(server.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            found = http.get(job).json()
            return found if found["state"] in ("failed", "done") else None

        found = wait_for(ended, 60)
        assert found
        assert (found["state"], found["answer"]) == ("failed", None) or found["answer"]["verdict"] == "undecided", found
        assert "Traceback" not in json.dumps(found)
        assert http.get("/healthz").status_code == 200
        assert post_file(http, weights()).json()["verdict"] == "contracting"


def _children(parent: int) -> list[int]:
    """Processes that it has begun, by the kernel's own list."""
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.slow
def test_real_solve_does_not_block(serve: Serve) -> None:
    """While a solver works at its hardest, health answers."""
    with serve(solvers=2).client() as http:
        jobs = [long(http, seed) for seed in (7, 8)]
        times = []
        for _ in range(200):
            begin = time.monotonic()
            assert http.get("/healthz").status_code == 200
            times.append(time.monotonic() - begin)
        assert sorted(times)[100] < 0.25, "a time limit on the median; benchmarks measure the rest"
        for job in jobs:
            http.delete(job.headers["location"])


def test_jobs_belong_to_the_local_tenant(serve: Serve) -> None:
    """Without keys all is one tenant's, and its folder has his name."""
    server = serve()
    with server.client() as http:
        post_file(http, weights())
        assert [path.name for path in (server.data / "blobs").iterdir() if path.is_dir()].count(LOCAL.tenant) == 1
