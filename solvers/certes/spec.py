"""A system in words: what a user writes beside a weight file, and what a certificate repeats.

    {"form": "rate", "tensors": {"W": "rec.weight"}, "activation": "tanh", "step": 0.2}

Forms ``rate``, ``hopfield`` and ``lure`` are those of :mod:`certes.systems`; ``torch-rnn`` reads a ``torch.nn.RNN``
checkpoint and becomes the rate form with step 1. Forms ``gru`` and ``lstm`` are the gated cells of :mod:`certes.cells`,
over a declared box of inputs:

    {"form": "gru", "inputs": [-1, 1]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from certes import recognise, strictjson
from certes.cells import CELLS, GatedNetwork, box_of
from certes.cells import ROLES as CELL_ROLES
from certes.errors import InputError
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System, UnsupportedCell
from certes.weights import WeightFile

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ROLES: dict[str, tuple[str, ...]] = {
    "rate": ("W",),
    "hopfield": ("W",),
    "lure": ("A", "B", "C"),
    "torch-rnn": ("W",),
    "gru": tuple(CELL_ROLES),
    "lstm": tuple(CELL_ROLES),
}


def _plain(value: Any) -> Any:
    """Tuples and numpy numbers as JSON would have them; anything else as it is, for the model to judge."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.floating | np.integer):
        return value.item()
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
#: One number for all neurons, or a list with one per neuron.
PerNeuron = Annotated[Number | list[Number], BeforeValidator(_plain)]
PositivePerNeuron = Annotated[Positive | list[Positive], BeforeValidator(_plain)]
SlopePair = Annotated[list[PerNeuron], Field(min_length=2, max_length=2), BeforeValidator(_plain)]
TensorName = Annotated[str, Field(min_length=1, max_length=1024)]


class SystemSpec(BaseModel):
    """A system as given: form, names of its tensors, nonlinearity, time.

    Build it with :meth:`parse` (or :meth:`from_json`), which raise :class:`certes.errors.InputError`; the bare
    constructor raises pydantic's own error.

    Attributes:
        form: ``rate``, ``hopfield``, ``lure``, ``torch-rnn``, ``gru`` or ``lstm``.
        tensors: role (``W``; ``A``, ``B``, ``C`` for lure) -> tensor name in the weight file. torch-rnn: optional.
            gru, lstm: ``W``, ``U`` and, where there are biases, ``b``, ``c``; or ``U`` alone, or nothing: the other
            tensors of torch's layer are found by their names.
        activation: a name from :mod:`certes.activations`, or
        slope: [a, b], each a number or a list with one per neuron. Exactly one of the two; neither for gru and lstm.
        step: Euler step in the unit of tau; None: continuous time (torch-rnn: always 1).
        tau: time constants, a number or a list with one per neuron; None: 1.
        discrete: a lure system given as a map.
        input_tensor: W_in, optional; only used to report whether a witness's input can be produced.
        bias_tensor: constant input, optional, likewise.
        inputs: gru, lstm: the declared box [lower, upper] of inputs, each a number or a list with one per input. None:
            none is declared, and the cell is undecided.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    form: Literal["rate", "hopfield", "lure", "torch-rnn", "gru", "lstm"]
    tensors: dict[str, TensorName] = Field(default_factory=dict)
    activation: Annotated[str, Field(max_length=100)] | None = None
    slope: SlopePair | None = None
    step: Annotated[Positive, BeforeValidator(_plain)] | None = None
    tau: PositivePerNeuron | None = None
    discrete: bool = False
    input_tensor: TensorName | None = None
    bias_tensor: TensorName | None = None
    inputs: Annotated[list[PerNeuron], Field(min_length=2, max_length=2), BeforeValidator(_plain)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        roles = ROLES[self.form]
        unknown = sorted(set(self.tensors) - set(roles))
        missing = sorted(set(roles) - set(self.tensors))
        if unknown:
            raise _wrong(
                "tensors", f"the role {unknown[0]!r}", f"{', '.join(roles)} for form {self.form}", "unknown-role"
            )
        if self.form in CELLS:
            return self._consistent_cell()
        if missing and self.form != "torch-rnn":
            raise _wrong("tensors", f"no tensor for {', '.join(missing)}", "the name of a tensor", "missing-value")
        if self.inputs is not None:
            raise _wrong(
                "inputs", "a box of inputs", f"none with form {self.form}: it holds for every input", "conflict"
            )
        if (self.activation is None) == (self.slope is None):
            given = "neither activation nor slope" if self.slope is None else "both activation and slope"
            raise _wrong("activation", given, "exactly one of the two", "missing-value")
        if self.discrete and self.form != "lure":
            raise _wrong(
                "discrete", "true", "a step instead (step 1 is the plain map), for every form but lure", "conflict"
            )
        if self.discrete and self.step is not None:
            raise _wrong("step", f"{self.step} with discrete", "no step: the system is given as a map", "conflict")
        if self.form == "torch-rnn" and self.step not in (None, 1.0):
            raise _wrong("step", f"{self.step}", "none: torch.nn.RNN is the map with step 1", "conflict")
        if self.form == "torch-rnn" and self.activation not in (None, "tanh", "relu"):
            raise _wrong(
                "activation", repr(self.activation), "tanh or relu, all that torch.nn.RNN has", "unknown-activation"
            )
        if self.form in ("lure", "torch-rnn") and self.tau is not None:
            raise _wrong("tau", "time constants", f"none with form {self.form}", "conflict")
        return self

    def _consistent_cell(self) -> Self:
        for name in ("activation", "slope", "step", "tau", "input_tensor", "bias_tensor"):
            if getattr(self, name) is not None:
                raise _wrong(name, "a value", f"none with form {self.form}, whose gates are fixed", "conflict")
        if self.discrete:
            raise _wrong("discrete", "true", f"nothing with form {self.form}, which is a map", "conflict")
        if not {"W", "U"} <= set(self.tensors) and not set(self.tensors) <= {"U"}:
            given = f"tensors for {', '.join(sorted(self.tensors))}"
            raise _wrong("tensors", given, "W and U (and b, c); or U alone, of a torch layer; or none", "missing-value")
        return self

    @property
    def continuous(self) -> bool:
        """Whether the system is a differential equation."""
        return self.step is None and not self.discrete and self.form not in CELLS

    @classmethod
    def parse(cls, given: Mapping[str, Any], field: str = "spec") -> Self:
        """Validate a mapping.

        Raises:
            InputError: naming the entry, as ``spec.step``.
        """
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            raise input_error(error, field) from None

    @classmethod
    def from_json(cls, data: bytes, field: str = "spec") -> Self:
        """Read from JSON text (no duplicate keys, no NaN, limits on size and depth).

        Raises:
            InputError: naming the entry.
        """
        content = strictjson.parse(data, field)
        if not isinstance(content, dict):
            raise InputError(field, type(content).__name__, "a JSON object", "wrong-type")
        return cls.parse(content, field)

    @classmethod
    def of(cls, system: System | GatedNetwork) -> Self:
        """The spec of a system; :meth:`system` with the same tensors gives the system back."""
        if isinstance(system, GatedNetwork):
            named = {role: _stored_name(entry.subjects) for role, entry in system.tensors.items()}
            return cls.parse({"form": system.form, "tensors": named, "inputs": box_of(system)})
        slope = None
        if system.slope.activation is None:
            slope = [_short(system.slope.lower), _short(system.slope.upper)]
        timed = system.form != "lure" and bool((system.tau != 1.0).any())
        entry = system.slope.activation
        return cls.parse(
            {
                "form": system.form,
                "tensors": {role: _stored_name(part.subjects) for role, part in system.tensors.items()},
                "activation": None if entry is None else entry.name,
                "slope": slope,
                "step": system.step,
                "tau": _short(system.tau) if timed else None,
                "discrete": system.discrete,
            }
        )

    def system(self, weights: WeightFile) -> System | GatedNetwork | UnsupportedCell:
        """The system with the weights of a file.

        Raises:
            InputError: a tensor is missing or does not fit, naming the tensor or the entry.
        """
        if self.form in CELLS:
            return self._gated(weights)
        if self.form == "torch-rnn":
            return self._torch_rnn(weights)
        matrices = {role: weights.matrix(self.tensors[role], f"tensors.{role}") for role in ROLES[self.form]}
        return self.with_tensors(
            matrices,
            file=weights.file,
            input_matrix=self._optional(weights, self.input_tensor, "input_tensor"),
            bias=self._optional(weights, self.bias_tensor, "bias_tensor"),
        )

    def with_tensors(
        self,
        matrices: Mapping[str, object],
        *,
        file: tuple[str, str] | None = None,
        input_matrix: object = None,
        bias: object = None,
    ) -> System:
        """The system with matrices by role (form rate, hopfield or lure).

        Raises:
            InputError: something does not fit.
        """
        slope = None if self.slope is None else (self.slope[0], self.slope[1])
        if self.form == "lure":
            parts = (matrices["A"], matrices["B"], matrices["C"])
            return LureSystem(
                *parts, slope=slope, activation=self.activation, discrete=self.discrete, step=self.step, file=file
            )
        network = HopfieldNetwork if self.form == "hopfield" else RateNetwork
        step = 1.0 if self.form == "torch-rnn" else self.step
        return network(
            matrices["W"],
            self.activation,
            slope,
            step=step,
            tau=self.tau,
            input_matrix=input_matrix,
            bias=bias,
            file=file,
        )

    def cell(self, tensors: Mapping[str, object], *, file: tuple[str, str] | None = None) -> GatedNetwork:
        """The gated cell with tensors by role (form gru or lstm).

        Raises:
            InputError: something does not fit.
        """
        box = None if self.inputs is None else (self.inputs[0], self.inputs[1])
        return CELLS[self.form](*(tensors.get(role) for role in CELL_ROLES), inputs=box, file=file)

    def _gated(self, weights: WeightFile) -> GatedNetwork | UnsupportedCell:
        named: Mapping[str, str] = self.tensors
        if "W" not in named:
            found = recognise.gated_cell(weights, self.form, self.tensors.get("U"))
            if isinstance(found, UnsupportedCell):
                return found
            named = found
        tensors = {role: weights.get(name, f"tensors.{role}").tensor(CELL_ROLES[role]) for role, name in named.items()}
        return self.cell(tensors, file=weights.file)

    def _optional(self, weights: WeightFile, name: str | None, field: str) -> NDArray[np.float64] | None:
        return None if name is None else weights.get(name, f"spec.{field}").floats()

    def _torch_rnn(self, weights: WeightFile) -> System | UnsupportedCell:
        cell = recognise.torch_cell(weights, self.tensors.get("W"))
        if isinstance(cell, UnsupportedCell):
            return cell
        drive, bias = recognise.drive(weights, cell)
        if self.input_tensor is not None:
            drive = self._optional(weights, self.input_tensor, "input_tensor")
        if self.bias_tensor is not None:
            bias = self._optional(weights, self.bias_tensor, "bias_tensor")
        matrix = weights.matrix(cell.recurrent, "tensors.W")
        return self.with_tensors({"W": matrix}, file=weights.file, input_matrix=drive, bias=bias)


def _short(values: NDArray[np.float64]) -> float | list[float]:
    return float(values[0]) if bool((values == values[0]).all()) else values.tolist()


def _stored_name(subjects: Sequence[Any]) -> str:
    first = str(subjects[0].name)
    return first if len(subjects) == 1 else first.removesuffix(".data")


def _wrong(field: str, given: str, expected: str, slug: str) -> PydanticCustomError:
    return PydanticCustomError(slug, "{given}", {"field": field, "given": given, "expected": expected})


_SLUGS = {
    "missing": "missing-value",
    "extra_forbidden": "unknown-field",
    "greater_than": "not-positive",
    "finite_number": "not-finite",
    "literal_error": "unknown-value",
}


def input_error(error: ValidationError, field: str) -> InputError:
    """The first complaint of pydantic as an :class:`InputError` whose field is the path to the entry."""
    # a union (number or list) complains once per member: the deepest complaint is about what was meant
    details: list[ErrorDetails] = error.errors(include_url=False)
    detail = max(details[:100], key=lambda entry: len(entry["loc"]))
    context = detail.get("ctx", {})
    if "expected" in context and "field" in context:
        return InputError(f"{field}.{context['field']}", context["given"], context["expected"], detail["type"])
    steps = [str(step) for step in detail["loc"] if not _is_schema_step(step)]
    given = "nothing" if detail["type"] == "missing" else _clip(detail["input"])
    expected = (
        "no such entry" if detail["type"] == "extra_forbidden" else detail["msg"].removeprefix("Input should be ")
    )
    return InputError(".".join([field, *steps]), given, expected, _SLUGS.get(detail["type"], "wrong-type"))


def _is_schema_step(step: object) -> bool:
    return isinstance(step, str) and ("[" in step or step in ("float", "list", "constrained-float"))


def _clip(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**80:
        return "an integer of more than 80 digits"
    text = repr(value) if isinstance(value, (str, int, float, type(None))) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
