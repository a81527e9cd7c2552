"""Where the files come from that a description of an assembly names: its folder, and nothing outside it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from certes import formats
from certes.assemblies import DEEPEST
from certes.cells import GatedNetwork
from certes.composition import plaintext
from certes.errors import InputError, TooLargeError
from certes.systems import System, UnsupportedCell
from certes.weights import WeightFile

_DRIVE = re.compile(r"[A-Za-z]:")


class Sources(Protocol):
    """Where the files come from that a description names."""

    def weights(self, name: str | None, where: str) -> WeightFile:
        """A weight file; None: the only one there is, if the source knows one."""
        ...

    def certified(self, certificate: str, weights: str | None, where: str) -> System:
        """The network of a certificate, which is verified."""
        ...

    def included(self, name: str, where: str) -> tuple[dict[str, Any], Sources]:
        """Another description, and where its files come from."""
        ...


class Folder:
    """The files beside a description: relative paths that do not leave its folder, by no link either.

    Args:
        description: the file.
        outer: the folder of the description that includes this one.
    """

    def __init__(self, description: Path, outer: Folder | None = None) -> None:
        self._above: tuple[Path, ...] = (*(() if outer is None else outer._above), description.resolve())
        self._root = description.parent.resolve()
        # each file is read once, however often it is named
        self._weights: dict[Path, WeightFile] = {} if outer is None else outer._weights
        self._contents: dict[Path, dict[str, Any]] = {} if outer is None else outer._contents

    def weights(self, name: str | None, where: str) -> WeightFile:
        """A weight file, read once."""
        if name is None:
            expected = "a file, here or as the assembly's own entry 'file'"
            raise InputError(where, "nothing", expected, "missing-value")
        path = self._inside(name, where)
        if path not in self._weights:
            try:
                self._weights[path] = formats.read(path)
            except InputError as error:
                field = where if error.field == "weights" else f"{where}: {error.field}"
                raise InputError(field, f"{name!r}: {error.given}", error.expected, error.slug) from error
        return self._weights[path]

    def certified(self, certificate: str, weights: str | None, where: str) -> System:
        """The network of a certificate file, which is verified against the weights."""
        from certes.certificate.document import Certificate

        path = self._inside(certificate, f"{where}.certificate")
        file = self.weights(weights, f"{where}.weights")
        try:
            found = Certificate.read(path)
        except InputError as error:
            given = f"{certificate!r}: {error.given}"
            raise InputError(f"{where}.certificate", given, error.expected, error.slug) from error
        return system_of(found, file, where)

    def included(self, name: str, where: str) -> tuple[dict[str, Any], Sources]:
        """Another description; its own folder holds its files."""
        path = self._inside(name, f"{where}.assembly")
        if path in self._above:
            expected = "descriptions that do not include themselves"
            raise InputError(f"{where}.assembly", f"{name!r}, which includes this one", expected, "cycle")
        if len(self._above) > DEEPEST:
            raise InputError(f"{where}.assembly", "files nested too deeply", f"at most {DEEPEST}", "too-deep")
        if path not in self._contents:
            self._contents[path] = plaintext.parse(bytes_of(path, f"{where}.assembly", name), f"{where}.assembly")
        return self._contents[path], Folder(path, self)

    def _inside(self, name: str, where: str) -> Path:
        expected = "a relative path to a file in the description's folder"
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or _DRIVE.match(name) or ".." in parts.parts or not name.isprintable():
            raise InputError(where, repr(name), expected, "outside")
        try:
            path = (self._root / name).resolve()
            regular = path.is_file()
        except (OSError, ValueError, RuntimeError):
            raise InputError(where, repr(name), expected, "unreadable") from None
        if not path.is_relative_to(self._root):
            raise InputError(where, f"{name!r}, a link that leaves the folder", expected, "outside")
        if not regular:
            raise InputError(where, f"{name!r}, which is no file", expected, "unreadable")
        return path


def system_of(certificate: Any, file: WeightFile, where: str) -> System:
    """The network that a certificate is about, after the certificate is verified.

    Args:
        certificate: a :class:`certes.certificate.document.Certificate`.
        file: the weights.
        where: the module, in errors.

    Raises:
        InputError: the certificate does not hold for these weights, or says something else than contracting.
    """
    from certes.certificate.check import verify_certificate

    report = verify_certificate(certificate, file)
    if not report.valid or report.verdict != "contracting":
        said = f"{report.reason}: {report.detail}" if not report.valid else f"one that says {report.verdict}"
        given = f"a certificate that does not hold ({said})"[:400]
        raise InputError(where, given, "a valid one", "invalid-certificate")
    found: System | GatedNetwork | UnsupportedCell = certificate.statement.predicate.system.system(file)
    if isinstance(found, GatedNetwork | UnsupportedCell):
        raise InputError(where, found.detail, "a network", "unsupported-cell")
    return found


def bytes_of(path: Path, where: str, name: str) -> bytes:
    """The bytes of a description, no more than may be read."""
    try:
        if not path.is_file():
            raise InputError(where, f"{name!r}, which is no file", "a YAML or JSON file", "unreadable")
        with path.open("rb") as stream:
            return stream.read(plaintext.MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        given = f"{name!r}, which cannot be read"
        raise InputError(where, given, "a YAML or JSON file", "unreadable") from error


def moved(error: InputError, where: str) -> InputError:
    """The same error under another field."""
    if isinstance(error, TooLargeError):
        unit = error.expected.rpartition(" ")[2]
        return TooLargeError(where, error.given, error.limit, unit)
    return InputError(where, error.given, error.expected, error.slug)
