"""Bounds on what ``lure`` can prove, judged by closed forms, semidefinite programs, and proofs that reach further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from certes.proofs import Claims, ConicBound, LevelBound, LureBound, LureProof, NormBound, SingularProof
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.verify import bound as module
from certes.verify import contraction, verify_bound, verify_contraction
from certes.verify.report import Check, Report
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.judges.bounds import bound_failures
from tests.verify.bounding import best_level, conic_bound, lmi_margin, lure_bound, norm_bound

Array = np.ndarray[Any, Any]
NEAR = 1e-9
QUIET = {"slope": (0.0, 1.0)}


def holds(system: System, bound: LevelBound) -> bool:
    report = verify_bound(system, bound)
    assert report.verdict == "undecided"
    assert report.valid == all(check.held for check in report.checks)
    return report.valid


def conic(level: float, u: complex, *columns: Array) -> LevelBound:
    y = np.column_stack(columns).astype(complex)
    points = np.full(y.shape[1], u)
    return LevelBound(level, ConicBound(points.real.copy(), points.imag.copy(), y.real.copy(), y.imag.copy()))


# the truth in closed form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
@pytest.mark.parametrize("tau", [1.0, 0.3, 7.0])
@pytest.mark.parametrize("w", [0.5, 2.0, 5.0])
def test_skew_coupling(form: Any, tau: float, w: float) -> None:
    """W = [[0, -w], [w, 0]]: the best rate is (1 - w / 2) / tau, negative rates included."""
    system = form([[0.0, -w], [w, 0.0]], tau=tau, **QUIET)
    y = np.array([1.0, -1j]) if form is RateNetwork else np.array([1.0, 1j])
    truth = (1 - w / 2) / tau
    assert holds(system, conic(truth + NEAR * w, -1j, y))
    assert not holds(system, conic(truth - NEAR * w, -1j, y))
    assert not holds(system, conic(truth + NEAR * w, 1j, y))
    assert lmi_margin(system, truth - 1e-3) > 0 > lmi_margin(system, truth + 1e-3)


@pytest.mark.parametrize("a", [0.25, 1.0, 1.5])
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_skew_coupling_as_a_map(a: float, tau: float) -> None:
    """rho w = (rho^2 - e^2) / a, e = 1 - a, at the angle where i w turns to the front."""
    w, e = 1.7, 1 - a
    system = RateNetwork([[0.0, -w], [w, 0.0]], tau=tau, step=a * tau, **QUIET)
    truth = (a * w + np.sqrt(a * a * w * w + 4 * e * e)) / 2
    y = np.array([1.0, -1j])
    assert holds(system, conic(truth - NEAR, -1j, y))
    assert not holds(system, conic(truth + NEAR, -1j, y))
    assert lmi_margin(system, truth + 1e-3) > 0 > lmi_margin(system, truth - 1e-3)


@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_symmetric_weights(form: Any, seed: int) -> None:
    """W = W^T, slopes [0, g]: the best rate is 1 - g lambda_max (lambda_max > 0); the eigenvector is the column."""
    rng = np.random.default_rng(seed)
    n, g = int(rng.integers(1, 7)), float(rng.uniform(0.3, 2.0))
    W = rng.normal(size=(n, n))
    W = W + W.T
    values, vectors = np.linalg.eigh(W)
    if values[-1] < 0.1:
        return
    system, truth = form(W, slope=(0.0, g)), 1 - g * values[-1]
    y, near = vectors[:, -1], NEAR * (1 + g * np.abs(values).max()) * 10
    occupied = np.abs(y) > 1e-3  # near a zero the eigenvector's own rounding decides
    assert not occupied.all() or holds(system, conic(truth + near * 100, 1.0, y))
    assert not holds(system, conic(truth - near, 1.0, y))


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_nonnegative_weights_as_a_discrete_network(seed: int) -> None:
    """W >= 0, x+ = phi(W x): the best factor is the Perron root of diag(g) W."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    g, W = rng.uniform(0.3, 1.5, n), rng.uniform(0.1, 1.0, (n, n))
    values, vectors = np.linalg.eig(g[:, None] * W)
    k = int(np.argmax(values.real))
    truth, y = float(values[k].real), np.abs(vectors[:, k].real)
    system = RateNetwork(W, slope=(np.zeros(n), g), step=1.0)
    assert holds(system, conic(truth * (1 - NEAR), 1.0, y))
    assert not holds(system, conic(truth * (1 + NEAR), 1.0, y))


@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
@pytest.mark.parametrize("step", [None, 0.3, 1.6])
def test_rotation_with_slopes_of_both_signs(form: Any, step: float | None) -> None:
    """W a multiple w of a rotation, slopes [-1, 1]: no scaling makes its norm smaller than w."""
    w, tau = 0.8, 2.0
    a = None if step is None else step / tau
    system = form([[0.0, -w], [w, 0.0]], slope=(-1.0, 1.0), tau=tau, step=step)
    truth = (1 - w) / tau if a is None else abs(1 - a) + a * w
    away = NEAR if a is None else -NEAR
    for columns in (np.eye(2), np.array([[3.0], [3.0]])):
        assert holds(system, LevelBound(truth + away, NormBound(columns)))
        assert not holds(system, LevelBound(truth - away, NormBound(columns)))


@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
@pytest.mark.parametrize("slopes", [[0.5, 1.0], [1.0, 0.5]])
def test_every_neuron_has_its_own_slopes(form: Any, slopes: list[float]) -> None:
    """W diagonal: each neuron is a network of its own, with the best rate 1 - g_i w_i; the slowest one binds."""
    W, g = np.diag([3.0, 1.0]), np.array(slopes)
    truth, one = 1 - float((g * np.diag(W)).max()), np.eye(2)[:, :1]
    for lower, proof in ((0 * g, conic(0.0, 1.0, one[:, 0]).proof), (-g, NormBound(one))):
        system = form(W, slope=(lower, g))
        assert holds(system, LevelBound(truth + NEAR, proof))
        assert not holds(system, LevelBound(truth - NEAR, proof))


# semidefinite programs ---------------------------------------------------------------------------------------------


def some_system(kind: str, seed: int) -> System:
    """Networks with their own slopes per neuron, time constants other than 1, steps below and above them."""
    rng = np.random.default_rng([seed, 3])
    n = 2 + seed % 2
    W, g, tau = 0.6 * rng.normal(size=(n, n)), rng.uniform(0.5, 1.5, n), float(rng.uniform(0.5, 3.0))
    step = (None, 0.4 * tau, 1.3 * tau)[seed % 3]
    form = (RateNetwork, HopfieldNetwork)[seed // 3 % 2]
    if kind == "conic":
        return form(W, slope=(np.zeros(n), g), tau=tau, step=step)
    if kind == "norm":
        return form(W, slope=(-g, g), tau=tau, step=step)
    if kind == "times":
        return form(W, slope=(-0.3 * g, g), tau=rng.uniform(0.5, 3.0, n), step=step)
    A, B, C = 0.3 * rng.normal(size=(n, n)) - np.eye(n), rng.normal(size=(n, n + 1)), rng.normal(size=(n + 1, n))
    return LureSystem(A, 0.4 * B, 0.4 * C, slope=(-0.2, 1.0), step=None if step is None else 0.5 * step / tau)


BUILDERS: dict[str, list[Callable[[System, float], tuple[LevelBound, float]]]] = {
    "conic": [lambda system, level: conic_bound(system, level, 48)],
    "norm": [norm_bound],
    "times": [],
    "lure": [],
}


@pytest.mark.cases(4)
@pytest.mark.parametrize("kind", list(BUILDERS))
@pytest.mark.parametrize(
    "seed", [0, 4, pytest.param(5, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_the_best_level_of_a_semidefinite_program_parts_true_from_false(kind: str, seed: int) -> None:
    """1e-3 beyond the best level some bound is proven; 1e-3 short of it none, however good its columns."""
    system = some_system(kind, seed)
    best = best_level(system, -20.0, 5.0) if system.continuous else best_level(system, 40.0, 0.0)
    away = 2e-3 if system.continuous else -2e-3
    general = [lambda s, level, dual=dual: lure_bound(s, level, dual) for dual in (False, True)]
    for build in [*BUILDERS[kind], *general]:
        bound, slack = build(system, best + away)
        assert slack > 0
        assert holds(system, bound)
        assert not bound_failures(system, bound)
        bound, slack = build(system, best - away)
        assert slack < 0
        assert not holds(system, bound)


@settings(max_examples=40)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_no_bound_is_proven_at_a_level_that_a_proof_reaches(data: Any, seed: int) -> None:
    """Whatever the columns: eigenvectors, noise, sparse, of any size."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    W = rng.normal(size=(n, n))
    W *= 0.7 / np.linalg.norm(W, 2)
    form = data.draw(st.sampled_from([RateNetwork, HopfieldNetwork]))
    both, step = data.draw(st.booleans()), data.draw(st.sampled_from([None, 0.5, 1.0]))
    system = form(W, slope=(-1.0 if both else 0.0, 1.0), step=step)
    reached = Claims(rate=0.25) if step is None else Claims(factor=abs(1 - step) + 0.75 * step)
    proof = SingularProof(np.ones(n), 0.74)  # the step is certified with its neighbours
    assert verify_contraction(system, proof, reached).valid
    level = 0.25 if step is None else abs(1 - step) + 0.75 * step
    level = level - data.draw(st.sampled_from([0.0, 1e-12, 0.1])) * (1 if step is None else -1)
    eigen = np.linalg.eig(W)[1]
    y = eigen + rng.normal(size=(n, n)) * data.draw(st.sampled_from([0.0, 1e-8, 1.0]))
    y = y * 10.0 ** rng.uniform(-30, 30) * (rng.random(y.shape) < data.draw(st.sampled_from([0.5, 1.0])))
    angles = rng.uniform(0, 2 * np.pi, n)
    bounds = [
        ConicBound(np.cos(angles) * (1 - 2**-50), np.sin(angles) * (1 - 2**-50), y.real.copy(), y.imag.copy()),
        NormBound(np.hstack([y.real, y.imag])),
        LureBound(np.vstack([np.hstack([y.real, y.imag]), rng.normal(size=(n, 2 * n))]), bool(seed % 2)),
    ]
    for bound in bounds:
        claim = LevelBound(level, bound)
        assert not holds(system, claim)
        assert not verify_contraction(system, proof, replace(reached, bound=claim)).valid


# laws --------------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), slip=st.sampled_from([1e-7, -1e-7]))
def test_laws(seed: int, slip: float) -> None:
    """Permutation, units of state, time and columns change nothing; rate and transposed hopfield networks agree."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 5))
    W, g = rng.normal(size=(n, n)), rng.uniform(0.5, 1.5, n)
    values, vectors = np.linalg.eig(g[:, None] * W)
    k = int(np.argmax(np.abs(values) + values.real))
    modulus, y = abs(values[k]), vectors[:, k]
    if np.abs(y).min() < 1e-3 or modulus + values[k].real < 0.1:
        return
    u = np.conj(values[k]) / modulus * (1 - 2.0**-50)
    level = 1 - (modulus + values[k].real) / 2 + slip

    def says(form: Any, weights: Array, slopes: Array, column: Array, tau: float = 1.0) -> bool:
        system = form(weights, slope=(np.zeros(n), slopes), tau=tau)
        return holds(system, conic(level / tau, u, column))

    expected = slip > 0
    order, units = rng.permutation(n), 2.0 ** rng.integers(-20, 20, n)
    assert says(RateNetwork, W, g, y) == expected
    assert says(RateNetwork, W, g, y, tau=4.0) == expected
    assert says(RateNetwork, W, g, y * (3 - 4j) * 1e20) == expected
    assert says(RateNetwork, W[np.ix_(order, order)], g[order], y[order]) == expected
    assert says(RateNetwork, W * units[:, None] / units, g, y * units) == expected
    assert says(HopfieldNetwork, W.T, g, y) == expected


# the leak, and states at rest --------------------------------------------------------------------------------------


def poor(n: int) -> list[Any]:
    """Columns that prove nothing."""
    return [ConicBound(np.zeros(1), np.zeros(1), np.ones((n, 1)), np.zeros((n, 1))), LureBound(np.eye(2 * n), False)]


@pytest.mark.parametrize("proof", poor(2))
def test_nothing_outpaces_the_leak(proof: Any) -> None:
    system = RateNetwork(-np.eye(2), tau=2.0, **QUIET)
    assert holds(system, LevelBound(0.5, proof))
    assert holds(system, LevelBound(100.0, proof))
    assert not holds(system, LevelBound(np.nextafter(0.5, 0.0), proof))
    euler = RateNetwork(-np.eye(2), tau=2.0, step=0.5, **QUIET)
    assert holds(euler, LevelBound(0.75, proof))
    assert not holds(euler, LevelBound(np.nextafter(0.75, 1.0), proof))
    fast = RateNetwork(-10 * np.eye(2), slope=(0.5, 1.0))  # slope 0 is not allowed: rates up to 6
    assert verify_contraction(
        fast, LureProof(np.eye(2), np.full(2, 0.1), False, 0, np.inf, 0, 0), Claims(rate=5.0)
    ).valid
    assert not any(
        holds(fast, LevelBound(level, LureBound(np.eye(4), dual))) for level in (1.0, 5.0) for dual in (False, True)
    )


def test_the_slowest_neuron_binds() -> None:
    system = RateNetwork(0.1 * np.ones((2, 2)), tau=[1.0, 4.0], **QUIET)
    assert holds(system, LevelBound(0.25, LureBound(np.eye(4), False)))
    assert not holds(system, LevelBound(0.249, LureBound(np.eye(4), False)))


def test_states_at_rest_are_left_out() -> None:
    """Two networks that feed forward into a third neuron: the skew pair alone sets the bound."""
    W = np.zeros((3, 3))
    W[:2, :2], W[2, :2] = [[0.0, -2.5], [2.5, 0.0]], 1.0
    system = RateNetwork(W, tau=[1.0, 1.0, 0.5], **QUIET)
    t = 1.249
    X = np.array([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]])
    V = np.array([[t, t], [t, -t], [0.0, 0.0]])
    assert holds(system, LevelBound(-0.248, LureBound(np.vstack([X, V]), False)))
    assert not holds(system, LevelBound(-0.26, LureBound(np.vstack([X, V]), False)))
    moved = np.vstack([X, V])
    moved[5, 0] = 0.5  # the third nonlinearity would drive the third state
    assert not holds(system, LevelBound(-0.248, LureBound(moved, False)))


# every obligation counts -------------------------------------------------------------------------------------------

_STABLE = LureSystem(
    [[1.0, -10.0], [10.0, -3.0]], np.zeros((2, 1)), np.zeros((1, 2)), **QUIET
)  # eigenvalues -1 +- 9.8i
_CALM = RateNetwork(np.zeros((1, 1)), **QUIET)
_BOTH = RateNetwork(np.zeros((1, 1)), slope=(-1.0, 1.0))
_ONE = np.ones((1, 1))

#: Obligation -> a false bound that no other obligation notices.
FALSE: dict[str, tuple[System, LevelBound]] = {
    "conic_shapes": (_CALM, conic(0.5, 1.0, np.zeros(1))),
    "conic_points": (RateNetwork([[0.5]], **QUIET), conic(0.25, 9.0, np.ones(1))),
    "conic_columns": (_CALM, conic(0.5, 1.0, np.ones(1))),
    "norm_shapes": (_BOTH, LevelBound(0.5, NormBound(0 * _ONE))),
    "norm_columns": (_BOTH, LevelBound(0.5, NormBound(_ONE))),
    "lure_shapes": (_STABLE, LevelBound(-0.5, LureBound(np.array([[1.0], [0.0], [0.0]]), False))),
    "lure_states": (_CALM, LevelBound(0.5, LureBound(np.array([[1.0], [0.0]]), False))),
    "lure_channels": (_CALM, LevelBound(0.5, LureBound(np.ones((2, 1)), False))),
}


def test_every_obligation_has_a_false_bound() -> None:
    named = [obligation.__name__ for entries in module.OBLIGATIONS.values() for obligation in entries]
    assert named == list(FALSE)


@pytest.mark.parametrize("name", list(FALSE))
def test_dropping_an_obligation_lets_a_false_bound_through(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, bound = FALSE[name]
    assert lmi_margin(system, bound.level) > 0  # false: such a certificate exists
    assert not holds(system, bound)
    kind = type(bound.proof)
    kept = [
        (lambda *_: Check("dropped", True)) if entry.__name__ == name else entry for entry in module.OBLIGATIONS[kind]
    ]
    monkeypatch.setitem(module.OBLIGATIONS, kind, tuple(kept))
    assert holds(system, bound)


@pytest.mark.parametrize("part", ["radius", "leak", "transposed"])
def test_dropping_a_part_lets_a_false_bound_through(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if part == "radius":  # sums as if nothing had been rounded: 0.1 * 0.1 + ... is not what it seems
        rng = np.random.default_rng(0)
        found = []
        for _ in range(400):
            w, y = rng.uniform(0.5, 2.0, 2)
            system, level = RateNetwork([[w]], **QUIET), 1 - w
            while bound_failures(system, conic(level, 1.0, np.array([y]))):
                level = np.nextafter(level, 2.0)
            short = conic(np.nextafter(level, -2.0), 1.0, np.array([y]))
            assert not holds(system, short)
            found.append((system, short))
        monkeypatch.setattr(
            module, "_every_row", lambda name, terms, *_: Check(name, bool((terms.mid.sum(axis=1) >= 0).all()))
        )
        assert any(holds(system, bound) for system, bound in found)
    elif part == "leak":
        assert not holds(_CALM, conic(0.5, 1.0, np.ones(1)))
        monkeypatch.setattr(module, "beyond_leak", lambda *_: True)
        assert holds(_CALM, conic(0.5, 1.0, np.ones(1)))
    else:  # W for W^T: a hopfield network with unequal slopes has other levels
        W, g = np.array([[0.0, 3.0], [0.2, 0.0]]), np.array([1.0, 0.1])
        right = HopfieldNetwork(W, slope=(np.zeros(2), g))
        assert best_level(right, -5.0, 1.0) == pytest.approx(1 - np.sqrt(0.06), abs=1e-3)


def test_a_bound_that_contradicts_its_proof_is_refused_before_it_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both cannot be true, so this decides only if the verifier of bounds were wrong: here it is made so."""
    monkeypatch.setattr(contraction, "verify_bound", lambda *_: Report("undecided"))
    proof = SingularProof(np.ones(1), 0.25)
    for system, claims, away in ((_BOTH, Claims(rate=0.5), 1), (_BOTH.with_step(1.0), Claims(factor=0.5), -1)):
        for shift, expected in ((1e-3, True), (0.0, False), (-1e-3, False)):
            claim = LevelBound(0.5 + away * shift, NormBound(_ONE))
            assert verify_contraction(system, proof, replace(claims, bound=claim)).valid == expected


# numbers that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 5e-324, 1e300, -1e300, 1e-300])
def test_extreme_numbers(value: float) -> None:
    """In any place: refused, or (finite) harmless."""
    system = RateNetwork([[0.0, -1.0], [1.0, 0.0]], **QUIET)
    good = conic(0.5 + NEAR, -1j, np.array([1.0, -1j]))
    assert holds(system, good)
    for name in ("cosine", "sine", "real", "imaginary"):
        array = np.array(getattr(good.proof, name))
        array.flat[0] = value
        changed = replace(good, proof=replace(good.proof, **{name: array}))  # type: ignore[type-var]
        assert not holds(system, changed) or not bound_failures(system, changed), (name, value)
        assert np.isfinite(value) or not holds(system, changed)
    assert holds(system, replace(good, level=value)) == (value == 1e300)
    assert not holds(system.with_step(1.0), replace(good, level=value)) or value < 0 or value == 1e-300
    for proof in (NormBound(np.full((2, 1), value)), LureBound(np.full((4, 4), value), False)):
        assert not holds(RateNetwork(system.W, slope=(-1.0, 1.0)), LevelBound(0.25, proof)) or value in (1e300, -1e300)


SHAPES = [
    ConicBound(np.zeros(0), np.zeros(0), np.zeros((2, 0)), np.zeros((2, 0))),
    ConicBound(np.zeros(1), np.zeros(2), np.ones((2, 1)), np.zeros((2, 1))),
    ConicBound(np.zeros(2), np.zeros(2), np.ones((2, 1)), np.zeros((2, 1))),
    ConicBound(np.zeros(1), np.zeros(1), np.ones((3, 1)), np.zeros((3, 1))),
    ConicBound(np.zeros(1), np.zeros(1), np.ones((1, 1)), np.zeros((1, 1))),
    NormBound(np.ones((2, 1))),  # slopes from 0
    LureBound(np.ones((3, 1)), False),
    LureBound(np.ones((5, 1)), False),
    LureBound(np.ones((4, 0)), False),
    LureBound(np.zeros((4, 4)), False),
    LureBound(np.vstack([np.zeros((2, 2)), np.eye(2)]), False),
]


@pytest.mark.parametrize("proof", SHAPES)
def test_shapes(proof: Any) -> None:
    system = RateNetwork([[0.0, -5.0], [5.0, 0.0]], **QUIET)
    assert not holds(system, LevelBound(0.9, proof))
    assert not holds(system, LevelBound(5.0, proof))  # beyond the leak, but not such a proof


def test_systems_that_a_kind_does_not_speak_of() -> None:
    w = np.array([[0.0, -5.0], [5.0, 0.0]])
    y = conic(0.9, -1j, np.array([1.0, -1j]))
    norm = LevelBound(0.9, NormBound(np.eye(2)))
    assert holds(RateNetwork(w, **QUIET), y)
    assert holds(RateNetwork(w, slope=(-1.0, 1.0)), norm)
    general = LureSystem(-np.eye(2), np.eye(2), w, **QUIET)
    for system in (
        general,
        RateNetwork(w, tau=[1.0, 1.0 + 1e-15], **QUIET),
        RateNetwork(w, slope=(-1e-300, 1.0)),
        RateNetwork(scipy.sparse.csr_array(w), **QUIET),
    ):
        assert not holds(system, y)
        assert not holds(system, norm)
    assert not holds(RateNetwork(w, slope=(-1.0, np.nextafter(1.0, 0.0))), norm)
    for proof in (None, 3.0, LureProof(np.eye(2), np.ones(2), False, 0, 1, 0, 0)):
        assert not holds(RateNetwork(w, **QUIET), LevelBound(0.9, proof))  # type: ignore[arg-type]
