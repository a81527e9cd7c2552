"""Metric and multipliers of the best level, for any Lur'e system: time constants, assemblies, shifted slopes, maps.

The metric is eliminated (:mod:`certes.engines.response`): what remains is a condition on the multipliers at every
angle of a curve. Interior-point steps for a few angles (:mod:`certes.engines.barrier`) alternate with the exact test
along the whole curve (:mod:`certes.engines.hamiltonian`), which adds the angles that are violated. The result is
confirmed from metric and multipliers alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines import occupation
from certes.engines.hamiltonian import Form
from certes.engines.monitor import Monitor
from certes.engines.path import Path
from certes.engines.peaks import Peak, best, intervals, violated, worst
from certes.engines.response import Response
from certes.engines.sdp import Inequality

Array = NDArray[np.float64]
Stopped = Literal["tolerance", "target", "deadline", "cancelled", "stalled"]

#: Channels up to which the tolerance is at most ACCURATE.
SMALL = 12
ACCURATE = 3e-7
#: Cap on Newton steps.
STEPS = 400
#: Angles that carry less than this share of the dual solution are dropped.
SHARE = 1e-3
#: The search ends where multipliers have moved apart by more than this factor: the supremum is not attained.
SPREAD = 1e12
#: How far behind the best strength a metric is taken, relative to the unit, until one confirms.
BACK = (3e-8, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 3e-4, 3e-3, 3e-2)
#: A metric is good if it has this margin for rounding at a claim this far behind its strength, relative to the unit.
MARGIN, CLAIM = 1e-12, 1e-5
#: Distances from the spectrum of A, relative to the size, at which the curve is first tested: close to the spectrum the
#: test along the curve loses its accuracy.
ROOMS = (3e-7, 1e-5, 1e-3)
#: Share of the gap by which the exact test looks ahead, to ask at an angle before it is violated.
AHEAD = 0.3


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best point found.

    Attributes:
        metric: P, shape (n, n), as :class:`Inequality` means it.
        multipliers: Q = diag of it, shape (m,).
        strength: rate, or minus the factor; ``inequality.score(metric, multipliers)`` is at least this; -inf: none.
        bound: no metric and multipliers beat this strength, in this module's own arithmetic.
        columns: Y, shape (n + m, r), with Z = Y Y^T proving ``bound`` strictly (docs/theory.md, optimality), or None.
        stopped: why the search ended; "target": it is reached, or out of reach.
        rounds: Newton steps.
    """

    metric: Array
    multipliers: Array
    strength: float
    bound: float
    columns: Array | None
    stopped: Stopped
    rounds: int


def optimise(
    inequality: Inequality,
    *,
    tolerance: float = 1e-5,
    target: float | None = None,
    start: Array | None = None,
    monitor: Monitor | None = None,
) -> Optimum:
    """Maximise the strength over metric and multipliers.

    Args:
        inequality: what must hold.
        tolerance: on the strength, relative to the strength (at least to a twentieth of the ceiling).
        target: stop as soon as this strength is reached, or known to be out of reach.
        start: multipliers to start from, shape (m,).
        monitor: time limit, cancellation and progress.

    Raises:
        numpy.linalg.LinAlgError: numbers that are not finite.
    """
    with np.errstate(all="ignore"):  # overflow ends in numbers that are refused
        return _optimise(inequality, tolerance, target, start, Monitor() if monitor is None else monitor)


def _optimise(
    inequality: Inequality, tolerance: float, target: float | None, start: Array | None, watch: Monitor
) -> Optimum:
    response = Response(inequality)
    search = Search(response, _start(response, start), tolerance, target, watch)
    stopped = search.run()
    metric, q, strength = _metric(inequality, search)
    found = Optimum(metric, q, strength, response.ceiling, None, stopped, search.rounds)
    if not np.isfinite(strength) or watch.over:
        return found
    level = max(strength, search.strength)
    proof = occupation.prove(response, search.q, level, search.angles, search.unit, target, watch)
    return found if proof is None else replace(found, bound=proof.strength, columns=proof.columns)


def _start(response: Response, given: Array | None) -> Array:
    """Multipliers that balance rows and columns of G at a few angles, or those given."""
    if given is not None and np.isfinite(given).all() and (given > 0).all():
        return given / float(np.exp(np.log(given).mean()))
    far = response.ceiling - response.size
    size = sum((np.abs(response.at(far, angle)[0]) for angle in response.grid()[:3]), np.zeros(()))
    if not np.isfinite(size).all():
        raise np.linalg.LinAlgError("the frequency response leaves the float range")
    _, (scale, _) = scipy.linalg.matrix_balance(size, permute=False, separate=True)
    q = np.clip(scale, 2.0**-100, 2.0**100) ** -2.0
    return np.asarray(q / float(np.exp(np.log(q).mean())))


class Search:
    """The search for multipliers.

    Attributes:
        first: the multipliers to start from, shape (m,).
        q: the best multipliers so far, shape (m,).
        strength: what they reach, by the exact test along the curve.
        history: these and all that were the best before, with their strengths.
        angles: where that is decided.
        unit: what the tolerance refers to.
        rounds: Newton steps so far.
    """

    def __init__(self, response: Response, q: Array, tolerance: float, target: float | None, watch: Monitor) -> None:
        self.response, self.first, self.target, self.watch, self.rounds = response, q, target, watch, 0
        self.tolerance = min(tolerance, ACCURATE) if response.channels <= SMALL else tolerance
        self.top = response.ceiling - ROOMS[0] * response.size
        for room in ROOMS:
            peak = best(response, q, response.ceiling - room * response.size, [*response.nearest(), *response.grid()])
            if peak.angles:
                break
        else:
            peak = Peak(self.top, ())
        self.history: list[tuple[Array, float]] = []
        self._take(q, peak.strength)
        self.angles = list(peak.angles[-3:])

    @property
    def unit(self) -> float:
        """See the class."""
        return float(max(abs(self.strength), 0.05 * abs(self.response.ceiling), 1e-9 * self.response.size))

    def run(self) -> Stopped:
        """Follow the path to its end."""
        if self.strength >= self.top:
            return "tolerance"
        back = 0.1 * (self.response.ceiling - self.strength)
        path = Path(self.response, self.q, self.strength - back, 1.0, climbing=True)
        path.ask(sorted({*self.response.grid(), *self.angles}))
        asked = np.inf
        for _ in range(STEPS):
            if (why := self.watch.why) is not None:
                return why
            if self._reached():
                return "target"
            held, self.rounds = path.step(), self.rounds + 1
            gap, near = path.gap, path.unbalance < 0.5
            if held and gap > 0.3 * asked:
                continue
            asked, aim = gap, path.strength
            path = self._exact(path)
            self.watch.say(f"lure: step {self.rounds}, within {gap:.2g} of {self.strength:.6g}")
            if near and gap <= self.tolerance * self.unit and self.strength >= aim - self.tolerance * self.unit:
                return "tolerance"
            if self.response.ceiling - self.strength <= self.tolerance * self.unit:
                return "tolerance"
            if not held or _spread(path.q / self.first) > SPREAD:
                return "stalled"
            if self.target is not None and path.strength + 2.0 * gap < self.target:
                return "target"
        return "stalled"

    def _take(self, q: Array, strength: float) -> None:
        self.q, self.strength = q, strength
        self.history.append((q, strength))

    def _reached(self) -> bool:
        return self.target is not None and self.strength > self.target

    def _exact(self, path: Path) -> Path:
        """Take the point if the whole curve allows its strength; else go back, and ask at the angles violated."""
        missed = violated(self.response, path.q, path.strength)
        if not missed:
            raised = min(path.strength + AHEAD * path.gap, self.top)
            parts = intervals(self.response, path.q, raised)
            ahead = [part.middle for part in parts if not part.holds(path.angles)]
            ahead.sort(key=lambda angle: worst(self.response, path.q, path.strength, angle))
            path.ask(ahead[-2:])
            if path.strength > self.strength:
                self._take(path.q, path.strength)
            path.prune(SHARE)
            self.angles = path.angles
            return path
        peak = best(self.response, path.q, path.strength, missed)
        if peak.strength > self.strength:
            self._take(path.q, peak.strength)
        path.prune(SHARE)
        back = Path(self.response, path.q, peak.strength - 5.0 * path.mu, 1.0, climbing=True, mu=path.mu)
        back.ask([*path.angles, *(angle for angle in peak.angles[-2:] if angle not in path.angles)])
        for old, new in zip(path.slacks, back.slacks, strict=False):
            new.X = old.X
        self.angles = back.angles
        return back


def _spread(values: Array) -> float:
    return float(values.max() / values.min())


def _metric(inequality: Inequality, search: Search) -> tuple[Array, Array, float]:
    """Metric, multipliers and confirmed strength: slightly behind the best, from the last multipliers that allow it."""
    found = (np.eye(len(search.response.A)), search.q, -np.inf)
    for q, strength in reversed(search.history):
        if strength <= found[2]:
            break
        metric, confirmed = _metric_for(inequality, search, q, strength)
        if confirmed > found[2]:
            found = (metric, q, confirmed)
        if found[2] >= strength - 1e-3 * search.unit:
            break
    return found


def _metric_for(inequality: Inequality, search: Search, q: Array, strength: float) -> tuple[Array, float]:
    """The metric for given multipliers as close to their best strength as confirms, and that strength."""
    response, unit = search.response, search.unit
    top = best(response, q, min(strength + 0.1 * unit, search.top), search.angles).strength
    metric, confirmed, safest = np.eye(len(response.A)), -np.inf, -np.inf
    for back in BACK:
        for extra in (0.0, 1e-2 * back, back, 10.0 * back):
            try:
                P = Form.at(response, top - back * unit).metric(q, extra * unit)
            except np.linalg.LinAlgError:
                continue
            reached = -np.inf if P is None else inequality.score(P, q)
            if P is None or not np.isfinite(reached):
                continue
            margin = _margin(inequality, P, q, reached - CLAIM * unit)
            near = reached >= top - CLAIM * unit
            if not np.isfinite(confirmed) or (near and margin > safest) or (reached > confirmed and safest <= 0.0):
                metric, confirmed, safest = P, reached, margin
            if reached >= top - 3.0 * back * unit and margin > MARGIN:
                return P, reached
        if back >= CLAIM and safest > 0.0:
            break
    return metric, confirmed


def _margin(inequality: Inequality, P: Array, q: Array, strength: float) -> float:
    """What the Lur'e block at a strength leaves beyond rounding: its least eigenvalue, each row in its own scale."""
    given, order = inequality, sum(inequality.B.shape)
    coupling = given.C.T * (given.gap * q)
    block = _block(P, given.A, given.B, coupling, q, strength, given.continuous)
    P, A, B = np.abs(P), np.abs(given.A), np.abs(given.B)
    sizes = _block(P, A, B, np.abs(coupling), q, abs(strength), given.continuous)
    scale = np.diagonal(block)
    if not (np.isfinite(sizes).all() and (scale > 0.0).all()):
        return -np.inf
    root = np.sqrt(scale)
    lost = float((np.abs(sizes) / root[:, None] / root[None, :]).sum(axis=1).max())
    least = float(np.linalg.eigvalsh(block / root[:, None] / root[None, :])[0])
    return least - float(np.finfo(float).eps) * order * lost


def _block(P: Array, A: Array, B: Array, coupling: Array, q: Array, strength: float, continuous: bool) -> Array:
    """The block that the verifier asks to be positive definite (a map: of order 2 n + m, linear in A and B)."""
    if continuous:
        drift, row = P @ (A + strength * np.eye(len(A))), P @ B + coupling
        return np.block([[-(drift + drift.T), -row], [-row.T, 2.0 * np.diag(q)]])
    PA, PB = P @ A, P @ B
    kept = strength * strength * P
    return np.block([[kept, -coupling, PA.T], [-coupling.T, 2.0 * np.diag(q), PB.T], [PA, PB, P]])
