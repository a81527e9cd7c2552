"""Plain loops that judge witnesses: nothing here uses Certes, so that it is a second opinion."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _gelu(t: float) -> float:
    return 0.5 * t * math.erfc(-t / math.sqrt(2.0))


def _logistic(t: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * t))


_SCALAR: dict[str, Callable[[float], float]] = {
    "relu": lambda t: max(t, 0.0),
    "tanh": math.tanh,
    "sigmoid": _logistic,
    "softplus": lambda t: max(t, 0.0) + math.log1p(math.exp(-abs(t))),
    "elu": lambda t: t if t > 0 else math.expm1(t),
    "gelu": _gelu,
    "silu": lambda t: t * _logistic(t),
    "softsign": lambda t: t / (1.0 + abs(t)),
    "hardtanh": lambda t: min(max(t, -1.0), 1.0),
    "relu6": lambda t: min(max(t, 0.0), 6.0),
    "leaky_relu:0.3": lambda t: t if t > 0 else 0.3 * t,
    "identity": lambda t: t,
}
NAMES = tuple(_SCALAR)
SMOOTH = ("tanh", "sigmoid", "softplus", "elu", "gelu", "silu", "softsign")


def phi(name: str, s: Array) -> Array:
    """The activation, entry by entry."""
    return np.array([_SCALAR[name](float(t)) for t in s])


def slope(name: str, s: Array) -> Array:
    """Its derivative by a central difference."""
    return (phi(name, s + 1e-5) - phi(name, s - 1e-5)) / 2e-5


def field(form: str, W: Array, name: str, x: Array, u: Array, tau: Array | float = 1.0) -> Array:
    """x' of a rate or hopfield network."""
    total = phi(name, W @ x + u) if form == "rate" else W @ phi(name, x) + u
    return (total - x) / tau


def run_map(step: Callable[[Array], Array], start: Array, steps: int) -> Array:
    """The last state of a map."""
    x = start
    for _ in range(steps):
        x = step(x)
    return x


def run_flow(f: Callable[[Array], Array], start: Array, horizon: float, steps: int) -> Array:
    """The last state of x' = f(x), classical Runge-Kutta."""
    x, h = start, horizon / steps
    for _ in range(steps):
        k1 = f(x)
        k2 = f(x + h / 2 * k1)
        k3 = f(x + h / 2 * k2)
        k4 = f(x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def parted(first: Array, second: Array, start: Array, start_other: Array) -> float:
    """Distance at the end over distance at the start."""
    return float(np.linalg.norm(first - second) / np.linalg.norm(start - start_other))


def leading(jacobian: Array, continuous: bool) -> float:
    """Spectral abscissa or spectral radius."""
    values = np.linalg.eigvals(jacobian)
    return float(values.real.max() if continuous else np.abs(values).max())
