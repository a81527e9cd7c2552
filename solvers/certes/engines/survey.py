"""Where the field of values of A comes close to a conic, and the leading eigenvectors there.

For a functional (c0, r0, t) the distance at angle theta is t - lambda_max(Re(h A)), h = c0 + r0 exp(i theta). Every
eigenvector v gives a point z = v* A v of the field of values, and max over z of Re(h z) is a lower bound of lambda_max
at every angle: maxima are found by looking where this bound is largest, until nothing new appears.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from numpy.typing import NDArray

from certes.engines.families import Functional

Array = NDArray[np.float64]
#: Real or complex.
Matrix = NDArray[Any]

#: Angles in [0, pi] that are looked at first.
_GRID = 9
#: Further looks, at most.
_LOOKS = 24
#: Points per half turn at which the lower bound is evaluated.
_FINE = 256
#: Distance from the next look, in steps of that grid, that is looked into where the lower bound is near.
_GAP = 4
#: How far below the largest eigenvalue (relative) an angle counts as near.
_NEAR = 0.015
#: Distances in radians: between two maxima, and between angles chosen on an arc that is near.
_APART, _SPACING = 0.02, 0.15
#: Order from which leading eigenvectors come from Lanczos iterations.
_LANCZOS = 400


def disk_point(theta: float) -> complex:
    """exp(i theta) for theta in [0, pi], rounded so that it is not outside the unit disk; exact at 0 and pi."""
    if theta <= 0.0 or theta >= np.pi:
        return complex(np.sign(1.0 - theta))
    return complex((1.0 - 4.0 * np.finfo(float).eps) * np.exp(1j * theta))


def leading(a: Matrix, k: int) -> tuple[Array, Matrix]:
    """The k largest eigenvalues, ascending, with eigenvectors, of a Hermitian matrix of order n >= k."""
    n = len(a)
    if n >= _LANCZOS and 5 * k < n:
        start = np.ones(n) / np.sqrt(n)
        values, vectors = scipy.sparse.linalg.eigsh(a, k=k, which="LA", v0=start, tol=1e-4, ncv=2 * k + 10)
        order = np.argsort(values)
        return values[order], vectors[:, order]
    values, vectors = scipy.linalg.eigh(a, subset_by_index=[n - k, n - 1], driver="evr", check_finite=False)
    return values, vectors


class Survey:
    """Points of the field of values of A, real of shape (n, n), where a functional is largest.

    Attributes:
        z: points v* A v of the top eigenvectors that were looked at.
    """

    def __init__(self, a: Array, functional: Functional) -> None:
        self.functional = functional
        self.matrix, self.symmetric, self.skew = a, 0.5 * (a + a.T), 0.5 * (a - a.T)
        self.z: list[complex] = []
        self._thetas = np.linspace(0.0, np.pi, _FINE + 1)
        self._seen = np.zeros(_FINE + 1, dtype=bool)
        for k in range(0, _FINE + 1, _FINE // (_GRID - 1)):
            self._look(k)
        for _ in range(_LOOKS):
            further = self._next()
            if further is None:
                break
            self._look(further)

    def vectors(self, theta: float, k: int) -> Matrix:
        """The k leading eigenvectors of Re(h A) at an angle, shape (n, k); real where h is real."""
        h = self.functional.c0 + self.functional.r0 * disk_point(theta)
        if h == 0.0:
            return np.eye(len(self.matrix), k)
        part = h.real * self.symmetric
        return leading(part if h.imag == 0.0 else part + (1j * h.imag) * self.skew, k)[1]

    def angles(self, arcs: bool) -> list[float]:
        """Angles of the local maxima near the largest value, largest first; with ``arcs`` also the arcs around them."""
        bound = self._bound()
        near = self._near(bound)
        padded = np.pad(bound, 1, constant_values=-np.inf)
        peak = near & (bound >= padded[:-2]) & (bound >= padded[2:])
        chosen: list[float] = []
        candidates = [(theta, _APART) for theta in self._thetas[peak][np.argsort(-bound[peak])]]
        if arcs:
            candidates += [(theta, _SPACING) for theta in self._thetas[near]]
        for theta, apart in candidates:
            if all(abs(theta - other) >= apart for other in chosen):
                chosen.append(float(theta))
        return chosen

    def _near(self, bound: Array) -> NDArray[np.bool_]:
        top = float(bound.max())
        return np.asarray(bound >= top - _NEAR * abs(top))

    def _next(self) -> int | None:
        """Where to look next: at the maximum of the lower bound, or in the widest gap near it; None: nowhere."""
        bound = self._bound()
        best = int(np.argmax(bound))
        if not self._seen[best]:
            return best
        seen = np.flatnonzero(self._seen)
        distance = np.abs(np.arange(_FINE + 1)[:, None] - seen).min(axis=1)
        distance[~self._near(bound)] = 0
        widest = int(np.argmax(distance))
        return widest if distance[widest] >= _GAP else None

    def _look(self, k: int) -> None:
        self._seen[k] = True
        v = self.vectors(float(self._thetas[k]), 1)[:, 0]
        self.z.append(complex(np.vdot(v, self.matrix @ v)))

    def _bound(self) -> Array:
        """A lower bound of the largest eigenvalue at the fine angles."""
        z = np.array(self.z)
        direction = self.functional.r0 * np.exp(1j * self._thetas)
        values = self.functional.c0 * z.real + np.maximum(
            (direction[:, None] * z).real, (direction[:, None] * z.conj()).real
        )
        return np.asarray(values.max(axis=1))
