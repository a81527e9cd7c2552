"""The Lur'e inequality over the frequencies: the largest eigenvalue of the Hermitian part of the scaled response."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.response import Response

Array = NDArray[np.float64]

#: Points of the curve before its peaks are refined.
COUNT = 241


def margin_curve(response: Response, q: Array, strength: float) -> tuple[Array, Array]:
    """lambda_max(Re(Q^1/2 G Q^-1/2)) over the frequency w; below 1 where the inequality holds.

    Args:
        response: the frequency response G, slopes included.
        q: multipliers, shape (m,).
        strength: c (continuous time) or -rho (a map): G is taken at i w - c, or at rho e^(i w).

    Returns:
        (w, values), shapes (k,), ascending: continuous time: two decades beyond the poles of G on either side; a map:
        from 0 to pi. Every local maximum of the grid is refined.
    """
    root = np.sqrt(q)

    def value(w: float) -> float:
        scaled = root[:, None] * response.at(strength, w)[0] / root[None, :]
        top = len(scaled) - 1
        return float(scipy.linalg.eigvalsh(0.5 * (scaled + scaled.conj().T), subset_by_index=(top, top))[0])

    if not response.continuous:
        return _refined(value, np.linspace(0.0, math.pi, COUNT))
    corners = np.abs(response.poles + strength)
    low, high = max(float(corners.min()), 1e-12 * float(corners.max())), float(corners.max())
    grid = np.linspace(math.log(1e-2 * low), math.log(1e2 * high), COUNT)
    logarithms, values = _refined(lambda x: value(math.exp(x)), grid)
    return np.exp(logarithms), values


def _refined(value: Callable[[float], float], grid: Array) -> tuple[Array, Array]:
    """A function on a grid, and at the local maxima that the grid shows; both ascending in the argument."""
    from scipy.optimize import minimize_scalar
    from scipy.signal import find_peaks  # brings all of scipy.stats with it

    values = np.array([value(float(x)) for x in grid])
    sharp = [
        float(minimize_scalar(lambda x: -value(x), bounds=(grid[k - 1], grid[k + 1]), method="bounded").x)
        for k in find_peaks(values)[0]
    ]
    places = np.append(grid, sharp)
    order = np.argsort(places)
    return places[order], np.append(values, [value(x) for x in sharp])[order]
