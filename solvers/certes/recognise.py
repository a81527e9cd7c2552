"""What network is in a weight file? Told from tensor names and shapes alone.

A ``torch.nn.RNN`` stores ``PREFIX.weight_hh_l0`` (n, n), ``weight_ih_l0`` (n, inputs) and two biases; a GRU stacks
three such matrices, an LSTM four. The activation is stored nowhere: the user has to name it. A leaky network is any
square matrix, and only its owner knows the leak.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from certes.cells import CELLS, TORCH_STEMS
from certes.errors import InputError
from certes.systems import UnsupportedCell
from certes.weights import WeightFile

Kind = Literal["torch-rnn", "gru", "lstm", "stacked-rnn", "bidirectional-rnn", "matrices", "nothing"]

_HH = "weight_hh_l0"
_FLOATS = ("F16", "BF16", "F32", "F64")
_GATES = {1: "torch-rnn", 3: "gru", 4: "lstm"}
#: A recurrent tensor of torch: (prefix with its dot, what follows the name of every tensor of that layer).
_RECURRENT = re.compile(r"((?:.*\.)?)weight_hh((?:_l\d+(?:_reverse)?)?)", re.DOTALL)


@dataclass(frozen=True)
class TorchCell:
    """A single-layer, one-directional ``torch.nn.RNN`` in a file.

    Attributes:
        prefix: what precedes ``weight_hh_l0``, with its dot (``"rnn."``), or empty.
        size: number of states n.
    """

    prefix: str
    size: int

    @property
    def recurrent(self) -> str:
        """Name of the recurrent tensor."""
        return self.prefix + _HH


@dataclass(frozen=True)
class Recognition:
    """What a file looks like.

    Attributes:
        kind: what was recognised.
        spec: a start for a :class:`certes.spec.SystemSpec`, as a mapping (form and tensors; what the user has to add
            is in ``detail``), or None.
        detail: what was recognised and what to do next, in words.
        candidates: names of the square matrices that could be recurrent weights, likely ones first.
    """

    kind: Kind
    spec: dict[str, Any] | None
    detail: str
    candidates: tuple[str, ...]


def recognise(weights: WeightFile) -> Recognition:
    """Tell what network a file holds. Never fails: an unknown file is ``matrices`` or ``nothing``."""
    candidates = _square(weights)
    prefixes = _prefixes(weights)
    if len(prefixes) == 1:
        cell = _classify(weights, prefixes[0])
        if isinstance(cell, UnsupportedCell):
            kind: Any = cell.cell
            spec: dict[str, Any] | None = None
            if kind in ("stacked-rnn", "bidirectional-rnn"):
                spec = {"form": "torch-rnn", "tensors": {"W": prefixes[0] + _HH}}
            elif kind in CELLS and isinstance(gated_cell(weights, kind), dict):
                spec = {"form": kind, "tensors": {"U": prefixes[0] + _HH}}
            return Recognition(kind, spec, cell.detail, candidates)
        if isinstance(cell, TorchCell):
            detail = f"torch.nn.RNN with {cell.size} states; add its activation: tanh (torch's default) or relu"
            return Recognition("torch-rnn", {"form": "torch-rnn", "tensors": {"W": cell.recurrent}}, detail, candidates)
    if len(prefixes) > 1:
        names = ", ".join(prefix + _HH for prefix in prefixes)
        return Recognition("torch-rnn", None, f"several torch recurrent layers: {names}; name one of them", candidates)
    if len(cells := _gated_cells(weights)) == 1 and not prefixes:
        rows, size = weights.tensors[cells[0]].shape
        form: Any = _GATES[rows // size]
        cell = _gated(form, f"a torch.nn.{form.upper()}Cell with {size} states")
        return Recognition(form, {"form": form, "tensors": {"U": cells[0]}}, cell.detail, candidates)
    if candidates:
        spec = {"form": "rate", "tensors": {"W": candidates[0]}}
        detail = "square matrices; name the recurrent one, its activation and, for a network run step by step, its step"
        return Recognition("matrices", spec, detail, candidates)
    return Recognition("nothing", None, "no square matrix of a floating type: no recurrent weights", ())


def torch_cell(weights: WeightFile, name: str | None = None) -> TorchCell | UnsupportedCell:
    """The torch recurrent layer of a file.

    Args:
        weights: the file.
        name: its recurrent tensor, needed only if there are several.

    Returns:
        The cell, or what was recognised instead (GRU, LSTM, stacked, bidirectional).

    Raises:
        InputError: there is none, there are several and none is named, or its shape fits no torch layer.
    """
    prefixes = _prefixes(weights)
    if name is not None:
        weights.get(name, "tensors.W")
        if not name.endswith(_HH):
            raise InputError("tensors.W", repr(name), f"a tensor named ...{_HH} for form torch-rnn", "unknown-tensor")
        prefixes = [name.removesuffix(_HH)]
    if len(prefixes) != 1:
        given = (
            "several: " + ", ".join(prefix + _HH for prefix in prefixes) if prefixes else f"no tensor named ...{_HH}"
        )
        raise InputError(
            "tensors.W", given, "one torch.nn.RNN layer, or its recurrent tensor by name", "unknown-tensor"
        )
    cell = _classify(weights, prefixes[0])
    if cell is None:
        shape = weights.tensors[prefixes[0] + _HH].shape
        raise InputError(
            prefixes[0] + _HH, f"shape {shape}", "(n, n), the recurrent weights of torch.nn.RNN", "not-square"
        )
    return cell


def gated_cell(weights: WeightFile, form: str, name: str | None = None) -> dict[str, str] | UnsupportedCell:
    """The tensors of a GRU or LSTM of one layer and one direction in a file, as torch stores it.

    Args:
        weights: the file.
        form: ``gru`` or ``lstm``.
        name: its recurrent tensor, needed if there are several (``rnn.weight_hh_l1_reverse``: that layer alone).

    Returns:
        Role (``W``, ``U``, and ``b``, ``c`` where there are biases) -> tensor; or what was recognised instead (several
        layers or directions and none is named, a projection).

    Raises:
        InputError: there is none, there are several and none is named, or it is another kind of layer.
    """
    if name is None:
        prefixes = _prefixes(weights)
        names = [prefix + _HH for prefix in prefixes] or _gated_cells(weights)
        if len(names) != 1:
            given = f"several: {', '.join(names)}" if names else f"no tensor named ...{_HH} or ...weight_hh"
            raise InputError("tensors.U", given, "one torch layer, or its recurrent tensor by name", "unknown-tensor")
        found = names[0]
    else:
        found = name
        weights.get(name, "tensors.U")
    match = _RECURRENT.fullmatch(found)
    if match is None:
        expected = f"a tensor named ...{_HH} (or ...weight_hh of a cell), or the tensors W and U (and b, c) by name"
        raise InputError("tensors.U", repr(name), expected, "unknown-tensor")
    prefix, suffix = match.groups()
    shape, what = weights.tensors[found].shape, f"a torch.nn.{form.upper()}"
    if f"{prefix}weight_hr{suffix}" in weights.tensors:
        return UnsupportedCell(form, f"{what} with a projection, which has no theorem in this version")
    if _gates(shape) != form:
        rnn = len(shape) == 2 and shape[0] == shape[1]
        given = f"one of shape {shape}" + (", as a torch.nn.RNN has" if rnn else "")
        raise InputError("tensors.U", given, f"the recurrent tensor of a torch.nn.{form.upper()}", "wrong-shape")
    if name is None and (prefix + "weight_hh_l1" in weights.tensors or found + "_reverse" in weights.tensors):
        return UnsupportedCell(form, f"{what} of several layers or directions; name one layer by its recurrent tensor")
    names_of = {role: prefix + stem + suffix for role, stem in TORCH_STEMS.items()}
    return {role: tensor for role, tensor in names_of.items() if tensor in weights.tensors or role in ("W", "U")}


def drive(weights: WeightFile, cell: TorchCell) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Input matrix (n, inputs) and the sum of both biases (n,), rounded to float64; None where the file has none.

    Raises:
        InputError: they do not fit the recurrent tensor.
    """
    matrix = weights.tensors.get(cell.prefix + "weight_ih_l0")
    biases = [
        weights.tensors[name] for side in ("ih", "hh") if (name := f"{cell.prefix}bias_{side}_l0") in weights.tensors
    ]
    if matrix is not None and (len(matrix.shape) != 2 or matrix.shape[0] != cell.size):
        raise InputError(matrix.name, f"shape {matrix.shape}", f"({cell.size}, inputs)", "wrong-shape")
    for bias in biases:
        if bias.shape != (cell.size,):
            raise InputError(bias.name, f"shape {bias.shape}", f"({cell.size},)", "wrong-shape")
    total = sum((bias.floats() for bias in biases), np.zeros(cell.size)) if biases else None
    return (None if matrix is None else matrix.floats()), total


def _prefixes(weights: WeightFile) -> list[str]:
    return sorted(name.removesuffix(_HH) for name in weights.tensors if name == _HH or name.endswith("." + _HH))


def _gates(shape: Sequence[int]) -> str:
    """What has recurrent weights of this shape; empty: nothing."""
    if len(shape) != 2 or shape[1] == 0 or shape[0] % shape[1]:
        return ""
    return _GATES.get(shape[0] // shape[1], "")


def _gated_cells(weights: WeightFile) -> list[str]:
    """Recurrent tensors of ``torch.nn.GRUCell`` and ``LSTMCell``, with their input weights beside them."""
    found = []
    for entry in weights.tensors.values():
        named = entry.name == "weight_hh" or entry.name.endswith(".weight_hh")
        if named and _gates(entry.shape) in CELLS and entry.name.removesuffix("hh") + "ih" in weights.tensors:
            found.append(entry.name)
    return sorted(found)


def _square(weights: WeightFile) -> tuple[str, ...]:
    found = [
        entry.name
        for entry in weights.tensors.values()
        if len(entry.shape) == 2 and entry.shape[0] == entry.shape[1] > 0 and entry.dtype in _FLOATS
    ]
    sparse = [name.removesuffix(".indptr") for name in weights.tensors if name.endswith(".indptr")]
    hints = ("weight_hh", "rec", "hidden", "hh")
    return tuple(sorted(found, key=lambda name: (not any(hint in name for hint in hints), name))) + tuple(sparse)


def _classify(weights: WeightFile, prefix: str) -> TorchCell | UnsupportedCell | None:
    shape = weights.tensors[prefix + _HH].shape
    if prefix + "weight_hr_l0" in weights.tensors:
        return _gated("lstm", "an LSTM with a projection")
    if len(shape) != 2 or shape[1] == 0 or shape[0] % shape[1] or shape[0] // shape[1] not in _GATES:
        return None
    kind = _GATES[shape[0] // shape[1]]
    if kind != "torch-rnn":
        return _gated(kind, f"a torch.nn.{kind.upper()} with {shape[1]} states")
    if prefix + "weight_hh_l0_reverse" in weights.tensors:
        return _composed("bidirectional-rnn", "a bidirectional torch.nn.RNN: networks that run each in its own time")
    if prefix + "weight_hh_l1" in weights.tensors:
        return _composed("stacked-rnn", "a stacked torch.nn.RNN: a hierarchy of networks")
    return TorchCell(prefix, shape[1])


def _gated(cell: str, what: str) -> UnsupportedCell:
    how = f"it is certified over a declared box of inputs: form {cell}, inputs LOW,HIGH"
    return UnsupportedCell(cell, f"{what}; {how}")


def _composed(cell: str, what: str) -> UnsupportedCell:
    how = "its layers are composed: certes certify --form torch-rnn, or certes.composition.torch_layers"
    return UnsupportedCell(cell, f"{what}; {how}")
