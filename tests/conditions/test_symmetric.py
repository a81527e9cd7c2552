"""The condition `symmetric`: closed forms to the last digits, and metrics judged at every vertex."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from certes.conditions import Goal, NothingFound, by_name
from certes.conditions.symmetric import metric
from certes.proofs import LureProof, SymmetricProof
from certes.systems import HopfieldNetwork, RateNetwork
from hypothesis import given, settings
from hypothesis import strategies as st

SYMMETRIC = by_name("symmetric")
FORMS = [RateNetwork, HopfieldNetwork]
SLOPES = [(0.0, 1.0), (0.0, 0.25), (0.1, 1.0), (-0.13, 1.13), (-1.0, 1.0)]


def random_symmetric(n: int, largest: float, seed: int = 0, smallest: float | None = None) -> np.ndarray:
    """Eigenvalues between smallest (default -2) and exactly about largest."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    values = rng.uniform(-2.0 if smallest is None else smallest, largest, n)
    values[0] = largest
    if smallest is not None and n > 1:
        values[-1] = smallest
    full = (basis * values) @ basis.T
    return (full + full.T) / 2


def uniform_slope_optimum(system, judge) -> float:
    """No metric beats the Jacobian of one uniform slope: for W = W^T these bounds are reached (the test says so)."""
    ends = [
        judge.jacobian(system, np.full(system.size, slope)) for slope in (system.slope.lower[0], system.slope.upper[0])
    ]
    if system.step is None:
        return min(-float(np.linalg.eigvalsh(end)[-1]) for end in ends)
    return max(float(np.abs(np.linalg.eigvalsh(end)).max()) for end in ends)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 5, 40, 150])
@pytest.mark.parametrize("largest", [0.9, 0.999, 0.3, 1e-3])
def test_rate_is_one_minus_the_largest_eigenvalue(form, n, largest, judge):
    weights = random_symmetric(n, largest, seed=n)
    for tau in (1.0, 0.4):
        system = form(weights, "tanh", tau=tau)
        top = float(np.linalg.eigvalsh(weights)[-1])
        found = judge.verified(system, SYMMETRIC.decide(system, Goal()))
        assert isinstance(found.proof, SymmetricProof)
        assert 0 <= (1 - top) / tau - found.claims.rate <= 2e-9 / tau


@pytest.mark.parametrize("form", FORMS)
def test_all_vertices_in_the_right_metric(form, judge):
    """R^2 for rate, R^-2 for hopfield; the other way round must fail, or the test would see nothing."""
    weights = random_symmetric(5, 0.8, 0, -30.0)
    system = form(weights, "tanh")
    found = judge.verified(system, SYMMETRIC.decide(system, Goal()))
    right = metric(system, found.proof, found.claims)
    assert judge.excess(system, right, found.claims.rate) <= 1e-9
    assert judge.excess(system, np.linalg.inv(right), found.claims.rate) > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_negative_definite_weights_have_rate_one(form, judge):
    weights = random_symmetric(5, -0.05)
    for tau, rate in ((1.0, 1.0), (0.5, 2.0), (3.0, 1 / 3)):
        system = form(weights, "relu", tau=tau)
        found = judge.verified(system, SYMMETRIC.decide(system, Goal()))
        assert found.proof.negative
        assert found.claims.rate == pytest.approx(rate, rel=3e-16)
        right = metric(system, found.proof, found.claims)
        assert judge.excess(system, right, found.claims.rate) <= 1e-12
        assert judge.excess(system, np.linalg.inv(right), found.claims.rate) > 1e-3


def test_zero_and_singular_weights_stay_below_rate_one(judge):
    for weights in (np.zeros((3, 3)), -np.ones((3, 3))):
        system = RateNetwork(weights, "tanh")
        found = judge.verified(system, SYMMETRIC.decide(system, Goal()))
        assert not found.proof.negative
        assert 1 - 1e-7 <= found.claims.rate < 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("step", [None, 0.2, 1.0, 1.3])
def test_every_slope_interval_and_step(form, slope, step, judge):
    for largest, smallest, tau in ((0.7, -0.6, 1.0), (0.9, -0.1, 1.7), (-0.1, -0.8, 1.0)):
        system = form(random_symmetric(5, largest, 1, smallest), slope=slope, tau=tau, step=step)
        ideal = uniform_slope_optimum(system, judge)
        if not (ideal > 0 if step is None else ideal < 1):
            continue
        found = judge.verified(system, SYMMETRIC.decide(system, Goal()))
        assert found is not None
        assert abs(judge.number(found) - ideal) <= 2e-8
        assert judge.excess(system, metric(system, found.proof, found.claims), judge.number(found)) <= 1e-7


def test_factor_of_the_leaky_map_in_closed_form(judge):
    """rho = max(e + a g max(lambda_max, 0), a g max(-lambda_min, 0) - e, |e|)."""
    for a, g, largest, smallest in itertools.product((0.2, 1.0, 1.6), (1.0, 0.25), (0.8, -0.2), (-0.9, -3.0)):
        system = RateNetwork(random_symmetric(20, largest, 2, smallest), slope=(0.0, g), step=a)
        e = 1 - a
        rho = max(e + a * g * max(largest, 0), a * g * max(-smallest, 0) - e, abs(e))
        decision = SYMMETRIC.decide(system, Goal())
        if rho >= 1:
            assert isinstance(decision, NothingFound)
            continue
        found = judge.verified(system, decision)
        assert isinstance(found.proof, LureProof)
        assert found.claims.factor == pytest.approx(rho, abs=3e-8)


@given(seed=st.integers(0, 10**6), form=st.sampled_from(FORMS), step=st.sampled_from([None, 0.4]))
@settings(max_examples=25)
def test_laws(seed, form, step, judge):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    weights = random_symmetric(n, float(rng.uniform(-0.2, 0.95)), seed)
    order = rng.permutation(n)

    def value(w, cls=form):
        return judge.best(SYMMETRIC, cls(w, "tanh", step=step))

    base = value(weights)
    if base is None:
        return
    assert value(weights[np.ix_(order, order)]) == pytest.approx(base, abs=1e-7)
    assert value(weights, HopfieldNetwork if form is RateNetwork else RateNetwork) == pytest.approx(base, abs=1e-7)
    sign = rng.choice([-1.0, 1.0], n)
    assert value(weights * sign[:, None] * sign) == pytest.approx(base, abs=1e-7)
    smaller = value(weights * 0.7)
    assert smaller >= base - 1e-7 if step is None else smaller <= base + 1e-7
    half = weights.astype(np.float16)
    half = np.maximum(half, half.T)
    assert value(half) == value(half.astype(np.float64))


@pytest.mark.parametrize("form", FORMS)
def test_per_neuron_slopes_from_zero(form, judge):
    weights = random_symmetric(5, 0.8)
    system = form(weights, slope=(np.zeros(5), np.array([0.2, 1.0, 0.5, 0.9, 1.0])))
    found = judge.verified(system, SYMMETRIC.decide(system, Goal()))
    assert found.claims.rate == pytest.approx(1 - np.linalg.eigvalsh(weights)[-1], abs=1e-8)
    assert judge.excess(system, metric(system, found.proof, found.claims), found.claims.rate) <= 1e-9


def test_target_is_claimed_as_it_is_or_not_at_all(judge):
    system = RateNetwork(random_symmetric(6, 0.75), "tanh")
    assert judge.verified(system, SYMMETRIC.decide(system, Goal(target=0.2))).claims.rate == 0.2
    refused = SYMMETRIC.decide(system, Goal(target=0.26))
    assert isinstance(refused, NothingFound)
    assert refused.distance == pytest.approx(0.25)


def test_what_it_does_not_speak_of():
    weights = random_symmetric(3, 0.5)
    skewed = weights.copy()
    skewed[0, 1] = np.nextafter(skewed[0, 1], 9)
    for system in (
        RateNetwork(skewed, "tanh"),
        RateNetwork(weights, "tanh", tau=[1.0, 2.0, 3.0]),
        RateNetwork(weights, slope=([0, -0.1, 0], 1)),
        RateNetwork(weights, slope=(0, [1, 0.5, 1]), step=0.2),
    ):
        decision = SYMMETRIC.decide(system, Goal())
        assert isinstance(decision, NothingFound)
        assert decision.reason == "not-applicable"
