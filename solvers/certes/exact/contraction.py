"""The obligations of every proof and claim, in exact rational arithmetic, written apart from :mod:`certes.verify`.

Each obligation answers True, False or None (undecided: too large, or a tie that the precision cannot break). Scalars
under square roots are compared in squares, norms as semidefiniteness of a rational matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from certes.exact.absolute import absolute_metric, absolute_rate
from certes.exact.normal import exact_form, frobenius_squared, leaks, unshifted, vector
from certes.exact.rationals import (
    Answer,
    Rational,
    RationalMatrix,
    Step,
    diagonal,
    equilibrate,
    flint,
    join,
    matrix,
    positive_definite,
    positive_semidefinite,
    power_of_two,
    rational,
)
from certes.proofs import AbsoluteProof, Claims, LureProof, ProductProof, Proof, SingularProof, SymmetricProof
from certes.systems import System


def both(*answers: Callable[[], Answer]) -> Answer:
    """Conjunction of three-valued answers, asked in order; stops at the first that is not True."""
    for ask in answers:
        answer = ask()
        if answer is not True:
            return answer
    return True


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def _above(block: RationalMatrix, margin: float) -> Answer:
    """Block, equilibrated by powers of two, > margin I."""
    if not (_finite(margin) and margin >= 0):
        return False
    scaled = equilibrate(block)
    if scaled is None:
        return False
    return positive_definite(scaled - diagonal([rational(margin)] * scaled.nrows()))


def _symmetric_matrix(values: Any, size: int) -> bool:
    return values.shape == (size, size) and bool((values == values.T).all())


def claim_range(system: System, claims: Claims) -> Answer:
    """Continuous time claims a rate c > 0 and no factor; a map claims a factor in (0, 1) and no rate."""
    if system.continuous:
        return claims.factor is None and claims.rate is not None and 0 < claims.rate < math.inf
    return claims.rate is None and claims.factor is not None and 0 < claims.factor < 1


def _level(claims: Claims) -> Rational:
    given = claims.factor if claims.rate is None else claims.rate
    assert given is not None
    return rational(given)


# lure ----------------------------------------------------------------------------------------------------------------


def lure_block(system: System, proof: LureProof, level: Rational) -> RationalMatrix:
    """The block that has to be positive definite, minus what the weight radius takes off it; level: rate or factor."""
    form = exact_form(system)
    if proof.dual:
        form = form.transposed
    P, q = matrix(proof.metric), vector(proof.multipliers)
    weighted_gap = diagonal([g * entry for g, entry in zip(form.gap, q, strict=True)])
    state, entry = rational(proof.slack_state), rational(proof.slack_input)
    where = form.leak if proof.dual and form.leak is not None else [rational(1.0)] * system.size
    taken_state = diagonal([state * s * s for s in where])
    lower_right = diagonal([2 * k for k in q]) - weighted_gap * weighted_gap * entry
    PA, PB, CGQ = P * form.A, P * form.B, form.C.transpose() * weighted_gap
    if system.continuous:
        decay = -(PA + PA.transpose() + P * (2 * level)) - taken_state
        return join([[decay, -(PB + CGQ)], [-(PB + CGQ).transpose(), lower_right]])
    return join(
        [
            [P * (level * level) - taken_state, -CGQ, PA.transpose()],
            [-CGQ.transpose(), lower_right, PB.transpose()],
            [PA, PB, P],
        ]
    )


def _lure_steps(system: System, proof: LureProof, claims: Claims) -> list[Step]:
    def shapes() -> Answer:
        return _symmetric_matrix(proof.metric, system.size) and proof.multipliers.shape == system.slope.lower.shape

    def block() -> Answer:
        if not (proof.slack_state >= 0 and proof.slack_input >= 0):
            return False
        return _above(lure_block(system, proof, _level(claims)), claims.margin)

    def bounds() -> Answer:
        if claims.gain is None and claims.metric_condition_log2 is None:
            return True
        return _between(matrix(proof.metric), proof.metric_lower, proof.metric_upper)

    return [
        ("shapes", shapes, "metric (n, n), exactly symmetric; multipliers (m,)"),
        ("metric-positive", lambda: positive_definite(matrix(proof.metric)), "P > 0"),
        ("block-positive", block, f"block > {claims.margin!r} I once equilibrated, slacks >= 0"),
        ("metric-bounds", bounds, "lower I < P < upper I, if a claim rests on it"),
        ("weight-radius", lambda: _lure_radius(system, proof, claims), "r^2 <= m1 m2, slopes from 0"),
    ]


def _lure_radius(system: System, proof: LureProof, claims: Claims) -> Answer:
    if claims.weight_radius is None:
        return True
    enters = (system.form, proof.dual) in {("rate", False), ("hopfield", True)}
    if not enters or any(entry != 0 for entry in system.slope.lower) or not 0 <= claims.weight_radius < math.inf:
        return False
    return bool(rational(claims.weight_radius) ** 2 <= rational(proof.slack_state) * rational(proof.slack_input))


def _between(metric: RationalMatrix, lower: float, upper: float) -> Answer:
    if not 0 < lower < upper < math.inf:
        return False
    one = diagonal([rational(1.0)] * metric.nrows())
    return both(
        lambda: positive_definite(metric - one * rational(lower)),
        lambda: positive_definite(one * rational(upper) - metric),
    )


# symmetric, product, singular ----------------------------------------------------------------------------------------


def _monotone(system: System) -> bool:
    """Continuous time, one time constant, slopes in [0, g], one weight matrix: what Thm 2 and Thm 3 speak of."""
    uniform = all(tau == system.tau[0] for tau in system.tau)
    return system.form != "lure" and system.step is None and uniform and all(a >= 0 for a in system.slope.lower)


def _largest_slope(system: System) -> Rational:
    return rational(max(system.slope.upper))


def _symmetric_steps(system: System, proof: SymmetricProof, claims: Claims) -> list[Step]:
    def definite() -> Answer:
        weights = matrix(system.matrix("W"))
        if proof.negative:
            return _above(-weights, claims.margin)
        room = rational(1.0) - _level(claims) * rational(system.tau[0])
        return _above(diagonal([room] * system.size) - weights * _largest_slope(system), claims.margin)

    def rate() -> Answer:
        scaled = _level(claims) * rational(system.tau[0])
        return bool(scaled <= 1) if proof.negative else bool(scaled < 1)

    return [
        ("hypotheses", lambda: _monotone(system), "continuous time, one time constant, slopes in [0, g]"),
        ("symmetric-weights", lambda: _symmetric_matrix(system.matrix("W"), system.size), "W = W^T"),
        ("definite", definite, "-W > 0" if proof.negative else "(1 - c tau) I - g W > 0"),
        ("rate", rate, "c tau < 1 (W < 0: <= 1)"),
    ]


def _product_steps(system: System, proof: ProductProof, claims: Claims) -> list[Step]:
    size = system.size

    def shapes() -> Answer:
        fits = proof.outer.shape == proof.inner.shape == (size,) and _symmetric_matrix(proof.core, size)
        return fits and all(value > 0 for value in (*proof.outer, *proof.inner))

    def residual() -> Answer:
        if not proof.residual >= 0:
            return False
        rest = matrix(system.matrix("W"))
        rest += diagonal(vector(proof.outer)) * matrix(proof.core) * diagonal(vector(proof.inner))
        squared = rational(proof.residual) ** 2
        if frobenius_squared(rest) <= squared:
            return True
        return positive_semidefinite(diagonal([squared] * size) - rest.transpose() * rest)

    def metric() -> Answer:
        side = diagonal(vector(proof.inner if system.form == "rate" else proof.outer))
        return _between(side * matrix(proof.core) * side, proof.metric_lower, proof.metric_upper)

    def rate() -> Answer:
        spare = 1 - _level(claims) * rational(system.tau[0])
        lost = _largest_slope(system) * rational(proof.residual)
        lower, upper = rational(proof.metric_lower), rational(proof.metric_upper)
        return bool(spare >= 0 and spare * spare * lower >= lost * lost * upper)

    return [
        ("hypotheses", lambda: _monotone(system), "continuous time, one time constant, slopes in [0, g]"),
        ("shapes", shapes, "outer, inner (n,) > 0; core (n, n), exactly symmetric"),
        ("factors", lambda: _above(matrix(proof.core), claims.margin), "core > 0"),
        ("residual", residual, f"norm(W + P1 S P2) <= {proof.residual!r}"),
        ("metric-bounds", metric, "lower I < M < upper I"),
        ("rate", rate, "c tau <= 1 - g sqrt(upper / lower) residual"),
    ]


def _singular_steps(system: System, proof: SingularProof, claims: Claims) -> list[Step]:
    def shapes() -> Answer:
        fits = system.form != "lure" and proof.q.shape == (system.size,)
        return fits and all(q > 0 for q in proof.q) and proof.norm > 0

    def norm() -> Answer:
        bound = diagonal([max(abs(a), abs(b)) for a, b in _slope_pairs(system)])
        weights = matrix(system.matrix("W"))
        scaled = bound * weights if system.form == "rate" else weights * bound
        Q, s = diagonal(vector(proof.q)), rational(proof.norm)
        block = join([[Q * s, scaled.transpose() * Q], [Q * scaled, Q * s]])
        return _above(block, claims.margin)

    def rate() -> Answer:
        s = rational(proof.norm)
        if system.continuous:
            return bool(_level(claims) * rational(max(system.tau)) <= 1 - s)
        return all(_level(claims) >= abs(1 - a) + a * s for a in leaks(system))

    return [
        ("shapes", shapes, "q (n,) > 0, norm > 0, form rate or hopfield"),
        ("norm", norm, f"norm(Q^1/2 W_g Q^-1/2) < {proof.norm!r}"),
        ("rate", rate, "c tau_max <= 1 - norm, or rho >= |1 - a_i| + a_i norm"),
    ]


def _slope_pairs(system: System) -> list[tuple[Rational, Rational]]:
    return list(zip(vector(system.slope.lower), vector(system.slope.upper), strict=True))


# absolute ------------------------------------------------------------------------------------------------------------


def _absolute_steps(system: System, proof: AbsoluteProof, claims: Claims) -> list[Step]:
    def shapes() -> Answer:
        parts = (proof.right, proof.right_exponent, proof.left, proof.left_exponent)
        fits = all(part.shape == (system.size,) for part in parts)
        return fits and bool((proof.right > 0).all()) and bool((proof.left > 0).all())

    return [
        ("shapes", shapes, "positive vectors r, l"),
        ("rate", lambda: absolute_rate(system, proof, _level(claims)), "row and column sums of the majorant"),
    ]


# claims --------------------------------------------------------------------------------------------------------------


def _condition_bound(system: System, proof: Proof) -> Rational | None:
    """An upper bound of the metric's condition number, None if there is none to check."""
    if isinstance(proof, LureProof | ProductProof):
        known = 0 < proof.metric_lower < proof.metric_upper < math.inf
        return rational(proof.metric_upper) / rational(proof.metric_lower) if known else None
    if isinstance(proof, SingularProof):
        weights = [q * tau for q, tau in zip(vector(proof.q), vector(system.tau), strict=True)]
        return max(weights) / min(weights)
    if isinstance(proof, AbsoluteProof):
        metric = absolute_metric(system, proof)
        return None if metric is None else max(metric) / min(metric)
    return None


def metric_condition(system: System, proof: Proof, claims: Claims) -> Answer:
    """cond(metric) <= 2**claim, decided exactly on the whole part of the claim."""
    claim = claims.metric_condition_log2
    if claim is None:
        return True
    if not 0 <= claim < 1 << 24:
        return False
    bound = _condition_bound(system, proof)
    if bound is None:
        return None if isinstance(proof, AbsoluteProof) else False
    if bound <= power_of_two(math.floor(claim)):
        return True
    with flint().ctx.workprec(512):
        excess = flint().arb(bound).log_base(2) - flint().arb(rational(claim))
        return False if excess > 0 else True if excess <= 0 else None


def gain(system: System, proof: Proof, claims: Claims) -> Answer:
    """(gain * decay)^2 >= norm(input map)^2 cond(metric), decay = c or 1 - rho."""
    if claims.gain is None:
        return True
    if not 0 <= claims.gain < math.inf:
        return False
    bound = _condition_bound(system, proof)
    if bound is None:
        return None if isinstance(proof, AbsoluteProof) else False
    decay = _level(claims) if claims.rate is not None else 1 - _level(claims)
    room = (rational(claims.gain) * decay) ** 2 / bound
    slopes = [max(abs(a), abs(b)) for a, b in _slope_pairs(system)]
    if system.form == "lure":
        entering = unshifted(system)[1] * diagonal(slopes)
        if frobenius_squared(entering) <= room:
            return True
        return positive_semidefinite(diagonal([room] * system.size) - entering * entering.transpose())
    leak = leaks(system)
    largest = max(a * g for a, g in zip(leak, slopes, strict=True)) if system.form == "rate" else max(leak)
    return bool(room >= largest * largest)


def carried(proof: Proof, claims: Claims) -> Answer:
    """No claim that the condition does not carry: a weight radius needs a lure proof, a margin needs a block."""
    radius = claims.weight_radius is None or isinstance(proof, LureProof)
    return radius and (claims.margin == 0 or not isinstance(proof, AbsoluteProof))


_STEPS: dict[type, Callable[[System, Any, Claims], list[Step]]] = {
    AbsoluteProof: _absolute_steps,
    SymmetricProof: _symmetric_steps,
    ProductProof: _product_steps,
    SingularProof: _singular_steps,
    LureProof: _lure_steps,
}


def steps(system: System, proof: Proof, claims: Claims) -> list[Step]:
    """All obligations in their order, without the one on the largest step."""
    listed: list[Step] = [("range", lambda: claim_range(system, claims), "rate > 0, or factor in (0, 1)")]
    find = _STEPS.get(type(proof))
    if find is None:
        listed.append(("condition", lambda: False, f"no condition is proven by {type(proof).__name__}"))
    else:
        listed += find(system, proof, claims)
    return [
        *listed,
        ("metric-condition", lambda: metric_condition(system, proof, claims), "cond(metric) <= 2**claim"),
        ("gain", lambda: gain(system, proof, claims), "gain >= norm sqrt(cond) / decay"),
        ("supported", lambda: carried(proof, claims), "claims that the condition carries"),
    ]


def finite_numbers(proof: Proof, claims: Claims) -> Answer:
    """Every number of proof and claims is finite (metric_upper may be infinite when nothing rests on it)."""
    arrays = [array for name, array in proof.to_arrays().items() if name != "metric_upper"]
    named = [claims.rate, claims.factor, claims.weight_radius, claims.gain, claims.metric_condition_log2]
    numbers = [claims.margin, *(number for number in named if number is not None)]
    return all(bool(np.isfinite(array).all()) for array in arrays) and _finite(*numbers)
