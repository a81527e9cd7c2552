"""Is the arithmetic of this process, now, the one that the error bounds assume?

The bounds of :mod:`certes.verify` hold for IEEE 754 double precision rounded to nearest, any order of summation, with
or without fused multiply-add, with or without subnormals. A library in the same process may have switched the rounding
mode, so each verification asks again: for scalar-like operations, for vector loops, and for the matrix product, whose
work is spread over all threads of the BLAS (the threads that will factorise the deciding matrix).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Bits, shifted left by one, of the smallest normal number and of infinity.
_SMALLEST_NORMAL, _INFINITE = np.uint64(1 << 53), np.uint64(0x7FF << 53)
_HALF_ULP = 2.0**-53
#: Rows and depth of the probing product: for small systems, whose factorisation stays in this thread, and for all
#: others, large enough for every BLAS thread to get a part (OpenBLAS stays in one thread up to 2**18 multiplications).
_SMALL, _LARGE = (16, 2), (128, 64)


def rounds_to_nearest(size: int) -> bool:
    """Whether additions and products round to nearest (ties to even), in elementwise loops and in the BLAS.

    Args:
        size: of the system about to be verified; from 32 on, the threads of the BLAS are asked as well.
    """
    probe = _SMALL if size < 32 else _LARGE
    above = np.full(64, 1.5 * _HALF_ULP)  # 1 + this: nearest gives 1 + 2u; toward zero or downwards gives 1
    below = np.full(64, 0.5 * _HALF_ULP)  # 1 + this: nearest gives 1; upwards gives 1 + 2u
    up = 1.0 + 2.0 * _HALF_ULP
    one = np.ones(64)
    sums = (one + above == up).all() and (one + below == one).all() and (-one - below == -one).all()
    near = np.full(64, up)
    products = (near * near == 1.0 + 4.0 * _HALF_ULP).all() and (near * -near == -1.0 - 4.0 * _HALF_ULP).all()
    blas = _blas_rounds_to_nearest(above[0], up, probe) and _blas_rounds_to_nearest(below[0], 1.0, probe)
    return bool(sums and products and blas)


def _blas_rounds_to_nearest(addend: float, expected: float, probe: tuple[int, int]) -> bool:
    rows, depth = probe
    left = np.ones((rows, depth))
    right = np.zeros((depth, rows))  # zeros add nothing, in any order
    right[0], right[1] = 1.0, addend
    return bool((left @ right == expected).all() and (left @ -right == -expected).all())


def is_normal(*arrays: Array) -> bool:
    """Whether all entries are finite and zero or normal: a subnormal input may be flushed to zero before we see it."""
    for array in arrays:
        # the bits without the sign: integers keep the order of floats, and no processor mode flushes an integer
        bits = np.ascontiguousarray(array, dtype=np.float64).view(np.uint64) << np.uint64(1)
        if bits.max(initial=0) >= _INFINITE:
            return False
        bits -= np.uint64(1)  # zero wraps around to the largest integer
        if bits.min(initial=_INFINITE) < _SMALLEST_NORMAL - np.uint64(1):
            return False
    return True
