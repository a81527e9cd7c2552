"""Phase one on small subspaces: nonnegative multipliers, or a dual matrix that excludes them.

Given Hermitian r x r matrices G_i^k, linear in the multiplier of row i, one set per subspace k, exactly one holds:

    some x >= 0, x != 0 has sum_i x_i G_i^k <= 0 for every k        (the subspaces allow the level), or
    some S^k >= 0 have sum_k tr(G_i^k S^k) > 0 for every row i      (no multiplier reaches the level).

Both sides are approached at once: minimise tau over sum_i x_i G_i^k <= tau I, x >= 0, mean(x) = 1, by a primal-dual
interior-point method (direction of Helmberg, Rendl, Vanderbei, Wolkowicz, SIAM J. Optim. 6 (1996), with Mehrotra's
corrector), which stops as soon as either answer is there. G_i = l_i^* r_i + r_i^* l_i has rank two, so a step costs
O(n^2 r) per subspace plus one Cholesky factor of order n; nothing of order n is ever decomposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Real where the angle is 0 or pi, complex elsewhere.
Matrix = NDArray[Any]

#: Share of the way to the border of the cone that a step may go.
_DAMPING = 0.95
#: Smallest centring parameter.
_CENTRING = 1e-3


@dataclass(frozen=True, eq=False)
class Block:
    """G_i = left_i^* right_i + right_i^* left_i for the rows i of two (n, r) matrices."""

    left: Matrix
    right: Matrix

    @property
    def order(self) -> int:
        """r."""
        return len(self.left.T)

    def combine(self, x: Array) -> Matrix:
        """sum_i x_i G_i, shape (r, r)."""
        product = self.left.conj().T @ (x[:, None] * self.right)
        return np.asarray(product + product.conj().T)

    def rows(self, s: Matrix) -> Array:
        """tr(G_i s) for Hermitian s, shape (n,)."""
        return np.asarray(2.0 * np.real(((self.right @ s) * self.left.conj()).sum(axis=1)))

    def hessian(self, p: Matrix, s: Matrix) -> Array:
        """Re tr(G_i p G_j s) for Hermitian p, s; shape (n, n), symmetric."""
        adjoint_left, adjoint_right = self.left.conj().T, self.right.conj().T
        mixed = _real_product((self.right @ p) @ adjoint_left, ((self.left @ s) @ adjoint_right).conj())
        return np.asarray(
            mixed
            + mixed.T
            + _real_product((self.right @ p) @ adjoint_right, ((self.left @ s) @ adjoint_left).conj())
            + _real_product((self.left @ p) @ adjoint_left, ((self.right @ s) @ adjoint_right).conj())
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What phase one found; both fields None if it could not tell.

    Attributes:
        dual: S^k >= 0 with all rows above their allowance, or None.
        point: x > 0 that the subspaces allow, mean 1, shape (n,), or None.
    """

    dual: tuple[Matrix, ...] | None
    point: Array | None


def _real_product(a: Matrix, b: Matrix) -> Array:
    """Re(a * b) entrywise, without a complex temporary."""
    if np.iscomplexobj(a):
        return np.asarray(a.real * b.real - a.imag * b.imag)
    return np.asarray(a * b)


def _hermitian(a: Matrix) -> Matrix:
    return np.asarray(0.5 * (a + a.conj().T))


def _inverse(a: Matrix) -> Matrix:
    """Inverse of a positive definite matrix; LinAlgError if it is none."""
    lower = np.linalg.cholesky(a)
    half = scipy.linalg.solve_triangular(lower, np.eye(len(a)), lower=True, check_finite=False)
    return np.asarray(half.conj().T @ half)


def _step_to_border(a: Matrix, direction: Matrix) -> float:
    """Largest step s with a + s direction >= 0, for a > 0; inf if there is none."""
    lower = np.linalg.cholesky(a)
    half = scipy.linalg.solve_triangular(lower, direction, lower=True, check_finite=False)
    whole = scipy.linalg.solve_triangular(lower, half.conj().T, lower=True, check_finite=False)
    least = float(np.linalg.eigvalsh(_hermitian(whole))[0])
    return -1.0 / least if least < 0.0 else np.inf


def _step_to_zero(a: Array, direction: Array) -> float:
    """Largest step s with a + s direction >= 0, for a > 0; inf if there is none."""
    falling = direction < 0.0
    return float(np.min(-a[falling] / direction[falling])) if falling.any() else np.inf


@dataclass(eq=False)
class _Iterate:
    """Primal x, tau, F^k = tau I - sum x_i G_i^k > 0; dual S^k > 0, sum tr S = 1, and z = rows(S) - sigma / n > 0."""

    x: Array
    tau: float
    F: list[Matrix]
    S: list[Matrix]
    z: Array

    @classmethod
    def start(cls, blocks: Sequence[Block], n: int) -> _Iterate:
        """x = 1 and a tau somewhat above the least one that it allows."""
        x = np.ones(n)
        sums = [block.combine(x) for block in blocks]
        spectra = [np.linalg.eigvalsh(entry) for entry in sums]
        size = max(float(np.abs(entry).max()) for entry in spectra)
        tau = max(float(entry[-1]) for entry in spectra) + 0.1 * size + 1e-12
        F = [tau * np.eye(len(entry)) - entry for entry in sums]
        S = [_inverse(entry) for entry in F]
        mu = 1.0 / sum(float(np.trace(entry).real) for entry in S)
        return cls(x, tau, F, [mu * entry for entry in S], mu / x)

    def complementarity(self) -> float:
        """Mean product mu."""
        total = sum(float(np.vdot(f, s).real) for f, s in zip(self.F, self.S, strict=True)) + float(self.x @ self.z)
        return total / (sum(len(f) for f in self.F) + len(self.x))


@dataclass(frozen=True, eq=False)
class _Direction:
    x: Array
    tau: float
    F: list[Matrix]
    S: list[Matrix]
    z: Array

    def lengths(self, at: _Iterate) -> tuple[float, float]:
        """Steps to the border: primal, dual."""
        primal = min(_step_to_border(f, df) for f, df in zip(at.F, self.F, strict=True))
        dual = min(_step_to_border(s, ds) for s, ds in zip(at.S, self.S, strict=True))
        return min(primal, _step_to_zero(at.x, self.x)), min(dual, _step_to_zero(at.z, self.z))

    def moved(self, at: _Iterate, primal: float, dual: float) -> _Iterate:
        """The iterate after steps of these lengths."""
        return _Iterate(
            at.x + primal * self.x,
            at.tau + primal * self.tau,
            [_hermitian(f + primal * df) for f, df in zip(at.F, self.F, strict=True)],
            [_hermitian(s + dual * ds) for s, ds in zip(at.S, self.S, strict=True)],
            at.z + dual * self.z,
        )


class _Newton:
    """The linear system of one iterate, factored once for predictor and corrector."""

    def __init__(self, blocks: Sequence[Block], at: _Iterate) -> None:
        n = len(at.x)
        self.blocks, self.at = blocks, at
        self.P = [_inverse(f) for f in at.F]
        products = [_hermitian(p @ s) for p, s in zip(self.P, at.S, strict=True)]
        hessian = np.diag(at.z / at.x)
        for block, p, s in zip(blocks, self.P, at.S, strict=True):
            hessian += block.hessian(p, s)
        self.mean = np.full(n, 1.0 / n)
        self.coupling = sum((block.rows(entry) for block, entry in zip(blocks, products, strict=True)), np.zeros(n))
        self.trace = sum(float(np.trace(entry).real) for entry in products)
        self.scale = 1.0 / np.sqrt(np.diagonal(hessian))
        hessian *= self.scale[:, None] * self.scale[None, :]
        hessian[np.diag_indices(n)] += 1e-14
        self.factor = scipy.linalg.cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)
        self.by_tau, self.by_sigma = self.solve(self.coupling), self.solve(self.mean)

    def solve(self, right: Array) -> Array:
        """Apply the inverse of the Hessian."""
        return np.asarray(self.scale * scipy.linalg.cho_solve(self.factor, self.scale * right, check_finite=False))

    def direction(self, matrices: list[Matrix], products: Array) -> _Direction:
        """The step towards F S = matrices F (symmetrised) and x z = products."""
        at, g, w = self.at, self.coupling, self.mean
        right = products / at.x - sum(
            (block.rows(entry) for block, entry in zip(self.blocks, matrices, strict=True)), np.zeros(len(g))
        )
        base = self.solve(right)
        trace = sum(float(np.trace(entry).real) for entry in matrices)
        system = np.array([[g @ self.by_tau - self.trace, g @ self.by_sigma], [w @ self.by_tau, w @ self.by_sigma]])
        tau, sigma = np.linalg.solve(system, np.array([1.0 - trace - g @ base, 1.0 - w @ at.x - w @ base]))
        x = base + tau * self.by_tau + sigma * self.by_sigma
        F = [tau * np.eye(block.order) - block.combine(x) for block in self.blocks]
        S = [entry - s - _hermitian(p @ f @ s) for entry, s, p, f in zip(matrices, at.S, self.P, F, strict=True)]
        return _Direction(x, float(tau), F, S, products / at.x - at.z - at.z / at.x * x)

    def step(self) -> _Iterate:
        """Predictor, corrector and the next iterate."""
        at = self.at
        mu = at.complementarity()
        affine = self.direction([np.zeros_like(p) for p in self.P], np.zeros(len(at.x)))
        primal, dual = (min(1.0, length) for length in affine.lengths(at))
        after = affine.moved(at, primal, dual).complementarity()
        centring = min(max((after / mu) ** 2, _CENTRING), 1.0)
        matrices = [
            centring * mu * p - _hermitian(p @ f @ s) for p, f, s in zip(self.P, affine.F, affine.S, strict=True)
        ]
        final = self.direction(matrices, centring * mu - affine.x * affine.z)
        primal, dual = (min(1.0, _DAMPING * length) for length in final.lengths(at))
        return final.moved(at, primal, dual)


def phase_one(blocks: Sequence[Block], allowance: Any, *, steps: int = 40) -> Outcome:
    """Decide between multipliers and a dual matrix.

    Args:
        blocks: the subspaces; all with the same number n of rows.
        allowance: function of (S^k) that gives what each row must exceed, shape (n,).
        steps: cap on the Newton steps.
    """
    at = _Iterate.start(blocks, len(blocks[0].left))
    for _ in range(steps):
        try:
            at = _Newton(blocks, at).step()
        except np.linalg.LinAlgError:
            break
        if not (np.isfinite(at.x).all() and np.isfinite(at.z).all() and np.isfinite(at.tau)):
            break
        rows = sum((block.rows(s) for block, s in zip(blocks, at.S, strict=True)), np.zeros(len(at.x)))
        if bool((rows > allowance(at.S)).all()):
            return Outcome(tuple(at.S), None)
        if at.tau < 0.0:
            return Outcome(None, at.x / at.x.mean())
    return Outcome(None, None)
