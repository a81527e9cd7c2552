"""The exact parametrisations: every value lies inside the level, every matrix inside has parameters, gradients.

The judges are the field of values, sampled by rotations, and the largest singular value; nothing of the engine.
"""

from __future__ import annotations

import math
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from certes.engines.families import Factor, Functional, Level, Rate
from certes.projection.factors import Ball, Conic
from certes.systems import HopfieldNetwork, RateNetwork, System
from numpy.typing import NDArray

from tests.judges.semidefinite import Lure, margin

Array = NDArray[np.float64]

FUNCTIONALS: dict[str, Functional] = {
    "continuous, rate 0.1": Rate().functional(0.1),
    "continuous, rate 0.99": Rate().functional(0.99),
    "step 0.2": Factor(0.2).functional(0.998),
    "step 1": Factor(1.0).functional(0.95),
    "step 1.5": Factor(1.5).functional(0.9),
    "step 1.99": Factor(1.99).functional(0.9999),
    "a level of its own": Level(-0.3, 0.4).functional(2.0),
}
CONICS = pytest.mark.parametrize("functional", FUNCTIONALS.values(), ids=FUNCTIONALS)


def reach(a: Array, functional: Functional, angles: int = 721) -> float:
    """max over the angles of lambda_max(Re(h A)), which has to be at most t."""
    largest = -math.inf
    for theta in np.linspace(0.0, math.pi, angles):  # A is real: the other half mirrors this one
        turned = functional.direction(theta) * a
        largest = max(largest, float(np.linalg.eigvalsh(0.5 * (turned + turned.conj().T))[-1]))
    return largest


def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Parameters of every kind: blocks of very different size, some of low rank."""
    z = rng.standard_normal(shape)
    z *= np.exp(rng.uniform(-4.0, 4.0, len(z)))[:, None, None]
    kind = rng.integers(3)
    if kind == 0:
        z[-1] = 0.0
    elif kind == 1:
        z[0, :, 0] = 0.0
    return z


def inside(rng: np.random.Generator, size: int, functional: Functional, share: float) -> Array:
    """A random matrix that reaches a share of the level, with a field of values of every shape."""
    a = rng.standard_normal((size, size))
    kind = rng.integers(4)
    a = (a, a + a.T, a - a.T, np.triu(a, 1))[kind] + 0.3 * rng.standard_normal() * np.eye(size)
    return np.asarray(a * share * functional.t / max(reach(a, functional), 1e-9))


@CONICS
def test_every_value_is_inside_the_conic(functional: Functional) -> None:
    rng, nearest = np.random.default_rng(0), 0.0
    for size in (1, 2, 3, 5, 8):
        for _ in range(12):
            a, _ = Conic(functional).value(drawn(rng, (3, size, size)))
            found = reach(a, functional, 181)
            assert found <= functional.t * (1.0 + 1e-9)
            nearest = max(nearest, found / functional.t)
    assert nearest > 0.95  # and not by being small


def test_every_value_is_inside_the_ball() -> None:
    rng, nearest = np.random.default_rng(0), 0.0
    for size in (1, 2, 3, 5, 8):
        for _ in range(30):
            a, _ = Ball(0.7).value(drawn(rng, (2, size, size)))
            norm = float(np.linalg.norm(a, 2))
            assert norm <= 0.7 * (1.0 + 1e-9)
            nearest = max(nearest, norm / 0.7)
    assert nearest > 0.99


@pytest.mark.parametrize("step", [None, 0.2, 1.0, 1.5])
@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
def test_clarabel_finds_the_metric_of_a_value(form: Any, step: float | None) -> None:
    """The values satisfy the Lur'e inequality of the network's own equations, at the number of the level."""
    rng = np.random.default_rng(1)
    number = 0.3 if step is None else 0.95
    functional = Rate().functional(number) if step is None else Factor(step).functional(number)
    q, gains = np.exp(rng.normal(size=4)), rng.uniform(0.3, 1.0, 4)
    for _ in range(4):
        a, _ = Conic(functional).value(rng.standard_normal((3, 4, 4)))
        m = a * np.sqrt(q[None, :] / q[:, None]) / gains[:, None]
        hopfield = form is HopfieldNetwork
        system: System = form(m.T if hopfield else m, slope=(0.0, gains), step=step)
        lure = Lure.of(system)
        assert margin((lure.transposed if hopfield else lure).seen_from(np.eye(4), q), number) > 1e-8


@CONICS
def test_parameters_of_a_matrix_give_it_back(functional: Functional) -> None:
    rng, conic = np.random.default_rng(2), Conic(functional)
    for size in (1, 2, 4, 9):
        for share in (0.0, 0.3, 0.9, 0.99):
            a = inside(rng, size, functional, share)
            z = conic.start(a)
            assert z is not None
            assert z.shape == (3, size, size)
            again, _ = conic.value(z)
            # the third factor has a floor, of 1e-6 of the level
            assert np.linalg.norm(again - a) <= 2e-6 * max(float(np.linalg.norm(a)), functional.t / functional.r0)
        assert conic.start(inside(rng, size, functional, 1.001)) is None


def test_parameters_of_a_matrix_in_the_ball_give_it_back() -> None:
    rng, ball = np.random.default_rng(3), Ball(0.7)
    for size in (1, 2, 4, 9):
        unit = rng.standard_normal((size, size))
        unit *= 0.7 / np.linalg.norm(unit, 2)
        for share in (0.0, 0.3, 0.99, 1.0 - 1e-7):
            z = ball.start(share * unit)
            assert z is not None
            again, _ = ball.value(z)
            np.testing.assert_allclose(again, share * unit, rtol=0, atol=1e-6)
        assert ball.start(1.0001 * unit) is None


@CONICS
def test_extreme_matrices_have_parameters(functional: Functional) -> None:
    """The farthest matrices in a direction, as Clarabel finds them, are represented a little inside."""
    rng, n, conic = np.random.default_rng(4), 4, Conic(functional)
    A, X = cp.Variable((n, n)), cp.Variable((n, n), symmetric=True)
    direction = cp.Parameter((n, n))
    last = 2.0 * functional.t * np.eye(n) - functional.c0 * (A + A.T) - X
    block = cp.bmat([[X, -functional.r0 * A.T], [-functional.r0 * A, last]])
    size = functional.t / functional.r0
    bounded = [0.5 * (block + block.T) >> 0, cp.norm(A, "fro") <= 50.0 * size]  # a parabola is not bounded
    problem = cp.Problem(cp.Maximize(cp.sum(cp.multiply(direction, A))), bounded)
    for _ in range(3):
        direction.value = rng.standard_normal((n, n)) / size
        problem.solve(solver="CLARABEL")
        assert A.value is not None
        assert reach(A.value, functional) == pytest.approx(functional.t, rel=1e-4)
        a = (1.0 - 1e-4) * A.value
        z = conic.start(a)
        assert z is not None
        again, _ = conic.value(z)
        assert np.linalg.norm(again - a) <= 1e-5 * np.linalg.norm(a)


@pytest.mark.parametrize(
    ("parametrisation", "count"),
    [*((Conic(functional), 3) for functional in FUNCTIONALS.values()), (Ball(0.7), 2)],
    ids=[*FUNCTIONALS, "ball"],
)
def test_gradients_against_finite_differences(parametrisation: Conic | Ball, count: int) -> None:
    rng = np.random.default_rng(5)
    z, towards, weight = (rng.standard_normal(shape) for shape in ((count, 4, 4), (count, 4, 4), (4, 4)))

    def function(t: float) -> float:
        a, _ = parametrisation.value(z + t * towards)
        return float(np.sum(weight * a) + 0.5 * np.sum(a * a))

    a, trace = parametrisation.value(z)
    slope = float(np.sum(parametrisation.pull(trace, weight + a) * towards))
    h = 1e-5
    numeric = (8.0 * (function(h) - function(-h)) - function(2 * h) + function(-2 * h)) / (12.0 * h)
    assert slope == pytest.approx(numeric, rel=1e-7)
