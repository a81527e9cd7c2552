"""Weight files: safetensors, read without trusting a byte of them.

The file is checked before it is parsed (size, header length, JSON depth, duplicate keys, offsets), then parsed by the
safetensors library as a second opinion. Every tensor is hashed in one pass over the file; only those that are asked for
are read again, checked against their hash, and converted to float64, which is exact for F16, BF16, F32 and F64.
Pickles (``.pt``, ``.pth``, ``.bin``) are recognised by their first bytes and refused unread.
Other formats become safetensors first (:mod:`certes.formats`).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from certes import strictjson
from certes.dtypes import encoded, rounded
from certes.errors import InputError, TooLargeError
from certes.systems import SparseMatrix, Subject, Tensor, sparse_subjects

Array = NDArray[np.float64]

_CHUNK = 1 << 20
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
#: safetensors dtype -> numpy dtype as stored; BF16 is read as its bits.
_NUMPY = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "BOOL": "|u1"}
_WEIGHT_DTYPES = ("F16", "BF16", "F32", "F64")
_SPARSE_PARTS = ("data", "indices", "indptr", "shape")


@dataclass(frozen=True)
class Limits:
    """Bounds on a weight file: bytes in all, bytes of its JSON header, number of tensors."""

    file_bytes: int = 2 * 2**30
    header_bytes: int = 16 * 2**20
    tensors: int = 100_000


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor of a weight file, not yet converted.

    Attributes:
        name: its name in the file.
        dtype: safetensors dtype name (``"BF16"``).
        shape: shape as stored.
        sha256: hex digest of the raw bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    _load: Callable[[], bytes] = field(repr=False)

    @property
    def subject(self) -> Subject:
        """What a certificate calls it."""
        return Subject(self.name, self.dtype, self.shape, self.sha256)

    def raw(self) -> bytes:
        """The bytes as stored, little-endian, C order.

        Raises:
            InputError: the file has changed since it was read.
        """
        data = self._load()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            given = "other bytes than at first reading"
            raise InputError(self.name, given, "a file that does not change", "file-changed")
        return data

    def array(self) -> NDArray[Any]:
        """The values in the stored type (float16/32/64, int32/64, bool), shape as stored; BF16 as float64.

        Raises:
            InputError: a dtype that Certes does not read, or a BOOL that is neither 0 nor 1.
        """
        if self.dtype not in _NUMPY:
            raise InputError(self.name, f"dtype {self.dtype}", "float16, bfloat16, float32 or float64", "wrong-dtype")
        stored = np.frombuffer(self.raw(), dtype=_NUMPY[self.dtype]).reshape(self.shape)
        if self.dtype == "BF16":
            # bfloat16 is the upper half of a float32
            return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
        if self.dtype == "BOOL":
            if stored.size and stored.max() > 1:
                raise InputError(self.name, f"the byte {stored.max()} as a BOOL", "0 or 1", "malformed-safetensors")
            return stored.astype(np.bool_)
        return stored.astype(stored.dtype.newbyteorder("="))

    def floats(self) -> Array:
        """The values as float64, exactly, shape as stored.

        Raises:
            InputError: not of a floating type, or not finite.
        """
        if self.dtype not in _WEIGHT_DTYPES:
            raise InputError(self.name, f"dtype {self.dtype}", "float16, bfloat16, float32 or float64", "wrong-dtype")
        value = np.asarray(self.array(), dtype=np.float64)
        bad = ~np.isfinite(value)
        if bad.any():
            where = tuple(int(k) for k in np.argwhere(bad)[0])
            raise InputError(self.name, f"{value[where]} at index {where}", "finite numbers only", "not-finite")
        value.setflags(write=False)
        return value

    def tensor(self, dimensions: int = 2) -> Tensor:
        """The matrix (or, with 1 dimension, the vector) with its identity.

        Raises:
            InputError: not a non-empty matrix of finite numbers of a floating type.
        """
        if len(self.shape) != dimensions or 0 in self.shape:
            word = "matrix (2 dimensions)" if dimensions == 2 else "vector (1 dimension)"
            raise InputError(self.name, f"shape {self.shape}", f"a non-empty {word}", "wrong-shape")
        return Tensor(self.floats(), (self.subject,))


@dataclass(frozen=True, eq=False)
class WeightFile:
    """A checked weight file.

    Attributes:
        name: file name without folders (``""`` for bytes without a name).
        sha256: hex digest of the whole file.
        tensors: name -> tensor, in the order of the file.
        metadata: the free text of the header.
    """

    name: str
    sha256: str
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> tuple[str, str]:
        """(sha256, name) as :class:`certes.systems.System` takes it."""
        return (self.sha256, self.name or "weights.safetensors")

    def get(self, name: str, role: str = "tensor") -> StoredTensor:
        """A tensor by name.

        Raises:
            InputError: no such tensor; the message lists what there is.
        """
        if name not in self.tensors:
            known = ", ".join(list(self.tensors)[:20]) or "none at all"
            raise InputError(role, repr(name), f"a tensor of the file: {known}", "unknown-tensor")
        return self.tensors[name]

    def matrix(self, name: str, role: str = "tensor") -> Tensor:
        """A dense tensor, or the sparse matrix stored as ``NAME.data``, ``.indices``, ``.indptr``, ``.shape`` (CSR).

        Raises:
            InputError: no such matrix, or not one that Certes reads.
        """
        if name in self.tensors or f"{name}.indptr" not in self.tensors:
            return self.get(name, role).tensor()
        data, indices, indptr, shape = (self.get(f"{name}.{part}", role) for part in _SPARSE_PARTS)
        for part in (indices, indptr, shape):
            if part.dtype not in ("I64", "I32") or len(part.shape) != 1:
                given = f"{part.dtype} of shape {part.shape}"
                raise InputError(part.name, given, "a vector of int64 or int32", "wrong-dtype")
        size = shape.array().astype(np.int64)
        if size.shape != (2,) or (size <= 0).any():
            raise InputError(shape.name, f"{size.tolist()[:8]}", "two positive numbers (rows, columns)", "wrong-shape")
        rows, columns = int(size[0]), int(size[1])
        starts = indptr.array()
        if (starts[1:] < starts[:-1]).any():  # compared, not subtracted: a difference could wrap around
            raise InputError(indptr.name, "row pointers that descend", "CSR row pointers", "malformed-sparse")
        value = SparseMatrix(data.floats(), indices.array(), starts, (rows, columns))
        index_subjects = sparse_subjects(name, np.zeros(0), value.indices, value.indptr, value.shape)[1:]
        return Tensor(value, (data.subject, *index_subjects))

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)


def read_weights(
    source: str | os.PathLike[str] | bytes, limits: Limits | None = None, *, name: str | None = None
) -> WeightFile:
    """Read and hash a safetensors file.

    Args:
        source: path, or the bytes of a file.
        limits: bounds on sizes.
        name: name of the file for the certificate (default: the path's last part).

    Raises:
        TooLargeError: beyond a limit.
        InputError: unreadable, a pickle (slug ``pickle``), or not a well-formed safetensors file
            (``malformed-safetensors``, ``duplicate-key``, ...).
    """
    bounds = limits or Limits()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read_bytes(bytes(source), bounds, name or "")
    path = Path(source)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening: a pipe would block
            raise _unreadable(f"{path.name}, which is not a regular file")
        with path.open("rb") as stream:
            return _read(
                stream, os.fstat(stream.fileno()).st_size, bounds, name or path.name, lambda: _open_again(path), path
            )
    except OSError as error:
        raise _unreadable(f"{path.name}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(f"a path that is none ({error})") from error


def _open_again(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise _unreadable(f"{path.name}: {error.strerror or error}") from error


def _read_bytes(data: bytes, limits: Limits, name: str) -> WeightFile:
    return _read(io.BytesIO(data), len(data), limits, name, lambda: io.BytesIO(data), data)


def _read(
    stream: BinaryIO, size: int, limits: Limits, name: str, reopen: Callable[[], BinaryIO], second: Path | bytes
) -> WeightFile:
    if size > limits.file_bytes:
        raise TooLargeError("weights", f"{size} bytes", limits.file_bytes)
    prefix = stream.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(size - 8, limits.header_bytes):
        _refuse_pickle(prefix)
    if len(prefix) < 8:
        raise _malformed(f"{len(prefix)} bytes")
    if length > size - 8:
        raise _malformed(f"a header of {length} bytes in a file of {size} bytes (truncated, or not safetensors)")
    if length > limits.header_bytes:
        raise TooLargeError("weights", f"a header of {length} bytes", limits.header_bytes)
    header = stream.read(length)
    entries, metadata = _parse_header(header, size - 8 - length, limits)
    _second_opinion(second, set(entries))
    whole = hashlib.sha256(prefix + header)
    tensors: dict[str, StoredTensor] = {}
    for key, (dtype, shape, start, end) in entries.items():
        digest = _hash_both(stream, end - start, whole)
        load = _loader(reopen, 8 + length + start, end - start)
        tensors[key] = StoredTensor(key, dtype, shape, digest, load)
    return WeightFile(name, whole.hexdigest(), tensors, metadata)


def _hash_both(stream: BinaryIO, count: int, whole: Any) -> str:
    part = hashlib.sha256()
    while count:
        chunk = stream.read(min(count, _CHUNK))
        if not chunk:
            raise _malformed("a file that ends inside a tensor")
        part.update(chunk)
        whole.update(chunk)
        count -= len(chunk)
    return part.hexdigest()


def _loader(reopen: Callable[[], BinaryIO], start: int, count: int) -> Callable[[], bytes]:
    def load() -> bytes:
        with reopen() as stream:
            stream.seek(start)
            return stream.read(count)

    return load


def _unreadable(given: str) -> InputError:
    return InputError("weights", given, "a readable safetensors file", "unreadable")


def _malformed(given: str, expected: str = "a well-formed safetensors file") -> InputError:
    return InputError("weights", given, expected, "malformed-safetensors")


def _refuse_pickle(prefix: bytes) -> None:
    """Name the likely mistake. Called only when the first 8 bytes cannot be the length of a header in this file."""
    # torch.save writes a zip or a pickle; pickle protocols 2 and later start with 0x80 and their number, older ones
    # with an opcode
    zipped = prefix.startswith(b"PK")
    pickled = len(prefix) > 1 and prefix[0] == 0x80 and prefix[1] <= 5
    old = prefix[:2] in (b"(l", b"(d", b"(i", b"]q", b"]\x94", b"}q", b"c_", b"cc", b"cn", b"ct")
    if zipped or pickled or old:
        expected = "a safetensors file (pickles are never read; convert it: certes convert FILE OUT.safetensors)"
        raise InputError("weights", "a pickle or a torch.save archive", expected, "pickle")


Entry = tuple[str, tuple[int, ...], int, int]


def _parse_header(header: bytes, data_bytes: int, limits: Limits) -> tuple[dict[str, Entry], dict[str, str]]:
    """Check the JSON header; entries in the order of their bytes, which must tile the data without hole or overlap."""
    content = strictjson.parse(header, "weights", max_bytes=limits.header_bytes, max_depth=4)
    if not isinstance(content, dict):
        raise _malformed("a header that is not a JSON object")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _malformed("metadata that is not text")
    if len(content) > limits.tensors:
        raise TooLargeError("weights", f"{len(content)} tensors", limits.tensors, "tensors")
    entries = {key: _parse_entry(key, given) for key, given in content.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1][2], item[1][3])))
    position = 0
    for key, (_, _, start, end) in ordered.items():
        if start != position:
            raise _malformed(f"tensor {key!r} at byte {start} where byte {position} follows (overlap or hole)")
        position = end
    if position != data_bytes:
        raise _malformed(f"{data_bytes} bytes of data where the header speaks of {position} (truncated or padded)")
    return ordered, metadata


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _parse_entry(key: str, given: object) -> Entry:
    if not isinstance(given, dict) or set(given) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(f"tensor {key!r} without exactly dtype, shape and data_offsets")
    dtype, shape, offsets = given["dtype"], given["shape"], given["data_offsets"]
    if not isinstance(dtype, str):
        raise _malformed(f"tensor {key!r} with a dtype that is not text")
    if not isinstance(shape, list) or len(shape) > 64 or not all(_is_count(k) for k in shape):
        raise _malformed(f"tensor {key!r} with a shape that is not a list of counts")
    pair = isinstance(offsets, list) and len(offsets) == 2 and all(_is_count(k) for k in offsets)
    if not pair or offsets[0] > offsets[1]:
        raise _malformed(f"tensor {key!r} with offsets that are not an ascending pair of counts")
    if dtype in _BITS and math.prod(shape) * _BITS[dtype] != 8 * (offsets[1] - offsets[0]):
        raise _malformed(f"tensor {key!r}: {offsets[1] - offsets[0]} bytes for {dtype} of shape {shape}")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _second_opinion(source: Path | bytes, names: set[str]) -> None:
    """What the safetensors library refuses is refused here too; both must see the same tensors."""
    try:
        if isinstance(source, bytes):
            found = {key for key, _ in safetensors.deserialize(source)}  # type: ignore[no-untyped-call]
        else:
            with safetensors.safe_open(source, framework="np") as opened:
                found = set(opened.keys())
    except Exception as error:  # the library raises its own type and, for some inputs, plain Exception
        raise _malformed(f"a file that the safetensors library refuses ({str(error)[:120]})") from error
    if found != names:
        raise _malformed("a header that two readers understand differently")


def to_bytes(arrays: Mapping[str, object], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file as bytes: the same arrays give the same bytes.

    Args:
        arrays: name -> array (any safetensors dtype, also ``ml_dtypes.bfloat16``), or a scipy.sparse matrix or
            :class:`certes.systems.SparseMatrix`, stored as ``NAME.data``, ``NAME.indices``, ``NAME.indptr``,
            ``NAME.shape`` with int64 indices.
        metadata: free text.
    """
    flat: dict[str, NDArray[Any]] = {}
    for name, given in arrays.items():
        for key, part in _flatten(name, given):
            if key in flat:
                raise InputError(key, "two tensors of this name", "each name once", "duplicate-key")
            flat[key] = np.array(part, order="C")
    return save(flat, metadata=None if metadata is None else dict(metadata))


def rewritten(file: WeightFile, changed: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """A weight file with other values in some of its tensors; all else byte for byte as it was.

    Args:
        file: the file.
        changed: name of a dense tensor (or ``NAME.data`` of a sparse one) -> values, shape as stored; they are rounded
            to the dtype in which the tensor is stored.
        metadata: free text of the new header; None: that of the file.

    Raises:
        InputError: no such tensor, another shape, or values that are not finite in that dtype.
    """
    parts: dict[str, bytes] = {}
    for name, values in changed.items():
        entry = file.get(name)
        if entry.dtype not in _WEIGHT_DTYPES or np.shape(values) != entry.shape:
            given = f"values of shape {np.shape(values)} for {entry.dtype} of shape {entry.shape}"
            raise InputError(name, given, "values of the shape of a floating tensor", "wrong-shape")
        if not np.isfinite(rounded(values, entry.dtype)).all():
            raise InputError(name, "values that are not finite", "finite numbers only", "not-finite")
        parts[name] = encoded(values, entry.dtype)
    whole = {
        name: (entry.dtype, list(entry.shape), parts[name] if name in parts else entry.raw())
        for name, entry in file.tensors.items()
    }
    return pack(whole, file.metadata if metadata is None else metadata)


def pack(tensors: Mapping[str, tuple[str, list[int], bytes]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file from (dtype, shape, little-endian bytes) by name, in the order given.

    Raises:
        InputError: a name or text that is not valid Unicode.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    try:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("tensors", "a name that is not valid Unicode", "names in UTF-8", "invalid-value") from None
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(data for _, _, data in tensors.values())])


def write_weights(
    path: str | os.PathLike[str], arrays: Mapping[str, object], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write arrays and sparse matrices to a safetensors file (see :func:`to_bytes`); returns the path."""
    target = Path(path)
    target.write_bytes(to_bytes(arrays, metadata))
    return target


def _flatten(name: str, given: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    if hasattr(given, "tocsr"):
        given = given.tocsr(copy=True)
        given.sort_indices()
    if not (hasattr(given, "indptr") and hasattr(given, "indices")):
        yield name, np.asarray(given)
        return
    yield f"{name}.data", np.asarray(given.data)
    for part in ("indices", "indptr", "shape"):
        yield f"{name}.{part}", np.asarray(getattr(given, part), dtype=np.int64)
