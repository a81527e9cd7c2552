"""What is to be verified, and helpers that every obligation uses. Scalars are compared as exact rationals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from certes.proofs import ArrayProof, Claims, Proof
from certes.systems import SparseMatrix, System
from certes.verify.arithmetic import is_normal, rounds_to_nearest
from certes.verify.definite import SymmetricBox, missing_margin, positive_definite
from certes.verify.intervals import Box
from certes.verify.report import Check

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Question:
    """Does ``proof`` show that ``system`` contracts, and do ``claims`` follow?"""

    system: System
    proof: Proof
    claims: Claims


Obligation = Callable[[Question], Check]


def inputs(system: System, arrays: tuple[Array, ...]) -> Check | None:
    """A failed check unless the arithmetic is the assumed one and every number is finite and not subnormal."""
    if not rounds_to_nearest(system.size):
        return Check(
            "arithmetic", False, "this process does not round to nearest (a library changed the rounding mode)"
        )
    values = [entry.value for entry in system.tensors.values()]
    weights = [value.data if isinstance(value, SparseMatrix) else value for value in values]
    step = np.array([1.0 if system.step is None else system.step])
    given = (*weights, system.slope.lower, system.slope.upper, system.tau, step, *arrays)
    if not is_normal(*given):
        return Check("inputs", False, "weights and proof are finite, and no entry is subnormal")
    return None


def arrays_of(proof: ArrayProof) -> tuple[Array, ...]:
    """Every field of a proof or witness as float64, for :func:`inputs`."""
    return tuple(np.asarray(array, dtype=np.float64) for array in proof.to_arrays().values())


def definite_check(name: str, box: Box | SymmetricBox, detail: str, margin: float = 0.0) -> Check:
    """The obligation that every matrix in a box is positive definite (beyond a margin, when equilibrated)."""
    if positive_definite(box, margin):
        return Check(name, True, detail)
    return Check(name, False, detail, missing_margin(box) + margin)


def leak_bounds(system: System) -> tuple[list[Fraction], list[Fraction]]:
    """Exact bounds (lower, upper) of 1 / tau (continuous) or step / tau (map), one per distinct time constant."""
    times = [Fraction(float(tau)) for tau in np.unique(system.tau)]
    if system.step is None:
        return [1 / tau for tau in times], [1 / tau for tau in times]
    step, ulp = Fraction(system.step), Fraction(float(np.spacing(system.step)))
    if system.step == 1.0 and times == [1]:
        ulp = Fraction(0)
    return [(step - ulp) / tau for tau in times], [(step + ulp) / tau for tau in times]


def slopes_from_zero(question: Question) -> Check | None:
    """A failed check unless all slopes are nonnegative, time is continuous and tau is uniform (Thm 2 and Thm 3)."""
    system = question.system
    if system.form == "lure" or not system.continuous or not system.uniform_tau or bool((system.slope.lower < 0).any()):
        return Check("hypotheses", False, "continuous time, one time constant, slopes in [0, g], form rate or hopfield")
    return None


def scaled_rate(question: Question) -> Fraction:
    """c tau of a network with one time constant, exact."""
    return Fraction(question.claims.rate or 0.0) * Fraction(float(question.system.tau[0]))


def is_symmetric(matrix: Array) -> bool:
    """Exact symmetry."""
    return matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and bool((matrix == matrix.T).all())
