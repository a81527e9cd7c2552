"""Perron vectors of sparse nonnegative matrices, also reducible ones and ones whose vectors leave the float range.

For a nonnegative G and a level s the right vector wanted is r > 0 with G r <= s r; one exists for every s above the
Perron root, and at the root itself if G is irreducible. Nothing here is trusted: bounds are Collatz-Wielandt quotients
in plain floating point, and the verifier repeats them with outward rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, laplacian

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Entries handled at a time where a temporary per entry is needed (three float64 temporaries of this length: 48 MB).
CHUNK = 2_000_000
#: Components up to this size may use dense factorisations when power iteration is slow.
DENSE_LIMIT = 1500
#: Power iterations before anything else is tried.
FIRST_ROUNDS = 120
#: Largest exponent spread of an iterate before it is moved into the matrix.
_FOLD = 150


@dataclass(frozen=True, eq=False)
class Nonnegative:
    """A nonnegative matrix: off-diagonal part in CSR arrays (stored diagonal entries are 0) plus the diagonal.

    Attributes:
        data: off-diagonal values, shape (nnz,), >= 0.
        indices: column of each value, shape (nnz,).
        indptr: row starts, shape (n + 1,).
        diagonal: shape (n,), >= 0.
    """

    data: Array
    indices: NDArray[np.integer[Any]]
    indptr: NDArray[np.integer[Any]]
    diagonal: Array

    @property
    def size(self) -> int:
        """Number of rows n."""
        return len(self.diagonal)

    @property
    def sparse(self) -> sp.csr_array:
        """The off-diagonal part as a scipy matrix; shares memory."""
        return sp.csr_array((self.data, self.indices, self.indptr), shape=(self.size, self.size))

    def with_data(self, data: Array) -> Nonnegative:
        """The same pattern with other off-diagonal values."""
        return Nonnegative(data, self.indices, self.indptr, self.diagonal)


def row_chunks(indptr: NDArray[np.integer[Any]]) -> list[tuple[int, int, NDArray[np.intp]]]:
    """Split the entries of a CSR matrix into runs of whole rows.

    Returns:
        (first entry, last entry + 1, row of each entry) per run; a run has about ``CHUNK`` entries, or one row.
    """
    rows = len(indptr) - 1
    runs = []
    start = 0
    while start < rows:
        stop = int(np.searchsorted(indptr, indptr[start] + CHUNK, side="right")) - 1
        stop = min(max(stop, start + 1), rows)
        lengths = np.diff(indptr[start : stop + 1])
        runs.append((int(indptr[start]), int(indptr[stop]), np.repeat(np.arange(start, stop), lengths)))
        start = stop
    return runs


def scale_exponents(matrix: Nonnegative, exponent: Integers, transposed: bool = False) -> Array:
    """Off-diagonal values of D^-1 G D (or, ``transposed``, of D G D^-1), D = diag(2**exponent)."""
    out = np.empty_like(matrix.data)
    for first, last, rows in row_chunks(matrix.indptr):
        shift = exponent[matrix.indices[first:last]] - exponent[rows]
        shift = np.clip(-shift if transposed else shift, -2200, 2200).astype(np.int32)
        with np.errstate(over="ignore", under="ignore"):
            out[first:last] = np.ldexp(matrix.data[first:last], shift)
    return out


def quotients(matrix: Nonnegative, vector: ExtendedVector, transposed: bool = False) -> Array:
    """Collatz-Wielandt quotients (G v)_i / v_i, or (G^T v)_i / v_i, of the off-diagonal part; shape (n,)."""
    off = matrix
    if np.any(vector.exponent != vector.exponent[0]):
        off = matrix.with_data(scale_exponents(matrix, vector.exponent, transposed))
    operator = off.sparse.T if transposed else off.sparse
    return np.asarray(operator @ vector.mantissa / vector.mantissa)


@dataclass(frozen=True, eq=False)
class ExtendedVector:
    """A positive vector mantissa * 2**exponent, mantissa in [1/2, 1)."""

    mantissa: Array
    exponent: Integers

    @classmethod
    def of(cls, values: Array, exponent: Integers) -> ExtendedVector:
        """Normalise values * 2**exponent, values positive and finite."""
        mantissa, extra = np.frexp(values)
        return cls(mantissa, exponent + extra.astype(np.int64))

    @property
    def spread_log2(self) -> float:
        """log2 of the ratio of the largest to the smallest entry."""
        log2 = np.log2(self.mantissa) + self.exponent
        return float(log2.max() - log2.min())


@dataclass(frozen=True, eq=False)
class Components:
    """Strongly connected components, numbered so that every edge i -> j (G_ij > 0) has label[i] >= label[j].

    Attributes:
        labels: component of each row, shape (n,).
        count: number of components.
    """

    labels: NDArray[np.int64]
    count: int


def strong_components(matrix: Nonnegative) -> Components:
    """Strongly connected components of the graph of G, in topological order."""
    pattern = matrix.sparse
    if not matrix.data.all():
        pattern = pattern.copy()
        pattern.eliminate_zeros()
    count, found = connected_components(pattern, directed=True, connection="strong")
    labels = np.asarray(found, dtype=np.int64)
    return Components(_topological(pattern, labels, count) if count > 1 else labels, int(count))


def _topological(pattern: sp.csr_array, labels: Integers, count: int) -> Integers:
    """Renumber components so that edges lead to equal or smaller labels; scipy's order is such, up to its direction."""
    forward = backward = True
    for first, last, rows in row_chunks(pattern.indptr):
        step = labels[rows] - labels[pattern.indices[first:last]]
        forward, backward = forward and bool((step >= 0).all()), backward and bool((step <= 0).all())
    if forward:
        return labels
    if backward:
        return np.asarray(count - 1 - labels)
    return _topological_by_sort(pattern, labels, count)


def _topological_by_sort(pattern: sp.csr_array, labels: Integers, count: int) -> Integers:
    """Kahn's algorithm on the condensed graph; only needed if scipy changed its numbering."""
    from graphlib import TopologicalSorter

    coo = pattern.tocoo()
    edges = np.unique(np.stack([labels[coo.coords[0]], labels[coo.coords[1]]]), axis=1)
    graph: dict[int, list[int]] = {k: [] for k in range(count)}
    for source, sink in edges[:, edges[0] != edges[1]].T.tolist():
        graph[source].append(sink)
    rank = np.empty(count, dtype=np.int64)
    rank[np.fromiter(TopologicalSorter(graph).static_order(), dtype=np.int64, count=count)] = np.arange(count)
    return np.asarray(rank[labels])


@dataclass(frozen=True, eq=False)
class LocalVectors:
    """One positive vector per component with its Collatz-Wielandt bounds.

    Attributes:
        vector: positive entries, shape (n,); different components are not yet related to each other.
        lower, upper: per component, shape (count,): lower <= Perron root of the diagonal block <= upper.
    """

    vector: ExtendedVector
    lower: Array
    upper: Array


def local_vectors(
    matrix: Nonnegative, components: Components, ceiling: float, tolerance: float = 1e-7, transposed: bool = False
) -> LocalVectors:
    """Approximate Perron vectors of all diagonal blocks at once, by shifted power iteration.

    Args:
        matrix: G; only its diagonal blocks are looked at.
        components: of G.
        ceiling: the level that has to stay above the Perron root (1 for a map).
        tolerance: stop when the bounds are this close, relative to ``ceiling`` minus the root.
        transposed: left vectors instead of right ones.
    """
    blocks = matrix if components.count == 1 else matrix.with_data(_inside(matrix, components))
    search = _PowerIteration(blocks, components, transposed)
    sizes = np.bincount(components.labels, minlength=components.count)
    unsettled = search.run(FIRST_ROUNDS, ceiling, tolerance)
    for label in unsettled[:50]:
        if sizes[label] <= DENSE_LIMIT:
            search.refine(int(label))
    if (sizes[unsettled] > DENSE_LIMIT).any():
        # A product costs about 2 ns per entry: stay near a second or two, and do not go on where each takes long.
        search.run(int(np.clip(4e8 / (matrix.data.size + matrix.size), 0, 5000)), ceiling, tolerance)
    return search.result()


def _inside(matrix: Nonnegative, components: Components) -> Array:
    """Off-diagonal values with the entries between different components set to 0."""
    out = matrix.data.copy()
    for first, last, rows in row_chunks(matrix.indptr):
        out[first:last][components.labels[rows] != components.labels[matrix.indices[first:last]]] = 0.0
    return out


class _PowerIteration:
    """State of the iteration v <- (G + shift) v, with G = D^-1 G_0 D rescaled by powers of two when v spreads."""

    def __init__(self, blocks: Nonnegative, components: Components, transposed: bool) -> None:
        self.blocks = blocks
        self.original = blocks
        self.components = components
        self.transposed = transposed
        self.exponent = np.zeros(blocks.size, dtype=np.int64)
        self.vector = np.ones(blocks.size)
        self.best = self.vector
        self.best_exponent = self.exponent
        self.lower = np.zeros(components.count)
        self.upper = np.full(components.count, np.inf)
        # starts of the runs of equal labels in sorted order, for reductions per component
        if components.count > 1:
            self.order = np.argsort(components.labels, kind="stable")
            self.starts = np.searchsorted(components.labels[self.order], np.arange(components.count))

    def _per_component(self, reduce: Any, values: Array) -> Array:
        if self.components.count == 1:
            return np.array([reduce.reduce(values)])
        return np.asarray(reduce.reduceat(values[self.order], self.starts))

    def _spread_out(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self.components.count == 1 else values[self.components.labels]

    def run(self, budget: int, ceiling: float, tolerance: float) -> NDArray[np.intp]:
        """Iterate until settled or out of budget; return the labels of components that are not settled."""
        v = self.vector
        operator = self.blocks.sparse.T if self.transposed else self.blocks.sparse
        open_labels = np.arange(self.components.count)
        scale, keep = np.ones(1), 0.0
        for step in range(budget):
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                image = operator @ v + self.blocks.diagonal * v
                quotient = image / v
            if not np.isfinite(quotient).all():
                break
            self._record(v, quotient)
            open_labels = self._open(ceiling, tolerance)
            if open_labels.size == 0:
                break
            if step % 4 == 0:
                # The shift makes periodic blocks converge: little at first, since it slows all others down.
                part = 0.02 if step < 40 else 0.3
                keep = part / (1.0 + part)
                scale = self._spread_out((1.0 - keep) / np.clip(self.upper, 1e-300, 1e300))
            v = scale * image + keep * v
            if step % 4 == 0:
                v /= self._spread_out(np.maximum(self._per_component(np.maximum, v), 1e-300))
                if v.min() < 2.0**-_FOLD:
                    v = self._fold(v)
                    operator = self.blocks.sparse.T if self.transposed else self.blocks.sparse
        self.vector = v
        return open_labels

    def _record(self, v: Array, quotient: Array) -> None:
        """Keep the vector of each component that has the smallest upper bound so far."""
        upper = self._per_component(np.maximum, quotient)
        np.maximum(self.lower, self._per_component(np.minimum, quotient), out=self.lower)
        better = upper < self.upper
        if better.all():
            self.best, self.best_exponent = v, self.exponent
            self.upper = upper
        elif better.any():
            chosen = self._spread_out(better)
            self.best = np.where(chosen, v, self.best)
            self.best_exponent = np.where(chosen, self.exponent, self.best_exponent)
            self.upper = np.where(better, upper, self.upper)

    def _open(self, ceiling: float, tolerance: float) -> NDArray[np.intp]:
        """Components whose bounds still matter: not tight, and not clearly below the largest root."""
        root = float(self.lower.max())
        gap = self.upper - self.lower
        tight = gap <= tolerance * max(abs(ceiling - root), 1e-3 * ceiling) + 4e-16 * self.upper
        below = self.upper <= root - 0.1 * (root - self.lower)
        if root >= ceiling:  # no vector can serve: only the size of the miss is of interest
            tight |= gap <= 1e-3 * root
        return np.flatnonzero(~(tight | (below & (self.upper < root))))

    def _fold(self, v: Array) -> Array:
        """Move the exponents of v into the matrix."""
        safe = np.maximum(v, 5e-324)
        mantissa, extra = np.frexp(safe)
        self.exponent = self.exponent + extra
        self.blocks = self.original.with_data(scale_exponents(self.original, self.exponent, self.transposed))
        return np.asarray(mantissa)

    def refine(self, label: int) -> None:
        """Noda iteration with dense factorisations, for one component where power iteration is slow."""
        rows = np.flatnonzero(self.components.labels == label)
        dense = self.original.sparse[rows][:, rows].toarray()
        found = noda(dense.T if self.transposed else dense, self.original.diagonal[rows])
        if found is None or found[1] >= self.upper[label]:
            return
        vector, self.upper[label], lower = found
        self.lower[label] = max(self.lower[label], lower)
        self.best, self.best_exponent = self.best.copy(), self.best_exponent.copy()
        self.best[rows], self.best_exponent[rows] = vector.mantissa, vector.exponent

    def result(self) -> LocalVectors:
        """The best vectors so far."""
        return LocalVectors(ExtendedVector.of(self.best, self.best_exponent), self.lower, self.upper)


def noda(off: Array, diagonal: Array, rounds: int = 40) -> tuple[ExtendedVector, float, float] | None:
    """Noda's inverse iteration for an irreducible nonnegative matrix (T. Noda, Numer. Math. 17, 1971).

    Quadratic, and every iterate is positive in exact arithmetic. Starts from the scaling that makes the logarithms of
    the entries as equal as possible (least squares), which is exact for a single cycle.

    Args:
        off: off-diagonal part, dense, shape (n, n).
        diagonal: shape (n,).
        rounds: most iterations.

    Returns:
        (vector, upper bound, lower bound), or None if no finite bound was reached.
    """
    exponent = _log_scaling(off)
    with np.errstate(over="ignore", under="ignore"):
        shift = np.clip(exponent[None, :] - exponent[:, None], -2200, 2200).astype(np.int32)
        matrix = np.ldexp(off, shift) + np.diag(diagonal)
    v = np.ones(len(diagonal))
    best: tuple[Array, float, float] | None = None
    for _ in range(rounds):
        with np.errstate(all="ignore"):
            quotient = matrix @ v / v
        if not np.isfinite(quotient).all():
            break
        upper, lower = float(quotient.max()), float(quotient.min())
        if best is not None and upper >= best[1]:
            break
        best = (v, upper, lower)
        if upper - lower <= 1e-14 * upper:
            break
        try:
            w = np.linalg.solve(upper * (1 + 1e-15) * np.eye(len(v)) - matrix, v)
        except np.linalg.LinAlgError:
            break
        if not (np.isfinite(w).all() and (w > 0).all()):
            break
        v = w / w.max()
    if best is None:
        return None
    return ExtendedVector.of(best[0], exponent), best[1], best[2]


def _log_scaling(off: Array) -> Integers:
    """Integers e minimising sum over entries of (log2 off_ij + e_j - e_i - const)^2 (before rounding)."""
    rows, columns = np.nonzero(off)
    if rows.size == 0:
        return np.zeros(len(off), dtype=np.int64)
    logs = np.log2(off[rows, columns])
    logs -= logs.mean()
    n = len(off)
    weights = np.zeros((n, n))
    weights[rows, columns] += 1.0
    graph = laplacian(weights + weights.T)
    target = np.bincount(rows, logs, n) - np.bincount(columns, logs, n)
    solution = np.linalg.solve(np.asarray(graph) + np.ones((n, n)) / n, target)
    return np.asarray(np.rint(solution), dtype=np.int64)


def join(
    matrix: Nonnegative, components: Components, local: LocalVectors, level: float, transposed: bool = False
) -> ExtendedVector | None:
    """Weigh the components' vectors geometrically so that G r <= level r holds as a whole.

    Component k gets the weight 2**w_k, w_k >= 0, just large enough for its rows' couplings to the components it sees.

    Args:
        matrix: G.
        components: of G.
        local: one vector per component.
        level: s, above every ``local.upper`` of a component that sees others.
        transposed: the vectors are left vectors.

    Returns:
        The vector, or None if ``level`` is not above the roots where it has to be.
    """
    vector = local.vector
    if components.count == 1:
        return vector
    across = _crossing(matrix, components, vector, transposed)
    if across.rows.size == 0:
        return vector
    slack = level - local.upper
    bounds = np.flatnonzero(np.r_[True, np.diff(across.source) != 0, True])
    sources = across.source[bounds[:-1]]
    if (slack[sources] <= 0).any():
        return None
    floor = np.log2(slack[sources])
    weight = np.zeros(components.count)
    for k, first, last, room in zip(
        sources.tolist(), bounds[:-1].tolist(), bounds[1:].tolist(), floor.tolist(), strict=True
    ):
        terms = across.logs[first:last] + weight[across.sink[first:last]]
        weight[k] = max(0.0, _largest_row(terms, across.rows[first:last]) - room)
    whole = np.floor(weight)
    mantissa = vector.mantissa * np.exp2(weight - whole)[components.labels]
    return ExtendedVector.of(mantissa, vector.exponent + whole.astype(np.int64)[components.labels])


@dataclass(frozen=True, eq=False)
class _Crossing:
    """Entries between components, sorted by the component of the row, in the order in which weights are fixed."""

    rows: NDArray[np.intp]
    source: NDArray[np.intp]
    sink: NDArray[np.intp]
    logs: Array


def _crossing(matrix: Nonnegative, components: Components, vector: ExtendedVector, transposed: bool) -> _Crossing:
    parts: list[tuple[NDArray[Any], ...]] = []
    log_vector = np.log2(vector.mantissa) + vector.exponent
    for first, last, rows in row_chunks(matrix.indptr):
        columns, data = matrix.indices[first:last], matrix.data[first:last]
        keep = np.flatnonzero((components.labels[rows] != components.labels[columns]) & (data > 0))
        i, j = (columns[keep], rows[keep]) if transposed else (rows[keep], columns[keep])
        # rounded up a little, so that the quotients stay below the level
        parts.append((i, j, np.log2(data[keep]) + log_vector[j] - log_vector[i] + 1e-9))
    i, j, logs = (np.concatenate(part) for part in zip(*parts, strict=True))
    source, sink = components.labels[i].astype(np.intp), components.labels[j].astype(np.intp)
    # Weights are fixed from the sinks of the graph upwards; for left vectors all edges are reversed.
    order = np.lexsort((i, -source if transposed else source))
    return _Crossing(i[order].astype(np.intp), source[order], sink[order], logs[order])


def _largest_row(terms: Array, rows: NDArray[np.intp]) -> float:
    """max over rows of log2(sum of 2**terms); ``rows`` sorted."""
    top = float(terms.max())
    if len(terms) == 1:
        return top
    powers = np.exp2(terms - top)
    starts = np.flatnonzero(np.r_[True, np.diff(rows) != 0])
    return top + float(np.log2(np.add.reduceat(powers, starts).max()))
