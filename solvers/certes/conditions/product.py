"""Condition ``product``: inhibition that factorises (Kozachkov, Ennis, Slotine 2022, Thm 3).

W = -P1 S P2 + E with P1, P2 positive diagonal and S symmetric positive definite; continuous time, one time constant,
slopes in [0, g]. Then

    rate form   M = P2 S P2 is a metric with rate (1 - g sqrt(cond M) norm(E)) / tau
    hopfield    M = P1 S P1 is the inverse of such a metric, with the same rate

For E = 0: M J + J^T M = -2 M - 2 M P1 P2^-1 D M <= -2 M for the rate form (W = -P1 P2^-1 M), and for hopfield
J M + M J^T = -2 M - 2 M D P1^-1 P2 M (W = -M P1^-1 P2). In the norm of the metric E adds at most
g norm(E) sqrt(cond M).

Factors are given (:func:`with_factors`), or found where -W is diagonally symmetrisable: W_ij / W_ji = d_i / d_j for
d = P1 / P2, solved for log d over the graph of W in the least-squares sense; what does not fit ends up in E. The metric
does not depend on how d is split between P1 and P2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.conditions.base import Candidate, Condition, Decision, Goal, NothingFound, aim, claim, eigenvalues, missed
from certes.errors import InputError
from certes.proofs import ProductProof
from certes.systems import System

Array = NDArray[np.float64]

#: Largest network whose factors are searched for (dense linear algebra, a few n^3).
LARGEST = 4000
#: Allowance for rounding in the residual, relative to norm(P1 S P2), for the metric bounds, relative, and the least
#: residual (squares underflow).
_ALLOWANCES = (1e-15, 1e-13, 1e-11)
_BOUND_PADS = (1e-6, 1e-3, 0.1)
_FLOORS = (1e-300, 1e-150, 1e-140)


@dataclass(frozen=True, eq=False)
class Factors:
    """W = -diag(outer) core diag(inner) + E; outer, inner of shape (n,), core of shape (n, n)."""

    outer: Array
    core: Array
    inner: Array


def with_factors(outer: Sequence[float] | Array, core: Any, inner: Sequence[float] | Array) -> Condition:
    """The condition ``product`` for factors that are known, to be passed as ``certify(..., condition=...)``.

    Args:
        outer: P1, positive, shape (n,).
        core: S, symmetric positive definite, shape (n, n).
        inner: P2, positive, shape (n,).

    Raises:
        InputError: wrong shapes, not finite, not positive, or S not symmetric.
    """
    arrays = {"outer": outer, "core": core, "inner": inner}
    values: dict[str, Array] = {}
    for name, given in arrays.items():
        try:
            values[name] = np.array(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(name, "something that is not an array of numbers", "numbers", "wrong-type") from error
        if not np.isfinite(values[name]).all():
            raise InputError(name, "a value that is not finite", "finite numbers", "not-finite")
    size = values["core"].shape[0] if values["core"].ndim else 0
    for name, shape in {"core": (size, size), "outer": (size,), "inner": (size,)}.items():
        if values[name].shape != shape or size == 0:
            raise InputError(name, f"shape {values[name].shape}", f"shape {shape}", "wrong-shape")
    for name in ("outer", "inner"):
        if not (values[name] > 0).all():
            raise InputError(name, f"{values[name].min()}", "positive numbers", "not-positive")
    if not np.array_equal(values["core"], values["core"].T):
        raise InputError("core", "a matrix that is not symmetric", "a symmetric positive definite matrix")
    return Product(factors=Factors(**values))


@dataclass(frozen=True, eq=False)
class Product:
    """The condition; see the module's docstring for the law. ``factors``: given, or None to search."""

    name: str = "product"
    version: int = 1
    factors: Factors | None = None

    def applies(self, system: System) -> str | None:
        """Continuous time, one time constant, slopes that are not negative, dense weights."""
        if system.form == "lure" or system.is_sparse:
            return "'product' speaks of rate and hopfield networks with dense weights"
        if not (system.continuous and system.uniform_tau):
            return "'product' needs continuous time and one time constant for all neurons"
        if (system.slope.lower < 0).any():
            return "'product' needs slopes that are not negative"
        if self.factors is not None and len(self.factors.outer) != system.size:
            return f"the factors are of size {len(self.factors.outer)}, the network of size {system.size}"
        return None

    @np.errstate(all="ignore")  # overflow ends in inf or NaN, and those are looked for
    def decide(self, system: System, goal: Goal) -> Decision:
        """Three candidates, with growing allowances for the rounding of E and of the metric bounds."""
        refusal = self.applies(system)
        if refusal is not None:
            return NothingFound("not-applicable", refusal)
        factors = self.factors
        if factors is None:
            if system.size > LARGEST:
                return NothingFound("too-large", f"factors are searched for up to {LARGEST} neurons")
            factors = find_factors(system.matrix("W"))
        if factors is None:
            return NothingFound("not-applicable", "-W is not close to a diagonally symmetrisable matrix")
        return self._candidates(system, goal, factors)

    def _candidates(self, system: System, goal: Goal, factors: Factors) -> Decision:
        weights, tau = system.matrix("W"), float(system.tau[0])
        with np.errstate(all="ignore"):
            product = factors.outer[:, None] * factors.core * factors.inner[None, :]
            error, scale = float(np.linalg.norm(weights + product)), float(np.linalg.norm(product))
            metric = metric_of(system, factors)
        if not (np.isfinite(scale) and np.isfinite(metric).all()):
            return NothingFound("not-applicable", "the factors' product overflows")
        values = eigenvalues(metric)
        if values is None or not values[0] > 0:
            return NothingFound("not-applicable", "the core is not positive definite")
        gain = float(system.slope.upper.max())
        found: list[Candidate] = []
        best = -np.inf
        for allowance, pad, floor in zip(_ALLOWANCES, _BOUND_PADS, _FLOORS, strict=True):
            residual = max(error * (1.0 + 1e-9) + allowance * scale, floor)
            low, high = float(values[0]) * (1.0 - pad), float(values[-1]) * (1.0 + pad)
            loss = gain * float(np.sqrt(high / low)) * residual
            reached = (1.0 - loss * (1.0 + 1e-9) - 1e-15) / tau
            best = max(best, reached)
            numbers = aim(system, reached, goal, (1e-15,))
            proof = ProductProof(factors.outer, factors.core, factors.inner, residual, low, high)
            found += [Candidate(proof, claim(system, number)) for number in numbers]
        return tuple(found) or missed(system, best, goal, self.name)


def metric_of(system: System, factors: Factors) -> Array:
    """P2 S P2 (rate: the metric) or P1 S P1 (hopfield: the inverse of the metric), shape (n, n)."""
    side = factors.inner if system.form == "rate" else factors.outer
    return np.asarray(side[:, None] * factors.core * side[None, :])


def find_factors(weights: Array) -> Factors | None:
    """Factors of a diagonally symmetrisable -W, split so that P1 = P2^-1 = d^1/2; None if there are no such.

    The core has the entries (W_ij W_ji)^1/2, negated: it is symmetric; whether it is positive definite, and how well
    the product fits, is for the caller to see.
    """
    own = np.diagonal(weights)
    if not (own < 0).all():
        return None
    if np.array_equal(weights, weights.T):
        ones = np.ones(len(weights))
        return Factors(ones, -weights, ones)
    with np.errstate(all="ignore"):
        forward, backward = np.abs(weights), np.abs(weights.T)
        paired = (np.sign(weights) == np.sign(weights.T)) & (weights != 0)
        strength = np.sqrt(forward) * np.sqrt(backward)
        stray = np.where(paired, 0.0, np.maximum(forward, backward))
    if stray.max() > 0.1 * forward.max():  # one-way connections or opposite signs: too much would be left in E
        return None
    np.fill_diagonal(paired, False)
    ratio = np.where(paired, np.log(np.where(paired, forward, 1.0)) - np.log(np.where(paired, backward, 1.0)), 0.0)
    # An error in x_i - x_j costs W_ij times that in E: weigh pairs by their square, relative to what S > 0 allows.
    root = np.sqrt(-own)
    weight = np.where(paired, np.clip((strength / root[:, None] / root[None, :]) ** 2, 1e-10, 1.0), 0.0)
    logs = _potential(weight, ratio)
    inner = np.exp(-logs / 2.0)
    outer = 1.0 / inner
    core = np.where(paired, -np.sign(weights) * strength, 0.0)
    np.fill_diagonal(core, -own)
    if not (np.isfinite(inner).all() and np.isfinite(outer).all() and (inner > 0).all() and (outer > 0).all()):
        return None
    return Factors(outer, (core + core.T) / 2.0, inner)


def _potential(weight: Array, ratio: Array) -> Array:
    """x minimising sum over pairs of weight_ij (ratio_ij - x_i + x_j)^2, small on every connected component.

    Args:
        weight: symmetric, >= 0, zero diagonal, shape (n, n).
        ratio: antisymmetric, shape (n, n).
    """
    degree = weight.sum(axis=1)
    scale = 1.0 / np.sqrt(np.where(degree > 0, degree, 1.0))
    target = np.asarray((weight * ratio).sum(axis=1))
    laplacian = np.diag(degree) - weight
    # A tiny multiple of I makes it definite; refinement against the Laplacian itself removes its effect.
    scaled = scale[:, None] * laplacian * scale[None, :]
    factor = scipy.linalg.cho_factor(scaled + 1e-11 * np.eye(len(degree)))
    x = np.zeros(len(degree))
    for _ in range(4):
        x = x + scale * scipy.linalg.cho_solve(factor, scale * (target - laplacian @ x))
    return x


CONDITION = Product()
