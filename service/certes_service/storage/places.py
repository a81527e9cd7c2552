"""Where bytes can be kept: a directory, or a store of objects such as S3. Names are relative, ``a/b/c``.

Either way a file appears under its name only when it is complete: in a directory by write, fsync, rename and fsync of
the directory; in a store of objects because an object is visible only after all of it was sent.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from certes.errors import InputError, MissingExtraError

from certes_service.storage.errors import StorageError

T = TypeVar("T")

#: Unfinished files, and the probe that tells the time of the store. No tenant is called so.
INCOMING = ".incoming"
_STALE_SECONDS = 3600.0
#: Protocols of fsspec behind which a write shows all of the object or nothing.
_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})
_PARALLEL = 8
#: A store that does not answer is an error and not a wait of minutes.
_S3_CONFIG = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3}}


class File(NamedTuple):
    """A file that was found.

    Attributes:
        name: relative to the place.
        size: bytes.
        written: seconds since 1970 by the clock of the place.
    """

    name: str
    size: int
    written: float


class Place(Protocol):
    """What both kinds offer. Every method raises StorageError if the place cannot be used."""

    def read(self, name: str) -> bytes | None:
        """The content; None if there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Complete or not at all; what was there before is replaced."""
        ...

    def refresh(self, name: str, data: bytes) -> bool:
        """Make a file young if it is there with this content; whether it is."""
        ...

    def missing(self, names: list[str]) -> list[str]:
        """Those that are not there."""
        ...

    def remove(self, name: str) -> None:
        """Remove; nothing happens if it is not there."""
        ...

    def written(self, name: str) -> float | None:
        """When it was written, in seconds since 1970 by the place's clock; None if it is not there."""
        ...

    def now(self) -> float:
        """The place's clock: seconds since 1970. Writes a probe, so it also shows that writing works."""
        ...

    def folders(self) -> list[str]:
        """Names of the folders at the top."""
        ...

    def files(self, folder: str) -> Iterator[File]:
        """All files below a folder at the top."""
        ...

    def sweep(self) -> None:
        """Remove what killed processes left unfinished. Young files may belong to one that lives."""
        ...


def place_of(url: str, options: Mapping[str, Any]) -> Place:
    """The place behind a path or an fsspec URL.

    Args:
        url: ``/a/directory``, ``file:///a/directory`` or ``s3://BUCKET/PREFIX``.
        options: of the file system, as fsspec takes them.

    Raises:
        InputError: a kind of place where a write may be seen half-done. MissingExtraError: s3fs is not installed.
        StorageError: the directory cannot be created or written.
    """
    protocol, separator, rest = url.partition("://")
    if not separator:
        return Directory(Path(url))
    if protocol in ("file", "local"):
        return Directory(Path(rest))
    if protocol not in _OBJECTS:
        expected = f"a directory, or a URL of {', '.join(sorted(_OBJECTS - {'memory'}))}"
        raise InputError("blobs", f"{protocol}://", expected, "setting")
    return Objects(url, options)


class Directory:
    """A directory on this machine, or one that several machines mount.

    Args:
        root: created if missing.

    Raises:
        StorageError: it cannot be created or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self._incoming = self.root / INCOMING
        with _told(f"the directory {root} cannot be used"):
            self._make(self._incoming)
        self.sweep()

    def read(self, name: str) -> bytes | None:
        """The content; None if there is none."""
        with _told("reading from the store failed"):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Complete and on disk, or not at all."""
        path = self.root / name
        with _told("writing to the store failed"):
            self._make(path.parent)
            self._make(self._incoming)
            write_atomically(path, data, self._incoming)

    def refresh(self, name: str, data: bytes) -> bool:
        """Make a file young if it is there with this content; whether it is."""
        if self.read(name) != data:
            return False
        with _told("writing to the store failed"):
            try:
                os.utime(self.root / name)
            except FileNotFoundError:  # collected between the two
                return False
        return True

    def missing(self, names: list[str]) -> list[str]:
        """Those that are not there."""
        return [name for name in names if self.written(name) is None]

    def remove(self, name: str) -> None:
        """Remove; nothing happens if it is not there."""
        with _told("removing from the store failed"):
            (self.root / name).unlink(missing_ok=True)

    def written(self, name: str) -> float | None:
        """When it was written; None if it is not there."""
        with _told("reading from the store failed"):
            try:
                return (self.root / name).stat().st_mtime
            except FileNotFoundError:
                return None

    def now(self) -> float:
        """The clock of the file system (of another machine, if it is mounted), by a file that is written."""
        with _told("writing to the store failed"):
            self._make(self._incoming)  # an operator may have emptied the directory
            handle, probe = tempfile.mkstemp(dir=self._incoming, prefix="p-")
            try:
                os.write(handle, b"x")  # a full disk has room for a name, not for a byte
                return os.fstat(handle).st_mtime
            finally:
                os.close(handle)
                os.unlink(probe)

    def folders(self) -> list[str]:
        """Names of the folders at the top."""
        with _told("reading from the store failed"), os.scandir(self.root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def files(self, folder: str) -> Iterator[File]:
        """All files below a folder; those that vanish meanwhile are left out."""
        with _told("reading from the store failed"):
            for path, _, names in os.walk(self.root / folder, onerror=_raise_unless_gone):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        found = os.lstat(os.path.join(path, name))
                        relative = os.path.relpath(os.path.join(path, name), self.root)
                        yield File(relative, found.st_size, found.st_mtime)

    def sweep(self) -> None:
        """Remove unfinished files of killed processes."""
        with contextlib.suppress(OSError):
            for left in self._incoming.iterdir():
                with contextlib.suppress(OSError):
                    if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                        left.unlink()

    def _make(self, folder: Path) -> None:
        """Create a folder; its name is on disk before anything is put into it."""
        if folder.is_dir():
            return
        missing = [folder, *(parent for parent in folder.parents if not parent.exists())]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            _sync_directory(made.parent)


class Objects:
    """A store of objects through fsspec.

    Args:
        url: ``s3://BUCKET/PREFIX``.
        options: of the file system, as fsspec takes them.

    Raises:
        MissingExtraError: s3fs is not installed.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        import fsspec  # only here: a directory needs none of it

        given: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False} | dict(options)
        if url.startswith("s3"):
            given["config_kwargs"] = _S3_CONFIG | given.get("config_kwargs", {})
        if url.startswith("memory"):
            given = dict(options)
        try:
            self._system, self._root = fsspec.core.url_to_fs(url, **given)
        except ImportError as error:
            raise MissingExtraError("s3fs", "s3", f"blobs in {url.partition('://')[0]}://") from error
        self._root = self._root.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """The content; None if there is none."""
        try:
            data: bytes = self._call("reading from", self._system.cat_file, self._path(name))
        except FileNotFoundError:
            return None
        return data

    def write(self, name: str, data: bytes) -> None:
        """Complete or not at all."""
        try:
            self._call("writing to", self._system.pipe_file, self._path(name), data)
        except FileNotFoundError as error:
            raise StorageError("writing to the store failed: there is no such bucket") from error

    def refresh(self, name: str, data: bytes) -> bool:
        """Write it again if it is there: whoever writes is sure of its content and of its age."""
        if self._info(name) is None:
            return False
        self.write(name, data)
        return True

    def missing(self, names: list[str]) -> list[str]:
        """Those that are not there."""
        if len(names) < 2:
            return [name for name in names if self._info(name) is None]
        with ThreadPoolExecutor(min(_PARALLEL, len(names))) as threads:
            found = list(threads.map(self._info, names))
        return [name for name, info in zip(names, found, strict=True) if info is None]

    def remove(self, name: str) -> None:
        """Remove; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self._call("removing from", self._system.rm_file, self._path(name))

    def written(self, name: str) -> float | None:
        """When it was written; None if it is not there."""
        info = self._info(name)
        return None if info is None else _written(info)

    def now(self) -> float:
        """The store's clock, by an object that is written."""
        probe = f"{INCOMING}/{uuid.uuid4().hex}"
        self.write(probe, b"x")
        info = self._info(probe)
        self.remove(probe)
        if info is None:
            raise StorageError("the store does not show what was just written to it")
        return _written(info)

    def folders(self) -> list[str]:
        """Names of the folders at the top."""
        try:
            entries = self._call("reading from", self._system.ls, self._root, detail=True)
        except FileNotFoundError:  # nothing was written yet
            return []
        return sorted(entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")

    def files(self, folder: str) -> Iterator[File]:
        """All objects below a folder."""
        found = self._call("reading from", self._system.find, self._path(folder), detail=True)
        for path, info in found.items():
            yield File(path[len(self._root) + 1 :], int(info["size"] or 0), _written(info))

    def sweep(self) -> None:
        """Probes of killed processes; unfinished uploads are for a rule of the bucket (its owner's to set)."""
        now = self.now()
        for file in self.files(INCOMING):
            if now - file.written > _STALE_SECONDS:
                self.remove(file.name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _info(self, name: str) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = self._call("reading from", self._system.info, self._path(name))
        except FileNotFoundError:
            return None
        return info if info["type"] == "file" else None

    @staticmethod
    def _call(what: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call the file system; whatever its libraries raise is a StorageError, except that something is absent."""
        try:
            return function(*args, **options)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StorageError(f"{what} the store failed: {_short(error)}") from error


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
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of the operating system as StorageError, without paths of the inside."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.strerror or error}") from error


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _written(info: Mapping[str, Any]) -> float:
    """When an object was written; file systems call it differently."""
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(value).timestamp()
    raise StorageError("the store does not say when an object was written")


def _short(error: Exception) -> str:
    """One line without addresses: what is said to a caller. The rest is in the chain of causes."""
    return getattr(error, "strerror", None) or type(error).__name__
