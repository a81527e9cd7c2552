"""The Lur'e inequality over the frequencies: the largest eigenvalue of the Hermitian part of a transfer function."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.signal import find_peaks

Array = NDArray[np.float64]

#: Points of the curve before its peaks are refined.
COUNT = 241


def margin_curve(A: Array, B: Array, C: Array, level: float, *, continuous: bool) -> tuple[Array, Array]:
    """lambda_max(Re(C (s - A)^-1 B)) over the frequency w.

    Args:
        A: shape (n, n).
        B: shape (n, m).
        C: shape (m, n).
        level: continuous time: c in s = i w - c; a map: rho in s = rho e^(i w).
        continuous: which of the two.

    Returns:
        (w, values), shapes (k,), ascending: continuous time: two decades beyond the eigenvalues of A on either side; a
        map: from 0 to pi. Every local maximum of the grid is refined.
    """
    # with the Schur form of A each frequency costs a triangular solve
    triangle, basis = scipy.linalg.schur(A, output="complex")
    right, left = basis.conj().T @ B, C @ basis

    def value(w: float) -> float:
        s = 1j * w - level if continuous else level * np.exp(1j * w)
        transfer = left @ scipy.linalg.solve_triangular(s * np.eye(len(A)) - triangle, right)
        hermitian = 0.5 * (transfer + transfer.conj().T)
        return float(scipy.linalg.eigvalsh(hermitian, subset_by_index=(len(hermitian) - 1,) * 2)[0])

    if continuous:
        size = np.abs(np.diag(triangle) + level)
        low, high = max(float(size.min()), 1e-12 * float(size.max())), float(size.max())
        grid = np.linspace(math.log(low) - math.log(1e2), math.log(high) + math.log(1e2), COUNT)
    else:
        grid = np.linspace(0.0, math.pi, COUNT)

    def at(x: float) -> float:
        return value(math.exp(x) if continuous else x)

    values = np.array([at(float(x)) for x in grid])
    peaks = find_peaks(values)[0]
    sharp = [
        float(minimize_scalar(lambda x: -at(x), bounds=(grid[k - 1], grid[k + 1]), method="bounded").x) for k in peaks
    ]
    places = np.append(grid, sharp)
    order = np.argsort(places)
    all_values = np.append(values, [at(x) for x in sharp])
    return (np.exp(places) if continuous else places)[order], all_values[order]
