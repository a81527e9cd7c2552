"""The largest Euler step: how far may x + h f(x) be trusted, if x' = f(x) contracts?

For uniform leak and slopes in [0, g] the largest step that fixed multipliers Q prove is

    min over z in F(A_Q) of (2 - abs z - Re z) / (1 - Re z)    in units of tau        (docs/theory.md section 3)

and for slopes in [-g, g] it is 2 / (1 + norm(A_Q)); both are suprema, at most 2 tau. Here Q is optimised for the step
rather than for the rate. For every other system the steps are searched by bisection, each with metric and multipliers
of its own. One metric that serves a step serves all smaller ones, by convexity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from certes.conditions.reference import reduced
from certes.conditions.uniform import UniformLeak, by_size, lure_proof, tolerance
from certes.engines import conic, frequency, scaling
from certes.engines.monitor import Monitor
from certes.proofs import LureProof, StepClaim
from certes.systems import System

Array = NDArray[np.float64]

#: Shares of the supremum at which a step is claimed, largest first.
_SHARES = (0.999, 0.99, 0.95, 0.8)
#: Shares of what the factor stays below 1 that are claimed.
_ROOM = (0.5, 0.1)
#: Least room of the factor below 1, relative to that of the step below the largest one.
_CLEAR = 0.1
#: Halvings of the bracket in a bisection on the step, by the number of states up to which.
_HALVINGS = ((30, 12), (10**9, 7))
#: The factor that a step of the bisection must reach to count: just below 1.
_REACHED = 1.0 - 1e-6


def claims(system: System, own: StepClaim | None, monitor: Monitor) -> Iterator[StepClaim]:
    """Proposals for the largest step, largest first.

    Args:
        system: a network in continuous time, or with an Euler step.
        own: what is known of the system's own step; nothing smaller is proposed, and it comes last.
        monitor: stops the search.
    """
    least = 0.0 if own is None else own.step
    leak = UniformLeak.of(system.with_step(None))
    found = _general(system, least, monitor) if leak is None else _uniform(leak, least, monitor)
    yield from found
    if own is not None:
        yield own


def _uniform(leak: UniformLeak, least: float, monitor: Monitor) -> Iterator[StepClaim]:
    """Multipliers for the step, then a proof just below the supremum."""
    small = tolerance(leak.system.size)
    if isinstance(leak.family, conic.Norm):
        found = scaling.optimise(leak.weights, leak.family, tolerance=small, monitor=monitor)
        supremum = 2.0 / (1.0 + found.level)
    else:
        found = scaling.optimise(leak.weights, conic.Step(), tolerance=max(small, 1e-6), monitor=monitor)
        supremum = found.level
    for share in _SHARES:
        step = share * supremum * leak.tau
        if not step > least:
            continue
        at_step = UniformLeak.of(leak.system.with_step(step))
        if at_step is None:
            continue
        if isinstance(leak.family, conic.Norm):
            yield from _proposals(at_step, found.q, at_step.number(found.level), step)
        else:
            yield from _proposals(at_step, *_multipliers(at_step, found.q, share, monitor), step)


def _multipliers(leak: UniformLeak, q: Array, share: float, monitor: Monitor) -> tuple[Array, float | None]:
    """Multipliers and factor of the map at a share of the largest step, starting from those that are best for the step.

    Real points z < 1 of the field of values limit no step, so that the best multipliers for the step may let it come up
    to z = 1, where every step has the factor 1. Then those for the factor are searched.
    """
    factor = conic.best_level(conic.scaled(leak.weights, q), leak.family)
    if factor is not None and 1.0 - factor > _CLEAR * (1.0 - share):
        return q, factor
    better = scaling.optimise(leak.weights, leak.family, tolerance=tolerance(len(q)), start=q, monitor=monitor)
    return better.q, better.level


def _proposals(leak: UniformLeak, q: Array, factor: float | None, step: float) -> Iterator[StepClaim]:
    if factor is None or not factor < 1.0:
        return
    for room in _ROOM:
        claimed = 1.0 - room * (1.0 - factor)
        proof = leak.proof(q, claimed)
        if proof is not None:
            yield StepClaim(step, claimed, proof)


def _general(system: System, least: float, monitor: Monitor) -> Iterator[StepClaim]:
    """Bisection on the step; each step has its own metric and multipliers."""
    low, high = least, max(2.0 * least, _ceiling(system))
    found: list[StepClaim] = []
    for _ in range(round(by_size(_HALVINGS, system.size)) if high > low else 0):
        if monitor.over:
            break
        middle = 0.5 * (low + high)
        claim = _at(system, middle, monitor)
        if claim is None:
            high = middle
        else:
            low = middle
            found.append(claim)
    yield from reversed(found)


def _ceiling(system: System) -> float:
    """A step with which the Jacobian at the lowest or the highest slopes is no contraction; none is smaller."""
    flow = reduced(system.with_step(None))
    values = np.concatenate([np.linalg.eigvals(J) for J in (flow.A, flow.A + (flow.B * flow.gap) @ flow.C)])
    return float(max((-2.0 * values.real / np.maximum(np.abs(values) ** 2, 1e-300)).min(), 0.0))


def _at(system: System, step: float, monitor: Monitor) -> StepClaim | None:
    """A claim about one step, or None."""
    inequality = reduced(system.with_step(step))
    try:
        best = frequency.optimise(inequality, tolerance=1e-4, target=-_REACHED, monitor=monitor)
    except np.linalg.LinAlgError:
        return None
    if not -best.strength <= _REACHED:
        return None
    proof = lure_proof(best.metric, best.multipliers, system.form == "hopfield")
    return StepClaim(step, 1.0 - _ROOM[0] * (1.0 + best.strength), proof)


def of_map(system: System, proof: LureProof, factor: float) -> StepClaim | None:
    """What a proof about a map with a step says of its own step; None for a given map."""
    if system.step is None or system.discrete:
        return None
    return StepClaim(system.step, factor, replace(proof, slack_state=0.0, slack_input=0.0))
