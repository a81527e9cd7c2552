"""Verifications: does a certificate hold for these weights? Nothing that is stored is trusted, and nothing is kept."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from certes import strictjson
from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate
from certes.errors import InputError, TooLargeError
from certes.verify.report import Report
from certes.weights import read_weights

from certes_service.questions.base import Attachment, Context, Limits, Solved, Spent, finite, question_digest
from certes_service.storage.errors import sha256

if TYPE_CHECKING:
    from certes_service.settings import Settings

#: What the certificate to verify is called among the attachments.
GIVEN = "given"


def question(given: dict[str, Any], weights: bytes | None, name: str = "") -> VerificationQuestion:
    """What a request gives as a question.

    Args:
        given: ``certificate`` (the DSSE envelope, a JSON object), ``proof`` (bytes), ``key`` (None, or a trusted
            public key in PEM) and ``exact`` (also audit in exact rational arithmetic).
        weights: bytes of a safetensors file; None if none was given.
        name: of that file; says nothing here.

    Raises:
        InputError: an envelope that no JSON text can state.
    """
    envelope = strictjson.canonical(given["certificate"], "certificate")
    key = given.get("key")
    pem = key.encode("utf-8", "replace") if isinstance(key, str) else key
    return VerificationQuestion(envelope, given["proof"], weights, pem, bool(given.get("exact", False)))


@dataclass(frozen=True)
class VerificationQuestion:
    """A certificate to verify.

    Attributes:
        envelope: the document.
        proof: the proof file.
        file: bytes of the weight file; None if none was given.
        key: the public key that is trusted, PEM; None: no signature is asked for.
        exact: also audit in exact rational arithmetic.
    """

    kind: ClassVar[str] = "verification"

    envelope: bytes = field(repr=False)
    proof: bytes = field(repr=False)
    file: bytes | None = field(repr=False)
    key: bytes | None
    exact: bool

    @property
    def weights(self) -> bytes:
        """None of its own: all bytes are attached."""
        return b""

    @property
    def name(self) -> str:
        """None: a file's name says nothing here."""
        return ""

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`, without what is attached: that is put in where it is solved."""
        key = parts["key"]
        return cls(b"", b"", None, None if key is None else base64.b64decode(key), parts["exact"])

    def parts(self) -> dict[str, Any]:
        """The key (base64), and what is asked for."""
        key = None if self.key is None else base64.b64encode(self.key).decode("ascii")
        return {"key": key, "exact": self.exact}

    def attached(self) -> dict[str, Attachment]:
        """The certificate, its proof, and the weights."""
        return {GIVEN: Attachment(self.envelope, self.proof, self.file)}

    def digest(self, settings: Settings) -> str:
        """Same bytes and same question, same digest."""
        attached = [None if part is None else sha256(part) for part in (self.envelope, self.proof, self.file)]
        return question_digest(self.kind, settings, b"", self.parts() | {"attached": attached})

    def needs(self) -> set[str]:
        """None: nothing that is stored is trusted."""
        return set()

    def check(self, settings: Settings) -> None:
        """Read the weights, and look at the size of the proof."""
        _check(Limits.of(settings), self.proof, self.file)

    def solve(self, context: Context) -> Solved:
        """Verify."""
        given = context.stored(GIVEN)
        if given is None:
            raise ValueError("a verification without its certificate")
        _check(context.limits, given.proof, given.weights)
        file = None if given.weights is None else context.limits.read(given.weights, None)
        parts = given.envelope, given.proof
        report = verify_certificate(parts, file, key=self.key, exact=self.exact)
        try:
            certificate = Certificate.from_parts(*parts)
        except InputError:  # not well-formed: the report says so
            certificate = None
        return Solved(report_json(report, certificate, self.exact))

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended: nothing was verified."""
        answer = {"valid": False, "verdict": "undecided", "reason": reason, "detail": detail, "checks": []}
        return Solved(answer | {"digest": None, "signed": None, "exact": self.exact})


def report_json(report: Report, certificate: Certificate | None, exact: bool) -> dict[str, Any]:
    """A report as JSON."""
    checks = [
        {"name": check.name, "held": check.held, "detail": check.detail, "missing": finite(check.missing)}
        for check in report.checks
    ]
    return {
        "valid": report.valid,
        "verdict": report.verdict,
        "reason": report.reason,
        "detail": report.detail,
        "checks": checks,
        "digest": None if certificate is None else certificate.digest,
        "signed": None if certificate is None else certificate.signed,
        "exact": exact,
    }


def _check(limits: Limits, proof: bytes, weights: bytes | None) -> None:
    """Raise InputError for weights that are no weight file, TooLargeError for a proof beyond the limit."""
    if weights is not None:
        limits.read(weights, None)
    try:
        tensors = read_weights(proof).tensors
    except InputError:
        return  # the certificate's own check says what is wrong with it
    for entry in tensors.values():
        if len(entry.shape) > 1 and max(entry.shape) > limits.states:
            raise TooLargeError("proof", f"{max(entry.shape)} states", limits.states, "states")
