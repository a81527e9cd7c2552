"""Witnesses against gated cells: judged in ball arithmetic, tampered with number by number, and hunted for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from certes.conditions import gated as condition
from certes.engines.monitor import Monitor
from certes.equilibria import derivative, refute_cell
from certes.proofs import Claims, GatedWitness, SingularProof
from certes.verify import gated_instability
from certes.verify.elementary import Interval, exact
from certes.verify.gated import verify_gated
from certes.verify.gated_instability import jacobian, step, verify_gated_instability

from tests.judges import cells as judge
from tests.verify.gated_cases import bistable, calm, cell_of, points

KINDS = ("gru", "lstm")


@pytest.fixture(scope="module", params=KINDS)
def refuted(request: pytest.FixtureRequest):
    weights, cell = bistable(request.param)
    witness = refute_cell(cell, Monitor())
    assert witness is not None
    report = verify_gated_instability(cell, witness)
    assert report.verdict == "not_contracting", report.detail
    return request.param, weights, cell, witness


def _expands(kind: str, weights: dict[str, np.ndarray], witness: GatedWitness) -> bool:
    """In ball arithmetic: there is a fixed point that close, and its Jacobian has an eigenvalue that large."""
    point, rest = judge.exact_fixed_point(kind, weights, witness.state, witness.input)
    near = max(abs(float(p.mid()) - s) for p, s in zip(point, witness.state, strict=True))
    J = judge.exact_derivative(kind, weights, point, witness.input)
    return rest < 1e-50 and near <= witness.radius and np.abs(np.linalg.eigvals(J)).max() > witness.growth >= 1.0


def test_a_witness_is_true_in_ball_arithmetic(refuted) -> None:
    pytest.importorskip("flint")
    kind, weights, _, witness = refuted
    assert _expands(kind, weights, witness)


def test_the_scalar_gru_with_a_saddle_at_zero() -> None:
    """h+ = tanh(u h) / 2 + h / 2 for u = 3: the derivative at its fixed point 0 is 2."""
    weights = {
        "W": np.zeros((3, 1)),
        "U": np.array([[0.0], [0.0], [3.0]]),
        "b": np.array([60.0, 0, 0]),
        "c": np.zeros(3),
    }
    witness = refute_cell(cell_of("gru", weights), Monitor())
    assert witness is not None
    assert abs(witness.state[0]) < 1e-9
    assert 1.0 <= witness.growth < 2.0
    assert verify_gated_instability(cell_of("gru", weights), witness).valid


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_and_steps_are_those_of_the_judge(kind: str) -> None:
    random = np.random.default_rng(4)
    weights = judge.random_cell(random, kind, 3, 2, scale=2.0)
    cell = cell_of(kind, weights)
    lower = random.uniform(-1, 0, cell.states)
    upper = lower + 0.3
    over = jacobian(cell, Interval(lower, upper), exact(np.array([0.5, -0.5])))
    for _ in range(200):
        x, u = points(random, lower, upper), np.array([0.5, -0.5])
        J = judge.derivative(kind, weights, x, u)
        assert (np.abs(J - over.mid) <= over.rad + 1e-12).all()
        assert np.allclose(derivative(cell, x, u), J, atol=1e-12)
        assert np.allclose(step(cell, x[:, None], u)[:, 0], judge.step(kind, weights, x, u), atol=1e-13)


Change = Callable[[GatedWitness], dict[str, object]]
MUTATIONS: dict[str, tuple[Change, set[str]]] = {
    "input outside its box": (lambda w: {"input": w.input + 3.0}, {"admissible"}),
    "input of another size": (lambda w: {"input": np.zeros(2)}, {"shapes"}),
    "input not finite": (lambda w: {"input": w.input * np.nan}, {"inputs"}),
    "another state": (lambda w: {"state": w.state + 0.3}, {"fixed-point"}),
    "a state just beside": (lambda w: {"state": w.state + 3.0 * w.radius}, {"fixed-point"}),
    "radius zero": (lambda w: {"radius": 0.0}, {"fixed-point"}),
    "radius negative": (lambda w: {"radius": -w.radius}, {"fixed-point"}),
    "radius huge": (lambda w: {"radius": 0.5}, {"fixed-point"}),
    "radius beyond all": (lambda w: {"radius": 1e300}, {"fixed-point"}),
    "X negated": (lambda w: {"lyapunov": -w.lyapunov}, {"lyapunov"}),
    "X zero": (lambda w: {"lyapunov": 0.0 * w.lyapunov}, {"lyapunov"}),
    "X definite": (lambda w: {"lyapunov": np.eye(len(w.state))}, {"lyapunov", "direction"}),
    "X not symmetric": (
        lambda w: {"lyapunov": w.lyapunov + np.triu(np.full(w.lyapunov.shape, 1e-9), 1)},
        {"lyapunov"},
    ),
    "X of another size": (lambda w: {"lyapunov": w.lyapunov[:1, :1]}, {"shapes"}),
    "X not finite": (lambda w: {"lyapunov": w.lyapunov * np.inf}, {"inputs"}),
    "v on the positive side": (lambda w: {"direction": np.linalg.eigh(w.lyapunov)[1][:, -1]}, {"direction"}),
    "v zero": (lambda w: {"direction": 0.0 * w.direction}, {"direction"}),
    "growth beyond the eigenvalue": (lambda w: {"growth": 20.0}, {"lyapunov", "direction"}),
    "growth below one": (lambda w: {"growth": 0.9}, {"lyapunov"}),
    "growth not a number": (lambda w: {"growth": float("nan")}, {"inputs"}),
    "one start": (lambda w: {"start_other": w.start}, {"parting"}),
    "starts far apart": (lambda w: {"start": w.start + 1.0, "start_other": w.start_other - 1.0}, {"parting"}),
    "horizon zero": (lambda w: {"horizon": 0.0}, {"parting"}),
    "half a step": (lambda w: {"horizon": w.horizon + 0.5}, {"parting"}),
    "horizon short": (lambda w: {"horizon": 1.0}, {"parting"}),
    "horizon without end": (lambda w: {"horizon": 1e12}, {"parting"}),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_tampered_witnesses_are_refused(refuted, name: str) -> None:
    _, _, cell, witness = refuted
    change, obligations = MUTATIONS[name]
    report = verify_gated_instability(cell, replace(witness, **change(witness)))
    assert report.verdict == "undecided"
    assert report.failed is not None
    assert report.failed.name in obligations


def test_another_kind_of_witness_is_refused(refuted) -> None:
    _, _, cell, _ = refuted
    report = verify_gated_instability(cell, SingularProof(np.ones(3), 0.5))  # type: ignore[arg-type]
    assert report.failed is not None
    assert report.failed.name == "condition"


def test_a_box_that_excludes_the_input_is_no_refutation(refuted) -> None:
    kind, weights, cell, witness = refuted
    elsewhere = cell.with_inputs((witness.input + 0.1, witness.input + 0.2))
    assert verify_gated_instability(elsewhere, witness).failed.name == "admissible"
    assert verify_gated_instability(cell_of(kind, weights, None), witness).failed.name == "shapes"


@pytest.mark.parametrize("kind", KINDS)
def test_a_certified_cell_has_no_witness(kind: str) -> None:
    """The calm cell's own resting place, with numbers that would need an unstable mode."""
    weights, cell = calm(kind)
    state, u = np.zeros(cell.states), np.zeros(2)
    for _ in range(2000):
        state = judge.step(kind, weights, state, u)
    size = cell.states
    for X, v in ((-np.eye(size), np.eye(size)[0]), (np.diag(np.r_[-1.0, np.ones(size - 1)]), np.eye(size)[0])):
        witness = GatedWitness(u, state, 1e-9, X, v, 1.0, state + 1e-3, state - 1e-3, 50.0)
        assert verify_gated_instability(cell, witness).failed.name in ("lyapunov", "direction")
    assert refute_cell(cell, Monitor()) is None


@pytest.mark.parametrize("obligation", [entry.__name__ for entry in gated_instability.OBLIGATIONS])
def test_no_obligation_is_implied_by_the_others(monkeypatch: pytest.MonkeyPatch, obligation: str, refuted) -> None:
    _, _, cell, witness = refuted
    size = cell.states
    false = {
        "admitted": None,
        "fixed_point": {"state": witness.state + 1e-3},
        "lyapunov": {"lyapunov": -np.eye(size)},
        "direction": {"direction": np.linalg.eigh(witness.lyapunov)[1][:, -1]},
        "parting": {"horizon": 0.0},
    }[obligation]
    if false is None:
        cell, false = cell.with_inputs((witness.input + 0.1, witness.input + 0.2)), {}
    changed = replace(witness, **false)
    assert not verify_gated_instability(cell, changed).valid
    kept = tuple(entry for entry in gated_instability.OBLIGATIONS if entry.__name__ != obligation)
    monkeypatch.setattr(gated_instability, "OBLIGATIONS", kept)
    assert verify_gated_instability(cell, changed).valid


def _hunt(seeds: range) -> dict[str, int]:
    """Random small cells of every size of weights: a yes has no expanding pair, a no is true in ball arithmetic."""
    pytest.importorskip("flint")
    found = {"yes": 0, "no": 0, "open": 0}
    for seed in seeds:
        random = np.random.default_rng(seed)
        kind, n = KINDS[seed % 2], int(random.integers(1, 4))
        scale = 10.0 ** random.uniform(-1.5, 1.2)
        weights = judge.random_cell(random, kind, n, 1, scale=scale, bias=random.random(), drive=random.random())
        cell = cell_of(kind, weights, (-1.0, 1.0))
        proof = condition.find(cell, Monitor())
        claims = Claims(factor=None if proof is None else proof.factor)
        certified = proof is not None and verify_gated(cell, proof.proof, claims).valid
        witness = refute_cell(cell, Monitor())
        refuted = witness is not None and verify_gated_instability(cell, witness).valid
        assert not (certified and refuted), seed
        found["yes" if certified else "no" if refuted else "open"] += 1
        if refuted:
            assert witness is not None
            assert _expands(kind, weights, witness), seed
        if certified:
            assert proof is not None
            lower, upper, r = proof.proof.lower, proof.proof.upper, proof.proof.weights
            for _ in range(60):
                x, y, u = points(random, lower, upper), points(random, lower, upper), random.uniform(-1, 1, 1)
                apart = np.max(np.abs(judge.step(kind, weights, x, u) - judge.step(kind, weights, y, u)) / r)
                assert apart <= proof.factor * np.max(np.abs(x - y) / r) * (1 + 1e-12), seed
                radius = np.abs(np.linalg.eigvals(judge.derivative(kind, weights, x, u))).max()
                assert radius <= proof.factor * (1 + 1e-12), seed
    return found


def test_hunt_for_a_false_answer() -> None:
    found = _hunt(range(5))
    assert found["yes"] > 0
    assert found["no"] > 0


@pytest.mark.slow
def test_long_hunt_for_a_false_answer() -> None:
    found = _hunt(range(1000, 1200))
    assert found["yes"] > 20
    assert found["no"] > 20


@pytest.mark.slow
def test_near_the_border_neither_side_lies() -> None:
    """Scalar GRUs h+ = (tanh(u h) + h) / 2 with u around 1: proven below, refuted above, never the other way round."""
    for u in 1.0 + np.array([-1e-3, -1e-4, -1e-6, -1e-9, 0.0, 1e-9, 1e-6, 1e-4, 1e-3]):
        weights = {
            "W": np.zeros((3, 1)),
            "U": np.array([[0.0], [0.0], [u]]),
            "b": np.array([700.0, 0.0, 0.0]),
            "c": np.zeros(3),
        }
        cell = cell_of("gru", weights, (0.0, 0.0))
        found = condition.find(cell, Monitor())
        assert found is not None
        if verify_gated(cell, found.proof, Claims(factor=found.factor)).valid:
            assert u < 1.0
        witness = refute_cell(cell, Monitor())
        if witness is not None and verify_gated_instability(cell, witness).valid:
            assert u > 1.0
