"""Condition ``singular``: a weighted spectral norm below 1 (Kozachkov, Ennis, Slotine 2022, Thm 5).

Slopes in [a_i, b_i], g_i = max(|a_i|, |b_i|), G = diag(g); W_g = G W (rate form) or W G (hopfield). For a positive
diagonal Q let s = norm(Q^1/2 W_g Q^-1/2). Then

    continuous  rate (1 - s) / max tau in the metric Q T
    map         factor max_i (|1 - a_i| + a_i s) in the metric Q diag(a)^-1, a_i = step / tau_i

log s is a convex function of log q (R. Sezginer, M. Overton, SIAM J. Matrix Anal. Appl. 11, 1990). It is minimised by
:mod:`certes.engines.scaling`, whose cuts are sum q_i (W_g y)_i^2 / sum q_i y_i^2 for singular vectors Q^1/2 y. The
infimum need not be attained (reducible W): the engine caps cond(Q).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.conditions.base import Candidate, Decision, Goal, NothingFound, aim, claim, missed
from certes.conditions.uniform import tolerance
from certes.engines import conic, scaling
from certes.engines.monitor import Monitor
from certes.engines.threads import one_blas_thread
from certes.proofs import SingularProof
from certes.systems import System

Array = NDArray[np.float64]

#: Largest network (one full eigendecomposition is taken anyway).
LARGEST = 6000
#: By how much the stored norm exceeds the computed one, relative, in units of what the verifier's Cholesky needs.
_PADS = (2.0, 20.0, 1e3, 1e5)


@dataclass(frozen=True)
class Singular:
    """The condition; see the module's docstring for the law."""

    name: str = "singular"
    version: int = 1

    def applies(self, system: System) -> str | None:
        """Every rate and hopfield network with dense weights, in continuous time or with a step."""
        if system.form == "lure" or system.is_sparse:
            return "'singular' speaks of rate and hopfield networks with dense weights"
        return None

    @one_blas_thread()
    @np.errstate(all="ignore")  # overflow ends in inf or NaN, and those are looked for
    def decide(self, system: System, goal: Goal) -> Decision:
        """The norm at the best scaling found, padded by about 1e-15 to 1e-10 times n^2, relative."""
        refusal = self.applies(system)
        if refusal is not None:
            return NothingFound("not-applicable", refusal)
        if system.size > LARGEST:
            return NothingFound("too-large", f"'singular' takes up to {LARGEST} neurons")
        weights, bound = system.matrix("W"), system.slope.bound
        with np.errstate(over="ignore"):
            scaled = weights * (bound[:, None] if system.form == "rate" else bound[None, :])
        if not np.isfinite(scaled).all():
            return NothingFound("margin", "slope bounds times weights overflow")
        q = multipliers(scaled, goal.monitor())
        norm = norm_at(scaled, q)
        found: list[Candidate] = []
        unit = 2.0**-53 * (2 * system.size + 16) * 4 * system.size
        for pad in _PADS:
            padded = max(norm * (1.0 + pad * unit), 1e-100)
            numbers = aim(system, number_of(system, padded), goal, (2e-15,))
            found += [Candidate(SingularProof(q, padded), claim(system, number)) for number in numbers]
        return tuple(found) or missed(system, number_of(system, norm), goal, self.name)


def multipliers(matrix: Array, monitor: Monitor | None = None) -> Array:
    """A positive q, shape (n,), with the least norm(Q^1/2 A Q^-1/2) found; ones where that is no worse.

    Args:
        matrix: A, shape (n, n).
        monitor: ends the search early.
    """
    plain = np.ones(len(matrix))
    found = scaling.optimise(matrix, conic.Norm(), tolerance=tolerance(len(matrix)), monitor=monitor)
    return found.q if norm_at(matrix, found.q) < norm_at(matrix, plain) else plain


def number_of(system: System, norm: float) -> float:
    """The rate or factor that belongs to a norm s."""
    if system.step is None:
        return (1.0 - norm) / float(system.tau.max())
    leaks = np.array([system.step / float(system.tau.max()), system.step / float(system.tau.min())])
    # the verifier allows for one unit in the last place of the step
    leaks = np.concatenate([leaks * (1 - 1e-15), leaks * (1 + 1e-15)])
    return float(np.max(np.abs(1.0 - leaks) + leaks * norm))


def norm_at(matrix: Array, q: Array) -> float:
    """norm(Q^1/2 A Q^-1/2), the largest singular value."""
    root = np.sqrt(q)
    return _spectral_norm(root[:, None] * matrix / root[None, :])


def _spectral_norm(matrix: Array) -> float:
    if not np.isfinite(matrix).all():
        return math.inf
    try:
        return float(np.linalg.norm(matrix, 2))
    except np.linalg.LinAlgError:
        return math.inf


CONDITION = Singular()
