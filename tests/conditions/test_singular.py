"""The condition `singular`: the scaling is the best there is, and the claims hold at every vertex."""

from __future__ import annotations

import numpy as np
import pytest
from certes.conditions import Goal, NothingFound, by_name
from certes.conditions.singular import multipliers, norm_at
from certes.systems import HopfieldNetwork, RateNetwork
from hypothesis import given, settings
from hypothesis import strategies as st

SINGULAR = by_name("singular")
FORMS = [RateNetwork, HopfieldNetwork]


def metric(system, proof) -> np.ndarray:
    return np.diag(proof.q * system.tau)  # Q T; for a map Q diag(a)^-1 is the same up to the step


@given(data=st.data())
@settings(max_examples=80)
def test_claims_hold_at_all_vertices(data, judge, any_network):
    system = data.draw(any_network())
    found = judge.verified(system, SINGULAR.decide(system, Goal()))
    if found is not None:
        assert judge.excess(system, metric(system, found.proof), judge.number(found)) <= 1e-9


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [None, 0.3])
def test_a_scaled_orthogonal_matrix_has_a_known_norm(form, step, judge):
    rng = np.random.default_rng(0)
    orthogonal, _ = np.linalg.qr(rng.standard_normal((25, 25)))
    d = 10.0 ** rng.uniform(-6, 6, 25)
    bound = rng.uniform(0.1, 2.0, 25)
    weights = 0.8 * orthogonal * d[:, None] / d[None, :]
    weights = weights / bound[:, None] if form is RateNetwork else weights / bound[None, :]
    system = form(weights, slope=(-bound / 2, bound), tau=2.0, step=step)
    found = judge.verified(system, SINGULAR.decide(system, Goal()))
    expected = 0.1 if step is None else 1 - 0.15 + 0.15 * 0.8
    assert judge.number(found) == pytest.approx(expected, abs=1e-6)


def test_normal_weights_need_no_scaling(judge):
    weights = np.array([[0.0, -0.9], [0.9, 0.0]])
    found = judge.verified(
        RateNetwork(weights, slope=(-1, 1)), SINGULAR.decide(RateNetwork(weights, slope=(-1, 1)), Goal())
    )
    assert found.claims.rate == pytest.approx(0.1, abs=1e-10)


@pytest.mark.parametrize("n", [3, 12, 30])
def test_no_other_scaling_nearby_is_better(n):
    matrix = np.random.default_rng(n).standard_normal((n, n))
    q = multipliers(matrix)
    random = np.random.default_rng(1)
    for _ in range(200):
        other = q * np.exp(random.normal(size=n) * 10.0 ** random.uniform(-5, 0))
        assert norm_at(matrix, other) >= norm_at(matrix, q) * (1 - 1e-6)


@pytest.mark.parametrize("n", [4, 12])
def test_the_scaling_is_optimal_by_an_independent_solver(n):
    """q with gamma^2 Q - A^T Q A > 0, by cvxpy, exists just above our norm and not much below it."""
    cvxpy = pytest.importorskip("cvxpy")
    matrix = np.random.default_rng(n).standard_normal((n, n))
    norm = norm_at(matrix, multipliers(matrix))

    def feasible(level: float) -> bool:
        q, slack = cvxpy.Variable(n), cvxpy.Variable()
        block = level**2 * cvxpy.diag(q) - matrix.T @ cvxpy.diag(q) @ matrix
        problem = cvxpy.Problem(
            cvxpy.Maximize(slack), [(block + block.T) / 2 >> slack * np.eye(n), q >= 1e-6, cvxpy.sum(q) == n]
        )
        problem.solve(solver=cvxpy.CLARABEL)
        return bool(slack.value > 1e-7)

    assert feasible(norm * 1.001)
    assert not feasible(norm * 0.999)


@given(seed=st.integers(0, 10**6), form=st.sampled_from(FORMS), step=st.sampled_from([None, 0.4]))
@settings(max_examples=8)
def test_laws(seed, form, step, judge):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 8))
    weights = rng.standard_normal((n, n))
    weights *= 0.8 / np.linalg.norm(weights, 2)

    def value(w, cls=form):
        return judge.best(SINGULAR, cls(w, "tanh", step=step))

    base = value(weights)
    order = rng.permutation(n)
    assert value(weights[np.ix_(order, order)]) == pytest.approx(base, abs=1e-3)
    assert value(weights.T, HopfieldNetwork if form is RateNetwork else RateNetwork) == pytest.approx(base, abs=1e-3)
    d = 2.0 ** rng.integers(-20, 20, n)
    assert value(weights * d[:, None] / d) == pytest.approx(base, abs=1e-3)
    smaller = value(0.6 * weights)
    assert smaller >= base - 1e-9 if step is None else smaller <= base + 1e-9
    single = weights.astype(np.float32)
    assert value(single) == value(single.astype(np.float64))


def test_never_worse_than_no_scaling(judge):
    for seed in range(5):
        weights = np.random.default_rng(seed).standard_normal((60, 60)) * 0.45 / np.sqrt(60)
        rate = judge.best(SINGULAR, RateNetwork(weights, "tanh"))
        assert rate >= 1 - np.linalg.norm(weights, 2) - 1e-9
        assert rate > 1 - 0.97 * np.linalg.norm(weights, 2)


def test_time_constants_enter_through_the_slowest(judge):
    weights = np.diag([0.5, 0.5])
    system = RateNetwork(weights, "tanh", tau=[1.0, 4.0])
    assert judge.best(SINGULAR, system) == pytest.approx(0.125, abs=1e-9)
    system = RateNetwork(weights, "tanh", tau=[1.0, 4.0], step=1.0)
    assert judge.best(SINGULAR, system) == pytest.approx(0.875, abs=1e-9)


def test_zero_weights_and_targets(judge):
    system = RateNetwork(np.zeros((2, 2)), "tanh")
    assert judge.best(SINGULAR, system) == pytest.approx(1.0, abs=1e-9)
    system = RateNetwork(np.diag([0.5, 0.1]), "tanh", step=1.0)
    assert judge.verified(system, SINGULAR.decide(system, Goal(target=0.6))).claims.factor == 0.6
    refused = SINGULAR.decide(system, Goal(target=0.4))
    assert isinstance(refused, NothingFound)
    assert refused.reason == "margin"
    assert refused.distance == pytest.approx(0.5)


def test_sparse_weights_are_left_to_absolute():
    import scipy.sparse as sp

    decision = SINGULAR.decide(RateNetwork(sp.eye_array(3).tocsr() * 0.5, "tanh"), Goal())
    assert isinstance(decision, NothingFound)
    assert decision.reason == "not-applicable"
