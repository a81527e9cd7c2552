"""What a reader finds in a file, and the one safetensors file that it converts to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError, TooLargeError
from certes.weights import Limits, pack

#: numpy's name of a dtype -> safetensors'.
_DTYPES = {
    **{"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "bool": "BOOL"},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
#: Bytes of a number.
_WIDTH = {dtype: np.dtype("u2" if name == "bfloat16" else name).itemsize for name, dtype in _DTYPES.items()}
FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class Raw:
    """A tensor as bytes: safetensors dtype, shape, little-endian data in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, name: str, array: NDArray[Any]) -> Raw:
        """From an array, also one of ``ml_dtypes.bfloat16``.

        Raises:
            InputError: a dtype that safetensors files of Certes do not have.
        """
        dtype = _DTYPES.get(array.dtype.name)
        if dtype is None:
            expected = "numbers: float16, bfloat16, float32, float64, integers or bool"
            raise InputError(name, f"dtype {array.dtype.name}", expected, "wrong-dtype")
        if dtype == "BF16":
            array = array.view(np.uint16)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return cls(dtype, tuple(int(k) for k in array.shape), little.tobytes(order="C"))


@dataclass(frozen=True)
class Contents:
    """Tensors by name, and text about them."""

    tensors: Mapping[str, Raw]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def safetensors(self) -> bytes:
        """The safetensors file: tensors in a fixed order, so that the same contents give the same bytes.

        Raises:
            InputError: a name that is not valid Unicode.
        """
        # wide numbers first, as the safetensors library has it, so that every tensor is aligned
        ordered = sorted(self.tensors.items(), key=lambda item: (-_WIDTH[item[1].dtype], item[0]))
        tensors = {name: (raw.dtype, list(raw.shape), raw.data) for name, raw in ordered}
        return pack(tensors, dict(sorted(self.metadata.items())))


@dataclass
class Budget:
    """Counts what is taken out of a file before it is read, so that a small file cannot promise a huge one."""

    limits: Limits
    spent: int = 0
    tensors: int = 0

    def take(self, count: int) -> None:
        """Room for one more tensor of ``count`` bytes.

        Raises:
            TooLargeError: beyond a limit.
        """
        self.spent += count
        self.tensors += 1
        if self.spent > self.limits.file_bytes:
            raise TooLargeError("weights", f"tensors of {self.spent} bytes", self.limits.file_bytes)
        if self.tensors > self.limits.tensors:
            raise TooLargeError("weights", f"{self.tensors} tensors", self.limits.tensors, "tensors")


def unread(given: str, expected: str, slug: str = "unreadable") -> InputError:
    """The refusal of a file."""
    return InputError("weights", given, expected, slug)
