"""Intervals by their ends, and the logistic function and tanh enclosed without trusting any libm.

exp(t), t <= 0: with u = t / 2^7 the Taylor polynomial of order 14 in the arithmetic of
:mod:`~certes.verify.intervals`, whose remainder for |u| <= 45 / 2^7 is at most |u|^15 / 15! < 2e-19 (an alternating
series of falling terms), then 7 squarings, each of them enclosed. Below -45 the value lies in [0, exp(-45)].
Then sig(s) = 1 / (1 + exp(-s)) for s >= 0, sig(s) = 1 - sig(-s), tanh(s) = 2 sig(2 s) - 1: all of them increase, so an
interval's ends are enough. The enclosures are about 1e-13 wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from certes.verify.intervals import TINY, Box, U, reciprocal, upward

Array = NDArray[np.float64]

_ORDER, _SQUARINGS, _LEAST = 14, 7, -45.0
#: Covers the Taylor remainder (2e-19), and an argument that the scaling by 2^-7 flushed to zero.
_REMAINDER = 1e-18


@dataclass(frozen=True, eq=False)
class Interval:
    """Real arrays between ``lower`` and ``upper``, entry by entry; ends are floats, lower <= upper."""

    lower: Array
    upper: Array

    @classmethod
    def of(cls, box: Box) -> Self:
        """The ends of a midpoint-radius box, rounded outwards."""
        pad = upward(box.rad + 4.0 * U * (np.abs(box.mid) + box.rad))
        return cls(box.mid - pad, box.mid + pad)

    @property
    def box(self) -> Box:
        """The same set as midpoint and radius (never smaller)."""
        mid = 0.5 * self.lower + 0.5 * self.upper
        return Box(mid, upward(np.maximum(self.upper - mid, mid - self.lower)))

    @property
    def largest(self) -> Array:
        """The largest absolute value."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    def within(self, other: Interval) -> Array:
        """Entry by entry, whether it is part of another; False at NaN."""
        return np.asarray((other.lower <= self.lower) & (self.upper <= other.upper) & (self.lower <= self.upper))

    def __getitem__(self, key: slice) -> Interval:
        return Interval(self.lower[key], self.upper[key])

    def __add__(self, other: Interval) -> Interval:
        return _outward(self.lower + other.lower, self.upper + other.upper)

    def __sub__(self, other: Interval) -> Interval:
        return _outward(self.lower - other.upper, self.upper - other.lower)

    def __mul__(self, other: Interval) -> Interval:
        """Elementwise product: a bilinear function takes its extremes at corners."""
        corners = [a * b for a in (self.lower, self.upper) for b in (other.lower, other.upper)]
        return _outward(np.minimum.reduce(corners), np.maximum.reduce(corners))


def hull(*parts: Interval) -> Interval:
    """The smallest interval around all parts."""
    return Interval(np.minimum.reduce([p.lower for p in parts]), np.maximum.reduce([p.upper for p in parts]))


def joined(*parts: Interval) -> Interval:
    """Vectors one after the other."""
    return Interval(np.concatenate([p.lower for p in parts]), np.concatenate([p.upper for p in parts]))


def exact(value: Array | float) -> Interval:
    """The single array that floats are."""
    array = np.asarray(value, dtype=np.float64)
    return Interval(array, array)


def _outward(lower: Array, upper: Array) -> Interval:
    """Ends that were rounded once (or flushed to zero once), moved outwards past the exact ones."""
    down, up = 4.0 * U * np.abs(lower) + TINY, 4.0 * U * np.abs(upper) + TINY
    return Interval(np.asarray(lower - down), np.asarray(upper + up))


def _exponential(argument: Array) -> Interval:
    """exp of exact floats <= 0."""
    clipped = np.maximum(argument, _LEAST)
    u = Box.exact(clipped * 2.0**-_SQUARINGS)
    one = Box.exact(np.ones_like(clipped))
    value = one
    for k in range(_ORDER, 0, -1):
        value = one + u * value * reciprocal(np.array(float(k)))
    value = Box(value.mid, upward(value.rad + _REMAINDER))
    for _ in range(_SQUARINGS):
        value = value * value
    ends = Interval.of(value)
    return Interval(np.where(argument < _LEAST, 0.0, np.maximum(ends.lower, 0.0)), ends.upper)


def _logistic_at(argument: Array) -> Interval:
    """sig of exact floats, infinities included, inside [0, 1]; NaN stays NaN."""
    whole = exact(np.ones_like(argument))
    below = (whole + _exponential(-np.abs(argument))).box
    mid = 1.0 / below.mid
    # |1/d - 1/m| = |d - m| / (d m) for every d of the box, d >= m - rad
    inverse = Interval.of(Box(mid, upward(U * mid + below.rad / (below.mid * (below.mid - below.rad)))))
    mirrored = whole - inverse
    positive = argument >= 0.0
    lower = np.where(positive, inverse.lower, mirrored.lower)
    upper = np.where(positive, inverse.upper, mirrored.upper)
    return Interval(np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0))


def logistic(argument: Interval) -> Interval:
    """sig of every number in intervals, shape (n,), inside [0, 1]."""
    count = len(argument.lower)
    both = _logistic_at(np.concatenate([argument.lower, argument.upper]))
    return Interval(both.lower[:count], both.upper[count:])


def tanh(argument: Interval) -> Interval:
    """tanh of every number in intervals, shape (n,), inside [-1, 1]."""
    half = logistic(Interval(2.0 * argument.lower, 2.0 * argument.upper))  # doubling is exact, or infinite
    doubled = _outward(2.0 * half.lower - 1.0, 2.0 * half.upper - 1.0)
    return Interval(np.clip(doubled.lower, -1.0, 1.0), np.clip(doubled.upper, -1.0, 1.0))


def logistic_slope(value: Interval) -> Interval:
    """p (1 - p) for every p in an interval inside [0, 1]: it rises up to p = 1/2 and falls from there."""
    ends = [exact(end) * (exact(1.0) - exact(end)) for end in (value.lower, value.upper)]
    both = hull(*ends)
    peak = (value.lower <= 0.5) & (value.upper >= 0.5)
    return Interval(np.maximum(both.lower, 0.0), np.where(peak, 0.25, both.upper))


def tanh_slope(value: Interval) -> Interval:
    """1 - y^2 for every y in an interval inside [-1, 1]: it falls with |y|."""
    ends = [exact(1.0) - exact(end) * exact(end) for end in (value.lower, value.upper)]
    both = hull(*ends)
    peak = (value.lower <= 0.0) & (value.upper >= 0.0)
    return Interval(np.maximum(both.lower, 0.0), np.where(peak, 1.0, np.minimum(both.upper, 1.0)))
