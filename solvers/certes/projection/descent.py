"""Descent over an exact parametrisation: every iterate is stable, and the distance only falls.

The unknowns are the parameters Z of :mod:`.factors` and d = log(q)/2 of the multipliers; L-BFGS minimises the squared
distance of W' = frame(D^-1 A(Z) D), D = diag(exp d). What has to be kept is no part of the parametrisation: it is
imposed by an augmented Lagrangian, whose other variable is the nearest weights that keep everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError
from scipy.optimize import minimize

from certes.projection.base import Problem
from certes.projection.factors import Parametrisation

Array = NDArray[np.float64]

#: Iterations of L-BFGS in one go, and at most.
CHUNK, MOST = 50, 1500
#: Pairs of steps and gradients that L-BFGS remembers.
_MEMORY = 10
#: A chunk that lowers the distance by less than this, relative, is the last.
ENOUGH = 2e-4
#: The same for networks up to this size, where more steps cost next to nothing.
SMALL, SMALL_ENOUGH = 32, 1e-5
#: Rounds of the augmented Lagrangian, iterations of each, and the relative violation that ends them.
_ROUNDS, _STEPS, _VIOLATION = 60, 60, 1e-7
#: Largest abs(d).
_WIDEST = 60.0
#: What a step out of the float range costs: more than any distance.
_FORBIDDEN = 1e300


@dataclass(frozen=True, eq=False)
class Frame:
    """The way between weights W and the matrix M = diag(g) W, or diag(g) W^T, of a family.

    Attributes:
        gains: g, shape (n,), positive.
        transposed: whether W is transposed.
    """

    gains: Array
    transposed: bool

    def matrix(self, weights: Array) -> Array:
        """M of W."""
        return np.asarray(self.gains[:, None] * (weights.T if self.transposed else weights))

    def weights(self, m: Array) -> Array:
        """W of M."""
        scaled = m / self.gains[:, None]
        return scaled.T if self.transposed else scaled

    def pull(self, gradient: Array) -> Array:
        """The gradient by M of a function whose gradient by W is given."""
        return np.asarray((gradient.T if self.transposed else gradient) / self.gains[:, None])


@dataclass(frozen=True, eq=False)
class Point:
    """Parameters of stable weights.

    Attributes:
        z: parameters of A, shape (k, n, n).
        d: log(q)/2, shape (n,).
    """

    z: Array
    d: Array

    @property
    def q(self) -> Array:
        """Multipliers, shape (n,), geometric mean 1."""
        return np.asarray(np.exp(2.0 * (self.d - self.d.mean())))


class Descent:
    """Minimises the distance from the weights of a problem.

    Args:
        problem: the question.
        parametrisation: the matrices A that are allowed.
        frame: how A's scaled form M belongs to W.
    """

    def __init__(self, problem: Problem, parametrisation: Parametrisation, frame: Frame) -> None:
        self.problem, self.parametrisation, self.frame = problem, parametrisation, frame
        self.given = problem.system.matrix("W")
        self.size = len(self.given)
        weighting = problem.weighting
        # tr(D S D^T) in units of the mean eigenvalue, plus a little of I where S is singular
        self.weighting = None
        if weighting is not None:
            unit = float(np.trace(weighting)) / self.size
            self.weighting = weighting / unit + 1e-9 * np.eye(self.size)

    def start(self, a: Array, q: Array) -> Point | None:
        """The point of a scaled matrix A that is strictly allowed; None if it is not. Inverse of :meth:`weights`."""
        z = self.parametrisation.start(a)
        return None if z is None else Point(z, 0.5 * np.log(q))

    def weights(self, point: Point) -> Array:
        """W', shape (n, n)."""
        a, _ = self.parametrisation.value(point.z)
        return self.frame.weights(a * np.exp(point.d[None, :] - point.d[:, None]))

    def run(self, point: Point) -> tuple[Array, Array]:
        """Weights, nearer than those of ``point`` and keeping everything up to a small violation, and their q."""
        if self.problem.structure.binding:
            return self._constrained(point)
        found = point
        before = math.inf
        for _ in range(MOST // CHUNK):
            found, value = self._minimise(found, self._distance, CHUNK)
            now = math.sqrt(2.0 * value)
            enough = SMALL_ENOUGH if self.size <= SMALL else ENOUGH
            if now > before * (1.0 - enough) or self.problem.monitor.over:
                break
            before = now
        return self.weights(found), found.q

    def _constrained(self, point: Point) -> tuple[Array, Array]:
        """Augmented Lagrangian: weights V that keep everything, tied to the stable W' by multipliers."""
        structure, scale = self.problem.structure, float(np.linalg.norm(self.given))
        tie, penalty = np.zeros_like(self.given), 1.0
        weights = self.weights(point)
        kept, before = structure.nearest(weights), math.inf
        for _ in range(_ROUNDS):
            target, weight = kept - tie, penalty

            def objective(candidate: Array, target: Array = target, weight: float = weight) -> tuple[float, Array]:
                value, gradient = self._distance(candidate)
                apart = candidate - target
                return value + 0.5 * weight * float(np.sum(apart * apart)), gradient + weight * apart

            point, _ = self._minimise(point, objective, _STEPS)
            weights = self.weights(point)
            kept = structure.nearest(weights + tie)
            tie = tie + weights - kept
            violation = float(np.linalg.norm(weights - kept))
            if violation <= _VIOLATION * scale or self.problem.monitor.over:
                break
            if violation > 0.5 * before and penalty < 1e4:
                penalty, tie = 2.0 * penalty, tie / 2.0
            before = violation
        return kept, point.q

    def _distance(self, candidate: Array) -> tuple[float, Array]:
        difference = candidate - self.given
        weighted = difference if self.weighting is None else difference @ self.weighting
        return 0.5 * float(np.sum(weighted * difference)), weighted

    def _minimise(
        self, point: Point, objective: Callable[[Array], tuple[float, Array]], steps: int
    ) -> tuple[Point, float]:
        """L-BFGS on a function of the weights that also returns its gradient."""
        shape, cut = point.z.shape, point.z.size

        def function(x: Array) -> tuple[float, Array]:
            z, d = x[:cut].reshape(shape), x[cut:]
            if np.abs(d).max() > _WIDEST:
                return _FORBIDDEN, np.zeros_like(x)
            try:
                a, trace = self.parametrisation.value(z)
            except (LinAlgError, ValueError):
                return _FORBIDDEN, np.zeros_like(x)
            ratio = np.exp(d[None, :] - d[:, None])
            m = a * ratio
            value, gradient = objective(self.frame.weights(m))
            by_m = self.frame.pull(gradient)
            moved = by_m * m
            by_z = self.parametrisation.pull(trace, by_m * ratio)
            return value, np.concatenate([by_z.ravel(), moved.sum(axis=0) - moved.sum(axis=1)])

        options: Any = {"maxiter": steps, "maxcor": _MEMORY, "ftol": 0.0, "gtol": 0.0}
        start = np.concatenate([point.z.ravel(), point.d])
        stop: Any = self._stop
        found: Any = minimize(function, start, jac=True, method="L-BFGS-B", callback=stop, options=options)
        x = np.asarray(found.x, dtype=np.float64)
        return Point(x[:cut].reshape(shape), x[cut:]), float(found.fun)

    def _stop(self, _: Array) -> None:
        if self.problem.monitor.over:
            raise StopIteration
