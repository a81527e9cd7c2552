"""Search for slope patterns that no constant quadratic metric serves together.

At each pattern D_k the metric P would have to satisfy P J_k + J_k^T P <= 0 (maps: J_k^T P J_k <= P). The search takes
turns: a semidefinite program finds the P with the largest margin t over the patterns collected so far,

    -(P J_k + J_k^T P) >= t I  (maps: P - J_k^T P J_k >= t I),   P >= 0,   trace P = n,

and then the patterns that are worst for that P are added. The program's dual variables Z_k have
sum_k (J_k Z_k + Z_k J_k^T) >= -(t / n) I, so that t < 0 proves that no P exists. (t = 0 happens as well: singular P
serve some sets of patterns, and then the next patterns decide.) The worst pattern is found by alternation: with v the
leading eigenvector, D_i is the upper slope where (B^T P v)_i (C v)_i > 0 (maps: P J v for P v), which never makes it
better. That is a local search from many starts; patterns that it misses can only make the answer None. Programs up to
order 20 take seconds (:data:`LARGEST`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from certes.engines.slopes import Linearisation
from certes.proofs import NoMetricProof
from certes.systems import System

Array = NDArray[np.float64]

#: Most states, and most nonlinearities, that are attempted.
LARGEST, MOST_CHANNELS = 20, 100

#: Rounds of the alternation, new patterns per round, most patterns in one program.
_ROUNDS, _NEW, _MOST = 40, 6, 40
_STARTS = 48
_CLIMBS = 30
_SEED = 20261122
#: Smallest eigenvalue, relative to the largest Jacobian and the metric's or the duals' size 1, that counts as a sign.
_SIGN = 1e-8
#: Eigenvalues of a dual matrix below this share of the largest are left out.
_SMALL = 1e-10


def no_quadratic_metric(system: System, *, stop: Callable[[], bool] = lambda: False) -> NoMetricProof | None:
    """Look for a proof that no constant quadratic metric serves all slopes; None says nothing about the network.

    Args:
        system: the network. Sparse weights and networks beyond :data:`LARGEST` are not attempted.
        stop: asked between two programs; True gives up.

    Returns:
        A proof for the verifier to judge, or None.
    """
    if system.is_sparse or system.size > LARGEST or len(system.slope.lower) > MOST_CHANNELS:
        return None
    with np.errstate(all="ignore"):
        try:
            return search(Linearisation.of(system), stop=stop)
        except (np.linalg.LinAlgError, ValueError):
            return None


def search(problem: Linearisation, *, stop: Callable[[], bool] = lambda: False) -> NoMetricProof | None:
    """The alternation of the module docstring, in coordinates in which the Jacobians are balanced."""
    steepest = np.maximum(np.abs(problem.lower), np.abs(problem.upper))
    reach = np.abs(problem.A) + (np.abs(problem.B) * steepest) @ np.abs(problem.C)
    if not np.isfinite(reach).all():
        return None
    _, (balance, _) = scipy.linalg.matrix_balance(reach, permute=False, separate=True)
    scale = np.asarray(balance, dtype=np.float64)
    balanced = Linearisation(
        problem.A * scale[None, :] / scale[:, None],
        problem.B / scale[:, None],
        problem.C * scale[None, :],
        problem.lower,
        problem.upper,
        problem.continuous,
    )
    size = float(np.abs(reach * scale[None, :] / scale[:, None]).max())
    patterns: list[Array] = []
    metric = np.eye(len(scale))
    for _ in range(_ROUNDS):
        if stop():
            return None
        known = {pattern.tobytes() for pattern in patterns}
        worst = [entry for entry in worst_patterns(balanced, metric, patterns) if entry.tobytes() not in known][:_NEW]
        if not worst:
            return None  # the metric serves every pattern that was found
        patterns = [*patterns, *worst][-_MOST:]
        found = largest_margin(balanced, patterns)
        if found is None:
            return None
        if least_eigenvalue(balanced, patterns, found.duals) > _SIGN * size:
            return _proof(patterns, found.duals, scale)
        metric = found.metric
        weight = np.array([float(np.trace(dual)) for dual in found.duals])
        patterns = [pattern for pattern, share in zip(patterns, weight, strict=True) if share > 1e-7 * weight.max()]
    return None


def _proof(patterns: list[Array], duals: list[Array], scale: Array) -> NoMetricProof:
    """Columns of the dual matrices in the user's coordinates."""
    slopes: list[Array] = []
    rows: list[int] = []
    columns: list[Array] = []
    largest = max(float(np.abs(dual).max()) for dual in duals)
    for pattern, dual in zip(patterns, duals, strict=True):
        values, vectors = np.linalg.eigh(dual)
        kept = values > _SMALL * largest
        if kept.any():
            columns.append(scale[:, None] * vectors[:, kept] * np.sqrt(values[kept]))
            rows += [len(slopes)] * int(kept.sum())
            slopes.append(pattern)
    table = np.concatenate(columns, axis=1)
    table = np.ldexp(table, -math.frexp(float(np.abs(table).max()))[1])
    table[np.abs(table) < 1e-150] = 0.0
    return NoMetricProof(np.array(slopes), np.array(rows, dtype=np.int64), table)


def least_eigenvalue(problem: Linearisation, patterns: list[Array], duals: list[Array]) -> float:
    """Of sum_k (J_k Z_k + Z_k J_k^T) (maps: J_k Z_k J_k^T - Z_k): if it is positive, no metric serves the patterns."""
    total = np.zeros_like(problem.A)
    for pattern, dual in zip(patterns, duals, strict=True):
        jacobian = problem.jacobian(pattern)
        image = jacobian @ dual
        total += image + image.T if problem.continuous else image @ jacobian.T - dual
    return float(np.linalg.eigvalsh(total)[0])


def worst_patterns(problem: Linearisation, metric: Array, known: list[Array]) -> list[Array]:
    """Vertices of the slope box at which the metric is violated, worst first, each once.

    Args:
        problem: the Jacobians.
        metric: P, shape (n, n).
        known: patterns to start from as well.
    """
    random = np.random.default_rng(_SEED)
    m = problem.B.shape[1]
    corners = random.random((_STARTS, m)) < random.uniform(0.2, 0.8, (_STARTS, 1))
    patterns = np.array([problem.upper, problem.lower, *known, *np.where(corners, problem.upper, problem.lower)])
    best: dict[bytes, tuple[float, Array]] = {}
    for _ in range(_CLIMBS):
        jacobians = problem.A + (problem.B * patterns[:, None, :]) @ problem.C
        image = metric @ jacobians
        forms = (
            image + image.transpose(0, 2, 1) if problem.continuous else jacobians.transpose(0, 2, 1) @ image - metric
        )
        values, vectors = np.linalg.eigh(forms)
        for pattern, value in zip(patterns, values[:, -1], strict=True):
            best[pattern.tobytes()] = (float(value), pattern)
        v = vectors[:, :, -1]
        pull = v @ metric if problem.continuous else (image @ v[:, :, None])[:, :, 0]
        gain = (pull @ problem.B) * (v @ problem.C.T)
        after = np.where(gain > 0, problem.upper, np.where(gain < 0, problem.lower, patterns))
        moved = (after != patterns).any(axis=1)
        if not moved.any():
            break
        patterns = np.unique(after[moved], axis=0)
    floor = -_SIGN * float(np.abs(metric).max())
    violated = sorted((entry for entry in best.values() if entry[0] > floor), key=lambda entry: -entry[0])
    return [pattern for _, pattern in violated]


@dataclass(frozen=True, eq=False)
class Margin:
    """Solution of the program: t, P (n, n), and Z_k, one per pattern, shape (n, n), with traces that sum to 1."""

    margin: float
    metric: Array
    duals: list[Array]


class _Triangle:
    """Symmetric matrices as vectors: the upper triangle by columns, off-diagonal entries times sqrt 2 (Clarabel's)."""

    def __init__(self, size: int) -> None:
        column, row = np.tril_indices(size)  # the upper triangle, column by column
        self.size, self.row, self.column = size, row, column
        self.weight = np.where(row == column, 1.0, math.sqrt(2.0))
        self.basis = np.zeros((len(row), size, size))
        entry = np.arange(len(row))
        self.basis[entry, row, column] = 1.0 / self.weight
        self.basis[entry, column, row] = 1.0 / self.weight

    def vector(self, matrices: Array) -> Array:
        """Shape (..., n, n) to (..., n (n + 1) / 2)."""
        return np.asarray(matrices[..., self.row, self.column] * self.weight)

    def matrix(self, vector: Array) -> Array:
        """The inverse of :meth:`vector`."""
        return np.asarray(np.tensordot(vector, self.basis, axes=1))


def largest_margin(problem: Linearisation, patterns: list[Array]) -> Margin | None:
    """Solve the program of the module docstring over given patterns; None if the solver did not.

    Clarabel minimises q^T x over x = (P, t) with s = b - A x in a product of cones: zero (the trace), and one cone of
    positive semidefinite matrices for P and for each pattern.
    """
    import clarabel

    space = _Triangle(len(problem.A))
    order, identity = len(space.row), space.vector(np.eye(space.size))
    rows = [np.append(identity, 0.0)[None, :], np.column_stack([-np.eye(order), np.zeros(order)])]
    for pattern in patterns:
        jacobian = problem.jacobian(pattern)
        image = space.basis @ jacobian
        effect = image + image.transpose(0, 2, 1) if problem.continuous else jacobian.T @ image - space.basis
        rows.append(np.column_stack([space.vector(effect).T, identity]))
    A = scipy.sparse.csc_matrix(np.concatenate(rows))
    b = np.zeros(A.shape[0])
    b[0] = space.size
    q = np.zeros(order + 1)
    q[-1] = -1.0
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_threads = False, 1
    cones = [clarabel.ZeroConeT(1), *[clarabel.PSDTriangleConeT(space.size)] * (len(patterns) + 1)]
    nothing = scipy.sparse.csc_matrix((order + 1, order + 1))
    solution = clarabel.DefaultSolver(nothing, q, A, b, cones, settings).solve()
    x, z = np.asarray(solution.x), np.asarray(solution.z)
    if not (np.isfinite(x).all() and np.isfinite(z).all()):
        return None
    duals = [space.matrix(part) for part in z[1 + order :].reshape(len(patterns), order)]
    return Margin(float(x[-1]), space.matrix(x[:-1]), duals)
