"""Rigorous proof that every symmetric matrix in a box is positive definite: one floating-point Cholesky.

If the Cholesky factorisation of F runs to completion in floating point, with positive finite pivots, then
F + E = L L^T with norm(E) <= gamma_{N+16} / (1 - 2 gamma_{N+16}) trace(F) + underflow. So when F lies below every
matrix of the box by more than that bound, in the sense of quadratic forms, each of them is positive definite.

Sources: S. M. Rump, "Verification of positive definiteness", BIT 46 (2006) 433-452; P. Roux, Y.-L. Voronin,
S. Sankaranarayanan, "Validating numerical semidefinite programming solvers for polynomial invariants", FMSD 53 (2018).
Assumes triangular solves by substitution (no inverted blocks) and no Strassen-type product, as in OpenBLAS, MKL and
reference LAPACK. The 16 extra terms of gamma pay for reciprocals of pivots and for fused operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from certes.verify.intervals import ETA, Box, U, upward

Array = NDArray[np.float64]

#: Scaling exponents beyond this are clipped: the entries of the matrix then differ by more than 2**1000.
_LARGEST_EXPONENT = 500


@dataclass(frozen=True, eq=False)
class SymmetricBox:
    """A box of symmetric matrices by its lower triangle of blocks: row k holds k + 1, the last one symmetric."""

    blocks: tuple[tuple[Box, ...], ...]

    @property
    def starts(self) -> list[int]:
        """First row of each block row, and the size N at the end."""
        return [0, *accumulate(row[-1].mid.shape[0] for row in self.blocks)]

    @property
    def mid(self) -> Array:
        """The midpoint as one symmetric matrix, shape (N, N)."""
        return self._dense([[block.mid for block in row] for row in self.blocks])

    @property
    def rad(self) -> Array:
        """The radius as one symmetric matrix, shape (N, N)."""
        return self._dense([[block.rad for block in row] for row in self.blocks])

    def _dense(self, parts: list[list[Array]]) -> Array:
        starts = self.starts
        full = np.zeros((starts[-1], starts[-1]))
        for k, j, rows, columns in self.places():
            full[rows, columns] = parts[k][j]
            full[columns, rows] = parts[k][j].T
        return full

    def places(self) -> Iterator[tuple[int, int, slice, slice]]:
        """(k, j, rows, columns) of every stored block."""
        starts = self.starts
        for k in range(len(self.blocks)):
            for j in range(k + 1):
                yield k, j, slice(starts[k], starts[k + 1]), slice(starts[j], starts[j + 1])


def assemble(blocks: Sequence[Sequence[Box]]) -> SymmetricBox:
    """The symmetric matrix whose lower triangle of blocks is given."""
    return SymmetricBox(tuple(tuple(row) for row in blocks))


def _equilibrated(box: SymmetricBox) -> tuple[Array, float] | None:
    """Lower triangle scaled by powers of two to a diagonal in [1/2, 2), and the norm of its radius (rounded up).

    None if a diagonal entry is not positive or anything is not finite.
    """
    diagonal = np.concatenate([np.diagonal(row[-1].mid) for row in box.blocks])
    if not (np.isfinite(diagonal).all() and (diagonal > 0).all()):
        return None
    size = len(diagonal)
    scale = np.ldexp(1.0, np.clip(-(np.frexp(diagonal)[1] // 2), -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    mid = np.zeros((size, size))
    radii = np.zeros(size)  # row sums of the scaled radius
    for k, j, rows, columns in box.places():
        block = box.blocks[k][j]
        np.multiply(block.mid, scale[rows, None], out=mid[rows, columns])
        mid[rows, columns] *= scale[columns]
        if block.rad.any():
            radii[rows] += scale[rows] * (block.rad @ scale[columns])
            if j < k:
                radii[columns] += scale[columns] * (block.rad.T @ scale[rows])
    norm = float(upward(radii, 2 * size).max())
    return (mid, norm) if np.isfinite(norm) and np.isfinite(mid).all() else None


def _shift(mid: Array, radius: float) -> float:
    """What must be taken off the diagonal: rounding of the factorisation, radii, underflow (rounded upwards)."""
    size = len(mid)
    gamma = (size + 16) * U / (1.0 - (size + 16) * U)
    factorisation = gamma / (1.0 - 2.0 * gamma) * float(np.trace(mid))
    underflow = 16.0 * size * (2.0 * size + float(np.diagonal(mid).max())) * ETA + 1e-290
    return float(upward(np.asarray(factorisation + radius + underflow), 4 * size))


def positive_definite(box: Box | SymmetricBox, margin: float = 0.0) -> bool:
    """Whether every symmetric matrix in the box is proven positive definite.

    Args:
        box: symmetric midpoint and radius, shape (N, N); of the midpoint only the lower triangle is used.
        margin: ask for more: that the matrix, scaled by powers of two to a diagonal in [1/2, 2), exceeds ``margin`` I.

    Returns:
        True only if it is proven. False means "not proven", never "not positive definite".
    """
    scaled = _equilibrated(box if isinstance(box, SymmetricBox) else assemble([[box]]))
    if scaled is None or not 0.0 <= margin < np.inf:
        return False
    lowered, radius = scaled
    shift = upward(np.asarray(_shift(lowered, radius) + margin))
    entries = np.arange(len(lowered))
    lowered[entries, entries] = np.nextafter(lowered[entries, entries] - shift, -np.inf)
    try:
        pivots = np.diagonal(np.linalg.cholesky(lowered))
    except np.linalg.LinAlgError:
        return False
    # LAPACK reports success on NaN, so its word is not enough
    return bool(np.isfinite(pivots).all() and (pivots > 0).all())


def missing_margin(box: Box | SymmetricBox) -> float:
    """How far a matrix is from being proven positive definite: needed minus found smallest eigenvalue, equilibrated.

    A diagnosis for people, not rigorous: positive if the proof must fail, inf if a diagonal entry is not positive.
    """
    scaled = _equilibrated(box if isinstance(box, SymmetricBox) else assemble([[box]]))
    if scaled is None:
        return float("inf")
    return _shift(*scaled) - float(np.linalg.eigvalsh(scaled[0])[0])
