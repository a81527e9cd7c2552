r"""Evaluation parallel over time, for networks whose certificate bounds how many iterations it takes.

A run x_t = f_t(x_{t-1}) is the root of the residuals r_t(x) = f_t(x_{t-1}) - x_t of all steps at once. Newton's method
for it (DEER: Lim et al. 2024) solves x'_t = f_t(x_{t-1}) + J_t (x'_{t-1} - x_{t-1}), a linear recurrence, by an
associative scan of depth log T. In general nothing says that it converges, short of T iterations. Here a certificate
says norm(J) <= rho < 1 in a metric, for every slope. Two things follow, with norms in that metric and their maximum
over t:

- The step x' = F(x) that takes every f_t at the state before (Picard) has residuals F(F(x)) - F(x), so that
  norm(r(x')) <= rho norm(r(x)). Each iteration takes Newton's step if its residual is smaller, and this one otherwise:
  after k iterations norm(r) <= rho^k norm(r_0). After T iterations nothing is left in any case.
- The error of any states is at most norm(r) / (1 - rho), because it grows by r_t and shrinks by rho in each step. What
  is returned carries this bound; it is up to rounding, like the evaluation itself.

So at most ceil(log(tolerance (1 - rho) / norm(r_0)) / log(rho)) iterations are needed. Newton's need far fewer; the
bound is what holds. Long runs are taken in windows, as many steps as their Jacobians have room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from certes.composition.outcome import Composition
from certes.errors import InputError
from certes.nn.assembly import Assembly
from certes.nn.recurrence import Equation, slopes_of

#: Bytes that the Jacobians of a window may take.
_ROOM = 2**28
#: Part of the factor that is left to rounding when a step of the guaranteed kind is judged.
_SLACK = 1e-3


@dataclass(frozen=True)
class Guarantee:
    """What a certificate says about evaluation parallel over time.

    Attributes:
        factor: rho, bound on the norm of every Jacobian.
        root: R, shape (n, n), float64: norms are those of R x.
    """

    factor: float
    root: Tensor = field(repr=False)

    @classmethod
    def of(cls, found: Composition) -> Guarantee:
        """From what :func:`certes.certify` says of a network.

        Raises:
            InputError: no map was certified as a whole: its convergence is not guaranteed.
        """
        if found.verdict != "contracting" or found.factor is None or found.whole is None or not found.factor < 1.0:
            given = "continuous time" if found.factor is None else found.verdict
            raise InputError("certificate", given, "the certificate of an Euler map, mode whole", "not-contracting")
        root = np.linalg.cholesky(np.asarray(found.whole.metric, dtype=np.float64)).T
        return cls(found.factor, torch.from_numpy(root.copy()))

    def norm(self, x: Tensor) -> float:
        """The largest norm of states, shape (..., n)."""
        root = self.root.to(x.device, x.dtype)
        return float(torch.linalg.vector_norm(x @ root.mT, dim=-1).max())

    def iterations(self, residual: float, tolerance: float, steps: int) -> int:
        """At most so many iterations bring the error below a tolerance.

        Args:
            residual: norm of the first residual.
            tolerance: of the error, in the metric.
            steps: T.
        """
        goal = tolerance * (1.0 - self.factor)
        if residual <= goal:
            return 0
        if self.factor <= 0.0:
            return min(1, steps)
        return min(steps, math.ceil(math.log(goal / residual) / math.log(self.factor)))


@dataclass(frozen=True)
class Parallel:
    """A run.

    Attributes:
        states: x_1 to x_T, shape (T, batch, n).
        iterations: of the window that took most.
        bound: that the certificate gives for it.
        error: bound on the distance to the run step by step, in the metric, up to rounding; 0: it was run step by step.
        sequential: whether it was run step by step in the end, because rounding left no way to the tolerance.
    """

    states: Tensor
    iterations: int
    bound: int
    error: float
    sequential: bool = False


@torch.no_grad()
def evaluate(
    network: Assembly, guarantee: Guarantee, inputs: Tensor, state: Tensor | None = None, *, tolerance: float = 1e-5,
    jacobian: Literal["full", "diagonal"] = "full",
) -> Parallel:  # fmt: skip
    """Run a certified network on all steps at once.

    Args:
        network: as it was certified.
        guarantee: of its certificate.
        inputs: shape (batch, T, features).
        state: x_0, shape (batch, n); None: 0.
        tolerance: of the error, in the metric.
        jacobian: ``diagonal`` keeps only the diagonals: cheaper iterations, and more of them.

    Raises:
        InputError: another network, a tolerance that is not positive, or inputs that are not finite.
    """
    if not tolerance > 0.0:
        raise InputError("tolerance", repr(tolerance), "a positive number", "not-positive")
    if guarantee.root.shape[0] != network.size:
        given = f"a certificate of {guarantee.root.shape[0]} states for {network.size}"
        raise InputError("certificate", given, "that of this network", "wrong-system")
    parts = network.parts_of_run(inputs, state)
    if not bool(torch.isfinite(parts.drive).all() and torch.isfinite(parts.start).all()):
        raise InputError("inputs", "values that are not finite", "finite numbers", "not-finite")
    system = _System(parts.equation, parts.step, _matrix(parts.equation.weights, parts.weights, network.size),
                     _matrix(parts.equation.couplings, parts.couplings, network.size))  # fmt: skip
    steps, batch, size = parts.drive.shape
    per_step = batch * size * (size if jacobian == "full" else 1) * parts.drive.element_size()
    window = max(1, min(steps, _ROOM // max(per_step, 1)))
    states, start, most, bound, error, sequential = [], parts.start, 0, 0, 0.0, False
    for first in range(0, steps, window):
        one = _window(system, guarantee, start, parts.drive[first : first + window], tolerance, jacobian)
        states.append(one.states)
        most, bound, error = max(most, one.iterations), max(bound, one.bound), max(error, one.error)
        sequential, start = sequential or one.sequential, one.states[-1]
    whole = torch.cat(states) if states else parts.drive
    return Parallel(whole, most, bound, error, sequential)


@dataclass(frozen=True)
class _System:
    """The map and its Jacobians, for many states at once."""

    equation: Equation
    step: Tensor
    weights: Tensor
    coupling: Tensor

    def next(self, x: Tensor, drive: Tensor) -> Tensor:
        """f_t(x), both of shape (..., n)."""
        e, coupled = self.step, x @ self.coupling.mT
        if self.equation.hopfield:
            seen, _ = slopes_of(self.equation.activation, x)
            return x + e * (seen @ self.weights.mT + coupled + drive - x)
        seen, _ = slopes_of(self.equation.activation, x @ self.weights.mT + drive)
        return x + e * (seen + coupled - x)

    def jacobian(self, x: Tensor, drive: Tensor) -> Tensor:
        """df_t/dx, shape (..., n, n)."""
        n, e = x.shape[-1], self.step
        if self.equation.hopfield:
            _, slope = slopes_of(self.equation.activation, x)
            moved = self.weights * slope[..., None, :]
        else:
            _, slope = slopes_of(self.equation.activation, x @ self.weights.mT + drive)
            moved = self.weights * slope[..., :, None]
        identity = torch.eye(n, dtype=x.dtype, device=x.device)
        return identity + e[:, None] * (moved + self.coupling - identity)

    def diagonal(self, x: Tensor, drive: Tensor) -> Tensor:
        """The diagonals of the Jacobians, shape (..., n)."""
        argument = x if self.equation.hopfield else x @ self.weights.mT + drive
        _, slope = slopes_of(self.equation.activation, argument)
        own = torch.diagonal(self.weights) * slope + torch.diagonal(self.coupling)
        return 1.0 + self.step * (own - 1.0)


def _window(
    system: _System, guarantee: Guarantee, start: Tensor, drive: Tensor, tolerance: float, jacobian: str
) -> Parallel:
    """A window of steps from a start."""
    rho, goal = guarantee.factor, tolerance * (1.0 - guarantee.factor)
    x = start.expand_as(drive)
    ahead = system.next(_before(start, x), drive)
    size = guarantee.norm(ahead - x)
    bound = guarantee.iterations(size, tolerance, len(drive))
    count = 0
    while size > goal:
        before = _before(start, x)
        candidates = [ahead, _newton(system, before, ahead, drive, jacobian)]
        tried = []
        for candidate in candidates:
            following = system.next(_before(start, candidate), drive)
            tried.append((guarantee.norm(following - candidate), candidate, following))
        tried = [entry for entry in tried if math.isfinite(entry[0])]
        count += 1
        if not tried or min(entry[0] for entry in tried) > (rho + _SLACK) * size:
            return _one_by_one(system, start, drive, count, bound)  # rounding: no step helps any more
        size, x, ahead = min(tried, key=lambda entry: entry[0])
        if count > bound:
            return _one_by_one(system, start, drive, count, bound)
    return Parallel(x.contiguous(), count, bound, size / (1.0 - rho))


def _one_by_one(system: _System, start: Tensor, drive: Tensor, count: int, bound: int) -> Parallel:
    states, x = torch.empty_like(drive), start
    for k in range(len(drive)):
        x = states[k] = system.next(x, drive[k])
    return Parallel(states, count, bound, 0.0, True)


def _before(start: Tensor, x: Tensor) -> Tensor:
    """The state before each step."""
    return torch.cat([start[None], x[:-1]])


def _newton(system: _System, before: Tensor, ahead: Tensor, drive: Tensor, jacobian: str) -> Tensor:
    """x'_t = ahead_t + J_t (x'_{t-1} - before_t), by an associative scan over t."""
    if jacobian == "diagonal":
        slope = system.diagonal(before, drive)
        shift = ahead - slope * before
        shift[0] = ahead[0]  # before the first step nothing moves
        return _scan_diagonal(slope, shift)
    slope = system.jacobian(before, drive)
    shift = ahead - (slope @ before[..., None])[..., 0]
    shift[0] = ahead[0]
    return _scan(slope, shift)


def _scan(a: Tensor, b: Tensor) -> Tensor:
    """All y_t = a_t y_{t-1} + b_t with y_{-1} = 0; a: (T, batch, n, n), b: (T, batch, n)."""
    reach = 1
    while reach < len(b):
        b = torch.cat([b[:reach], b[reach:] + (a[reach:] @ b[:-reach, ..., None])[..., 0]])
        if 2 * reach < len(b):
            a = torch.cat([a[:reach], a[reach:] @ a[:-reach]])
        reach *= 2
    return b


def _scan_diagonal(a: Tensor, b: Tensor) -> Tensor:
    reach = 1
    while reach < len(b):
        b = torch.cat([b[:reach], b[reach:] + a[reach:] * b[:-reach]])
        a = torch.cat([a[:reach], a[reach:] * a[:-reach]])
        reach *= 2
    return b


def _matrix(layouts: object, values: list[Tensor], size: int) -> Tensor:
    """A sum of layouts as a dense matrix, shape (n, n)."""
    assert isinstance(layouts, tuple)
    like = values[0] if values else torch.zeros(())
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    found = torch.zeros_like(identity)
    for layout, value in zip(layouts, values, strict=True):
        found = found + layout.apply(value, identity).mT
    return found
