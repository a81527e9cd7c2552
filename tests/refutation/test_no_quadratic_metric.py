"""No constant quadratic metric: found where theory says so, judged by fractions and by cvxpy, and attacked."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse
from certes.engines.slopes import Linearisation
from certes.engines.vertices import LARGEST, largest_margin, no_quadratic_metric, worst_patterns
from certes.exact import audit_witness
from certes.proofs import NoMetricProof, proof_from_arrays
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.verify import no_metric
from certes.verify.no_metric import verify_no_metric
from hypothesis import given, settings
from hypothesis import strategies as st

SKEW = np.array([[0.0, -1.0], [1.0, 0.0]])


def proven(system: System) -> NoMetricProof:
    """The proof, verified, audited exactly and judged here."""
    proof = no_quadratic_metric(system)
    assert proof is not None
    report = verify_no_metric(system, proof)
    assert report.valid, report.detail
    assert report.verdict == "undecided"
    assert audit_witness(system, proof).valid
    assert positive(separator(system, proof))
    return proof


def separator(system: System, proof: NoMetricProof) -> list[list[Fraction]]:
    """S in fractions, straight from its definition, with no matrix library."""
    n, states = system.size, range(system.size)
    if system.form == "lure":
        A, B, C = ([[Fraction(float(e)) for e in row] for row in system.matrix(role)] for role in "ABC")
    else:
        W = [[Fraction(float(e)) for e in row] for row in system.matrix("W")]
        leak = [Fraction(float(system.step or 1.0)) / Fraction(float(tau)) for tau in system.tau]
        start = 0 if system.continuous else 1
        one = [[Fraction(int(i == j)) for j in states] for i in states]
        A = [[(start - leak[i]) * one[i][j] for j in states] for i in states]
        arriving, seeing = (one, W) if system.form == "rate" else (W, one)
        B, C = [[leak[i] * arriving[i][j] for j in states] for i in states], seeing
    S = [[Fraction(0)] * n for _ in states]
    for k, D in enumerate(proof.slopes):
        slope = [Fraction(float(d)) for d in D]
        J = [[A[i][j] + sum(B[i][c] * slope[c] * C[c][j] for c in range(len(slope))) for j in states] for i in states]
        for y in (proof.columns[:, r] for r in np.flatnonzero(proof.pattern == k)):
            v = [Fraction(float(e)) for e in y]
            w = [sum(J[i][j] * v[j] for j in states) for i in states]
            for i, j in itertools.product(states, states):
                S[i][j] += w[i] * v[j] + v[i] * w[j] if system.continuous else w[i] * w[j] - v[i] * v[j]
    return S


def positive(S: list[list[Fraction]]) -> bool:
    """Elimination without pivoting: all pivots positive."""
    S = [row[:] for row in S]
    for k in range(len(S)):
        if S[k][k] <= 0:
            return False
        for i in range(k + 1, len(S)):
            factor = S[i][k] / S[k][k]
            S[i] = [a - factor * b for a, b in zip(S[i], S[k], strict=True)]
    return True


def best_margin(problem: Linearisation, patterns: np.ndarray) -> float:
    """The program, by cvxpy."""
    n = len(problem.A)
    P, t = cp.Variable((n, n), symmetric=True), cp.Variable()
    constraints = [P >> 0, cp.trace(P) == n]
    for D in patterns:
        J = problem.jacobian(D)
        left = -(P @ J + J.T @ P) if problem.continuous else P - J.T @ P @ J
        constraints.append(0.5 * (left + left.T) >> t * np.eye(n))
    cp.Problem(cp.Maximize(t), constraints).solve(solver="CLARABEL")
    return float(t.value)


@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
@pytest.mark.parametrize("w", [2.001, 2.5, 4.0, 300.0])
def test_skew_coupling_beyond_two_has_no_quadratic_metric(form, w):
    proven(form(w * SKEW, "tanh"))
    proven(form(w * SKEW, slope=(0.0, 1.0)))


@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
@pytest.mark.parametrize("w", [0.0, 1.0, 1.9, 1.9999, 2.0])
def test_skew_coupling_up_to_two_is_left_alone(form, w):
    assert no_quadratic_metric(form(w * SKEW, "tanh")) is None


def test_maps_time_constants_lure_forms_and_shifted_slopes():
    proven(RateNetwork(2.5 * SKEW, "tanh", step=0.5))
    proven(HopfieldNetwork(1.02 * SKEW, "relu", step=1.0))
    assert no_quadratic_metric(RateNetwork(0.98 * SKEW, "tanh", step=1.0)) is None
    proven(RateNetwork(4.0 * SKEW, "tanh", tau=[1.0, 3.0]))
    proven(HopfieldNetwork(4.0 * SKEW, "tanh", tau=[1e-3, 1e-3]))
    proven(LureSystem(-np.eye(2), np.eye(2), 4.0 * SKEW, activation="tanh"))
    proven(LureSystem(np.zeros((2, 2)), np.eye(2), 1.5 * SKEW, slope=(-1.0, 1.0), discrete=True))
    proven(RateNetwork(4.0 * SKEW, slope=([-0.5, 0.0], [1.0, 1.0])))


def test_badly_scaled_weights():
    S = np.array([1e-6, 1e5])
    proven(RateNetwork(S[:, None] * (4.0 * SKEW) / S, "tanh"))


@pytest.mark.parametrize("seed", range(4))
def test_random_networks_agree_with_cvxpy(seed):
    """What is proven has no metric for its patterns by cvxpy either, and all vertices together decide the same way."""
    random = np.random.default_rng(seed)
    W = random.standard_normal((4, 4)) * random.uniform(0.6, 1.2)
    for step in (None, 0.5):
        system = RateNetwork(W, "relu", step=step)
        problem = Linearisation.of(system)
        proof = no_quadratic_metric(system)
        margin = best_margin(problem, np.array(list(itertools.product([0.0, 1.0], repeat=4))))
        if abs(margin) > 1e-5:
            assert (proof is not None) == (margin < 0)
        if proof is not None:
            assert verify_no_metric(system, proof).valid
            assert best_margin(problem, proof.slopes) < 0


def test_the_program_is_the_one_that_cvxpy_solves():
    random = np.random.default_rng(3)
    for step in (None, 0.3):
        problem = Linearisation.of(RateNetwork(random.standard_normal((3, 3)), "relu", step=step))
        patterns = [np.array(D) for D in ([1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0])]
        found = largest_margin(problem, patterns)
        assert found is not None
        assert found.margin == pytest.approx(best_margin(problem, np.array(patterns)), abs=1e-6)
        assert sum(float(np.trace(dual)) for dual in found.duals) == pytest.approx(1.0, abs=1e-6)


def test_the_worst_pattern_is_the_worst_of_all():
    random = np.random.default_rng(4)
    for step in (None, 0.7):
        problem = Linearisation.of(RateNetwork(2.0 * random.standard_normal((6, 6)), "relu", step=step))
        half = random.standard_normal((6, 6))
        P = half @ half.T + np.eye(6)

        def violation(D, problem=problem, P=P):
            J = problem.jacobian(np.array(D))
            return np.linalg.eigvalsh(P @ J + J.T @ P if problem.continuous else J.T @ P @ J - P)[-1]

        worst = worst_patterns(problem, P, [])[0]
        assert violation(worst) == pytest.approx(max(map(violation, itertools.product([0.0, 1.0], repeat=6))))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.5, 0.999), share=st.floats(0.0, 1.0))
def test_no_proof_is_accepted_where_a_metric_exists(seed, scale, share):
    """norm(W) < 1: the identity serves. Random numbers, and those of a true proof of other weights, are refused."""
    random = np.random.default_rng(seed)
    n, k = int(random.integers(1, 5)), int(random.integers(1, 5))
    raw = random.standard_normal((n, n))
    W = scale * raw / np.linalg.norm(raw, 2)
    columns = random.standard_normal((n, 3 * k)) * 10.0 ** random.uniform(-3, 3)
    slopes = np.where(random.random((k, n)) < share, 1.0, random.random((k, n)))
    proof = NoMetricProof(slopes, random.integers(0, k, 3 * k), columns)
    for step in (None, 0.5, 1.0):
        for form in (RateNetwork, HopfieldNetwork):
            assert not verify_no_metric(form(W, "tanh", step=step), proof).valid
    near = RateNetwork((1.0 + scale) * SKEW, "tanh")
    assert not verify_no_metric(near, _TRUE).valid


_TRUE = no_quadratic_metric(RateNetwork(2.0001 * SKEW, "tanh"))
Change = Callable[[NoMetricProof], dict[str, object]]
MUTATIONS: dict[str, tuple[Change, str]] = {
    "slopes above the box": (lambda p: {"slopes": p.slopes * 1.0000001}, "slopes"),
    "slopes below the box": (lambda p: {"slopes": p.slopes - 1e-12}, "slopes"),
    "slopes not finite": (lambda p: {"slopes": p.slopes * np.nan}, "inputs"),
    "slopes of another width": (lambda p: {"slopes": p.slopes[:, :1]}, "shapes"),
    "no pattern": (lambda p: {"slopes": p.slopes[:0]}, "shapes"),
    "a pattern beyond the last": (lambda p: {"pattern": p.pattern + 1}, "shapes"),
    "a pattern before the first": (lambda p: {"pattern": p.pattern - 1}, "shapes"),
    "patterns exchanged": (lambda p: {"pattern": p.pattern[::-1].copy()}, "separating"),
    "patterns missing": (lambda p: {"pattern": p.pattern[:-1]}, "shapes"),
    "one pattern": (lambda p: {"pattern": 0 * p.pattern}, "separating"),
    "no columns": (lambda p: {"columns": 0.0 * p.columns}, "separating"),
    "none at all": (lambda p: {"columns": p.columns[:, :0], "pattern": p.pattern[:0]}, "separating"),
    "columns of another height": (lambda p: {"columns": p.columns[:1]}, "shapes"),
    "columns not finite": (lambda p: {"columns": p.columns * np.inf}, "inputs"),
    "columns that overflow": (lambda p: {"columns": p.columns * 1e300}, "separating"),
    "slopes 0": (lambda p: {"slopes": 0.0 * p.slopes}, "separating"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_number_is_refused(name):
    system = RateNetwork(2.0001 * SKEW, "tanh")
    change, obligation = MUTATIONS[name]
    changed = replace(_TRUE, **change(_TRUE))
    report = verify_no_metric(system, changed)
    assert not report.valid
    assert report.failed.name == obligation
    if obligation != "inputs" and name != "columns that overflow":
        assert not audit_witness(system, changed).valid


def test_a_contracting_map_is_refused_by_verifier_and_audit():
    proof = NoMetricProof(np.ones((1, 2)), np.zeros(2, int), np.eye(2))
    lure = LureSystem(0.5 * SKEW, np.eye(2), 0.4 * SKEW, slope=(0.0, 1.0), discrete=True)
    for system in (RateNetwork(0.9 * SKEW, "tanh", step=1.0), lure):
        assert verify_no_metric(system, proof).failed.name == "separating"
        assert audit_witness(system, proof).failed.name == "separating"


WRONG = {
    "slopes": (RateNetwork(SKEW, "tanh"), NoMetricProof(np.full((1, 2), -9.0), np.zeros(2, int), np.eye(2))),
    "separating": (RateNetwork(SKEW, "tanh"), NoMetricProof(np.ones((1, 2)), np.zeros(2, int), np.eye(2))),
}
WRONG["slopes"] = (RateNetwork(np.eye(2) / 2, "tanh"), replace(WRONG["slopes"][1], slopes=np.full((1, 2), 9.0)))


@pytest.mark.parametrize("name", WRONG)
def test_every_obligation_is_needed(name, monkeypatch):
    system, proof = WRONG[name]
    assert verify_no_metric(system, proof).failed.name == name
    kept = tuple(entry for entry in no_metric.OBLIGATIONS if entry.__name__ != name)
    assert len(kept) == 2
    monkeypatch.setattr(no_metric, "OBLIGATIONS", kept)
    assert verify_no_metric(system, proof).valid


def test_the_arrays_go_out_and_come_back():
    again = proof_from_arrays("no-quadratic-metric", _TRUE.to_arrays())
    assert verify_no_metric(RateNetwork(2.0001 * SKEW, "tanh"), again).valid


def test_what_is_not_attempted():
    big = np.zeros((LARGEST + 1, LARGEST + 1))
    big[:2, :2] = 4.0 * SKEW
    assert no_quadratic_metric(RateNetwork(big, "tanh")) is None
    assert no_quadratic_metric(RateNetwork(scipy.sparse.csr_array(4.0 * SKEW), "tanh")) is None
    assert not verify_no_metric(RateNetwork(scipy.sparse.csr_array(4.0 * SKEW), "tanh"), _TRUE).valid
    assert no_quadratic_metric(RateNetwork(4.0 * SKEW, "tanh"), stop=lambda: True) is None


def test_cvxpy_is_not_needed_and_the_answer_is_deterministic(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    W = np.random.default_rng(5).standard_normal((6, 6))
    first, second = no_quadratic_metric(RateNetwork(W, "relu")), no_quadratic_metric(RateNetwork(W, "relu"))
    assert first is not None
    for left, right in zip(first.to_arrays().values(), second.to_arrays().values(), strict=True):
        assert np.array_equal(left, right)
