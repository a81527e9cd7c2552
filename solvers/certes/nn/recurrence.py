"""The recurrence of an assembly as one differentiable operation, with its backward pass written out.

    hopfield   x+ = x + e (-x + W phi(x) + G x + p_t)
    rate       x+ = x + e (-x + phi(W x + p_t) + G x)

with a step e per state and pushes p_t = U u_t + b; an input gate scales the step of each time and sequence by a share
s_t. Autograd would record a dozen small operations per time step and
keep what each saw; here only states are kept (all of them, or every k-th, the rest being computed again), and pushes
are made when they are needed. How steps are taken is said in :mod:`certes.nn.steppers`.

For torch it is an operator, ``certes::recurrence``: compilers see one node of which they know the shapes, and gradients
of gradients are refused. Mixed precision stops here: a recurrence runs in the numbers that its certificate speaks of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from certes.errors import InputError
from certes.nn.activations import slopes_of
from certes.nn.steppers import Equation, Stepper, stepper

__all__ = ["Equation", "Pushes", "run", "slopes_of"]


class Pushes(NamedTuple):
    """p_t = U u_t + b.

    Attributes:
        inputs: u_t, shape (T, batch, features).
        weight: U, shape (n, features); None: p_t = u_t, without a bias.
        bias: b, shape (n,); None: 0.
    """

    inputs: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None


def run(
    equation: Equation, start: Tensor, pushes: Pushes | Tensor, step: Tensor, weights: Sequence[Tensor],
    couplings: Sequence[Tensor], shares: Tensor | None = None, *, last: bool = False,
) -> Tensor:  # fmt: skip
    """All states after the start, or the last one.

    Args:
        equation: what is run.
        start: x_0, shape (batch, n).
        pushes: p_t of T steps, at least one; as a tensor of shape (T, batch, n), or what they are made of.
        step: e, shape (n,).
        weights: values of the layouts of W.
        couplings: values of the layouts of G.
        shares: s_t, what a gate leaves of the steps, positive, shape (T, batch); None: all of them.
        last: only the last state is asked for, and no gradient of the others has room.

    Returns:
        x_1 to x_T, shape (T, batch, n); or x_T, shape (batch, n).

    Raises:
        InputError: there is no step.
    """
    inputs, weight, bias = Pushes(pushes) if isinstance(pushes, Tensor) else pushes
    if inputs.shape[0] == 0:  # len() would tell a compiler that every batch of time has this length
        raise InputError("inputs", "no steps of time", "at least one", "wrong-shape")
    values = [*weights, *couplings]
    found: Tensor = _recurrence(start, inputs, weight, bias, step, values, equation.spec, last, shares)[0]
    return found.mT


def _forward(
    start: Tensor, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, step: Tensor, values: list[Tensor],
    spec: str, last: bool, shares: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The states as columns, shape (T, n, batch), or the last; and those kept besides, shape (count, n, batch)."""
    equation, steps = Equation.of_spec(spec), len(inputs)
    with torch.autocast(start.device.type, enabled=False):
        taken, made = stepper(equation, values, step), _Pushed(equation, inputs, weight, bias, step)
        stride, x = _stride(equation.keep, steps), start.mT.contiguous()
        stretch = stride if last and stride > 1 else _stretch(x)
        states, kept = (start.new_empty(size, *x.shape) for size in _sizes(steps, stride, last))
        room = states if len(states) else x.new_empty(stretch, *x.shape) if stride > 1 else kept
        for first in range(0, steps, stretch):
            count = min(stretch, steps - first)
            out = room[first : first + count] if len(room) == steps else room[:count]
            made.scaled(first, out)
            taken.forward(x, out, _of(shares, first, first + count))
            x = out[-1]
            if last and stride > 1:
                x = x.clone()
                if count == stride:
                    kept[first // stride] = x
        if not last and stride > 1:
            kept.copy_(states[stride - 1 :: stride])
        return x.clone() if last else states, kept


_recurrence = torch.library.custom_op("certes::recurrence", _forward, mutates_args=())


@_recurrence.register_fake
def _(
    start: Tensor, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, step: Tensor, values: list[Tensor],
    spec: str, last: bool, shares: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch, n = start.shape
    steps = inputs.shape[0]
    states, kept = _sizes(steps, _stride(Equation.of_spec(spec).keep, steps), last)
    return start.new_empty((n, batch) if last else (states, n, batch)), start.new_empty(kept, n, batch)


def _backward(
    gradient: Tensor, start: Tensor, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, step: Tensor,
    values: list[Tensor], kept: Tensor, spec: str, last: bool, of_inputs: bool, of_step: bool,
    shares: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    """Gradients of the start, inputs, U, b, e, s (empty where there is none, or nobody asks) and the values."""
    equation, steps = Equation.of_spec(spec), len(inputs)
    with torch.autocast(start.device.type, enabled=False):
        taken, made = stepper(equation, values, step), _Pushed(equation, inputs, weight, bias, step)
        back, stride = made.back(of_inputs), _stride(equation.keep, steps)
        x = start.mT.contiguous()
        stretch = _stretch(x) if stride == 1 else stride
        adjoint = gradient if last else torch.zeros_like(x)
        moved = step.new_zeros(len(step) if of_step else 0)
        opened = step.new_empty(0) if shares is None else torch.empty_like(shares)
        for first in reversed(range(0, steps, stretch)):
            end = min(first + stretch, steps)
            before, after = _segment(taken, made, (first, end), stride, x, kept, shares)
            pushes = None if equation.hopfield else made.scaled(first, torch.empty_like(before))
            outer = None if last else gradient[first:end].contiguous()
            adjoints, pushed = taken.back(before, pushes, adjoint, outer, _of(shares, first, end))
            if of_step or shares is not None:  # dx_{k+1}/de = (x_{k+1} - x_k) / e, and likewise of s
                grown = adjoints[1:] * (after - before)
                if of_step:
                    moved += grown.sum((0, 2))
                if shares is not None:
                    torch.sum(grown, 1, out=opened[first:end])
            back.add(first, pushed)
            adjoint = adjoints[0]
        moved = moved / step if of_step else moved
        opened = opened if shares is None else opened / shares
        return [adjoint.mT.clone(), *back.gradients(), moved, opened, *taken.gradients()]


def _segment(
    taken: Stepper, made: _Pushed, part: tuple[int, int], stride: int, start: Tensor, kept: Tensor,
    shares: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The states before and after each step of a stretch: kept, or computed again from the one before it."""
    first, end = part
    if stride == 1:
        if first:
            return kept[first - 1 : end - 1], kept[first:end]
        return torch.cat([start[None], kept[: end - 1]]), kept[:end]
    states = start.new_empty(end - first + 1, *start.shape)
    states[0] = start if first == 0 else kept[first // stride - 1]
    made.scaled(first, states[1:])
    taken.forward(states[0], states[1:], _of(shares, first, end))
    return states[:-1], states[1:]


def _of(shares: Tensor | None, first: int, end: int) -> Tensor | None:
    """Those of a stretch, as columns take them, shape (steps, 1, batch)."""
    return None if shares is None else shares[first:end, None]


_recurrence_back = torch.library.custom_op("certes::recurrence_back", _backward, mutates_args=())


@_recurrence_back.register_fake
def _(
    gradient: Tensor, start: Tensor, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, step: Tensor,
    values: list[Tensor], kept: Tensor, spec: str, last: bool, of_inputs: bool, of_step: bool,
    shares: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    none = step.new_empty(0)
    made = [inputs if of_inputs else none, none if weight is None else weight, none if bias is None else bias]
    made += [step if of_step else none, none if shares is None else shares]
    return [value.new_empty(value.shape) for value in (start, *made, *values)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    start, seen, weight, bias, step, values, spec, last, shares = inputs
    states, kept = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(kept)
    parts = (weight, bias, shares)
    ctx.spec, ctx.last, ctx.parts = spec, last, tuple(part is not None for part in parts)
    own = kept if last or _stride(Equation.of_spec(spec).keep, len(seen)) > 1 else states
    ctx.save_for_backward(start, seen, step, own, *[part for part in parts if part is not None], *values)


def _back(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    start, seen, step, kept, *rest = ctx.saved_tensors
    if gradient is None:
        return (None, None, None, None, None, [None] * (len(rest) - sum(ctx.parts)), None, None, None)
    weight, bias, shares = (rest.pop(0) if there else None for there in ctx.parts)
    asked, (*pushed, gated) = ctx.needs_input_grad, ctx.parts
    of_start, *found = _recurrence_back(
        gradient, start, seen, weight, bias, step, rest, kept, ctx.spec, ctx.last, asked[1], asked[4], shares
    )
    there = (asked[1], *pushed, asked[4], gated)
    *made, opened = (value if wanted else None for value, wanted in zip(found, there, strict=False))
    return (of_start, *made, found[5:], None, None, opened)


_recurrence.register_autograd(_back, setup_context=_keep)


class _Pushed:
    """Pushes, made when they are needed: those of the form hopfield times e."""

    def __init__(
        self, equation: Equation, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, step: Tensor
    ) -> None:
        self.scale = step if equation.hopfield else torch.ones_like(step)
        self.shapes = [0 if part is None else part.shape for part in (weight, bias)]
        if weight is not None and bias is not None:  # [U, b] of [u; 1] is one product
            weight = torch.cat([weight, bias[:, None]], 1)
            inputs = torch.cat([inputs, inputs.new_ones(*inputs.shape[:2], 1)], 2)
        self.inputs, self.weight = inputs, None if weight is None else weight * self.scale[:, None]

    def scaled(self, first: int, out: Tensor) -> Tensor:
        """Those from step ``first`` on, written into ``out``, shape (steps, n, batch)."""
        seen = self.inputs[first : first + len(out)].mT
        if self.weight is None:
            return torch.mul(seen, self.scale[:, None], out=out)
        return torch.bmm(self.weight.expand(len(out), -1, -1), seen, out=out)

    def back(self, of_inputs: bool) -> _PushedBack:
        """To collect gradients with."""
        return _PushedBack(self, of_inputs)


class _PushedBack:
    """Gradients of what pushes are made of, from those of the pushes as they were made."""

    def __init__(self, pushed: _Pushed, of_inputs: bool) -> None:
        self.pushed = pushed
        self.inputs = pushed.inputs.new_empty(pushed.inputs.shape if of_inputs else 0)
        self.weight = None if pushed.weight is None else torch.zeros_like(pushed.weight)

    def add(self, first: int, gradient: Tensor) -> None:
        """Of the pushes from step ``first`` on, shape (steps, n, batch)."""
        pushed, part = self.pushed, slice(first, first + len(gradient))
        if pushed.weight is None or self.weight is None:
            if len(self.inputs):
                torch.mul(gradient.mT, pushed.scale, out=self.inputs[part])
            return
        self.weight += torch.bmm(gradient, pushed.inputs[part]).sum(0)
        if len(self.inputs):
            torch.matmul(gradient.mT, pushed.weight, out=self.inputs[part])

    def gradients(self) -> list[Tensor]:
        """Of inputs, U and b."""
        scale, (weight, bias) = self.pushed.scale, self.pushed.shapes
        if self.weight is None:
            return [self.inputs, scale.new_zeros(weight), scale.new_zeros(bias)]
        found = self.weight * scale[:, None]
        if bias == 0:
            return [self.inputs, found, scale.new_zeros(0)]
        inputs = self.inputs[..., :-1].clone() if len(self.inputs) else self.inputs
        return [inputs, found[:, :-1].clone(), found[:, -1].clone()]


def _sizes(steps: int, stride: int, last: bool) -> tuple[int, int]:
    """How many states are handed out, and how many are kept besides."""
    if last:
        return 0, steps // stride
    return steps, steps // stride if stride > 1 else 0


def _stretch(x: Tensor) -> int:
    """Steps of which everything that does not wait is made at once: some megabytes of it."""
    return max(8, min(128, 2**20 // x.numel()))


def _stride(keep: int, steps: int) -> int:
    if keep == 1:
        return 1
    return max(1, math.isqrt(steps)) if keep == 0 else min(keep, steps)
