"""Enclosures of the logistic function and of tanh, with balls of python-flint as the judge."""

from __future__ import annotations

import numpy as np
import pytest
from certes.verify import elementary
from certes.verify.elementary import Interval, exact, hull, logistic, logistic_slope, tanh, tanh_slope
from hypothesis import given, settings
from hypothesis import strategies as st

flint = pytest.importorskip("flint")

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NEAR = st.floats(-60.0, 60.0)


def _balls(value: float) -> tuple[object, object, object, object]:
    """sig(s), tanh(s) and the slopes of both, to 4000 bits: 53 cannot tell a slope of 1/4 from one just below."""
    before = flint.ctx.prec
    flint.ctx.prec = 4000
    try:
        s = flint.arb(value)
        sig, tan = 1 / (1 + (-s).exp()), s.tanh()
        return sig, tan, sig * (1 - sig), 1 - tan * tan
    finally:
        flint.ctx.prec = before


def _holds(found: Interval, ball: object) -> bool:
    return bool(flint.arb(float(found.lower[0])) <= ball <= flint.arb(float(found.upper[0])))


@settings(max_examples=400, deadline=None)
@given(NEAR | st.floats(-1e-3, 1e-3) | st.floats(-700.0, 700.0))
def test_values_lie_in_their_enclosures(s: float) -> None:
    argument = exact(np.array([s]))
    sig, tan, _, _ = _balls(s)
    for found, ball in ((logistic(argument), sig), (tanh(argument), tan)):
        assert _holds(found, ball)
        assert found.upper[0] - found.lower[0] < 1e-12


@settings(max_examples=300, deadline=None)
@given(st.floats(-45.0, 0.0) | st.floats(-800.0, 0.0) | st.floats(-1e-300, 0.0) | st.sampled_from([-45.0, -0.0]))
def test_the_exponential_itself(t: float) -> None:
    """Relative to its value, which the logistic function hides beside 1."""
    found = elementary._exponential(np.array([t]))
    before = flint.ctx.prec
    flint.ctx.prec = 400
    try:
        assert _holds(found, flint.arb(t).exp())
    finally:
        flint.ctx.prec = before
    if t >= -45.0:
        assert found.upper[0] <= found.lower[0] * (1 + 1e-11)
    else:
        assert found.upper[0] < 1e-19


@settings(max_examples=200, deadline=None)
@given(FLOATS)
def test_any_float_is_enclosed_inside_the_range(s: float) -> None:
    sig, tan = logistic(exact(np.array([s]))), tanh(exact(np.array([s])))
    assert 0.0 <= sig.lower[0] <= sig.upper[0] <= 1.0
    assert -1.0 <= tan.lower[0] <= tan.upper[0] <= 1.0
    limit = 1.0 if s > 700 else 0.0 if s < -700 else None
    if limit is not None:
        assert sig.lower[0] <= limit <= sig.upper[0]


def test_infinite_and_missing_arguments() -> None:
    ends = logistic(Interval(np.array([-np.inf]), np.array([np.inf])))
    assert (ends.lower[0], ends.upper[0]) == (0.0, 1.0)
    assert np.isnan(logistic(exact(np.array([np.nan]))).lower[0])
    assert not logistic(exact(np.array([np.nan]))).within(exact(np.zeros(1))).any()


@settings(max_examples=200, deadline=None)
@given(NEAR, NEAR, st.floats(0.0, 1.0))
def test_slopes_over_an_interval(a: float, b: float, share: float) -> None:
    low, high = min(a, b), max(a, b)
    middle = min(max(low + share * (high - low), low), high)
    over = Interval(np.array([low]), np.array([high]))
    _, _, rising, falling = _balls(middle)
    assert _holds(logistic_slope(logistic(over)), rising)
    assert _holds(tanh_slope(tanh(over)), falling)


@settings(max_examples=200, deadline=None)
@given(*[st.floats(-1e6, 1e6) for _ in range(4)], st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_arithmetic_of_intervals(a: float, b: float, c: float, d: float, s: float, t: float) -> None:
    from fractions import Fraction

    one, other = sorted((a, b)), sorted((c, d))
    x, y = (min(max(lo + q * (hi - lo), lo), hi) for (lo, hi), q in ((one, s), (other, t)))
    left, right = (Interval(np.array([lo]), np.array([hi])) for lo, hi in (one, other))
    exactly = {"+": Fraction(x) + Fraction(y), "-": Fraction(x) - Fraction(y), "*": Fraction(x) * Fraction(y)}
    for found, name in ((left + right, "+"), (left - right, "-"), (left * right, "*")):
        assert Fraction(float(found.lower[0])) <= exactly[name] <= Fraction(float(found.upper[0]))
    both = hull(left, right)
    assert left.within(both).all()
    assert right.within(both).all()
    assert left.within(Interval.of(left.box)).all()


def test_flipped_rounding_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the outward step the exact product of these ends is missed: the tests above can fail."""
    from fractions import Fraction

    monkeypatch.setattr(elementary, "_outward", Interval)
    third = exact(np.array([1.0 / 3.0]))
    assert Fraction(float((third * third).upper[0])) != Fraction(1.0 / 3.0) ** 2
