"""Feedback that costs nothing: couplings that are skew in the modules' metrics (docs/theory.md section 13).

With metrics M_i, in which the modules contract, and any blocks B_ij,

    L_ij = B_ij - M_i^-1 B_ji^T M_j    gives    M L + L^T M = 0,    M = diag(M_i),

so the whole contracts, in continuous time, with the rate of its slowest module (Kozachkov, Ennis and Slotine 2022,
Theorem 5). L stands in x', divided by the time constants already; a matrix that is skew in tau x' is skew in M = I
only where tau = 1. An Euler step of the whole has no such freedom: the size of L bounds its step.

The formula holds for the metric and fails for its inverse, and conditions about W prove a metric of a rate network
but the inverse metric of a Hopfield network. So no bare matrix is accepted here: :class:`Metric` says what its matrix
is, and :func:`metrics_of` reads it from modules and proofs that know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from certes.assemblies import InterfaceProof
from certes.errors import InputError
from certes.proofs import ArrayProof, LureProof
from certes.systems import SparseMatrix, tensor
from certes.verify.interface import Interface

Array = NDArray[np.float64]
Pair = tuple[str, str]

#: Asymmetry of a metric, relative to its largest entry, that counts as rounding.
_ASYMMETRY = 1e-10
#: How far refinement may move a block, relative to its norm, and its number of steps.
_MOVED, _REFINEMENTS = 1e-4, 2
#: Largest module whose products are taken in extended precision, which no fast library does.
_WIDEST = 256


@dataclass(frozen=True, eq=False)
class Metric:
    """A symmetric positive definite matrix that knows what it measures.

    Attributes:
        matrix: shape (n, n); rounding asymmetry is removed, the array is read-only.
        of: ``state``: x^T matrix x is the length that the module shrinks; ``inverse``: that of its inverse is, as
            some papers and the conditions for Hopfield networks have it. Only ``state`` couples.

    Raises:
        InputError: not square, not finite, not symmetric, not positive definite, or another word.
    """

    matrix: Array
    of: Literal["state", "inverse"]

    def __post_init__(self) -> None:
        if self.of not in ("state", "inverse"):
            raise InputError("of", repr(self.of), "'state' or 'inverse'", "unknown-value")
        given = tensor("matrix", self.matrix).value
        if isinstance(given, SparseMatrix):
            raise InputError("matrix", "a sparse matrix", "a dense matrix", "sparse")
        if given.shape[0] != given.shape[1]:
            raise InputError("matrix", f"shape {given.shape}", "a square matrix", "wrong-shape")
        if not np.abs(given - given.T).max() <= _ASYMMETRY * np.abs(given).max():
            raise InputError("matrix", "a matrix that is not symmetric", "a symmetric matrix", "not-symmetric")
        matrix = 0.5 * (given + given.T)
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError as error:
            expected = "a positive definite matrix"
            raise InputError("matrix", "a matrix that is not", expected, "not-positive-definite") from error
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def of_proof(cls, proof: LureProof | InterfaceProof) -> Metric:
        """The metric of a proof, which says itself whether it is the inverse one (``dual``)."""
        return cls(proof.metric, "inverse" if isinstance(proof, LureProof) and proof.dual else "state")

    @property
    def size(self) -> int:
        """Number of states."""
        return len(self.matrix)

    def in_state(self) -> Metric:
        """The same length, written for the state: the inverse of an inverse metric, to rounding."""
        if self.of == "state":
            return self
        inverse = _solve(self.matrix, np.eye(self.size))
        return Metric(0.5 * (inverse + inverse.T), "state")


@runtime_checkable
class Measured(Protocol):
    """What carries the metric of its state, as :class:`certes.projection.modules.Module` does."""

    @property
    def metric(self) -> Array:
        """Shape (n, n)."""


def metrics_of(modules: Mapping[str, object]) -> dict[str, Metric]:
    """The metrics of modules, of their states, from whatever knows which one it is.

    Args:
        modules: name -> a :class:`Metric`, a module of a composition, a :class:`certes.projection.modules.Module` or
            another module that has the metric of its state as ``.metric``, a verified interface, an ``InterfaceProof``
            or a ``LureProof``.

    Raises:
        InputError: naming the module: a bare matrix, a proof without a metric, or an interface of a map, for which
            skew couplings are not free.
    """
    return {name: _metric_of(f"modules.{name}", module) for name, module in modules.items()}


def feedback(
    blocks: Mapping[Pair, Any],
    modules: Mapping[str, object],
    *,
    dtype: Literal["float32", "float64"] = "float64",
) -> dict[Pair, NDArray[Any]]:
    """Couplings L_ij = B_ij - M_i^-1 B_ji^T M_j, for which M L + L^T M = 0 up to rounding.

    What rounding L_ij does to M_i L_ij grows with the condition of M_i. So of the two directions of a pair, the one
    that rounding hurts more is rounded first, and the other one is refined until it is skew to what came out, if
    that moves it by at most 1e-4 of its norm: the couplings then belong to slightly different B. With blocks in one
    direction the identity holds to about 1e-14 for condition numbers up to 1e6; with blocks in both, to about 1e-17
    times the condition number.

    Args:
        blocks: free blocks B: (to, from) -> shape (n_to, n_from); an absent one is 0, so one direction will do.
        modules: name -> a module of a composition (``composition.root.children``), a :class:`Metric` of its state, or
            whatever else :func:`metrics_of` takes.
        dtype: of the couplings.

    Returns:
        (to, from) -> L, both directions of every pair that was given, read-only; to be passed to ``compose``.

    Raises:
        InputError: naming ``blocks.TO.FROM``, ``modules.NAME`` or ``metrics.NAME``; an inverse metric, or a bare
            matrix, is refused.
    """
    if dtype not in ("float32", "float64"):
        raise InputError("dtype", repr(dtype), "float32 or float64", "wrong-dtype")
    matrices = _matrices(
        {
            name: module if isinstance(module, Metric) else _metric_of(f"modules.{name}", module)
            for name, module in modules.items()
        }
    )
    free = _free(blocks, matrices)
    found: dict[Pair, NDArray[Any]] = {}
    for to, source in free:
        if (to, source) in found:
            continue
        there, back = _skewed(matrices[to], matrices[source], free[to, source], free.get((source, to)), dtype)
        found[to, source], found[source, to] = there, back
    return found


def skewness(couplings: Mapping[Pair, Any], metrics: Mapping[str, Metric]) -> float:
    """norm(M L + L^T M) / norm(M L), Frobenius norms, in floating point: 0 for exact feedback, at most 2.

    Args:
        couplings: (to, from) -> L as it stands in x'.
        metrics: name -> metric of the module's state.

    Raises:
        InputError: as :func:`feedback`.
    """
    matrices = _matrices(metrics)
    given = _free(couplings, matrices, field="couplings")
    residual, size = [0.0], [0.0]
    for (to, source), block in given.items():
        product, other = matrices[to] @ block, given.get((source, to))
        size.append(float(np.linalg.norm(product)))
        if other is None:  # its mirror image in the whole matrix has the same norm
            residual += [size[-1], size[-1]]
        else:
            residual.append(float(np.linalg.norm(product + other.T @ matrices[source])))
    largest = max(size)
    return 0.0 if largest == 0.0 else float(np.linalg.norm(residual) / np.linalg.norm(size))


def _metric_of(field: str, module: object) -> Metric:
    if isinstance(module, Metric):
        return module.in_state()
    if isinstance(module, LureProof | InterfaceProof):
        return Metric.of_proof(module).in_state()
    interface = getattr(module, "interface", module)  # a module of a composition has one
    if isinstance(interface, Interface):
        return _metric_of_interface(field, interface)
    if isinstance(module, np.ndarray | list | tuple) or hasattr(module, "__array__"):
        expected = "a module, a proof, or Metric(matrix, of='state')"
        raise InputError(field, "a bare matrix, which may be a metric or its inverse", expected, "bare-metric")
    if isinstance(module, ArrayProof) or not isinstance(module, Measured):
        expected = "a module or a proof with a metric of its state"
        raise InputError(field, f"a {type(module).__name__}", expected, "wrong-type")
    return Metric(module.metric, "state")


def _metric_of_interface(field: str, interface: Interface) -> Metric:
    if not interface.continuous:
        given, expected = "a map, whose factor no skew coupling leaves alone", "a module in continuous time"
        raise InputError(field, given, expected, "wrong-time")
    starts = interface.starts
    matrix = np.zeros((starts[-1], starts[-1]))
    for start, end, block in zip(starts[:-1], starts[1:], interface.blocks, strict=True):
        matrix[start:end, start:end] = block.mid
    return Metric(matrix, "state")


def _matrices(metrics: Mapping[str, Metric]) -> dict[str, Array]:
    """The matrices of metrics that are metrics of the state.

    Raises:
        InputError: naming ``metrics.NAME``.
    """
    given: Mapping[str, object] = metrics
    found: dict[str, Array] = {}
    for name, metric in given.items():
        field = f"metrics.{name}"
        if not isinstance(metric, Metric):
            expected = "a Metric, as metrics_of(modules) gives it"
            raise InputError(field, f"a {type(metric).__name__}", expected, "bare-metric")
        if metric.of != "state":
            raise InputError(field, "an inverse metric", "the metric of the state: .in_state()", "inverse-metric")
        found[name] = metric.matrix
    return found


def _free(blocks: object, matrices: Mapping[str, Array], field: str = "blocks") -> dict[Pair, Array]:
    """The given blocks in float64, checked.

    Raises:
        InputError: naming the block.
    """
    if not isinstance(blocks, Mapping):
        raise InputError(field, f"a {type(blocks).__name__}", "a mapping {('to', 'from'): array}", "wrong-type")
    found: dict[Pair, Array] = {}
    for key, block in blocks.items():
        if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(name, str) for name in key)):
            raise InputError(field, f"the key {key!r}", "pairs of names ('to', 'from')", "wrong-type")
        name = f"{field}.{key[0]}.{key[1]}"
        for end in key:
            if end not in matrices:
                known = ", ".join(list(matrices)[:20])
                raise InputError(name, f"an unknown module {end!r}", f"one of {known}", "unknown-module")
        if key[0] == key[1]:
            raise InputError(name, "a block from a module to itself", "such weights inside the module", "self-coupling")
        value = tensor(name, block).value
        if isinstance(value, SparseMatrix):
            raise InputError(name, "a sparse matrix", "a dense matrix", "sparse")
        shape = (len(matrices[key[0]]), len(matrices[key[1]]))
        if value.shape != shape:
            raise InputError(name, f"shape {value.shape}", f"shape {shape}", "wrong-shape")
        found[key] = value
    return found


def _skewed(M: Array, N: Array, B: Array, C: Array | None, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """L_ij and L_ji, rounded, from M_i, M_j, B_ij and B_ji."""
    there, back = B, -_solve(N, B.T @ M)
    if C is not None:
        there, back = there - _solve(M, C.T @ N), back + C
    if np.linalg.norm(M, 2) * np.linalg.norm(there) <= np.linalg.norm(N, 2) * np.linalg.norm(back):
        first = _rounded(back, dtype)
        return _rounded(_refined(there, M, first, N), dtype), first
    first = _rounded(there, dtype)
    return first, _rounded(_refined(back, N, first, M), dtype)


def _refined(block: Array, M: Array, other: NDArray[Any], N: Array) -> Array:
    """The block X with M X + other^T N = 0 near a given one; the given one if there is none nearby.

    Residuals in extended precision, where the machine has one: they are small differences of large products.
    """
    wide = np.longdouble if max(block.shape) <= _WIDEST else np.float64
    metric, target = M.astype(wide), other.T.astype(wide) @ N.astype(wide)
    found = block
    for _ in range(_REFINEMENTS):
        found = found - _solve(M, (metric @ found.astype(wide) + target).astype(np.float64))
    near = np.linalg.norm(found - block) <= _MOVED * np.linalg.norm(block)
    return found if near else block


def _rounded(block: Array, dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore", under="ignore"):
        found = block.astype(dtype)
    if not np.isfinite(found).all():
        raise InputError("blocks", "couplings beyond the range of floats", f"smaller blocks, for {dtype}", "not-finite")
    found.setflags(write=False)
    return found


def _solve(matrix: Array, right: Array) -> Array:
    """matrix^-1 right by Cholesky's factorisation."""
    from scipy.linalg import cho_factor, cho_solve  # importing certes loads no scipy

    return np.asarray(cho_solve(cho_factor(matrix, lower=True, check_finite=False), right, check_finite=False))
