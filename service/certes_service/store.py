"""Content-addressed storage in a directory: atomic to write, verified on every read.

    DIR/blobs/ab/abcdef...     bytes, named by their sha256: envelopes, proofs, and the weight files made here
    DIR/certificates/ab/...    digest of a certificate -> the digests of its envelope and its proof (JSON)
    DIR/answers/ab/...         digest of a question -> the answer that was given (JSON, with its own sha256)
    DIR/incoming/              files being written; left-overs of a killed process are removed at the next start

A file appears under its final name only when it is complete and on disk (write, fsync, rename, fsync of the
directory), and a name appears only after everything that it refers to. So a process that is killed at any moment
leaves no half-written certificate behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certes_service.storage.errors import CorruptedError, StorageError, is_digest, sha256

__all__ = ["CorruptedError", "StorageError", "Store", "Stored", "is_digest", "sha256"]

_STALE_SECONDS = 3600.0


@dataclass(frozen=True)
class Stored:
    """The two documents of one certificate, as bytes; of an assembly, also the digest of its couplings' tensors."""

    envelope: bytes
    proof: bytes
    weights: str | None = None


class Store:
    """The embedded store.

    Args:
        root: its directory, created if missing.

    Raises:
        StorageError: the directory cannot be created or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            for name in ("blobs", "certificates", "answers", "incoming"):
                (root / name).mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise StorageError(f"the data directory {root} cannot be used: {error.strerror or error}") from error

    def put_certificate(self, digest: str, envelope: bytes, proof: bytes, weights: str | None = None) -> None:
        """Keep a certificate under its digest. Writing the same one twice changes nothing.

        Args:
            digest: its name.
            envelope: the document.
            proof: the proof file.
            weights: sha256 of a blob that belongs to it; None: the one that was named before, if any.

        Raises:
            StorageError: it could not be written completely; then nothing is visible under the digest.
        """
        record = {"envelope": self._put_blob(envelope), "proof": self._put_blob(proof)}
        if (kept := weights or self._kept_weights(digest)) is not None:
            record["weights"] = kept
        self._write(self._path("certificates", digest), _sealed(record))

    def certificate(self, digest: str) -> Stored | None:
        """The certificate with that digest, or None if there is none.

        Raises:
            CorruptedError: what is stored is not what was written.
        """
        data = self._read(self._path("certificates", digest)) if is_digest(digest) else None
        if data is None:
            return None
        record = _unsealed(data, "certificate record")
        return Stored(self._blob(record["envelope"]), self._blob(record["proof"]), record.get("weights"))

    def put_blob(self, data: bytes) -> str:
        """Keep some bytes under their sha256; returns it.

        Raises:
            StorageError: they could not be written completely.
        """
        return self._put_blob(data)

    def blob(self, digest: str) -> bytes | None:
        """The bytes of that sha256, or None if there are none.

        Raises:
            CorruptedError: what is stored is not what was written.
        """
        data = self._read(self._path("blobs", digest))
        if data is not None and sha256(data) != digest:
            raise CorruptedError(f"the stored bytes of {digest} are damaged")
        return data

    def put_answer(self, question: str, answer: dict[str, Any]) -> None:
        """Remember the answer to a question (by the question's digest)."""
        self._write(self._path("answers", question), _sealed(answer))

    def answer(self, question: str) -> dict[str, Any] | None:
        """The remembered answer; None if there is none, or if it did not survive intact (then it is asked anew)."""
        data = self._read(self._path("answers", question))
        try:
            return None if data is None else _unsealed(data, "answer")
        except CorruptedError:
            return None

    def check(self) -> None:
        """Whether a file can be written at this moment.

        Raises:
            StorageError: it cannot.
        """
        self._write(self.root / "incoming" / ".writable", b"")

    def _kept_weights(self, digest: str) -> str | None:
        """The blob that a stored certificate names; None if there is none, or the record did not survive."""
        data = self._read(self._path("certificates", digest))
        try:
            found = None if data is None else _unsealed(data, "certificate record").get("weights")
        except CorruptedError:
            return None
        return found if isinstance(found, str) else None

    def _put_blob(self, data: bytes) -> str:
        digest = sha256(data)
        path = self._path("blobs", digest)
        if self._read(path) != data:  # absent, or damaged: written anew
            self._write(path, data)
        return digest

    def _blob(self, digest: str) -> bytes:
        data = self._read(self._path("blobs", digest))
        if data is None or sha256(data) != digest:
            raise CorruptedError(f"the stored bytes of {digest} are {'missing' if data is None else 'damaged'}")
        return data

    def _path(self, kind: str, digest: str) -> Path:
        if not is_digest(digest):
            raise CorruptedError(f"{digest[:80]!r} is not a digest")
        return self.root / kind / digest[:2] / digest

    @staticmethod
    def _read(path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"reading from the store failed: {error.strerror or error}") from error

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data, self.root / "incoming")
        except OSError as error:
            raise StorageError(f"writing to the store failed: {error.strerror or error}") from error

    def _sweep(self) -> None:
        """Remove what a killed process was writing. Young files may belong to another process that still lives."""
        for left in (self.root / "incoming").iterdir():
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    left.unlink()


def write_atomically(path: Path, data: bytes, workspace: Path) -> None:
    """Write a file so that other processes, and the next one after a power cut, see all of it or nothing.

    Args:
        path: final name.
        data: content.
        workspace: a directory on the same file system for the unfinished file.

    Raises:
        OSError: it could not be written; the final name is untouched.
    """
    handle, temporary = tempfile.mkstemp(dir=workspace, prefix="w-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _sealed(value: dict[str, Any]) -> bytes:
    body = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return json.dumps({"sha256": sha256(body.encode()), "body": body}).encode()


def _unsealed(data: bytes, what: str) -> dict[str, Any]:
    try:
        sealed = json.loads(data)
        body = sealed["body"]
        if sha256(body.encode()) != sealed["sha256"]:
            raise ValueError("digest")
        value = json.loads(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptedError(f"a stored {what} is damaged") from error
    if not isinstance(value, dict):
        raise CorruptedError(f"a stored {what} is damaged")
    return value
