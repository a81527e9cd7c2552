"""The Lur'e inequality as a semidefinite program of cvxpy for Clarabel: at one level, what is the largest margin?

    continuous   [[-(P A + A^T P + 2 c P), -(P B + K^T Q)], [., 2 Q]] >= t I                  P >= 0, Q diagonal
    map          [[rho^2 P, -K^T Q, A^T P], [., 2 Q, B^T P], [., ., P]] >= t blkdiag(I, I, 0)

with K = G C and trace P + trace Q = n + m. The program is compiled once for each shape; level and matrices are its
parameters. A positive margin proves the level, a negative one excludes it, as far as Clarabel is believed.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from certes.systems import System

ACCURACY = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}


@dataclass(frozen=True, eq=False)
class Lure:
    """A Lur'e system x' = A x + B psi(K x), or x+ = the same, psi with slopes in [0, 1]."""

    A: np.ndarray
    B: np.ndarray
    K: np.ndarray
    continuous: bool

    @classmethod
    def of(cls, system: System) -> Lure:
        """The equations of a system with its slopes shifted to [0, 1], in the plainest way."""
        n, h = system.size, system.step
        if system.form == "lure":
            A, B, C = (system.matrix(role) for role in "ABC")
        else:
            pace, W = np.diag(1.0 / system.tau), system.matrix("W")
            A, B, C = (-pace, pace, W) if system.form == "rate" else (-pace, pace @ W, np.eye(n))
        if h is not None:
            A, B = np.eye(n) + h * A, h * B
        low, high = system.slope.lower, system.slope.upper
        return cls(A + (B * low) @ C, B, (high - low)[:, None] * C, system.continuous)

    @property
    def transposed(self) -> Lure:
        """The dual system: P and Q become P^-1 and Q^-1."""
        return Lure(self.A.T, self.K.T, self.B.T, self.continuous)

    def seen_from(self, P: np.ndarray, q: np.ndarray) -> Lure:
        """In coordinates of state and channels in which a metric P and multipliers diag(q) are the identity."""
        L, r = np.linalg.cholesky(P).T, np.sqrt(q)
        back = np.linalg.inv(L)
        return Lure(L @ self.A @ back, L @ self.B / r, r[:, None] * self.K @ back, self.continuous)


@functools.cache
def _program(n: int, m: int, continuous: bool) -> tuple[Any, ...]:
    A, B, K, level = cp.Parameter((n, n)), cp.Parameter((n, m)), cp.Parameter((m, n)), cp.Parameter()
    P, q, t = cp.Variable((n, n), symmetric=True), cp.Variable(m), cp.Variable()
    Q = cp.diag(q)
    if continuous:
        side = -(P @ B + K.T @ Q)
        block = cp.bmat([[-(P @ A) - (P @ A).T - level * P, side], [side.T, 2 * Q]])
        unit = np.eye(n + m)
    else:
        side = -K.T @ Q
        block = cp.bmat([[level * P, side, A.T @ P], [side.T, 2 * Q, B.T @ P], [P @ A, P @ B, P]])
        unit = np.diag(np.concatenate([np.ones(n + m), np.zeros(n)]))
    constraints = [0.5 * (block + block.T) >> t * unit, P >> 0, cp.trace(P) + cp.sum(q) == n + m]
    return cp.Problem(cp.Maximize(t), constraints), A, B, K, level


def margin(form: Lure, number: float) -> float:
    """The largest margin at a rate or factor; fails unless Clarabel says that it solved the program."""
    n, m = form.B.shape
    problem, A, B, K, level = _program(n, m, form.continuous)
    A.value, B.value, K.value = form.A, form.B, form.K
    level.value = 2.0 * number if form.continuous else number**2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate", category=UserWarning)
        problem.solve(solver="CLARABEL", **ACCURACY)
    assert problem.status in ("optimal", "optimal_inaccurate"), problem.status
    return float(problem.value)
