"""The plain alternative to a projection: all movable weights times one number, as large as is certified."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from certes.projection.base import Problem
from certes.projection.settle import Settled, certified, settle
from certes.systems import SparseMatrix

Array = NDArray[np.float64]

#: Halvings of the interval of scales where no scale is known.
_HALVINGS = 30
#: States beyond which a scale is not searched with the costly condition.
_COSTLY = 120


def shrunk(problem: Problem, condition: str, scale: float | None, q: Array | None) -> Settled | None:
    """The largest scaling that one condition certifies; None if it certifies none.

    Args:
        problem: the question.
        condition: name of the condition.
        scale: a scale that is nearly certified with multipliers q, if one is known and nothing has to stay.
        q: those multipliers, shape (n,).
    """
    if problem.structure.movable is not None or scale is None:
        scale = _search(problem, condition, q)
        if scale is None:
            return None
    return settle(
        problem.system,
        _scaled(problem, scale),
        problem.number,
        condition,
        q,
        structure=problem.structure,
        monitor=problem.monitor,
    )


def _scaled(problem: Problem, scale: float) -> Array | SparseMatrix:
    given = problem.system.tensors["W"].value
    if isinstance(given, SparseMatrix):
        return SparseMatrix(scale * given.data, given.indices, given.indptr, given.shape)
    anchor = problem.structure.anchor
    return np.asarray(anchor + scale * (given - anchor))


def _search(problem: Problem, condition: str, q: Array | None) -> float | None:
    """A scale from bisection; None if not even the frozen weights alone are certified."""
    if condition == "lure" and problem.system.size > _COSTLY:
        return None

    def holds(scale: float) -> bool:
        scaled = _scaled(problem, scale)
        data = scaled.data if isinstance(scaled, SparseMatrix) else scaled
        system = problem.system.with_weights(data)
        return certified(system, problem.number, condition, q, problem.monitor) is not None

    low, high = 0.0, 1.0
    if not holds(low):
        return None
    for _ in range(_HALVINGS if condition != "lure" else _HALVINGS // 3):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
        if problem.monitor.over:
            break
    return low
