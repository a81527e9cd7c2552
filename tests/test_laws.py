"""Laws that every answer obeys, whatever the condition: symmetries of the problem keep verdict and claims.

Relabelling neurons, rescaling them by a positive diagonal, exchanging a rate network with its transposed hopfield
network, shrinking all weights, storing the same numbers in a wider dtype.
"""

from __future__ import annotations

import certes
import numpy as np
import pytest
from certes.results import Result
from certes.systems import HopfieldNetwork, RateNetwork
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIZE = 3
#: Sixteenths: exact in every dtype, and products with powers of two stay exact. About half of these are provable.
WEIGHTS = hnp.arrays(np.float64, (SIZE, SIZE), elements=st.integers(-12, 12).map(lambda k: k / 16))
STEPS = st.sampled_from([None, 0.25, 1.0])
#: How well the best level is found: closed forms to rounding, searched ones to their tolerance.
TOLERANCE = {"absolute": 2e-3, "singular": 2e-3, "lure": 5e-4}
EXAMPLES = {"absolute": 24, "singular": 16, "lure": 8}


def answer(network: RateNetwork | HopfieldNetwork, condition: str) -> Result:
    return certes.certify(network, condition, refute=False)


def level(result: Result) -> float | None:
    return result.rate if result.rate is not None else result.factor


def assert_alike(one: Result, other: Result, tolerance: float) -> None:
    """The same verdict and level; near the border of what is provable the level may be lost, not changed."""
    first, second = level(one), level(other)
    if first is None or second is None:
        found = first if first is not None else second
        border = 0.0 if (one.rate or other.rate) is not None else 1.0
        assert found is None or abs(found - border) < 2 * tolerance
        return
    assert first == pytest.approx(second, abs=tolerance)


@pytest.mark.cases(1)
@pytest.mark.parametrize("condition", list(TOLERANCE))
def test_relabelling_rescaling_and_transposing_change_nothing(condition: str) -> None:
    @settings(max_examples=EXAMPLES[condition])
    @given(WEIGHTS, STEPS, st.permutations(range(SIZE)), st.lists(st.integers(-3, 3), min_size=SIZE, max_size=SIZE))
    def law(weights: Array, step: float | None, order: list[int], powers: list[int]) -> None:
        known = answer(RateNetwork(weights, activation="tanh", step=step), condition)
        relabelled = RateNetwork(weights[np.ix_(order, order)], activation="tanh", step=step)
        scale = 2.0 ** np.array(powers)
        rescaled = RateNetwork(weights * scale[:, None] / scale, activation="tanh", step=step)
        dual = HopfieldNetwork(weights.T, activation="tanh", step=step)
        for network in (relabelled, rescaled, dual):
            assert_alike(known, answer(network, condition), TOLERANCE[condition])

    law()


@pytest.mark.cases(1)
@pytest.mark.parametrize("condition", list(TOLERANCE))
def test_smaller_weights_are_never_worse_in_continuous_time(condition: str) -> None:
    @settings(max_examples=EXAMPLES[condition])
    @given(WEIGHTS, st.integers(1, 7))
    def law(weights: Array, eighths: int) -> None:
        known = answer(RateNetwork(weights, activation="tanh"), condition)
        shrunk = answer(RateNetwork(weights * eighths / 8, activation="tanh"), condition)
        if known.rate is not None:
            assert shrunk.rate is not None
            # not only monotone: 1 - rate is proportional to the weights, as far as it is positive
            assert shrunk.rate >= known.rate - TOLERANCE[condition]

    law()


@pytest.mark.parametrize("condition", [*TOLERANCE, "symmetric", "product"])
def test_widening_the_dtype_changes_no_claim(condition: str) -> None:
    @settings(max_examples=8 if condition != "lure" else 3)
    @given(WEIGHTS, STEPS)
    def law(weights: Array, step: float | None) -> None:
        given_weights = weights
        if condition in ("symmetric", "product"):
            given_weights = -(weights @ weights.T) / 4 - np.eye(SIZE) / 8
        narrow, wide = (
            answer(RateNetwork(given_weights.astype(dtype), activation="tanh", step=step), condition)
            for dtype in (np.float32, np.float64)
        )
        assert narrow.to_json()["claims"] == wide.to_json()["claims"]
        assert narrow.verdict == wide.verdict
        if narrow.certificate is not None and wide.certificate is not None:
            assert narrow.certificate.digest != wide.certificate.digest  # other bytes, another subject

    law()


@given(WEIGHTS, st.permutations(range(SIZE)))
@settings(max_examples=8)
def test_relabelling_keeps_every_further_claim(weights: Array, order: list[int]) -> None:
    network = RateNetwork(0.4 * weights, activation="tanh")
    moved = RateNetwork(0.4 * weights[np.ix_(order, order)], activation="tanh")
    one, other = (certes.certify(system, "lure", 0.1) for system in (network, moved))
    assert one.verdict == other.verdict
    if one.claims is not None and other.claims is not None:
        for name in ("weight_radius", "gain"):
            assert getattr(one.claims, name) == pytest.approx(getattr(other.claims, name), rel=0.05)
        assert one.claims.largest_step is not None
        assert other.claims.largest_step is not None
        assert one.claims.largest_step.step == pytest.approx(other.claims.largest_step.step, rel=0.02)
