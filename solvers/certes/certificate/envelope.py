"""The signed wrapping of a certificate: a DSSE envelope with Ed25519 signatures.

    {"payload": base64, "payloadType": "application/vnd.in-toto+json", "signatures": [{"keyid": hex, "sig": base64}]}

in canonical JSON, key ids ascending: one content, one file (adding or dropping a signature changes nothing that is
stated). Signatures cover the payload and its type
(https://github.com/secure-systems-lab/dsse). All cryptography is that of ``securesystemslib`` and ``cryptography``;
both load on first use. An envelope without signatures is allowed: it is an unsigned certificate, and says so.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certes import strictjson
from certes.errors import InputError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
#: A payload is at most what strictjson reads; base64 makes 4 bytes of 3.
MAX_BYTES = strictjson.MAX_BYTES // 3 * 4 + 4096
_KEY_BYTES = 16_384


class _SignatureModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    keyid: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    sig: Annotated[str, Field(max_length=8192)]


class _EnvelopeModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    payload: str
    payloadType: Annotated[str, Field(max_length=256)]
    signatures: Annotated[list[_SignatureModel], Field(max_length=16)]


@dataclass(frozen=True)
class Envelope:
    """A payload with its type and signatures.

    Attributes:
        payload: the bytes that are signed (together with the type).
        payload_type: media type of the payload.
        signatures: (key id, raw signature), sorted by key id; empty: unsigned.
    """

    payload: bytes
    payload_type: str = PAYLOAD_TYPE
    signatures: tuple[tuple[str, bytes], ...] = ()

    def to_bytes(self) -> bytes:
        """The canonical file."""
        content = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [{"keyid": key, "sig": base64.b64encode(sig).decode()} for key, sig in self.signatures],
        }
        return strictjson.canonical(content, "certificate")

    @classmethod
    def from_bytes(cls, document: bytes) -> Envelope:
        """Inverse of :meth:`to_bytes`; whatever it would not write itself is refused.

        Raises:
            InputError: not such an envelope (slug ``malformed``).
        """
        try:
            content = strictjson.parse(document, "certificate", max_bytes=MAX_BYTES, max_depth=4)
            model = _EnvelopeModel.model_validate(content)
            signatures = tuple((entry.keyid, _decode(entry.sig)) for entry in model.signatures)
            envelope = cls(_decode(model.payload), model.payloadType, signatures)
            written = envelope.to_bytes()
        except ValidationError as error:
            where = ".".join(str(step) for step in error.errors(include_url=False)[0]["loc"])
            raise _malformed(f"an envelope whose {where or 'outermost value'} is not as it should be") from None
        except InputError as error:
            raise _malformed(f"an envelope with {error.given}") from error
        if written != document:
            raise _malformed("an envelope that is not in canonical form")
        if any(one[0] >= other[0] for one, other in pairwise(signatures)):
            raise _malformed("signatures that are not sorted by key id, or two of one key id")
        return envelope

    def sign(self, private_key: bytes) -> Envelope:
        """The envelope with one more signature (or with that key's signature replaced).

        Args:
            private_key: an Ed25519 private key, PEM (PKCS#8), without a passphrase.

        Raises:
            InputError: not such a key.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

        expected = "an Ed25519 private key in PEM without a passphrase (openssl genpkey -algorithm ed25519)"
        try:
            key = load_pem_private_key(private_key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError("key", "something that is not a readable private key", expected, "bad-key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError("key", f"a key of type {type(key).__name__}", expected, "bad-key")
        signed = self._dsse()
        signature = signed.sign(CryptoSigner(key))
        others = tuple(entry for entry in self.signatures if entry[0] != signature.keyid)
        added = (str(signature.keyid), bytes.fromhex(signature.signature))
        return replace(self, signatures=tuple(sorted((*others, added))))

    def authenticate(self, public_key: bytes) -> str:
        """Check that the holder of a key has signed.

        Args:
            public_key: an Ed25519 public key, PEM.

        Returns:
            The key id.

        Raises:
            InputError: ``bad-key`` (the key cannot be read), ``unsigned`` (no signature at all), ``untrusted-key``
                (signed, but not by this key) or ``bad-signature`` (the signature of this key does not fit).
        """
        from securesystemslib.exceptions import UnverifiedSignatureError

        key = _public_key(public_key)
        keyid = str(key.keyid)
        if not self.signatures:
            raise InputError("certificate", "no signature", f"a signature by the key {keyid}", "unsigned")
        if keyid not in dict(self.signatures):
            given = "signatures by " + ", ".join(entry for entry, _ in self.signatures)
            raise InputError("certificate", given[:300], f"a signature by the key {keyid}", "untrusted-key")
        try:
            self._dsse().verify([key], 1)
        except UnverifiedSignatureError as error:
            given = f"a signature of the key {keyid} that does not fit the content"
            raise InputError("certificate", given, "a valid signature", "bad-signature") from error
        return keyid

    def _dsse(self) -> Any:
        from securesystemslib.dsse import Envelope as DSSE
        from securesystemslib.signer import Signature  # type: ignore[attr-defined]

        return DSSE(self.payload, self.payload_type, {key: Signature(key, sig.hex()) for key, sig in self.signatures})


def _public_key(pem: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    expected = "an Ed25519 public key in PEM (openssl pkey -pubout)"
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError("key", "something that is not a readable public key", expected, "bad-key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError("key", f"a key of type {type(key).__name__}", expected, "bad-key")
    return SSlibKey.from_crypto(key)


def key_id(pem: bytes) -> str:
    """The id under which signatures of an Ed25519 public key (PEM) stand.

    Raises:
        InputError: no such key.
    """
    return str(_public_key(pem).keyid)


def read_key(key: bytes | str | os.PathLike[str]) -> bytes:
    """PEM bytes of a key given as bytes or as a path.

    Raises:
        InputError: the file cannot be read, or is far too long for a key.
    """
    if isinstance(key, bytes):
        return key
    try:
        with Path(key).open("rb") as stream:
            data = stream.read(_KEY_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError("key", f"{str(key)[:200]!r}, which cannot be read", "a PEM file", "bad-key") from error
    if len(data) > _KEY_BYTES:
        raise InputError("key", f"more than {_KEY_BYTES} bytes", "a PEM file", "bad-key")
    return data


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("certificate", "text that is not base64", "base64", "malformed") from error


def _malformed(given: str) -> InputError:
    return InputError("certificate", given, "a DSSE envelope in canonical JSON", "malformed")
