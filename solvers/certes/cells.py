"""Gated cells, GRU and LSTM, as ``torch.nn`` runs them, over a declared box of inputs: immutable, validated once.

    GRU   r = sig(W_r x + b_r + U_r h + c_r)              LSTM  i = sig(W_i x + b_i + U_i h + c_i)
          z = sig(W_z x + b_z + U_z h + c_z)                    f = sig(W_f x + b_f + U_f h + c_f)
          n = tanh(W_n x + b_n + r (U_n h + c_n))               g = tanh(W_g x + b_g + U_g h + c_g)
          h+ = (1 - z) n + z h                                  o = sig(W_o x + b_o + U_o h + c_o)
                                                                c+ = f c + i g,   h+ = o tanh(c+)

The rows of W, U and of both biases b, c are stacked in the order r, z, n, resp. i, f, g, o, as in ``weight_ih_l0``,
``weight_hh_l0``, ``bias_ih_l0``, ``bias_hh_l0`` of torch. The state is h (GRU), or c followed by h (LSTM). What is
certified of a cell holds for inputs in the declared box only: without one nothing is claimed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError
from certes.systems import SparseMatrix, Subject, Tensor, tensor

Array = NDArray[np.float64]
Cell = Literal["gru", "lstm"]

#: Roles of the tensors of a cell and how many dimensions they have: input and recurrent weights, and both biases.
ROLES: dict[str, int] = {"W": 2, "U": 2, "b": 1, "c": 1}
#: Role -> how torch names the tensor: as it stands in a ``GRUCell``, followed by ``_l0`` in a ``GRU``.
TORCH_STEMS: dict[str, str] = {"W": "weight_ih", "U": "weight_hh", "b": "bias_ih", "c": "bias_hh"}
#: Class of ``torch.nn`` -> cell, and where these classes are defined.
_MODULES: dict[str, Cell] = {"GRU": "gru", "GRUCell": "gru", "LSTM": "lstm", "LSTMCell": "lstm"}
_TORCH = "torch.nn.modules.rnn"


@dataclass(frozen=True, eq=False, kw_only=True, init=False)
class GatedNetwork:
    """A GRU or an LSTM. Build one with :class:`GRUNetwork` or :class:`LSTMNetwork`.

    Args:
        W: input weights, shape (k n, inputs), k gates stacked in torch's order.
        U: recurrent weights, shape (k n, n).
        b: bias beside W, shape (k n,); None: zero.
        c: bias beside U, shape (k n,); None: zero. (In a GRU the reset gate multiplies c_n, so that b + c would be
            another network.)
        inputs: the declared box (lower, upper) of inputs, each a number or one per input; None: none is declared, and
            nothing can be certified.

    Attributes:
        tensors: role (``"W"``, ``"U"``, and ``"b"``, ``"c"`` where given) -> tensor with its identity.
        inputs: the box, each side of shape (inputs,), or None.
        file: sha256 of the weight file, name of the weight file, if the weights came from one.

    Raises:
        InputError: naming the field.
    """

    form: ClassVar[Cell]
    gates: ClassVar[int]
    #: Vectors of length n in the state.
    parts: ClassVar[int]
    #: A cell is a map: factors, and no rates.
    continuous: ClassVar[bool] = False
    step: ClassVar[None] = None
    tensors: Mapping[str, Tensor]
    inputs: tuple[Array, Array] | None
    file: tuple[str, str] | None = field(default=None)

    def __init__(
        self,
        W: object,
        U: object,
        b: object = None,
        c: object = None,
        *,
        inputs: object = None,
        file: tuple[str, str] | None = None,
    ) -> None:
        given = {"W": W, "U": U, "b": b, "c": c}
        found = {role: tensor(role, given[role], ROLES[role]) for role in ROLES if given[role] is not None}
        for role in ("W", "U"):
            if role not in found:
                raise InputError(role, "nothing", "a matrix", "missing-value")
            if isinstance(found[role].value, SparseMatrix):
                raise InputError(role, "a sparse matrix", "a dense matrix", "sparse")
        rows, size = found["U"].value.shape
        if rows != self.gates * size:
            expected = f"({self.gates} n, n): {self.gates} gates of a {self.form.upper()}, stacked"
            raise InputError("U", f"shape {(rows, size)}", expected, "wrong-shape")
        for role, entry in found.items():
            if entry.value.shape[0] != rows:
                expected = f"{rows} rows, as U has"
                raise InputError(role, f"shape {entry.value.shape}", expected, "wrong-shape")
        object.__setattr__(self, "tensors", found)
        object.__setattr__(self, "inputs", _box(inputs, found["W"].value.shape[1]))
        object.__setattr__(self, "file", file)

    @property
    def cell(self) -> str:
        """What it is called where other networks are expected, as :class:`certes.systems.UnsupportedCell` has it."""
        return self.form

    @property
    def detail(self) -> str:
        """What is said of it there."""
        return f"a {self.form.upper()}: it is certified alone, over its box of inputs, and has no other theorem"

    @property
    def size(self) -> int:
        """Number of units n."""
        return int(self.tensors["U"].value.shape[1])

    @property
    def states(self) -> int:
        """Length of the state: n (GRU), 2 n (LSTM: c, then h)."""
        return self.parts * self.size

    @property
    def width(self) -> int:
        """Number of inputs."""
        return int(self.tensors["W"].value.shape[1])

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Every tensor the certificate speaks of."""
        return tuple(subject for entry in self.tensors.values() for subject in entry.subjects)

    def stacked(self, role: str) -> Array:
        """The tensor of a role; zeros of shape (k n,) for a bias that is not given."""
        if role not in self.tensors:
            return np.zeros(self.gates * self.size)
        value = self.tensors[role].value
        assert not isinstance(value, SparseMatrix)  # refused when the cell was made
        return value

    def gate(self, role: str, index: int) -> Array:
        """The rows of one gate, counted from 0 in torch's order."""
        return self.stacked(role)[index * self.size : (index + 1) * self.size]

    def with_inputs(self, inputs: object) -> Self:
        """The same cell over another box of inputs.

        Raises:
            InputError: no box.
        """
        changed = copy.copy(self)
        object.__setattr__(changed, "inputs", _box(inputs, self.width))
        return changed


class GRUNetwork(GatedNetwork):
    """``torch.nn.GRU``, one layer, one direction: gates r, z, n. Arguments and errors: :class:`GatedNetwork`."""

    form: ClassVar[Cell] = "gru"
    gates: ClassVar[int] = 3
    parts: ClassVar[int] = 1


class LSTMNetwork(GatedNetwork):
    """``torch.nn.LSTM``, one layer, one direction: gates i, f, g, o. Arguments and errors: :class:`GatedNetwork`."""

    form: ClassVar[Cell] = "lstm"
    gates: ClassVar[int] = 4
    parts: ClassVar[int] = 2


#: form -> class.
CELLS: dict[str, type[GatedNetwork]] = {"gru": GRUNetwork, "lstm": LSTMNetwork}


def _box(given: object, width: int) -> tuple[Array, Array] | None:
    """(lower, upper), each of shape (width,), read-only; None if none is given.

    Raises:
        InputError: not two finite numbers (or one per input) with lower <= upper.
    """
    if given is None:
        return None
    expected = f"a pair (lower, upper), each a number or {width} of them"
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise InputError("inputs", repr(given)[:80], expected, "wrong-type")
    lower, upper = (_side(side, width, expected) for side in given)
    if (lower > upper).any():
        k = int(np.argmax(lower > upper))
        raise InputError(
            "inputs", f"lower {lower[k]} above upper {upper[k]} (input {k})", "lower <= upper", "box-order"
        )
    return lower, upper


def _side(given: Any, width: int, expected: str) -> Array:
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("inputs", "something that is not a number or a list", expected, "wrong-type") from error
    if array.shape not in ((), (width,)):
        raise InputError("inputs", f"shape {array.shape}", expected, "wrong-shape")
    full = np.array(np.broadcast_to(array, (width,)))
    if not np.isfinite(full).all():
        raise InputError("inputs", "a value that is not finite", "finite numbers", "not-finite")
    full.setflags(write=False)
    return full


def is_module(model: object) -> bool:
    """Whether this is a GRU, LSTM, GRUCell or LSTMCell of ``torch.nn`` (told without importing torch).

    A class derived from one of them is none: it may compute something else.
    """
    return type(model).__module__ == _TORCH and type(model).__name__ in _MODULES


def from_module(model: Any, inputs: object = None) -> GatedNetwork:
    """The cell that a ``torch.nn.GRU`` or ``torch.nn.LSTM`` of one layer, or a ``GRUCell`` or ``LSTMCell``, is.

    Args:
        model: the module.
        inputs: the declared box of inputs.

    Raises:
        InputError: several layers, two directions, a projection, or a box that is none.
    """
    name = type(model).__name__
    layers, both = getattr(model, "num_layers", 1), getattr(model, "bidirectional", False)
    if layers != 1 or both or getattr(model, "proj_size", 0):
        given = f"a torch.nn.{name} with {layers} layers" + (", bidirectional" if both else "")
        given += ", with a projection" if getattr(model, "proj_size", 0) else ""
        raise InputError("system", given, "one layer, one direction, no projection", "unsupported")
    suffix = "" if name.endswith("Cell") else "_l0"
    arrays = [getattr(model, stem + suffix, None) for stem in TORCH_STEMS.values()]
    return CELLS[_MODULES[name]](*arrays, inputs=inputs)


def box_of(cell: GatedNetwork) -> list[float | list[float]] | None:
    """The box as a spec states it: numbers where all inputs share them."""
    return None if cell.inputs is None else [_short(side) for side in cell.inputs]


def _short(values: Sequence[float] | Array) -> float | list[float]:
    numbers = np.asarray(values)
    return float(numbers[0]) if bool((numbers == numbers[0]).all()) else [float(entry) for entry in numbers]
