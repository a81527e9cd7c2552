"""The nearest weights that pass ``absolute``: row by row for a fixed vector, and the search for the vector.

A network passes ``absolute`` at a number iff some r > 0 has, in every row i,

    sum_{j != i} g_ij |W_ij| r_j / r_i + h_i(W_ii) <= kappa_i

with, in the notation of :mod:`certes.conditions.absolute` (g the larger end of the slope interval in absolute value, of
neuron i for ``rate`` and of neuron j for ``hopfield``),

    continuous, rate c   g_ij = g,             kappa_i = 1 - c tau_i,  h_i(x) = max(a_i x, b_i x)
    map, factor rho      g_ij = step/tau_i g,  kappa_i = rho,  h_i(x) = max_{d in a_i, b_i} |1 - step/tau_i (1 - d x)|

One vector is enough: T^-1 (N - I) r <= -c r has a positive solution for every c below minus the spectral abscissa of
that Metzler matrix, its transpose has the same abscissa, and no pair r, l proves a better number.

For a fixed r the rows are independent convex problems, solved by a multiplier m >= 0 each
(:mod:`certes.projection.thresholds`): |W'_ij| = c_ij max(|W_ij| / c_ij - m, 0) with c_ij = g_ij r_j / r_i, and W_ii
follows the proximal path of m h_i. By the envelope theorem the gradient of half the squared distance by log r_k is
sum_i m_i c_ik |W'_ik| - m_k sum_j c_kj |W'_kj| (i, j != k).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize

from certes.conditions.absolute import CONDITION
from certes.conditions.base import Goal
from certes.engines.monitor import Monitor
from certes.engines.perron import ExtendedVector, Nonnegative, join, local_vectors, strong_components
from certes.errors import InputError
from certes.projection.thresholds import EPS, Own, added, row_maxima, search
from certes.systems import SparseMatrix, System

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.integer[Any]]

#: Largest abs(log r) of the search: e^300 between two entries is far inside the float range.
CAP = 150.0
#: Off-diagonal entries from which only the best start is followed, for fewer steps.
LARGE = 200_000
_STEPS, _STEPS_LARGE = 200, 40


@dataclass(frozen=True, eq=False)
class RowSolution:
    """The nearest weights for one vector.

    Attributes:
        data: the weights, dense (n, n) or the data of the sparse matrix; in infeasible rows as good as they can be.
        multipliers: of the rows' constraints as the module's docstring has them, shape (n,); inf in infeasible rows.
        infeasible: rows whose constraint no movement meets.
        relative: squared distance over unit^2.
        slope: gradient by log r of half of ``relative``, shape (n,).
        unit: a power of two.
    """

    data: Array
    multipliers: Array
    infeasible: NDArray[np.intp]
    relative: float
    slope: Array
    unit: float

    @property
    def distance(self) -> float:
        """Frobenius distance to the given weights."""
        return self.unit * math.sqrt(self.relative)

    @property
    def distance_squared(self) -> float:
        """Its square; inf where that leaves the float range."""
        return self.distance * self.distance


@dataclass(frozen=True, eq=False)
class Rows:
    """Everything about the row problems that does not depend on r; weights in units of ``unit``.

    Attributes:
        given: the weights as given, dense (n, n) or the data of the sparse matrix.
        rows, columns, where: of the off-diagonal nonzeros, and their place in ``given`` (flat), shape (m,), by rows.
        size, gain: |W_ij| and g_ij, shape (m,).
        frozen: entries that may not move (or count for nothing), shape (m,).
        own: the diagonal; ``own_where`` its place in ``given``, -1 for entries that are not stored.
        kappa: right sides over ``unit``, shape (n,).
        unit: a power of two above every weight, at least 1.
    """

    given: Array
    rows: NDArray[np.intp]
    columns: Indices
    where: NDArray[np.intp]
    size: Array
    gain: Array
    frozen: Mask
    own: Own
    own_where: NDArray[np.intp]
    kappa: Array
    unit: float

    @classmethod
    @np.errstate(all="ignore")
    def of(cls, system: System, number: float, movable: Mask | None = None) -> Rows:
        """Prepare the row problems of a rate or hopfield network.

        Args:
            system: the network.
            number: the rate (continuous time, 1/unit of time) or factor (a map) to reach.
            movable: which entries may move, shape (n, n), or (nnz,) for sparse weights; None: all. Entries that are
                zero stay zero, but for those on the diagonal of dense weights.

        Raises:
            InputError: the mask has the wrong shape.
        """
        weights, n = system.tensors["W"].value, system.size
        sparse = isinstance(weights, SparseMatrix)
        given = weights.data if isinstance(weights, SparseMatrix) else weights
        if movable is not None and movable.shape != given.shape:
            raise InputError("mask", f"shape {movable.shape}", f"shape {given.shape}", "wrong-shape")
        if isinstance(weights, SparseMatrix):
            rows, columns = np.repeat(np.arange(n), np.diff(weights.indptr)), np.asarray(weights.indices)
            where = np.flatnonzero((weights.data != 0.0) | (rows == columns))
            rows, columns = rows[where], columns[where]
        else:
            rows, columns = np.nonzero((weights != 0.0) | np.eye(n, dtype=bool))
            where = rows * n + columns
        free = np.ones(len(where), dtype=bool) if movable is None else movable.ravel()[where]
        unit = 2.0 ** max(0, math.frexp(float(np.abs(given).max(initial=0.0)))[1])
        values = given.ravel()[where] / unit
        mine = rows == columns
        own_value, own_free = np.zeros(n), np.zeros(n, dtype=bool)
        own_where = np.full(n, -1) if sparse else np.arange(n) * (n + 1)
        own_value[rows[mine]], own_free[rows[mine]], own_where[rows[mine]] = values[mine], free[mine], where[mine]
        rows, columns, where, size, free = (part[~mine] for part in (rows, columns, where, np.abs(values), free))
        pace = np.ones(n) if system.step is None else system.step / system.tau
        bound = system.slope.bound
        gain = pace[rows] * bound[rows if system.form == "rate" else columns]
        kappa = 1.0 - number * system.tau if system.step is None else np.full(n, number)
        own = Own.of(_lines(system, unit), own_value, own_free)
        frozen = ~free | (gain == 0.0)
        return cls(given, rows, columns, where, size, gain, frozen, own, own_where, kappa / unit, unit)

    def sums(self, values: Array) -> Array:
        """Sums over the off-diagonal entries of each row, shape (n,)."""
        return added(self.rows, values, len(self.kappa))

    def nearest(self, log_r: Array) -> RowSolution:
        """The nearest weights whose rows meet their constraints for r = exp(log_r), shape (n,)."""
        with np.errstate(all="ignore"):
            return self._nearest(log_r)

    def _nearest(self, log_r: Array) -> RowSolution:
        own, n = self.own, len(self.kappa)
        # each constraint times theta_i <= 1, so that no coefficient leaves the float range
        top = np.maximum(row_maxima(self.rows, log_r[self.columns], n), log_r)
        c, theta = self.gain * np.exp(log_r[self.columns] - top[self.rows]), np.exp(log_r - top)
        fixed = self.sums(np.where(self.frozen, c * self.size, 0.0))
        target = theta * (self.kappa - own.level) - fixed
        scale = theta * (np.abs(self.kappa) + np.abs(own.level) + np.abs(own.lines[1]).max(axis=0)) + fixed
        margin = (np.bincount(self.rows, minlength=n) + 32.0 + 4.0 * np.abs(log_r).max()) * EPS * scale
        stuck = (target < -margin) & ~own.endless
        broken = self.sums(c * self.size) + theta * own.height(own.value) > theta * self.kappa
        active = broken & ~stuck
        target -= margin
        target = np.where(own.endless, target, np.maximum(target, 0.0))
        place = np.where(self.frozen, -np.inf, self.size / c)
        steps = Own(own.lines, own.value, own.sign, own.end, own.level, own.slope * theta, own.place / theta,
                    own.length / theta, own.floor)  # fmt: skip
        rest, own_rest, multiplier = search(self.rows, c, place, steps, target, active)
        rest, own_rest, moved = np.where(stuck[self.rows], 0.0, rest), np.where(stuck, 0.0, own_rest), active | stuck
        size = np.where(moved[self.rows] & ~self.frozen, np.clip(c * rest, 0.0, self.size), self.size)
        climb = (steps.slope * np.clip(own_rest, steps.floor, steps.length)).sum(axis=0)
        value = np.where(moved, own.sign * (own.end + climb), own.value)
        flow = np.where(active, multiplier, 0.0)[self.rows] * c * size
        return RowSolution(
            self._filled(size, value),
            np.where(stuck, np.inf, np.where(active, multiplier * theta * self.unit, 0.0)),
            np.flatnonzero(stuck & broken),
            float(np.sum((self.size - size) ** 2) + np.sum((own.value - value) ** 2)),
            added(self.columns, flow, n) - self.sums(flow),
            self.unit,
        )

    def _filled(self, size: Array, value: Array) -> Array:
        """The given weights with new absolute values off the diagonal and new diagonal entries; others untouched."""
        data = np.array(self.given, dtype=np.float64)
        flat = data.reshape(-1)
        changed = size != self.size
        where = self.where[changed]
        flat[where] = np.copysign(size[changed] * self.unit, flat[where])
        moved = (value != self.own.value) & (self.own_where >= 0)
        flat[self.own_where[moved]] = value[moved] * self.unit
        return data

    def vector(self, size: Array, height: Array) -> tuple[Array | None, float]:
        """A vector for which rows with these absolute values and values of h meet their constraints.

        Args:
            size: absolute values off the diagonal, shape (m,).
            height: values of h, shape (n,).

        Returns:
            log r, or None if there is none, and by how much the Perron root is too large (negative: too small),
            relative. Where there is none, log r is that of the Perron vector.
        """
        room = self.kappa - height
        border = max(2.0 * float(np.abs(room).max()), 1e-300)
        indptr = np.searchsorted(self.rows, np.arange(len(room) + 1))
        matrix = Nonnegative(self.gain * size, self.columns, indptr, border - room)
        components = strong_components(matrix)
        local = local_vectors(matrix, components, border)
        root = float(local.upper.max())
        level = root + (0.9 * (border - root) if root < border else 1e-3 * root)
        found = join(matrix, components, local, level)
        return None if found is None else _log(found), root / border - 1.0


def _lines(system: System, unit: float) -> Array:
    """Slopes and offsets of the affine functions whose maximum is h, for diagonal entries in units of ``unit``."""
    ends = np.stack([system.slope.lower, system.slope.upper])
    if system.step is None:
        return np.stack([ends, np.zeros_like(ends)])
    pace = system.step / system.tau
    slopes, offsets = pace * ends, np.broadcast_to((1.0 - pace) / unit, ends.shape)
    return np.stack([np.concatenate([slopes, -slopes]), np.concatenate([offsets, -offsets])])


def _log(vector: ExtendedVector) -> Array:
    return np.asarray(np.log(vector.mantissa) + vector.exponent * math.log(2.0))


@dataclass(frozen=True, eq=False)
class AbsoluteNearest:
    """The nearest weights found.

    Attributes:
        weights: dense (n, n), or a sparse matrix of the same pattern.
        distance: Frobenius distance to the given ones.
        log_r: logarithm of the vector that shows it, shape (n,).
    """

    weights: Array | SparseMatrix
    distance: float
    log_r: Array


class _Over(Exception):
    """The monitor says to stop."""


def nearest_absolute(
    system: System, number: float, *, movable: Mask | None = None, monitor: Monitor | None = None
) -> AbsoluteNearest | None:
    """Weights that pass ``absolute`` at a number, as near to the given ones as a local search over r finds them.

    The set is not convex: the result is a local optimum, at most as far as the uniform shrink of the weights that
    passes (to the accuracy with which that is found), and for its r it is the nearest. Deterministic
    without a time limit.

    Args:
        system: a rate or hopfield network.
        number: the rate (continuous time) or factor (a map).
        movable: see :meth:`Rows.of`.
        monitor: when to stop; the best weights so far are the answer.

    Returns:
        The weights, which the verifier has yet to judge (the constraints hold with a margin of rounding, no more), or
        None if there are none: the entries that may not move are too large, or the number is out of reach.

    Raises:
        InputError: the mask has the wrong shape.
    """
    monitor = monitor or Monitor()
    rows = Rows.of(system, number, movable)
    weights = system.tensors["W"].value
    decision = CONDITION.decide(system, Goal(target=number))
    if isinstance(decision, tuple):
        proof: Any = decision[0].proof
        return AbsoluteNearest(weights, 0.0, _log(ExtendedVector(proof.right, proof.right_exponent)))
    search = _Outer(rows, monitor)
    with np.errstate(all="ignore"):
        search.run()
    if search.best is None:
        return None
    data = search.best.data
    if isinstance(weights, SparseMatrix):
        return AbsoluteNearest(
            SparseMatrix(data, weights.indices, weights.indptr, weights.shape), search.best.distance, search.log_r
        )
    return AbsoluteNearest(data, search.best.distance, search.log_r)


class _Outer:
    """The search for r; ``best`` and ``log_r`` are what it found so far."""

    def __init__(self, rows: Rows, monitor: Monitor) -> None:
        self.rows, self.monitor = rows, monitor
        self.best: RowSolution | None = None
        self.log_r = np.zeros(len(rows.kappa))
        self.unit = 1.0

    def look(self, log_r: Array) -> tuple[float, Array]:
        """Half the squared distance (inf where a row is infeasible) and its gradient."""
        found = self.rows.nearest(log_r)
        if found.infeasible.size or not math.isfinite(found.relative):
            return math.inf, np.zeros_like(log_r)
        if self.best is None or found.relative < self.best.relative:
            self.best, self.log_r = found, log_r.copy()
        if self.monitor.over:
            raise _Over
        return 0.5 * found.relative / self.unit, found.slope / self.unit

    def run(self) -> None:
        """Look at the starts, and follow them (or the best of many entries) to a local optimum."""
        large = len(self.rows.size) > LARGE
        try:
            starts = [(self.look(start)[0], start) for start in self.starts()]
            starts = sorted((pair for pair in starts if pair[0] < math.inf), key=lambda pair: pair[0])
            for value, start in starts[: 1 if large else len(starts)]:
                if value > 0.0:
                    self.unit = value
                    self.follow(start, _STEPS_LARGE if large else _STEPS)
                    self.unit = 1.0
        except _Over:
            return

    def follow(self, start: Array, steps: int) -> None:
        """L-BFGS from a start."""
        highest = [1.0]

        def objective(log_r: Array) -> tuple[float, Array]:
            value, slope = self.look(log_r)
            if value < math.inf:
                highest[0] = max(highest[0], value)
                return value, slope
            return 10.0 * highest[0], slope  # the line search comes back from there

        bounds = [(-CAP, CAP)] * len(start)
        options: Any = {"maxiter": steps, "maxfun": 2 * steps, "ftol": 1e-10, "gtol": 1e-8, "maxcor": 20}
        minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)

    def starts(self) -> list[Array]:
        """Values of log r to start from, centred and capped."""
        rows, own = self.rows, self.rows.own
        n = len(rows.kappa)
        loads = rows.sums(np.where(rows.frozen, rows.gain * rows.size, 0.0))
        # what remains if everything that may move is as small as it can be: if that fails, all of it does
        lowest = np.where(own.endless, np.minimum(own.level, rows.kappa - 10.0 * loads), own.level)
        bare, excess = rows.vector(np.where(rows.frozen, rows.size, 0.0), lowest)
        if bare is None or excess > 1e-12:
            return []
        height = own.height(own.value)
        right = rows.vector(rows.size, height)[0]
        left = self._left(height)
        found = [right, np.zeros(n), left, self._shrink()]
        if right is not None and left is not None:
            found.append(0.5 * (right + left))
        if rows.frozen.any():
            found += [bare] + [0.5 * (bare + start) for start in found if start is not None]
        centred = [start - 0.5 * (start.max() + start.min()) for start in found if start is not None]
        return [np.clip(start, -CAP, CAP) for start in centred if np.isfinite(start).all()]

    def _left(self, height: Array) -> Array | None:
        """Minus the logarithm of the left vector."""
        rows = self.rows
        order = np.lexsort((rows.rows, rows.columns))
        indptr = np.searchsorted(rows.columns[order], np.arange(len(height) + 1))
        room = rows.kappa - height
        border = max(2.0 * float(np.abs(room).max()), 1e-300)
        matrix = Nonnegative((rows.gain * rows.size)[order], rows.rows[order], indptr, border - room)
        components = strong_components(matrix)
        local = local_vectors(matrix, components, border)
        found = join(matrix, components, local, (1.0 + 1e-3) * float(local.upper.max()))
        return None if found is None else -_log(found)

    def _shrink(self) -> Array | None:
        """The vector of the largest uniform shrink that passes, None if none does or if entries may not move."""
        rows, own = self.rows, self.rows.own
        if rows.frozen.any():
            return None
        passing: list[tuple[float, Array]] = []

        def excess(scale: float) -> float:
            found, value = rows.vector(scale * rows.size, own.height(scale * own.value))
            if found is not None and value <= 0.0:
                passing.append((scale, found))
            return value

        if excess(0.0) > 0.0 or excess(1.0) <= 0.0:
            return passing[-1][1] if passing else None
        tolerance = 1e-3 if len(rows.size) > LARGE else 1e-10
        brentq(excess, 0.0, 1.0, xtol=tolerance, rtol=1e-9, maxiter=60, disp=False)
        return max(passing, key=lambda pair: pair[0])[1]
