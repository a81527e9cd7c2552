"""Condition ``lure``: a metric P > 0 and diagonal multipliers Q > 0 that solve the Lur'e inequality.

Law (S-procedure). With the normal form (A, B, C), slopes in [0, g], G = diag(g):

    continuous   [[P A + A^T P + 2 c P, P B + C^T G Q], [., -2 Q]] <= 0                  implies rate c
    map          [[A^T P A - rho^2 P, A^T P B + C^T G Q], [., B^T P B - 2 Q]] <= 0       implies factor rho

It is the sharpest condition known that needs no enumeration of slope patterns (A. Gokhale, A. Proskurnikov, Y. Kawano,
F. Bullo, arXiv 2604.00119). Two engines stand behind it. Networks with *uniform leak* (:mod:`.uniform`) leave n
unknowns, the multipliers, which :mod:`certes.engines.scaling` optimises; every other system is taken by its frequency
response (:mod:`certes.engines.frequency`). Both come with a dual solution: a bound that no certificate of this kind
beats.
Hopfield networks are proven in the transposed system, where their weights sit in C (``dual``).
The backends of :mod:`.reference` solve the inequality as it stands.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from certes.conditions import reference
from certes.conditions.base import BACK_OFFS, Candidate, Decision, Goal, NothingFound, Why, claim, is_claim
from certes.conditions.reference import reduced
from certes.conditions.uniform import UniformLeak, by_size, lure_proof, tolerance, uniform_candidates
from certes.engines import duality, frequency, scaling
from certes.engines.monitor import Monitor
from certes.engines.threads import one_blas_thread
from certes.proofs import LevelBound, LureBound
from certes.systems import System

Array = NDArray[np.float64]

#: Relative distance from the optimum within which the dual bound is looked for, by the number of states up to which.
_GAPS = ((30, 1e-5), (10**9, 9e-4))


class Lure:
    """The condition; see the module's docstring for its law."""

    name = "lure"
    version = 1

    def applies(self, system: System) -> str | None:
        """Every system with dense weights."""
        return "the weights are sparse; 'lure' needs a dense matrix" if system.is_sparse else None

    @one_blas_thread()
    @np.errstate(all="ignore")  # overflow ends in inf or NaN, and those are looked for
    def decide(self, system: System, goal: Goal) -> Decision:
        """Candidates for the best level (or the target), each slightly further behind it."""
        if (why := self.applies(system)) is not None:
            return NothingFound("not-applicable", why)
        inequality = reduced(system)
        parts = (inequality.A, inequality.B, inequality.C)
        if not all(np.isfinite(part).all() and np.abs(part).max() < 1e150 for part in parts):
            return NothingFound("solver", "entries beyond 1e150: rescale the weights")
        if goal.backend != "auto":
            return reference.decide(system, goal)
        leak = UniformLeak.of(system)
        return _general(system, goal) if leak is None else _uniform(leak, goal)


def _uniform(leak: UniformLeak, goal: Goal) -> Decision:
    """Optimal multipliers, the metric by cyclic reduction, and the dual bound."""
    monitor = goal.monitor()
    target = None if goal.target is None else leak.level(goal.target)
    found = scaling.optimise(
        leak.weights, leak.family, tolerance=tolerance(leak.system.size), target=target, monitor=monitor
    )
    q, best = found.q, leak.number(found.level)
    if found.stopped == "target":
        candidates = uniform_candidates(leak, q, best, goal.target)
        if candidates:
            return candidates
    bound = None
    gap = by_size(_GAPS, leak.system.size)
    if (dual := duality.prove(leak.weights, leak.family, q, found.level, gap=gap, monitor=monitor)) is not None:
        q, bound = dual.q, leak.bound(dual)
        best = leak.number(dual.best)
    elif not monitor.over:
        bound = leak_bound(leak.system)
    candidates = uniform_candidates(leak, q, best, goal.target, bound)
    return candidates or _nothing(leak.system, goal, best, found.stopped, monitor, bound, q)


def _general(system: System, goal: Goal) -> Decision:
    """Metric and multipliers from the frequency response, and the dual bound."""
    inequality, monitor, dual = reduced(system), goal.monitor(), system.form == "hopfield"
    target = None if goal.target is None else inequality.level(goal.target)
    found = frequency.optimise(inequality, target=target, monitor=monitor)
    bound = None
    if found.columns is not None:
        bound = LevelBound(inequality.level(found.bound), LureBound(found.columns, dual))
    elif found.stopped != "target" and not monitor.over:
        bound = leak_bound(system)
    unit = max(abs(found.strength), 1.0 / float(system.tau.max()) if system.continuous else 1.0)
    strengths = [found.strength - back * unit for back in BACK_OFFS]
    if target is not None:
        strengths = [target] if target <= found.strength else []
    candidates = []
    for strength in strengths:
        number = inequality.level(strength)
        if is_claim(system.continuous, number):
            proof = lure_proof(found.metric, found.multipliers, dual)
            candidates.append(Candidate(proof, claim(system, number), bound))
    best = inequality.level(found.strength)
    return tuple(candidates) or _nothing(system, goal, best, found.stopped, monitor, bound, found.multipliers)


def leak_bound(system: System) -> LevelBound | None:
    """What slope 0 allows, whatever the weights: rate 1 / tau, or factor abs(1 - step / tau); None without slope 0."""
    if system.form == "lure" or bool((system.slope.lower > 0).any() or (system.slope.upper < 0).any()):
        return None
    taus = [Fraction(float(tau)) for tau in np.unique(system.tau)]
    if system.step is None:
        exact = min(1 / tau for tau in taus)
        number = float(exact)
        number = number if number >= exact else math.nextafter(number, math.inf)
    else:
        exact = max(abs(1 - Fraction(system.step) / tau) for tau in taus)
        number = float(exact)
        number = number if number <= exact else math.nextafter(number, -math.inf)
    return LevelBound(number, LureBound(np.eye(2 * system.size, 1), False))


def _nothing(
    system: System,
    goal: Goal,
    best: float,
    stopped: str,
    monitor: Monitor,
    bound: LevelBound | None,
    multipliers: Array | None,
) -> NothingFound:
    word = "rate" if system.continuous else "factor"
    detail = f"the best {word} found is {best:.6g}" if np.isfinite(best) else f"no {word} was found"
    if goal.target is not None:
        detail += f", {goal.target:.6g} was asked for"
    if bound is not None:
        detail += f"; no certificate of this kind {'exceeds' if system.continuous else 'goes below'} {bound.level:.6g}"
    reason: Why = monitor.why or "margin"
    if reason != "margin":
        detail = f"stopped; so far {detail}"
    elif stopped == "stalled":
        detail += "; the search stalled"
    distance = float(best) if np.isfinite(best) else None
    return NothingFound(reason, detail, distance, bound, multipliers)


CONDITION = Lure()
