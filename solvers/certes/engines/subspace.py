"""Phase one on small subspaces: nonnegative multipliers, or a dual matrix that excludes them.

Given Hermitian r x r matrices G_i^k, linear in the multiplier of row i, one set per subspace k, exactly one holds:

    some x >= 0, x != 0 has sum_i x_i G_i^k <= 0 for every k        (the subspaces allow the level), or
    some S^k >= 0 have sum_k tr(G_i^k S^k) > 0 for every row i      (no multiplier reaches the level).

Both sides are approached at once: minimise tau over sum_i x_i G_i^k <= tau I, x >= 0, mean(x) = 1, by a primal-dual
interior-point method (scaling of Nesterov and Todd, SIAM J. Optim. 8 (1998), with Mehrotra's corrector); the caller
stops as soon as either answer is there. G_i = l_i^* r_i + r_i^* l_i has rank two, so a step costs O(n^2 r) per subspace
plus one Cholesky factor of order n; nothing of order n is ever decomposed into eigenvectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Real or complex, as the subspace is.
Matrix = NDArray[Any]

#: Share of the way to the border of the cone that a step may go.
_DAMPING = 0.95
#: Newton steps, at most.
_STEPS = 40
#: Products F S and x z aimed at by a step, relative to their mean before it.
_CENTRING = 0.1


@dataclass(frozen=True, eq=False)
class Block:
    """G_i = left_i^* right_i + right_i^* left_i for the rows i of two (n, r) matrices."""

    left: Matrix
    right: Matrix

    def combine(self, x: Array) -> Matrix:
        """sum_i x_i G_i, shape (r, r)."""
        product = self.left.conj().T @ (x[:, None] * self.right)
        return np.asarray(product + product.conj().T)

    def rows(self, s: Matrix) -> Array:
        """tr(G_i s) for Hermitian s, shape (n,)."""
        return np.asarray(2.0 * np.real(((self.right @ s) * self.left.conj()).sum(axis=1)))

    def seen_from(self, basis: Matrix) -> Block:
        """The block of basis^* G_i basis."""
        return Block(self.left @ basis, self.right @ basis)

    def hessian(self) -> Array:
        """tr(G_i G_j), shape (n, n): products of rows of length r, all in real arithmetic."""
        left, right = _real_rows(self.left), _real_rows(self.right)
        h = (right @ right.T) * (left @ left.T)
        cross = right @ left.T
        h += cross * cross.T
        if np.iscomplexobj(self.left):
            left, right = self.left, self.right
            first, second = right.imag @ right.real.T, left.imag @ left.real.T
            h += (first - first.T) * (second - second.T)
            cross = np.hstack([right.imag, -right.real]) @ np.hstack([left.real, left.imag]).T
            h -= cross * cross.T
        return np.asarray(2.0 * h)


def _real_rows(a: Matrix) -> Array:
    """Rows (Re, Im)."""
    return np.hstack([a.real, a.imag]) if np.iscomplexobj(a) else a


def _sum_of_rows(blocks: Sequence[Block], matrices: Sequence[Matrix]) -> Array:
    return np.asarray(sum(block.rows(entry) for block, entry in zip(blocks, matrices, strict=True)))


def _hermitian(a: Matrix) -> Matrix:
    return np.asarray(0.5 * (a + a.conj().T))


def _step_to_zero(a: Array, direction: Array) -> float:
    """Largest step s with a + s direction >= 0, for a > 0; inf if there is none."""
    least = float((direction / a).min())
    return -1.0 / least if least < 0.0 else np.inf


@dataclass(eq=False)
class _Iterate:
    """Primal x, tau, F^k = tau I - sum x_i G_i^k > 0; dual S^k > 0, sum tr S = 1, and z = rows(S) - sigma / n > 0."""

    x: Array
    tau: float
    F: list[Matrix]
    S: list[Matrix]
    z: Array

    @classmethod
    def start(cls, blocks: Sequence[Block], x: Array) -> _Iterate:
        """A tau somewhat above the least one that x allows."""
        sums = [block.combine(x) for block in blocks]
        spectra = [np.linalg.eigvalsh(entry) for entry in sums]
        size = max(float(np.abs(entry).max()) for entry in spectra)
        tau = max(float(entry[-1]) for entry in spectra) + 0.1 * size + 1e-12
        F = [tau * np.eye(len(entry)) - entry for entry in sums]
        S = [_hermitian(np.linalg.inv(entry)) for entry in F]
        mu = 1.0 / sum(float(np.trace(entry).real) for entry in S)
        return cls(x, tau, F, [mu * entry for entry in S], mu / x)


@dataclass(frozen=True, eq=False)
class _Scaling:
    """The basis in which F and S of one subspace are one diagonal matrix: basis^* F basis = basis^-1 S basis^-* = D."""

    basis: Matrix
    diagonal: Array

    @classmethod
    def of(cls, F: Matrix, S: Matrix) -> _Scaling:
        """Nesterov and Todd's point; LinAlgError if a matrix is not positive definite."""
        lower = np.linalg.cholesky(F)
        _, values, right = np.linalg.svd(np.linalg.cholesky(S).conj().T @ lower)
        turned = scipy.linalg.solve_triangular(lower, right.conj().T, trans="C", lower=True, check_finite=False)
        return cls(turned * np.sqrt(values), values)

    def step_to_border(self, direction: Matrix) -> float:
        """Largest step s with D + s direction >= 0; inf if there is none."""
        root = 1.0 / np.sqrt(self.diagonal)
        least = float(np.linalg.eigvalsh(root[:, None] * direction * root)[0])
        return -1.0 / least if least < 0.0 else np.inf


@dataclass(frozen=True, eq=False)
class _Direction:
    """A step; F and S in the coordinates of the scalings."""

    x: Array
    tau: float
    F: list[Matrix]
    S: list[Matrix]
    z: Array


class _Newton:
    """The linear system of one iterate, factored once for predictor and corrector."""

    def __init__(self, blocks: Sequence[Block], at: _Iterate) -> None:
        n = len(at.x)
        self.at = at
        self.scalings = [_Scaling.of(f, s) for f, s in zip(at.F, at.S, strict=True)]
        self.blocks = [block.seen_from(entry.basis) for block, entry in zip(blocks, self.scalings, strict=True)]
        self.grams = [_hermitian(entry.basis.conj().T @ entry.basis) for entry in self.scalings]
        self.mean = np.full(n, 1.0 / n)
        self.coupling = self._rows(self.grams)
        hessian = np.diag(at.z / at.x)
        for block in self.blocks:
            hessian += block.hessian()
        self.scale = 1.0 / np.sqrt(np.diagonal(hessian))
        hessian *= self.scale[:, None] * self.scale[None, :]
        hessian[np.diag_indices(n)] += 1e-14
        self.factor = scipy.linalg.cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)
        self.by_tau, self.by_mean = self._solve(self.coupling), self._solve(self.mean)

    def _solve(self, right: Array) -> Array:
        return np.asarray(self.scale * scipy.linalg.cho_solve(self.factor, self.scale * right, check_finite=False))

    def _rows(self, matrices: Sequence[Matrix]) -> Array:
        return _sum_of_rows(self.blocks, matrices)

    def _trace(self, matrices: Sequence[Matrix]) -> float:
        """The trace of basis entry basis^*, summed."""
        return sum(float(np.vdot(gram, entry).real) for gram, entry in zip(self.grams, matrices, strict=True))

    def _direction(self, targets: list[Matrix], products: Array) -> _Direction:
        """The step to S + F = targets + D (scaled coordinates) and x z = products, to first order."""
        at, g, w = self.at, self.coupling, self.mean
        base = self._solve(products / at.x - self._rows(targets))
        curvature = self._trace(self.grams)
        system = np.array([[g @ self.by_tau - curvature, g @ self.by_mean], [w @ self.by_tau, w @ self.by_mean]])
        right = np.array([1.0 - self._trace(targets) - g @ base, 1.0 - w @ at.x - w @ base])
        tau, sigma = np.linalg.solve(system, right)
        x = base + tau * self.by_tau + sigma * self.by_mean
        F = [tau * gram - block.combine(x) for gram, block in zip(self.grams, self.blocks, strict=True)]
        S = [target - np.diag(entry.diagonal) - f for target, entry, f in zip(targets, self.scalings, F, strict=True)]
        return _Direction(x, float(tau), F, S, products / at.x - at.z - at.z / at.x * x)

    def _lengths(self, step: _Direction) -> tuple[float, float]:
        """Steps to the border: primal, dual."""
        primal = min(entry.step_to_border(f) for entry, f in zip(self.scalings, step.F, strict=True))
        dual = min(entry.step_to_border(s) for entry, s in zip(self.scalings, step.S, strict=True))
        return min(primal, _step_to_zero(self.at.x, step.x)), min(dual, _step_to_zero(self.at.z, step.z))

    def advance(self, blocks: Sequence[Block]) -> _Iterate:
        """Predictor, corrector and the next iterate."""
        at = self.at
        affine = self._direction([np.zeros_like(gram) for gram in self.grams], np.zeros(len(at.x)))
        total = float(at.x @ at.z) + sum(float(entry.diagonal @ entry.diagonal) for entry in self.scalings)
        mu = _CENTRING * total / (len(at.x) + sum(len(gram) for gram in self.grams))
        targets = []
        for entry, f, s in zip(self.scalings, affine.F, affine.S, strict=True):
            d = entry.diagonal
            targets.append(2.0 * (mu * np.eye(len(d)) - _hermitian(f @ s)) / (d[:, None] + d[None, :]))
        step = self._direction(targets, mu - affine.x * affine.z)
        primal, dual = (min(1.0, _DAMPING * length) for length in self._lengths(step))
        x, tau = at.x + primal * step.x, at.tau + primal * step.tau
        F = [tau * np.eye(len(gram)) - block.combine(x) for gram, block in zip(self.grams, blocks, strict=True)]
        S = []
        for entry, s, ds in zip(self.scalings, at.S, step.S, strict=True):
            S.append(_hermitian(s + dual * (entry.basis @ ds @ entry.basis.conj().T)))
        return _Iterate(x, tau, F, S, at.z + dual * step.z)


@dataclass(frozen=True, eq=False)
class Step:
    """An iterate of phase one.

    Attributes:
        tau: sum_i x_i G_i^k < tau I: below 0 the subspaces allow x.
        x: positive, mean 1, shape (n,).
        dual: S^k > 0.
        rows: sum_k tr(G_i^k S^k), shape (n,): all positive is a proof.
        settled: whether further steps would not change tau's sign or the rows by much.
    """

    tau: float
    x: Array
    dual: Sequence[Matrix]
    rows: Array
    settled: bool


def phase_one(blocks: Sequence[Block]) -> Iterator[Step]:
    """Iterates from x = 1 to the least tau; ends by itself where rounding stops the progress."""
    at = _Iterate.start(blocks, np.ones(len(blocks[0].left)))
    for _ in range(_STEPS):
        try:
            at = _Newton(blocks, at).advance(blocks)
        except np.linalg.LinAlgError:
            return
        if not (np.isfinite(at.z).all() and np.isfinite(at.tau)):
            return
        rows = _sum_of_rows(blocks, at.S)
        settled = at.tau - len(rows) * float(rows.min()) < 1e-2 * abs(at.tau)
        yield Step(at.tau, at.x / at.x.mean(), at.S, rows, settled)
