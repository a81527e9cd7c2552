"""What goes through the pipes between a worker and its solver processes: JSON and bytes, never a pickle.

A message is ``CRTS``, the length of its header (4 bytes, little-endian), the header (JSON, ASCII) and its blobs, one
after the other; the header's entry ``blobs`` lists them as [name, length]. Nothing else is ever written to these pipes:
what libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from certes.errors import CertesError, InputError, MissingExtraError, TooLargeError

from certes_service.questions.base import Solved

MAGIC = b"CRTS"
_PREFIX = len(MAGIC) + 4
#: Bytes of a header, and of all blobs of a message.
MOST_HEADER, MOST_BLOBS = 2**30, 2**40
_CHUNK = 2**20


class GarbledError(Exception):
    """Bytes that are no message."""


@dataclass(frozen=True)
class Message:
    """A header and its blobs.

    Attributes:
        header: JSON object with an entry ``type``.
        blobs: name -> bytes.
    """

    header: dict[str, Any]
    blobs: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def type(self) -> str:
        """What it is about."""
        return str(self.header.get("type"))

    def chunks(self) -> Iterator[bytes]:
        """Its bytes; large ones are not copied.

        Raises:
            ValueError: a number that is not finite.
        """
        listed = [[name, len(data)] for name, data in self.blobs.items()]
        header = json.dumps(self.header | {"blobs": listed}, allow_nan=False, separators=(",", ":")).encode("ascii")
        yield MAGIC + len(header).to_bytes(4, "little") + header
        yield from (data for data in self.blobs.values() if data)


class Decoder:
    """Bytes as they come in, to messages.

    Args:
        most: bytes of the blobs of one message that are accepted.
    """

    def __init__(self, most: int = MOST_BLOBS) -> None:
        self._most = most
        self._buffer = bytearray()
        self._header: dict[str, Any] | None = None
        self._blobs: list[tuple[str, int]] = []

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with these bytes.

        Raises:
            GarbledError: no message begins so.
        """
        self._buffer += data
        while (found := self._next()) is not None:
            yield found

    def _next(self) -> Message | None:
        if self._header is None:
            if not MAGIC.startswith(self._buffer[: len(MAGIC)]):
                raise GarbledError(f"{bytes(self._buffer[:16])!r} where a message begins")
            if len(self._buffer) < _PREFIX:
                return None
            length = int.from_bytes(self._buffer[len(MAGIC) : _PREFIX], "little")
            if length > MOST_HEADER:
                raise GarbledError(f"a header of {length} bytes")
            if len(self._buffer) < _PREFIX + length:
                return None
            self._header, self._blobs = _header(bytes(self._buffer[_PREFIX : _PREFIX + length]), self._most)
            del self._buffer[: _PREFIX + length]
        if len(self._buffer) < sum(size for _, size in self._blobs):
            return None
        blobs, position = {}, 0
        with memoryview(self._buffer) as view:
            for name, size in self._blobs:
                blobs[name] = bytes(view[position : position + size])
                position += size
        del self._buffer[:position]
        header, self._header = self._header, None
        return Message(header, blobs)


def _header(data: bytes, most: int) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    try:
        header = json.loads(data)
        blobs = [(str(name), int(size)) for name, size in header.pop("blobs")]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise GarbledError(f"a header that is none ({error})") from error
    sizes = [size for _, size in blobs]
    if min(sizes, default=0) < 0 or sum(sizes) > most:
        raise GarbledError(f"blobs of {sum(sizes)} bytes")
    return header, blobs


def read(descriptor: int, decoder: Decoder) -> Message | None:
    """The next message of a pipe, blocking; None at its end. At most one may be under way.

    Raises:
        GarbledError: the pipe ends inside a message, or what comes is none.
    """
    begun = False
    while data := os.read(descriptor, _CHUNK):
        begun = True
        for message in decoder.feed(data):
            return message
    if begun:
        raise GarbledError("the end inside a message")
    return None


def write(descriptor: int, message: Message) -> None:
    """Write a message, blocking."""
    for chunk in message.chunks():
        view = memoryview(chunk)
        while view:
            view = view[os.write(descriptor, view) :]


def solved_message(solved: Solved) -> Message:
    """An answer as it travels."""
    header: dict[str, Any] = {"type": "solved", "answer": solved.answer, "root": solved.root}
    header["assembly"], header["states"], header["lasting"] = solved.assembly, solved.states, solved.lasting
    header["documents"], header["proofs"] = list(solved.documents), list(solved.proofs)
    blobs = {f"document {digest}": data for digest, data in solved.documents.items()}
    blobs |= {f"proof {digest}": data for digest, data in solved.proofs.items()}
    if solved.weights is not None:
        blobs["weights"] = solved.weights
    return Message(header, blobs)


def solved_of(message: Message) -> Solved:
    """The answer that a message is.

    Raises:
        GarbledError: it is none.
    """
    header, blobs = message.header, message.blobs
    if not isinstance(header.get("answer"), dict) or not isinstance(header.get("root"), str | None):
        raise GarbledError("an answer that is none")
    try:
        return Solved(
            header["answer"],
            {digest: blobs[f"document {digest}"] for digest in header["documents"]},
            {digest: blobs[f"proof {digest}"] for digest in header["proofs"]},
            header["root"],
            blobs.get("weights"),
            header["assembly"] is True,
            header["states"] if type(header.get("states")) is int else None,
            header["lasting"] is True,
        )
    except (KeyError, TypeError) as error:
        raise GarbledError(f"an answer without {error}") from error


def error_message(error: CertesError) -> Message:
    """An error that is the answer to a question."""
    header: dict[str, Any] = {"type": "refused"}
    if isinstance(error, MissingExtraError):
        purpose = str(error).partition(" needs the package ")[0]
        header |= {"package": error.package, "extra": error.extra, "purpose": purpose}
    elif isinstance(error, InputError):
        header |= {name: getattr(error, name) for name in ("field", "given", "expected", "slug")}
        if isinstance(error, TooLargeError):
            header["limit"] = error.limit
    else:
        header["text"] = str(error)
    return Message(header)


def error_of(message: Message) -> CertesError:
    """The error that a message is.

    Raises:
        GarbledError: it is none.
    """
    header = message.header
    try:
        if "package" in header:
            return MissingExtraError(header["package"], header["extra"], header["purpose"])
        if "limit" in header:
            unit = header["expected"].removeprefix(f"at most {header['limit']} ")
            return TooLargeError(header["field"], header["given"], int(header["limit"]), unit)
        if "field" in header:
            return InputError(header["field"], header["given"], header["expected"], header["slug"])
        return CertesError(header["text"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GarbledError(f"an error without {error}") from error
