"""Numbers that are not numbers: each is refused by name, whatever field it hides in."""

from dataclasses import fields, replace

import numpy as np
import pytest
from certes.errors import InputError
from certes.proofs import AbsoluteProof, Claims, LureProof, ProductProof, SingularProof, StepClaim, SymmetricProof
from certes.systems import LureSystem, RateNetwork
from certes.verify import verify_contraction

EYE, ONES = np.eye(2), np.ones(2)
LURE = LureProof(EYE, ONES, False, 0.5, 2.0, 0.0, 0.0)
PROOFS = [
    LURE,
    AbsoluteProof(ONES / 2, np.zeros(2, dtype=np.int64), ONES / 2, np.zeros(2, dtype=np.int64)),
    SingularProof(ONES, 0.5),
    ProductProof(ONES, EYE, ONES, 1e-9, 0.5, 2.0),
]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 5e-324])
@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.kind)
def test_every_field_of_every_proof(proof, bad):
    weights = -EYE if proof.kind == "product" else 0.1 * EYE
    network = RateNetwork(weights, activation="tanh")
    claims = Claims(rate=0.3)
    assert verify_contraction(network, proof, claims).valid
    for entry in fields(proof):
        value = getattr(proof, entry.name)
        if isinstance(value, bool) or (isinstance(value, np.ndarray) and value.dtype.kind == "i"):
            continue
        if isinstance(value, np.ndarray):
            spoiled = value.copy()
            spoiled.flat[0] = bad
        else:
            spoiled = bad
        if entry.name == "metric_upper" and proof.kind == "lure" and bad == np.inf:
            continue  # there it means "no bound"
        report = verify_contraction(network, replace(proof, **{entry.name: spoiled}), claims)
        assert report.failed is not None, entry.name
        assert report.failed.name == "inputs", entry.name


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 5e-324])
def test_every_claim(bad):
    network = RateNetwork(0.1 * EYE, activation="tanh")
    for name in ("rate", "factor", "margin", "weight_radius", "gain", "metric_condition_log2"):
        report = verify_contraction(network, LURE, replace(Claims(rate=0.3), **{name: bad}))
        assert report.failed is not None, name
        assert report.failed.name == "inputs", name
    for step, factor in ((bad, 0.9), (0.1, bad)):
        claims = Claims(rate=0.3, largest_step=StepClaim(step, factor, LURE))
        assert not verify_contraction(network, LURE, claims).valid
    claims = Claims(rate=0.3, largest_step=StepClaim(0.1, 0.99, SingularProof(ONES, 0.5)))
    assert verify_contraction(network, LURE, claims).failed.name == "largest-step"


@pytest.mark.parametrize("bad", [True, "0.3", 1j, 10**400, None])
def test_what_is_no_number_is_refused_where_it_enters(bad):
    with pytest.raises(InputError):
        LureProof(EYE, ONES, False, bad, 2.0, 0.0, 0.0)
    with pytest.raises(InputError):
        StepClaim(0.1, bad, LURE)
    if bad is not None:
        with pytest.raises(InputError):
            Claims(rate=bad)
    for array in (np.ones(2, dtype=np.int64), np.ones(2, dtype=complex), [1.0, 1.0], np.array(["1", "1"])):
        with pytest.raises(InputError):
            LureProof(EYE, array, False, 0.5, 2.0, 0.0, 0.0)
    with pytest.raises(InputError):
        LureProof(EYE, ONES, 0, 0.5, 2.0, 0.0, 0.0)


def test_integers_of_numpy_do_not_wrap_around():
    """Fractions of numpy integers, and differences of narrow ones, wrap around silently."""
    huge = np.int64(2**62)
    coupled = RateNetwork([[0.0, 0.1], [0.1, 0.0]], slope=(-1, 1), tau=4.0)
    assert not verify_contraction(coupled, SingularProof(ONES, 0.5), Claims(rate=huge)).valid
    radius = Claims(rate=0.1, weight_radius=np.int64(2**32))
    assert not verify_contraction(RateNetwork(0.1 * EYE, activation="tanh"), LURE, radius).valid
    spread = ProductProof(ONES, EYE, ONES, huge, 0.5, 2.0)
    assert not verify_contraction(
        RateNetwork([[0.0, 30.0], [-30.0, 0.0]], slope=(0, 4)), spread, Claims(rate=1.0)
    ).valid
    for dtype in (np.int8, np.int16, np.int32):
        exponent = np.array([np.iinfo(dtype).min, 0], dtype=dtype)
        proof = AbsoluteProof(ONES / 2, exponent, ONES / 2, exponent)
        network = RateNetwork([[0.0, 50.0], [50.0, 0.0]], activation="tanh")
        assert not verify_contraction(network, proof, Claims(rate=0.5)).valid


def test_a_proof_cannot_be_changed_after_it_was_made():
    metric = np.eye(2)
    proof = LureProof(metric, ONES, False, 0.5, 2.0, 0.0, 0.0)
    metric[0, 0] = -1.0
    assert proof.metric[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        proof.metric[0, 0] = -1.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        proof.metric.setflags(write=True)
    with pytest.raises(ValueError, match="WRITEABLE"):
        RateNetwork(metric, activation="tanh").matrix("W").setflags(write=True)


@pytest.mark.parametrize(
    "proof", [*PROOFS[1:], SymmetricProof(False), SymmetricProof(True)], ids=lambda proof: proof.kind
)
def test_a_condition_that_does_not_speak_of_lure_systems_refuses_them(proof):
    for discrete, claims in ((False, Claims(rate=0.1)), (True, Claims(factor=0.9))):
        system = LureSystem(-EYE, 0.1 * EYE, EYE, slope=(0, 1), discrete=discrete)
        assert not verify_contraction(system, proof, claims).valid
