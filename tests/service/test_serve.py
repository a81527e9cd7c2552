"""``certes serve`` as a process: ready line, refusal to go remote, clean end, write failures for real."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from certes_service.tenancy.hosts import is_loopback

from tests.service.asking import assert_problem, post_file, weights

SERVE = [sys.executable, "-m", "certes_client", "serve"]


@contextmanager
def process(data: Path, *options: str, **popen: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [*SERVE, "--port", "0", "--data", str(data), *options]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        found = re.fullmatch(r"Certes is listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert found is not None, (line, child.communicate(timeout=20))
        yield child, found.group(1)
    finally:
        child.kill()
        child.communicate()


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
    """The kernel refuses files beyond 500 bytes: no certificate fits."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with (
        process(tmp_path / "data", preexec_fn=limit, env=env) as (_, url),
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        assert_problem(post_file(http, weights()), 503, "storage")
        assert http.get("/healthz").status_code == 200
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


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
    done = subprocess.run(
        [*SERVE, "--port", "0", "--data", str(tmp_path / "d"), "--host", host],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "--allow-remote" in done.stderr
    assert not (tmp_path / "d").exists()


def test_remote_with_leave(tmp_path: Path) -> None:
    command = [*SERVE, "--port", "0", "--data", str(tmp_path / "d"), "--host", "0.0.0.0", "--allow-remote"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("Certes is listening on http://0.0.0.0:")
        child.terminate()
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(
    "setting", [{"CERTES_KEYS": "true"}, {"CERTES_DATABASE": "postgresql://u:secret@h/x"}, {"CERTES_BLOBS": "s3://b"}]
)
def test_a_guard_that_is_not_there_is_refused(tmp_path: Path, setting: dict[str, str]) -> None:
    """Whoever turns keys on must not be served without them."""
    done = subprocess.run(
        [*SERVE, "--port", "0", "--data", str(tmp_path / "d")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | setting,
    )
    assert done.returncode == 2
    assert next(iter(setting)).removeprefix("CERTES_").lower() in done.stderr
    assert "secret" not in done.stderr


def test_data_directory_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [*SERVE, "--port", "0", "--data", str(tmp_path / "file" / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
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
