"""Obligations of an ``absolute`` proof: positive vectors r, l for an entrywise majorant N (Thm 1 and Thm 4).

    continuous  N_ij = b_i |W_ij| (rate) or |W_ij| b_j (hopfield), b = max(|lower|, |upper|),
                N_ii = max(lower_i W_ii, upper_i W_ii)
                metric diag(l_i tau_i / r_i), rate min_i (2 - (N r)_i / r_i - (N^T l)_i / l_i) / (2 tau_i)
    map         N_ij = a_i b |W_ij|, N_ii = max over d in [lower, upper] of |1 - a_i + a_i d W_ii|, a = step / tau
                metric diag(l_i / r_i), factor sqrt(max_i (N r)_i / r_i  max_i (N^T l)_i / l_i)

(P J + J^T P has, entry by entry off the diagonal, at most the absolute value of the Metzler matrix built from N; a
symmetric Metzler matrix M with M r <= 0 for some r > 0 is negative semidefinite. For maps: Schur's test.)
One pass over the nonzeros for each vector, every sum an upper bound. r and l are mantissa times power of two, so that
chains, whose vectors span more than the range of float64, are checked without overflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.proofs import AbsoluteProof
from certes.systems import SparseMatrix, System
from certes.verify.intervals import TINY, Box, U, upward
from certes.verify.question import Question
from certes.verify.reduction import step_box
from certes.verify.report import Check

Array = NDArray[np.float64]
Indices = NDArray[np.integer[Any]]

_CHUNK = 1 << 20  # entries handled at once
_PLAIN_RANGE = 400  # exponents closer than this to their centre: the vector itself fits float64 comfortably
#: (row of each entry's start in the chunk, columns, absolute values, first row, last row + 1)
Rows = tuple[Indices, Indices, Array, int, int]


def _absolute(question: Question) -> AbsoluteProof:
    assert isinstance(question.proof, AbsoluteProof)
    return question.proof


def shapes(question: Question) -> Check:
    """Form rate or hopfield; mantissas (n,) in [1/2, 1), exponents (n,) within +-2**40."""
    proof, size = _absolute(question), question.system.size
    vectors = ((proof.right, proof.right_exponent), (proof.left, proof.left_exponent))
    fits = question.system.form != "lure" and all(
        mantissa.shape == exponent.shape == (size,)
        and bool((mantissa >= 0.5).all())
        and bool((mantissa < 1.0).all())
        and bool(((exponent > -(1 << 40)) & (exponent < 1 << 40)).all())  # not abs: that of -2**63 is negative
        for mantissa, exponent in vectors
    )
    return Check("shapes", fits, "positive vectors r, l as mantissa in [1/2, 1) and exponent")


def _row_blocks(matrix: Array | SparseMatrix) -> Iterator[Rows]:
    """The off-diagonal entries in blocks of whole rows."""
    if isinstance(matrix, SparseMatrix):
        first = 0
        while first < matrix.shape[0]:
            last = int(np.searchsorted(matrix.indptr, matrix.indptr[first] + _CHUNK, side="right")) - 1
            last = min(max(last, first + 1), matrix.shape[0])
            span = slice(int(matrix.indptr[first]), int(matrix.indptr[last]))
            counts = np.diff(matrix.indptr[first : last + 1])
            columns = matrix.indices[span]
            rows = np.repeat(np.arange(first, last, dtype=columns.dtype), counts)
            values = np.abs(matrix.data[span])
            values[rows == columns] = 0.0
            yield rows, columns, values, first, last
            first = last
        return
    size = len(matrix)
    height = max(1, _CHUNK // size)
    for first in range(0, size, height):
        last = min(first + height, size)
        values = np.abs(matrix[first:last])
        values[np.arange(last - first), np.arange(first, last)] = 0.0
        rows = np.repeat(np.arange(first, last), size)
        yield rows, np.tile(np.arange(size), last - first), values.ravel(), first, last


def _diagonal(matrix: Array | SparseMatrix) -> Array:
    if not isinstance(matrix, SparseMatrix):
        return np.diagonal(matrix).copy()
    diagonal = np.zeros(matrix.shape[0])
    rows = np.repeat(np.arange(matrix.shape[0], dtype=matrix.indices.dtype), np.diff(matrix.indptr))
    hit = rows == matrix.indices
    diagonal[rows[hit]] = matrix.data[hit]
    return diagonal


def _plain(mantissa: Array, exponent: NDArray[np.int64]) -> Array | None:
    """The vector in float64, up to a common power of two, if its range allows."""
    centre = (int(exponent.max()) + int(exponent.min())) // 2
    if int(exponent.max()) - centre > _PLAIN_RANGE:
        return None
    return np.ldexp(mantissa, exponent - centre)


def _weighted(values: Array, factor: Array, exponent: NDArray[np.int64], source: Indices, target: Indices) -> Array:
    """Upper bounds of values * factor[source] * 2**(exponent[source] - exponent[target]).

    Mantissas are multiplied and exponents added before the one scaling, so that nothing underflows on the way to a
    result of ordinary size.
    """
    shift = np.clip(exponent[source] - exponent[target], -(1 << 20), 1 << 20)
    value, value_exponent = np.frexp(values)
    weight, weight_exponent = np.frexp(factor[source])
    return np.asarray(np.ldexp(value * weight, value_exponent + weight_exponent + shift) + (values > 0) * TINY)


def off_diagonal_sums(
    matrix: Array | SparseMatrix, mantissa: Array, exponent: NDArray[np.int64], weight: Array, transposed: bool
) -> Array:
    """Upper bounds of sum_{j != i} |W_ij| weight_j x_j / x_i (or of W^T), x = mantissa * 2**exponent; shape (n,)."""
    size = len(mantissa)
    sums = np.zeros(size)
    counts = np.full(size, 64.0)  # additions behind each sum, and some to spare
    plain = _plain(mantissa, exponent)
    vector = upward(weight * (mantissa if plain is None else plain))
    for rows, columns, values, first, last in _row_blocks(matrix):
        counts += 1.0
        source, target = (rows, columns) if transposed else (columns, rows)
        terms = _weighted(values, vector, exponent, source, target) if plain is None else values * vector[source]
        if transposed:
            sums += np.bincount(target, weights=terms, minlength=size)
            counts += np.bincount(target, minlength=size)
        else:
            sums[first:last] = np.bincount(target - first, weights=terms, minlength=last - first)
            counts[first:last] += np.bincount(target - first, minlength=last - first)
    bound = sums * (1.0 + counts * 2.0 * U) + counts * TINY
    return upward(bound / (mantissa if plain is None else plain))


def _sums(question: Question) -> tuple[Array, Array]:
    """Upper bounds of (N r)_i / r_i and (N^T l)_i / l_i without the leak a_i of a map, off the diagonal."""
    system, proof = question.system, _absolute(question)
    matrix = system.tensors["W"].value
    bound, ones = system.slope.bound, np.ones(system.size)
    inside, outside = (ones, bound) if system.form == "rate" else (bound, ones)
    leak = ones if system.continuous else _leak(system).magnitude * ones
    right = off_diagonal_sums(matrix, proof.right, proof.right_exponent, inside, False) * outside * leak
    left = off_diagonal_sums(matrix, proof.left, proof.left_exponent, upward(outside * leak), True) * inside
    return upward(right), upward(left)


def _leak(system: System) -> Box:
    inverse = 1.0 / system.tau
    exact = bool((system.tau == 1.0).all())
    return step_box(system) * Box(inverse, np.zeros_like(inverse) if exact else upward(U * inverse))


def _diagonal_bound(system: System) -> Array:
    """Upper bound of N_ii: the largest of both ends of the slope interval."""
    entries = Box.exact(_diagonal(system.tensors["W"].value))
    ends = [entries * Box.exact(side) for side in (system.slope.lower, system.slope.upper)]
    if system.continuous:
        tops = [end.mid + end.rad for end in ends]
        largest = np.maximum(*tops)
        return np.asarray(largest + 4.0 * U * np.abs(largest) + TINY)
    leak = _leak(system)
    kept = Box.exact(np.ones(system.size)) - leak
    return np.maximum(*[(kept + leak * end).magnitude for end in ends])


def rate_bound(question: Question) -> Check:
    """2 c tau_i + (N r)_i / r_i + (N^T l)_i / l_i <= 2 for every i; or rho^2 >= rho_r rho_l."""
    system, claims = question.system, question.claims
    right, left = _sums(question)
    diagonal = _diagonal_bound(system)
    if system.continuous:
        speed = 2.0 * (claims.rate or 0.0) * system.tau
        total = speed + right + left + 2.0 * diagonal
        scale = speed + right + left + 2.0 * np.abs(diagonal)
        excess = float(np.max(total + 8.0 * U * scale + TINY)) - 2.0
        return Check(
            "rate", excess <= 0.0, "2 c tau + N r / r + N^T l / l <= 2 in every row", excess if excess > 0 else None
        )
    rows, columns = float(upward(right + diagonal).max()), float(upward(left + diagonal).max())
    if not (np.isfinite(rows) and np.isfinite(columns)):
        return Check("rate", False, "finite row and column sums")
    held = Fraction(claims.factor or 0.0) ** 2 >= Fraction(rows) * Fraction(columns)
    missing = None if held else float(np.sqrt(rows * columns)) - (claims.factor or 0.0)
    return Check("rate", held, "rho^2 >= max(N r / r) max(N^T l / l)", missing)
