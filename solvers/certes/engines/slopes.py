"""The Jacobians of a network over its slope box, and how fast each of them grows.

Every Jacobian is J(D) = A + B D C with a diagonal D in the slope box. Its *growth* is the spectral abscissa (continuous
time) or the spectral radius (a map); :mod:`certes.engines.ascent` maximises it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from certes.systems import HopfieldNetwork, LureSystem, System

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Relative distance below which instability is not told from rounding.
LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The Jacobians J(D) = A + B diag(D) C of a network, rounded to float64.

    Attributes:
        A, B, C: shapes (n, n), (n, m), (m, n).
        lower, upper: the slope box, shapes (m,).
        continuous: whether growth is the spectral abscissa (border 0) or the spectral radius (border 1).
    """

    A: Array
    B: Array
    C: Array
    lower: Array
    upper: Array
    continuous: bool

    @classmethod
    def of(cls, system: System) -> Linearisation:
        """The dense linearisation of a system in its own slopes (no shift).

        Raises:
            InputError: the weights are sparse.
        """
        if isinstance(system, LureSystem):
            A, B, C = system.matrix("A"), system.matrix("B"), system.matrix("C")
        else:
            W, rate = system.matrix("W"), 1.0 / system.tau
            A = -np.diag(rate)
            hopfield = isinstance(system, HopfieldNetwork)
            B, C = (rate[:, None] * W, np.eye(system.size)) if hopfield else (np.diag(rate), W)
        if system.step is not None:
            A, B = np.eye(system.size) + system.step * A, system.step * B
        return cls(A, B, C, system.slope.lower, system.slope.upper, system.continuous)

    @property
    def border(self) -> float:
        """Growth at which stability ends."""
        return 0.0 if self.continuous else 1.0

    def jacobian(self, slopes: Array) -> Array:
        """J(D), shape (n, n); not finite if the weights overflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self.A + (self.B * slopes) @ self.C)

    def growths(self, values: NDArray[np.inexact[Any]]) -> Array:
        """What each eigenvalue contributes: its real part (continuous time) or its modulus (a map)."""
        return np.asarray(values.real if self.continuous else np.abs(values))

    def vertex(self, slopes: Array) -> Array:
        """The vertex of the slope box nearest to D, shape (m,)."""
        return np.where(slopes > 0.5 * (self.lower + self.upper), self.upper, self.lower)

    def opposite(self, slopes: Array) -> Array:
        """The other end of each slope's interval, shape (m,)."""
        return np.where(slopes > 0.5 * (self.lower + self.upper), self.lower, self.upper)


@dataclass(frozen=True, eq=False)
class Mode:
    """The fastest growing mode of one Jacobian.

    Attributes:
        slopes: D, shape (m,).
        growth: spectral abscissa or spectral radius.
        scale: the largest modulus of an eigenvalue or of an entry of A's diagonal, for relative statements.
        eigenvector: right eigenvector of the leading eigenvalue, complex, shape (n,).
        gradient: derivative of the growth with respect to D, shape (m,).
    """

    slopes: Array
    growth: float
    scale: float
    eigenvector: Complex
    gradient: Array


def leading_mode(problem: Linearisation, slopes: Array) -> Mode | None:
    """Eigenvalue, eigenvector and gradient of the growth at given slopes; None if they are not finite numbers."""
    jacobian = problem.jacobian(slopes)
    if not np.isfinite(jacobian).all():
        return None
    values, left, right = _eig(jacobian)
    if not np.isfinite(values).all():
        return None
    lead = int(np.argmax(problem.growths(values)))
    value, x, y = values[lead], right[:, lead], left[:, lead]
    with np.errstate(all="ignore"):
        derivative = (y.conj() @ problem.B) * (problem.C @ x) / np.vdot(y, x)
        if not problem.continuous:
            derivative = derivative * np.conj(value) / abs(value)
    # a defective eigenvalue has no gradient: the search then goes by flips alone
    gradient = np.nan_to_num(derivative.real, nan=0.0, posinf=0.0, neginf=0.0)
    growth = float(problem.growths(value))
    scale = max(float(np.abs(values).max()), float(np.abs(np.diag(problem.A)).max()))
    return Mode(slopes, growth, scale, np.asarray(x, dtype=np.complex128), gradient)


def growth_at(problem: Linearisation, slopes: Array) -> float:
    """The growth alone, for half the work of :func:`leading_mode`; nan if it is not a finite number."""
    jacobian = problem.jacobian(slopes)
    if not np.isfinite(jacobian).all():
        return float("nan")
    return float(problem.growths(np.linalg.eigvals(jacobian)).max())


def isolated(problem: Linearisation, mode: Mode) -> Mode | None:
    """The fastest strongly connected component on its own: the slopes of all other neurons as near to 0 as they can be.

    In a chain of components the eigenvalues of the whole are ill-conditioned, and no Lyapunov matrix in float64 shows
    them; those of one component with the others quiet are not. None if the network is one component, or is not of a
    form whose nonlinearities belong to one state each.
    """
    jacobian = problem.jacobian(mode.slopes)
    count, label = connected_components(csr_array(jacobian != 0), directed=True, connection="strong")
    if count == 1 or len(mode.slopes) != len(jacobian):
        return None
    parts = [np.flatnonzero(label == k) for k in range(count)]
    values = [np.linalg.eigvals(jacobian[np.ix_(part, part)]) for part in parts]
    growth = [float(problem.growths(value).max()) for value in values]
    inside = np.zeros(len(jacobian), dtype=bool)
    inside[parts[int(np.argmax(growth))]] = True
    return leading_mode(problem, np.where(inside, mode.slopes, np.clip(0.0, problem.lower, problem.upper)))


def _eig(matrix: Array) -> tuple[Complex, Complex, Complex]:
    """Eigenvalues, left and right eigenvectors (columns)."""
    values, left, right = scipy.linalg.eig(matrix, left=True, right=True)  # type: ignore[misc]
    return values, left, right


def excess(problem: Linearisation, mode: Mode) -> float:
    """How far beyond the border the growth is, relative to the size of the spectrum (negative: stable)."""
    return (mode.growth - problem.border) / max(mode.scale, problem.border, np.finfo(float).tiny)
