"""Families of levels: which convex region must hold the field of values for a rate, a factor, a step or a norm.

A family orders the points z of the complex plane by a ``price`` (smaller is better; its sublevel sets are convex, and
symmetric about the real axis). The price of a matrix A is the largest one on its field of values; for :class:`Norm`
the points are the values of norm(A v)^2 instead. A level is the price in the units of whoever asks.

Source of the regions: A. Gokhale, A. Proskurnikov, Y. Kawano, F. Bullo (arXiv 2604.00119); the regions as intersections
of half planes Re(h z) <= t with h = c0 + r0 exp(i theta) are worked out in docs/theory.md.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Levels are relative to max(price, this): where a price nears 0 nobody asks for more digits.
SMALLEST = 1e-3


@dataclass(frozen=True)
class Functional:
    """h(theta) = c0 + r0 exp(i theta) with level t: the field of values must satisfy Re(h z) < t for every theta."""

    c0: float
    r0: float
    t: float

    def direction(self, theta: float) -> complex:
        """h(theta)."""
        return complex(self.c0 + self.r0 * math.cos(theta), self.r0 * math.sin(theta))


class Family(Protocol):
    """A one-parameter family of convex regions; ``level`` is what a user asks for."""

    def functional(self, level: float) -> Functional:
        """The functional whose feasibility means that ``level`` is provable."""

    def border(self, price: float) -> Functional:
        """The functional of the half planes that touch the region of points up to ``price``."""

    def price(self, z: Complex) -> Array:
        """The price of points, shape of z."""

    def slope(self, z: Complex) -> Complex:
        """Gradient of the price as a complex number s: price(z + dz) = price(z) + Re(conj(s) dz) + ..."""

    def level(self, price: float) -> float:
        """The level with this price."""

    def cost(self, level: float) -> float:
        """The price of a level."""

    def of_point(self, z: Complex) -> Array:
        """The best level that a single point z of the field of values allows."""

    def worst(self, levels: Array) -> float:
        """The most restrictive of several levels."""

    def relax(self, level: float, relative: float) -> float:
        """A level easier than ``level`` by a relative amount."""

    def scale(self, level: float) -> float:
        """s such that P = s Q^1/2 X Q^1/2 solves the Lur'e inequality at ``level`` (time constant 1)."""


def _unit(z: Complex) -> Complex:
    """z / abs(z), and 1 at 0."""
    modulus = np.abs(z)
    return np.where(modulus > 0, z / np.where(modulus > 0, modulus, 1.0), 1.0)


class _Plain(ABC):
    """What most families share."""

    @abstractmethod
    def functional(self, level: float) -> Functional:
        """See :class:`Family`."""

    @abstractmethod
    def level(self, price: float) -> float:
        """See :class:`Family`."""

    def border(self, price: float) -> Functional:
        """See :class:`Family`."""
        return self.functional(self.level(price))


class _Ascending(_Plain):
    """Families whose level is the price."""

    def level(self, price: float) -> float:
        """See :class:`Family`."""
        return price

    def cost(self, level: float) -> float:
        """See :class:`Family`."""
        return level

    def worst(self, levels: Array) -> float:
        """See :class:`Family`."""
        return float(levels.max())

    def relax(self, level: float, relative: float) -> float:
        """See :class:`Family`."""
        return level + relative * max(abs(level), SMALLEST)


@dataclass(frozen=True)
class Rate(_Plain):
    """Continuous time, T = I: level = contraction rate c < 1, price 1 - c. Parabola (abs z + Re z)/2 < 1 - c."""

    def functional(self, level: float) -> Functional:
        """See :class:`Family`."""
        return Functional(0.5, 0.5, 1.0 - level)

    def price(self, z: Complex) -> Array:
        """See :class:`Family`."""
        return np.asarray(0.5 * (np.abs(z) + z.real))

    def slope(self, z: Complex) -> Complex:
        """See :class:`Family`."""
        return np.asarray(0.5 * (_unit(z) + 1.0))

    def level(self, price: float) -> float:
        """See :class:`Family`."""
        return 1.0 - price

    def cost(self, level: float) -> float:
        """See :class:`Family`."""
        return 1.0 - level

    def of_point(self, z: Complex) -> Array:
        """See :class:`Family`."""
        return np.asarray(1.0 - self.price(z))

    def worst(self, levels: Array) -> float:
        """See :class:`Family`."""
        return float(levels.min())

    def relax(self, level: float, relative: float) -> float:
        """See :class:`Family`."""
        return level - relative * max(1.0 - level, SMALLEST)

    def scale(self, level: float) -> float:
        """See :class:`Family`."""
        return 2.0


@dataclass(frozen=True)
class Factor(_Ascending):
    """Euler map with step a (unit of tau), 0 < a < 2: level = factor rho > abs(1 - a). An ellipse; a disk for a = 1."""

    a: float

    def functional(self, level: float) -> Functional:
        """See :class:`Family`."""
        e = 1.0 - self.a
        width = (level - e) * (level + e)
        if width <= 0.0:
            return Functional(0.0, 1.0, -math.inf)
        return Functional(self.a * e / width, self.a * level / width, 1.0)

    def _root(self, z: Complex) -> Array:
        """2 rho - a abs z for the factor rho on whose ellipse z lies; scaled against overflow."""
        a, e = self.a, 1.0 - self.a
        long = a * np.abs(z)
        size = np.maximum(np.maximum(long, 2 * abs(e)), 1e-300)
        inside = (long / size) ** 2 + (2 * e / size) ** 2 + (2 * e / size) * (2 * a * z.real / size)
        return np.asarray(size * np.sqrt(np.maximum(inside, 0.0)))

    def price(self, z: Complex) -> Array:
        """See :class:`Family`."""
        return np.asarray(np.maximum((self.a * np.abs(z) + self._root(z)) / 2, abs(1.0 - self.a)))

    def slope(self, z: Complex) -> Complex:
        """See :class:`Family`."""
        root = self._root(z)
        safe = np.where(root > 0, root, 1.0)
        return np.asarray(np.where(root > 0, self.a * (self.price(z) * _unit(z) + 1.0 - self.a) / safe, 0.0))

    def of_point(self, z: Complex) -> Array:
        """See :class:`Family`."""
        return self.price(z)

    def scale(self, level: float) -> float:
        """See :class:`Family`."""
        e = 1.0 - self.a
        return (level * level - e * e) / (self.a * level) ** 2


@dataclass(frozen=True)
class Step:
    """Level = Euler step a at which the factor is still below 1 (a supremum, at most 2).

    Price 2 - a inside the parabola, where a > 0; outside twice the price of :class:`Rate`, which continues it.
    """

    def functional(self, level: float) -> Functional:
        """See :class:`Family`."""
        return Factor(level).functional(1.0) if 0.0 < level < 2.0 else Functional(0.5, 0.5, -math.inf)

    def border(self, price: float) -> Functional:
        """See :class:`Family`."""
        return self.functional(2.0 - price) if price < 2.0 else Functional(0.5, 0.5, 0.5 * price)

    def price(self, z: Complex) -> Array:
        """See :class:`Family`."""
        reach = np.abs(z) + z.real
        inside = reach < 2.0
        room = np.where(inside, 1.0 - z.real, 1.0)
        return np.asarray(np.where(inside, 2.0 - (2.0 - reach) / room, reach))

    def slope(self, z: Complex) -> Complex:
        """See :class:`Family`."""
        reach = np.abs(z) + z.real
        inside = reach < 2.0
        room = np.where(inside, 1.0 - z.real, 1.0)
        level = (2.0 - reach) / room
        return np.asarray(np.where(inside, (_unit(z) + 1.0 - level) / room, _unit(z) + 1.0))

    def level(self, price: float) -> float:
        """See :class:`Family`."""
        return max(2.0 - price, 0.0)

    def cost(self, level: float) -> float:
        """See :class:`Family`."""
        return 2.0 - level

    def of_point(self, z: Complex) -> Array:
        """See :class:`Family`."""
        return np.asarray(np.maximum(2.0 - self.price(z), 0.0))

    def worst(self, levels: Array) -> float:
        """See :class:`Family`."""
        return float(levels.min())

    def relax(self, level: float, relative: float) -> float:
        """See :class:`Family`."""
        return level * (1.0 - relative)

    def scale(self, level: float) -> float:
        """See :class:`Family`."""
        return Factor(level).scale(1.0)


@dataclass(frozen=True)
class Level(_Ascending):
    """Level = t itself for a fixed functional: c0 Re z + r0 abs z < t, r0 >= 0."""

    c0: float
    r0: float

    def functional(self, level: float) -> Functional:
        """See :class:`Family`."""
        return Functional(self.c0, self.r0, level)

    def price(self, z: Complex) -> Array:
        """See :class:`Family`."""
        return np.asarray(self.c0 * z.real + self.r0 * np.abs(z))

    def slope(self, z: Complex) -> Complex:
        """See :class:`Family`."""
        return np.asarray(self.c0 + self.r0 * _unit(z))

    def of_point(self, z: Complex) -> Array:
        """See :class:`Family`."""
        return self.price(z)

    def scale(self, level: float) -> float:
        """See :class:`Family`; X itself."""
        return 1.0


@dataclass(frozen=True)
class Norm(_Ascending):
    """Level = the spectral norm of A; its points are z = norm(A v)^2 for unit vectors v (real, not negative)."""

    def functional(self, level: float) -> Functional:
        """The half plane z <= level^2 of its points."""
        return Functional(1.0, 0.0, level * level)

    def price(self, z: Complex) -> Array:
        """See :class:`Family`."""
        return np.asarray(np.sqrt(np.maximum(z.real, 0.0)))

    def slope(self, z: Complex) -> Complex:
        """See :class:`Family`."""
        price = self.price(z)
        return np.asarray(np.where(price > 0, 0.5 / np.where(price > 0, price, 1.0), 0.0) + 0j)

    def of_point(self, z: Complex) -> Array:
        """See :class:`Family`."""
        return self.price(z)

    def scale(self, level: float) -> float:
        """The metric of a norm is Q itself."""
        return 1.0
