"""Search for the slopes at which a network grows fastest: the first half of a refutation.

From each start, Frank-Wolfe steps go towards the vertex that the gradient of the leading eigenvalue points at, with
line search; then one or two slopes at a time are flipped, the most promising first (:mod:`certes.engines.flips`), until
no flip looked at helps. The first starts are seeded vertices, later ones children of the best local optima found so
far: what two of them agree on is kept, the rest is drawn anew (a memetic search). It is a heuristic: what it finds is
made rigorous elsewhere, and finding nothing proves nothing. It is deterministic: seeded, and with a budget counted in
eigenvalue problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from certes.engines.flips import predicted
from certes.engines.slopes import Linearisation, Mode, excess, growth_at, leading_mode

Array = NDArray[np.float64]

#: Relative distance beyond the stability border at which a search is content and stops.
ENOUGH = 1e-2
#: Starts before children are made, and local optima that may be parents.
_FRESH, _PARENTS = 16, 12
#: Starts without progress after which to end: this many per slope, and at most.
_STALE, _MOST_STALE = 4, 48
#: Flips that are checked before a vertex counts as a local optimum.
_TRIED = 8

_LINE = (1.0, 0.5, 0.25, 0.1, 0.03)
_LEAST_GAIN = 1e-9
_SEED = 20260401


def default_budget(size: int) -> int:
    """Number of eigenvalue problems a search may solve: about ten seconds of one core for 100 states and more."""
    return int(np.clip(2.5e7 / max(size, 1) ** 2, 20, 3000))


def search(
    problem: Linearisation,
    *,
    vertices: bool = False,
    budget: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    enough: float = ENOUGH,
    starts: Sequence[Array] = (),
) -> Mode | None:
    """Slopes with the largest growth found.

    Args:
        problem: the Jacobians to search.
        vertices: only count slopes at the ends of their intervals (piecewise linear activations attain no others).
        budget: number of eigenvalue problems (default: :func:`default_budget`).
        stop: asked between eigenvalue problems; True ends the search with what it has (the caller's deadline).
        enough: the search ends early once it is beyond the border by this much, relative.
        starts: slopes to begin with, each of shape (m,), before those of the search itself.

    Returns:
        The best mode, stable or not. None if no eigenvalue could be computed.
    """
    size = problem.A.shape[0]
    climb = _Climb(problem, vertices, default_budget(size) if budget is None else budget, stop, enough)
    optima: list[Mode] = []
    stale = 0
    for start in _starts(problem, starts, optima):
        known = -np.inf if climb.best is None else climb.best.growth
        found = climb.run(start)
        if climb.done():
            break
        if found is not None and not any(np.array_equal(found.slopes, entry.slopes) for entry in optima):
            optima.append(found)
            optima.sort(key=lambda entry: -entry.growth)
            del optima[_PARENTS:]
        progress = climb.best is not None and climb.best.growth > known + _LEAST_GAIN * climb.best.scale
        stale = 0 if progress else stale + 1
        if stale >= min(_STALE * len(start), _MOST_STALE):
            break
    return climb.best


def _starts(problem: Linearisation, given: Sequence[Array], optima: list[Mode]) -> Iterator[Array]:
    """The given slopes, all highest, all lowest, the largest modulus of each, seeded vertices, children without end."""
    lower, upper = problem.lower, problem.upper
    yield from given
    yield upper.copy()
    yield lower.copy()
    if (lower < 0).any() and (upper > 0).any():
        yield np.where(np.abs(lower) > np.abs(upper), lower, upper)
    random = np.random.default_rng(_SEED)
    for _ in range(_FRESH):
        yield _random_vertex(problem, random)
    while True:
        yield _child(problem, random, optima) if len(optima) > 1 else _random_vertex(problem, random)


def _random_vertex(problem: Linearisation, random: np.random.Generator) -> Array:
    share = random.uniform(0.3, 0.95)
    return np.where(random.random(problem.lower.shape) < share, problem.upper, problem.lower)


def _child(problem: Linearisation, random: np.random.Generator, optima: list[Mode]) -> Array:
    """Each slope from one of two parents, then a few flipped; more if the parents hardly differ."""
    one, other = random.choice(len(optima), 2, replace=False)
    first, second = optima[one].slopes, optima[other].slopes
    m = len(first)
    child: Array = np.where(random.random(m) < 0.5, first, second)
    few = int(random.integers(0, max(1, m // 20) + 1))
    count = max(m // 8, 2) if np.count_nonzero(first != second) < 4 else few
    flipped = random.choice(m, min(count, m), replace=False)
    child[flipped] = problem.opposite(child)[flipped]
    return child


class _Climb:
    """The budget, the best mode so far, and the two kinds of moves."""

    def __init__(
        self, problem: Linearisation, vertices: bool, budget: int, stop: Callable[[], bool], enough: float
    ) -> None:
        self.problem, self.vertices, self.left, self.stop, self.enough = problem, vertices, budget, stop, enough
        self.best: Mode | None = None
        self.climbed: dict[bytes, Mode] = {}  # vertices that were climbed from, and the optimum that was reached

    def done(self) -> bool:
        enough = self.best is not None and excess(self.problem, self.best) > self.enough
        return enough or self.left <= 0 or self.stop()

    def look(self, slopes: Array) -> Mode | None:
        self.left -= 1
        mode = leading_mode(self.problem, slopes)
        if mode is not None and self.counts(slopes) and (self.best is None or mode.growth > self.best.growth):
            self.best = mode
        return mode

    def counts(self, slopes: Array) -> bool:
        return not self.vertices or bool(np.all((slopes == self.problem.lower) | (slopes == self.problem.upper)))

    def run(self, start: Array) -> Mode | None:
        """The local optimum (a vertex) that a start leads to; None if there is none, or the search is over."""
        mode = self.look(start)
        if mode is None or self.done():
            return None
        mode = self.ascend(mode)
        corner = self.problem.vertex(mode.slopes)
        if not np.array_equal(corner, mode.slopes):
            if self.done() or (rounded := self.look(corner)) is None:
                return None
            mode = rounded
        if self.done():
            return None
        if (known := self.climbed.get(corner.tobytes())) is None:
            known = self.climbed[corner.tobytes()] = self.flip(mode)
        return known

    def ascend(self, mode: Mode) -> Mode:
        """Frank-Wolfe: go towards the vertex of the gradient as far as the growth rises."""
        while not self.done():
            target = np.where(mode.gradient > 0, self.problem.upper, self.problem.lower)
            target = np.where(mode.gradient == 0, mode.slopes, target)
            better = self.line(mode, target)
            if better is None:
                return mode
            mode = better
        return mode

    def line(self, mode: Mode, target: Array) -> Mode | None:
        if np.array_equal(target, mode.slopes):
            return None
        for share in _LINE:
            if self.done():
                return None
            tried = self.look(target if share == 1.0 else mode.slopes + share * (target - mode.slopes))
            if tried is not None and tried.growth > mode.growth + _LEAST_GAIN * mode.scale:
                return tried
        return None

    def flip(self, mode: Mode) -> Mode:
        """Flip one or two slopes at a time for as long as that helps."""
        slopes, growth = mode.slopes, mode.growth
        while not self.done():
            better = self.flipped(slopes, growth + _LEAST_GAIN * mode.scale)
            if better is None:
                break
            slopes, growth = better
        return mode if slopes is mode.slopes else (self.look(slopes) or mode)

    def flipped(self, slopes: Array, least: float) -> tuple[Array, float] | None:
        """The first of the promising flips that brings the growth above ``least``."""
        self.left -= 1
        for flip in predicted(self.problem, slopes)[:_TRIED]:
            if flip.growth <= least or self.done():
                return None
            tried = flip.of(self.problem, slopes)
            self.left -= 1
            growth = growth_at(self.problem, tried)
            if growth > least:
                return tried, growth
        return None
