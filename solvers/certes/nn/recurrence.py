"""The recurrence of an assembly as one differentiable operation, with its backward pass written out.

    hopfield   x+ = x + e (-x + W phi(x) + G x + u_t)
    rate       x+ = x + e (-x + phi(W x + u_t) + G x)

with a step e per state. Autograd would record a dozen small operations per time step and keep what each saw; here only
states are kept (all of them, or every k-th, the rest being computed again), and the gradients of W and G are one
product over all steps at the end of a segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from certes.nn.activations import torch_activation
from certes.nn.operators import Dense, Operator

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Equation:
    """What is run, without its numbers.

    Attributes:
        hopfield: the form.
        activation: name of phi.
        weights: layouts of which W is the sum.
        couplings: layouts of which G is the sum.
        keep: every how many states one is kept for the backward pass; 0: about sqrt(T) of T.
    """

    hopfield: bool
    activation: str
    weights: tuple[Operator, ...]
    couplings: tuple[Operator, ...]
    keep: int = 1

    def field(self, x: Tensor, drive: Tensor, w: Sequence[Tensor], g: Sequence[Tensor]) -> Tensor:
        """tau x', shape (batch, n)."""
        phi = torch_activation(self.activation)
        coupled = _sum(self.couplings, g, x)
        if self.hopfield:
            return _sum(self.weights, w, phi(x)) + coupled + (drive - x)
        return phi(_sum(self.weights, w, x) + drive) + (coupled - x)


def _sum(layouts: Sequence[Operator], values: Sequence[Tensor], x: Tensor) -> Tensor:
    parts = [layout.apply(value, x) for layout, value in zip(layouts, values, strict=True)]
    return torch.stack(parts).sum(0) if len(parts) > 2 else parts[0] + parts[1] if len(parts) == 2 else (
        parts[0] if parts else torch.zeros_like(x)
    )  # fmt: skip


def _sum_transposed(layouts: Sequence[Operator], values: Sequence[Tensor], y: Tensor) -> Tensor:
    found = torch.zeros_like(y)
    for layout, value in zip(layouts, values, strict=True):
        found = found + layout.transposed(value, y)
    return found


def run(
    equation: Equation, start: Tensor, drive: Tensor, step: Tensor, weights: Sequence[Tensor],
    couplings: Sequence[Tensor], *, last: bool = False,
) -> Tensor:  # fmt: skip
    """All states after the start, or the last one.

    Args:
        equation: what is run.
        start: x_0, shape (batch, n).
        drive: u_t, shape (T, batch, n), T at least 1.
        step: e, shape (n,).
        weights: values of the layouts of W.
        couplings: values of the layouts of G.
        last: only the last state is asked for, and no gradient of the others has room.

    Returns:
        x_1 to x_T, shape (T, batch, n); or x_T, shape (batch, n).
    """
    found: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call]
        equation, last, start, drive, step, *weights, *couplings
    )
    return found


#: Steps of which everything that the backward pass needs is made at once.
_CHUNK = 32


class _Recurrence(torch.autograd.Function):
    """Forward and backward in time."""

    @staticmethod
    def forward(
        ctx: Any, equation: Equation, last: bool, start: Tensor, drive: Tensor, step: Tensor, *values: Tensor
    ) -> Tensor:
        w, g = values[: len(equation.weights)], values[len(equation.weights) :]
        states = drive.new_empty(drive.shape)
        _forward(equation, start, drive, step, w, g, states)
        kept = _stride(equation.keep, len(drive))
        ctx.equation, ctx.stride, ctx.steps, ctx.last = equation, kept, len(drive), last
        inputs = drive if not equation.hopfield or kept > 1 else None
        ctx.has_drive = inputs is not None
        saved = states if kept == 1 else states[kept - 1 :: kept].clone()
        ctx.save_for_backward(start, saved, step, *([inputs] if inputs is not None else []), *values)
        return states[-1].clone() if last else states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        start, saved, step, *rest = ctx.saved_tensors
        drive = rest.pop(0) if ctx.has_drive else None
        equation: Equation = ctx.equation
        w, g = rest[: len(equation.weights)], rest[len(equation.weights) :]
        back = _Backward(equation, step, w, g, gradient, (ctx.steps, *start.shape))
        stride = _CHUNK if ctx.stride == 1 else ctx.stride
        for first in reversed(range(0, ctx.steps, stride)):
            last = min(first + stride, ctx.steps)
            if ctx.stride == 1:
                before = start[None] if first == 0 else saved[first - 1 : first]
                pushes = None if drive is None else drive[first:last]
                back.segment(torch.cat([before, saved[first:last]]), pushes, first)
            else:
                assert drive is not None
                one = start if first == 0 else saved[first // ctx.stride - 1]
                back.segment(_again(equation, one, drive[first:last], step, w, g), drive[first:last], first)
        return (None, None, back.adjoint, back.drive, back.step, *back.values)


class _Backward:
    """The backward pass: the adjoint, and the gradients collected so far."""

    def __init__(
        self, equation: Equation, step: Tensor, w: Sequence[Tensor], g: Sequence[Tensor], gradient: Tensor,
        shape: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.equation, self.e, self.w, self.g = equation, step, w, g
        # of the last state alone, or of all of them
        self.gradient = gradient if gradient.ndim == len(shape) else None
        self.adjoint = torch.zeros_like(gradient[0]) if self.gradient is not None else gradient
        self.drive = gradient.new_empty(shape)
        folded = _Folded.of(equation, step, w, g)
        self.folded = folded if folded is not None and folded.linear.dtype == gradient.dtype else None
        self.step = torch.zeros_like(step)
        self.values = [torch.zeros_like(value) for value in (*w, *g)]

    def segment(self, states: Tensor, drive: Tensor | None, first: int) -> None:
        """Go back through states x_first to x_last, shape (steps + 1, batch, n)."""
        equation, steps = self.equation, len(states) - 1
        before = states[:-1]
        if equation.hopfield:
            seen, slopes = slopes_of(equation.activation, before)
        else:
            assert drive is not None
            argument = torch.stack([_sum(equation.weights, self.w, x) for x in before]) + drive
            seen, slopes = before, slopes_of(equation.activation, argument)[1]
        pushed = self.drive[first : first + steps]
        moved = torch.empty_like(before) if not equation.hopfield else pushed
        for k in reversed(range(steps)):
            if self.gradient is not None:
                self.adjoint = self.adjoint + self.gradient[first + k]
            if self.folded is not None:
                self.adjoint = self.folded.back(self.adjoint, slopes[k], moved[k], pushed[k])
                continue
            mu = torch.mul(self.adjoint, self.e, out=moved[k])
            coupled = _sum_transposed(equation.couplings, self.g, mu)
            if equation.hopfield:
                own = slopes[k] * _sum_transposed(equation.weights, self.w, mu)
            else:
                own = _sum_transposed(equation.weights, self.w, torch.mul(slopes[k], mu, out=pushed[k]))
            self.adjoint = self.adjoint - mu + own + coupled
        # dx_{k+1}/de = (x_{k+1} - x_k) / e, and mu = e times the adjoint
        self.step += torch.einsum("tbn,tbn->n", moved, states[1:] - before) / self.e**2
        self._collect(equation.weights, 0, pushed, seen)
        self._collect(equation.couplings, len(self.w), moved, before)

    def _collect(self, layouts: Sequence[Operator], place: int, left: Tensor, right: Tensor) -> None:
        """One product over all steps of a segment."""
        y, x = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
        for k, layout in enumerate(layouts):
            self.values[place + k] += layout.outer(y, x)


def _again(
    equation: Equation, before: Tensor, drive: Tensor, step: Tensor, w: Sequence[Tensor], g: Sequence[Tensor]
) -> Tensor:
    """The states of a segment, the one before it first."""
    states = drive.new_empty((len(drive) + 1, *drive.shape[1:]))
    states[0] = before
    _forward(equation, before, drive, step, w, g, states[1:])
    return states


def _forward(
    equation: Equation, start: Tensor, drive: Tensor, step: Tensor, w: Sequence[Tensor], g: Sequence[Tensor],
    states: Tensor,
) -> None:  # fmt: skip
    """Fill in the states after the start."""
    dense = _Folded.of(equation, step, w, g)
    if dense is not None and drive.dtype == states.dtype == dense.linear.dtype:
        dense.forward(start, drive, states)
        return
    x = start
    for k in range(len(drive)):
        x = torch.addcmul(x, equation.field(x, drive[k], w, g).to(x.dtype), step, out=states[k])


@dataclass(frozen=True)
class _Folded:
    """A run with dense matrices, the steps folded into them: x+ = A x + E (W phi(x) + u), or A x + E phi(W x + u).

    Attributes:
        equation: the form and phi.
        step: e, shape (n,).
        linear: A = I + E (G - I), shape (n, n).
        weights: E W in the form hopfield, W in the form rate.
    """

    equation: Equation
    step: Tensor
    linear: Tensor
    weights: Tensor

    @classmethod
    def of(cls, equation: Equation, step: Tensor, w: Sequence[Tensor], g: Sequence[Tensor]) -> _Folded | None:
        """None: the matrices have another structure."""
        if not (len(w) == 1 and len(g) <= 1 and isinstance(equation.weights[0], Dense)):
            return None
        if g and not isinstance(equation.couplings[0], Dense):
            return None
        linear = torch.diag(1.0 - step)
        if g:
            linear = linear + step[:, None] * g[0]
        return cls(equation, step, linear, step[:, None] * w[0] if equation.hopfield else w[0])

    def forward(self, start: Tensor, drive: Tensor, states: Tensor) -> None:
        """Fill in the states after the start."""
        phi = torch_activation(self.equation.activation)
        weights, linear, x = self.weights.mT, self.linear.mT, start
        if self.equation.hopfield:
            torch.mul(drive, self.step, out=states)
            for state in states:
                state.addmm_(phi(x), weights).addmm_(x, linear)
                x = state
            return
        for push, state in zip(drive, states, strict=True):
            seen = phi(torch.addmm(push, x, weights))
            x = torch.addmm(seen.mul_(self.step), x, linear, out=state)

    def back(self, adjoint: Tensor, slopes: Tensor, moved: Tensor, pushed: Tensor) -> Tensor:
        """The adjoint before a step from that after it; ``moved`` and ``pushed`` are filled in."""
        mu = torch.mul(adjoint, self.step, out=moved)
        if self.equation.hopfield:
            return torch.addcmul(adjoint @ self.linear, slopes, adjoint @ self.weights)
        return torch.addmm(torch.mul(slopes, mu, out=pushed) @ self.weights, adjoint, self.linear)


def slopes_of(name: str, s: Tensor) -> tuple[Tensor, Tensor]:
    """phi(s) and phi'(s)."""
    if name == "relu":
        value = torch.relu(s)
        return value, (s > 0).to(s.dtype)
    if name == "tanh":
        value = torch.tanh(s)
        return value, 1.0 - value * value
    with torch.enable_grad():
        argument = s.detach().requires_grad_()
        value = torch_activation(name)(argument)
        (slope,) = torch.autograd.grad(value.sum(), argument)
    return value.detach(), slope


def _stride(keep: int, steps: int) -> int:
    return max(1, math.isqrt(steps)) if keep == 0 else min(keep, steps)
