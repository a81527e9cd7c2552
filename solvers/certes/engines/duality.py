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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from certes.engines.conic import reaches, scaled
from certes.engines.families import Family, Norm
from certes.engines.monitor import Monitor
from certes.engines.subspace import Block, phase_one
from certes.engines.survey import Survey, disk_point, leading

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Matrix = NDArray[Any]

#: Relative slack that every row of a proof keeps, so that outward rounding accepts it.
SLACK = 1e-9
#: Entries of columns below this are set to zero: their squares would leave the normal range of floats.
_SMALLEST = 1e-150
#: Couplings between rows below this share of gap * level / n do not count as connecting them.
_CONNECTS = 0.01
#: Rounds of phase one with the gap that was asked for, and the factor by which it grows in every later round.
_PATIENCE, _GROWTH = 6, 1.3
#: Rounds, at most; after them, or when time is over, the gap grows by larger factors and no subspace does.
_ROUNDS, _WIDEN = 25, 3.0
#: Newton steps spent after a proof is there, to have fewer columns.
_POLISH = 3
#: Singular directions of a subspace below this share of the largest one are left out.
_INDEPENDENT = 1e-3
#: Relative step back from the level seen at improved multipliers, which the exact test must confirm.
_BACK = 1e-5


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
        if isinstance(family, Norm):
            square = level * level * self.weight
            return float(((self.image - square) / (self.image_size + square)).min())
        f = family.functional(level)
        if not (np.isfinite(f.t) and f.t > 0.0):
            return -np.inf
        value = f.c0 * self.plain + f.r0 * self.turned - f.t * self.weight
        return float((value / ((abs(f.c0) + f.r0) * self.size + f.t * self.weight)).min())

    def best(self, family: Family, level: float, gap: float) -> float:
        """The level closest to ``level`` that the columns prove, no further away than ``gap``, which they do prove."""
        low, high = 0.0, gap
        for _ in range(30):
            middle = 0.5 * (low + high)
            proven = self.slack(family, family.relax(level, -middle)) >= SLACK
            low, high = (low, middle) if proven else (middle, high)
        return family.relax(level, -high)


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
        search = _Search(m[np.ix_(rows, rows)], family, q[rows], level, monitor)
        part = search.run(gap, None if columns is None else Columns(columns.u, columns.y[rows]))
        if part is not None and (found is None or _not_better(family, part.level, found.level)):
            found = _spread(m, family, q, level, rows, part)
        if found is not None and _not_better(family, found.level, family.relax(found.best, -gap)):
            break
    return found


def _not_better(family: Family, level: float, other: float) -> bool:
    """Whether ``level`` is not easier to beat than ``other``: for bounds, whether the first is at least as tight."""
    return family.worst(np.array([level, other])) == level


def _spread(m: Array, family: Family, q: Array, level: float, rows: NDArray[np.intp], part: Dual) -> Dual:
    """A proof on some rows as a proof for all; multipliers improved on these rows are kept if all of M confirms."""
    y = np.zeros((len(m), part.columns.y.shape[1]), dtype=np.complex128)
    y[rows] = part.columns.y
    whole = replace(part, q=q, best=level, columns=Columns(part.columns.u, y))
    if part.best == level:
        return whole
    better = q.copy()
    better[rows] = part.q
    better = better / np.exp(np.log(better).mean())
    for best in (family.relax(part.best, back) for back in (0.0, _BACK, 10.0 * _BACK)):
        if len(rows) == len(m) or (not _not_better(family, best, level) and reaches(scaled(m, better), family, best)):
            return replace(whole, q=better, best=best)
    return whole


def _size(family: Family, level: float) -> float:
    """t / max abs(h): the modulus that a point of the field of values may have."""
    if isinstance(family, Norm):
        return level
    f = family.functional(level)
    return f.t / (abs(f.c0) + f.r0)


def _components(a: Array, family: Family, level: float, gap: float) -> Iterator[NDArray[np.intp]]:
    """Sets of rows, each strongly connected and of sufficient norm: columns on one of them prove for all.

    First the sets that remain when small couplings are ignored, then those of the exact pattern.
    """
    size = _size(family, level)
    if not 0.0 < size < np.inf:
        return
    magnitude = np.abs(a)
    yielded: list[tuple[int, ...]] = []
    for least in (_CONNECTS * gap * size / len(a), 0.0):
        labels = connected_components(sp.csr_array((magnitude > least).astype(np.int8)), connection="strong")[1]
        sets = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
        norms = [float(np.linalg.norm(a[np.ix_(rows, rows)] / size)) for rows in sets]
        for k in np.argsort(norms)[::-1]:
            if 2.0 * norms[k] >= 1.0 and tuple(sets[k]) not in yielded:
                yielded.append(tuple(sets[k]))
                yield sets[k]


class _Search:
    """Subspaces in the coordinates of A = Q^1/2 M Q^-1/2 for the given q; better multipliers are q * x."""

    def __init__(self, m: Array, family: Family, q: Array, level: float, monitor: Monitor) -> None:
        self.m, self.family, self.q, self.level, self.monitor = m, family, q, level, monitor
        self.n = len(m)
        self.a = scaled(m, q)
        self.x = np.ones(self.n)
        self.subspaces: dict[complex, Matrix] = {}

    def run(self, gap: float, columns: Columns | None) -> Dual | None:
        """Alternate between phase one and eigenvectors at the points that it allows."""
        self._look(self.x, True)
        if columns is not None:
            vectors = columns.y * np.sqrt(self.q)[:, None]
            for u in np.unique(columns.u):
                self._add(complex(u), vectors[:, columns.u == u])
        for k in range(_ROUNDS):
            if self.monitor.over:
                break
            gap *= _GROWTH if k >= _PATIENCE else 1.0
            found = self._attempt(gap)
            if isinstance(found, Dual):
                return found
            if found is None:
                break
            self._look(found, False)
        while gap < 1.0 and self.monitor.why != "cancelled":
            gap *= _WIDEN
            found = self._attempt(gap)
            if isinstance(found, Dual):
                return found
        return None

    def _attempt(self, gap: float) -> Dual | Array | None:
        """A proof, or multipliers that the subspaces allow (or nearly), or None: the gap leaves no level to ask for."""
        goal = self.family.relax(self.level, -gap)
        if not 0.0 < _size(self.family, goal) < np.inf:
            return None
        blocks = [self._block(u, basis, goal) for u, basis in self.subspaces.items()]
        dual: Dual | None = None
        point, after = None, 0
        for step in phase_one(blocks):
            point = step.x
            if (step.rows > 0.0).all():
                fresh = self._proof(step.dual, goal, gap)
                if fresh is not None and (dual is None or fresh.columns.u.size < dual.columns.u.size):
                    dual = fresh
            after += dual is not None
            if after > _POLISH or step.settled or (dual is None and step.tau < 0.0):
                break
        if dual is not None or point is None:
            return dual
        return self._nearest(blocks, point)

    def _nearest(self, blocks: Sequence[Block], point: Array) -> Array:
        """The point closest to the best x on the way to ``point`` that the subspaces allow."""
        ends = [(block.combine(self.x), block.combine(point)) for block in blocks]
        low, high = 0.0, 1.0
        for _ in range(6):
            share = 0.5 * (low + high)
            top = max(float(np.linalg.eigvalsh((1.0 - share) * x + share * y)[-1]) for x, y in ends)
            low, high = (low, share) if top <= 0.0 else (share, high)
        return np.asarray((1.0 - high) * self.x + high * point)

    def _block(self, u: complex, basis: Matrix, goal: float) -> Block:
        """Row i is the left side of its inequality as a Hermitian form on the subspace, in units of t."""
        image = self.a @ basis
        if isinstance(self.family, Norm):
            image = image / goal
            return Block(0.5 * (image - basis), image + basis)
        f = self.family.functional(goal)
        h = f.c0 + f.r0 * u
        factor = h if np.iscomplexobj(basis) else h.real
        return Block(basis, 0.5 * ((factor / f.t) * image - basis))

    def _proof(self, matrices: Sequence[Matrix], goal: float, gap: float) -> Dual | None:
        """Columns of S^k, as few as keep the slack, and the best level that they prove."""
        parts, points, weights = [], [], []
        for (point, basis), s in zip(self.subspaces.items(), matrices, strict=True):
            values, vectors = np.linalg.eigh(s)
            values = np.maximum(values, 0.0)
            parts.append((basis @ (vectors * np.sqrt(values))).astype(np.complex128))
            points.append(np.full(len(values), point))
            weights.append(values)
        y: Complex = np.concatenate(parts, axis=1)
        u, weight = np.concatenate(points).astype(np.complex128), np.concatenate(weights)
        y /= np.sqrt(self.q)[:, None]
        y *= np.ldexp(1.0, -int(np.frexp(np.abs(y).max())[1]))
        y[np.abs(y) < _SMALLEST] = 0.0
        for negligible in (3e-2, 3e-3, 3e-4, 3e-5, 1e-7, 1e-10, 0.0):
            keep = weight >= negligible * weight.max()
            columns = Columns(u[keep], y[:, keep])
            rows = _Rows.of(self.m, columns)
            if rows.slack(self.family, goal) >= SLACK:
                level = rows.best(self.family, self.level, gap)
                return Dual(level, self.q * self.x, self.level, columns)
        return None

    def _add(self, u: complex, vectors: Matrix) -> None:
        """Enlarge the subspace at a point of the disk."""
        if (isinstance(self.family, Norm) or u.imag == 0.0) and np.iscomplexobj(vectors):
            vectors = np.concatenate([vectors.real, vectors.imag], axis=1)
        if u in self.subspaces:
            vectors = np.concatenate([self.subspaces[u], vectors], axis=1)
        basis, triangle, _ = scipy.linalg.qr(vectors, mode="economic", pivoting=True, check_finite=False)
        size = np.abs(np.diagonal(triangle))
        self.subspaces[u] = basis[:, : int((size > _INDEPENDENT * size[0]).sum())]

    def _rank(self, real: bool) -> int:
        """Eigenvectors taken at an angle; real ones cost and bring a third of complex ones."""
        count = 8 + int(1.6 * np.sqrt(self.n))
        return min(self.n, 3 * count if real else count)

    def _look(self, x: Array, first: bool) -> None:
        """Add the leading eigenvectors at q * x; keep x if it is the best so far."""
        a = scaled(self.a, x)
        root = np.sqrt(x)[:, None]
        if isinstance(self.family, Norm):
            values, vectors = leading(a.T @ a, self._rank(True))
            reached = float(np.sqrt(max(float(values[-1]), 0.0)))
            self._add(1.0 + 0.0j, vectors / root)
        else:
            survey = Survey(a, self.family.functional(self.level))
            reached = self.family.worst(self.family.of_point(np.array(survey.z)))
            for theta in survey.angles(first):
                u = disk_point(theta)
                self._add(u, survey.vectors(theta, self._rank(u.imag == 0.0)) / root)
        reached = self.family.relax(reached, _BACK)
        if not first and not _not_better(self.family, reached, self.level) and reaches(a, self.family, reached):
            self.level, self.x = reached, x
