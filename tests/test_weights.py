"""Weight files: every dtype converts exactly, and no bad file gets through or brings Python down."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import scipy.sparse
from certes.dtypes import encoded, rounded
from certes.errors import CertesError, InputError, TooLargeError
from certes.systems import SparseMatrix, tensor
from certes.weights import Limits, read_weights, rewritten, to_bytes, write_weights
from hypothesis import given, settings
from hypothesis import strategies as st

MODELS = Path(__file__).parents[1] / "examples" / "models"


def by_hand(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def slug_of(source: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_weights(source, **options)
    assert caught.value.field == "weights"
    assert len(str(caught.value)) < 600
    return caught.value.slug


# --- rewritten files -----------------------------------------------------------------------------------------------

OTHERS = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64}


@pytest.mark.parametrize("dtype", OTHERS)
def test_rounding_is_that_of_another_library(dtype: str) -> None:
    """To nearest, ties to even, subnormals and overflow included."""
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [rng.standard_normal(2000) * 10.0 ** rng.uniform(-46, 39, 2000), [0.0, -0.0, 1e-320, 65520.0]]
    )
    narrow = np.arange(0x3F80, 0x3FC0, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float64)
    values = np.concatenate([values, 0.5 * (narrow[1:] + narrow[:-1])])  # ties
    with np.errstate(over="ignore", under="ignore"):
        # ml_dtypes rounds float64 at once, by way of float32: both roundings differ only off the grid of float32
        theirs = values.astype(np.float32).astype(OTHERS[dtype]) if dtype == "BF16" else values.astype(OTHERS[dtype])
    ours = rounded(values, dtype)
    assert ours.tobytes() == theirs.astype(np.float64).tobytes()
    finite = values[np.isfinite(ours)]
    assert encoded(finite, dtype) == theirs[np.isfinite(ours)].tobytes()
    assert rounded(rounded(finite, dtype), dtype).tobytes() == rounded(finite, dtype).tobytes()


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.safetensors"))[:3], ids=lambda path: path.stem)
def test_rewriting_nothing_keeps_every_tensor(path: Path) -> None:
    file = read_weights(path)
    again = read_weights(rewritten(file, {}))
    assert list(again.tensors) == list(file.tensors)
    assert [entry.subject for entry in again.tensors.values()] == [entry.subject for entry in file.tensors.values()]
    assert again.metadata == file.metadata


@pytest.mark.parametrize("dtype", OTHERS)
def test_rewriting_changes_one_tensor_in_its_own_dtype(dtype: str) -> None:
    old = {"b": np.arange(3, dtype=np.int64), "W": np.eye(2).astype(OTHERS[dtype]), "s": np.float32(1.5).reshape(())}
    file = read_weights(to_bytes(old, {"note": "kept"}))
    wanted = np.array([[0.1, -0.2], [1.0 / 3.0, 1e-30]])
    data = rewritten(file, {"W": wanted})
    again = read_weights(data)
    assert again.get("W").dtype == dtype
    assert again.get("W").raw() == wanted.astype(OTHERS[dtype]).tobytes()
    assert [again.get(name).raw() for name in ("b", "s")] == [file.get(name).raw() for name in ("b", "s")]
    assert again.metadata == {"note": "kept"}
    assert rewritten(file, {"W": wanted}) == data
    assert safetensors.deserialize(data)


@pytest.mark.parametrize(
    ("changed", "slug"),
    [
        ({"missing": np.eye(2)}, None),
        ({"W": np.eye(3)}, "wrong-shape"),
        ({"b": np.arange(3.0)}, "wrong-shape"),  # integers are no weights
        ({"W": np.full((2, 2), np.inf)}, "not-finite"),
        ({"W": np.full((2, 2), 1e6)}, "not-finite"),
    ],
)
def test_rewriting_refuses(changed: Mapping[str, Any], slug: str | None) -> None:
    file = read_weights(to_bytes({"b": np.arange(3), "W": np.eye(2, dtype=np.float16)}))
    with pytest.raises(InputError) as caught:
        rewritten(file, changed)
    assert slug is None or caught.value.slug == slug


# --- true files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_example_models_agree_with_the_library(path: Path) -> None:
    ours, theirs = read_weights(path), safetensors.numpy.load_file(path)
    assert ours.name == path.name
    assert ours.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(ours.tensors) == set(theirs)
    for name, array in theirs.items():
        stored = ours.tensors[name]
        assert np.array_equal(stored.floats(), array.astype(np.float64))
        assert stored.sha256 == hashlib.sha256(array.tobytes()).hexdigest()
    from_bytes = read_weights(path.read_bytes(), name=path.name)
    assert from_bytes.sha256 == ours.sha256
    assert [entry.subject for entry in from_bytes.tensors.values()] == [
        entry.subject for entry in ours.tensors.values()
    ]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_16_bit_pattern_is_exact(dtype: Any) -> None:
    """All finite values, subnormals and signed zeros, against the conversion of another library."""
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):
        finite = every[np.isfinite(every.astype(np.float64))]
    finite = finite[: len(finite) // 8 * 8].reshape(8, -1)
    data = to_bytes({"W": finite})
    value = read_weights(data).matrix("W").value
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.float64
    assert np.array_equal(value, finite.astype(np.float64))
    assert np.array_equal(np.signbit(value), np.signbit(finite.astype(np.float64)))
    assert read_weights(data).tensors["W"].sha256 == hashlib.sha256(finite.tobytes()).hexdigest()


@settings(max_examples=50)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    width=st.sampled_from([32, 64]),
)
def test_float32_and_float64_are_exact(values: list[float], width: int) -> None:
    with np.errstate(over="ignore"):
        array = np.array([values], dtype=f"f{width // 8}")
    array[~np.isfinite(array)] = 0
    found = read_weights(to_bytes({"W": array})).matrix("W")
    assert np.array_equal(found.value, array.astype(np.float64))
    assert found.subjects == tensor("W", array).subjects  # from a file or from memory: the same identity


def test_file_and_memory_agree_on_sparse_matrices(tmp_path: Path) -> None:
    matrix = scipy.sparse.random_array((30, 30), density=0.1, rng=np.random.default_rng(0), format="coo")
    path = write_weights(tmp_path / "w.safetensors", {"W": matrix, "b": np.zeros(3)})
    found = read_weights(path).matrix("W")
    assert isinstance(found.value, SparseMatrix)
    again = scipy.sparse.csr_array((found.value.data, found.value.indices, found.value.indptr), found.value.shape)
    assert (again != matrix.tocsr()).nnz == 0
    assert found.subjects == tensor("W", matrix).subjects
    assert write_weights(tmp_path / "v.safetensors", {"W": found.value}).read_bytes() == to_bytes({"W": matrix})
    narrow = {key: array.astype(np.int32) for key, array in parts_of(matrix).items() if key != "W.data"}
    assert read_weights(to_bytes({**narrow, "W.data": found.value.data})).matrix("W").subjects == found.subjects


def parts_of(matrix: Any) -> dict[str, np.ndarray]:
    return safetensors.numpy.load(to_bytes({"W": matrix}))


def test_big_endian_arrays_are_written_as_they_read() -> None:
    array = np.array([[1.5, -2.0]])
    assert to_bytes({"W": array.astype(">f8")}) == to_bytes({"W": array})


def test_writing_is_deterministic_and_the_library_reads_it() -> None:
    arrays = {"b": np.arange(3.0), "a": np.array(True), "c": np.array(7)}
    assert to_bytes(arrays) == to_bytes(dict(reversed(arrays.items())))
    assert {name: array.tolist() for name, array in safetensors.numpy.load(to_bytes(arrays)).items()} == {
        "a": True,
        "b": [0, 1, 2],
        "c": 7,
    }
    with pytest.raises(InputError, match="two tensors"):
        to_bytes({"W": scipy.sparse.eye_array(2, format="csr"), "W.data": np.ones(1)})


def test_unused_tensors_are_hashed_but_not_kept(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "w.safetensors", {"big": np.zeros((1000, 4000)), "W": np.eye(2)})
    tracemalloc.start()
    file = read_weights(path)
    file.matrix("W")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000  # the file has 32 MB
    assert file.tensors["big"].sha256 == hashlib.sha256(np.zeros((1000, 4000)).tobytes()).hexdigest()


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "w.safetensors", {"W": np.eye(2)})
    file = read_weights(path)
    write_weights(path, {"W": np.eye(2) * 2})
    with pytest.raises(InputError) as caught:
        file.matrix("W")
    assert caught.value.slug == "file-changed"
    path.unlink()
    with pytest.raises(InputError):
        file.matrix("W")


# --- tensors that are no weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "slug"),
    [
        (np.array([[1, 2], [3, 4]]), "wrong-dtype"),
        (np.array([[True]]), "wrong-dtype"),
        (np.array([[1j]], dtype=np.complex64), "wrong-dtype"),
        (np.array([[1, 2]], dtype=ml_dtypes.float8_e4m3fn), "wrong-dtype"),
        (np.zeros((0, 0)), "wrong-shape"),
        (np.zeros(3), "wrong-shape"),
        (np.zeros((2, 2, 2)), "wrong-shape"),
        (np.array(1.0), "wrong-shape"),
        (np.array([[0.0, np.nan]]), "not-finite"),
        (np.array([[np.inf, 0.0]], dtype=np.float16), "not-finite"),
        (np.array([[-np.inf, 0.0]], dtype=ml_dtypes.bfloat16), "not-finite"),
    ],
)
def test_tensors_that_are_no_weights(array: Any, slug: str) -> None:
    file = read_weights(to_bytes({"V": array, "W": np.eye(2)}))
    assert file.matrix("W").value.shape == (2, 2)  # the file as such is fine
    with pytest.raises(InputError) as caught:
        file.matrix("V")
    assert (caught.value.field, caught.value.slug) == ("V", slug)


def test_missing_tensor_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"alpha, beta") as caught:
        read_weights(to_bytes({"alpha": np.eye(1), "beta": np.eye(1)})).matrix("W", "tensors.W")
    assert (caught.value.field, caught.value.slug) == ("tensors.W", "unknown-tensor")


SPARSE: Mapping[str, Any] = {
    "W.data": np.ones(2),
    "W.indices": np.array([0, 1]),
    "W.indptr": np.array([0, 1, 2]),
    "W.shape": np.array([2, 2]),
}


@pytest.mark.parametrize(
    "edit",
    [
        {"W.indices": np.array([0, 2])},
        {"W.indices": np.array([0, -1])},
        {"W.indices": np.array([0.0, 1.0])},
        {"W.indices": np.array([0])},
        {"W.indptr": np.array([0, 2, 1])},
        {"W.indptr": np.array([1, 1, 2])},
        {"W.indptr": np.array([0, 1])},
        {"W.indptr": np.array([0, 2**31 - 1, 5 - 2**31, -5, 2], np.int32), "W.shape": np.array([4, 4])},
        {"W.indptr": np.array([0, 2**63 - 1, 5 - 2**63, -5, 2]), "W.shape": np.array([4, 4])},
        {"W.indptr": np.array([0, 2, 2]), "W.indices": np.array([1, 0])},
        {"W.indptr": np.array([0, 2, 2]), "W.indices": np.array([0, 0])},
        {"W.shape": np.array([2, 2, 2])},
        {"W.shape": np.array([0, 2])},
        {"W.shape": np.array([-2, 2])},
        {"W.shape": np.array([2**62, 2**62])},
        {"W.data": np.array([1, 2])},
        {"W.data": np.array([1.0, np.nan])},
        {"W.data": np.ones((2, 1))},
        {"W.data": None},
        {"W.shape": None},
    ],
)
def test_malformed_sparse_matrices(edit: Mapping[str, Any]) -> None:
    assert read_weights(to_bytes(SPARSE)).matrix("W").value.shape == (2, 2)
    parts = {name: array for name, array in {**SPARSE, **edit}.items() if array is not None}
    with pytest.raises(InputError):
        read_weights(to_bytes(parts)).matrix("W")


# --- files that are none -------------------------------------------------------------------------------------------


class Boom:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was executed",))


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("archive/data.pkl", pickle.dumps(Boom()))
    samples = [archive.getvalue(), *(pickle.dumps(Boom(), protocol) for protocol in range(6))]
    samples += [pickle.dumps({"state_dict": {"w": [1.0] * 50}}, protocol) for protocol in range(6)]
    samples += [pickle.dumps([1], protocol) for protocol in range(2, 6)]
    for sample in samples:
        assert slug_of(sample) == "pickle", sample[:20]
        path = tmp_path / "model.pt"
        path.write_bytes(sample)
        assert slug_of(path) == "pickle"


def test_torch_save_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(2, 2)}, tmp_path / "model.pt")
    assert slug_of(tmp_path / "model.pt") == "pickle"


def test_a_header_whose_length_looks_like_a_pickle_is_read() -> None:
    for length in (0x0280, 0x0480, 0x10280):
        header = json.dumps({"__metadata__": {"a": ""}, "W": entry("F64", [1, 1], 0, 8)}).encode().ljust(length)
        assert read_weights(by_hand(header, bytes(8))).matrix("W").value.tolist() == [[0.0]]


GOOD = {"W": entry("F64", [1, 1], 0, 8)}


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (b"", "malformed-safetensors"),
        (b"\0\0\0", "malformed-safetensors"),
        (b"\0" * 8, "malformed-json"),
        (by_hand(GOOD), "malformed-safetensors"),  # no data
        (by_hand(GOOD, bytes(7)), "malformed-safetensors"),
        (by_hand(GOOD, bytes(9)), "malformed-safetensors"),
        (by_hand(GOOD, bytes(8), length=2**63), "malformed-safetensors"),
        (by_hand(GOOD, bytes(8), length=2**64 - 1), "malformed-safetensors"),
        (by_hand(GOOD, bytes(8), length=10), "malformed-json"),
        (struct.pack("<d", float("nan")) + b"{}", "malformed-safetensors"),
        (by_hand(b"[]"), "malformed-safetensors"),
        (by_hand(b"null"), "malformed-safetensors"),
        (by_hand(b"not json"), "malformed-json"),
        (by_hand(b'{"W": NaN}'), "not-finite"),
        (by_hand(b'{"W": 1e999}'), "not-finite"),
        (by_hand(b"\xff\xfe{}"), "malformed-json"),
        (by_hand(b"[" * 100_000 + b"]" * 100_000), "json-depth"),
        (by_hand(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "json-depth"),
        (by_hand(b'"' + b'\\"' * 1_000_000), "malformed-json"),
        (by_hand({"__metadata__": {"a": 1}}), "malformed-safetensors"),
        (by_hand({"__metadata__": []}), "malformed-safetensors"),
        (by_hand({"W": []}), "malformed-safetensors"),
        (by_hand({"W": {**GOOD["W"], "more": 1}}, bytes(8)), "malformed-safetensors"),
        (by_hand({"W": {"dtype": "F64", "shape": [1, 1]}}, bytes(8)), "malformed-safetensors"),
        (by_hand({"W": entry("F64", [1, 1], 8, 0)}, bytes(8)), "malformed-safetensors"),
        (by_hand({"W": entry("F64", [1, 1], -8, 0)}), "malformed-safetensors"),
        (by_hand({"W": entry("F64", [1, 1], 8, 16)}, bytes(16)), "malformed-safetensors"),  # hole
        (by_hand({"W": entry("F64", [1, 1], 0, 16)}, bytes(16)), "malformed-safetensors"),  # size and shape differ
        (by_hand({"W": entry("F64", [2**40, 2**40], 0, 8)}, bytes(8)), "malformed-safetensors"),
        (by_hand({"W": entry("F64", [-1, -1], 0, 8)}, bytes(8)), "malformed-safetensors"),
        (by_hand({"W": entry("F64", [1.0, 1], 0, 8)}, bytes(8)), "malformed-safetensors"),
        (by_hand({"W": entry("F64", [True, True], 0, 8)}, bytes(8)), "malformed-safetensors"),
        (by_hand({"W": entry("F64", [0, 10**30], 0, 0)}), "malformed-safetensors"),
        (by_hand({"W": entry("Q8", [1, 1], 0, 8)}, bytes(8)), "malformed-safetensors"),
        (by_hand({"W": {**GOOD["W"], "dtype": 5}}, bytes(8)), "malformed-safetensors"),
        (by_hand({**GOOD, "V": entry("F64", [1, 1], 4, 12)}, bytes(12)), "malformed-safetensors"),  # overlap
        (by_hand({**GOOD, "V": entry("F64", [1, 1], 0, 8)}, bytes(8)), "malformed-safetensors"),  # the same bytes twice
        (by_hand(json.dumps(GOOD).encode()[:-1] + b"," + json.dumps(GOOD).encode()[1:], bytes(8)), "duplicate-key"),
        (by_hand(json.dumps(GOOD).replace('"shape"', '"dtype": "F32", "shape"').encode(), bytes(8)), "duplicate-key"),
    ],
)
def test_files_that_are_none(data: bytes, slug: str, tmp_path: Path) -> None:
    assert slug_of(data) == slug
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    assert slug_of(path) == slug


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (by_hand({"W": entry("F64", [1, 1], 8, 16)}, bytes(16)), "overlap or hole"),
        (by_hand({**GOOD, "V": entry("F64", [1, 1], 4, 12)}, bytes(12)), "overlap or hole"),
        (by_hand({**GOOD, "V": entry("F64", [1, 1], 0, 8)}, bytes(8)), "overlap or hole"),
        (by_hand(GOOD, bytes(7)), "truncated or padded"),
        (by_hand(GOOD, bytes(9)), "truncated or padded"),
        (by_hand({"W": entry("F64", [2, 1], 0, 8)}, bytes(8)), "8 bytes for F64"),
    ],
)
def test_our_own_checks_come_before_the_library(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_weights(data)


def test_two_readers_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "deserialize", lambda _: [("V", {})])
    with pytest.raises(InputError, match="two readers"):
        read_weights(by_hand(GOOD, bytes(8)))


def test_limits(tmp_path: Path) -> None:
    data = to_bytes({"W": np.eye(4), "V": np.eye(4)})
    for limits, limit in ((Limits(file_bytes=100), 100), (Limits(header_bytes=50), 50), (Limits(tensors=1), 1)):
        with pytest.raises(TooLargeError) as caught:
            read_weights(data, limits)
        assert caught.value.limit == limit
        assert caught.value.slug == "too-large"
    bomb = tmp_path / "bomb.safetensors"
    with bomb.open("wb") as stream:  # sparse on disk: neither the header nor the file may be read
        stream.write(struct.pack("<Q", 2**34) + b"{")
        stream.truncate(2**35)
    assert slug_of(bomb) == "too-large"
    assert slug_of(bomb, limits=Limits(file_bytes=2**40)) == "too-large"


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for bad in (tmp_path, tmp_path / "none", tmp_path / "pipe", "a\0b", "/dev/zero"):
        assert slug_of(bad) == "unreadable"


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_files_never_crash(data: Any) -> None:
    original = to_bytes({"W": np.eye(2), "b": np.ones(2, np.float16)}, {"note": "x"})
    start = data.draw(st.integers(0, len(original) - 1))
    changed = original[:start] + data.draw(st.binary(max_size=9)) + original[start + data.draw(st.integers(0, 9)) :]
    try:
        file = read_weights(changed)
        for stored in file.tensors.values():
            stored.tensor()
    except CertesError:
        return
    assert set(safetensors.numpy.load(changed)) == set(file.tensors)


def test_rewriting_can_replace_the_metadata() -> None:
    file = read_weights(to_bytes({"W": np.eye(2)}, {"test_accuracy": "0.9", "made": "here"}))
    assert read_weights(rewritten(file, {}, {"made": "here"})).metadata == {"made": "here"}
    assert read_weights(rewritten(file, {})).metadata == dict(file.metadata)
