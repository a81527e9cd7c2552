"""What the pages say about jobs, answers and certificates, in words."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from certes import words
from certes.certificate.assembly import open_assembly
from certes.certificate.assembly_statement import AssemblyClaimsModel
from certes.certificate.document import Certificate
from certes.certificate.statement import ClaimsModel
from certes.proofs import GatedWitness, InstabilityWitness, SwitchingWitness

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
    "unsupported_cell": "A GRU or an LSTM of one layer is certified over a box of inputs: form gru or lstm, inputs "
    "[low, high], with the API or certes certify.",
    "no_input_box": "Declare the least and the largest value of the inputs: inputs [low, high].",
}
_PROJECTIONS = ("projection", "interconnection")
_PROJECTED = {
    "contracting": "These weights have been certified as they stand in the new file; everything else in it is as it "
    "was, byte for byte.",
    "undecided": "No weights were found that are certified. Nothing is handed out that is not.",
}
_NO_METRIC = (
    "It is proven that no constant quadratic metric serves all slopes: that is no yes and no no, and says that another "
    "kind of norm would be needed."
)
_PROJECT = "Take the nearest weights that are certified. Nothing else in the file changes."
_STEP = "Ask for the largest step that can be certified: a network that is run with smaller steps is easier to certify."
_NUMBER = r"[-+]?[0-9][0-9.]*(?:e[-+]?[0-9]+)?"
_ENDED = {"failed": "Failed", "cancelled": "Cancelled"}


Line = tuple[str, str, str]


@dataclass(frozen=True)
class View:
    """An answer, as it is shown.

    Attributes:
        verdict: contracting, not_contracting or undecided.
        headline, meaning: the verdict in words.
        level: the proven number in a few words; empty: there is none.
        lines: (name, number or nothing, sentence) of what is claimed or was found.
        attempts: what each condition came to.
        advice: what to do next.
        digest: of the certificate; None if there is none.
        assembly: whether it is that of an assembly.
        projectable: whether the nearest certified weights can be asked for with one click.
        steppable: whether the largest step that can be certified can be asked for with one click.
        weights: where the file is that was made; None if there is none.
        couplings: whether it holds the couplings of an assembly, and not all weights.
    """

    verdict: str
    headline: str
    meaning: str
    level: str = ""
    lines: list[Line] = field(default_factory=list)
    attempts: list[tuple[str, str]] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    digest: str | None = None
    assembly: bool = False
    projectable: bool = False
    steppable: bool = False
    weights: str | None = None
    couplings: bool = False


def of_job(job: Job, answer: dict[str, Any], stored: Stored | None) -> View:
    """The answer of a job that is done.

    Args:
        job: the job.
        answer: its answer.
        stored: its certificate, if it is still kept.
    """
    spec = (job.request.get("parts") or {}).get("spec")
    view = _of_answer(job.kind, answer, stored)
    if job.kind != "certificate" or view.verdict == "contracting" or not isinstance(spec, dict):
        return view
    projectable = spec.get("form") not in ("lure", "gru", "lstm") and answer.get("reason") != "unsupported_cell"
    stepped = projectable and spec.get("form") != "torch-rnn" and spec.get("step") is not None
    advice = [_PROJECT, *view.advice] if projectable else view.advice
    advice = [*advice, _STEP] if stepped else advice
    return replace(view, projectable=projectable, steppable=stepped, advice=advice)


def _of_answer(kind: str, answer: dict[str, Any], stored: Stored | None) -> View:
    """What the answer itself tells, whatever was asked."""
    verdict = str(answer["verdict"])
    made, link = answer.get("weights") or answer.get("couplings"), answer.get("certificate")
    distance = _distance(answer) if kind in _PROJECTIONS else []
    found = answer.get("result") if kind in _PROJECTIONS and verdict == "undecided" else answer
    attempts = answer.get("attempts") or (found or {}).get("attempts") or ()
    said = [] if stored is None else claims(stored)
    # a certificate speaks of a network with a gate where the gate is open
    if gate := answer.get("gate") if kind in ("assembly", "training") else None:
        said = [("gated", "", words.gated(gate)), ("where the gate is open", "", ""), *said]
    return View(
        verdict,
        _headline(kind, verdict),
        _meaning(kind, verdict, str(answer.get("reason"))),
        words.gated(gate) if gate else "" if stored is None else level(stored),
        [*distance, *_trained(kind, answer), *_apart(found or {}), *said],
        [(str(entry["condition"]), _attempt(entry)) for entry in attempts],
        _advice(kind, verdict, str((found or {}).get("reason"))),
        None if link is None else link["digest"],
        kind in ("assembly", "training"),
        weights=made["href"] if isinstance(made, dict) else None,
        couplings=bool(answer.get("couplings")) and kind == "assembly",
    )


def _trained(kind: str, answer: dict[str, Any]) -> list[Line]:
    """How well a trained network does, and how it came to be."""
    if kind != "training":
        return []
    lines: list[Line] = []
    for name, word in (("accuracy", "accuracy"), ("rmse", "RMSE"), ("r2", "R²")):
        if isinstance(answer.get(f"test_{name}"), int | float):
            lines.append((word, f"{answer[f'test_{name}']:.4g}", "on data that chose nothing"))
    chosen = f"of {answer['epochs']}: the one that the validation data chose"
    lines.append(("epoch", str(answer["epoch"]), chosen))
    lines.append(("parameters", str(answer["parameters"]), "were trained"))
    lines += [("note", "", words.printable(str(note), 300)) for note in answer.get("notes") or ()]
    return lines


def _headline(kind: str, verdict: str) -> str:
    if kind in _PROJECTIONS:
        return "The nearest weights that are certified" if verdict == "contracting" else "No certified weights found"
    return HEADLINES[verdict]


def _meaning(kind: str, verdict: str, reason: str) -> str:
    if kind in _PROJECTIONS:
        return _PROJECTED[verdict]
    return _NO_METRIC if reason == "no_quadratic_metric" else _MEANING[verdict]


def _attempt(entry: dict[str, Any]) -> str:
    """What one condition, or one stable set, came to."""
    if entry.get("outcome") == "certified":
        return f"certified at distance {words.number(entry.get('distance'))}"
    return words.attempt_line(entry)


def _advice(kind: str, verdict: str, reason: str) -> list[str]:
    if verdict == "contracting":
        return []
    found = [_ADVICE[reason]] if reason in _ADVICE else []
    if kind in _PROJECTIONS:
        found.append("Ask for less: a rate closer to 0, or a factor closer to 1; or let more weights move.")
    if kind == "assembly":
        found.append("Scale the couplings down, or couple in both directions by feedback, which costs no rate.")
        found.append("Certify each module on its own: that tells which of them fails, and why.")
    return found


def _distance(answer: dict[str, Any]) -> list[Line]:
    if answer.get("distance") is None:
        return []
    norm = "Frobenius norm" if answer["norm"] == "frobenius" else f"{answer['norm']} norm"
    if answer.get("unchanged"):
        return [("distance", "0", "the weights pass as they are, and stay unchanged")]
    relative = answer.get("relative")
    share = "" if relative is None else f", {100 * relative:.3g} % of the weights"
    lines = [("distance", words.number(answer["distance"]), f"{norm}{share}")]
    if answer.get("shrink_distance") is not None:
        number = words.number(answer["shrink_distance"])
        lines.append(("instead", number, "would be the distance, were all weights shrunk by one number"))
    return lines


def _apart(answer: dict[str, Any]) -> list[Line]:
    """Why a network is undecided, and how far it is from each side."""
    if answer.get("verdict") != "undecided":
        return []
    reason = str(answer.get("reason"))
    said = words.REASONS.get(reason) or words.printable(str(answer.get("detail") or reason), 600)
    lines: list[Line] = [] if reason == "no_quadratic_metric" else [("why", "", said[:1].upper() + said[1:])]
    if answer.get("certified_scale") is not None:
        scale = words.claimed(answer["certified_scale"], up=False)
        lines.append(("certified", scale, "times all recurrent weights is certified"))
    if answer.get("refuted_scale") is not None:
        scale = words.claimed(answer["refuted_scale"], up=True)
        lines.append(("refuted", scale, "times all recurrent weights is refuted"))
    for name, rate in (("rate_bound", True), ("factor_bound", False)):
        if answer.get(name) is not None:
            lines.append(("at best", "", words.bound_line(answer[name], rate=rate)))
    return lines


def claims(stored: Stored) -> list[Line]:
    """(name, number, sentence) of everything that a certificate says."""
    if stored.kind == "assembly":
        return _assembly_claims(stored)
    certificate = Certificate.from_parts(stored.envelope, stored.proof)
    statement = certificate.statement
    condition = statement.predicate.condition.name
    found = list(words.claim_lines(certificate.claims, certificate))
    proof = certificate.array_proof
    if isinstance(proof, GatedWitness):
        found += words.gated_lines(proof)
    if isinstance(proof, InstabilityWitness | SwitchingWitness):
        named = statement.predicate.system.activation is not None
        found += words.refuting_lines(proof, continuous=statement.continuous, named=named)
    found.append(("proof", words.printable(words.CONDITIONS.get(condition, condition))))
    found.append(("network", words.printable(words.statement_line(statement), 400)))
    return [_line(name, said) for name, said in found]


def _assembly_claims(stored: Stored) -> list[Line]:
    said = open_assembly(stored.envelope)[1].predicate
    lines: list[Line] = []
    if said.claims.rate is not None:
        rate = words.claimed(said.claims.rate, up=False)
        lines.append(("rate", rate, f"the distance of any two trajectories falls at least like exp(-{rate} t)"))
    if said.claims.factor is not None:
        factor = words.claimed(said.claims.factor, up=True)
        lines.append(("factor", factor, "each step multiplies the distance of any two states by at most this"))
    if said.claims.largest_step is not None:
        step = words.claimed(said.claims.largest_step.step, up=False)
        lines.append(("largest step", step, "every Euler step of the whole up to this contracts"))
    names = ", ".join(words.printable(module.name, 60) for module in said.modules[:8])
    more = "" if len(said.modules) <= 8 else f" and {len(said.modules) - 8} more"
    lines.append(("modules", str(len(said.modules)), names + more))
    lines.append(("couplings", str(len(said.couplings)), "between them"))
    if said.step is not None:
        lines.append(("step", f"{said.step:g}", "the Euler map of the whole"))
    return lines


def _line(name: str, said: str) -> Line:
    """A sentence that begins with its number, as number and sentence."""
    number, colon, rest = said.partition(": ")
    return (name, number, rest) if colon and re.fullmatch(_NUMBER, number) else (name, "", said)


def level(stored: Stored) -> str:
    """The proven number of a certificate in a few words; empty: it proves none."""
    said = _said(stored)
    if said.rate is not None:
        return f"rate {words.claimed(said.rate, up=False)}"
    return "" if said.factor is None else f"factor {words.claimed(said.factor, up=True)}"


def level_of(stored: Stored) -> float | None:
    """The rate or factor of a certificate."""
    said = _said(stored)
    return said.rate if said.rate is not None else said.factor


def _said(stored: Stored) -> ClaimsModel | AssemblyClaimsModel:
    if stored.kind == "assembly":
        return open_assembly(stored.envelope)[1].predicate.claims
    return Certificate.from_parts(stored.envelope, stored.proof).statement.predicate.claims


def of_certificate(stored: Stored) -> View:
    """A certificate by itself."""
    if stored.kind == "assembly":
        verdict = open_assembly(stored.envelope)[1].predicate.verdict
    else:
        verdict = Certificate.from_parts(stored.envelope, stored.proof).statement.predicate.verdict
    assembly = stored.kind == "assembly"
    meaning = _MEANING[verdict] if verdict != "undecided" else _NO_METRIC
    return View(verdict, HEADLINES[verdict], meaning, level(stored), claims(stored), assembly=assembly)


def brief(stored: Stored) -> dict[str, Any]:
    """A certificate in a list: ``verdict``, ``headline``, ``level`` and what it is ``about``."""
    if stored.kind == "assembly":
        said = open_assembly(stored.envelope)[1].predicate
        verdict, about = said.verdict, f"an assembly of {len(said.modules)} modules"
    else:
        statement = Certificate.from_parts(stored.envelope, stored.proof).statement
        file = statement.file_subject()
        verdict = statement.predicate.verdict
        about = "a network" if file is None else words.printable(file.name, 120)
    return {"verdict": verdict, "headline": HEADLINES[verdict], "level": level(stored), "about": about}


def badge(stored: Stored) -> tuple[str, str]:
    """What a badge says, the verdict and its number; and the verdict."""
    view = of_certificate(stored)
    text = view.headline.lower()
    return (f"{text}, {view.level}" if view.verdict == "contracting" and view.level else text), view.verdict


def _problem(error: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a problem that are shown; those that it has not are None."""
    return {name: error.get(name) for name in ("title", "detail", "field", "given", "expected")}


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
        "moving": not job.ended,
        "age": max(round(time.time() - job.created), 0),
        "error": None if job.error is None else _problem(job.error),
        "attempt": job.attempt,
    }
