"""Attacks on the vectors of an ``absolute`` proof: numbers whose arithmetic wraps around or underflows."""

import numpy as np
import pytest
from certes.proofs import AbsoluteProof, Claims
from certes.systems import HopfieldNetwork, RateNetwork
from certes.verify import verify_contraction

HALVES = np.full(2, 0.5)


@pytest.mark.parametrize("extreme", [-(2**63), 2**63 - 1, -(2**40), 2**40, -(2**62)])
def test_exponents_do_not_wrap_around(extreme):
    """Both rows of [[0, 1e3], [1e3, 0]] would look tiny if e_0 - e_1 wrapped."""
    exponent = np.array([0, extreme])
    proof = AbsoluteProof(HALVES, exponent, HALVES, exponent)
    network = RateNetwork([[0.0, 1e3], [1e3, 0.0]], activation="tanh")
    assert not verify_contraction(network, proof, Claims(rate=0.01)).valid
    assert not verify_contraction(network.with_step(1.0), proof, Claims(factor=0.99)).valid


def test_terms_do_not_underflow_before_they_are_scaled():
    """A 3-cycle with gain 1.2^3, entries and vectors spanning 2^1300: unstable, no vectors can prove otherwise."""
    weights = np.zeros((3, 3))
    weights[0, 1], weights[1, 2], weights[2, 0] = 2.0**-1000, 1.0, 2.0**1000 * 1.728
    for right in ([0, 1300, 600], [0, 1000, 1000], [1300, 0, 0]):
        for left in ([0, -1300, -600], [0, -1000, -1000], [0, 0, 1000]):
            vectors = [np.full(3, 0.5), np.array(right), np.full(3, 0.5), np.array(left)]
            for form in (RateNetwork, HopfieldNetwork):
                report = verify_contraction(form(weights, slope=(0, 1)), AbsoluteProof(*vectors), Claims(rate=1e-3))
                assert not report.valid


@pytest.mark.parametrize("spread", [0, 500, 700])
def test_chains_beyond_the_float_range_are_still_proven(spread):
    weights = np.diag(np.full(3, 1e3), -1)  # x_i is driven by x_{i-1}: nilpotent, contracting at any rate below 1
    exponent = spread * np.arange(4) + 20 * np.arange(4)
    proof = AbsoluteProof(np.full(4, 0.5), exponent, np.full(4, 0.5), -exponent)
    report = verify_contraction(RateNetwork(weights, activation="tanh"), proof, Claims(rate=0.99))
    assert report.verdict == "contracting", report.detail
    assert not verify_contraction(RateNetwork(weights.T, activation="tanh"), proof, Claims(rate=0.01)).valid
