"""Extreme points of the field of values of A = D M D^-1, D = diag(exp d), while d keeps changing.

The half plane Re(h z) <= t touches the field of values F(A) at v* A v, v a top eigenvector of the Hermitian part of
h A. Small matrices are decomposed. For larger ones a real subspace span(Y) of R^n is kept whatever d is: F of the
matrix compressed to D span(Y) lies inside F(A), costs no product with M, and grows by residuals (block Davidson without
a preconditioner, that is block Krylov with a memory) until its extreme points are good enough. Eigenvectors at several
angles and several d share the subspace, and M is real, so that real columns serve both an angle and its negative.

For :class:`Norm` the matrix is A^T A, with the same words.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import lapack

from certes.engines.families import Family, Functional, Norm
from certes.engines.monitor import Monitor

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Matrices up to this size are decomposed as a whole.
DENSE = 160
#: The same where the region is close to a disk: there so many angles are active that no small subspace serves them.
DENSE_ROUND = 512
#: A region is close to a disk if its h(theta) = c0 + r0 exp(i theta) have c0 below this share of r0.
_ROUND = 0.7
#: Columns of the subspace, at most; a restart keeps about half.
WIDEST = 140
#: Angles closer than this count as one.
APART = 0.02
#: Angles at which every look that matters tests whether a maximum was missed.
GRID = (0.0, 0.06, 0.12, 0.19, 0.27, 0.36, 0.46, 0.58, 0.72, 0.9, 1.1, 1.35, 1.6, 1.9, 2.2, 2.5, 2.8, math.pi)
#: Rounds of residuals for one look, at most.
_ROUNDS = 60


@dataclass(frozen=True, eq=False)
class Ray:
    """Top eigenvectors v at one angle.

    Attributes:
        theta: the angle, in [0, pi].
        y: D^-1 v, shape (n, k), best first.
        my: M y, shape (n, k).
        prices: of the points v* A v, shape (k,).
        values: the eigenvalues, shape (k,).
        target: the angle of a half plane that is worse for the first v.
    """

    theta: float
    y: Complex
    my: Complex
    prices: Array
    values: Array
    target: float

    @property
    def price(self) -> float:
        """The largest price found at this angle."""
        return float(self.prices.max())


@dataclass(frozen=True)
class Bar:
    """When to look for a maximum that was missed, and how much higher it has to be to matter."""

    limit: float
    slack: float


class _View:
    """A, or its compression to a subspace, for one d."""

    def __init__(self, matrix: Array, gram: bool) -> None:
        self.symmetric = 0.5 * (matrix + matrix.T)
        self.skew = None if gram else 0.5 * (matrix - matrix.T)
        self.matrix = matrix

    def part(self, h: complex) -> Array | Complex:
        """The Hermitian part of h A; real where h is."""
        if self.skew is None or abs(h.imag) <= 1e-14 * abs(h):
            return h.real * self.symmetric
        return h.real * self.symmetric + (1j * h.imag) * self.skew

    def below(self, functional: Functional, theta: float) -> bool:
        """Whether Re(h z) < t on the field of values, by one Cholesky decomposition."""
        part = -self.part(functional.direction(theta))
        part[np.diag_indices(len(part))] += functional.t
        try:
            return bool(np.isfinite(np.linalg.cholesky(part)).all())
        except np.linalg.LinAlgError:
            return False

    def crossings(self, functional: Functional) -> list[float]:
        """Angles in [0, pi] where t is an eigenvalue of the Hermitian part of h A, ascending.

        With exp(i theta) = (1 + s) / (1 - s) they are the imaginary eigenvalues s of a quadratic matrix polynomial.
        Its leading matrix is positive definite where theta = pi is below the level; else pi itself is returned.
        """
        size = len(self.matrix)
        identity = 2.0 * functional.t * np.eye(size)
        leading = identity + 2.0 * (functional.r0 - functional.c0) * self.symmetric
        factor, info = lapack.dpotrf(leading, lower=1)
        if info != 0 or self.skew is None:
            return [math.pi]
        constant = 2.0 * (functional.r0 + functional.c0) * self.symmetric - identity
        rows = np.hstack([-constant, -4.0 * functional.r0 * self.skew])
        lower = lapack.dpotrs(factor, rows, lower=1)[0]
        upper = np.hstack([np.zeros((size, size)), np.eye(size)])
        s = np.linalg.eigvals(np.vstack([upper, lower]))
        near = np.abs(s.real) <= 1e-6 * (1.0 + np.abs(s))
        return sorted(2.0 * math.atan(value) for value in s[near].imag if value >= 0.0)

    def top(self, functional: Functional, theta: float, count: int) -> tuple[Array, Complex, Complex]:
        """(eigenvalues, vectors, points v* A v) for the largest ``count`` eigenvalues, best first."""
        size = len(self.matrix)
        values, found = _eigh(self.part(functional.direction(theta)), max(size - count, 0))
        vectors = np.asarray(found[:, ::-1], dtype=np.complex128)
        return values[::-1], vectors, np.einsum("ik,ik->k", vectors.conj(), self.matrix @ vectors)


def _eigh(part: Array | Complex, first: int) -> tuple[Array, Array | Complex]:
    """Eigenvalues and eigenvectors of a Hermitian matrix from the ``first`` on, ascending."""
    if np.iscomplexobj(part):
        values, vectors, count, _, info = lapack.zheevr(part, range="I", il=first + 1, iu=len(part), lower=1)
    else:
        values, vectors, count, _, info = lapack.dsyevr(part, range="I", il=first + 1, iu=len(part), lower=1)
    if info != 0 or count < len(part) - first:
        if not np.isfinite(part).all():
            return np.full(len(part) - first, np.nan), np.full((len(part), len(part) - first), np.nan)
        full = np.linalg.eigh(part)
        return np.asarray(full[0][first:]), np.asarray(full[1][:, first:])
    return np.asarray(values[:count]), np.asarray(vectors[:, :count])


class Field:
    """The field of values of D M D^-1 for a family; see the module's docstring.

    Args:
        m: M, shape (n, n).
        family: whose functionals are meant.
        count: eigenvectors taken at an angle.
        monitor: when to be content with what the subspace gives.
    """

    def __init__(self, m: Array, family: Family, count: int = 4, monitor: Monitor | None = None) -> None:
        self.m, self.family, self.monitor = m, family, monitor or Monitor()
        self.gram = isinstance(family, Norm)
        self.count = min(count, len(m))
        self.dense = len(m) <= (DENSE_ROUND if _is_round(family) else DENSE)
        self.y = self.my = np.zeros((len(m), 0))
        self.products = 0
        if not self.dense:
            rng = np.random.default_rng(len(m))
            self._append(np.ones(len(m)), rng.standard_normal((len(m), 8)))

    def missed(self, d: Array, price: float) -> list[float]:
        """Angles, one for every arc where Re(h z) exceeds the half planes of this price (exact if dense)."""
        (view, _), functional = self._view(d), self.family.border(price)
        ends = view.crossings(functional)
        arcs = [0.0, *(0.5 * (a + b) for a, b in itertools.pairwise(ends)), math.pi]
        return [theta for theta in arcs if not view.below(functional, theta)]

    def glance(self, d: Array, price: float, thetas: Iterable[float], bar: Bar | None, fine: float) -> list[Ray]:
        """Extreme points near the given angles, climbing, without a product with M (exact if dense).

        Args:
            d: scaling, shape (n,).
            price: of the family; the half planes are those that touch the region up to this price.
            thetas: angles to start from.
            bar: if no price at ``thetas`` exceeds its limit, test on :data:`GRID` whether a maximum was missed.
            fine: stop climbing where an angle moves by less than this.
        """
        view, root = self._view(d)
        functional = self.family.border(price)
        rays: list[Ray] = []
        seen: list[float] = []

        def climb(theta: float, steps: int) -> None:
            """Add the last ray of the climb."""
            last: Ray | None = None
            for _ in range(steps):
                if any(abs(theta - other) < fine for other in seen):
                    break
                values, vectors, points = view.top(functional, theta, self.count)
                target = abs(math.atan2(points[0].imag, points[0].real))
                y, my = self._lifted(d, root, vectors)
                last = Ray(theta, y, my, self.family.price(points), values, target)
                seen.append(theta)
                theta = target
            if last is not None:
                rays.append(last)

        for theta in thetas:
            climb(theta, 8)
        found = max(ray.price for ray in rays)
        if bar is not None and found < bar.limit and not self.gram:
            border = self.family.border(found + bar.slack)
            for theta in GRID:
                if not view.below(border, theta):
                    climb(theta, 2)
            for ray in sorted(rays, key=lambda ray: -ray.price)[:3]:
                climb(ray.target, 8)
        return rays

    def look(
        self, d: Array, price: float, thetas: Iterable[float], bar: Bar | None, accuracy: float, fine: float = APART
    ) -> list[Ray]:
        """As :meth:`glance`, with the subspace grown until the largest price is known to about ``accuracy``."""
        rays = self.glance(d, price, thetas, bar, fine)
        if self.dense:
            return rays
        before = -math.inf
        for _ in range(_ROUNDS):
            best = max(ray.price for ray in rays)
            leading = _leading(rays)
            residuals, error = self._residuals(d, price, leading)
            if (best - before <= accuracy and error <= accuracy) or self.monitor.over:
                break
            before = best
            if self.y.shape[1] + residuals.shape[1] > WIDEST:
                self._restart(d, leading)
            self._append(np.exp(d), residuals)
            rays = self.glance(d, price, [ray.theta for ray in leading], bar, fine)
        return rays

    def _view(self, d: Array) -> tuple[_View, Array]:
        """The matrix for this d, compressed unless dense, and T such that D Y T is orthonormal."""
        up = np.exp(d)
        if self.dense:
            a = up[:, None] * self.m / up[None, :]
            return _View(a.T @ a if self.gram else a, self.gram), np.zeros((0, 0))
        v, av = up[:, None] * self.y, up[:, None] * self.my
        root = _orthonormal(v.T @ v)
        return _View(root.T @ ((av if self.gram else v).T @ av) @ root, self.gram), root

    def _lifted(self, d: Array, root: Array, vectors: Complex) -> tuple[Complex, Complex]:
        """y and M y of eigenvectors of a view."""
        if self.dense:
            y = np.asarray(vectors / np.exp(d)[:, None])
            return y, np.asarray(self.m @ y)
        coordinates = root @ vectors
        return np.asarray(self.y @ coordinates), np.asarray(self.my @ coordinates)

    def _residuals(self, d: Array, price: float, rays: list[Ray]) -> tuple[Array, float]:
        """Residuals of the two best vectors of every ray, as real columns in the coordinates of y, and an error."""
        functional = self.family.border(price)
        up = np.exp(d)[:, None]
        columns, error = [], 0.0
        y = np.concatenate([ray.y[:, :2] for ray in rays], axis=1)
        my = np.concatenate([ray.my[:, :2] for ray in rays], axis=1)
        images = self._times(self.m.T, up**2 * (my if self.gram else y)) / up
        for ray in rays:
            k = min(2, ray.y.shape[1])
            back, images = images[:, :k], images[:, k:]
            v = up * ray.y[:, :k]
            h = functional.direction(ray.theta)
            if self.gram:
                residual = back - v * ray.values[:k]
            else:
                residual = 0.5 * (h * (up * ray.my[:, :k]) + np.conj(h) * back) - v * ray.values[:k]
            size = float(np.abs(ray.values[0])) + 1e-300
            error = max(error, float(np.linalg.norm(residual[:, 0]) / size) ** 2 * 10.0 * abs(float(ray.prices[0])))
            columns += [residual.real, residual.imag]
        real = np.concatenate(columns, axis=1)
        norms = np.linalg.norm(real, axis=0)
        return real[:, norms > 1e-8 * max(float(norms.max()), 1e-300)] / up, error

    def _times(self, matrix: Array, x: Complex) -> Complex:
        """matrix @ x as one real product."""
        self.products += 1
        both = matrix @ np.concatenate([x.real, x.imag], axis=1)
        return np.asarray(both[:, : x.shape[1]] + 1j * both[:, x.shape[1] :])

    def _append(self, up: Array, columns: Array) -> None:
        """Add columns (coordinates of y) to the subspace, made orthonormal in those of D y."""
        v, new = up[:, None] * self.y, up[:, None] * columns
        new = new / np.maximum(np.linalg.norm(new, axis=0), 1e-300)
        root = _orthonormal(v.T @ v)
        v = v @ root
        for _ in range(2):
            new = new - v @ (v.T @ new)
        basis, triangle = np.linalg.qr(new)
        new = basis[:, np.abs(np.diag(triangle)) > 1e-7] / up[:, None]
        self.products += 1
        self.y = np.concatenate([self.y, new], axis=1)
        self.my = np.concatenate([self.my, self.m @ new], axis=1)

    def _restart(self, d: Array, rays: list[Ray]) -> None:
        """Keep the leading eigenvectors of the compressed problem at the leading angles."""
        view, root = self._view(d)
        functional = self.family.border(max(ray.price for ray in rays))
        kept = [view.top(functional, ray.theta, WIDEST // (4 * len(rays)))[1] for ray in rays]
        complexes = np.concatenate(kept, axis=1)
        basis, triangle = np.linalg.qr(np.concatenate([complexes.real, complexes.imag], axis=1))
        basis = basis[:, np.abs(np.diag(triangle)) > 1e-6]
        coordinates = root @ basis
        self.y, self.my = self.y @ coordinates, self.my @ coordinates


def _is_round(family: Family) -> bool:
    """Whether the region of price 1 is close to a disk about 0."""
    functional = family.border(1.0)
    return functional.c0 < _ROUND * functional.r0


def _leading(rays: list[Ray]) -> list[Ray]:
    """The three best rays at different angles."""
    kept: list[Ray] = []
    for ray in sorted(rays, key=lambda ray: -ray.price):
        if len(kept) < 3 and all(abs(ray.theta - other.theta) > 2 * APART for other in kept):
            kept.append(ray)
    return kept


def _orthonormal(gram: Array) -> Array:
    """T with T^T gram T = I; directions that are dependent to rounding are left out."""
    if not len(gram):
        return gram
    try:
        lower = np.linalg.cholesky(gram)
        if float(np.diag(lower).min()) > 1e-6 * float(np.diag(lower).max()):
            return np.asarray(scipy.linalg.solve_triangular(lower, np.eye(len(gram)), lower=True).T)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(gram)
    keep = values > 1e-12 * max(float(values[-1]), 1e-300)
    return np.asarray(vectors[:, keep] / np.sqrt(values[keep]))
