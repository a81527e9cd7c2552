"""Cases and keys for the certificate tests."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.certificate.certificate_cases import NAMES, Case, cases


@dataclass(frozen=True)
class Keys:
    private: bytes
    public: bytes


def make_keys(seed: int) -> Keys:
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return Keys(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


@pytest.fixture(scope="session")
def keys() -> Keys:
    return make_keys(1)


@pytest.fixture(scope="session")
def other_keys() -> Keys:
    return make_keys(2)


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    return cases()[request.param]
