"""``certify`` for gated cells: the condition ``gated``, then the search for an unstable fixed point.

As everywhere, only :func:`certes.verify.gated.verify_gated` says yes and only
:func:`certes.verify.gated_instability.verify_gated_instability` says no. What is said holds for inputs in the declared
box; a cell without one is ``undecided`` with the reason ``no_input_box``.
"""

from __future__ import annotations

from certes.cells import GatedNetwork
from certes.conditions import gated
from certes.conditions.base import Goal
from certes.engines.monitor import Monitor
from certes.errors import InputError
from certes.proofs import Claims
from certes.results import Attempt, Result
from certes.verify.gated import verify_gated
from certes.verify.gated_instability import verify_gated_instability

#: How far the claim may fall behind the best factor found, if the verifier refuses that.
_BACK_OFFS = (0.0, 1e-7, 1e-5)


def check_cell(cell: GatedNetwork, condition: str, step: str, backend: str) -> None:
    """Whether a cell can be asked this; nothing is computed.

    Raises:
        InputError: a condition that does not speak of gated cells, a step, or a backend.
    """
    if condition not in ("auto", gated.NAME):
        given, expected = repr(condition), f"auto or {gated.NAME} for a gated cell"
        raise InputError("condition", given, expected, "unknown-condition")
    if step != "given":
        raise InputError("step", repr(step), "none: a gated cell is a map", "conflict")
    if backend != "auto":
        raise InputError("backend", repr(backend), "auto: the condition 'gated' needs no solver", "conflict")


def certify_cell(cell: GatedNetwork, goal: Goal, *, refute: bool) -> Result:
    """Is this cell contracting over its declared box of inputs, and what proves it?

    Args:
        cell: the cell; without a box it is undecided.
        goal: a factor to reach (None: the best found), limits, progress.
        refute: whether to look for an unstable fixed point where nothing was proven.
    """
    if cell.inputs is None:
        detail = (
            f"a {cell.form.upper()} is certified over a box of inputs, and none is declared: give inputs=(low, high)"
        )
        return Result("undecided", reason="no_input_box", detail=f"{detail}, the least and largest value of each input")
    monitor = goal.monitor()
    monitor.say("gated: narrowing gates and states")
    found = gated.find(cell, monitor)
    refused: Attempt | None = None
    if found is not None and found.factor < 1.0:
        if goal.target is None or found.factor <= goal.target:
            answer = _proven(cell, found, goal)
            if isinstance(answer, Result):
                return answer
            refused = answer
        else:
            detail = f"the best factor found is {found.factor:.6g}, {goal.target:.6g} was asked for"
            refused = Attempt(gated.NAME, "nothing", factor=found.factor, reason="margin", detail=detail)
    attempts = [refused] if refused is not None else []
    if refused is None and refute and not monitor.over:
        answer = _refuted(cell, monitor)
        if isinstance(answer, Result):
            return answer
        attempts.append(answer)
    if refused is None:
        monitor.say("gated: measuring how far the box would have to shrink")
        scale = None if monitor.over else gated.passing_scale(cell, monitor)
        missing = gated.missing(cell, found, scale)
        entry = Attempt(gated.NAME, "nothing", factor=missing.distance, reason=missing.reason, detail=missing.detail)
        attempts.insert(0, entry)
    return _undecided(tuple(attempts), monitor)


def _proven(cell: GatedNetwork, found: gated.Found, goal: Goal) -> Result | Attempt:
    """The answer 'yes' with the first claim that the verifier accepts, or what it refused."""
    from certes.certificate.document import build

    detail, missing, factor = "", None, found.factor
    for back in _BACK_OFFS:
        factor = found.factor + back if goal.target is None else goal.target
        claims = Claims(factor=factor)
        report = verify_gated(cell, found.proof, claims)
        if report.valid and report.verdict == "contracting":
            certificate = build(cell, "contracting", gated.NAME, gated.VERSION, found.proof, claims)
            detail = f"proven by '{gated.NAME}'; for inputs in the declared box, and all states that the cell can be in"
            detail += f" {found.proof.steps:.0f} steps after a start with |h| <= 1"
            attempts = (Attempt(gated.NAME, "proven", factor=factor),)
            return Result(
                "contracting",
                factor=factor,
                condition=gated.NAME,
                detail=detail,
                certificate=certificate,
                claims=claims,
                attempts=attempts,
            )
        detail = report.detail
        missing = None if report.failed is None else report.failed.missing
    return Attempt(gated.NAME, "refused", factor=factor, reason="margin", detail=detail, missing_margin=missing)


def _refuted(cell: GatedNetwork, monitor: Monitor) -> Result | Attempt:
    """The answer 'no' if the verifier accepts a witness, or what came of the search."""
    from certes.certificate.document import build
    from certes.equilibria import refute_cell

    monitor.say("instability: searching")
    witness, name = refute_cell(cell, monitor), "instability"
    if witness is None:
        return Attempt(name, "nothing", reason="no-witness", detail="no unstable fixed point was found")
    report = verify_gated_instability(cell, witness)
    if not report.valid or report.verdict != "not_contracting":
        missing = None if report.failed is None else report.failed.missing
        return Attempt(name, "refused", reason="margin", detail=report.detail, missing_margin=missing)
    detail = "a fixed point under a constant admissible input has a growing mode: the cell contracts in no norm"
    return Result(
        "not_contracting",
        condition=name,
        detail=detail,
        certificate=build(cell, "not_contracting", name, 1, witness, Claims()),
        witness=witness,
        attempts=(Attempt(name, "proven"),),
    )


def _undecided(attempts: tuple[Attempt, ...], monitor: Monitor) -> Result:
    parts = [f"{entry.condition}: {entry.detail}" for entry in attempts]
    tries = "a smaller box of inputs, weights scaled down" + (", more time" if monitor.why == "deadline" else "")
    reason = monitor.why or "margin"
    return Result("undecided", reason=reason, detail="; ".join(parts) + f". To try: {tries}", attempts=attempts)
