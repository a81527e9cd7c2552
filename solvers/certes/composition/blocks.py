"""Levels of the Lur'e block for a *given* metric: the best rate, factor or Lipschitz constant over the multipliers.

For fixed P > 0 = R^T R and multipliers Q = diag(q), with everything eliminated but the states,

    rate       c(q)   = 1/2 lambda_min of  -R^-T (P A + A^T P + (P B + C^T G Q) (2 Q)^-1 (.)^T) R^-1
    Lipschitz  K(q)^2 = lambda_max of  R^-T (A^T P A + (A^T P B + C^T G Q) S^-1 (.)^T) R^-1,   S = 2 Q - B^T P B > 0

and the factor of a map is its Lipschitz constant. Both are improved over log q by L-BFGS with the gradient of the
extreme eigenvalue. Floats only: what comes out is a proposal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Steps of L-BFGS.
_STEPS = 60
#: Scales of the first multipliers that are tried.
_SCALES = tuple(2.0**k for k in range(-6, 7))


@dataclass(frozen=True, eq=False)
class Equations:
    """The normal form in floats: A (n, n), B (n, m), C (m, n), gap g (m,)."""

    A: Array
    B: Array
    C: Array
    gap: Array


def best_rate(equations: Equations, metric: Array, start: Array) -> tuple[float, Array]:
    """The best rate in a metric, and its multipliers.

    Args:
        equations: of a network or assembly in continuous time.
        metric: P, shape (n, n), positive definite.
        start: multipliers to start from, shape (m,), positive.
    """
    A, B, C, gap = equations.A, equations.B, equations.C, equations.gap
    root = _root(metric)
    drift = metric @ A
    base = -_whitened(root, drift + drift.T)
    inflow, outflow = _right(root, B.T @ metric).T, _right(root, gap[:, None] * C).T

    def function(x: Array) -> tuple[float, Array]:
        q = np.exp(np.clip(x, -300.0, 300.0))
        joint = inflow + outflow * q
        values, vectors = np.linalg.eigh(base - (joint / (2.0 * q)) @ joint.T)
        v = vectors[:, 0]
        a, b = inflow.T @ v, outflow.T @ v
        slope = -0.5 * (b * b * q - a * a / q)  # d/dlog q of -(a + b q)^2 / (2 q)
        return -0.5 * float(values[0]), -0.5 * slope

    value, q = _improved(function, start)
    return -value, q


def best_norm(equations: Equations, metric: Array, start: Array) -> tuple[float, Array]:
    """The least K (or factor, for a map) in a metric, and its multipliers; infinite if there is none near ``start``."""
    A, B, C, gap = equations.A, equations.B, equations.C, equations.gap
    root = _root(metric)
    moved = _right(root, root @ A)
    base = moved.T @ moved
    inner = (root @ B).T @ (root @ B)
    cross, outflow = _right(root, (root @ B).T @ (root @ A)).T, _right(root, gap[:, None] * C).T

    def function(x: Array) -> tuple[float, Array]:
        q = np.exp(np.clip(x, -300.0, 300.0))
        factor, info = scipy.linalg.lapack.dpotrf(2.0 * np.diag(q) - inner, lower=1)
        if info != 0 or not np.isfinite(factor).all():
            return 1e300, np.zeros_like(x)
        joint = cross + outflow * q
        solved = scipy.linalg.cho_solve((factor, True), joint.T)
        values, vectors = np.linalg.eigh(base + joint @ solved)
        v = vectors[:, -1]
        y = solved @ v  # S^-1 joint^T v
        slope = 2.0 * (outflow.T @ v) * q * y - 2.0 * q * y * y
        return float(values[-1]), slope

    floor = float(scipy.linalg.eigvalsh(inner / np.sqrt(np.outer(start, start)))[-1]) if len(start) else 0.0
    value, q = _improved(function, start * max(floor, 1e-300) if floor > 0 else start)
    return (math.sqrt(max(value, 0.0)) if value < 1e299 else math.inf), q


def _improved(function: Any, start: Array) -> tuple[float, Array]:
    """The best scale of the start, then L-BFGS."""
    from scipy.optimize import minimize  # not needed to read what a composition is

    logs = [np.log(start) + math.log(scale) for scale in _SCALES]
    first = min(logs, key=lambda x: function(x)[0])
    found: Any = minimize(function, first, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "maxcor": 10})
    best = found.x if found.fun <= function(first)[0] else first
    return float(function(best)[0]), np.asarray(np.exp(np.clip(best, -300.0, 300.0)))


def _root(metric: Array) -> Array:
    return np.asarray(scipy.linalg.cholesky(metric))


def _whitened(root: Array, matrix: Array) -> Array:
    """R^-T X R^-1, symmetrised."""
    found = _right(root, _right(root, matrix).T)
    return np.asarray(0.5 * (found + found.T))


def _right(root: Array, matrix: Array) -> Array:
    """X R^-1."""
    return np.asarray(scipy.linalg.solve_triangular(root, matrix.T, trans=1).T)
