"""Arrays in numpy's own files, .npz and .npy, from strangers: sizes come first, and pickles are never read."""

from __future__ import annotations

import contextlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError, TooLargeError

#: Largest .npz file, bytes uncompressed.
LARGEST = 4 * 2**30

Choice = Callable[[tuple[str, ...]], tuple[str, ...]]


def read_npz(
    source: Path | bytes, field: str, choose: Choice, *, most: int = LARGEST, name: str | None = None
) -> dict[str, NDArray[Any]]:
    """Some arrays of an .npz file.

    Args:
        source: the file, or its bytes.
        field: what errors call it.
        choose: from the names in the file to those that are read; may raise InputError.
        most: bytes that it may have, uncompressed.
        name: the file's name in errors, of bytes.

    Raises:
        InputError: unreadable, or a pickle inside. TooLargeError: beyond ``most``.
    """
    path, file = (Path(name or "the file"), io.BytesIO(source)) if isinstance(source, bytes) else (source, source)
    with unreadable(path, field):
        with zipfile.ZipFile(file) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > most:
            raise TooLargeError(field, f"{total} bytes", most)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in choose(tuple(arrays.files))}


def read_npy(path: Path, field: str) -> NDArray[Any]:
    """The array of an .npy file, mapped: a header that promises more than there is costs no memory.

    Raises:
        InputError: unreadable, or a pickle.
    """
    with unreadable(path, field):
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


@contextlib.contextmanager
def unreadable(path: Path, field: str) -> Iterator[None]:
    """What goes wrong inside, in numpy or in what unpacks for it, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, MemoryError) as error:
        raise _refusal(path, field, error) from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, SyntaxError) as error:
        raise _refusal(path, field, error) from error


def _refusal(path: Path, field: str, error: BaseException) -> InputError:
    return InputError(field, f"{path.name}: {error}", "a readable file of plain arrays", "unreadable")
