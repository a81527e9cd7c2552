"""Condition ``singular``: a weighted spectral norm below 1 (Kozachkov, Ennis, Slotine 2022, Thm 5).

Slopes in [a_i, b_i], g_i = max(|a_i|, |b_i|), G = diag(g); W_g = G W (rate form) or W G (hopfield). For a positive
diagonal Q let s = norm(Q^1/2 W_g Q^-1/2). Then

    continuous  rate (1 - s) / max tau in the metric Q T
    map         factor max_i (|1 - a_i| + a_i s) in the metric Q diag(a)^-1, a_i = step / tau_i

log s is a convex function of log q (R. Sezginer, M. Overton, SIAM J. Matrix Anal. Appl. 11, 1990). It is minimised by
L-BFGS through Schatten norms of growing order, whose first, the Frobenius norm, is Osborne's balancing. The infimum
need not be attained (reducible W): cond(Q) is capped at ``CAP`` beyond a balancing by powers of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.optimize import minimize

from certes.conditions.base import Candidate, Decision, Goal, NothingFound, aim, claim, missed
from certes.proofs import SingularProof
from certes.systems import System

Array = NDArray[np.float64]

#: Largest condition number of Q relative to its first balancing.
CAP = 1e12
#: Largest network (one full eigendecomposition is taken anyway).
LARGEST = 6000
_ORDERS = (2.0, 8.0, 32.0, 128.0, 512.0, 2048.0)
#: By how much the stored norm exceeds the computed one, relative, in units of what the verifier's Cholesky needs.
_PADS = (2.0, 20.0, 1e3, 1e5)


@dataclass(frozen=True)
class Singular:
    """The condition; see the module's docstring for the law."""

    name: str = "singular"
    version: int = 1

    def applies(self, system: System) -> str | None:
        """Every rate and hopfield network with dense weights, in continuous time or with a step."""
        if system.form == "lure" or system.is_sparse:
            return "'singular' speaks of rate and hopfield networks with dense weights"
        return None

    @np.errstate(all="ignore")  # overflow ends in inf or NaN, and those are looked for
    def decide(self, system: System, goal: Goal) -> Decision:
        """The norm at the best scaling found, padded by about 1e-15 to 1e-10 times n^2, relative."""
        refusal = self.applies(system)
        if refusal is not None:
            return NothingFound("not-applicable", refusal)
        if system.size > LARGEST:
            return NothingFound("too-large", f"'singular' takes up to {LARGEST} neurons")
        weights, bound = system.matrix("W"), system.slope.bound
        with np.errstate(over="ignore"):
            scaled = weights * (bound[:, None] if system.form == "rate" else bound[None, :])
        if not np.isfinite(scaled).all():
            return NothingFound("margin", "slope bounds times weights overflow")
        q = scaling(scaled)
        norm = norm_at(scaled, q)
        found: list[Candidate] = []
        unit = 2.0**-53 * (2 * system.size + 16) * 4 * system.size
        for pad in _PADS:
            padded = max(norm * (1.0 + pad * unit), 1e-100)
            numbers = aim(system, number_of(system, padded), goal, (2e-15,))
            found += [Candidate(SingularProof(q, padded), claim(system, number)) for number in numbers]
        return tuple(found) or missed(system, number_of(system, norm), goal, self.name)


def number_of(system: System, norm: float) -> float:
    """The rate or factor that belongs to a norm s."""
    if system.step is None:
        return (1.0 - norm) / float(system.tau.max())
    leaks = np.array([system.step / float(system.tau.max()), system.step / float(system.tau.min())])
    # the verifier allows for one unit in the last place of the step
    leaks = np.concatenate([leaks * (1 - 1e-15), leaks * (1 + 1e-15)])
    return float(np.max(np.abs(1.0 - leaks) + leaks * norm))


def norm_at(matrix: Array, q: Array) -> float:
    """norm(Q^1/2 A Q^-1/2), the largest singular value."""
    root = np.sqrt(q)
    return _spectral_norm(root[:, None] * matrix / root[None, :])


def scaling(matrix: Array) -> Array:
    """A positive q, shape (n,), with a small norm(Q^1/2 A Q^-1/2).

    Args:
        matrix: A, shape (n, n).
    """
    size = len(matrix)
    plain = np.ones(size)
    if size == 1 or not matrix.any():
        return plain
    start = _balancing(matrix)
    balanced = start[:, None] * matrix / start[None, :]
    balanced = balanced / np.abs(balanced).max()
    if not np.isfinite(balanced).all():
        return plain
    width = np.log(CAP) / 4.0  # |x| <= width, q = exp(2 x)
    # about ten passes over all orders for a hundred neurons, fewer where a decomposition takes long
    passes = int(np.clip(3e8 / size**3, 3, 40))
    best = x = np.zeros(size)
    lowest = _norm(balanced, x)
    for order in _ORDERS:
        answer = minimize(
            _schatten,
            x,
            (balanced, order),
            "L-BFGS-B",
            True,
            bounds=[(-width, width)] * size,
            options={"maxiter": passes, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-9},
        )
        x = np.asarray(answer.x)
        reached = _norm(balanced, x)
        if reached < lowest:
            best, lowest = x, reached
    q = (start * np.exp(best)) ** 2
    q = q / np.exp(np.mean(np.log(q)))
    return q if norm_at(matrix, q) < norm_at(matrix, plain) else plain


def _balancing(matrix: Array) -> Array:
    """Powers of two d that balance rows against columns of diag(d) A diag(d)^-1, within 2^+-300."""
    _, (scale, _) = scipy.linalg.matrix_balance(matrix, permute=False, separate=True)
    inverse = 1.0 / np.asarray(scale, dtype=np.float64)
    inverse = inverse / 2.0 ** np.rint(np.mean(np.log2(inverse)))
    return np.asarray(np.clip(inverse, 2.0**-300, 2.0**300))


def _norm(matrix: Array, x: Array) -> float:
    return _spectral_norm(np.exp(x)[:, None] * matrix * np.exp(-x)[None, :])


def _spectral_norm(matrix: Array) -> float:
    if not np.isfinite(matrix).all():
        return math.inf
    try:
        return float(np.linalg.norm(matrix, 2))
    except np.linalg.LinAlgError:
        return math.inf


def _schatten(x: Array, matrix: Array, order: float) -> tuple[float, Array]:
    """log of the Schatten norm of diag(e^x) A diag(e^-x), and its gradient in x; both convex in x."""
    scaled = np.exp(x)[:, None] * matrix * np.exp(-x)[None, :]
    squares, left = np.linalg.eigh(scaled @ scaled.T)
    top = float(squares[-1])
    relative = np.maximum(squares, 0.0) / top
    powers = relative ** (order / 2.0)
    total = float(powers.sum())
    weights = powers / total
    keep = weights > 1e-14
    right = scaled.T @ left[:, keep] / np.sqrt(squares[keep])
    gradient = left[:, keep] ** 2 @ weights[keep] - right**2 @ weights[keep]
    return 0.5 * float(np.log(top)) + float(np.log(total)) / order, np.asarray(gradient)


CONDITION = Singular()
