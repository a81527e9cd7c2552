"""Search for a periodic switching between slopes under which trajectories part.

A cycle holds slopes D_1, ..., D_k for times t_1, ..., t_k, over and over. Its growth is log abs(mu) per unit of time
(or per step), mu the leading eigenvalue of M = F_k ... F_1, F_j = exp(J(D_j) t_j) (a map: J(D_j)). With right and left
eigenvectors carried through the cycle, v_j = F_j v_(j-1) and w_(j-1) = F_j^H w_j, the derivatives of log mu are

    w_j^H J(D_j) v_j / (w_j^H v_j)             with respect to t_j,
    (w^H B)_i (C v)_i / (w^H v) per time       with respect to slope i (a map: w_j and v_(j-1)).

So the best slopes are at the ends of their intervals, chosen by the signs of the second line: the extremal switching of
the maximum principle (N. E. Barabanov, Automation and Remote Control 49, 1988), closed to a period. The search starts
from patterns that turn with the complex eigenvectors of a mean Jacobian, takes all those signs or as many as help, and
tunes the times by L-BFGS. It is a heuristic, deterministic, and finding nothing proves nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.slopes import Linearisation

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Most states that are attempted.
LARGEST = 60
#: Growth of one period, log abs(mu), at which the search is content.
ENOUGH = 0.05

_STARTS = 9  # cycles to start from
_GRID = 16  # intervals of a first cycle in continuous time
_MANY, _LONGEST = 12, 400  # steps of a map's half turn that count as many; most steps of its cycle
_PAIRS = 3  # complex pairs of each mean Jacobian to start from
_SIGN_STEPS = 24
_SHARES = (1.0, 0.5, 0.25, 0.1, 0.03, 0.0)  # of the promising changes of slope; 0: the best one alone
_SHORT = 1e-3  # share of the period below which a mode is left out


@dataclass(frozen=True, eq=False)
class Cycle:
    """Slopes (k, m) held for durations (k,), whole numbers for a map, and log abs(mu) per unit of time."""

    slopes: Array
    durations: Array
    growth: float

    @property
    def period(self) -> float:
        """The sum of the durations."""
        return float(self.durations.sum())


def search(problem: Linearisation, *, stop: Callable[[], bool] = lambda: False) -> Cycle | None:
    """The fastest growing cycle found: the first whose multiplier is beyond the border by :data:`ENOUGH`, or the best.

    Args:
        problem: the Jacobians.
        stop: asked between evaluations; True ends the search with what it has.

    Returns:
        A cycle with growth > 0, or None.
    """
    climb = _Climb(problem, stop)
    best: Cycle | None = None
    for slopes, durations in itertools.islice(itertools.chain(_from_flow(problem, stop), _starts(problem)), _STARTS):
        if stop():
            break
        found = climb.run(slopes, durations)
        if found is not None and found.growth > 0.0 and (best is None or found.growth > best.growth):
            best = found
            if best.growth * best.period > ENOUGH:
                break
    return best


def tuned(
    problem: Linearisation, slopes: Array, durations: Array, *, stop: Callable[[], bool] = lambda: False
) -> Cycle | None:
    """A cycle of given slopes (k, m), its durations adjusted for the largest growth (as they are for a map)."""
    climb = _Climb(problem, stop)
    if not problem.continuous:
        counts = durations.astype(int)
        steps = climb.look(np.repeat(slopes, counts, axis=0), np.ones(int(counts.sum())))
        return None if steps is None else Cycle(slopes, durations, steps.cycle.growth)
    at = climb.look(slopes, durations)
    found = None if at is None else climb.times(at.cycle, least=1e-3)
    best = max(
        (entry for entry in (at, found) if entry is not None), key=lambda entry: entry.cycle.growth, default=None
    )
    return None if best is None else best.cycle


def _from_flow(problem: Linearisation, stop: Callable[[], bool]) -> Iterator[tuple[Array, Array]]:
    """For a map x + f(x): the cycle of x' = f(x), one unit of time per step."""
    if problem.continuous:
        return
    cycle = search(replace(problem, A=problem.A - np.eye(len(problem.A)), continuous=True), stop=stop)
    if cycle is not None and len(cycle.slopes) <= cycle.period <= _LONGEST:
        counts = np.maximum(1, np.round(cycle.durations)).astype(int)
        yield np.repeat(cycle.slopes, counts, axis=0), np.ones(int(counts.sum()))


def _starts(problem: Linearisation) -> Iterator[tuple[Array, Array]]:
    """Patterns that turn with a complex eigenvector of a mean Jacobian, for half a turn (v and -v switch alike)."""
    means = [problem.lower + share * (problem.upper - problem.lower) for share in (0.5, 0.75, 1.0)]
    spectra = [_eigen(problem.jacobian(mean)) for mean in means]
    for rank, lead in itertools.product(range(_PAIRS), (0.0, 0.25, -0.25)):
        for values, left, right in spectra:
            turning = np.flatnonzero(values.imag > 1e-6 * np.abs(values).max())
            if rank >= len(turning):
                continue
            k = turning[np.argsort(-problem.growths(values[turning]), kind="stable")[rank]]
            x, y = right[:, k], left[:, k]
            y = y * np.exp(1j * (lead * math.pi + np.angle(np.vdot(y, x))))
            speed = float(values[k].imag if problem.continuous else np.angle(values[k]))
            for count in [_GRID] if problem.continuous else _counts(speed):
                step = math.pi / speed / count if problem.continuous else 1.0
                turn = np.exp(1j * speed * step * np.arange(count))[:, None]
                gain = np.real(turn * (problem.B.T @ y)) * np.real(turn * (problem.C @ x))
                yield np.where(gain > 0, problem.upper, problem.lower), np.full(count, step)


def _counts(speed: float) -> list[int]:
    """Numbers of steps for a map: those of half a turn and of shares of it, or those nearest to whole half turns."""
    half = math.pi / speed
    if half > _MANY:
        return list(dict.fromkeys(min(_LONGEST, round(share * half)) for share in (1.0, 0.8, 0.6)))
    counts = range(2, 2 * _MANY)
    return sorted(counts, key=lambda count: (round(abs(count / half - round(count / half)), 2), count))[:3]


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """A cycle with the derivatives of log abs(mu): by duration (k,), by slope (k, m)."""

    cycle: Cycle
    by_duration: Array
    by_slope: Array


class _Climb:
    """Evaluations of one problem, and the moves that increase the growth."""

    def __init__(self, problem: Linearisation, stop: Callable[[], bool]) -> None:
        self.problem, self.stop = problem, stop

    def look(self, slopes: Array, durations: Array) -> _Evaluated | None:
        """Growth and derivatives of a cycle; None if the numbers are not finite."""
        problem = self.problem
        flows = problem.A + (problem.B * slopes[:, None, :]) @ problem.C
        if problem.continuous:
            flows = exponentials(flows * durations[:, None, None])
        monodromy = flows[0]
        for flow in flows[1:]:
            monodromy = flow @ monodromy
        if not np.isfinite(monodromy).all():
            return None
        values, left, right = _eigen(monodromy)
        lead = int(np.argmax(np.abs(values)))
        if not 0.0 < abs(values[lead]) < np.inf:
            return None
        growth = math.log(abs(values[lead])) / float(durations.sum())
        v, w = _carried(flows, right[:, lead], left[:, lead])
        by_duration, by_slope = self._derivatives(slopes, durations, v, w)
        if not (np.isfinite(by_duration).all() and np.isfinite(by_slope).all()):
            return None
        return _Evaluated(Cycle(slopes, durations, growth), by_duration, by_slope)

    def _derivatives(self, slopes: Array, durations: Array, v: Complex, w: Complex) -> tuple[Array, Array]:
        problem = self.problem
        pulled, seen = w.conj() @ problem.B, v @ problem.C.T
        paired = (w.conj() * v).sum(axis=1)
        if not problem.continuous:
            by_slope = np.real(pulled[1:] * seen[:-1] / paired[1:, None])
            return np.zeros(len(slopes)), by_slope
        density = np.real(pulled * seen / paired[:, None])
        drift = (w.conj() * (v @ problem.A.T)).sum(axis=1) / paired
        by_duration = np.real(drift[1:]) + (density[1:] * slopes).sum(axis=1)
        return by_duration, 0.5 * durations[:, None] * (density[1:] + density[:-1])

    def run(self, slopes: Array, durations: Array) -> Cycle | None:
        """The local optimum that a start leads to."""
        at = self.look(slopes, durations)
        for _ in range(2):
            if at is None or self.stop():
                break
            at = self.signs(at)
            if not self.problem.continuous:
                at = self.counts(at)
                continue
            at = self.times(_modes(at.cycle))
            if at is not None:
                lasting = _lasting(at.cycle)
                if len(lasting.slopes) == 1:
                    return lasting  # slopes that stay: an equilibrium shows as much
                at = self.look(*_divided(lasting))
        return None if at is None else _modes(at.cycle)

    def signs(self, at: _Evaluated) -> _Evaluated:
        """Switch slopes to the end that the derivative points to: all of them, or the most promising that help."""
        lower, upper = self.problem.lower, self.problem.upper
        for _ in range(_SIGN_STEPS):
            change = np.where(at.by_slope > 0, upper, lower) - at.cycle.slopes
            gain = at.by_slope * change
            order = np.argsort(-gain, axis=None, kind="stable")
            useful = int((gain > 1e-12).sum())
            better = None
            for count in dict.fromkeys(math.ceil(share * useful) or 1 for share in _SHARES):
                if useful == 0 or self.stop():
                    break
                slopes = at.cycle.slopes.copy()
                slopes.flat[order[:count]] += change.flat[order[:count]]
                tried = self.look(slopes, at.cycle.durations)
                if tried is not None and tried.cycle.growth > at.cycle.growth + 1e-9:
                    better = tried
                    break
            if better is None:
                return at
            at = better
        return at

    def times(self, cycle: Cycle, least: float = 1e-6) -> _Evaluated | None:
        """Durations with the largest growth, slopes fixed; each at least a share ``least`` of the mean."""
        from scipy.optimize import minimize  # most searches never come here

        unit = cycle.period / len(cycle.durations)

        def loss(times: Array) -> tuple[float, Array]:
            tried = None if self.stop() else self.look(cycle.slopes, times * unit)
            if tried is None:
                return 1e6, np.zeros_like(times)
            slope = (tried.by_duration - tried.cycle.growth) / tried.cycle.period
            return -tried.cycle.growth, -slope * unit

        start = cycle.durations / unit
        bounds = [(least, 10.0)] * len(start)
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30})
        return self.look(cycle.slopes, np.asarray(found.x if found.fun < 1e6 else start) * unit)

    def counts(self, at: _Evaluated) -> _Evaluated:
        """Numbers of steps with a larger growth: all of them scaled, or one changed by a quarter or by one."""
        for _ in range(_SIGN_STEPS):
            modes = _modes(at.cycle)
            better = None
            for counts in _neighbours(modes.durations.astype(int)):
                if self.stop() or not 0 < counts.sum() <= _LONGEST:
                    continue
                tried = self.look(np.repeat(modes.slopes, counts, axis=0), np.ones(int(counts.sum())))
                least = at if better is None else better
                if tried is not None and tried.cycle.growth > least.cycle.growth + 1e-9:
                    better = tried
            if better is None:
                return at
            at = better
        return at


def _eigen(matrix: Array) -> tuple[Complex, Complex, Complex]:
    """Eigenvalues, left and right eigenvectors (columns)."""
    values, left, right = scipy.linalg.eig(matrix, left=True, right=True)  # type: ignore[misc]
    return values, left, right


def exponentials(matrices: Array) -> Array:
    """exp of each matrix of a stack, shape (k, n, n): Taylor polynomials after scaling by powers of two."""
    norm = float(np.abs(matrices).sum(axis=2).max())
    squarings = max(0, math.frexp(norm)[1] + 1) if math.isfinite(norm) else 0
    small = matrices * 2.0**-squarings
    result = one = np.eye(matrices.shape[1])
    for k in range(12, 0, -1):
        result = one + small @ result / k
    for _ in range(squarings):
        result = result @ result
    return np.asarray(result)


def _neighbours(counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for share in (0.5, 0.7, 0.85, 1.2):
        yield np.maximum(1, np.round(share * counts)).astype(np.int64)
    for k, change in itertools.product(range(min(len(counts), 8)), (-1, 1)):
        for size in {1, max(1, int(counts[k]) // 4)}:
            moved = counts.copy()
            moved[k] = max(0, moved[k] + change * size)
            yield moved


def _carried(flows: Array, right: Complex, left: Complex) -> tuple[Complex, Complex]:
    """Eigenvectors at every boundary between modes, v forwards and w backwards, each of norm 1; shapes (k + 1, n)."""
    forwards, backwards = [right], [left]
    for flow in flows:
        image = flow @ forwards[-1]
        forwards.append(image / np.linalg.norm(image))
    for flow in flows[::-1]:
        image = flow.T @ backwards[-1]
        backwards.append(image / np.linalg.norm(image))
    return np.array(forwards), np.array(backwards[::-1])


def _modes(cycle: Cycle) -> Cycle:
    """The same cycle with equal neighbours joined (also the last mode with the first)."""
    slopes, durations = cycle.slopes, cycle.durations
    fresh = np.flatnonzero((slopes != np.roll(slopes, 1, axis=0)).any(axis=1))
    if len(fresh) == 0:
        return Cycle(slopes[:1], durations.sum(keepdims=True), cycle.growth)
    slopes, durations = np.roll(slopes, -fresh[0], axis=0), np.roll(durations, -fresh[0])
    starts = fresh - fresh[0]
    return Cycle(slopes[starts], np.add.reduceat(durations, starts), cycle.growth)


def _lasting(cycle: Cycle) -> Cycle:
    """The same cycle without the modes that have shrunk to nothing."""
    kept = cycle.durations > _SHORT * cycle.period
    return Cycle(cycle.slopes[kept], cycle.durations[kept], cycle.growth)


def _divided(cycle: Cycle) -> tuple[Array, Array]:
    """The same cycle in shorter intervals, so that its slopes may change in between."""
    parts = np.maximum(1, np.round(_GRID * cycle.durations / cycle.period)).astype(int)
    return np.repeat(cycle.slopes, parts, axis=0), np.repeat(cycle.durations / parts, parts)
