"""Exact parametrisation of the matrices that a given level allows: every value of the parameters is stable.

A matrix A lies inside a functional (c0, r0, t) of :mod:`certes.engines.families`, that is Re(h z) <= t on its field of
values for all h = c0 + r0 exp(i theta), iff there is an X with

    [[X, -r0 A^T], [-r0 A, 2 t I - c0 (A + A^T) - X]] >= 0.

Factoring both diagonal blocks, r0 A = Y1^T Y2 with Y1^T Y1 + Y2^T Y2 + k (Y1^T Y2 + Y2^T Y1) + Y3^T Y3 = 2 t I and
k = c0 / r0 in [-1, 1]. For any Z1, Z2, Z3 of shape (n, n) the left side, taken at Z, is 2 t R^T R with R upper
triangular, and Y = Z R^-1 satisfies it: so

    A = R^-T Z1^T Z2 R^-1 / r0,    M = Q^-1/2 A Q^1/2

is sound for every Z and q, and complete. For a norm (slopes in [-g, g]) A = t S with S = R^-T Z1^T, R^T R = Z1 Z1^T +
Z3^T Z3, which is every matrix of norm at most t.

Sources: A. Gokhale, A. Proskurnikov, Y. Kawano, F. Bullo (arXiv 2604.00119, Thm 35) for the parabola; the outer
spectral factor of C0 = X + r0^2 A X^-1 A^T for the other conics; the normalisation by a triangular factor is our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from certes.engines import conic
from certes.engines.families import Functional

Array = NDArray[np.float64]

#: Relative floor of the third factor at a start, so that its gradient does not vanish there.
_FLOOR = 1e-3


@dataclass(frozen=True)
class Conic:
    """The matrices inside a functional; parameters Z = [Z1, Z2, Z3], shape (3, n, n).

    Attributes:
        functional: c0, r0, t with r0 > 0 and abs(c0) <= r0.
    """

    functional: Functional

    @property
    def ratio(self) -> float:
        """k = c0 / r0."""
        return self.functional.c0 / self.functional.r0

    def start(self, a: Array) -> Array | None:
        """Parameters whose matrix is A, up to rounding; None unless A is strictly inside. Inverse of :meth:`value`.

        Args:
            a: A, shape (n, n).
        """
        c0, r0, t = self.functional.c0, self.functional.r0, self.functional.t
        x = conic.solve(a, self.functional)
        if x is None:
            return None
        try:
            root = cholesky(x)  # x = root^T root
            across = solve_triangular(root, r0 * a.T, trans=1)  # Y1 = root^-T (r0 A^T), so that Y1^T Y2 = r0 A
            slack = 2.0 * t * np.eye(len(a)) - c0 * (a + a.T) - x - across.T @ across
            values, vectors = np.linalg.eigh(0.5 * (slack + slack.T))
        except (LinAlgError, np.linalg.LinAlgError):
            return None
        third = np.sqrt(np.maximum(values, (_FLOOR**2) * t))[:, None] * vectors.T
        return np.stack([across, root, third])

    def value(self, z: Array) -> tuple[Array, _Trace]:
        """A, shape (n, n), and what :meth:`pull` needs.

        Raises:
            numpy.linalg.LinAlgError: the parameters are singular or not finite.
        """
        z1, z2, z3 = z
        k, t, r0 = self.ratio, self.functional.t, self.functional.r0
        cross = z1.T @ z2
        gram = (z1.T @ z1 + z2.T @ z2 + z3.T @ z3 + k * (cross + cross.T)) / (2.0 * t)
        root = cholesky(gram, check_finite=True)
        y = np.stack([solve_triangular(root, part.T, trans=1).T for part in z])
        return y[0].T @ y[1] / r0, _Trace(y, root)

    def pull(self, trace: _Trace, gradient: Array) -> Array:
        """The gradient by Z of a function whose gradient by A is given; shapes (3, n, n) and (n, n)."""
        y, root = trace.y, trace.root
        k, t, r0 = self.ratio, self.functional.t, self.functional.r0
        by_y = np.stack([y[1] @ gradient.T, y[0] @ gradient, np.zeros_like(gradient)]) / r0
        inner = y[0].T @ by_y[0] + y[1].T @ by_y[1]
        upper = np.triu(inner, 1)
        half = 0.5 * (upper + upper.T + np.diag(np.diagonal(inner)))
        weighted = np.stack([y[0] + k * y[1], y[1] + k * y[0], y[2]])
        by_y -= (weighted @ half) / t
        return np.stack([solve_triangular(root, part.T).T for part in by_y])


@dataclass(frozen=True)
class Ball:
    """The matrices of spectral norm at most ``radius``; parameters Z = [Z1, Z3], shape (2, n, n)."""

    radius: float

    def start(self, a: Array) -> Array | None:
        """See :meth:`Conic.start`."""
        unit = a / self.radius
        values, vectors = np.linalg.eigh(np.eye(len(a)) - unit @ unit.T)
        if not values[0] > 0.0:
            return None
        third = np.sqrt(np.maximum(values, _FLOOR**2))[:, None] * vectors.T
        return np.stack([unit.T, third])

    def value(self, z: Array) -> tuple[Array, _Trace]:
        """See :meth:`Conic.value`."""
        z1, z3 = z
        root = cholesky(z1.T @ z1 + z3.T @ z3, check_finite=True)
        y = np.stack([solve_triangular(root, part.T, trans=1).T for part in z])
        return self.radius * y[0].T, _Trace(y, root)

    def pull(self, trace: _Trace, gradient: Array) -> Array:
        """See :meth:`Conic.pull`."""
        y, root = trace.y, trace.root
        by_y = np.stack([self.radius * gradient.T, np.zeros_like(gradient)])
        inner = y[0].T @ by_y[0]
        upper = np.triu(inner, 1)
        half = 0.5 * (upper + upper.T + np.diag(np.diagonal(inner)))
        by_y -= 2.0 * (y @ half)
        return np.stack([solve_triangular(root, part.T).T for part in by_y])


@dataclass(frozen=True, eq=False)
class _Trace:
    """Y and R of one evaluation."""

    y: Array
    root: Array


Parametrisation = Conic | Ball
