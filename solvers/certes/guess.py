"""A start for the description of a network, guessed from its file; whoever certifies it has to look at every guess.

Names and shapes tell the form and the recurrent matrix (:mod:`certes.recognise`). The activation and the step stand
in no tensor: they are taken from the file's metadata or from its name where these say something, and otherwise are
what is most usual. A guess proves nothing: a certificate names the system that it is about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from certes.activations import activation
from certes.cells import CELLS
from certes.errors import InputError
from certes.recognise import Recognition, recognise
from certes.weights import WeightFile

_ACTIVATIONS = ("activation", "nonlinearity", "phi")
_STEPS = ("step", "alpha")
_FORMS = ("rate", "hopfield")
#: Names that stand in names of files. A "leaky-relu" may be a leaky network with relu: relu has the slopes of both.
_NAMED = ("hardtanh", "softplus", "sigmoid", "gelu", "silu", "relu", "tanh", "elu")
_USUAL = "tanh"


@dataclass(frozen=True)
class Guess:
    """What a file probably holds.

    Attributes:
        spec: a mapping that :meth:`certes.spec.SystemSpec.parse` takes; None: no recurrent weights were found.
        reasons: entry of the spec -> why it was guessed, in words.
        recognition: what was recognised.
    """

    spec: dict[str, Any] | None
    reasons: Mapping[str, str]
    recognition: Recognition


def guess(weights: WeightFile) -> Guess:
    """Guess form, tensors, activation and step. Never fails: what cannot be told is what is most usual."""
    found = recognise(weights)
    spec: dict[str, Any] | None = _lure(weights) if found.spec is None or found.kind == "matrices" else None
    if spec is None and found.spec is not None:
        spec = dict(found.spec)
    if spec is not None and spec["form"] in CELLS:
        return Guess(None, {}, found)  # nobody but the user knows the box of inputs
    if spec is None and found.candidates:
        spec = {"form": "rate", "tensors": {"W": found.candidates[0]}}
    if spec is None:
        return Guess(None, {}, found)
    reasons = {"form": _why(spec, found)}
    if spec["form"] == "rate" and (form := weights.metadata.get("form", "").lower()) in _FORMS:
        spec["form"], reasons["form"] = form, "the file's metadata say so"
    spec["activation"], reasons["activation"] = _activation(weights, spec["form"])
    if spec["form"] in _FORMS:
        step = _step(weights)
        if step is not None:
            spec["step"], reasons["step"] = step, "the file's metadata say so"
        else:
            reasons["step"] = "the file does not tell; without one, time is continuous"
    return Guess(spec, reasons, found)


def _why(spec: Mapping[str, Any], found: Recognition) -> str:
    if spec["form"] == "lure":
        return "three matrices A, B, C of fitting shapes"
    if spec["form"] == "torch-rnn":
        return "named as torch.nn.RNN names its weights"
    return (
        "the usual form, with the only square matrix"
        if len(found.candidates) == 1
        else "the usual form, with the likeliest matrix"
    )


def _activation(weights: WeightFile, form: str) -> tuple[str, str]:
    for key in _ACTIVATIONS:
        if (name := _known(weights.metadata.get(key), form)) is not None:
            return name, "the file's metadata say so"
    words = re.sub(r"[^a-z0-9]+", "_", weights.name.lower())
    for name in _NAMED:
        if re.search(rf"(?:^|_){name}(?:_|$)", words) and (known := _known(name, form)) is not None:
            return known, "the file's name says so"
    return _USUAL, "the most usual; the file does not tell"


def _known(name: str | None, form: str) -> str | None:
    """The name of an activation as the table has it, if it is one and the form can have it."""
    if name is None:
        return None
    try:
        known = activation(name.strip().lower()).name
    except InputError:
        return None
    return known if form != "torch-rnn" or known in ("tanh", "relu") else None


def _step(weights: WeightFile) -> float | None:
    for key in _STEPS:
        try:
            step = float(weights.metadata[key][:40])
        except (KeyError, ValueError):
            continue
        if math.isfinite(step) and step > 0:
            return step
    return None


def _lure(weights: WeightFile) -> dict[str, Any] | None:
    """A Lur'e system, if the file has A (n, n), B (n, m) and C (m, n)."""
    if not {"A", "B", "C"} <= set(weights.tensors):
        return None
    shapes = [weights.tensors[name].shape for name in "ABC"]
    if any(len(shape) != 2 for shape in shapes):
        return None
    (n, square), (rows, inputs), (outputs, columns) = shapes
    if not (n == square == rows == columns and inputs == outputs):
        return None
    return {"form": "lure", "tensors": {name: name for name in "ABC"}}
