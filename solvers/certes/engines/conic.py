"""Field of values inside a conic: the exact level test for uniform leak, and its metric, by cyclic reduction.

For uniform leak and slopes in [0, g] the Lur'e inequality in (P, Q) is a statement about Q alone: with M = diag(g) W
(W transposed for a dual proof) and A = Q^1/2 M Q^-1/2 it is feasible at a level iff

    max over theta of lambda_max(Re(h A)) < t,    h = c0 + r0 exp(i theta),

a :class:`Functional` (c0, r0, t) of a family of levels (:mod:`certes.engines.families`). This module answers for a
*given* Q; :mod:`certes.engines.scaling` optimises Q.

Source: A. Gokhale, A. Proskurnikov, Y. Kawano, F. Bullo (arXiv 2604.00119) for the inequality; cyclic reduction for
X + r0^2 A X^-1 A^T = C0 after B. Meini, Math. Comp. 71 (2002).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from certes.engines.eigen import Bar, Field
from certes.engines.families import SMALLEST, Factor, Family, Functional, Level, Norm, Rate, Step

__all__ = [
    "Factor",
    "Family",
    "Functional",
    "Level",
    "Norm",
    "Rate",
    "Step",
    "best_level",
    "metric",
    "reaches",
    "scaled",
    "solve",
]

Array = NDArray[np.float64]

#: Relative steps by which a level is raised until cyclic reduction agrees that it is feasible.
_RAISES = tuple(1e-8 * 3.0**k for k in range(20))


def scaled(m: Array, q: Array) -> Array:
    """A = Q^1/2 M Q^-1/2 for Q = diag(q), shapes (n, n) and (n,)."""
    root = np.sqrt(q)
    return np.asarray(m * (root[:, None] / root[None, :]))


def solve(a: Array, functional: Functional, *, rounds: int = 60) -> Array | None:
    """Exact yes/no at a level: the midpoint X of the two extreme solutions, or None for no.

    X satisfies X + r0^2 A X^-1 A^T < 2 t I - c0 (A + A^T) strictly. A round takes 6.3 n^3 operations, all of them
    matrix products and triangular solves; seven matrices are held at a time.

    Args:
        a: A of the module's docstring, shape (n, n).
        functional: c0, r0 and the level t.
        rounds: cap on the doubling rounds (5 to 16 are usual; convergence is quadratic away from the border).
    """
    if not math.isfinite(functional.t) or not np.isfinite(a).all():
        return None
    middle = np.asfortranarray(-functional.c0 * (a + a.T))
    middle[np.diag_indices(len(a))] += 2.0 * functional.t
    # the extreme solutions are y and start - x; only x - y and start are needed, and only their lower halves
    spread, start = np.zeros_like(middle), middle.copy(order="F")
    size = float(np.abs(middle).max())
    off = np.asfortranarray(-functional.r0 * a)
    for _ in range(rounds):
        lower, info = lapack.dpotrf(middle, lower=1, clean=0)
        pivots = np.diagonal(lower)
        if info != 0 or not (np.isfinite(pivots).all() and (pivots > 0.0).all()):
            return None
        left = blas.dtrsm(1.0, lower, off, lower=1)
        right = blas.dtrsm(1.0, lower, off, side=1, lower=1, trans_a=1, overwrite_b=1)
        down = blas.dsyrk(1.0, left, trans=1, lower=1)  # off^T middle^-1 off
        across = blas.dsyrk(1.0, right, lower=1)  # off middle^-1 off^T
        off = blas.dgemm(1.0, right, left)
        spread += down
        spread -= across
        middle -= down
        middle -= across
        # the largest entry of a positive semidefinite matrix is on its diagonal
        rest = min(float(np.diagonal(down).max()), float(np.diagonal(across).max()))
        if not math.isfinite(rest):
            return None
        if rest <= 1e-17 * size:
            break
    else:
        return None
    middle_point = np.tril(0.5 * (start + spread))
    return np.asarray(middle_point + np.tril(middle_point, -1).T)


def reaches(a: Array, family: Family, level: float) -> bool:
    """Whether this A is strictly inside ``level``, up to rounding; no angle is missed."""
    if isinstance(family, Norm):
        if not (level > 0.0 and np.isfinite(a).all()):
            return False
        unit = a / level
        _, info = lapack.dpotrf(np.eye(len(a)) - unit.T @ unit, lower=1)
        return bool(info == 0)
    return solve(a, family.functional(level)) is not None


def best_level(a: Array, family: Family, *, grid: int = 9) -> float | None:
    """The best level for this A, confirmed by :func:`reaches` (so slightly on the safe side), or None if there is none.

    Each round takes the worst points of the field of values at the current level, by climbing from a few angles, and
    moves to the level that they allow; the rounds converge quadratically. A maximum missed by the starting angles is
    caught by the exact test, which raises the level.

    Args:
        a: A of the module's docstring, shape (n, n).
        family: which level is meant.
        grid: number of starting angles in [0, pi].
    """
    field, still = Field(a, family, 1), np.zeros(len(a))
    thetas = [math.pi * k / (grid - 1) for k in range(grid)]
    rays = field.look(still, 1.0, thetas, None, 1e-3, 1e-3)
    price = max(ray.price for ray in rays)
    for _ in range(12):
        thetas = [max(rays, key=lambda ray: ray.price).theta]
        unit = max(abs(price), SMALLEST)
        rays = field.look(still, price, thetas, Bar(math.inf, 1e-3 * unit), 1e-10 * unit, 1e-6)
        before, price = price, max(price, *(ray.price for ray in rays))
        if price <= before + 1e-11 * unit:
            break
    level = family.level(price)
    for relative in _RAISES:
        raised = family.relax(level, relative)
        if reaches(a, family, raised):
            return raised
    return None


def metric(m: Array, q: Array, family: Family, level: float) -> Array | None:
    """P that solves the Lur'e inequality with multipliers q at ``level`` (time constant 1), or None for no.

    Args:
        m: diag(g) W (rate), diag(g) W^T (dual proof of a hopfield network), shape (n, n).
        q: multipliers, shape (n,).
        family: which level is meant; the metric of a norm is Q itself.
        level: the level; give up 1e-6 to 1e-3 of the best one to get a margin.

    Returns:
        P, shape (n, n), in the units of time constant 1: for a uniform tau in continuous time multiply by tau.
    """
    a = scaled(m, q)
    if isinstance(family, Norm):
        return np.diag(q) if reaches(a, family, level) else None
    x = solve(a, family.functional(level))
    if x is None:
        return None
    root = np.sqrt(q)
    return np.asarray(family.scale(level) * (root[:, None] * x * root[None, :]))
