"""The entries of a description of an assembly, as they are written: validated, and not yet looked up anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from certes.errors import InputError
from certes.input_gate import LEAST
from certes.spec import TensorName, input_error

FileName = Annotated[str, Field(min_length=1, max_length=1000)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class Entry(BaseModel):
    """A mapping with these entries and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def parse(cls, given: Any, name: str) -> Self:
        """Validate a mapping; errors name the entry.

        Raises:
            InputError: naming ``name`` or an entry of it.
        """
        if not isinstance(given, Mapping):
            raise InputError(name, f"a {type(given).__name__}", "a mapping", "wrong-type")
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            raise input_error(error, name) from None


class TopologySpec(Entry):
    """Couplings drawn at random between the modules of one level, see :mod:`certes.composition.topologies`.

    Attributes:
        kind: which modules are coupled; ``chain`` and ``hierarchy`` in the order of the modules.
        hub: the module in the middle, for kind ``hub``.
        pairs: how many pairs, for kind ``random``.
        seed: of the draw.
        scale: size of the contributions of one module to another.
        feedback: each pair in both directions, skew in the metrics: L_ij = B, L_ji = -M_j^-1 B^T M_i.
    """

    kind: Literal["all-to-all", "ring", "chain", "hub", "hierarchy", "random"]
    hub: str | None = None
    pairs: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    scale: Positive = 1.0
    feedback: bool = False


class CouplingSpec(Entry):
    """One coupling whose weights are a tensor."""

    to: str
    source: Annotated[str, Field(alias="from")]
    tensor: TensorName
    file: FileName | None = None
    inside: bool = False


class FeedbackSpec(Entry):
    """Both directions between two modules, from one free block B of shape (n_first, n_second)."""

    between: Annotated[list[str], Field(min_length=2, max_length=2), BeforeValidator(_listed)]
    tensor: TensorName
    file: FileName | None = None


class GateSpec(Entry):
    """A gate that sees the input and scales the step of the whole, see :mod:`certes.input_gate`.

    Attributes:
        least: the smallest share of a step that it leaves.
        weight: a tensor of shape (1, inputs).
        bias: a tensor of shape (1,).
    """

    least: Annotated[float, Field(ge=LEAST, lt=1)]
    weight: TensorName
    bias: TensorName


class AssemblySpec(Entry):
    """One level of a description; modules and couplings are validated one by one, by what they are."""

    step: Positive | None = None
    file: FileName | None = None
    modules: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    couplings: list[dict[str, Any]] = Field(default_factory=list)
    topology: dict[str, Any] | None = None
    gate: dict[str, Any] | None = None
    mode: Literal["auto", "interface", "exact", "whole", "monolithic", "all"] = "auto"


class CertifiedSpec(Entry):
    """A module that has a certificate."""

    certificate: FileName
    weights: FileName | None = None


class IncludedSpec(Entry):
    """A module that is another description."""

    assembly: FileName
