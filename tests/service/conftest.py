"""A real server, as a process of its own on a real socket, with a data directory of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from certes_service.settings import PREFIX

from tests.service.forked import Forked, completed
from tests.service.postgres import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]  # fixtures

MIB = 2**20
CERTES = [sys.executable, "-m", "certes_client"]


@dataclass
class Running:
    """A server, its data directory and what it logs."""

    url: str
    data: Path
    process: Forked = field(repr=False)
    log: Path

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60.0, **options)


def environment(**more: str) -> dict[str, str]:
    """This process's, without settings of the service."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return own | {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | more


def settings_file(data: Path, **settings: Any) -> Path:
    """A file of settings: whatever JSON and TOML agree on."""
    plain = {
        name: value.decode() if isinstance(value, bytes) else str(value) if isinstance(value, Path) else value
        for name, value in {"data": data, **settings}.items()
    }
    file = data.with_name(f"{data.name}.toml")
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in plain.items()))
    return file


@contextmanager
def running(data: Path, *, env: dict[str, str] | None = None, **settings: Any) -> Iterator[Running]:
    """``certes serve`` with these settings, and what it says it listens on."""
    file = settings_file(data, **{"port": 0, "grace_seconds": 1.0, "solvers": 1, **settings})
    log = data.with_name(f"{data.name}.log")
    log.write_text("")
    process = Forked(["serve"], environment(CERTES_CONFIG=str(file), **(env or {})), log)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"Certes is listening on (http://\S+)\n", line)
        assert found is not None, (line, log.read_text())
        yield Running(found.group(1), data, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        process.stdout.close()


def create_key(tenant: str, *options: str, **env: str) -> str:
    """What ``certes keys create`` makes for a tenant."""
    made = completed(["keys", "create", "--tenant", tenant, "--json", *options], environment(**env))
    assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    return key


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that do not change its settings."""
    data = tmp_path_factory.mktemp("service") / "data"
    with running(data, max_body_bytes=8 * MIB, max_json_bytes=MIB, max_states=300, train_seconds=60) as server:
        yield server


@pytest.fixture(scope="session")
def http(service: Running) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start servers with settings of one's own."""
    with ExitStack() as servers:

        def start(**settings: Any) -> Running:
            return servers.enter_context(running(settings.pop("data", tmp_path / "data"), **settings))

        yield start
