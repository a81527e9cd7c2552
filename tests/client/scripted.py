"""A loopback server that answers as it is told: any status, late, half, not at all; and one that lies."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from certes_client import Retry

JOB = "0123456789abcdef0123456789abcdef"
#: So that a test does not wait.
QUICK = Retry(attempts=4, first=0.01, most=0.05, patience=5.0)


@dataclass
class Asked:
    """A request as it came.

    Attributes:
        method, path, headers: of it; names of headers in lower case.
        body: its bytes.
        pieces: how many reads of at most 64 KiB brought it.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    at: float = 0.0


Answer = Callable[["Handler", Asked], None]


class Handler(BaseHTTPRequestHandler):
    """Does what the script says."""

    protocol_version = "HTTP/1.1"
    server: Scripted

    def _do(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = bytearray()
        while len(body) < length and (piece := self.rfile.read(min(65536, length - len(body)))):
            self.server.received += len(piece)
            if self.server.keep_bodies:
                body += piece
            else:
                length -= len(piece)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, bytes(body), time.monotonic())
        with self.server.lock:
            self.server.asked.append(asked)
            answer = self.server.next(asked)
        answer(self, asked)

    do_GET = do_POST = do_DELETE = do_PATCH = _do

    def reply(self, status: int, body: bytes, media: str = "application/json", **headers: str) -> None:
        """A whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Break the connection so that the other side sees a reset, not an end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        # what the base class does with the streams afterwards has nothing to do any more
        self.wfile = self.rfile = open("/dev/null", "r+b", buffering=0)  # type: ignore[assignment]  # noqa: SIM115

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Scripted(ThreadingHTTPServer):
    """Answers with the script, one entry for each request; the last entry for all that follow.

    Attributes:
        asked: every request.
        received: bytes of bodies.
    """

    daemon_threads = True
    keep_bodies = True

    def __init__(self, script: list[Answer] | Callable[[Asked], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.asked, self.received = script, [], 0  # type: ignore[var-annotated]
        self.lock = threading.Lock()

    def next(self, asked: Asked) -> Answer:
        """What answers this request."""
        if callable(self.script):
            return self.script(asked)
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def scripted(script: list[Answer] | Callable[[Asked], Answer]) -> Iterator[Scripted]:
    """A server for the time of the block."""
    server = Scripted(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def says(value: Any, status: int = 200, media: str = "application/json", **headers: str) -> Answer:
    """A JSON answer."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda handler, _: handler.reply(status, body, media, **headers)


def problem(status: int, slug: str, **headers: str) -> Answer:
    """A problem as the service tells it."""
    body = {"type": f"urn:certes:error:{slug}", "title": slug, "status": status, "detail": f"said {slug}"}
    return says(body, status, "application/problem+json", **headers)


def reset(handler: Handler, _: Asked) -> None:
    """No answer at all."""
    handler.reset()


def half(handler: Handler, _: Asked) -> None:
    """Half an answer, then a reset."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"status": "o')
    handler.wfile.flush()
    time.sleep(0.05)
    handler.reset()


def job(
    state: str, answer: Any = None, *, attempt: int = 1, message: str | None = None, error: Any = None
) -> dict[str, Any]:
    """A job as the service tells it."""
    progress = None if message is None else {"phase": "solving", "fraction": 0.5, "message": message}
    return {
        "id": JOB, "state": state, "attempt": attempt, "progress": progress, "answer": answer, "error": error,
        "kind": "certificate", "href": f"/v1/jobs/{JOB}",
    }  # fmt: skip


def event(kind: str, data: Any, name: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"id: {name}\n" if name is not None else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def stream(*pieces: bytes, then: Answer | None = None, pause: float = 0.01) -> Answer:
    """Events without a length; afterwards the connection ends, or is broken."""

    def answer(handler: Handler, asked: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(pause)
        handler.close_connection = True
        if then is not None:
            then(handler, asked)

    return answer
