"""The obligations of a proof that no constant quadratic metric exists, in exact rational arithmetic.

Every float is the rational number that it is, so S = sum_k (J_k Z_k + Z_k J_k^T), resp. sum_k (J_k Z_k J_k^T - Z_k), is
one rational matrix, whose definiteness is decided without rounding.
"""

from __future__ import annotations

import math

import numpy as np

from certes.exact.normal import unshifted, vector
from certes.exact.rationals import Answer, RationalMatrix, Step, diagonal, flint, matrix, positive_definite
from certes.proofs import NoMetricProof
from certes.systems import System


def shapes(system: System, proof: NoMetricProof) -> Answer:
    """Shapes, finite numbers, and a row of slopes for every column."""
    rows, channels = proof.slopes.shape
    states, count = proof.columns.shape
    fits = channels == len(system.slope.lower) and states == system.size and proof.pattern.shape == (count,)
    finite = all(math.isfinite(entry) for table in (proof.slopes, proof.columns) for entry in table.ravel())
    return fits and finite and all(0 <= int(row) < rows for row in proof.pattern)


def slopes(system: System, proof: NoMetricProof) -> Answer:
    """Every D_k lies in the closed slope box."""
    lower, upper = system.slope.lower, system.slope.upper
    return all(a <= d <= b for row in proof.slopes for a, d, b in zip(lower, row, upper, strict=True))


def separator(system: System, proof: NoMetricProof) -> RationalMatrix:
    """S, exactly."""
    A, B, C = unshifted(system)
    total = flint().fmpq_mat(system.size, system.size)
    for k, row in enumerate(proof.slopes):
        own = np.flatnonzero(proof.pattern == k)
        if len(own) == 0:
            continue
        J, Y = A + B * diagonal(vector(row)) * C, matrix(proof.columns[:, own])
        Z = Y * Y.transpose()
        total += J * Z + Z * J.transpose() if system.continuous else J * Z * J.transpose() - Z
    return total


def steps(system: System, proof: NoMetricProof) -> list[Step]:
    """The obligations in their order."""
    return [
        ("shapes", lambda: shapes(system, proof), "slopes (k, m); columns (n, r); pattern (r,), entries in [0, k)"),
        ("slopes", lambda: slopes(system, proof), "slopes inside their intervals"),
        ("separating", lambda: positive_definite(separator(system, proof)), "S > 0"),
    ]
