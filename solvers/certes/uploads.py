"""Data sets that come as bytes: the arrays of a safetensors or .npz file, ``.ts`` files, or IDX files gzipped or not.

Several files travel in one, a safetensors file of tensors of bytes, each named ``PART/NAME`` with a part of
:data:`PARTS`: ``data`` and ``test`` (sequences to train on and to test on), and for IDX files the classes of each in
``labels`` and ``test_labels``. What a file is, its first bytes say; its name is for errors only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from certes import images
from certes.errors import InputError, TooLargeError
from certes.sequences import SPLIT_SEED, VOWELS, DataSet, data_of, named, of_images, other_half, padded, split
from certes.weights import Limits, pack, read_weights

Format = Literal["arrays", "ts", "idx"]

PARTS = ("data", "labels", "test", "test_labels")
_ARRAYS = "arrays inputs and labels in a safetensors or .npz file, a .ts file, or IDX files of images and labels"
_GZIP, _IDX, _ZIP = b"\x1f\x8b", b"\x00\x00\x08", b"PK\x03\x04"


@dataclass(frozen=True)
class File:
    """One file of an upload.

    Attributes:
        name: as the sender called it.
        data: its bytes.
    """

    name: str
    data: bytes

    @property
    def format(self) -> Format:
        """What it is by its first bytes; ``arrays`` also if it is none of these, which its reader then says."""
        if _safetensors(self.data) or self.data.startswith(_ZIP):
            return "arrays"
        if self.data.startswith((_GZIP, _IDX)):
            return "idx"
        return "ts" if self.data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"@", b"#") else "arrays"


def parts(source: str) -> tuple[dict[str, Path], images.Order | None]:
    """The files of a data set as they are uploaded, by part.

    Args:
        source: as :func:`certes.sequences.read_data` takes it.

    Returns:
        The files, and the order of the pixels of images; None: there are none.

    Raises:
        InputError: a data set whose files are of none of these formats, or no files.
    """
    given = named(source)
    if given is None or given[0] == "japanese-vowels":
        path = Path(source) if given is None else given[1] / VOWELS
        other = other_half(path)
        return {"data": path} | ({} if other is None else {"test": other}), None
    kind, folder = given
    family, _, order = kind.partition("-")
    if family != "mnist":
        raise InputError("data", repr(source)[:200], f"a data set that can be sent: {_ARRAYS}", "unsupported")
    found = images.idx_files(folder)
    train = found.get("train") or next(iter(found.values()))
    files = dict(zip(("data", "labels"), train, strict=True))
    if "t10k" in found and len(found) > 1:
        files |= zip(("test", "test_labels"), found["t10k"], strict=True)
    return files, cast("images.Order", order)


def packed(files: Mapping[str, File]) -> bytes:
    """Files by part as one; ``data`` alone stays as it is.

    Raises:
        InputError: files that do not belong together, naming the part.
    """
    _check(files)
    if set(files) == {"data"}:
        return files["data"].data
    return pack({f"{part}/{file.name}": ("U8", [len(file.data)], file.data) for part, file in files.items()})


def unpacked(data: bytes, name: str, limits: Limits | None = None) -> dict[str, File]:
    """The files of :func:`packed` by part.

    Args:
        data: what it gave.
        name: of a file that is alone.
        limits: bounds on its size.

    Raises:
        InputError: they do not belong together.
    """
    alone = {"data": File(name, data)}
    if not _safetensors(data):
        return alone
    try:
        tensors = read_weights(data, limits, name=name).tensors
    except TooLargeError as error:
        raise TooLargeError("data", error.given, error.limit, error.expected.rpartition(" ")[2]) from None
    except InputError as error:
        raise InputError("data", error.given, error.expected, error.slug) from None
    split = {tuple(key.partition("/")[::2]): tensor for key, tensor in tensors.items()}
    if len(split) < 2 or {part for part, _ in split} - set(PARTS) or any(t.dtype != "U8" for t in split.values()):
        return alone
    found = {part: File(called, tensor.raw()) for (part, called), tensor in split.items()}
    if len(found) != len(split) or "data" not in found:
        return alone
    _check(found)
    return found


def read(
    data: bytes, limits: Limits, *, order: images.Order = "rows", name: str = "data", seed: int = SPLIT_SEED
) -> DataSet:
    """The data set of an upload.

    Args:
        data: what :func:`packed` gave.
        limits: bounds on sizes: of files, unpacked ones too, and of the arrays that they come to.
        order: how images are read.
        name: of a file that is alone.
        seed: of the split, where there are no test data.

    Raises:
        InputError: naming the part or the array; of a ``.ts`` file with the number of the line.
        TooLargeError: beyond the limits.
    """
    files = unpacked(data, name, limits)
    kind = files["data"].format
    if kind == "arrays":
        return data_of(data, limits, seed=seed, name=name)
    shown = files["data"], files.get("test")
    if kind == "ts":
        return _archived(*shown, seed, limits.file_bytes)
    train, shape = _images(shown[0], files["labels"], order, limits.file_bytes)
    if shown[1] is None:
        return of_images(DataSet.of(*train, seed=seed), order, shape)
    test, _ = _images(shown[1], files["test_labels"], order, limits.file_bytes)
    return of_images(DataSet.of(*train, *test), order, shape)


def _archived(train: File, test: File | None, seed: int, most: int) -> DataSet:
    from certes.timeseries import read_ts

    series, labels, classes = read_ts(train.data, name=train.name)
    whole = padded(series, labels, most, train.name)
    if test is None:
        return split(whole, None, seed)
    series, labels, _ = read_ts(test.data, classes, test.name)
    return split(whole, padded(series, labels, most, test.name), seed)


def _images(
    shown: File, said: File, order: images.Order, most: int
) -> tuple[tuple[NDArray[np.float32], NDArray[np.int64]], tuple[int, ...]]:
    """Images as sequences with their classes, and the shape of the images."""
    pixels = images.idx(shown.data, 3, shown.name, most // 4)  # four bytes each as float32
    labels = images.idx(said.data, 1, said.name, most).astype(np.int64)
    return (images.ordered(images.scaled(pixels), order), labels), pixels.shape


def _check(files: Mapping[str, File]) -> None:
    """Raise InputError unless the files belong together, as far as their first bytes tell."""
    if "data" not in files:
        raise InputError("data", "nothing", _ARRAYS, "missing-value")
    kind = files["data"].format
    wanted = {"arrays": {"data"}, "ts": {"data", "test"}, "idx": set(PARTS)}[kind]
    for part, file in files.items():
        if part not in wanted:
            given = f"{file.name[:80]!r} beside {'a file with arrays' if kind == 'arrays' else f'an .{kind} file'}"
            raise InputError(part, given, f"{', '.join(sorted(wanted))} only: {_ARRAYS}", "conflict")
        if file.format != kind:
            given = f"{file.name[:80]!r}, a file of another format"
            raise InputError(part, given, f"the same format as that of data ({kind})", "conflict")
    if kind == "idx":
        for shown, said in (("data", "labels"), ("test", "test_labels")):
            if (shown in files) != (said in files):
                missing = said if shown in files else shown
                raise InputError(
                    missing, "nothing", f"an IDX file: {shown} has images, {said} classes", "missing-value"
                )


def _safetensors(data: bytes) -> bool:
    """Whether a header fits in, by its length: the first letters of a text would promise an enormous one."""
    return len(data) > 8 and int.from_bytes(data[:8], "little") <= len(data) - 8 and data[8:9] == b"{"
