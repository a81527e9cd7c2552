"""The keys that sign here, public halves only: whoever has an old certificate finds the key that verifies it.

Rotation is a new signing key and a restart. The old key signs nothing any more and stays on the list.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from certes.certificate.envelope import Envelope
from certes.errors import InputError

from certes_service.storage.database import Database
from certes_service.storage.tables import signing_keys


@dataclass(frozen=True)
class SigningKey:
    """A key that signs or has signed.

    Attributes:
        keyid: as signatures in an envelope name it.
        public: the public half, PEM.
        created: when it was first used here, seconds since 1970.
    """

    keyid: str
    public: str
    created: float


def public_half(private_key: bytes) -> tuple[str, str]:
    """The key id and the public key (PEM) of an Ed25519 private key (PEM).

    Raises:
        InputError: not such a key.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    signed = Envelope(b"").sign(private_key)  # refuses what cannot sign, and knows how a signature names its key
    key = load_pem_private_key(private_key, None)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    return signed.signatures[0][0], pem


def record(database: Database, private_key: bytes | None) -> str | None:
    """Put the public half of a signing key on the list, at the start of every process that signs; returns its id.

    Raises:
        InputError: not an Ed25519 private key. StorageError: the database cannot be written.
    """
    if private_key is None:
        return None
    keyid, public = public_half(private_key)
    with database.begin() as connection:
        known = connection.execute(sa.select(signing_keys.c.public).where(signing_keys.c.id == keyid)).scalar()
        if known is None:
            row = {"id": keyid, "public": public, "created": database.now(connection)}
            database.upsert(connection, signing_keys, row, None)  # several processes may start at once
        elif known != public:  # the id is a hash of the key, so somebody has been at the table
            given = f"a database with another public key under the id {keyid}"
            raise InputError("signing_key", given, "its own public half", "signing-key-differs")
    return keyid


def recorded(database: Database) -> tuple[SigningKey, ...]:
    """Every key that ever signed here, newest first.

    Raises:
        StorageError: the database cannot be read.
    """
    with database.read() as connection:
        rows = connection.execute(
            sa.select(signing_keys).order_by(signing_keys.c.created.desc(), signing_keys.c.id)
        ).all()
    return tuple(SigningKey(row.id, row.public, row.created) for row in rows)
