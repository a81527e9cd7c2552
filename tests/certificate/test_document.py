"""Certificates are built, written, signed and read back, and true ones verify."""

from __future__ import annotations

import hashlib
import json
import math

import certes
import numpy as np
import pytest
from certes import strictjson
from certes.certificate import Certificate, build, verify_certificate
from certes.certificate.envelope import Envelope
from certes.certificate.statement import CONDITIONS, FORMAT, GATED_FORMAT, Statement
from certes.errors import InputError
from certes.proofs import KINDS, AbsoluteProof, Claims, GatedProof, GatedWitness, SymmetricProof
from certes.spec import SystemSpec
from certes.systems import RateNetwork
from certes.weights import read_weights, to_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from tests.certificate.certificate_cases import NAMES, Case, cases


def test_every_kind_of_proof_has_a_case() -> None:
    assert {case.proof.kind for case in cases().values()} == set().union(*CONDITIONS[FORMAT].values())
    bounds = {case.claims.bound.proof.kind for case in cases().values() if case.claims.bound is not None}
    cells = {GatedProof.kind, GatedWitness.kind}  # of format 3: tests/test_cells.py
    assert set().union(*CONDITIONS[GATED_FORMAT].values()) == cells
    assert set().union(*CONDITIONS[FORMAT].values()) | bounds | cells == set(KINDS)
    assert len(bounds) == 3
    assert tuple(cases()) == NAMES


def test_true_certificate_verifies(case: Case, keys) -> None:
    certificate = case.certificate
    for weights in (case.file, case.weights, case.system):
        report = verify_certificate(certificate, weights)
        assert report.valid, report
        assert report.verdict == case.verdict
    report = verify_certificate(certificate.sign(keys.private), case.file, key=keys.public)
    assert report.valid
    assert any(check.name == "signature" and "demanded key" in check.detail for check in report.checks)


def test_arrays_by_role_or_tensor_name(case: Case) -> None:
    tensors = {role: case.system.tensors[role] for role in case.system.tensors}
    assert verify_certificate(case.certificate, tensors).valid
    named = {case.spec["tensors"][role]: tensor for role, tensor in tensors.items()}
    assert verify_certificate(case.certificate, named).valid
    for none in ({"X": np.eye(4)}, {}, np.eye(4), [[1.0]], 7, object()):
        assert verify_certificate(case.certificate, none).reason == "wrong-weights"
    if set(tensors) == {"W"}:
        assert verify_certificate(case.certificate, tensors["W"]).valid


def test_same_answer_same_bytes(case: Case, keys) -> None:
    assert case.certificate == case.certificate
    assert case.certificate.sign(keys.private) == case.certificate.sign(keys.private)
    assert case.certificate.sign(keys.private).digest == case.certificate.digest


def test_write_then_read(case: Case, keys, tmp_path) -> None:
    for certificate in (case.certificate, case.certificate.sign(keys.private)):
        path = certificate.write(tmp_path / "out")
        assert Certificate.read(path) == certificate
        assert Certificate.read(path.parent) == certificate
        assert verify_certificate(path, case.file).valid
    assert sorted(entry.suffix for entry in path.parent.iterdir()) == [".json", ".safetensors"]  # no temporary left


def test_claims_and_proof_come_back(case: Case) -> None:
    certificate = case.certificate
    claims, proof = certificate.claims, certificate.array_proof
    assert proof.kind == case.proof.kind
    for name, array in case.proof.to_arrays().items():
        assert np.array_equal(proof.to_arrays()[name], array)
    plain = ("rate", "factor", "margin", "weight_radius", "gain", "metric_condition_log2")
    assert all(getattr(claims, name) == getattr(case.claims, name) for name in plain)
    if case.claims.largest_step is not None:
        assert claims.largest_step is not None
        assert claims.largest_step.step == case.claims.largest_step.step
        assert np.array_equal(claims.largest_step.proof.metric, case.claims.largest_step.proof.metric)
    assert (claims.bound is None) == (case.claims.bound is None)
    if claims.bound is not None and case.claims.bound is not None:
        assert (claims.bound.level, claims.bound.proof.kind) == (case.claims.bound.level, case.claims.bound.proof.kind)
        for name, array in case.claims.bound.proof.to_arrays().items():
            assert np.array_equal(claims.bound.proof.to_arrays()[name], array)


def test_statement_is_an_in_toto_statement() -> None:
    case = cases()["lure-rate"]
    content = json.loads(case.certificate.payload)
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == "urn:certes:contraction:v1"
    file, tensor = content["subject"]
    assert file == {"name": "net.safetensors", "digest": {"sha256": hashlib.sha256(case.weights).hexdigest()}}
    raw = load(case.weights)["rec.weight"].tobytes()  # the judge is the safetensors library
    assert tensor["name"] == "net.safetensors#rec.weight"
    assert tensor["digest"]["sha256"] == hashlib.sha256(raw).hexdigest()
    assert tensor["annotations"] == {"dtype": "F32", "shape": [4, 4]}
    assert content["predicate"]["claims"]["largest_step"] == {"step": 0.5, "factor": 0.9}
    assert content["predicate"]["proof"]["sha256"] == hashlib.sha256(case.certificate.proof).hexdigest()
    assert "time" not in case.certificate.payload.decode().lower()


def test_signature_is_plain_dsse(keys) -> None:
    """Checked by hand from the DSSE specification with cryptography alone."""
    import base64

    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = json.loads(cases()["singular"].certificate.sign(keys.private).document)
    payload, kind = base64.b64decode(content["payload"]), content["payloadType"]
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    load_pem_public_key(keys.public).verify(base64.b64decode(content["signatures"][0]["sig"]), signed)


def test_two_signatures(keys, other_keys) -> None:
    case = cases()["symmetric"]
    certificate = case.certificate.sign(keys.private).sign(other_keys.private).sign(keys.private)
    assert len(certificate.keyids) == 2
    assert all(verify_certificate(certificate, case.file, key=key.public).valid for key in (keys, other_keys))


def test_infinite_claims_are_not_claimed() -> None:
    certificate = build(
        RateNetwork(np.zeros((1, 1)), "tanh"),
        "contracting",
        "symmetric",
        1,
        SymmetricProof(False),
        Claims(rate=0.5, gain=math.inf),
    )
    assert certificate.claims.gain is None
    with pytest.raises(InputError, match="finite"):
        build(
            RateNetwork(np.zeros((1, 1)), "tanh"),
            "contracting",
            "symmetric",
            1,
            SymmetricProof(False),
            Claims(rate=math.nan),
        )


def test_condition_and_proof_must_belong_together() -> None:
    system = RateNetwork(np.zeros((1, 1)), "tanh")
    with pytest.raises(InputError) as caught:
        build(system, "contracting", "lure", 1, SymmetricProof(False), Claims(rate=0.5))
    assert caught.value.slug == "unknown-condition"


def test_certified_from_memory_verified_from_a_file(tmp_path) -> None:
    from certes.weights import write_weights

    weights = np.full((1, 1), 0.25, np.float32)
    proof = AbsoluteProof(np.array([0.5]), np.array([1]), np.array([0.5]), np.array([1]))
    certificate = build(RateNetwork(weights, "tanh"), "contracting", "absolute", 1, proof, Claims(rate=0.5))
    path = write_weights(tmp_path / "w.safetensors", {"rnn.weight": weights})
    assert verify_certificate(certificate, path).valid
    path = write_weights(tmp_path / "w.safetensors", {"rnn.weight": weights + 1})
    assert verify_certificate(certificate, path).reason == "wrong-weights"


def test_wide_characters_in_names() -> None:
    from certes.spec import SystemSpec
    from certes.weights import to_bytes

    file = read_weights(to_bytes({'poids β\n"#': np.zeros((1, 1))}), name="réseau #1.safetensors")
    system = SystemSpec(form="rate", tensors={"W": 'poids β\n"#'}, activation="tanh").system(file)
    certificate = build(system, "contracting", "symmetric", 1, SymmetricProof(False), Claims(rate=0.5))
    assert verify_certificate(certificate, file).valid


floats = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(rate=floats, gain=st.none() | floats, tau=st.floats(1e-300, 1e300), lower=floats, width=st.floats(0, 1e300))
def test_every_float_survives(rate, gain, tau, lower, width) -> None:
    upper = min(lower + width, 1.7e308)
    system = RateNetwork(np.zeros((2, 2)), slope=(lower, [upper, lower]), tau=[tau, 1.0])
    certificate = build(system, "contracting", "symmetric", 1, SymmetricProof(True), Claims(rate=rate, gain=gain))
    again = Certificate.from_parts(certificate.document, certificate.proof)
    assert again == certificate
    assert (again.claims.rate, again.claims.gain) == (rate, gain)
    assert Statement.from_bytes(again.payload).to_bytes() == certificate.payload
    rebuilt = again.statement.predicate.system.with_tensors({"W": np.zeros((2, 2))})
    assert np.array_equal(rebuilt.tau, system.tau)
    assert np.array_equal(rebuilt.slope.lower, system.slope.lower)
    assert np.array_equal(rebuilt.slope.upper, system.slope.upper)


def test_envelope_round_trip() -> None:
    envelope = Envelope(b"\x00\xff", "text/x", (("a" * 64, b"1"), ("b" * 64, b"")))
    assert Envelope.from_bytes(envelope.to_bytes()) == envelope


def test_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch) -> None:
    import os

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        cases()["symmetric"].certificate.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_the_file_does_not_hold_is_not_certified_by_its_bytes() -> None:
    """The statement says FILE#NAME: with a file named, the name counts, not only the bytes."""
    weights = read_weights(to_bytes({"rec": 0.1 * np.eye(2), "other": np.eye(2)}), name="m.safetensors")
    system = SystemSpec.parse({"form": "rate", "tensors": {"W": "rec"}, "activation": "tanh"}).system(weights)
    certificate = certes.certify(system, "symmetric").certificate
    assert certificate is not None
    assert certes.verify(certificate, weights).valid
    content = json.loads(certificate.payload)
    content["predicate"]["system"]["tensors"]["W"] = "weight_hh_l0"
    content["subject"][1]["name"] = "m.safetensors#weight_hh_l0"
    forged = Certificate(Envelope(strictjson.canonical(content)).to_bytes(), certificate.proof)
    report = certes.verify(forged, weights)
    assert report.reason == "wrong-weights"
    from_memory = certes.certify(RateNetwork(0.1 * np.eye(2), "tanh"), "symmetric").certificate
    assert from_memory is not None
    assert certes.verify(from_memory, weights).valid  # certified from memory, stored as "rec" since


@pytest.mark.parametrize("keyids", [["ab"], ["Z" * 64], ["\x1b[31m" + "a" * 59], ["b" * 64, "a" * 64], ["a" * 64] * 2])
def test_key_ids_are_digests_in_ascending_order(keyids: list[str]) -> None:
    envelope = Envelope(b"{}", signatures=tuple((keyid, b"1") for keyid in keyids))
    with pytest.raises(InputError) as caught:
        Envelope.from_bytes(envelope.to_bytes())
    assert caught.value.slug == "malformed"
