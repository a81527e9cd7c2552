"""The obligations of a switching witness, in ball arithmetic: slopes, flows and the period map.

Slopes are derivatives of the activation evaluated in balls from its definition; exponentials are those of Arb (F.
Johansson). Neither is shared with :mod:`certes.verify`. The starts are evidence to be replayed and are not audited.
"""

from __future__ import annotations

import math
from typing import Any

from certes.exact.instability import derivative
from certes.exact.normal import leaks, unshifted, vector
from certes.exact.rationals import PRECISIONS, Answer, Step, definite_by_balls, flint, matrix, rational
from certes.proofs import SwitchingWitness
from certes.systems import System

BallMatrix = Any


def shapes(system: System, witness: SwitchingWitness) -> Answer:
    """Shapes, finite numbers, and a symmetric Lyapunov matrix."""
    n, m, modes = system.size, len(system.slope.lower), len(witness.durations)
    fits = witness.points.shape == witness.slopes.shape == (modes, m) and modes >= 1
    fits = fits and witness.lyapunov.shape == (n, n) and witness.direction.shape == (n,)
    tables = (witness.points, witness.slopes, witness.durations, witness.lyapunov, witness.direction)
    numbers = [*(entry for table in tables for entry in table.ravel()), witness.ramp, witness.growth]
    return fits and all(math.isfinite(x) for x in numbers) and bool((witness.lyapunov == witness.lyapunov.T).all())


def slopes(system: System, witness: SwitchingWitness) -> Answer:
    """A derivative exists at every point; a bare interval: slopes inside it, and points 0, 1, 2, ... mode by mode."""
    entry = system.slope.activation
    if entry is not None:
        return all(derivative(entry.name, point) is not None for point in witness.points.ravel())
    lower, upper = system.slope.lower, system.slope.upper
    inside = all(a <= d <= b for row in witness.slopes for a, d, b in zip(lower, row, upper, strict=True))
    return inside and all(point == k for k, row in enumerate(witness.points) for point in row)


def schedule(system: System, witness: SwitchingWitness) -> Answer:
    """Durations > 0, whole for a map; a ramp > 0 where the state itself is steered in continuous time, else 0."""
    ramped = system.form == "hopfield" and system.continuous
    held = all(t > 0 for t in witness.durations) and (witness.ramp > 0 if ramped else witness.ramp == 0)
    return held and (system.continuous or all(float(t).is_integer() for t in witness.durations))


def orbit(system: System, witness: SwitchingWitness) -> Answer:
    """The linear part has no multiplier 1 over the period: then a periodic orbit exists. Hopfield: always."""
    if system.form == "hopfield" or (system.form == "rate" and system.continuous):
        return True
    if system.form == "rate":
        return all(leak < 2 for leak in leaks(system))
    module = flint()
    for bits in PRECISIONS[:-1]:
        with module.ctx.workprec(bits):
            A = module.arb_mat(unshifted(system)[0])
            closing = _identity(system.size)
            for duration in witness.durations:
                closing = _flow(system, A, duration) * closing
            if not (_identity(system.size) - closing).det().contains(0):
                return True
    return None


def direction(witness: SwitchingWitness) -> Answer:
    """v^T X v < 0, exactly."""
    v = matrix(witness.direction[:, None])
    return bool((v.transpose() * matrix(witness.lyapunov) * v)[0, 0] < 0)


def lyapunov(system: System, witness: SwitchingWitness) -> Answer:
    """sigma^2 X - M^T X M > 0 for every M in the balls, sigma >= 1."""
    if not witness.growth >= 1.0:
        return False
    module = flint()
    for bits in PRECISIONS[:-1]:
        with module.ctx.workprec(bits):
            M = _period_map(system, witness)
            X = module.arb_mat(matrix(witness.lyapunov))
            block = X * rational(witness.growth) ** 2 - M.transpose() * X * M
            rows = [[block[i, j] for j in range(i + 1)] for i in range(system.size)]
        answer = definite_by_balls(rows)
        if answer is not None:
            return answer
    return None


def _identity(size: int) -> BallMatrix:
    return flint().arb_mat(size, size, [int(i == j) for i in range(size) for j in range(size)])


def _flow(system: System, jacobian: BallMatrix, duration: float) -> BallMatrix:
    if system.continuous:
        return (jacobian * rational(duration)).exp()
    power, base, exponent = _identity(system.size), jacobian, int(duration)
    while exponent:
        if exponent & 1:
            power = base * power
        base, exponent = base * base, exponent >> 1
    return power


def _period_map(system: System, witness: SwitchingWitness) -> BallMatrix:
    """M in balls. A ramp changes it by a matrix whose Frobenius norm is at most sqrt(n) (exp(L ramp) - 1)."""
    module, n = flint(), system.size
    A, B, C = (module.arb_mat(part) for part in unshifted(system))
    entry = system.slope.activation
    spread = _identity(n) if witness.ramp == 0 else _identity(n) + _ramp(system, witness)
    product = _identity(n)
    for points, given, duration in zip(witness.points, witness.slopes, witness.durations, strict=True):
        D = module.arb_mat(B.ncols(), B.ncols())
        for i in range(B.ncols()):
            D[i, i] = module.arb(rational(given[i])) if entry is None else derivative(entry.name, points[i])
        product = spread * _flow(system, A + B * D * C, duration) * product
    return product


def _ramp(system: System, witness: SwitchingWitness) -> BallMatrix:
    """Balls around 0 with the entries of exp(N ramp) - I as radii, abs(J(D)) <= N for all slopes."""
    module, n = flint(), system.size
    A, B, C = unshifted(system)
    steepest = [
        max(abs(a), abs(b)) for a, b in zip(vector(system.slope.lower), vector(system.slope.upper), strict=True)
    ]
    reach = module.fmpq_mat(n, n)
    for i in range(n):
        for j in range(n):
            through = sum(abs(B[i, k]) * s * abs(C[k, j]) for k, s in enumerate(steepest))
            reach[i, j] = abs(A[i, j]) + through
    grown = (module.arb_mat(reach) * rational(witness.ramp)).exp() - _identity(n)
    return module.arb_mat(n, n, [module.arb(0, bound.abs_upper()) for bound in grown.entries()])


def steps(system: System, witness: SwitchingWitness) -> list[Step]:
    """The obligations in their order."""
    return [
        ("shapes", lambda: shapes(system, witness), "shapes, finite numbers, symmetric X"),
        ("slopes", lambda: slopes(system, witness), "slopes that the nonlinearity attains"),
        ("schedule", lambda: schedule(system, witness), "positive durations, a ramp where one is needed"),
        ("orbit", lambda: orbit(system, witness), "a periodic orbit exists"),
        ("direction", lambda: direction(witness), "v^T X v < 0"),
        ("lyapunov", lambda: lyapunov(system, witness), "no eigenvalue of the period map has modulus sigma"),
    ]
