"""Condition ``absolute``: the weights' absolute values already contract (Kozachkov, Ennis, Slotine 2022, Thms 1 and 4).

Let N bound the Jacobian entry by entry: N_ij = g_i |W_ij| off the diagonal for ``rate`` (g_j |W_ij| for ``hopfield``),
g = max(|a|, |b|) of the slope interval [a, b]; on the diagonal, where signs help, N_ii = max(a_i W_ii, b_i W_ii). For
positive vectors r, l

    continuous  ((I - N) r)_i >= alpha_i r_i,  ((I - N)^T l)_i >= beta_i l_i
                rate min_i (alpha_i + beta_i) / (2 tau_i) in the metric diag(l_i tau_i / r_i)
    map         N_ij times step/tau_i, N_ii = max over slopes d of |1 - step/tau_i + step/tau_i d W_ii|,
                N r <= rho_r r, N^T l <= rho_l l: factor sqrt(rho_r rho_l) in the metric diag(l_i / r_i)

Best vectors: the Perron vectors of T^-1 (N - I), resp. N. On a reducible N (triangular up to a permutation included)
the best rate is a supremum that no metric attains; the vectors are then built per strongly connected component with
geometric weights between them. They give up as little of the rate as keeps the spread of each vector below 2^SPREAD,
but at most ``LOSS`` of it, whatever the spread: the certificate states the condition number of the metric.

The same vectors stay valid when any weight shrinks in absolute value: pruning keeps the certificate.
Works on sparse weights, O(nonzeros) per step and no copy beyond one value per nonzero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.conditions.base import Candidate, Decision, Goal, NothingFound, aim, claim, missed
from certes.engines.perron import (
    Components,
    ExtendedVector,
    LocalVectors,
    Nonnegative,
    join,
    local_vectors,
    quotients,
    row_chunks,
    strong_components,
)
from certes.proofs import AbsoluteProof
from certes.systems import SparseMatrix, System

Array = NDArray[np.float64]

#: log2 of the spread of r and of l that costs nothing; beyond it rate is traded for spread.
SPREAD = 48.0
#: Largest part of the distance between the best level and the border that is given up.
LOSS = 1e-3
#: Nonzeros from which the vectors are found to 1e-6 of the distance to the border instead of 1e-7.
LARGE = 1_000_000
#: What is given up in turn: 1e-9 only to be above the root at all.
_LOSSES = (1e-9, 1e-7, 1e-6, 1e-5, 1e-4, LOSS)
_BACK_OFFS = (1e-12, 1e-10, 1e-8)


@dataclass(frozen=True, eq=False)
class Majorant:
    """The nonnegative matrix whose Perron root decides.

    Attributes:
        matrix: continuous T^-1 N + diag(border - 1/tau_i), map N.
        border: the level below which it contracts: the rate is ``border`` minus the level; 1 for a map.
        scale: l = scale * left vector, shape (n,) (1/tau for continuous time).
        room: border minus the diagonal of ``matrix``, without cancellation: (1 - N_ii)/tau_i, or 1 - N_ii; shape (n,).
    """

    matrix: Nonnegative
    border: float
    scale: Array
    room: Array


def majorant(system: System) -> Majorant:
    """The majorant of a rate or hopfield network, dense or sparse."""
    weights = system.tensors["W"].value
    if not isinstance(weights, SparseMatrix):
        weights = _compress(weights)
    own = _own_weights(weights)
    lower, upper, tau = system.slope.lower, system.slope.upper, system.tau
    gain = 1.0 / tau if system.step is None else system.step / tau
    bound = system.slope.bound
    data = np.abs(weights.data)
    rate = system.form == "rate"
    _scale(data, weights, gain * bound if rate else gain, None if rate else bound)
    if system.step is None:
        inner = np.maximum(lower * own, upper * own)
        border = float(np.max((1.0 - np.minimum(inner, 0.0)) / tau))
        diagonal = np.maximum(inner / tau + (border - 1.0 / tau), 0.0)
        matrix = Nonnegative(data, weights.indices, weights.indptr, diagonal)
        return Majorant(matrix, border, 1.0 / tau, (1.0 - inner) / tau)
    ends = [np.abs(1.0 - gain + gain * d * own) for d in (lower, upper)]
    matrix = Nonnegative(data, weights.indices, weights.indptr, np.maximum(*ends))
    return Majorant(matrix, 1.0, np.ones_like(tau), 1.0 - matrix.diagonal)


def _compress(weights: Array) -> SparseMatrix:
    """CSR of the nonzeros of a dense matrix."""
    rows, columns = np.nonzero(weights)
    indptr = np.searchsorted(rows, np.arange(len(weights) + 1))
    return SparseMatrix(weights[rows, columns], columns.astype(np.int32), indptr.astype(np.int64), weights.shape)


def _own_weights(weights: SparseMatrix) -> Array:
    """W_ii, shape (n,)."""
    own = np.zeros(weights.shape[0])
    for first, last, rows in row_chunks(weights.indptr):
        mine = np.flatnonzero(weights.indices[first:last] == rows)
        own[rows[mine]] = weights.data[first + mine]
    return own


def _scale(data: Array, weights: SparseMatrix, by_row: Array, by_column: Array | None) -> None:
    """Multiply entries by factors of their row and column, and set those on the diagonal to 0, in place."""
    for first, last, rows in row_chunks(weights.indptr):
        columns, part = weights.indices[first:last], data[first:last]
        part *= by_row[rows]
        if by_column is not None:
            part *= by_column[columns]
        part[columns == rows] = 0.0


@dataclass(frozen=True)
class Absolute:
    """The condition; see the module's docstring for the law."""

    name: str = "absolute"
    version: int = 1

    def applies(self, system: System) -> str | None:
        """Every rate and hopfield network, in continuous time or with a step."""
        return (
            None if system.form != "lure" else "'absolute' speaks of rate and hopfield networks, not of the lure form"
        )

    @np.errstate(all="ignore")  # overflow ends in inf or NaN, and those are looked for
    def decide(self, system: System, goal: Goal) -> Decision:
        """Perron vectors of the majorant; claims 1e-12, 1e-10, 1e-8 (relative to 1/tau) below what they give."""
        refusal = self.applies(system)
        if refusal is not None:
            return NothingFound("not-applicable", refusal)
        bounds = majorant(system)
        if not (np.isfinite(bounds.matrix.data).all() and np.isfinite(bounds.matrix.diagonal).all()):
            return NothingFound("margin", "slope bounds times weights overflow")
        components = strong_components(bounds.matrix)
        if goal.progress is not None:
            goal.progress(f"absolute: {components.count} strongly connected components")
        tolerance = 1e-7 if bounds.matrix.data.size < LARGE else 1e-6
        right = local_vectors(bounds.matrix, components, bounds.border, tolerance)
        root = float(right.upper.max())
        if not root < bounds.border:
            best = _number(system, bounds, root, root)
            return missed(system, best, goal, self.name)
        left = local_vectors(bounds.matrix, components, bounds.border, tolerance, transposed=True)
        pair = _join_both(system, bounds, components, right, left, goal)
        if pair is None:
            return missed(system, _number(system, bounds, root, root), goal, self.name)
        return self._candidates(system, bounds, *pair, goal)

    def _candidates(
        self, system: System, bounds: Majorant, r: ExtendedVector, y: ExtendedVector, goal: Goal
    ) -> Decision:
        above, beside = quotients(bounds.matrix, r), quotients(bounds.matrix, y, transposed=True)
        numbers: list[float] = []
        for back in _BACK_OFFS:
            best = _reached(system, bounds, above, beside, back)
            numbers += aim(system, best, goal, (0.0,))
        if not numbers:
            return missed(system, _reached(system, bounds, above, beside, 0.0), goal, self.name)
        l = ExtendedVector.of(y.mantissa * bounds.scale, y.exponent)
        proof = AbsoluteProof(r.mantissa, r.exponent, l.mantissa, l.exponent)
        return tuple(Candidate(proof, claim(system, number)) for number in dict.fromkeys(numbers))


def _reached(system: System, bounds: Majorant, above: Array, beside: Array, back: float) -> float:
    """The rate or factor of a pair of vectors with these quotients, ``back`` worse in every row (relative to 1/tau)."""
    if system.continuous:
        return float(np.min(bounds.room - (above + beside) / 2.0 - back / system.tau))
    diagonal = bounds.matrix.diagonal
    return float(np.sqrt((above + diagonal).max()) * np.sqrt((beside + diagonal).max())) + back


def _number(system: System, bounds: Majorant, right: float, left: float) -> float:
    """Rate or factor that belongs to levels of the right and left vector."""
    return bounds.border - (right + left) / 2.0 if system.continuous else float(np.sqrt(right) * np.sqrt(left))


def _join_both(
    system: System, bounds: Majorant, components: Components, right: LocalVectors, left: LocalVectors, goal: Goal
) -> tuple[ExtendedVector, ExtendedVector] | None:
    """Right and left vectors of the whole matrix, at the level that the target or the spread asks for."""
    root = max(float(right.upper.max()), float(left.upper.max()))
    room = bounds.border - root
    if room <= 0:
        return None
    losses = _LOSSES if components.count <= 10_000 else (LOSS,)  # a pass over very many components takes seconds
    levels = [root + loss * room for loss in losses]
    if goal.target is not None:
        wanted = bounds.border - goal.target if system.continuous else goal.target
        if wanted <= root:
            wanted = levels[0]
        levels = [root + 0.9 * (wanted - root)]
    found = None
    for level in levels:
        r = join(bounds.matrix, components, right, level)
        y = join(bounds.matrix, components, left, level, transposed=True)
        if r is None or y is None:
            continue
        found = r, y
        if max(r.spread_log2, y.spread_log2) <= SPREAD:
            break
    return found


CONDITION = Absolute()
