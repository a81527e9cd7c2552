"""Write the stored samples of assemblies, once: ``python -m tests.certificate.make_assembly_samples``."""

from __future__ import annotations

import json
from pathlib import Path

from certes.certificate.assembly_statement import FORMAT
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.certificate.assembly_cases import ASSEMBLIES, assembly_case

TESTS = Path(__file__).parents[1]


def main() -> None:
    folder = TESTS / "assets" / "certificates" / f"composition-v{FORMAT}"
    if (folder / "manifest.json").exists():
        raise SystemExit(f"{folder} is there already, and is never written again")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    manifest = {}
    for name in ASSEMBLIES:
        case = assembly_case(name)
        path = case.bundle.sign(private, every=True).write(folder / name)
        (folder / name / "networks.safetensors").write_bytes(case.weights)
        manifest[name] = {
            "digest": case.bundle.root,
            "certificate": path.name,
            "condition": case.bundle.statement.predicate.condition.name,
            "documents": len(case.bundle.documents),
        }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
