"""Sequences with what is to be said of them: read from files or named data sets, checked, and split.

Three parts, for three purposes: sequences to *train* on, sequences to *choose* by (early stopping; a part of the
training data), and sequences to *test* on, which choose nothing. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes import images
from certes.errors import InputError, TooLargeError
from certes.npz import read_npz
from certes.weights import Limits, read_weights

Array = NDArray[np.float64]

#: Where sequences are split without test data of their own: the share for testing, and the seed of the split.
TEST_SHARE, SPLIT_SEED = 0.2, 0
#: Share of the training data by which the best weights are chosen.
CHOICE_SHARE = 0.1
#: Named data sets, and the folder of each under examples/data in a checkout.
NAMED = {
    "mnist-rows": "mnist", "mnist-pixels": "mnist", "mnist-permuted": "mnist", "digits": "digits",
    "digits-pixels": "digits", "japanese-vowels": "japanese-vowels",
}  # fmt: skip
#: The file of ``japanese-vowels`` that is trained on.
VOWELS = "JapaneseVowels_TRAIN.ts"
#: Largest target in size: with room in float32 for a readout that makes it.
LARGEST_TARGET = 1e30


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences with labels, or with targets.

    Attributes:
        inputs: shape (N, T, features), float32 or float64, finite.
        labels: the class of each, shape (N,), int64, not negative; or targets, float64, finite: of the last step,
            shape (N, outputs), or of every step, shape (N, T, outputs).
        lengths: steps of each sequence, shape (N,); what follows is padding. None: all T.
        image: (height, width), if each sequence is an image that is read row by row or pixel by pixel, in order.
    """

    inputs: NDArray[Any]
    labels: NDArray[Any]
    lengths: NDArray[np.int64] | None = None
    image: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def regression(self) -> bool:
        """Whether ``labels`` are targets."""
        return self.labels.dtype.kind == "f"

    @property
    def every(self) -> bool:
        """Whether there are targets of every step."""
        return self.labels.ndim == 3

    def take(self, index: NDArray[np.integer[Any]]) -> Sequences:
        """Some of them."""
        lengths = None if self.lengths is None else self.lengths[index]
        return Sequences(self.inputs[index], self.labels[index], lengths, self.image)


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
        cls, inputs: object, labels: object = None, test_inputs: object = None, test_labels: object = None, *,
        targets: object = None, test_targets: object = None, lengths: object = None, test_lengths: object = None,
        seed: int = 0,
    ) -> DataSet:  # fmt: skip
        """Check arrays; without test arrays a fifth of the sequences is held out.

        The split is ``numpy.random.default_rng(seed).permutation(N)``, the last fifth to test.

        Args:
            inputs: shape (N, T, features), numbers.
            labels: classes, shape (N,), integers; or None, and
            targets: of the last step, shape (N,) or (N, outputs), or of every step, (N, T, outputs); numbers.
            test_inputs: likewise, with
            test_labels: or
            test_targets: if there are any.
            lengths: steps of each sequence, shape (N,), integers from 1 to T, or None: all T.
            test_lengths: likewise.
            seed: of the split.

        Raises:
            InputError: naming the array.
        """
        given = {"labels": labels, "targets": targets, "lengths": lengths}
        of_test = {"labels": test_labels, "targets": test_targets, "lengths": test_lengths}
        whole = _sequences("", inputs, **given)
        if test_inputs is None and any(array is not None for array in of_test.values()):
            name = next(name for name, array in of_test.items() if array is not None)
            raise InputError("data", f"test_{name} without test_inputs", "both or neither", "missing-value")
        found = _held_out(whole, seed) if test_inputs is None else cls(
            whole, _alike(_sequences("test_", test_inputs, **of_test), whole)
        )  # fmt: skip
        if len(found.train) < 2:
            said = f"{len(whole)} sequences, {len(found.train)} of them to train"
            raise InputError("data", said, "at least 2 to train and 1 to test", "too-few")
        return found

    @property
    def outputs(self) -> int:
        """Numbers that a network says of a sequence, or of a step: of classes, or of targets."""
        if self.train.regression:
            return int(self.train.labels.shape[-1])
        return int(max(self.train.labels.max(), self.test.labels.max())) + 1

    def parts(self, seed: int, share: float = CHOICE_SHARE) -> tuple[Sequences, Sequences]:
        """The training data in two: to train on, and a share of it to choose by."""
        order = np.random.default_rng((seed, 1)).permutation(len(self.train))
        kept = len(order) - max(1, round(share * len(order)))
        return self.train.take(np.sort(order[:kept])), self.train.take(np.sort(order[kept:]))

    def check(self, features: int, classes: int) -> None:
        """Raise InputError unless a network with so many inputs and classes can read the data."""
        for part, given in (("", self.train), ("test_", self.test)):
            if given.regression:
                raise InputError(f"data.{part}targets", "targets", "labels, one class per sequence", "unsupported")
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
        source: a ``.npz`` or ``.safetensors`` file with the arrays of :meth:`DataSet.of`, by name; a ``.ts`` file of
            the UCR and UEA archives, where NAME_TRAIN.ts goes with the NAME_TEST.ts beside it; or ``NAME:FOLDER``
            with a name of :data:`NAMED`, in a checkout ``NAME`` alone for the folder that comes with it.
            ``mnist-rows``: the IDX files of MNIST row by row (28 steps of 28 pixels, divided by 255);
            ``mnist-pixels``: pixel by pixel (784 steps); ``mnist-permuted``: pixels in an order of their own; with both
            the train and the t10k files each is used for its purpose. ``digits`` and ``digits-pixels``: 8 rows, or 64
            pixels. ``japanese-vowels``: the two ``.ts`` files of that name.
        seed: of the split, where the data come without test data.

    Raises:
        InputError: naming the file, or the array.
        TooLargeError: beyond 4 GiB.
    """
    name = os.fspath(source)
    if (given := named(name)) is not None:
        return _named(*given, seed)
    path = Path(name)
    if path.suffix == ".ts":
        return _archive(path, seed)
    if path.suffix not in (".npz", ".safetensors"):
        expected = f"a .npz, .safetensors or .ts file, or NAME:FOLDER, NAME {', '.join(NAMED)}"
        raise InputError("data", repr(path.name), expected, "unknown-value")
    if path.suffix == ".safetensors":
        return data_of(path, seed=seed)
    arrays = read_npz(path, "data", _chosen)
    return _of_arrays(arrays, path.name, seed)


def named(source: str) -> tuple[str, Path] | None:
    """The name of a data set of :data:`NAMED` and the folder of its files; None: a path.

    Raises:
        InputError: no folder is given, and none comes with this checkout.
    """
    kind, colon, given = source.partition(":")
    if kind not in NAMED or not (colon or os.sep not in source):
        return None
    return kind, Path(given) if colon else _bundled(kind)


def data_of(
    source: Path | bytes, limits: Limits | None = None, *, seed: int = SPLIT_SEED, name: str | None = None
) -> DataSet:
    """A data set in a safetensors file, or in the bytes of an .npz: the arrays of :meth:`DataSet.of`, by name.

    Args:
        source: path of a safetensors file, or the bytes of either.
        limits: bounds on its size.
        seed: of the split, where there are no test data.
        name: what the file is called in errors.

    Raises:
        InputError: naming the array (``data.labels``), or ``data`` if it is no such file.
        TooLargeError: beyond the limits.
    """
    if isinstance(source, bytes) and source.startswith(_ZIP):
        most = (limits or Limits()).file_bytes
        arrays = read_npz(source, "data", _chosen, most=most, name=name)
        return _of_arrays(arrays, name or "the file", seed)
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


_PARTS = ("inputs", "labels", "targets", "lengths")
_NAMES = (*_PARTS, *(f"test_{part}" for part in _PARTS))
#: How an .npz begins: a safetensors file would promise a header of 80 GB.
_ZIP = b"PK\x03\x04"


def _chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    """The arrays of a data set among those of a file."""
    return tuple(name for name in names if name in _NAMES)


def _of_arrays(arrays: Mapping[str, NDArray[Any]], file: str, seed: int) -> DataSet:
    if "inputs" not in arrays or not {"labels", "targets"} & set(arrays):
        missing = "'labels', and none 'targets'" if "inputs" in arrays else "'inputs'"
        given = f"no array {missing} in {file} (there is {', '.join(arrays) or 'nothing'})"
        raise InputError("data", given, "arrays inputs and labels, or inputs and targets", "missing-value")
    return DataSet.of(**arrays, seed=seed)


def _sequences(prefix: str, inputs: object, *, labels: object, targets: object, lengths: object) -> Sequences:
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
    if (labels is None) == (targets is None):
        given = f"{'neither' if labels is None else 'both'} of {prefix}labels and {prefix}targets"
        raise InputError("data", given, "one of the two", "missing-value" if labels is None else "conflict")
    said = _targets(f"data.{prefix}targets", targets, values.shape) if labels is None else (
        _labels(f"data.{prefix}labels", labels, len(values))
    )  # fmt: skip
    return Sequences(narrow, said, _lengths(f"data.{prefix}lengths", lengths, values.shape))


def _labels(field: str, labels: object, count: int) -> NDArray[np.int64]:
    given = _array(field, labels)
    if given.dtype.kind not in "iu":
        raise InputError(field, f"dtype {given.dtype}", "integers", "wrong-dtype")
    if given.shape != (count,):
        raise InputError(field, f"shape {given.shape}", f"shape ({count},), one label per sequence", "wrong-shape")
    if int(given.min()) < 0 or int(given.max()) >= 2**31:
        raise InputError(field, f"labels from {given.min()} to {given.max()}", "labels from 0", "out-of-range")
    return np.ascontiguousarray(given, dtype=np.int64)


def _targets(field: str, targets: object, shape: tuple[int, ...]) -> Array:
    """Targets as (N, outputs) or (N, T, outputs)."""
    given = _array(field, targets)
    count, steps = shape[:2]
    if given.dtype.kind not in "fiub":
        raise InputError(field, f"dtype {given.dtype}", "numbers", "wrong-dtype")
    led = (count, steps) if given.ndim == 3 else (count,)
    if given.ndim not in (1, 2, 3) or given.shape[: len(led)] != led or 0 in given.shape:
        expected = f"shape ({count},), ({count}, outputs) or ({count}, {steps}, outputs)"
        raise InputError(field, f"shape {given.shape}", expected, "wrong-shape")
    found = np.ascontiguousarray(given[:, None] if given.ndim == 1 else given, dtype=np.float64)
    bad = ~(np.abs(found) <= LARGEST_TARGET)
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        expected = f"finite numbers up to {LARGEST_TARGET:g} in size"
        raise InputError(field, f"{found[where]} at index {where}", expected, "not-finite")
    return found


def _lengths(field: str, lengths: object, shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    if lengths is None:
        return None
    given = _array(field, lengths)
    if given.dtype.kind not in "iu":
        raise InputError(field, f"dtype {given.dtype}", "integers", "wrong-dtype")
    if given.shape != shape[:1]:
        expected = f"shape ({shape[0]},), one length per sequence"
        raise InputError(field, f"shape {given.shape}", expected, "wrong-shape")
    if int(given.min()) < 1 or int(given.max()) > shape[1]:
        given_range = f"lengths from {given.min()} to {given.max()}"
        raise InputError(field, given_range, f"lengths from 1 to {shape[1]}", "out-of-range")
    return None if (given == shape[1]).all() else np.ascontiguousarray(given, dtype=np.int64)


def _alike(test: Sequences, train: Sequences) -> Sequences:
    """Test data that a network for the training data can read."""
    if test.inputs.shape[2] != train.inputs.shape[2]:
        given = f"{test.inputs.shape[2]} features, and {train.inputs.shape[2]} to train"
        raise InputError("data.test_inputs", given, "the same number of features", "wrong-shape")
    if test.regression != train.regression:
        said = ["labels", "targets"]
        given = f"{said[test.regression]} to test, and {said[train.regression]} to train"
        raise InputError("data", given, "the same of both", "conflict")
    if test.regression and (test.every, test.labels.shape[-1]) != (train.every, train.labels.shape[-1]):
        given = f"shape {test.labels.shape}, and {train.labels.shape} to train"
        raise InputError("data.test_targets", given, "as many outputs, of the same steps", "wrong-shape")
    return test


def _held_out(whole: Sequences, seed: int) -> DataSet:
    """A fifth of the sequences to test on."""
    order = np.random.default_rng(seed).permutation(len(whole))
    kept = len(whole) - max(1, round(TEST_SHARE * len(whole)))
    return DataSet(whole.take(order[:kept]), whole.take(order[kept:]))


def _array(field: str, given: object) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:
        raise InputError(field, "something that is no array", "an array of numbers", "wrong-type") from error


def _named(kind: str, folder: Path, seed: int) -> DataSet:
    """A data set of :data:`NAMED`."""
    family, _, order = kind.partition("-")
    if family == "japanese":
        return _archive(folder / VOWELS, seed)
    how: Any = order or "rows"
    if family == "digits":
        pixels, labels = images.digits(folder)
        return of_images(DataSet.of(images.ordered(pixels, how), labels, seed=seed), how, pixels.shape)
    found = images.mnist(folder)
    shape = next(iter(found.values()))[0].shape
    parts = {part: (images.ordered(pixels, how), labels) for part, (pixels, labels) in found.items()}
    if len(parts) == 1:
        return of_images(DataSet.of(*next(iter(parts.values())), seed=seed), how, shape)
    return of_images(DataSet.of(*parts["train"], *parts["t10k"]), how, shape)


def of_images(data: DataSet, how: images.Order, shape: tuple[int, ...]) -> DataSet:
    """The same, knowing that its sequences are images, where their pixels are in order."""
    image = None if how == "permuted" else (shape[1], shape[2])
    return DataSet(replace(data.train, image=image), replace(data.test, image=image))


def _bundled(kind: str) -> Path:
    """The folder that comes with a checkout.

    Raises:
        InputError: there is none here.
    """
    places = (Path(__file__).resolve().parents[2], Path.cwd())
    found = next((data for root in places if (data := root / "examples" / "data" / NAMED[kind]).is_dir()), None)
    if found is None:
        given = f"{kind} without a folder, and no examples/data/{NAMED[kind]} here"
        raise InputError("data", given, f"{kind}:FOLDER, the folder of its files", "missing-value")
    return found


def _archive(path: Path, seed: int) -> DataSet:
    """A file of the archives, and its other half if there is one."""
    from certes.timeseries import read_ts

    series, labels, classes = read_ts(path)
    whole, other = padded(series, labels), other_half(path)
    return split(whole, None if other is None else padded(*read_ts(other, classes)[:2]), seed)


def other_half(path: Path) -> Path | None:
    """The file NAME_TEST.ts beside NAME_TRAIN.ts, if there is one."""
    other = path.with_name(path.name.replace("_TRAIN.ts", "_TEST.ts"))
    return other if path.name.endswith("_TRAIN.ts") and other.exists() else None


def split(whole: Sequences, test: Sequences | None, seed: int) -> DataSet:
    """A data set of checked sequences; without any to test on, of a fifth of them.

    Raises:
        InputError: too few, or test data of another shape or purpose.
    """
    found = _held_out(whole, seed) if test is None else DataSet(whole, _alike(test, whole))
    if len(found.train) < 2:
        raise InputError("data", f"{len(whole)} sequences", "at least 2 to train and 1 to test", "too-few")
    return found


def padded(
    series: list[NDArray[np.float32]], labels: NDArray[Any], most: int | None = None, name: str = ""
) -> Sequences:
    """Series of several lengths in one array, zeros after their ends.

    Args:
        series: each of shape (steps, features).
        labels: of each.
        most: bytes that the array may have: one long series makes all of them long.
        name: what they are called in errors.

    Raises:
        TooLargeError: beyond ``most``.
    """
    lengths = np.array([len(one) for one in series], dtype=np.int64)
    shape = (len(series), int(lengths.max()), series[0].shape[1])
    size = 4 * shape[0] * shape[1] * shape[2]
    if most is not None and size > most:
        raise TooLargeError("data", f"{name}: {size} bytes once all series are as long as the longest", most)
    inputs = np.zeros(shape, dtype=np.float32)
    for one, values in zip(inputs, series, strict=True):
        one[: len(values)] = values
    return Sequences(inputs, labels, None if (lengths == lengths[0]).all() else lengths)
