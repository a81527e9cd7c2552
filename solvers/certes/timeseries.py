"""Files of the UCR, UEA and TSER archives (``.ts``): series of one or more dimensions, of equal length or not.

    @problemName JapaneseVowels
    @classLabel true 1 2 3
    @data
    0.1,0.2,0.3:1.5,1.2,1.1:2        two dimensions of three steps each, class 2

With ``@targetlabel true`` (regression) a number stands where the class does. With ``@missing true`` a value may be
missing (``?`` or ``NaN``): steps at the end of which all values are missing are cut off, every other missing value is
put on the line between its neighbours in time. Time stamps are refused.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError, TooLargeError

#: Largest file in bytes.
LARGEST = 2 * 2**30
#: Largest target in size, as of arrays.
_LARGEST_TARGET = 1e30


def read_ts(
    source: str | os.PathLike[str] | bytes, classes: tuple[str, ...] | None = None, name: str | None = None
) -> tuple[list[NDArray[np.float32]], NDArray[Any], tuple[str, ...]]:
    """Read a file.

    Args:
        source: path of the file, or its bytes.
        classes: names of the classes in the order of their numbers; none: numbers are expected; None: see the header.
        name: what the file is called in errors.

    Returns:
        Series of shape (steps, dimensions); labels, shape (N,), int64, and the names of the classes; or targets, shape
        (N, 1), float64, and no names.

    Raises:
        InputError: not such a file, or one with missing values that says that it has none.
        TooLargeError: beyond 2 GiB.
    """
    name = name or ("the file" if isinstance(source, bytes) else Path(source).name)
    lines = _lines(source if isinstance(source, bytes) else Path(source))
    header, start = _header(lines, name)
    declared = _classes(header, name)
    known = declared if classes is None else classes
    if bool(known) != bool(declared):
        given = f"{name} with {'classes' if declared else 'numbers'}"
        raise InputError("data", given, "the same as in the training data", "conflict")
    missing = _says(header, "missing")
    series, labels = [], []
    for number, line in enumerate(lines[start:], start + 1):
        if line and not line.startswith("#"):
            where = f"{name}, line {number}"
            *dimensions, label = line.split(":")
            labels.append(_label(label.strip(), known, where))
            series.append(_series(dimensions, missing, where))
    if not series or len({one.shape[1] for one in series}) != 1:
        raise InputError("data", f"{name}: {len(series)} series", "series of as many dimensions each", "wrong-shape")
    found = np.array(labels, dtype=np.int64) if known else np.array(labels, dtype=np.float64)[:, None]
    return series, found, known


def _lines(source: Path | bytes) -> list[str]:
    """Stripped lines; comments of the archives are not always UTF-8."""
    if isinstance(source, bytes):
        return [line.strip() for line in source.decode("utf-8-sig", errors="replace").splitlines()]
    path = source
    try:
        if path.stat().st_size > LARGEST:
            raise TooLargeError("data", f"{path.stat().st_size} bytes", LARGEST)
        return _lines(path.read_bytes())
    except OSError as error:
        raise InputError("data", f"{path.name}: {error}"[:200], "a file that can be read", "unreadable") from error


def _header(lines: list[str], name: str) -> tuple[dict[str, str], int]:
    header: dict[str, str] = {}
    for number, line in enumerate(lines):
        if line.lower() == "@data":
            return header, number + 1
        if line.startswith("@"):
            word, _, value = line[1:].partition(" ")
            header[word.lower()] = value.strip()
    raise InputError("data", f"{name} without @data", "a file of the UCR or UEA archives", "malformed")


def _says(header: dict[str, str], flag: str) -> bool:
    return header.get(flag, "false").lower().split()[:1] == ["true"]


def _classes(header: dict[str, str], name: str) -> tuple[str, ...]:
    """Names of the classes; none: every series has a number."""
    if _says(header, "timestamps"):
        raise InputError("data", f"{name} with @timestamps true", "numbers only", "unsupported")
    found = tuple(header.get("classlabel", "").split()[1:]) if _says(header, "classlabel") else ()
    if bool(found) == _says(header, "targetlabel"):
        given = f"{name} with {'classes and numbers' if found else 'neither classes nor numbers'}"
        raise InputError("data", given, "@classLabel true and their names, or @targetlabel true", "missing-value")
    return found


def _label(text: str, known: tuple[str, ...], where: str) -> float:
    """The number of a class, or a target."""
    if known:
        if text not in known:
            raise InputError("data", f"{where}: class {text[:40]!r}", ", ".join(known)[:400], "unknown-value")
        return known.index(text)
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not abs(found) <= _LARGEST_TARGET:
        expected = f"a finite number up to {_LARGEST_TARGET:g} in size"
        raise InputError("data", f"{where}: target {text[:40]!r}", expected, "not-finite")
    return found


def _series(dimensions: list[str], missing: bool, where: str) -> NDArray[np.float32]:
    try:
        columns = [np.array(one.replace("?", "nan").split(","), dtype=np.float32) for one in dimensions]
        found = np.stack(columns, axis=1)
    except ValueError as error:
        expected = "numbers with commas, dimensions of equal length with colons between them"
        raise InputError("data", f"{where}: {error}"[:200], expected, "malformed") from error
    if missing:
        found = _filled(found)
    if found.size == 0 or not np.isfinite(found).all():
        expected = "finite numbers" + (", one at least in each dimension" if missing else "")
        raise InputError("data", f"{where}: a value that is not finite", expected, "not-finite")
    return found


def _filled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without missing values; a dimension that has nothing else keeps them."""
    seen = ~np.isnan(values)
    steps = np.flatnonzero(seen.any(axis=1))
    kept = values[: int(steps[-1]) + 1 if len(steps) else 0].copy()
    time = np.arange(len(kept))
    for column, known in zip(kept.T, seen[: len(kept)].T, strict=True):
        if known.any():
            column[~known] = np.interp(time[~known], time[known], column[known])
    return kept
