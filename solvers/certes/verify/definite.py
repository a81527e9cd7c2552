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
    """A box of symmetric matrices by its lower triangle of blocks: row k holds k + 1, the last one symmetric.

    A block on the diagonal that is itself diagonal may be given as its vector (a box of shape (m,)).
    """

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
            part = np.diag(parts[k][j]) if parts[k][j].ndim == 1 else parts[k][j]
            full[rows, columns] = part
            full[columns, rows] = part.T
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


@dataclass(frozen=True, eq=False)
class _Scaled:
    """A matrix scaled by powers of two to a diagonal in [1/2, 2), rows with a diagonal block first.

    Attributes:
        head: diagonal of the first m rows, shape (m,); m is 0 if no diagonal block was given.
        coupling: rows of the head, columns of the rest, shape (m, R).
        rest: the other rows, lower triangle, shape (R, R).
        radius: norm of the scaled radius, rounded up.
    """

    head: Array
    coupling: Array
    rest: Array
    radius: float

    @property
    def diagonal(self) -> Array:
        """All diagonal entries."""
        return np.concatenate([self.head, np.diagonal(self.rest)])


def _equilibrated(box: SymmetricBox) -> _Scaled | None:
    """None if a diagonal entry is not positive or anything is not finite."""
    vectors = [row[-1].mid if row[-1].mid.ndim == 1 else np.diagonal(row[-1].mid) for row in box.blocks]
    diagonal = np.concatenate(vectors)
    if not (np.isfinite(diagonal).all() and (diagonal > 0).all()):
        return None
    size = len(diagonal)
    scale = np.ldexp(1.0, np.clip(-(np.frexp(diagonal)[1] // 2), -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    first = next((k for k, row in enumerate(box.blocks) if row[-1].mid.ndim == 1), None)
    lengths = [0 if k == first else len(vector) for k, vector in enumerate(vectors)]
    ends = list(accumulate(lengths))
    at = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    head = np.empty(0) if first is None else vectors[first] * scale[_rows(box, first)] * scale[_rows(box, first)]
    coupling, rest = np.zeros((len(head), ends[-1])), np.zeros((ends[-1], ends[-1]))
    radii = np.zeros(size)  # row sums of the scaled radius
    for k, j, rows, columns in box.places():
        block = box.blocks[k][j]
        if block.mid.ndim == 1:
            radii[rows] += scale[rows] * block.rad * scale[rows]
            if k != first:
                entries = np.arange(at[k].start, at[k].stop)
                rest[entries, entries] = block.mid * scale[rows] * scale[rows]
            continue
        if k == first:
            _scale(block.mid, scale[rows], scale[columns], coupling[:, at[j]])
        elif j == first:
            _scale(block.mid.T, scale[columns], scale[rows], coupling[:, at[k]])
        else:
            _scale(block.mid, scale[rows], scale[columns], rest[at[k], at[j]])
        if not block.is_exact:
            radii[rows] += scale[rows] * (block.rad @ scale[columns])
            if j < k:
                radii[columns] += scale[columns] * (block.rad.T @ scale[rows])
    norm = float(upward(radii, 2 * size).max())
    finite = np.isfinite(norm) and np.isfinite(coupling).all() and np.isfinite(rest).all()
    return _Scaled(head, coupling, rest, norm) if finite else None


def _rows(box: SymmetricBox, k: int) -> slice:
    return slice(box.starts[k], box.starts[k + 1])


def _scale(block: Array, rows: Array, columns: Array, out: Array) -> None:
    np.multiply(block, rows[:, None], out=out)
    out *= columns


def _shift(scaled: _Scaled) -> float:
    """What must be taken off the diagonal: rounding of the factorisation, radii, underflow (rounded upwards)."""
    diagonal = scaled.diagonal
    size = len(diagonal)
    gamma = (size + 16) * U / (1.0 - (size + 16) * U)
    factorisation = gamma / (1.0 - 2.0 * gamma) * float(diagonal.sum())
    # 1e-140: an entry may underflow under the first of its two scalings and be magnified by the second, up to 2**500
    underflow = 16.0 * size * (2.0 * size + float(diagonal.max())) * ETA + 1e-140
    return float(upward(np.asarray(factorisation + scaled.radius + underflow), 4 * size))


def _pivots(scaled: _Scaled, shift: float) -> Array | None:
    """diag(L) of one Cholesky factorisation in floating point of the matrix minus shift I; None if it breaks down.

    The head comes first: its columns of L are the square roots of its entries and the coupling divided by them, its
    share in every later sum is one matrix product, and LAPACK finishes the rest. Each entry of L comes from the sum,
    quotient or root of the textbook recurrence, so the bound above holds as for a factorisation in one piece.
    """
    entries = np.arange(len(scaled.rest))
    scaled.rest[entries, entries] = np.nextafter(scaled.rest[entries, entries] - shift, -np.inf)
    head = np.nextafter(scaled.head - shift, -np.inf)
    if not (head > 0).all():
        return None
    root = np.sqrt(head)
    if len(root):
        columns = scaled.coupling
        columns /= root[:, None]
        scaled.rest[...] -= columns.T @ columns
    try:
        return np.concatenate([root, np.diagonal(np.linalg.cholesky(scaled.rest))])
    except np.linalg.LinAlgError:
        return None


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
    pivots = _pivots(scaled, float(upward(np.asarray(_shift(scaled) + margin))))
    # LAPACK reports success on NaN, so its word is not enough
    return pivots is not None and bool(np.isfinite(pivots).all() and (pivots > 0).all())


def missing_margin(box: Box | SymmetricBox) -> float:
    """How far a matrix is from being proven positive definite: needed minus found smallest eigenvalue, equilibrated.

    A diagnosis for people, not rigorous: positive if the proof must fail, inf if a diagonal entry is not positive.
    """
    scaled = _equilibrated(box if isinstance(box, SymmetricBox) else assemble([[box]]))
    if scaled is None:
        return float("inf")
    full = np.block([[np.diag(scaled.head), scaled.coupling], [scaled.coupling.T, scaled.rest]])
    return _shift(scaled) - float(np.linalg.eigvalsh(full)[0])
