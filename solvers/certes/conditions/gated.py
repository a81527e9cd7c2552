"""Condition ``gated``: a GRU or an LSTM contracts in a weighted maximum norm, over a declared box of inputs.

The law stands in :mod:`certes.verify.gated`, its derivation in docs/gated-cells.md: a box of states that no trajectory
leaves, and a vector r > 0 with sup sum_j |J_ij| r_j <= rho r_i in every row. Here both are searched.

*States.* From the box that holds whatever torch starts with (GRU: |h| <= 1; LSTM: |h| <= 1 and |c| at most what the
gates over it allow) the map's own image is taken again and again, cut with the box before: each of these boxes is
invariant, each holds the next, and all trajectories pass from each into the next. The last one is used, and the steps
to it are counted.

*Vector.* T(r)_i = sup over all corners of row i is a maximum of nonnegative linear maps, chosen row by row. Its root is
found by policy iteration: the corners that are worst for r make a matrix N; a vector of N at a level just above its
Perron root, (level - N)^-1 1 > 0, is the next r. A gap between the root of N and max_i T(r)_i / r_i closes in a few
rounds; whatever r comes out, the verifier judges it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from certes.cells import GatedNetwork
from certes.conditions.base import NothingFound
from certes.engines.monitor import Monitor
from certes.proofs import GatedProof
from certes.verify.elementary import Interval, exact
from certes.verify.gated import MOST_STEPS, Corner, admissible, corners, gates, image, row_sums

Array = NDArray[np.float64]

NAME, VERSION = "gated", 1
#: What each iterated box is widened by, so that rounding does not spoil its invariance; when its shrinking ends.
_WIDEN, _SETTLED = 1e-11, 1e-7
#: Steps of narrowing that are tried, policy rounds, and the largest spread of r.
_STEPS, _ROUNDS, _SPREAD = 300, 20, 2.0**400
#: The claim lies this far above what r gives.
_SLACK = 1e-9
#: Bisection steps for the largest box of inputs that would pass.
_SCALINGS = 8


@dataclass(frozen=True, eq=False)
class Found:
    """Numbers for the verifier.

    Attributes:
        proof: boxes and vector.
        factor: max_i T(r)_i / r_i, rounded up a little; a claim if below 1.
        row: the row that attains it.
    """

    proof: GatedProof
    factor: float
    row: int


def start_box(cell: GatedNetwork) -> Interval | None:
    """The box that trajectories from the zero state never leave; None if a forget gate may be 1 as far as we tell."""
    n = cell.size
    unit = Interval(-np.ones(n), np.ones(n))
    if cell.form == "gru":
        return unit
    inside = gates(cell, Interval(np.tile(unit.lower, 2), np.tile(unit.upper, 2)), admissible(cell))
    enter, forget, new, _ = inside.values
    with np.errstate(all="ignore"):
        most = enter.upper * new.largest / (1.0 - forget.upper) * (1.0 + 1e-6) + 1e-6
    if not (np.isfinite(most).all() and (most < 1e100).all()):
        return None
    return Interval(np.concatenate([-most, -np.ones(n)]), np.concatenate([most, np.ones(n)]))


def narrowed(cell: GatedNetwork, start: Interval, monitor: Monitor) -> tuple[Interval, int]:
    """The last of the iterated boxes, and how many steps lead into it."""
    box, inputs, steps = start, admissible(cell), 0
    while steps < min(_STEPS, MOST_STEPS) and not monitor.over:
        found = image(cell, box, inputs)
        after = Interval(np.maximum(found.lower - _WIDEN, box.lower), np.minimum(found.upper + _WIDEN, box.upper))
        moved = float(np.maximum(after.lower - box.lower, box.upper - after.upper).max())
        if not moved > _SETTLED:
            break
        box, steps = after, steps + 1
    return box, steps


@dataclass(frozen=True, eq=False)
class _Rows:
    """The corners of a cell over its boxes, in float64, ready for vector after vector."""

    cell: GatedNetwork
    corners: list[Corner]
    matrices: list[Array]

    @classmethod
    def of(cls, cell: GatedNetwork, states: Interval) -> _Rows:
        found = list(corners(cell, states, admissible(cell)))
        return cls(cell, found, [cell.gate("U", k) for k in range(cell.gates)])

    def worst(self, weights: Array) -> Array:
        """N, shape (states, states): row by row the absolute values at the corner that is worst for r."""
        n, parts = self.cell.size, self.cell.parts
        sums, rows = np.full((parts, n), -1.0), np.zeros((parts, n, parts * n))
        for corner in self.corners:
            hidden = np.zeros((n, n))
            for gate, coefficient in corner.terms:
                hidden += coefficient.mid[:, None] * self.matrices[gate]
            full = np.zeros((n, parts * n))
            full[:, -n:] = hidden
            full[np.arange(n), np.arange(n)] += corner.own.mid
            np.abs(full, out=full)
            total = full @ weights
            better = total > sums[corner.part]
            sums[corner.part][better] = total[better]
            rows[corner.part][better] = full[better]
        return rows.reshape(parts * n, parts * n)


def _vector(matrix: Array) -> tuple[Array, float] | None:
    """r in (0, 1] with N r < level r for a level just above the Perron root of N, and that root."""
    try:
        root = float(np.abs(np.linalg.eigvals(matrix)).max())
    except np.linalg.LinAlgError:
        return None
    ones = np.ones(len(matrix))
    for share in (1e-7, 1e-5, 1e-3):
        level = root * (1.0 + share) + 1e-12
        try:
            r = np.linalg.solve(level * np.eye(len(matrix)) - matrix, ones)
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(r).all() and (r > 0.0).all() and float(r.max()) < _SPREAD * float(r.min()):
            return np.maximum(r / r.max(), 2.0**-500), root
    return None


def best_vector(cell: GatedNetwork, states: Interval, monitor: Monitor) -> tuple[Array, Array] | None:
    """r and T(r) / r by policy iteration; None if no vector stays in range."""
    rows, inputs = _Rows.of(cell, states), admissible(cell)
    weights, best = np.ones(cell.states), None
    level = math.inf
    for _ in range(_ROUNDS):
        quotients = row_sums(cell, states, inputs, weights) / weights
        top = float(quotients.max())
        if top < level:
            level, best = top, (weights, quotients)
        found = _vector(rows.worst(weights))
        if found is None or monitor.over or level <= found[1] * (1.0 + 1e-6) + 1e-9:
            break
        weights = found[0]
    return best


def find(cell: GatedNetwork, monitor: Monitor) -> Found | None:
    """Boxes and vector for a cell with declared inputs; None if there are none in range."""
    with np.errstate(all="ignore"):
        start = start_box(cell)
        if start is None:
            return None
        states, steps = narrowed(cell, start, monitor)
        found = best_vector(cell, states, monitor)
    if found is None:
        return None
    weights, quotients = found
    proof = GatedProof(start.lower, start.upper, states.lower, states.upper, weights, float(steps))
    return Found(proof, float(quotients.max()) * (1.0 + _SLACK) + _SLACK, int(quotients.argmax()))


def passing_scale(cell: GatedNetwork, monitor: Monitor) -> float | None:
    """The largest factor below 1, as far as bisection tells, by which the box would have to shrink about its centre.

    None if not even the centre alone passes.
    """
    assert cell.inputs is not None
    lower, upper = cell.inputs
    centre, half = 0.5 * lower + 0.5 * upper, 0.5 * upper - 0.5 * lower

    def passes(scale: float) -> bool:
        found = find(cell.with_inputs((centre - scale * half, centre + scale * half)), monitor)
        return found is not None and found.factor < 1.0

    if not passes(0.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(_SCALINGS):
        if monitor.over:
            break
        middle = 0.5 * (low + high)
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def missing(cell: GatedNetwork, found: Found | None, scale: float | None) -> NothingFound:
    """What to answer when no factor below 1 came out: which row failed, by how much, and what would pass."""
    if found is None:
        return NothingFound("margin", "a forget gate of the LSTM comes too close to 1 for its state to be bounded")
    n = cell.size
    state = ("h" if cell.form == "gru" or found.row >= n else "c") + f"[{found.row % n}]"
    detail = f"the row of {state} sums up to {found.factor:.6g} in the best weighted norm found, and 1 is the limit"
    if scale is not None:
        detail += f"; with the box of inputs shrunk to {scale:.3g} of its size about its centre every row would pass"
    else:
        detail += "; even with the input held at the centre of its box that row fails"
    return NothingFound("margin", detail, found.factor)


def scaled(found: Found, factor: float) -> Found:
    """The same numbers for a weaker claim."""
    return replace(found, factor=factor)


__all__ = ["NAME", "VERSION", "Found", "best_vector", "exact", "find", "missing", "narrowed", "passing_scale"]
