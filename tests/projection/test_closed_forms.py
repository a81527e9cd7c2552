"""The closed forms: clipped eigenvalues and singular values are the nearest, as Clarabel sees it."""

from __future__ import annotations

import certes
import numpy as np
import pytest
from certes.projection import singular, symmetric
from certes.projection.keeping import Keep
from certes.systems import HopfieldNetwork, RateNetwork, System
from numpy.typing import NDArray

from tests.judges import nearest

Array = NDArray[np.float64]


def networks(n: int, seed: int) -> dict[str, tuple[System, float]]:
    """Networks with one slope interval, and the rate or factor to reach."""
    W = 3.0 * np.random.default_rng([n, seed]).standard_normal((n, n)) / np.sqrt(n)
    return {
        "continuous": (RateNetwork(W, "tanh"), 0.1),
        "time constant, sigmoid": (HopfieldNetwork(8.0 * W, "sigmoid", tau=3.0), 0.2),
        "slopes of both signs": (RateNetwork(W, slope=(-0.5, 1.0)), 0.3),
        "step 0.2": (RateNetwork(5.0 * W, "tanh", step=0.2), 0.99),
        "step 1": (HopfieldNetwork(W, slope=(0.0, 0.5), step=1.0), 0.9),
        "step 1.5": (RateNetwork(W, "tanh", step=1.5), 0.8),
    }


def jacobians_allow(system: System, number: float, eigenvalue: float) -> bool:
    """Whether x' = -x/tau + s w x/tau (or its Euler map) contracts at the number for both ends s of the slopes."""
    tau = float(system.tau[0])
    growths = [(-1.0 + float(end[0]) * eigenvalue) / tau for end in (system.slope.lower, system.slope.upper)]
    if system.step is None:
        return max(growths) <= -number
    return max(abs(1.0 + system.step * growth) for growth in growths) <= number


@pytest.mark.parametrize("kind", networks(2, 0))
def test_the_interval_holds_the_eigenvalues_that_contract(kind: str) -> None:
    system, number = networks(2, 0)[kind]
    low, high = symmetric.interval(system, number)
    assert low < 0.0 < high
    for end, outwards in ((low, -1.0), (high, 1.0)):
        if np.isfinite(end):
            assert jacobians_allow(system, number, end - 1e-9 * outwards)
            assert not jacobians_allow(system, number, end + 1e-9 * outwards)
        else:
            assert jacobians_allow(system, number, 1e9 * outwards)


@pytest.mark.parametrize("n", [1, 2, 5, 10])
@pytest.mark.parametrize("kind", networks(2, 0))
def test_clipped_eigenvalues_are_the_nearest(kind: str, n: int) -> None:
    system, number = networks(n, 1)[kind]
    given = system.matrix("W")
    low, high = symmetric.interval(system, number)
    ours = symmetric.clip(0.5 * (given + given.T), low, high)
    assert np.array_equal(ours, ours.T)
    theirs = nearest.symmetric(given, low, high)
    distance = float(np.linalg.norm(ours - given))
    assert distance == pytest.approx(float(np.linalg.norm(theirs - given)), rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * max(1.0, distance))
    found = certes.project(system, "symmetric", number)
    assert found.distance == pytest.approx(distance, rel=1e-6, abs=1e-6)
    W = found.system.matrix("W")
    assert np.array_equal(W, W.T)


@pytest.mark.parametrize("kind", ["continuous", "step 0.2", "slopes of both signs"])
def test_frozen_entries_are_met_by_alternating_projections(kind: str) -> None:
    system, number = networks(6, 2)[kind]
    given = 0.25 * (system.matrix("W") + system.matrix("W").T)
    movable = np.random.default_rng(3).random((6, 6)) < 0.7
    movable = movable & movable.T
    given[~movable] *= 0.02
    system = system.with_weights(given)  # type: ignore[attr-defined]
    found = certes.project(system, "symmetric", number, keep=Keep(mask=movable))
    assert found.result.verdict == "contracting", found.attempts
    W = found.system.matrix("W")
    assert np.array_equal(W[~movable], given[~movable])
    low, high = symmetric.interval(system, number)
    theirs = float(np.linalg.norm(nearest.symmetric(given, low, high, ~movable) - given))
    assert theirs > 0.1
    assert found.distance == pytest.approx(theirs, rel=1e-5)


def test_frozen_entries_that_are_not_symmetric() -> None:
    W = np.array([[2.0, 1.0], [0.5, 2.0]])
    found = certes.project(RateNetwork(W, "tanh"), "symmetric", keep=Keep(diagonal=True))
    assert found.result.verdict == "undecided"  # the diagonal alone is beyond the level
    mask = np.array([[True, False], [True, True]])
    found = certes.project(RateNetwork(W, "tanh"), "symmetric", keep=Keep(mask=mask))
    assert (found.result.verdict, found.result.reason) == ("undecided", "not-applicable")
    assert "not symmetric" in found.result.detail


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_clipped_singular_values_are_the_nearest(n: int) -> None:
    given = np.random.default_rng(n).standard_normal((n, n))
    radius = 0.5 * float(np.linalg.norm(given, 2))
    ours = singular.clip(given, radius)
    assert np.linalg.norm(ours, 2) <= radius * (1.0 + 1e-12)
    theirs = nearest.spectral(given, radius)
    distance = float(np.linalg.norm(ours - given))
    assert distance == pytest.approx(float(np.linalg.norm(theirs - given)), rel=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    inside = 0.1 * given
    np.testing.assert_allclose(singular.clip(inside, radius), inside, rtol=0, atol=1e-14)


@pytest.mark.parametrize("tau", [1.0, [0.5, 1.0, 2.0, 3.0]])
@pytest.mark.parametrize("step", [None, 0.4, 1.0])
def test_the_largest_norm_belongs_to_the_number(step: float | None, tau: float | list[float]) -> None:
    """A norm a little below it is certified, one above is not, whatever the matrix: here a multiple of a rotation."""
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    if step == 1.0 and tau != 1.0:
        step = 0.9
    number = 0.05 if step is None else 0.97
    system = RateNetwork(rotation, slope=(-1.0, 1.0), step=step, tau=tau)
    norm = singular.largest_norm(system, number)
    assert 0.0 < norm < 1.0
    assert certes.project(system.with_weights((1.0 - 1e-5) * norm * rotation), "singular", number).unchanged
    found = certes.project(system.with_weights(1.001 * norm * rotation), "singular", number)
    assert not found.unchanged
    assert found.distance is not None
    assert found.distance <= 0.0011 * norm * 2.0


def test_the_singular_set_is_reached_in_the_frobenius_norm() -> None:
    """No farther than clipping for fixed multipliers, of which Q = I is one choice."""
    for n in (2, 5):
        W = 2.0 * np.random.default_rng(n).standard_normal((n, n)) / np.sqrt(n)
        system = RateNetwork(W, slope=(-1.0, 1.0))
        found = certes.project(system, "singular", 0.1)
        clipped = float(np.linalg.norm(singular.clip(W, 0.9) - W))
        assert found.distance is not None
        assert found.distance <= clipped * (1.0 + 1e-4)
