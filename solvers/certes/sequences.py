"""Labelled sequences: read from .npz, .safetensors or IDX files (MNIST), and split.

Three parts, for three purposes: sequences to *train* on, sequences to *choose* by (early stopping; a part of the
training data), and sequences to *test* on, which choose nothing. Nothing here needs torch.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError, TooLargeError
from certes.npz import LARGEST, read_npz
from certes.weights import Limits, read_weights

Array = NDArray[np.float64]

#: Where sequences are split without test data of their own: the share for testing, and the seed of the split.
TEST_SHARE, SPLIT_SEED = 0.2, 0
#: Share of the training data by which the best weights are chosen.
CHOICE_SHARE = 0.1
MNIST = "mnist-rows:"
#: Of the order of the pixels in ``mnist-permuted``.
_PERMUTATION_SEED = 92916


@dataclass(frozen=True, eq=False)
class Sequences:
    """Labelled sequences.

    Attributes:
        inputs: shape (N, T, features), float32 or float64, finite.
        labels: shape (N,), int64, not negative.
        lengths: steps of each sequence, shape (N,); what follows is padding. None: all T.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    lengths: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.integer[Any]]) -> Sequences:
        """Some of them."""
        lengths = None if self.lengths is None else self.lengths[index]
        return Sequences(self.inputs[index], self.labels[index], lengths)


@dataclass(frozen=True, eq=False)
class DataSet:
    """Sequences to train on and to test on.

    Attributes:
        train: both training and choosing.
        test: measured on, and nothing else.
    """

    train: Sequences
    test: Sequences

    @classmethod
    def of(
        cls, inputs: object, labels: object, test_inputs: object = None, test_labels: object = None, *, seed: int = 0
    ) -> DataSet:
        """Check arrays; without test arrays a fifth of the sequences is held out.

        The split is ``numpy.random.default_rng(seed).permutation(N)``, the last fifth to test.

        Args:
            inputs: shape (N, T, features), numbers.
            labels: shape (N,), integers.
            test_inputs: likewise, or None together with
            test_labels: likewise.
            seed: of the split.

        Raises:
            InputError: naming the array.
        """
        whole = _sequences("", inputs, labels)
        if (test_inputs is None) != (test_labels is None):
            raise InputError("data", "one of test_inputs and test_labels", "both or neither", "missing-value")
        if test_inputs is not None:
            test = _sequences("test_", test_inputs, test_labels)
            if test.inputs.shape[2] != whole.inputs.shape[2]:
                given = f"{test.inputs.shape[2]} features, and {whole.inputs.shape[2]} to train"
                raise InputError("data.test_inputs", given, "the same number of features", "wrong-shape")
            found = cls(whole, test)
        else:
            order = np.random.default_rng(seed).permutation(len(whole))
            kept = len(whole) - max(1, round(TEST_SHARE * len(whole)))
            found = cls(whole.take(order[:kept]), whole.take(order[kept:]))
        if len(found.train) < 2:
            given = f"{len(whole)} sequences, {len(found.train)} of them to train"
            raise InputError("data", given, "at least 2 to train and 1 to test", "too-few")
        return found

    def parts(self, seed: int, share: float = CHOICE_SHARE) -> tuple[Sequences, Sequences]:
        """The training data in two: to train on, and a share of it to choose by."""
        order = np.random.default_rng((seed, 1)).permutation(len(self.train))
        kept = len(order) - max(1, round(share * len(order)))
        return self.train.take(np.sort(order[:kept])), self.train.take(np.sort(order[kept:]))

    def check(self, features: int, classes: int) -> None:
        """Raise InputError unless a network with so many inputs and classes can read the data."""
        for part, given in (("", self.train), ("test_", self.test)):
            if given.lengths is not None:
                said = "sequences of several lengths"
                raise InputError(f"data.{part}inputs", said, "sequences of one length", "unsupported")
            if given.inputs.shape[2] != features:
                said = f"{given.inputs.shape[2]} features per step"
                raise InputError(f"data.{part}inputs", said, f"{features}, as the input matrix has", "wrong-shape")
            if given.labels.max() >= classes:
                said = f"the label {given.labels.max()}"
                raise InputError(f"data.{part}labels", said, f"labels from 0 to {classes - 1}", "out-of-range")

    @property
    def digest(self) -> str:
        """sha256 over all arrays, hex."""
        whole = hashlib.sha256()
        parts = (self.train, self.test)
        lengths = [part.lengths for part in parts if part.lengths is not None]
        for array in (*(a for part in parts for a in (part.inputs, part.labels)), *lengths):
            whole.update(f"{array.dtype.str}{array.shape}".encode())
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()


def read_data(source: str | os.PathLike[str], *, seed: int = SPLIT_SEED) -> DataSet:
    """Read a data set.

    Args:
        source: a ``.npz`` or ``.safetensors`` file with ``inputs`` (N, T, features) and ``labels`` (N,), optionally
            ``test_inputs`` and ``test_labels``; or ``mnist-rows:FOLDER``, a folder with the IDX files of MNIST, read
            row by row (28 steps of 28 pixels, divided by 255); ``mnist-pixels:FOLDER``: pixel by pixel (784 steps);
            ``mnist-permuted:FOLDER``: pixels in an order of their own. With both the train and the t10k files each is
            used for its purpose. Or a ``.ts`` file of the UCR and UEA archives: NAME_TRAIN.ts goes with the
            NAME_TEST.ts beside it; ``japanese-vowels:FOLDER``: the two of that name.
        seed: of the split, where the data come without test data.

    Raises:
        InputError: naming the file, or the array.
        TooLargeError: beyond 4 GiB.
    """
    name = os.fspath(source)
    kind, colon, folder = name.partition(":")
    if colon and kind in ("mnist-rows", "mnist-pixels", "mnist-permuted"):
        return _ordered(_mnist(Path(folder), seed), kind)
    if colon and kind == "japanese-vowels":
        return _archive(Path(folder) / "JapaneseVowels_TRAIN.ts", seed)
    path = Path(name)
    if path.suffix == ".ts":
        return _archive(path, seed)
    if path.suffix not in (".npz", ".safetensors"):
        expected = f"a .npz, .safetensors or .ts file, or {MNIST}FOLDER"
        raise InputError("data", repr(path.name), expected, "unknown-value")
    if path.suffix == ".safetensors":
        return data_of(path, seed=seed)
    arrays = read_npz(path, "data", lambda names: tuple(name for name in names if name in _NAMES))
    return _of_arrays(arrays, path.name, seed)


def data_of(
    source: Path | bytes, limits: Limits | None = None, *, seed: int = SPLIT_SEED, name: str | None = None
) -> DataSet:
    """A data set in a safetensors file: ``inputs`` and ``labels``, optionally ``test_inputs`` and ``test_labels``.

    Args:
        source: path, or the bytes of a file.
        limits: bounds on its size.
        seed: of the split, where there are no test data.
        name: what the file is called in errors.

    Raises:
        InputError: naming the array (``data.labels``), or ``data`` if it is no such file.
        TooLargeError: beyond the limits.
    """
    try:
        file = read_weights(source, limits, name=name)
        arrays = {name: file.tensors[name].array() for name in _NAMES if name in file.tensors}
    except TooLargeError as error:
        raise TooLargeError(_field(error), error.given, error.limit, error.expected.rpartition(" ")[2]) from None
    except InputError as error:
        raise InputError(_field(error), error.given, error.expected, error.slug) from None
    return _of_arrays(arrays, file.name or "the file", seed)


def _field(error: InputError) -> str:
    return "data" if error.field == "weights" else f"data.{error.field}"


def _of_arrays(arrays: Mapping[str, NDArray[Any]], file: str, seed: int) -> DataSet:
    missing = [part for part in ("inputs", "labels") if part not in arrays]
    if missing:
        given = f"no array {missing[0]!r} in {file} (there is {', '.join(arrays) or 'nothing'})"
        raise InputError("data", given, "arrays inputs and labels", "missing-value")
    return DataSet.of(
        arrays["inputs"], arrays["labels"], arrays.get("test_inputs"), arrays.get("test_labels"), seed=seed
    )


_NAMES = ("inputs", "labels", "test_inputs", "test_labels")


def _sequences(prefix: str, inputs: object, labels: object) -> Sequences:
    field = f"data.{prefix}inputs"
    values = _array(field, inputs)
    if values.ndim != 3 or 0 in values.shape:
        expected = "a non-empty array (sequences, steps, features)"
        raise InputError(field, f"shape {values.shape}", expected, "wrong-shape")
    if values.dtype.kind not in "fiub":
        raise InputError(field, f"dtype {values.dtype}", "numbers", "wrong-dtype")
    dtype = np.float64 if values.dtype.itemsize > 4 and values.dtype.kind == "f" else np.float32
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(values, dtype=dtype)
        bad = ~np.isfinite(narrow.astype(np.float32, copy=False))  # the recurrence is run in float32
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        raise InputError(field, f"{values[where]} at index {where}", "finite numbers of float32 only", "not-finite")
    return Sequences(narrow, _labels(f"data.{prefix}labels", labels, len(values)))


def _labels(field: str, labels: object, count: int) -> NDArray[np.int64]:
    given = _array(field, labels)
    if given.dtype.kind not in "iu":
        raise InputError(field, f"dtype {given.dtype}", "integers", "wrong-dtype")
    if given.shape != (count,):
        raise InputError(field, f"shape {given.shape}", f"shape ({count},), one label per sequence", "wrong-shape")
    if int(given.min()) < 0 or int(given.max()) >= 2**31:
        raise InputError(field, f"labels from {given.min()} to {given.max()}", "labels from 0", "out-of-range")
    return np.ascontiguousarray(given, dtype=np.int64)


def _array(field: str, given: object) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:
        raise InputError(field, "something that is no array", "an array of numbers", "wrong-type") from error


def _ordered(data: DataSet, kind: str) -> DataSet:
    """Rows as they are, or pixel by pixel, in their order or in a fixed random one."""
    if kind == "mnist-rows":
        return data
    pixels = data.train.inputs.shape[1] * data.train.inputs.shape[2]
    order = np.arange(pixels)
    if kind == "mnist-permuted":
        order = np.random.default_rng(_PERMUTATION_SEED).permutation(pixels)
    train, test = (
        Sequences(np.ascontiguousarray(part.inputs.reshape(len(part), pixels, 1)[:, order]), part.labels)
        for part in (data.train, data.test)
    )
    return DataSet(train, test)


def _archive(path: Path, seed: int) -> DataSet:
    """A file of the archives, and its other half if there is one."""
    from certes.timeseries import read_ts

    series, labels, classes = read_ts(path)
    train = _padded(series, labels)
    other = path.with_name(path.name.replace("_TRAIN.ts", "_TEST.ts"))
    if path.name.endswith("_TRAIN.ts") and other.exists():
        return DataSet(train, _padded(*read_ts(other, classes)[:2]))
    order = np.random.default_rng(seed).permutation(len(train))
    kept = len(train) - max(1, round(TEST_SHARE * len(train)))
    if kept < 2:
        raise InputError("data", f"{len(train)} sequences", "at least 2 to train and 1 to test", "too-few")
    return DataSet(train.take(order[:kept]), train.take(order[kept:]))


def _padded(series: list[NDArray[np.float32]], labels: NDArray[np.int64]) -> Sequences:
    """Series of several lengths in one array, zeros after their ends."""
    lengths = np.array([len(one) for one in series], dtype=np.int64)
    inputs = np.zeros((len(series), int(lengths.max()), series[0].shape[1]), dtype=np.float32)
    for one, values in zip(inputs, series, strict=True):
        one[: len(values)] = values
    return Sequences(inputs, labels, None if (lengths == lengths[0]).all() else lengths)


def _mnist(folder: Path, seed: int) -> DataSet:
    images = {path.name.split("-")[0]: path for path in sorted(folder.glob("*-images-idx3-ubyte*"))}
    if not images:
        given = f"no file *-images-idx3-ubyte.gz in {str(folder)!r}"
        raise InputError("data", given, "a folder with the IDX files of MNIST", "unreadable")
    arrays = {}
    for part, path in images.items():
        labels = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
        pixels = _idx(path, 3)
        arrays[part] = (pixels.astype(np.float32) / np.float32(255), _idx(labels, 1).astype(np.int64))
    if len(arrays) == 1:
        return DataSet.of(*next(iter(arrays.values())), seed=seed)
    if set(arrays) != {"train", "t10k"}:
        given = f"images of {', '.join(arrays)}"
        raise InputError("data", given, "one pair of IDX files, or those of train and t10k", "unknown-value")
    return DataSet.of(*arrays["train"], *arrays["t10k"])


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes, gzipped or not."""
    expected = f"an IDX file of bytes with {dimensions} dimensions"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(LARGEST // 4 + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("data", f"{path.name}: {error}", expected, "unreadable") from error
    if len(data) > LARGEST // 4:
        raise TooLargeError("data", f"{path.name} of more bytes", LARGEST // 4)
    start = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < start:
        raise InputError("data", f"{path.name} with other first bytes", expected, "malformed")
    shape = [int(k) for k in np.frombuffer(data[4:start], ">u4")]
    if int(np.prod(shape, dtype=object)) != len(data) - start:
        given = f"{path.name}: {len(data) - start} bytes for shape {shape}"
        raise InputError("data", given, expected, "malformed")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
