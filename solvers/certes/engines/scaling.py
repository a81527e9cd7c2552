"""The diagonal scaling Q that makes the level of A = Q^1/2 M Q^-1/2 best.

For uniform leak the Lur'e inequality is a condition on Q alone: the field of values of A must lie in a convex region of
a one-parameter family (:mod:`certes.engines.families`). The price of A is quasi-convex in Q. It is minimised over
d = log(q)/2 by a proximal bundle (:mod:`certes.engines.bundle`) whose cuts hold for every Q and every family, with
eigenvectors from :mod:`certes.engines.eigen`. Every answer is confirmed by cyclic reduction
(:func:`certes.engines.conic.reaches`), which misses no angle.

The infimum need not be attained (reducible M): cond(Q) is capped at :data:`CAP`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines import conic
from certes.engines.bundle import Cuts, advise
from certes.engines.eigen import APART, Bar, Field
from certes.engines.families import SMALLEST, Family, Norm
from certes.engines.monitor import Monitor

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Largest cond(Q).
CAP = 1e60
#: Cuts kept.
MOST_CUTS = 90
#: Steps, at most.
_ROUNDS = 400
#: Angles of a first look.
_WIDE = (0.0, 0.1, 0.25, 0.45, 0.8, 1.3, 1.8, 2.3, 2.8, math.pi)
#: Relative steps by which the level is raised until it is confirmed.
_RAISES = tuple(3.0**k for k in range(16))

Stopped = Literal["tolerance", "target", "deadline", "cancelled", "stalled"]


@dataclass(frozen=True, eq=False)
class Columns:
    """Vectors that prove a bound: sum_k Re(h_k conj(y_ik) (M y_k)_i) - t abs(y_ik)^2 >= 0 for every i.

    Attributes:
        u: points of the unit circle, h_k = c0 + r0 u_k, shape (r,).
        y: vectors with their weights folded in, shape (n, r).
    """

    u: Complex
    y: Complex


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best scaling found.

    Attributes:
        q: diagonal of Q, geometric mean 1, shape (n,).
        level: a level that q reaches, confirmed by cyclic reduction.
        bound: a level that no q beats, in float arithmetic, or None.
        columns: the vectors behind the bound, or None.
        stopped: why the search ended.
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
    with np.errstate(all="ignore"):  # overflow ends in inf or NaN, and those are looked for
        return _Search(np.asarray(m, dtype=np.float64), family, tolerance, monitor or Monitor()).run(start, target)


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
        self.original, self.balance = m, _balancing(m)
        self.m = self.balance[:, None] * m / self.balance[None, :]
        self.family, self.tolerance, self.monitor = family, tolerance, monitor
        self.field = Field(self.m, family)
        self.gram = isinstance(family, Norm)
        self.cuts, self.age = Cuts.none(len(m)), np.zeros(0)
        self.angles: list[float] = [0.0]
        room, spread = 0.25 * math.log(CAP), np.log(self.balance)
        self.lowest, self.highest = -room - spread, room - spread
        self.d, self.best, self.u, self.nulls, self.rounds = np.zeros(len(m)), math.inf, 1.0, 0, 0
        self.weights = np.zeros(0)

    @property
    def unit(self) -> float:
        """What tolerances are relative to."""
        level = self.family.level(self.best)
        return abs(self.family.cost(self.family.relax(level, 1.0)) - self.family.cost(level))

    def look(self, d: Array, thetas: Sequence[float], bar: Bar | None, accuracy: float, margin: float) -> float:
        """Look, keep the cuts and angles within ``margin`` of the best, return the price."""
        fine = float(np.clip(0.3 * math.sqrt(self.tolerance), 1e-4, APART))
        price = self.best if math.isfinite(self.best) else 1.0
        rays = self.field.look(d, price, [0.0] if self.gram else thetas, bar, accuracy, fine)
        best = max(ray.price for ray in rays)
        near = [ray for ray in rays if ray.price >= best - margin]
        kept = [ray.prices >= best - margin for ray in near]
        y = np.concatenate([ray.y[:, keep] for ray, keep in zip(near, kept, strict=True)], axis=1)
        my = np.concatenate([ray.my[:, keep] for ray, keep in zip(near, kept, strict=True)], axis=1)
        self.cuts = self.cuts.joined(Cuts.of(y, my, self.gram))
        self.age = np.concatenate([self.age, np.zeros(y.shape[1])])
        self.angles = _apart([ray.theta for ray in sorted(near, key=lambda ray: -ray.price)], 2.0 * fine)
        return best

    def begin(self, start: Array | None) -> None:
        """Take the best of a few scalings."""
        guesses = [np.zeros(len(self.m)), _perron(self.m)]
        if start is not None:
            guesses.append(0.5 * np.log(start) - np.log(self.balance))
        for guess in guesses:
            d = np.clip(guess - guess.mean(), self.lowest, self.highest)
            price = self.look(d, _WIDE, None, 1e-2, math.inf)
            if price < self.best:
                self.best, self.d = price, d
        self.cuts, self.age = Cuts.none(len(self.d)), np.zeros(0)
        self.best = self.look(self.d, _WIDE, Bar(math.inf, 1e-3 * self.unit), 1e-3 * self.unit, 0.1 * self.unit)
        self.u = max(abs(self.best), SMALLEST)

    def run(self, start: Array | None, target: float | None) -> Optimum:
        """Search, confirm, and search on if cyclic reduction has seen a maximum that was missed."""
        self.begin(start)
        goal = -math.inf if target is None else self.family.cost(self.family.relax(target, -2e-6))
        while True:
            stopped = self.search(goal)
            level = self.confirm(stopped)
            if level is not None:
                break
        q = np.exp(2.0 * (self.d + np.log(self.balance)))
        return Optimum(q / np.exp(np.mean(np.log(q))), level, None, None, stopped, self.rounds)

    def search(self, goal: float) -> Stopped:
        """Steps until the model promises nothing more."""
        while self.rounds < _ROUNDS:
            self.rounds += 1
            if (why := self.monitor.why) is not None:
                return why
            if self.best <= goal:
                return "target"
            values, gradients = self.cuts.prices(self.d, self.family)
            self.best = max(self.best, float(values.max()))
            advice = advise(values, gradients, self.u)
            self.weights = advice.weights
            promised = self.best - advice.model
            slope, enough = self.u * float(np.linalg.norm(advice.x)), self.tolerance * self.unit
            if promised < 0.2 * enough and slope < 2.0 * enough:
                price = self.look(self.d, self.angles, Bar(math.inf, 0.1 * enough), 0.02 * enough, 0.01 * self.unit)
                if price <= self.best + 0.2 * enough:
                    self.best = max(self.best, price)
                    return "tolerance"
                self.best = price
            else:
                self.step(advice.x, promised)
        return "stalled"

    def step(self, x: Array, promised: float) -> None:
        """Go there if the price falls as promised, else learn from the new cuts."""
        trial = np.clip(self.d + x, self.lowest, self.highest)
        self.prune()
        sufficient = self.best - 0.1 * promised
        limit = sufficient if self.rounds % 8 else math.inf
        price = self.look(
            trial, self.angles, Bar(limit, 0.1 * promised), 0.05 * promised, max(4.0 * promised, 0.01 * self.unit)
        )
        gained = self.best - price
        if price <= sufficient:
            self.d, self.best, self.nulls = trial - trial.mean(), price, 0
            self.monitor.say(f"round {self.rounds}: {self.family.level(price):.6g}")
            if gained > 0.5 * promised:
                self.u *= 0.5
            return
        self.nulls += 1
        if gained < -promised or self.nulls > 6:
            self.u, self.nulls = 2.0 * self.u, 0

    def prune(self) -> None:
        """Drop cuts that have had no weight for a while."""
        self.age = np.where(self.weights > 1e-6, 0.0, self.age + 1.0)
        rows = np.flatnonzero(self.age < 8)
        if len(rows) > MOST_CUTS:
            rows = np.sort(np.argsort(self.age, kind="stable")[:MOST_CUTS])
        self.cuts, self.age = self.cuts.taken(rows), self.age[rows]

    def confirm(self, stopped: Stopped) -> float | None:
        """A level that cyclic reduction confirms, barely raised; None after a cut that calls for more steps."""
        q = np.exp(2.0 * (self.d + np.log(self.balance)))
        a = conic.scaled(self.original, q)
        first = max(1e-6, 0.02 * self.tolerance) if stopped == "tolerance" else 1e-6
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


def _apart(thetas: list[float], distance: float) -> list[float]:
    """The first few angles that differ."""
    kept: list[float] = []
    for theta in thetas:
        if all(abs(theta - other) > distance for other in kept) and len(kept) < 4:
            kept.append(theta)
    return kept


def _balancing(m: Array) -> Array:
    """Powers of two d that balance rows against columns of diag(d) M diag(d)^-1; within the cap."""
    if len(m) == 1 or not m.any():
        return np.ones(len(m))
    _, (scale, _) = scipy.linalg.matrix_balance(m, permute=False, separate=True)
    exponent = -np.log2(np.asarray(scale, dtype=np.float64))
    exponent = np.rint(exponent - exponent.mean())
    room = math.floor(0.25 * math.log2(CAP))
    return np.asarray(2.0 ** np.clip(exponent, -room, room))


def _perron(m: Array) -> Array:
    """d = log(l / r) / 2 from the Perron vectors of abs(M), made irreducible by a small constant."""
    size = np.abs(m)
    if not size.any() or not np.isfinite(size).all():
        return np.zeros(len(m))
    shift = 1e-3 * float(size.mean())
    right, left = np.ones(len(m)), np.ones(len(m))
    for _ in range(60):
        right, left = size @ right + shift * right.sum(), size.T @ left + shift * left.sum()
        right, left = right / right.max(), left / left.max()
    return np.asarray(0.5 * np.log(left / right))
