"""One question on its way: what was tried, what was proven, and the answer that follows."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from certes.conditions.base import Candidate, Condition, Goal, NothingFound
from certes.engines.monitor import Monitor
from certes.proofs import Claims, InstabilityWitness, LevelBound, NoMetricProof, Proof, SwitchingWitness
from certes.results import Attempt, Result
from certes.systems import System
from certes.verify.bound import verify_bound
from certes.verify.contraction import verify_contraction
from certes.verify.instability import verify_instability
from certes.verify.no_metric import verify_no_metric
from certes.verify.report import Report
from certes.verify.switching import verify_switching

if TYPE_CHECKING:
    from certes.distances import Distances

Array = NDArray[np.float64]

#: States up to which it is worth computing spectra to see that no condition can do better.
_SPECTRA = 400
#: Relative distance from the best possible at which nothing more is tried, and at which two claims are equal.
_NEAR, _EQUAL = 1e-6, 1e-8

#: Searches for something other than a contraction proof, as attempts name them.
SEARCHES = ("instability", "switching", "no-quadratic-metric")


@dataclass(frozen=True, eq=False)
class Proven:
    """A verified proof, and the bound that came with it (not verified yet)."""

    condition: Condition
    proof: Proof
    claims: Claims


class Inquiry:
    """One question on its way.

    Attributes:
        system: the network.
        goal: what is asked; its time limit counts from the start of the inquiry.
        attempts: what was tried, in order.
        proven: what was proven.
    """

    def __init__(self, system: System, goal: Goal) -> None:
        """Start the clock."""
        self.system, self.goal = system, goal
        self.monitor: Monitor = goal.monitor()
        self.attempts: list[Attempt] = []
        self.proven: list[Proven] = []
        self.bound: LevelBound | None = None
        self.multipliers: Array | None = None
        self.slopes: Array | None = None
        self.distances: Distances | None = None

    @property
    def over(self) -> bool:
        """Whether to stop: the time is up, or somebody cancelled."""
        return self.monitor.over

    def attempt(self, condition: Condition, cancelled: Callable[[], bool] | None = None) -> None:
        """Ask one condition, and the verifier about what it proposes.

        Args:
            condition: the condition.
            cancelled: gives up when this says so, besides the goal's own limits.
        """
        self.monitor.say(f"{condition.name}: searching")
        left = self.monitor.left
        gone = self._either(cancelled, lambda: self.monitor.why == "cancelled")  # the time limit is the goal's own
        goal = replace(self.goal, seconds=None if left is None else max(left, 0.01), cancelled=gone)
        try:
            decision = condition.decide(self.system, goal)
        except MemoryError:
            self._nothing(condition.name, "memory", "out of memory")
            return
        except (np.linalg.LinAlgError, ArithmeticError) as error:
            self._nothing(condition.name, "solver", f"the search failed: {error}")
            return
        if isinstance(decision, NothingFound):
            self._nothing(condition.name, decision.reason, decision.detail, decision.distance)
            self._note(decision.bound)
            self.multipliers = decision.multipliers if decision.multipliers is not None else self.multipliers
        else:
            self._judge(condition, decision)

    @staticmethod
    def _either(one: Callable[[], bool] | None, other: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: (one is not None and one()) or other()

    def _judge(self, condition: Condition, candidates: tuple[Candidate, ...]) -> None:
        """The first candidate that the verifier accepts; if none, the last refusal counts (it has most margin)."""
        detail, missing, claims = "no candidate was proposed", None, Claims()
        for candidate in candidates:
            self.monitor.say(f"{condition.name}: verifying")
            report = verify_contraction(self.system, candidate.proof, candidate.claims)
            claims = candidate.claims
            if report.valid and report.verdict == "contracting":
                self.proven.append(Proven(condition, candidate.proof, claims))
                self.attempts.append(Attempt(condition.name, "proven", claims.rate, claims.factor))
                self._note(candidate.bound)
                return
            detail = report.detail
            missing = None if report.failed is None else report.failed.missing
        refused = Attempt(condition.name, "refused", claims.rate, claims.factor, "margin", detail, missing)
        self.attempts.append(refused)

    def _note(self, bound: LevelBound | None) -> None:
        """Keep a bound if it is verified."""
        if bound is not None and verify_bound(self.system, bound).valid:
            self.bound = bound

    def _nothing(self, name: str, reason: str, detail: str, distance: float | None = None) -> None:
        rate, factor = (distance, None) if self.system.continuous else (None, distance)
        self.attempts.append(Attempt(name, "nothing", rate, factor, reason, detail))

    def race(self, condition: Condition) -> Result | None:
        """Certification and refutation at once; the first rigorous answer cancels the other search.

        Returns:
            The refutation, if there is one; a proof is found in :attr:`proven`.
        """
        proven, refuted = threading.Event(), threading.Event()

        def search() -> tuple[Result | None, Attempt]:
            answer = self._unstable(proven.is_set)
            if answer[0] is not None:
                refuted.set()
            return answer

        before = len(self.attempts)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(search)
            try:
                self.attempt(condition, refuted.is_set)
                if self.proven:
                    proven.set()
                result, entry = running.result()
            except BaseException:
                proven.set()  # or leaving the pool would wait for the whole search
                raise
        if result is not None:  # however far the other search came: it is no part of the answer
            self.attempts[before:] = [entry]
            return replace(result, attempts=tuple(self.attempts))
        if not self.proven:
            self.attempts.insert(before, entry)
        return None

    def refute(self) -> Result | None:
        """Look for an unstable equilibrium; a result only if the verifier accepts it."""
        result, entry = self._unstable(lambda: False)
        self.attempts.append(entry)
        return None if result is None else replace(result, attempts=tuple(self.attempts))

    def _unstable(self, stop: Callable[[], bool]) -> tuple[Result | None, Attempt]:
        from certes.refutation import fastest, witness_at

        self.monitor.say("instability: searching")
        over = self._either(stop, lambda: self.over)
        mode = fastest(self.system, stop=over)
        witness = None if mode is None else witness_at(self.system, mode, stop=over)
        self.slopes = None if mode is None else mode.slopes
        if witness is None:
            return None, Attempt(
                "instability", "nothing", reason="no-witness", detail="no unstable equilibrium was found"
            )
        report = verify_instability(self.system, witness)
        if not report.valid or report.verdict != "not_contracting":
            return None, _refused("instability", report)
        detail = "an equilibrium under a constant input has a growing mode: the network contracts in no norm"
        if self.system.slope.activation is None:
            detail = "a network with such slopes, phi_i(s) = D_i s, is unstable: the class contracts in no norm"
        return self._refutation("instability", witness, detail), Attempt("instability", "proven")

    def switch(self) -> Result | None:
        """Look for a periodic input with an unstable orbit; a result only if the verifier accepts it."""
        from certes.switching import refute_by_switching

        self.monitor.say("switching: searching")
        witness = refute_by_switching(self.system, seconds=self.monitor.left, stop=lambda: self.over)
        if witness is None:
            self._nothing("switching", "no-witness", "no periodic input with an unstable orbit was found")
            return None
        report = verify_switching(self.system, witness)
        if not report.valid or report.verdict != "not_contracting":
            self.attempts.append(_refused("switching", report))
            return None
        self.attempts.append(Attempt("switching", "proven"))
        detail = "a periodic input has an unstable periodic orbit: the network contracts in no norm, constant or not"
        if self.system.slope.activation is None:
            detail = "a network with such slopes has an unstable periodic orbit: the class contracts in no norm"
        return replace(self._refutation("switching", witness, detail), attempts=tuple(self.attempts))

    def _refutation(self, name: str, witness: InstabilityWitness | SwitchingWitness, detail: str) -> Result:
        from certes.certificate.document import build
        from certes.simulation import input_in_range

        if isinstance(witness, InstabilityWitness):
            reach = input_in_range(self.system, witness)
            if reach.relative is not None and not reach.reachable:
                detail += f"; the input layer cannot produce that input (off by {100 * reach.relative:.0f} %)"
        certificate = build(self.system, "not_contracting", name, 1, witness, Claims())
        return Result("not_contracting", condition=name, detail=detail, certificate=certificate, witness=witness)

    def exclude_metrics(self) -> NoMetricProof | None:
        """Look for a proof that no constant quadratic metric serves all slopes: verified, and no 'no'."""
        from certes.engines.vertices import no_quadratic_metric

        self.monitor.say("no-quadratic-metric: searching")
        proof = no_quadratic_metric(self.system, stop=lambda: self.over)
        if proof is None:
            self._nothing("no-quadratic-metric", "no-witness", "a constant quadratic metric is not excluded")
            return None
        report = verify_no_metric(self.system, proof)
        if not report.valid:
            self.attempts.append(_refused("no-quadratic-metric", report))
            return None
        self.attempts.append(Attempt("no-quadratic-metric", "proven"))
        return proof

    def measure(self) -> None:
        """How far the weights are from each side: scales at which they are certified, and refuted."""
        from certes.distances import distances

        self.monitor.say("measuring how far the weights are from a proof and from a refutation")
        self.distances = distances(self.system, multipliers=self.multipliers, slopes=self.slopes, monitor=self.monitor)

    @property
    def best(self) -> Proven:
        """The proof with the best claim; the cheapest condition of claims that are equal up to their safety margins."""
        strengths = [_strength(entry.claims) for entry in self.proven]
        good = max(strengths) - _EQUAL * max(abs(max(strengths)), 1e-300)
        return next(entry for entry, strength in zip(self.proven, strengths, strict=True) if strength >= good)

    def hopeless(self) -> bool:
        """Whether the Jacobian at the lowest or the highest slopes is unstable: then no condition can succeed."""
        ceiling = self._ceiling(samples=0)
        return bool(np.isfinite(ceiling) and ceiling <= (0.0 if self.system.continuous else -1.0))

    def _ceiling(self, samples: int = 8) -> float:
        from certes.conditions.reference import reduced

        return reduced(self.system).ceiling(samples)

    @property
    def slower(self) -> bool:
        """Whether the network contracts, as far as the engines tell, only not as fast as was asked."""
        rates = [entry.rate for entry in self.attempts if entry.rate is not None]
        factors = [entry.factor for entry in self.attempts if entry.factor is not None]
        return max(rates, default=0.0) > 0.0 or min(factors, default=1.0) < 1.0

    def settled(self) -> str | None:
        """Why the costly condition need not be asked, or None."""
        if not self.proven:
            return None
        if self.goal.target is not None:
            return "the number asked for is proven"
        if self.system.is_sparse or self.system.size > _SPECTRA:
            return None
        ceiling = self._ceiling()
        if np.isfinite(ceiling) and _strength(self.best.claims) >= ceiling - _NEAR * max(abs(ceiling), 1e-300):
            return f"'{self.best.condition.name}' is as good as the slowest Jacobian allows"
        return None

    def contracting(self) -> Result:
        """The answer 'yes', with every further claim that can be verified."""
        from certes import claims as further
        from certes.certificate.document import build

        best, stopped = self.best, self.over
        self.monitor.say(f"{best.condition.name}: proven; looking for what follows from it")
        proof, claims = further.extend(self.system, best.proof, best.claims, self.bound, self.monitor)
        certificate = build(self.system, "contracting", best.condition.name, best.condition.version, proof, claims)
        detail = f"proven by '{best.condition.name}'"
        if stopped:
            detail += "; the search was ended early: more time may prove a better number"
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
            rate_bound=self._bound(continuous=True),
            factor_bound=self._bound(continuous=False),
        )

    def _bound(self, *, continuous: bool) -> float | None:
        return self.bound.level if self.bound is not None and self.system.continuous == continuous else None

    def undecided(self, no_metric: NoMetricProof | None = None) -> Result:
        """The answer 'undecided', with its reason."""
        certificate, reason = None, self._reason()
        if no_metric is not None:
            from certes.certificate.document import build

            reason = "no_quadratic_metric"
            certificate = build(self.system, "undecided", "no-quadratic-metric", 1, no_metric, Claims())
        scales = self.distances
        return Result(
            "undecided",
            condition=None,
            reason=reason,
            detail=self._detail(no_metric is not None),
            certificate=certificate,
            attempts=tuple(self.attempts),
            certified_scale=None if scales is None else scales.certified_scale,
            refuted_scale=None if scales is None else scales.refuted_scale,
            rate_bound=self._bound(continuous=True),
            factor_bound=self._bound(continuous=False),
        )

    def _reason(self) -> str:
        """A refused proof counts most; then what stopped the strongest condition that had anything to say."""
        asked = [attempt for attempt in self.attempts if attempt.condition not in SEARCHES]
        if any(attempt.outcome == "refused" for attempt in asked):
            return "margin"
        speaking = [attempt for attempt in asked if attempt.reason != "not-applicable"] or asked
        return (speaking[-1].reason if speaking else None) or "margin"

    def _detail(self, no_metric: bool) -> str:
        """Each attempt in words, what was missing, how far the weights are from each side, and what to try."""
        parts = ["no constant quadratic metric serves all slopes (proven); another norm may"] if no_metric else []
        for attempt in self.attempts:
            if attempt.outcome == "proven":
                continue
            part = f"{attempt.condition}: {attempt.detail}"
            if attempt.missing_margin is not None and math.isfinite(attempt.missing_margin):
                part += f" (missing margin {attempt.missing_margin:.3g})"
            parts.append(part)
        parts += _scales(self.distances)
        tries = ["weights scaled down"]
        if self.goal.target is not None:
            tries.append("a rate closer to 0" if self.system.continuous else "a factor closer to 1")
        if self.system.step is not None:
            tries.append("a smaller step")
        if any(attempt.reason == "deadline" for attempt in self.attempts):
            tries.append("more time")
        return "; ".join(parts) + ". To try: " + ", ".join(tries)


def _scales(distances: Distances | None) -> list[str]:
    if distances is None:
        return []
    found = []
    if distances.certified_scale is not None:
        found.append(f"scaled by {distances.certified_scale:.4g} the weights are certified")
    if distances.refuted_scale is not None:
        found.append(f"scaled by {distances.refuted_scale:.4g} they are refuted")
    return found


def _refused(name: Literal["instability", "switching", "no-quadratic-metric"], report: Report) -> Attempt:
    missing = None if report.failed is None else report.failed.missing
    return Attempt(name, "refused", reason="margin", detail=report.detail, missing_margin=missing)


def _strength(claims: Claims) -> float:
    """Larger is better: the rate, or minus the factor."""
    if claims.rate is not None:
        return claims.rate
    return -math.inf if claims.factor is None else -claims.factor
