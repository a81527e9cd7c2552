"""Attestations: read by tools that know nothing of Certes, bound to a model that model-signing signed, and checked."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes.certificate import Certificate
from certes.certificate.attestation import Attestation
from certes.errors import InputError
from certes.weights import WeightFile, read_weights, write_weights
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tests.client.running import STABLE, UNSTABLE, inside

_PEM, _NONE = serialization.Encoding.PEM, serialization.NoEncryption()
_PKCS8, _SPKI = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo


def pems(made: Any) -> tuple[bytes, bytes]:
    return made.private_bytes(_PEM, _PKCS8, _NONE), made.public_key().public_bytes(_PEM, _SPKI)


@dataclass
class Model:
    """A model's folder with its signature, a certificate, and keys."""

    folder: Path
    weights: WeightFile
    certificate: Certificate
    private: bytes
    public: bytes

    @property
    def signature(self) -> bytes:
        return (self.folder / "model.sig").read_bytes()

    def sign(self) -> None:
        """With model-signing itself, as its users do."""
        import model_signing

        key = self.folder / "ec.pem"
        if not key.exists():
            key.write_bytes(pems(ec.generate_private_key(ec.SECP256R1()))[0])
        signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key)
        signer.sign(self.folder / "model", self.folder / "model.sig")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    path = write_weights(tmp_path / "model" / "sub" / "net.safetensors", {"W": np.asarray(STABLE)})
    weights = read_weights(path)
    from certes.spec import SystemSpec

    system = SystemSpec.parse({"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}).system(weights)
    certificate = certes.certify(system, "absolute").certificate  # type: ignore[arg-type]
    assert certificate is not None
    made = Model(tmp_path, weights, certificate, *pems(Ed25519PrivateKey.generate()))
    made.sign()
    return made


def test_standard_tools_read_it(model: Model) -> None:
    """securesystemslib verifies the envelope, in-toto's own library reads the statement, and so do these lines."""
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    made = Attestation.of(model.certificate, model.weights, model.signature).sign(model.private)
    content = json.loads(made.envelope.to_bytes())
    key = SSlibKey.from_crypto(serialization.load_pem_public_key(model.public))
    Envelope.from_dict(json.loads(made.envelope.to_bytes())).verify([key], 1)
    payload = base64.b64decode(content["payload"])
    Statement.copy_from_pb(Parse(payload, statement_pb2.Statement())).validate()
    # DSSE by hand: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    kind = content["payloadType"].encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    public = serialization.load_pem_public_key(model.public)
    assert isinstance(public, Ed25519PublicKey)
    signature = base64.b64decode(content["signatures"][0]["sig"])
    public.verify(signature, pae)
    with pytest.raises(InvalidSignature):
        public.verify(signature, pae.replace(b"contracting", b"xontracting", 1))


def test_the_fields_that_cosign_reads(model: Model) -> None:
    """As documented for `cosign attest-blob` and `verify-blob-attestation`: DSSE around an in-toto statement."""
    for data in (
        Attestation.of(model.certificate, model.weights, model.signature).sign(model.private).envelope.to_bytes(),
        model.certificate.sign(model.private).document,
    ):
        content = json.loads(data)
        assert set(content) == {"payload", "payloadType", "signatures"}
        assert content["payloadType"] == "application/vnd.in-toto+json"
        assert [set(entry) for entry in content["signatures"]] == [{"keyid", "sig"}]
        statement = json.loads(base64.b64decode(content["payload"], validate=True))
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert statement["predicateType"].startswith("urn:certes:")
        for subject in statement["subject"]:
            assert subject["name"]
            assert len(bytes.fromhex(subject["digest"]["sha256"])) == 32
        file = model.folder / "model" / "sub" / "net.safetensors"
        digests = [subject["digest"]["sha256"] for subject in statement["subject"]]
        assert hashlib.sha256(file.read_bytes()).hexdigest() in digests, "cosign looks for the blob's digest"


def test_the_signed_model_is_bound_by_its_root(model: Model) -> None:
    import model_signing

    made = Attestation.of(model.certificate, model.weights, model.signature)
    link = made.statement.predicate.manifest
    assert link is not None
    assert link.resource == "sub/net.safetensors"
    manifest = model_signing.hashing.Config().hash(model.folder / "model")
    root = hashlib.sha256(b"".join(each.digest.digest_value for each in manifest.resource_descriptors())).hexdigest()
    assert link.model.digest.sha256 == root
    assert made.statement.subject[1] == link.model


def test_what_fits_is_bound(model: Model) -> None:
    for signature in (None, model.signature):
        made = Attestation.of(model.certificate, model.weights, signature).sign(model.private)
        again = Attestation.read(made.write(model.folder))
        assert again == made
        again.check(model.certificate, model.weights, signature, model.public)


def other(model: Model, W: Any) -> tuple[WeightFile, Certificate]:
    path = write_weights(model.folder / "net.safetensors", {"W": np.asarray(W)})
    weights = read_weights(path)
    from certes.spec import SystemSpec

    system = SystemSpec.parse({"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}).system(weights)
    certificate = certes.certify(system).certificate  # type: ignore[arg-type]
    assert certificate is not None
    return weights, certificate


def test_what_does_not_fit_is_refused(model: Model) -> None:
    made = Attestation.of(model.certificate, model.weights, model.signature).sign(model.private)
    weights, certificate = other(model, UNSTABLE)
    _, stranger = pems(Ed25519PrivateKey.generate())
    cases: list[tuple[str, tuple[Any, ...]]] = [
        ("wrong-certificate", (certificate, weights, model.signature, model.public)),
        ("wrong-file", (model.certificate, weights, model.signature, model.public)),
        ("missing-manifest", (model.certificate, model.weights, None, model.public)),
        ("untrusted-key", (model.certificate, model.weights, model.signature, stranger)),
    ]
    for slug, given in cases:
        with pytest.raises(InputError) as error:
            made.check(*given)
        assert error.value.slug == slug
    with pytest.raises(InputError) as error:
        Attestation.of(model.certificate, model.weights).check(model.certificate, model.weights, model.signature, None)
    assert error.value.slug == "wrong-manifest"
    with pytest.raises(InputError) as error:
        Attestation.of(model.certificate, model.weights).check(model.certificate, model.weights, None, model.public)
    assert error.value.slug == "unsigned"


def test_another_model_with_the_same_file_is_another_binding(model: Model) -> None:
    made = Attestation.of(model.certificate, model.weights, model.signature)
    (model.folder / "model" / "config.json").write_text('{"changed": true}')
    model.sign()
    with pytest.raises(InputError) as error:
        made.check(model.certificate, model.weights, model.signature)
    assert error.value.slug == "wrong-manifest"


def test_a_model_without_the_file_is_not_bound(model: Model) -> None:
    (model.folder / "model" / "sub" / "net.safetensors").unlink()
    model.sign()
    with pytest.raises(InputError, match="does not list"):
        Attestation.of(model.certificate, model.weights, model.signature)


@pytest.mark.parametrize("where", ["root", "resource", "type", "no json", "no envelope", "no base64", "algorithm"])
def test_a_manifest_that_is_none(model: Model, where: str) -> None:
    bundle = json.loads(model.signature)
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    if where == "root":
        statement["subject"][0]["digest"]["sha256"] = "0" * 64
    elif where == "resource":
        statement["predicate"]["resources"][0]["digest"] = "1" * 64
    elif where == "type":
        statement["predicateType"] = "https://example.org/other"
    elif where == "algorithm":
        statement["predicate"]["resources"][0]["algorithm"] = "blake3"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    if where == "no envelope":
        bundle = {"dsseEnvelope": [bundle]}
    elif where == "no base64":
        bundle["dsseEnvelope"]["payload"] = "???"
    data = b"[" if where == "no json" else json.dumps(bundle).encode()
    with pytest.raises(InputError) as error:
        Attestation.of(model.certificate, model.weights, data)
    assert error.value.field == "manifest"


def test_every_byte_of_an_attestation_counts(model: Model) -> None:
    made = Attestation.of(model.certificate, model.weights, model.signature).sign(model.private)
    content = json.loads(made.envelope.to_bytes())
    payload = base64.b64decode(content["payload"])
    statement = json.loads(payload)
    statement["predicate"]["certificate"]["claims"]["rate"] = 0.99
    forged = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    content["payload"] = base64.b64encode(forged).decode()
    data = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(InputError):
        Attestation.from_bytes(data).check(model.certificate, model.weights, model.signature, model.public)
    with pytest.raises(InputError):  # unsigned, so that only the content can tell
        Attestation.from_bytes(data).check(model.certificate, model.weights, model.signature)
    for change in (payload[:-1], payload + b" ", payload.replace(b"{", b"{ ", 1)):
        content["payload"] = base64.b64encode(change).decode()
        with pytest.raises(InputError):
            Attestation.from_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def test_command(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model.folder
    model.certificate.write(folder)
    (folder / "key.pem").write_bytes(model.private)
    (folder / "key.pub.pem").write_bytes(model.public)
    path = folder / f"{model.certificate.digest}.certificate.json"
    given = ("attest", path, "--weights", folder / "model" / "sub" / "net.safetensors", "--json")
    signature = ("--manifest", folder / "model.sig")
    done = inside(capsys, *given, *signature, "--sign", folder / "key.pem", "--out", folder / "out")
    assert done.code == 0, done.out
    assert len(done.json["signed_by"]) == 1
    made = done.json["attestation"]
    assert inside(capsys, *given, *signature, "--check", made, "--key", folder / "key.pub.pem").code == 0
    done = inside(capsys, *given, "--check", made)
    assert done.code == 1
    assert "missing-manifest" in done.json["detail"]
    done = inside(capsys, *given[:-1], *signature, "--check", made)
    assert done.code == 0
    assert "sub/net.safetensors" in done.out
    assert inside(capsys, *given, "--check", folder / "none").code == 2
    assert inside(capsys, *given, "--key", folder / "key.pub.pem").code == 2
    write_weights(folder / "model" / "sub" / "net.safetensors", {"W": np.asarray(UNSTABLE)})
    done = inside(capsys, *given, "--out", folder / "out")
    assert done.code == 1
    assert "wrong-weights" in done.json["detail"]
