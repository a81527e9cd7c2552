"""Condition ``lure``: a metric P > 0 and diagonal multipliers Q > 0 that solve the Lur'e inequality.

Law (S-procedure). With the normal form (A, B, C), slopes in [0, g], G = diag(g):

    continuous   [[P A + A^T P + 2 c P, P B + C^T G Q], [., -2 Q]] <= 0                  implies rate c
    map          [[A^T P A - rho^2 P, A^T P B + C^T G Q], [., B^T P B - 2 Q]] <= 0       implies factor rho

It is the sharpest condition known that needs no enumeration of slope patterns (A. Gokhale, A. Proskurnikov, Y. Kawano,
F. Bullo, arXiv 2604.00119). Networks with one time constant and slopes from 0 have *uniform leak*: there the inequality
is a condition on Q alone, and the metric follows from Q by cyclic reduction, with a margin
(:mod:`certes.engines.conic`).
Everything else keeps the solver's own metric, at a level slightly below the best. Hopfield networks are proven in the
transposed system, where their weights sit in C (``dual``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.conditions.base import Candidate, Decision, Goal, NothingFound
from certes.engines import conic, sdp
from certes.engines.monitor import Monitor
from certes.errors import MissingExtraError
from certes.proofs import Claims, LureProof
from certes.systems import System
from certes.verify.reduction import midpoint

Array = NDArray[np.float64]

#: By how much candidates fall behind the best level, relative; each gives the verifier more margin.
BACK_OFFS = (1e-6, 1e-5, 1e-4, 1e-3)
#: Order n + m up to which ``auto`` takes Clarabel; above it SCS.
AUTO_CLARABEL = 64
#: States up to which a starting guess of the multipliers is tried where no backend takes the system.
LARGEST_GUESS = 600


@dataclass(frozen=True, eq=False)
class Setting:
    """A system in the shape that the engines take, and the way back.

    Attributes:
        system: what was asked.
        inequality: the normal form, transposed if ``dual``.
        dual: whether proofs speak of the transposed system.
        family: the level family for uniform leak, else None.
        weights: diag(g) W, or diag(g) W^T for a dual proof; shape (n, n); uniform leak only.
    """

    system: System
    inequality: sdp.Inequality
    dual: bool
    family: conic.Rate | conic.Factor | None
    weights: Array

    @classmethod
    def of(cls, system: System) -> Setting:
        """Reduce; numbers are rounded to float64, which the verifier will not do."""
        A, B, C, gap = midpoint(system)
        dual = system.form == "hopfield"
        if dual:
            A, B, C = A.T, C.T, B.T
        family = leak_family(system)
        weights = system_weights(system) if family is not None else np.zeros((0, 0))
        return cls(system, sdp.Inequality(A, B, C, gap, system.continuous), dual, family, weights)

    @property
    def time(self) -> float:
        """The unit of the family's rates: tau in continuous time, 1 for a map."""
        return float(self.system.tau[0]) if self.system.continuous else 1.0

    def strength(self, level: float) -> float:
        """Strength (rate per unit of time, or minus the factor) of a level of the family."""
        return level / self.time if self.system.continuous else -level

    def level(self, strength: float) -> float:
        """Level of the family that belongs to a strength."""
        return strength * self.time if self.system.continuous else -strength

    def refine(self, point: sdp.Point) -> sdp.Point | None:
        """Score a point: from its multipliers alone for uniform leak, else from metric and multipliers."""
        q = point.multipliers
        if self.family is not None:
            best = conic.best_level(conic.scaled(self.weights, q), self.family)
            return None if best is None else sdp.Point(point.metric, q, self.strength(best))
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


def system_weights(system: System) -> Array:
    """diag(g) W (rate) or diag(g) W^T (hopfield, for its dual proof), g the gap of the slopes; shape (n, n)."""
    weights = system.matrix("W")
    weights = weights.T if system.form == "hopfield" else weights
    return np.asarray(system.slope.gap[:, None] * weights)


def leak_family(system: System) -> conic.Rate | conic.Factor | None:
    """The family of levels if the system has uniform leak and slopes from 0, else None."""
    if system.form == "lure" or not system.uniform_tau or bool(system.slope.lower.any()):
        return None
    if system.step is None:
        return conic.Rate()
    a = system.step / float(system.tau[0])
    return conic.Factor(a) if a < 2.0 else None


def _perron_scaling(weights: Array) -> Array:
    """q = l / r from the Perron vectors of abs(W), balanced first and made irreducible by a small constant."""
    size = np.abs(weights)
    if not size.any() or not np.isfinite(size).all():
        return np.ones(len(size))
    size, (scale, _) = scipy.linalg.matrix_balance(size, permute=False, separate=True)
    size = size + 1e-3 * max(float(size.mean()), np.finfo(float).tiny)
    right, left = np.ones(len(size)), np.ones(len(size))
    for _ in range(200):
        right, left = size @ right, size.T @ left
        right, left = right / right.max(), left / left.max()
    q = left / right / scale**2
    return np.asarray(np.clip(q / q.max(), 1e-60, 1.0))


def uniform_proof(setting: Setting, q: Array, level: float) -> LureProof | None:
    """The proof that multipliers q give for uniform leak at a level of its family, or None for no."""
    assert setting.family is not None
    P = conic.metric(setting.weights, q, setting.family, level)
    if P is None:
        return None
    tau = float(setting.system.tau[0])
    multipliers = q
    if setting.system.continuous:
        P, multipliers = tau * P, q * (tau * tau if setting.dual else 1.0)
    elif setting.dual:
        assert setting.system.step is not None
        multipliers = q * (tau / setting.system.step) ** 2
    return lure_proof(P, multipliers, setting.dual)


def lure_proof(metric: Array, multipliers: Array, dual: bool) -> LureProof:
    """A proof with an exactly symmetric metric, scaled by a power of two to a largest entry near 1."""
    scale = 2.0 ** -float(np.frexp(np.abs(metric).max())[1])
    P = 0.5 * (metric + metric.T) * scale
    P[np.abs(P) < 1e-290] = 0.0
    return LureProof(P, np.asarray(multipliers * scale), dual, 0.0, np.inf, 0.0, 0.0)


class Lure:
    """The condition; see the module's docstring for its law."""

    name = "lure"
    version = 1

    def applies(self, system: System) -> str | None:
        """Every system with dense weights."""
        return "the weights are sparse; 'lure' needs a dense matrix" if system.is_sparse else None

    def decide(self, system: System, goal: Goal) -> Decision:
        """Candidates for the best level (or the target), each slightly further behind it."""
        if (why := self.applies(system)) is not None:
            return NothingFound("not-applicable", why)
        setting = Setting.of(system)
        parts = (setting.inequality.A, setting.inequality.B, setting.inequality.C)
        if not all(np.isfinite(part).all() and np.abs(part).max() < 1e150 for part in parts):
            return NothingFound("solver", "entries beyond 1e150: rescale the weights")
        start = setting.start()
        target = None if goal.target is None else goal.target if system.continuous else -goal.target
        if setting.family is not None and target is not None and start.strength >= target:
            candidates = _uniform_candidates(setting, start, target)
            if candidates:
                return candidates  # no solver is needed for what is asked
        backend = _backend(setting, goal)
        if isinstance(backend, NothingFound):
            return _guess(setting, start, target, backend)
        try:
            program = sdp.Margin(setting.inequality, backend, *setting.coordinates(start))
        except MissingExtraError as error:
            return NothingFound("missing-extra", str(error))
        clock = goal.monitor()
        found = sdp.search(program, setting.refine, start, clock, target=target)
        if found.point is None:
            if found.stopped == "deadline":
                return NothingFound("deadline", "out of time before the first usable numbers")
            return NothingFound("solver", "the solver returned no usable numbers")
        candidates = _candidates(setting, program, found.point, clock, target)
        return candidates or _nothing(setting, found, target)


def _backend(setting: Setting, goal: Goal) -> sdp.CvxpyBackend | NothingFound:
    """The backend to use, or why there is none for this size."""
    order = sum(setting.inequality.B.shape)
    name = goal.backend
    if name == "auto":
        name = "cvxpy-clarabel" if order <= AUTO_CLARABEL else "cvxpy-scs"
    backend = sdp.BACKENDS[name]()
    if order <= backend.max_order:
        return backend
    limit = f"{name} takes systems up to n + m = {backend.max_order}; this one has {order}"
    return NothingFound("too-large", limit)


def _guess(setting: Setting, start: sdp.Point, target: float | None, refusal: NothingFound) -> Decision:
    """Where no solver takes the system: uniform leak can still be proven from the starting multipliers."""
    if setting.family is None or setting.system.size > LARGEST_GUESS or not np.isfinite(start.strength):
        return refusal
    candidates = _uniform_candidates(setting, start, target)
    level = setting.inequality.level(start.strength)
    detail = f"{refusal.detail}; the scaling by Perron vectors, not optimised, comes to {level:.6g}"
    return candidates or NothingFound("too-large", detail, level)


def _nothing(setting: Setting, found: sdp.Found, target: float | None) -> NothingFound:
    assert found.point is not None
    level = setting.inequality.level(found.point.strength)
    word = "rate" if setting.system.continuous else "factor"
    detail = f"the best {word} found is {level:.6g}"
    if target is not None:
        bound = setting.inequality.level(found.ceiling)
        detail += f", {setting.inequality.level(target):.6g} was asked for and {bound:.6g} is out of reach"
    if found.stopped == "deadline":
        return NothingFound("deadline", f"out of time; so far {detail}", level)
    return NothingFound("solver" if found.stopped == "solver" else "margin", detail, level)


def _candidate(setting: Setting, proof: LureProof, strength: float) -> Candidate | None:
    """A candidate, unless its claim would be no claim (rate <= 0, factor outside (0, 1))."""
    if setting.system.continuous:
        return Candidate(proof, Claims(rate=strength)) if strength > 0.0 else None
    return Candidate(proof, Claims(factor=-strength)) if 0.0 < -strength < 1.0 else None


def _candidates(
    setting: Setting, program: sdp.Margin, best: sdp.Point, clock: Monitor, target: float | None
) -> tuple[Candidate, ...]:
    if setting.family is not None:
        return _uniform_candidates(setting, best, target)
    return _general_candidates(setting, program, best, clock, target)


def _uniform_candidates(setting: Setting, best: sdp.Point, target: float | None) -> tuple[Candidate, ...]:
    """Metrics by cyclic reduction from the best multipliers, at levels slightly behind the best."""
    assert setting.family is not None
    level = setting.level(best.strength)
    levels = [setting.family.relax(level, back) for back in BACK_OFFS]
    strengths = [setting.strength(entry) for entry in levels]
    if target is not None:
        strengths = [target] if target <= best.strength else []
    found: list[Candidate] = []
    for strength in strengths:
        if _candidate(setting, _NO_PROOF, strength) is None:
            continue
        proof = uniform_proof(setting, best.multipliers, setting.level(strength))
        entry = None if proof is None else _candidate(setting, proof, strength)
        if entry is not None:
            found.append(entry)
    return tuple(found)


def _general_candidates(
    setting: Setting, program: sdp.Margin, best: sdp.Point, clock: Monitor, target: float | None
) -> tuple[Candidate, ...]:
    """The solver's metric: the best one close to its level, then new ones with the largest margin further behind."""
    unit = max(abs(best.strength), abs(setting.inequality.ceiling()))
    claims = [best.strength - back * unit for back in BACK_OFFS]
    if target is not None:
        claims = [target] if target <= best.strength else []
    claims = [claim for claim in claims if _candidate(setting, _NO_PROOF, claim) is not None]
    found: list[Candidate | None] = []
    for claim in claims:
        points = [best]
        if (target is not None or claim <= best.strength - 1e-4 * unit) and not clock.over:
            raw = program.solve(claim, clock.left)
            fresh = None if raw is None else setting.refine(raw)
            points = [fresh, best] if fresh is not None and fresh.strength >= claim else [best]
        for point in points:
            proof = lure_proof(point.metric, point.multipliers, setting.dual)
            found.append(_candidate(setting, proof, claim))
    return tuple(entry for entry in found if entry is not None)


_NO_PROOF = LureProof(np.eye(1), np.ones(1), False, 0.0, np.inf, 0.0, 0.0)
CONDITION = Lure()
