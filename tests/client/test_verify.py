"""certes verify: valid, invalid with a reason, bad input; signatures."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.strictjson import canonical
from certes.weights import write_weights
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.client.running import RATE, STABLE, UNSTABLE, inside, network

Capture = pytest.CaptureFixture[str]


class Case:
    """A signed or unsigned certificate with its files."""

    def __init__(self, capsys: Capture, folder: Path, W: Any = STABLE, *, signed: bool = False) -> None:
        self.net = network(folder, W)
        self.public = []
        for seed in (1, 2):
            key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
            (folder / f"key{seed}.pem").write_bytes(
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
            public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            (folder / f"pub{seed}.pem").write_bytes(public)
            self.public.append(folder / f"pub{seed}.pem")
        sign = ("--sign", folder / "key1.pem") if signed else ()
        answer = inside(capsys, "certify", self.net, *RATE, "--out", folder / "out", "--json", *sign).json
        self.path, self.proof = Path(answer["certificate"]["path"]), Path(answer["certificate"]["proof"])
        assert answer["certificate"]["signed"] is signed

    def claim(self, rate: float) -> None:
        """Edit the stated rate, keeping the file canonical."""
        envelope = json.loads(self.path.read_bytes())
        statement = json.loads(base64.b64decode(envelope["payload"]))
        statement["predicate"]["claims"]["rate"] = rate
        envelope["payload"] = base64.b64encode(canonical(statement)).decode()
        self.path.write_bytes(canonical(envelope))


@pytest.fixture
def case(capsys: Capture, tmp_path: Path) -> Case:
    return Case(capsys, tmp_path)


@pytest.fixture
def signed(capsys: Capture, tmp_path: Path) -> Case:
    return Case(capsys, tmp_path, signed=True)


def test_valid_unsigned_says_so(capsys: Capture, case: Case) -> None:
    done = inside(capsys, "verify", case.path, "--weights", case.net)
    assert done.code == 0
    assert done.out.startswith("valid  contracting, proven by absolute")
    assert "unsigned" in done.out
    assert inside(capsys, "verify", case.path.parent, "--weights", case.net).code == 0, "the folder will do"


def test_json_shape(capsys: Capture, case: Case) -> None:
    answer = inside(capsys, "verify", case.path, "--weights", case.net, "--json").json
    assert list(answer) == [
        "valid",
        "verdict",
        "reason",
        "detail",
        "checks",
        "exact",
        "digest",
        "signed",
        "condition",
        "claims",
    ]
    assert (answer["valid"], answer["verdict"], answer["reason"], answer["signed"]) == (
        True,
        "contracting",
        None,
        False,
    )
    assert answer["digest"] == case.path.name.split(".")[0]
    assert all(set(check) == {"name", "held", "detail", "missing"} and check["held"] for check in answer["checks"])


def test_exact(capsys: Capture, case: Case) -> None:
    answer = inside(capsys, "verify", case.path, "--weights", case.net, "--exact", "--json").json
    assert answer["valid"]
    assert answer["checks"][-1]["name"] == "exact-audit"


def test_witness(capsys: Capture, tmp_path: Path) -> None:
    case = Case(capsys, tmp_path, UNSTABLE)
    done = inside(capsys, "verify", case.path, "--weights", case.net)
    assert (done.code, done.out.split("\n")[0]) == (0, "valid  not contracting, proven by instability")


def test_signatures(capsys: Capture, signed: Case) -> None:
    good = inside(capsys, "verify", signed.path, "--weights", signed.net, "--key", signed.public[0])
    assert good.code == 0
    assert "signed by the key of pub1.pem" in good.out
    unchecked = inside(capsys, "verify", signed.path, "--weights", signed.net)
    assert unchecked.code == 0
    assert "NOT CHECKED" in unchecked.out
    other = inside(capsys, "verify", signed.path, "--weights", signed.net, "--key", signed.public[1], "--json")
    assert (other.code, other.json["reason"], other.json["valid"]) == (1, "untrusted-key", False)


def test_unsigned_where_a_key_is_demanded(capsys: Capture, case: Case) -> None:
    done = inside(capsys, "verify", case.path, "--weights", case.net, "--key", case.public[0], "--json")
    assert (done.code, done.json["reason"]) == (1, "unsigned")


def test_edited_claim(capsys: Capture, signed: Case) -> None:
    signed.claim(0.75)
    keyed = inside(capsys, "verify", signed.path, "--weights", signed.net, "--key", signed.public[0], "--json")
    assert (keyed.code, keyed.json["reason"]) == (1, "bad-signature")
    plain = inside(capsys, "verify", signed.path, "--weights", signed.net, "--json")
    assert plain.code == 1
    assert plain.json["reason"] in ("false-claim", "obligation-failed")
    assert plain.json["claims"] is None, "an invalid certificate's claims are not repeated"
    text = inside(capsys, "verify", signed.path, "--weights", signed.net)
    assert (text.code, text.out.split()[0]) == (1, "invalid")
    assert "held before" in text.out


def test_edited_proof_missing_proof_and_rubbish(capsys: Capture, case: Case) -> None:
    data = bytearray(case.proof.read_bytes())
    data[-1] ^= 1
    case.proof.write_bytes(bytes(data))
    assert inside(capsys, "verify", case.path, "--weights", case.net, "--json").json["reason"] == "wrong-proof"
    case.proof.unlink()
    assert inside(capsys, "verify", case.path, "--weights", case.net, "--json").json["reason"] == "missing-proof"
    case.path.write_bytes(b"rubbish")
    done = inside(capsys, "verify", case.path, "--weights", case.net, "--json")
    assert (done.code, done.json["reason"], done.json["digest"]) == (1, "malformed", None)


def test_other_weights(capsys: Capture, case: Case, tmp_path: Path) -> None:
    W = np.array(STABLE)
    W[0, 0] = np.nextafter(W[0, 0], 1)
    other = write_weights(tmp_path / "other.safetensors", {"W": W})
    done = inside(capsys, "verify", case.path, "--weights", other, "--json")
    assert (done.code, done.json["reason"]) == (1, "wrong-weights")


def test_bad_input(capsys: Capture, case: Case, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    cases = {
        ("none", "--weights", case.net): "certificate",
        (case.path, "--weights", "none"): "weights",
        (case.path, "--weights", case.path): "weights",
        (case.path, "--weights", case.net, "--key", tmp_path / "none.pem"): "key",
        (case.path, "--weights", case.net, "--key", tmp_path / "empty.pem"): "key",
    }
    for arguments, field in cases.items():
        done = inside(capsys, "verify", *arguments, "--json")
        assert (done.code, done.json["field"]) == (2, field), done
