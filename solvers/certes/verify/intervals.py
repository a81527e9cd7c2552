"""Midpoint-radius arithmetic on arrays: every true real value lies within ``rad`` of ``mid``, entry by entry.

Each operation is carried out in float64, round to nearest, and its error is bounded with unit roundoff U = 2**-53 and
underflow ETA = 2**-1022 per operation (the worst case: also right if the processor flushes subnormals to zero). A
radius is itself computed in floating point from nonnegative terms, so it is blown up by more than all of its own
roundings could have taken away (:func:`upward`).

Source: S. M. Rump, "Verification methods: rigorous results using floating-point arithmetic", Acta Numerica 19 (2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

U = 2.0**-53
ETA = 2.0**-1022
#: Absolute slack per computed radius: covers 64 underflows in the elementwise operations below.
TINY = 2.0**-1016


def upward(value: Array, terms: int = 0) -> Array:
    """An upper bound of a nonnegative expression of at most 64 + ``terms`` roundings, from its float64 value."""
    return np.asarray(value * (1.0 + (64 + terms) * 2.0**-51) + (1 + terms) * TINY)


@dataclass(frozen=True, eq=False)
class Box:
    """All real arrays within ``rad`` of ``mid``; ``mid`` and ``rad`` have one shape, rad >= 0."""

    mid: Array
    rad: Array

    @classmethod
    def exact(cls, value: Array | float) -> Self:
        """The single array that float64 numbers are."""
        mid = np.asarray(value, dtype=np.float64)
        return cls(mid, np.broadcast_to(0.0, mid.shape))

    @property
    def is_exact(self) -> bool:
        """Whether the radius is 0 everywhere (NaN counts as a radius)."""
        return not self.rad.any()

    @property
    def T(self) -> Box:
        """The transposed matrix."""
        return Box(self.mid.T, self.rad.T)

    @property
    def magnitude(self) -> Array:
        """An upper bound of the absolute values, entry by entry."""
        return upward(np.abs(self.mid) + self.rad)

    def __getitem__(self, key: tuple[slice | None, ...]) -> Box:
        return Box(self.mid[key], self.rad[key])

    def __neg__(self) -> Box:
        return Box(-self.mid, self.rad)

    def __add__(self, other: Box) -> Box:
        mid = self.mid + other.mid
        rad = U * np.abs(mid)
        for part in (self, other):
            if not part.is_exact:
                rad = rad + part.rad
        return Box(mid, upward(rad))

    def __sub__(self, other: Box) -> Box:
        return self + (-other)

    def __mul__(self, other: Box) -> Box:
        """Elementwise product, broadcasting as numpy does."""
        mid = self.mid * other.mid
        rad = U * np.abs(mid)
        if not other.is_exact:
            rad = rad + np.abs(self.mid) * other.rad
        if not self.is_exact:
            rad = rad + self.rad * (np.abs(other.mid) + other.rad)
        return Box(mid, upward(rad))

    def __matmul__(self, other: Box) -> Box:
        """Matrix product; any order of summation (any BLAS but a Strassen-type one)."""
        terms = self.mid.shape[1]
        # the product first, then U: the other way round a tiny factor loses its rounding before a huge one meets it
        rad = (np.abs(self.mid) @ np.abs(other.mid)) * ((terms + 2) * U)
        if not other.is_exact:
            rad = rad + np.abs(self.mid) @ other.rad
        if not self.is_exact:
            rad = rad + self.rad @ (np.abs(other.mid) + other.rad)
        return Box(self.mid @ other.mid, upward(rad, 4 * terms))


def reciprocal(values: Array) -> Box:
    """1 / values for exact positive floats, entry by entry."""
    mid = 1.0 / values
    return Box(mid, upward(U * np.abs(mid)))


def diagonal(vector: Box) -> Box:
    """The diagonal matrix of a vector, shape (n, n)."""
    return Box(np.diag(vector.mid), np.diag(vector.rad))


def plus_diagonal(matrix: Box, vector: Box) -> Box:
    """matrix + diag(vector), shapes (n, n) and (n,) or (1,)."""
    entries = np.arange(len(matrix.mid))
    mid, rad = matrix.mid.copy(), matrix.rad.copy()
    sums = Box(mid[entries, entries], rad[entries, entries]) + vector
    mid[entries, entries], rad[entries, entries] = sums.mid, sums.rad
    return Box(mid, rad)


def frobenius_upper(box: Box) -> float:
    """An upper bound of the Frobenius norm, hence of the spectral norm, of every matrix in the box."""
    scale = float(box.magnitude.max(initial=0.0))
    if not 0.0 < scale < np.inf:
        return scale
    ratios = upward(box.magnitude / scale)
    return float(upward(scale * np.sqrt(upward(np.asarray(np.sum(ratios * ratios)), 4 * ratios.size))))
