"""Attacks on the vectors of an ``absolute`` proof: numbers whose arithmetic wraps around."""

import numpy as np
import pytest
from certes.proofs import AbsoluteProof, Claims
from certes.systems import RateNetwork
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


@pytest.mark.parametrize("spread", [0, 500, 700])
def test_chains_beyond_the_float_range_are_still_proven(spread):
    weights = np.diag(np.full(3, 1e3), -1)  # x_i is driven by x_{i-1}: nilpotent, contracting at any rate below 1
    exponent = spread * np.arange(4) + 20 * np.arange(4)
    proof = AbsoluteProof(np.full(4, 0.5), exponent, np.full(4, 0.5), -exponent)
    report = verify_contraction(RateNetwork(weights, activation="tanh"), proof, Claims(rate=0.99))
    assert report.verdict == "contracting", report.detail
    assert not verify_contraction(RateNetwork(weights.T, activation="tanh"), proof, Claims(rate=0.01)).valid
