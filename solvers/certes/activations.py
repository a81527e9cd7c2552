"""Activation functions and their slope intervals: the one table.

A slope interval [a, b] of phi satisfies a <= (phi(s) - phi(t)) / (s - t) <= b for all s != t. The verifier trusts this
table, so bounds that are not exact floats are rounded outwards; a test proves each of them in ball arithmetic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError

Array = NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Activation:
    """An elementwise nonlinearity.

    Attributes:
        name: the name used in specs and certificates.
        lower: a, the smallest slope (rounded down).
        upper: b, the largest slope (rounded up).
        function: phi, elementwise on an array.
        derivative: phi', elementwise; accurate to ``DERIVATIVE_ERROR`` (absolute).
        attained: ``"interior"`` if phi' takes every value strictly between a and b (smooth functions);
            ``"ends"`` if it takes the values a and b and nothing else (piecewise linear functions).
    """

    name: str
    lower: float
    upper: float
    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    attained: Literal["interior", "ends"]


#: Absolute error assumed of every ``derivative`` in the table: numpy's exp and tanh and libm's erf are accurate to
#: a few units in the last place, and no formula below cancels; 1e-12 leaves a factor of 100 (tested in balls).
DERIVATIVE_ERROR = 1e-12


def _sigmoid(s: Array) -> Array:
    t = np.exp(-np.abs(s))
    return np.where(s >= 0, 1.0 / (1.0 + t), t / (1.0 + t))


def _sigmoid_slope(s: Array) -> Array:
    t = np.exp(-np.abs(s))
    return np.asarray(t / (1.0 + t) ** 2)


def _tanh_slope(s: Array) -> Array:
    t = np.exp(-2.0 * np.abs(s))
    return np.asarray(4.0 * t / (1.0 + t) ** 2)


def _gelu(s: Array) -> Array:
    return np.asarray(0.5 * s * (1.0 + _erf(s / math.sqrt(2.0))))


def _gelu_slope(s: Array) -> Array:
    density = np.exp(-0.5 * s * s) / math.sqrt(2.0 * math.pi)
    return np.asarray(0.5 * (1.0 + _erf(s / math.sqrt(2.0))) + s * density)


def _silu(s: Array) -> Array:
    return np.asarray(s * _sigmoid(s))


def _silu_slope(s: Array) -> Array:
    p = _sigmoid(s)
    return np.asarray(p + s * _sigmoid_slope(s))


def _elu(s: Array) -> Array:
    return np.where(s > 0, s, np.expm1(np.minimum(s, 0.0)))


def _elu_slope(s: Array) -> Array:
    return np.asarray(np.where(s > 0, 1.0, np.exp(np.minimum(s, 0.0))))


def _step(s: Array, low: float, high: float) -> Array:
    return np.where(s > 0, high, low).astype(np.float64)


def _inside(s: Array, left: float, right: float, high: float) -> Array:
    return np.where((s > left) & (s < right), high, 0.0).astype(np.float64)


_TABLE: tuple[Activation, ...] = (
    Activation("relu", 0.0, 1.0, lambda s: np.maximum(s, 0.0), lambda s: _step(s, 0.0, 1.0), "ends"),
    Activation("tanh", 0.0, 1.0, np.tanh, _tanh_slope, "interior"),
    Activation("sigmoid", 0.0, 0.25, _sigmoid, _sigmoid_slope, "interior"),
    Activation("softplus", 0.0, 1.0, lambda s: np.logaddexp(0.0, s), _sigmoid, "interior"),
    Activation("elu", 0.0, 1.0, _elu, _elu_slope, "interior"),
    # gelu: extreme slopes 1/2 +- 0.6289... at s = +-sqrt(2); silu: -0.0998393..., 1.0998393...; both rounded outwards
    Activation("gelu", -0.128905, 1.128905, _gelu, _gelu_slope, "interior"),
    Activation("silu", -0.09984, 1.09984, _silu, _silu_slope, "interior"),
    Activation(
        "softsign", 0.0, 1.0, lambda s: s / (1.0 + np.abs(s)), lambda s: 1.0 / (1.0 + np.abs(s)) ** 2, "interior"
    ),
    Activation("hardtanh", 0.0, 1.0, lambda s: np.clip(s, -1.0, 1.0), lambda s: _inside(s, -1.0, 1.0, 1.0), "ends"),
    Activation("relu6", 0.0, 1.0, lambda s: np.clip(s, 0.0, 6.0), lambda s: _inside(s, 0.0, 6.0, 1.0), "ends"),
    Activation("identity", 1.0, 1.0, lambda s: s * 1.0, lambda s: np.ones_like(s), "ends"),
)

#: name -> Activation, without the parametrised ``leaky_relu:SLOPE``.
ACTIVATIONS: dict[str, Activation] = {entry.name: entry for entry in _TABLE}


def _leaky_relu(slope: float) -> Activation:
    """Leaky ReLU. A float32 network runs the float32 neighbour of the slope, so both lie in the interval."""
    single = float(np.float32(slope))
    return Activation(
        f"leaky_relu:{slope!r}",
        min(slope, single),
        1.0,
        lambda s: np.where(s > 0, s, slope * s),
        lambda s: _step(s, slope, 1.0),
        "ends",
    )


def activation(name: str) -> Activation:
    """Look up an activation by name.

    Args:
        name: a key of :data:`ACTIVATIONS`, ``"leaky_relu"`` (slope 0.01) or ``"leaky_relu:SLOPE"``, SLOPE in [0, 1].

    Raises:
        InputError: the name is not in the table, or SLOPE is not a number in [0, 1].
    """
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    head, _, tail = name.partition(":")
    if head == "leaky_relu":
        # plain ASCII decimals: what a reader of a certificate sees is what is meant
        plain = re.fullmatch(r"[0-9]+(\.[0-9]+)?(e-?[0-9]+)?", tail, re.ASCII) is not None
        slope = (float(tail) if plain else math.nan) if tail else 0.01
        if not 0.0 <= slope <= 1.0:
            raise InputError("activation", repr(name), "leaky_relu:SLOPE with 0 <= SLOPE <= 1", "unknown-activation")
        return _leaky_relu(slope)
    known = ", ".join([*ACTIVATIONS, "leaky_relu:SLOPE"])
    raise InputError("activation", repr(name), f"one of {known}, or a slope interval", "unknown-activation")
