"""Couplings in the whitened coordinates of the modules' metrics: their norms, and multipliers of those inside phi."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.assemblies import Assembly, Coupling
from certes.systems import System
from certes.verify.attained import unshifted
from certes.verify.interface import Interface
from certes.verify.reduction import dense

Array = NDArray[np.float64]

#: Multipliers of couplings inside phi stay above the input matrix by this, relative.
_ABOVE = 1e-6


@dataclass(frozen=True, eq=False)
class Edge:
    """One coupling, seen through the metrics.

    Attributes:
        head, tail: positions of the modules.
        matrix: Lhat = R_i L R_j^-1, shape (n_i, n_j); None for a coupling inside phi.
        norm: its spectral norm; of a coupling inside phi a bound of norm(R_i B D C R_j^-1) over all slopes.
        multipliers: of a coupling inside phi, shape (m_i,).
    """

    head: int
    tail: int
    matrix: Array | None
    norm: float
    multipliers: Array | None = None


class Whitening:
    """R_i of every module, block by block."""

    def __init__(self, children: Sequence[Interface]) -> None:
        self.children = children
        self._roots: dict[int, list[Array]] = {}

    def roots(self, k: int) -> list[Array]:
        """Upper triangular R of every block of module k."""
        if k not in self._roots:
            self._roots[k] = [np.asarray(scipy.linalg.cholesky(block.mid)) for block in self.children[k].blocks]
        return self._roots[k]

    def left(self, k: int, matrix: Array) -> Array:
        """R_k X."""
        starts = self.children[k].starts
        return np.vstack([root @ matrix[starts[b] : starts[b + 1]] for b, root in enumerate(self.roots(k))])

    def right(self, k: int, matrix: Array) -> Array:
        """X R_k^-1."""
        starts = self.children[k].starts
        parts = [
            scipy.linalg.solve_triangular(root, matrix[:, starts[b] : starts[b + 1]].T, trans=1).T
            for b, root in enumerate(self.roots(k))
        ]
        return np.hstack(parts)


def whitened(assembly: Assembly, children: Sequence[Interface]) -> list[Edge]:
    """Every coupling of an assembly, in its order."""
    order = {name: k for k, name in enumerate(assembly.modules)}
    whitening = Whitening(children)
    found = []
    for coupling in assembly.couplings:
        head, tail = order[coupling.to], order[coupling.source]
        if coupling.inside:
            system = assembly.modules[coupling.to]
            assert isinstance(system, System)
            found.append(_inside(coupling, system, whitening, head, tail))
        else:
            matrix = whitening.right(tail, whitening.left(head, coupling.matrix))
            found.append(Edge(head, tail, matrix, _norm(matrix)))
    return found


def _norm(matrix: Array) -> float:
    """Spectral norm; rows and columns of zeros, of which couplings of large assemblies mostly consist, are left out."""
    used = matrix != 0.0
    part = matrix[used.any(axis=1)][:, used.any(axis=0)]
    return float(np.linalg.norm(part, 2)) if part.size else 0.0


def _inside(coupling: Coupling, system: System, whitening: Whitening, head: int, tail: int) -> Edge:
    """The least nu with nu^2 >= lambda_max(Chat^T G Q G Chat), Q > B^T M B, over Q = diag(q).

    q is searched in the form q = t p with t the least number that makes t diag(p) > B^T M B.
    """
    B = whitening.left(head, dense(unshifted(system).B).mid)
    inner = B.T @ B
    C = system.slope.bound[:, None] * whitening.right(tail, coupling.matrix)

    def multipliers(x: Array) -> Array:
        p = np.exp(np.clip(x, -100.0, 100.0))
        top = float(scipy.linalg.eigvalsh(inner / np.sqrt(np.outer(p, p)))[-1])
        return np.asarray(p * max(top, 1e-300) * (1.0 + _ABOVE))

    def norm(x: Array) -> float:
        return float(np.linalg.norm(np.sqrt(multipliers(x))[:, None] * C, 2))

    start = np.log(np.maximum(np.diagonal(inner), 1e-12 * max(float(np.diagonal(inner).max()), 1e-300)))
    best = start
    if len(start) <= 16:  # numerical gradients: small modules only
        from scipy.optimize import minimize  # not needed to read what a composition is

        improved: Any = minimize(norm, start, method="L-BFGS-B", options={"maxiter": 20})
        best = improved.x if math.isfinite(float(improved.fun)) and improved.fun < norm(start) else start
    return Edge(head, tail, None, norm(best) * (1.0 + 1e-9), multipliers(best))
