"""Proofs, witnesses and claims: plain immutable numbers that make an answer checkable.

A proof says nothing by itself; :mod:`certes.verify` decides what follows from it. Each kind knows how to become the
arrays of a safetensors file and back (``to_arrays`` / :func:`proof_from_arrays`), bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError

Array = NDArray[np.float64]
Exponents = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ArrayProof:
    """Base: a proof whose fields are float64 (or int64, or bool) arrays and scalars, stored as one tensor each."""

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        """Every field becomes what it is annotated as: narrow integers wrap around, and foreign numbers round anew."""
        for entry in fields(self):
            dtype, ndim = _SHAPES[str(entry.type)]
            value = getattr(self, entry.name)
            if dtype is np.bool_:
                if not isinstance(value, (bool, np.bool_)):
                    raise InputError(f"proof.{entry.name}", repr(value), "True or False", "malformed-proof")
                object.__setattr__(self, entry.name, bool(value))
            elif ndim == 0:
                object.__setattr__(self, entry.name, _number(f"proof.{entry.name}", value))
            else:
                object.__setattr__(self, entry.name, _own(f"proof.{entry.name}", value, np.dtype(dtype)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Field name -> array, ready for safetensors; scalars become shape ()."""
        return {entry.name: np.array(getattr(self, entry.name), order="C") for entry in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Inverse of :meth:`to_arrays`.

        Raises:
            InputError: a field is missing, unknown, of the wrong dtype or of the wrong dimension.
        """
        names = {entry.name for entry in fields(cls)}
        if set(arrays) != names:
            raise InputError(
                "proof",
                f"arrays {sorted(arrays)}",
                f"{sorted(names)} for a proof of kind {cls.kind}",
                "malformed-proof",
            )
        values: dict[str, object] = {}
        for entry in fields(cls):
            dtype, ndim = _SHAPES[str(entry.type)]
            array = arrays[entry.name]
            if array.dtype != dtype or array.ndim != ndim:
                given = f"{array.dtype} of dimension {array.ndim}"
                raise InputError(
                    f"proof.{entry.name}", given, f"{np.dtype(dtype)} of dimension {ndim}", "malformed-proof"
                )
            values[entry.name] = array.copy() if ndim else array.item()
        return cls(**values)


def _number(name: str, value: object) -> float:
    """A Python float.

    Raises:
        InputError: not a real number (a bool, a string, a fraction).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise InputError(name, repr(value), "a number", "malformed-proof")
    try:
        return float(value)
    except OverflowError as error:
        raise InputError(name, repr(value), "a number in the range of float64", "malformed-proof") from error


def _own(name: str, value: object, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A read-only copy of an array of the same kind of numbers (floats, signed integers), which nobody else can change.

    Raises:
        InputError: another kind of numbers.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind != dtype.kind:
        given = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise InputError(name, given, f"an array of {dtype}", "malformed-proof")
    copied = np.ascontiguousarray(value, dtype=dtype)
    return np.frombuffer(copied.tobytes(), dtype=dtype).reshape(value.shape)  # bytes: cannot be made writeable again


Vector = Array
Square = Array
Matrix = Array
_SHAPES: dict[str, tuple[type[np.generic], int]] = {
    "Vector": (np.float64, 1),
    "Square": (np.float64, 2),
    "Matrix": (np.float64, 2),
    "Exponents": (np.int64, 1),
    "float": (np.float64, 0),
    "bool": (np.bool_, 0),
}


@dataclass(frozen=True, eq=False)
class AbsoluteProof(ArrayProof):
    """Positive vectors r, l of docs/theory.md section 4, condition ``absolute``, as mantissa and exponent.

    r = right * 2**right_exponent, l = left * 2**left_exponent, so that a metric diag(l tau / r) of condition
    number beyond 1e308 is still represented exactly.
    """

    kind: ClassVar[str] = "absolute"
    right: Vector
    right_exponent: Exponents
    left: Vector
    left_exponent: Exponents


@dataclass(frozen=True, eq=False)
class SymmetricProof(ArrayProof):
    """Continuous time, W = W^T, uniform tau: the weights are their own proof.

    ``negative``: False for the shape (1 - c) I - g W > 0 (rate c < 1), True for W < 0 (rate exactly 1).
    """

    kind: ClassVar[str] = "symmetric"
    negative: bool


@dataclass(frozen=True, eq=False)
class ProductProof(ArrayProof):
    """W = -diag(outer) S diag(inner) + E with S symmetric positive definite (Thm 3), continuous time, uniform tau.

    ``residual`` bounds the spectral norm of E; ``metric_lower`` I < M < ``metric_upper`` I bounds the metric
    M = diag(inner) S diag(inner) (rate) or the inverse of the metric diag(outer) S diag(outer) (hopfield).
    """

    kind: ClassVar[str] = "product"
    outer: Vector
    core: Square
    inner: Vector
    residual: float
    metric_lower: float
    metric_upper: float


@dataclass(frozen=True, eq=False)
class SingularProof(ArrayProof):
    """Positive diagonal Q = diag(q) with norm(Q^1/2 W_g Q^-1/2) < ``norm`` (Thm 5, slopes in [-g, g])."""

    kind: ClassVar[str] = "singular"
    q: Vector
    norm: float


@dataclass(frozen=True, eq=False)
class LureProof(ArrayProof):
    """Metric and multipliers of the Lur'e LMI (docs/theory.md section 2).

    ``dual``: the numbers prove the transposed system (A^T, C^T, B^T), and the metric of the system is
    ``metric``^-1; the linear form for networks whose weights sit in B (hopfield).
    ``metric_lower`` I < metric < ``metric_upper`` I (0 and inf if not claimed).
    ``slack_state``, ``slack_input``: m1, m2 >= 0 with block > diag(m1 S^2, m2 (G Q)^2), from which the weight
    radius sqrt(m1 m2) follows (both 0 if not claimed).
    """

    kind: ClassVar[str] = "lure"
    metric: Square
    multipliers: Vector
    dual: bool
    metric_lower: float
    metric_upper: float
    slack_state: float
    slack_input: float


Proof = AbsoluteProof | SymmetricProof | ProductProof | SingularProof | LureProof


@dataclass(frozen=True, eq=False)
class ConicBound(ArrayProof):
    """No P, Q of the Lur'e inequality reach a level: uniform leak, slopes in [0, g] (docs/theory.md, optimality).

    Column k is a complex vector y_k = ``real`` + i ``imaginary`` with a point u_k = ``cosine`` + i ``sine`` of the unit
    disk; the matrices sum_k y_k y_k^H at equal u_k are the dual solution. Shapes (r,), (r,), (n, r), (n, r).
    """

    kind: ClassVar[str] = "conic-bound"
    cosine: Vector
    sine: Vector
    real: Matrix
    imaginary: Matrix


@dataclass(frozen=True, eq=False)
class NormBound(ArrayProof):
    """No diagonal Q makes a weighted spectral norm smaller: uniform leak, slopes in [-g, g]; X = Y Y^T, Y (n, r)."""

    kind: ClassVar[str] = "norm-bound"
    columns: Matrix


@dataclass(frozen=True, eq=False)
class LureBound(ArrayProof):
    """No P, Q of the Lur'e inequality reach a level, for any system: Z = Y Y^T, Y = ``columns`` of shape (n + m, r).

    ``dual``: Z speaks of the transposed system (A^T, C^T, B^T).
    """

    kind: ClassVar[str] = "lure-bound"
    columns: Matrix
    dual: bool


BoundProof = ConicBound | NormBound | LureBound


@dataclass(frozen=True, eq=False)
class NoMetricProof(ArrayProof):
    """No constant quadratic metric serves all slopes: sum_k (J_k Z_k + Z_k J_k^T) > 0 (maps: J_k Z_k J_k^T - Z_k).

    This says nothing about contraction in other norms.

    Attributes:
        slopes: D_k, inside the slope box, shape (k, m).
        pattern: which row of ``slopes`` a column belongs to, shape (r,).
        columns: Z_k = sum of y y^T over its columns y, shape (n, r).
    """

    kind: ClassVar[str] = "no-quadratic-metric"
    slopes: Matrix
    pattern: Exponents
    columns: Matrix


@dataclass(frozen=True, eq=False)
class InstabilityWitness(ArrayProof):
    """An equilibrium under a constant input whose Jacobian has an eigenvalue beyond the stability border.

    Attributes:
        points: s, arguments of phi at the equilibrium, shape (m,). With a named activation the slopes are phi'(s);
            with a bare slope interval they are ``slopes`` and points are 0 (phi_i(s) = slopes_i s is of the class).
        slopes: D, shape (m,), inside the slope interval.
        lyapunov: symmetric X, shape (n, n), of docs/theory.md section 6.
        direction: v, shape (n,), with v^T X v < 0.
        growth: sigma: continuous, an eigenvalue has real part > sigma >= 0; a map, modulus > sigma >= 1.
        input: constant input u, shape (n,) (rate, hopfield) or (m,) (lure: inside phi, v = 0), rounded to float64.
        start, start_other: two initial states, shape (n,), whose trajectories under that input part.
        horizon: time (or number of steps) after which they have parted.
    """

    kind: ClassVar[str] = "instability"
    points: Vector
    slopes: Vector
    lyapunov: Square
    direction: Vector
    growth: float
    input: Vector
    start: Vector
    start_other: Vector
    horizon: float


@dataclass(frozen=True, eq=False)
class SwitchingWitness(ArrayProof):
    """A periodic input under which a periodic orbit is unstable: slopes held one after the other, over and over.

    Attributes:
        points: s, arguments of phi in each mode, shape (k, m). With a named activation the slopes are phi'(s); with a
            bare slope interval they are ``slopes``, and every entry of row j of the points is j, counted from 0: the
            member of the class is continuous, has phi(0) = 0, and slope ``slopes[j]`` from j - 1/2 to j + 1/2.
        slopes: D, shape (k, m), inside the slope interval.
        durations: how long each mode lasts, shape (k,); for a map whole numbers of steps.
        ramp: time that the state takes on a straight line from one point to the next (hopfield form in continuous
            time, where the arguments of phi are the state); 0 in all other cases.
        lyapunov: symmetric X, shape (n, n): sigma^2 X - M^T X M > 0 for the period map's derivative M.
        direction: v, shape (n,), with v^T X v < 0.
        growth: sigma >= 1: M has an eigenvalue of modulus > sigma.
        largest_input: no entry of the periodic input is larger in modulus, along the orbit.
        start, start_other: two states, shape (n,), at the beginning of the first mode; their midpoint lies on the
            periodic orbit x(t). The input is u(t) = s(t) - W x(t) (rate; lure with C for W), T x' + x - W phi(x)
            (hopfield).
        periods: whole number of periods after which trajectories from the two starts have parted.
    """

    kind: ClassVar[str] = "switching"
    points: Matrix
    slopes: Matrix
    durations: Vector
    ramp: float
    lyapunov: Square
    direction: Vector
    growth: float
    largest_input: float
    start: Vector
    start_other: Vector
    periods: float


@dataclass(frozen=True, eq=False)
class GatedProof(ArrayProof):
    """A gated cell (:mod:`certes.cells`) contracts in a weighted maximum norm, over its declared box of inputs.

    States are vectors of length n (GRU: h) or 2 n (LSTM: c, then h). The norm is max_i |x_i| / ``weights``_i, and what
    is proven holds for states in the box from ``lower`` to ``upper``, which no trajectory leaves.

    Attributes:
        start_lower, start_upper: every trajectory that starts in this box is in the other one after ``steps`` steps.
        lower, upper: the invariant box.
        weights: r, each entry in (0, 1].
        steps: a whole number; 0 if the first box is part of the second.
    """

    kind: ClassVar[str] = "gated"
    start_lower: Vector
    start_upper: Vector
    lower: Vector
    upper: Vector
    weights: Vector
    steps: float


@dataclass(frozen=True, eq=False)
class GatedWitness(ArrayProof):
    """A fixed point of a gated cell under a constant admissible input, with a mode that grows.

    Attributes:
        input: the constant input, inside the declared box, shape (inputs,).
        state: a fixed point lies within ``radius`` of it in every entry; shape (n,) (GRU) or (2 n,) (LSTM).
        radius: see ``state``.
        lyapunov: symmetric X: sigma^2 X - J^T X J > 0 for the Jacobian J at every state that close.
        direction: v, with v^T X v < 0.
        growth: sigma >= 1: J has an eigenvalue of modulus > sigma.
        start, start_other: two states whose trajectories under that input part.
        horizon: whole number of steps after which they have parted.
    """

    kind: ClassVar[str] = "gated-instability"
    input: Vector
    state: Vector
    radius: float
    lyapunov: Square
    direction: Vector
    growth: float
    start: Vector
    start_other: Vector
    horizon: float


KINDS: dict[str, type[ArrayProof]] = {
    entry.kind: entry
    for entry in (
        AbsoluteProof,
        SymmetricProof,
        ProductProof,
        SingularProof,
        LureProof,
        ConicBound,
        NormBound,
        LureBound,
        NoMetricProof,
        InstabilityWitness,
        SwitchingWitness,
        GatedProof,
        GatedWitness,
    )
}


def proof_from_arrays(kind: str, arrays: Mapping[str, NDArray[Any]]) -> ArrayProof:
    """Rebuild a proof or witness from its kind and arrays.

    Raises:
        InputError: unknown kind, or arrays that do not belong to it.
    """
    if kind not in KINDS:
        raise InputError("proof.kind", repr(kind), f"one of {sorted(KINDS)}", "unknown-condition")
    return KINDS[kind].from_arrays(arrays)


@dataclass(frozen=True, eq=False)
class StepClaim:
    """Every Euler step 0 < h <= ``step`` contracts in one metric, with factor 1 - (h/step)(1 - factor)."""

    step: float
    factor: float
    proof: LureProof

    def __post_init__(self) -> None:
        for name in ("step", "factor"):
            object.__setattr__(self, name, _number(f"largest_step.{name}", getattr(self, name)))


@dataclass(frozen=True, eq=False)
class LevelBound:
    """No certificate of the condition ``lure`` reaches ``level``: a rate (continuous time) or a factor (a map)."""

    level: float
    proof: BoundProof

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", _number("bound.level", self.level))


@dataclass(frozen=True)
class Claims:
    """What a certificate says, each number an obligation of its own. None: not claimed.

    Attributes:
        rate: c, continuous time, in 1/(unit of time): norms of differences shrink at least like exp(-c t).
        factor: rho, discrete time, per step.
        margin: the smallest eigenvalue of the deciding block, equilibrated by powers of two, exceeds this.
        weight_radius: every W' with norm_2(W' - W) <= this keeps the proof (same rate or factor, same metric).
        gain: incremental gain from input u (lure: inside phi) to state, steady state, Euclidean norms.
        largest_step: see :class:`StepClaim`.
        metric_condition_log2: k, a whole number: the metric's condition number is at most 2^k (floor(k) is checked).
        bound: see :class:`LevelBound`; a bound on what ``lure`` can prove, not on how fast the network contracts.
    """

    rate: float | None = None
    factor: float | None = None
    margin: float = 0.0
    weight_radius: float | None = None
    gain: float | None = None
    largest_step: StepClaim | None = None
    metric_condition_log2: float | None = None
    bound: LevelBound | None = None

    def __post_init__(self) -> None:
        for name in ("rate", "factor", "margin", "weight_radius", "gain", "metric_condition_log2"):
            value = getattr(self, name)
            if value is not None or name == "margin":
                object.__setattr__(self, name, _number(name, value))


Verdict = Literal["contracting", "not_contracting", "undecided"]
