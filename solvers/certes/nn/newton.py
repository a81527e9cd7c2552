r"""Evaluation parallel over time, for networks whose certificate bounds how many iterations it takes.

A run x_t = f_t(x_{t-1}) is the root of the residuals r_t(x) = f_t(x_{t-1}) - x_t of all steps at once. Newton's method
for it (DEER: Lim et al. 2024) solves x'_t = f_t(x_{t-1}) + J_t (x'_{t-1} - x_{t-1}), a linear recurrence, by an
associative scan of depth log T (:mod:`certes.nn.scan`). In general nothing says that it converges, short of T
iterations. Here a certificate says norm(J) <= rho < 1 in a metric, for every slope. Each iteration takes Newton's step,
or the plain one x'_t = f_t(x_{t-1}) if that leaves less; how many are needed at most, and how far off the states can
still be, is derived in :mod:`certes.nn.convergence`. Long runs are taken in windows, as many steps as their Jacobians
have room.

What comes out is differentiable, once: one more step of the map is recorded by autograd, and what it is given back is
taken through the transposed recurrence of the Jacobians, the exact backward pass of the run, by the same scan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from certes.errors import InputError
from certes.nn.activations import torch_activation
from certes.nn.assembly import Assembly, Run
from certes.nn.convergence import Form, Guarantee, Plan, check_no_gate, parallel_plan
from certes.nn.operators import Operator
from certes.nn.recurrence import Equation, slopes_of
from certes.nn.scan import scan, times

__all__ = ["Guarantee", "Parallel", "Plan", "evaluate", "parallel_plan", "run_parallel"]

#: Bytes that the Jacobians of a window may take.
_ROOM = 2**28
#: Rounding of one step, in units of the format times the norm of the states: no residual gets smaller for sure.
_ROUNDING = 4.0
Jacobian = Literal["full", "diagonal"]


@dataclass(frozen=True)
class Parallel:
    """A run.

    Attributes:
        states: x_1 to x_T, shape (T, batch, n).
        iterations: of the window that took most.
        bound: that the certificate gives for a window, the largest.
        residual: the largest norm of f_t(x_{t-1}) - x_t that is left, in the metric.
        error: residual / (1 - rho): no state is further from the run's than that, up to rounding; 0: it was run step by
            step; inf: so it was, and nothing is guaranteed.
        sequential: whether (a window of) it was run step by step in the end.
        note: why; empty: it was not.
    """

    states: Tensor
    iterations: int
    bound: int
    residual: float
    error: float
    sequential: bool = False
    note: str = ""

    @property
    def converged(self) -> bool:
        """Whether the iterations reached the tolerance everywhere."""
        return not self.sequential


def run_parallel(
    network: Assembly, inputs: Tensor, state: Tensor | None = None, *, guarantee: Guarantee | None = None,
    tolerance: float | None = None, jacobian: Jacobian = "full",
) -> Parallel:  # fmt: skip
    """Run a network: on all steps at once if its certificate allows that, else step by step with a note.

    Args:
        network: any assembly.
        inputs: shape (batch, T, features).
        state: x_0, shape (batch, n); None: 0.
        guarantee: of its certificate; None: it is certified now.
        tolerance: see :func:`evaluate`.
        jacobian: see :func:`evaluate`.

    Raises:
        InputError: a tolerance that is not positive.
    """
    _positive(tolerance)
    try:
        known = parallel_plan(network, 1).guarantee if guarantee is None else guarantee
        return evaluate(network, known, inputs, state, tolerance=tolerance, jacobian=jacobian)
    except InputError as refused:
        if refused.field not in ("certificate", "inputs"):
            raise
        note = str(refused)
    states = network.states(inputs, state) if inputs.shape[1] else network.parts_of_run(inputs, state).drive
    return Parallel(states, 0, 0, math.inf, math.inf, True, note)


def evaluate(
    network: Assembly, guarantee: Guarantee, inputs: Tensor, state: Tensor | None = None, *,
    tolerance: float | None = None, jacobian: Jacobian = "full",
) -> Parallel:  # fmt: skip
    """Run a certified network on all steps at once.

    Args:
        network: as it was certified, its weights up to rounding.
        guarantee: of its certificate.
        inputs: shape (batch, T, features).
        state: x_0, shape (batch, n); None: 0.
        tolerance: of the error, for every state; what rounding keeps from it is run step by step. None: 1e-5 in
            float32, 1e-10 in float64, or what rounding permits if that is more.
        jacobian: ``diagonal`` keeps only the diagonals: cheaper iterations, and more of them.

    Raises:
        InputError: another network, or other weights; a tolerance that is not positive; inputs that are not finite.
    """
    _positive(tolerance)
    check_no_gate(network.input_gate)
    parts = network.parts_of_run(inputs, state)
    start, drive = parts.start, parts.drive
    if not bool(torch.isfinite(drive).all() and torch.isfinite(start).all()):
        raise InputError("inputs", "values that are not finite", "finite numbers", "not-finite")
    system = _System.of(parts, drive, network.size)
    still = system.detached()
    if guarantee.activation != parts.equation.activation:
        given = f"that of {guarantee.activation} for {parts.equation.activation}"
        raise InputError("certificate", given, "that of this network", "wrong-system")
    known = guarantee.at(still.form())
    window = _width(drive, 1 if jacobian == "diagonal" else network.size)
    with torch.no_grad():
        windows = list(_windows(still, known, start, drive, window, tolerance, jacobian))
    found = _together(windows, known, drive.detach())
    needed = (start, drive, system.step, system.weights, system.coupling)
    if not torch.is_grad_enabled() or not any(each.requires_grad for each in needed) or found.states.numel() == 0:
        return found
    before = _before(start, found.states)
    recorded: Tensor = _Implicit.apply(  # type: ignore[no-untyped-call]
        system.next(before, drive), found.states, still, before.detach(), drive.detach(), _width(drive, network.size)
    )
    return replace(found, states=recorded)


def _positive(tolerance: float | None) -> None:
    if tolerance is not None and not 0.0 < tolerance < math.inf:
        raise InputError("tolerance", repr(tolerance), "a positive number", "not-positive")


def _width(drive: Tensor, columns: int) -> int:
    """Steps of a window."""
    step = drive[:1].numel() * columns * drive.element_size()
    return max(1, min(len(drive), _ROOM // max(step, 1)))


def _windows(
    system: _System,
    known: Guarantee,
    start: Tensor,
    drive: Tensor,
    window: int,
    tolerance: float | None,
    jacobian: Jacobian,
) -> Iterator[Parallel]:
    """One window after the other, each from the last state of the one before: the residuals are those of one run."""
    start, drive = start.detach(), drive.detach()
    for first in range(0, len(drive) if drive.numel() else 0, window):
        one = _window(system, known, start, drive[first : first + window], tolerance, jacobian)
        start = one.states[-1]
        yield one


def _together(windows: list[Parallel], known: Guarantee, drive: Tensor) -> Parallel:
    states = torch.cat([one.states for one in windows]) if windows else drive
    residual = max((one.residual for one in windows), default=0.0)
    most, bound = (max((getattr(one, name) for one in windows), default=0) for name in ("iterations", "bound"))
    note = next((one.note for one in windows if one.sequential), "")
    return Parallel(states, most, bound, residual, residual / (1.0 - known.factor), bool(note), note)


@dataclass(frozen=True)
class _System:
    """The map and its Jacobians, for many states at once."""

    equation: Equation
    step: Tensor
    weights: Tensor
    coupling: Tensor

    @classmethod
    def of(cls, parts: Run, like: Tensor, size: int) -> _System:
        weights = _matrix(parts.equation.weights, parts.weights, like, size)
        return cls(parts.equation, parts.step, weights, _matrix(parts.equation.couplings, parts.couplings, like, size))

    def detached(self) -> _System:
        return replace(self, step=self.step.detach(), weights=self.weights.detach(), coupling=self.coupling.detach())

    def form(self) -> Form:
        """x+ = A x + B phi(C x + ...)."""
        e, w, g = (part.double().cpu() for part in (self.step, self.weights, self.coupling))
        identity = torch.eye(len(e), dtype=e.dtype)
        inner, outer = (e[:, None] * w, identity) if self.equation.hopfield else (torch.diag(e), w)
        return Form(identity + e[:, None] * (g - identity), inner, outer)

    def next(self, x: Tensor, drive: Tensor) -> Tensor:
        """f_t(x), both of shape (..., n)."""
        phi, coupled = torch_activation(self.equation.activation), x @ self.coupling.mT
        if self.equation.hopfield:
            return x + self.step * (phi(x) @ self.weights.mT + coupled + (drive - x))
        return x + self.step * (phi(x @ self.weights.mT + drive) + (coupled - x))

    def _slopes(self, x: Tensor, drive: Tensor) -> Tensor:
        return slopes_of(self.equation.activation, x if self.equation.hopfield else x @ self.weights.mT + drive)[1]

    def jacobian(self, x: Tensor, drive: Tensor) -> Tensor:
        """df_t/dx, shape (..., n, n)."""
        slopes, identity = self._slopes(x, drive), torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        moved = self.weights * (slopes[..., None, :] if self.equation.hopfield else slopes[..., :, None])
        return identity + self.step[:, None] * (moved + self.coupling - identity)

    def diagonal(self, x: Tensor, drive: Tensor) -> Tensor:
        """The diagonals of the Jacobians, shape (..., n)."""
        own = torch.diagonal(self.weights) * self._slopes(x, drive) + torch.diagonal(self.coupling)
        return 1.0 + self.step * (own - 1.0)


def _window(
    system: _System, known: Guarantee, start: Tensor, drive: Tensor, tolerance: float | None, jacobian: Jacobian
) -> Parallel:
    """A window of steps from a start."""
    unit = torch.finfo(drive.dtype).eps
    wanted = (1e-10 if unit < 1e-12 else 1e-5) if tolerance is None else tolerance
    x = start.expand_as(drive)
    ahead = system.next(_before(start, x), drive)
    size, goal = known.norm(ahead - x), wanted * (1.0 - known.factor)
    bound = known.iterations(size, wanted, len(drive), newton=jacobian == "full")
    count = 0
    while True:
        if tolerance is None:
            goal = max(goal, _ROUNDING * unit * known.norm(ahead))
        if size <= goal < math.inf:
            return Parallel(x.contiguous(), count, bound, size, size / (1.0 - known.factor))
        if count >= bound or not math.isfinite(size):
            break
        tried = []
        for candidate in (_newton(system, _before(start, x), ahead, drive, jacobian), ahead):
            following = system.next(_before(start, candidate), drive)
            tried.append((known.norm(following - candidate), candidate, following))
        count += 1
        found = min((entry for entry in tried if math.isfinite(entry[0])), key=lambda entry: entry[0], default=None)
        if found is None or not found[0] < size:  # the plain step shrinks it, but for rounding
            break
        size, x, ahead = found
    note = f"rounding of {drive.dtype} left a residual of {size:.2g} instead of {goal:.2g}: run step by step"
    return Parallel(_one_by_one(system, start, drive), count, bound, 0.0, 0.0, True, note)


def _one_by_one(system: _System, start: Tensor, drive: Tensor) -> Tensor:
    states, x = torch.empty_like(drive), start
    for k in range(len(drive)):
        x = states[k] = system.next(x, drive[k])
    return states


def _before(start: Tensor, x: Tensor) -> Tensor:
    """The state before each step."""
    return torch.cat([start[None], x[:-1]])


def _newton(system: _System, before: Tensor, ahead: Tensor, drive: Tensor, jacobian: Jacobian) -> Tensor:
    """x'_t = ahead_t + J_t (x'_{t-1} - before_t); before the first step nothing moves."""
    slope = system.jacobian(before, drive) if jacobian == "full" else system.diagonal(before, drive)
    shift = ahead - times(slope, before)
    shift[0] = ahead[0]
    return scan(slope, shift)


class _Implicit(torch.autograd.Function):
    """States that solve x = f(x before), given f of them: passes the gradients of the run on to f."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, states: Tensor, system: _System, before: Tensor, drive: Tensor, window: int
    ) -> Tensor:
        ctx.system, ctx.window = system, window
        ctx.save_for_backward(before, drive)
        return states.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """v_t = gradient_t + J_{t+1}^T v_{t+1}, from the last window to the first."""
        before, drive = ctx.saved_tensors
        found = torch.empty_like(gradient)
        steps = len(gradient)
        for last in range(steps, 0, -ctx.window):
            first = max(last - ctx.window, 0)
            upto = min(last + 1, steps)
            slopes = ctx.system.jacobian(before[first + 1 : upto], drive[first + 1 : upto]).mT
            shift = gradient[first:last].clone()
            if last < steps:
                shift[-1] += times(slopes[-1], found[last])
                slopes = slopes[:-1]
            unused = slopes.new_zeros(1, *drive.shape[1:], drive.shape[-1])
            found[first:last] = scan(torch.cat([unused, slopes.flip(0)]), shift.flip(0)).flip(0)
        return found, None, None, None, None, None


def _matrix(layouts: tuple[Operator, ...], values: list[Tensor], like: Tensor, size: int) -> Tensor:
    """A sum of layouts as a dense matrix, shape (n, n)."""
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    found = torch.zeros_like(identity)
    for layout, value in zip(layouts, values, strict=True):
        found = found + layout.apply(value, identity).mT
    return found
