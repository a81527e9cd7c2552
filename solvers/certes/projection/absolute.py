"""The stable set of ``absolute``: absolute weights with a small Perron root, row by row (:mod:`.rows`)."""

from __future__ import annotations

import numpy as np

from certes.projection.base import Nothing, Problem, Proposal
from certes.projection.rows import nearest_absolute
from certes.systems import System

#: The number aimed at is harder than the one asked for by this share of the way to the hardest possible.
_MARGIN = 1e-6


class AbsoluteSet:
    """See the module's docstring."""

    name = "absolute"

    def applies(self, problem: Problem) -> str | None:
        """Every rate and Hopfield network, in the Frobenius norm, without a rank."""
        if problem.weighting is not None:
            return "'absolute' is projected on in the Frobenius norm only"
        if problem.structure.rank is not None:
            return "'absolute' cannot keep a rank"
        return None

    def nearest(self, problem: Problem) -> Proposal | Nothing:
        """Rows on weighted l1 balls, with the best weights found."""
        number = _tighter(problem.system, problem.number)
        found = nearest_absolute(problem.system, number, movable=problem.structure.movable, monitor=problem.monitor)
        if found is None:
            return Nothing("infeasible", "the weights that may not move are beyond the level by themselves")
        return Proposal(found.weights, self.name)


def _tighter(system: System, number: float) -> float:
    """A number a little harder: the condition's own vectors stop short of the exact one."""
    if system.step is None:
        return number + _MARGIN * (1.0 / float(system.tau.max()) - number)
    floor = float(np.abs(1.0 - system.step / system.tau).max())
    return number - _MARGIN * (number - floor)


ABSOLUTE = AbsoluteSet()
