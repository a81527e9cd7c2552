"""Bounds, and the levels they speak of, from semidefinite programs that share nothing with the verifier (cvxpy)."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
from certes.proofs import ConicBound, LevelBound, LureBound, NormBound
from certes.systems import System

Array = np.ndarray[Any, Any]


def normal_form(system: System) -> tuple[Array, Array, Array, Array]:
    """A, B, C, gap in float64, written out from the equations of the forms."""
    n, slope = system.size, system.slope
    if system.form == "lure":
        A, B, C = (np.array(system.matrix(role)) for role in "ABC")
    else:
        T, W = np.diag(1 / system.tau), system.matrix("W")
        A, B, C = (-T, T, W) if system.form == "rate" else (-T, T @ W, np.eye(n))
    if system.step is not None:
        A, B = np.eye(n) + system.step * A, system.step * B
    return A + B @ np.diag(slope.lower) @ C, B, C, slope.upper - slope.lower


def lmi_margin(system: System, level: float) -> float:
    """The largest delta with block >= delta I, P >= delta I, trace P + trace Q = n + m; negative: infeasible."""
    A, B, C, gap = normal_form(system)
    n, m = B.shape
    P, q, delta = cp.Variable((n, n), symmetric=True), cp.Variable(m), cp.Variable()
    Q, GQ = cp.diag(q), cp.diag(cp.multiply(gap, q))
    if system.continuous:
        block = cp.bmat([[-(P @ A + A.T @ P + 2 * level * P), -(P @ B + C.T @ GQ)], [-(B.T @ P + GQ @ C), 2 * Q]])
    else:
        zero = np.zeros((n, m))
        block = cp.bmat([[level**2 * P, -C.T @ GQ], [-GQ @ C, 2 * Q]]) - cp.bmat(
            [[A.T @ P @ A, A.T @ P @ B], [B.T @ P @ A, B.T @ P @ B]]
        )
        assert zero.shape == (n, m)
    constraints = [block >> delta * np.eye(n + m), P >> delta * np.eye(n), cp.trace(P) + cp.sum(q) == n + m]
    cp.Problem(cp.Maximize(delta), constraints).solve(solver=cp.CLARABEL)
    return float(delta.value)


def best_level(system: System, worst: float, best: float, tolerance: float = 1e-5) -> float:
    """Bisection on :func:`lmi_margin` between a level that is feasible and one that is not."""
    while abs(worst - best) > tolerance:
        middle = 0.5 * (worst + best)
        if lmi_margin(system, middle) > 1e-9:
            worst = middle
        else:
            best = middle
    return 0.5 * (worst + best)


def weighted(system: System) -> Array:
    W = system.matrix("W")
    return system.slope.upper[:, None] * (W.T if system.form == "hopfield" else W)


def functional(system: System, level: float) -> tuple[float, float, float]:
    if system.step is None:
        return 0.5, 0.5, 1 - level * float(system.tau[0])
    a = system.step / float(system.tau[0])
    return 1 - a, level, (level**2 - (1 - a) ** 2) / a


def _roots(X: Array) -> Array:
    values, vectors = np.linalg.eigh(X)
    keep = values > 1e-9 * values.max(initial=1e-300)
    return vectors[:, keep] * np.sqrt(values[keep])


def conic_bound(system: System, level: float, count: int = 24) -> tuple[LevelBound, float]:
    """The bound with the largest slack over ``count`` angles, and that slack (negative: none at these angles)."""
    M, (c0, r0, t) = weighted(system), functional(system, level)
    n = len(M)
    angles = 2 * np.pi * np.arange(count) / count
    u = np.exp(1j * angles) * (1 - 2**-50)
    X = [cp.Variable((n, n), hermitian=True) for _ in range(count)]
    slack = cp.Variable()
    h = c0 + r0 * u
    rows = sum(cp.real(cp.diag(h[k] * (M @ X[k]))) - t * cp.real(cp.diag(X[k])) for k in range(count))
    total = sum(cp.real(cp.trace(entry)) for entry in X)
    cp.Problem(cp.Maximize(slack), [rows >= slack, total == 1, *[entry >> 0 for entry in X]]).solve(solver=cp.CLARABEL)
    blocks = [_roots(entry.value) for entry in X]
    y = np.hstack(blocks)
    points = np.concatenate([np.full(block.shape[1], u[k]) for k, block in enumerate(blocks)])
    proof = ConicBound(points.real.copy(), points.imag.copy(), y.real.copy(), y.imag.copy())
    return LevelBound(level, proof), float(slack.value)


def norm_bound(system: System, level: float) -> tuple[LevelBound, float]:
    M = weighted(system)
    if system.step is None:
        s = 1 - level * float(system.tau[0])
    else:
        a = system.step / float(system.tau[0])
        s = (level - abs(1 - a)) / a
    X, slack = cp.Variable(M.shape, PSD=True), cp.Variable()
    rows = cp.diag(M @ X @ M.T) - s * s * cp.diag(X)
    cp.Problem(cp.Maximize(slack), [rows >= slack, cp.trace(X) == 1]).solve(solver=cp.CLARABEL)
    return LevelBound(level, NormBound(_roots(X.value))), float(slack.value)


def lure_bound(system: System, level: float, dual: bool = False) -> tuple[LevelBound, float]:
    A, B, C, gap = normal_form(system)
    if dual:
        A, B, C = A.T, C.T, B.T
    n, m = B.shape
    Z, slack = cp.Variable((n + m, n + m), PSD=True), cp.Variable()
    F = np.hstack([A, B])
    if system.continuous:
        S = F @ Z[:, :n] + (F @ Z[:, :n]).T + 2 * level * Z[:n, :n]
    else:
        S = F @ Z @ F.T - level**2 * Z[:n, :n]
    rows = cp.multiply(gap, cp.diag(C @ Z[:n, n:])) - cp.diag(Z[n:, n:])
    problem = cp.Problem(cp.Maximize(slack), [S >> slack * np.eye(n), rows >= slack, cp.trace(Z) == 1])
    problem.solve(solver=cp.CLARABEL)
    return LevelBound(level, LureBound(_roots(Z.value), dual)), float(slack.value)
