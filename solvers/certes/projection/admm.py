"""The convex problem for fixed multipliers: the nearest weights that a *given* Q certifies, by ADMM.

For fixed Q the constraint [[X, -r0 A^T], [-r0 A, 2 t I - c0 (A + A^T) - X]] >= 0 is linear in (A, X), and the distance
is a weighted Frobenius norm of A - A0. The two blocks of ADMM (S. Boyd and others, Found. Trends Mach. Learn. 3, 2011)
are a closed form per pair (A_ij, A_ji) and the projection of a 2n x 2n matrix on the semidefinite cone.

This is the optimum for *that* Q: an upper bound on the distance over all Q and no lower one. It is a start for the
descent, and a check of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from certes.engines.conic import scaled
from certes.engines.families import Functional
from certes.projection.base import Problem
from certes.projection.descent import Frame

Array = NDArray[np.float64]

#: Iterations, at most; how often the penalty is looked at; over-relaxation.
_ROUNDS, _EVERY, _RELAX = 2000, 20, 1.6
#: Primal and dual residual that end it, relative to the size of the block; the distance is then accurate to about 1e-5.
_TOLERANCE = 5e-5
#: Ratio of the residuals beyond which the penalty changes, and by how much.
_UNEVEN, _CHANGE = 5.0, 1.5


def nearest(problem: Problem, frame: Frame, functional: Functional, q: Array) -> Array | None:
    """The nearest weights for fixed multipliers, shape (n, n), up to the tolerance; None without convergence.

    Args:
        problem: the question; its norm is taken as Frobenius, and nothing is kept.
        frame: how M belongs to W.
        functional: c0, r0, t.
        q: multipliers, shape (n,).
    """
    given = problem.system.matrix("W")
    root = np.sqrt(q)
    ratio = root[None, :] / root[:, None]  # M = ratio * A, entry by entry
    weights = np.square(ratio / frame.gains[:, None])
    solver = _Splitting(functional, scaled(frame.matrix(given), q), weights)
    for count in range(_ROUNDS):
        if solver.step(count % _EVERY == _EVERY - 1):
            return frame.weights(solver.a * ratio)
        if count % _EVERY == 0 and problem.monitor.over:
            return None
    return None


class _Splitting:
    """The state of ADMM: A, the semidefinite copy of the block, and the scaled dual variable."""

    def __init__(self, functional: Functional, a: Array, weights: Array) -> None:
        self.c0, self.r0 = functional.c0, functional.r0
        self.size = len(a)
        self.level = 2.0 * functional.t * np.eye(self.size)
        self.target, self.a = a, a
        self.weights = weights
        self.copy = np.zeros((2 * self.size, 2 * self.size))
        self.dual = np.zeros_like(self.copy)
        self.penalty = float(np.median(weights))

    def step(self, look: bool) -> bool:
        """One iteration; True once both residuals are small (only looked at if ``look``)."""
        block = self._block()
        relaxed = _RELAX * block + (1.0 - _RELAX) * self.copy
        values, vectors = np.linalg.eigh(relaxed + self.dual)
        before = self.copy
        self.copy = (vectors * np.maximum(values, 0.0)) @ vectors.T
        self.dual = self.dual + relaxed - self.copy
        if not look:
            return False
        size = float(np.linalg.norm(self.copy))
        primal = float(np.linalg.norm(block - self.copy))
        change = float(np.linalg.norm(self.copy - before))
        if primal <= _TOLERANCE * size and change <= _TOLERANCE * size:
            return True
        if primal > _UNEVEN * change:
            self.penalty, self.dual = self.penalty * _CHANGE, self.dual / _CHANGE
        elif change > _UNEVEN * primal:
            self.penalty, self.dual = self.penalty / _CHANGE, self.dual * _CHANGE
        return False

    def _block(self) -> Array:
        """The block of the best A and X for the current copy; X is eliminated."""
        n, c0, r0 = self.size, self.c0, self.r0
        wanted = self.copy - self.dual
        first, cross, second = wanted[:n, :n], wanted[n:, :n], wanted[n:, n:]
        pull = self.weights / self.penalty
        rest = self.level - second - first
        right = pull * self.target - 2.0 * r0 * cross + c0 * rest
        own = pull + 2.0 * r0 * r0 + c0 * c0
        self.a = (own.T * right - c0 * c0 * right.T) / (own * own.T - c0**4)
        across = c0 * (self.a + self.a.T)
        x = 0.5 * (first + self.level - second - across)
        return np.block([[x, -r0 * self.a.T], [-r0 * self.a, self.level - across - x]])
