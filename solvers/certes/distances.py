"""How far are the weights from a yes, and from a no?

Scaled by s, the weights W of a network become s W (``lure``: B becomes s B). Between the largest scale that is
certified and the smallest one that is refuted nobody knows. Both numbers are verified: the first by a proof of the
condition ``lure``, the second by an unstable equilibrium.

For one time constant the certified scale has a closed form in the optimal level: with M as in
:mod:`certes.conditions.uniform`, A_Q = Q^1/2 M Q^-1/2, a = step / tau, e = 1 - a,

    slopes [0, g]     continuous: 1 / max((abs z + Re z)/2)      map: (2 - a) / max(abs z + e Re z)     over F(A_Q)
    slopes [-g, g]    continuous: 1 / norm(A_Q)                  map: (1 - abs e) / (a norm(A_Q))

and slopes D refute from where an eigenvalue lambda of the weights meets the border, 1/Re(lambda) in continuous time.
Everything else is found by bisection.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.conditions.base import Goal, NothingFound, claim
from certes.conditions.lure import CONDITION
from certes.conditions.uniform import UniformLeak
from certes.engines import conic, scaling
from certes.engines.ascent import default_budget
from certes.engines.monitor import Monitor
from certes.engines.slopes import Linearisation, leading_mode
from certes.proofs import Claims, Proof
from certes.refutation import fastest, witness_at
from certes.systems import System, tensor
from certes.verify.contraction import verify_contraction
from certes.verify.instability import verify_instability

Array = NDArray[np.float64]

#: How far a verified scale stays on the safe side of the computed one, relative; the first that verifies counts.
_INSIDE = (1e-5, 1e-4, 1e-3, 1e-2, 3e-2)
_BEYOND = (3e-3, 1e-2, 3e-2, 1e-1)
#: Scales looked at: 2^-k to 2^k.
_OCTAVES = 40
#: Relative width at which a bisection over certificates ends, and its most tries.
_WIDTH, _TRIES = 5e-3, 24
#: What is asked of a certificate in a bisection: this rate times the longest time constant, or a factor as near to 1.
_LITTLE = 1e-3
#: Accuracy of the scale at which a Jacobian meets the border, relative.
_ACCURACY = 1e-7
#: Searches at the scale found, where the best slopes depend on it; and the scale to look at where none crosses.
_AGAIN, _FAR = 3, 10.0
#: Relative tolerance of the optimal multipliers.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Distances:
    """Two verified scales of the weights.

    Attributes:
        certified_scale: at this scale the condition ``lure`` has a verified proof; None if none was found.
        refuted_scale: at this scale a verified witness exists; None if none was found.
    """

    certified_scale: float | None
    refuted_scale: float | None


def distances(
    system: System,
    *,
    multipliers: Array | None = None,
    slopes: Array | None = None,
    monitor: Monitor | None = None,
) -> Distances:
    """Verified scales on both sides; deterministic but for the monitor's deadline.

    Args:
        system: the network. Sparse weights have no distances.
        multipliers: Q to begin with, shape (m,), if a search for a proof has come to some.
        slopes: D to begin with, shape (m,), if a search for a witness has come to some; else there is a search.
        monitor: time limit and cancellation; what was found before counts.
    """
    if system.is_sparse:
        return Distances(None, None)
    monitor = monitor or Monitor()
    with np.errstate(all="ignore"):  # extreme weights overflow; every number is checked
        try:
            refuted = refuted_scale(system, slopes, monitor)
            return Distances(certified_scale(system, multipliers, monitor, refuted), refuted)
        except (np.linalg.LinAlgError, ArithmeticError):
            return Distances(None, None)


def scaled(system: System, scale: float) -> System:
    """The same network with weights ``scale`` W (``lure``: ``scale`` B), rounded to float64: another subject.

    Raises:
        InputError: the weights are sparse, or overflow.
    """
    role = "B" if system.form == "lure" else "W"
    changed = copy.copy(system)
    tensors = {**system.tensors, role: tensor(role, scale * system.matrix(role))}
    object.__setattr__(changed, "tensors", tensors)
    object.__setattr__(changed, "file", None)
    return changed


def certified_scale(
    system: System, multipliers: Array | None = None, monitor: Monitor | None = None, limit: float | None = None
) -> float | None:
    """The largest scale found with a verified ``lure`` proof, or None.

    Args:
        system: the network, dense.
        multipliers: Q to begin with, shape (m,).
        monitor: time limit and cancellation.
        limit: a scale known to be too large.
    """
    monitor = monitor or Monitor()
    leak = UniformLeak.of(system)
    if leak is None:
        return _bisected(system, monitor, limit)
    family, room = _border_family(leak)
    found = scaling.optimise(leak.weights, family, tolerance=_TOLERANCE, start=multipliers, monitor=monitor)
    if not 0.0 < found.level < math.inf:
        return None
    for inside in _INSIDE:
        scale = room / found.level * (1.0 - inside)
        if math.isfinite(scale) and _proven(scaled(system, scale), found.q):
            return scale
    return None


def _border_family(leak: UniformLeak) -> tuple[conic.Family, float]:
    """Levels that are proportional to the scale, and the one that belongs to rate 0 or factor 1."""
    a = None if leak.system.continuous else leak.leak
    if isinstance(leak.family, conic.Norm):
        return leak.family, 1.0 if a is None else (1.0 - abs(1.0 - a)) / a
    return (conic.Level(0.5, 0.5), 1.0) if a is None else (conic.Level(1.0 - a, 1.0), 2.0 - a)


def _proven(system: System, q: Array) -> bool:
    """Whether multipliers q give a verified proof; the claim lies halfway to the best that they allow."""
    leak = UniformLeak.of(system)
    assert leak is not None
    level = conic.best_level(conic.scaled(leak.weights, q), leak.family)
    if level is None:
        return False
    number = 0.5 * (leak.number(level) + (0.0 if system.continuous else 1.0))
    proof = leak.proof(q, number)
    return proof is not None and _holds(system, proof, claim(system, number))


def _holds(system: System, proof: Proof, claims: Claims) -> bool:
    report = verify_contraction(system, proof, claims)
    return report.valid and report.verdict == "contracting"


def _bisected(system: System, monitor: Monitor, limit: float | None) -> float | None:
    """Bisection on a logarithmic scale: a yes is verified, everything else counts as too large."""
    low: float | None = None
    high = limit if limit is not None and limit > 0.0 else None
    for _ in range(_TRIES):
        scale = 1.0 if low is None and high is None else _between(low, high)
        if monitor.over or not 2.0**-_OCTAVES < scale < 2.0**_OCTAVES:
            break
        if _decided(system, scale, monitor):
            low = scale
        else:
            high = scale
        if low is not None and high is not None and high <= (1.0 + _WIDTH) * low:
            break
    return low


def _between(low: float | None, high: float | None) -> float:
    """The next scale to try: the geometric middle, or a factor of 2 or 1/2 from the only one known."""
    if low is None:
        assert high is not None
        return 0.5 * high
    return 2.0 * low if high is None else math.sqrt(low * high)


def _decided(system: System, scale: float, monitor: Monitor) -> bool:
    """Whether ``lure`` proves the network at a scale."""
    changed = scaled(system, scale)
    target = _LITTLE / float(system.tau.max()) if system.continuous else 1.0 - _LITTLE
    decision = CONDITION.decide(changed, Goal(target, seconds=monitor.left, cancelled=monitor.cancelled))
    if isinstance(decision, NothingFound):
        return False
    return any(_holds(changed, candidate.proof, candidate.claims) for candidate in decision)


def refuted_scale(system: System, slopes: Array | None = None, monitor: Monitor | None = None) -> float | None:
    """The smallest scale found with a verified witness, or None.

    Args:
        system: the network, dense.
        slopes: D to begin with, shape (m,); without them the network is searched at full strength.
        monitor: time limit and cancellation.
    """
    monitor = monitor or Monitor()
    slopes, scale = _crossing_slopes(system, slopes, monitor)
    for beyond in _BEYOND if scale is not None else ():
        assert slopes is not None
        assert scale is not None
        larger = scale * (1.0 + beyond)
        if monitor.over:
            return None
        if math.isfinite(larger) and _unstable(scaled(system, larger), slopes, monitor):
            return larger
    return None


def _crossing_slopes(system: System, slopes: Array | None, monitor: Monitor) -> tuple[Array | None, float | None]:
    """Slopes and the scale at which their Jacobian meets the border, as small as the search can make it.

    In continuous time with one time constant the best slopes are the same at every scale. Elsewhere they are sought
    again at the scale found.
    """
    problem = Linearisation.of(system)
    same = problem.continuous and _leak(problem) is not None
    if slopes is None:
        mode = fastest(system, stop=lambda: monitor.over, enough=math.inf)
        slopes = None if mode is None else mode.slopes
    scale = None if slopes is None else _crossing(problem, slopes)
    for _ in range(0 if same else _AGAIN):
        at = _FAR if scale is None else scale
        if monitor.over or not 0.0 < at < math.inf:
            break
        starts = () if slopes is None else (slopes,)
        budget = default_budget(system.size) // _AGAIN
        mode = fastest(scaled(system, at), budget=budget, stop=lambda: monitor.over, enough=math.inf, starts=starts)
        closer = None if mode is None else _crossing(problem, mode.slopes)
        if mode is None or closer is None or (scale is not None and closer >= scale):
            break
        slopes, scale = mode.slopes, closer
    return slopes, scale


def _leak(problem: Linearisation) -> float | None:
    """alpha if A = alpha I, else None."""
    alpha = float(problem.A[0, 0])
    return alpha if np.array_equal(problem.A, alpha * np.eye(len(problem.A))) else None


def _crossing(problem: Linearisation, slopes: Array) -> float | None:
    """The smallest scale s (or one close to it) at which A + s B D C meets the stability border, or None."""
    weights = (problem.B * slopes) @ problem.C
    if not np.isfinite(weights).all():
        return None
    alpha = _leak(problem)
    if alpha is None:
        return _bracketed(problem, weights)
    values = np.linalg.eigvals(weights)
    if problem.continuous:
        lead = float(values.real.max())
        return 0.0 if alpha >= 0.0 else -alpha / lead if lead > 0.0 else None
    if abs(alpha) >= 1.0:
        return 0.0
    # abs(alpha + s lambda) = 1, solved for s > 0
    size, real = np.abs(values[values != 0.0]), values[values != 0.0].real
    inverse = real / size * alpha + np.sqrt((real / size * alpha) ** 2 + 1.0 - alpha * alpha)
    roots = (1.0 - alpha * alpha) / (inverse * size)
    return float(roots.min()) if len(roots) else None


def _bracketed(problem: Linearisation, weights: Array) -> float | None:
    """:func:`_crossing` by bisection."""

    def unstable(scale: float) -> bool:
        jacobian = problem.A + scale * weights
        growth = problem.growths(np.linalg.eigvals(jacobian)) if np.isfinite(jacobian).all() else np.array([np.nan])
        return bool(growth.max() > problem.border)

    if unstable(0.0):
        return 0.0
    high = 1.0
    while not unstable(high):
        high *= 2.0
        if high > 2.0**_OCTAVES:
            return None
    low = 0.5 * high if high > 1.0 else 0.0
    while high - low > _ACCURACY * high and high > 2.0**-_OCTAVES:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if unstable(middle) else (middle, high)
    return high


def _unstable(system: System, slopes: Array, monitor: Monitor) -> bool:
    """Whether slopes give a verified witness."""
    mode = leading_mode(Linearisation.of(system), slopes)
    witness = None if mode is None else witness_at(system, mode, stop=lambda: monitor.over)
    return witness is not None and verify_instability(system, witness).verdict == "not_contracting"
