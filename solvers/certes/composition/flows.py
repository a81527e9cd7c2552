"""Composition in continuous time: scales s_i of the modules' metrics, and the proof that follows from them.

In whitened coordinates, Lhat_ij = R_i L_ij R_j^-1 with M_i = R_i^T R_i, the rate that scales s prove is

    exact   1/2 lambda_min(2 diag(c_i) - S^1/2 Lhat S^-1/2 - (.)^T)                  N x N
    sparse  1/2 lambda_min(2 diag(c_i) - Sigma(s)),   Sigma_ij = norm(r Lhat_ij + Lhat_ji^T / r), r = sqrt(s_i / s_j)
            plus what couplings inside phi add                                       k x k

Both are improved over log s by L-BFGS with the gradient of the eigenvalue, from s = 1 (feedback couplings cost nothing
there) and from geometric scales along the order of the strongly connected components (a hierarchy costs nothing in the
limit).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh, spsolve

from certes.assemblies import Assembly, FlowProof
from certes.composition.edges import Edge
from certes.verify.composition import Node, euler_factor_squared, verify_flow
from certes.verify.interface import Interface
from certes.verify.report import Report

Array = NDArray[np.float64]

#: Parts of the rate that are given up in turn until the verifier accepts it.
BACK_OFFS = (1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
#: Steps of L-BFGS over the scales; modules up to which eigenvalues are dense.
_STEPS, _DENSE = 80, 300
#: Largest abs(log s), and geometric ratios between levels of a hierarchy.
_WIDEST, _RATIOS = 300.0, (0.0, 4.0, 14.0)
#: Share of the best rate that modest scales keep; shares of log s that are tried for an Euler map.
_MODEST, _SHARES = 0.98, (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True, eq=False)
class Flow:
    """A verified composition in continuous time.

    Attributes:
        proof: what is stored.
        interface: what the verifier made of it.
        edge_slopes: per coupling, by how much the rate falls per relative growth of it.
    """

    proof: FlowProof
    interface: Interface
    report: Report
    edge_slopes: Array


class Scales:
    """The scales of one composition step.

    Args:
        rates: c_i, shape (k,).
        edges: the couplings, whitened.
        sizes: states of the modules.
    """

    def __init__(self, rates: Array, edges: Sequence[Edge], sizes: Sequence[int]) -> None:
        self.rates, self.edges, self.count = rates, edges, len(rates)
        self.sizes, self.starts = sizes, np.concatenate([[0], np.cumsum(sizes)])
        self.pairs: dict[tuple[int, int], tuple[Array | None, Array | None]] = {}
        for edge in edges:
            if edge.matrix is None:
                continue
            i, j = min(edge.head, edge.tail), max(edge.head, edge.tail)
            up, down = self.pairs.get((i, j), (None, None))
            self.pairs[i, j] = (edge.matrix, down) if edge.head == i else (up, edge.matrix)
        self.inside = [edge for edge in edges if edge.matrix is None]
        self._norms: dict[tuple[int, int], float] = {
            (edge.head, edge.tail): edge.norm for edge in edges if edge.matrix is not None
        }

    def starts_of(self) -> Iterator[Array]:
        """Values of log s to start from."""
        depth = self._depths()
        for ratio in _RATIOS if depth.any() else (0.0,):
            yield np.clip(-ratio * depth, -_WIDEST, _WIDEST)

    def _depths(self) -> Array:
        """Levels along the couplings: a module's depth exceeds that of the modules that drive it, components apart."""
        heads = np.array([edge.head for edge in self.edges if edge.norm > 0.0], dtype=np.int64)
        tails = np.array([edge.tail for edge in self.edges if edge.norm > 0.0], dtype=np.int64)
        if not len(heads):
            return np.zeros(self.count)
        graph = sp.csr_array((np.ones(len(heads)), (tails, heads)), shape=(self.count, self.count))
        labels = connected_components(graph, connection="strong")[1]
        depth = np.zeros(int(labels.max()) + 1)
        across = labels[heads] != labels[tails]
        for _ in range(len(depth)):
            deeper = depth.copy()
            np.maximum.at(deeper, labels[heads[across]], depth[labels[tails[across]]] + 1.0)
            if (deeper == depth).all():
                break
            depth = deeper
        return np.asarray(depth[labels], dtype=np.float64)

    def sparse(self, x: Array) -> tuple[float, Array, Array]:
        """The rate of the k x k test at log s = x, its gradient, and its slope per coupling (relative growth)."""
        rows, columns, values, slopes = self.entries(x)
        matrix = sp.csr_array((values, (rows, columns)), shape=(self.count, self.count))
        value, v = _lowest(sp.diags_array(2.0 * self.rates) - matrix - matrix.T)
        gradient, weights = np.zeros(self.count), v[rows] * v[columns]  # value / 2 falls by weight * size
        np.subtract.at(gradient, rows, weights * slopes)
        np.add.at(gradient, columns, weights * slopes)
        return 0.5 * value, gradient, weights * values

    def entries(self, x: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
        """Row, column, size and slope of every pair, then of every coupling inside phi."""
        ends = [*self.pairs, *((edge.head, edge.tail) for edge in self.inside)]
        rows, columns = (np.array([end[side] for end in ends], dtype=np.int64) for side in (0, 1))
        values, slopes = np.zeros(len(ends)), np.zeros(len(ends))
        for n, ((i, j), (up, down)) in enumerate(self.pairs.items()):
            half = 0.5 * float(x[i] - x[j])
            if up is not None and down is not None:
                values[n], slopes[n] = _pair(up, down, half)
            else:  # one direction: the norm is known
                sign = 1.0 if up is not None else -1.0
                norm = self._norms[(i, j) if up is not None else (j, i)]
                values[n] = norm * math.exp(min(sign * half, 300.0))
                slopes[n] = 0.5 * sign * values[n]
        for n, edge in enumerate(self.inside, len(self.pairs)):
            values[n] = edge.norm * math.exp(min(0.5 * float(x[edge.head] - x[edge.tail]), 300.0))
            slopes[n] = 0.5 * values[n]
        return rows, columns, values, slopes

    def exact(self, x: Array) -> tuple[float, Array]:
        """The rate of the N x N test at log s = x, and its gradient."""
        matrix = np.diag(np.repeat(self.rates, self.sizes))
        for edge in self.edges:
            assert edge.matrix is not None
            ratio = math.exp(min(0.5 * (x[edge.head] - x[edge.tail]), 300.0))
            matrix[self._at(edge.head), self._at(edge.tail)] -= ratio * edge.matrix
        if not np.isfinite(matrix).all():
            return -1e300, np.zeros_like(x)
        values, vectors = scipy.linalg.eigh(matrix + matrix.T, subset_by_index=[0, 0], check_finite=False)
        v, gradient = vectors[:, 0], np.zeros(self.count)
        for edge in self.edges:
            assert edge.matrix is not None
            ratio = math.exp(min(0.5 * (x[edge.head] - x[edge.tail]), 300.0))
            pull = 0.5 * ratio * float(v[self._at(edge.head)] @ edge.matrix @ v[self._at(edge.tail)])
            gradient[edge.head] -= pull
            gradient[edge.tail] += pull
        return 0.5 * float(values[0]), gradient

    def size(self, head: int, tail: int, matrix: Array | None, x: Array) -> float:
        """Norm of a linear coupling between scaled modules."""
        if matrix is None:
            return 0.0
        return self._norms[head, tail] * math.exp(min(0.5 * float(x[head] - x[tail]), 300.0))

    def rate(self, x: Array, *, exact: bool) -> float:
        """The rate of either test at log s = x."""
        return self.exact(x)[0] if exact else self.sparse(x)[0]

    def _at(self, k: int) -> slice:
        return slice(int(self.starts[k]), int(self.starts[k + 1]))

    def best(self, *, exact: bool) -> tuple[float, Array]:
        """The best rate found, and log s."""
        from scipy.optimize import minimize  # not needed to read what a composition is

        def function(x: Array) -> tuple[float, Array]:
            value, gradient = self.exact(x) if exact else self.sparse(x)[:2]
            return -value, -gradient

        found: list[tuple[float, Array]] = []
        for start in self.starts_of():
            value = -function(start)[0]
            found.append((value, start))
            if self.count > 1 and self.edges:
                bounds = [(-_WIDEST, _WIDEST)] * self.count
                options: Any = {"maxiter": _STEPS, "maxcor": 10}
                improved: Any = minimize(function, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
                found.append((-float(improved.fun), np.asarray(improved.x)))
        return max(found, key=lambda entry: entry[0])


def _pair(up: Array, down: Array, half: float) -> tuple[float, float]:
    """norm(e^h Lhat_ij + e^-h Lhat_ji^T) and its derivative by log(s_i / s_j), h = log(s_i / s_j) / 2."""
    first, second = math.exp(min(half, 300.0)) * up, math.exp(min(-half, 300.0)) * down.T
    left, values, right = np.linalg.svd(first + second)
    return float(values[0]), 0.5 * float(left[:, 0] @ (first - second) @ right[0])


def _lowest(matrix: Any) -> tuple[float, Array]:
    """Lowest eigenvalue and its vector."""
    if matrix.shape[0] <= _DENSE:
        values, vectors = np.linalg.eigh(matrix.toarray())
        return float(values[0]), np.asarray(vectors[:, 0])
    values, vectors = eigsh(matrix.tocsc(), k=1, which="SA", v0=np.ones(matrix.shape[0]), tol=1e-10)
    return float(values[0]), np.asarray(vectors[:, 0])


def prove(
    assembly: Assembly,
    children: Sequence[Interface],
    edges: Sequence[Edge],
    *,
    exact: bool,
    modest: bool = False,
) -> Flow | None:
    """The best verified composition, or None.

    Args:
        assembly: modules and couplings.
        children: interfaces of the modules, in their order.
        edges: the couplings, whitened, in the order of the assembly.
        exact: the N x N test instead of the k x k one.
        modest: give up a little of the rate for scales that differ less: an assembly that is coupled again pays for a
            metric that is badly conditioned.
    """
    if exact and any(edge.matrix is None for edge in edges):
        return None
    rates = np.array([child.level for child in children])
    scales = Scales(rates, edges, [child.starts[-1] for child in children])
    rate, x = scales.best(exact=exact)
    if not rate > 0.0:
        return None
    x = x - x.mean()
    candidates = [(rate, x)]
    if modest:
        candidates.insert(0, _closer(scales, rate, x, exact=exact))
    if assembly.step is not None:  # the Euler map weighs the rate against the Lipschitz constant, and that the scales
        candidates += [(scales.rate(share * x, exact=exact), share * x) for share in _SHARES]
    found = [flow for rate, x in candidates if (flow := _proven(assembly, children, edges, scales, rate, x, exact))]
    if modest or not found:
        return next(iter(found), None)
    return (max if assembly.step is None else min)(found, key=lambda flow: flow.interface.level)


def _closer(scales: Scales, rate: float, x: Array, *, exact: bool) -> tuple[float, Array]:
    """The least share of log s that keeps nearly all of the rate."""
    low, high, best = 0.0, 1.0, rate
    goal = _MODEST * rate
    if (plain := scales.rate(0.0 * x, exact=exact)) >= goal:
        return plain, 0.0 * x
    for _ in range(12):
        middle = 0.5 * (low + high)
        value = scales.rate(middle * x, exact=exact)
        if value >= goal:
            high, best = middle, value
        else:
            low = middle
    return best, high * x


def _proven(
    assembly: Assembly,
    children: Sequence[Interface],
    edges: Sequence[Edge],
    scales: Scales,
    rate: float,
    x: Array,
    exact: bool,
) -> Flow | None:
    """The composition with these scales at the best rate that the verifier accepts."""
    node = Node(assembly, children)
    for back in BACK_OFFS:
        level = rate - back * max(rate, 1e-3 * float(scales.rates.max()))
        if not level > 0.0:
            break
        proof = _assembled(scales, x, edges, children, level, exact, assembly.step)
        if proof is None:
            continue
        report, interface = verify_flow(node, proof)
        if report.valid and interface is not None:
            return Flow(proof, interface, report, _slopes(scales, x, edges))
    return None


def _slopes(scales: Scales, x: Array, edges: Sequence[Edge]) -> Array:
    """Per coupling: by how much the rate of the k x k test falls when that coupling grows relatively.

    A pair that is coupled both ways shares the slope of its sum between the two couplings by their size.
    """
    _, _, per_pair = scales.sparse(x)
    found, sizes = np.zeros(len(edges)), {}
    for n, edge in enumerate(edges):
        sizes[n] = edge.norm * math.exp(min(0.5 * (x[edge.head] - x[edge.tail]), 300.0))
    members: dict[tuple[int, int], list[int]] = {}
    for n, edge in enumerate(edges):
        if edge.matrix is not None:
            members.setdefault((min(edge.head, edge.tail), max(edge.head, edge.tail)), []).append(n)
    for pair, slope in zip(scales.pairs, per_pair, strict=False):
        whole = sum(sizes[n] for n in members[pair])
        for n in members[pair]:
            found[n] = slope * sizes[n] / whole if whole > 0.0 else 0.0
    inside = [n for n, edge in enumerate(edges) if edge.matrix is None]
    for n, slope in zip(inside, per_pair[len(scales.pairs) :], strict=True):
        found[n] = slope
    return found


def _assembled(
    scales: Scales,
    x: Array,
    edges: Sequence[Edge],
    children: Sequence[Interface],
    level: float,
    exact: bool,
    step: float | None,
) -> FlowProof | None:
    """The arrays of the proof at a rate."""
    exponent = np.rint(x / math.log(4.0)).astype(np.int64)
    scale = np.exp(x - exponent * math.log(4.0))
    pairs, sigma = [], []
    if not exact:
        sizes = scales.entries(x)[2]
        for size, ((i, j), (up, down)) in zip(sizes, scales.pairs.items(), strict=False):
            # relative to 2^(e_i + e_j), and a little above: the verifier wants room
            unit = math.sqrt(scale[i] * scale[j])
            whole = scales.size(i, j, up, x) + scales.size(j, i, down, x)
            sigma.append(size * unit * (1.0 + 1e-9) + 1e-12 * whole * unit + 1e-290)
            pairs += [i, j]
    vector = np.ones(scales.count) if exact else _positive(scales, x, scale, exponent, pairs, sigma, level)
    if vector is None:
        return None
    norms = np.array([edge.norm * (1.0 + 1e-9) + 1e-290 for edge in edges])
    multipliers = [edge.multipliers for edge in edges if edge.multipliers is not None]
    proof = FlowProof(
        scale=scale,
        exponent=exponent,
        exact=exact,
        pairs=np.array(pairs, dtype=np.int64),
        sigma=np.array(sigma, dtype=np.float64),
        vector=vector,
        norms=norms,
        multipliers=np.concatenate([*multipliers, np.zeros(0)]),
        level=level,
        lipschitz=_lipschitz(x, edges, children, norms),
        factor=0.0,
    )
    return proof if step is None else _with_factor(proof, step)


def _with_factor(proof: FlowProof, step: float) -> FlowProof | None:
    """The same with the factor of the Euler map; None where there is none below 1."""
    square = float(euler_factor_squared(proof.level, proof.lipschitz, step)) if proof.lipschitz > 0.0 else 1.0
    factor = math.sqrt(max(square, 0.0)) * (1.0 + 1e-15) + 1e-300
    return replace(proof, factor=factor) if factor < 1.0 else None


def _lipschitz(x: Array, edges: Sequence[Edge], children: Sequence[Interface], norms: Array) -> float:
    """K of the whole: sqrt(norm_1 norm_inf), with room for rounding; 0 if a module has none."""
    known = [child.lipschitz for child in children]
    if any(value is None for value in known):
        return 0.0
    rows = np.array([value or 0.0 for value in known])
    columns = rows.copy()
    for edge, norm in zip(edges, norms, strict=True):
        size = norm * math.exp(min(0.5 * (x[edge.head] - x[edge.tail]), 300.0))
        rows[edge.head] += size
        columns[edge.tail] += size
    return float(np.sqrt(rows.max()) * np.sqrt(columns.max())) * (1.0 + 1e-9)


def _positive(
    scales: Scales,
    x: Array,
    scale: Array,
    exponent: NDArray[np.int64],
    pairs: Sequence[int],
    sigma: Sequence[float],
    level: float,
) -> Array | None:
    """v > 0 with H v > 0, from H v = diagonal; None if H is no M-matrix."""
    rows, columns = list(pairs[0::2]), list(pairs[1::2])
    values = [-size for size in sigma]
    for edge in scales.inside:
        shift = int(exponent[edge.head] - exponent[edge.tail])
        rows.append(edge.head)
        columns.append(edge.tail)
        values.append(-float(scale[edge.head]) * math.ldexp(edge.norm * (1.0 + 1e-9) + 1e-290, min(shift, 900)))
    off = sp.csr_array((values, (rows, columns)), shape=(scales.count, scales.count))
    diagonal = 2.0 * scale * (scales.rates - level)
    if not (diagonal > 0.0).all():
        return None
    # scaled to unit diagonal, so that very different scales do not spoil the solution
    root = np.sqrt(diagonal)
    matrix = sp.eye_array(scales.count) + sp.diags_array(1.0 / root) @ (off + off.T) @ sp.diags_array(1.0 / root)
    w = np.atleast_1d(spsolve(sp.csc_array(matrix), np.ones(scales.count)))
    v = w / root
    return v / v.max() if np.isfinite(v).all() and (v > 0.0).all() else None
