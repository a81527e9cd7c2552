"""A proxy on a real socket that breaks connections: what a bad network does to a stream of events."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Cutting:
    """Passes everything on, and breaks streams of events.

    Args:
        url: of the server behind it.
        cuts: per stream of events, after which bytes of it the connection breaks; streams beyond them are left alone.

    Attributes:
        resumed: of each stream of events, its Last-Event-ID; None: it had none.
        broken: what had passed of each stream that was broken.
    """

    def __init__(self, url: str, cuts: list[re.Pattern[bytes]]) -> None:
        self._behind, self._cuts = urlsplit(url), cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.resumed: list[str | None] = []
        self.broken: list[bytes] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Until it is closed."""
        with contextlib.suppress(OSError):
            while True:
                front, _ = self._listener.accept()
                threading.Thread(target=self._pass, args=(front,), daemon=True).start()

    def close(self) -> None:
        """No more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pass(self, front: socket.socket) -> None:
        """One request: connections are not kept, so that each has a fate of its own."""
        with front, socket.create_connection((self._behind.hostname, self._behind.port)) as back:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := front.recv(65536)):
                    return
                head += piece
            cut = self._cut(head)
            back.sendall(
                re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", head).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            )
            threading.Thread(target=self._upwards, args=(front, back), daemon=True).start()
            passed = b""
            with contextlib.suppress(OSError):
                while piece := back.recv(65536):
                    passed += piece
                    found = cut.search(passed) if cut is not None else None
                    if found is not None:
                        front.sendall(piece[: len(piece) - (len(passed) - found.end())])
                        self.broken.append(passed[: found.end()])
                        break
                    front.sendall(piece)
            with contextlib.suppress(OSError):
                front.shutdown(socket.SHUT_RDWR)  # the other thread still holds it open

    @staticmethod
    def _upwards(front: socket.socket, back: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := front.recv(65536):
                back.sendall(piece)

    def _cut(self, head: bytes) -> re.Pattern[bytes] | None:
        if b"/events" not in head.partition(b"\r\n")[0]:
            return None
        found = re.search(rb"(?i)\r\nlast-event-id: ([^\r]*)", head)
        self.resumed.append(None if found is None else found.group(1).decode())
        return self._cuts.pop(0) if self._cuts else None


@contextmanager
def cutting(url: str, cuts: list[re.Pattern[bytes]]) -> Iterator[Cutting]:
    """A proxy for the time of the block."""
    proxy = Cutting(url, cuts)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
