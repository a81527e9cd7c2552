"""The nearest weights as convex programs of cvxpy for Clarabel, each written from its definition.

For fixed multipliers Q the Lur'e inequality of the network's own A, B, C is linear in the metric P and in the
weights W' together (:func:`for_multipliers`),

    continuous   [[P A + A^T P + 2 c P, P B + C^T G Q], [., -2 Q]] <= 0              C = W' for a rate network
    map          [[A^T P A - rho^2 P, A^T P B + C^T G Q], [., B^T P B - 2 Q]] <= 0

For a Hopfield network, whose B holds the weights, the same is asked of the transposed system (A^T, C^T, B^T).
"""

from __future__ import annotations

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
from certes.systems import System
from numpy.typing import NDArray

Array = NDArray[np.float64]

ACCURACY = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}


def _solved(distance: Any, constraints: list[Any]) -> None:
    problem = cp.Problem(cp.Minimize(distance), constraints)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate", category=UserWarning)
        problem.solve(solver="CLARABEL", **ACCURACY)
    assert problem.status in ("optimal", "optimal_inaccurate"), problem.status


def for_multipliers(system: System, number: float, q: Array) -> Array:
    """The nearest W', shape (n, n), for which multipliers diag(q) prove a rate or factor.

    Args:
        system: a rate or Hopfield network, slopes in [0, g_i].
        number: the rate or factor.
        q: multipliers, shape (n,); for a Hopfield network those of the transposed system.
    """
    n, given = system.size, system.matrix("W")
    assert not system.slope.lower.any()
    P, W, Q, G = cp.Variable((n, n), symmetric=True), cp.Variable((n, n)), np.diag(q), np.diag(system.slope.upper)
    pace = np.diag(1.0 / system.tau)
    A, B, C = (-pace, pace, W) if system.form == "rate" else (-pace, np.eye(n), W.T @ pace)
    if system.step is None:
        corner, side, last = P @ A + A.T @ P + 2.0 * number * P, P @ B + C.T @ G @ Q, -2.0 * Q
    else:
        A = np.eye(n) + system.step * A
        B, C = (system.step * B, C) if system.form == "rate" else (B, system.step * C)
        corner = A.T @ P @ A - number**2 * P
        side, last = A.T @ P @ B + C.T @ G @ Q, B.T @ P @ B - 2.0 * Q
    block = cp.bmat([[corner, side], [side.T, last]])
    _solved(cp.norm(W - given, "fro"), [0.5 * (block + block.T) << 0, P >> 0])
    return np.asarray(W.value)


def symmetric(given: Array, low: float, high: float, frozen: NDArray[np.bool_] | None = None) -> Array:
    """The nearest symmetric matrix with eigenvalues in [low, high], entries of ``frozen`` as given."""
    n = len(given)
    X = cp.Variable((n, n), symmetric=True)
    constraints = [] if frozen is None else [X[frozen] == given[frozen]]
    if np.isfinite(low):
        constraints.append(X >> low * np.eye(n))
    if np.isfinite(high):
        constraints.append(X << high * np.eye(n))
    _solved(cp.norm(X - given, "fro"), constraints)
    return np.asarray(X.value)


def spectral(given: Array, radius: float) -> Array:
    """The nearest matrix of spectral norm at most ``radius``."""
    X = cp.Variable(given.shape)
    _solved(cp.norm(X - given, "fro"), [cp.sigma_max(X) <= radius])
    return np.asarray(X.value)
