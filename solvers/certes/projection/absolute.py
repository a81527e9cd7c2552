"""The stable set of ``absolute``: absolute weights with a small Perron root, row by row (:mod:`.rows`)."""

from __future__ import annotations

from certes.projection.base import Nothing, Problem, Proposal
from certes.projection.rows import nearest_absolute


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
        found = nearest_absolute(
            problem.system, problem.number, movable=problem.structure.movable, monitor=problem.monitor
        )
        if found is None:
            return Nothing("infeasible", "the weights that may not move are beyond the level by themselves")
        return Proposal(found.weights, self.name)


ABSOLUTE = AbsoluteSet()
