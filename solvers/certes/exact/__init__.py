"""An independent audit of proofs in exact arithmetic (extra ``[exact]``: python-flint).

:mod:`certes.verify` proves its inequalities with floating-point error bounds. This package proves the same inequalities
again with other code and no rounding at all: weights, time constants, slopes and step are the rationals that their
floats are, definiteness is decided in ball arithmetic and, at a tie, by an exact characteristic polynomial. It costs
more and stops at a size limit; it shares no arithmetic with the verifier, only the value types.
"""

from __future__ import annotations

from certes.exact import contraction, instability
from certes.exact.contraction import Answer, Step
from certes.exact.rationals import flint
from certes.proofs import Claims, InstabilityWitness, LureProof, Proof, Verdict
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
    return _report("contracting", listed)


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


def audit_witness(system: System, witness: InstabilityWitness, *, limit: int = LIMIT) -> Report:
    """Decide the rigorous obligations of a witness of instability in exact and ball arithmetic.

    Args:
        system: the network as given, dense weights.
        witness: slopes, a Lyapunov matrix and a direction. Its input, starts and horizon are evidence to be replayed,
            not part of the proof, and are not audited.
        limit: largest number of states that is attempted.

    Returns:
        A report with verdict ``not_contracting`` if every obligation holds; reasons as in :func:`audit`.

    Raises:
        MissingExtraError: python-flint is not installed.
    """
    flint()
    if system.size > limit:
        return _too_large(system.size, limit)
    return _report(
        "not_contracting",
        [
            ("shapes", lambda: instability.shapes(system, witness), "shapes, finite numbers, symmetric X"),
            ("slopes", lambda: instability.slopes(system, witness), "slopes that the nonlinearity attains"),
            ("direction", lambda: instability.direction(witness), "v^T X v < 0"),
            ("lyapunov", lambda: instability.lyapunov(system, witness), "no eigenvalue of J lies on the border"),
        ],
    )
