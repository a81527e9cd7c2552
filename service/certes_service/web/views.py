"""What the pages say about jobs, answers and certificates, in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from certes import words
from certes.certificate.assembly import open_assembly
from certes.certificate.assembly_statement import AssemblyClaimsModel
from certes.certificate.document import Certificate
from certes.certificate.statement import ClaimsModel
from certes.errors import InputError

from certes_service.jobs.job import Job, instant
from certes_service.storage.store import Stored

HEADLINES = {
    "contracting": "Contracting",
    "not_contracting": "Not contracting",
    "undecided": "Undecided",
}
_MEANING = {
    "contracting": "Any two trajectories of this network approach each other, whatever the input: it forgets where it "
    "started. The proof has been verified, and anybody can verify it again.",
    "not_contracting": "There is an input under which two trajectories part, so the network contracts in no norm. The "
    "witness has been verified.",
    "undecided": "Nothing was proven, in either direction. That is an answer: Certes never guesses.",
}
_ADVICE = {
    "deadline": "Ask again with more time, or for a condition that is quicker, such as singular.",
    "memory": "Ask for one of the cheaper conditions: absolute, symmetric or singular.",
    "unsupported_cell": "This kind of cell has no theorem yet. A plain recurrent layer can be certified.",
}
_ENDED = {"failed": "Failed", "cancelled": "Cancelled"}


@dataclass(frozen=True)
class View:
    """An answer, as it is shown.

    Attributes:
        verdict: contracting, not_contracting or undecided.
        headline, meaning: the verdict in words.
        lines: (name, sentence) of what is claimed or was found.
        attempts: what each condition came to.
        advice: what to do next.
        digest: of the certificate; None if there is none.
        projectable: whether the nearest certified weights can be asked for with one click.
        weights: where the file is that was made; None if there is none.
    """

    verdict: str
    headline: str
    meaning: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    attempts: list[tuple[str, str]] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    digest: str | None = None
    projectable: bool = False
    weights: str | None = None


def of_job(job: Job, answer: dict[str, Any], stored: Stored | None) -> View:
    """The answer of a job that is done.

    Args:
        job: the job.
        answer: its answer.
        stored: its certificate, if it is still kept.
    """
    verdict = str(answer["verdict"])
    link = answer.get("certificate")
    lines = [] if stored is None else claims(stored)
    if job.kind in ("projection", "interconnection"):
        lines = _distance(answer) + lines
    weights = answer.get("weights") or answer.get("couplings")
    return View(
        verdict,
        _headline(job.kind, verdict),
        _MEANING[verdict] if verdict == "contracting" or job.kind in ("certificate", "assembly") else "",
        lines + _apart(answer),
        [(str(entry["condition"]), words.attempt_line(entry)) for entry in answer.get("attempts") or ()],
        _advice(job, answer),
        None if link is None else link["digest"],
        job.kind == "certificate" and verdict != "contracting" and _form(job) != "lure",
        weights["href"] if isinstance(weights, dict) else None,
    )


def _headline(kind: str, verdict: str) -> str:
    if kind in ("projection", "interconnection"):
        return "The nearest weights that are certified" if verdict == "contracting" else "No certified weights found"
    return HEADLINES[verdict]


def _form(job: Job) -> str:
    return str((job.request.get("parts") or {}).get("spec", {}).get("form", ""))


def _advice(job: Job, answer: dict[str, Any]) -> list[str]:
    verdict, reason = answer["verdict"], str(answer.get("reason"))
    if verdict == "contracting":
        return []
    found = [_ADVICE[reason]] if reason in _ADVICE else []
    if job.kind == "certificate" and _form(job) != "lure":
        found.append("Take the nearest weights that are certified: one click below.")
    if job.kind == "certificate" and verdict == "undecided":
        found.append("For a network that is run step by step, a smaller step is easier to certify.")
    if job.kind in ("projection", "interconnection"):
        found.append("Ask for less: a rate closer to 0, or a factor closer to 1; or let more weights move.")
    if job.kind == "assembly":
        found.append("Scale the couplings down, or couple in both directions by feedback, which costs nothing.")
    return found


def _distance(answer: dict[str, Any]) -> list[tuple[str, str]]:
    if answer.get("distance") is None:
        return []
    norm = "Frobenius norm" if answer["norm"] == "frobenius" else f"{answer['norm']} norm"
    if answer.get("unchanged"):
        return [("distance", "0: the weights pass as they are, and stay unchanged")]
    relative = answer.get("relative")
    share = "" if relative is None else f", {100 * relative:.3g} % of the weights"
    lines = [("distance", f"{answer['distance']:.4g} ({norm}{share})")]
    if answer.get("shrink_distance") is not None:
        lines.append(("shrinking", f"{answer['shrink_distance']:.4g}: all weights times one number instead"))
    return lines


def _apart(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """How far an undecided network is from each side, and why."""
    if answer["verdict"] != "undecided":
        return []
    lines = [("reason", words.printable(f"{answer.get('reason')}: {answer.get('detail')}", 600))]
    if answer.get("certified_scale") is not None:
        scale = words.claimed(answer["certified_scale"], up=False)
        lines.append(("distance", f"all recurrent weights times {scale}: certified"))
    if answer.get("refuted_scale") is not None:
        lines.append(("", f"all recurrent weights times {words.claimed(answer['refuted_scale'], up=True)}: refuted"))
    return lines


def claims(stored: Stored) -> list[tuple[str, str]]:
    """(name, sentence) of everything that a certificate says."""
    if stored.kind == "assembly":
        return _assembly_claims(stored)
    certificate = Certificate.from_parts(stored.envelope, stored.proof)
    statement = certificate.statement
    condition = statement.predicate.condition.name
    lines = [("network", words.printable(words.statement_line(statement), 400))]
    lines.append(("proof", words.printable(words.CONDITIONS.get(condition, condition))))
    lines += words.claim_lines(certificate.claims)
    growth = statement.predicate.claims.growth
    if growth is not None:
        lines.append(("growth", words.growth_line(growth, condition)))
    return lines


def _assembly_claims(stored: Stored) -> list[tuple[str, str]]:
    said = open_assembly(stored.envelope)[1].predicate
    names = ", ".join(words.printable(module.name, 60) for module in said.modules[:8])
    more = "" if len(said.modules) <= 8 else f" and {len(said.modules) - 8} more"
    lines = [("modules", f"{len(said.modules)}: {names}{more}"), ("couplings", str(len(said.couplings)))]
    if said.step is not None:
        lines.append(("step", f"{said.step:g}: the Euler map of the whole"))
    if said.claims.rate is not None:
        rate = words.claimed(said.claims.rate, up=False)
        lines.append(("rate", f"{rate}: distances of the whole fall at least like exp(-{rate} t)"))
    if said.claims.factor is not None:
        factor = words.claimed(said.claims.factor, up=True)
        lines.append(("factor", f"{factor}: each step multiplies distances by at most this"))
    if said.claims.largest_step is not None:
        step = words.claimed(said.claims.largest_step.step, up=False)
        lines.append(("largest step", f"{step}: every Euler step of the whole up to this contracts"))
    return lines


def of_certificate(stored: Stored) -> View:
    """A certificate by itself."""
    if stored.kind == "assembly":
        verdict = open_assembly(stored.envelope)[1].predicate.verdict
    else:
        verdict = Certificate.from_parts(stored.envelope, stored.proof).statement.predicate.verdict
    return View(verdict, HEADLINES[verdict], _MEANING[verdict], claims(stored))


def badge(stored: Stored) -> tuple[str, str]:
    """What a badge says, the verdict and its number, and the verdict alone."""
    verdict, said = of_certificate(stored).verdict, _said(stored)
    text = HEADLINES[verdict].lower()
    if verdict == "contracting" and said.rate is not None:
        text += f", rate {words.claimed(said.rate, up=False)}"
    elif verdict == "contracting" and said.factor is not None:
        text += f", factor {words.claimed(said.factor, up=True)}"
    return text, verdict


def level_of(stored: Stored) -> float | None:
    """The rate or factor of a certificate."""
    said = _said(stored)
    return said.rate if said.rate is not None else said.factor


def _said(stored: Stored) -> ClaimsModel | AssemblyClaimsModel:
    if stored.kind == "assembly":
        return open_assembly(stored.envelope)[1].predicate.claims
    return Certificate.from_parts(stored.envelope, stored.proof).statement.predicate.claims


def line(job: Job) -> dict[str, Any]:
    """A job in a list."""
    verdict = (job.answer or {}).get("verdict")
    return {
        "id": job.id,
        "kind": job.kind,
        "name": words.printable(job.name, 120),
        "state": job.state,
        "created": (instant(job.created) or "")[:19].replace("T", " "),
        "verdict": verdict,
        "said": HEADLINES.get(str(verdict), _ENDED.get(job.state, job.state.capitalize())),
        "progress": job.progress,
        "error": job.error,
        "attempt": job.attempt,
    }


def problem(error: InputError) -> dict[str, str]:
    """An error about the input, for the page."""
    return {
        "title": error.slug.replace("-", " ").capitalize(),
        "field": words.printable(error.field, 120),
        "given": words.printable(error.given, 300),
        "expected": words.printable(error.expected, 400),
    }
