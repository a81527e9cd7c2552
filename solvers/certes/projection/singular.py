"""The stable set of ``singular``: a weighted spectral norm of at most s, for every network and time constants.

For given multipliers Q the nearest matrix *in the norm weighted by Q* clips the singular values of Q^1/2 W_g Q^-1/2
(:func:`clip`); in the Frobenius norm of W, and with Q free, the exact parametrisation is descended from there and from
the plain shrink.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from certes.conditions import singular
from certes.engines import conic
from certes.projection.base import Nothing, Problem, Proposal
from certes.projection.descent import Descent, Frame
from certes.projection.factors import Ball
from certes.systems import System

Array = NDArray[np.float64]

#: The norm aimed at is below the one that is needed by this, relative.
MARGIN = 2e-6


class SingularSet:
    """See the module's docstring."""

    name = "singular"

    def applies(self, problem: Problem) -> str | None:
        """Dense weights."""
        return "the weights are sparse; 'singular' needs a dense matrix" if problem.system.is_sparse else None

    def nearest(self, problem: Problem) -> Proposal | Nothing:
        """The nearer of two descents, from the clipped singular values and from the shrink."""
        system = problem.system
        gains = system.slope.bound
        if not gains.all():
            return Nothing("not-applicable", "a slope interval [0, 0]: use 'lure' or 'absolute'")
        frame = Frame(gains, system.form == "hopfield")
        radius = largest_norm(system, problem.number) * (1.0 - MARGIN)
        m = frame.matrix(system.matrix("W"))
        q = singular.multipliers(m, problem.monitor)
        a = conic.scaled(m, q)
        norm = float(np.linalg.norm(a, 2))
        descent = Descent(problem, Ball(radius), frame)
        best: tuple[float, Array] | None = None
        for start in (clip(a, radius * (1.0 - 1e-3)), a * min(1.0, radius / norm) * (1.0 - 1e-6) if norm > 0 else a):
            point = descent.start(start, q)
            if point is None:
                continue
            weights, _ = descent.run(point)
            distance = problem.distance(weights)
            if best is None or distance < best[0]:
                best = distance, weights
        if best is None:
            return Nothing("solver", "no start inside the stable set")
        return Proposal(best[1], self.name, scale=min(1.0, radius / norm) if norm > 0 else 1.0)


def largest_norm(system: System, number: float) -> float:
    """The norm s that belongs to a rate or factor; inverse of :func:`certes.conditions.singular.number_of`."""
    if system.step is None:
        return 1.0 - number * float(system.tau.max())
    leaks = system.step / system.tau
    return float(np.min((number - np.abs(1.0 - leaks)) / leaks))


def clip(a: Array, radius: float) -> Array:
    """The nearest matrix of spectral norm at most ``radius`` (Frobenius norm): singular values are clipped."""
    left, values, right = np.linalg.svd(a)
    return np.asarray((left * np.minimum(values, radius)) @ right)


SINGULAR = SingularSet()
