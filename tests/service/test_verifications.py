"""POST /v1/verifications: true certificates pass, tampered ones are answered with their own reason."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import certes
import httpx
import numpy as np
import pytest
from certes.certificate import AssemblyBundle, Certificate
from certes.certificate.assembly_archive import packed
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from safetensors.numpy import load, save

from tests.service.asking import SMALL, SPEC, assert_problem, post_raw, weights
from tests.service.conftest import Running

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([k]) * 32) for k in (1, 2)]
PRIVATE = [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in KEYS]
PUBLIC = [key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() for key in KEYS]

Parts = dict[str, Any]


def _certificate(W: Any = SMALL) -> Certificate:
    found = certes.certify(certes.RateNetwork(W, "tanh"), condition="absolute").certificate
    assert found is not None
    return found.sign(PRIVATE[0])


def _parts() -> Parts:
    certificate = _certificate()
    return {
        "certificate": json.loads(certificate.document),
        "proof": base64.b64encode(certificate.proof).decode(),
        "tensors": {"W": SMALL},
        "key": PUBLIC[0],
    }


def _payload(parts: Parts, change: Callable[[dict[str, Any]], None]) -> None:
    statement = json.loads(base64.b64decode(parts["certificate"]["payload"]))
    change(statement)
    text = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    parts["certificate"]["payload"] = base64.b64encode(text).decode()


def _better_rate(statement: dict[str, Any]) -> None:
    statement["predicate"]["claims"]["rate"] *= 1.5


def _unknown_condition(statement: dict[str, Any]) -> None:
    statement["predicate"]["condition"]["name"] = "magic"


def _edit_claim(parts: Parts) -> None:
    _payload(parts, _better_rate)


def _edit_claim_unsigned(parts: Parts) -> None:
    _payload(parts, _better_rate)
    del parts["key"]


def _edit_condition_unsigned(parts: Parts) -> None:
    _payload(parts, _unknown_condition)
    del parts["key"]


def _edit_proof(parts: Parts) -> None:
    arrays = load(base64.b64decode(parts["proof"]))
    parts["proof"] = base64.b64encode(save({**arrays, "right": arrays["right"] * 2.0})).decode()


def _edit_proof_and_its_digest(parts: Parts) -> None:
    arrays = load(base64.b64decode(parts["proof"]))
    forged = save({**arrays, "right": arrays["right"] * np.array([1.0, 50.0])})
    parts["proof"] = base64.b64encode(forged).decode()
    digest = hashlib.sha256(forged).hexdigest()
    _payload(parts, lambda statement: statement["predicate"]["proof"].update(sha256=digest))
    del parts["key"]


def _other_weights(parts: Parts) -> None:
    parts["tensors"] = {"W": [[0.2, -0.5], [0.4, 0.1000000001]]}


def _other_key(parts: Parts) -> None:
    parts["key"] = PUBLIC[1]


def _edit_signature(parts: Parts) -> None:
    signature = bytearray(base64.b64decode(parts["certificate"]["signatures"][0]["sig"]))
    signature[5] ^= 1
    parts["certificate"]["signatures"][0]["sig"] = base64.b64encode(bytes(signature)).decode()


def _unsigned(parts: Parts) -> None:
    parts["certificate"]["signatures"] = []


def _no_weights(parts: Parts) -> None:
    del parts["tensors"]


def _no_certificate(parts: Parts) -> None:
    parts["certificate"] = {"hello": "world"}


def _other_type(parts: Parts) -> None:
    parts["certificate"]["payloadType"] = "text/plain"


TAMPERED: dict[str, tuple[Callable[[Parts], None], set[str]]] = {
    "claim": (_edit_claim, {"bad-signature"}),
    "claim, unsigned": (_edit_claim_unsigned, {"false-claim", "obligation-failed"}),
    "condition, unsigned": (_edit_condition_unsigned, {"unknown-condition"}),
    "proof": (_edit_proof, {"wrong-proof"}),
    "proof and its digest": (_edit_proof_and_its_digest, {"obligation-failed", "false-claim"}),
    "weights": (_other_weights, {"wrong-weights"}),
    "key": (_other_key, {"untrusted-key"}),
    "signature": (_edit_signature, {"bad-signature"}),
    "no signature": (_unsigned, {"unsigned"}),
    "no weights": (_no_weights, {"missing-weights"}),
    "no certificate": (_no_certificate, {"malformed"}),
    "payload type": (_other_type, {"unsupported-format"}),
}


def verify(http: httpx.Client, parts: Parts) -> httpx.Response:
    return post_raw(http, json.dumps(parts).encode(), path="/v1/verifications")


def test_true_certificate(http: httpx.Client) -> None:
    report = verify(http, _parts()).json()
    assert report["valid"], report
    assert report["verdict"] == "contracting"
    assert report["signed"]
    assert report["reason"] is None
    assert all(check["held"] for check in report["checks"])
    assert report["digest"] == _certificate().digest


def test_exact_audit(http: httpx.Client) -> None:
    report = verify(http, {**_parts(), "exact": True}).json()
    assert report["valid"]
    assert report["exact"]
    assert report["checks"][-1]["name"] == "exact-audit"


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered(http: httpx.Client, name: str) -> None:
    change, reasons = TAMPERED[name]
    parts = _parts()
    change(parts)
    response = verify(http, parts)
    assert response.status_code == 200, response.text
    report = response.json()
    assert not report["valid"]
    assert report["verdict"] == "undecided"
    assert report["reason"] in reasons, report
    assert report["detail"]


def test_multipart_with_the_weight_file(http: httpx.Client) -> None:
    data = weights()
    answer = http.post(
        "/v1/certificates",
        files={
            "spec": (None, json.dumps(SPEC)),
            "weights": ("w.safetensors", data),
        },
    ).json()  # fmt: skip
    digest = answer["certificate"]["digest"]
    files = {
        "certificate": (None, http.get(f"/v1/certificates/{digest}").content, "application/json"),
        "proof": ("p.safetensors", http.get(f"/v1/certificates/{digest}/proof").content),
        "weights": ("w.safetensors", data),
        "exact": (None, "true"),
    }
    report = http.post("/v1/verifications", files=files).json()
    assert report["valid"], report
    assert not report["signed"]
    files["weights"] = ("w.safetensors", weights(W=SMALL, other=[[1.0]]))
    assert http.post("/v1/verifications", files=files).json()["reason"] == "wrong-file"


STORED = Path(__file__).parents[1] / "assets" / "certificates" / "composition-v1" / "nested"
BUNDLE = AssemblyBundle.read(STORED)


def _assembly(bundle: AssemblyBundle = BUNDLE, networks: bytes | None = None) -> Parts:
    files = {"networks.safetensors": (STORED / "networks.safetensors").read_bytes() if networks is None else networks}
    modules = base64.b64encode(packed(bundle, files)).decode()
    return {"certificate": json.loads(bundle.documents[bundle.root]), "modules": modules}


def _proof_of_another() -> AssemblyBundle:
    """Every proof is there, under the names of others."""
    names = list(BUNDLE.proofs)
    return replace(BUNDLE, proofs=dict(zip(names, [*list(BUNDLE.proofs.values())[1:], b""], strict=True)))


def _child_of_another() -> AssemblyBundle:
    """A certificate under the name of another."""
    digest, other = [name for name in BUNDLE.documents if name != BUNDLE.root][:2]
    return replace(BUNDLE, documents={**BUNDLE.documents, digest: BUNDLE.documents[other]})


def test_an_assembly_is_verified_with_all_that_it_names(http: httpx.Client) -> None:
    report = verify(http, _assembly()).json()
    assert report["valid"], report
    assert (report["verdict"], report["path"], report["digest"]) == ("contracting", None, BUNDLE.root)
    key = (STORED.parent / "key.pem").read_text()
    assert verify(http, _assembly() | {"key": key}).json()["valid"]
    assert verify(http, _assembly() | {"key": PUBLIC[0]}).json()["reason"] == "untrusted-key"
    for bundle, reason in (
        (replace(BUNDLE, documents={BUNDLE.root: BUNDLE.documents[BUNDLE.root]}), "missing-child"),
        (_child_of_another(), "wrong-child"),
        (replace(BUNDLE, proofs={}), "missing-proof"),
        (_proof_of_another(), "wrong-proof"),
        (replace(BUNDLE, couplings={}), "missing-weights"),
    ):
        report = verify(http, _assembly(bundle)).json()
        assert (report["valid"], report["verdict"], report["reason"]) == (False, "undecided", reason), report
    report = verify(http, _assembly(networks=weights(W=SMALL))).json()
    assert (report["valid"], report["reason"]) == (False, "missing-weights")


def test_bad_requests_about_an_assembly(http: httpx.Client) -> None:
    parts = _assembly()
    assert_problem(verify(http, parts | {"exact": True}), 422, "unsupported", "exact")
    assert_problem(verify(http, parts | {"tensors": {"W": SMALL}}), 422, "conflict", "tensors")
    assert_problem(verify(http, parts | {"proof": ""}), 422, "conflict", "proof")
    assert_problem(verify(http, parts | {"certificate": _parts()["certificate"]}), 422, "missing-value", "modules")
    other = base64.b64encode(weights(W=SMALL)).decode()
    assert_problem(verify(http, parts | {"modules": other}), 422, "malformed", "modules")
    assert_problem(verify(http, parts | {"modules": ""}), 422, "malformed-safetensors", "modules")
    assert_problem(verify(http, _assembly(networks=b"nothing")), 422, "malformed-safetensors", "modules")


def test_bad_requests(http: httpx.Client) -> None:
    parts = _parts()
    assert_problem(verify(http, {**parts, "certificate": []}), 422, "wrong-type", "certificate")
    assert_problem(verify(http, {"proof": "", "tensors": {}}), 422, "missing-value", "certificate")
    assert_problem(verify(http, {"certificate": {}}), 422, "missing-value", "proof")
    assert_problem(verify(http, {**parts, "proof": "!"}), 400, "malformed-base64", "proof")
    assert_problem(verify(http, {**parts, "exact": "maybe"}), 422, "wrong-type", "exact")
    assert_problem(verify(http, {**parts, "exact": 1}), 422, "wrong-type", "exact")
    assert_problem(verify(http, {**parts, "exact": []}), 422, "wrong-type", "exact")
    assert_problem(verify(http, {**parts, "weights": ""}), 422, "conflict", "weights")
    assert_problem(verify(http, {**parts, "key": "no key"}), 422, "bad-key")
    assert_problem(verify(http, {**parts, "key": 5}), 422, "wrong-type", "key")
    assert_problem(verify(http, {**parts, "tensors": {"W": [[float("nan")]]}}), 422, "not-finite", "tensors.W")


def test_an_empty_weight_file_is_not_the_same_as_none(http: httpx.Client) -> None:
    parts = _parts()
    del parts["tensors"]
    for given in ({"weights": ""}, {}):
        response = verify(http, parts | given)
        if given:
            assert 400 <= response.status_code < 500
            assert response.json()["field"] == "weights"
        else:
            assert response.json()["valid"] is False


def test_proof_of_a_giant_is_refused_before_it_is_checked(serve: Callable[..., Running]) -> None:
    with serve(max_states=20).client() as http:
        parts = _parts()
        parts["proof"] = base64.b64encode(save({"metric": np.eye(30)})).decode()
        assert_problem(verify(http, parts), 413, "too-large", "proof")
