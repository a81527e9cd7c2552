"""Field of values inside a conic: the exact level test for uniform leak, and its metric, by cyclic reduction.

For uniform leak and slopes in [0, g] the Lur'e inequality in (P, Q) is a statement about Q alone: with M = diag(g) W
(W transposed for a dual proof) and A = Q^1/2 M Q^-1/2 it is feasible at a level iff

    max over theta of lambda_max(Re(h A)) < t,    h = c0 + r0 exp(i theta),

a :class:`Functional` (c0, r0, t). Three families of levels are used: the continuous rate, the factor of the Euler map
and the largest Euler step. This module answers for a *given* Q; whoever optimises Q needs nothing else from here.

Source: A. Gokhale, A. Proskurnikov, Y. Kawano, F. Bullo (arXiv 2604.00119) for the inequality; cyclic reduction for
X + r0^2 A X^-1 A^T = C0 after B. Meini, Math. Comp. 71 (2002).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Relative steps by which a level is raised until cyclic reduction agrees that it is feasible.
_RAISES = tuple(1e-8 * 3.0**k for k in range(20))


@dataclass(frozen=True)
class Functional:
    """h(theta) = c0 + r0 exp(i theta) with level t: the field of values must satisfy Re(h z) < t for every theta."""

    c0: float
    r0: float
    t: float


class Family(Protocol):
    """A one-parameter family of functionals; ``level`` is what a user asks for."""

    def functional(self, level: float) -> Functional:
        """The functional whose feasibility means that ``level`` is provable."""

    def of_point(self, z: NDArray[np.complex128]) -> Array:
        """The best level that a single point z of the field of values allows."""

    def worst(self, levels: Array) -> float:
        """The most restrictive of several levels."""

    def relax(self, level: float, relative: float) -> float:
        """A level easier than ``level`` by a relative amount."""

    def scale(self, level: float) -> float:
        """s such that P = s Q^1/2 X Q^1/2 solves the Lur'e inequality at ``level`` (time constant 1)."""


@dataclass(frozen=True)
class Rate:
    """Continuous time, T = I: level = contraction rate c < 1. Parabola (abs z + Re z)/2 < 1 - c."""

    def functional(self, level: float) -> Functional:
        """See :class:`Family`."""
        return Functional(0.5, 0.5, 1.0 - level)

    def of_point(self, z: NDArray[np.complex128]) -> Array:
        """See :class:`Family`."""
        return np.asarray(1.0 - 0.5 * (np.abs(z) + z.real))

    def worst(self, levels: Array) -> float:
        """See :class:`Family`."""
        return float(levels.min())

    def relax(self, level: float, relative: float) -> float:
        """See :class:`Family`."""
        return level - relative * max(1.0 - level, 1e-3)

    def scale(self, level: float) -> float:
        """See :class:`Family`."""
        return 2.0


@dataclass(frozen=True)
class Factor:
    """Euler map with step a (unit of tau), 0 < a < 2: level = factor rho > abs(1 - a). An ellipse; a disk for a = 1."""

    a: float

    def functional(self, level: float) -> Functional:
        """See :class:`Family`."""
        e = 1.0 - self.a
        width = level * level - e * e
        if width <= 0.0:
            return Functional(0.0, 1.0, -math.inf)
        return Functional(self.a * e / width, self.a * level / width, 1.0)

    def of_point(self, z: NDArray[np.complex128]) -> Array:
        """See :class:`Family`."""
        a, e = self.a, 1.0 - self.a
        modulus = np.abs(z)
        root = np.sqrt(np.maximum(a * a * modulus**2 + 4 * e * e + 4 * a * e * z.real, 0.0))
        return np.asarray(np.maximum((a * modulus + root) / 2, abs(e)))

    def worst(self, levels: Array) -> float:
        """See :class:`Family`."""
        return float(levels.max())

    def relax(self, level: float, relative: float) -> float:
        """See :class:`Family`."""
        return level + relative * max(level, 1e-3)

    def scale(self, level: float) -> float:
        """See :class:`Family`."""
        e = 1.0 - self.a
        return (level * level - e * e) / (self.a * level) ** 2


@dataclass(frozen=True)
class Step:
    """Level = Euler step a at which the factor is still below 1 (a supremum, at most 2)."""

    def functional(self, level: float) -> Functional:
        """See :class:`Family`."""
        return Factor(level).functional(1.0)

    def of_point(self, z: NDArray[np.complex128]) -> Array:
        """See :class:`Family`."""
        room = 1.0 - z.real
        level = (2.0 - np.abs(z) - z.real) / np.where(room > 0, room, 1.0)
        return np.asarray(np.where(room > 0, np.maximum(level, 0.0), 0.0))

    def worst(self, levels: Array) -> float:
        """See :class:`Family`."""
        return float(levels.min())

    def relax(self, level: float, relative: float) -> float:
        """See :class:`Family`."""
        return level * (1.0 - relative)

    def scale(self, level: float) -> float:
        """See :class:`Family`."""
        return Factor(level).scale(1.0)


def scaled(m: Array, q: Array) -> Array:
    """A = Q^1/2 M Q^-1/2 for Q = diag(q), shapes (n, n) and (n,)."""
    root = np.sqrt(q)
    return np.asarray(m * (root[:, None] / root[None, :]))


def solve(a: Array, functional: Functional, *, rounds: int = 60) -> Array | None:
    """Exact yes/no at a level: the midpoint X of the two extreme solutions, or None for no.

    X satisfies X + r0^2 A X^-1 A^T < 2 t I - c0 (A + A^T) strictly.

    Args:
        a: A of the module's docstring, shape (n, n).
        functional: c0, r0 and the level t.
        rounds: cap on the doubling rounds (5 to 16 are usual; convergence is quadratic away from the border).
    """
    if not functional.t > 0.0:
        return None
    start = 2.0 * functional.t * np.eye(len(a)) - functional.c0 * (a + a.T)
    off, middle, x, y = -functional.r0 * a, start, start, start
    size = float(np.abs(start).max())
    for _ in range(rounds):
        try:
            lower = np.linalg.cholesky(middle)
        except np.linalg.LinAlgError:
            return None
        left = np.linalg.solve(lower, off)
        right = np.linalg.solve(lower, off.T)
        s1, s2 = left.T @ left, right.T @ right
        x, y, middle = x - s1, y - s2, middle - s1 - s2
        off = right.T @ left
        if not np.isfinite(middle).all():
            return None
        if min(float(np.abs(s1).max()), float(np.abs(s2).max())) <= 1e-17 * size:
            break
    else:
        return None
    middle_point = 0.5 * (y + start - x)
    return np.asarray(0.5 * (middle_point + middle_point.T))


def _largest(a: Array, functional: Functional, thetas: Iterable[float]) -> tuple[float, float]:
    """(max over the given theta of lambda_max(Re(h A)), its theta)."""
    best = (-math.inf, 0.0)
    for theta in thetas:
        h = functional.c0 + functional.r0 * np.exp(1j * theta)
        value = float(np.linalg.eigvalsh(0.5 * (h * a + np.conj(h) * a.T))[-1])
        best = max(best, (value, theta))
    return best


def _climb(a: Array, functional: Functional, grid: int) -> complex:
    """The point of the field of values that is worst for a functional: angle grid, then theta <- -arg(v* A v)."""
    spacing = math.pi / grid
    _, theta = _largest(a, functional, (k * spacing for k in range(grid + 1)))  # A is real: [0, pi] is enough
    lo, hi = theta - spacing, theta + spacing
    for _ in range(12):  # ternary search inside the winning cell
        left, right = lo + (hi - lo) / 3, hi - (hi - lo) / 3
        if _largest(a, functional, (left,))[0] < _largest(a, functional, (right,))[0]:
            lo = left
        else:
            hi = right
    h = functional.c0 + functional.r0 * np.exp(0.5j * (lo + hi))
    vector = np.linalg.eigh(0.5 * (h * a + np.conj(h) * a.T))[1][:, -1]
    return complex(np.vdot(vector, a @ vector))


def best_level(a: Array, family: Family, *, grid: int = 24) -> float | None:
    """The best level for this A, confirmed by :func:`solve` (so slightly on the safe side), or None if there is none.

    Each round takes the worst point of the field of values at the current level and moves to the level that this point
    allows; the rounds converge quadratically. A maximum missed by the angle grid is caught by the exact test.

    Args:
        a: A of the module's docstring, shape (n, n).
        family: which level is meant.
        grid: number of angles in [0, pi].
    """
    corners = np.linalg.eigvals(a).astype(np.complex128)
    level = family.worst(family.of_point(np.append(corners, 0.0)))
    for _ in range(8):
        functional = family.functional(level)
        if not functional.t > 0.0:
            functional = family.functional(family.relax(level, 1e-9))
            if not functional.t > 0.0:
                break
        point = _climb(a, functional, grid)
        proposed = family.worst(np.append(family.of_point(np.array([point])), level))
        if abs(proposed - level) <= 1e-10 * max(abs(level), 1e-3):
            break
        level = proposed
    for relative in _RAISES:
        raised = family.relax(level, relative)
        if solve(a, family.functional(raised)) is not None:
            return raised
    return None


def metric(m: Array, q: Array, family: Family, level: float) -> Array | None:
    """P that solves the Lur'e inequality with multipliers q at ``level`` (time constant 1), or None for no.

    Args:
        m: diag(g) W (rate), diag(g) W^T (dual proof of a hopfield network), shape (n, n).
        q: multipliers, shape (n,).
        family: which level is meant.
        level: the level; give up 1e-6 to 1e-3 of the best one to get a margin.

    Returns:
        P, shape (n, n), in the units of time constant 1: for a uniform tau in continuous time multiply by tau.
    """
    x = solve(scaled(m, q), family.functional(level))
    if x is None:
        return None
    root = np.sqrt(q)
    return np.asarray(family.scale(level) * (root[:, None] * x * root[None, :]))
