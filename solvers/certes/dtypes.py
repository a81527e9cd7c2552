"""Numbers as weight files store them: rounding float64 values to float16, bfloat16 or float32, and their bytes.

A certificate is about stored bytes, so whatever changes weights has to round them first; the way back (bytes to
float64, exact) is :mod:`certes.weights`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: safetensors dtype -> numpy dtype with the same values; bfloat16 has none.
_NUMPY = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
#: safetensors dtype -> unit roundoff.
ROUNDOFF = {"F16": 2.0**-11, "BF16": 2.0**-8, "F32": 2.0**-24, "F64": 2.0**-53}


def rounded(values: Array, dtype: str) -> Array:
    """The values rounded to a stored dtype, as float64; what overflows there becomes infinite.

    Args:
        values: any shape.
        dtype: ``F16``, ``BF16``, ``F32`` or ``F64``.
    """
    if dtype == "BF16":
        return (_upper_halves(values).astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(values, dtype=np.float64).astype(_NUMPY[dtype]).astype(np.float64)


def encoded(values: Array, dtype: str) -> bytes:
    """The bytes of the rounded values, little-endian, C order."""
    if dtype == "BF16":
        return np.ascontiguousarray(_upper_halves(values).astype("<u2")).tobytes()
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.asarray(values, dtype=np.float64).astype(_NUMPY[dtype])
    return np.ascontiguousarray(narrow.astype(narrow.dtype.newbyteorder("<"))).tobytes()


def _upper_halves(values: Array) -> NDArray[np.uint16]:
    """bfloat16 bits: the upper half of a float32, rounded to nearest, ties to even."""
    with np.errstate(over="ignore", under="ignore"):
        bits = np.ascontiguousarray(values, dtype=np.float64).astype(np.float32).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits >> np.uint32(16)).astype(np.uint16)
