"""Run a network in float64, several states at once, as evidence beside a proof: what anyone can replay.

States are columns, shape (n, k): they share one input. Differential equations are integrated by the classical
Runge-Kutta method of order 4, maps are iterated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.systems import System

Array = NDArray[np.float64]

#: Relative accuracy asked of an equilibrium or of a periodic orbit.
NEAR = 1e-6
#: How much farther apart two trajectories must end than they started.
PART = 10.0
#: Most steps of a replay.
MOST_STEPS = 200_000


@dataclass(frozen=True, eq=False)
class Motion:
    """The equation of motion of a network.

    Attributes:
        system: the network, dense.
        phi: the nonlinearity, elementwise on columns, shape (m, k).
        input: u as a function of the states, shape (m, 1) or (n, 1): inside phi for rate and lure.
    """

    system: System
    phi: Callable[[Array], Array]
    input: Callable[[Array], Array]

    def arguments(self, states: Array) -> Array:
        """What phi is applied to, shape (m, k)."""
        if self.system.form == "hopfield":
            return states
        weights = self.system.matrix("W" if self.system.form == "rate" else "C")
        return np.asarray(weights @ states + self.input(states))

    def drift(self, states: Array) -> Array:
        """x' of a differential equation, also of one whose Euler map is run; for a given map, x+ - x; shape (n, k)."""
        system, value = self.system, self.phi(self.arguments(states))
        if system.form == "lure":
            drift = system.matrix("A") @ states + system.matrix("B") @ value
            return np.asarray(drift - states if system.discrete else drift)
        arriving = value if system.form == "rate" else system.matrix("W") @ value + self.input(states)
        return np.asarray((arriving - states) / system.tau[:, None])

    def advance(self, states: Array, step: float) -> Array:
        """One step of the map, or ``step`` units of time."""
        first = self.drift(states)
        if not self.system.continuous:
            return states + (first if self.system.step is None else self.system.step * first)
        second = self.drift(states + step / 2 * first)
        third = self.drift(states + step / 2 * second)
        fourth = self.drift(states + step * third)
        return states + step / 6 * (first + 2 * second + 2 * third + fourth)


def longest_step(norm: float) -> float:
    """The time step of a replay that stays close to its orbit, for Jacobians of a norm."""
    return 0.05 / (1.0 + norm)


def parting_steps(norm: float, horizon: float) -> float:
    """The number of steps h of a replay near an equilibrium, where only the growth of the distance counts; may be inf.

    The method multiplies a mode of frequency w by 1 - (w h)^6 / 144 per step. With w <= norm and this h that takes less
    than a twentieth off the logarithm of a distance that grows tenfold.
    """
    reach = horizon * (1.0 + norm)
    return reach * max(2.0, math.pow(reach / 16.0, 0.2))
