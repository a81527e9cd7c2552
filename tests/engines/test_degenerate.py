"""Degenerate networks get the right answer, or a precise ``undecided``: never an exception, never NaN.

The right answers are closed forms for slopes in [0, 1] and one time constant: with p the largest (abs z + Re z) / 2
over the field of values, minimised over the diagonal scalings, the best rate is 1 - p.
"""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.linalg
from certes import Result, certify
from certes.conditions.uniform import UniformLeak
from certes.engines import scaling
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from hypothesis import given, settings
from hypothesis import strategies as st

Array = np.ndarray

RNG = np.random.default_rng(3)
FULL = RNG.normal(size=(6, 6)) * 0.3
ORTHOGONAL = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
SPREAD = np.array([1e-45, 1e-30, 1e-3, 1.0, 1e20, 1e45])


def matrices() -> dict[str, Array]:
    """All that is degenerate."""
    without = FULL.copy()
    without[2] = 0.0
    found = {
        "zero": np.zeros((3, 3)),
        "one neuron": np.array([[0.5]]),
        "one neuron, negative": np.array([[-3.0]]),
        "one neuron, no weight": np.array([[0.0]]),
        "nilpotent": np.triu(np.full((5, 5), 3.0), 1),
        "long chain": np.diag(np.full(19, 50.0), 1),
        "triangular": np.triu(FULL),
        "jordan block": 0.5 * np.eye(6) + np.diag(np.ones(5), 1),
        "block triangular": scipy.linalg.block_diag(FULL, FULL) + np.triu(np.ones((12, 12)), 6),
        "zero row": without,
        "zero column": without.T,
        "rank one": np.outer([1.0, 2.0, 0.0], [0.3, 0.0, 0.2]),
        "rank one, negative": np.outer([1.0, 2.0, 1.0], [-0.3, -0.5, 0.2]),
        "identical rows": np.tile(RNG.normal(size=4), (4, 1)) * 0.4,
        "skew": np.array([[0.0, -1.0], [1.0, 0.0]]),
        "orthogonal": 0.7 * ORTHOGONAL,
        "circulant": scipy.linalg.circulant([0.1, 0.5, -0.2, 0.3, 0.1]),
        "permutation": 0.9 * np.roll(np.eye(5), 1, axis=0),
        "identity": np.eye(3),
        "negative definite": -np.eye(3) - 1.0,
        "copies": scipy.linalg.block_diag(FULL, FULL, FULL),
        "similar": SPREAD[:, None] * FULL / SPREAD,
        "similar, beyond the cap": SPREAD[:, None] ** 1.6 * FULL / SPREAD**1.6,
        "huge": 1e150 * FULL / np.abs(FULL).max() / 1.001,
        "beyond": 1e300 * FULL,
        "tiny": 1e-150 * FULL,
        "tiniest": 1e-300 * FULL,
        "subnormal": np.full((3, 3), 5e-324),
        "mixed rows": FULL * np.array([1e-150, 1e-100, 1e-5, 1.0, 1.0, 1.0])[:, None],
        "mixed entries": FULL * 10.0 ** RNG.uniform(-12.0, 0.0, (6, 6)),
    }
    return found | {"symmetric": 0.5 * (FULL + FULL.T)}


MATRICES = matrices()

UNIFORM = {
    "rate": lambda W: RateNetwork(W, "tanh"),
    "hopfield": lambda W: HopfieldNetwork(W, "relu", tau=0.5),
    "leaky": lambda W: RateNetwork(W, "tanh", step=0.3),
    "discrete": lambda W: HopfieldNetwork(W, "tanh", step=1.0),
    "norm": lambda W: RateNetwork(W, slope=(-1.0, 1.0)),
    "huge slopes": lambda W: RateNetwork(W, slope=(0.0, 1e120)),
    "tiny slopes": lambda W: HopfieldNetwork(W, slope=(0.0, 1e-120)),
    "slow": lambda W: HopfieldNetwork(W, "tanh", tau=1e100),
    "quick map": lambda W: RateNetwork(W, "tanh", tau=1e-100, step=3e-101),
}
GENERAL = {
    "shifted": lambda W: RateNetwork(W, slope=(-0.1, 0.9)),
    "shifted, discrete": lambda W: RateNetwork(W, slope=(-0.1, 0.9), step=1.0),
    "time constants": lambda W: RateNetwork(W, "tanh", tau=np.linspace(0.5, 2.0, len(W))),
    "far time constants": lambda W: HopfieldNetwork(W, "tanh", tau=np.geomspace(1e-6, 1e6, len(W)), step=1e-7),
    "lure": lambda W: LureSystem(-np.eye(len(W)), W, np.eye(len(W)), slope=(0.0, 1.0)),
}


def numbers(value: object) -> list[float]:
    """Every number in a result, however deep."""
    if dataclasses.is_dataclass(value):
        return [x for entry in dataclasses.fields(value) for x in numbers(getattr(value, entry.name))]
    if isinstance(value, tuple | list):
        return [x for entry in value for x in numbers(entry)]
    if isinstance(value, np.ndarray):
        return [float(x) for x in value.ravel()]
    return [float(value)] if isinstance(value, float | np.floating) else []


def check(system: System) -> Result:
    """The answer, which is well-formed whatever it is."""
    result = certify(system, condition="lure", refute=False, seconds=20.0)
    assert not any(math.isnan(number) for number in numbers(result))
    json.dumps(result.to_json(), allow_nan=False)
    attempt = result.attempts[-1]
    if result.verdict == "undecided":
        assert attempt.reason in ("margin", "solver", "deadline")
        assert attempt.detail
        assert "nan" not in attempt.detail.split()
        return result
    assert result.verdict == "contracting"
    assert result.claims is not None
    assert result.claims.metric_condition_log2 is not None
    assert result.claims.metric_condition_log2 < 1100.0
    number, bound = (result.rate, result.rate_bound) if system.continuous else (result.factor, result.factor_bound)
    assert number is not None
    assert bound is None or (number < bound if system.continuous else number > bound)
    return result


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", MATRICES)
def test_an_answer_without_nan(name: str) -> None:
    for network in UNIFORM.values():
        check(network(MATRICES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRICES)
def test_an_answer_without_nan_from_the_general_engine(name: str) -> None:
    for network in GENERAL.values():
        check(network(MATRICES[name]))


@pytest.mark.cases(10)
@pytest.mark.parametrize("kind", GENERAL)
@pytest.mark.parametrize("name", ["zero", "one neuron", "rank one", "skew", "beyond", "subnormal"])
def test_small_matrices_in_the_general_engine(name: str, kind: str) -> None:
    check(GENERAL[kind](MATRICES[name]))


# --- closed forms


def answer(system: System) -> Result:
    """What ``certify`` says, without the claims that follow from the proof."""
    lines: list[str] = []

    def proven() -> bool:
        return any("proven" in line for line in lines)

    return certify(system, condition="lure", refute=False, progress=lines.append, cancelled=proven)


def price(W: Array) -> float:
    """p = 1 - rate, verified or as far as the condition came."""
    rate, dual = (answer(network(matrix)).attempts[-1].rate for network, matrix in DUAL(W))
    assert rate is not None
    assert rate == pytest.approx(dual, abs=1e-5 * max(1.0 - rate, 0.1))
    return 1.0 - rate


def DUAL(W: Array) -> list[tuple[type[System], Array]]:
    return [(lambda M: RateNetwork(M, "tanh"), W), (lambda M: HopfieldNetwork(M, "tanh"), W.T)]  # type: ignore[list-item]


def of_point(z: Array) -> float:
    return float((0.5 * (np.abs(z) + np.real(z))).max())


def of_rank_one(u: Array, v: Array) -> float:
    """The field of values of u v^T is an ellipse with foci 0 and v^T u; scalings make norm(u) norm(v) least."""
    return 0.5 * (float(np.abs(u * v).sum()) + float(u @ v))


CLOSED = {
    "zero": 0.0,
    "one neuron": 0.5,
    "one neuron, negative": 0.0,
    "one neuron, no weight": 0.0,
    "nilpotent": 0.0,
    "triangular": max(float(np.diagonal(FULL).max()), 0.0),
    "jordan block": 0.5,
    "rank one": of_rank_one(np.array([1.0, 2.0, 0.0]), np.array([0.3, 0.0, 0.2])),
    "rank one, negative": of_rank_one(np.array([1.0, 2.0, 1.0]), np.array([-0.3, -0.5, 0.2])),
    "identical rows": of_rank_one(np.ones(4), MATRICES["identical rows"][0]),
    "skew": 0.5,
    "identity": 1.0,
    "negative definite": 0.0,
    "tiny": 0.0,
    "tiniest": 0.0,
} | {
    name: of_point(np.linalg.eigvals(MATRICES[name]))  # the field of values of a normal matrix is the convex hull
    for name in ("orthogonal", "circulant", "permutation", "symmetric")
}


@pytest.mark.parametrize("name", CLOSED)
def test_the_rate_is_the_closed_form(name: str) -> None:
    found = price(MATRICES[name])
    assert found > 0.0  # a rate of 1 is never claimed
    assert found == pytest.approx(CLOSED[name], rel=1e-5, abs=2e-6)


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("similar", FULL),
        ("copies", FULL),
        ("block triangular", FULL),
        ("zero row", np.delete(np.delete(FULL, 2, 0), 2, 1)),
        ("zero column", np.delete(np.delete(FULL, 2, 0), 2, 1).T),
        ("mixed rows", FULL[3:, 3:]),
    ],
)
def test_what_cannot_matter_does_not(name: str, same: Array) -> None:
    assert price(MATRICES[name]) == pytest.approx(price(same), rel=1e-5 if name != "mixed rows" else 1e-4)


@pytest.mark.parametrize("a", [0.3, 1.0, 1.6])
@pytest.mark.parametrize("w", [-0.4, 0.0, 0.2])
def test_one_neuron_as_a_map(w: float, a: float) -> None:
    attempt = answer(RateNetwork([[w]], "tanh", step=a)).attempts[-1]
    assert attempt.factor == pytest.approx(max(abs(1.0 - a), abs(1.0 - a + a * w)), abs=2e-6)


def test_huge_weights_are_undecided_with_their_distance() -> None:
    W = MATRICES["huge"]
    result = answer(RateNetwork(W, "tanh"))
    assert (result.verdict, result.reason) == ("undecided", "margin")
    assert result.attempts[-1].rate == pytest.approx(-1e150 * price(W / 1e150), rel=1e-5)


def test_the_condition_of_the_multipliers_is_capped() -> None:
    """The supremum of a nilpotent matrix is not attained: the further the multipliers spread, the closer it comes."""
    for name in ("nilpotent", "long chain", "triangular", "jordan block"):
        leak = UniformLeak.of(RateNetwork(MATRICES[name], "tanh"))
        assert leak is not None
        found = scaling.optimise(leak.weights, leak.family, tolerance=1e-7)
        assert found.condition <= scaling.CAP * (1.0 + 1e-9)
    result = answer(RateNetwork(MATRICES["long chain"], "tanh"))
    assert result.verdict == "undecided"
    assert "stalled" in result.detail


# --- laws


@st.composite
def weights(draw: st.DrawFn) -> Array:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 6))
    W = rng.normal(size=(n, n))
    return W * draw(st.floats(0.3, 1.2)) / float(np.linalg.norm(W, 2))


def close(found: float, expected: float) -> bool:
    return abs(found - expected) <= 1e-5 * max(abs(expected), 0.05)


def number(system: System) -> float:
    """The best rate or factor."""
    attempt = answer(system).attempts[-1]
    found = attempt.rate if system.continuous else attempt.factor
    assert found is not None
    return found


@given(W=weights(), step=st.sampled_from([None, 0.3, 1.0]), data=st.data())
@settings(max_examples=6)
def test_laws(W: Array, step: float | None, data: st.DataObject) -> None:
    n = len(W)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    base = number(RateNetwork(W, "tanh", step=step))
    order = rng.permutation(n)
    assert close(number(RateNetwork(W[np.ix_(order, order)], "tanh", step=step)), base)
    d = 2.0 ** rng.integers(-60, 60, n)
    assert close(number(RateNetwork(d[:, None] * W / d, "tanh", step=step)), base)
    assert close(number(HopfieldNetwork(W.T, "tanh", step=step)), base)
    share = data.draw(st.floats(0.1, 0.95))
    scaled = number(RateNetwork(share * W, "tanh", step=step))
    if step is None:
        assert close(scaled, 1.0 - share * (1.0 - base))
    elif step == 1.0:
        assert close(scaled, share * base)
    else:
        assert abs(1.0 - step) <= scaled <= base * (1.0 + 1e-5)


@given(W=weights(), data=st.data())
@settings(max_examples=5)
def test_laws_with_time_constants(W: Array, data: st.DataObject) -> None:
    n = len(W)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    tau, low = rng.uniform(0.5, 2.0, n), rng.uniform(-0.2, 0.1, n)
    slope, order = (low, low + 0.8), rng.permutation(n)
    base = number(RateNetwork(W, slope=slope, tau=tau))
    moved = RateNetwork(W[np.ix_(order, order)], slope=(slope[0][order], slope[1][order]), tau=tau[order])
    assert close(number(moved), base)
    d = 2.0 ** rng.integers(-20, 20, n)
    assert close(number(RateNetwork(d[:, None] * W / d, slope=slope, tau=tau)), base)
    assert close(number(HopfieldNetwork(W.T, slope=slope, tau=tau)), base)


# --- stopping


def large(scale: float = 0.4) -> RateNetwork:
    return RateNetwork(scale * np.random.default_rng(7).normal(size=(150, 150)) / np.sqrt(150.0), "tanh")


def test_a_deadline_leaves_what_was_found() -> None:
    result = certify(large(2.0), condition="lure", refute=False, seconds=0.05)
    assert (result.verdict, result.reason) == ("undecided", "deadline")
    assert "more time" in result.detail


@pytest.mark.cases(2)
@pytest.mark.parametrize("polls", [0, 1, 3, 10, 30])
@pytest.mark.parametrize("scale", [0.4, 2.0])
def test_cancelling_keeps_the_best(scale: float, polls: int) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > polls

    result = certify(large(scale), condition="lure", refute=False, cancelled=cancelled)
    if result.verdict == "contracting":  # what was found by then is proven
        assert scale == 0.4
        assert result.certificate is not None
    else:
        assert (result.verdict, result.reason) == ("undecided", "cancelled")
        assert scale == 2.0
        assert result.attempts[-1].rate is not None


@pytest.mark.slow
def test_a_target_ends_the_search_early() -> None:
    def rounds(rate) -> int:
        lines: list[str] = []

        def proven() -> bool:
            return any("proven" in line for line in lines)

        result = certify(large(), condition="lure", rate=rate, refute=False, progress=lines.append, cancelled=proven)
        assert result.verdict == "contracting"
        assert rate == "best" or result.rate == rate
        return sum(line.startswith("round") for line in lines)

    assert rounds(0.05) < rounds("best")
