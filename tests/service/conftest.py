"""A real server on a real socket, with a data directory of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from certes_service import Settings, create_app
from certes_service.server import Protocol, Server, bind, url_of

from tests.service.postgres import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]  # fixtures

MIB = 2**20


@dataclass
class Running:
    """A server in a thread."""

    url: str
    data: Path
    app: Any

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60.0, **options)


@contextmanager
def running(data: Path, **limits: Any) -> Iterator[Running]:
    settings = Settings(data=data, **limits)
    app = create_app(settings)
    sock = bind("127.0.0.1", 0, settings)
    config = uvicorn.Config(
        app, http=Protocol, lifespan="off", log_level="critical", ws="none", timeout_graceful_shutdown=5
    )
    server = Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield Running(url_of(sock), data, app)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        sock.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that do not change its settings."""
    with running(tmp_path_factory.mktemp("data"), max_body_bytes=8 * MIB, max_json_bytes=MIB, max_states=300) as server:
        yield server


@pytest.fixture(scope="session")
def http(service: Running) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start servers with settings of one's own."""
    managers = []

    def start(**limits: Any) -> Running:
        manager = running(limits.pop("data", tmp_path / "data"), **limits)
        managers.append(manager)
        return manager.__enter__()

    yield start
    for manager in managers:
        manager.__exit__(None, None, None)
