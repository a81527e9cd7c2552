"""A lower bound on the distance: no weights closer than this are certified by the condition ``lure``, with any Q.

Dual columns y_k with points u_k (:mod:`certes.engines.duality`) give every matrix M one number per row,

    l_i(M) = sum_k Re(h_k conj(y_ik) (M y_k)_i) - t abs(y_ik)^2,        h_k = c0 + r0 u_k,

and a matrix that some Q certifies at level t has sum_i q_i l_i <= 0, so some l_i <= 0. l_i is affine in row i of M: if
all l_i are positive at the given weights, row i has to move by l_i / norm(gradient) for l_i to become 0, and one row
has to. For norms (slopes in [-g, g]) row i of M Y may shrink to s norm(y_i) no faster than by norm(Y) times its move.

The bound is that of one row, so it is weak for large networks; but it holds for every Q at once. Float arithmetic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from certes.conditions.uniform import UniformLeak
from certes.engines import duality
from certes.engines.families import Functional, Level, Norm
from certes.engines.monitor import Monitor

Array = NDArray[np.float64]

#: Relative gap of the dual solution that is asked for.
_GAP = 1e-3
#: Relative amount by which the bound is lowered for rounding.
_ROUNDING = 1e-9


def distance_bound(leak: UniformLeak, functional: Functional, q: Array, best: float, monitor: Monitor) -> float | None:
    """A distance (Frobenius, in weights W) within which nothing is certified at a number; None if none was found.

    Args:
        leak: the network.
        functional: c0, r0 and t of that number (for norms the level s stands in ``t``, and r0 is 0).
        q: nearly optimal multipliers of the given weights, shape (n,).
        best: the level of the family of fixed c0, r0 that q reaches.
        monitor: time limit and cancellation.
    """
    norm = isinstance(leak.family, Norm)
    family = Norm() if norm else Level(functional.c0, functional.r0)
    dual = duality.prove(leak.weights, family, q, best, gap=_GAP, monitor=monitor)
    if dual is None:
        return None
    y, gains = dual.columns.y, leak.system.slope.bound
    support = (np.abs(y).max(axis=1) > 0.0) & (gains > 0.0)
    image = leak.weights @ y
    if norm:
        room = np.linalg.norm(image, axis=1) - functional.t * np.linalg.norm(y, axis=1)
        steep = np.full(len(y), np.linalg.norm(y, 2))
    else:
        h = functional.c0 + functional.r0 * dual.columns.u
        room = np.real((y.conj() * image) @ h) - functional.t * np.sum(np.abs(y) ** 2, axis=1)
        steep = np.linalg.norm(np.real((y.conj() * h) @ y.T), axis=1)
    if not support.any():
        return None
    per_row = room[support] / (gains[support] * steep[support])
    bound = float(per_row.min()) * (1.0 - _ROUNDING)
    return bound if np.isfinite(bound) and bound > 0.0 else None
