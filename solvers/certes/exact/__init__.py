"""An independent audit of proofs in exact arithmetic (extra ``[exact]``: python-flint).

:mod:`certes.verify` proves its inequalities with floating-point error bounds. This package proves the same inequalities
again with other code and no rounding at all: weights, time constants, slopes and step are the rationals that their
floats are, definiteness is decided in ball arithmetic and, at a tie, by an exact characteristic polynomial. It costs
more and stops at a size limit; it shares no arithmetic with the verifier, only the value types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from certes.exact import bound, contraction, instability, no_metric, switching
from certes.exact.rationals import Answer, Step, flint
from certes.proofs import (
    ArrayProof,
    Claims,
    InstabilityWitness,
    LevelBound,
    LureProof,
    NoMetricProof,
    Proof,
    SingularProof,
    SwitchingWitness,
    Verdict,
)
from certes.systems import System
from certes.verify.report import Check, Report

#: Default limit on the size of the largest block, in rows (some seconds).
LIMIT = 400


def _report(verdict: Verdict, steps: list[Step]) -> Report:
    checks: list[Check] = []
    for name, ask, detail in steps:
        answer: Answer = ask()
        checks.append(Check(name, answer is True, detail))
        if answer is False:
            return Report("undecided", tuple(checks), "obligation-failed", f"{name}: false exactly: {detail}")
        if answer is None:
            return Report("undecided", tuple(checks), "exact-audit-undecided", f"{name}: not decided exactly: {detail}")
    return Report(verdict, tuple(checks))


def _too_large(rows: int, limit: int) -> Report:
    detail = f"a block of {rows} rows is beyond the limit of {limit} of the exact audit"
    return Report("undecided", (Check("size", False, detail),), "exact-audit-undecided", detail)


def _rows(system: System, proof: Proof) -> int:
    """Size of the largest block of a proof; 0 for ``absolute``."""
    states = system.size
    if isinstance(proof, LureProof):
        return (states if system.continuous else 2 * states) + len(system.slope.lower)
    return {"absolute": 0, "singular": 2 * states}.get(proof.kind, states)


def audit(system: System, proof: Proof, claims: Claims, *, limit: int = LIMIT) -> Report:
    """Decide every obligation of a proof and its claims in exact arithmetic.

    Args:
        system: the network as given.
        proof: the numbers of one condition.
        claims: every number that the certificate states.
        limit: largest block, in rows, that is attempted. ``absolute`` proofs have no block and a limit of their own.

    Returns:
        A report with verdict ``contracting`` if every obligation holds; reason ``obligation-failed`` if one is false,
        ``exact-audit-undecided`` if one is beyond the limit or cannot be told apart from a tie.

    Raises:
        MissingExtraError: python-flint is not installed.
    """
    flint()
    if system.is_sparse and proof.kind != "absolute":
        detail = "sparse weights are verified by the condition absolute only"
        return Report("undecided", (Check("condition", False, detail),), "obligation-failed", detail)
    if (rows := _rows(system, proof)) > limit:
        return _too_large(rows, limit)
    first: Step = ("inputs", lambda: contraction.finite_numbers(proof, claims), "every number is finite")
    listed = [first, *contraction.steps(system, proof, claims), _step_claim(system, claims, limit)]
    return _report("contracting", [*listed, *_bound_claim(system, proof, claims)])


def _step_claim(system: System, claims: Claims, limit: int) -> Step:
    def holds() -> Answer:
        claim = claims.largest_step
        if claim is None:
            return True
        if system.discrete or not isinstance(claim.proof, LureProof) or not 0 < claim.step < float("inf"):
            return False
        sub = audit(system.with_step(claim.step), claim.proof, Claims(factor=claim.factor), limit=limit)
        return True if sub.valid else None if sub.reason == "exact-audit-undecided" else False

    return ("largest-step", holds, "the Euler map at the largest step contracts with the claimed factor")


def _bound_claim(system: System, proof: Proof, claims: Claims) -> list[Step]:
    claim = claims.bound
    if claim is None:
        return []

    def beyond() -> Answer:
        carried = isinstance(proof, LureProof | SingularProof)
        own = claims.rate if system.continuous else claims.factor
        return carried and own is not None and (own < claim.level if system.continuous else own > claim.level)

    return [("bound", beyond, "the bound lies beyond what this proof reaches"), *bound.steps(system, claim)]


def audit_bound(system: System, claim: LevelBound, *, limit: int = LIMIT) -> Report:
    """Decide every obligation of a bound on what ``lure`` can prove in exact arithmetic.

    Args:
        system: the network as given, dense weights.
        claim: the level and its proof.
        limit: largest number of states and nonlinearities that is attempted.

    Returns:
        A report with verdict ``undecided`` that is valid if every obligation holds; reasons as in :func:`audit`.

    Raises:
        MissingExtraError: python-flint is not installed.
    """
    flint()
    if (rows := system.size + len(system.slope.lower)) > limit:
        return _too_large(rows, limit)
    return _report("undecided", bound.steps(system, claim))


def audit_witness(system: System, witness: ArrayProof, *, limit: int = LIMIT) -> Report:
    """Decide the rigorous obligations of a witness (or of a proof without a yes or no) in exact and ball arithmetic.

    Args:
        system: the network as given, dense weights.
        witness: what :mod:`certes.verify` takes besides proofs of contraction. Inputs, starts and horizons are evidence
            to be replayed, not part of the proof, and are not audited.
        limit: largest number of states that is attempted.

    Returns:
        A report with the verdict that such a witness shows if every obligation holds; reasons as in :func:`audit`.

    Raises:
        MissingExtraError: python-flint is not installed.
    """
    flint()
    if type(witness) not in _WITNESSES:
        detail = f"there is no exact audit for proofs of kind {witness.kind}"
        return Report("undecided", (Check("kind", False, detail),), "exact-audit-undecided", detail)
    if system.size > limit:
        return _too_large(system.size, limit)
    verdict, steps = _WITNESSES[type(witness)]
    return _report(verdict, steps(system, witness))


_WITNESSES: dict[type[ArrayProof], tuple[Verdict, Callable[[System, Any], list[Step]]]] = {
    InstabilityWitness: ("not_contracting", instability.steps),
    SwitchingWitness: ("not_contracting", switching.steps),
    NoMetricProof: ("undecided", no_metric.steps),
}
