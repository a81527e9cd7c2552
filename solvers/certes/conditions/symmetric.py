"""Condition ``symmetric``: for W = W^T and one time constant the eigenvalues decide (Thm 2 of Kozachkov, Ennis, Slotine
2022; optimal metrics: Centorrino, Gokhale, Davydov, Russo, Bullo, IEEE L-CSS 7, 2023).

Continuous time, slopes in [0, g], lambda the largest eigenvalue of W:

    lambda > 0   rate (1 - g lambda) / tau in R^2 (rate form) or R^-2 (hopfield), b = 1 - c tau,
                 R = 2 b (I + (I - g W / b)^1/2)
    lambda <= 0  every rate below 1 / tau; lambda < 0: rate 1 / tau exactly in -W (rate form) or (-W)^-1 (hopfield)

General slopes [s, t], the same for all neurons, and all maps, a = step / tau, e = 1 - a: with multipliers Q = I the
Lur'e block falls apart into one 2 x 2 problem per eigenvalue, and the midpoint of its interval of metrics is a
polynomial in W; with the extremes over all eigenvalues and d in {s, t},

    continuous   P = 2 (1 - c tau) I - (s + t) W                rate   (1 - max d lambda) / tau
    map          P = I - (e I + a s W)(e I + a t W) / rho^2     factor max |e + a d lambda|

(times tau, 1 / tau resp. 1 / a^2, 1 for rate resp. hopfield as a dual proof). Both are optimal: each number is attained
by the Jacobian of one uniform slope. For slopes [0, g] the factor is max(e + a g max(lambda_max, 0),
a g max(-lambda_min, 0) - e, |e|).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from certes.conditions.base import Candidate, Decision, Goal, NothingFound, aim, claim, eigenvalues, missed
from certes.proofs import Claims, LureProof, Proof, SymmetricProof
from certes.systems import System

Array = NDArray[np.float64]

_BACK_OFFS = (1e-12, 1e-11, 1e-10, 1e-9, 1e-8)
#: The Lur'e block is singular at the optimum and its smallest eigenvalue grows with the square of some distances to it.
_LURE_BACK_OFFS = (1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)


@dataclass(frozen=True)
class Symmetric:
    """The condition; see the module's docstring for the law."""

    name: str = "symmetric"
    version: int = 1

    def applies(self, system: System) -> str | None:
        """W exactly symmetric, one tau; one slope interval for all neurons, or continuous time and slopes >= 0."""
        if system.form == "lure" or system.is_sparse:
            return "'symmetric' speaks of rate and hopfield networks with dense weights"
        if not system.uniform_tau:
            return "'symmetric' needs one time constant for all neurons"
        weights = system.matrix("W")
        if not np.array_equal(weights, weights.T):
            return "W is not symmetric"
        from_zero = system.continuous and bool((system.slope.lower >= 0).all())
        if not (from_zero or system.slope.uniform):
            return "'symmetric' needs one slope interval for all neurons, or continuous time and slopes >= 0"
        return None

    @np.errstate(all="ignore")  # overflow ends in inf or NaN, and those are looked for
    def decide(self, system: System, goal: Goal) -> Decision:
        """The exact optimum, backed off by 1e-12 to 1e-8 (1e-11 to 1e-6 where the Lur'e block carries the proof)."""
        refusal = self.applies(system)
        if refusal is not None:
            return NothingFound("not-applicable", refusal)
        values = eigenvalues(system.matrix("W"))
        if values is None:
            return NothingFound("margin", "the eigenvalues of W overflow")
        candidates: list[Candidate] = []
        if system.continuous and bool((system.slope.lower >= 0).all()):
            candidates += _closed_form(system, goal, values)
        if system.slope.uniform:
            candidates += _through_block(system, goal, values)
        # stable sort: among equal claims the closed form comes first, it is the cheaper one to verify
        candidates.sort(
            key=lambda entry: -(entry.claims.rate or 0.0) if system.continuous else entry.claims.factor or 1.0
        )
        return tuple(candidates) or missed(system, optimum(system, values), goal, self.name)


def optimum(system: System, values: Array) -> float:
    """The best rate or factor, a supremum or infimum; slopes [min a_i, max b_i] for all neurons."""
    lower, upper, tau = float(system.slope.lower.min()), float(system.slope.upper.max()), float(system.tau[0])
    ends = np.concatenate([lower * values, upper * values])
    if system.step is None:
        return float(1.0 - ends.max()) / tau
    leak = system.step / tau
    return float(np.abs(1.0 - leak + leak * ends).max())


def _closed_form(system: System, goal: Goal, values: Array) -> list[Candidate]:
    """Continuous time, slopes in [0, g]: the weights are their own proof."""
    tau, bound = float(system.tau[0]), float(system.slope.upper.max())
    found: list[Candidate] = []
    if values[-1] < 0:
        rate = goal.target or _at_most(1.0 / tau, tau)
        if Fraction(rate) * Fraction(tau) <= 1:
            found.append(Candidate(SymmetricProof(negative=True), Claims(rate=rate)))
    top = bound * max(float(values[-1]), 0.0)
    size = max(1.0, bound * float(np.abs(values).max()))
    numbers = aim(system, (1.0 - top) / tau, goal, tuple(back * size for back in _BACK_OFFS))
    return found + [Candidate(SymmetricProof(negative=False), Claims(rate=number)) for number in numbers]


def _at_most(rate: float, tau: float) -> float:
    """The largest float near ``rate`` with rate * tau <= 1 exactly."""
    while Fraction(rate) * Fraction(tau) > 1:
        rate = float(np.nextafter(rate, 0.0))
    return rate


def _through_block(system: System, goal: Goal, values: Array) -> list[Candidate]:
    """A Lur'e proof with Q = I, for one slope interval; left out where the closed form does as well."""
    best = optimum(system, values)
    if system.continuous and system.slope.lower[0] == 0.0:
        return []
    size = max(1.0, float(system.slope.bound[0] * np.abs(values).max()))
    numbers = aim(system, best, goal, tuple(back * size for back in _LURE_BACK_OFFS))
    return [Candidate(_block_proof(system, number), claim(system, number)) for number in numbers]


def _block_proof(system: System, number: float) -> LureProof:
    """The midpoint metric at a rate or factor; shape (n, n)."""
    weights, tau, dual = system.matrix("W"), float(system.tau[0]), system.form == "hopfield"
    lower, upper = float(system.slope.lower[0]), float(system.slope.upper[0])
    identity = np.eye(system.size)
    if system.step is None:
        metric = 2.0 * (1.0 - number * tau) * identity - (lower + upper) * weights
        metric = metric / tau if dual else metric * tau
    else:
        leak = system.step / tau
        ends = [(1.0 - leak) * identity + leak * slope * weights for slope in (lower, upper)]
        metric = identity - ends[0] @ ends[1] / number**2
        if not dual:
            metric /= leak**2
    return LureProof(
        metric=(metric + metric.T) / 2.0,
        multipliers=np.ones(system.size),
        dual=dual,
        metric_lower=0.0,
        metric_upper=float("inf"),
        slack_state=0.0,
        slack_input=0.0,
    )


def metric(system: System, proof: Proof, claims: Claims) -> Array:
    """The metric in which a proof of this condition contracts, shape (n, n); see the module's docstring.

    Args:
        system: the network, in the form the proof was made for.
        proof: of this condition.
        claims: with the rate that was proven.
    """
    if isinstance(proof, LureProof):
        return np.asarray(np.linalg.inv(proof.metric), dtype=np.float64) if proof.dual else proof.metric
    if not isinstance(proof, SymmetricProof) or claims.rate is None:
        raise TypeError("a proof of the condition 'symmetric' and its claims")
    values, vectors = np.linalg.eigh(system.matrix("W"))
    if proof.negative:
        entries = -values
    else:
        spare = 1.0 - claims.rate * float(system.tau[0])
        bound = float(system.slope.upper.max())
        entries = (2.0 * spare * (1.0 + np.sqrt(np.maximum(1.0 - bound * values / spare, 0.0)))) ** 2
    if system.form == "hopfield":
        entries = 1.0 / entries
    return np.asarray((vectors * entries) @ vectors.T)


CONDITION = Symmetric()
