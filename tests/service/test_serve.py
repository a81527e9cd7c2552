"""``certes serve`` as a process: ready line, refusal to go remote, clean end, write failures for real."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from certes_service.tenancy.hosts import is_loopback

from tests.service.asking import assert_problem, post_file, weights
from tests.service.conftest import CERTES, environment

SERVE = [*CERTES, "serve"]


@contextmanager
def process(data: Path, *options: str, **popen: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [*SERVE, "--port", "0", "--data", str(data), *options]
    popen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment(), **popen}
    child: subprocess.Popen[str] = subprocess.Popen(command, **popen)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        found = re.fullmatch(r"Certes is listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert found is not None, (line, child.communicate(timeout=20))
        yield child, found.group(1)
    finally:
        child.kill()
        child.communicate()


@pytest.mark.cases(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_line_and_clean_end(tmp_path: Path, number: signal.Signals) -> None:
    with process(tmp_path / "data") as (child, url):
        link = post_file(httpx.Client(base_url=url, timeout=60), weights()).json()["certificate"]
        child.send_signal(number)
        out, err = child.communicate(timeout=20)
        assert (child.returncode, out, err) == (0, "", "")
    with process(tmp_path / "data") as (_, url):
        assert httpx.get(url + link["href"]).status_code == 200, "certificates survive a restart"


def test_write_failure_for_real(tmp_path: Path) -> None:
    """The kernel refuses files that grow beyond 2,000 bytes: no proof of this network fits, nor a row of its job."""
    big = weights(W=np.eye(60) * 0.5)
    with process(tmp_path / "data") as (child, url), httpx.Client(base_url=url, timeout=60) as http:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        assert_problem(post_file(http, big), 503, "storage")
        assert http.get("/healthz").status_code == 200
        assert [path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()] == []
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert post_file(http, big).json()["verdict"] == "contracting"


def test_signing_key(tmp_path: Path) -> None:
    from tests.service.test_verifications import PRIVATE, PUBLIC

    (tmp_path / "key.pem").write_bytes(PRIVATE[0])
    options = ("--sign", str(tmp_path / "key.pem"))
    with process(tmp_path / "data", *options) as (_, url), httpx.Client(base_url=url, timeout=60) as http:
        link = post_file(http, weights()).json()["certificate"]
        assert link["signed"]
        files = {
            "certificate": (None, http.get(link["href"]).content, "application/json"),
            "proof": ("p", http.get(link["proof"]).content),
            "weights": ("w", weights()),
            "key": (None, PUBLIC[0]),
        }
        assert http.post("/v1/verifications", files=files).json()["valid"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.invalid"])
def test_refuses_to_go_remote(tmp_path: Path, host: str) -> None:
    done = ended(tmp_path / "d", "--host", host)
    assert done.returncode == 2
    assert "CERTES_KEYS" in done.stderr
    assert not (tmp_path / "d").exists()


def test_remote_with_keys(tmp_path: Path) -> None:
    command = [*SERVE, "--port", "0", "--data", str(tmp_path / "d"), "--host", "0.0.0.0", "--keys"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line.startswith("Certes is listening on http://0.0.0.0:")
        port = line.strip().rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/v1/jobs").status_code == 401
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        child.terminate()
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        child.communicate()


def ended(data: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """``certes serve`` that should end by itself."""
    command = [*SERVE, "--port", "0", "--data", str(data), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment(**more))


def test_a_database_that_is_away(tmp_path: Path) -> None:
    done = ended(tmp_path / "d", CERTES_DATABASE="postgresql://user:secret@127.0.0.1:1/none")
    assert done.returncode == 2
    assert "database" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_data_directory_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = ended(tmp_path / "file" / "x")
    assert done.returncode == 2
    assert "data directory" in done.stderr


def test_address_in_use(tmp_path: Path) -> None:
    with process(tmp_path / "one") as (_, url):
        port = url.rpartition(":")[2]
        command = [*SERVE, "--port", port, "--data", str(tmp_path / "two")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 2
        assert port in done.stderr


@pytest.mark.parametrize(("host", "answer"), [
    ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
    ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example.com", False), ("", False),
])  # fmt: skip
def test_loopback(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


def test_json_is_parsable_openapi(tmp_path: Path) -> None:
    with process(tmp_path / "data") as (_, url):
        assert json.loads(httpx.get(url + "/openapi.json").text)["openapi"].startswith("3.")
