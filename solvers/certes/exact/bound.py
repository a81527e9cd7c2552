"""Bounds on what the condition ``lure`` can prove, in exact rational arithmetic, written apart from the verifier.

The theorem is the one of docs/theory.md (optimality): sums over the columns, one for each neuron, that no multipliers
q_i > 0 can outweigh. Here they are rational numbers, so "at least 0" is decided, ties included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from certes.exact.normal import exact_form, leaks, vector
from certes.exact.rationals import (
    Answer,
    Array,
    Rational,
    RationalMatrix,
    Step,
    diagonal,
    flint,
    matrix,
    positive_semidefinite,
    rational,
)
from certes.proofs import ConicBound, LevelBound, LureBound, NormBound
from certes.systems import System


def _finite(bound: LevelBound) -> Answer:
    arrays = [np.asarray(array, dtype=np.float64) for array in bound.proof.to_arrays().values()]
    return math.isfinite(bound.level) and all(bool(np.isfinite(array).all()) for array in arrays)


def outpaces_leak(system: System, level: float) -> bool:
    """Slopes may all be 0, and the leak alone does not reach the level."""
    possible = all(a <= 0 <= b for a, b in zip(system.slope.lower, system.slope.upper, strict=True))
    if system.form == "lure" or not possible:
        return False
    asked = rational(level)
    if system.continuous:
        return any(asked * rational(tau) >= 1 for tau in system.tau)
    return any(asked <= abs(1 - share) for share in leaks(system))


def _seen(system: System, columns: Array) -> list[list[Rational]]:
    """diag(g) W Y, or diag(g) W^T Y, row by row."""
    weights = matrix(system.matrix("W"))
    turned = weights.transpose() if system.form == "hopfield" else weights
    table: list[list[Rational]] = (diagonal(vector(system.slope.upper)) * turned * matrix(columns)).tolist()
    return table


def _uniform(system: System, columns: Array) -> bool:
    """One time constant, one weight matrix, columns of n entries that are not all 0."""
    same = system.form != "lure" and all(tau == system.tau[0] for tau in system.tau)
    return same and columns.ndim == 2 and columns.shape[0] == system.size and any(entry != 0 for entry in columns.flat)


def _conic_steps(system: System, level: float, proof: ConicBound) -> list[Step]:
    def shapes() -> Answer:
        both = (
            np.hstack([proof.real, proof.imaginary]) if proof.real.shape == proof.imaginary.shape else np.zeros((0, 0))
        )
        points = {proof.cosine.shape, proof.sine.shape, proof.real.shape[1:]}
        return _uniform(system, both) and len(points) == 1 and all(a == 0 for a in system.slope.lower)

    def points() -> Answer:
        return all(x * x + y * y <= 1 for x, y in zip(vector(proof.cosine), vector(proof.sine), strict=True))

    def columns() -> Answer:
        share, asked = leaks(system)[0], rational(level)
        if system.continuous:  # the whole inequality times 2
            centre, radius, room = rational(1.0), rational(1.0), 2 - 2 * asked / share
        else:  # times step / tau
            kept = 1 - share
            centre, radius, room = share * kept, share * asked, (asked - kept) * (asked + kept)
        weights = [
            (centre + radius * x, radius * y) for x, y in zip(vector(proof.cosine), vector(proof.sine), strict=True)
        ]
        real, imaginary = matrix(proof.real).tolist(), matrix(proof.imaginary).tolist()
        seen = zip(real, imaginary, _seen(system, proof.real), _seen(system, proof.imaginary), strict=True)
        for rows in seen:
            total = rational(0.0)
            for (h, k), x, y, p, q in zip(weights, *rows, strict=True):
                # Re((h + i k)(x - i y)(p + i q)) - room |x + i y|^2
                total += x * (h * p - k * q - room * x) + y * (h * q + k * p - room * y)
            if total < 0:
                return False
        return True

    return [
        ("bound-shapes", shapes, "one time constant, slopes [0, g]; points (r,); columns (n, r), not all zero"),
        ("bound-points", points, "|u_k| <= 1"),
        ("bound-columns", columns, "sum Re(h conj(y_i) (M y)_i) - t |y_i|^2 >= 0 for every i"),
    ]


def _norm_steps(system: System, level: float, proof: NormBound) -> list[Step]:
    def shapes() -> Answer:
        pairs = zip(vector(system.slope.lower), vector(system.slope.upper), strict=True)
        return _uniform(system, proof.columns) and all(a + b == 0 for a, b in pairs)

    def columns() -> Answer:
        share, asked = leaks(system)[0], rational(level)
        s = (share - asked) / share if system.continuous else (asked - abs(1 - share)) / share
        rows = zip(_seen(system, proof.columns), matrix(proof.columns).tolist(), strict=True)
        return all(sum(p * p for p in seen) >= s * s * sum(y * y for y in given) for seen, given in rows)

    return [
        ("bound-shapes", shapes, "one time constant, slopes [-g, g]; columns (n, r), not all zero"),
        ("bound-columns", columns, "sum (M y)_i^2 - s^2 y_i^2 >= 0 for every neuron i"),
    ]


def _lure_steps(system: System, level: float, proof: LureBound) -> list[Step]:
    n, m = system.size, len(system.slope.lower)

    def shapes() -> Answer:
        return proof.columns.shape[0] == n + m and any(entry != 0 for entry in proof.columns.flat)

    def parts() -> tuple[Any, RationalMatrix, RationalMatrix]:
        form = exact_form(system)
        return form.transposed if proof.dual else form, matrix(proof.columns[:n]), matrix(proof.columns[n:])

    def states() -> Answer:
        form, X, V = parts()
        image, asked = form.A * X + form.B * V, rational(level)
        if system.continuous:
            shifted = image * X.transpose() + X * X.transpose() * asked
            S = shifted + shifted.transpose()
        else:
            S = image * image.transpose() - X * X.transpose() * (asked * asked)
        kept = [row for row in range(n) if any(S[row, other] != 0 for other in range(n))]
        return not kept or positive_semidefinite(flint().fmpq_mat([[S[i, j] for j in kept] for i in kept]))

    def channels() -> Answer:
        form, X, V = parts()
        rows = zip(form.gap, (form.C * X).tolist(), V.tolist(), strict=True)
        return all(sum((g * x - v) * v for x, v in zip(seen, given, strict=True)) >= 0 for g, seen, given in rows)

    return [
        ("bound-shapes", shapes, "columns (n + m, r), not all zero"),
        ("bound-states", states, "S >= 0"),
        ("bound-channels", channels, "sum (G C x)_i v_i - v_i^2 >= 0 for every i"),
    ]


_STEPS: dict[type, Callable[[System, float, Any], list[Step]]] = {
    ConicBound: _conic_steps,
    NormBound: _norm_steps,
    LureBound: _lure_steps,
}


def steps(system: System, bound: LevelBound) -> list[Step]:
    """All obligations of a bound in their order; beyond the leak there are none about the columns but their shapes."""
    first: Step = ("bound-numbers", lambda: _finite(bound), "every number is finite")
    find = _STEPS.get(type(bound.proof))
    if find is None or system.is_sparse:
        return [("bound-kind", lambda: False, "dense weights, and a bound of kind conic, norm or lure")]
    shapes, *rest = find(system, bound.level, bound.proof)

    def unless_leak(ask: Callable[[], Answer]) -> Callable[[], Answer]:
        return lambda: outpaces_leak(system, bound.level) or ask()

    return [first, shapes, *((name, unless_leak(ask), detail) for name, ask, detail in rest)]
