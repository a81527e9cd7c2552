"""What a conversation with a service wants done: a call to be sent, or a pause. Nothing here touches a socket."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from certes.errors import InputError

from certes_client.remote.errors import BadAnswer, ServiceError

#: Most bytes of an answer that is held in memory.
MOST = 2**30
FILE, JSON, TEXT = "application/octet-stream", "application/json", "text/plain"


@dataclass(frozen=True)
class Part:
    """A part of a multipart body.

    Attributes:
        value: its bytes, or a file that is read while it is sent, again for each attempt.
        media: its type.
        name: as the service is told what the file is called; None: a plain field.
    """

    value: bytes | Path
    media: str
    name: str | None = None

    @classmethod
    def json(cls, value: Any) -> Part:
        """JSON.

        Raises:
            InputError: numbers that are not finite, or what is no JSON.
        """
        try:
            return cls(json.dumps(value, allow_nan=False).encode(), JSON)
        except (TypeError, ValueError) as error:
            raise InputError("spec", str(error)[:200], "values that JSON has", "wrong-type") from None

    @classmethod
    def file(cls, given: Path | str | os.PathLike[str] | bytes, name: str) -> Part:
        """A file by its path, or its bytes with a name."""
        if isinstance(given, bytes | bytearray | memoryview):
            return cls(bytes(given), FILE, name)
        path = Path(given)
        return cls(path, FILE, path.name)

    def opened(self, stack: ExitStack | AsyncExitStack) -> Any:
        """The part as httpx takes it.

        Raises:
            InputError: the file cannot be read.
        """
        if isinstance(self.value, bytes):
            return (self.name, self.value, self.media)
        try:
            return (self.name, stack.enter_context(self.value.open("rb")), self.media)
        except OSError as error:
            given = f"{self.value.name}: {error.strerror}"
            raise InputError("weights", given, "a file that can be read", "unreadable") from error


@dataclass(frozen=True)
class Call:
    """One HTTP request, as often as it takes.

    Attributes:
        method: GET, POST, PATCH or DELETE.
        path: below the service's address.
        headers: besides those of every call.
        parts: of a multipart body; empty: there is none.
        query: parameters.
        silence: seconds without a byte after which the connection is taken for dead.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    silence: float = 60.0


class Sink(Protocol):
    """Takes the body of a successful answer in pieces, instead of memory."""

    def begin(self) -> None:
        """An answer starts; one that came before in part counts no more."""

    def feed(self, chunk: bytes) -> bool:
        """A piece; returns whether it is enough."""


@dataclass(frozen=True)
class Send:
    """Send a call.

    Attributes:
        call: what.
        sink: takes the body of a successful answer; None: memory.
        until: time of the monotonic clock after which nobody waits for the answer any more.
    """

    call: Call
    sink: Sink | None = None
    until: float | None = None


@dataclass(frozen=True)
class Pause:
    """Do nothing for a while.

    Attributes:
        seconds: how long.
    """

    seconds: float


@dataclass(frozen=True)
class Reply:
    """An answer, whole.

    Attributes:
        status: of HTTP.
        headers: names in lower case.
        body: empty where a sink took it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the service did what was asked."""
        return 200 <= self.status < 300

    @property
    def is_problem(self) -> bool:
        """Whether it is a problem that the service itself tells (RFC 9457)."""
        return self.headers.get("content-type", "").startswith("application/problem+json")

    def object(self) -> dict[str, Any]:
        """The JSON object in it.

        Raises:
            BadAnswer: there is none.
        """
        return parsed(self.body)

    def error(self) -> ServiceError:
        """The problem that it is."""
        try:
            problem = json.loads(self.body)
        except (ValueError, RecursionError):
            text = self.body[:500].decode("utf-8", "replace").strip()
            problem = {"type": "about:blank", "detail": text or f"HTTP status {self.status}"}
        return ServiceError(self.status, problem if isinstance(problem, dict) else {"detail": str(problem)[:500]})


@dataclass(frozen=True)
class Broken:
    """No answer, or half of one.

    Attributes:
        detail: what happened.
    """

    detail: str


Effect = Send | Pause
Outcome = Reply | Broken | None


def parsed(data: bytes | str) -> dict[str, Any]:
    """A JSON object from the service.

    Raises:
        BadAnswer: anything else.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the service answered with something that is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadAnswer(f"the service answered with JSON of type {type(value).__name__}, not with an object")
    return value


class Saved:
    """A sink that writes a file: under another name until it is whole, so that there is never half of it.

    Args:
        target: the file.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._stream: Any = None

    def begin(self) -> None:
        """Start anew."""
        self.discard()
        # it outlives this call
        self._stream = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=self._target.parent, prefix=".", suffix=".part", delete=False
        )

    def feed(self, chunk: bytes) -> bool:
        """Write a piece."""
        self._stream.write(chunk)
        return False

    def finish(self) -> Path:
        """Give the file its name."""
        stream, self._stream = self._stream, None
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
        Path(stream.name).chmod(0o644)
        return Path(stream.name).replace(self._target)

    def discard(self) -> None:
        """Remove what is not whole."""
        if self._stream is not None:
            self._stream.close()
            Path(self._stream.name).unlink(missing_ok=True)
            self._stream = None
