"""Data sets: what is read, how it is split, and everything malformed as an error that names the array."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.errors import InputError
from certes.nn import DataSet, read_data
from certes.weights import write_weights

from tests.nn.problems import MNIST, sequences

X, Y = sequences(count=10)


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
