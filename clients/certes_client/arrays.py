"""Arrays that an option names: a tensor of the weight file, or an array of another file. No pickle is ever read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from certes.errors import InputError, TooLargeError
from certes.npz import read_npy, read_npz
from certes.weights import WeightFile, read_weights
from numpy.typing import NDArray

_SUFFIXES = (".npy", ".npz", ".safetensors")
_EXPECTED = "FILE.npy, FILE.npz or FILE.safetensors, with :NAME behind it where the file has several arrays"


def named(option: str, text: str, weights: WeightFile) -> NDArray[Any]:
    """A tensor of the weight file by its name, or else an array of a file.

    Args:
        option: the option's name, for errors.
        text: ``NAME``, or as :func:`from_file`.
        weights: the weight file.

    Raises:
        InputError: neither.
    """
    if text in weights.tensors:
        return stored(option, text, weights)
    if _split(text) is None:
        known = ", ".join(list(weights.tensors)[:20]) or "none at all"
        raise InputError(option, repr(text), f"a tensor of the file ({known}), or {_EXPECTED}", "unknown-tensor")
    return from_file(option, text)


def stored(option: str, name: str, weights: WeightFile) -> NDArray[Any]:
    """A tensor of a weight file.

    Raises:
        InputError: no such tensor, or of a dtype that is not read.
    """
    entry = weights.get(name, option)
    try:
        return entry.array()
    except InputError as error:
        raise InputError(option, f"{name!r}: {error.given}", error.expected, error.slug) from error


def floats(option: str, name: str, weights: WeightFile) -> NDArray[np.float64]:
    """A tensor of a weight file as float64.

    Raises:
        InputError: no such tensor, not of a floating type, or not finite.
    """
    entry = weights.get(name, option)
    try:
        return entry.floats()
    except InputError as error:
        raise InputError(option, f"{name!r}: {error.given}", error.expected, error.slug) from error


def from_file(option: str, text: str, usual: tuple[str, ...] = ()) -> NDArray[Any]:
    """An array of a file.

    Args:
        option: the option's name, for errors.
        text: ``FILE.npy``, ``FILE.npz``, ``FILE.safetensors``, the last two with ``:NAME`` or not.
        usual: names that are taken where the text names none.

    Raises:
        InputError: no such file or array, or one that is not read. TooLargeError: beyond a limit.
    """
    found = _split(text)
    if found is None:
        raise InputError(option, f"{text!r}, which is no file of that kind", _EXPECTED, "unreadable")
    path, name = found
    if path.suffix == ".safetensors":
        file = _safetensors(option, path)
        return stored(option, _choice(option, path, tuple(file.tensors), name, usual), file)
    if path.suffix == ".npy":
        if name is not None:
            raise InputError(option, f"the name {name!r} for {path.name}", "no name: it is one array", "conflict")
        return read_npy(path, option)
    (found_array,) = read_npz(path, option, lambda names: (_choice(option, path, names, name, usual),)).values()
    return found_array


def _safetensors(option: str, path: Path) -> WeightFile:
    try:
        return read_weights(path)
    except TooLargeError as error:
        raise TooLargeError(option, error.given, error.limit) from error
    except InputError as error:
        raise InputError(option, f"{path.name}: {error.given}", error.expected, error.slug) from error


def _choice(option: str, path: Path, names: tuple[str, ...], name: str | None, usual: tuple[str, ...]) -> str:
    """The array that is meant: the one named, a usual one, or the only one."""
    candidates = [name] if name is not None else [*usual, *(names if len(names) == 1 else ())]
    for candidate in candidates:
        if candidate in names:
            return candidate
    given = f"no array {name!r} in {path.name}" if name is not None else f"{path.name} without a name of an array"
    raise InputError(option, given, f"one of {', '.join(names[:20]) or 'no arrays at all'}", "unknown-tensor")


def _split(text: str) -> tuple[Path, str | None] | None:
    """File and name of an array; a file of the whole text is preferred, then the longest before a colon."""
    ends = [len(text), *(k for k in range(len(text) - 1, 0, -1) if text[k] == ":")]
    for end in ends:
        path = Path(text[:end])
        try:
            if path.suffix in _SUFFIXES and path.is_file():
                return path, text[end + 1 :] if end < len(text) else None
        except (OSError, ValueError):  # a name too long for one, or a zero in it
            continue
    return None
