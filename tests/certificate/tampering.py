"""Ways to change a certificate, and how to check what came out."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from certes.certificate import Certificate, verify_certificate
from certes.certificate.envelope import Envelope
from certes.certificate.statement import Statement
from certes.errors import InputError
from certes.verify import Report
from certes.weights import read_weights, to_bytes

DELETE = object()


def canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def change(content: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy with the entry at ``path`` replaced (or deleted, or changed by a function)."""
    result = copy.deepcopy(content)
    target = result
    for step in path[:-1]:
        target = target[step]
    if value is DELETE:
        del target[path[-1]]
    else:
        target[path[-1]] = value(target[path[-1]]) if callable(value) else value
    return result


def edited(certificate: Certificate, path: tuple[str | int, ...], value: Any) -> bytes:
    """The document with an edited statement, in canonical form, with the old signatures (if any)."""
    payload = canonical(change(json.loads(certificate.payload), path, value))
    envelope = certificate.envelope
    return Envelope(payload, envelope.payload_type, envelope.signatures).to_bytes()


def arrays_of(proof: bytes) -> dict[str, np.ndarray]:
    return {name: entry.array() for name, entry in read_weights(proof).tensors.items()}


def forged(certificate: Certificate, edit: Callable[[dict[str, np.ndarray]], Mapping[str, Any]]) -> tuple[bytes, bytes]:
    """Document and proof after an edit of the arrays by somebody who updates the digest as well (unsigned)."""
    arrays = arrays_of(certificate.proof)
    proof = to_bytes(edit(arrays))
    digest = hashlib.sha256(proof).hexdigest()
    return edited(certificate, ("predicate", "proof", "sha256"), digest), proof


def check(folder: Path, document: bytes, proof: bytes | None, weights: Any, **options: Any) -> Report:
    """Verify from files, as a stranger would; the proof lies where the statement (if it can be read) says."""
    path = folder / "some.certificate.json"
    path.write_bytes(document)
    for old in folder.glob("*.proof.safetensors"):
        old.unlink()
    if proof is not None:
        (folder / f"{stated_digest(document, proof)}.proof.safetensors").write_bytes(proof)
    return verify_certificate(path, weights, **options)


def stated_digest(document: bytes, proof: bytes) -> str:
    try:
        return Statement.from_bytes(Envelope.from_bytes(document).payload).predicate.proof.sha256
    except InputError:
        return hashlib.sha256(proof).hexdigest()


def leaves(content: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of every entry of a JSON value, inner ones too."""
    found = [path] if path else []
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for key, value in items:
        found += leaves(value, (*path, key))
    return found
