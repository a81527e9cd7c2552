"""A folder that holds how far a long computation has come: ``state.json`` and the tensors that it names.

The tensors are written first, under a name of their own; replacing ``state.json`` is the one step that makes them the
state. So whenever the process dies, the folder holds a whole state: the last or the one before. Numbers in JSON and
tensors in safetensors, nothing that could run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from certes import strictjson
from certes.errors import InputError
from certes.weights import Limits, read_weights, to_bytes

FORMAT = "certes.nn/1"
STATE = "state.json"
_MOST = 16 * 2**20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state.

    Attributes:
        numbers: plain JSON values.
        arrays: name -> array, float32 or float64.
    """

    numbers: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


class Keeper(Protocol):
    """Where the states of one question are kept."""

    def save(self, state: Checkpoint) -> None:
        """Keep a state instead of the one before."""
        ...

    def load(self) -> Checkpoint | None:
        """The last state, or None if there is none yet."""
        ...


class Carried:
    """States of one question as bytes, kept by somebody else.

    Args:
        question: what is computed, plain JSON values; a state of another question is refused.
        data: the last state; None: there is none.
        keep: given each new one.
    """

    def __init__(self, question: Mapping[str, Any], data: bytes | None, keep: Callable[[bytes], None]) -> None:
        self.question, self._data, self._keep = dict(question), data, keep

    def save(self, state: Checkpoint) -> None:
        """Hand a state over."""
        body = {"format": FORMAT, "question": self.question, "numbers": dict(state.numbers)}
        text = json.dumps(body | {"sha256": _sum(body)}, allow_nan=False)
        self._keep(to_bytes(dict(state.arrays), {"state": text}))

    def load(self) -> Checkpoint | None:
        """The state that was given.

        Raises:
            InputError: a state of another question, or a damaged one.
        """
        if self._data is None:
            return None
        try:
            file = read_weights(self._data, Limits(header_bytes=_MOST))
            body = strictjson.parse(
                file.metadata.get("state", "").encode(), "checkpoint", max_bytes=_MOST, max_depth=12
            )
        except InputError as error:
            raise _damaged(error.given) from error
        if not isinstance(body, dict) or body.pop("sha256", None) != _sum(body) or body.get("format") != FORMAT:
            raise _damaged("bytes with another checksum than stated")
        if not (isinstance(body.get("question"), dict) and isinstance(body.get("numbers"), dict)):
            raise _damaged("bytes without question or numbers")
        same(body["question"], self.question)
        return Checkpoint(body["numbers"], {name: entry.array() for name, entry in file.tensors.items()})


class Checkpoints:
    """The states of one question in a folder.

    Args:
        folder: made if missing.
        question: what is computed, plain JSON values; a state of another question is refused.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], question: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.question = dict(question)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise self._unwritable(PermissionError(13, os.strerror(13)))

    def save(self, state: Checkpoint) -> None:
        """Write a state; the one before is the state until this one is whole.

        Raises:
            InputError: the folder cannot be written.
        """
        data = to_bytes(dict(state.arrays))
        digest = hashlib.sha256(data).hexdigest()
        name = f"state-{digest[:16]}.safetensors"
        body = {"format": FORMAT, "question": self.question, "tensors": {"file": name, "sha256": digest}}
        body["numbers"] = dict(state.numbers)
        text = json.dumps(body | {"sha256": _sum(body)}, indent=1, allow_nan=False).encode()
        try:
            _write(self.folder / name, data)
            _write(self.folder / STATE, text)
            for other in self.folder.glob("state-*.safetensors*"):
                if other.name != name:
                    other.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def load(self) -> Checkpoint | None:
        """The last state, or None if there is none yet.

        Raises:
            InputError: a state of another question, or a damaged one.
        """
        path = self.folder / STATE
        if not path.exists():
            return None
        try:
            text = path.read_bytes()
            body = strictjson.parse(text, "checkpoint", max_bytes=_MOST, max_depth=12)
        except OSError as error:
            raise _damaged(f"{STATE}: {error.strerror}") from error
        except InputError as error:
            raise _damaged(f"{STATE}: {error.given}") from error
        if not isinstance(body, dict) or body.pop("sha256", None) != _sum(body):
            raise _damaged(f"{STATE} with another checksum than stated")
        if body.get("format") != FORMAT:
            raise _damaged(f"the format {str(body.get('format'))[:40]!r}")
        question, numbers, tensors = (body.get(name) for name in ("question", "numbers", "tensors"))
        if not (isinstance(question, dict) and isinstance(numbers, dict) and isinstance(tensors, dict)):
            raise _damaged(f"{STATE} without question, numbers or tensors")
        same(question, self.question)
        return Checkpoint(numbers, self._tensors(tensors))

    def _tensors(self, named: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        name = Path(str(named.get("file"))).name  # never outside the folder
        try:
            data = (self.folder / name).read_bytes()
        except (OSError, ValueError) as error:
            raise _damaged(f"{name}: {error}") from error
        if hashlib.sha256(data).hexdigest() != named.get("sha256"):
            raise _damaged(f"{name} with another sha256 than stated")
        return {name: np.array(entry.array()) for name, entry in read_weights(data).tensors.items()}

    def _unwritable(self, error: OSError) -> InputError:
        given = f"{self.folder}: {error.strerror or error}"
        return InputError("checkpoint", given, "a folder that can be written", "unwritable")


def same(question: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise InputError unless a state is of the question that is asked."""
    for key in sorted({*question, *expected}):
        given, wanted = question.get(key), expected.get(key)
        if given != wanted:
            raise InputError(
                "checkpoint",
                f"a state of another question: {key} {_short(given)}",
                f"{key} {_short(wanted)}, or an empty folder",
                "wrong-checkpoint",
            )


def _sum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _damaged(given: str) -> InputError:
    expected = "the state as it was written; an empty folder starts anew"
    return InputError("checkpoint", given, expected, "damaged-checkpoint")


def _write(path: Path, data: bytes) -> None:
    """At once or not at all, and on the disk before it is named."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
    with contextlib.suppress(OSError):  # not every system lets a folder be opened
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
