"""From command-line options to a question: the same :class:`certes.spec.SystemSpec` that the service validates."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from certes import formats
from certes.cells import CELLS, GatedNetwork
from certes.errors import InputError
from certes.spec import ROLES, SystemSpec
from certes.systems import System, UnsupportedCell
from certes.weights import WeightFile

_FORMS = ", ".join(ROLES)


@dataclass(frozen=True)
class SystemOptions:
    """The options of ``certes certify`` that say what the network is, as texts."""

    form: str | None
    tensors: Mapping[str, str | None]
    activation: str | None
    slope: str | None
    step: str | None
    tau: str | None
    discrete: bool
    inputs: str | None = None

    @property
    def step_choice(self) -> Literal["given", "max"]:
        """``max``: the largest step that can be certified is asked for."""
        return "max" if self.step == "max" else "given"

    def read(self, path: Path) -> tuple[SystemSpec, WeightFile, System | GatedNetwork | UnsupportedCell]:
        """Read the file and make the system.

        Raises:
            InputError: naming the option, or the tensor.
        """
        if self.form is None:
            expected = f"one of {_FORMS} ('certes inspect {path.name}' tells what the file looks like)"
            raise InputError("--form", "nothing", expected, "missing-value")
        weights = formats.read(path)
        given: dict[str, Any] = {"form": self.form, "discrete": self.discrete, "activation": self.activation}
        named = {role: name for role, name in self.tensors.items() if name is not None}
        if self.form in CELLS and "W" in named:  # --tensor names the recurrent tensor, which a cell calls U
            named["U"] = named.pop("W")
        given["tensors"] = named
        if self.inputs is not None:
            given["inputs"] = _box(self.inputs, weights)
        if self.step is not None and self.step_choice == "given":
            given["step"] = _number("--step", self.step, "a positive number, or max")
        if self.slope is not None:
            given["slope"] = _slope(self.slope, weights)
        if self.tau is not None:
            given["tau"] = _times(self.tau, weights)
        try:
            spec = SystemSpec.parse({key: value for key, value in given.items() if value is not None})
            return spec, weights, spec.system(weights)
        except InputError as error:
            raise _renamed(error) from None


def _renamed(error: InputError) -> InputError:
    """The same error with the field under its name on the command line."""
    name = error.field.removeprefix("spec.")
    role = name.removeprefix("tensors.")
    if name.startswith("tensors."):
        name = "--tensor" if role in ("W", "U") else f"--{role}"
    elif name == "tensors":
        name = "--tensor (lure: --A, --B, --C)"
    elif name.split(".")[0] in ("form", "activation", "slope", "step", "tau", "discrete", "inputs"):
        name = f"--{name}"
    else:
        return error
    return InputError(name, error.given, error.expected, error.slug)


def _slope(text: str, weights: WeightFile) -> list[float | list[float]]:
    parts = text.split(",")
    if len(parts) != 2:
        raise InputError(
            "--slope", repr(text), "two numbers A,B (or two tensor names), as in --slope 0,1", "wrong-type"
        )
    return [_number_or_tensor("--slope", part.strip(), weights) for part in parts]


def _box(text: str, weights: WeightFile) -> list[float | list[float]]:
    parts = text.split(",")
    if len(parts) != 2:
        expected = "two numbers LOW,HIGH (or two tensor names), as in --inputs=-1,1"
        raise InputError("--inputs", repr(text), expected, "wrong-type")
    return [_number_or_tensor("--inputs", part.strip(), weights) for part in parts]


def _times(text: str, weights: WeightFile) -> float | list[float]:
    if text in weights.tensors or "," not in text:
        return _number_or_tensor("--tau", text, weights)
    return [_number("--tau", part, "numbers separated by commas") for part in text.split(",")]


def _number_or_tensor(field: str, text: str, weights: WeightFile) -> float | list[float]:
    if text not in weights.tensors:
        return _number(field, text, "a number, or the name of a tensor of the file")
    entry = weights.tensors[text]
    if len(entry.shape) != 1:
        raise InputError(
            field, f"the tensor {text!r} of shape {entry.shape}", "a vector, one number per neuron", "wrong-shape"
        )
    values: list[float] = entry.floats().tolist()
    return values


def _number(field: str, text: str, expected: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(field, repr(text), expected, "wrong-type") from None


def rate(text: str) -> float | Literal["best"]:
    """``best``, or a positive number.

    Raises:
        InputError: neither.
    """
    if text == "best":
        return "best"
    value = _number("--rate", text, "best, or the rate (or factor) to reach")
    if not 0 < value < float("inf"):
        raise InputError("--rate", text, "best, or a positive number", "not-positive")
    return value


def folder(path: Path) -> Path:
    """A directory that can be written, made if missing; checked before anything is computed.

    Raises:
        InputError: it cannot be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "--out", f"{path}: {error.strerror}", "a directory that can be written", "unwritable"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError("--out", f"{path}, which cannot be written", "a directory that can be written", "unwritable")
    return path
