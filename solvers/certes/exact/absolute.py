"""Exact row and column sums of the majorant of an ``absolute`` proof.

M bounds the Jacobian entry by entry over all slopes (off the diagonal in absolute value; on it from above for a
differential equation, in absolute value for a map). With s_i = (M r)_i / r_i and t_i = (M^T l)_i / l_i:

    continuous  rate min_i -(s_i + t_i) / 2 in the metric diag(l / r), l = tau * (the stored left vector)
    map         factor sqrt(max s max t) in the metric diag(l / r)
"""

from __future__ import annotations

from certes.exact.normal import jacobian_entries, vector
from certes.exact.rationals import Rational, flint, power_of_two, rational
from certes.proofs import AbsoluteProof
from certes.systems import SparseMatrix, System

#: Most stored weights, and largest power of two between neighbours, that are summed exactly.
MOST_ENTRIES = 2_000_000
LARGEST_SHIFT = 1 << 20


def _entries(system: System) -> int:
    value = next(iter(system.tensors.values())).value
    return value.nnz if isinstance(value, SparseMatrix) else value.size


def absolute_rate(system: System, proof: AbsoluteProof, level: Rational) -> bool | None:
    """Whether the claimed rate or factor follows; None beyond ``MOST_ENTRIES`` or ``LARGEST_SHIFT``."""
    if _entries(system) > MOST_ENTRIES:
        return None
    size = system.size
    right, left = vector(proof.right), vector(proof.left)
    if system.continuous:
        left = [entry * rational(tau) for entry, tau in zip(left, system.tau, strict=True)]
    right_power = [int(entry) for entry in proof.right_exponent]
    left_power = [int(entry) for entry in proof.left_exponent]
    zero = flint().fmpq(0)
    rows, columns = [zero] * size, [zero] * size
    for i, j, low, high in jacobian_entries(system):
        bound = high if system.continuous and i == j else max(abs(low), abs(high))
        if bound == 0:
            continue
        shift, other = right_power[j] - right_power[i], left_power[i] - left_power[j]
        if max(abs(shift), abs(other)) > LARGEST_SHIFT:
            return None
        rows[i] += bound * right[j] / right[i] * power_of_two(shift)
        columns[j] += bound * left[i] / left[j] * power_of_two(other)
    if system.continuous:
        return all(row + column <= -2 * level for row, column in zip(rows, columns, strict=True))
    return bool(max(rows) * max(columns) <= level * level)


def absolute_metric(system: System, proof: AbsoluteProof) -> list[Rational] | None:
    """The diagonal metric l / r up to a common power of two; None beyond ``LARGEST_SHIFT``."""
    powers = [int(a) - int(b) for a, b in zip(proof.left_exponent, proof.right_exponent, strict=True)]
    least = min(powers)
    if (max(powers) - least) * len(powers) > 64 * LARGEST_SHIFT:
        return None
    mantissas = zip(vector(proof.left), vector(proof.right), powers, strict=True)
    metric = [a / b * power_of_two(power - least) for a, b, power in mantissas]
    if system.continuous:
        metric = [entry * rational(tau) for entry, tau in zip(metric, system.tau, strict=True)]
    return metric
