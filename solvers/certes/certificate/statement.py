"""What a certificate states: an in-toto Statement v1 with the predicate ``urn:certes:contraction:v1``.

``subject`` names the weight file and every tensor used, by sha256 of its bytes, dtype and shape; ``predicate`` is what
is said of them. Everything is strict: unknown fields, other types and any byte out of canonical form are refused.
There is no time stamp and nothing random: the same answer to the same question has the same bytes.
Numbers that are not claimed are null; so is one that would be infinite (JSON has no Infinity, and "at most infinity"
claims nothing).

Format 2 is what is written, but for gated cells (below). It is format 1 with three more entries (:data:`SECOND`: a
bound on what can be proven, and the kind of its proof), the conditions ``no-quadratic-metric`` and ``switching``, and
the verdict ``undecided`` for the first of them. Format 1 is read as it always was, with exactly its own entries.
Format 3 is format 2 for gated cells, and for nothing else: the forms ``gru`` and ``lstm``, the entry ``inputs`` of the
system (the declared box, a hypothesis of whatever is claimed), the condition ``gated`` and witnesses of its own kind.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certes import strictjson
from certes._version import __version__
from certes.activations import activation
from certes.cells import CELLS, GatedNetwork
from certes.errors import InputError
from certes.proofs import (
    ArrayProof,
    BoundProof,
    Claims,
    GatedProof,
    GatedWitness,
    InstabilityWitness,
    LevelBound,
    LureProof,
    NoMetricProof,
    StepClaim,
    SwitchingWitness,
    SymmetricProof,
    Verdict,
)
from certes.spec import SystemSpec, input_error
from certes.systems import Subject, System

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:certes:contraction:v1"
#: The format that is written, that of gated cells, and all that are read.
FORMAT, GATED_FORMAT = 2, 3
FORMATS = (1, 2, 3)
PROOF_MEDIA_TYPE = "application/vnd.safetensors"

_FIRST: dict[tuple[str, int], frozenset[str]] = {
    ("absolute", 1): frozenset({"absolute"}),
    ("symmetric", 1): frozenset({"symmetric", "lure"}),
    ("product", 1): frozenset({"product"}),
    ("singular", 1): frozenset({"singular"}),
    ("lure", 1): frozenset({"lure"}),
    ("instability", 1): frozenset({"instability"}),
}
#: Format -> (condition, version) -> kinds of proof that may stand for it. Entries are added, never changed or removed.
CONDITIONS: dict[int, dict[tuple[str, int], frozenset[str]]] = {
    1: _FIRST,
    2: _FIRST
    | {
        ("no-quadratic-metric", 1): frozenset({"no-quadratic-metric"}),
        ("switching", 1): frozenset({"switching"}),
    },
    3: {
        ("gated", 1): frozenset({"gated"}),
        ("instability", 1): frozenset({"gated-instability"}),
    },
}

#: Entries of the predicate that format 1 does not have.
SECOND = {"claims": ("rate_bound", "factor_bound"), "proof": ("bound_kind",)}

#: What this format says of a system. Entries that a SystemSpec may have besides are no part of what is certified.
SYSTEM_FIELDS = ("form", "tensors", "activation", "slope", "step", "tau", "discrete")
#: What format 3 says of it besides.
THIRD = ("inputs",)

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=4096)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Model(BaseModel):
    """Strict: no other entries, no other types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DigestSet(Model):
    """Digests of a subject; sha256, lower-case hex."""

    sha256: Digest


class Annotations(Model):
    """Element type (safetensors name) and shape of a tensor."""

    dtype: Annotated[str, Field(max_length=16)]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)]


class SubjectModel(Model):
    """A weight file (no annotations) or a tensor: ``FILE#TENSOR``, or the argument's name for arrays from memory."""

    name: Text
    digest: DigestSet
    annotations: Annotations | None = None

    def agrees(self, subject: Subject) -> bool:
        """Whether it speaks of these bytes, of this type and shape."""
        if self.annotations is None:
            return False
        stated = (self.annotations.dtype, tuple(self.annotations.shape), self.digest.sha256)
        return stated == (subject.dtype, subject.shape, subject.sha256)


class StepModel(Model):
    """Every Euler step 0 < h <= step contracts, with factor 1 - (h / step)(1 - factor)."""

    step: Finite
    factor: Finite


class ClaimsModel(Model):
    """The numbers claimed; null: not claimed. ``norm`` says which norm rate and factor speak of.

    ``rate_bound``, ``factor_bound`` (format 2): no certificate of the condition ``lure`` has such a rate or a larger
    one, such a factor or a smaller one.
    """

    rate: Finite | None
    factor: Finite | None
    norm: Text | None
    gain: Finite | None
    weight_radius: Finite | None
    metric_condition_log2: Finite | None
    largest_step: StepModel | None
    growth: Finite | None
    rate_bound: Finite | None = None
    factor_bound: Finite | None = None


class ConditionModel(Model):
    """The theorem, by name and version."""

    name: Text
    version: int


class ProofModel(Model):
    """The file with the proof's arrays; ``bound_kind`` (format 2): what kind of proof the bound has; null: no bound."""

    kind: Text
    mediaType: Literal["application/vnd.safetensors"]
    sha256: Digest
    bound_kind: Text | None = None


class Versions(Model):
    """What made the certificate."""

    certes: Text
    numpy: Text


class Predicate(Model):
    """What is said of the subjects."""

    format: int
    system: SystemSpec
    verdict: Verdict
    claims: ClaimsModel
    condition: ConditionModel
    proof: ProofModel
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    versions: Versions


class Statement(Model):
    """An in-toto Statement v1."""

    type: Annotated[str, Field(alias="_type")]
    subject: Annotated[list[SubjectModel], Field(min_length=1, max_length=64)]
    predicateType: str
    predicate: Predicate

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        predicate = self.predicate.model_dump()
        fields = SYSTEM_FIELDS + (THIRD if self.predicate.format >= GATED_FORMAT else ())
        predicate["system"] = {name: predicate["system"][name] for name in fields}
        if self.predicate.format == 1:
            for part, names in SECOND.items():
                for name in names:
                    del predicate[part][name]
        content = {
            "_type": self.type,
            "subject": [entry.model_dump(exclude_none=True) for entry in self.subject],
            "predicateType": self.predicateType,
            "predicate": predicate,
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
        if statement.predicate.format == 1 and statement.predicate.verdict == "undecided":
            raise malformed("statement.predicate.verdict", "'undecided' in format 1")
        if (statement.predicate.format == GATED_FORMAT) != (statement.predicate.system.form in CELLS):
            raise malformed("statement.predicate.format", "a gated cell in another format than 3, or the reverse")
        name = statement.predicate.system.activation
        if name is not None and activation(name).name != name:
            raise malformed("statement.predicate.system.activation", repr(name), repr(activation(name).name))
        statement.tensor_subjects()
        return statement

    def file_subject(self) -> SubjectModel | None:
        """The weight file, if the weights came from one."""
        return self.subject[0] if self.subject[0].annotations is None else None

    def tensor_subjects(self) -> dict[str, tuple[SubjectModel, ...]]:
        """Role -> the subjects of its matrix: one, or four for a sparse matrix (data, indices, indptr, shape).

        Raises:
            InputError: the subjects are not exactly the file and the tensors that the system names (``malformed``).
        """
        file = self.file_subject()
        prefix = "" if file is None else f"{file.name}#"
        tensors = self.subject if file is None else self.subject[1:]
        named = {entry.name: entry for entry in tensors}
        found: dict[str, tuple[SubjectModel, ...]] = {}
        used: set[str] = set()
        for role, name in self.predicate.system.tensors.items():
            names = [prefix + name]
            if names[0] not in named:
                names = [f"{prefix}{name}.{part}" for part in ("data", "indices", "indptr", "shape")]
            if not set(names) <= set(named):
                raise malformed("statement.subject", f"no tensor {name!r}, which the system names as {role}")
            found[role] = tuple(named[entry] for entry in names)
            used.update(names)
        bare = any(entry.annotations is None for entry in tensors)
        if bare or used != set(named) or len(named) != len(tensors) or self.predicate.system.form == "torch-rnn":
            raise malformed(
                "statement.subject", "subjects other than the file and the tensors of the system, each once"
            )
        return found

    @property
    def continuous(self) -> bool:
        """Whether the system is a differential equation."""
        return self.predicate.system.continuous

    def claims(self, step_proof: LureProof | None, bound_proof: BoundProof | None) -> Claims:
        """The claims as the verifier takes them, with the proofs of ``largest_step`` and of the bound.

        Raises:
            InputError: a largest step or a bound without its proof, or the reverse (``malformed-proof``).
        """
        stated = self.predicate.claims
        level = stated.rate_bound if self.continuous else stated.factor_bound
        if (level is None) != (bound_proof is None):
            given = "a bound claimed without arrays 'bound.*', or the reverse"
            raise InputError("proof", given, "both or neither", "malformed-proof")
        if (stated.largest_step is None) != (step_proof is None):
            given = "a largest step claimed without arrays 'step.*', or the reverse"
            raise InputError("proof", given, "both or neither", "malformed-proof")
        largest = None
        if stated.largest_step is not None and step_proof is not None:
            largest = StepClaim(stated.largest_step.step, stated.largest_step.factor, step_proof)
        return Claims(
            rate=stated.rate,
            factor=stated.factor,
            margin=self.predicate.margin,
            weight_radius=stated.weight_radius,
            gain=stated.gain,
            largest_step=largest,
            metric_condition_log2=stated.metric_condition_log2,
            bound=None if level is None or bound_proof is None else LevelBound(level, bound_proof),
        )


def check_format(content: Any, predicate_type: str, formats: tuple[int, ...]) -> None:
    """Kind and version come first: a later format is ``unsupported-format``, not ``malformed``.

    Raises:
        InputError: with one of these slugs.
    """
    if not isinstance(content, dict):
        raise malformed("statement", "something other than a JSON object")
    predicate = content.get("predicate")
    given: dict[str, Any] = {
        "_type": content.get("_type"),
        "predicateType": content.get("predicateType"),
        "predicate.format": predicate.get("format") if isinstance(predicate, dict) else None,
    }
    known = {"_type": (STATEMENT_TYPE,), "predicateType": (predicate_type,), "predicate.format": formats}
    for field, value in given.items():
        if value is None:
            raise malformed(field, "nothing")
        if value not in known[field]:
            expected = " or ".join(map(repr, known[field]))
            raise InputError(field, repr(value)[:200], expected, "unsupported-format")


def malformed(field: str, given: str, expected: str = "a statement as Certes writes it") -> InputError:
    """The error of a statement that is none."""
    return InputError(field, given, expected, "malformed")


def growth_of(proof: ArrayProof) -> float | None:
    """The growth that a witness claims; None for every other proof."""
    return proof.growth if isinstance(proof, InstabilityWitness | SwitchingWitness | GatedWitness) else None


def norm_of(system: SystemSpec, proof: ArrayProof) -> str | None:
    """The norm of rate and factor, in words; fixed texts, part of the format and checked. None where there is neither.

    rate, tau, step and W are those of the statement; other names are arrays of the proof, vectors taken entry by entry.
    """
    rate_form, continuous = system.form == "rate", system.continuous
    if isinstance(proof, InstabilityWitness | SwitchingWitness | NoMetricProof | GatedWitness):
        return None
    if isinstance(proof, GatedProof):
        state = "h" if system.form == "gru" else "(c, h)"
        box = "lower <= x <= upper, which holds after `steps` steps from start_lower <= x <= start_upper"
        return f"max_i |x_i| / weights_i of x = {state}, for inputs in `inputs` and states with {box}"
    if proof.kind == "absolute":
        weights = "l tau / r" if continuous else "l / r"
        return f"sqrt(x^T P x), P = diag({weights}), l = left 2^left_exponent, r = right 2^right_exponent"
    if isinstance(proof, SymmetricProof):
        if proof.negative:
            return "sqrt(x^T P x), P = -W" if rate_form else "sqrt(x^T P x), P = (-W)^-1"
        power = "R^2" if rate_form else "R^-2"
        root = "R = 2 b (I + (I - g W / b)^(1/2)), b = 1 - rate tau, g = largest slope"
        return f"sqrt(x^T P x), P = {power}, {root}"
    if proof.kind == "product":
        metric = "diag(inner) core diag(inner)" if rate_form else "(diag(outer) core diag(outer))^-1"
        return f"sqrt(x^T P x), P = {metric}"
    if proof.kind == "singular":
        return "sqrt(x^T P x), P = diag(q tau)" if continuous else "sqrt(x^T P x), P = diag(q tau / step)"
    if isinstance(proof, LureProof):
        return "sqrt(x^T P x), P = metric^-1" if proof.dual else "sqrt(x^T P x), P = metric"
    raise InputError("proof", f"a proof of kind {proof.kind}", "a known kind", "unknown-condition")


def state(
    system: System | GatedNetwork,
    verdict: Verdict,
    condition: tuple[str, int],
    proof: ArrayProof,
    claims: Claims,
    proof_sha256: str,
) -> Statement:
    """The statement of an answer.

    Args:
        system: the network.
        verdict: the answer.
        condition: name and version of the theorem.
        proof: proof or witness.
        claims: what it proves.
        proof_sha256: digest of the proof file.

    Raises:
        InputError: something that a statement cannot say (NaN, a condition without a place in the format).
    """
    spec, written = SystemSpec.of(system), GATED_FORMAT if isinstance(system, GatedNetwork) else FORMAT
    if proof.kind not in CONDITIONS[written].get(condition, frozenset()):
        expected = "a condition of this format, with its kind of proof"
        raise InputError("condition", f"{condition} with a proof of kind {proof.kind}", expected, "unknown-condition")
    largest, bound = claims.largest_step, claims.bound
    level = None if bound is None else bound.level
    content = {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(system),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "format": written,
            "system": spec.model_dump(),
            "verdict": verdict,
            "claims": {
                "rate": _number(claims.rate),
                "factor": _number(claims.factor),
                "norm": norm_of(spec, proof),
                "gain": _number(claims.gain),
                "weight_radius": _number(claims.weight_radius),
                "metric_condition_log2": _number(claims.metric_condition_log2),
                "largest_step": None
                if largest is None
                else {"step": float(largest.step), "factor": float(largest.factor)},
                "growth": growth_of(proof),
                "rate_bound": level if system.continuous else None,
                "factor_bound": None if system.continuous else level,
            },
            "condition": {"name": condition[0], "version": condition[1]},
            "proof": {
                "kind": proof.kind,
                "mediaType": PROOF_MEDIA_TYPE,
                "sha256": proof_sha256,
                "bound_kind": None if bound is None else bound.proof.kind,
            },
            "margin": float(claims.margin),
            "versions": {"certes": __version__, "numpy": np.__version__},
        },
    }
    try:
        statement = Statement.model_validate(content)
    except ValidationError as error:
        raise input_error(error, "certificate") from None
    statement.tensor_subjects()
    return statement


def _number(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else float(value)


def _subjects(system: System | GatedNetwork) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    prefix = ""
    if system.file is not None:
        digest, name = system.file
        found.append({"name": name, "digest": {"sha256": digest}})
        prefix = f"{name}#"
    for subject in dict.fromkeys(system.subjects):
        annotations = {"dtype": subject.dtype, "shape": list(subject.shape)}
        found.append({"name": prefix + subject.name, "digest": {"sha256": subject.sha256}, "annotations": annotations})
    return found
