"""The stable set of ``symmetric``: W = W^T with eigenvalues in an interval.

The nearest such matrix in the Frobenius norm has the eigenvectors of (W + W^T)/2 and its eigenvalues clipped. Entries
that may not move are met by Dykstra's alternating projections (R. Dykstra, J. Amer. Statist. Assoc. 78, 1983), which
converge to the nearest matrix of both sets.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from certes.projection.base import Nothing, Problem, Proposal
from certes.systems import System

Array = NDArray[np.float64]

#: The interval is narrowed by this, in units of the largest slope times weight, so that the verifier has room.
_MARGIN = 1e-8
#: Rounds of the alternating projections, at most, and the relative change that ends them.
_ROUNDS, _CHANGE = 20_000, 1e-11


class SymmetricSet:
    """See the module's docstring."""

    name = "symmetric"

    def applies(self, problem: Problem) -> str | None:
        """One time constant, one slope interval, Frobenius norm; what is kept must be symmetric itself."""
        system, structure = problem.system, problem.structure
        if system.is_sparse:
            return "'symmetric' needs a dense matrix"
        if not system.uniform_tau or not system.slope.uniform:
            return "'symmetric' is projected on for one time constant and one slope interval"
        if problem.weighting is not None:
            return "'symmetric' is projected on in the Frobenius norm only"
        if structure.rank is not None:
            return "'symmetric' cannot keep a rank exactly once weights are rounded"
        if structure.movable is not None:
            frozen, given = ~structure.movable, system.matrix("W")
            both = frozen & frozen.T
            if bool((frozen != frozen.T).any()) or not np.array_equal(given[both], given.T[both]):
                return "the weights that may not move are not symmetric"
        return None

    def nearest(self, problem: Problem) -> Proposal | Nothing:
        """Clipped eigenvalues."""
        low, high = interval(problem.system, problem.number)
        size = max(1.0, float(np.abs(problem.system.matrix("W")).max()))
        low, high = low + _MARGIN * size, high - _MARGIN * size
        if not low <= high:
            return Nothing("infeasible", "no eigenvalue is small enough")
        given = problem.system.matrix("W")
        middle = 0.5 * (given + given.T)
        if problem.structure.movable is None:
            return Proposal(clip(middle, low, high), self.name)
        found, correction = middle, np.zeros_like(middle)
        for _ in range(_ROUNDS):
            clipped = clip(found + correction, low, high)
            correction = found + correction - clipped
            kept = problem.structure.nearest(clipped)
            change = float(np.linalg.norm(kept - found))
            found = kept
            if change <= _CHANGE * max(float(np.linalg.norm(found)), 1e-300) or problem.monitor.over:
                break
        return Proposal(0.5 * (found + found.T), self.name)


def interval(system: System, number: float) -> tuple[float, float]:
    """The eigenvalues that are allowed, [low, high]; see :func:`certes.conditions.symmetric.optimum`.

    Args:
        system: one time constant, one slope interval.
        number: rate or factor.
    """
    tau, slopes = float(system.tau[0]), (float(system.slope.lower[0]), float(system.slope.upper[0]))
    low, high = -math.inf, math.inf
    for slope in slopes:
        if slope == 0.0:
            continue
        if system.step is None:
            ends = [(1.0 - number * tau) / slope]
            if slope > 0.0:
                high = min(high, ends[0])
            else:
                low = max(low, ends[0])
            continue
        leak = system.step / tau
        ends = sorted(((-number - 1.0 + leak) / (leak * slope), (number - 1.0 + leak) / (leak * slope)))
        low, high = max(low, ends[0]), min(high, ends[1])
    return low, high


def clip(matrix: Array, low: float, high: float) -> Array:
    """The nearest symmetric matrix with eigenvalues in [low, high]; symmetric to the bit."""
    values, vectors = np.linalg.eigh(matrix)
    inside = np.clip(values, low, high)
    if (inside == values).all():
        return matrix
    found = (vectors * inside) @ vectors.T
    return np.asarray(0.5 * (found + found.T))


SYMMETRIC = SymmetricSet()
