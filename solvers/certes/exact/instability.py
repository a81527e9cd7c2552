"""The obligations of a witness of instability, in rational and ball arithmetic.

The slopes are the derivative of the activation at the stored points, evaluated here in ball arithmetic from its
definition and not from the activation table; for a bare slope interval they are the stored slopes, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from certes.exact.normal import unshifted, vector
from certes.exact.rationals import (
    PRECISIONS,
    Answer,
    Rational,
    Step,
    definite_by_balls,
    flint,
    matrix,
    positive_definite,
    rational,
)
from certes.proofs import InstabilityWitness
from certes.systems import System

Ball = Any


def _exp(t: Ball) -> Ball:
    return t.exp()


def _sigmoid(t: Ball) -> Ball:
    return 1 / (1 + _exp(-t))


def _gelu(t: Ball) -> Ball:
    arb = flint().arb
    return (1 + (t / arb(2).sqrt()).erf()) / 2 + t * _exp(-t * t / 2) / (2 * arb.pi()).sqrt()


#: Derivatives of the smooth activations, in balls.
SMOOTH: dict[str, Callable[[Ball], Ball]] = {
    "tanh": lambda t: 1 - t.tanh() ** 2,
    "sigmoid": lambda t: _sigmoid(t) * (1 - _sigmoid(t)),
    "softplus": _sigmoid,
    "elu": lambda t: _exp(t) if t <= 0 else flint().arb(1),
    "gelu": _gelu,
    "silu": lambda t: _sigmoid(t) * (1 + t * (1 - _sigmoid(t))),
    "softsign": lambda t: 1 / (1 + abs(t)) ** 2,
}
#: Kinks and slopes between them of the piecewise linear activations.
PIECES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "relu": ((0.0,), (0.0, 1.0)),
    "hardtanh": ((-1.0, 1.0), (0.0, 1.0, 0.0)),
    "relu6": ((0.0, 6.0), (0.0, 1.0, 0.0)),
    "identity": ((), (1.0,)),
}


def derivative(name: str, point: float) -> Ball | None:
    """phi'(point) as a ball at the working precision; None at a kink or for an activation this audit does not know."""
    module = flint()
    t = module.arb(rational(point))
    if name in SMOOTH:
        return SMOOTH[name](t)
    kinks, slopes = PIECES.get(name, ((), ()))
    if name.startswith("leaky_relu"):
        kinks, slopes = (0.0,), (float(name.partition(":")[2] or 0.01), 1.0)
    if not slopes or point in kinks:
        return None
    return module.arb(rational(slopes[sum(point > kink for kink in kinks)]))


def shapes(system: System, witness: InstabilityWitness) -> Answer:
    """Shapes, finiteness, and a symmetric Lyapunov matrix."""
    n, m = system.size, len(system.slope.lower)
    fits = witness.lyapunov.shape == (n, n) and witness.direction.shape == (n,) and witness.slopes.shape == (m,)
    fits = fits and witness.points.shape == (m,)
    numbers = (*witness.lyapunov.ravel(), *witness.direction, *witness.points, *witness.slopes, witness.growth)
    return fits and all(math.isfinite(x) for x in numbers) and bool((witness.lyapunov == witness.lyapunov.T).all())


def slopes(system: System, witness: InstabilityWitness) -> Answer:
    """The slopes are attained: a derivative exists at every point, or each slope lies in its bare interval."""
    entry = system.slope.activation
    if entry is None:
        inside = zip(system.slope.lower, witness.slopes, system.slope.upper, strict=True)
        return all(a <= d <= b for a, d, b in inside)
    return all(derivative(entry.name, point) is not None for point in witness.points)


def direction(witness: InstabilityWitness) -> Answer:
    """v^T X v < 0, exactly."""
    X, v = matrix(witness.lyapunov).tolist(), vector(witness.direction)
    zero: Rational = flint().fmpq(0)
    return bool(sum((X[i][j] * v[i] * v[j] for i in range(len(v)) for j in range(len(v))), start=zero) < 0)


def lyapunov(system: System, witness: InstabilityWitness) -> Answer:
    """(J - sigma I)^T X + X (J - sigma I) < 0, resp. J^T X J < sigma^2 X; sigma >= 0, resp. 1."""
    if not witness.growth >= (0.0 if system.continuous else 1.0):
        return False
    module = flint()
    for bits in PRECISIONS[:-1]:
        with module.ctx.workprec(bits):
            slopes_now = _slopes(system, witness)
            if slopes_now is None:
                return None
            answer = _definite(system, witness, slopes_now)
        if answer is not None:
            return answer
    return None


def _slopes(system: System, witness: InstabilityWitness) -> list[Ball] | None:
    entry = system.slope.activation
    if entry is None:
        return vector(witness.slopes)
    found = [derivative(entry.name, point) for point in witness.points]
    return None if any(slope is None for slope in found) else found


def _definite(system: System, witness: InstabilityWitness, slope: list[Any]) -> Answer:
    make: Any = flint().fmpq_mat if system.slope.activation is None else flint().arb_mat
    A, B, C = (make(part) for part in unshifted(system))
    X, n = make(matrix(witness.lyapunov)), system.size
    D = make(len(slope), len(slope))
    for k, entry in enumerate(slope):
        D[k, k] = entry
    J = A + B * D * C
    sigma = rational(witness.growth)
    if system.continuous:
        XJ = X * J
        block = X * (2 * sigma) - XJ - XJ.transpose()
    else:
        block = X * (sigma * sigma) - J.transpose() * X * J
    if system.slope.activation is None:
        return positive_definite(block)
    return definite_by_balls([[block[i, j] for j in range(i + 1)] for i in range(n)])


def steps(system: System, witness: InstabilityWitness) -> list[Step]:
    """The rigorous obligations in their order."""
    return [
        ("shapes", lambda: shapes(system, witness), "shapes, finite numbers, symmetric X"),
        ("slopes", lambda: slopes(system, witness), "slopes that the nonlinearity attains"),
        ("direction", lambda: direction(witness), "v^T X v < 0"),
        ("lyapunov", lambda: lyapunov(system, witness), "no eigenvalue of J lies on the border"),
    ]
