"""The shapes of requests and answers about assemblies, for OpenAPI. The names are those of the Python interface."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from certes.composition.entries import GateSpec, TopologySpec
from certes.composition.outcome import Mode
from certes.spec import SystemSpec, TensorName, input_error
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certes_service.schema import CertificateLink, Digest, Manner, TensorData, Verdict


class AssemblyOptions(BaseModel):
    """What is asked about an assembly; given beside its description in ``spec``.

    Attributes:
        seconds: time limit; the service's own limit applies in any case.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @classmethod
    def parse(cls, given: dict[str, Any]) -> Self:
        """Validate.

        Raises:
            InputError: naming the entry.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise input_error(error, "spec") from None


class CertifiedModule(BaseModel):
    """A module by its certificate."""

    model_config = ConfigDict(extra="forbid")

    certificate: Digest = Field(description="of a network, issued here; it is verified again")


class TensorCoupling(BaseModel):
    """A coupling whose weights are a tensor."""

    model_config = ConfigDict(extra="forbid")

    to: str
    source: str = Field(alias="from")
    tensor: TensorName = Field(description="(n_to, n_from), as it stands in x'; maps: in the next state")
    inside: bool = Field(False, description="whether it enters the argument of phi")


class Feedback(BaseModel):
    """Both directions of a pair from one free block: L_ij = B, and L_ji skew to it in the modules' metrics."""

    model_config = ConfigDict(extra="forbid")

    between: list[str] = Field(min_length=2, max_length=2)
    tensor: TensorName = Field(description="B, (n_first, n_second)")


class FeedbackCoupling(BaseModel):
    """Feedback that costs no rate."""

    model_config = ConfigDict(extra="forbid")

    feedback: Feedback


class NetworkModule(SystemSpec):
    """A network."""

    metric: list[float] | list[list[float]] | None = Field(
        None, description="where a proof is looked for first (its diagonal, or its rows); a hint that is never trusted"
    )


class AssemblyDescription(BaseModel):
    """Modules, and the couplings between them; every tensor is in the one weight file."""

    model_config = ConfigDict(extra="forbid")

    modules: dict[str, NetworkModule | CertifiedModule | AssemblyDescription] = Field(
        min_length=1, description="name -> a network, a certificate, or an assembly"
    )
    couplings: list[TensorCoupling | FeedbackCoupling] = Field(default_factory=list)
    topology: TopologySpec | None = Field(None, description="couplings drawn at random, for experiments")
    step: float | None = Field(None, gt=0, description="Euler step of the whole; null: as the modules are")


class AssemblySpecification(AssemblyDescription):
    """An assembly, and what is asked about it."""

    gate: GateSpec | None = Field(None, description="a gate that sees the input and scales the step of the whole")

    mode: Mode = Field("auto", description="which proofs are tried")
    seconds: float | None = Field(None, gt=0, description="time limit")


class AssemblyRequest(Manner):
    """POST /v1/assemblies as JSON."""

    spec: AssemblySpecification
    tensors: dict[str, list[Any] | TensorData] = Field(min_length=1)


class DocumentLink(BaseModel):
    """One of the certificates of an assembly."""

    kind: Literal["network", "assembly"]
    digest: Digest
    href: str
    proof: str


class AssemblyCertificateLink(CertificateLink):
    """Where the certificate of the whole is, and all that it is made of."""

    documents: list[DocumentLink] = Field(description="of every network and every step, the whole last")


class CouplingsLink(BaseModel):
    """The tensors of all couplings (safetensors), those that were made included."""

    href: str
    sha256: Digest


class GatedClaim(BaseModel):
    """What is certified of a network with a gate, whatever the gate does; `rate` and `factor` beside it: where open."""

    least: float = Field(description="the smallest share of a step that the gate leaves")
    rate: float | None
    factor: float | None


class AssemblyAnswer(BaseModel):
    """The answer to POST /v1/assemblies."""

    model_config = ConfigDict(extra="allow")

    verdict: Verdict
    rate: float | None = Field(description="continuous time: 1/(unit of time)")
    factor: float | None = Field(description="a map: per step")
    gate: GatedClaim | None = Field(
        description="what follows for the network with its gate; null: it has none, or nothing is proven"
    )
    mode: str | None = Field(description="the proof that gives it")
    modes: dict[str, float | None] = Field(description="what each proof gives, side by side")
    lipschitz: float | None
    largest_step: dict[str, float] | None = Field(description="every Euler step up to this contracts")
    whole_step: dict[str, float] | None = Field(description="an Euler step of the whole that mode whole certifies")
    states: int
    modules: dict[str, float] = Field(description="rate or factor of each module of the top level")
    limiting: str | None
    edges: list[dict[str, Any]] = Field(description="how strong each coupling is, and what it costs")
    proved: list[str] = Field(description="networks that were proven anew")
    reason: str | None
    detail: str
    refutation: dict[str, Any] | None
    certificate: AssemblyCertificateLink | None
    couplings: CouplingsLink | None
    cached: bool
