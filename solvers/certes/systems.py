"""What a network is: immutable, validated once, in the user's own terms.

Three forms (phi acts elementwise, neuron i with slopes in [a_i, b_i]; T = diag(tau)):

    rate      T x' = -x + phi(W x + u)
    hopfield  T x' = -x + W phi(x) + u
    lure        x' = A x + B phi(C x + u) + v        or x+ = the same (``discrete=True``)

``step=h`` turns the continuous system into the map that is run: x+ = x + h x' (forward Euler, h in the unit of tau).
``step=1`` with tau = 1 is the plain discrete network (``torch.nn.RNN``). The reduction to one normal form, with every
rounding enclosed, is :mod:`certes.verify.reduction`.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from certes.activations import Activation, activation
from certes.dtypes import encoded, rounded
from certes.errors import InputError

Array = NDArray[np.float64]
Form = Literal["rate", "hopfield", "lure"]

#: dtypes of weights, by the names safetensors uses. All of them convert to float64 exactly.
DTYPES: dict[str, str] = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A compressed sparse row matrix of float64, canonical: sorted columns, no duplicates, read-only arrays.

    Attributes:
        data: values, shape (nnz,).
        indices: column of each value, shape (nnz,), integer.
        indptr: start of each row in ``data``, shape (rows + 1,), integer.
        shape: (rows, columns).
    """

    data: Array
    indices: NDArray[np.integer[Any]]
    indptr: NDArray[np.integer[Any]]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        rows, columns = self.shape
        nnz = len(self.data)
        if self.data.ndim != 1 or self.indices.shape != (nnz,) or self.indptr.shape != (rows + 1,):
            raise InputError(
                "W", "sparse arrays of inconsistent lengths", "CSR arrays data, indices, indptr", "wrong-shape"
            )
        if self.indices.dtype.kind != "i" or self.indptr.dtype.kind != "i":
            raise InputError("W", "indices that are not signed integers", "CSR index arrays", "malformed-sparse")
        # entries are compared, not subtracted: differences of crafted integers wrap around
        if self.indptr[0] != 0 or self.indptr[-1] != nnz or bool((self.indptr[1:] < self.indptr[:-1]).any()):
            raise InputError(
                "W", "row pointers that do not ascend from 0 to nnz", "CSR row pointers", "malformed-sparse"
            )
        if nnz and (self.indices.min() < 0 or self.indices.max() >= columns):
            raise InputError("W", "a column index out of range", f"columns in [0, {columns})", "malformed-sparse")
        ascending = self.indices[1:] > self.indices[:-1]
        row_starts = self.indptr[1:-1]
        ascending[row_starts[(row_starts > 0) & (row_starts < nnz)] - 1] = True  # a new row may start anywhere
        if not ascending.all():
            raise InputError("W", "unsorted or duplicate entries in a row", "canonical CSR", "malformed-sparse")
        for part in (self.data, self.indices, self.indptr):
            part.setflags(write=False)

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return len(self.data)


Matrix = Array | SparseMatrix


@dataclass(frozen=True)
class Subject:
    """What a weight is called and hashed as, for the certificate's subject.

    Attributes:
        name: tensor name in the weight file, or the argument's name (``"W"``) for arrays from memory.
        dtype: safetensors dtype name (``"F32"``).
        shape: shape as stored.
        sha256: hex digest of the raw little-endian bytes in C order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, eq=False)
class Tensor:
    """A matrix with its identity: the exact float64 values and the bytes they came from."""

    value: Matrix
    subjects: tuple[Subject, ...]


def _subject(name: str, array: NDArray[Any], dtype: str) -> Subject:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()
    return Subject(name, dtype, tuple(int(k) for k in array.shape), digest)


def tensor(name: str, given: object, dimensions: int = 2) -> Tensor:
    """Take a matrix (or vector) in: check dtype and finiteness, convert to float64 exactly, hash the bytes as given.

    Args:
        name: the argument's name, used in errors and as the subject's name.
        given: a 2-d array of a supported dtype, a (nested) list of numbers, a scipy.sparse matrix, or a ready
            :class:`Tensor` (as the weight-file reader makes them), which passes through.
        dimensions: 2, or 1 for a vector (the biases of gated cells).

    Raises:
        InputError: wrong dtype, wrong dimension, empty, or not finite.
    """
    if isinstance(given, Tensor):
        _check_finite(name, given.value.data if isinstance(given.value, SparseMatrix) else given.value)
        return given
    if hasattr(given, "tocsr") and hasattr(given, "nnz"):
        return _sparse_tensor(name, given)
    if hasattr(given, "detach"):  # a torch tensor, without importing torch
        given = given.detach().cpu().contiguous()
        if str(getattr(given, "dtype", "")) == "torch.bfloat16":
            raise InputError(
                name,
                "a torch.bfloat16 tensor",
                "a safetensors file (bfloat16 is read there), or .float()",
                "wrong-dtype",
            )
    is_array = hasattr(given, "dtype") or hasattr(given, "__array__")
    try:
        array = np.asarray(given) if is_array else np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            name, "something that is not a rectangular array of numbers", f"a {dimensions}-d array", "wrong-type"
        ) from error
    if array.dtype.name not in DTYPES:
        raise InputError(name, f"dtype {array.dtype.name}", "float16, bfloat16, float32 or float64", "wrong-dtype")
    if array.ndim != dimensions or 0 in array.shape:
        raise InputError(name, f"shape {array.shape}", f"a non-empty {dimensions}-d array", "wrong-shape")
    exact = np.ascontiguousarray(array, dtype=np.float64)
    value = np.frombuffer(exact.tobytes()).reshape(array.shape)  # bytes: cannot be made writeable again
    _check_finite(name, value)
    return Tensor(value, (_subject(name, array, DTYPES[array.dtype.name]),))


def _sparse_tensor(name: str, given: Any) -> Tensor:
    csr = given.tocsr(copy=True)
    if csr.dtype.name not in DTYPES:
        raise InputError(name, f"dtype {csr.dtype.name}", "float16, float32 or float64", "wrong-dtype")
    csr.sort_indices()
    value = SparseMatrix(csr.data.astype(np.float64), csr.indices, csr.indptr, tuple(csr.shape))
    _check_finite(name, value.data)
    return Tensor(value, sparse_subjects(name, csr.data, csr.indices, csr.indptr, value.shape))


def sparse_subjects(
    name: str, data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], shape: tuple[int, int]
) -> tuple[Subject, ...]:
    """Subjects of a sparse matrix: its arrays as ``NAME.data``, ``NAME.indices``, ``NAME.indptr``, ``NAME.shape``.

    Index arrays are hashed as int64, so that the identity does not depend on the index type scipy happened to choose.
    """
    parts = {"indices": indices, "indptr": indptr, "shape": np.array(shape)}
    wide = tuple(_subject(f"{name}.{key}", part.astype(np.int64), "I64") for key, part in parts.items())
    return (_subject(f"{name}.data", data, DTYPES[data.dtype.name]), *wide)


def _check_finite(name: str, values: Array) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        raise InputError(name, f"{values[where]} at index {where}", "finite numbers only", "not-finite")


@dataclass(frozen=True, eq=False)
class Slope:
    """Slope interval [lower, upper] of each nonlinearity, shapes (m,); ``activation`` if it came from the table."""

    lower: Array
    upper: Array
    activation: Activation | None = None

    @property
    def uniform(self) -> bool:
        """Whether all nonlinearities share one interval."""
        return bool((self.lower == self.lower[0]).all() and (self.upper == self.upper[0]).all())

    @property
    def gap(self) -> Array:
        """b - a, rounded to nearest; shape (m,)."""
        return self.upper - self.lower

    @property
    def bound(self) -> Array:
        """max(|a|, |b|), shape (m,)."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))


def _vector(name: str, given: float | Sequence[float] | Array, size: int) -> Array:
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            name, "something that is not a number or a list of numbers", "numbers", "wrong-type"
        ) from error
    if array.ndim > 1 or (array.ndim == 1 and array.shape != (size,)):
        raise InputError(name, f"shape {array.shape}", f"a number, or {size} of them", "wrong-shape")
    full = np.array(np.broadcast_to(array, (size,)))
    if not np.isfinite(full).all():
        raise InputError(name, "a value that is not finite", "finite numbers", "not-finite")
    full.setflags(write=False)
    return full


def _slope(activation_name: str | None, slope: object, size: int) -> Slope:
    if (activation_name is None) == (slope is None):
        raise InputError(
            "activation", "both or neither of activation and slope", "exactly one of the two", "missing-value"
        )
    if activation_name is not None:
        entry = activation(activation_name)
        return Slope(_vector("slope", entry.lower, size), _vector("slope", entry.upper, size), entry)
    if not isinstance(slope, (tuple, list)) or len(slope) != 2:
        raise InputError("slope", repr(slope), "a pair (lower, upper), each a number or one per neuron", "wrong-type")
    lower, upper = _vector("slope", slope[0], size), _vector("slope", slope[1], size)
    if (lower > upper).any():
        k = int(np.argmax(lower > upper))
        raise InputError(
            "slope", f"lower {lower[k]} above upper {upper[k]} (neuron {k})", "lower <= upper", "slope-order"
        )
    return Slope(lower, upper)


def _positive(name: str, given: float | None) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, float, np.floating, np.integer)):
        raise InputError(name, repr(given), "a positive number", "wrong-type")
    if not (math.isfinite(given) and given > 0):
        raise InputError(name, repr(given), "a positive finite number", "not-positive")
    return float(given)


@dataclass(frozen=True, eq=False, kw_only=True)
class System:
    """A network's dynamics. Build one with :class:`RateNetwork`, :class:`HopfieldNetwork` or :class:`LureSystem`.

    Attributes:
        tensors: role (``"W"``, or ``"A"``, ``"B"``, ``"C"``) -> matrix with its identity.
        slope: slope intervals, one per nonlinearity.
        step: Euler step h in the unit of tau, or None (continuous time, unless ``discrete``).
        tau: time constants, shape (n,).
        discrete: a ``lure`` system given as a map.
        input_matrix: W_in, shape (n, inputs), if known; a witness then reports whether its input can be produced.
        bias: constant input, shape (n,), if known.
        file: sha256 of the weight file, name of the weight file, if the weights came from one.
    """

    form: ClassVar[Form]
    tensors: Mapping[str, Tensor]
    slope: Slope
    step: float | None
    tau: Array
    discrete: bool = False
    input_matrix: Array | None = None
    bias: Array | None = None
    file: tuple[str, str] | None = field(default=None)

    @property
    def size(self) -> int:
        """Number of states n."""
        return int(next(iter(self.tensors.values())).value.shape[0])

    @property
    def continuous(self) -> bool:
        """Whether the system is a differential equation (True) or a map (False)."""
        return self.step is None and not self.discrete

    @property
    def uniform_tau(self) -> bool:
        """Whether all neurons share one time constant."""
        return bool((self.tau == self.tau[0]).all())

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Every tensor the certificate speaks of."""
        return tuple(subject for entry in self.tensors.values() for subject in entry.subjects)

    @property
    def is_sparse(self) -> bool:
        """Whether the weights are a sparse matrix (only ``absolute`` speaks of those)."""
        return any(isinstance(entry.value, SparseMatrix) for entry in self.tensors.values())

    def matrix(self, role: str) -> Array:
        """The dense matrix of a role.

        Raises:
            InputError: the matrix is sparse.
        """
        value = self.tensors[role].value
        if isinstance(value, SparseMatrix):
            raise InputError(
                role, "a sparse matrix", "a dense matrix (only the condition 'absolute' takes sparse weights)", "sparse"
            )
        return value

    def with_step(self, step: float | None) -> Self:
        """The same network run as an Euler map with another step, or as the differential equation (None)."""
        if self.discrete:
            raise InputError("step", repr(step), "no step: the system is given as a map", "invalid-value")
        changed = copy.copy(self)
        object.__setattr__(changed, "step", _positive("step", step))
        return changed


@dataclass(frozen=True, eq=False, kw_only=True, init=False)
class _Recurrent(System):
    """What rate and hopfield networks share: one square W."""

    def __init__(
        self,
        W: object,
        activation: str | None = None,
        slope: object = None,
        *,
        step: float | None = None,
        tau: float | Sequence[float] | Array | None = None,
        input_matrix: object = None,
        bias: object = None,
        file: tuple[str, str] | None = None,
    ) -> None:
        weights = tensor("W", W)
        rows, columns = weights.value.shape
        if rows != columns:
            raise InputError("W", f"shape {(rows, columns)}", "a square matrix", "not-square")
        times = _vector("tau", 1.0 if tau is None else tau, rows)
        if (times <= 0).any():
            raise InputError("tau", f"{times.min()}", "positive time constants", "not-positive")
        drive = None if input_matrix is None else tensor("input_matrix", input_matrix).value
        if drive is not None and (isinstance(drive, SparseMatrix) or drive.shape[0] != rows):
            raise InputError("input_matrix", f"shape {drive.shape}", f"a dense matrix with {rows} rows", "wrong-shape")
        values = {
            "tensors": {"W": weights},
            "slope": _slope(activation, slope, rows),
            "step": _positive("step", step),
            "tau": times,
            "discrete": False,
            "input_matrix": drive,
            "bias": None if bias is None else _vector("bias", bias, rows),  # type: ignore[arg-type]
            "file": file,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def W(self) -> Matrix:
        """The recurrent weights, shape (n, n), float64."""
        return self.tensors["W"].value

    @property
    def dtype(self) -> str:
        """The dtype in which the recurrent weights are stored, by its safetensors name (``"F32"``)."""
        return self.tensors["W"].subjects[0].dtype

    def with_weights(self, W: Array) -> Self:
        """The same network with other recurrent weights, rounded to :attr:`dtype`; of no file.

        Args:
            W: shape (n, n); for sparse weights the values of the stored entries, shape (nnz,).

        Raises:
            InputError: another shape, or values that are not finite in that dtype.
        """
        old = self.tensors["W"]
        pattern = old.value if isinstance(old.value, SparseMatrix) else None
        shape = old.value.shape if pattern is None else pattern.data.shape
        if np.shape(W) != shape:
            raise InputError("W", f"shape {np.shape(W)}", f"shape {shape}", "wrong-shape")
        value = np.frombuffer(rounded(W, self.dtype).tobytes()).reshape(shape)
        _check_finite("W", value)
        first = old.subjects[0]
        digest = hashlib.sha256(encoded(value, self.dtype)).hexdigest()
        subjects = (Subject(first.name, self.dtype, first.shape, digest), *old.subjects[1:])
        matrix = value if pattern is None else SparseMatrix(value, pattern.indices, pattern.indptr, pattern.shape)
        changed = copy.copy(self)
        object.__setattr__(changed, "tensors", {"W": Tensor(matrix, subjects)})
        object.__setattr__(changed, "file", None)
        return changed


class RateNetwork(_Recurrent):
    """Firing-rate network T x' = -x + phi(W x + u); with ``step=h`` the map x+ = x + h x'.

    Args:
        W: recurrent weights, shape (n, n); numpy array, nested list, scipy.sparse matrix.
        activation: a name from :mod:`certes.activations` (``"tanh"``), or
        slope: the interval (a, b), each a number or one per neuron.
        step: Euler step in the unit of tau; 1 with tau = 1 is ``torch.nn.RNN``. None: continuous time.
        tau: time constants, a number or one per neuron (default 1).
        input_matrix: W_in, shape (n, inputs), optional.
        bias: constant input, shape (n,), optional.

    Raises:
        InputError: naming the field.
    """

    form: ClassVar[Form] = "rate"


class HopfieldNetwork(_Recurrent):
    """Hopfield network T x' = -x + W phi(x) + u; with ``step=h`` the map x+ = x + h x'.

    Arguments and errors as for :class:`RateNetwork`.
    """

    form: ClassVar[Form] = "hopfield"


#: A network with one square W.
Network = RateNetwork | HopfieldNetwork


@dataclass(frozen=True, eq=False, kw_only=True, init=False)
class LureSystem(System):
    """Lur'e system x' = A x + B phi(C x + u) + v, or the map x+ = the same.

    Args:
        A: shape (n, n).
        B: shape (n, m).
        C: shape (m, n).
        slope: (a, b), each a number or one per nonlinearity; or
        activation: a name from the table.
        discrete: the system is given as a map.
        step: Euler step for a continuous system (not together with ``discrete``).

    Raises:
        InputError: naming the field.
    """

    form: ClassVar[Form] = "lure"

    def __init__(
        self,
        A: object,
        B: object,
        C: object,
        slope: object = None,
        *,
        activation: str | None = None,
        discrete: bool = False,
        step: float | None = None,
        file: tuple[str, str] | None = None,
    ) -> None:
        parts = {"A": tensor("A", A), "B": tensor("B", B), "C": tensor("C", C)}
        for role, entry in parts.items():
            if isinstance(entry.value, SparseMatrix):
                raise InputError(role, "a sparse matrix", "a dense matrix", "sparse")
        n, m = parts["B"].value.shape
        for role, shape in {"A": (n, n), "C": (m, n)}.items():
            if parts[role].value.shape != shape:
                given = f"shape {parts[role].value.shape} with B of shape {(n, m)}"
                slug = "not-square" if role == "A" and len(set(parts["A"].value.shape)) == 2 else "wrong-shape"
                raise InputError(role, given, f"shape {shape}", slug)
        if discrete and step is not None:
            raise InputError("step", repr(step), "no step together with discrete=True", "invalid-value")
        values = {
            "tensors": parts,
            "slope": _slope(activation, slope, m),
            "step": _positive("step", step),
            "tau": _vector("tau", 1.0, n),
            "discrete": bool(discrete),
            "input_matrix": None,
            "bias": None,
            "file": file,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)


@dataclass(frozen=True)
class UnsupportedCell:
    """A network that Certes recognises and cannot judge yet; ``certify`` answers ``undecided``, ``unsupported_cell``.

    Attributes:
        cell: ``"gru"``, ``"lstm"``, ``"stacked-rnn"``, ``"bidirectional-rnn"``.
        detail: what was recognised, and what will help.
    """

    cell: str
    detail: str
