"""Simulation against matrix exponentials, plain loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from certes.errors import CertesError, InputError
from certes.proofs import InstabilityWitness
from certes.simulation import input_in_range, replay, simulate
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork
from scipy.linalg import expm

from tests.refutation import plain

W = np.random.default_rng(5).standard_normal((4, 4))
X = np.array([0.3, -0.2, 0.1, 0.5])
U = np.array([0.1, 0.4, -0.3, 0.0])


def witness_with(**changes: object) -> InstabilityWitness:
    values = {
        "points": np.zeros(4),
        "slopes": np.ones(4),
        "lyapunov": np.eye(4),
        "direction": np.ones(4),
        "growth": 1.0,
        "input": U,
        "start": X,
        "start_other": X + 1e-6,
        "horizon": 2.0,
    }
    return InstabilityWitness(**(values | changes))


@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
def test_a_linear_network_follows_the_matrix_exponential(form):
    tau = np.array([0.5, 1.0, 2.0, 3.0])
    J = np.diag(1 / tau) @ (W - np.eye(4))
    found = simulate(form(W, "identity", tau=tau), X, np.zeros(4), 1.7, samples=10)
    assert found.t[-1] == 1.7
    for t, x in zip(found.t, found.x, strict=True):
        assert np.allclose(x, expm(t * J) @ X, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", plain.NAMES)
@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
def test_a_map_follows_the_plain_loop(form, name):
    system = form(W, name, step=0.3, tau=[1.0, 2.0, 0.5, 1.0])
    found = simulate(system, X, U, 25, samples=1000)
    x = X
    for k in range(26):
        assert np.allclose(found.x[k], x, rtol=1e-9, atol=1e-12)
        x = x + 0.3 * plain.field(system.form, W, name, x, U, system.tau)
    assert found.t.tolist() == list(range(26))


@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
@pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
def test_a_flow_follows_a_plain_runge_kutta_loop(form, name):
    system = form(W, name)
    end = plain.run_flow(lambda x: plain.field(system.form, W, name, x, U), X, 3.0, 3000)
    assert np.allclose(simulate(system, X, U, 3.0).x[-1], end, rtol=1e-6, atol=1e-7)


def test_lure_systems_run_as_flow_euler_map_and_map():
    A, B, C = np.array([[-1.0, 0.4], [0.0, -2.0]]), np.array([[1.0], [0.5]]), np.array([[0.3, -0.7]])
    x, u = np.array([0.2, -0.4]), np.array([0.6])

    def drift(state):
        return A @ state + B @ np.tanh(C @ state + u)

    flow = simulate(LureSystem(A, B, C, activation="tanh"), x, u, 2.0).x[-1]
    assert np.allclose(flow, plain.run_flow(drift, x, 2.0, 2000), rtol=1e-9, atol=1e-10)
    euler = simulate(LureSystem(A, B, C, activation="tanh", step=0.1), x, u, 7).x[-1]
    assert np.allclose(euler, plain.run_map(lambda z: z + 0.1 * drift(z), x, 7))
    given = simulate(LureSystem(A, B, C, activation="tanh", discrete=True), x, u, 7).x[-1]
    assert np.allclose(given, plain.run_map(drift, x, 7))


def test_a_stiff_network_is_integrated():
    system = RateNetwork([[0.5]], "identity", tau=1e-9)
    assert simulate(system, np.ones(1), np.zeros(1), 1.0).x[-1, 0] == pytest.approx(0.0, abs=1e-9)
    slow = RateNetwork(np.diag([0.5, 0.5]), "identity", tau=[1e-9, 1.0])
    assert simulate(slow, np.ones(2), np.zeros(2), 1.0).x[-1, 1] == pytest.approx(math.exp(-0.5), rel=1e-7)


def test_a_bare_slope_interval_runs_the_member_it_is_told():
    system = RateNetwork([[2.0]], slope=(0.0, 1.0), step=1.0)
    assert simulate(system, np.ones(1), np.zeros(1), 3, slopes=np.array([0.75])).x[:, 0].tolist() == [
        1,
        1.5,
        2.25,
        3.375,
    ]
    with pytest.raises(InputError, match="slopes"):
        simulate(system, np.ones(1), np.zeros(1), 3)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"start": np.ones(3)}, "start"),
        ({"input": np.ones(5)}, "input"),
        ({"horizon": 0.0}, "horizon"),
        ({"horizon": math.nan}, "horizon"),
        ({"horizon": 2.5}, "horizon"),
        ({"samples": 0}, "horizon"),
    ],
)
def test_bad_questions_name_the_field(changes, field):
    question = {"start": X, "input": U, "horizon": 3.0} | changes
    with pytest.raises(InputError) as caught:
        simulate(RateNetwork(W, "tanh", step=1.0), **question)
    assert caught.value.field == field


def test_long_runs_store_few_states():
    found = simulate(RateNetwork(W, "tanh", step=1.0), X, U, 5000, samples=10)
    assert found.x.shape == (11, 4)
    assert found.t[[0, -1]].tolist() == [0.0, 5000.0]
    end = plain.run_map(lambda x: np.tanh(W @ x + U), X, 5000)
    assert np.isfinite(end).all()


def test_an_integrator_that_gives_up_is_an_error():
    for weight in (1e200, 1e308):
        with pytest.raises(CertesError, match="could not be integrated"):
            simulate(RateNetwork([[weight]], slope=(0.0, 1.0)), np.array([1e200]), np.zeros(1), 1e3, slopes=np.ones(1))


def test_replay_measures_the_distance():
    system = RateNetwork(2.0 * np.eye(4), slope=(0.0, 1.0), step=1.0)
    found = replay(system, witness_with(input=np.zeros(4), horizon=5.0))
    assert found.distance[0] == pytest.approx(2e-6, rel=1e-6)
    assert found.ratio == pytest.approx(32.0, rel=1e-6)
    assert found.first.t.tolist() == found.second.t.tolist() == [0, 1, 2, 3, 4, 5]
    assert math.isnan(replay(system, witness_with(start_other=X, horizon=5.0)).ratio)


def test_input_range_with_and_without_an_input_matrix():
    inputs = np.array([[1.0], [0.0], [0.0], [2.0]])
    inside = witness_with(input=inputs[:, 0] * 3.0 + 1.0)
    known = RateNetwork(W, "tanh", input_matrix=inputs, bias=np.ones(4))
    found = input_in_range(known, inside)
    assert found.reachable is True
    assert found.residual == pytest.approx(0.0, abs=1e-12)
    assert found.largest == 7.0
    outside = input_in_range(known, witness_with(input=np.array([1.0, 2.0, 1.0, 1.0])))
    assert outside.reachable is False
    assert (outside.residual, outside.relative) == (pytest.approx(1.0), pytest.approx(1.0))
    unknown = input_in_range(RateNetwork(W, "tanh"), inside)
    assert (unknown.residual, unknown.relative, unknown.reachable) == (None, None, None)
    rest = input_in_range(RateNetwork(W, "tanh", input_matrix=inputs), witness_with(input=np.zeros(4)))
    assert rest.reachable is True
