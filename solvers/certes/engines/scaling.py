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
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines import conic
from certes.engines.bundle import Cuts, advise
from certes.engines.eigen import APART, Field, Ray
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
#: Angles of a first or a last look.
_WIDE = (0.0, 0.1, 0.25, 0.45, 0.8, 1.3, 1.8, 2.3, 2.8, math.pi)
#: Relative steps by which the level is raised until it is confirmed.
_RAISES = tuple(1e-6 * 3.0**k for k in range(14))


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
    stopped: Literal["tolerance", "target", "deadline", "cancelled", "stalled"]
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
) -> Optimum | None:
    """Minimise over diagonal Q > 0; None if no level can be confirmed (entries beyond the float range).

    Args:
        m: M, shape (n, n).
        family: which level is meant.
        tolerance: stop when the level cannot improve by more than this, relative to its price.
        target: stop as soon as this level is reached.
        start: a first q, shape (n,).
        monitor: time limit, cancellation and progress.
    """
    with np.errstate(all="ignore"):  # overflow ends in inf or NaN, and those are looked for
        return _Search(np.asarray(m, dtype=np.float64), family, tolerance, target, monitor or Monitor()).run(start)


class _Search:
    """The state of one search: a centre d with its price, the cuts and the angles worth looking at."""

    def __init__(self, m: Array, family: Family, tolerance: float, target: float | None, monitor: Monitor) -> None:
        self.balance = _balancing(m)
        self.m = self.balance[:, None] * m / self.balance[None, :]
        self.original = m
        self.family, self.tolerance, self.monitor = family, tolerance, monitor
        self.target = None if target is None else family.cost(target)
        self.field = Field(self.m, family)
        self.cuts = Cuts.none(len(m))
        self.age = np.zeros(0)
        self.angles: list[float] = list(_WIDE)
        self.rounds = 0
        self.gram = isinstance(family, Norm)
        room = 0.25 * math.log(CAP)
        spread = np.log(self.balance)
        self.lowest, self.highest = -room - spread, room - spread

    # --- looking

    def look(self, d: Array, level: float, thetas: list[float], accuracy: float, margin: float) -> float:
        """Look, keep the cuts within ``margin`` of the top, return the price."""
        rays = self.field.look(d, level, [0.0] if self.gram else thetas, accuracy)
        return self.keep(rays, margin)

    def keep(self, rays: list[Ray], margin: float) -> float:
        """Add the cuts of rays within ``margin`` of the best; returns the best price and remembers its angles."""
        best = max(ray.price for ray in rays)
        for ray in rays:
            near = np.flatnonzero(ray.prices >= best - margin)
            if len(near):
                self.cuts = self.cuts.joined(Cuts.of(ray.y[:, near], ray.my[:, near], self.gram))
                self.age = np.concatenate([self.age, np.zeros(len(near))])
        self.angles = _apart([ray.theta for ray in sorted(rays, key=lambda r: -r.price) if ray.price >= best - margin])
        return best

    def unit(self, price: float) -> float:
        """What tolerances are relative to."""
        if type(self.family).__name__ == "Step":
            return max(2.0 - price, SMALLEST)
        return max(abs(price), SMALLEST)

    # --- the method

    def run(self, start: Array | None) -> Optimum | None:
        d, best = self.begin(start)
        stopped: Literal["tolerance", "target", "deadline", "cancelled", "stalled"] = "stalled"
        u, nulls = max(best, 1e-3), 0
        weights = np.zeros(0)
        for self.rounds in range(_ROUNDS):
            why = self.monitor.why
            if why is not None:
                stopped = why
                break
            if self.target is not None and best <= self.target - 1e-6 * self.unit(self.target):
                stopped = "target"
                break
            unit = self.unit(best)
            values, gradients = self.cuts.prices(d, self.family)
            best = max(best, float(values.max()))
            advice = advise(values, gradients, u)
            weights = advice.weights
            predicted = best - advice.model
            slope = float(np.linalg.norm(weights @ gradients))
            if predicted < 0.2 * self.tolerance * unit and slope < 2.0 * self.tolerance * unit:
                price = self.look(d, self.family.level(best), list(_WIDE), 0.02 * self.tolerance * unit, 0.01 * unit)
                if price <= best + 0.2 * self.tolerance * unit:
                    stopped = "tolerance"
                    break
                best = price
                continue
            trial = np.clip(d + advice.x, self.lowest, self.highest)
            wide = self.rounds % 8 == 0
            thetas = list(_WIDE) if wide else self.angles
            margin = max(4.0 * predicted, 0.01 * unit)
            self.prune(weights)
            price = self.look(trial, self.family.level(best), thetas, 0.05 * predicted, margin)
            if best - price >= 0.1 * predicted and not wide:
                price = max(price, self.look(trial, self.family.level(best), list(_WIDE), 0.05 * predicted, margin))
            gained = best - price
            if gained >= 0.1 * predicted:
                d, best, nulls = trial - trial.mean(), price, 0
                self.monitor.say(f"round {self.rounds}: {self.family.level(best):.6g}")
                if gained > 0.5 * predicted:
                    u *= 0.5
            else:
                nulls += 1
                if gained < -predicted or nulls > 6:
                    u, nulls = 2.0 * u, 0
        return self.finish(d, best, weights, stopped)

    def begin(self, start: Array | None) -> tuple[Array, float]:
        """The best of a few scalings."""
        guesses = [np.zeros(len(self.m)), _perron(self.m)]
        if start is not None:
            guesses.append(0.5 * np.log(start) - np.log(self.balance))
        best: tuple[float, Array] | None = None
        level = self.family.level(1.0)
        for guess in guesses:
            d = np.clip(guess - guess.mean(), self.lowest, self.highest)
            price = self.look(d, level, list(_WIDE), 1e-2, math.inf)
            level = self.family.level(price)
            if best is None or price < best[0]:
                best = (price, d)
        assert best is not None
        price, d = best
        self.cuts, self.age = Cuts.none(len(d)), np.zeros(0)
        price = max(
            price, self.look(d, self.family.level(price), list(_WIDE), 1e-3 * self.unit(price), 0.1 * self.unit(price))
        )
        return d, price

    def prune(self, weights: Array) -> None:
        """Drop cuts that have had no weight for a while."""
        self.age = np.where(weights > 1e-6, 0.0, self.age + 1.0)
        rows = np.flatnonzero(self.age < 8)
        if len(rows) > MOST_CUTS:
            rows = np.sort(np.argsort(self.age, kind="stable")[:MOST_CUTS])
        self.cuts, self.age = self.cuts.taken(rows), self.age[rows]

    def finish(
        self,
        d: Array,
        best: float,
        weights: Array,
        stopped: Literal["tolerance", "target", "deadline", "cancelled", "stalled"],
    ) -> Optimum | None:
        """Confirm by cyclic reduction, raising the level as little as needed."""
        q = np.exp(2.0 * (d + np.log(self.balance)))
        a = conic.scaled(self.original, q)
        level = self.family.level(best)
        for relative in _RAISES:
            raised = self.family.relax(level, relative)
            if conic.reaches(a, self.family, raised):
                return Optimum(q / np.exp(np.mean(np.log(q))), raised, None, None, stopped, self.rounds)
        return None


def _apart(thetas: list[float]) -> list[float]:
    """The first few angles that differ."""
    kept: list[float] = []
    for theta in thetas:
        if all(abs(theta - other) > 2 * APART for other in kept) and len(kept) < 3:
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
