"""What goes wrong with storage, and digests: what every part of it shares."""

from __future__ import annotations

import hashlib
import re

from certes.errors import CertesError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class StorageError(CertesError):
    """Storage cannot be read or written: a full disk, a lost database (HTTP 503). Nothing half-written is left."""


class CorruptedError(StorageError):
    """What is stored is not what was written. It is never handed out."""


def sha256(data: bytes) -> str:
    """Hex digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether the text is a sha256 in lower-case hex. Everything else never becomes part of a path."""
    return _DIGEST.fullmatch(text) is not None
