"""Steps that the input opens and closes: what a certificate of the map at the largest step says of all of them.

A gate sees the input alone and scales the whole step by one number,

    x+ = x + s_t E f(x, u_t),    s_t = least + (1 - least) sigmoid(w . u_t + b),    0 < least <= s_t <= 1,

E f(x, u) being the step of the network without a gate. That is an average of staying where one is and of the map at
s = 1, F(x, u) = x + E f(x, u):

    x + s E f(x, u) = (1 - s) x + s F(x, u).

Two runs under the same inputs have the same s_t. So where F contracts by rho in some norm, for every u, a step with s
contracts in that norm by at most (1 - s) + s rho <= 1 - least (1 - rho), and so does any product of steps, whatever
the gates do and whoever sets them. In continuous time x' = s_t f(x, u_t) has the logarithmic norm s_t mu(f') <=
-s_t c: a certified rate c leaves the rate least c. For this the norm has to be one and constant, as it is in every
certificate, and s_t may depend on inputs and time but not on the state.

What is certified is F, in continuous time f; from that the numbers here follow by arithmetic, rounded outwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from certes.errors import InputError

#: The smallest share of a step that a gate may leave.
LEAST = 1e-3


@dataclass(frozen=True)
class InputGate:
    """A gate that leaves at least a share of every step.

    Attributes:
        least: the smallest s_t.

    Raises:
        InputError: a share below 0.001, or of 1 and more.
    """

    least: float

    def __post_init__(self) -> None:
        number = isinstance(self.least, int | float) and not isinstance(self.least, bool)
        if not number or not LEAST <= self.least < 1.0:
            raise InputError("gate", repr(self.least)[:60], f"a number from {LEAST:g} to below 1", "out-of-range")

    def factor(self, factor: float) -> float:
        """Of any step, from that of the map at s = 1; rounded up."""
        exact = 1 - Fraction(self.least) * (1 - Fraction(factor))
        found = float(exact)
        return found if Fraction(found) >= exact else math.nextafter(found, math.inf)

    def rate(self, rate: float) -> float:
        """Under any gates, from that at s = 1; rounded down."""
        exact = Fraction(self.least) * Fraction(rate)
        found = float(exact)
        return found if Fraction(found) <= exact else math.nextafter(found, -math.inf)

    def to_json(self, rate: float | None, factor: float | None) -> dict[str, float | None]:
        """What follows from what is proven at s = 1, under the Python names."""
        return {
            "least": float(self.least),
            "rate": None if rate is None else self.rate(rate),
            "factor": None if factor is None else self.factor(factor),
        }
