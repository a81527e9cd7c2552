"""Slopes that the nonlinearities of a network really take, the Jacobians they give, and growth beyond a border.

What every 'no' rests on: D = phi'(s) enclosed, J(D) = A + B D C enclosed, and Lyapunov's theorem turned around.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from certes.activations import DERIVATIVE_ERROR
from certes.systems import System
from certes.verify.intervals import Box
from certes.verify.question import definite_check, is_symmetric
from certes.verify.reduction import NormalForm, dense, enclose
from certes.verify.report import Check

Array = NDArray[np.float64]

_STATED = 1e-9  # accuracy asked of the stated slopes, which nothing else rests on
_KINK = 1e-9  # distance from a kink of a piecewise linear activation


def slope_box(system: System, points: Array, slopes: Array) -> Box:
    """D: the derivative at the points, enclosed, or the given slopes, exact; shape as ``points``."""
    entry = system.slope.activation
    if entry is None:
        return Box.exact(slopes)
    found = np.asarray(entry.derivative(points), dtype=np.float64)
    return Box(found, np.full(found.shape, 0.0 if entry.attained == "ends" else DERIVATIVE_ERROR))


def attained(system: System, points: Array, slopes: Array) -> Check:
    """The slopes are attained: phi'(s), away from kinks if phi is piecewise linear; or inside a bare interval.

    Args:
        system: the network.
        points: s, shape (m,) or (k, m).
        slopes: D, of the same shape.
    """
    entry = system.slope.activation
    if entry is None:
        return inside(system, slopes)
    if not (np.abs(entry.derivative(points) - slopes) <= _STATED).all():
        return Check("slopes", False, f"the stated slopes are {entry.name}'(s)")
    if entry.attained == "interior":
        return Check("slopes", True, f"slopes {entry.name}'(s)")
    away = _KINK * np.maximum(1.0, np.abs(points))
    left, right = entry.derivative(points - away), entry.derivative(points + away)
    return Check("slopes", bool((left == right).all()), f"slopes {entry.name}'(s) away from kinks")


def inside(system: System, slopes: Array) -> Check:
    """The slopes, shape (m,) or (k, m), lie in the closed slope box."""
    held = (slopes >= system.slope.lower).all() and (slopes <= system.slope.upper).all()
    return Check("slopes", bool(held), "slopes inside their intervals")


def unshifted(system: System) -> NormalForm:
    """The normal form with slopes taken from 0, so that D enters the Jacobian as it is."""
    plain = copy.copy(system)
    zero = np.zeros_like(system.slope.lower)
    object.__setattr__(plain, "slope", replace(system.slope, lower=zero))
    return enclose(plain)


def jacobian(form: NormalForm, slopes: Box) -> Box:
    """J(D) = A + B D C, shape (n, n), for an unshifted normal form and slopes of shape (m,)."""
    return dense(form.A) + (dense(form.B) * slopes[None, :]) @ dense(form.C)


def reflected(matrix: Box) -> Box:
    """An enclosure of a matrix known to be symmetric, its lower triangle copied to the upper one."""
    lower = (np.tril(part) + np.tril(part, -1).T for part in (matrix.mid, matrix.rad))
    return Box(*lower)


def beyond(name: str, X: Array, growth: float, matrix: Box, words: str) -> Check:
    """X is symmetric, sigma >= 1 and sigma^2 X - M^T X M > 0: no eigenvalue of M has modulus sigma."""
    if not (is_symmetric(X) and 1.0 <= growth < np.inf):
        return Check(name, False, "X symmetric, sigma >= 1")
    sigma, middle = Box.exact(growth), Box.exact(X)
    image = reflected(matrix.T @ (middle @ matrix))
    return definite_check(name, middle * (sigma * sigma) - image, words)


def negative(X: Array, direction: Array) -> Check:
    """v^T X v < 0."""
    v = Box.exact(direction[:, None])
    value = v.T @ (Box.exact(X) @ v)
    return Check("direction", bool((value.mid + value.rad < 0).all()), "v^T X v < 0")
