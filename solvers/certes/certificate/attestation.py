"""An attestation: a certificate bound to the files of a model, for tools that know in-toto and DSSE but not Certes.

The certificate already is an in-toto statement in a DSSE envelope; it speaks of tensors. An attestation is a second,
small statement about *files*: the weight file by its sha256 and, if the model was signed with model-signing (OpenSSF),
the whole model by the root digest of that signature's manifest, in which the weight file must be listed.

    subject         the weight file; and the signed model, if there is a manifest
    predicateType   urn:certes:attestation:v1
    predicate       certificate (digest, verdict, condition, claims), manifest (what was bound), versions

Whoever makes one verifies the certificate first; whoever gets one has its signature checked, and verifies the
certificate as well: an attestation proves nothing by itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certes import strictjson
from certes._version import __version__
from certes.certificate.document import Certificate
from certes.certificate.envelope import Envelope
from certes.certificate.statement import STATEMENT_TYPE, ClaimsModel, DigestSet
from certes.errors import InputError
from certes.proofs import Verdict
from certes.spec import input_error
from certes.weights import WeightFile

PREDICATE_TYPE: Final = "urn:certes:attestation:v1"
SUFFIX = ".attestation.json"
#: What model-signing says of a model.
MANIFEST_TYPE: Final = "https://model_signing/signature/v1.0"
_LARGEST = 64 * 2**20

Text = Annotated[str, Field(min_length=1, max_length=4096)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NamedDigest(_Model):
    """A file or a model, by sha256."""

    name: Text
    digest: DigestSet


class CertificateLink(_Model):
    """The certificate that was verified."""

    sha256: Digest
    verdict: Verdict
    condition: Text
    claims: ClaimsModel


class ManifestLink(_Model):
    """The manifest of model-signing that lists the weight file.

    Attributes:
        predicateType: what kind of statement it is.
        model: name of the signed model, and its root digest.
        resource: name of the weight file in it.
        signature: sha256 of the file of the signature (a Sigstore bundle).
    """

    predicateType: Literal["https://model_signing/signature/v1.0"]
    model: NamedDigest
    resource: Text
    signature: Digest


class Predicate(_Model):
    """What is said of the files."""

    certificate: CertificateLink
    manifest: ManifestLink | None
    versions: dict[Text, Text]


class Statement(_Model):
    """An in-toto Statement v1."""

    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[list[NamedDigest], Field(min_length=1, max_length=2)]
    predicateType: Literal["urn:certes:attestation:v1"]
    predicate: Predicate

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return strictjson.canonical(self.model_dump(by_alias=True), "attestation")

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Inverse of :meth:`to_bytes`; whatever it would not write itself is refused.

        Raises:
            InputError: slug ``malformed``, or naming the entry.
        """
        content = strictjson.parse(payload, "attestation")
        try:
            found = cls.model_validate(content)
        except ValidationError as error:
            raise input_error(error, "attestation") from None
        if found.to_bytes() != payload:
            raise InputError("attestation", "another form of JSON", "canonical JSON", "malformed")
        return found


@dataclass(frozen=True)
class Attestation:
    """An attestation and its signatures.

    Attributes:
        envelope: DSSE, with in-toto's payload type.
        statement: what is stated.
    """

    envelope: Envelope
    statement: Statement

    @classmethod
    def of(cls, certificate: Certificate, weights: WeightFile, manifest: bytes | None = None) -> Self:
        """Bind a certificate to a weight file, and to the signed model that the file is part of.

        Args:
            certificate: that was verified against these weights.
            weights: the file.
            manifest: the signature file of model-signing; its own signature is not checked here.

        Raises:
            InputError: the certificate is about another file, or the manifest does not list this one.
        """
        statement = certificate.statement
        if (weights.name, weights.sha256) not in {(entry.name, entry.digest.sha256) for entry in statement.subject}:
            given = f"{weights.name} with sha256 {weights.sha256[:16]}"
            raise InputError("weights", given, "the file that the certificate names", "wrong-file")
        link = None if manifest is None else _linked(manifest, weights)
        file = NamedDigest(name=weights.name, digest=DigestSet(sha256=weights.sha256))
        link_to = CertificateLink(
            sha256=certificate.digest,
            verdict=certificate.verdict,
            condition=certificate.condition,
            claims=statement.predicate.claims,
        )
        said = Statement.model_validate(
            {
                "_type": STATEMENT_TYPE,
                "subject": [file] if link is None else [file, link.model],
                "predicateType": PREDICATE_TYPE,
                "predicate": Predicate(certificate=link_to, manifest=link, versions={"certes": __version__}),
            }
        )
        return cls(Envelope(said.to_bytes()), said)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read.

        Raises:
            InputError: no such attestation.
        """
        envelope = Envelope.from_bytes(data)
        return cls(envelope, Statement.from_bytes(envelope.payload))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file.

        Raises:
            InputError: unreadable, or no such attestation.
        """
        return cls.from_bytes(_bytes(Path(path), "attestation"))

    def sign(self, private_key: bytes) -> Self:
        """With a signature by an Ed25519 key (PEM).

        Raises:
            InputError: no such key.
        """
        return type(self)(self.envelope.sign(private_key), self.statement)

    @property
    def digest(self) -> str:
        """sha256 of the payload."""
        return hashlib.sha256(self.envelope.payload).hexdigest()

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``DIGEST.attestation.json``; returns its path."""
        path = Path(folder) / f"{self.digest}{SUFFIX}"
        path.write_bytes(self.envelope.to_bytes())
        return path

    def check(
        self, certificate: Certificate, weights: WeightFile, manifest: bytes | None = None, key: bytes | None = None
    ) -> None:
        """Whether it binds exactly these; the certificate itself has to be verified besides.

        Args:
            certificate: the one at hand.
            weights: the file at hand.
            manifest: the signature file of model-signing, demanded if the attestation names one.
            key: an Ed25519 public key (PEM) that must have signed; None: signatures are not checked.

        Raises:
            InputError: what does not fit (``unsigned``, ``untrusted-key``, ``bad-signature``, ``wrong-file``,
                ``wrong-manifest``, ``missing-manifest``, ``wrong-certificate``).
        """
        if key is not None:
            self.envelope.authenticate(key)
        link = self.statement.predicate.manifest
        if link is not None and manifest is None:
            given = f"none, and the attestation names that of {link.model.name}"
            raise InputError("manifest", given, "the file of the model's signature", "missing-manifest")
        if link is None and manifest is not None:
            raise InputError("manifest", "one that the attestation does not name", "none", "wrong-manifest")
        if self.statement.predicate.certificate.sha256 != certificate.digest:
            given = f"an attestation of the certificate {self.statement.predicate.certificate.sha256[:16]}"
            raise InputError("certificate", given, f"one of {certificate.digest[:16]}", "wrong-certificate")
        wanted = type(self).of(certificate, weights, manifest).statement
        for name in ("subject", "predicate"):
            found, expected = getattr(self.statement, name), getattr(wanted, name)
            if name == "predicate":  # what made it may have been another version
                found, expected = (each.model_copy(update={"versions": {}}) for each in (found, expected))
            if found != expected:
                slug = "wrong-manifest" if link is not None else "wrong-file"
                raise InputError("attestation", f"another {name}", "that of these files", slug)


def _linked(data: bytes, weights: WeightFile) -> ManifestLink:
    """What a signature file of model-signing says of a weight file."""
    name, root, resources = _manifest(data)
    listed = [entry for entry, digest in resources if digest == weights.sha256]
    exact = [entry for entry in listed if entry.rpartition("/")[2] == weights.name]
    if not listed:
        given = f"{weights.name} with sha256 {weights.sha256[:16]}, which the manifest of {name!r} does not list"
        raise InputError("manifest", given, "the manifest of a model that this file is part of", "wrong-manifest")
    return ManifestLink(
        predicateType=MANIFEST_TYPE,
        model=NamedDigest(name=name, digest=DigestSet(sha256=root)),
        resource=(exact or listed)[0],
        signature=hashlib.sha256(data).hexdigest(),
    )


def _manifest(data: bytes) -> tuple[str, str, list[tuple[str, str]]]:
    """(model's name, root digest, (file, sha256) of each file) of a signature file.

    Raises:
        InputError: no such file, or a root digest that is not that of the files.
    """
    expected = "the signature file of model-signing (model_signing sign ...), version 1"
    try:
        bundle = strictjson.parse(data, "manifest", max_bytes=_LARGEST)
        payload = base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True)
        statement = strictjson.parse(payload, "manifest", max_bytes=_LARGEST)
        if statement["predicateType"] != MANIFEST_TYPE or len(statement["subject"]) != 1:
            raise InputError("manifest", f"a {str(statement['predicateType'])[:100]}", expected, "wrong-manifest")
        (subject,) = statement["subject"]
        entries = statement["predicate"]["resources"]
        resources = [(str(entry["name"]), _sha256(entry)) for entry in entries]
        root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in resources)).hexdigest()
        name, stated = str(subject["name"]), subject["digest"]["sha256"]
    except (KeyError, TypeError, IndexError, ValueError, binascii.Error) as error:
        raise InputError("manifest", f"another file ({type(error).__name__})", expected, "malformed") from error
    if stated != root:
        raise InputError("manifest", "a root digest that is not that of its files", expected, "wrong-manifest")
    return name, root, resources


def _sha256(entry: dict[str, Any]) -> str:
    if entry["algorithm"] != "sha256" or len(entry["digest"]) != 64:
        raise InputError("manifest", f"digests by {str(entry['algorithm'])[:40]}", "sha256", "unsupported")
    return str(entry["digest"])


def _bytes(path: Path, field: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(
            field, f"{path}: {error.strerror or error}", "a file that can be read", "unreadable"
        ) from error
    if len(data) > _LARGEST:
        raise InputError(field, f"{path}: more than {_LARGEST} bytes", "a smaller file", "too-large")
    return data


def read_manifest(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a signature file.

    Raises:
        InputError: it cannot be read.
    """
    return _bytes(Path(path), "manifest")
