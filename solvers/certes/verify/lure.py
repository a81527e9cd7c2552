"""Obligations of a Lur'e proof: metric P > 0 and multipliers Q = diag(q) of docs/theory.md section 2.

With (A, B, C) the normal form (of the transposed system if the proof is ``dual``), G = diag(gap), S = I, or T^-1
(continuous) and diag(step / tau) (map) if dual:

    continuous, rate c   [[-(P A + A^T P + 2 c P), .], [-(P B + C^T G Q)^T, 2 Q]] - diag(m1 S^2, m2 (G Q)^2)       > 0
    map, factor rho      [[rho^2 P, ., .], [-(C^T G Q)^T, 2 Q, .], [P A, P B, P]] - diag(m1 S^2, m2 (G Q)^2, 0)    > 0

Together with P > 0 this gives P J + J^T P <= -2 c P, resp. J^T P J <= rho^2 P, for every slope pattern (S-procedure;
A. Gokhale, A. Proskurnikov, Y. Kawano, F. Bullo, arXiv 2604.00119). P > 0 is never implied: with P = -1 the first block
is positive for x' = +x. Moving the weights by D, norm(D) <= r, changes the block by at most diag(m1 S^2, m2 (G Q)^2)
as soon as r^2 <= m1 m2: that is the weight radius.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from certes.proofs import LureProof
from certes.systems import System
from certes.verify.definite import SymmetricBox, assemble
from certes.verify.intervals import Box, plus_diagonal
from certes.verify.question import Question, definite_check, is_symmetric
from certes.verify.reduction import Diagonal, NormalForm, Operator, dense, enclose, premultiply, times
from certes.verify.report import Check


def _lure(question: Question) -> LureProof:
    assert isinstance(question.proof, LureProof)
    return question.proof


def block(system: System, proof: LureProof, level: float) -> SymmetricBox:
    """The block of the module docstring at a rate (continuous) or factor (map), every rounding enclosed."""
    form = enclose(system)
    form = form.dual if proof.dual else form
    metric, q = Box.exact(proof.metric), Box.exact(proof.multipliers)
    gap_q = form.gap * q
    corner = q + q - Box.exact(proof.slack_input) * gap_q * gap_q
    if form.continuous:
        return flow_block(form, metric, gap_q, corner, level, lambda state: _minus_state(state, form, proof))
    return map_block(form, metric, gap_q, corner, level, lambda state: _minus_state(state, form, proof))


def _as_it_is(state: Box) -> Box:
    return state


def flow_block(
    form: NormalForm, metric: Box, gap_q: Box, corner: Box, rate: float, less: Callable[[Box], Box] = _as_it_is
) -> SymmetricBox:
    """The block of a rate: of P, G Q and 2 Q as they are given; ``less`` takes away from the part of the states."""
    decay = less(-_decay(metric, form.A, rate))
    return assemble([[decay], [-(premultiply(form.B.T, metric) + _scaled_rows(gap_q, form.C)), corner]])


def map_block(
    form: NormalForm, metric: Box, gap_q: Box, corner: Box, factor: float, less: Callable[[Box], Box] = _as_it_is
) -> SymmetricBox:
    """The block of a factor, likewise; also of a Lipschitz constant, which may exceed 1."""
    exact = Box.exact(factor)
    kept = less(metric * (exact * exact))
    return assemble(
        [[kept], [-_scaled_rows(gap_q, form.C), corner], [times(metric, form.A), times(metric, form.B), metric]]
    )


def _scaled_rows(scale: Box, operator: Operator) -> Box:
    """diag(scale) @ operator, dense."""
    return dense(operator) * scale[:, None]


def _decay(metric: Box, A: Operator, level: float) -> Box:
    """P A + A^T P + 2 c P."""
    double = Box.exact(2.0 * level)
    if isinstance(A, Diagonal):
        return metric * (A.entries[:, None] + A.entries[None, :] + double)
    product = times(metric, A)
    return product + product.T + metric * double


def _minus_state(matrix: Box, form: NormalForm, proof: LureProof) -> Box:
    """matrix - m1 S^2."""
    if proof.slack_state == 0.0:
        return matrix
    slack = Box.exact(np.full(1, proof.slack_state))
    if proof.dual and form.leak is not None:
        slack = slack * form.leak.entries * form.leak.entries
    return plus_diagonal(matrix, -slack)


def shapes(question: Question) -> Check:
    """Metric (n, n), exactly symmetric; multipliers (m,)."""
    system, proof = question.system, _lure(question)
    fits = proof.metric.shape == (system.size, system.size) and proof.multipliers.shape == system.slope.lower.shape
    return Check("shapes", fits and is_symmetric(proof.metric), "metric (n, n) and symmetric, multipliers (m,)")


def metric_positive(question: Question) -> Check:
    """P > 0, by a Cholesky of its own, always."""
    return definite_check("metric-positive", Box.exact(_lure(question).metric), "P > 0")


def block_positive(question: Question) -> Check:
    """The block minus its deduction exceeds the claimed margin; m1, m2 >= 0."""
    proof, claims = _lure(question), question.claims
    if not (proof.slack_state >= 0 and proof.slack_input >= 0):
        return Check("block-positive", False, "slacks m1, m2 >= 0")
    level = claims.rate if question.system.continuous else claims.factor
    assert level is not None
    box = block(question.system, proof, level)
    return definite_check("block-positive", box, f"Lur'e block > {claims.margin!r} I at {level!r}", claims.margin)


def metric_bounds(question: Question) -> Check:
    """metric_lower I < P < metric_upper I, unless nothing that rests on them is claimed."""
    proof, claims = _lure(question), question.claims
    if claims.gain is None and claims.metric_condition_log2 is None:
        return Check("metric-bounds", True, "not claimed")
    if not 0 < proof.metric_lower < proof.metric_upper < np.inf:
        return Check("metric-bounds", False, "0 < lower < upper < inf")
    metric, detail = Box.exact(proof.metric), "lower I < P < upper I"
    lower = definite_check("metric-bounds", plus_diagonal(metric, Box.exact(np.full(1, -proof.metric_lower))), detail)
    upper = definite_check("metric-bounds", plus_diagonal(-metric, Box.exact(np.full(1, proof.metric_upper))), detail)
    return lower if not lower.held else upper


def weight_radius(question: Question) -> Check:
    """r^2 <= m1 m2, for unshifted slopes and weights that enter C (rate) or, transposed, B (hopfield, dual)."""
    system, proof, radius = question.system, _lure(question), question.claims.weight_radius
    if radius is None:
        return Check("weight-radius", True, "not claimed")
    if system.slope.lower.any() or (system.form, proof.dual) not in {("rate", False), ("hopfield", True)}:
        return Check("weight-radius", False, "a radius needs slopes from 0, and form rate (hopfield: a dual proof)")
    held = radius >= 0 and Fraction(radius) ** 2 <= Fraction(proof.slack_state) * Fraction(proof.slack_input)
    return Check("weight-radius", held, f"{radius!r}^2 <= m1 m2")
