"""Obligations of ``symmetric``, ``product`` and ``singular`` proofs.

symmetric (Thm 2; V. Centorrino, A. Gokhale, A. Davydov, G. Russo, F. Bullo, IEEE L-CSS 7, 2023), W = W^T, slopes
    [0, g]:
    (1 - c tau) I - g W > 0 gives rate c: for b = 1 - c tau, R = 2 b (I + (I - g W / b)^1/2) and Q = 4 b I the Lur'e
    block of P = R^2 (rate form; R^-2 for hopfield) is positive semidefinite. W < 0 gives rate 1 / tau in -W or (-W)^-1.
product (Thm 3), W = -P1 S P2 + E, slopes [0, g]:
    M = P2 S P2 (rate; inverse metric P1 S P1 for hopfield), lower I < M < upper I:
    rate (1 - g sqrt(upper / lower) norm(E)) / tau.
singular (Thm 5), slopes [-g_i, g_i], W_g = G W (rate) or W G (hopfield), [[s Q, .], [Q W_g, s Q]] > 0, s = norm:
    continuous rate (1 - s) / tau_max in the metric Q T; map: factor max_i (|1 - a_i| + a_i s) in Q diag(a)^-1.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from certes.proofs import ProductProof, SingularProof, SymmetricProof
from certes.verify.definite import assemble
from certes.verify.intervals import Box, diagonal, frobenius_upper
from certes.verify.question import (
    Question,
    definite_check,
    is_symmetric,
    leak_bounds,
    scaled_rate,
    slopes_from_zero,
)
from certes.verify.report import Check


def _symmetric(question: Question) -> SymmetricProof:
    assert isinstance(question.proof, SymmetricProof)
    return question.proof


def symmetric_weights(question: Question) -> Check:
    """The hypotheses, and W = W^T, entry by entry, exactly."""
    if (failed := slopes_from_zero(question)) is not None:
        return failed
    return Check("symmetric-weights", is_symmetric(question.system.matrix("W")), "W = W^T")


def symmetric_definite(question: Question) -> Check:
    """(1 - c tau) I - g W > 0, or -W > 0."""
    system = question.system
    weights = Box.exact(system.matrix("W"))
    if _symmetric(question).negative:
        return definite_check("definite", -weights, "-W > 0", question.claims.margin)
    rate, tau = Box.exact(question.claims.rate or 0.0), Box.exact(float(system.tau[0]))
    room = Box.exact(np.ones(system.size)) - rate * tau
    bound = Box.exact(float(system.slope.upper.max()))
    return definite_check(
        "definite", diagonal(room) - weights * bound, "(1 - c tau) I - g W > 0", question.claims.margin
    )


def symmetric_rate(question: Question) -> Check:
    """c tau <= 1 when W < 0, c tau < 1 otherwise."""
    rate = scaled_rate(question)
    held = rate <= 1 if _symmetric(question).negative else rate < 1
    return Check("rate", held, "c tau <= 1 (W < 0) or c tau < 1")


def _product(question: Question) -> ProductProof:
    assert isinstance(question.proof, ProductProof)
    return question.proof


def product_factors(question: Question) -> Check:
    """The hypotheses; shapes; outer, inner > 0; core symmetric and positive definite."""
    if (failed := slopes_from_zero(question)) is not None:
        return failed
    proof, size = _product(question), question.system.size
    fits = proof.outer.shape == proof.inner.shape == (size,) and proof.core.shape == (size, size)
    if not (fits and is_symmetric(proof.core) and (proof.outer > 0).all() and (proof.inner > 0).all()):
        return Check("factors", False, "outer, inner (n,) > 0; core (n, n) symmetric")
    return definite_check("factors", Box.exact(proof.core), "core > 0", question.claims.margin)


def product_residual(question: Question) -> Check:
    """norm(W + diag(outer) core diag(inner)) <= residual, in the Frobenius norm."""
    proof = _product(question)
    outer, inner = Box.exact(proof.outer)[:, None], Box.exact(proof.inner)[None, :]
    residual = Box.exact(question.system.matrix("W")) + outer * Box.exact(proof.core) * inner
    norm = frobenius_upper(residual)
    return Check("residual", norm <= proof.residual, f"norm(W + P1 S P2) <= {proof.residual!r}", norm - proof.residual)


def product_metric(question: Question) -> Check:
    """metric_lower I < M < metric_upper I."""
    proof = _product(question)
    if not 0 < proof.metric_lower < proof.metric_upper < np.inf:
        return Check("metric-bounds", False, "0 < lower < upper < inf")
    side = Box.exact(proof.inner if question.system.form == "rate" else proof.outer)
    metric = side[:, None] * Box.exact(proof.core) * side[None, :]
    metric = Box((metric.mid + metric.mid.T) / 2, metric.rad + np.abs(metric.mid - metric.mid.T))
    one = np.ones(len(side.mid))
    lower = definite_check(
        "metric-bounds", metric - diagonal(Box.exact(proof.metric_lower * one)), "lower I < M < upper I"
    )
    upper = definite_check(
        "metric-bounds", diagonal(Box.exact(proof.metric_upper * one)) - metric, "lower I < M < upper I"
    )
    return lower if not lower.held else upper


def product_rate(question: Question) -> Check:
    """c tau <= 1 - g sqrt(upper / lower) residual, compared in squares."""
    proof = _product(question)
    spare = 1 - scaled_rate(question)
    bound = Fraction(float(question.system.slope.upper.max())) * Fraction(proof.residual)
    held = spare >= 0 and spare**2 * Fraction(proof.metric_lower) >= bound**2 * Fraction(proof.metric_upper)
    return Check("rate", held, "c tau <= 1 - g sqrt(upper / lower) residual")


def _singular(question: Question) -> SingularProof:
    assert isinstance(question.proof, SingularProof)
    return question.proof


def singular_norm(question: Question) -> Check:
    """Q > 0, norm > 0 and [[s Q, .], [Q W_g, s Q]] > 0."""
    system, proof = question.system, _singular(question)
    if system.form == "lure" or proof.q.shape != (system.size,) or not (proof.q > 0).all() or not proof.norm > 0:
        return Check("norm", False, "form rate or hopfield, q (n,) > 0, norm > 0")
    weights, bound, q = Box.exact(system.matrix("W")), Box.exact(system.slope.bound), Box.exact(proof.q)
    scaled = weights * (bound[:, None] if system.form == "rate" else bound[None, :])
    corner = q * Box.exact(proof.norm)
    box = assemble([[corner], [scaled * q[:, None], corner]])
    return definite_check("norm", box, f"norm(Q^1/2 W_g Q^-1/2) < {proof.norm!r}", question.claims.margin)


def singular_rate(question: Question) -> Check:
    """c tau_i <= 1 - s, or rho >= |1 - a_i| + a_i s at both ends of the interval of a_i, for all i."""
    system, norm = question.system, Fraction(_singular(question).norm)
    if system.continuous:
        rate = Fraction(question.claims.rate or 0.0)
        return Check("rate", rate * Fraction(float(system.tau.max())) <= 1 - norm, "c tau_max <= 1 - norm")
    lower, upper = leak_bounds(system)
    factor = Fraction(question.claims.factor or 0.0)
    held = all(factor >= abs(1 - a) + a * norm for a in lower + upper)
    return Check("rate", held, "rho >= |1 - a_i| + a_i norm")
