"""Verifications of assemblies: does the certificate of a network of networks hold, and everything that it names?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from certes.certificate.assembly import AssemblyBundle, digest_of
from certes.certificate.assembly_archive import unpacked
from certes.certificate.assembly_check import verify_assembly
from certes.errors import InputError
from certes.weights import Limits as FileLimits
from certes.weights import WeightFile

from certes_service.questions.base import Context, Limits, Plain, Solved, Spent, question_digest
from certes_service.questions.verifications import check_proof, report_json

if TYPE_CHECKING:
    from certes_service.settings import Settings


def question(envelope: bytes, modules: bytes, key: str | None = None, *, exact: bool = False) -> AssemblyVerification:
    """The certificate of an assembly, as a question.

    Args:
        envelope: of the whole.
        modules: it and all that it names, with weight files (:mod:`certes.certificate.assembly_archive`).
        key: trusted public key (PEM).
        exact: refused.

    Raises:
        InputError: an exact audit, which there is for networks only.
    """
    if exact:
        expected = "the certificate of one network (there is no exact audit of compositions)"
        raise InputError("exact", "the certificate of an assembly", expected, "unsupported")
    return AssemblyVerification(modules, "modules.safetensors", key, digest_of(envelope))


@dataclass(frozen=True)
class AssemblyVerification(Plain):
    """One certificate of an assembly to verify.

    Attributes:
        weights: the file with every document, proof and weight file.
        name: of that file.
        key: trusted public key (PEM); None: signatures are not looked at.
        root: digest of the certificate of the whole.
    """

    kind: ClassVar[str] = "assembly-verification"

    weights: bytes = field(repr=False)
    name: str
    key: str | None
    root: str

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`."""
        return cls(weights, name, parts["key"], parts["root"])

    def parts(self) -> dict[str, Any]:
        """Key and root."""
        return {"key": self.key, "root": self.root}

    def digest(self, settings: Settings) -> str:
        """Never looked up: a report is made anew each time."""
        return question_digest(self.kind, settings, self.weights, self.parts())

    def check(self, settings: Settings) -> None:
        """Take the file apart, and look at the sizes of the proofs."""
        self._opened(Limits.of(settings))

    def solve(self, context: Context) -> Solved:
        """Verify."""
        bundle, files = self._opened(context.limits)
        key = None if self.key is None else self.key.encode("utf-8", "replace")
        report = verify_assembly(bundle, files, key=key)
        try:
            signed: bool | None = bundle.signed
        except InputError:  # not well-formed: the report says so
            signed = None
        return Solved(report_json(report, bundle.root, signed, exact=False, path=report.path))

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended: not valid, as far as anybody knows."""
        answer: dict[str, Any] = {"valid": False, "verdict": "undecided", "reason": reason, "detail": detail}
        return Solved(answer | {"checks": [], "path": None, "digest": self.root, "signed": None, "exact": False})

    def _opened(self, limits: Limits) -> tuple[AssemblyBundle, list[WeightFile]]:
        bundle, files = unpacked(self.root, self.weights, FileLimits(file_bytes=limits.file_bytes))
        for proof in bundle.proofs.values():
            check_proof(proof, limits.states, "modules")
        return bundle, files
