"""What flipping one or two slopes to their other ends would do to the leading eigenvalues, for all flips at once.

Changing slopes i in a set F by delta_i is a perturbation of rank |F| of the Jacobian J = A + B D C. With the spectral
decomposition J = V diag(lambda) V^-1, the eigenvalue lambda_j moves by the z that solves

    z = a_F Delta (I - S_F(z) Delta)^-1 b_F,      a = (V^-1 B)_j,  b = (C V)_j,
    S(z) = sum over k != j of (C V)_k (V^-1 B)_k / (lambda_j + z - lambda_k),

exactly (T. Kato, Perturbation Theory for Linear Operators, II.1; the secular equation of a low-rank update). Single
flips are iterated in z; pairs use S(0), which is right to second order. One decomposition predicts all m (m + 1) / 2
flips: a guess to be checked, cheap enough to look at every pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.engines.slopes import Linearisation

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: How many of the leading eigenvalues are followed, and how many flips of each kind are kept for each.
_FOLLOWED, _KEPT = 2, 12


@dataclass(frozen=True)
class Flip:
    """One or two slopes to be moved to their other ends, and the growth that is predicted for it."""

    channels: tuple[int, ...]
    growth: float

    def of(self, problem: Linearisation, slopes: Array) -> Array:
        """The slopes after the flip, shape (m,)."""
        flipped, chosen = slopes.copy(), list(self.channels)
        flipped[chosen] = problem.opposite(slopes)[chosen]
        return flipped


def predicted(problem: Linearisation, slopes: Array) -> list[Flip]:
    """The most promising flips at a vertex, best first; empty where the Jacobian has no usable eigenvectors.

    Args:
        problem: the Jacobians.
        slopes: D, each at an end of its interval, shape (m,).
    """
    jacobian = problem.jacobian(slopes)
    if not np.isfinite(jacobian).all():
        return []
    values, vectors = np.linalg.eig(jacobian)
    try:
        left = np.linalg.solve(vectors, problem.B.astype(vectors.dtype))
    except np.linalg.LinAlgError:
        return []
    right = problem.C @ vectors
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return []
    change = problem.opposite(slopes) - slopes
    order = np.argsort(-problem.growths(values), kind="stable")
    leading = [j for j in order if values[j].imag >= 0.0][:_FOLLOWED]  # conjugates move alike
    found = [flip for j in leading for flip in _of_mode(problem, values, left, right, int(j), change)]
    return sorted(found, key=lambda flip: (-flip.growth, flip.channels))


def _of_mode(
    problem: Linearisation, values: NDArray[Any], left: NDArray[Any], right: NDArray[Any], j: int, change: Array
) -> list[Flip]:
    """Flips ranked by where they would move the eigenvalue j."""
    a, b = left[j] * change, right[:, j]
    with np.errstate(all="ignore"):
        away = values[j] - values
        resolvent = np.where(np.abs(away) > 1e-9 * np.abs(values).max(), 1.0 / away, 0.0)
        remainder = (right * resolvent) @ left
        single = _singles(values, left, right, j, change, np.diagonal(remainder))
        pair = _pairs(a, b, remainder * change)
    found = []
    for shift, channels in (
        (single, np.arange(len(change))[:, None]),
        (pair, np.stack(np.triu_indices(len(change), 1), axis=1)),
    ):
        growth = np.nan_to_num(problem.growths(values[j] + shift), nan=-np.inf, posinf=-np.inf)
        for k in np.argsort(-growth, kind="stable")[:_KEPT]:
            if math.isfinite(growth[k]):
                found.append(Flip(tuple(int(i) for i in channels[k]), float(growth[k])))
    return found


def _singles(
    values: NDArray[Any], left: NDArray[Any], right: NDArray[Any], j: int, change: Array, remainder: NDArray[Any]
) -> NDArray[Any]:
    """Shift of eigenvalue j by each single flip, shape (m,): three rounds of the fixed point in z."""
    residues = right * left.T  # (m, n)
    lead = change * residues[:, j]
    shift = lead / (1.0 - change * remainder)
    for _ in range(2):
        away = values[j] + shift[:, None] - values[None, :]
        away[:, j] = np.inf
        shift = lead / (1.0 - change * (residues / away).sum(axis=1))
    return np.asarray(shift)


def _pairs(a: NDArray[Any], b: NDArray[Any], coupling: NDArray[Any]) -> NDArray[Any]:
    """Shift by each pair i < k, shape (m (m - 1) / 2,): a_F (I - S_F Delta)^-1 b_F with the 2 by 2 inverse written out.

    ``a`` carries Delta, and ``coupling`` is S Delta.
    """
    own = 1.0 - np.diagonal(coupling)
    i, k = np.triu_indices(len(a), 1)
    there, back = coupling[i, k], coupling[k, i]
    determinant = own[i] * own[k] - there * back
    top = a[i] * (own[k] * b[i] + there * b[k]) + a[k] * (own[i] * b[k] + back * b[i])
    return np.asarray(top / determinant)
