"""What is left of an answer when the service that gave it is trusted in nothing.

A verdict is taken from a certificate, which is verified here, against the weights that are here, and about the system
that was asked about. So are the claims. What else an answer says (why it is undecided, what was tried, which scale of
the weights would do) is passed on as the service's word: nobody is told yes by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from certes import words
from certes.cells import GatedNetwork
from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate, restated
from certes.errors import InputError
from certes.proofs import GatedWitness, InstabilityWitness, SwitchingWitness
from certes.results import Attempt, Result
from certes.systems import System
from certes.weights import WeightFile

from certes_client.remote.answers import Concluded
from certes_client.remote.errors import Untrusted

#: An answer that is undecided and proven all the same.
_PROVEN = "no_quadratic_metric"
#: By how much, relative, a claim may miss the number that was asked for: the rounding of one division.
_SLACK = 1e-12
_OUTCOMES: Mapping[str, Literal["proven", "refused", "nothing"]] = {
    "proven": "proven", "refused": "refused", "nothing": "nothing",
}  # fmt: skip
Fetch = Callable[[str], Certificate]


def result(
    answer: Concluded,
    fetch: Fetch,
    system: System | GatedNetwork,
    weights: WeightFile | None,
    *,
    condition: str = "auto",
    rate: float | Literal["best"] | None = "best",
    step: Literal["given", "max"] = "given",
) -> Result:
    """An answer about one network as the library gives it.

    Args:
        answer: of the service.
        fetch: gives the certificate of a digest.
        system: what was asked about.
        weights: the file it was read from; None: the system's own arrays are what counts.
        condition: as asked.
        rate: as asked.
        step: as asked.

    Returns:
        Its verdict, claims and numbers are those of a certificate that was verified here, stated about ``system``.

    Raises:
        Untrusted: a verdict without a certificate that proves it.
    """
    verdict, reason = answer.verdict, answer.reason
    if verdict == "undecided" and reason != _PROVEN:
        return Result(verdict, reason=_clean(reason or "unknown"), **_word(answer))
    if answer.digest is None:
        raise Untrusted(f"the service says {verdict}, and has no certificate for it")
    stated = certificate(fetch(answer.digest), verdict, system, weights, step)
    claims, numbers = stated.claims, stated.statement.predicate.claims
    if verdict == "contracting" and condition not in ("auto", stated.condition):
        raise Untrusted(f"the service was asked for a proof by {condition}, and sent one by {stated.condition}")
    if verdict == "contracting" and rate not in ("best", None):
        _reached(float(rate), numbers.rate, numbers.factor)
    proof = stated.array_proof
    witness = proof if isinstance(proof, InstabilityWitness | SwitchingWitness | GatedWitness) else None
    return Result(
        verdict,
        rate=numbers.rate,
        factor=numbers.factor,
        rate_bound=numbers.rate_bound,
        factor_bound=numbers.factor_bound,
        condition=None if verdict == "undecided" else stated.condition,
        reason=reason if verdict == "undecided" else None,
        certificate=stated,
        witness=witness if verdict == "not_contracting" else None,
        claims=claims if verdict == "contracting" else None,
        **_word(answer),
    )


def certificate(
    found: Certificate,
    verdict: str,
    system: System | GatedNetwork,
    weights: WeightFile | None,
    step: Literal["given", "max"] = "given",
) -> Certificate:
    """A certificate of the service, about this system and no other, verified.

    Returns:
        The same statement with this system's names; the certificate itself, with its signatures, where they are the
        same.

    Raises:
        Untrusted: it is about something else, says something else, or does not hold.
    """
    about = system
    try:
        if step == "max" and isinstance(system, System) and not system.discrete:
            about = system.with_step(found.statement.predicate.system.step)
        stated = restated(found, about)
    except InputError as error:
        raise Untrusted(f"the service sent a certificate for something else: {error}") from error
    if stated.payload == found.payload:
        stated = found
    report = verify_certificate(stated, about if weights is None else weights)
    if not report.valid or report.verdict != verdict or stated.verdict != verdict:
        said = "it says something else" if report.valid else f"{report.reason}: {report.detail}"
        raise Untrusted(f"the service says {verdict}, and its certificate does not show it ({_clean(said)})")
    return stated


def _reached(asked: float, rate: float | None, factor: float | None) -> None:
    """Raise Untrusted unless what was asked for is proven."""
    if rate is not None and not rate >= asked * (1.0 - _SLACK):
        raise Untrusted(f"the service was asked for the rate {asked:.6g}, and proves {rate:.6g}")
    if factor is not None and not factor <= asked * (1.0 + _SLACK):
        raise Untrusted(f"the service was asked for the factor {asked:.6g}, and proves {factor:.6g}")
    if rate is None and factor is None:
        raise Untrusted("the service's certificate claims neither a rate nor a factor")


def _word(answer: Concluded) -> dict[str, Any]:
    """What is passed on as it was said."""
    also = answer.raw.get("also") or ()
    return {
        "detail": _clean(answer.detail),
        "certified_scale": answer.number("certified_scale") if answer.verdict == "undecided" else None,
        "refuted_scale": answer.number("refuted_scale") if answer.verdict == "undecided" else None,
        "attempts": tuple(_attempt(Concluded(entry.raw)) for entry in answer.objects("attempts")),
        "also": tuple(_clean(str(name)) for name in also) if isinstance(also, list | tuple) else (),
    }


def _attempt(entry: Concluded) -> Attempt:
    return Attempt(
        _clean(entry.text("condition") or ""),
        entry.one_of("outcome", _OUTCOMES),
        entry.number("rate"),
        entry.number("factor"),
        None if entry.reason is None else _clean(entry.reason),
        _clean(entry.detail),
        entry.number("missing_margin"),
    )


def close(said: float | None, found: float) -> bool:
    """Whether a number of the service is the one that was computed here, up to rounding."""
    return said is not None and math.isclose(said, found, rel_tol=1e-6, abs_tol=1e-300)


def _clean(text: str) -> str:
    """Without what a terminal would obey."""
    return words.printable(text, 2000)
