"""A small application behind the real gate, on a real socket, over a real database."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from certes_service import problems
from certes_service.server import Protocol
from certes_service.settings import Settings
from certes_service.storage.database import Database
from certes_service.tenancy import routes
from certes_service.tenancy.callers import SCOPES, allow, caller_of, session_of
from certes_service.tenancy.gate import Registry
from certes_service.tenancy.headers import SecurityHeaders
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

DIGEST = "ab" * 32
ALL = frozenset(SCOPES)


@dataclass
class Gated:
    """A running application, and what stands behind its gate."""

    url: str
    port: int
    registry: Registry
    database: Database

    def key(self, tenant: str = "team", scopes: frozenset[str] = ALL, **more: Any) -> str:
        return self.registry.keys.create(tenant, scopes, **more)[1]

    def client(self, key: str | None = None, **more: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, timeout=20.0, headers=headers | more.pop("headers", {}), **more)

    def raw(self, request: str | bytes) -> tuple[int, dict[str, str], bytes]:
        """Bytes as they are, for what no client would send; the first answer, parsed."""
        data = request.encode("latin-1") if isinstance(request, str) else request
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as sock:
            sock.sendall(data)
            answer = b""
            while True:
                more = sock.recv(65536)
                answer += more
                if not more or _complete(answer):
                    break
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split()[1]), headers, body

    def get(self, *headers: str, path: str = "/v1/whoami", method: str = "GET", version: str = "1.1") -> Any:
        """A request with exactly these header lines: status and JSON."""
        status, _, body = self.raw("\r\n".join([f"{method} {path} HTTP/{version}", *headers, "", ""]))
        return status, json.loads(body) if body.startswith(b"{") else body


def _complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return bool(end) and len(body) >= int(line.partition(b":")[2])
    return False


def application(settings: Settings, database: Database) -> tuple[FastAPI, Registry]:
    class Application(FastAPI):
        def build_middleware_stack(self) -> Any:
            return SecurityHeaders(super().build_middleware_stack())

    app = Application(docs_url=None, redoc_url=None, redirect_slashes=False)
    problems.install(app)
    registry = routes.install(app, settings, database)

    async def whoami(request: Request) -> Response:
        caller, session = caller_of(request), session_of(request)
        found: dict[str, Any] = {"caller": None, "session": None}
        if caller is not None:
            found["caller"] = {"tenant": caller.tenant, "scopes": sorted(caller.scopes), "key": caller.key}
        if session is not None:
            found["session"] = session.csrf
        return JSONResponse(found)

    for path in ("/v1/whoami", f"/v1/certificates/{DIGEST}", f"/v1/certificates/{DIGEST}/weights", "/healthz"):
        app.add_api_route(path, whoami, methods=["GET", "HEAD", "DELETE"])

    @app.post("/v1/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type="application/octet-stream")

    @app.get("/v1/scope/{name}")
    async def scoped(request: Request, name: str) -> Response:
        return JSONResponse({"tenant": allow(request, name).tenant})

    @app.get("/")
    async def page() -> Response:
        return HTMLResponse("<title>page</title>")

    @app.get("/drawing.svg")
    async def drawing() -> Response:
        return Response("<svg xmlns='http://www.w3.org/2000/svg'/>", media_type="image/svg+xml")

    @app.get("/v1/crash")
    async def crash() -> Response:
        raise RuntimeError("inside")

    return app, registry


@contextmanager
def gated(data: Path, **settings: Any) -> Iterator[Gated]:
    """The application, running in a thread."""
    wanted = Settings(data=data, **settings)
    database = Database(wanted.database_url)
    database.migrate()
    app, registry = application(wanted, database)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(app, http=Protocol, lifespan="off", log_level="critical", ws="none", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield Gated(f"http://127.0.0.1:{port}", port, registry, database)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        sock.close()
        database.close()
