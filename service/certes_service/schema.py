"""The shapes of requests and answers, for OpenAPI. The names are those of the Python interface."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from certes.errors import InputError
from certes.spec import SystemSpec, TensorName, input_error
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Verdict = Literal["contracting", "not_contracting", "undecided"]
#: Text in base64, RFC 4648 section 4.
Base64 = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256, lower-case hex")]
Backend = Literal["auto", "cvxpy-clarabel", "cvxpy-scs"]


class Options(BaseModel):
    """What is asked about a system; given beside its entries in ``spec``.

    Attributes:
        condition: ``auto`` or the name of one condition.
        rate: ``best``, or the rate (continuous time) or factor (a map) to reach.
        backend: solver of the condition ``lure``.
        seconds: time limit of the solver; the service's own limit applies in any case.
        step: ``"max"``: the largest Euler step that can be certified, instead of a step of the system.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    condition: Annotated[str, Field(max_length=100)] = "auto"
    rate: Literal["best"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = "best"
    backend: Backend = "auto"
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    step: Literal["given", "max"] = "given"

    @classmethod
    def parse(cls, given: dict[str, Any]) -> Options:
        """Validate.

        Raises:
            InputError: naming the entry, as ``spec.rate``.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            wrong = input_error(error, "spec")
            field = "spec.rate" if wrong.field.startswith("spec.rate") else wrong.field
            expected = "'best' or a positive number" if field == "spec.rate" else wrong.expected
            raise InputError(field, wrong.given, expected, wrong.slug) from None


class KeepOptions(BaseModel):
    """What a projection has to keep.

    Attributes:
        mask: a tensor of the file, shape (n, n), 1 or true where a weight may move; null: all may.
        zeros: weights that are 0 stay 0.
        diagonal: the diagonal stays.
        rank: the new weights have at most this rank.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    mask: TensorName | None = None
    zeros: bool = False
    diagonal: bool = False
    rank: Annotated[int, Field(ge=1, le=2**31)] | None = None


class ProjectionOptions(BaseModel):
    """What is asked of a projection; given beside the system's entries in ``spec``.

    Attributes:
        condition: ``auto`` or the name of one stable set.
        rate: the rate (continuous time) or factor (a map) to reach; null: barely contracting.
        keep: what has to stay.
        weighting: a tensor of the file, S, shape (n, n): the distance is sqrt(tr(D S D^T)); null: S = I.
        seed: of the random starts.
        starts: starts of the condition ``lure``.
        seconds: time limit; the service's own limit applies in any case.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    condition: Annotated[str, Field(max_length=100)] = "auto"
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    keep: KeepOptions = KeepOptions()
    weighting: TensorName | None = None
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    starts: Annotated[int, Field(ge=1, le=1000)] = 1
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @classmethod
    def parse(cls, given: dict[str, Any]) -> Self:
        """Validate.

        Raises:
            InputError: naming the entry, as ``spec.keep.rank``.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise input_error(error, "spec") from None


class InterconnectionOptions(BaseModel):
    """Modules and the matrices between them, of which the latter are projected.

    Attributes:
        modules: name -> system, in continuous time.
        interconnection: ``TO/FROM`` -> tensor L, as it stands in x'_to = f(x_to) + L x_from, in 1/(unit of time).
        rate: the rate of the whole; null: half of the slowest module's.
        fill: matrices that are absent or zero may be filled.
        masks: ``TO/FROM`` -> tensor, 1 or true where an entry may move.
        norm: the distance that is to be small: in the modules' metrics, or Frobenius.
        seconds: time limit; the service's own limit applies in any case.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    modules: dict[str, dict[str, Any]] = Field(min_length=1, max_length=1000)
    interconnection: dict[str, TensorName] = Field(default_factory=dict, max_length=10_000)
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    fill: bool = False
    masks: dict[str, TensorName] = Field(default_factory=dict, max_length=10_000)
    norm: Literal["whitened", "frobenius"] = "whitened"
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @classmethod
    def parse(cls, given: dict[str, Any]) -> Self:
        """Validate; the modules' own entries are not looked at.

        Raises:
            InputError: naming the entry.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise input_error(error, "spec") from None


class Specification(SystemSpec):
    """A system and what is asked about it."""

    condition: str = Field("auto", description="auto, or the name of one condition")
    rate: Literal["best"] | float = Field("best", description="best, or the rate or factor to reach")
    backend: Backend = "auto"
    seconds: float | None = Field(None, gt=0, description="time limit of the solver")
    step: Literal["max"] | float | None = Field(  # type: ignore[assignment]
        None, description="Euler step in the unit of tau; null: continuous time; max: the largest that can be certified"
    )


class TensorData(BaseModel):
    """A tensor as little-endian bytes in C order."""

    dtype: Literal["F16", "BF16", "F32", "F64", "I64", "I32", "BOOL"]
    shape: list[int]
    data: Base64


class Manner(BaseModel):
    """How something is asked, beside what is asked."""

    model_config = ConfigDict(extra="forbid")

    store: bool | None = Field(True, description="false: answered in the call, nothing kept")
    priority: int | None = Field(0, ge=-9, le=9, description="the highest first")
    deadline: float | None = Field(None, gt=0, le=31_622_400, description="seconds until it is given up")


class CertificateRequest(Manner):
    """POST /v1/certificates as JSON."""

    spec: Specification
    tensors: dict[str, list[Any] | TensorData] = Field(min_length=1)


class Attempt(BaseModel):
    """One condition that was tried."""

    model_config = ConfigDict(extra="allow")

    condition: str
    outcome: str
    rate: float | None = None
    factor: float | None = None
    reason: str | None = None
    detail: str | None = None
    missing_margin: float | None = None


class CertificateLink(BaseModel):
    """Where the certificate is, and the certificate itself."""

    digest: Digest
    href: str
    proof: str = Field(description="where the proof's arrays are (safetensors)")
    signed: bool
    envelope: dict[str, Any] = Field(description="the DSSE envelope")


class Listed(BaseModel):
    """A certificate in a list."""

    digest: Digest
    kind: Literal["network", "assembly"]
    public: bool = Field(description="whether everybody may read it")
    created: str = Field(description="RFC 3339")
    href: str


class ListedCertificates(BaseModel):
    """Certificates, the youngest first."""

    certificates: list[Listed]
    next: str | None = Field(description="`before` of the next page; null: there is none")


class CertificateAnswer(BaseModel):
    """The answer to POST /v1/certificates."""

    model_config = ConfigDict(extra="allow")

    verdict: Verdict
    rate: float | None = Field(description="continuous time: 1/(unit of tau)")
    factor: float | None = Field(description="a map: per step")
    condition: str | None
    reason: str | None = Field(description="stable code of why it is undecided")
    detail: str
    claims: dict[str, Any] | None
    attempts: list[Attempt]
    rate_bound: float | None = Field(description="no certificate of the condition lure reaches this rate; verified")
    factor_bound: float | None = Field(description="no certificate of the condition lure reaches this factor; verified")
    certified_scale: float | None = Field(description="undecided: all weights times this are certified")
    refuted_scale: float | None = Field(description="undecided: all weights times this are refuted")
    certificate: CertificateLink | None
    cached: bool


class ProjectionSpecification(SystemSpec):
    """A system, and what its projection has to reach and to keep."""

    condition: str = Field("auto", description="auto, or the name of one stable set")
    rate: float | None = Field(None, description="the rate or factor to reach; null: barely contracting")
    keep: KeepOptions = Field(KeepOptions(), description="what has to stay")
    weighting: TensorName | None = Field(
        None, description="tensor S, (n, n), positive semidefinite: the distance is sqrt(tr(D S D^T)); null: S = I"
    )
    seed: int = Field(0, ge=0, le=2**53, description="of the random starts")
    starts: int = Field(1, ge=1, le=1000, description="starts of the condition lure")
    seconds: float | None = Field(None, gt=0, description="time limit")


class InterconnectionSpecification(InterconnectionOptions):
    """Modules and the matrices between them: those are projected."""

    modules: dict[str, SystemSpec] = Field(  # type: ignore[assignment]
        min_length=1, description="name -> system, in continuous time"
    )


class ProjectionRequest(Manner):
    """POST /v1/projections as JSON."""

    spec: ProjectionSpecification | InterconnectionSpecification
    tensors: dict[str, list[Any] | TensorData] = Field(min_length=1)


class WeightsLink(BaseModel):
    """Where the new weight file is: the given one, all else byte for byte as it was."""

    href: str
    name: str = Field(description="what the certificate calls it")
    sha256: Digest
    changed: list[str] = Field(description="tensors that are not those of the given file")


class ProjectionAnswer(BaseModel):
    """The answer to POST /v1/projections."""

    model_config = ConfigDict(extra="allow")

    verdict: Verdict = Field(description="undecided: no weights were certified; never not_contracting")
    distance: float | None = Field(description="from the given weights to the new ones")
    norm: str = Field(description="of the distance: frobenius or weighted; of an interconnection, whitened")
    unchanged: bool = Field(description="the given weights pass as they are")
    rate: float | None = Field(description="the rate that was to be reached; continuous time")
    shrink_distance: float | None = Field(description="of the plain alternative: all times one number")
    distance_bound: float | None = Field(description="no weights closer are certified by lure; numerical, not verified")
    result: dict[str, Any] = Field(description="the answer about the new weights, as of POST /v1/certificates")
    weights: WeightsLink | None
    certificate: CertificateLink | None = Field(description="about the new weight file")
    cached: bool


class VerificationRequest(BaseModel):
    """POST /v1/verifications as JSON."""

    certificate: dict[str, Any] = Field(description="the DSSE envelope")
    proof: Base64 | None = Field(None, description="safetensors file; needed for a network")
    weights: Base64 | None = Field(None, description="safetensors file")
    tensors: dict[str, list[Any] | TensorData] | None = Field(None, description="the weights inline, instead of a file")
    modules: Base64 | None = Field(
        None,
        description="of an assembly: a safetensors file of bytes (U8), documents/DIGEST, proofs/SHA256, "
        "couplings/SHA256 and weight files as weights/NAME; instead of proof, weights and tensors",
    )
    key: str | None = Field(None, description="trusted Ed25519 public key (PEM)")
    exact: bool | None = Field(False, description="also audit in exact rational arithmetic")


class ReportCheck(BaseModel):
    """One obligation of the verifier."""

    name: str
    held: bool
    detail: str
    missing: float | None


class VerificationAnswer(BaseModel):
    """The verifier's report."""

    valid: bool
    verdict: Verdict = Field(description="what is proven; undecided if the certificate is not valid")
    reason: str | None
    detail: str
    checks: list[ReportCheck] = Field(description="of an assembly: those of the whole")
    path: str | None = Field(None, description="of an assembly: the place or edge that failed first, empty: the whole")
    digest: Digest | None = Field(description="of the certificate; null if it cannot be read as one")
    signed: bool | None
    exact: bool


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(pattern=r"^urn:certes:error:[a-z0-9-]+$")
    title: str
    status: int
    detail: str
    field: str | None = Field(None, description="what was wrong, as the request named it")
    given: str | None = None
    expected: str | None = None
    limit: int | None = None


def split(given: dict[str, Any], options: type[Options | ProjectionOptions]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A spec's entries, as (what is asked, the system); ``step`` is asked for if it is "max" and that is an option."""
    asked = {key: value for key, value in given.items() if key in options.model_fields and key != "step"}
    system = {key: value for key, value in given.items() if key not in asked}
    if "step" in options.model_fields and system.get("step") == "max":
        asked["step"] = system.pop("step")
    return asked, system
