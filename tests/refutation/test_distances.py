"""Scales at which a network is certified and refuted: closed forms, the law that they do not cross, random weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
from certes.distances import Distances, distances, scaled
from certes.engines.monitor import Monitor
from certes.errors import InputError
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from hypothesis import given, settings
from hypothesis import strategies as st

FORMS = {"rate": RateNetwork, "hopfield": HopfieldNetwork}


def symmetric(seed: int, size: int = 3) -> np.ndarray:
    entries = np.random.default_rng(seed).standard_normal((size, size))
    return entries + entries.T


def skew(size: float) -> np.ndarray:
    return np.array([[0.0, -size], [size, 0.0]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [None, 0.1])
def test_symmetric_weights_leave_no_gap(form, step):
    W = symmetric(1)
    border = 1.0 / np.linalg.eigvalsh(W)[-1]
    found = distances(FORMS[form](W, slope=(0.0, 1.0), step=step))
    assert border * (1 - 1e-3) < found.certified_scale < border * (1 + 1e-12)
    assert border < found.refuted_scale < 1.0031 * border


def test_a_scalar_map_is_bounded_on_both_sides_of_zero():
    # x+ = (1 - a) x + a phi(s w x): factor 1 at s w = 1 and at s w = -(2 - a)/a
    for w, a, border in ((2.0, 0.5, 0.5), (-2.0, 0.5, 1.5), (-2.0, 1.0, 0.5)):
        found = distances(RateNetwork([[w]], "relu", step=a))
        assert found.certified_scale == pytest.approx(border, rel=1e-3)
        assert found.refuted_scale == pytest.approx(1.003 * border, rel=1e-6)


def test_skew_coupling_is_certified_to_two_and_refuted_by_no_equilibrium():
    found = distances(RateNetwork(skew(4.0), "tanh"))
    assert found.certified_scale == pytest.approx(0.5, rel=1e-3)
    assert found.refuted_scale is None
    plain = distances(RateNetwork(skew(4.0), "relu", step=1.0))
    assert plain.certified_scale == pytest.approx(0.25, rel=1e-3)
    assert plain.refuted_scale == pytest.approx(0.25, rel=4e-3)
    # step a: the linear map has modulus |1 - a + i a s w| = 1 at s w = sqrt(2/a - 1)
    euler = distances(RateNetwork(skew(4.0), "relu", step=0.2))
    assert euler.refuted_scale == pytest.approx(1.003 * 3.0 / 4.0, rel=1e-6)


def test_slopes_of_both_signs():
    W = symmetric(2)
    border = 1.0 / np.linalg.norm(W, 2)  # the norm is the spectral radius, and slope -1 mirrors the spectrum
    found = distances(RateNetwork(W, slope=(-1.0, 1.0)))
    assert found.certified_scale == pytest.approx(border, rel=1e-3)
    assert found.refuted_scale == pytest.approx(1.003 * border, rel=1e-6)
    leaky = distances(RateNetwork(W, slope=(-1.0, 1.0), step=0.3))
    assert leaky.certified_scale == pytest.approx(border, rel=1e-3)


def test_time_constants_and_lure_systems_are_bisected():
    W = symmetric(3)
    border = 1.0 / np.linalg.eigvalsh(W)[-1]  # for symmetric W the time constants do not matter
    found = distances(RateNetwork(W, "relu", tau=[0.5, 1.0, 2.0]))
    assert 0.99 * border < found.certified_scale < border < found.refuted_scale < 1.0031 * border
    scalar = distances(LureSystem([[-2.0]], [[1.0]], [[0.5]], slope=(0.0, 1.0)))
    assert 0.99 * 4.0 < scalar.certified_scale < 4.0 < scalar.refuted_scale < 1.0031 * 4.0


def test_an_unstable_linear_part_is_refuted_at_scale_zero():
    found = distances(LureSystem([[1.0]], [[1.0]], [[1.0]], slope=(0.0, 1.0)))
    assert found == Distances(None, 0.0)


def test_weights_that_no_scale_makes_unstable():
    found = distances(RateNetwork(-np.eye(2), "relu"))
    assert found.certified_scale > 1e6
    assert found.refuted_scale is None
    assert distances(RateNetwork(np.zeros((2, 2)), "relu")).refuted_scale is None


def random_system(seed: int) -> System:
    """Any form and time domain, stable or not at scale 1."""
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 5))
    step = [None, 0.3, 1.0][seed % 3]
    name = str(random.choice(["relu", "tanh"]))
    if seed % 5 == 0:
        m = int(random.integers(1, 4))
        A = -0.7 * np.eye(n) + 0.2 * random.standard_normal((n, n))
        B, C = random.standard_normal((n, m)), random.standard_normal((m, n))
        return LureSystem(A, B, C, activation=name, discrete=step == 1.0, step=0.3 if step == 0.3 else None)
    slope = (
        {"activation": name} if seed % 2 else {"slope": random.choice([(0.0, 1.0), (-1.0, 1.0), (0.2, 0.9)]).tolist()}
    )
    form = (RateNetwork, HopfieldNetwork)[seed % 7 % 2]
    return form(random.standard_normal((n, n)), step=step, **slope)


@pytest.mark.slow
@settings(max_examples=12)
@given(st.integers(0, 10_000))
def test_no_scale_is_both_certified_and_refuted(seed):
    found = distances(random_system(seed), monitor=Monitor(seconds=2.0))
    if found.certified_scale is not None and found.refuted_scale is not None:
        assert found.certified_scale < found.refuted_scale


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.floats(0.1, 10.0))
def test_the_scales_follow_the_weights(seed, factor):
    W = np.random.default_rng(seed).standard_normal((3, 3))
    one, other = (distances(RateNetwork(s * W, slope=(0.0, 1.0), step=1.0)) for s in (1.0, factor))
    assert factor * other.certified_scale == pytest.approx(one.certified_scale, rel=3e-3)
    assert factor * other.refuted_scale == pytest.approx(one.refuted_scale, rel=1e-3)


@pytest.mark.slow
def test_what_a_search_came_to_is_taken_up():
    W = np.random.default_rng(10_003).standard_normal((10, 10)) / math.sqrt(10)
    system = RateNetwork(W, slope=(0.0, 1.0))
    whole = distances(system)
    slopes = np.ones(10)
    worse = distances(system, slopes=slopes).refuted_scale
    border = 1.0 / np.linalg.eigvals(W).real.max()
    assert worse == pytest.approx(1.003 * border, rel=1e-6)
    assert whole.refuted_scale < worse
    again = distances(system, multipliers=np.ones(10))
    assert again.certified_scale == pytest.approx(whole.certified_scale, rel=1e-3)


def test_a_stopped_search_has_no_distances():
    system = RateNetwork(np.random.default_rng(0).standard_normal((20, 20)), "tanh")
    assert distances(system, monitor=Monitor(cancelled=lambda: True)).refuted_scale is None


def test_sparse_weights_have_no_distances():
    assert distances(RateNetwork(scipy.sparse.eye_array(3).tocsr(), "relu")) == Distances(None, None)


@pytest.mark.parametrize("form", [*FORMS, "lure"])
def test_scaling_changes_the_weights_and_their_identity(form):
    W = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    if form == "lure":
        system = LureSystem(W, W, W, activation="tanh", step=0.1)
        changed = scaled(system, 0.5)
        assert np.array_equal(changed.matrix("A"), W)
        assert np.array_equal(changed.matrix("C"), W)
    else:
        system = FORMS[form](W, "tanh", step=0.1, tau=[1.0, 2.0, 3.0], bias=np.ones(3))
        changed = scaled(system, 0.5)
        assert changed.tau.tolist() == [1.0, 2.0, 3.0]
        assert changed.bias.tolist() == [1.0, 1.0, 1.0]
    role = "B" if form == "lure" else "W"
    assert np.array_equal(changed.matrix(role), 0.5 * W)
    assert changed.step == 0.1
    assert type(changed) is type(system)
    assert changed.subjects != system.subjects
    assert np.array_equal(system.matrix(role), W)
    with pytest.raises(InputError):
        scaled(system, math.inf)


# Random weights: how far apart are the two scales?


def ratios(size: int, seeds: range) -> list[float]:
    """refuted over certified, W with entries N(0, 1/n)."""
    found = []
    for k in seeds:
        W = np.random.default_rng(1000 * size + k).standard_normal((size, size)) / math.sqrt(size)
        both = distances(RateNetwork(W, slope=(0.0, 1.0)))
        found.append(both.refuted_scale / both.certified_scale)
    return found


@pytest.mark.slow
def test_the_gap_for_ten_neurons():
    """The maximum is what enumeration of all 2^10 vertices gives, too: no equilibrium refutes at less (seed 5)."""
    found = ratios(10, range(10))
    assert np.median(found) <= 1.03
    assert sorted(found)[-2] <= 1.10
    assert max(found) == pytest.approx(1.2441, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "median", "most"), [(50, 1.04, 1.08), (100, 1.05, 1.09)])
def test_the_gap_for_more_neurons(size, median, most):
    found = ratios(size, range(10))
    assert np.median(found) <= median
    assert max(found) <= most
