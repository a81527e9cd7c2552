"""Server-sent events, as bytes arrive (the parser of the WHATWG's HTML standard, section 9.2.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from certes_client.remote.errors import BadAnswer

#: Most bytes of one event; the last one carries the answer with its certificate.
MOST = 256 * 2**20
_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        kind: its name; ``message`` where it has none.
        data: its lines, joined.
        id: the last id that was sent, empty if none was.
    """

    kind: str
    data: str
    id: str


class Parser:
    """Makes events of bytes, wherever they are cut.

    Args:
        most: bytes of one event.

    Attributes:
        last_id: the last id that was sent; empty if none was.
        alive: whether an event or a comment came: whoever sends it speaks of events.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._rest = bytearray()
        self._kind = ""
        self._data: list[str] = []
        self._size = 0
        self._begun = False
        self.last_id = ""
        self.alive = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that these bytes complete.

        Raises:
            BadAnswer: one that never ends.
        """
        fresh = self._rest.endswith(b"\r") or b"\n" in chunk or b"\r" in chunk
        self._rest += chunk
        if not self._begun and len(self._rest) >= 3:
            self._begun = True
            if self._rest.startswith(b"\xef\xbb\xbf"):
                del self._rest[:3]
        for line in self._lines() if fresh else ():
            if (event := self._line(line)) is not None:
                yield event
        if len(self._rest) + self._size > self._most:
            raise BadAnswer(f"the service sent an event of more than {self._most} bytes")

    def _lines(self) -> list[str]:
        """Whole lines; a CR at the very end may still have its LF to come."""
        held = self._rest.endswith(b"\r")
        *whole, rest = _END.split(bytes(self._rest[:-1] if held else self._rest))
        self._rest = bytearray(rest + (b"\r" if held else b""))
        return [line.decode("utf-8", "replace") for line in whole]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        self.alive = self.alive or line.startswith(":")
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
            self._size += len(value)
        elif name == "id" and "\0" not in value:
            self.last_id = value
        return None

    def _dispatch(self) -> Event | None:
        data, kind = self._data, self._kind or "message"
        self._kind, self._data, self._size = "", [], 0
        self.alive = self.alive or bool(data)
        return Event(kind, "\n".join(data), self.last_id) if data else None
