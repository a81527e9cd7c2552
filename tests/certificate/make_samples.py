"""Write the stored samples of the current format, once: ``python -m tests.certificate.make_samples``."""

from __future__ import annotations

import json
from pathlib import Path

import certes
from certes.certificate import Certificate
from certes.certificate.statement import FORMAT
from certes.spec import SystemSpec
from certes.weights import read_weights, to_bytes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.certificate.certificate_cases import cases

TESTS = Path(__file__).parents[1]
MODEL = "mnist-rnn-relu-32.safetensors"


def main() -> None:
    folder = TESTS / "assets" / "certificates" / f"v{FORMAT}"
    if (folder / "manifest.json").exists():
        raise SystemExit(f"{folder} is there already, and is never written again")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    manifest = {}

    def store(name: str, certificate: Certificate, weights: bytes | None) -> None:
        path = certificate.sign(private).write(folder / name)
        if weights is not None:
            (folder / name / "weights.safetensors").write_bytes(weights)
        manifest[name] = {
            "digest": certificate.digest,
            "certificate": path.name,
            "verdict": certificate.verdict,
            "condition": certificate.condition,
            "weights": MODEL if weights is None else "weights.safetensors",
        }

    for case in cases().values():
        store(case.name, case.certificate, case.weights)
    model = TESTS.parent / "examples" / "models" / MODEL
    refuted = SystemSpec.parse({"form": "torch-rnn", "activation": "relu"}).system(read_weights(model))
    store("certify-refuted", certes.certify(refuted).certificate, None)
    weights = to_bytes({"W": [[0.0, -1.5], [1.5, 0.0]]})
    spec = SystemSpec.parse({"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"})
    stable = spec.system(read_weights(weights, name="skew.safetensors"))
    store("certify-skew", certes.certify(stable).certificate, weights)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
