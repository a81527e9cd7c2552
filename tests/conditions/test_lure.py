"""The condition ``lure``: optimal where the theory says what optimal is, sound at every vertex of the slope box.

Judges: the field of values on a dense grid of angles, minimised over the multipliers by Nelder and Mead (neither shares
code with the engines); Jacobians at all 2^m vertices; the block matrices written out from the literature.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from certes.conditions import Candidate, Goal, NothingFound
from certes.conditions.lure import CONDITION
from certes.engines import conic, sdp
from certes.errors import MissingExtraError
from certes.proofs import LureProof
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, SparseMatrix, System, Tensor
from certes.verify import verify_contraction

ANGLES = np.linspace(0.0, np.pi, 241)


def accepted(system: System, goal: Goal | None = None) -> Candidate:
    """The first candidate that the verifier accepts; fails if there is none."""
    decision = CONDITION.decide(system, goal or Goal())
    assert not isinstance(decision, NothingFound), decision
    for candidate in decision:
        if verify_contraction(system, candidate.proof, candidate.claims).valid:
            return candidate
    raise AssertionError("the verifier accepted no candidate")


def level(system: System, goal: Goal | None = None) -> float:
    claims = accepted(system, goal).claims
    value = claims.rate if system.continuous else claims.factor
    assert value is not None
    return value


# --- the best level there is, computed without our engines


def boundary(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Support function and boundary points of the field of values at ANGLES; A is real, so half of it is enough."""
    turn = np.exp(1j * ANGLES)[:, None, None]
    values, vectors = np.linalg.eigh(0.5 * (turn * A + np.conj(turn) * A.T))
    v = vectors[:, :, -1]
    return values[:, -1], np.einsum("ki,ij,kj->k", v.conj(), A, v)


def parabola(A: np.ndarray) -> float:
    return float((np.cos(ANGLES) * boundary(A)[0])[np.pi / 2 >= ANGLES].max())


def radius(A: np.ndarray) -> float:
    return float(boundary(A)[0].max())


def ellipse(A: np.ndarray, a: float) -> float:
    z, e = boundary(A)[1], 1.0 - a
    root = np.sqrt(a * a * abs(z) ** 2 + 4 * e * e + 4 * a * e * z.real)
    return float(((a * abs(z) + root) / 2).max())


def norm(A: np.ndarray) -> float:
    return float(np.linalg.norm(A, 2))


def minimum(W: np.ndarray, function) -> float:
    """min over diagonal Q of function(Q^1/2 W Q^-1/2)."""

    def value(d: np.ndarray) -> float:
        D = np.exp(np.append(d, 0.0))
        return function(D[:, None] * W / D)

    x, best = np.zeros(len(W) - 1), np.inf
    for _ in range(8):
        found = scipy.optimize.minimize(
            value, x, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8, "maxiter": 2500, "maxfev": 2500}
        )
        if best - found.fun < 1e-5:
            break
        x, best = found.x, found.fun
    return min(best, float(found.fun))


def random_weights(n: int, seed: int, size: float) -> np.ndarray:
    W = np.random.default_rng(seed).normal(size=(n, n))
    return size * W / np.linalg.norm(W, 2)


@pytest.mark.cases(3)
@pytest.mark.parametrize(("n", "seed"), [(2, 1), (3, 2), (4, 3), (5, 4), (6, 5)])
def test_continuous_rate_is_one_minus_the_parabola(n: int, seed: int) -> None:
    W = random_weights(n, seed, 1.2)
    best = 1.0 - minimum(W, parabola)
    assert level(RateNetwork(W, "tanh")) == pytest.approx(best, abs=1e-3)
    assert level(HopfieldNetwork(W, "relu")) == pytest.approx(best, abs=1e-3)


@pytest.mark.cases(1)
@pytest.mark.parametrize(("n", "seed"), [(3, 6), (5, 7)])
def test_slopes_per_neuron_scale_the_weights(n: int, seed: int) -> None:
    W, g = random_weights(n, seed, 1.4), np.random.default_rng(seed).uniform(0.3, 1.0, n)
    slope = (0.0, g.tolist())
    assert level(RateNetwork(W, slope=slope)) == pytest.approx(1 - minimum(g[:, None] * W, parabola), abs=1e-3)
    assert level(HopfieldNetwork(W, slope=slope)) == pytest.approx(1 - minimum(W * g, parabola), abs=1e-3)


@pytest.mark.parametrize(("n", "seed", "step", "tau"), [(3, 8, 0.4, 2.0), (4, 9, 0.5, 1.0), (5, 10, 1.2, 1.0)])
def test_factor_of_the_leaky_map_is_the_ellipse(n: int, seed: int, step: float, tau: float) -> None:
    W = random_weights(n, seed, 0.9)
    best = minimum(W, lambda A: ellipse(A, step / tau))
    assert level(RateNetwork(W, "relu", step=step, tau=tau)) == pytest.approx(best, abs=1e-3)
    assert level(HopfieldNetwork(W, "relu", step=step, tau=tau)) == pytest.approx(best, abs=1e-3)


@pytest.mark.cases(1)
@pytest.mark.parametrize(("n", "seed"), [(2, 11), (4, 12), (6, 13)])
def test_factor_of_the_plain_map_is_the_numerical_radius(n: int, seed: int) -> None:
    W = random_weights(n, seed, 0.95)
    best = minimum(W, radius)
    assert level(RateNetwork(W, "tanh", step=1.0)) == pytest.approx(best, abs=1e-3)
    assert level(HopfieldNetwork(W, "tanh", step=1.0)) == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize(("n", "seed"), [(2, 14), (4, 15), (6, 16)])
def test_symmetric_slopes_give_the_norm(n: int, seed: int) -> None:
    W = random_weights(n, seed, 0.8)
    best = minimum(W, norm)
    assert level(RateNetwork(W, slope=(-1.0, 1.0))) == pytest.approx(1.0 - best, abs=1e-3)
    assert level(HopfieldNetwork(W, slope=(-1.0, 1.0), tau=2.0)) == pytest.approx((1.0 - best) / 2, abs=1e-3)
    assert level(RateNetwork(W, slope=(-1.0, 1.0), step=0.3)) == pytest.approx(0.7 + 0.3 * best, abs=1e-3)
    assert level(RateNetwork(W, slope=(-1.0, 1.0), step=1.0)) == pytest.approx(best, abs=1e-3)


# --- soundness at every vertex, all forms


def jacobians(system: System):
    """J(D) at all vertices of the slope box, from the equations of the forms."""
    n, T = system.size, np.diag(system.tau)
    for corner in itertools.product(*zip(system.slope.lower, system.slope.upper, strict=True)):
        D = np.diag(corner)
        if system.form == "lure":
            J = system.matrix("A") + system.matrix("B") @ D @ system.matrix("C")
        else:
            W = system.matrix("W")
            J = np.linalg.inv(T) @ ((D @ W if system.form == "rate" else W @ D) - np.eye(n))
        yield np.eye(n) + system.step * J if system.step is not None else J


def worst_level(system: System, proof: LureProof) -> float:
    """The rate (least) or factor (largest) over all vertices in the metric of the proof."""
    P = np.linalg.inv(proof.metric) if proof.dual else proof.metric
    if system.continuous:
        return min(-scipy.linalg.eigvalsh(P @ J + J.T @ P, P)[-1] / 2 for J in jacobians(system))
    return max(np.sqrt(scipy.linalg.eigvalsh(J.T @ P @ J, P)[-1]) for J in jacobians(system))


def networks() -> dict[str, System]:
    rng = np.random.default_rng(17)
    W, tau = random_weights(4, 18, 0.9), rng.uniform(0.5, 3.0, 4)
    g = rng.uniform(0.2, 1.0, 4).tolist()
    found: dict[str, System] = {}
    for kind, network in (("rate", RateNetwork), ("hopfield", HopfieldNetwork)):
        found |= {
            f"{kind} continuous": network(W, "tanh", tau=0.5),
            f"{kind} map": network(W, "tanh", step=0.3, tau=0.5),
            f"{kind} time constants": network(W, "tanh", tau=tau),
            f"{kind} time constants, map": network(W, "relu", tau=tau, step=0.2),
            f"{kind} slopes from 0.2": network(W, slope=(0.2, 1.0)),
            f"{kind} slopes below 0": network(W, slope=(-0.1, 1.1), step=0.5),
            f"{kind} slopes per neuron": network(W, slope=(0.0, g)),
            f"{kind} shifted, time constants": network(W, slope=([-0.3, 0.0, 0.1, 0.2], 0.9), tau=tau),
            f"{kind} gelu": network(0.8 * W, "gelu", step=1.0),
        }
    A, B, C = -np.eye(4) + 0.3 * rng.normal(size=(4, 4)), 0.4 * rng.normal(size=(4, 3)), 0.4 * rng.normal(size=(3, 4))
    found["lure continuous"] = LureSystem(A, B, C, slope=(0.0, 1.0))
    found["lure map"] = LureSystem(0.3 * A, B, C, slope=(-0.2, [1.0, 0.5, 0.9]), discrete=True)
    found["lure step"] = LureSystem(A, B, C, activation="relu", step=0.1)
    return found


@pytest.mark.parametrize("name", networks())
def test_the_claim_holds_at_every_vertex(name: str) -> None:
    system = networks()[name]
    candidate = accepted(system)
    assert isinstance(candidate.proof, LureProof)
    worst = worst_level(system, candidate.proof)
    if system.continuous:
        assert candidate.claims.rate is not None
        assert 0 < candidate.claims.rate <= worst + 1e-7
    else:
        assert candidate.claims.factor is not None
        assert 1 > candidate.claims.factor >= worst - 1e-7


@pytest.mark.parametrize("step", [None, 0.3])
@pytest.mark.parametrize("tau", [1.5, (0.5, 1.0, 2.0, 3.0)])
@pytest.mark.parametrize("slope", [(0.0, 1.0), (-0.2, 0.9)])
def test_rate_and_hopfield_are_dual(step: float | None, tau: object, slope: tuple[float, float]) -> None:
    W = random_weights(4, 19, 0.8)
    rate = level(RateNetwork(W, slope=slope, step=step, tau=tau))
    hopfield = level(HopfieldNetwork(W.T, slope=slope, step=step, tau=tau))
    assert rate == pytest.approx(hopfield, abs=4e-4)


def test_time_scales_rates() -> None:
    W, tau = random_weights(4, 20, 0.8), np.array([0.5, 1.0, 2.0, 3.0])
    assert level(RateNetwork(W, "tanh", tau=tau)) == pytest.approx(
        10 * level(RateNetwork(W, "tanh", tau=10 * tau)), rel=2e-3
    )


@pytest.mark.parametrize("system", [RateNetwork(random_weights(5, 21, 0.9), "tanh"), networks()["lure continuous"]])
def test_backends_agree(system: System) -> None:
    first = level(system, Goal(backend="cvxpy-clarabel"))
    assert level(system, Goal(backend="cvxpy-scs")) == pytest.approx(first, abs=3e-3)


# --- known families and degenerate weights


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_skew_coupling_is_certified_up_to_two(activation: str) -> None:
    for w in (1.0, 1.9, 1.99):
        assert level(RateNetwork([[0.0, -w], [w, 0.0]], activation)) == pytest.approx(1 - w / 2, abs=1e-4)
    for w in (2.0, 2.0001, 2.5, 4.0):
        decision = CONDITION.decide(RateNetwork([[0.0, -w], [w, 0.0]], activation), Goal())
        assert isinstance(decision, NothingFound)
        assert decision.reason == "margin"
        assert decision.distance == pytest.approx(1 - w / 2, abs=1e-4)


@pytest.mark.parametrize("network", [RateNetwork, HopfieldNetwork])
@pytest.mark.parametrize(
    ("W", "least"),
    [
        (np.triu(np.full((5, 5), 3.0), 1), 0.9),  # nilpotent: the supremum 1 is not attained
        (np.zeros((3, 3)), 0.999),
        (-np.eye(3) - np.ones((3, 3)), 0.999),
        (np.outer([1.0, 2.0, 0.0], [0.3, 0.0, 1.0]), 0.5),  # rank one: the extreme metrics are singular
        (np.array([[0.5]]), 0.4999),
    ],
)
def test_degenerate_weights_are_certified(network: type, W: np.ndarray, least: float) -> None:
    assert least <= level(network(W, "relu")) < 1.0


def test_a_wide_range_of_scales_is_certified() -> None:
    W = random_weights(4, 22, 0.8)
    scale = np.array([1e-4, 1.0, 1e3, 1e6])
    assert level(RateNetwork(scale[:, None] * W / scale, "tanh")) == pytest.approx(
        level(RateNetwork(W, "tanh")), abs=1e-3
    )


# --- targets, limits, refusals


@pytest.mark.parametrize(
    "system", [networks()["rate continuous"], networks()["lure continuous"], networks()["rate map"]]
)
def test_a_target_is_claimed_exactly(system: System) -> None:
    best = level(system)
    target = best / 2 if system.continuous else (1 + best) / 2
    assert level(system, Goal(target=target)) == target
    beyond = best * 1.01 if system.continuous else best * 0.99
    decision = CONDITION.decide(system, Goal(target=beyond))
    assert isinstance(decision, NothingFound)
    assert decision.reason == "margin"


def test_sizes_beyond_the_backend_are_said_to_be_too_large() -> None:
    W = 3.0 * np.random.default_rng(23).normal(size=(60, 60))
    decision = CONDITION.decide(RateNetwork(W, "tanh"), Goal(backend="cvxpy-clarabel"))
    assert isinstance(decision, NothingFound)
    assert decision.reason == "too-large"
    assert "80" in decision.detail


def test_a_large_network_is_proven() -> None:
    assert level(RateNetwork(random_weights(150, 24, 1.2), "tanh")) > 0.1


@pytest.mark.parametrize("package", ["cvxpy", "clarabel"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"certes\[sdp\]"):
        sdp.ClarabelBackend().load()
    decision = CONDITION.decide(networks()["rate continuous"], Goal(backend="cvxpy-clarabel"))
    assert isinstance(decision, NothingFound)
    assert decision.reason == "missing-extra"
    assert "certes[sdp]" in decision.detail


def test_our_own_engines_need_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("cvxpy", "scs"):
        monkeypatch.setitem(sys.modules, package, None)
    for name in ("rate continuous", "lure continuous", "rate time constants, map"):
        assert level(networks()[name]) > 0


def test_a_deadline_ends_the_search() -> None:
    decision = CONDITION.decide(RateNetwork(random_weights(30, 25, 3.0), "tanh"), Goal(seconds=0.02))
    assert isinstance(decision, NothingFound)
    assert decision.reason == "deadline"


def test_absurd_weights_are_refused_without_a_crash() -> None:
    decision = CONDITION.decide(RateNetwork([[1e200, 0.0], [0.0, 1e200]], "tanh"), Goal())
    assert isinstance(decision, NothingFound)
    assert decision.reason == "solver"


def test_a_step_beyond_the_leak_is_no_contraction() -> None:
    decision = CONDITION.decide(RateNetwork([[0.1]], "tanh", step=2.5), Goal())
    assert isinstance(decision, NothingFound)
    assert decision.reason == "margin"


def test_sparse_weights_do_not_apply() -> None:
    matrix = SparseMatrix(np.ones(1), np.zeros(1, dtype=np.int64), np.array([0, 1]), (1, 1))
    assert CONDITION.applies(RateNetwork(Tensor(matrix, ()), "tanh")) is not None


def test_the_answer_is_deterministic() -> None:
    first, second = (accepted(networks()["rate time constants"]) for _ in range(2))
    assert first.claims == second.claims
    for name, array in first.proof.to_arrays().items():
        np.testing.assert_array_equal(array, second.proof.to_arrays()[name])


# --- the engines by themselves


def _block(M: np.ndarray, q: np.ndarray, P: np.ndarray, family: conic.Family, value: float) -> np.ndarray:
    Q, eye = np.diag(q), np.eye(len(q))
    if isinstance(family, conic.Rate):
        row = P + M.T @ Q
        return np.block([[2 * (1 - value) * P, -row], [-row.T, 2 * Q]])
    assert isinstance(family, conic.Factor)
    A, B = (1 - family.a) * eye, family.a * eye
    corner = value**2 * P - A.T @ P @ A
    row = A.T @ P @ B + M.T @ Q
    return np.block([[corner, -row], [-row.T, 2 * Q - B.T @ P @ B]])


@pytest.mark.parametrize("family", [conic.Rate(), conic.Factor(1.0), conic.Factor(0.3), conic.Factor(1.3)])
@pytest.mark.parametrize("seed", range(4))
def test_cyclic_reduction_decides_exactly_and_its_metric_solves_the_inequality(family: conic.Family, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    M, q = rng.normal(size=(n, n)), np.exp(rng.normal(size=n))
    if seed == 3:
        M[:, 0] = 0.0
    A = conic.scaled(M, q)
    best = conic.best_level(A, family)
    assert best is not None
    judge = 1.0 - parabola(A) if isinstance(family, conic.Rate) else ellipse(A, family.a)  # type: ignore[attr-defined]
    assert best == pytest.approx(judge, abs=1e-3)
    worse, better = family.relax(best, 1e-4), family.relax(best, -1e-4)
    P = conic.metric(M, q, family, worse)
    assert P is not None
    assert np.linalg.eigvalsh(P)[0] > 0
    assert np.linalg.eigvalsh(_block(M, q, P, family, worse))[0] > 0
    assert conic.metric(M, q, family, better) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_step_is_where_the_factor_reaches_one(seed: int) -> None:
    A = random_weights(5, seed, 0.9)
    a = conic.best_level(A, conic.Step())
    assert a is not None
    z = boundary(A)[1]
    assert a == pytest.approx(min(2.0, float(((2 - abs(z) - z.real) / (1 - z.real)).min())), abs=1e-3)
    below, above = conic.best_level(A, conic.Factor(0.99 * a)), conic.best_level(A, conic.Factor(min(1.01 * a, 1.999)))
    assert below is not None
    assert above is not None
    assert below < 1 <= above + 2e-2
    assert below < above


@pytest.mark.parametrize("continuous", [True, False])
def test_the_score_is_the_best_level_of_a_point(continuous: bool) -> None:
    rng = np.random.default_rng(26)
    A = -np.eye(3) if continuous else 0.2 * np.eye(3)
    form = sdp.Inequality(A, 0.3 * rng.normal(size=(3, 2)), rng.normal(size=(2, 3)), np.array([1.0, 0.5]), continuous)
    P, q = np.eye(3) + 0.1 * np.ones((3, 3)), np.array([0.7, 0.9])
    best = form.score(P, q)

    def least(strength: float) -> float:
        value, Q, K = form.level(strength), np.diag(q), form.C.T @ np.diag(form.gap * q)
        if continuous:
            row = -(P @ form.B + K)
            block = np.block([[-(P @ A + A.T @ P + 2 * value * P), row], [row.T, 2 * Q]])
        else:
            row = -(A.T @ P @ form.B + K)
            block = np.block([[value**2 * P - A.T @ P @ A, row], [row.T, 2 * Q - form.B.T @ P @ form.B]])
        return float(np.linalg.eigvalsh(block)[0])

    assert least(best - 1e-6) > 0 > least(best + 1e-6)


def test_a_modest_target_needs_no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    system = RateNetwork(random_weights(6, 27, 0.9), "tanh")
    assert level(system, Goal(target=0.05)) == 0.05
