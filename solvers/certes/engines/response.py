"""Frequency response of a Lur'e system along the curve of a level.

For x' = A x + B psi(C x), psi with slopes in [0, gap], let G(z) = diag(gap) C (z I - A)^-1 B. With the spectrum of A
inside the curve

    continuous, rate c   z = -c + j w                 (inside: Re z < -c)
    map, factor rho      z = rho exp(j theta)         (inside: abs z < rho)

a metric P > 0 that solves the Lur'e inequality with multipliers Q = diag(q) exists strictly iff

    2 Q - Q G(z) - G(z)^H Q > 0   for every z of the curve

(Kalman, Yakubovich, Popov; A. Rantzer, Systems & Control Letters 28 (1996)). By the maximum principle the same then
holds everywhere outside the curve. The best strength for given q is thus where the curve, moving in from infinity,
first meets a point at which the matrix is singular: a structured pseudospectral abscissa (rate) or radius (factor).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.sdp import Inequality

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Matrix = Array | Complex


class Response:
    """G and its derivative, from one Schur decomposition of A.

    Attributes:
        inequality: what it was made from.
        continuous: levels are rates (strength = c), else factors (strength = -rho).
        A, B, C: the normal form in balanced coordinates x^ = x / state; C includes the gap.
        state: powers of two, shape (n,).
        poles: eigenvalues of A, shape (n,).
        ceiling: the strength at which the curve meets the spectrum of A: none is beyond it.
        size: a magnitude of the levels that matter, > 0.
    """

    def __init__(self, inequality: Inequality) -> None:
        """Balance and reduce."""
        gained = inequality.gap[:, None] * inequality.C
        self.inequality, self.continuous = inequality, inequality.continuous
        self.state = _balance(inequality.A, inequality.B, gained)
        self.A = inequality.A * self.state[None, :] / self.state[:, None]
        self.B = inequality.B / self.state[:, None]
        self.C = gained * self.state[None, :]
        self._T, unitary = scipy.linalg.schur(self.A, output="complex")
        self._into, self._out = unitary.conj().T @ self.B, self.C @ unitary
        self.poles: Complex = np.diagonal(self._T)
        self.ceiling = -float(self.poles.real.max() if self.continuous else np.abs(self.poles).max())
        loop = float(np.abs(np.linalg.eigvals(np.abs(self.C) @ np.abs(self.B))).max())  # whatever the multipliers
        self.size = max(float(np.abs(self.poles).max()), loop if self.continuous else float(np.sqrt(loop)), 1e-100)

    @property
    def channels(self) -> int:
        """m."""
        return int(self.B.shape[1])

    def turn(self, angle: float) -> complex:
        """Minus dz / d strength at an angle."""
        return 1.0 if self.continuous else complex(np.exp(1j * angle))

    def point(self, strength: float, angle: float) -> complex:
        """The point of the curve; ``angle`` is w >= 0 (continuous) or theta in [0, pi] (map)."""
        return complex(-strength, angle) if self.continuous else -strength * self.turn(angle)

    def is_real(self, angle: float) -> bool:
        """Whether the point of the curve, and with it G, is real."""
        return angle == 0.0 or (not self.continuous and angle == np.pi)

    def states(self, strength: float, angle: float, channel: Matrix) -> Complex:
        """(z I - A)^-1 B V in the user's coordinates of the state, for V of shape (m, r)."""
        z = self.point(strength, angle)
        unitary_part = scipy.linalg.solve(z * np.eye(len(self.A)) - self.A, self.B @ channel)
        return np.asarray(self.state[:, None] * unitary_part)

    def at(self, strength: float, angle: float) -> tuple[Matrix, Matrix]:
        """G and dG / d strength, shapes (m, m); real where the point of the curve is."""
        shifted = -self._T
        shifted[np.diag_indices_from(shifted)] += self.point(strength, angle)
        inner = scipy.linalg.solve_triangular(shifted, self._into, check_finite=False)
        slope = self.turn(angle) * scipy.linalg.solve_triangular(shifted, inner, check_finite=False)
        gain, growth = self._out @ inner, self._out @ slope
        return (gain.real.copy(), growth.real.copy()) if self.is_real(angle) else (gain, growth)

    def nearest(self) -> list[float]:
        """Angles of the eigenvalues of A that the curve meets first."""
        size = self.poles.real if self.continuous else np.abs(self.poles)
        angles = np.abs(self.poles.imag if self.continuous else np.angle(self.poles))
        angles[angles < 1e-12 * (self.size if self.continuous else 1.0)] = 0.0
        return [float(angle) for angle in np.unique(angles[size >= -self.ceiling - 1e-6 * self.size])]

    def grid(self) -> list[float]:
        """Angles to start from."""
        if not self.continuous:
            return [float(t) for t in np.linspace(0.0, np.pi, 7)]
        near, far = float(np.abs(self.poles).min()), self.size
        return [0.0, *(float(w) for w in np.geomspace(max(0.25 * near, 1e-3 * far), 2.0 * far, 6))]


def _balance(A: Array, B: Array, C: Array) -> Array:
    """Powers of two that make rows and columns of [[A, B], [C, 0]] that belong to the state alike."""
    size = np.abs(A) - np.diag(np.abs(np.diagonal(A)))
    state = np.ones(len(A))
    for _ in range(20):
        row = (size * state[None, :] / state[:, None]).sum(axis=1) + np.abs(B).sum(axis=1) / state
        column = (size * state[None, :] / state[:, None]).sum(axis=0) + np.abs(C).sum(axis=0) * state
        usable = (row > 0) & (column > 0) & np.isfinite(row) & np.isfinite(column)
        ratio = np.where(usable, row, 1.0) / np.where(usable, column, 1.0)
        change = 2.0 ** np.rint(0.5 * np.log2(ratio))
        state = state * np.clip(change, 2.0**-40, 2.0**40)
        if (change == 1.0).all():
            break
    return np.clip(state, 2.0**-300, 2.0**300)
