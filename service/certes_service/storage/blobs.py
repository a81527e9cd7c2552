"""Bytes by their sha256, each tenant apart: written whole or not at all, verified whenever they are read.

    ROOT/TENANT/ab/abcdef...    bytes, named by their sha256
    ROOT/.incoming/             what is being written

Tenants share no blob, even of the same bytes: how fast something is written tells nothing about what others keep.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from certes_service.storage.errors import CorruptedError, is_digest, sha256
from certes_service.storage.places import place_of

_TENANT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
#: How long a tenant's size is remembered, in seconds; what is written meanwhile is added.
_SIZE_SECONDS = 60.0


class Blob(NamedTuple):
    """A blob that was found.

    Attributes:
        tenant: whose it is.
        digest: its sha256, by its name; its bytes were not read.
        size: bytes.
        age_seconds: since it was last written, by the clock of the store.
    """

    tenant: str
    digest: str
    size: int
    age_seconds: float


class Blobs:
    """All blobs.

    Args:
        url: a directory, or an fsspec URL of a store of objects (``s3://BUCKET/PREFIX``).
        options: of that file system, as fsspec takes them.

    Raises:
        StorageError: the directory cannot be created or written. InputError: a URL that cannot be used.
        MissingExtraError: what the URL needs is not installed.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.place = place_of(url, options or {})
        self._sizes: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def put(self, tenant: str, data: bytes) -> str:
        """Keep some bytes under their sha256; returns it. Bytes that are there already become young again.

        Raises:
            StorageError: they could not be written completely.
        """
        digest = sha256(data)
        name = _name(tenant, digest)
        if not self.place.refresh(name, data):  # absent, or damaged: written anew
            self.place.write(name, data)
            self._grown(tenant, len(data))
        return digest

    def get(self, tenant: str, digest: str) -> bytes | None:
        """The bytes of that sha256, or None if there are none.

        Raises:
            CorruptedError: what is stored is not what was written. StorageError: it cannot be read.
        """
        data = self.place.read(_name(tenant, digest))
        if data is not None and sha256(data) != digest:
            raise CorruptedError(f"the stored bytes of {digest} are damaged")
        return data

    def has(self, tenant: str, digest: str) -> bool:
        """Whether there are bytes of that name; they are not read.

        Raises:
            StorageError: the store cannot be read.
        """
        return not self.missing(tenant, (digest,))

    def missing(self, tenant: str, digests: Iterable[str]) -> set[str]:
        """Those that are not there.

        Raises:
            StorageError: the store cannot be read.
        """
        names = {_name(tenant, digest): digest for digest in digests}
        return {names[name] for name in self.place.missing(list(names))}

    def remove(self, tenant: str, digest: str) -> None:
        """Remove; nothing happens if it is not there.

        Raises:
            StorageError: it could not be removed.
        """
        self.place.remove(_name(tenant, digest))
        with self._lock:
            self._sizes.pop(tenant, None)

    def written(self, tenant: str, digest: str) -> float | None:
        """When it was last written, in seconds since 1970 by the store's clock; None if it is not there.

        Raises:
            StorageError: the store cannot be read.
        """
        return self.place.written(_name(tenant, digest))

    def now(self) -> float:
        """The store's clock.

        Raises:
            StorageError: the store cannot be written.
        """
        return self.place.now()

    def walk(self) -> Iterator[Blob]:
        """All blobs of all tenants, in no order; what is no blob is left out.

        Raises:
            StorageError: the store cannot be read.
        """
        now = self.now()
        for tenant in self.place.folders():
            if _TENANT.fullmatch(tenant) is None:
                continue
            for file in self.place.files(tenant):
                digest = file.name.rsplit("/", 1)[-1]
                if is_digest(digest) and file.name == _name(tenant, digest):
                    yield Blob(tenant, digest, file.size, now - file.written)

    def size(self, tenant: str) -> int:
        """Bytes that a tenant keeps; counted at most every minute, what is written here meanwhile is added.

        Raises:
            StorageError: the store cannot be read.
        """
        _check_tenant(tenant)
        with self._lock:
            known = self._sizes.get(tenant)
        if known is not None and time.monotonic() - known[0] < _SIZE_SECONDS:
            return known[1]
        size = sum(file.size for file in self.place.files(tenant))
        with self._lock:
            self._sizes[tenant] = (time.monotonic(), size)
        return size

    def sweep(self) -> None:
        """Remove what killed processes left unfinished.

        Raises:
            StorageError: the store cannot be used.
        """
        self.place.sweep()

    def check(self) -> None:
        """Whether something can be written at this moment.

        Raises:
            StorageError: it cannot.
        """
        self.now()

    def _grown(self, tenant: str, size: int) -> None:
        with self._lock:
            if (known := self._sizes.get(tenant)) is not None:
                self._sizes[tenant] = (known[0], known[1] + size)


def _check_tenant(tenant: str) -> None:
    if _TENANT.fullmatch(tenant) is None:
        raise CorruptedError(f"{tenant[:80]!r} is not the name of a tenant")


def _name(tenant: str, digest: str) -> str:
    """Where a blob is. Nothing but names of tenants and digests ever becomes part of a path."""
    _check_tenant(tenant)
    if not is_digest(digest):
        raise CorruptedError(f"{digest[:80]!r} is not a digest")
    return f"{tenant}/{digest[:2]}/{digest}"
