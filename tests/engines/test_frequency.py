"""The search over the frequency response, for every kind of Lur'e system.

Judges: cvxpy with Clarabel on the inequality itself; closed forms; the field of values; sweeps of the curve on a dense
grid; the verifier; rational arithmetic for the dual columns. None of them shares code with the search.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from certes.conditions.reference import reduced
from certes.conditions.uniform import lure_proof
from certes.engines import conic, sdp
from certes.engines.frequency import Optimum, optimise
from certes.engines.hamiltonian import Form
from certes.engines.monitor import Monitor
from certes.engines.occupation import holds
from certes.engines.peaks import best
from certes.engines.response import Response
from certes.engines.sdp import Inequality
from certes.proofs import Claims, LevelBound, LureBound
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.verify import verify_contraction
from certes.verify.bound import verify_bound
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = (
    "rate",
    "hopfield",
    "rate map",
    "hopfield map",
    "shifted rate",
    "shifted hopfield map",
    "recurrent",
    "lure",
    "lure map",
    "lure step",
)


def build(kind: str, n: int, seed: int, size: float = 0.9) -> System:
    """A random system: time constants, leaky relu, slopes of gelu, assemblies, more or fewer channels than states."""
    random = np.random.default_rng(seed)
    W = random.normal(size=(n, n))
    W *= size / np.linalg.norm(W, 2)
    tau = random.uniform(0.4, 3.0, n)
    m = int(random.integers(1, n + 2))
    A = -np.eye(n) + 0.4 * random.normal(size=(n, n)) / np.sqrt(n)
    B, C = 0.4 * random.normal(size=(n, m)), 0.4 * random.normal(size=(m, n))
    return {
        "rate": lambda: RateNetwork(W, "tanh", tau=tau),
        "hopfield": lambda: HopfieldNetwork(W, "tanh", tau=tau),
        "rate map": lambda: RateNetwork(W, "relu", tau=tau, step=0.2),
        "hopfield map": lambda: HopfieldNetwork(W, "relu", tau=tau, step=0.2),
        "shifted rate": lambda: RateNetwork(W, slope=(0.2, 1.0)),
        "shifted hopfield map": lambda: HopfieldNetwork(W, slope=(-0.1, 1.1), step=0.5),
        "recurrent": lambda: RateNetwork(W, slope=(-0.1, 1.1), step=1.0),
        "lure": lambda: LureSystem(A, B, C, slope=(0.0, random.uniform(0.5, 1.0, m).tolist())),
        "lure map": lambda: LureSystem(0.4 * A, B, C, slope=(-0.2, 1.0), discrete=True),
        "lure step": lambda: LureSystem(A, B, C, activation="relu", step=0.1),
    }[kind]()


def unit(strength: float) -> float:
    return max(abs(strength), 0.05)


def by_solver(inequality: Inequality) -> float:
    """The best strength that cvxpy and Clarabel find; what they find is a score, so never too high."""
    n, m = inequality.B.shape

    def refine(point: sdp.Point) -> sdp.Point | None:
        strength = inequality.score(point.metric, point.multipliers)
        return sdp.Point(point.metric, point.multipliers, strength) if np.isfinite(strength) else None

    program = sdp.Margin(inequality, sdp.ClarabelBackend(), np.ones(n), np.ones(m))
    found = sdp.search(program, refine, sdp.Point(np.eye(n), np.ones(m)), Monitor(), tolerance=1e-7)
    assert found.point is not None
    return found.point.strength


def check(system: System, found: Optimum) -> None:
    """The score confirms the strength, and the verifier accepts certificate and bound."""
    inequality, dual = reduced(system), system.form == "hopfield"
    assert inequality.score(found.metric, found.multipliers) >= found.strength
    assert found.strength <= found.bound
    behind = found.strength - 1e-5 * unit(found.strength)
    claims = Claims(rate=behind) if system.continuous else Claims(factor=-behind)
    if (behind > 0) if system.continuous else (0 < -behind < 1):
        assert verify_contraction(system, lure_proof(found.metric, found.multipliers, dual), claims).valid
    if found.columns is not None:
        bound = LevelBound(inequality.level(found.bound), LureBound(found.columns, dual))
        assert verify_bound(system, bound).valid


@pytest.mark.cases(14)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "seed"), [(1, 1), (2, 2), (3, 3), (5, 4)])
def test_the_optimum_is_the_solvers(kind: str, n: int, seed: int) -> None:
    system = build(kind, n, seed)
    found = optimise(reduced(system))
    check(system, found)
    reference = by_solver(reduced(system))
    assert found.strength >= reference - 3e-6 * unit(reference)
    # the other side: the solver's may stop early, the dual columns tell
    assert found.columns is not None or found.strength <= reference + 1e-5 * unit(reference)
    if found.columns is not None:
        assert found.bound - found.strength <= 1e-3 * unit(found.strength)


@settings(max_examples=25)
@given(st.sampled_from(KINDS), st.integers(1, 8), st.integers(0, 10**6), st.sampled_from([0.3, 0.9, 2.0]))
def test_every_certificate_and_every_bound_is_verified(kind: str, n: int, seed: int, size: float) -> None:
    system = build(kind, n, seed, size)
    found = optimise(reduced(system))
    assert found.stopped == "tolerance"
    check(system, found)


@pytest.mark.parametrize(("n", "m", "seed"), [(1, 1, 1), (2, 3, 2), (3, 2, 3)])
@pytest.mark.parametrize("continuous", [True, False])
def test_columns_prove_the_bound_in_rational_arithmetic(n: int, m: int, seed: int, continuous: bool) -> None:
    random = np.random.default_rng(seed)
    A = random.normal(size=(n, n)) - (2.0 * np.eye(n) if continuous else 0.0)
    B, C = random.normal(size=(n, m)), random.normal(size=(m, n))
    found = optimise(Inequality(A, B, C, np.ones(m), continuous))
    assert found.columns is not None

    def exact(matrix: np.ndarray) -> np.ndarray:
        return np.vectorize(Fraction, otypes=[object])(matrix)

    Y, level = exact(found.columns), Fraction(found.bound)
    X, V = Y[:n], Y[n:]
    moved = exact(A) @ X + exact(B) @ V
    half = moved @ X.T
    S = half + half.T + 2 * level * X @ X.T if continuous else moved @ moved.T - level * level * X @ X.T
    seen = exact(C) @ X
    assert all(sum(row) >= 0 for row in seen * V - V * V)
    for k in range(n):  # elimination: every pivot is positive
        assert S[k, k] > 0
        S[k + 1 :, k:] = S[k + 1 :, k:] - np.outer(S[k + 1 :, k] / S[k, k], S[k, k:])


# --- closed forms


@pytest.mark.parametrize("w", [1.0, 1.9, 2.5, 4.0])
def test_skew_coupling(w: float) -> None:
    W, eye, one = np.array([[0.0, -w], [w, 0.0]]), np.eye(2), np.ones(2)
    assert optimise(Inequality(-eye, eye, W, one, True)).strength == pytest.approx(1 - w / 2, abs=1e-6)
    assert optimise(Inequality(0 * eye, eye, W, one, False)).strength == pytest.approx(-w, rel=1e-6)


@settings(max_examples=30)
@given(st.integers(-200, 200), st.integers(-300, 300), st.integers(1, 20))
def test_scalar_systems_are_as_good_as_their_worst_slope(a: float, w: float, gap: float) -> None:
    a, w, gap = a / 100, w / 100, gap / 10
    slopes = np.array([a, a + gap * w])
    one = np.ones((1, 1))
    rate = optimise(Inequality(a * one, one, w * one, np.array([gap]), True))
    assert rate.strength == pytest.approx(-slopes.max(), abs=2e-6 * max(1.0, abs(a), abs(gap * w)))
    factor = optimise(Inequality(a * one, one, w * one, np.array([gap]), False))
    assert factor.strength == pytest.approx(-np.abs(slopes).max(), abs=2e-6 * max(1.0, abs(a), abs(gap * w)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", [conic.Rate(), conic.Factor(1.0), conic.Factor(0.4)])
def test_for_uniform_leak_the_multipliers_give_what_cyclic_reduction_says(family: conic.Family, seed: int) -> None:
    W, eye = 0.4 * np.random.default_rng(seed).normal(size=(5, 5)), np.eye(5)
    continuous = isinstance(family, conic.Rate)
    a = 1.0 if isinstance(family, conic.Rate) else family.a
    drift = -eye if continuous else (1 - a) * eye
    found = optimise(Inequality(drift, a * eye, W, np.ones(5), continuous))
    best_level = conic.best_level(conic.scaled(W, found.multipliers), family)
    assert best_level is not None
    assert found.strength == pytest.approx(best_level if continuous else -best_level, rel=1e-5)


# --- laws


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.booleans())
def test_states_channels_time_and_transposition_change_nothing(seed: int, continuous: bool) -> None:
    random = np.random.default_rng(seed)
    n, m = int(random.integers(1, 5)), int(random.integers(1, 5))
    A = random.normal(size=(n, n)) - (2.0 * np.eye(n) if continuous else 0.0)
    B, C, gap = random.normal(size=(n, m)), random.normal(size=(m, n)), random.uniform(0.2, 1.0, m)
    strength = optimise(Inequality(A, B, C, gap, continuous)).strength
    near = pytest.approx(strength, rel=3e-6, abs=3e-6)
    d, e = 10.0 ** random.uniform(-4, 4, n), 10.0 ** random.uniform(-4, 4, m)
    scaled = Inequality(A * d[:, None] / d, B * d[:, None] / e, C * e[:, None] / d, gap, continuous)
    assert optimise(scaled).strength == near
    assert optimise(Inequality(A.T, C.T, B.T, gap, continuous)).strength == near
    slow = Inequality(A / 64, B / 64 if continuous else B / 8, C if continuous else C / 8, gap, continuous)
    assert 64 * optimise(slow).strength == near


def test_the_exact_test_agrees_with_a_dense_sweep() -> None:
    grid = np.linspace(0.0, np.pi, 1501)
    for seed in range(12):
        random = np.random.default_rng(seed)
        continuous = bool(seed % 2)
        A = random.normal(size=(4, 4)) - (3.0 * np.eye(4) if continuous else 0.0)
        B, C = random.normal(size=(4, 3)), random.normal(size=(3, 4))
        response = Response(Inequality(A, B, C, np.ones(3), continuous))
        q = np.exp(random.normal(size=3))
        angles = np.tan(0.4999 * grid) * response.size if continuous else grid
        peak = best(response, q, response.ceiling - 1e-6 * response.size, response.grid())

        def largest(strength: float, response=response, q=q, angles=angles) -> float:
            worst = -np.inf
            for angle in angles:
                z = response.point(strength, angle)
                G = response.C @ np.linalg.solve(z * np.eye(4) - response.A, response.B)
                S = np.sqrt(q)[:, None] * G / np.sqrt(q)
                worst = max(worst, float(np.linalg.eigvalsh(0.5 * (S + S.conj().T))[-1]))
            return worst

        assert largest(peak.strength) <= 1 + 1e-7
        assert largest(peak.strength + 1e-3 * abs(peak.strength)) > 1


@pytest.mark.parametrize("continuous", [True, False])
def test_the_metric_is_strictly_between_the_extreme_solutions(continuous: bool) -> None:
    random = np.random.default_rng(5)
    A = 0.4 * random.normal(size=(4, 4)) - (np.eye(4) if continuous else 0.0)
    inequality = Inequality(A, 0.3 * np.eye(4), 0.3 * random.normal(size=(4, 4)), np.ones(4), continuous)
    response, q = Response(inequality), np.ones(4)
    peak = best(response, q, response.ceiling - 1e-6, response.grid())
    for back in (1e-4, 1e-2, 0.1):
        metric = Form.at(response, peak.strength - back).metric(q)
        assert metric is not None
        assert inequality.score(metric, q) > peak.strength - back
    above = Form.at(response, peak.strength + 1e-3).metric(q)  # a split of the spectrum can be luck
    assert above is None or inequality.score(above, q) < peak.strength + 1e-3


# --- limits and degenerate systems


def test_targets_are_reached_or_known_to_be_out_of_reach() -> None:
    inequality = reduced(build("rate", 5, 4))
    top = optimise(inequality).strength
    easy = optimise(inequality, target=0.5 * top)
    assert easy.stopped == "target"
    assert easy.strength > 0.5 * top
    hard = optimise(inequality, target=2.0 * top)
    assert hard.stopped == "target"
    assert hard.bound < 2.0 * top
    assert hard.columns is not None


def test_a_deadline_and_a_cancellation_end_the_search() -> None:
    inequality = reduced(build("rate", 6, 7))
    assert optimise(inequality, monitor=Monitor(seconds=0.0)).stopped == "deadline"
    cancelled = optimise(inequality, monitor=Monitor(cancelled=lambda: True))
    assert cancelled.stopped == "cancelled"
    assert inequality.score(cancelled.metric, cancelled.multipliers) >= cancelled.strength > -np.inf


def test_the_start_is_used_and_the_result_is_deterministic() -> None:
    inequality = reduced(build("shifted rate", 5, 8))
    first, second = optimise(inequality), optimise(inequality)
    np.testing.assert_array_equal(first.metric, second.metric)
    again = optimise(inequality, start=first.multipliers)
    assert again.strength == pytest.approx(first.strength, rel=1e-6)
    assert optimise(inequality, start=np.array([np.nan] * 5)).strength == pytest.approx(first.strength, rel=1e-6)


def degenerate() -> dict[str, tuple[Inequality, float]]:
    """Systems with an edge, and a strength that must be reached."""
    random = np.random.default_rng(0)
    A, B = -np.eye(4) + 0.3 * random.normal(size=(4, 4)), 0.3 * random.normal(size=(4, 3))
    C = random.normal(size=(3, 4))
    top = -float(np.linalg.eigvals(A).real.max())
    apart, idle = np.diag([-1.0, -2.0, -3.0]), np.diag([0.5, 0.3, 0.0])
    blind, cut = C.copy(), A.copy()
    blind[:, :2], cut[2:, :2] = 0.0, 0.0
    rest = -float(np.linalg.eigvals(cut).real.max())
    one, nil = np.ones, np.triu(np.full((5, 5), 3.0), 1)
    narrow = np.outer([1.0, 2.0, 0.0], [0.3, 0.0, 1.0])
    return {
        "no input": (Inequality(A, 0 * B, C, one(3), True), top - 1e-4),
        "no output": (Inequality(A, B, 0 * C, one(3), True), top - 1e-4),
        "no slope": (Inequality(A, B, C, 0 * one(3), True), top - 1e-4),
        "unstable": (Inequality(A + 40 * np.eye(4), 0.1 * B, 0.1 * C, one(3), True), top - 40.5),
        "unobservable": (Inequality(cut, 0.1 * B, 0.1 * blind, one(3), True), rest - 0.1),
        "decoupled": (Inequality(apart, np.eye(3), idle, one(3), True), 0.5 - 1e-6),
        "nilpotent": (Inequality(-np.eye(5), np.eye(5), nil, one(5), True), 0.95),
        "nilpotent map": (Inequality(0.3 * np.eye(5), 0.7 * np.eye(5), nil, one(5), False), -0.36),
        "rank one": (Inequality(-np.eye(3), np.eye(3), narrow, one(3), True), 0.699),
        "nothing": (Inequality(np.zeros((2, 2)), np.zeros((2, 1)), np.zeros((1, 2)), one(1), True), -1e-6),
        "nothing, map": (Inequality(np.zeros((2, 2)), np.zeros((2, 1)), np.zeros((1, 2)), one(1), False), -1e-6),
        "small": (Inequality(1e-100 * A, 1e-100 * B, 0.1 * C, one(3), True), 1e-101),
    }


@pytest.mark.parametrize("name", degenerate())
def test_degenerate_systems(name: str) -> None:
    inequality, least = degenerate()[name]
    found = optimise(inequality)
    assert least <= found.strength <= found.bound
    assert inequality.score(found.metric, found.multipliers) >= found.strength
    assert np.isfinite(found.metric).all()
    assert (found.multipliers > 0).all()


@pytest.mark.parametrize("factor", [1e60, 1e120])
@pytest.mark.parametrize("continuous", [True, False])
def test_very_large_weights_end_without_an_exception(factor: float, continuous: bool) -> None:
    weights = factor * np.array([[1.0, 2.0], [3.0, 1.0]])
    found = optimise(Inequality(-0.5 * np.eye(2), np.eye(2), weights, np.ones(2), continuous))
    assert not found.strength > 0.0


def test_columns_of_another_level_do_not_hold() -> None:
    inequality = reduced(build("rate", 4, 9))
    found = optimise(inequality)
    assert found.columns is not None
    response = Response(inequality)
    assert holds(response, found.columns, found.bound)
    assert not holds(response, found.columns, found.strength - 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [20, 50])
def test_larger_systems_have_a_verified_certificate_and_a_proven_gap(kind: str, n: int) -> None:
    system = build(kind, n, 10 + n)
    found = optimise(reduced(system))
    check(system, found)
    if len(system.slope.lower) >= n:  # fewer channels than states excite some states too little for a proof
        assert found.columns is not None
        assert found.bound - found.strength <= 1e-3 * unit(found.strength)
