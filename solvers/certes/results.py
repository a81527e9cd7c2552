"""What ``certify`` answers: a verdict with its cause, its numbers, and everything that was tried."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from certes.proofs import Claims, GatedWitness, InstabilityWitness, SwitchingWitness, Verdict

if TYPE_CHECKING:
    from certes.certificate.document import Certificate

Outcome = Literal["proven", "refused", "nothing"]


@dataclass(frozen=True)
class Attempt:
    """One condition, or search (``"instability"``, ``"switching"``, ``"no-quadratic-metric"``), and what came of it.

    Attributes:
        condition: its name.
        outcome: ``proven``: verified; ``refused``: it proposed numbers and the verifier accepted none of them;
            ``nothing``: it had nothing to propose.
        rate: the rate that was proven, claimed or come close to (continuous time).
        factor: likewise for a map.
        reason: None if proven; else a stable code (``"margin"``, ``"not-applicable"``, ``"too-large"``,
            ``"missing-extra"``, ``"deadline"``, ``"cancelled"``, ``"solver"``, ``"memory"``, ``"not-needed"``,
            ``"no-witness"``).
        detail: the reason in words.
        missing_margin: how much the refused block lacked, equilibrated; None where nothing was refused.
    """

    condition: str
    outcome: Outcome
    rate: float | None = None
    factor: float | None = None
    reason: str | None = None
    detail: str = ""
    missing_margin: float | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """The answer to one question.

    Attributes:
        verdict: ``contracting`` (a proof was verified), ``not_contracting`` (a witness was verified: in no norm), or
            ``undecided``.
        rate: proven contraction rate in 1/(unit of time), continuous time.
        factor: proven contraction factor per step, maps.
        rate_bound, factor_bound: no certificate of the condition ``lure`` reaches this rate (factor), verified; None
            where that is not known. It is no bound on how fast the network contracts.
        certified_scale, refuted_scale: for an ``undecided``: with all weights times the first the network is certified,
            with all weights times the second it is refuted; both verified. None where nothing was found.
        condition: the condition that proved it (``"instability"`` for a witness); None if undecided.
        reason: None unless undecided; else a stable code, see :class:`Attempt`, or ``"unsupported_cell"``, or
            ``"no_input_box"`` (a gated cell without a declared box of inputs), or
            ``"no_quadratic_metric"`` (it is proven that no constant quadratic metric serves all slopes).
        detail: the cause in words, and what to try.
        certificate: None if undecided, unless the reason is ``"no_quadratic_metric"``, which has one.
        witness: the witness if not contracting.
        claims: everything that is claimed if contracting.
        attempts: what was tried, in order.
        also: names of other conditions that prove contraction too.
    """

    verdict: Verdict
    rate: float | None = None
    factor: float | None = None
    rate_bound: float | None = None
    factor_bound: float | None = None
    certified_scale: float | None = None
    refuted_scale: float | None = None
    condition: str | None = None
    reason: str | None = None
    detail: str = ""
    certificate: Certificate | None = None
    witness: InstabilityWitness | SwitchingWitness | GatedWitness | None = None
    claims: Claims | None = None
    attempts: tuple[Attempt, ...] = ()
    also: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values under the Python names; numbers that are not finite become None."""
        plain: dict[str, Any] = {
            "verdict": self.verdict,
            "rate": self.rate,
            "factor": self.factor,
            "rate_bound": self.rate_bound,
            "factor_bound": self.factor_bound,
            "certified_scale": self.certified_scale,
            "refuted_scale": self.refuted_scale,
            "condition": self.condition,
            "reason": self.reason,
            "detail": self.detail,
            "claims": None if self.claims is None else _claims_json(self.claims),
            "witness": None if self.witness is None else _witness_json(self.witness),
            "certificate": None if self.certificate is None else {"digest": self.certificate.digest},
            "attempts": [asdict(attempt) for attempt in self.attempts],
            "also": list(self.also),
        }
        finite: dict[str, Any] = _finite(plain)
        return finite


def _claims_json(claims: Claims) -> dict[str, Any]:
    step = claims.largest_step
    return {
        "rate": claims.rate,
        "factor": claims.factor,
        "margin": claims.margin,
        "weight_radius": claims.weight_radius,
        "gain": claims.gain,
        "largest_step": None if step is None else {"step": step.step, "factor": step.factor},
        "metric_condition_log2": claims.metric_condition_log2,
    }


def _witness_json(witness: InstabilityWitness | SwitchingWitness | GatedWitness) -> dict[str, Any]:
    if isinstance(witness, GatedWitness):
        arrays = {name: getattr(witness, name).tolist() for name in ("input", "state", "start", "start_other")}
        return {"growth": witness.growth, "horizon": witness.horizon, "radius": witness.radius} | arrays
    if isinstance(witness, SwitchingWitness):
        arrays = {name: getattr(witness, name).tolist() for name in ("slopes", "points", "start", "start_other")}
        scalars = ("growth", "ramp", "largest_input", "periods")
        numbers = {name: getattr(witness, name) for name in scalars}
        return numbers | {"durations": witness.durations.tolist()} | arrays
    vectors = {name: getattr(witness, name).tolist() for name in ("slopes", "input", "start", "start_other")}
    return {"growth": witness.growth, "horizon": witness.horizon, **vectors}


def scalars(witness: dict[str, Any]) -> dict[str, Any]:
    """A witness of :meth:`Result.to_json` without its arrays (the proof file has them)."""
    return {name: value for name, value in witness.items() if not isinstance(value, list)}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
