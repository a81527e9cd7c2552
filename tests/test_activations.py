"""Slope intervals and derivatives of the activation table, proven in ball arithmetic.

For every smooth activation phi the balls enclose phi' on a subdivision of [-60, 60]; outside, phi' is within an
exponentially small distance of its limit, or monotone. The piecewise linear ones are checked piece by piece. The judge
is the definition of the function, written again here in flint's balls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from certes.activations import ACTIVATIONS, DERIVATIVE_ERROR, activation
from certes.errors import InputError
from flint import arb, ctx, fmpq
from hypothesis import given
from hypothesis import strategies as st

Ball = Any


def sigmoid(t: Ball) -> Ball:
    return 1 / (1 + (-t).exp())


def silu_slope(t: Ball) -> Ball:
    p = sigmoid(t)
    return p + t * p * (1 - p)


def gelu_slope(t: Ball) -> Ball:
    return (1 + (t / arb(2).sqrt()).erf()) / 2 + t * (-t * t / 2).exp() / (2 * arb.pi()).sqrt()


def elu_slope(t: Ball) -> Ball:
    """exp(t) below 0 and 1 above: min(1, exp(t)), also for a ball around 0."""
    return t.min(arb(0)).exp()


SLOPES: dict[str, Callable[[Ball], Ball]] = {
    "tanh": lambda t: 1 / t.cosh() ** 2,
    "sigmoid": lambda t: sigmoid(t) * sigmoid(-t),
    "softplus": sigmoid,
    "elu": elu_slope,
    "gelu": gelu_slope,
    "silu": silu_slope,
    "softsign": lambda t: 1 / (1 + abs(t)) ** 2,
}
#: Pieces (left end, right end, slope) of the piecewise linear activations.
LINES: dict[str, list[tuple[float, float, float]]] = {
    "relu": [(-np.inf, 0.0, 0.0), (0.0, np.inf, 1.0)],
    "hardtanh": [(-np.inf, -1.0, 0.0), (-1.0, 1.0, 1.0), (1.0, np.inf, 0.0)],
    "relu6": [(-np.inf, 0.0, 0.0), (0.0, 6.0, 1.0), (6.0, np.inf, 0.0)],
    "identity": [(-np.inf, np.inf, 1.0)],
    "leaky_relu": [(-np.inf, 0.0, 0.01), (0.0, np.inf, 1.0)],
    "leaky_relu:0.3": [(-np.inf, 0.0, 0.3), (0.0, np.inf, 1.0)],
}
REACH = 60


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    with ctx.workprec(192):
        yield


def exact(value: float) -> fmpq:
    return fmpq(*float(value).as_integer_ratio())


def cell(left: fmpq, right: fmpq) -> Ball:
    """The ball [left, right]."""
    return arb((left + right) / 2, arb((right - left) / 2))


def enclosures(slope: Callable[[Ball], Ball], low: fmpq, high: fmpq) -> Iterator[tuple[fmpq, fmpq, Ball]]:
    """Cells that cover [-REACH, REACH], halved until their image lies in [low, high] or is 1e-9 wide."""
    todo = [(fmpq(k), fmpq(k + 1)) for k in range(-REACH, REACH)]
    while todo:
        left, right = todo.pop()
        image = slope(cell(left, right))
        inside = image >= low and image <= high
        if inside or right - left < fmpq(1, 1 << 30):
            yield left, right, image
        else:
            middle = (left + right) / 2
            todo += [(left, middle), (middle, right)]


def test_every_activation_is_proven_here() -> None:
    assert set(ACTIVATIONS) | {"leaky_relu", "leaky_relu:0.3"} == SLOPES.keys() | LINES.keys()


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", SLOPES)
def test_smooth_slopes_lie_in_their_interval(name: str) -> None:
    entry = ACTIVATIONS[name]
    low, high = exact(entry.lower), exact(entry.upper)
    # where an end of the interval is the exact extreme (1, 1/4) balls touch it from outside by their own radius
    slack = fmpq(1, 1 << 24)
    for left, right, image in enclosures(SLOPES[name], low, high):
        if not (image >= low and image <= high):
            assert image >= low - slack, (name, left, right)
            assert image <= high + slack, (name, left, right)
            assert exactly_extreme(name, left, right), (name, left, right)


def exactly_extreme(name: str, left: fmpq, right: fmpq) -> bool:
    """Cells where the bound holds by an identity and not by a subdivision: phi' <= its value at 0, elu' <= 1 at t >= 0.

    tanh' = 1 / cosh^2 <= 1; sigmoid' = p (1 - p) <= 1/4 for every p; elu' = min(1, exp t); softsign' = 1/(1 + |t|)^2.
    """
    near = max(abs(left), abs(right)) <= fmpq(1, 1024)
    return name == "elu" or (near and name in {"tanh", "sigmoid", "softsign"})


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("side", [-1, 1])
def test_tails_stay_in_their_interval(name: str, side: int) -> None:
    """Beyond REACH: |phi'(t) - limit| <= (2 + |t|) exp(-|t|) for all but softsign, whose slope falls from 1/61^2 to 0.

    sigmoid' = p (1 - p) <= exp(-|t|); tanh' <= 4 exp(-2|t|); softplus' = p; silu' - p = t p (1 - p); gelu' is within
    (1 + |t|) exp(-t^2 / 2) of its limit; elu' = exp(t) or 1. The limits themselves lie inside the interval.
    """
    entry = ACTIVATIONS[name]
    limit = 1 if side > 0 and name in {"softplus", "elu", "gelu", "silu"} else 0
    assert exact(entry.lower) <= limit <= exact(entry.upper)
    at_reach = SLOPES[name](arb(side * REACH))
    bound = arb(1) / 61**2 if name == "softsign" else (2 + REACH) * arb(-REACH).exp()
    assert abs(at_reach - limit) <= bound + fmpq(1, 10**18)
    room = min(exact(entry.upper) - limit, limit - exact(entry.lower))
    # a one-sided interval: the slope approaches its limit from inside, as probabilities do
    assert room == 0 or bound < room or name == "softsign"
    assert name not in {"gelu", "silu"} or bound < room


def test_the_extreme_slopes_are_tight() -> None:
    """No interval is wider than it has to be by more than 1e-5; the extremes lie where phi'' changes its sign."""
    extremes = {"gelu": arb(2).sqrt(), "silu": arb("2.39935728052")}
    for name, point in extremes.items():
        entry = ACTIVATIONS[name]
        top, bottom = SLOPES[name](point), SLOPES[name](-point)
        assert top <= exact(entry.upper)
        assert exact(entry.upper) - top < fmpq(1, 100_000)
        assert bottom >= exact(entry.lower)
        assert bottom - exact(entry.lower) < fmpq(1, 100_000)
    assert SLOPES["tanh"](arb(0)) == 1
    assert SLOPES["sigmoid"](arb(0)) == fmpq(1, 4)
    assert SLOPES["softsign"](arb(0)) == 1


def points() -> np.ndarray:
    rng = np.random.default_rng(5)
    scales = 10.0 ** rng.uniform(-12, 2.5, 1500) * rng.choice([-1.0, 1.0], 1500)
    return np.concatenate([scales, np.linspace(-40.0, 40.0, 1601), [0.0, -0.0, 1e-300, 745.0, -745.0, 1e6, -1e6]])


@pytest.mark.parametrize("name", SLOPES)
def test_derivatives_are_as_accurate_as_claimed(name: str) -> None:
    """|computed phi'(s) - phi'(s)| <= DERIVATIVE_ERROR; with a factor of 10 in hand on every point that is tried."""
    given_points = points()
    computed = ACTIVATIONS[name].derivative(given_points)
    assert np.isfinite(computed).all()
    with ctx.workprec(256):
        for s, slope in zip(given_points, computed, strict=True):
            error = abs(SLOPES[name](arb(exact(s))) - exact(slope))
            assert error < exact(DERIVATIVE_ERROR) / 10, (name, s, float(slope))


@pytest.mark.parametrize("name", LINES)
def test_pieces_have_the_slopes_of_the_table(name: str) -> None:
    entry = activation(name)
    slopes = [slope for _, _, slope in LINES[name]]
    assert entry.lower <= min(slopes)
    assert entry.upper >= max(slopes)
    assert min(slopes) - entry.lower < 1e-8
    assert entry.upper == max(slopes)
    assert entry.attained == "ends"
    for left, right, slope in LINES[name]:
        inside = np.linspace(max(left, -50.0), min(right, 50.0), 101)[1:-1]
        assert (entry.derivative(inside) == slope).all()
        increments = np.diff(entry.function(inside)) / np.diff(inside)
        assert np.allclose(increments, slope, rtol=0, atol=1e-12)


def test_leaky_relu_covers_its_float32_neighbour() -> None:
    for slope in (0.01, 0.1, 0.3, 0.2):
        entry = activation(f"leaky_relu:{slope}")
        assert entry.lower <= min(slope, float(np.float32(slope)))


@pytest.mark.parametrize(
    "name",
    [
        "leaky_relu:٠.٥",
        "leaky_relu: 0.5",
        "leaky_relu:0_1e0",
        "leaky_relu:-0.1",
        "leaky_relu:2",
        "leaky_relu:nan",
        "leaky_relu:x",
        "selu",
        "",
        "ReLU",
    ],
)
def test_unknown_activations_are_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        activation(name)
    assert caught.value.slug == "unknown-activation"


NAMES = [*SLOPES, *LINES]
COORDINATE = st.floats(-30.0, 30.0)


@given(st.sampled_from(NAMES), COORDINATE, COORDINATE)
def test_secants_lie_in_the_slope_interval(name: str, s: float, t: float) -> None:
    """a <= (phi(s) - phi(t)) / (s - t) <= b, up to the rounding of phi in float64."""
    entry = activation(name)
    low, high = sorted((s, t))
    values = entry.function(np.array([low, high]))
    rise, width = float(values[1] - values[0]), high - low
    tolerance = 1e-13 * (1.0 + abs(low) + abs(high))
    assert entry.lower * width - tolerance <= rise <= entry.upper * width + tolerance


@given(st.sampled_from(NAMES), COORDINATE)
def test_the_derivative_is_the_limit_of_secants(name: str, s: float) -> None:
    entry = activation(name)
    h = 1e-5
    sides = entry.derivative(np.array([s - h, s, s + h]))
    values = entry.function(np.array([s - h, s + h]))
    secant = float(values[1] - values[0]) / (2 * h)
    assert sides.min() - 1e-5 <= secant <= sides.max() + 1e-5
