"""numpy archives (``.npz``): every array under its own name. Pickles are never read, sizes come first."""

from __future__ import annotations

from typing import BinaryIO

from certes.errors import InputError
from certes.formats.contents import Contents, Raw
from certes.npz import read_npz
from certes.weights import Limits


def read(stream: BinaryIO, name: str, limits: Limits) -> Contents:
    """Every array of an archive.

    Args:
        stream: the file, open at its beginning.
        name: of the file, in errors.
        limits: on the arrays, unpacked.

    Raises:
        InputError: unreadable, a pickle inside, two arrays of one name, or one that is not of numbers.
        TooLargeError: beyond a limit.
    """
    data = stream.read()
    arrays = read_npz(data, "weights", _once, most=limits.file_bytes, name=name)
    return Contents({key: Raw.of(key, array) for key, array in arrays.items()})


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    """All names; one that stands twice would be read once."""
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError("weights", f"two arrays named {twice!r}", "each name once", "duplicate-key")
    return names
