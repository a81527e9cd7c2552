"""Proofs that no diagonal Q reaches a level: dual columns for uniform leak and for weighted norms.

Let M be the weights with the gaps of the slopes, h(u) = c0 + r0 u and t the functional of a level
(:mod:`certes.engines.families`). If columns y_k in C^n, not all zero, and points u_k of the unit disk satisfy for
every row i

    sum_k Re(h(u_k) conj(y_ik) (M y_k)_i) - t abs(y_ik)^2 >= 0                      (rate, factor, level)
    sum_k abs((M y_k)_i)^2 - s^2 abs(y_ik)^2 >= 0                                   (norm, at level s)

then multiplying row i by q_i > 0 and summing shows that no diagonal Q > 0 makes t Q - Re(h Q M) positive definite for
all abs(u) <= 1, or s^2 Q - M^T Q M: the level is out of reach (docs/theory.md, optimality).

Such columns are found near a nearly optimal q: at the angles where the field of values of A = Q^1/2 M Q^-1/2 comes
close to the conic, the leading eigenvectors of Re(h A) span a small subspace, and phase one on these subspaces
(:mod:`certes.engines.subspace`) gives either the columns or a q' that the subspaces allow. At q' the eigenvectors are
computed anew and added, as in the spectral bundle method (C. Helmberg, F. Rendl, SIAM J. Optim. 10 (2000)).
Floats only: columns are a proposal that certes.verify has to check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from certes.engines.conic import scaled
from certes.engines.families import Family, Functional, Norm
from certes.engines.monitor import Monitor
from certes.engines.subspace import Block, phase_one

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Matrix = NDArray[Any]

#: Relative slack that every row of a proof keeps, so that outward rounding accepts it.
SLACK = 1e-9
#: Entries of columns below this are set to zero: their squares would leave the normal range of floats.
_SMALLEST = 1e-150
#: Couplings between rows below this share of gap * level / n do not count as connecting them.
_CONNECTS = 0.01
#: Angles in [0, pi] at which the field of values is first looked at.
_GRID = 9
#: Distance (radians) between two subspaces on an arc where the field of values stays close to the conic.
_SPACING = 0.12
#: How far (relative) below the level such an arc may be.
_NEAR = 0.03
#: Rounds of phase one before the gap is given up, and by how much it then grows.
_ROUNDS = 25
_WIDEN = 3.0
#: Order from which leading eigenvectors come from Lanczos iterations.
_LANCZOS = 400


@dataclass(frozen=True, eq=False)
class Columns:
    """Dual columns y_k, weights folded in, and their points u_k.

    Attributes:
        u: points of the unit disk, shape (r,), complex; not used for norms.
        y: shape (n, r), complex; real numbers for norms.
    """

    u: Complex
    y: Complex


@dataclass(frozen=True, eq=False)
class Dual:
    """A proof of a bound, and what was learnt about q on the way.

    Attributes:
        level: no diagonal Q reaches this level.
        q: the given multipliers or better ones, shape (n,).
        best: a level that q reaches.
        columns: the dual columns that prove ``level``.
    """

    level: float
    q: Array
    best: float
    columns: Columns


@dataclass(frozen=True, eq=False)
class _Rows:
    """Sums over the columns of which every row inequality is made; row i is scaled by a power of four.

    Attributes:
        plain: sum_k Re(conj(y_ik) (M y_k)_i).
        turned: sum_k Re(u_k conj(y_ik) (M y_k)_i).
        image: sum_k abs((M y_k)_i)^2.
        weight: sum_k abs(y_ik)^2.
        size: sum_k abs(y_ik) (abs(M) abs(y_k))_i.
        image_size: sum_k (abs(M) abs(y_k))_i^2.
    """

    plain: Array
    turned: Array
    image: Array
    weight: Array
    size: Array
    image_size: Array

    @classmethod
    def of(cls, m: Array, columns: Columns) -> _Rows:
        """The nonzero rows."""
        support = np.abs(columns.y).max(axis=1) > 0.0
        y = columns.y[support]
        scale = np.ldexp(1.0, -np.frexp(np.abs(y).max(axis=1))[1])[:, None]
        image = (m[support] @ columns.y) * scale
        bound = (np.abs(m[support]) @ np.abs(columns.y)) * scale
        y = y * scale
        products = y.conj() * image
        return cls(
            products.real.sum(axis=1),
            (products * columns.u).real.sum(axis=1),
            (np.abs(image) ** 2).sum(axis=1),
            (np.abs(y) ** 2).sum(axis=1),
            (np.abs(y) * bound).sum(axis=1),
            (bound**2).sum(axis=1),
        )

    def slack(self, family: Family, level: float) -> float:
        """See :func:`residual`."""
        if not len(self.weight):
            return -np.inf
        if _is_norm(family):
            square = level * level * self.weight
            return float(((self.image - square) / (self.image_size + square)).min())
        f = family.functional(level)
        if not (np.isfinite(f.t) and f.t > 0.0):
            return -np.inf
        value = f.c0 * self.plain + f.r0 * self.turned - f.t * self.weight
        return float((value / ((abs(f.c0) + f.r0) * self.size + f.t * self.weight)).min())


def residual(m: Array, family: Family, level: float, columns: Columns) -> float:
    """The worst relative slack of the row inequalities, in float arithmetic; -inf if there are no columns.

    The slack of row i is its left side (module docstring) divided by the sum of the moduli of all its terms,

        sum_k (abs(c0) + r0) abs(y_ik) (abs(M) abs(y_k))_i + t abs(y_ik)^2
        sum_k (abs(M) abs(y_k))_i^2 + s^2 abs(y_ik)^2                           (norm),

    so it lies in [-1, 1], and evaluation with outward rounding accepts a row whose slack exceeds a small multiple of
    n times the unit roundoff. Rows in which every y_ik is zero hold exactly and are left out.

    Args:
        m: M of the module docstring, shape (n, n).
        family: which level is meant.
        level: the level that is said to be out of reach.
        columns: the dual columns.
    """
    return _Rows.of(m, columns).slack(family, level)


def prove(
    m: Array,
    family: Family,
    q: Array,
    level: float,
    *,
    gap: float,
    columns: Columns | None = None,
    monitor: Monitor | None = None,
) -> Dual | None:
    """Columns proving that no diagonal Q reaches a level only ``gap`` better than what q reaches.

    A gap that cannot be proven is widened by factors of three.

    Args:
        m: M of the module docstring, shape (n, n), finite.
        family: which level is meant: Rate, Factor, Level or Norm.
        q: nearly optimal multipliers, shape (n,).
        level: what q reaches.
        gap: how much better, relative as in ``family.relax``.
        columns: columns found before, for instance by whoever optimised q; added to the subspaces.
        monitor: when to stop.

    Returns:
        The proof with the smallest gap found, or None: no bound was found (levels that every matrix reaches have none).
    """
    monitor = Monitor() if monitor is None else monitor
    found: Dual | None = None
    for rows in _components(scaled(m, q), family, level, gap):
        part = np.ix_(rows, rows)
        dual = _Search(m[part], q[rows], family, level, len(rows) == len(m), monitor).run(gap, _part(columns, rows))
        if dual is not None:
            whole = Columns(dual.columns.u, np.zeros((len(m), dual.columns.y.shape[1]), dtype=complex))
            whole.y[rows] = dual.columns.y
            better = replace(dual, columns=whole, q=dual.q if len(rows) == len(m) else q)
            if found is None or family.worst(np.array([found.level, better.level])) == better.level:
                found = better
        if found is not None and _reached(family, level, found.level, gap):
            break
    return found


def _is_norm(family: Family) -> bool:
    return isinstance(family, Norm)


def _reached(family: Family, level: float, bound: float, gap: float) -> bool:
    """Whether a bound is within the gap of the level."""
    goal = family.relax(level, -gap)
    return family.worst(np.array([goal, bound])) == bound


def _part(columns: Columns | None, rows: NDArray[np.intp]) -> Columns | None:
    return None if columns is None else Columns(columns.u, columns.y[rows])


def _size(family: Family, level: float) -> float:
    """t / max abs(h): the modulus that a point of the field of values may have."""
    if _is_norm(family):
        return level
    f = family.functional(level)
    return f.t / (abs(f.c0) + f.r0)


def _components(a: Array, family: Family, level: float, gap: float) -> list[NDArray[np.intp]]:
    """Strongly connected sets of rows, the one with the largest norm first; columns on one of them prove for all."""
    size = _size(family, level)
    if not size > 0.0:
        return []
    connected = sp.csr_array((np.abs(a) > _CONNECTS * gap * size / len(a)).astype(np.int8))
    labels = connected_components(connected, connection="strong")[1]
    sets = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    norms = [float(np.linalg.norm(a[np.ix_(rows, rows)])) for rows in sets]
    order = np.argsort(norms)[::-1]
    return [sets[k] for k in order if norms[k] >= 0.5 * size]


class _Search:
    """Subspaces in the coordinates of A = Q^1/2 M Q^-1/2 for the given q; better ones are q * x."""

    def __init__(self, m: Array, q: Array, family: Family, level: float, whole: bool, monitor: Monitor) -> None:
        self.m, self.q, self.family, self.monitor, self.whole = m, q, family, monitor, whole
        self.a = scaled(m, q)
        self.n = len(m)
        self.rank = min(self.n, 8 + int(1.6 * np.sqrt(self.n)))
        self.level, self.x = level, np.ones(self.n)
        self.subspaces: list[tuple[complex, Matrix]] = []

    def run(self, gap: float, columns: Columns | None) -> Dual | None:
        """Alternate between phase one and eigenvectors at its points."""
        self._enter(np.ones(self.n), True)
        if columns is not None:
            self._enter_columns(columns)
        for _ in range(_ROUNDS):
            if self.monitor.over:
                break
            dual, point = self._attempt(gap)
            if dual is not None:
                return dual
            if point is None:
                break
            self._enter(point, False)
        while gap < 1.0:
            gap *= _WIDEN
            dual, _ = self._attempt(gap)
            if dual is not None:
                return dual
        return None

    def _attempt(self, gap: float) -> tuple[Dual | None, Array | None]:
        goal = self.family.relax(self.level, -gap)
        unit = _size(self.family, goal)
        if not unit > 0.0:
            return None, None
        blocks = [self._block(u, basis, goal) for u, basis in self.subspaces]
        magnitude = np.abs(self.a) / unit

        def allowance(matrices: tuple[Matrix, ...]) -> Array:
            weight = np.zeros(self.n)
            for (_, basis), s in zip(self.subspaces, matrices, strict=True):
                weight += np.maximum(((basis @ s) * basis.conj()).sum(axis=1).real, 0.0)
            root = np.sqrt(weight)
            other = magnitude @ root
            return 100.0 * SLACK * (weight + (other**2 if _is_norm(self.family) else root * other))

        outcome = phase_one(blocks, allowance, np.ones(self.n))
        if outcome.dual is None:
            return None, outcome.point
        return self._finish(outcome.dual, goal, gap), None

    def _block(self, u: complex, basis: Matrix, goal: float) -> Block:
        """Row i is the left side of its inequality as a Hermitian form on the subspace, in units of t."""
        image = self.a @ basis
        if _is_norm(self.family):
            image = image / goal
            return Block(0.5 * (image - basis), image + basis)
        f = self.family.functional(goal)
        h = f.c0 + f.r0 * u
        factor = h.real if np.isrealobj(basis) else h
        return Block(basis, 0.5 * ((factor / f.t) * image - basis))

    def _finish(self, matrices: tuple[Matrix, ...], goal: float, gap: float) -> Dual | None:
        """Columns of S^k, the fewest that keep the slack, and the best level that they prove."""
        parts, points, weights = [], [], []
        for (u, basis), s in zip(self.subspaces, matrices, strict=True):
            values, vectors = np.linalg.eigh(s)
            keep = values > 0.0
            parts.append((basis @ (vectors[:, keep] * np.sqrt(values[keep]))).astype(np.complex128))
            points.append(np.full(int(keep.sum()), u))
            weights.append(values[keep])
        y = np.concatenate(parts, axis=1) / np.sqrt(self.q)[:, None]
        y = y * np.ldexp(1.0, -int(np.frexp(np.abs(y).max())[1]))
        y[np.abs(y) < _SMALLEST] = 0.0
        all_u, weight = np.concatenate(points), np.concatenate(weights)
        for negligible in (1e-3, 1e-4, 1e-6, 1e-9, 0.0):
            keep = weight >= negligible * weight.max()
            columns = Columns(all_u[keep], y[:, keep])
            rows = _Rows.of(self.m, columns)
            if rows.slack(self.family, goal) >= SLACK:
                low, high = 0.0, gap
                for _ in range(30):
                    middle = 0.5 * (low + high)
                    proven = rows.slack(self.family, self.family.relax(self.level, -middle)) >= SLACK
                    low, high = (low, middle) if proven else (middle, high)
                q = self.q * self.x
                return Dual(self.family.relax(self.level, -high), q / np.exp(np.log(q).mean()), self.level, columns)
        return None

    def _enter_columns(self, columns: Columns) -> None:
        v = columns.y * np.sqrt(self.q)[:, None]
        for u in np.unique(columns.u):
            self._add(complex(u), v[:, columns.u == u])

    def _add(self, u: complex, vectors: Matrix) -> None:
        if (_is_norm(self.family) or u.imag == 0.0) and np.iscomplexobj(vectors):
            vectors = np.concatenate([vectors.real, vectors.imag], axis=1)
        near = [k for k, (other, _) in enumerate(self.subspaces) if other == u]
        if near:
            vectors = np.concatenate([self.subspaces[near[0]][1], vectors], axis=1)
        basis, r, _ = scipy.linalg.qr(vectors, mode="economic", pivoting=True)
        size = np.abs(np.diagonal(r))
        basis = basis[:, : int((size > 1e-3 * size[0]).sum())]
        if near:
            self.subspaces[near[0]] = (u, basis)
        else:
            self.subspaces.append((u, basis))

    def _enter(self, x: Array, arcs: bool) -> None:
        """Add the leading eigenvectors at q * x; keep x if it is the best so far."""
        a = scaled(self.a, x)
        root = np.sqrt(x)[:, None]
        if _is_norm(self.family):
            values, vectors = _leading(a.T @ a, self.rank)
            reached = float(np.sqrt(values[-1]))
            self._add(1.0, vectors / root)
        else:
            survey = _Survey(a, self.family.functional(self.level))
            reached = self.family.worst(self.family.of_point(np.array(survey.z)))
            for theta in survey.angles(arcs):
                self._add(_point(theta), survey.vectors(theta, self.rank) / root)
        if not arcs and self.family.worst(np.array([self.level, reached])) == self.level != reached:
            self.level, self.x = reached, x


def _point(theta: float) -> complex:
    """exp(i theta), not outside the unit disk."""
    if theta <= 0.0:
        return 1.0 + 0.0j
    if theta >= np.pi:
        return -1.0 + 0.0j
    return complex((1.0 - 4.0 * np.finfo(float).eps) * np.exp(1j * theta))


def _leading(a: Matrix, k: int) -> tuple[Array, Matrix]:
    """The k largest eigenvalues, ascending, with eigenvectors, of a Hermitian matrix."""
    n = len(a)
    if n >= _LANCZOS and 3 * k < n:
        start = np.ones(n) / np.sqrt(n)
        values, vectors = scipy.sparse.linalg.eigsh(a, k=k, which="LA", v0=start, tol=1e-4, ncv=2 * k + 10)
        order = np.argsort(values)
        return values[order], vectors[:, order]
    values, vectors = scipy.linalg.eigh(a, subset_by_index=[n - k, n - 1], driver="evr", check_finite=False)
    return values, vectors


class _Survey:
    """Where the field of values of A comes close to the conic: points z, and max over z of Re(h(theta) z)."""

    def __init__(self, a: Array, functional: Functional) -> None:
        self.a, self.functional = a, functional
        self.tops: dict[float, tuple[Array, Matrix]] = {}
        self.z: list[complex] = []
        for theta in np.linspace(0.0, np.pi, _GRID):
            self._look(float(theta), 1)
        self.fine = np.linspace(0.0, np.pi, 257)
        for _ in range(12):
            theta = float(self.fine[np.argmax(self._model())])
            if theta in self.tops:
                break
            self._look(theta, 1)

    def _h(self, theta: float) -> complex:
        return self.functional.c0 + self.functional.r0 * _point(theta)

    def _look(self, theta: float, k: int) -> Matrix:
        h = self._h(theta)
        if abs(h) <= 1e-12:
            self.z.append(0j)
            return np.eye(len(self.a))[:, :k]
        part = 0.5 * h.real * (self.a + self.a.T)
        turned = part if h.imag == 0.0 else part + 0.5j * h.imag * (self.a - self.a.T)
        values, vectors = _leading(turned, k)
        self.tops[theta] = (values, vectors)
        self.z.append(complex(np.vdot(vectors[:, -1], self.a @ vectors[:, -1])))
        return vectors

    def _model(self) -> Array:
        """A lower bound of the largest eigenvalue at the fine angles, exact at those that were looked at."""
        z = np.array(self.z)
        h = self.functional.c0 + self.functional.r0 * np.exp(1j * self.fine)
        return np.asarray(np.maximum((h[:, None] * z).real, (h[:, None] * z.conj()).real).max(axis=1))

    def angles(self, arcs: bool) -> Iterator[float]:
        """Angles of the local maxima near the largest value; with ``arcs`` also the arcs around them."""
        model = self._model()
        padded = np.pad(model, 1, constant_values=-np.inf)
        near = model >= (1.0 - _NEAR) * model.max()
        peak = near & (model >= padded[:-2]) & (model >= padded[2:])
        chosen: list[float] = []
        for theta in self.fine[peak][np.argsort(-model[peak])]:
            if all(abs(theta - other) > 0.02 for other in chosen):
                chosen.append(float(theta))
        if arcs:
            for theta in self.fine[near]:
                if all(abs(theta - other) >= _SPACING for other in chosen):
                    chosen.append(float(theta))
        return iter(chosen)

    def vectors(self, theta: float, k: int) -> Matrix:
        """The k leading eigenvectors at an angle."""
        return self._look(theta, k)
