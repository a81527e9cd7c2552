"""The same answer about the same network under other names: of a file instead of memory, or of another file."""

from __future__ import annotations

from functools import cache

import certes
import numpy as np
import pytest
from certes.certificate import Certificate, restated
from certes.errors import InputError
from certes.spec import SystemSpec
from certes.systems import System
from certes.weights import read_weights, to_bytes

W = np.array([[0.0, -1.5], [1.5, 0.0]], np.float32)
SPEC = {"form": "rate", "tensors": {"W": "rec ü.weight"}, "activation": "tanh", "tau": [1.0, 2.0]}


@cache
def of_memory() -> Certificate:
    found = certes.certify(certes.RateNetwork(W, "tanh", tau=[1.0, 2.0]), condition="lure").certificate
    assert found is not None
    return found


def of_file(weights: object = W, **changes: object) -> tuple[System, bytes]:
    data = to_bytes({"rec ü.weight": np.asarray(weights)})
    system = SystemSpec.parse({**SPEC, **changes}).system(read_weights(data, name="new.safetensors"))
    assert isinstance(system, System)
    return system, data


def test_names_the_file_and_verifies() -> None:
    certificate = of_memory()
    system, data = of_file()
    found = restated(certificate, system)
    assert certes.verify(found, data).valid
    assert found.proof == certificate.proof
    assert found.statement.predicate.claims == certificate.statement.predicate.claims
    names = [entry.name for entry in found.statement.subject]
    assert names == ["new.safetensors", "new.safetensors#rec ü.weight"]


def test_the_same_names_give_the_same_bytes() -> None:
    system, _ = of_file()
    direct = certes.certify(system, condition="lure").certificate
    assert direct is not None
    assert restated(direct, system) == direct
    assert restated(of_memory(), system) == direct


@pytest.mark.parametrize(
    ("weights", "changes"),
    [(W * 2, {}), (W.astype(np.float64), {}), (W, {"form": "hopfield"}), (W, {"step": 0.1}), (W, {"tau": 1.0}),
     (W, {"activation": "relu"})],
)  # fmt: skip
def test_another_network_is_refused(weights: object, changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="another network") as caught:
        restated(of_memory(), of_file(weights, **changes)[0])
    assert caught.value.slug == "wrong-system"


def test_signatures_are_not_carried_over() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert not restated(of_memory().sign(pem), of_file()[0]).signed
