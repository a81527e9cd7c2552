"""The nearest weights that pass `absolute`: optimal for a fixed vector, inside the set, and lawful."""

from __future__ import annotations

import tracemalloc

import certes
import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from certes.conditions import Goal, by_name
from certes.engines.monitor import Monitor
from certes.errors import InputError
from certes.projection.rows import Rows, nearest_absolute
from certes.systems import HopfieldNetwork, RateNetwork, SparseMatrix, System
from certes.verify import verify_contraction
from hypothesis import given, settings
from hypothesis import strategies as st

FORMS = [RateNetwork, HopfieldNetwork]
#: None: one interval per neuron
SLOPES = [(0.0, 1.0), (-0.1, 1.1), (0.3, 1.0), (-1.0, -0.2), (0.0, 0.0), (0.7, 0.7), None]
STEPS = [None, 0.2, 1.0, 1.5]


def network(seed: int, form: type, slope: object, step: float | None, size: int = 0, scale: float = 2.0) -> System:
    rng = np.random.default_rng(seed)
    n = size or int(rng.integers(1, 9))
    weights = rng.standard_normal((n, n)) * scale
    weights[rng.random((n, n)) < 0.2] = 0.0
    if slope is None:
        slope = (rng.uniform(-0.5, 0.4, n), rng.uniform(0.5, 1.2, n))
    return form(weights, slope=slope, tau=rng.uniform(0.8, 2.0, n), step=step)


def wanted(system: System) -> float:
    return 0.05 if system.step is None else 0.97


def like(system: System, weights: object) -> System:
    return type(system)(weights, slope=(system.slope.lower, system.slope.upper), tau=system.tau, step=system.step)


def excess(system: System, weights: np.ndarray, number: float, log_r: np.ndarray) -> np.ndarray:
    """By how much each row's constraint is broken, from the definition."""
    r, a, b, tau = np.exp(log_r), system.slope.lower, system.slope.upper, system.tau
    bound = np.maximum(np.abs(a), np.abs(b))
    off = np.abs(bound[:, None] * weights if system.form == "rate" else weights * bound)
    own = np.diagonal(weights)
    off = off - np.diag(np.diagonal(off))
    if system.step is None:
        return off @ r / r + np.maximum(a * own, b * own) - (1.0 - number * tau)
    pace = system.step / tau
    ends = [np.abs(1.0 - pace + pace * d * own) for d in (a, b)]
    return pace * (off @ r) / r + np.maximum(*ends) - number


def by_clarabel(
    system: System, number: float, log_r: np.ndarray, movable: np.ndarray | None = None
) -> tuple[str, np.ndarray | None]:
    """The row problems written out for cvxpy."""
    weights, n = system.matrix("W"), system.size
    r, a, b, tau = np.exp(log_r), system.slope.lower, system.slope.upper, system.tau
    bound = np.maximum(np.abs(a), np.abs(b))
    pace = np.ones(n) if system.step is None else system.step / tau
    gain = pace[:, None] * (bound[:, None] if system.form == "rate" else bound[None, :]) * r[None, :] / r[:, None]
    X = cp.Variable((n, n))
    own = cp.diag(X)
    off = cp.sum(cp.multiply(gain * (1.0 - np.eye(n)), cp.abs(X)), axis=1)
    if system.step is None:
        height, right = cp.maximum(cp.multiply(a, own), cp.multiply(b, own)), 1.0 - number * tau
    else:
        ends = [cp.abs(1.0 - pace + cp.multiply(pace * d, own)) for d in (a, b)]
        height, right = cp.maximum(*ends), np.full(n, number)
    constraints = [off + height <= right]
    if movable is not None and not movable.all():
        constraints.append(X[~movable] == weights[~movable])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - weights)), constraints)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return problem.status, X.value


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("form", FORMS)
def test_fixed_vectors_against_clarabel(form, step):
    moved = 0
    for seed, slope in enumerate(SLOPES * 2):
        system = network(seed, form, slope, step)
        log_r = np.random.default_rng(seed).standard_normal(system.size)
        found = Rows.of(system, wanted(system)).nearest(log_r)
        status, judged = by_clarabel(system, wanted(system), log_r)
        assert status == "optimal"
        assert not found.infeasible.size
        best = float(np.linalg.norm(judged - system.matrix("W")))
        assert found.distance == pytest.approx(best, rel=1e-6, abs=1e-6)
        assert found.distance == pytest.approx(float(np.linalg.norm(found.data - system.matrix("W"))), rel=1e-12)
        assert np.abs(found.data - judged).max() <= 1e-4
        assert excess(system, found.data, wanted(system), log_r).max() <= 0.0
        moved += best > 0.1
    assert moved >= 8


@given(
    seed=st.integers(0, 10**6),
    form=st.sampled_from(FORMS),
    slope=st.sampled_from(SLOPES),
    step=st.sampled_from(STEPS),
    spread=st.sampled_from([1.0, 10.0, 60.0]),
)
@settings(max_examples=60)
def test_rows_are_on_their_bound_or_untouched(seed, form, slope, step, spread):
    system = network(seed, form, slope, step)
    weights = system.matrix("W")
    log_r = np.random.default_rng(seed).standard_normal(system.size) * spread
    found = Rows.of(system, wanted(system)).nearest(log_r)
    over = excess(system, found.data, wanted(system), log_r)
    assert over.max() <= 0.0
    untouched = found.multipliers == 0.0
    assert (found.data[untouched] == weights[untouched]).all()
    assert over[~untouched].min(initial=0.0) >= -1e-12 * spread
    assert ((np.abs(found.data) <= np.abs(weights)) | np.eye(system.size, dtype=bool)).all()
    assert (found.data * weights >= 0.0)[~np.eye(system.size, dtype=bool)].all()


@given(
    seed=st.integers(0, 10**6), form=st.sampled_from(FORMS), slope=st.sampled_from(SLOPES), step=st.sampled_from(STEPS)
)
@settings(max_examples=40)
def test_the_gradient_is_that_of_half_the_squared_distance(seed, form, slope, step):
    system = network(seed, form, slope, step)
    rows, rng = Rows.of(system, wanted(system)), np.random.default_rng(seed + 1)
    at, along, h = rng.standard_normal(system.size), rng.standard_normal(system.size), 1e-5
    ahead, behind = rows.nearest(at + h * along), rows.nearest(at - h * along)
    by_differences = (ahead.relative - behind.relative) / (4.0 * h)
    by_formula = rows.nearest(at).slope @ along
    # where a row or an entry starts to move within h the second derivative jumps
    assert by_formula == pytest.approx(by_differences, rel=1e-3, abs=1e-3)
    assert rows.nearest(at).slope.sum() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("form", FORMS)
def test_the_result_passes_and_is_no_farther_than_the_shrink(form, step):
    for seed, slope in enumerate(SLOPES):
        system = network(seed + 20, form, slope, step, size=5)
        weights, number = system.matrix("W"), wanted(system)
        room = 1e-6 if step is None else -1e-6  # the search for the proof's vectors stops 1e-7 from the best
        found = nearest_absolute(system, number + room)
        assert found is not None
        assert excess(system, found.weights, number, found.log_r).max() <= 0.0
        projected = like(system, found.weights)
        decision = by_name("absolute").decide(projected, Goal(target=number))
        assert any(verify_contraction(projected, entry.proof, entry.claims).valid for entry in decision)
        if seed == 0:  # certify looks for further claims, which takes seconds
            result = certes.certify(projected, condition="absolute", rate=number, refute=False)
            assert result.verdict == "contracting", result.detail
        assert ((found.weights != 0.0) <= ((weights != 0.0) | np.eye(5, dtype=bool))).all()
        assert found.distance == pytest.approx(float(np.linalg.norm(found.weights - weights)), rel=1e-12)
        assert found.distance <= shrink_distance(system, number + room) * (1 + 1e-9)


def shrink_distance(system: System, number: float) -> float:
    """Distance to the largest multiple of the weights that passes, by LAPACK; inf if there is none."""
    weights = system.matrix("W")

    def passes(scale: float) -> bool:
        matrix = excess_matrix(system, scale * weights, number)
        return float(np.linalg.eigvals(matrix).real.max()) <= 0.0

    if not passes(0.0):
        return float("inf")
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if passes(middle) else (low, middle)
    return float(np.linalg.norm(weights)) * (1.0 - low)


def excess_matrix(system: System, weights: np.ndarray, number: float) -> np.ndarray:
    """The Metzler matrix N - diag(kappa): its product with r is r times the excess of the rows."""
    bound = np.maximum(np.abs(system.slope.lower), np.abs(system.slope.upper))
    off = np.abs(bound[:, None] * weights if system.form == "rate" else weights * bound)
    off *= 1.0 if system.step is None else (system.step / system.tau)[:, None]
    np.fill_diagonal(off, excess(system, np.diag(np.diagonal(weights)), number, np.zeros(system.size)))
    return off


@pytest.mark.cases(1)
@pytest.mark.parametrize("form", FORMS)
def test_the_search_improves_on_every_start_and_on_the_shrink(form):
    rng = np.random.default_rng(8)
    system = form(rng.standard_normal((20, 20)) / np.sqrt(20), "tanh")
    found = nearest_absolute(system, 0.01)
    start = Rows.of(system, 0.01).nearest(np.zeros(20)).distance
    assert found.distance < 0.9 * start
    assert found.distance < 0.8 * shrink_distance(system, 0.01)
    again = nearest_absolute(system, 0.01)
    assert (again.weights == found.weights).all()


@pytest.mark.parametrize("step", [None, 0.2, 1.0])
def test_weights_that_pass_are_unchanged(step):
    system = network(3, RateNetwork, (-0.1, 1.1), step, size=6, scale=0.05)
    found = nearest_absolute(system, wanted(system))
    assert found.distance == 0.0
    assert found.weights.tobytes() == system.matrix("W").tobytes()
    chain = RateNetwork(np.diag(np.full(299, 100.0), 1), "tanh")  # passes with a vector beyond the float range
    assert nearest_absolute(chain, 0.5).distance == 0.0


def test_entries_that_may_not_move_do_not():
    for seed, (form, step, slope) in enumerate(zip(FORMS * 4, STEPS * 2, [*SLOPES, (0.0, 1.0)], strict=True)):
        system = network(seed + 40, form, slope, step, size=6, scale=0.6)
        weights, number = system.matrix("W"), wanted(system)
        movable = np.random.default_rng(seed).random((6, 6)) < 0.7
        log_r = 0.3 * np.random.default_rng(seed).standard_normal(6)
        fixed = Rows.of(system, number, movable).nearest(log_r)
        assert (fixed.data[~movable] == weights[~movable]).all()
        status, judged = by_clarabel(system, number, log_r, movable)
        assert (status == "optimal") is not bool(fixed.infeasible.size)
        if judged is not None:
            assert fixed.distance == pytest.approx(float(np.linalg.norm(judged - weights)), rel=1e-6, abs=1e-6)
        found = nearest_absolute(system, number, movable=movable)
        bare = np.where(movable & ~np.eye(6, dtype=bool), 0.0, weights)
        if found is None:
            assert np.linalg.eigvals(excess_matrix(system, bare, number)).real.max() > 0.0 or slope == (-1.0, -0.2)
        else:
            assert (found.weights[~movable] == weights[~movable]).all()
            assert excess(system, found.weights, number, found.log_r).max() <= 1e-12


def test_a_frozen_diagonal_beyond_its_bound_is_reported():
    weights = np.array([[0.2, 5.0, 0.0], [1.0, 1.5, 1.0], [0.0, 3.0, -4.0]])
    system = RateNetwork(weights, "tanh")
    found = Rows.of(system, 0.1, ~np.eye(3, dtype=bool)).nearest(np.zeros(3))
    assert found.infeasible.tolist() == [1]
    assert np.isinf(found.multipliers[1])
    assert found.data[1].tolist() == [0.0, 1.5, 0.0]
    assert nearest_absolute(system, 0.1, movable=~np.eye(3, dtype=bool)) is None
    assert nearest_absolute(system, 0.1) is not None


def test_numbers_out_of_reach():
    system = RateNetwork(np.ones((2, 2)), "relu", tau=[1.0, 0.5])
    assert nearest_absolute(system, 1.01) is None  # slope 0 leaves the rate 1/tau
    system = RateNetwork(np.ones((2, 2)), slope=(0.5, 1.0), tau=[1.0, 0.5])
    found = nearest_absolute(system, 1.5)  # negative weights on the diagonal speed the neurons up
    assert found.weights[0, 0] < -1.0
    assert excess(system, found.weights, 1.5, found.log_r).max() <= 0.0


@pytest.mark.parametrize(("weight", "step", "expected"), [(3.0, None, 0.9), (-3.0, None, -3.0), (3.0, 1.0, 0.9)])
def test_one_neuron(weight, step, expected):
    number = 0.1 if step is None else 0.9
    found = nearest_absolute(RateNetwork([[weight]], "tanh", step=step), number)
    assert found.weights[0, 0] == pytest.approx(expected, rel=1e-14)
    assert found.weights[0, 0] <= expected


def test_zero_weights():
    assert nearest_absolute(RateNetwork(np.zeros((3, 3)), "tanh"), 0.5).distance == 0.0
    system = RateNetwork(np.zeros((2, 2)), slope=(0.5, 1.0), step=0.5)
    found = nearest_absolute(system, 0.25)  # 1 - 0.5 + 0.5 d w = +-0.25 at d = 0.5 and d = 1
    assert np.allclose(found.weights, -np.eye(2), atol=1e-12)


@pytest.mark.parametrize("scale", [1e150, 1e20, 1e-150, 5e-324])
@pytest.mark.parametrize("step", [None, 0.5])
def test_huge_and_tiny_weights(scale, step):
    weights = np.random.default_rng(5).standard_normal((5, 5)) * scale
    system = RateNetwork(weights, "tanh", step=step)
    number = 0.1 if step is None else 0.9
    found = nearest_absolute(system, number)
    assert excess(system, found.weights, number, found.log_r).max() <= 0.0
    if scale < 1.0:
        assert found.distance == 0.0
    else:
        assert np.isfinite(found.distance)
        assert found.distance <= np.linalg.norm(weights / scale) * scale
        assert np.abs(found.weights).max() > 1e-3  # the largest entry of each row is what remains
    assert nearest_absolute(RateNetwork([[scale]], "relu"), 0.25).weights[0, 0] == pytest.approx(min(0.75, scale))


@given(seed=st.integers(0, 10**6), form=st.sampled_from(FORMS), step=st.sampled_from(STEPS))
@settings(max_examples=15)
def test_the_order_of_neurons_does_not_matter(seed, form, step):
    system = network(seed, form, None, step)
    rng = np.random.default_rng(seed)
    order, log_r = rng.permutation(system.size), rng.standard_normal(system.size)
    moved = form(
        system.matrix("W")[np.ix_(order, order)],
        slope=(system.slope.lower[order], system.slope.upper[order]),
        tau=system.tau[order],
        step=step,
    )
    one = Rows.of(system, wanted(system)).nearest(log_r)
    other = Rows.of(moved, wanted(system)).nearest(log_r[order])
    assert np.allclose(one.data[np.ix_(order, order)], other.data, rtol=1e-9, atol=1e-12)
    assert np.allclose(one.multipliers[order], other.multipliers, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 10**6), form=st.sampled_from(FORMS), slope=st.sampled_from(SLOPES[:4]))
@settings(max_examples=15)
def test_a_better_number_is_farther(seed, form, slope):
    system = network(seed, form, slope, None)
    log_r = np.random.default_rng(seed).standard_normal(system.size)
    distances = [Rows.of(system, number).nearest(log_r).distance for number in (0.01, 0.1, 0.2, 0.4)]
    assert distances == sorted(distances)
    stepped = system.with_step(0.5)
    distances = [Rows.of(stepped, number).nearest(log_r).distance for number in (0.99, 0.95, 0.9)]
    assert distances == sorted(distances)


@pytest.mark.cases(1)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [None, 0.3])
def test_sparse_and_dense_agree(form, step):
    rng = np.random.default_rng(11)
    matrix = sp.random_array((30, 30), density=0.15, rng=rng, data_sampler=lambda size: rng.standard_normal(size))
    matrix = (matrix + sp.eye_array(30) * 0.5).tocsr()
    systems = [form(w, "gelu", tau=rng.uniform(0.5, 2, 30), step=step) for w in (matrix, matrix.toarray())]
    log_r = rng.standard_normal(30)
    systems[1] = like(systems[0], matrix.toarray())
    one, other = (Rows.of(system, 0.02 if step is None else 0.99).nearest(log_r) for system in systems)
    assert one.distance == pytest.approx(other.distance, rel=1e-13)
    assert np.allclose(one.data, other.data[matrix.nonzero()], rtol=1e-12, atol=0)
    found = nearest_absolute(systems[0], 0.02 if step is None else 0.99)
    assert isinstance(found.weights, SparseMatrix)
    assert (found.weights.indices == systems[0].W.indices).all()


def test_only_stored_entries_of_sparse_weights_move():
    matrix = sp.csr_array(np.array([[0.0, 4.0], [1.0, 2.0]]))  # W_00 is not stored
    system = RateNetwork(matrix, slope=(0.5, 1.0))
    found = nearest_absolute(system, 0.1)
    assert len(found.weights.data) == 3
    mask = np.array([True, False, True])
    assert nearest_absolute(system, 0.1, movable=mask).weights.data[1] == 1.0
    with pytest.raises(InputError, match="mask"):
        Rows.of(system, 0.1, np.ones((2, 2), dtype=bool))


def test_a_monitor_ends_the_search_with_what_there_is():
    system = network(1, RateNetwork, (0.0, 1.0), None, size=30)
    found = nearest_absolute(system, 0.05, monitor=Monitor(cancelled=lambda: True))
    assert found is not None
    assert excess(system, found.weights, 0.05, found.log_r).max() <= 0.0


def test_a_hundred_thousand_rows():
    rng, n, per = np.random.default_rng(1), 100_000, 10
    starts = np.arange(0, n * per + 1, per)
    matrix = sp.csr_array((rng.standard_normal(n * per) * 0.5, rng.integers(0, n, n * per), starts), shape=(n, n))
    matrix.sum_duplicates()
    rows = Rows.of(RateNetwork(matrix, "tanh"), 0.05)
    tracemalloc.start()
    try:
        found = rows.nearest(np.zeros(n))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**30  # a dense matrix would take 80 GB: the work is by nonzeros
    assert np.bincount(rows.rows, np.abs(found.data[rows.where]), n).max() <= 0.95
