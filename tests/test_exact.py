"""The exact audit against the brute judge and against the verifier."""

from __future__ import annotations

import builtins
import importlib
import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from certes.activations import ACTIVATIONS
from certes.errors import MissingExtraError
from certes.exact import audit, audit_witness
from certes.exact.instability import PIECES, SMOOTH, derivative
from certes.exact.rationals import equilibrate, matrix, positive_definite, positive_semidefinite
from certes.proofs import Claims, InstabilityWitness, LureProof, SymmetricProof
from certes.systems import LureSystem, RateNetwork
from certes.verify import verify_contraction, verify_instability
from hypothesis import given
from hypothesis import strategies as st

from tests.judges import rational
from tests.verify import bound_candidates
from tests.verify.families import candidates
from tests.verify.near_boundary import (
    absolute,
    bounds,
    lure_level,
    margins,
    proof_of,
    radius,
    singular,
    symmetric,
)

BOUNDS = (bound_candidates.conic, bound_candidates.norm, bound_candidates.lure, bound_candidates.misplaced)
FEW = (lure_level, radius, bounds, margins, symmetric, singular, absolute, *BOUNDS)


@pytest.mark.slow
def test_audit_and_judge_agree_on_candidates_near_the_boundary() -> None:
    """Two programs that share no formula: blocks against Schur complements, balls against elimination."""
    answers = {True: 0, False: 0}
    for name, candidate in itertools.chain(candidates(11, 0, FEW), candidates(11, 1, FEW[4:])):
        report = audit(candidate.system, candidate.proof, candidate.claims)
        assert report.reason != "exact-audit-undecided", name
        assert report.valid == (not candidate.failures()), (name, report, candidate.failures())
        answers[report.valid] += 1
    assert min(answers.values()) > 200, answers


def test_the_audit_holds_whatever_the_verifier_holds() -> None:
    for name, candidate in candidates(12, 0, FEW[:3]):
        if verify_contraction(candidate.system, candidate.proof, candidate.claims).valid:
            assert audit(candidate.system, candidate.proof, candidate.claims).valid, name


def determinant(entries: list[list[Fraction]]) -> Fraction:
    if not entries:
        return Fraction(1)
    head, *tail = entries
    minors = ([row[:k] + row[k + 1 :] for row in tail] for k in range(len(head)))
    return sum((-1) ** k * x * determinant(minor) for k, (x, minor) in enumerate(zip(head, minors, strict=True)))


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.integers(-4, 4), min_size=n * n, max_size=n * n)))
def test_definiteness_is_sylvesters(entries: list[int]) -> None:
    """Audit and judge against the signs of all principal minors, in Python's own fractions."""
    n = math.isqrt(len(entries))
    half = np.array(entries, dtype=float).reshape(n, n)
    for given_matrix in (half + half.T, half @ half.T, half @ half.T + np.eye(n) / 8):
        exact = [[Fraction(x) for x in row] for row in given_matrix.tolist()]
        subsets = [chosen for size in range(1, n + 1) for chosen in itertools.combinations(range(n), size)]
        minors = {chosen: determinant([[exact[i][j] for j in chosen] for i in chosen]) for chosen in subsets}
        definite = all(minors[tuple(range(size))] > 0 for size in range(1, n + 1))
        semidefinite = all(minor >= 0 for minor in minors.values())
        assert positive_definite(matrix(given_matrix)) is definite
        assert rational.definite(rational.rows(given_matrix)) is definite
        assert positive_semidefinite(matrix(given_matrix)) is semidefinite
        assert rational.semidefinite(rational.rows(given_matrix)) is semidefinite


@pytest.mark.parametrize("size", [30, 90])
def test_one_unit_in_the_last_place_decides(size: int) -> None:
    """L L^T with a zero last pivot, integers; then its last entry one unit up and one down."""
    rng = np.random.default_rng(size)
    L = np.tril(rng.integers(-3, 4, (size, size))).astype(float)
    np.fill_diagonal(L, 1.0)
    L[-1, -1] = 0.0
    singular_matrix = L @ L.T
    assert positive_definite(matrix(singular_matrix)) is False
    assert positive_semidefinite(matrix(singular_matrix)) is True
    for toward, answer in ((np.inf, True), (0.0, False)):
        moved = singular_matrix.copy()
        moved[-1, -1] = np.nextafter(moved[-1, -1], toward)
        assert positive_definite(matrix(moved)) is answer
        assert positive_semidefinite(matrix(moved)) is answer


def test_a_tie_too_large_for_the_exact_answer_is_undecided() -> None:
    size = 100
    L = np.tril(np.ones((size, size)))
    np.fill_diagonal(L, 3.0)  # pivots 9: their reciprocals are not exact in any binary precision
    L[-1, -1] = 0.0
    system = RateNetwork(-(L @ L.T), slope=(0.0, 1.0))
    report = audit(system, SymmetricProof(True), Claims(rate=0.5))
    assert report.verdict == "undecided"
    assert report.reason == "exact-audit-undecided"
    assert report.failed is not None
    assert report.failed.name == "definite"


def test_a_block_beyond_the_limit_is_undecided() -> None:
    system = RateNetwork(np.zeros((5, 5)), slope=(0.0, 1.0))
    proof, claims = proof_of(np.eye(5)), Claims(rate=0.4)
    assert audit(system, proof, claims).valid
    report = audit(system, proof, claims, limit=9)
    assert (report.verdict, report.reason) == ("undecided", "exact-audit-undecided")
    assert "10" in report.detail
    assert audit(system, proof, claims, limit=10).valid


def test_a_step_is_its_exact_float() -> None:
    """x+ = (1 - h) x: rho = 1 - h holds for the float h, and not for any rho below."""
    step = 0.1
    system = RateNetwork(np.zeros((1, 1)), slope=(0.0, 0.0), step=step)
    kept = 1 - Fraction(step)
    above = float(kept) if Fraction(float(kept)) > kept else np.nextafter(float(kept), 1.0)
    proof = LureProof(np.ones((1, 1)), np.array([1e40]), False, 0.0, math.inf, 0.0, 0.0)
    assert audit(system, proof, Claims(factor=above)).valid
    assert not audit(system, proof, Claims(factor=float(np.nextafter(above, 0.0)))).valid


def test_equilibration_reaches_both_ends_of_the_float_range() -> None:
    scaled = equilibrate(matrix(np.diag([5e-324, 1.0, 1.7e308, 2.0, 4.0])))
    assert scaled is not None
    assert all(1 <= 2 * scaled[k, k] <= 4 for k in range(5))
    assert equilibrate(matrix(np.diag([1.0, 0.0]))) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_fail(bad: float) -> None:
    system, proof, claims = RateNetwork(np.zeros((1, 1)), slope=(0.0, 1.0)), proof_of(np.ones((1, 1))), Claims(rate=0.4)
    assert audit(system, proof, claims).valid
    broken = [(replace(proof, metric=np.full((1, 1), bad)), claims), (replace(proof, slack_state=bad), claims)]
    broken += [(proof, replace(claims, **{name: bad})) for name in ("rate", "margin", "gain", "weight_radius")]
    for changed, claimed in broken:
        assert audit(system, changed, claimed).reason == "obligation-failed"


def witness(slope: float, X: float, growth: float) -> InstabilityWitness:
    one = np.ones(1)
    return InstabilityWitness(
        0.0 * one, slope * one, np.full((1, 1), X), one, growth, 0.0 * one, 1e-3 * one, -1e-3 * one, 20.0
    )


def test_a_witness_is_audited_to_the_last_unit() -> None:
    """x' = (2 d - 1) x with d in [0, 1]: growth 1 at d = 1, and nothing below d = 1/2."""
    system = LureSystem([[-1.0]], [[2.0]], [[1.0]], slope=(0.0, 1.0))
    assert audit_witness(system, witness(1.0, -1.0, 0.5)).verdict == "not_contracting"
    assert verify_instability(system, witness(1.0, -1.0, 0.5)).verdict == "not_contracting"
    below, edge = float(np.nextafter(1.0, 0.0)), 1.0
    assert audit_witness(system, witness(1.0, -1.0, below)).valid
    for wrong in (
        witness(1.0, -1.0, edge),
        witness(1.0, 1.0, 0.5),
        witness(0.5, -1.0, 0.0),
        witness(1.0 + 2.0**-52, -1.0, 0.5),
        witness(1.0, -1.0, -0.5),
        witness(1.0, math.nan, 0.5),
    ):
        assert not audit_witness(system, wrong).valid
        assert not verify_instability(system, wrong).valid


def test_a_witness_of_a_smooth_activation_uses_its_true_derivative() -> None:
    """x' = -x + tanh(3 x): slope 3 (1 - tanh(s)^2) - 1 at s, positive near 0 only."""
    system = RateNetwork([[3.0]], activation="tanh")
    near = replace(witness(1.0, -1.0, 1.0), points=np.array([0.1]))
    far = replace(near, points=np.array([2.0]))
    assert audit_witness(system, near).valid
    assert not audit_witness(system, far).valid
    kink = RateNetwork([[3.0]], activation="relu")
    assert audit_witness(kink, near).valid
    assert not audit_witness(kink, replace(near, points=np.zeros(1))).valid


def test_every_activation_has_a_derivative_here() -> None:
    assert set(ACTIVATIONS) == SMOOTH.keys() | PIECES.keys()
    for name, entry in ACTIVATIONS.items():
        for point in (-7.3, -1.5, -0.4, 0.3, 1.7, 6.5):
            ball = derivative(name, point)
            assert ball is not None
            assert abs(float(ball.mid()) - float(entry.derivative(np.array([point]))[0])) < 1e-12, (name, point)
    assert float(derivative("leaky_relu:0.25", -1.0)) == 0.25
    assert derivative("relu", 0.0) is None


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *rest: object) -> object:
        if name == "flint":
            raise ImportError(name)
        return builtins.__import__(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    system = RateNetwork(np.zeros((1, 1)), slope=(0.0, 1.0))
    with pytest.raises(MissingExtraError, match=r"certes\[exact\]"):
        audit(system, proof_of(np.ones((1, 1))), Claims(rate=0.4))
