"""Every number of a witness matters: change it so that it is wrong, and the verifier refuses, naming the obligation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from certes.proofs import InstabilityWitness
from certes.refutation import refute
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.verify.instability import verify_instability
from hypothesis import given, settings
from hypothesis import strategies as st

_RANDOM = np.random.default_rng(12)
_W = _RANDOM.standard_normal((6, 6)) + 1.5 * np.eye(6)
SYSTEMS: dict[str, System] = {
    "rate tanh": RateNetwork(_W, "tanh"),
    "rate relu map": RateNetwork(_W, "relu", step=1.0),
    "hopfield softplus euler": HopfieldNetwork(_W, "softplus", step=0.2),
    "lure tanh map": LureSystem(0.2 * _W, _W, np.eye(6), activation="tanh", discrete=True),
    "rate interval": RateNetwork(_W, slope=(0.0, 1.0)),
}


@pytest.fixture(scope="module", params=SYSTEMS)
def case(request: pytest.FixtureRequest) -> tuple[System, InstabilityWitness]:
    system = SYSTEMS[request.param]
    witness = refute(system)
    assert witness is not None
    assert verify_instability(system, witness).verdict == "not_contracting"
    return system, witness


def _stable(system: System, witness: InstabilityWitness) -> dict[str, object]:
    """Saturated arguments, or slopes 0: a stable Jacobian, for which the same X, v prove nothing."""
    entry = system.slope.activation
    if entry is None:
        return {"slopes": np.zeros_like(witness.slopes)}
    points = np.full_like(witness.points, -30.0)
    return {"points": points, "slopes": entry.derivative(points)}


def _top(X: np.ndarray) -> np.ndarray:
    return np.linalg.eigh(X)[1][:, -1]


Change = Callable[[System, InstabilityWitness], dict[str, object]]
MUTATIONS: dict[str, tuple[Change, set[str]]] = {
    "X negated": (lambda s, w: {"lyapunov": -w.lyapunov}, {"lyapunov"}),
    "X definite": (lambda s, w: {"lyapunov": np.eye(s.size)}, {"lyapunov", "direction"}),
    "X zero": (lambda s, w: {"lyapunov": 0.0 * w.lyapunov}, {"lyapunov"}),
    "X not symmetric": (lambda s, w: {"lyapunov": w.lyapunov + np.triu(np.full((6, 6), 1e-9), 1)}, {"lyapunov"}),
    "X not finite": (lambda s, w: {"lyapunov": w.lyapunov * np.nan}, {"inputs", "lyapunov"}),
    "X of another size": (lambda s, w: {"lyapunov": w.lyapunov[:5, :5]}, {"shapes"}),
    "v on the positive side": (lambda s, w: {"direction": _top(w.lyapunov)}, {"direction"}),
    "v zero": (lambda s, w: {"direction": 0.0 * w.direction}, {"direction"}),
    "growth beyond the eigenvalue": (lambda s, w: {"growth": 2.0 * w.growth + 20.0}, {"lyapunov"}),
    "growth below the border": (lambda s, w: {"growth": -1.0}, {"lyapunov"}),
    "growth not finite": (lambda s, w: {"growth": float("inf")}, {"inputs", "lyapunov"}),
    "stable slopes": (_stable, {"lyapunov"}),
    "stated slopes": (lambda s, w: {"slopes": w.slopes + 1e3}, {"slopes"}),
    "another input": (lambda s, w: {"input": w.input + 0.5}, {"equilibrium"}),
    "starts that coincide": (lambda s, w: {"start_other": w.start}, {"equilibrium", "parting"}),
    "starts around elsewhere": (
        lambda s, w: {"start": w.start + 1.0, "start_other": w.start_other + 1.0},
        {"equilibrium"},
    ),
    "no time to part": (lambda s, w: {"horizon": 1e-3 if s.continuous else 1.0}, {"parting"}),
    "a horizon without end": (lambda s, w: {"horizon": 1e12}, {"parting"}),
    "a horizon beyond counting": (lambda s, w: {"horizon": 1e308}, {"parting"}),
    "a horizon that is no number": (lambda s, w: {"horizon": float("nan")}, {"inputs", "parting"}),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_number_is_refused(case, name):
    system, witness = case
    change, expected = MUTATIONS[name]
    report = verify_instability(system, replace(witness, **change(system, witness)))
    assert report.verdict == "undecided"
    assert report.failed is not None
    assert report.failed.name in expected


def test_slopes_outside_a_bare_interval_are_refused():
    system = RateNetwork([[0.5]], slope=(0.0, 1.0))
    wider = RateNetwork([[0.5]], slope=(0.0, 3.0))
    witness = refute(wider)
    assert verify_instability(wider, witness).verdict == "not_contracting"
    report = verify_instability(system, witness)
    assert report.verdict == "undecided"
    assert report.failed.name == "slopes"


def test_points_on_a_kink_are_refused():
    system = RateNetwork([[2.0]], "relu")
    witness = refute(system)
    report = verify_instability(system, replace(witness, points=np.zeros(1)))
    assert report.failed.name == "slopes"


def test_a_witness_does_not_serve_other_weights(case):
    system, witness = case
    others = [SYSTEMS[name] for name in SYSTEMS if SYSTEMS[name] is not system]
    weak = [RateNetwork(0.1 * np.eye(6), "tanh"), HopfieldNetwork(0.1 * np.eye(6), "relu", step=0.5)]
    for other in [*others, *weak]:
        report = verify_instability(other, witness)
        if report.verdict == "not_contracting":  # then it must be true of the other network, too
            assert other in others
    for other in weak:
        assert verify_instability(other, witness).verdict == "undecided"


@settings(max_examples=100)
@given(seed=st.integers(0, 2**31), exponent=st.floats(-3.0, 1.0))
def test_perturbed_witnesses_never_refute_a_contracting_network(seed, exponent):
    """Numbers near a true witness, presented for weights scaled down into the contracting set."""
    random = np.random.default_rng(seed)
    for system in (RateNetwork(_W, "tanh"), RateNetwork(_W, "relu", step=1.0)):
        witness = _WITNESSES[system.step]
        stable = RateNetwork(0.99 * _W / np.linalg.norm(_W, 2), system.slope.activation.name, step=system.step)
        noise = 10.0**exponent * random.standard_normal((6, 6))
        changed = replace(
            witness,
            lyapunov=witness.lyapunov + noise + noise.T,
            points=witness.points + 10.0**exponent * random.standard_normal(6),
            growth=max(0.0 if system.continuous else 1.0, witness.growth * random.uniform(0.0, 1.5)),
        )
        assert verify_instability(stable, changed).verdict == "undecided"


_WITNESSES = {None: refute(RateNetwork(_W, "tanh")), 1.0: refute(RateNetwork(_W, "relu", step=1.0))}
