"""Search for slopes that make the Jacobian unstable: the first half of a refutation.

Every Jacobian of a network is J(D) = A + B D C with a diagonal D in the slope box. The search maximises its *growth*,
the spectral abscissa (continuous time) or the spectral radius (a map), by Frank-Wolfe steps towards the vertex that the
gradient of the leading eigenvalue points at, with line search, followed by greedy single flips. It is a heuristic:
what it finds is made rigorous elsewhere, and finding nothing proves nothing. It is deterministic: seeded starts, and a
budget counted in eigenvalue problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from certes.systems import HopfieldNetwork, LureSystem, System

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Relative distance beyond the stability border at which a search is content and stops.
ENOUGH = 1e-2
#: Relative distance below which instability is not told from rounding.
LEAST = 1e-7

_LINE = (1.0, 0.5, 0.25, 0.1, 0.03)
_SEED = 20260401


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
    lead = int(np.argmax(values.real if problem.continuous else np.abs(values)))
    value, x, y = values[lead], right[:, lead], left[:, lead]
    with np.errstate(all="ignore"):
        derivative = (y.conj() @ problem.B) * (problem.C @ x) / np.vdot(y, x)
        if not problem.continuous:
            derivative = derivative * np.conj(value) / abs(value)
    # a defective eigenvalue has no gradient: the search then goes by flips alone
    gradient = np.nan_to_num(derivative.real, nan=0.0, posinf=0.0, neginf=0.0)
    growth = float(value.real if problem.continuous else abs(value))
    scale = max(float(np.abs(values).max()), float(np.abs(np.diag(problem.A)).max()))
    return Mode(slopes, growth, scale, np.asarray(x, dtype=np.complex128), gradient)


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
    growth = [float((value.real if problem.continuous else np.abs(value)).max()) for value in values]
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


def default_budget(size: int) -> int:
    """Number of eigenvalue problems a search may solve: seconds, not minutes, on one core at any size."""
    return int(np.clip(1.5e8 / max(size, 1) ** 3, 8, 400))


def search(
    problem: Linearisation,
    *,
    vertices: bool = False,
    budget: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Mode | None:
    """Slopes with the largest growth found.

    Args:
        problem: the Jacobians to search.
        vertices: only count slopes at the ends of their intervals (piecewise linear activations attain no others).
        budget: number of eigenvalue problems (default: :func:`default_budget`).
        stop: asked between eigenvalue problems; True ends the search with what it has (the caller's deadline).

    Returns:
        The best mode, stable or not; the search ends early once it is unstable by :data:`ENOUGH`. None if no
        eigenvalue could be computed.
    """
    climb = _Climb(problem, vertices, default_budget(problem.A.shape[0]) if budget is None else budget, stop)
    for start in _starts(problem):
        climb.run(start)
        if climb.done():
            break
    return climb.best


def _starts(problem: Linearisation) -> Iterator[Array]:
    """Identity-like (all slopes highest), all lowest, the largest modulus of each, then seeded random vertices."""
    lower, upper = problem.lower, problem.upper
    yield upper.copy()
    yield lower.copy()
    if (lower < 0).any() and (upper > 0).any():
        yield np.where(np.abs(lower) > np.abs(upper), lower, upper)
    random = np.random.default_rng(_SEED)
    for _ in range(8):
        share = random.uniform(0.3, 0.95)
        yield np.where(random.random(lower.shape) < share, upper, lower)


class _Climb:
    """One search: the budget, the best mode so far, and the two moves."""

    def __init__(self, problem: Linearisation, vertices: bool, budget: int, stop: Callable[[], bool]) -> None:
        self.problem, self.vertices, self.left, self.stop = problem, vertices, budget, stop
        self.best: Mode | None = None

    def done(self) -> bool:
        enough = self.best is not None and excess(self.problem, self.best) > ENOUGH
        return enough or self.left <= 0 or self.stop()

    def look(self, slopes: Array) -> Mode | None:
        self.left -= 1
        mode = leading_mode(self.problem, slopes)
        if mode is not None and self.counts(slopes) and (self.best is None or mode.growth > self.best.growth):
            self.best = mode
        return mode

    def counts(self, slopes: Array) -> bool:
        return not self.vertices or bool(np.all((slopes == self.problem.lower) | (slopes == self.problem.upper)))

    def run(self, start: Array) -> None:
        mode = self.look(start)
        if mode is None or self.done():
            return
        mode = self.ascend(mode)
        if not self.done():
            self.flip(self.rounded(mode))

    def ascend(self, mode: Mode) -> Mode:
        """Frank-Wolfe: go towards the vertex of the gradient as far as the growth rises."""
        while not self.done():
            target = np.where(mode.gradient > 0, self.problem.upper, self.problem.lower)
            target = np.where(mode.gradient == 0, mode.slopes, target)
            better = self.line(mode, target)
            if better is None:
                return mode
            mode = better
        return mode

    def line(self, mode: Mode, target: Array) -> Mode | None:
        if np.array_equal(target, mode.slopes):
            return None
        for share in _LINE:
            if self.done():
                return None
            tried = self.look(target if share == 1.0 else mode.slopes + share * (target - mode.slopes))
            if tried is not None and tried.growth > mode.growth + 1e-9 * mode.scale:
                return tried
        return None

    def rounded(self, mode: Mode) -> Mode:
        """The vertex nearest to a mode's slopes."""
        middle = 0.5 * (self.problem.lower + self.problem.upper)
        corner = np.where(mode.slopes > middle, self.problem.upper, self.problem.lower)
        return mode if np.array_equal(corner, mode.slopes) else (self.look(corner) or mode)

    def flip(self, mode: Mode) -> None:
        """Greedy single flips, most promising first (by the gradient), until none of them helps."""
        lower, upper = self.problem.lower, self.problem.upper
        improved = True
        while improved and not self.done():
            improved = False
            change = np.where(mode.slopes > 0.5 * (lower + upper), lower, upper) - mode.slopes
            for i in np.argsort(-mode.gradient * change, kind="stable")[: max(10, len(change) // 5)]:
                if self.done():
                    return
                slopes = mode.slopes.copy()
                slopes[i] = upper[i] if change[i] > 0 else lower[i]
                tried = self.look(slopes)
                if tried is not None and tried.growth > mode.growth + 1e-9 * mode.scale:
                    mode, improved = tried, True
                    break
