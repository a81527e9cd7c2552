"""Files of the UCR and UEA archives (``.ts``): labelled series of one or more dimensions, of equal length or not.

    @problemName JapaneseVowels
    @classLabel true 1 2 3
    @data
    0.1,0.2,0.3:1.5,1.2,1.1:2        two dimensions of three steps each, class 2

Only what the archives use is read: numbers, one label per series. Missing values and time stamps are refused.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError, TooLargeError

#: Largest file in bytes.
LARGEST = 2 * 2**30


def read_ts(
    path: str | os.PathLike[str], classes: tuple[str, ...] | None = None
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64], tuple[str, ...]]:
    """Read a file.

    Args:
        path: the file.
        classes: names of the classes in the order of their numbers; None: those of the header.

    Returns:
        Series of shape (steps, dimensions), labels (N,), and the names of the classes.

    Raises:
        InputError: not such a file, or one with missing values. TooLargeError: beyond 2 GiB.
    """
    name = Path(path).name
    lines = _lines(Path(path))
    header, start = _header(lines, name)
    for flag in ("missing", "timestamps", "targetlabel"):
        if header.get(flag, "false").split()[:1] == ["true"]:
            raise InputError(
                "data", f"{name} with @{flag} true", "numbers only, and one class per series", "unsupported"
            )
    declared, *found = header.get("classlabel", "false").split()
    if declared != "true" or not found:
        raise InputError("data", f"{name} without classes", "@classLabel true and their names", "missing-value")
    known = tuple(found) if classes is None else classes
    series, labels = [], []
    for number, line in enumerate(lines[start:], start + 1):
        if line and not line.startswith("#"):
            *dimensions, label = line.split(":")
            if label not in known:
                raise InputError(
                    "data", f"{name}, line {number}: class {label[:40]!r}", ", ".join(known), "unknown-value"
                )
            series.append(_series(dimensions, f"{name}, line {number}"))
            labels.append(known.index(label))
    if not series or len({one.shape[1] for one in series}) != 1:
        raise InputError("data", f"{name}: {len(series)} series", "series of as many dimensions each", "wrong-shape")
    return series, np.array(labels, dtype=np.int64), known


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > LARGEST:
            raise TooLargeError("data", f"{path.stat().st_size} bytes", LARGEST)
        return [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
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


def _series(dimensions: list[str], where: str) -> NDArray[np.float32]:
    try:
        columns = [np.array(one.split(","), dtype=np.float32) for one in dimensions]
        found = np.stack(columns, axis=1)
    except ValueError as error:
        expected = "numbers with commas, dimensions of equal length with colons between them"
        raise InputError("data", f"{where}: {error}"[:200], expected, "malformed") from error
    if found.size == 0 or not np.isfinite(found).all():
        raise InputError("data", f"{where}: a value that is not finite", "finite numbers", "not-finite")
    return found
