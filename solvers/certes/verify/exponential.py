"""Powers and exponentials of matrices, enclosed entry by entry.

exp(M) = (exp(M / 2^s))^(2^s): the Taylor polynomial of order 16 where the norm is at most 1/2, its remainder bounded,
then s squarings, in the arithmetic of :mod:`~certes.verify.intervals` (N. J. Higham, "Functions of Matrices", SIAM
2008, section 10.3).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from certes.verify.intervals import Box, plus_diagonal, reciprocal, upward

Array = NDArray[np.float64]

_ORDER = 16
#: sum over k > 16 of (1/2)^k / k! is below 2.2e-20: the remainder in the norm, hence in every entry.
_REMAINDER = 1e-19
#: Norms beyond 2**60 are given up.
_MOST_SQUARINGS = 60

_ONE = Box.exact(np.ones(1))


def power(matrix: Box, exponent: int) -> Box:
    """matrix^exponent for exponent >= 1, shape (n, n), by repeated squaring."""
    result: Box | None = None
    while True:
        if exponent & 1:
            result = matrix if result is None else matrix @ result
        exponent >>= 1
        if not exponent:
            assert result is not None
            return result
        matrix = matrix @ matrix


def exponential(matrix: Box) -> Box:
    """An enclosure of exp of every matrix in a box, shape (n, n); NaN beyond the limits of the method."""
    scale = _scale(matrix.magnitude)
    there, back = Box.exact(scale[:, None]), Box.exact(1.0 / scale[:, None])
    balanced = matrix * back * there.T
    norm = float(upward(balanced.magnitude.sum(axis=1), len(scale)).max())
    squarings = max(0, math.frexp(norm)[1] + 1) if math.isfinite(norm) else _MOST_SQUARINGS + 1
    if squarings > _MOST_SQUARINGS:
        nothing = np.full(matrix.mid.shape, np.nan)
        return Box(nothing, nothing)
    small = balanced * Box.exact(2.0**-squarings)
    result = Box.exact(np.eye(len(scale)))
    for k in range(_ORDER, 0, -1):
        result = plus_diagonal((small @ result) * reciprocal(np.array([[float(k)]])), _ONE)
    result = Box(result.mid, upward(result.rad + _REMAINDER))
    for _ in range(squarings):
        result = result @ result
    return result * there * back.T


def _scale(magnitude: Array) -> Array:
    """Powers of two near a positive vector r for which the rows of magnitude r / r have like sums, shape (n,).

    Any powers of two are right; these make the norm after scaling close to its least value, the Perron root.
    """
    vector = np.ones(len(magnitude))
    for _ in range(20):
        image = magnitude @ vector + 2.0**-40 * vector
        largest = float(image.max())
        if not 0.0 < largest < np.inf:
            return np.ones(len(magnitude))
        vector = np.maximum(image / largest, 2.0**-100)
    return np.ldexp(1.0, np.frexp(vector)[1])
