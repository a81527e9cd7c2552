"""Bounds, no-metric proofs and witnesses made to be false, and put before the verifier."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from certes import certify
from certes.exact import audit_bound, audit_witness
from certes.proofs import Claims, ConicBound, LevelBound, LureBound, NoMetricProof, NormBound, SingularProof
from certes.refutation import refute
from certes.switching import refute_by_switching
from certes.systems import LureSystem, RateNetwork
from certes.verify import verify_contraction, verify_instability, verify_no_metric, verify_switching
from certes.verify.bound import verify_bound

#: The second neuron is scaled by this, which no certificate notices: only the floats overflow.
FAR = 2.0**511
SCALE = np.array([1.0, FAR])
TURNED = 0.9 * np.array([[0.0, 1.0], [1.0, 0.0]])
LARGEST = float(np.finfo(np.float64).max)


def far(weights: np.ndarray) -> np.ndarray:
    return SCALE[:, None] * weights / SCALE[None, :]


def columns(near: np.ndarray, size: float) -> np.ndarray:
    """Columns whose second row, squared, has the given size where ``near`` is 1."""
    return np.ascontiguousarray(near * (np.sqrt(size) / FAR) * SCALE[:, None])


def test_a_norm_bound_whose_sums_overflow_is_refused() -> None:
    """Row 2: 7.29 - 10.6 < 0 in units of a quarter of 1e308, but the first term alone overflows."""
    network = RateNetwork(far(TURNED), slope=(-1.0, 1.0))
    given = columns(np.array([[3.0] + [0.0] * 11, [0.0] + [1.0] * 11]), 0.25e308)
    bound = LevelBound(0.02, NormBound(given))
    proof = SingularProof(FAR / SCALE**2, 0.905)
    assert verify_contraction(network, proof, Claims(rate=0.09)).valid  # so no bound of 0.02 is true
    assert not audit_bound(network, bound).valid
    assert not verify_bound(network, bound).valid
    assert not verify_contraction(network, proof, Claims(rate=0.01, bound=bound)).valid


def test_a_conic_bound_whose_sums_overflow_is_refused() -> None:
    """The best rate is 0.1; a term of row 2 overflows in each lane of the sum before the negative ones come."""
    network = RateNetwork(far(TURNED), slope=(0.0, 1.0))
    for first in (1, 2, 4, 8, 16):
        rest = int(29 * first)
        near = np.hstack([np.tile([[3.0], [1.0]], first), np.tile([[0.5], [1.0]], rest)])
        given, count = columns(near, LARGEST / 2.6), first + rest
        bound = LevelBound(0.05, ConicBound(np.ones(count), np.zeros(count), given, np.zeros_like(given)))
        assert not audit_bound(network, bound).valid
        assert not verify_bound(network, bound).valid


def test_a_parting_of_starts_infinitely_far_apart_is_refused() -> None:
    network = RateNetwork([[3.0, 0.0], [0.0, 0.5]], "tanh")
    witness = refute(network)
    assert witness is not None
    assert verify_instability(network, witness).valid
    centre, away = (witness.start + witness.start_other) / 2, np.array([1e200, 0.0])
    wide = replace(witness, start=centre + away, start_other=centre - away, horizon=1e-3)
    assert not verify_instability(network, wide).valid


@pytest.mark.parametrize("slope", [(-2.0, -1.0), (1.0, 2.0)])
def test_the_leak_bounds_nothing_where_slope_zero_is_not_allowed(slope: tuple[float, float]) -> None:
    """x' = -x + phi(w x), w of the sign that makes every slope a brake: rate 1.5 and more, beyond 1 / tau."""
    network = RateNetwork([[-np.sign(slope[0])]], slope=slope)
    assert certify(network, rate=1.5).verdict == "contracting"
    for proof in (NormBound(np.ones((1, 1))), LureBound(np.array([[1.0], [0.0]]), False)):
        assert not verify_bound(network, LevelBound(1.5, proof)).valid


def test_a_jacobian_that_is_positive_only_by_rounding_excludes_no_metric() -> None:
    """A + B C = -200 + 2^60 + 130 - 2^60 = -70, which float64 sums to 56 in some order."""
    for terms in permutations((2.0**60, 130.0, -(2.0**60))):
        system = LureSystem([[-200.0]], [list(terms)], np.ones((3, 1)), slope=(1.0, 1.0))
        proof = NoMetricProof(np.ones((1, 3)), np.zeros(1, dtype=np.int64), np.ones((1, 1)))
        assert not audit_witness(system, proof).valid
        assert not verify_no_metric(system, proof).valid


@pytest.mark.parametrize("shift", [-1.0, 0.5, 1.0])
def test_points_of_a_bare_interval_are_those_of_one_function(shift: float) -> None:
    system = RateNetwork([[0.0, -4.0], [4.0, 0.0]], slope=(0.0, 1.0))
    witness = refute_by_switching(system)
    assert witness is not None
    assert verify_switching(system, witness).valid
    for points in (witness.points + shift, 0.0 * witness.points, witness.points[::-1].copy()):
        failed = verify_switching(system, replace(witness, points=points)).failed
        assert failed is not None
        assert failed.name == "slopes"


@pytest.mark.parametrize("seconds", [1e-9, 1e-3])
def test_a_deadline_is_not_called_a_cancellation(seconds: float) -> None:
    weights = np.random.default_rng(1).normal(size=(24, 24)) * 0.9 / np.sqrt(24)
    result = certify(RateNetwork(weights, "tanh", tau=np.linspace(0.5, 2.0, 24)), seconds=seconds)
    assert "cancelled" not in {result.reason, *(attempt.reason for attempt in result.attempts)}


def test_starts_off_the_periodic_orbit_are_refused() -> None:
    network = RateNetwork([[0.0, -4.0], [4.0, 0.0]], "tanh")
    witness = refute_by_switching(network)
    assert witness is not None
    assert verify_switching(network, witness).valid
    for away in (1e-2, 0.3):
        moved = replace(witness, start=witness.start + away, start_other=witness.start_other + away)
        report = verify_switching(network, moved)
        assert not report.valid
        assert report.failed is not None
        assert report.failed.name == "input"
