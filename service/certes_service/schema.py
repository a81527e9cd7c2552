"""The shapes of requests and answers, for OpenAPI. The names are those of the Python interface."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from certes.errors import InputError
from certes.spec import SystemSpec, input_error
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Verdict = Literal["contracting", "not_contracting", "undecided"]
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
    data: str = Field(json_schema_extra={"contentEncoding": "base64"})


class CertificateRequest(BaseModel):
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


class VerificationRequest(BaseModel):
    """POST /v1/verifications as JSON."""

    certificate: dict[str, Any] = Field(description="the DSSE envelope")
    proof: str = Field(json_schema_extra={"contentEncoding": "base64"}, description="safetensors file")
    weights: str | None = Field(None, json_schema_extra={"contentEncoding": "base64"}, description="safetensors file")
    tensors: dict[str, list[Any] | TensorData] | None = Field(None, description="the weights inline, instead of a file")
    key: str | None = Field(None, description="trusted Ed25519 public key (PEM)")
    exact: bool = Field(False, description="also audit in exact rational arithmetic")


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
    checks: list[ReportCheck]
    digest: Digest | None = Field(description="of the certificate; null if it cannot be read as one")
    signed: bool | None
    exact: bool


class Health(BaseModel):
    """The service is up."""

    status: Literal["ok"]
    version: str


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


def split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A spec's entries, as (what is asked, the system); ``step`` is asked for if it is "max"."""
    asked = {key: value for key, value in given.items() if key in Options.model_fields and key != "step"}
    system = {key: value for key, value in given.items() if key not in asked}
    if system.get("step") == "max":
        asked["step"] = system.pop("step")
    return asked, system
