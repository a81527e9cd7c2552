"""Running the application: the socket, one line when it is ready, a clean end on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from certes.errors import InputError
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from certes_service import create_app
from certes_service.problems import MEDIA_TYPE, PREFIX
from certes_service.settings import Settings
from certes_service.tenancy.headers import BARE
from certes_service.tenancy.hosts import check_binding


class Protocol(H11Protocol):
    """HTTP/1.1, answering what is not HTTP with a problem as well."""

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be parsed (header bombs among them)."""
        body = {
            "type": PREFIX + "malformed-request",
            "title": "Malformed request",
            "status": 400,
            "detail": msg,
            "field": "headers",
        }
        data = json.dumps(body).encode()
        bare = "".join(f"{name}: {value}\r\n" for name, value in BARE)
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(data)}\r\n{bare}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + data)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn without its own signal handling: a signal that was obeyed is a success, not a death by signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to :func:`run`."""
        yield


def bind(host: str, port: int, settings: Settings) -> socket.socket:
    """A listening socket; port 0 lets the system pick.

    Raises:
        InputError: beyond loopback without leave, or an address that cannot be had.
    """
    check_binding(settings, host)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        raise InputError(
            "host", f"{host!r}, port {port}: {error.strerror or error}", "an address that is free", "address"
        ) from error
    sock.set_inheritable(False)
    return sock


def url_of(sock: socket.socket) -> str:
    """Where a bound socket is reached."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, where the settings say.

    Args:
        settings: settings of the service.
        ready: called once with the URL when requests are answered.

    Raises:
        InputError: the address cannot be used. StorageError: the database or the blobs cannot be used.
    """
    with bind(settings.host, settings.port, settings) as sock:
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # whoever asks could write them
            timeout_graceful_shutdown=max(1, round(settings.grace_seconds)),
        )
        asyncio.run(_serve(Server(config), app, sock, ready))
        if app.state.failure is not None:
            raise app.state.failure


async def _serve(server: uvicorn.Server, app: FastAPI, sock: socket.socket, ready: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()

    def leave(number: int) -> None:
        app.state.desk.leaving.set()  # who waits for a job is told of it now
        server.handle_exit(number, None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave, number)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready(url_of(sock))
    await serving
