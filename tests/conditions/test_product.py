"""The condition `product`: given and found factors, in the right metric for each form."""

from __future__ import annotations

import numpy as np
import pytest
from certes.conditions import Goal, NothingFound, by_name
from certes.conditions.product import Factors, find_factors, metric_of, with_factors
from certes.errors import InputError
from certes.systems import HopfieldNetwork, RateNetwork
from hypothesis import given, settings
from hypothesis import strategies as st

PRODUCT = by_name("product")
FORMS = [RateNetwork, HopfieldNetwork]


def random_factors(n: int, seed: int = 0, density: float = 1.0) -> Factors:
    rng = np.random.default_rng(seed)
    mask = np.triu(rng.random((n, n)) < density, 1)
    core = np.where(mask, rng.standard_normal((n, n)), 0.0)
    core = core + core.T
    core += np.diag(np.abs(core).sum(axis=1) + 0.1)
    return Factors(np.exp(rng.normal(size=n)), core, np.exp(rng.normal(size=n)))


def weights_of(factors: Factors) -> np.ndarray:
    return -factors.outer[:, None] * factors.core * factors.inner[None, :]


def given_condition(factors: Factors):
    return with_factors(factors.outer, factors.core, factors.inner)


def true_metric(system, proof) -> np.ndarray:
    seen = metric_of(system, Factors(proof.outer, proof.core, proof.inner))
    return seen if system.form == "rate" else np.linalg.inv(seen)


@given(
    seed=st.integers(0, 10**6), form=st.sampled_from(FORMS), density=st.sampled_from([1.0, 0.4]), known=st.booleans()
)
@settings(max_examples=40)
def test_rate_one_at_all_vertices(seed, form, density, known, judge):
    factors = random_factors(5, seed, density)
    system = form(weights_of(factors), "relu", tau=0.5)
    condition = given_condition(factors) if known else PRODUCT
    found = judge.verified(system, condition.decide(system, Goal()))
    assert found is not None
    assert 2.0 - 1e-9 < found.claims.rate < 2.0
    assert judge.excess(system, true_metric(system, found.proof), found.claims.rate) <= 1e-8


@pytest.mark.parametrize("form", FORMS)
def test_the_metric_of_the_other_form_fails(form, judge):
    factors = random_factors(5, 3)
    system = form(weights_of(factors) * 5, "relu")
    found = judge.verified(system, PRODUCT.decide(system, Goal()))
    other = (HopfieldNetwork if form is RateNetwork else RateNetwork)(system.W, "relu")
    assert judge.excess(system, true_metric(other, found.proof), found.claims.rate) > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_a_residual_costs_rate_and_the_claim_still_holds(form, judge):
    factors = random_factors(5, 4)
    rng = np.random.default_rng(1)
    for size in (1e-8, 1e-6, 1e-4):
        error = size * rng.standard_normal((5, 5))
        system = form(weights_of(factors) + error, "tanh")
        expected = np.sqrt(np.linalg.cond(metric_of(system, factors))) * np.linalg.norm(error)
        for condition in (PRODUCT, given_condition(factors)):
            found = judge.verified(system, condition.decide(system, Goal()))
            assert found is not None
            assert size / 10 < 1 - found.claims.rate < 3 * expected
            assert judge.excess(system, true_metric(system, found.proof), found.claims.rate) <= 1e-9


@pytest.mark.parametrize("n", [1, 2, 40, 200])
def test_found_factors_reproduce_the_weights(n):
    factors = random_factors(n, n, 0.5)
    weights = weights_of(factors)
    found = find_factors(weights)
    assert np.linalg.norm(weights_of(found) - weights) <= 1e-13 * n * np.linalg.norm(weights)
    assert np.array_equal(found.core, found.core.T)


def test_float32_weights_of_a_product_are_proven(judge):
    factors = random_factors(30, 5)
    system = RateNetwork(weights_of(factors).astype(np.float32), "tanh")
    found = judge.verified(system, PRODUCT.decide(system, Goal()))
    assert found.claims.rate > 0.999


def test_symmetric_weights_have_no_residual(judge):
    core = random_factors(6, 6).core
    found = judge.verified(RateNetwork(-core, "tanh"), PRODUCT.decide(RateNetwork(-core, "tanh"), Goal()))
    assert np.array_equal(found.proof.core, core)
    assert found.claims.rate > 1 - 1e-10


def test_weights_on_separate_scales_and_in_separate_parts(judge):
    """Two parts that do not see each other, one of them 10^12 times weaker."""
    parts = [weights_of(random_factors(4, seed)) for seed in (1, 2)]
    weights = np.zeros((8, 8))
    weights[:4, :4], weights[4:, 4:] = parts[0], parts[1] * 1e-3
    found = judge.verified(RateNetwork(weights, "tanh"), PRODUCT.decide(RateNetwork(weights, "tanh"), Goal()))
    assert found.claims.rate > 1 - 1e-9


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_laws(seed, judge):
    rng = np.random.default_rng(seed)
    factors = random_factors(6, seed, 0.6)
    weights = weights_of(factors) + 1e-5 * rng.standard_normal((6, 6))

    def value(w, cls):
        return judge.best(PRODUCT, cls(w, "tanh"))

    base = value(weights, RateNetwork)
    assert base is not None
    order = rng.permutation(6)
    assert value(weights[np.ix_(order, order)], RateNetwork) == pytest.approx(base, abs=1e-7)
    assert value(weights.T, HopfieldNetwork) == pytest.approx(base, abs=1e-7)
    sign = rng.choice([-1.0, 1.0], 6)
    assert value(weights * sign[:, None] * sign, RateNetwork) == pytest.approx(base, abs=1e-7)
    assert value(weights * 0.5, RateNetwork) >= base - 1e-9
    single = weights.astype(np.float32)
    assert value(single, RateNetwork) == value(single.astype(np.float64), RateNetwork)


def test_what_it_does_not_speak_of():
    factors = random_factors(3)
    weights = weights_of(factors)
    cases = [
        (PRODUCT, RateNetwork(weights, "tanh", step=0.1)),
        (PRODUCT, RateNetwork(weights, "tanh", tau=[1, 2, 3])),
        (PRODUCT, RateNetwork(weights, "gelu")),
        (PRODUCT, RateNetwork(-weights, "tanh")),
        (PRODUCT, RateNetwork([[-1.0, 2.0], [-2.0, -1.0]], "tanh")),
        (PRODUCT, RateNetwork([[-1.0, 3.0], [3.0, -1.0]], "tanh")),
        (given_condition(factors), RateNetwork(np.eye(4), "tanh")),
        (with_factors([1, 1], [[1.0, 2.0], [2.0, 1.0]], [1, 1]), RateNetwork([[-1.0, -2.0], [-2.0, -1.0]], "tanh")),
    ]
    for condition, system in cases:
        decision = condition.decide(system, Goal())
        assert isinstance(decision, NothingFound)
        assert decision.reason == "not-applicable"
    refused = given_condition(factors).decide(RateNetwork(weights + 5, "tanh"), Goal())
    assert refused.reason == "margin"
    assert refused.distance < 0


@pytest.mark.parametrize(
    ("outer", "core", "inner", "field"),
    [
        ([1, -1], np.eye(2), [1, 1], "outer"),
        ([1, 1], np.eye(2), [1, 0], "inner"),
        ([1, 1], [[1, 2], [3, 4]], [1, 1], "core"),
        ([1, 1], np.ones((2, 3)), [1, 1], "core"),
        ([1, 1, 1], np.eye(2), [1, 1], "outer"),
        ([1, 1], [[1, np.nan], [np.nan, 1]], [1, 1], "core"),
        ([1, 1], "abc", [1, 1], "core"),
        ([], [], [], "core"),
    ],
)
def test_bad_factors_are_named(outer, core, inner, field):
    with pytest.raises(InputError) as caught:
        with_factors(outer, core, inner)
    assert caught.value.field == field
