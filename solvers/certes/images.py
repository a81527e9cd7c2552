"""Files of small images that are read as sequences: IDX files (MNIST), and the digits of the UCI repository.

Pixels become float32 from 0 to 1. An image is read row by row, or pixel by pixel: :func:`ordered`.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError, TooLargeError
from certes.npz import LARGEST

Images = tuple[NDArray[np.float32], NDArray[np.int64]]
Order = Literal["rows", "pixels", "permuted"]

#: Of the order of the pixels in ``permuted``.
PERMUTATION_SEED = 92916
_GZIP = b"\x1f\x8b"
DIGITS = "digits.csv.gz"
#: Brightest pixel of the digits, and their width and height.
_BRIGHTEST, _SIDE = 16, 8


def mnist(folder: Path) -> dict[str, Images]:
    """Images, shape (N, 28, 28), and labels, shape (N,), by part: ``train``, ``t10k``, or one of any name.

    Raises:
        InputError: no such files, malformed ones, or parts of other names. TooLargeError: beyond 1 GiB.
    """
    found = {}
    for part, (shown, said) in idx_files(folder).items():
        pixels = _idx(shown, 3)
        found[part] = (scaled(pixels), _idx(said, 1).astype(np.int64))
    return found


def idx_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The files of images and of labels in a folder, by part: ``train``, ``t10k``, or one of any name.

    Raises:
        InputError: no such files, or parts of other names.
    """
    files = {path.name.split("-")[0]: path for path in sorted(folder.glob("*-images-idx3-ubyte*"))}
    if not files:
        given = f"no file *-images-idx3-ubyte.gz in {str(folder)!r}"
        raise InputError("data", given, "a folder with the IDX files of MNIST", "unreadable")
    if len(files) > 1 and set(files) != {"train", "t10k"}:
        given = f"images of {', '.join(files)}"
        raise InputError("data", given, "one pair of IDX files, or those of train and t10k", "unknown-value")
    return {
        part: (path, path.with_name(path.name.replace("images-idx3", "labels-idx1"))) for part, path in files.items()
    }


def digits(folder: Path) -> Images:
    """The images of :data:`DIGITS`, shape (N, 8, 8), and their labels: a line of 64 pixels and the digit for each.

    Raises:
        InputError: no such file, or a malformed one. TooLargeError: beyond 1 GiB.
    """
    expected = f"{DIGITS}: lines of 64 whole numbers from 0 to {_BRIGHTEST}, and a digit"
    try:
        rows = [line.split(",") for line in _bytes(folder / DIGITS, expected).decode("ascii").split()]
        values = np.array(rows, dtype=np.float64)
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError("data", f"{DIGITS}: {error}"[:200], expected, "malformed") from error
    highest = np.array([_BRIGHTEST] * _SIDE**2 + [9], dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(highest):
        raise InputError("data", f"{DIGITS} with shape {values.shape}", expected, "malformed")
    if not ((values >= 0) & (values <= highest) & (values == np.floor(values))).all():
        raise InputError("data", f"{DIGITS} with another number", expected, "malformed")
    pixels = values[:, :-1].reshape(-1, _SIDE, _SIDE).astype(np.float32) / np.float32(_BRIGHTEST)
    return pixels, values[:, -1].astype(np.int64)


def idx(data: bytes, dimensions: int, name: str, most: int) -> NDArray[np.uint8]:
    """The array in the bytes of an IDX file, gzipped or not.

    Args:
        data: of the file.
        dimensions: that it has: 3 are images, 1 are labels.
        name: what it is called in errors.
        most: bytes that it may have, unpacked.

    Raises:
        InputError: malformed. TooLargeError: beyond ``most``.
    """
    expected = _expected(dimensions)
    try:
        with gzip.open(io.BytesIO(data)) if data.startswith(_GZIP) else io.BytesIO(data) as stream:
            whole = stream.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("data", f"{name}: {error}"[:200], expected, "unreadable") from error
    if len(whole) > most:
        raise TooLargeError("data", f"{name} of more bytes", most)
    return _array(whole, name, dimensions)


def scaled(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes as float32 from 0 to 1."""
    return pixels.astype(np.float32) / np.float32(255)


def ordered(images: NDArray[np.float32], order: Order) -> NDArray[np.float32]:
    """Images, shape (N, height, width), as sequences: rows, or pixels one by one, shape (N, height * width, 1).

    ``permuted``: pixels in one random order for all, ``numpy.random.default_rng(92916).permutation(height * width)``.
    """
    if order == "rows":
        return images
    pixels = images.reshape(len(images), -1, 1)
    if order == "permuted":
        pixels = pixels[:, np.random.default_rng(PERMUTATION_SEED).permutation(pixels.shape[1])]
    return np.ascontiguousarray(pixels)


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes, gzipped or not."""
    return _array(_bytes(path, _expected(dimensions)), path.name, dimensions)


def _expected(dimensions: int) -> str:
    return f"an IDX file of bytes with {dimensions} dimensions"


def _array(data: bytes, name: str, dimensions: int) -> NDArray[np.uint8]:
    start, expected = 4 + 4 * dimensions, _expected(dimensions)
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < start:
        raise InputError("data", f"{name} with other first bytes", expected, "malformed")
    shape = [int(k) for k in np.frombuffer(data[4:start], ">u4")]
    if int(np.prod(shape, dtype=object)) != len(data) - start:
        given = f"{name}: {len(data) - start} bytes for shape {shape}"
        raise InputError("data", given, expected, "malformed")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _bytes(path: Path, expected: str) -> bytes:
    """The bytes of a file, gzipped or not."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(LARGEST // 4 + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("data", f"{path.name}: {error}", expected, "unreadable") from error
    if len(data) > LARGEST // 4:
        raise TooLargeError("data", f"{path.name} of more bytes", LARGEST // 4)
    return data
