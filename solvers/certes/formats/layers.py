"""Recurrent layers of other programs under torch's names, which is what :mod:`certes.recognise` knows.

torch stacks the gates of a layer in ``weight_ih_l0`` (k n, inputs), ``weight_hh_l0`` (k n, n), ``bias_ih_l0`` and
``bias_hh_l0`` (k n,): one for an RNN, reset, update, new for a GRU, input, forget, cell, output for an LSTM. Moving
blocks changes no number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError
from certes.formats.contents import FLOATS, Contents, Raw

Array = NDArray[Any]

GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@dataclass(frozen=True)
class Layer:
    """One layer of one direction, its gates in torch's order.

    Attributes:
        name: what its file calls it.
        kind: ``rnn``, ``gru`` or ``lstm``.
        input: (k n, inputs). recurrent: (k n, n).
        biases: of the inputs and of the states, (k n,) each; or None.
        activation: ``tanh`` or ``relu`` of an RNN; empty: the file does not tell.
    """

    name: str
    kind: str
    input: Array
    recurrent: Array
    biases: tuple[Array, Array] | None
    activation: str = ""

    def __post_init__(self) -> None:
        rows = self.recurrent.shape[0]
        states, odd = rows // GATES[self.kind], rows % GATES[self.kind]
        wrong = odd or states == 0 or self.recurrent.shape != (rows, states)
        wrong = wrong or self.input.ndim != 2 or self.input.shape[0] != rows
        wrong = wrong or any(bias.shape != (rows,) for bias in self.biases or ())
        if wrong:
            given = f"weights of shapes {self.input.shape} and {self.recurrent.shape}"
            raise InputError(self.name, given, f"those of a layer of kind {self.kind}", "wrong-shape")

    def tensors(self, prefix: str) -> dict[str, Array]:
        """The tensors under torch's names."""
        found = {"weight_ih_l0": self.input, "weight_hh_l0": self.recurrent}
        if self.biases is not None:
            found |= {"bias_ih_l0": self.biases[0], "bias_hh_l0": self.biases[1]}
        return {prefix + name: array for name, array in found.items()}


def reordered(array: Array, order: Sequence[int], axis: int = 0) -> Array:
    """Equal blocks along an axis in another order: block ``order[k]`` comes k-th.

    Raises:
        InputError: the axis has no such blocks.
    """
    if array.shape[axis] % len(order):
        raise InputError("weights", f"an axis of {array.shape[axis]}", f"{len(order)} gates on it", "wrong-shape")
    blocks = np.split(array, len(order), axis=axis)
    return np.concatenate([blocks[k] for k in order], axis=axis)


def contents(layers: Sequence[Layer]) -> Contents:
    """The safetensors contents of some layers; of one alone, without a prefix.

    Raises:
        InputError: two layers of one name, or a dtype that is no floating type.
    """
    tensors: dict[str, Raw] = {}
    for layer, prefix in zip(layers, _prefixes(layers), strict=True):
        for name, array in layer.tensors(prefix).items():
            raw = Raw.of(name, array)
            if raw.dtype not in FLOATS:
                expected = "float16, bfloat16, float32 or float64"
                raise InputError(name, f"dtype {array.dtype.name}", expected, "wrong-dtype")
            tensors[name] = raw
    return Contents(tensors, _metadata(layers))


def _prefixes(layers: Sequence[Layer]) -> list[str]:
    if len(layers) == 1:
        return [""]
    names = [re.sub(r"[^A-Za-z0-9_-]+", "_", layer.name).strip("_") or layer.kind for layer in layers]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError("weights", f"two layers named {twice!r}", "each name once", "duplicate-key")
    return [name + "." for name in names]


def _metadata(layers: Sequence[Layer]) -> Mapping[str, str]:
    """The activation, if it is one and the same of all."""
    found = {layer.activation for layer in layers if layer.kind == "rnn"}
    known = found.pop() if len(found) == 1 else ""
    return {"activation": known} if known else {}
