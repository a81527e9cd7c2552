"""Cyclic reduction at a level, and the best level of a given matrix.

Judges: the block of the Lur'e inequality written out; eigenvalues on a dense grid of angles; closed forms.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from certes.engines import conic
from certes.engines.eigen import Field
from certes.engines.families import Factor, Family, Functional, Level, Norm, Rate, Step
from hypothesis import given, settings
from hypothesis import strategies as st

FAMILIES: tuple[Family, ...] = (Rate(), Factor(0.3), Factor(1.0), Factor(1.3), Level(0.2, 0.7), Norm(), Step())
SEEDS = st.integers(0, 10**6)


def random(n: int, seed: int, size: float = 0.6) -> np.ndarray:
    return size * np.random.default_rng(seed).standard_normal((n, n)) / math.sqrt(n)


def support(A: np.ndarray, functional: Functional) -> float:
    """max over 2001 angles of the largest eigenvalue of the Hermitian part of h A."""
    h = functional.c0 + functional.r0 * np.exp(1j * np.linspace(0.0, np.pi, 2001))[:, None, None]
    return float(np.linalg.eigvalsh(0.5 * (h * A + np.conj(h) * A.T))[:, -1].max())


@settings(max_examples=30)
@given(st.integers(1, 7), SEEDS, st.sampled_from([f for f in FAMILIES if f != Norm()]))
def test_cyclic_reduction_says_yes_exactly_inside(n: int, seed: int, family: Family) -> None:
    A = random(n, seed)
    best = conic.best_level(A, family)
    assert best is not None
    inside, outside = family.relax(best, 1e-4), family.relax(best, -1e-4)
    functional = family.functional(inside)
    assert support(A, functional) < functional.t
    X = conic.solve(A, functional)
    assert X is not None
    np.testing.assert_array_equal(X, X.T)
    slack = (
        2 * functional.t * np.eye(n) - functional.c0 * (A + A.T) - X - functional.r0**2 * A @ np.linalg.solve(X, A.T)
    )
    assert np.linalg.eigvalsh(X)[0] > 0.0
    assert np.linalg.eigvalsh(slack)[0] > 0.0
    if not (isinstance(family, Step) and best > 1.9999):
        functional = family.functional(outside)
        assert support(A, functional) > functional.t * (1 - 1e-6)
        assert conic.solve(A, functional) is None


@settings(max_examples=20)
@given(st.integers(1, 7), SEEDS)
def test_the_midpoint_is_half_way_between_the_extreme_solutions(n: int, seed: int) -> None:
    A, functional = random(n, seed, 0.3), Functional(0.3, 0.5, 1.0)
    X = conic.solve(A, functional)
    assert X is not None
    start = 2.0 * np.eye(n) - 0.3 * (A + A.T)
    greatest = least = start
    for _ in range(400):  # fixed point iterations from above, for X and for start - X
        greatest = start - 0.25 * A @ np.linalg.solve(greatest, A.T)
        least = start - 0.25 * A.T @ np.linalg.solve(least, A)
    np.testing.assert_allclose(X, 0.5 * (greatest + start - least), atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("seed", range(3))
def test_the_best_level_is_that_of_a_dense_grid(family: Family, seed: int) -> None:
    A = random(9, seed)
    best = conic.best_level(A, family)
    assert best is not None
    if isinstance(family, Norm):
        assert best == pytest.approx(float(np.linalg.norm(A, 2)), rel=1e-6)
        return
    for level, yes in ((family.relax(best, 1e-5), True), (family.relax(best, -1e-5), False)):
        functional = family.functional(level)
        assert (support(A, functional) < functional.t) is yes


def test_closed_forms() -> None:
    assert conic.best_level(np.array([[0.0, -1.2], [1.2, 0.0]]), Rate()) == pytest.approx(0.4, abs=1e-6)
    assert conic.best_level(np.diag([0.3, -2.0]), Rate()) == pytest.approx(0.7, abs=1e-6)
    assert conic.best_level(np.diag([0.3, -2.0]), Factor(1.0)) == pytest.approx(2.0, rel=1e-6)
    assert conic.best_level(np.array([[0.0, 1.0], [0.0, 0.0]]), Factor(1.0)) == pytest.approx(0.5, rel=1e-6)
    assert conic.best_level(np.array([[0.0, 1.0], [0.0, 0.0]]), Norm()) == pytest.approx(1.0, rel=1e-6)
    assert conic.best_level(-np.eye(2), Step()) == pytest.approx(1.0, rel=1e-6)  # 2 / (1 + norm)


def test_levels_that_nobody_reaches() -> None:
    for family in (Rate(), Factor(0.5), Norm(), Level(0.2, 0.7)):
        assert conic.best_level(np.full((2, 2), np.nan), family) is None
    assert conic.best_level(2.0 * np.eye(2), Step()) is None
    assert conic.solve(np.eye(2), Factor(0.5).functional(0.5)) is None
    assert conic.metric(np.eye(2), np.ones(2), Norm(), 1.0 - 1e-9) is None


@settings(max_examples=20)
@given(st.integers(2, 12), SEEDS, st.sampled_from([Rate(), Factor(0.4), Factor(1.0), Level(0.1, 0.5)]))
def test_no_angle_is_missed(n: int, seed: int, family: Family) -> None:
    A = random(n, seed)
    best = conic.best_level(A, family)
    assert best is not None
    field, still = Field(A, family), np.zeros(n)
    assert field.missed(still, family.cost(family.relax(best, 1e-6))) == []
    shared = field.missed(still, family.cost(family.relax(best, -1e-3)))
    functional = family.functional(family.relax(best, -1e-3))
    assert shared
    for theta in shared:
        h = functional.direction(theta)
        assert np.linalg.eigvalsh(0.5 * (h * A + np.conj(h) * A.T))[-1] > functional.t
