"""Feedback is skew in the metrics it is built for, by exact fractions; and nothing but a state metric is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import certes
import numpy as np
import pytest
from certes.assemblies import InterfaceProof
from certes.composition.feedback import Metric, feedback, metrics_of, skewness
from certes.composition.topologies import all_to_all, blocks, unordered
from certes.engines.monitor import Monitor
from certes.errors import InputError
from certes.projection.modules import interfaces
from certes.proofs import LureProof, SymmetricProof
from certes.verify.interface import Interface
from certes.verify.intervals import Box


def metric(n: int, condition: float, rng: np.random.Generator) -> Metric:
    """A random metric of a given condition number, eigenvalues spread evenly on a logarithmic scale."""
    rotation = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return Metric((rotation * condition ** np.linspace(-0.5, 0.5, n)) @ rotation.T, "state")


def exact_skewness(couplings: dict[Any, Any], metrics: dict[str, Metric]) -> float:
    """norm(M L + L^T M) / norm(M L) of the floats as they are, by fractions."""
    matrices = {name: np.vectorize(Fraction, otypes=[object])(each.matrix) for name, each in metrics.items()}
    zero = {pair: np.zeros(block.shape[::-1]) for pair, block in couplings.items()}
    residual, size = Fraction(0), Fraction(0)
    for (to, source), block in couplings.items():
        other = couplings.get((source, to), zero[to, source])
        product = matrices[to] @ np.vectorize(Fraction, otypes=[object])(block.astype(np.float64))
        mirror = np.vectorize(Fraction, otypes=[object])(other.astype(np.float64)).T @ matrices[source]
        residual += (1 if (source, to) in couplings else 2) * ((product + mirror) ** 2).sum()
        size += (product**2).sum()
    return math.sqrt(residual / size)


def random_case(seed: int, condition: float, *, both: bool) -> tuple[dict[Any, Any], dict[str, Metric]]:
    rng = np.random.default_rng(seed)
    metrics = {name: metric(int(rng.integers(2, 7)), condition, rng) for name in "abc"}
    pairs = all_to_all(list(metrics)) if both else unordered(all_to_all(list(metrics)))
    return blocks(pairs, {name: each.size for name, each in metrics.items()}, seed=seed), metrics


@pytest.mark.parametrize("seed", range(100))
def test_feedback_is_skew(seed: int) -> None:
    """Condition numbers from 1 to 1e6, blocks in one direction."""
    free, metrics = random_case(seed, 10.0 ** (6.0 * seed / 99.0), both=False)
    couplings = feedback(free, metrics)
    assert set(couplings) == set(all_to_all(["a", "b", "c"]))
    assert exact_skewness(couplings, metrics) < 1e-13
    for pair, block in free.items():
        moved = np.linalg.norm(couplings[pair] - block) / np.linalg.norm(block)
        assert moved < 1e-4, "the given direction is B, the other one its answer"


@pytest.mark.parametrize(
    ("condition", "reached"), [(1.0, 1e-15), (1e2, 3e-15), (1e4, 3e-13), (1e6, 3e-11), (1e8, 3e-9)]
)
def test_blocks_in_both_directions_reach_what_rounding_leaves(condition: float, reached: float) -> None:
    """About the unit of rounding times the condition number: no float64 numbers nearby do much better."""
    worst = max(exact_skewness(feedback(*case), case[1]) for case in _cases(condition))
    assert worst < reached


def _cases(condition: float) -> list[tuple[dict[Any, Any], dict[str, Metric]]]:
    return [random_case(seed, condition, both=True) for seed in range(8)]


def test_both_directions_add_up_as_in_the_formula() -> None:
    free, metrics = random_case(5, 10.0, both=True)
    couplings = feedback(free, metrics)
    for to, source in free:
        M, N = metrics[to].matrix, metrics[source].matrix
        expected = free[to, source] - np.linalg.inv(M) @ free[source, to].T @ N
        assert np.allclose(couplings[to, source], expected, rtol=1e-12, atol=1e-12)


def test_known_answer() -> None:
    """Scalars: L_ab = 3, L_ba = -3 m_a / m_b."""
    metrics = {"a": Metric(np.array([[2.0]]), "state"), "b": Metric(np.array([[8.0]]), "state")}
    couplings = feedback({("a", "b"): [[3.0]]}, metrics)
    assert couplings["a", "b"].tolist() == [[3.0]]
    assert couplings["b", "a"].tolist() == [[-0.75]]


def test_float32() -> None:
    free, metrics = random_case(1, 10.0, both=False)
    couplings = feedback(free, metrics, dtype="float32")
    assert {block.dtype.name for block in couplings.values()} == {"float32"}
    assert 1e-12 < exact_skewness(couplings, metrics) < 1e-6


def test_scaling_both_metrics_changes_nothing() -> None:
    free, metrics = random_case(2, 100.0, both=True)
    scaled = {name: Metric(4.0 * each.matrix, "state") for name, each in metrics.items()}
    first, second = feedback(free, metrics), feedback(free, scaled)
    assert all(np.array_equal(first[pair], second[pair]) for pair in first)


def test_large_modules_do_without_extended_precision() -> None:
    rng = np.random.default_rng(0)
    metrics = {"a": metric(300, 10.0, rng), "b": metric(20, 10.0, rng)}
    assert skewness(feedback({("a", "b"): rng.standard_normal((300, 20))}, metrics), metrics) < 1e-14


# --- the judge ---


def test_skewness_agrees_with_fractions() -> None:
    free, metrics = random_case(3, 10.0, both=True)
    assert skewness(free, metrics) == pytest.approx(exact_skewness(free, metrics), rel=1e-12)
    one = dict(list(free.items())[:1])
    assert skewness(one, metrics) == pytest.approx(math.sqrt(2.0)) == pytest.approx(exact_skewness(one, metrics))
    assert skewness({}, metrics) == 0.0
    symmetric = {("a", "b"): np.ones((3, 3)), ("b", "a"): np.ones((3, 3))}
    assert skewness(symmetric, {name: Metric(np.eye(3), "state") for name in "ab"}) == pytest.approx(2.0)


def test_inverse_metric_is_not_skew() -> None:
    """The convention of some published code, B - M B^T M^-1: far from free in the metric itself."""
    free, metrics = random_case(4, 100.0, both=False)
    exchanged = {name: Metric(np.linalg.inv(each.matrix), "state") for name, each in metrics.items()}
    assert skewness(feedback(free, exchanged), metrics) > 0.5


def test_skew_weights_behind_time_constants_are_not_free() -> None:
    """tau x' = ... + S x with S skew is L = diag(1 / tau) S in x': not skew in the metric proven for x'.

    Neither is S itself, nor the one in I; in M = T, if the modules contract in it, it is: that is feedback().
    """
    rng = np.random.default_rng(0)
    tau = {"a": np.array([1.0, 3.0, 0.2]), "b": np.array([0.5, 2.0])}
    systems = {
        name: certes.RateNetwork(0.4 * rng.standard_normal((len(each), len(each))), activation="tanh", tau=each)
        for name, each in tau.items()
    }
    found = interfaces(systems, None, Monitor())
    assert isinstance(found, tuple)
    metrics = metrics_of({module.name: module for module in found[1]})
    S = rng.standard_normal((3, 2))
    skew = {("a", "b"): S, ("b", "a"): -S.T}
    paced = {("a", "b"): S / tau["a"][:, None], ("b", "a"): -S.T / tau["b"][:, None]}
    plain = {name: Metric(np.eye(len(each)), "state") for name, each in tau.items()}
    times = {name: Metric(np.diag(each), "state") for name, each in tau.items()}
    assert skewness(skew, plain) == 0.0
    assert skewness(paced, plain) > 0.1
    assert skewness(skew, metrics) > 0.1
    assert skewness(paced, metrics) > 0.1
    assert skewness(skew, times) > 0.1
    assert skewness(paced, times) < 1e-15
    assert skewness(feedback({("a", "b"): paced["a", "b"]}, metrics), metrics) < 1e-15
    built = feedback({("a", "b"): paced["a", "b"]}, times)
    assert np.allclose(built["b", "a"], paced["b", "a"], rtol=1e-14, atol=0.0)


def test_modules_coupled_by_feedback_contract_at_the_slowest_rate() -> None:
    """In the metric diag(M_i), for every slope pattern of two modules, by eigenvalues."""
    rng = np.random.default_rng(1)
    systems = {name: certes.RateNetwork(rng.standard_normal((3, 3)) / 2, activation="tanh") for name in "ab"}
    found = interfaces(systems, None, Monitor())
    assert isinstance(found, tuple)
    modules = {module.name: module for module in found[1]}
    L = feedback({("a", "b"): 50.0 * rng.standard_normal((3, 3))}, metrics_of(modules))
    M, J = np.zeros((6, 6)), np.zeros((6, 6))
    M[:3, :3], M[3:, 3:] = modules["a"].metric, modules["b"].metric
    slowest = min(module.rate for module in modules.values())
    for pattern in range(64):
        on = np.array([pattern >> k & 1 for k in range(6)], dtype=np.float64)
        J[:3, :3] = on[:3, None] * systems["a"].matrix("W") - np.eye(3)
        J[3:, 3:] = on[3:, None] * systems["b"].matrix("W") - np.eye(3)
        J[:3, 3:], J[3:, :3] = L["a", "b"], L["b", "a"]
        assert np.linalg.eigvalsh(-(M @ J + J.T @ M) - 2.0 * slowest * M).min() > -1e-10


# --- what counts as a metric ---


def test_metrics_of_whatever_knows_its_metric() -> None:
    P = np.array([[2.0, 0.5], [0.5, 1.0]])
    q = np.ones(2)
    primal, dual = (LureProof(P, q, kind, 0.0, math.inf, 0.0, 0.0) for kind in (False, True))
    flow = Interface((Box.exact(P), Box.exact(np.array([[3.0]]))), True, 0.1, None)
    found = metrics_of(
        {
            "metric": Metric(P, "state"),
            "inverse": Metric(P, "inverse"),
            "primal": primal,
            "dual": dual,
            "interface": InterfaceProof(P, q, np.zeros(2), 0.1, 0.0),
            "assembly": flow,
        }
    )
    assert {each.of for each in found.values()} == {"state"}
    for name in ("metric", "primal", "interface"):
        assert np.array_equal(found[name].matrix, P)
    for name in ("inverse", "dual"):
        assert np.allclose(found[name].matrix @ P, np.eye(2), atol=1e-15)
    assert np.array_equal(found["assembly"].matrix, np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]]))


def test_hopfield_and_rate_modules_give_metrics_of_one_kind() -> None:
    """A Hopfield network's proof is dual; its module's metric is that of the state all the same."""
    W = np.random.default_rng(0).standard_normal((4, 4)) / 3
    for kind in (certes.RateNetwork, certes.HopfieldNetwork):
        found = interfaces({"a": kind(W, activation="tanh")}, None, Monitor())
        assert isinstance(found, tuple)
        M, module = metrics_of({"a": found[1][0]})["a"].matrix, found[1][0]
        for pattern in range(16):
            D = np.diag([float(pattern >> k & 1) for k in range(4)])
            J = (D @ W if kind is certes.RateNetwork else W @ D) - np.eye(4)
            assert np.linalg.eigvalsh(-(M @ J + J.T @ M) - 2.0 * module.rate * M).min() > -1e-10


SQUARE = np.eye(2)
GOOD = {"a": Metric(SQUARE, "state"), "b": Metric(SQUARE, "state")}


@pytest.mark.parametrize(
    ("call", "slug"),
    [
        (lambda: Metric(SQUARE, "hopfield"), "unknown-value"),  # type: ignore[arg-type]
        (lambda: Metric(np.ones((2, 3)), "state"), "wrong-shape"),
        (lambda: Metric(np.array([[1.0, 0.1], [0.0, 1.0]]), "state"), "not-symmetric"),
        (lambda: Metric(np.array([[1.0, 2.0], [2.0, 1.0]]), "state"), "not-positive-definite"),
        (lambda: Metric(np.array([[np.nan]]), "state"), "not-finite"),
        (lambda: metrics_of({"a": SQUARE}), "bare-metric"),
        (lambda: metrics_of({"a": [[1.0]]}), "bare-metric"),
        (lambda: metrics_of({"a": SymmetricProof(False)}), "wrong-type"),
        (lambda: metrics_of({"a": certes.RateNetwork(SQUARE / 2, activation="tanh")}), "wrong-type"),
        (lambda: metrics_of({"a": Interface((Box.exact(SQUARE),), False, 0.5, None)}), "wrong-time"),
        (lambda: feedback({("a", "b"): SQUARE}, {"a": SQUARE, "b": SQUARE}), "bare-metric"),  # type: ignore[dict-item]
        (lambda: feedback({("a", "b"): SQUARE}, {**GOOD, "b": Metric(SQUARE, "inverse")}), "inverse-metric"),
        (lambda: feedback({("a", "c"): SQUARE}, GOOD), "unknown-module"),
        (lambda: feedback({("a", "a"): SQUARE}, GOOD), "self-coupling"),
        (lambda: feedback({"ab": SQUARE}, GOOD), "wrong-type"),  # type: ignore[dict-item]
        (lambda: feedback([SQUARE], GOOD), "wrong-type"),  # type: ignore[arg-type]
        (lambda: feedback({("a", "b"): np.ones((2, 3))}, GOOD), "wrong-shape"),
        (lambda: feedback({("a", "b"): np.full((2, 2), np.inf)}, GOOD), "not-finite"),
        (lambda: feedback({("a", "b"): 1e100 * SQUARE}, GOOD, dtype="float32"), "not-finite"),
        (lambda: feedback({("a", "b"): SQUARE}, GOOD, dtype="float16"), "wrong-dtype"),  # type: ignore[arg-type]
    ],
)
def test_refusals(call: Callable[[], object], slug: str) -> None:
    with pytest.raises(InputError) as refused:
        call()
    assert refused.value.slug == slug
