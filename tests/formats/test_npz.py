"""numpy archives: every array bit for bit under its name, no pickles, sizes first."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes import formats
from certes.errors import InputError, TooLargeError
from certes.weights import Limits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

DTYPES = ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<i8", ">i4", "|b1", "|u1")


def archive(folder: Path, name: str = "net.npz", **arrays: Any) -> Path:
    np.savez(folder / name, **arrays)
    return folder / name


@settings(max_examples=60, deadline=None)
@given(
    array=st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))),
    fortran=st.booleans(),
)
def test_values_are_kept(tmp_path_factory: pytest.TempPathFactory, array: Any, fortran: bool) -> None:
    stored = np.asfortranarray(array) if fortran and array.ndim else array
    file = formats.read(archive(tmp_path_factory.mktemp("npz"), W=stored, b=np.zeros(1)))
    entry = file.tensors["W"]
    assert entry.shape == array.shape
    little = array.astype(array.dtype.newbyteorder("<"))
    assert entry.raw() == little.tobytes()


def test_the_digest_is_of_the_tensors_and_not_of_the_archive(tmp_path: Path) -> None:
    W, b = np.eye(3), np.ones(2)
    first = formats.read(archive(tmp_path, W=W, b=b))
    np.savez_compressed(tmp_path / "other.npz", b=b.astype(">f8"), W=np.asfortranarray(W))
    other = formats.read(tmp_path / "other.npz")
    assert first.sha256 == other.sha256
    assert (first.name, other.name) == ("net.safetensors", "other.safetensors")
    assert first.sha256 != formats.read(archive(tmp_path, W=np.nextafter(W, 2), b=b)).sha256


def test_other_readers_of_safetensors_find_every_tensor_aligned(tmp_path: Path) -> None:
    loading = pytest.importorskip("safetensors.torch")
    given = {"a": np.ones(3, np.bool_), "b": np.arange(3.0), "c": np.ones(5, np.float16), "d": np.zeros((2, 1), "f4")}
    found = loading.load(formats.converted(archive(tmp_path, **given)))
    assert {name: value.numpy().tolist() for name, value in found.items()} == {k: v.tolist() for k, v in given.items()}


def test_the_digest_is_for_ever(tmp_path: Path) -> None:
    """Certificates name it: a version of Certes that converts to other bytes refuses every one of them."""
    file = formats.read(archive(tmp_path, W=np.array([[0.5, 0.25]]), b=np.zeros(1, np.float32)))
    assert file.sha256 == "ffd51d1ea83016d4cac267c91da440bb32547b2c7eb367cedda43b5023b31caf"


@pytest.mark.parametrize(
    ("array", "slug"),
    [
        (np.array([None]), "unreadable"),  # a pickle
        (np.array(["a"]), "wrong-dtype"),
        (np.zeros(1, np.complex128), "wrong-dtype"),
        (np.zeros(1, [("a", "f8")]), "wrong-dtype"),
        (np.zeros(1, np.longdouble), "wrong-dtype"),
        (np.zeros(1, "M8[s]"), "wrong-dtype"),
    ],
)
def test_what_is_no_number_is_refused(tmp_path: Path, array: Any, slug: str) -> None:
    with pytest.raises(InputError) as refused:
        formats.read(archive(tmp_path, W=array))
    assert refused.value.slug == slug


def _zipped(path: Path, entries: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_archives_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.eye(2))
    good = buffer.getvalue()
    for entries in (
        [("W.npy", good), ("W.npy", good)],
        [("W.npy", good), ("W", good)],
        [("W.txt", b"1 2 3")],
        [("W.npy", good[:-1])],
        [("W.npy", b"")],
    ):
        with pytest.raises(InputError):
            formats.read(_zipped(tmp_path / "odd.npz", entries))


def test_sizes_come_first(tmp_path: Path) -> None:
    path = _zipped(tmp_path / "bomb.npz", [("W.npy", bytes(50 * 2**20))])
    assert path.stat().st_size < 2**17
    with pytest.raises(TooLargeError):
        formats.read(path, Limits(file_bytes=2**20))
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}"
    with pytest.raises(InputError):
        formats.read(_zipped(path, [("W.npy", header.ljust(127) + b"\n")]))
    with pytest.raises(TooLargeError):
        formats.read(archive(tmp_path, a=np.eye(1), b=np.eye(1)), Limits(tensors=1))


def _whole() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, W=np.eye(4))
    return buffer.getvalue()


WHOLE = _whole()


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int, cut: bool
) -> None:
    """The archive has checksums of its own: no number changes unnoticed."""
    damaged = bytearray(WHOLE[:position] if cut else WHOLE)
    if not cut:
        damaged[position] ^= 1 << bit
    path = tmp_path_factory.mktemp("npz") / "net.npz"
    path.write_bytes(damaged)
    try:
        found = formats.read(path)
    except InputError:
        return
    assert not cut
    assert [entry.raw() for entry in found.tensors.values()] in ([np.eye(4).tobytes()], [])


def test_no_file_and_no_archive(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npz", tmp_path, Path("\0.npz")):
        with pytest.raises(InputError):
            formats.read(path)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="regular file"):
        formats.read(tmp_path / "folder.npz")
