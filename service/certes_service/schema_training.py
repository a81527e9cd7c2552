"""The shapes of requests and answers about trainings, for OpenAPI. The names are those of the Python interface."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from certes.trainings import Architecture
from pydantic import BaseModel, ConfigDict, Field

from certes_service.questions.trainings import MOST_EPOCHS, TrainingOptions
from certes_service.schema import Digest, Manner, TensorData
from certes_service.schema_assembly import AssemblyCertificateLink, GatedClaim

Share = Annotated[float, Field(ge=0, le=0.9)]


class TrainingPlan(BaseModel):
    """How to train."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(60, ge=1, le=MOST_EPOCHS, description="at most")
    batch: int = Field(32, ge=1, description="sequences per step")
    learning_rate: float = Field(5e-3, ge=0, le=10, description="at its highest; it falls to 0 over half a cosine")
    warmup: Share = Field(0.1, description="share of all steps over which the learning rate rises")
    weight_decay: float = Field(1e-4, ge=0, le=10)
    clip: float = Field(1.0, ge=1e-6, le=1e9, description="largest norm of the gradient")
    smoothing: float = Field(0.05, ge=0, le=0.5, description="of the labels")
    noise: float = Field(0.0, ge=0, le=100, description="standard deviation of noise on the standardised inputs")
    jitter: int = Field(0, ge=0, le=1000, description="pixels by which images (IDX files) are moved while training")
    patience: int = Field(1000, ge=1, description="epochs without a better choice that end it")
    validation: float = Field(0.2, ge=0.01, le=0.5, description="share of the training data that chooses the epoch")
    seed: int = Field(0, ge=0, description="of everything that is drawn")


class TrainingSpecification(TrainingOptions):
    """What is trained, and how."""

    architecture: Architecture
    plan: TrainingPlan = Field(default_factory=lambda: TrainingPlan.model_validate({}))


class TrainingRequest(Manner):
    """POST /v1/trainings as JSON."""

    spec: TrainingSpecification
    tensors: dict[str, list[Any] | TensorData] = Field(
        min_length=1,
        description="`inputs` (N, T, features) and `labels` (N,) or `targets`; `test_inputs`, ... if there are",
    )


class TrainedWeights(BaseModel):
    """All tensors of the trained network (safetensors)."""

    href: str
    sha256: Digest


class TrainingAnswer(BaseModel):
    """The answer to POST /v1/trainings."""

    model_config = ConfigDict(extra="allow")

    verdict: Literal["contracting"]
    task: str = Field(description="classification or regression")
    guarantee: Literal["euler", "continuous"] = Field(description="what is certified: the map that is run, or x'")
    rate: float | None
    factor: float | None
    gate: GatedClaim | None = Field(description="what follows for the network with its input gate; null: it has none")
    largest_step: float | None
    states: int
    modules: int
    couplings: int
    parameters: int = Field(description="that were trained")
    epoch: int = Field(description="that the validation data chose")
    epochs: int = Field(description="that were done")
    ended: str = Field(description="finished or deadline")
    notes: list[str]
    curve: list[dict[str, float | None]] = Field(description="one entry per epoch")
    assembly: dict[str, Any] = Field(description="modules and couplings, as `certes compose` reads them")
    certificate: AssemblyCertificateLink
    weights: TrainedWeights
    cached: bool
