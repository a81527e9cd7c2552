"""Composition of maps: Perron vectors of T_ij = rho_i delta_ij + norm(coupling), and the factor that follows.

A hierarchy has a reducible T, whose best factor is an infimum that no vectors attain: r solves (p I - T) r = 1 for a
level p above the spectral radius, which gives T r < p r for every nonnegative T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve

from certes.assemblies import Assembly, MapProof
from certes.composition.edges import Edge
from certes.verify.composition import Node, verify_maps
from certes.verify.interface import Interface
from certes.verify.report import Report

Array = NDArray[np.float64]

#: Parts of the room up to factor 1 that are given up in turn.
_LOSSES = (1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.5)
#: Of which an assembly inside another one takes these: the vectors of a hierarchy run off as the loss goes to 0, and
#: every further coupling pays for their spread.
_MODEST = (0.02, 0.1, 0.5)


@dataclass(frozen=True, eq=False)
class MapComposition:
    """A verified composition of maps."""

    proof: MapProof
    interface: Interface
    report: Report


def prove(
    assembly: Assembly, children: Sequence[Interface], edges: Sequence[Edge], *, modest: bool = False
) -> MapComposition | None:
    """The best verified factor, or None.

    Args:
        assembly: modules and couplings.
        children: interfaces of the modules, in their order.
        edges: the couplings, whitened, in the order of the assembly.
        modest: give up a little of the factor for vectors that differ less, where that makes a difference.
    """
    count = len(children)
    norms = np.array([edge.norm * (1.0 + 1e-9) + 1e-290 for edge in edges])
    heads, tails = [edge.head for edge in edges], [edge.tail for edge in edges]
    coupling = sp.csr_array((norms, (heads, tails)), shape=(count, count))
    matrix = sp.diags_array(np.array([child.level for child in children])) + coupling
    radius = float(np.abs(np.linalg.eigvals(matrix.toarray())).max())
    multipliers = np.concatenate([*(e.multipliers for e in edges if e.multipliers is not None), np.zeros(0)])
    if not radius < 1.0:
        return None
    free = not edges or all(edge.norm == 0.0 for edge in edges)
    for loss in _MODEST if modest and not free else _LOSSES:
        level = radius + loss * (1.0 - radius)
        right, left = _vector(matrix, level), _vector(matrix.T, level)
        if right is None or left is None:
            continue
        number = level + 1e-9 * (1.0 - level)
        proof = MapProof(*_split(right), *_split(left), norms, multipliers, number)
        report, interface = verify_maps(Node(assembly, children), proof)
        if report.valid and interface is not None:
            return MapComposition(proof, interface, report)
    return None


def _vector(matrix: Any, level: float) -> Array | None:
    """x > 0 with T x < level x."""
    count = matrix.shape[0]
    system = sp.csc_array(level * sp.eye_array(count) - matrix)
    x = np.atleast_1d(spsolve(system, np.ones(count)))
    return x if np.isfinite(x).all() and (x > 0.0).all() else None


def _split(vector: Array) -> tuple[Array, NDArray[np.int64]]:
    mantissa, exponent = np.frexp(vector)
    return mantissa, exponent.astype(np.int64)
