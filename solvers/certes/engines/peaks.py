"""The best strength that given multipliers reach: where the curve of the level first meets a singular point.

Criss-cross search (J. Burke, A. Lewis, M. Overton, IMA J. Numer. Anal. 23 (2003), for the pseudospectral abscissa):
along an angle, Newton's method on the largest eigenvalue lowers the strength until that angle is satisfied; along the
curve of that strength the Hamiltonian matrix finds every angle still violated. The strength falls monotonically, at
last quadratically.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.hamiltonian import Form
from certes.engines.response import Matrix, Response

Array = NDArray[np.float64]

#: A violation of the condition, relative to 1, below which an angle counts as satisfied.
SATISFIED = 1e-11
#: Rounds of angles and curve; a handful is usual.
ROUNDS = 20


@dataclass(frozen=True)
class Peak:
    """The best strength for given multipliers, and the angles at which it is decided, the last one decisive."""

    strength: float
    angles: tuple[float, ...]


def scaled(matrix: Matrix, q: Array) -> Matrix:
    """Q^1/2 M Q^-1/2."""
    root = np.sqrt(q)
    return matrix * (root[:, None] / root[None, :])


def satisfied(response: Response, q: Array, strength: float, angle: float) -> bool:
    """Whether 2 Q - Q G - G^H Q >= 0 there, but for SATISFIED."""
    gain = scaled(response.at(strength, angle)[0], q)
    try:
        np.linalg.cholesky((2.0 + 2.0 * SATISFIED) * np.eye(len(q)) - gain - gain.conj().T)
    except np.linalg.LinAlgError:
        return False
    return True


def _worst(response: Response, q: Array, strength: float, angle: float) -> tuple[float, float]:
    """The largest eigenvalue of the Hermitian part of the scaled G, and its derivative in the strength."""
    gain, growth = (scaled(part, q) for part in response.at(strength, angle))
    last = len(q) - 1
    values, vectors = scipy.linalg.eigh(0.5 * (gain + gain.conj().T), subset_by_index=[last, last], check_finite=False)
    v = vectors[:, 0]
    return float(values[0]), float((v.conj() @ growth @ v).real)


def worst(response: Response, q: Array, strength: float, angle: float) -> float:
    """The largest eigenvalue of the Hermitian part of the scaled G: at most 1 where the condition holds."""
    return _worst(response, q, strength, angle)[0]


def reach(response: Response, q: Array, strength: float, angle: float) -> float:
    """The strength below ``strength`` (violated there) at which an angle becomes satisfied."""
    high, low = strength, -np.inf
    point = strength
    for _ in range(60):
        value, growth = _worst(response, q, point, angle)
        if value > 1.0 + 0.5 * SATISFIED:
            high = point
        else:
            low = point
            if value > 1.0 - SATISFIED:
                return point
        # 1 / value is nearly linear in the strength, as G is near a pole
        step = (1.0 - 1.0 / value) * value * value / growth if growth > 0 and value > 0 else np.inf
        aim = point - step
        if not low < aim < high:
            room = (high - low) if np.isfinite(low) else 2.0 * (response.ceiling - high) + 1e-3 * response.size
            aim = high - 0.5 * room
        if high - low <= 4e-16 * max(abs(high), 1e-300):
            break
        point = aim
    return low if np.isfinite(low) else high


def best(response: Response, q: Array, start: float, angles: Iterable[float]) -> Peak:
    """The best strength <= ``start``.

    Args:
        response: the system.
        q: multipliers, shape (m,).
        start: a strength below ``response.ceiling``; the search comes down from it.
        angles: where to look first.
    """
    strength, seen, candidates = start, list[float](), list(angles)
    for _ in range(ROUNDS):
        for angle in candidates:
            if not satisfied(response, q, strength, angle):
                strength = reach(response, q, strength, angle)
                seen.append(angle)
        candidates = violated(response, q, strength)
        if not candidates:
            break
    return Peak(strength, tuple(seen))


@dataclass(frozen=True)
class Interval:
    """Angles between two crossings, or from an end of the curve to a crossing."""

    low: float
    high: float
    middle: float

    def holds(self, angles: Iterable[float]) -> bool:
        """Whether one of the angles is near the middle."""
        return any(abs(angle - self.middle) <= 0.25 * (self.high - self.low) for angle in angles)


def intervals(response: Response, q: Array, strength: float) -> list[Interval]:
    """The parts of the curve in which the condition may be violated; empty: the level holds."""
    try:
        crossings = Form.at(response, strength).crossings(q)
    except np.linalg.LinAlgError:
        crossings = None
    if crossings is None:
        return [] if response.continuous else [Interval(0.5 * np.pi, np.pi, np.pi)]
    ends = [0.0, *crossings] if response.continuous else [0.0, *crossings, np.pi]
    parts = [Interval(a, b, 0.5 * (a + b)) for a, b in itertools.pairwise(ends) if a < b]
    # G at -w is the conjugate of G at w: a part around 0 (or pi) is looked at there. But the condition may be singular
    # at 0 itself, which leaves no room there and says nothing about what is beside it.
    if parts and not satisfied(response, q, strength, 0.0):
        parts[0] = Interval(-parts[0].high, parts[0].high, 0.0)
    if not response.continuous and parts and not satisfied(response, q, strength, np.pi):
        parts[-1] = Interval(parts[-1].low, 2.0 * np.pi - parts[-1].low, np.pi)
    return [part for part in parts if not satisfied(response, q, strength, part.middle)]


def violated(response: Response, q: Array, strength: float) -> list[float]:
    """One angle of each part of the curve in which the condition is violated; empty: the level holds."""
    return [part.middle for part in intervals(response, q, strength)]
