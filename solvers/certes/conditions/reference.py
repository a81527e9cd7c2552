"""The reference backends of the condition ``lure``: semidefinite programs through cvxpy, for small systems.

They are the judge of our own engines in the tests, and selectable (``backend="cvxpy-clarabel"``, ``"cvxpy-scs"``).
Networks with uniform leak take only the multipliers from the solver; their level and metric follow from those in closed
form (:mod:`certes.conditions.uniform`). Everything else keeps the solver's own metric, at a level slightly below the
best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.conditions.base import BACK_OFFS, Candidate, Decision, Goal, NothingFound, claim, is_claim
from certes.conditions.uniform import UniformLeak, lure_proof, system_weights, uniform_candidates
from certes.engines import conic, sdp, starts
from certes.engines.monitor import Monitor
from certes.errors import MissingExtraError
from certes.systems import System
from certes.verify.reduction import midpoint

Array = NDArray[np.float64]

#: Largest abs(log d) of the balancing d of a starting point.
_ROOM = 69.0


def reduced(system: System) -> sdp.Inequality:
    """The Lur'e inequality of a system, rounded to float64; transposed for a hopfield network (its dual proof)."""
    A, B, C, gap = midpoint(system)
    if system.form == "hopfield":
        A, B, C = A.T, C.T, B.T
    return sdp.Inequality(A, B, C, gap, system.continuous)


@dataclass(frozen=True, eq=False)
class Setting:
    """A system in the shape that the solvers take.

    Attributes:
        system: what was asked.
        inequality: see :func:`reduced`.
        leak: the system as one with uniform leak and slopes from 0, else None.
    """

    system: System
    inequality: sdp.Inequality
    leak: UniformLeak | None

    @classmethod
    def of(cls, system: System) -> Setting:
        """Reduce; numbers are rounded to float64, which the verifier will not do."""
        leak = UniformLeak.of(system)
        return cls(system, reduced(system), None if leak is None or isinstance(leak.family, conic.Norm) else leak)

    def refine(self, point: sdp.Point) -> sdp.Point | None:
        """Score a point: from its multipliers alone for uniform leak, else from metric and multipliers."""
        q = point.multipliers
        if self.leak is not None:
            best = conic.best_level(conic.scaled(self.leak.weights, q), self.leak.family)
            return None if best is None else sdp.Point(point.metric, q, self.inequality.level(self.leak.number(best)))
        tries = ((self.inequality.score(point.metric, s * q), s) for s in 4.0 ** np.arange(-3, 4))
        strength, share = max(tries, key=lambda entry: entry[0])
        return sdp.Point(point.metric, share * q, strength) if np.isfinite(strength) else None

    def start(self) -> sdp.Point:
        """The better of Q = I and the Perron scaling of abs(W); strength -inf where neither works."""
        n, m = self.inequality.B.shape
        guesses = [np.ones(m)]
        if n == m and self.system.form != "lure":
            guesses.append(_perron_scaling(system_weights(self.system)))
        points = []
        for q in guesses:
            weight = self.system.tau * q if n == m else np.ones(n)
            points.append(self.refine(sdp.Point(np.diag(weight), q)))
        scored = [point for point in points if point is not None]
        if not scored:
            return sdp.Point(np.eye(n), guesses[-1])
        return max(scored, key=lambda point: point.strength)

    def coordinates(self, start: sdp.Point) -> tuple[Array, Array]:
        """Coordinates of state and channel in which the solver works, from a starting point."""
        state = np.sqrt(np.diagonal(start.metric))
        return state / state.max(), np.sqrt(start.multipliers) / state.max()


def _perron_scaling(weights: Array) -> Array:
    """q = l / r from the Perron vectors of abs(W), balanced first."""
    if not np.isfinite(weights).all():
        return np.ones(len(weights))
    d = starts.balancing(weights, _ROOM)
    q = d**2 * np.exp(2.0 * starts.perron(np.abs(d[:, None] * weights / d[None, :])))
    return np.asarray(np.clip(q / q.max(), 1e-60, 1.0))


def decide(system: System, goal: Goal) -> Decision:
    """Candidates of the backend that the goal names, for the best level or the target."""
    setting, monitor = Setting.of(system), goal.monitor()
    backend = sdp.BACKENDS[goal.backend]()
    order = sum(setting.inequality.B.shape)
    if order > backend.max_order:
        limit = f"{backend.name} takes systems up to n + m = {backend.max_order}; this one has {order}"
        return NothingFound("too-large", limit)
    start = setting.start()
    target = None if goal.target is None else setting.inequality.level(goal.target)
    if setting.leak is not None and goal.target is not None and start.strength >= setting.inequality.level(goal.target):
        candidates = uniform_candidates(setting.leak, start.multipliers, goal.target, goal.target)
        if candidates:
            return candidates  # no solver is needed for what is asked
    try:
        program = sdp.Margin(setting.inequality, backend, *setting.coordinates(start))
    except MissingExtraError as error:
        return NothingFound("missing-extra", str(error))
    found = sdp.search(program, setting.refine, start, monitor, target=target)
    if found.point is None:
        if (why := monitor.why) is not None:
            return NothingFound(why, "stopped before the first usable numbers")
        return NothingFound("solver", "the solver returned no usable numbers")
    if setting.leak is None:
        candidates = _general_candidates(setting, program, found.point, monitor, target)
    else:
        best = setting.inequality.level(found.point.strength)
        candidates = uniform_candidates(setting.leak, found.point.multipliers, best, goal.target)
    return candidates or _nothing(setting, found, target, monitor)


def _nothing(setting: Setting, found: sdp.Found, target: float | None, monitor: Monitor) -> NothingFound:
    assert found.point is not None
    level = setting.inequality.level(found.point.strength)
    word = "rate" if setting.system.continuous else "factor"
    detail = f"the best {word} found is {level:.6g}"
    if target is not None:
        bound = setting.inequality.level(found.ceiling)
        detail += f", {setting.inequality.level(target):.6g} was asked for and {bound:.6g} is out of reach"
    if (why := monitor.why) is not None:
        return NothingFound(why, f"stopped; so far {detail}", level)
    return NothingFound("solver" if found.stopped == "solver" else "margin", detail, level)


def _general_candidates(
    setting: Setting, program: sdp.Margin, best: sdp.Point, monitor: Monitor, target: float | None
) -> tuple[Candidate, ...]:
    """The solver's metric: the best one close to its level, then new ones with the largest margin further behind."""
    unit = max(abs(best.strength), abs(setting.inequality.ceiling()))
    strengths = [best.strength - back * unit for back in BACK_OFFS]
    if target is not None:
        strengths = [target] if target <= best.strength else []
    found: list[Candidate] = []
    for strength in strengths:
        number = setting.inequality.level(strength)
        if not is_claim(setting.system.continuous, number):
            continue
        points = [best]
        if (target is not None or strength <= best.strength - 1e-4 * unit) and not monitor.over:
            raw = program.solve(strength, monitor.left)
            fresh = None if raw is None else setting.refine(raw)
            points = [fresh, best] if fresh is not None and fresh.strength >= strength else [best]
        for point in points:
            proof = lure_proof(point.metric, point.multipliers, setting.system.form == "hopfield")
            found.append(Candidate(proof, claim(setting.system, number)))
    return tuple(found)
