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

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from certes.verify.intervals import ETA, Box, U, upward

Array = NDArray[np.float64]

#: Scaling exponents beyond this are clipped: the entries of the matrix then differ by more than 2**1000.
_LARGEST_EXPONENT = 500


def assemble(blocks: Sequence[Sequence[Box]]) -> Box:
    """The symmetric matrix whose lower triangle of blocks is given: row k of ``blocks`` holds k + 1 of them."""
    sizes = [row[-1].mid.shape[0] for row in blocks]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    mid = np.zeros((starts[-1], starts[-1]))
    rad = np.zeros_like(mid)
    for k, row in enumerate(blocks):
        for j, block in enumerate(row):
            rows, columns = slice(starts[k], starts[k + 1]), slice(starts[j], starts[j + 1])
            mid[rows, columns], rad[rows, columns] = block.mid, block.rad
            if j < k:
                mid[columns, rows], rad[columns, rows] = block.mid.T, block.rad.T
    return Box(mid, rad)


def _equilibrated(box: Box) -> tuple[Array, Array] | None:
    """Midpoint and radius scaled by powers of two to a diagonal in [1/2, 2]; None if an entry of it is not positive."""
    diagonal = np.diagonal(box.mid)
    if not (np.isfinite(box.mid).all() and np.isfinite(box.rad).all() and (diagonal > 0).all()):
        return None
    exponents = np.clip(-(np.frexp(diagonal)[1] // 2), -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    scale = np.ldexp(1.0, exponents)
    return box.mid * scale[:, None] * scale, box.rad * scale[:, None] * scale


def _shift(mid: Array, rad: Array) -> float:
    """What must be taken off the diagonal: rounding of the factorisation, radii, underflow (rounded upwards)."""
    size = len(mid)
    gamma = (size + 16) * U / (1.0 - (size + 16) * U)
    factorisation = gamma / (1.0 - 2.0 * gamma) * float(np.trace(mid))
    radii = float(rad.sum(axis=1).max())
    underflow = 16.0 * size * (2.0 * size + float(np.diagonal(mid).max())) * ETA + 1e-290
    return float(upward(np.asarray(factorisation + radii + underflow), 4 * size))


def positive_definite(box: Box, margin: float = 0.0) -> bool:
    """Whether every symmetric matrix in the box is proven positive definite.

    Args:
        box: symmetric midpoint and radius, shape (N, N).
        margin: ask for more: that the matrix, scaled by powers of two to a diagonal in [1/2, 2], exceeds ``margin`` I.

    Returns:
        True only if it is proven. False means "not proven", never "not positive definite".
    """
    scaled = _equilibrated(box)
    if scaled is None or not 0.0 <= margin < np.inf:
        return False
    lowered, rad = scaled
    shift = upward(np.asarray(_shift(lowered, rad) + margin))
    entries = np.arange(len(lowered))
    lowered[entries, entries] = np.nextafter(lowered[entries, entries] - shift, -np.inf)
    try:
        pivots = np.diagonal(np.linalg.cholesky(lowered))
    except np.linalg.LinAlgError:
        return False
    # LAPACK reports success on NaN, so its word is not enough
    return bool(np.isfinite(pivots).all() and (pivots > 0).all())


def missing_margin(box: Box) -> float:
    """How far a matrix is from being proven positive definite: needed minus found smallest eigenvalue, equilibrated.

    A diagnosis for people, not rigorous: positive if the proof must fail, inf if a diagonal entry is not positive.
    """
    scaled = _equilibrated(box)
    if scaled is None:
        return float("inf")
    return _shift(*scaled) - float(np.linalg.eigvalsh(scaled[0])[0])
