"""``certify``: from a network to a verified answer.

The only 'yes' comes from :func:`certes.verify.verify_contraction` and the only 'no' from
:func:`certes.verify.verify_instability`; whatever a condition, a solver or a search says is a proposal. Importing this
module loads no scipy and no solver: conditions load when they are asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from certes.conditions import NAMES, by_name
from certes.conditions.base import Backend, Candidate, Condition, Goal, NothingFound
from certes.errors import InputError
from certes.proofs import Claims, Proof
from certes.results import Attempt, Result
from certes.systems import System, UnsupportedCell
from certes.verify.contraction import verify_contraction
from certes.verify.instability import verify_instability

Progress = Callable[[str], None]

#: The condition that may take minutes; everything before it in the table is cheap.
COSTLY = "lure"
#: States up to which it is worth computing spectra to see that no condition can do better.
_SPECTRA = 400
#: Relative distance from the best possible at which nothing more is tried, and at which two claims are equal.
_NEAR, _EQUAL = 1e-6, 1e-8
_INSTABILITY = ("instability", 1)


def certify(
    system: System | UnsupportedCell,
    condition: str = "auto",
    rate: float | Literal["best"] = "best",
    *,
    backend: Backend = "auto",
    seconds: float | None = None,
    refute: bool = True,
    progress: Progress | None = None,
) -> Result:
    """Is this network contracting, how fast, and what proves it?

    Args:
        system: the network.
        condition: ``"auto"``: the cheap conditions, then the search for a witness, then ``lure``, and the best verified
            rate wins; or one condition by name.
        rate: ``"best"``, or the number to prove: a rate (continuous time, 1/unit of time) or a factor (a map). Less
            than the best leaves room in a ``lure`` proof, and with it a larger weight radius.
        backend: solver of ``lure``.
        seconds: time limit for searching, in seconds; None: no limit, and the answer is
            deterministic (for given libraries and number of threads).
        refute: whether to look for a witness where no condition has proven anything yet.
        progress: called with a short line of text now and then.

    Returns:
        The result. A proof that a solver found and the verifier refused is ``undecided``, with the margin it lacked.

    Raises:
        InputError: unknown condition or backend, or a rate that cannot be asked for.
    """
    if isinstance(system, UnsupportedCell):
        if condition != "auto":
            by_name(condition)
        return Result("undecided", reason="unsupported_cell", detail=f"{system.cell}: {system.detail}")
    names = NAMES if condition == "auto" else (by_name(condition).name,)
    goal = Goal(_target(system, rate), _backend(backend), _seconds(seconds), progress)
    run = _Run(system, goal, None if goal.seconds is None else time.monotonic() + goal.seconds)
    refute = refute and not system.is_sparse
    if refute and len(names) > 1 and run.hopeless():
        if (found := run.refute()) is not None:
            return found
        refute = False  # looked for already
    for name in names:
        if name == COSTLY and len(names) > 1:
            if refute and not run.proven and (found := run.refute()) is not None:
                return found
            if (why := run.settled()) is not None:
                run.attempts.append(Attempt(name, "nothing", reason="not-needed", detail=why))
                continue
        run.attempt(by_name(name))
    if refute and not run.proven and len(names) == 1 and (found := run.refute()) is not None:
        return found
    return run.result()


@dataclass(frozen=True, eq=False)
class _Proven:
    condition: Condition
    proof: Proof
    claims: Claims


class _Run:
    """One question on its way: what was tried, and what was proven."""

    def __init__(self, system: System, goal: Goal, deadline: float | None) -> None:
        self.system, self.goal, self.deadline = system, goal, deadline
        self.attempts: list[Attempt] = []
        self.proven: list[_Proven] = []

    @property
    def left(self) -> float | None:
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.01)

    def say(self, line: str) -> None:
        if self.goal.progress is not None:
            self.goal.progress(line)

    def attempt(self, condition: Condition) -> None:
        """Ask one condition, and the verifier about what it proposes."""
        self.say(f"{condition.name}: searching")
        try:
            decision = condition.decide(self.system, replace(self.goal, seconds=self.left))
        except MemoryError:
            self._nothing(condition.name, "memory", "out of memory", None)
            return
        except (np.linalg.LinAlgError, ArithmeticError) as error:
            self._nothing(condition.name, "solver", f"the search failed: {error}", None)
            return
        if isinstance(decision, NothingFound):
            self._nothing(condition.name, decision.reason, decision.detail, decision.distance)
        else:
            self._judge(condition, decision)

    def _judge(self, condition: Condition, candidates: tuple[Candidate, ...]) -> None:
        """The first candidate that the verifier accepts; if none, the last refusal counts (it has most margin)."""
        detail, missing, claims = "no candidate was proposed", None, Claims()
        for candidate in candidates:
            self.say(f"{condition.name}: verifying")
            report = verify_contraction(self.system, candidate.proof, candidate.claims)
            claims = candidate.claims
            if report.valid and report.verdict == "contracting":
                self.proven.append(_Proven(condition, candidate.proof, claims))
                self.attempts.append(Attempt(condition.name, "proven", claims.rate, claims.factor))
                return
            detail = report.detail
            missing = None if report.failed is None else report.failed.missing
        refused = Attempt(condition.name, "refused", claims.rate, claims.factor, "margin", detail, missing)
        self.attempts.append(refused)

    def _nothing(self, name: str, reason: str, detail: str, distance: float | None) -> None:
        rate, factor = (distance, None) if self.system.continuous else (None, distance)
        self.attempts.append(Attempt(name, "nothing", rate, factor, reason, detail))

    def refute(self) -> Result | None:
        """Look for a witness; a result only if the verifier accepts it."""
        from certes.certificate.document import build
        from certes.refutation import refute
        from certes.simulation import input_in_range

        name, version = _INSTABILITY
        self.say("instability: searching")
        left = self.left
        witness = refute(self.system, None if left is None else 0.5 * left)
        if witness is None:
            self._nothing(name, "no-witness", "no unstable equilibrium was found", None)
            return None
        report = verify_instability(self.system, witness)
        if not report.valid or report.verdict != "not_contracting":
            missing = None if report.failed is None else report.failed.missing
            refused = Attempt(name, "refused", reason="margin", detail=report.detail, missing_margin=missing)
            self.attempts.append(refused)
            return None
        self.attempts.append(Attempt(name, "proven"))
        certificate = build(self.system, "not_contracting", name, version, witness, Claims())
        detail = "an equilibrium under a constant input has a growing mode: the network contracts in no norm"
        if self.system.slope.activation is None:
            detail = "a network with such slopes, phi_i(s) = D_i s, is unstable: the class contracts in no norm"
        reach = input_in_range(self.system, witness)
        if reach.relative is not None and not reach.reachable:
            detail += f"; the input layer cannot produce that input (off by {100 * reach.relative:.0f} %)"
        return Result(
            "not_contracting",
            condition=name,
            detail=detail,
            certificate=certificate,
            witness=witness,
            attempts=tuple(self.attempts),
        )

    @property
    def best(self) -> _Proven:
        """The proof with the best claim; the cheapest condition of claims that are equal up to their safety margins."""
        strengths = [_strength(entry.claims) for entry in self.proven]
        good = max(strengths) - _EQUAL * max(abs(max(strengths)), 1e-300)
        return next(entry for entry, strength in zip(self.proven, strengths, strict=True) if strength >= good)

    def hopeless(self) -> bool:
        """Whether the Jacobian at the lowest or the highest slopes is unstable: then no condition can succeed."""
        from certes.conditions.reference import reduced

        ceiling = reduced(self.system).ceiling(samples=0)
        return bool(np.isfinite(ceiling) and ceiling <= (0.0 if self.system.continuous else -1.0))

    def settled(self) -> str | None:
        """Why the costly condition need not be asked, or None."""
        if not self.proven:
            return None
        if self.goal.target is not None:
            return "the number asked for is proven"
        if self.system.is_sparse or self.system.size > _SPECTRA:
            return None
        from certes.conditions.reference import reduced

        ceiling = reduced(self.system).ceiling()
        if np.isfinite(ceiling) and _strength(self.best.claims) >= ceiling - _NEAR * max(abs(ceiling), 1e-300):
            return f"'{self.best.condition.name}' is as good as the slowest Jacobian allows"
        return None

    def result(self) -> Result:
        """The answer, with every further claim that can be verified."""
        if not self.proven:
            return Result("undecided", reason=self._reason(), detail=self._detail(), attempts=tuple(self.attempts))
        from certes import claims as further
        from certes.certificate.document import build

        best = self.best
        self.say(f"{best.condition.name}: proven; looking for what follows from it")
        proof, claims = further.extend(self.system, best.proof, best.claims)
        certificate = build(self.system, "contracting", best.condition.name, best.condition.version, proof, claims)
        detail = f"proven by '{best.condition.name}'"
        if self.system.is_sparse or self.system.size > further.LARGEST:
            detail += f"; weight radius, largest step and margin are only looked for up to n = {further.LARGEST}, dense"
        return Result(
            "contracting",
            rate=claims.rate,
            factor=claims.factor,
            condition=best.condition.name,
            detail=detail,
            certificate=certificate,
            claims=claims,
            attempts=tuple(self.attempts),
            also=tuple(entry.condition.name for entry in self.proven if entry is not best),
        )

    def _reason(self) -> str:
        """A refused proof counts most; then what stopped the strongest condition that had anything to say."""
        if any(attempt.outcome == "refused" and attempt.condition != _INSTABILITY[0] for attempt in self.attempts):
            return "margin"
        asked = [attempt for attempt in self.attempts if attempt.condition != _INSTABILITY[0]]
        speaking = [attempt for attempt in asked if attempt.reason != "not-applicable"] or asked
        return speaking[-1].reason or "margin"

    def _detail(self) -> str:
        """Each attempt in words, what was missing, and what to try."""
        parts = []
        for attempt in self.attempts:
            part = f"{attempt.condition}: {attempt.detail}"
            if attempt.missing_margin is not None and math.isfinite(attempt.missing_margin):
                part += f" (missing margin {attempt.missing_margin:.3g})"
            parts.append(part)
        tries = ["weights scaled down"]
        if self.goal.target is not None:
            tries.append("a rate closer to 0" if self.system.continuous else "a factor closer to 1")
        if self.system.step is not None:
            tries.append("a smaller step")
        if any(attempt.reason == "deadline" for attempt in self.attempts):
            tries.append("more time")
        return "; ".join(parts) + ". To try: " + ", ".join(tries)


def _strength(claims: Claims) -> float:
    """Larger is better: the rate, or minus the factor."""
    if claims.rate is not None:
        return claims.rate
    return -math.inf if claims.factor is None else -claims.factor


def _target(system: System, rate: object) -> float | None:
    if isinstance(rate, str) and rate == "best":
        return None
    expected = "'best' or a positive number" if system.continuous else "'best' or a factor between 0 and 1"
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.floating, np.integer)):
        raise InputError("rate", repr(rate), expected, "wrong-type")
    number = float(rate)
    if not (math.isfinite(number) and number > 0 and (system.continuous or number < 1)):
        raise InputError("rate", repr(rate), expected)
    return number


def _backend(backend: str) -> Backend:
    for known in get_args(Backend):
        if backend == known:
            chosen: Backend = known
            return chosen
    raise InputError("backend", repr(backend), f"one of {', '.join(get_args(Backend))}", "unknown-backend")


def _seconds(seconds: object) -> float | None:
    if seconds is None:
        return None
    number = isinstance(seconds, (int, float, np.floating, np.integer)) and not isinstance(seconds, bool)
    if not number or not 0 < float(seconds) < math.inf:  # type: ignore[arg-type]
        raise InputError("seconds", repr(seconds), "a positive number of seconds, or None", "not-positive")
    return float(seconds)  # type: ignore[arg-type]
