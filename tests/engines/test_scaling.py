"""The optimal diagonal scaling for a level.

Judges: closed forms; the field of values on a dense grid of angles, minimised by Nelder and Mead; cvxpy with Clarabel
on the Lur'e inequality itself. None of them shares code with the search.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
from certes.engines import conic
from certes.engines.bundle import Cuts, simplex_minimum
from certes.engines.families import Factor, Family, Level, Norm, Rate, Step
from certes.engines.monitor import Monitor
from certes.engines.scaling import CAP, Optimum, optimise
from hypothesis import given, settings
from hypothesis import strategies as st

ANGLES = np.linspace(0.0, np.pi, 721)
FAMILIES: tuple[Family, ...] = (Rate(), Factor(0.2), Factor(1.0), Factor(1.4), Step(), Level(0.3, 0.5), Norm())
SEEDS = st.integers(0, 10**6)


def random(n: int, seed: int, size: float = 0.7) -> np.ndarray:
    return size * np.random.default_rng(seed).standard_normal((n, n)) / math.sqrt(n)


def judge(A: np.ndarray, family: Family) -> float:
    """The level of A from 721 angles, with the formulas of the regions written out."""
    if isinstance(family, Norm):
        return float(np.linalg.norm(A, 2))
    turn = np.exp(1j * ANGLES)[:, None, None]
    v = np.linalg.eigh(0.5 * (turn * A + np.conj(turn) * A.T))[1][:, :, -1]
    z = np.einsum("ki,ij,kj->k", v.conj(), A, v)
    if isinstance(family, Rate):
        return float(1.0 - (0.5 * (abs(z) + z.real)).max())
    if isinstance(family, Level):
        return float((family.c0 * z.real + family.r0 * abs(z)).max())
    if isinstance(family, Step):
        steps = (2.0 - abs(z) - z.real)[z.real < 1] / (1.0 - z.real)[z.real < 1]
        return float(np.clip(min(steps.min(), 2.0), 0.0, 2.0)) if (z.real < 1).all() else 0.0
    assert isinstance(family, Factor)
    a, e = family.a, 1.0 - family.a
    return float(((a * abs(z) + np.sqrt(a * a * abs(z) ** 2 + 4 * e * e + 4 * a * e * z.real)) / 2).max())


def searched(M: np.ndarray, family: Family, tolerance: float = 1e-7) -> Optimum:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = optimise(M, family, tolerance=tolerance)
    assert np.isfinite(found.q).all()
    assert (found.q > 0).all()
    assert np.log(found.q).mean() == pytest.approx(0.0, abs=1e-9)
    return found


# --- against judges


@pytest.mark.cases(6)
@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_scaling_that_nelder_and_mead_finds_is_better(family: Family, seed: int) -> None:
    M = random(3, seed)
    found = searched(M, family)
    sign = 1.0 if family.cost(1.0) > family.cost(0.0) else -1.0

    def price(x: np.ndarray) -> float:
        return sign * judge(conic.scaled(M, np.exp(np.append(x, 0.0))), family)

    best = min(
        scipy.optimize.minimize(
            price, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 200}
        ).fun
        for start in (np.zeros(2), np.log(found.q[:2] / found.q[2]))
    )
    assert sign * found.level == pytest.approx(best, abs=3e-5)
    assert found.level == pytest.approx(judge(conic.scaled(M, found.q), family), abs=3e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_rate_is_that_of_the_inequality_itself(seed: int) -> None:
    cvxpy = pytest.importorskip("cvxpy")
    n = 4
    M = random(n, seed)
    found = searched(M, Rate())

    def margin(rate: float) -> float:
        P, q = cvxpy.Variable((n, n), symmetric=True), cvxpy.Variable(n)
        row = P + M.T @ cvxpy.diag(q)
        block = cvxpy.bmat([[2 * (1 - rate) * P, -row], [-row.T, 2 * cvxpy.diag(q)]])
        s = cvxpy.Variable()
        constraints = [(block + block.T) / 2 >> s * np.eye(2 * n), P >> s * np.eye(n), cvxpy.sum(q) == n]
        problem = cvxpy.Problem(cvxpy.Maximize(s), constraints)
        problem.solve(solver="CLARABEL")
        return float(problem.value)

    assert margin(found.level - 1e-4) > 0.0
    assert margin(found.level + 1e-4) < 1e-7


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("n", [1, 5, 16])
def test_the_level_is_confirmed_and_the_bound_is_beyond_it(family: Family, n: int) -> None:
    M = random(n, n)
    found = searched(M, family, 1e-4)
    assert found.stopped == "tolerance"
    assert conic.metric(M, found.q, family, family.relax(found.level, 1e-6)) is not None
    if found.bound is not None:
        assert family.cost(found.bound) <= family.cost(found.level)
        assert found.columns is not None
        rng = np.random.default_rng(n)
        for _ in range(6):  # no q beats the bound
            q = found.q * np.exp(0.3 * rng.standard_normal(n))
            assert family.cost(judge(conic.scaled(M, q), family)) >= family.cost(found.bound) - 1e-4


@pytest.mark.parametrize("family", [f for f in FAMILIES if not isinstance(f, Step)], ids=repr)
def test_the_columns_prove_the_bound(family: Family) -> None:
    proven = 0
    for seed in range(5):
        M = random(5, seed)
        found = searched(M, family, 1e-6)
        if found.bound is None:
            continue  # the multipliers of the search are rarely exact enough
        assert found.columns is not None
        y, functional = found.columns.y, family.functional(found.bound)
        if isinstance(family, Norm):
            rows = (abs(M @ y) ** 2 - found.bound**2 * abs(y) ** 2).sum(axis=1)
        else:
            h = functional.c0 + functional.r0 * found.columns.u
            rows = (h * y.conj() * (M @ y)).real.sum(axis=1) - functional.t * (abs(y) ** 2).sum(axis=1)
        assert rows.min() >= 0.0
        assert abs(found.columns.u) == pytest.approx(1.0)
        assert family.cost(found.level) > family.cost(found.bound)
        proven += 1
    assert proven > 0


def test_a_tighter_tolerance_comes_closer() -> None:
    M = random(30, 4)
    levels = [searched(M, Rate(), tolerance).level for tolerance in (1e-2, 1e-4, 1e-6)]
    assert levels[0] < levels[1] < levels[2]
    t = 1.0 - levels[2]
    assert levels[2] - levels[0] < 1e-2 * t
    assert levels[2] - levels[1] < 1e-4 * t


@pytest.mark.parametrize("family", [Rate(), Factor(0.2), Norm()], ids=repr)
def test_the_subspace_finds_what_a_full_decomposition_finds(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    M = random(60, 7)
    whole = searched(M, family, 1e-4).level
    monkeypatch.setattr("certes.engines.eigen.DENSE", 20)
    assert searched(M, family, 1e-4).level == pytest.approx(whole, rel=3e-4)


# --- closed forms


def test_closed_forms() -> None:
    rng = np.random.default_rng(5)
    S = random(5, 5) + random(5, 5).T
    assert searched(S, Rate()).level == pytest.approx(1.0 - max(np.linalg.eigvalsh(S)[-1], 0.0), abs=1e-5)
    for w in (0.3, 1.9):
        assert searched(np.array([[0.0, -w], [w, 0.0]]), Rate()).level == pytest.approx(1.0 - w / 2, abs=1e-5)
    rotation, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    assert searched(0.8 * rotation, Norm()).level == pytest.approx(0.8, rel=1e-5)
    assert searched(0.8 * rotation, Factor(1.0)).level == pytest.approx(0.8, rel=1e-5)
    N = np.abs(random(6, 6, 0.4))
    perron = float(np.abs(np.linalg.eigvals(N)).max())
    for family in (Norm(), Factor(1.0), Level(0.5, 0.5)):
        assert searched(N, family).level == pytest.approx(perron, rel=1e-5)
    x, y = rng.standard_normal((2, 5))
    # |x_i y_i| scales away: diag makes both factors of a rank-one matrix equal in size
    assert searched(np.outer(x, y), Norm()).level == pytest.approx(float(np.abs(x * y).sum()), rel=1e-5)


def test_triangular_matrices_come_close_to_their_diagonal() -> None:
    T = np.triu(random(6, 8))
    assert searched(T, Rate(), 1e-5).level == pytest.approx(1.0 - max(np.diag(T).max(), 0.0), abs=1e-3)
    assert searched(T, Norm(), 1e-5).level == pytest.approx(np.abs(np.diag(T)).max(), rel=1e-2)
    found = searched(np.diag(np.ones(29), 1), Norm(), 1e-4)  # nilpotent: the infimum 0 is not attained
    assert found.level < 0.1
    assert found.condition <= CAP * (1 + 1e-9)


# --- laws


def _same(first: np.ndarray, second: np.ndarray, family: Family) -> None:
    assert searched(first, family, 1e-6).level == pytest.approx(searched(second, family, 1e-6).level, rel=1e-5)


@settings(max_examples=8)
@given(st.integers(1, 5), SEEDS, st.sampled_from(FAMILIES))
def test_the_level_is_invariant(n: int, seed: int, family: Family) -> None:
    M, rng = random(n, seed, 0.3), np.random.default_rng(seed)
    order, d = rng.permutation(n), np.exp(2.0 * rng.standard_normal(n))
    _same(M, M[np.ix_(order, order)], family)
    _same(M, M.T, family)
    _same(M, M * d[:, None] / d[None, :], family)
    signs = rng.choice([-1.0, 1.0], n)
    _same(M, M * signs[:, None] * signs[None, :], family)


@settings(max_examples=10)
@given(st.integers(1, 6), SEEDS, st.floats(-40.0, 40.0), st.sampled_from([Norm(), Level(0.2, 0.6), Factor(1.0)]))
def test_homogeneous_families_scale(n: int, seed: int, power: float, family: Family) -> None:
    M = random(n, seed)
    size = 10.0 ** (power if isinstance(family, Norm) else abs(power))
    level = searched(M, family, 1e-6).level
    assert searched(M * size, family, 1e-6).level == pytest.approx(size * level, rel=1e-5)


@settings(max_examples=25)
@given(st.integers(1, 8), SEEDS, st.sampled_from(FAMILIES))
def test_a_cut_is_below_every_scaling_and_its_gradient_is_right(n: int, seed: int, family: Family) -> None:
    rng = np.random.default_rng(seed)
    M, gram = random(n, seed), isinstance(family, Norm)
    y = rng.standard_normal((n, 3)) + 1j * rng.standard_normal((n, 3))
    cuts = Cuts.of(y, M @ y, gram)
    d, step = rng.standard_normal(n), 1e-6 * rng.standard_normal(n)
    prices, gradients = cuts.prices(d, family)
    assert prices.max() <= family.cost(judge(conic.scaled(M, np.exp(2 * d)), family)) + 1e-4 or isinstance(family, Step)
    ahead, behind = cuts.prices(d + step, family)[0], cuts.prices(d - step, family)[0]
    np.testing.assert_allclose(0.5 * (ahead - behind), gradients @ step, atol=1e-9)


@settings(max_examples=25)
@given(st.integers(1, 30), SEEDS)
def test_the_quadratic_program_satisfies_its_optimality_conditions(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    factor, f = rng.standard_normal((size, 7)), 0.1 * rng.standard_normal(size)
    K = factor @ factor.T
    a = simplex_minimum(K, f)
    slope = K @ a - f
    assert a.min() >= 0.0
    assert a.sum() == pytest.approx(1.0)
    assert a @ slope - slope.min() <= 1e-9 * (1.0 + np.abs(K).max())


# --- stopping


def test_a_target_stops_the_search_and_is_reached() -> None:
    M = random(40, 3)
    best = searched(M, Rate(), 1e-5)
    target = best.level - 0.03 * (1.0 - best.level)
    found = optimise(M, Rate(), tolerance=1e-5, target=target)
    assert found.stopped == "target"
    assert target <= found.level <= best.level
    assert found.rounds < best.rounds
    assert optimise(M, Rate(), tolerance=1e-5, target=best.level + 0.1).stopped == "tolerance"
    barely = best.level - 1e-5 * (1.0 - best.level)
    assert optimise(M, Rate(), tolerance=1e-6, target=barely).level >= barely
    loose = optimise(4.0 * M, Norm(), tolerance=1e-5, target=20.0)
    assert (loose.stopped, loose.level <= 20.0) == ("target", True)


def test_a_start_is_used() -> None:
    M = random(30, 6)
    best = searched(M, Rate(), 1e-6)
    again = optimise(M, Rate(), tolerance=1e-4, start=best.q)
    assert again.level >= best.level - 2e-5
    assert again.rounds < best.rounds


def test_the_search_can_be_stopped_at_any_time_and_tells_what_it_has() -> None:
    M = random(30, 9)
    lines: list[str] = []
    optimise(M, Rate(), tolerance=1e-4, monitor=Monitor(report=lines.append))
    assert lines
    assert all(line.startswith("round ") for line in lines)

    def cancelling(after: int) -> Callable[[], bool]:
        calls = iter(range(10**6))
        return lambda: next(calls) >= after

    levels = []
    for after in (0, 10, 20, 40):
        found = optimise(M, Rate(), tolerance=1e-4, monitor=Monitor(cancelled=cancelling(after)))
        assert found.stopped == "cancelled"
        assert conic.metric(M, found.q, Rate(), found.level) is not None
        levels.append(found.level)
    assert levels == sorted(levels)
    assert optimise(M, Rate(), tolerance=1e-4, monitor=Monitor(seconds=0.0)).stopped == "deadline"


# --- inputs that are not generic


DEGENERATE = {
    "zero": np.zeros((4, 4)),
    "one neuron": np.array([[-0.5]]),
    "identity": 0.5 * np.eye(3),
    "negative identity": -np.eye(3),
    "chain": np.diag(np.ones(9), 1),
    "ring": 0.9 * np.roll(np.diag(10.0 ** np.arange(-3, 3)), 1, 0),
    "skew": random(6, 1) - random(6, 1).T,
    "ones": np.ones((4, 4)),
    "two equal blocks": np.kron(np.eye(2), random(3, 2)),
    "block triangular": np.block([[random(3, 3), 9 * random(3, 4)], [np.zeros((3, 3)), random(3, 5)]]),
    "zero row": random(5, 6) * (np.arange(5) != 2)[:, None],
    "zero column": random(5, 6) * (np.arange(5) != 2)[None, :],
    "tiny": 1e-150 * random(5, 7),
    "huge": 1e150 * random(5, 7),
    "badly scaled": random(6, 8) * 10.0 ** np.random.default_rng(8).uniform(-150, 150, (6, 6)),
    "subnormal": np.full((3, 3), 5e-324),
}


@pytest.mark.cases(40)
@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_matrices_have_confirmed_levels(name: str, family: Family) -> None:
    M = DEGENERATE[name]
    found = searched(M, family, 1e-4)
    if isinstance(family, Step) and found.level == 0.0:
        assert searched(M, Rate(), 1e-4).level < 1e-3  # no step at all
        return
    if name == "badly scaled" and not math.isfinite(found.level):
        return  # nothing can be confirmed in float arithmetic
    assert math.isfinite(found.level)
    assert conic.metric(M, found.q, family, family.relax(found.level, 1e-6)) is not None


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_overflow_gives_no_level(family: Family) -> None:
    for M in (np.full((3, 3), np.inf), np.full((3, 3), np.nan)):
        found = searched(M, family)
        assert found.stopped == "stalled"
        assert found.level == family.level(math.inf)
    searched(np.full((3, 3), 1.7e308), family)
