"""Linear recurrences of many steps at once: y_t = a_t y_{t-1} + b_t, with y_{-1} = 0.

Neighbours are put together, y_{2k+1} = (a_{2k+1} a_{2k}) y_{2k-1} + (a_{2k+1} b_{2k} + b_{2k+1}), which is a recurrence
of half the length, solved in the same way; every other state then follows from the one before it. That is an
associative scan of depth 2 log2 T with T products of matrices in all (cyclic reduction; Blelloch 1990 has the scan).
"""

from __future__ import annotations

import torch
from torch import Tensor


def scan(a: Tensor, b: Tensor) -> Tensor:
    """All y_t, shape (T, batch, n).

    Args:
        a: matrices, shape (T, batch, n, n), or their diagonals, shape (T, batch, n); a_0 is not used.
        b: shape (T, batch, n).
    """
    steps = len(b)
    if steps < 2:
        return b
    half = steps // 2
    even, odd = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    found = torch.empty_like(b)
    found[odd] = scan(a[odd] @ a[even] if a.ndim > b.ndim else a[odd] * a[even], times(a[odd], b[even]) + b[odd])
    found[0] = b[0]
    found[2::2] = times(a[2::2], found[1 : steps - 1 : 2]) + b[2::2]
    return found


def times(a: Tensor, x: Tensor) -> Tensor:
    """a x, a matrix or its diagonal for each state."""
    return (a @ x[..., None])[..., 0] if a.ndim > x.ndim else a * x
