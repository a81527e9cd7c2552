"""When does a proof show that a network contracts? The numbered obligations.

Before anything else: the arithmetic of this process rounds to nearest, every number that enters is finite and not
subnormal, and the proof has the shapes it needs. Then, in this order, and every one of them must hold:

    1. range             0 < c (continuous), 0 < rho < 1 (map); one of the two is claimed, the one that fits the system
    2. the condition     what its theorem asks of its numbers (OBLIGATIONS, one tuple per kind of proof):
       absolute          shapes; rate
       symmetric         symmetric-weights; definite; rate
       product           factors; residual; metric-bounds; rate
       singular          norm; rate
       lure              shapes; metric-positive (P > 0, always its own Cholesky); block-positive; metric-bounds;
                         weight-radius
    3. the claims        metric-condition; gain; largest-step; no claim that the condition does not carry; bound (of
                         :mod:`certes.verify.bound`, and beyond what this proof itself reaches)

Nothing here believes a solver: the numbers may come from anywhere. No obligation is implied by the others; a test drops
each of them in turn and sees a false claim accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from certes.proofs import AbsoluteProof, Claims, LureProof, ProductProof, Proof, SingularProof, SymmetricProof
from certes.systems import System
from certes.verify import absolute, closed_form, lure
from certes.verify.bound import verify_bound
from certes.verify.intervals import Array, Box, frobenius_upper
from certes.verify.question import Obligation, Question, inputs, leak_bounds
from certes.verify.report import Check, Report, judged


def claim_range(question: Question) -> Check:
    """0 < c for a differential equation, 0 < rho < 1 for a map, and nothing claimed of the other."""
    claims = question.claims
    if question.system.continuous:
        held = claims.factor is None and claims.rate is not None and 0 < claims.rate < np.inf
        return Check("range", held, f"rate {claims.rate!r} > 0, no factor")
    held = claims.rate is None and claims.factor is not None and 0 < claims.factor < 1
    return Check("range", held, f"factor 0 < {claims.factor!r} < 1, no rate")


def _metric_condition(question: Question) -> Fraction | None:
    """The square root's argument of every gain: an upper bound of the metric's condition number; None: not known."""
    proof, system = question.proof, question.system
    if isinstance(proof, LureProof | ProductProof):
        known = 0 < proof.metric_lower < proof.metric_upper < np.inf
        return Fraction(proof.metric_upper) / Fraction(proof.metric_lower) if known else None
    if isinstance(proof, SingularProof):
        weighted = [Fraction(float(q)) * Fraction(float(tau)) for q, tau in zip(proof.q, system.tau, strict=True)]
        return max(weighted) / min(weighted)
    if isinstance(proof, AbsoluteProof):
        # mantissas lie in [1/2, 1): each of l / r, and with it tau rounded to powers of two, is known up to a factor 2
        exponents = proof.left_exponent - proof.right_exponent
        if system.continuous:
            exponents = exponents + np.frexp(system.tau)[1]
        spread = int(exponents.max()) - int(exponents.min()) + 3
        return Fraction(2) ** spread if spread < 1 << 20 else None
    return None


def metric_condition(question: Question) -> Check:
    """cond(metric) <= 2**metric_condition_log2."""
    claimed = question.claims.metric_condition_log2
    if claimed is None:
        return Check("metric-condition", True, "not claimed")
    bound = _metric_condition(question)
    held = bound is not None and 0 <= claimed < 1 << 20 and bound <= Fraction(2) ** int(np.floor(claimed))
    return Check("metric-condition", held, f"cond(metric) <= 2**floor({claimed!r})")


def _input_norm(system: System) -> Fraction:
    """An upper bound of the norm of the map from input u to x' (continuous) or to the next state (map)."""
    bound = Fraction(float(system.slope.bound.max()))
    leak = max(leak_bounds(system)[1])
    if system.form == "lure":
        norm = frobenius_upper(Box.exact(system.matrix("B")))
        return Fraction(norm) * bound * (leak if system.step is not None else 1)
    return leak * bound if system.form == "rate" else leak


def gain(question: Question) -> Check:
    """gain >= norm(input map) sqrt(cond(metric)) / c, resp. / (1 - rho), compared in squares."""
    claims = question.claims
    if claims.gain is None:
        return Check("gain", True, "not claimed")
    bound = _metric_condition(question)
    if bound is None or not 0 <= claims.gain < np.inf:
        return Check("gain", False, "a finite gain needs a bounded metric")
    decay = Fraction(claims.rate) if claims.rate is not None else 1 - Fraction(claims.factor or 0.0)
    held = (Fraction(claims.gain) * decay) ** 2 >= _input_norm(question.system) ** 2 * bound
    return Check("gain", held, f"gain {claims.gain!r} >= norm sqrt(cond) / decay")


def largest_step(question: Question) -> Check:
    """The Euler map at ``step`` contracts with ``factor`` in the stored metric; smaller steps follow by convexity.

    x + h f(x) is a convex combination of x and x + step f(x), so its factor is at most 1 - (h / step)(1 - factor).
    """
    claim = question.claims.largest_step
    if claim is None:
        return Check("largest-step", True, "not claimed")
    system = question.system
    if system.discrete or not 0 < claim.step < np.inf or not isinstance(claim.proof, LureProof):
        return Check("largest-step", False, "a system with an Euler step > 0, a proof of kind lure")
    sub = verify_contraction(system.with_step(claim.step), claim.proof, Claims(factor=claim.factor))
    return Check("largest-step", sub.valid, f"every step up to {claim.step!r}: factor {claim.factor!r} at the largest")


def supported(question: Question) -> Check:
    """No claim beyond those that the condition carries."""
    claims = question.claims
    held = isinstance(question.proof, LureProof) or claims.weight_radius is None
    held = held and (isinstance(question.proof, LureProof | SingularProof) or claims.bound is None)
    held = held and (claims.margin == 0.0 or not isinstance(question.proof, AbsoluteProof))
    return Check("supported", held, "claims that the condition carries")


def bound(question: Question) -> Check:
    """No certificate of the condition ``lure`` reaches the level; this proof, which is one or gives one, does not."""
    claims, claim = question.claims, question.claims.bound
    if claim is None:
        return Check("bound", True, "not claimed")
    own = claims.rate if question.system.continuous else claims.factor
    if own is None or not (own < claim.level if question.system.continuous else own > claim.level):
        return Check("bound", False, f"no certificate reaches {claim.level!r}, and this one claims {own!r}")
    sub = verify_bound(question.system, claim)
    return Check("bound", sub.valid, sub.detail or f"no certificate of the condition lure reaches {claim.level!r}")


OBLIGATIONS: dict[type[Proof], tuple[Obligation, ...]] = {
    AbsoluteProof: (absolute.shapes, absolute.rate_bound),
    SymmetricProof: (closed_form.symmetric_weights, closed_form.symmetric_definite, closed_form.symmetric_rate),
    ProductProof: (
        closed_form.product_factors,
        closed_form.product_residual,
        closed_form.product_metric,
        closed_form.product_rate,
    ),
    SingularProof: (closed_form.singular_norm, closed_form.singular_rate),
    LureProof: (lure.shapes, lure.metric_positive, lure.block_positive, lure.metric_bounds, lure.weight_radius),
}
BEFORE: tuple[Obligation, ...] = (claim_range,)
AFTER: tuple[Obligation, ...] = (metric_condition, gain, largest_step, supported, bound)


def _proof_arrays(proof: Proof, claims: Claims) -> tuple[Array, ...]:
    given = proof.to_arrays()
    if isinstance(proof, LureProof) and proof.metric_upper == np.inf:  # "no bound": an infinity that means something
        del given["metric_upper"]
    arrays = [np.asarray(array, dtype=np.float64) for array in given.values()]
    numbers = [
        claims.rate,
        claims.factor,
        claims.margin,
        claims.weight_radius,
        claims.gain,
        claims.metric_condition_log2,
    ]
    return (*arrays, np.array([number for number in numbers if number is not None], dtype=np.float64))


def verify_contraction(system: System, proof: Proof, claims: Claims) -> Report:
    """Verify that ``proof`` shows ``system`` contracting with all of ``claims``.

    Args:
        system: the network as given.
        proof: the numbers of one condition.
        claims: every number that the certificate states.

    Returns:
        A report with verdict ``contracting`` if and only if every obligation held; checking stops at the first that
        does not.
    """
    return judged("contracting", _checks(Question(system, proof, claims)))


def _checks(question: Question) -> Iterator[Check]:
    proof = question.proof
    if (failed := inputs(question.system, _proof_arrays(proof, question.claims))) is not None:
        yield failed
    elif type(proof) not in OBLIGATIONS:
        yield Check("condition", False, f"no condition is proven by {type(proof).__name__}")
    elif question.system.is_sparse and not isinstance(proof, AbsoluteProof):
        yield Check("condition", False, "sparse weights are verified by the condition absolute only")
    else:
        for obligation in (*BEFORE, *OBLIGATIONS[type(proof)], *AFTER):
            yield obligation(question)
