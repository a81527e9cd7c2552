"""Write the stored samples of format 3, gated cells, once: ``python -m tests.certificate.make_cell_samples``."""

from __future__ import annotations

import json
from pathlib import Path

import certes
from certes.certificate.statement import GATED_FORMAT
from certes.spec import SystemSpec
from certes.weights import read_weights, to_bytes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.verify.gated_cases import bistable, calm

FOLDER = Path(__file__).parents[1] / "assets" / "certificates" / f"v{GATED_FORMAT}"


def main() -> None:
    if (FOLDER / "manifest.json").exists():
        raise SystemExit(f"{FOLDER} is there already, and is never written again")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "key.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    manifest = {}
    for kind in ("gru", "lstm"):
        for word, make in (("proven", calm), ("refuted", bistable)):
            name, weights = f"{kind}-{word}", to_bytes(make(kind)[0])
            tensors = {role: role for role in ("W", "U", "b", "c")}
            spec = SystemSpec.parse({"form": kind, "tensors": tensors, "inputs": [-1, 1]})
            found = certes.certify(spec.system(read_weights(weights, name="net.safetensors"))).certificate
            path = found.sign(private).write(FOLDER / name)
            (FOLDER / name / "weights.safetensors").write_bytes(weights)
            manifest[name] = {
                "digest": found.digest,
                "certificate": path.name,
                "verdict": found.verdict,
                "condition": found.condition,
                "weights": "weights.safetensors",
            }
    (FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
