"""Certificates: is this network contracting, how fast, and what proves it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from certes.certify import certify
from certes.results import Result
from certes.spec import SystemSpec

from certes_service.questions.base import Context, Limits, Plain, Solved, Spent, result_json
from certes_service.schema import Options, split

if TYPE_CHECKING:
    from certes.certificate.document import Certificate

    from certes_service.settings import Settings


def question(given: dict[str, Any], weights: bytes, name: str) -> CertificateQuestion:
    """A request's spec as a question.

    Raises:
        InputError: naming the entry.
    """
    asked, described = split(given, Options)
    return CertificateQuestion(SystemSpec.parse(described), Options.parse(asked), weights, name)


@dataclass(frozen=True)
class CertificateQuestion(Plain):
    """One network to certify or to refute.

    Attributes:
        spec: the system.
        options: what is asked about it.
        weights: bytes of a safetensors file.
        name: the file's name, as the certificate will call it.
    """

    kind: ClassVar[str] = "certificate"

    spec: SystemSpec
    options: Options
    weights: bytes
    name: str

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`."""
        return cls(SystemSpec.parse(parts["spec"]), Options.parse(parts["options"]), weights, name)

    def parts(self) -> dict[str, Any]:
        """Spec and options."""
        return {"spec": self.spec.model_dump(mode="json"), "options": self.options.model_dump(mode="json")}

    def check(self, settings: Settings) -> None:
        """Read the network, and look at what is asked about it."""
        from certes.certify import check

        limits, asked = Limits.of(settings), self.options
        system = self.spec.system(limits.read(self.weights, self.name))
        limits.check_size(system)
        check(system, asked.condition, asked.rate, step=asked.step, backend=asked.backend, seconds=asked.seconds)

    def solve(self, context: Context) -> Solved:
        """Certify or refute."""
        system = self.spec.system(context.limits.read(self.weights, self.name))
        context.limits.check_size(system)
        asked = self.options
        result = certify(
            system,
            asked.condition,
            asked.rate,
            step=asked.step,
            backend=asked.backend,
            seconds=context.limit(asked.seconds),
            progress=context.say,
        )
        return replace(certified(result_json(result), result.certificate), states=getattr(system, "size", None))

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended."""
        return Solved(result_json(Result("undecided", reason=reason, detail=detail)))


def certified(answer: dict[str, Any], certificate: Certificate | None, weights: bytes | None = None) -> Solved:
    """An answer with the one certificate that it has, and a weight file that was made for it."""
    if certificate is None:
        return Solved(answer)
    proof = certificate.statement.predicate.proof.sha256
    digest = certificate.digest
    return Solved(answer, {digest: certificate.document}, {proof: certificate.proof}, digest, weights)
