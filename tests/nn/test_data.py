"""Data sets: what is read, how it is split, and everything malformed as an error that names the array."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.errors import InputError
from certes.nn import DataSet, read_data
from certes.weights import write_weights

from tests.nn.problems import MNIST, sequences

X, Y = sequences(count=10)
DATA = Path(MNIST.partition(":")[2]).parent


def test_the_split_of_mnist() -> None:
    """Against the IDX bytes and the published split."""
    folder = Path(MNIST.partition(":")[2])
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    images = pixels.reshape(-1, 28, 28).astype(np.float32) / 255
    order = np.random.default_rng(0).permutation(10000)
    data = read_data(MNIST)
    for part, index in ((data.train, order[:8000]), (data.test, order[8000:])):
        np.testing.assert_array_equal(part.inputs, images[index])
        np.testing.assert_array_equal(part.labels, labels[index])


def test_parts_are_disjoint_and_only_of_training_data() -> None:
    count = 40
    inputs = np.arange(count, dtype=np.float32).reshape(count, 1, 1)
    data = DataSet.of(inputs, np.zeros(count, int))
    train, choice = data.parts(3)
    held = [set(part.inputs.ravel().tolist()) for part in (train, choice, data.test)]
    assert [len(part) for part in held] == [29, 3, 8]
    assert set.union(*held) == set(range(count))
    again = data.parts(3)[1].inputs
    np.testing.assert_array_equal(choice.inputs, again)
    assert not np.array_equal(data.parts(4)[1].inputs, again)
    np.testing.assert_array_equal(DataSet.of(inputs, np.zeros(count, int)).test.inputs, data.test.inputs)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("tested", [False, True])
def test_files(tmp_path: Path, suffix: str, tested: bool) -> None:
    path = tmp_path / f"data.{suffix}"
    arrays = {"inputs": X, "labels": Y} | ({"test_inputs": X[:3], "test_labels": Y[:3]} if tested else {})
    np.savez(path, **arrays) if suffix == "npz" else write_weights(path, arrays)
    data, straight = read_data(path), DataSet.of(*arrays.values())
    assert data.digest == straight.digest
    assert (len(data.train), len(data.test)) == ((10, 3) if tested else (8, 2))
    assert DataSet.of(X + 1, Y).digest != DataSet.of(X, Y).digest != DataSet.of(X, 1 - Y).digest


def changed(array: Any, index: Any, value: Any) -> Any:
    copy = np.array(array)
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    ("arrays", "field"),
    [
        ((X[0], Y), "data.inputs"),
        ((X[:0], Y[:0]), "data.inputs"),
        ((X[:, :0], Y), "data.inputs"),
        ((changed(X, (1, 2, 1), np.nan), Y), "data.inputs"),
        ((changed(X, (1, 2, 1), np.inf), Y), "data.inputs"),
        ((X.astype(np.float64) * 1e300, Y), "data.inputs"),
        ((X + 1j, Y), "data.inputs"),
        ((X.astype(str), Y), "data.inputs"),
        (([[[1.0]], [[1.0, 2.0]]], [0, 1]), "data.inputs"),
        ((X, Y[:-1]), "data.labels"),
        ((X, Y[:, None]), "data.labels"),
        ((X, Y.astype(np.float32)), "data.labels"),
        ((X, Y - 5), "data.labels"),
        ((X, Y, X), "data"),
        ((X, Y, X[:, :, :1], Y), "data.test_inputs"),
        ((X, Y, X, Y[:4]), "data.test_labels"),
        ((X[:1], Y[:1]), "data"),
        ((X[:2], Y[:2]), "data"),
        ((X[:1], Y[:1], X, Y), "data"),
    ],
)
def test_refuses(arrays: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        DataSet.of(*arrays)
    assert caught.value.field == field


def test_refuses_what_the_network_cannot_read() -> None:
    data = DataSet.of(X, Y)
    data.check(2, 2)
    with pytest.raises(InputError, match="input matrix"):
        data.check(3, 2)
    with pytest.raises(InputError, match="labels from 0 to 0"):
        data.check(2, 1)


def idx(path: Path, shape: tuple[int, ...], payload: bytes, magic: bytes | None = None) -> None:
    head = magic or bytes([0, 0, 8, len(shape)])
    path.write_bytes(gzip.compress(head + b"".join(k.to_bytes(4, "big") for k in shape) + payload))


def test_train_and_test_files_of_mnist_keep_their_purpose(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("t10k", 3)):
        idx(tmp_path / f"{part}-images-idx3-ubyte.gz", (count, 2, 2), bytes(range(4 * count)))
        idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", (count,), bytes(count))
    data = read_data(f"mnist-rows:{tmp_path}")
    assert (len(data.train), len(data.test)) == (5, 3)
    np.testing.assert_array_equal(data.test.inputs[0], np.float32([[0, 1], [2, 3]]) / np.float32(255))


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "text.safetensors").write_text("no weights")
    np.savez(tmp_path / "pickled.npz", inputs=np.array([{}], dtype=object), labels=Y)
    np.savez(tmp_path / "half.npz", inputs=X)
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, inputs=X, labels=Y)
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:-40])
    data = bytearray(whole.read_bytes())
    data[80:120] = bytes(40)
    (tmp_path / "flipped.npz").write_bytes(bytes(data))
    for name in (
        "text.npz",
        "text.safetensors",
        "pickled.npz",
        "half.npz",
        "cut.npz",
        "flipped.npz",
        "none.npz",
        "x.csv",
    ):
        with pytest.raises(InputError) as caught:
            read_data(tmp_path / name)
        assert caught.value.field == "data", name


def test_unreadable_idx_files(tmp_path: Path) -> None:
    images, labels = tmp_path / "t10k-images-idx3-ubyte.gz", tmp_path / "t10k-labels-idx1-ubyte.gz"
    source = f"mnist-rows:{tmp_path}"

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match):
            read_data(source)

    refused("no file")
    idx(images, (10, 2, 2), bytes(40))
    refused("labels-idx1")  # missing
    idx(labels, (9,), bytes(9))
    refused("one label per sequence")
    idx(labels, (10,), bytes(9))
    refused("9 bytes for shape")
    idx(labels, (10,), bytes(10), magic=bytes([0, 0, 13, 1]))
    refused("first bytes")
    labels.write_bytes(b"\x1f\x8b" + bytes(30))
    refused("IDX")
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 10]) + bytes(10))[:-9])
    refused("IDX")


def archive(folder: Path, name: str = "Toy", *, test: bool = True) -> Path:
    head = "#c\n@problemName Toy\n@missing false\n@equalLength false\n@dimensions 2\n@classLabel true a b\n@data\n"
    (folder / f"{name}_TRAIN.ts").write_text(head + "1,2,3:4,5,6:a\n7,8:9,10:b\n1,1,1:0,0,0:a\n")
    if test:
        (folder / f"{name}_TEST.ts").write_text(head + "1,2:3,4:b\n")
    return folder / f"{name}_TRAIN.ts"


def test_archive_files(tmp_path: Path) -> None:
    data = read_data(archive(tmp_path))
    assert data.train.inputs.shape == (3, 3, 2)
    assert data.train.lengths is not None
    assert data.train.lengths.tolist() == [3, 2, 3]
    assert data.train.inputs[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert data.train.inputs[1, 2].tolist() == [0, 0]
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 0], [1])
    (tmp_path / "Toy_TEST.ts").unlink()
    assert len(read_data(tmp_path / "Toy_TRAIN.ts").test) == 1


@pytest.mark.parametrize(("old", "new"), [
    ("@data", "@dat"), ("@missing false", "@timeStamps true"), ("1,2,3:4,5,6:a", "1,2,3:4,5:a"), ("7,8:", "7,?:"),
    ("7,8:", "7,nan:"), (":b\n", ":c\n"), ("@classLabel true a b", "@classLabel false"), ("1,1,1:0,0,0:a", "1,1,1:a"),
    ("@dimensions 2", "@targetlabel true"), ("@classLabel true a b", "@targetlabel true"), ("7,8:", "7,inf:"),
])  # fmt: skip
def test_archive_files_that_are_none(tmp_path: Path, old: str, new: str) -> None:
    path = archive(tmp_path, test=False)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_data(path)
    assert caught.value.field == "data"


def test_archive_files_with_missing_values(tmp_path: Path) -> None:
    """On the line between the neighbours; nothing is made up after the last value, and nothing of nothing."""
    path = archive(tmp_path)
    text = path.read_text().replace("@missing false", "@missing true")
    path.write_text(text.replace("1,2,3:4,5,6:a", "?,2,?,?,8,?:4,NaN,6,7,?,?:a"))
    data = read_data(path)
    assert data.train.lengths is not None
    assert data.train.lengths.tolist() == [5, 2, 3]
    assert data.train.inputs[0].tolist() == [[2, 4], [2, 5], [4, 6], [6, 7], [8, 7]]
    path.write_text(text.replace("1,2,3:4,5,6:a", "1,2,3:?,?,?:a"))
    with pytest.raises(InputError, match="not finite"):
        read_data(path)
    path.write_text(text.replace("1,2,3:4,5,6:a", "?,?:?,?:a"))
    with pytest.raises(InputError, match="not finite"):
        read_data(path)


def test_archive_files_of_numbers(tmp_path: Path) -> None:
    path = archive(tmp_path)
    for name in ("TRAIN", "TEST"):
        file = tmp_path / f"Toy_{name}.ts"
        text = file.read_text().replace("@classLabel true a b", "@targetlabel true")
        file.write_text(text.replace(":a\n", ":-1.5\n").replace(":b\n", ":2e3\n"))
    data = read_data(path)
    assert data.train.regression
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([[-1.5], [2000.0], [-1.5]], [[2000.0]])
    assert data.outputs == 1
    whole = path.read_text()
    for bad in ("nan", "inf", "1e31", "x", ""):
        path.write_text(whole.replace(":2e3", f":{bad}"))
        with pytest.raises(InputError, match="target"):
            read_data(path)
    archive(tmp_path, test=False)
    with pytest.raises(InputError, match="same as in the training data"):
        read_data(path)


def test_comments_of_archives_may_be_of_any_bytes(tmp_path: Path) -> None:
    path = archive(tmp_path)
    path.write_bytes(b"# Universit\xe9\n" + path.read_bytes())
    assert len(read_data(path).train) == 3


def test_pixels_in_two_orders() -> None:
    rows, pixels, permuted = (read_data(f"mnist-{kind}") for kind in ("rows", "pixels", "permuted"))
    assert rows.digest == read_data(MNIST).digest
    assert pixels.train.inputs.shape[1:] == (784, 1)
    assert np.array_equal(pixels.train.inputs.reshape(rows.train.inputs.shape), rows.train.inputs)
    assert not np.array_equal(pixels.train.inputs, permuted.train.inputs)
    assert np.array_equal(np.sort(pixels.train.inputs[:5], axis=1), np.sort(permuted.train.inputs[:5], axis=1))
    assert len({data.digest for data in (rows, pixels, permuted)}) == 3


def test_digits() -> None:
    """Against the lines of the file, read another way."""
    file = DATA / "digits" / "digits.csv.gz"
    assert hashlib.sha256(file.read_bytes()).hexdigest() in (file.parent / "README.md").read_text()
    with gzip.open(file, "rt") as stream:
        lines = [[int(float(value)) for value in line.split(",")] for line in stream]
    rows, pixels = read_data("digits"), read_data("digits-pixels")
    assert (rows.train.inputs.shape, pixels.test.inputs.shape) == ((1438, 8, 8), (359, 64, 1))
    order = np.random.default_rng(0).permutation(1797)
    for place, index in ((0, order[1438]), (358, order[1796])):
        assert rows.test.labels[place] == lines[index][-1]
        assert (16 * rows.test.inputs[place].ravel()).tolist() == lines[index][:-1]
        assert (16 * pixels.test.inputs[place].ravel()).tolist() == lines[index][:-1]
    assert np.bincount(rows.train.labels).min() >= 130


@pytest.mark.parametrize("text", ["", "1,2,3\n", "1," * 64 + "x\n", "17," * 64 + "3\n", "1.5," * 64 + "3\n",
                                  "1," * 64 + "10\n", "1," * 64 + "3\n1,2\n", "nan," * 64 + "3\n"])  # fmt: skip
def test_unreadable_digits(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="digits"):
        read_data(f"digits:{tmp_path}")
    (tmp_path / "digits.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match="64 whole numbers"):
        read_data(f"digits:{tmp_path}")


def test_a_name_alone_needs_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed elsewhere, it says what to give; in a folder with the data it finds them."""
    monkeypatch.setattr("certes.sequences.__file__", str(tmp_path / "site" / "certes" / "sequences.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="digits:FOLDER"):
        read_data("digits")
    monkeypatch.chdir(DATA.parents[1])
    assert read_data("digits").digest == read_data(f"digits:{DATA / 'digits'}").digest


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_files_of_targets(tmp_path: Path, suffix: str) -> None:
    """One number, several, or several at every step; lengths beside them."""
    path = tmp_path / f"data.{suffix}"
    count, steps = X.shape[:2]
    lengths = np.arange(count) % steps + 1
    for targets in (np.arange(10.0), np.ones((10, 3), np.float32), np.ones((10, steps, 2))):
        arrays = {"inputs": X, "targets": targets, "lengths": lengths}
        np.savez(path, **arrays) if suffix == "npz" else write_weights(path, arrays)
        data = read_data(path)
        assert data.train.regression
        assert data.train.every is (targets.ndim == 3)
        assert data.outputs == (1 if targets.ndim == 1 else targets.shape[-1])
        whole = np.concatenate([data.train.labels, data.test.labels])
        order = np.random.default_rng(0).permutation(count)
        assert np.array_equal(whole.squeeze(), targets[order].squeeze())
        assert data.train.lengths is not None
        assert data.train.lengths.tolist() == lengths[order[:8]].tolist()
        with pytest.raises(InputError, match="targets"):
            data.check(2, 2)  # what repairs classifiers cannot


STEPS = X.shape[1]


@pytest.mark.parametrize(("arrays", "field"), [
    ({"labels": Y, "targets": Y}, "data"),
    ({}, "data"),
    ({"targets": Y[:-1]}, "data.targets"),
    ({"targets": np.full(10, np.nan)}, "data.targets"),
    ({"targets": np.full(10, 1e31)}, "data.targets"),
    ({"targets": np.ones((10, 0))}, "data.targets"),
    ({"targets": np.ones((10, STEPS + 1, 1))}, "data.targets"),
    ({"targets": np.ones((10, STEPS, 1, 1))}, "data.targets"),
    ({"targets": Y.astype(str)}, "data.targets"),
    ({"targets": Y + 1j}, "data.targets"),
    ({"labels": Y, "lengths": np.ones(9, int)}, "data.lengths"),
    ({"labels": Y, "lengths": np.zeros(10, int)}, "data.lengths"),
    ({"labels": Y, "lengths": np.full(10, STEPS + 1)}, "data.lengths"),
    ({"labels": Y, "lengths": np.ones(10)}, "data.lengths"),
    ({"targets": Y, "test_inputs": X, "test_labels": Y}, "data"),
    ({"targets": Y, "test_inputs": X, "test_targets": np.ones((10, 2))}, "data.test_targets"),
    ({"targets": Y, "test_inputs": X, "test_targets": np.ones((10, STEPS, 1))}, "data.test_targets"),
    ({"labels": Y, "test_targets": Y}, "data"),
    ({"labels": Y, "test_lengths": Y}, "data"),
    ({"labels": Y, "test_inputs": X}, "data"),
])  # fmt: skip
def test_refuses_targets(arrays: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        DataSet.of(X, **arrays)
    assert caught.value.field == field
