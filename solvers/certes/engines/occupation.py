"""Dual solutions of the Lur'e inequality: proofs that no metric and no multipliers reach a level.

Z = [x; v][x; v]^H summed over solutions of z x = A x + B v at points z of the curve of a strength is what a persistent
excitation at these points leaves: A X + B V = X diag(z). If in every channel the sum of Re(conj(v_i) (G C x)_i) -
abs(v_i)^2 is not negative, any P and Q give the Lur'e block a vector along which it is not positive. The dual
matrices of the path that lowers the threshold at a strength out of reach tend to such V (docs/theory.md, optimality).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.monitor import Monitor
from certes.engines.path import Path
from certes.engines.peaks import violated, worst
from certes.engines.response import Response

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Gaps, relative to the unit, at which a proof is tried.
GAPS = (3e-5, 2e-4, 1e-3, 5e-3, 3e-2)
#: By how much of the gap, beyond the strength of the columns, the bound is claimed: that makes S positive definite.
MARGINS = (0.3, 1.0, 3.0)
#: Order n + m up to which a proof is tried.
LARGEST = 240
#: Relative slack kept in every channel.
SLACK = 1e-8
STEPS = 40
#: Channels with less than this share of the largest may be left out.
FADED = 1e-3


@dataclass(frozen=True, eq=False)
class Dual:
    """No point reaches ``strength``; Z = columns columns^T proves it. Columns: shape (n + m, r)."""

    strength: float
    columns: Array


def prove(
    response: Response,
    q: Array,
    strength: float,
    angles: list[float],
    unit: float,
    target: float | None,
    monitor: Monitor,
) -> Dual | None:
    """A proof that multipliers near q are nearly the best ones: at the least gap that works, or None.

    A target that multipliers near q are far from is only proven to be out of reach.
    """
    if sum(response.B.shape) > LARGEST:
        return None
    gaps: tuple[float, ...] = GAPS
    if target is not None and target > strength + GAPS[-1] * unit:
        gaps = ((target - strength) / unit / (1.0 + 2.0 * MARGINS[-1]),)
    for gap in gaps:
        level = strength + gap * unit
        if level + gap * unit >= response.ceiling or monitor.over:
            return None
        columns = _columns(response, q, level, angles, monitor)
        for more in MARGINS if columns is not None else ():
            bound = level + more * gap * unit
            if columns is not None and holds(response, columns, bound):
                return Dual(bound, columns)
    return None


def _columns(response: Response, q: Array, level: float, angles: list[float], monitor: Monitor) -> Array | None:
    """Y from the path that lowers the threshold at a fixed strength; None: the strength may be in reach."""
    asked = sorted({*angles, *violated(response, q, level), *response.grid()[:4]})
    threshold = max(worst(response, q, level, angle) for angle in asked)
    if threshold <= 1.0:
        return None
    path = Path(response, q, level, 1.0 + 2.0 * (threshold - 1.0), climbing=False)
    path.ask(asked)
    for _ in range(STEPS):
        held = path.step()
        above, below = path.channels()
        kept = above > (1.0 + SLACK + 0.3 * (path.threshold - 1.0)) * below
        if bool((kept | (below < FADED * below.max())).all()) and (columns := _gather(path, kept)) is not None:
            return columns
        if not held or path.threshold <= 1.0 or monitor.over or path.gap < 1e-3 * (path.threshold - 1.0):
            return None
    return None


def _gather(path: Path, kept: Mask) -> Array | None:
    """Y with Y Y^T the sum over the angles, at most n + m columns; None: some channel does not allow it.

    Channels whose share tends to 0 may fail their inequality all the way there: they are left out. Half of what the
    others have to spare goes into a multiple of the identity, which excites every state.
    """
    above, below = path.channels()
    cost = sum((np.diagonal(slack.R).real for slack in path.slacks), np.zeros(len(path.q)))
    spare = np.diag(np.where(kept, 0.5 * (above - below) / cost, 0.0))
    columns = []
    for slack in path.slacks:
        values, vectors = np.linalg.eigh(slack.X + spare)
        V = vectors * np.sqrt(np.maximum(values, 0.0)) * (kept / np.sqrt(path.q))[:, None]
        Y = np.vstack([path.response.states(path.strength, slack.angle, V), V])
        columns += [Y.real] if path.response.is_real(slack.angle) else [Y.real, Y.imag]
    whole = np.hstack(columns)
    if not whole.any() or (_excess(path.response, whole, 0.5 * SLACK) < 0.0).any():
        return None
    (triangle,) = scipy.linalg.qr(whole.T, mode="r")
    Y = triangle[: min(whole.shape)].T
    return np.asarray(Y / np.abs(Y).max())


def _excess(response: Response, columns: Array, slack: float) -> Array:
    """In every channel the sum of v_i (G C x)_i - (1 + slack) v_i^2."""
    given = response.inequality
    X, V = columns[: len(given.A)], columns[len(given.A) :]
    seen = given.gap[:, None] * (given.C @ X)
    return np.asarray((seen * V - (1.0 + slack) * V * V).sum(axis=1))


def holds(response: Response, columns: Array, strength: float) -> bool:
    """Whether Y proves that nothing reaches a strength, with room for rounding: the verifier decides."""
    given = response.inequality
    n = len(given.A)
    X, V = columns[:n], columns[n:]
    moving = (X != 0.0).any(axis=1)
    X, moved = X[moving], (given.A @ X + given.B @ V)[moving]
    sizes = (np.abs(given.A) @ np.abs(columns[:n]) + np.abs(given.B) @ np.abs(V))[moving]
    if given.continuous:
        half = moved @ X.T + strength * X @ X.T
        S, rounding = half + half.T, (sizes + abs(strength) * np.abs(X)) @ np.abs(X).T
    else:
        S = moved @ moved.T - strength * strength * X @ X.T
        rounding = sizes @ sizes.T + strength * strength * np.abs(X) @ np.abs(X).T
    rounding = rounding + rounding.T
    root = np.sqrt(np.maximum(np.diagonal(S), 1e-300))
    share = float(np.finfo(float).eps) * sum(columns.shape)
    lost = share * float((rounding / root[:, None] / root[None, :]).sum(axis=1).max())
    try:
        np.linalg.cholesky(S / root[:, None] / root[None, :] - (lost + 1e-14 * len(S)) * np.eye(len(S)))
    except np.linalg.LinAlgError:
        return False
    return bool((_excess(response, columns, 0.0) >= 0.0).all())
