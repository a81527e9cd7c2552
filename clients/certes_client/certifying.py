"""What ``certes certify`` does: read, certify, write the certificate, say it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from certes import words
from certes.cells import GatedNetwork
from certes.certificate.document import PROOF_SUFFIX, Certificate
from certes.certificate.envelope import Envelope
from certes.certify import certify
from certes.conditions.base import Backend
from certes.errors import InputError
from certes.results import Result, scalars
from certes.systems import System, UnsupportedCell
from rich.text import Text

from certes_client import output
from certes_client.options import SystemOptions

if TYPE_CHECKING:
    from certes.spec import SystemSpec
    from certes.weights import WeightFile

    from certes_client.layering import Layers

EXIT = {"contracting": 0, "not_contracting": 1, "undecided": 3}
BACKENDS = ("auto", "cvxpy-clarabel", "cvxpy-scs")


@dataclass(frozen=True)
class Question:
    """Everything that decides the answer."""

    file: Path
    system: SystemOptions
    condition: str
    rate: float | Literal["best"]
    backend: str
    seconds: float | None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise InputError("--backend", repr(self.backend), f"one of {', '.join(BACKENDS)}", "unknown-value")
        if self.seconds is not None and not (0 < self.seconds < math.inf):
            raise InputError("--seconds", f"{self.seconds}", "a positive number of seconds", "not-positive")


def run(question: Question, out: Path, key: Path | None, as_json: bool, server: str | None = None) -> int:
    """Answer a question on stdout; returns the exit code.

    Args:
        question: what is asked.
        out: where the certificate is written.
        key: to sign with.
        as_json: print one object.
        server: address of a service that searches; None: it is done here.

    Raises:
        InputError: anything about the input. RemoteError: the service did not answer, or not truly.
    """
    private_key = None if key is None else _readable(key)
    with output.Progress("certify").running() as progress:
        progress(f"reading {question.file.name}")
        spec, weights, system = question.system.read(question.file)
        if isinstance(system, UnsupportedCell):
            from certes_client import layering  # brings all of composition with it

            if layering.is_layered(system):
                return _layers(layering.Layers(question, spec, weights), out, private_key, as_json, progress, server)
        result = _answer(question, spec, weights, system, progress, server)
        certificate = result.certificate
        if certificate is not None and isinstance(system, System) and not system.discrete:
            system = system.with_step(certificate.statement.predicate.system.step)  # with --step max: the one found
        if certificate is not None and private_key is not None:
            certificate = certificate.sign(private_key)
        path = None if certificate is None else _write(certificate, out)
    if as_json:
        output.print_json(as_object(result, certificate, path))
    else:
        _summary(question, system, result, certificate, path)
    return EXIT[result.verdict]


def _answer(
    question: Question,
    spec: SystemSpec,
    weights: WeightFile,
    system: System | GatedNetwork | UnsupportedCell,
    progress: Callable[[str], None],
    server: str | None,
) -> Result:
    """Found here, or by a service and verified here."""
    if server is not None:
        from certes_client.remote import certifying as remote

        return remote.answer(server, question, spec, weights, system, progress)
    return certify(
        system,
        question.condition,
        question.rate,
        step=question.system.step_choice,
        backend=cast(Backend, question.backend),
        seconds=question.seconds,
        progress=progress,
    )


def _layers(
    layers: Layers, out: Path, key: bytes | None, as_json: bool, progress: Callable[[str], None], server: str | None
) -> int:
    """A network of several layers: composed, not certified as one system."""
    layers.solve(progress, server)
    layers.write(out, key)
    if as_json:
        output.print_json(layers.as_object())
    else:
        layers.summary()
    return EXIT[layers.verdict]


def _readable(key: Path) -> bytes:
    try:
        pem = key.read_bytes()
    except OSError as error:
        raise InputError(
            "--sign", f"{key}: {error.strerror}", "a readable Ed25519 private key (PEM)", "unreadable"
        ) from error
    Envelope(b"").sign(pem)  # a key that cannot sign is noticed before the search, not after it
    return pem


def _write(certificate: Certificate, out: Path) -> Path:
    try:
        return certificate.write(out)
    except OSError as error:
        raise InputError(
            "--out", f"{out}: {error.strerror}", "a directory that can be written", "unwritable"
        ) from error


def as_object(result: Result, certificate: Certificate | None, path: Path | None) -> dict[str, Any]:
    """The answer as ``--json`` prints it; Python names."""
    answer = result.to_json()
    if answer["witness"] is not None:  # its arrays are in the proof file
        answer["witness"] = scalars(answer["witness"])
    if certificate is None or path is None:
        return answer | {"certificate": None}
    proof = path.with_name(certificate.statement.predicate.proof.sha256 + PROOF_SUFFIX)
    written = {"path": str(path), "digest": certificate.digest, "proof": str(proof), "signed": certificate.signed}
    return answer | {"certificate": written}


def _summary(
    question: Question,
    system: System | GatedNetwork | UnsupportedCell,
    result: Result,
    certificate: Certificate | None,
    path: Path | None,
) -> None:
    target = output.console()
    name = words.printable(question.file.name)
    target.print(output.headline(result.verdict, f"{name}: {words.system_line(system)}"))
    rows: list[tuple[str, str]] = []
    if question.system.step_choice == "max" and isinstance(system, System) and system.step is None:
        rows.append(("step", "no Euler step can be certified; the answer is about continuous time"))
    if result.verdict == "contracting":
        rows += proven_lines(result)
    elif result.witness is not None and isinstance(system, System | GatedNetwork):
        rows += words.witness_lines(result.witness, system)
        rows += [("try next", line) for line in words.project_lines(system)]
    if result.verdict == "undecided":
        rows += words.distance_lines(result)
        rows.append(("reason", words.reason_line(result.reason, result.detail, result.attempts)))
        rows += [("tried" if k == 0 else "", line) for k, line in enumerate(_tried(result))]
        lines = words.advice(result.reason, result.attempts, system, asked=question.rate != "best")
        rows += [("try next" if k == 0 else "", line) for k, line in enumerate(lines)]
    target.print(output.fields(rows))
    if certificate is not None and path is not None:
        _certificate(question, certificate, path)


def proven_lines(result: Result) -> list[tuple[str, str]]:
    """What is claimed, and by which theorem."""
    rows = words.claim_lines(result.claims, result.certificate) if result.claims is not None else []
    condition = str(result.condition)
    rows.append(("proven by", f"{condition}: {words.CONDITIONS.get(condition, 'a theorem of its own')}"))
    further = result.detail.partition("; ")[2]
    if further:
        rows.append(("note", further))
    if result.also:
        rows.append(("also by", ", ".join(result.also)))
    return rows


def _tried(result: Result) -> list[str]:
    return [
        f"{attempt['condition']}: {words.attempt_line(attempt)}" for attempt in result.to_json().get("attempts", [])
    ]


def _certificate(question: Question, certificate: Certificate, path: Path) -> None:
    target = output.console()
    signature = "signed" if certificate.signed else "unsigned (sign it with --sign KEY.pem)"
    command = f"certes verify {shlex.quote(str(path))} --weights {shlex.quote(str(question.file))}"
    for label, text in (("certificate", str(path)), ("", signature), ("check it", command)):
        # printed unwrapped, so that paths can be copied
        target.print(Text.assemble((f"  {label:<13}", "dim"), words.printable(text, 4000)), soft_wrap=True)
