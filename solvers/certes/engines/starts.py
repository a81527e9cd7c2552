"""Scalings to start from: balancing, Perron vectors, and strongly connected components moved apart.

All of them look at abs(M) only. D M D^-1 with D^2 = diag(l / r), r and l the Perron vectors of abs(M), has the
smallest norm that any D gives abs(M); for M >= 0 it is the optimum. Where M is reducible the infimum may need infinite
ratios between components: they are moved apart as far as the cap on cond(Q) allows.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Distances in log(q)/2 between components that are tried, before the largest that the cap allows.
_DISTANCES = (2.0, 7.0)


def balancing(m: Array, room: float) -> Array:
    """Powers of two d that balance rows against columns of diag(d) M diag(d)^-1.

    Args:
        m: M, shape (n, n).
        room: largest abs(log d).
    """
    if len(m) == 1 or not m.any():
        return np.ones(len(m))
    _, (scale, _) = scipy.linalg.matrix_balance(m, permute=False, separate=True)
    exponent = -np.log2(np.asarray(scale, dtype=np.float64))
    exponent = np.rint(exponent - 0.5 * (exponent.max() + exponent.min()))
    limit = math.floor(room / math.log(2.0))
    return np.asarray(2.0 ** np.clip(exponent, -limit, limit))


def guesses(m: Array, room: float) -> list[Array]:
    """Values of log(q)/2, each of shape (n,), whose spread need not respect the cap.

    Args:
        m: M, balanced, shape (n, n).
        room: largest difference between entries that is of use.
    """
    size = np.abs(m)
    found = [perron(size)]
    labels = connected_components(sp.csr_array((size > 0.0).astype(np.int8)), connection="strong")[1].astype(np.int64)
    if labels.max() > 0:
        depth = _depths(size > 0.0, labels)
        inside = perron(np.where(labels[:, None] == labels[None, :], size, 0.0))
        widest = room / max(int(depth.max()), 1)
        found += [inside - distance * depth for distance in (*_DISTANCES, 0.9 * widest, widest) if distance <= widest]
    return found


def perron(size: Array) -> Array:
    """log(l / r) / 2 for the Perron vectors l, r of a matrix >= 0 made irreducible by a small constant."""
    right, left = np.ones(len(size)), np.ones(len(size))
    shift = 1e-3 * float(size.mean())
    if not shift > 0.0 or not math.isfinite(shift):
        return np.zeros(len(size))
    for _ in range(60):
        right, left = size @ right + shift * right.sum(), size.T @ left + shift * left.sum()
        right, left = right / right.max(), left / left.max()
    return np.asarray(0.5 * np.log(left / right))


def _depths(pattern: NDArray[np.bool_], labels: Integers) -> Integers:
    """Longest path, in components, from the component of each row along the entries of the matrix; shape (n,)."""
    rows, columns = np.nonzero(pattern)
    across = labels[rows] != labels[columns]
    edges = np.unique(np.stack([labels[rows[across]], labels[columns[across]]]), axis=1)
    depth = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    for _ in range(len(depth)):  # one round per component on the longest path
        deeper = depth.copy()
        np.maximum.at(deeper, edges[0], depth[edges[1]] + 1)
        if (deeper == depth).all():
            break
        depth = deeper
    return np.asarray(depth[labels])
