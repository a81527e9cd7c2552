"""What a projection has to keep: entries that may not move, zeros, the diagonal, a low rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.dtypes import ROUNDOFF, rounded
from certes.errors import InputError
from certes.systems import Matrix, SparseMatrix, System

Array = NDArray[np.float64]
Pattern = NDArray[np.bool_]

#: The smallest normal number.
_SMALLEST = float(np.finfo(np.float64).tiny)
#: Singular values below this, relative to the largest, are rounding.
_RANK_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Keep:
    """What the user wants kept.

    Attributes:
        mask: shape (n, n), True where a weight may move; None: all may. The others keep their value bit for bit.
        zeros: weights that are 0 stay 0.
        diagonal: the diagonal stays.
        rank: the new weights have at most this rank, exactly (as rational numbers, not up to rounding).
    """

    mask: object = None
    zeros: bool = False
    diagonal: bool = False
    rank: int | None = None

    def structure(self, system: System) -> Structure:
        """The same, worked out for a network.

        Raises:
            InputError: a mask of another shape, a rank that is none, or things that exclude each other.
        """
        value, size = system.tensors["W"].value, system.size
        if isinstance(value, SparseMatrix):
            if self.mask is not None or self.diagonal or self.rank is not None:
                given = "a mask, diagonal or rank with sparse weights"
                raise InputError("keep", given, "only zeros: sparse weights keep their pattern", "conflict")
            return Structure(value, None, None)
        movable = np.ones((size, size), dtype=np.bool_) if self.mask is None else _mask(self.mask, size)
        if self.zeros:
            movable &= value != 0.0
        if self.diagonal:
            movable &= ~np.eye(size, dtype=np.bool_)
        rank = _rank(self.rank, size)
        if rank is not None and not movable.all():
            raise InputError("keep", "a rank together with weights that may not move", "one of the two", "conflict")
        if rank is not None and system.tensors["W"].subjects[0].dtype in ("F16", "BF16"):
            expected = "weights in float32 or float64: products of factors do not fit into 16 bits exactly"
            raise InputError("keep.rank", "weights in half precision", expected, "conflict")
        return Structure(value, None if movable.all() else movable, rank if rank is not None and rank < size else None)


def _mask(given: object, size: int) -> Pattern:
    try:
        mask = np.asarray(given)
    except ValueError as error:  # rows of different lengths
        raise InputError("keep.mask", "something that is no matrix", f"shape {(size, size)}", "wrong-shape") from error
    if mask.shape != (size, size):
        raise InputError("keep.mask", f"shape {mask.shape}", f"shape {(size, size)}", "wrong-shape")
    if mask.dtype != np.bool_ and not (mask.dtype.kind in "iuf" and bool(((mask == 0) | (mask == 1)).all())):
        raise InputError("keep.mask", f"dtype {mask.dtype}", "booleans, or numbers 0 and 1", "wrong-dtype")
    return mask.astype(np.bool_)  # a copy


def _rank(given: object, size: int) -> int | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or not int(given) >= 1:
        raise InputError("keep.rank", repr(given), f"a whole number from 1 to {size}", "wrong-type")
    return int(given)


@dataclass(frozen=True, eq=False)
class Structure:
    """The weights that keep what has to be kept.

    Attributes:
        weights: the given ones.
        movable: True where a weight may move; None: everywhere.
        rank: largest rank, below n; None: any.
    """

    weights: Matrix
    movable: Pattern | None
    rank: int | None

    @property
    def binding(self) -> bool:
        """Whether anything has to be kept."""
        return self.movable is not None or self.rank is not None

    @property
    def _dense(self) -> Array:
        assert isinstance(self.weights, np.ndarray)
        return self.weights

    @property
    def holds(self) -> bool:
        """Whether the given weights keep it: a rank is met up to rounding."""
        if self.rank is None:
            return True
        assert isinstance(self.weights, np.ndarray)
        values = np.linalg.svd(self.weights, compute_uv=False)
        return bool(values[self.rank] <= _RANK_TOLERANCE * values[0])

    @property
    def anchor(self) -> Array | float:
        """The weights towards which one backs off: frozen entries as given, 0 elsewhere."""
        if self.movable is None:
            return 0.0
        assert isinstance(self.weights, np.ndarray)
        return np.where(self.movable, 0.0, self.weights)

    def nearest(self, weights: Array) -> Array:
        """The nearest weights that keep everything (Frobenius); shape (n, n)."""
        if self.rank is not None:
            left, values, right = np.linalg.svd(weights)
            return np.asarray((left[:, : self.rank] * values[: self.rank]) @ right[: self.rank])
        if self.movable is None:
            return weights
        assert isinstance(self.weights, np.ndarray)
        return np.where(self.movable, weights, self.weights)

    def rounded(self, weights: Array, dtype: str) -> Array:
        """The weights rounded to a dtype, without losing what has to be kept.

        A product of factors of rank r has rank r exactly if no rounding happens in it: the factors are rounded to so
        few bits that all their products and sums fit into the dtype. The second factor is fitted to the rounded first.
        """
        if self.rank is None:
            found = rounded(weights, dtype)
            found = np.where(np.abs(found) < _SMALLEST, 0.0 * found, found)  # the verifier refuses subnormal numbers
            # what may not move is copied: arithmetic would lose the sign of a zero
            return found if self.movable is None else np.where(self.movable, found, self._dense)
        left, values, right = np.linalg.svd(weights)
        left, right = left[:, : self.rank], values[: self.rank, None] * right[: self.rank]
        digits = round(-np.log2(ROUNDOFF[dtype]))  # a sum of r products of a and b bits takes a + b + log2 r bits
        spare = digits - int(np.ceil(np.log2(self.rank)))
        left = _on_grid(left, spare // 2)
        right = np.asarray(np.linalg.lstsq(left, weights, rcond=None)[0], dtype=np.float64)
        return np.asarray(left @ _on_grid(right, spare - spare // 2), dtype=np.float64)


def _on_grid(values: Array, bits: int) -> Array:
    """Multiples of one power of two, none larger in modulus than 2^bits of them."""
    largest = float(np.abs(values).max())
    if not largest > 0.0:
        return values
    unit = 2.0 ** (float(np.frexp(largest)[1]) - bits)
    return np.asarray(np.rint(values / unit) * unit)
