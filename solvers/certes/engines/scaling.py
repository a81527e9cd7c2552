"""The diagonal scaling Q that makes the level of A = Q^1/2 M Q^-1/2 best.

For uniform leak the Lur'e inequality is a condition on Q alone: the field of values of A must lie in a convex region of
a one-parameter family (:mod:`certes.engines.families`). The price of A is quasi-convex in Q. It is minimised over
d = log(q)/2 by a proximal bundle (:mod:`certes.engines.bundle`) whose cuts hold for every Q and every family, with
eigenvectors from :mod:`certes.engines.eigen`. Every answer is confirmed by cyclic reduction
(:func:`certes.engines.conic.reaches`), which misses no angle.

The infimum need not be attained (reducible M): cond(Q) is capped at :data:`CAP` beyond a
balancing by powers of two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from certes.engines import conic, starts
from certes.engines.bundle import Cuts, Multipliers, advise
from certes.engines.duality import Columns
from certes.engines.eigen import APART, Bar, Field
from certes.engines.families import SMALLEST, Family, Norm
from certes.engines.monitor import Monitor

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Largest cond(Q) beyond a balancing by powers of two.
CAP = 1e60
#: Largest abs(log(q)/2) of that balancing.
WIDEST_BALANCE = 160.0 * math.log(2.0)
#: Cuts kept.
MOST_CUTS = 90
#: Angles from which one look takes cuts, at most.
MOST_RAYS = 12
#: Steps, at most.
_ROUNDS = 400
#: Steps within which the level has to improve by half the tolerance.
_PATIENCE = 50
#: Angles of a first look.
_WIDE = (0.0, 0.1, 0.25, 0.45, 0.8, 1.3, 1.8, 2.3, 2.8, math.pi)
#: Relative steps by which the level is raised until it is confirmed.
_RAISES = tuple(3.0**k for k in range(20))

Stopped = Literal["tolerance", "target", "deadline", "cancelled", "stalled"]


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best scaling found.

    Attributes:
        q: diagonal of Q, geometric mean 1, shape (n,).
        level: a level that q reaches, confirmed by cyclic reduction.
        bound: a level that no q beats, in float arithmetic, or None where the multipliers of the search prove none.
        columns: the vectors of the last multipliers, which prove the bound if there is one; else a start for a proof.
        stopped: why the search ended; "stalled" where cond(q) is at its cap or steps no longer pay.
        rounds: steps taken.
    """

    q: Array
    level: float
    bound: float | None
    columns: Columns | None
    stopped: Stopped
    rounds: int

    @property
    def condition(self) -> float:
        """cond(Q)."""
        return float(self.q.max() / self.q.min())


def optimise(
    m: Array,
    family: Family,
    *,
    tolerance: float,
    target: float | None = None,
    start: Array | None = None,
    monitor: Monitor | None = None,
) -> Optimum:
    """Minimise over diagonal Q > 0; the level of an infinite price if none can be confirmed (overflow, no step).

    Args:
        m: M, shape (n, n).
        family: which level is meant.
        tolerance: stop when the level cannot improve by more than this, relative to its price.
        target: stop as soon as this level is reached.
        start: a first q, shape (n,).
        monitor: time limit, cancellation and progress.
    """
    m = np.asarray(m, dtype=np.float64)
    if not np.isfinite(m).all():
        return _nothing(family, len(m))
    with np.errstate(all="ignore"):  # overflow ends in inf or NaN, and those are looked for
        return _Search(m, family, tolerance, monitor or Monitor()).run(start, target)


def _nothing(family: Family, size: int) -> Optimum:
    return Optimum(np.ones(size), family.level(math.inf), None, None, "stalled", 0)


class _Search:
    """The state of one search.

    Attributes:
        d: the centre, in the coordinates of the balanced M.
        best: its price.
        cuts, age: the bundle, and for how many steps each cut has had no weight.
        angles: where the price was reached.
        u: weight of the proximal term.
    """

    def __init__(self, m: Array, family: Family, tolerance: float, monitor: Monitor) -> None:
        room = 0.25 * math.log(CAP)  # abs(d) <= room gives cond(exp 2 d) <= CAP
        self.balance = np.log(starts.balancing(m, WIDEST_BALANCE))
        self.lowest, self.highest = -room, room
        self.m = conic.scaled(m, np.exp(2.0 * self.balance))
        self.m[np.abs(self.m) < 1e-290] = 0.0  # decompositions dislike subnormal numbers
        # norms are squared: keep the squares inside the float range
        self.size = float(2.0 ** np.frexp(np.abs(self.m).max())[1]) if isinstance(family, Norm) and m.any() else 1.0
        self.original, self.m = m / self.size, self.m / self.size
        self.family, self.tolerance, self.monitor = family, tolerance, monitor
        self.field = Field(self.m, family, monitor=monitor)
        self.gram = isinstance(family, Norm)
        self.cuts, self.age, self.weights = Cuts.none(len(m)), np.zeros(0), np.zeros(0)
        self.angles: list[float] = [0.0]
        self.d, self.best, self.u, self.nulls, self.rounds = np.zeros(len(m)), math.inf, 1.0, 0, 0
        self.capped = False

    @property
    def q(self) -> Array:
        """diag(Q) of the centre, in the coordinates of M, with geometric mean 1."""
        total = self.d + self.balance
        return np.asarray(np.exp(2.0 * (total - total.mean())))

    @property
    def unit(self) -> float:
        """What tolerances are relative to."""
        return self.unit_at(self.best)

    def unit_at(self, price: float) -> float:
        """What a tolerance is relative to at a price."""
        level = self.family.level(price)
        unit = abs(self.family.cost(self.family.relax(level, 1.0)) - self.family.cost(level))
        return unit if unit > 0.0 else max(abs(price), SMALLEST)  # no step at all: relative to the parabola

    def look(self, d: Array, thetas: Sequence[float], bar: Bar | None, accuracy: float, margin: float) -> float:
        """Look, keep the cuts and angles within ``margin`` of the best, return the price."""
        fine = float(np.clip(0.3 * math.sqrt(self.tolerance), 1e-4, APART))
        price = self.best if math.isfinite(self.best) else 1.0
        rays = self.field.look(d, price, [0.0] if self.gram else thetas, bar, accuracy, fine)
        best = max(ray.price for ray in rays)
        if not math.isfinite(best):
            return math.inf
        near = sorted((ray for ray in rays if ray.price >= best - margin), key=lambda ray: -ray.price)[:MOST_RAYS]
        kept = [ray.prices >= best - margin for ray in near]
        y = np.concatenate([ray.y[:, keep] for ray, keep in zip(near, kept, strict=True)], axis=1)
        my = np.concatenate([ray.my[:, keep] for ray, keep in zip(near, kept, strict=True)], axis=1)
        self.cuts = self.cuts.joined(Cuts.of(y, my, self.gram))
        self.age = np.concatenate([self.age, np.zeros(y.shape[1])])
        self.angles = _apart([ray.theta for ray in near], 2.0 * fine)
        return best

    def begin(self, start: Array | None) -> None:
        """Take the best of a few scalings."""
        guesses = [np.zeros(len(self.m)), *starts.guesses(self.m, 0.5 * math.log(CAP))]
        if start is not None:
            guesses.append(0.5 * np.log(start) - self.balance)
        for guess in guesses:
            d = np.clip(guess - 0.5 * (guess.max() + guess.min()), self.lowest, self.highest)
            if not np.isfinite(d).all():
                continue
            price = self.look(d, _WIDE, None, math.inf, math.inf)
            price = max(price, self.look(d, _WIDE, None, 1e-2 * self.unit_at(price), math.inf))
            if price < self.best - (0.1 * self.tolerance * self.unit if self.best < math.inf else 0.0):
                self.best, self.d = price, d
            if self.monitor.over:
                break
        self.cuts, self.age = Cuts.none(len(self.d)), np.zeros(0)
        slack = 1e-3 * self.unit
        self.best = self.look(self.d, _WIDE, Bar(math.inf, slack), slack, 100.0 * slack)
        self.u = max(abs(self.best), SMALLEST)

    def run(self, start: Array | None, target: float | None) -> Optimum:
        """Search, confirm, and search on if cyclic reduction has seen a maximum that was missed."""
        self.begin(start)
        if not math.isfinite(self.best):
            return _nothing(self.family, len(self.m))
        target = None if target is None else target / self.size
        slack = 2e-6
        while True:
            goal = -math.inf if target is None else self.family.cost(self.family.relax(target, -slack))
            stopped = self.search(goal)
            level = self.confirm(stopped)
            if level is None or (stopped == "target" and self.family.cost(level) > self.family.cost(target or level)):
                slack *= 5.0
            else:
                break
        bound, columns = self.dual()
        if (
            stopped == "stalled"
            and bound is not None
            and self.best - self.family.cost(bound) <= self.tolerance * self.unit
        ):
            stopped = "tolerance"
        reached = None if bound is None else bound * self.size
        return Optimum(self.q, level * self.size, reached, columns, stopped, self.rounds)

    def search(self, goal: float) -> Stopped:
        """Steps until the model promises nothing more."""
        mark = self.best
        while self.rounds < _ROUNDS:
            self.rounds += 1
            if (why := self.monitor.why) is not None:
                return why
            if self.best <= goal:
                return "target"
            enough = self.tolerance * self.unit
            if self.rounds % _PATIENCE == 0:
                if self.best > mark - 0.5 * enough:
                    return "stalled"
                mark = self.best
            x, promised, slope = self.advise()
            if promised < 0.2 * enough and slope < 2.0 * enough:
                price = self.look(self.d, self.angles, Bar(math.inf, 0.1 * enough), 0.02 * enough, 0.01 * self.unit)
                if price <= self.best + 0.2 * enough:
                    self.best = max(self.best, price)
                    return "stalled" if self.capped else "tolerance"
                self.best = price
            else:
                self.step(x, promised)
        return "stalled"

    def advise(self) -> tuple[Array, float, float]:
        """A step within the cap, by how much the model says the price falls, and the slope of the model."""
        values, gradients = self.cuts.prices(self.d, self.family)
        self.best = max(self.best, float(values.max()))
        free = np.ones(len(self.d), dtype=bool)
        for _ in range(4):
            advice = advise(values, gradients * free, self.u)
            x = np.clip(self.d + advice.x, self.lowest, self.highest) - self.d
            stuck = free & (x == 0.0) & (advice.x != 0.0)
            if not stuck.any():
                break
            free &= ~stuck
        self.capped = not free.all()
        self.weights = advice.weights
        promised = self.best - float((values + gradients @ x).max())
        return x, promised, self.u * float(np.linalg.norm(advice.x))

    def step(self, x: Array, promised: float) -> None:
        """Go there if the price falls as promised, else learn from the new cuts."""
        self.prune()
        sufficient = self.best - 0.1 * promised
        limit = sufficient if self.rounds % 8 else math.inf
        bar, margin = Bar(limit, 0.1 * promised), max(4.0 * promised, 0.01 * self.unit)
        price = self.look(self.d + x, self.angles, bar, 0.05 * promised, margin)
        gained = self.best - price
        if price <= sufficient and promised > 0.0:
            self.d, self.best, self.nulls = self.d + x, price, 0
            self.monitor.say(f"round {self.rounds}: level {self.family.level(price):.6g}")
            if gained > 0.5 * promised:
                self.u *= 0.5
            return
        self.nulls += 1
        if not gained >= -promised or self.nulls > 6:
            self.u, self.nulls = 2.0 * self.u, 0

    def prune(self) -> None:
        """Drop cuts that have had no weight for a while."""
        self.age = np.where(self.weights > 1e-6, 0.0, self.age + 1.0)
        rows = np.flatnonzero(self.age < 8)
        if len(rows) > MOST_CUTS:
            rows = np.sort(np.argsort(self.age, kind="stable")[:MOST_CUTS])
        self.cuts, self.age, self.weights = self.cuts.taken(rows), self.age[rows], self.weights[rows]

    def confirm(self, stopped: Stopped) -> float | None:
        """A level that cyclic reduction confirms, barely raised; None after a cut that calls for more steps."""
        a = conic.scaled(self.original, self.q)
        first = max(1e-9, 0.03 * self.tolerance) if stopped == "tolerance" else 1e-6
        for count, raise_ in enumerate(_RAISES):
            raised = self.family.relax(self.family.level(self.best), first * raise_)
            if conic.reaches(a, self.family, raised):
                return raised
            if count in (0, 4) and (arcs := self.field.missed(self.d, self.family.cost(raised))):
                before = self.best
                found = self.look(self.d, arcs, None, 0.1 * first * self.unit, 0.01 * self.unit)
                self.best = max(before, found)
                if stopped == "tolerance" and found > before + 0.5 * self.tolerance * self.unit:
                    return None
        return self.family.level(math.inf)

    def dual(self) -> tuple[float | None, Columns | None]:
        """The level that the multipliers of the last step prove out of reach, and the vectors that carry weight."""
        rows = np.flatnonzero(self.weights > 1e-6)
        if not rows.size:
            return None, None
        weights = Multipliers.of(self.cuts.taken(rows), self.weights[rows], self.d, self.best, self.family)
        bound = weights.bound(self.best, 0.5 * self.unit, self.family)
        columns = Columns(weights.u, weights.cuts.y.T * np.exp(-self.balance)[:, None])
        return None if bound is None else self.family.level(bound), columns


def _apart(thetas: list[float], distance: float) -> list[float]:
    """The first few angles that differ."""
    kept: list[float] = []
    for theta in thetas:
        if all(abs(theta - other) > distance for other in kept) and len(kept) < 4:
            kept.append(theta)
    return kept
