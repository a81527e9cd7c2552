"""What the certificate of an assembly states: an in-toto Statement v1, predicate ``urn:certes:composition:v1``.

``subject`` names the certificate of every module by its digest, in the order of the states, and then the tensor of
every coupling, by sha256 of its bytes, dtype and shape; the names follow from the predicate. A statement is about one
composition step: what a module is, its own certificate says. So the certificates of an assembly form a graph without
cycles: to name a certificate one needs its digest.

As for networks, everything is strict, there is no time stamp, and the same answer has the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError

from certes import strictjson
from certes._version import __version__
from certes.assemblies import SEPARATOR, Assembly, CompositionProof, FlowProof, MapProof, WholeProof
from certes.certificate.statement import (
    PROOF_MEDIA_TYPE,
    STATEMENT_TYPE,
    ConditionModel,
    Digest,
    Finite,
    Model,
    StepModel,
    SubjectModel,
    Text,
    Versions,
    check_format,
    malformed,
)
from certes.errors import InputError
from certes.proofs import Verdict
from certes.spec import input_error

PREDICATE_TYPE = "urn:certes:composition:v1"
FORMAT = 1
FORMATS = (1,)
#: Format -> (condition, version) -> the kind of proof that stands for it. Entries are added, never changed or removed.
CONDITIONS: dict[int, dict[tuple[str, int], type[CompositionProof]]] = {
    1: {(entry.kind, 1): entry for entry in (FlowProof, MapProof, WholeProof)}
}
#: The norm that rate, factor and Lipschitz constant speak of; fixed texts, part of the format and checked.
NORMS: dict[type[CompositionProof], str] = {
    FlowProof: "sqrt(sum_i s_i x_i^T M_i x_i), s = scale 4^exponent, M_i the metric of module i",
    MapProof: "sqrt(sum_i s_i x_i^T M_i x_i), s = (left / right) 2^(left_exponent - right_exponent), "
    "M_i the metric of module i",
    WholeProof: "sqrt(x^T P x), P = metric",
}
_MODULES, _COUPLINGS, _MOST = 1 << 17, 1 << 20, 1 << 40

Kind = Literal["network", "assembly"]


class ModuleModel(Model):
    """A module: the certificate of a network or of an assembly, by its digest."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Kind
    certificate: Digest
    states: Annotated[int, Field(ge=1, le=_MOST)]
    channels: Annotated[int, Field(ge=0, le=_MOST)]


class CouplingModel(Model):
    """An edge; its tensor is the subject of the same position after those of the modules."""

    to: Text
    source: Text
    inside: bool

    @property
    def name(self) -> str:
        """How errors, reports and the subject call it."""
        return f"{self.to}<-{self.source}" + (" (inside)" if self.inside else "")


class AssemblyClaimsModel(Model):
    """The numbers claimed; null: not claimed. ``lipschitz``: no Jacobian of the whole has a larger norm."""

    rate: Finite | None
    factor: Finite | None
    norm: Text
    lipschitz: Finite | None
    largest_step: StepModel | None


class AssemblyProofModel(Model):
    """The file with the proof's arrays."""

    kind: Text
    mediaType: Literal["application/vnd.safetensors"]
    sha256: Digest


class AssemblyPredicate(Model):
    """What is said of the subjects."""

    format: int
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    modules: Annotated[list[ModuleModel], Field(min_length=1, max_length=_MODULES)]
    couplings: Annotated[list[CouplingModel], Field(max_length=_COUPLINGS)]
    verdict: Verdict
    claims: AssemblyClaimsModel
    condition: ConditionModel
    proof: AssemblyProofModel
    versions: Versions


class AssemblyStatement(Model):
    """An in-toto Statement v1 about one composition step."""

    type: Annotated[str, Field(alias="_type")]
    subject: Annotated[list[SubjectModel], Field(min_length=1, max_length=_MODULES + _COUPLINGS)]
    predicateType: str
    predicate: AssemblyPredicate

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        content = {
            "_type": self.type,
            "subject": [entry.model_dump(exclude_none=True) for entry in self.subject],
            "predicateType": self.predicateType,
            "predicate": self.predicate.model_dump(),
        }
        return strictjson.canonical(content, "statement")

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Inverse of :meth:`to_bytes`; whatever it would not write itself is refused.

        Raises:
            InputError: ``unsupported-format`` for another kind or version of statement, else ``malformed``.
        """
        try:
            content = strictjson.parse(payload, "statement")
        except InputError as error:
            raise malformed(error.field, error.given) from error
        check_format(content, PREDICATE_TYPE, FORMATS)
        try:
            statement = cls.model_validate(content)
            written = statement.to_bytes()
        except ValidationError as error:
            first = input_error(error, "statement")
            raise malformed(first.field, first.given, first.expected) from None
        except (InputError, OverflowError) as error:
            raise malformed("statement", str(error)) from error
        if written != payload:
            raise malformed("statement", "JSON that is not in canonical form")
        statement._check()
        return statement

    def _check(self) -> None:
        """Names are names, edges lead from module to module, and the subjects are those that the predicate speaks of.

        Raises:
            InputError: ``malformed``.
        """
        predicate = self.predicate
        names = [module.name for module in predicate.modules]
        if len(set(names)) < len(names) or any(SEPARATOR in name for name in names):
            raise malformed("statement.predicate.modules", f"a name twice, or one with {SEPARATOR!r}")
        known, edges = set(names), [(edge.to, edge.source, edge.inside) for edge in predicate.couplings]
        if len(set(edges)) < len(edges) or any(to == source or not {to, source} <= known for to, source, _ in edges):
            raise malformed("statement.predicate.couplings", "one twice, or one that is not between two modules")
        first = self.subject[: len(names)]
        expected = [(f"module:{module.name}", module.certificate) for module in predicate.modules]
        held = [(entry.name, entry.digest.sha256) for entry in first] == expected
        held = held and all(entry.annotations is None for entry in first)
        tensors = self.subject[len(names) :]
        held = held and [entry.name for entry in tensors] == [edge.name for edge in predicate.couplings]
        if not held or any(entry.annotations is None for entry in tensors):
            raise malformed("statement.subject", "subjects other than the modules' certificates and the couplings")

    @property
    def tensors(self) -> list[tuple[CouplingModel, SubjectModel]]:
        """Every coupling with the subject that identifies its tensor."""
        count = len(self.predicate.modules)
        return list(zip(self.predicate.couplings, self.subject[count:], strict=True))


@dataclass(frozen=True)
class AssemblyClaims:
    """What is proven of an assembly; None: not claimed.

    Attributes:
        rate, factor: whichever fits.
        lipschitz: K, continuous time only.
        largest_step: (h, factor): every Euler step up to h contracts, at h with this factor.
    """

    rate: float | None = None
    factor: float | None = None
    lipschitz: float | None = None
    largest_step: tuple[float, float] | None = None


def state(
    assembly: Assembly,
    certificates: Mapping[str, str],
    proof: CompositionProof,
    claims: AssemblyClaims,
    proof_sha256: str,
) -> AssemblyStatement:
    """The statement of one composition step.

    Args:
        assembly: modules and couplings.
        certificates: name of a module -> digest of its certificate.
        proof: of the step.
        claims: what it proves.
        proof_sha256: digest of the proof file.

    Raises:
        InputError: something that a statement cannot say (NaN, a sparse coupling).
    """
    step = claims.largest_step
    content = {
        "_type": STATEMENT_TYPE,
        "subject": [*_module_subjects(assembly, certificates), *_coupling_subjects(assembly)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "format": FORMAT,
            "step": None if assembly.step is None else float(assembly.step),
            "modules": _modules(assembly, certificates),
            "couplings": [{"to": e.to, "source": e.source, "inside": e.inside} for e in assembly.couplings],
            "verdict": "contracting",
            "claims": {
                "rate": claims.rate,
                "factor": claims.factor,
                "norm": NORMS[type(proof)],
                "lipschitz": claims.lipschitz,
                "largest_step": None if step is None else {"step": float(step[0]), "factor": float(step[1])},
            },
            "condition": {"name": proof.kind, "version": 1},
            "proof": {"kind": proof.kind, "mediaType": PROOF_MEDIA_TYPE, "sha256": proof_sha256},
            "versions": {"certes": __version__, "numpy": np.__version__},
        },
    }
    try:
        statement = AssemblyStatement.model_validate(content)
    except ValidationError as error:
        raise input_error(error, "certificate") from None
    statement._check()
    return statement


def count_channels(module: Any) -> int:
    """Nonlinearities of a network, or of all networks of an assembly."""
    if isinstance(module, Assembly):
        return sum(count_channels(inner) for inner in module.modules.values())
    return len(module.slope.lower)


def _modules(assembly: Assembly, certificates: Mapping[str, str]) -> Sequence[dict[str, Any]]:
    return [
        {
            "name": name,
            "kind": "assembly" if isinstance(module, Assembly) else "network",
            "certificate": certificates[name],
            "states": module.size,
            "channels": count_channels(module),
        }
        for name, module in assembly.modules.items()
    ]


def _module_subjects(assembly: Assembly, certificates: Mapping[str, str]) -> Sequence[dict[str, Any]]:
    return [{"name": f"module:{name}", "digest": {"sha256": certificates[name]}} for name in assembly.modules]


def _coupling_subjects(assembly: Assembly) -> Sequence[dict[str, Any]]:
    found = []
    for edge in assembly.couplings:
        (subject,) = edge.weights.subjects
        annotations = {"dtype": subject.dtype, "shape": list(subject.shape)}
        found.append({"name": edge.name, "digest": {"sha256": subject.sha256}, "annotations": annotations})
    return found
