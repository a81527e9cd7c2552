"""Probes, metrics and logs of a real process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service.asking import SMALL, assert_problem, post_file, weights
from tests.service.conftest import CERTES, Running, environment, running, settings_file
from tests.service.inside import wait_for
from tests.service.postgres import Cluster
from tests.service.test_trouble import long

Serve = Callable[..., Running]


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) -> value, by Prometheus' own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(http: httpx.Client, name: str, **labels: str) -> float:
    response = http.get("/metrics")
    assert response.status_code == 200
    return samples(response.text).get((name, tuple(sorted(labels.items()))), 0.0)


def test_metrics_count_what_happened(serve: Serve) -> None:
    with serve().client() as http:
        for scale in (1.0, 40.0):
            for _ in range(2):
                post_file(http, weights(W=np.array(SMALL) * scale))
        http.get("/nothing-of-the-kind/<script>")
        http.request("BREW", "/v1/jobs")
        assert value(http, "certes_verdicts_total", kind="certificate", verdict="contracting") == 1
        assert value(http, "certes_verdicts_total", kind="certificate", verdict="not_contracting") == 1
        assert value(http, "certes_requests_total", route="/v1/certificates", method="POST", status="200") == 4
        assert value(http, "certes_solve_seconds_count", condition="absolute", states="1-16") == 1
        assert value(http, "certes_jobs_total", state="done") == 2
        text = http.get("/metrics").text
        assert "script" not in text
        assert "BREW" not in text
        assert value(http, "certes_requests_total", route="none", method="GET", status="404") == 1


def test_the_queue_is_shown_and_killed_solvers_are_counted(serve: Serve) -> None:
    with serve(solvers=1).client() as http:
        jobs = [long(http, seed) for seed in (1, 2)]
        assert wait_for(lambda: value(http, "certes_queue_depth", queue="solve", state="running") == 1, 20)
        for job in jobs:
            http.delete(job.headers["location"])
        assert wait_for(lambda: value(http, "certes_solvers_killed_total", reason="cancelled") >= 1, 20)


def test_metrics_can_be_turned_off(serve: Serve) -> None:
    with serve(metrics=False).client() as http:
        assert_problem(http.get("/metrics"), 404, "not-found")
        assert "/metrics" not in http.get("/openapi.json").json()["paths"]


@pytest.mark.slow
def test_a_worker_shows_its_metrics(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = settings_file(tmp_path / "data", metrics_port=port)
    command = [*CERTES, "worker", "--queue", "solve"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(CERTES_CONFIG=str(file))
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline().startswith("Certes works as ")
        assert "certes_jobs_handed_over_total" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        worker.terminate()
        assert worker.wait(20) == 0


def test_ready_says_what_is_missing(serve: Serve) -> None:
    server = serve()
    with server.client() as http:
        assert http.get("/readyz").json() == {"status": "ready", "parts": ["database", "blobs", "queue"]}
        blobs = server.data / "blobs"
        shutil.rmtree(blobs)
        blobs.write_text("in the way")  # root may write where permissions forbid it, but not into a file

        def refused() -> httpx.Response | None:
            response = http.get("/readyz")
            return response if response.status_code == 503 else None

        response = wait_for(refused, 10)
        assert response
        assert "blobs" in assert_problem(response, 503, "not-ready")["detail"]
        assert response.headers["retry-after"]
        assert http.get("/healthz").status_code == 200
        assert_problem(post_file(http, weights()), 503, "storage")
        blobs.unlink()
        blobs.mkdir()
        assert wait_for(lambda: http.get("/readyz").status_code == 200, 10)
        assert post_file(http, weights()).json()["verdict"] == "contracting"


@pytest.mark.slow
def test_ready_while_the_database_hangs(tmp_path: Path, postgres: Cluster, postgres_url: str) -> None:
    """A database that takes connections and answers nothing: not ready, within its patience, and health answers."""
    with running(tmp_path / "data", database=postgres_url) as server, server.client() as http:
        assert http.get("/readyz").status_code == 200
        with postgres.frozen():
            began = time.monotonic()
            response = wait_for(lambda: (r := http.get("/readyz")).status_code == 503 and r, 20)
            assert response
            assert "database" in response.json()["detail"]
            assert time.monotonic() - began < 20
            assert http.get("/healthz").status_code == 200
        assert wait_for(lambda: http.get("/readyz").status_code == 200, 20)


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_logs_name_requests_and_jobs(serve: Serve) -> None:
    server = serve(log_level="info")
    with server.client() as http:
        response = http.post("/v1/certificates?token=hidden", content=b"{", headers={"X-Request-Id": "mine-1"})
        assert response.headers["x-request-id"] == "mine-1"
        for bad in ("a b", "x" * 65, "é".encode()):
            given = http.get("/v1/jobs", headers=[("X-Request-Id", bad)]).headers["x-request-id"]
            assert re.fullmatch(r"[0-9a-f]{32}", given)
        post_file(http, weights(), name="evil\nname.safetensors")
        http.get("/%0d%0ainjected")
        job = http.get("/v1/jobs").json()["jobs"][0]["id"]
        assert_problem(http.get("/nothing"), 404, "not-found")

        def complete() -> list[dict[str, Any]] | None:
            found = lines(server.log)
            return found if any(entry.get("job") == job for entry in found) else None

        found = wait_for(complete, 10)
    assert found, server.log.read_text()
    requests = [entry for entry in found if entry["event"] == "request"]
    assert {"request": "mine-1", "route": "/v1/certificates", "method": "POST", "status": 415}.items() <= (
        requests[0].items()
    )
    assert requests[0]["tenant"] == "local"
    opened = next(entry for entry in found if job in entry["event"])
    assert opened["request"], "the line that opens a job says for which request"
    assert "hidden" not in server.log.read_text()
    assert "injected" not in server.log.read_text()


def test_logs_for_people(serve: Serve) -> None:
    server = serve(log_level="info", log_format="console")
    with server.client() as http:
        http.get("/v1/jobs")
        assert wait_for(lambda: "/v1/jobs" in server.log.read_text(), 10)


def test_an_ending_service_is_not_ready_and_lets_go(serve: Serve) -> None:
    """SIGTERM: a stream ends, a call that waits is told of its job, the process ends in time with 0."""
    server = serve(solvers=1, grace_seconds=1.0)
    with server.client() as http:
        job = long(http, 3).headers["location"]
        with http.stream("GET", f"{job}/events") as stream:
            events = stream.iter_lines()
            assert next(events).startswith("event: state")
            os.kill(server.process.pid, signal.SIGTERM)
            rest = list(events)
        assert not any(line == "event: end" for line in rest)
    assert server.process.wait(20) == 0


@pytest.mark.parametrize("verb", ["worker", "serve"])
def test_a_wrong_option_is_told(tmp_path: Path, verb: str) -> None:
    wrong = ["--queue", "sleep"] if verb == "worker" else ["--port", "99999"]
    done = subprocess.run(
        [*CERTES, verb, *wrong, "--data", str(tmp_path / "d")], capture_output=True, text=True, check=False,
        timeout=60, env=environment(),
    )  # fmt: skip
    assert done.returncode == 2
    assert not (tmp_path / "d").exists()
