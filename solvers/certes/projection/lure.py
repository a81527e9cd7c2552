"""The stable set of ``lure``: the exact parametrisation, descended from the best uniformly scaled start.

For uniform leak and slopes in [0, g] or [-g, g] the set is the union over Q of convex sets, and :mod:`.factors`
parametrises all of it. Starts are the plain shrink at the multipliers that allow the largest one, the convex optimum
for those multipliers (:mod:`.admm`, small networks), then random ones.

Every other network (several time constants, other slopes) is left to :mod:`.surrogate`, which searches through such
parametrisations of a similar network.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from certes.conditions.uniform import UniformLeak
from certes.engines import conic, scaling
from certes.engines.families import Functional, Level, Norm
from certes.projection import admm
from certes.projection.base import Nothing, Problem, Proposal
from certes.projection.bound import distance_bound
from certes.projection.descent import Descent, Frame, Point
from certes.projection.factors import Ball, Conic

Array = NDArray[np.float64]

#: The level that is aimed at is harder than the one asked for by this, relative: room for rounding and verification.
MARGIN = 2e-6
#: Relative tolerance of the first multipliers: the descent moves them anyway.
FIRST = 3e-4
#: States up to which the convex optimum for the first multipliers is computed; it is a start if there is more than one.
CONVEX = 60
#: Spread of log q and relative size of Z of the random starts.
_RANDOM = 0.3


class LureSet:
    """See the module's docstring."""

    name = "lure"

    def applies(self, problem: Problem) -> str | None:
        """Dense weights."""
        return "the weights are sparse; 'lure' needs a dense matrix" if problem.system.is_sparse else None

    def nearest(self, problem: Problem) -> Proposal | Nothing:
        """The nearest weights over all starts."""
        leak = UniformLeak.of(problem.system)
        if leak is not None:
            return Search(problem, Goal(leak, problem.number), leak).run()
        from certes.projection import surrogate

        return surrogate.nearest(problem)


class Goal:
    """The functional of a number for a network of uniform leak, and the family in which its constants are fixed.

    Attributes:
        functional: c0, r0 and t (for norms 0, 0 and the norm itself).
        family: the family whose levels are t for these c0, r0.
        parametrisation: the matrices A that are allowed.
    """

    def __init__(self, leak: UniformLeak, number: float, tightness: float = 1.0 - MARGIN) -> None:
        """The functional at the level of ``number``, times ``tightness``: by default slightly harder."""
        level = leak.level(number)
        if isinstance(leak.family, Norm):
            self.functional = Functional(0.0, 0.0, level * tightness)
            self.family: Level | Norm = Norm()
            self.parametrisation: Conic | Ball = Ball(self.functional.t)
            return
        exact = leak.family.functional(level)
        self.functional = Functional(exact.c0, exact.r0, exact.t * tightness)
        self.family = Level(exact.c0, exact.r0)
        self.parametrisation = Conic(self.functional)


class Search:
    """Descents from several starts.

    Args:
        problem: the question.
        goal: the level to stay inside.
        leak: the network whose level that is: the problem's own, or one that stands for it.
    """

    def __init__(self, problem: Problem, goal: Goal, leak: UniformLeak) -> None:
        self.problem, self.goal, self.leak = problem, goal, leak
        gains = leak.system.slope.bound
        self.silent = gains == 0.0  # neurons whose slope is 0: their weights do not matter
        self.frame = Frame(np.where(self.silent, 1.0, gains), problem.system.form == "hopfield")
        self.descent = Descent(problem, self.goal.parametrisation, self.frame)
        self.given = problem.system.matrix("W")
        self.fixed: float | None = None

    def run(self) -> Proposal | Nothing:
        """Descend from every start, keep the nearest."""
        m = self.frame.matrix(np.where(self._silent_rows(), 0.0, self.given))
        found = scaling.optimise(m, self.goal.family, tolerance=FIRST, monitor=self.problem.monitor)
        if not np.isfinite(found.level):
            return Nothing("solver", "no multipliers were found (entries too large or too far apart)")
        best: tuple[float, Array, Array] | None = None
        for count, point in enumerate(self._starts(m, found)):
            self.problem.monitor.say(f"lure: start {count + 1}")
            weights, q = self.descent.run(point)
            weights = np.where(self._silent_rows(), self.given, weights)
            distance = self.problem.distance(weights)
            if best is None or distance < best[0]:
                best = distance, weights, q
            if self.problem.monitor.over:
                break
        if best is None:
            return Nothing("solver", "no start inside the stable set")
        goal = self.goal.functional
        scale = min(1.0, goal.t / max(found.level, 1e-300))
        bound = None
        own = self.leak.system is self.problem.system
        if own and self.problem.weighting is None and not self.problem.monitor.over:
            bound = distance_bound(self.leak, goal, found.q, found.level, self.problem.monitor)
        return Proposal(best[1], LureSet.name, best[2], self.fixed, bound, scale, found.q)

    def _silent_rows(self) -> NDArray[np.bool_]:
        """Entries of W that multiply a slope of 0, shape (n, n)."""
        shape = self.given.shape
        if self.problem.system.form == "hopfield":
            return np.broadcast_to(self.silent[None, :], shape)
        return np.broadcast_to(self.silent[:, None], shape)

    def _starts(self, m: Array, found: scaling.Optimum) -> Iterator[Point]:
        """The shrink; the convex optimum; random ones."""
        random = np.random.default_rng(self.problem.seed)
        q, a = found.q, conic.scaled(m, found.q)
        first = self._inside(a, q, found.level)
        if first is not None:
            yield first
        if self._convex(len(m)):
            solved = admm.nearest(self.problem, self.frame, self.goal.functional, q)
            if solved is not None:
                self.fixed = self.problem.distance(solved)
                if self.problem.starts == 1:
                    return
                second = self._inside(conic.scaled(self.frame.matrix(solved), q), q, None)
                if second is not None:
                    yield second
        for _ in range(self.problem.starts - 1):
            other = q * np.exp(_RANDOM * random.standard_normal(len(q)))
            point = self._inside(conic.scaled(m, other), other, None)
            if point is not None:
                size = _RANDOM * float(np.abs(point.z).mean())
                yield Point(point.z + size * random.standard_normal(point.z.shape), point.d)

    def _convex(self, size: int) -> bool:
        """Whether the convex optimum for the first multipliers is worth its time."""
        if not self.problem.plain or size > CONVEX or self.silent.any() or isinstance(self.goal.family, Norm):
            return False
        return self.leak.system is self.problem.system

    def _inside(self, a: Array, q: Array, level: float | None) -> Point | None:
        """The point of A scaled into the set, A itself if it is inside."""
        level = conic.best_level(a, self.goal.family) if level is None else level
        if level is None:
            return None
        goal = self.goal.functional.t
        for margin in (1e-6, 1e-4, 1e-2):
            share = min(1.0, goal / max(level, 1e-300)) * (1.0 - margin)
            if (point := self.descent.start(share * a, q)) is not None:
                return point
        return None


LURE = LureSet()
