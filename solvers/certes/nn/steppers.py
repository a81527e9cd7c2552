"""One step of time after the other, forward and back, on columns, with as few operations per step as there can be.

    hopfield   x+ = (1 - e) x + E W phi(x) + E G x + E p
    rate       x+ = (1 - e) x + E phi(W x + p) + E G x

Where an input gate leaves shares s of the steps, x+ is (1 - s) x + s times that: one operation more, and two back.

Steps are taken in stretches of some dozens. Whatever does not wait for the step before it (pushes p, slopes, gradients
of what the pushes are made of) is made for a stretch at once.

:class:`Whole` has one matrix for everything: a step is phi and a product, and so is a step back. :class:`Parts` uses
the structure: a product for every layout, and gradients added up while the states of a step are still in the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from certes.nn.activations import slopes_of, torch_activation
from certes.nn.operators import Dense, Operator, of_spec

#: States up to which one product with everything in it beats products that use a structure.
_SMALL = 64


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

    @property
    def spec(self) -> str:
        """All of it in words, as torch's operators take it."""
        parts = [str(int(self.hopfield)), self.activation, str(self.keep), str(len(self.weights))]
        return "|".join([*parts, *(layout.spec for layout in (*self.weights, *self.couplings))])

    @classmethod
    def of_spec(cls, spec: str) -> Equation:
        """The equation of its words."""
        return _read(spec)


@functools.lru_cache(256)
def _read(spec: str) -> Equation:
    hopfield, activation, keep, count, *layouts = spec.split("|")
    found = tuple(of_spec(layout) for layout in layouts)
    return Equation(hopfield == "1", activation, found[: int(count)], found[int(count) :], int(keep))


class Stepper:
    """Steps of one equation with its numbers.

    Args:
        equation: what is run.
        values: of the layouts of W, and then of G.
        step: e, shape (n,).
    """

    def __init__(self, equation: Equation, values: Sequence[Tensor], step: Tensor) -> None:
        self.hopfield, self.activation = equation.hopfield, equation.activation
        self.layouts, self.count = [*equation.weights, *equation.couplings], len(equation.weights)
        self.values, self.step, self.size = values, step, len(step)
        self.into = _into(equation.activation)

    def forward(self, x: Tensor, out: Tensor, shares: Tensor | None = None) -> None:
        """Take a stretch of steps.

        Args:
            x: the state before it, shape (n, batch).
            out: of every step the push, E p of the form hopfield and p of the form rate, shape (steps, n, batch); and
                then the state after it.
            shares: s, shape (steps, 1, batch); None: whole steps.
        """
        raise NotImplementedError

    def back(
        self, before: Tensor, pushes: Tensor | None, adjoint: Tensor, outer: Tensor | None,
        shares: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Go back through a stretch, and add to the gradients of the values.

        Args:
            before: the state before each step, shape (steps, n, batch).
            pushes: p, of the form rate.
            adjoint: gradient of the state after the stretch, shape (n, batch).
            outer: gradients of the states after the steps from elsewhere, shape (steps, n, batch), or None.
            shares: s, shape (steps, 1, batch); None: whole steps.

        Returns:
            The adjoints, shape (steps + 1, n, batch): before the stretch, and after every step; and the gradients of
            the pushes as ``out`` has them, shape (steps, n, batch).
        """
        raise NotImplementedError

    def gradients(self) -> list[Tensor]:
        """Of the values."""
        raise NotImplementedError


class Whole(Stepper):
    """One matrix: M = [E W, I + E (G - I)] of the form hopfield, [I + E (G - I); W] of the form rate."""

    def __init__(self, equation: Equation, values: Sequence[Tensor], step: Tensor) -> None:
        super().__init__(equation, values, step)
        weights, linear = self._whole(0, self.count), self._whole(self.count, len(values))
        linear = linear * step[:, None] + torch.diag(1.0 - step)
        self.matrix = torch.cat([weights * step[:, None], linear], 1) if self.hopfield else torch.cat([linear, weights])
        self.found = torch.zeros_like(self.matrix)
        self.room: dict[str, Tensor] = {}

    def _whole(self, first: int, last: int) -> Tensor:
        found = self.step.new_zeros(self.size, self.size)
        for layout, value in zip(self.layouts[first:last], self.values[first:last], strict=True):
            found = found + layout.whole(value, self.size)
        return found

    def _pairs(self, name: str, steps: int, like: Tensor) -> Tensor:
        """Room for two columns per step, used again for the next stretch, shape (steps, 2, n, batch)."""
        found = self.room.get(name)
        if found is None or len(found) < steps:
            found = self.room[name] = like.new_zeros(steps, 2, *like.shape)
        return found[:steps]

    def forward(self, x: Tensor, out: Tensor, shares: Tensor | None = None) -> None:
        """Two operations per step, or three."""
        steps, into, matrix = len(out), self.into, self.matrix
        if self.hopfield:
            room = self._pairs("forward", steps + 1, x)  # phi(x), x
            room[0, 1], room[1:, 1] = x, out
            both, bent, state = room.flatten(1, 2).unbind(), room[:, 0].unbind(), room[:, 1].unbind()
            for k in range(steps):
                into(state[k], bent[k])
                state[k + 1].addmm_(matrix, both[k])
                if shares is not None:
                    torch.lerp(state[k], state[k + 1], shares[k], out=state[k + 1])
            out.copy_(room[1:, 1])
            return
        room = self._pairs("forward", steps, x)  # (I + E (G - I)) x, W x + p
        room[:, 0], room[:, 1] = 0.0, out
        both, linear, bent = room.flatten(1, 2).unbind(), room[:, 0].unbind(), room[:, 1].unbind()
        step, after = self.step[:, None], out.unbind()
        for k in range(steps):
            both[k].addmm_(matrix, x)
            into(bent[k], bent[k])
            torch.addcmul(linear[k], step, bent[k], out=after[k])
            x = after[k] if shares is None else torch.lerp(x, after[k], shares[k], out=after[k])

    def back(
        self, before: Tensor, pushes: Tensor | None, adjoint: Tensor, outer: Tensor | None,
        shares: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Two operations per step."""
        if pushes is None:
            return self._back_hopfield(before, adjoint, outer, shares)
        n, room = self.size, before.new_empty(len(before) + 1, 2, *adjoint.shape)  # of the step, and of W x + p
        slopes = slopes_of(self.activation, self.matrix[n:] @ before + pushes)[1] * self.step[:, None]
        adjoints = room[:, 0] if shares is None else torch.empty_like(room[:, 0])
        adjoints[-1] = adjoint
        both, given, own = room.flatten(1, 2).unbind(), room[:, 0].unbind(), room[:, 1].unbind()
        turned, bends, a = self.matrix.mT, slopes.unbind(), adjoints.unbind()
        for k in reversed(range(len(before))):
            if outer is not None:
                a[k + 1].add_(outer[k])
            if shares is not None:
                torch.mul(a[k + 1], shares[k], out=given[k + 1])
            torch.mul(given[k + 1], bends[k], out=own[k + 1])
            torch.mm(turned, both[k + 1], out=a[k])
            if shares is not None:
                a[k].add_(a[k + 1]).sub_(given[k + 1])
        self.found += _outer(room[1:].flatten(1, 2), before)
        return adjoints, room[1:, 1]

    def _back_hopfield(
        self, before: Tensor, adjoint: Tensor, outer: Tensor | None, shares: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        phi, slopes = slopes_of(self.activation, before)
        adjoints = before.new_empty(len(before) + 1, *adjoint.shape)
        adjoints[-1] = adjoint
        given = adjoints[1:] if shares is None else torch.empty_like(before)
        one = before.new_empty(2 * self.size, adjoint.shape[1])
        bent, linear = one[: self.size], one[self.size :]
        turned, a, bends = self.matrix.mT, adjoints.unbind(), slopes.unbind()
        for k in reversed(range(len(before))):
            if outer is not None:
                a[k + 1].add_(outer[k])
            if shares is not None:
                torch.mul(a[k + 1], shares[k], out=given[k])
            torch.mm(turned, given[k], out=one)
            torch.addcmul(linear, bends[k], bent, out=a[k])
            if shares is not None:
                a[k].add_(a[k + 1]).sub_(given[k])
        self.found += _outer(given, torch.cat([phi, before], 1))
        return adjoints, given

    def gradients(self) -> list[Tensor]:
        """Of the values."""
        n, e = self.size, self.step[:, None]
        weights, linear = (
            (self.found[:, :n] * e, self.found[:, n:]) if self.hopfield else (self.found[n:], self.found[:n])
        )
        linear = linear * e
        return [layout.part(weights if k < self.count else linear).clone() for k, layout in enumerate(self.layouts)]


class Parts(Stepper):
    """A product for every layout."""

    def __init__(self, equation: Equation, values: Sequence[Tensor], step: Tensor) -> None:
        super().__init__(equation, values, step)
        self.scales = [self.hopfield or k >= self.count for k in range(len(values))]
        made = [
            layout.scaled(value, step) if scale else value
            for layout, value, scale in zip(self.layouts, values, self.scales, strict=True)
        ]
        self.found = [torch.zeros_like(value, memory_format=torch.contiguous_format) for value in made]
        every = list(zip(self.layouts, made, self.found, strict=True))
        self.weights, self.couplings = every[: self.count], every[self.count :]
        self.leak = (1.0 - step)[:, None]

    def forward(self, x: Tensor, out: Tensor, shares: Tensor | None = None) -> None:
        """A product for every layout, and two or three elementwise operations."""
        bent, step = torch.empty_like(x), self.step[:, None]
        for k, state in enumerate(out.unbind()):
            if self.hopfield:
                state.addcmul_(x, self.leak)
                _add(self.weights, self.into(x, bent), state)
            else:
                _add(self.weights, x, state)
                self.into(state, bent)
                torch.mul(x, self.leak, out=state).addcmul_(bent, step)
            _add(self.couplings, x, state)
            x = state if shares is None else torch.lerp(x, state, shares[k], out=state)

    def back(
        self, before: Tensor, pushes: Tensor | None, adjoint: Tensor, outer: Tensor | None,
        shares: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The same, and a product for the gradient of every layout."""
        steps = len(before)
        adjoints = before.new_empty(steps + 1, *adjoint.shape)
        adjoints[steps] = adjoint
        given = adjoints[1:] if shares is None else torch.empty_like(before)
        own = torch.empty_like(before if pushes is not None else adjoint)
        argument = before
        if pushes is not None:
            argument = pushes.clone()
            for x, state in zip(before.unbind(), argument.unbind(), strict=True):
                _add(self.weights, x, state)
        bent, slopes = slopes_of(self.activation, argument)
        if not self.hopfield:
            slopes = slopes * self.step[:, None]
        for k in reversed(range(steps)):
            a, x = adjoints[k + 1], before[k]
            if outer is not None:
                a.add_(outer[k])
            y = a if shares is None else torch.mul(a, shares[k], out=given[k])
            left = torch.mul(y, self.leak, out=adjoints[k])
            if self.hopfield:
                _back(self.weights, y, bent[k], own.zero_())
                left.addcmul_(slopes[k], own)
            else:
                _back(self.weights, torch.mul(y, slopes[k], out=own[k]), x, left)
            _back(self.couplings, y, x, left)
            if shares is not None:
                left.add_(a).sub_(y)
        return adjoints, given if self.hopfield else own

    def gradients(self) -> list[Tensor]:
        """Of the values."""
        return [
            layout.scaled(found, self.step) if scale else found
            for layout, found, scale in zip(self.layouts, self.found, self.scales, strict=True)
        ]


_Known = Sequence[tuple[Operator, Tensor, Tensor]]


def _add(known: _Known, x: Tensor, out: Tensor) -> None:
    for layout, value, _ in known:
        layout.add(value, x, out)


def _back(known: _Known, y: Tensor, x: Tensor, out: Tensor) -> None:
    for layout, value, found in known:
        layout.back(value, y, x, out, found)


def stepper(equation: Equation, values: Sequence[Tensor], step: Tensor) -> Stepper:
    """The faster one."""
    dense = all(isinstance(layout, Dense) for layout in (*equation.weights, *equation.couplings))
    return (Whole if dense or len(step) <= _SMALL else Parts)(equation, values, step)


def _into(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """phi of the first argument, written into the second."""
    if name == "relu":
        return lambda s, out: torch.clamp_min(s, 0.0, out=out)
    if name in ("tanh", "sigmoid"):
        function = torch.tanh if name == "tanh" else torch.sigmoid
        return lambda s, out: function(s, out=out)
    phi = torch_activation(name)
    return lambda s, out: out.copy_(phi(s))


def _outer(y: Tensor, x: Tensor) -> Tensor:
    """The sum over steps and batch of y x^T, for shapes (steps, n, batch) and (steps, m, batch)."""
    return y.transpose(0, 1).flatten(1) @ x.transpose(0, 1).flatten(1).mT
