"""The exact audit's own reduction of a network to rationals, and its own bounds on the entries of the Jacobian.

x' = A x + B psi(C x + u) (or x+ = the same), psi with slopes in [0, gap]; J(D) = A + B D C. Weights, time constants,
slopes and the step are the rationals that their floats are; nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from certes.exact.rationals import Array, Rational, RationalMatrix, diagonal, flint, matrix, rational
from certes.systems import SparseMatrix, System


@dataclass(frozen=True, eq=False)
class ExactForm:
    """Normal form after the shift of the slopes to [0, gap], all entries rational.

    Attributes:
        A: shape (n, n).
        B: shape (n, m).
        C: shape (m, n).
        gap: b - a, length m.
        leak: 1 / tau_i, or step / tau_i of a map, length n; None for the lure form.
    """

    A: RationalMatrix
    B: RationalMatrix
    C: RationalMatrix
    gap: list[Rational]
    leak: list[Rational] | None

    @property
    def transposed(self) -> ExactForm:
        """(A^T, C^T, B^T)."""
        return ExactForm(self.A.transpose(), self.C.transpose(), self.B.transpose(), self.gap, self.leak)


def vector(values: Array) -> list[Rational]:
    """A float vector as rationals."""
    return [rational(entry) for entry in values]


def leaks(system: System) -> list[Rational]:
    """1 / tau_i, or step / tau_i for a map made by an Euler step; length n."""
    step = rational(1.0 if system.step is None else system.step)
    return [step / rational(tau) for tau in system.tau]


def unshifted(system: System) -> tuple[RationalMatrix, RationalMatrix, RationalMatrix]:
    """A, B, C of J(D) = A + B D C with the slopes D as the user gave them."""
    one = diagonal([rational(1.0)] * system.size)
    if system.form == "lure":
        A, B, C = (matrix(system.matrix(role)) for role in "ABC")
        if system.step is not None:
            step = rational(system.step)
            A, B = one + A * step, B * step
        return A, B, C
    leak = diagonal(leaks(system))
    weights = matrix(system.matrix("W"))
    A = -leak if system.step is None else one - leak
    return (A, leak, weights) if system.form == "rate" else (A, leak * weights, one)


def exact_form(system: System) -> ExactForm:
    """The normal form of a dense system.

    Raises:
        InputError: sparse weights.
    """
    A, B, C = unshifted(system)
    lower, upper = vector(system.slope.lower), vector(system.slope.upper)
    gap = [b - a for a, b in zip(lower, upper, strict=True)]
    leak = None if system.form == "lure" else leaks(system)
    return ExactForm(A + B * diagonal(lower) * C, B, C, gap, leak)


def _weights(system: System) -> Iterator[tuple[int, int, Rational]]:
    value = system.tensors["W"].value
    if isinstance(value, SparseMatrix):
        for i in range(value.shape[0]):
            for k in range(int(value.indptr[i]), int(value.indptr[i + 1])):
                yield i, int(value.indices[k]), rational(value.data[k])
        return
    for i, j in zip(*np.nonzero(value), strict=True):
        yield int(i), int(j), rational(value[i, j])


def jacobian_entries(system: System) -> Iterator[tuple[int, int, Rational, Rational]]:
    """(i, j, low, high): the range of each entry of J(D) over all D, every diagonal entry and every nonzero one."""
    if system.form == "lure":
        yield from _dense_entries(system)
        return
    leak = leaks(system)
    lower, upper = vector(system.slope.lower), vector(system.slope.upper)
    base = rational(0.0 if system.step is None else 1.0)
    met = [False] * system.size
    for i, j, weight in _weights(system):
        neuron = i if system.form == "rate" else j
        ends = sorted((leak[i] * lower[neuron] * weight, leak[i] * upper[neuron] * weight))
        offset = base - leak[i] if i == j else rational(0.0)
        met[i] = met[i] or i == j
        yield i, j, ends[0] + offset, ends[1] + offset
    for i, seen in enumerate(met):
        if not seen:
            yield i, i, base - leak[i], base - leak[i]


def _dense_entries(system: System) -> Iterator[tuple[int, int, Rational, Rational]]:
    A, B, C = (part.tolist() for part in unshifted(system))
    lower, upper = vector(system.slope.lower), vector(system.slope.upper)
    for i, row in enumerate(A):
        for j, entry in enumerate(row):
            low = high = entry
            for k, (a, b) in enumerate(zip(lower, upper, strict=True)):
                slope_weight = B[i][k] * C[k][j]
                low += min(a * slope_weight, b * slope_weight)
                high += max(a * slope_weight, b * slope_weight)
            yield i, j, low, high


def frobenius_squared(given: RationalMatrix) -> Rational:
    """The squared Frobenius norm."""
    return sum((entry * entry for entry in given.entries()), start=flint().fmpq(0))
