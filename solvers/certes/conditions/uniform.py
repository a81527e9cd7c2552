"""Uniform leak: networks whose Lur'e inequality is a statement about diagonal multipliers alone.

One time constant, and slopes in [0, g] or [-g, g]. With M = diag(g) W (rate; diag(g) W^T for the dual proof of a
hopfield network) and A_Q = Q^1/2 M Q^-1/2 the inequality has a solution P for given Q iff

    slopes [0, g]    the field of values of A_Q lies inside a conic (parabola, ellipse, disk)
    slopes [-g, g]   norm(A_Q) < s;    rate (1 - s)/tau, resp. factor abs(1 - a) + a s, a = step/tau

so that whoever finds Q has the proof (docs/theory.md section 3). For slopes [-g, g] the metric is Q up to a factor, and
the sector term 2 Q_s (g^2 s^2 - y^2) of the shifted slopes needs Q_s = Q/2; for a map with P = Q any 2 Q_s = k Q with
(rho^2 - e^2 - k norm(A_Q)^2)(k - a^2) > (e a)^2, e = 1 - a, of which the middle one is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.conditions.base import BACK_OFFS, Candidate, claim, is_claim
from certes.engines import conic
from certes.engines.duality import Dual
from certes.proofs import BoundProof, ConicBound, LevelBound, LureProof, NormBound
from certes.systems import System

Array = NDArray[np.float64]

#: Relative tolerance of the level, by the number of states up to which it is asked for.
_TOLERANCES = ((30, 1e-7), (250, 1e-4), (10**9, 3e-4))
#: A bound is stated this much (relative) on the safe side of the level its numbers were made for.
_ROUNDING = 1e-14


@dataclass(frozen=True, eq=False)
class UniformLeak:
    """A network with uniform leak, and the way between its numbers and the levels of its family.

    Attributes:
        system: the network.
        family: which functional of the field of values decides.
        weights: M, shape (n, n).
    """

    system: System
    family: conic.Rate | conic.Factor | conic.Norm
    weights: Array

    @classmethod
    def of(cls, system: System) -> UniformLeak | None:
        """None unless the system has dense weights, one time constant, slopes as above, and a step below 2 tau."""
        if system.form == "lure" or system.is_sparse or not system.uniform_tau:
            return None
        lower, upper = system.slope.lower, system.slope.upper
        leak = None if system.step is None else system.step / float(system.tau[0])
        if leak is not None and leak >= 2.0:
            return None
        if not lower.any():
            return cls(system, conic.Rate() if leak is None else conic.Factor(leak), system_weights(system))
        if (lower == -upper).all():
            return cls(system, conic.Norm(), system_weights(system))
        return None

    @property
    def tau(self) -> float:
        """The time constant."""
        return float(self.system.tau[0])

    @property
    def leak(self) -> float:
        """a = step / tau of a map."""
        assert self.system.step is not None
        return self.system.step / self.tau

    def number(self, level: float) -> float:
        """The rate or factor that belongs to a level of the family."""
        if isinstance(self.family, conic.Norm):
            return (1.0 - level) / self.tau if self.system.continuous else abs(1.0 - self.leak) + self.leak * level
        return level / self.tau if self.system.continuous else level

    def level(self, number: float) -> float:
        """The level of the family that belongs to a rate or factor."""
        if isinstance(self.family, conic.Norm):
            return 1.0 - number * self.tau if self.system.continuous else (number - abs(1.0 - self.leak)) / self.leak
        return number * self.tau if self.system.continuous else number

    def proof(self, q: Array, number: float) -> LureProof | None:
        """The proof that multipliers q give at a rate or factor, or None where the engine says no."""
        level, dual = self.level(number), self.system.form == "hopfield"
        if isinstance(self.family, conic.Norm):
            if not 0.0 < level < math.inf:
                return None
            P, shares = self._norm_metric(q, level)
        else:
            found = conic.metric(self.weights, q, self.family, level)
            if found is None:
                return None
            P, shares = found, q
        if self.system.continuous:
            return lure_proof(self.tau * P, shares * (self.tau**2 if dual else 1.0), dual)
        return lure_proof(P, shares / (self.leak**2 if dual else 1.0), dual)

    def _norm_metric(self, q: Array, level: float) -> tuple[Array, Array]:
        """Metric and multipliers of a norm below ``level``, in the units of time constant 1."""
        if self.system.continuous:
            return np.diag(level * q), 0.5 * q
        a, e = self.leak, 1.0 - self.leak
        factor = self.number(level)
        norm = max(float(np.linalg.norm(conic.scaled(self.weights, q), 2)), 1e-3 * level)
        return np.diag(q), 0.25 * (a * a + (factor * factor - e * e) / norm**2) * q

    def bound(self, dual: Dual) -> LevelBound:
        """The bound that a dual solution proves, for the verifier to judge."""
        columns = dual.columns
        if isinstance(self.family, conic.Norm):
            proof: BoundProof = NormBound(np.ascontiguousarray(columns.y.real))
        else:
            u = columns.u / np.maximum(np.abs(columns.u), 1.0) * (1.0 - 2.0**-52)
            proof = ConicBound(u.real, u.imag, columns.y.real, columns.y.imag)
        number = self.number(dual.level)
        slack = _ROUNDING * max(abs(number), 1.0 / self.tau if self.system.continuous else 1.0)
        return LevelBound(number + slack if self.system.continuous else number - slack, proof)


def tolerance(size: int) -> float:
    """The relative tolerance at which the multipliers of a network of this size are optimised."""
    return by_size(_TOLERANCES, size)


def by_size(table: tuple[tuple[int, float], ...], size: int) -> float:
    """The entry of the first limit that is not exceeded."""
    return next(value for limit, value in table if size <= limit)


def uniform_candidates(
    leak: UniformLeak, q: Array, best: float, target: float | None, bound: LevelBound | None = None
) -> tuple[Candidate, ...]:
    """Proofs from multipliers, at rates or factors slightly behind the best; or exactly the target if it is in reach.

    Args:
        leak: the network.
        q: multipliers, shape (n,).
        best: the rate or factor that they reach.
        target: the number to claim, or None.
        bound: handed on.
    """
    continuous = leak.system.continuous
    numbers = [leak.number(leak.family.relax(leak.level(best), back)) for back in BACK_OFFS]
    if target is not None:
        numbers = [target] if (target <= best if continuous else target >= best) else []
    found: list[Candidate] = []
    for number in numbers:
        proof = leak.proof(q, number) if is_claim(continuous, number) else None
        if proof is not None:
            found.append(Candidate(proof, claim(leak.system, number), bound))
    return tuple(found)


def system_weights(system: System) -> Array:
    """diag(g) W (rate) or diag(g) W^T (hopfield, for its dual proof), g_i = max(abs a_i, abs b_i); shape (n, n)."""
    weights = system.matrix("W")
    weights = weights.T if system.form == "hopfield" else weights
    return np.asarray(system.slope.bound[:, None] * weights)


def lure_proof(metric: Array, multipliers: Array, dual: bool) -> LureProof:
    """A proof with an exactly symmetric metric, scaled by a power of two to a largest entry near 1."""
    scale = 2.0 ** -float(np.frexp(np.abs(metric).max())[1])
    P = 0.5 * (metric + metric.T) * scale
    P[np.abs(P) < 1e-290] = 0.0
    return LureProof(P, np.asarray(multipliers * scale), dual, 0.0, np.inf, 0.0, 0.0)
