"""Cuts that hold for every scaling, and the step that a bundle of them suggests.

For any vector y the point z(q) = sum_i q_i alpha_i / sum_i q_i beta_i with alpha = conj(y) * (M y), beta = abs(y)^2 is
v* A v for the unit vector v along Q^1/2 y: it lies in the field of values of A = Q^1/2 M Q^-1/2 for *every* q. Its
price is a lower bound of the price of A, whatever the family: a cut. (Norms: alpha = (M y)^2, z = norm(A v)^2.)

The step minimises max_k (f_k + g_k . x) + u/2 norm(x)^2, f_k and g_k the cuts' prices and gradients in d = log(q)/2: a
proximal bundle method (K. Kiwiel, Math. Programming 46, 1990).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from certes.engines.families import Family

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Duality gap at which the multipliers count as optimal, relative to the size of the data.
_GAP = 1e-13
#: Relative slack of the inequalities behind a bound.
_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class Cuts:
    """Cuts, one per row.

    Attributes:
        y: the vectors, shape (k, n).
        alpha: shape (k, n).
        beta: shape (k, n).
    """

    y: Complex
    alpha: Complex
    beta: Array

    @classmethod
    def none(cls, n: int) -> Cuts:
        """No cuts."""
        return cls(np.zeros((0, n), complex), np.zeros((0, n), complex), np.zeros((0, n)))

    @classmethod
    def of(cls, y: Complex, my: Complex, gram: bool) -> Cuts:
        """The cuts of vectors y with images M y, shapes (n, k); ``gram`` for norms."""
        alpha = np.abs(my) ** 2 + 0j if gram else y.conj() * my
        return cls(y.T, alpha.T, (np.abs(y) ** 2).T)

    def __len__(self) -> int:
        return len(self.y)

    def joined(self, other: Cuts) -> Cuts:
        """These cuts, then the others."""
        return Cuts(
            np.concatenate([self.y, other.y]),
            np.concatenate([self.alpha, other.alpha]),
            np.concatenate([self.beta, other.beta]),
        )

    def taken(self, rows: NDArray[np.intp]) -> Cuts:
        """Some of the cuts."""
        return Cuts(self.y[rows], self.alpha[rows], self.beta[rows])

    def points(self, d: Array) -> tuple[Complex, Array]:
        """(z(q), sum q beta) of every cut at q = exp(2 d), shapes (k,)."""
        q = np.exp(2.0 * d)
        weight = self.beta @ q
        return self.alpha @ q / weight, weight

    def prices(self, d: Array, family: Family) -> tuple[Array, Array]:
        """Prices, shape (k,), and their gradients in d, shape (k, n)."""
        z, weight = self.points(d)
        slope = family.slope(z).conj()
        q = np.exp(2.0 * d)
        gradient = (slope[:, None] * self.alpha).real - (slope * z).real[:, None] * self.beta
        return family.price(z), gradient * (2.0 * q / weight[:, None])


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Weighted cuts. If sum_k Re(h_k alpha_ik) - t beta_ik >= 0 for every i, no q has a price below that of (h, t).

    Attributes:
        u: points of the unit circle, h_k = c0 + r0 u_k, shape (k,).
        cuts: with the weights folded in.
    """

    u: Complex
    cuts: Cuts

    @classmethod
    def of(cls, cuts: Cuts, weights: Array, d: Array, price: float, family: Family) -> Multipliers:
        """What weights of the cuts' gradients in d amount to, at a centre d with its price."""
        z, size = cuts.points(d)
        u = np.where(z != 0.0, z.conj() / np.where(z != 0.0, np.abs(z), 1.0), 1.0)
        functional = family.border(price)
        share = np.abs(family.slope(z)) / np.maximum(np.abs(functional.c0 + functional.r0 * u), 1e-300)
        fold = (weights * share / size)[:, None]
        return cls(u, Cuts(np.sqrt(fold) * cuts.y, fold * cuts.alpha, fold * cuts.beta))

    def hold(self, price: float, family: Family) -> bool:
        """Whether they prove, in float arithmetic and with some slack, that no q has a lower price."""
        functional = family.border(price)
        h = functional.c0 + functional.r0 * self.u
        terms = (h[:, None] * self.cuts.alpha).real
        slack = terms.sum(axis=0) - functional.t * self.cuts.beta.sum(axis=0)
        return bool((slack >= _SLACK * np.abs(terms).sum(axis=0)).all() and self.cuts.beta.any())

    def bound(self, price: float, unit: float, family: Family) -> float | None:
        """The largest price between ``price - unit`` and ``price`` that is proven, or None."""
        low, high = price - unit, price
        if not self.hold(low, family):
            return None
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.hold(middle, family) else (low, middle)
        return low


@dataclass(frozen=True, eq=False)
class Advice:
    """The proximal step.

    Attributes:
        x: the step, shape (n,).
        weights: multipliers of the cuts, >= 0 with sum 1, shape (k,).
        model: max_k (f_k + g_k . x).
    """

    x: Array
    weights: Array
    model: float


def advise(values: Array, gradients: Array, u: float) -> Advice:
    """Minimise max_k (f_k + g_k . x) + u/2 norm(x)^2, through its dual over the simplex.

    Args:
        values: f, shape (k,).
        gradients: g, shape (k, n).
        u: weight of the proximal term, > 0.
    """
    weights = simplex_minimum(gradients @ gradients.T / u, values)
    x = -(weights @ gradients) / u
    return Advice(x, weights, float((values + gradients @ x).max()))


def simplex_minimum(quadratic: Array, linear: Array) -> Array:
    """argmin of a.K a / 2 - f.a over the simplex, by Mehrotra's predictor and corrector.

    Args:
        quadratic: K, positive semidefinite, shape (k, k).
        linear: f, shape (k,).
    """
    size = len(linear)
    f = linear - linear.max()
    scale = max(float(quadratic.diagonal().max()), -float(f.min()), 1e-300)
    K, f = quadratic / scale, f / scale
    a, ones = np.full(size, 1.0 / size), np.ones(size)
    gradient = K @ a - f
    shift = float(gradient.min()) - max(0.1 * float(np.ptp(gradient)), 1e-3 * float(np.abs(gradient).max()), 1e-12)
    s = gradient - shift
    before = math.inf
    for _ in range(60):
        gap = float(a @ s)
        if not gap >= _GAP or (gap > 0.9 * before and gap < 1e-9):
            break
        before = gap
        factor, info = lapack.dpotrf(K + np.diag(s / a), lower=1)
        if info != 0:
            break
        column = lapack.dpotrs(factor, ones, lower=1)[0]
        residual = K @ a - f - shift - s
        newton = partial(_newton, factor, column, residual, a, s)
        da, _, ds = newton(-a * s)
        reach = min(_longest(a, da), _longest(s, ds))
        ahead = float((a + reach * da) @ (s + reach * ds))
        da, move, ds = newton(gap / size * (ahead / gap) ** 2 - a * s - da * ds)
        reach = 0.99 * min(_longest(a, da), _longest(s, ds))
        a, s, shift = a + reach * da, s + reach * ds, shift + reach * move
    a = np.maximum(a, 0.0)
    return np.asarray(a / a.sum())


def _newton(
    factor: Array, column: Array, residual: Array, a: Array, s: Array, complement: Array
) -> tuple[Array, float, Array]:
    """Steps of a, of the shift and of s that add ``complement`` to a * s; factor factor^T column = 1."""
    right = lapack.dpotrs(factor, complement / a - residual, lower=1)[0]
    move = float((1.0 - a.sum() - right.sum()) / column.sum())
    da = right + move * column
    return da, move, (complement - s * da) / a


def _longest(x: Array, dx: Array) -> float:
    """The longest step up to 1 that keeps x + step dx >= 0, x > 0."""
    return 1.0 / max(float((-dx / x).max()), 1.0)
