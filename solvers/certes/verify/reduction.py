"""Every network as one Lur'e normal form x' = A x + B psi(C x + u), or x+ = the same, psi with slopes in [0, gap].

A general slope interval is shifted first: phi(s) = a s + psi(s) turns A into A + B diag(a) C and leaves slopes in
[0, b - a]. All entries are boxes that enclose the exact reals; a step h is taken with one unit in the last place around
it (1 with tau = 1 stays exact: that is the plain discrete network).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.systems import System
from certes.verify.intervals import Box, diagonal, reciprocal

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Diagonal:
    """A diagonal matrix by its diagonal, shape (n,), or (1,) if all entries are equal."""

    entries: Box
    size: int

    def dense(self) -> Box:
        """The same matrix, shape (n, n)."""
        full = (self.size,)
        return diagonal(Box(np.broadcast_to(self.entries.mid, full), np.broadcast_to(self.entries.rad, full)))

    @property
    def is_identity(self) -> bool:
        """Whether it is I, exactly."""
        return self.entries.is_exact and bool((self.entries.mid == 1.0).all())

    @property
    def T(self) -> Diagonal:
        """A diagonal matrix is its own transpose."""
        return self


Operator = Box | Diagonal


@dataclass(frozen=True, eq=False)
class NormalForm:
    """A, B, C and the gap (m,) of the slopes. ``leak``: T^-1 (continuous) or diag(step / tau) (map), None for lure."""

    continuous: bool
    A: Operator
    B: Operator
    C: Operator
    gap: Box
    leak: Diagonal | None

    @property
    def dual(self) -> NormalForm:
        """The transposed system (A^T, C^T, B^T): it contracts in Y iff this one contracts in Y^-1."""
        return NormalForm(self.continuous, self.A.T, self.C.T, self.B.T, self.gap, self.leak)


def dense(operator: Operator) -> Box:
    """The operator as a matrix."""
    return operator.dense() if isinstance(operator, Diagonal) else operator


def times(left: Box, right: Operator) -> Box:
    """left @ right for a dense left factor."""
    if isinstance(right, Diagonal):
        return left if right.is_identity else left * right.entries[None, :]
    return left @ right


def premultiply(left: Operator, right: Box) -> Box:
    """left @ right for a dense right factor."""
    if isinstance(left, Diagonal):
        return right if left.is_identity else right * left.entries[:, None]
    return left @ right


def _product(left: Operator, right: Operator) -> Operator:
    """left @ right, dense unless both factors are diagonal."""
    if isinstance(left, Diagonal) and isinstance(right, Diagonal):
        return Diagonal(left.entries * right.entries, left.size)
    if isinstance(left, Diagonal):
        return dense(right) * left.entries[:, None]
    return times(left, right)


def _plus(left: Operator, right: Operator) -> Operator:
    if isinstance(left, Diagonal) and isinstance(right, Diagonal):
        return Diagonal(left.entries + right.entries, left.size)
    return dense(left) + dense(right)


def _uniform(values: Array) -> Array:
    """A vector shortened to one entry if all entries are equal, so that scalars stay scalars."""
    return values[:1] if (values == values[0]).all() else values


def step_box(system: System) -> Box:
    """The step with one unit in the last place around it; exactly 1 for step 1 with tau = 1."""
    assert system.step is not None
    if system.step == 1.0 and bool((system.tau == 1.0).all()):
        return Box.exact(np.ones(1))
    return Box(np.full(1, system.step), np.full(1, np.spacing(system.step)))


def _leak(system: System) -> Box:
    """T^-1, or step / tau: how much of the old state leaves per unit of time or per step."""
    tau = _uniform(system.tau)
    rate = Box.exact(np.ones(1)) if (tau == 1.0).all() else reciprocal(tau)
    return rate if system.step is None else step_box(system) * rate


def enclose(system: System) -> NormalForm:
    """The normal form of a system with dense weights, with every rounding enclosed.

    Raises:
        InputError: sparse weights.
    """
    size = system.size
    one = Box.exact(np.ones(1))
    lower, upper = Box.exact(_uniform(system.slope.lower)), Box.exact(_uniform(system.slope.upper))
    leak: Diagonal | None = None
    if system.form == "lure":
        drift, inflow = Box.exact(system.matrix("A")), Box.exact(system.matrix("B"))
        if system.step is not None:
            step = step_box(system)
            drift, inflow = Diagonal(one, size).dense() + drift * step, inflow * step
        A: Operator = drift
        B: Operator = inflow
        C: Operator = Box.exact(system.matrix("C"))
    else:
        leak = Diagonal(_leak(system), size)
        weights = Box.exact(system.matrix("W"))
        A = Diagonal(-leak.entries if system.step is None else one - leak.entries, size)
        B = leak if system.form == "rate" else _product(leak, weights)
        C = weights if system.form == "rate" else Diagonal(one, size)
    if system.slope.lower.any():
        scaled = _product(B, Diagonal(lower, len(system.slope.lower)))
        A = _plus(A, _product(scaled, C))
    gap = upper - lower if system.slope.lower.any() else upper
    return NormalForm(system.continuous, A, B, C, gap, leak)


def midpoint(system: System) -> tuple[Array, Array, Array, Array]:
    """A (n, n), B (n, m), C (m, n) and the gap (m,) in plain float64, for engines that search."""
    form = enclose(system)
    gap = np.broadcast_to(form.gap.mid, (len(system.slope.lower),))
    return dense(form.A).mid, dense(form.B).mid, dense(form.C).mid, np.array(gap)
