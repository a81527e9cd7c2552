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
from uvicorn.protocols.http.h11_impl import H11Protocol

from certes_service import create_app
from certes_service.problems import MEDIA_TYPE, PREFIX
from certes_service.settings import Settings
from certes_service.tenancy.hosts import check_binding

#: How long running requests may go on after a signal, in seconds.
GRACE = 10


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
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
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


def run(settings: Settings, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: settings of the service.
        host: address to listen on.
        port: port, 0 for one that the system picks.
        ready: called once with the URL when requests are answered.

    Raises:
        InputError: the address cannot be used. StorageError: the data directory cannot be used.
    """
    with bind(host, port, settings) as sock:
        config = uvicorn.Config(
            create_app(settings),
            http=Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        asyncio.run(_serve(Server(config), sock, ready))


async def _serve(server: uvicorn.Server, sock: socket.socket, ready: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready(url_of(sock))
    await serving
