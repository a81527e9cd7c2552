"""Verifications: does a certificate hold, of these weights? Nothing that is stored here is trusted, or needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate
from certes.errors import InputError, TooLargeError
from certes.verify.report import Report
from certes.weights import read_weights

from certes_service.questions.base import Attachment, Context, Limits, Plain, Solved, Spent, finite, question_digest

if TYPE_CHECKING:
    from certes_service.settings import Settings

#: Under this name the document and its proof travel to a solver process.
_CERTIFICATE = "0" * 64


def question(
    envelope: bytes, proof: bytes, weights: bytes | None, key: str | None = None, *, exact: bool = False
) -> VerificationQuestion:
    """A certificate to verify, as a question.

    Raises:
        InputError: an empty file of weights, which is not the same as none.
    """
    if weights is not None and not weights:
        read_weights(weights)
    return VerificationQuestion(weights or b"", "weights.safetensors", key, exact, envelope, proof)


@dataclass(frozen=True)
class VerificationQuestion(Plain):
    """One certificate to verify.

    Attributes:
        weights: bytes of a safetensors file; empty: none were given.
        name: of that file.
        key: trusted public key (PEM); None: signatures are not looked at.
        exact: audit in exact rational arithmetic as well.
        envelope: the document.
        proof: the proof file.
    """

    kind: ClassVar[str] = "verification"

    weights: bytes = field(repr=False)
    name: str
    key: str | None
    exact: bool
    envelope: bytes = field(default=b"", repr=False)
    proof: bytes = field(default=b"", repr=False)

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`; document and proof come with the context."""
        return cls(weights, name, parts["key"], parts["exact"])

    def parts(self) -> dict[str, Any]:
        """Key and audit."""
        return {"key": self.key, "exact": self.exact}

    def attached(self) -> dict[str, Attachment]:
        """Document and proof, as they travel to a solver process."""
        return {_CERTIFICATE: Attachment(self.envelope, self.proof)}

    def digest(self, settings: Settings) -> str:
        """Never looked up: a report is made anew each time."""
        return question_digest(self.kind, settings, self.weights + self.envelope + self.proof, self.parts())

    def check(self, settings: Settings) -> None:
        """Read the weights, and look at the size of the proof."""
        limits = Limits.of(settings)
        if self.weights:
            limits.read(self.weights, None)
        check_proof(self.proof, limits.states)

    def solve(self, context: Context) -> Solved:
        """Verify."""
        given = context.stored(_CERTIFICATE)
        if given is None:
            raise InputError("certificate", "nothing", "the DSSE envelope", "missing-value")
        file = context.limits.read(self.weights, None) if self.weights else None
        check_proof(given.proof, context.limits.states)
        key = None if self.key is None else self.key.encode("utf-8", "replace")
        parts = (given.envelope, given.proof)
        report = verify_certificate(parts, file, key=key, exact=self.exact)
        try:
            certificate = Certificate.from_parts(*parts)
        except InputError:  # not well-formed: the report says so
            certificate = None
        digest, signed = (None, None) if certificate is None else (certificate.digest, certificate.signed)
        return Solved(report_json(report, digest, signed, exact=self.exact))

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended: not valid, as far as anybody knows."""
        answer: dict[str, Any] = {"valid": False, "verdict": "undecided", "reason": reason, "detail": detail}
        return Solved(answer | {"checks": [], "path": None, "digest": None, "signed": None, "exact": self.exact})


def report_json(
    report: Report, digest: str | None, signed: bool | None, *, exact: bool, path: str | None = None
) -> dict[str, Any]:
    """A report as JSON.

    Args:
        report: of a certificate, of one network or of an assembly.
        digest: of the certificate; None: it is not well-formed.
        signed: whether it carries a signature; None: it is not well-formed.
        exact: whether an exact audit was asked for.
        path: where in an assembly it failed.
    """
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
        "path": path,
        "digest": digest,
        "signed": signed,
        "exact": exact,
    }


def check_proof(proof: bytes, states: int, field: str = "proof") -> None:
    """Raise TooLargeError if a proof is about more states than may be solved."""
    try:
        tensors = read_weights(proof).tensors
    except InputError:
        return  # the certificate's own check says what is wrong with it
    for entry in tensors.values():
        if len(entry.shape) > 1 and max(entry.shape) > states:
            raise TooLargeError(field, f"{max(entry.shape)} states", states, "states")
