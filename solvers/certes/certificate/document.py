"""The certificate as a document: two files that lie side by side, both named by digest.

``DIGEST.certificate.json`` is the DSSE envelope (:mod:`certes.certificate.envelope`) around the statement
(:mod:`certes.certificate.statement`); DIGEST is the sha256 of the statement, which signing does not change.
``SHA256.proof.safetensors`` holds the proof's arrays under the names of the fields of :mod:`certes.proofs`, those of
the largest step's own proof as ``step.NAME``, and those of the bound's proof as ``bound.NAME``.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from certes.cells import GatedNetwork
from certes.certificate import statement as statements
from certes.certificate.envelope import MAX_BYTES, PAYLOAD_TYPE, Envelope, read_key
from certes.certificate.statement import Statement
from certes.errors import InputError, TooLargeError
from certes.proofs import (
    ArrayProof,
    BoundProof,
    Claims,
    ConicBound,
    LureBound,
    LureProof,
    NormBound,
    Verdict,
    proof_from_arrays,
)
from certes.spec import SystemSpec
from certes.systems import System
from certes.weights import Limits, read_weights, to_bytes

CERTIFICATE_SUFFIX = ".certificate.json"
PROOF_SUFFIX = ".proof.safetensors"
_STEP, _BOUND = "step.", "bound."
_BOUNDS: dict[str, type[BoundProof]] = {entry.kind: entry for entry in (ConicBound, NormBound, LureBound)}
_EXPONENT = 1 << 40
_LIMITS = Limits(header_bytes=2**16, tensors=64)


@dataclass(frozen=True)
class Certificate:
    """A well-formed certificate; whether it is true is for :func:`certes.certificate.check.verify_certificate`.

    Two certificates are equal if their bytes are.

    Attributes:
        document: the envelope, canonical JSON.
        proof: the proof file, safetensors.
    """

    document: bytes = field(repr=False)
    proof: bytes = field(repr=False)

    def __post_init__(self) -> None:
        envelope, statement = open_document(self.document)
        check_proof_digest(statement, self.proof)
        object.__setattr__(self, "_envelope", envelope)
        object.__setattr__(self, "_statement", statement)

    @classmethod
    def from_parts(cls, document: bytes, proof: bytes) -> Certificate:
        """From the bytes of both files.

        Raises:
            InputError: slug ``malformed``, ``unsupported-format`` or ``wrong-proof``.
        """
        return cls(document, proof)

    @property
    def envelope(self) -> Envelope:
        """Payload and signatures."""
        found: Envelope = self._envelope  # type: ignore[attr-defined]
        return found

    @property
    def statement(self) -> Statement:
        """What is stated."""
        found: Statement = self._statement  # type: ignore[attr-defined]
        return found

    @property
    def payload(self) -> bytes:
        """The statement's bytes, canonical JSON."""
        return self.envelope.payload

    @property
    def digest(self) -> str:
        """sha256 of the payload, hex: the certificate's name."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def verdict(self) -> Verdict:
        """What is stated about the system."""
        return self.statement.predicate.verdict

    @property
    def condition(self) -> str:
        """Name of the theorem."""
        return self.statement.predicate.condition.name

    @property
    def signed(self) -> bool:
        """Whether there is a signature (not: whether it is valid)."""
        return bool(self.envelope.signatures)

    @property
    def keyids(self) -> tuple[str, ...]:
        """Ids of the keys that claim to have signed."""
        return tuple(key for key, _ in self.envelope.signatures)

    @property
    def array_proof(self) -> ArrayProof:
        """The proof or witness.

        Raises:
            InputError: arrays that are none (``malformed-proof``), or an unknown kind (``unknown-condition``).
        """
        return read_proof(self.statement, self.proof).main

    @property
    def claims(self) -> Claims:
        """The claims, with the proofs of the largest step and of the bound.

        Raises:
            InputError: as :attr:`array_proof`.
        """
        found = read_proof(self.statement, self.proof)
        return self.statement.claims(found.step, found.bound)

    def sign(self, private_key: bytes | str | os.PathLike[str]) -> Certificate:
        """The certificate with a signature by an Ed25519 key (PEM bytes, or the path of a PEM file).

        Raises:
            InputError: not such a key.
        """
        return Certificate(self.envelope.sign(read_key(private_key)).to_bytes(), self.proof)

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write both files, the proof first, each at once or not at all; returns the certificate's path."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{self.statement.predicate.proof.sha256}{PROOF_SUFFIX}", self.proof)
        target = folder / f"{self.digest}{CERTIFICATE_SUFFIX}"
        write_whole(target, self.document)
        return target

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Certificate:
        """Read a certificate and the proof beside it.

        Args:
            path: the certificate file, or a folder that holds exactly one.

        Raises:
            InputError: unreadable, ``malformed``, ``unsupported-format``, ``missing-proof`` or ``wrong-proof``.
        """
        document = read_document(path)
        _, statement = open_document(document)
        proof = find_proof(path, statement)
        if proof is None:
            expected = f"the file {statement.predicate.proof.sha256}{PROOF_SUFFIX} beside the certificate"
            raise InputError("proof", "no proof file", expected, "missing-proof")
        return cls(document, proof)


def build(
    system: System | GatedNetwork,
    verdict: Verdict,
    condition: str,
    condition_version: int,
    proof: ArrayProof,
    claims: Claims,
) -> Certificate:
    """The unsigned certificate of an answer. It is not verified here: ``certify`` calls this after the verifier.

    Args:
        system: the network.
        verdict: the answer.
        condition: name of the theorem (``"instability"`` for a witness).
        condition_version: its version.
        proof: proof or witness.
        claims: what it proves; all None for a witness.

    Raises:
        InputError: something that a certificate cannot say.
    """
    data = write_proof(proof, claims)
    digest = hashlib.sha256(data).hexdigest()
    statement = statements.state(system, verdict, (condition, condition_version), proof, claims, digest)
    return Certificate(Envelope(statement.to_bytes()).to_bytes(), data)


def restated(certificate: Certificate, system: System | GatedNetwork) -> Certificate:
    """The same answer, unsigned, about the same network read from elsewhere: from a file, under its tensors' names.

    Args:
        certificate: about a network from memory, or from another file.
        system: the network, with the names and the file that the new certificate is to state.

    Raises:
        InputError: another network: other weights, another form, nonlinearity or time (``wrong-system``).
    """
    stated = certificate.statement
    given, named = SystemSpec.of(system), stated.predicate.system
    same = given.model_copy(update={"tensors": named.tensors}) == named and set(given.tensors) == set(named.tensors)
    for role, subjects in stated.tensor_subjects().items() if same else ():
        found = system.tensors[role].subjects
        same = same and len(subjects) == len(found)
        same = same and all(one.agrees(other) for one, other in zip(subjects, found, strict=True))
    if not same:
        raise InputError("system", "another network", "the one that the certificate is about", "wrong-system")
    condition, proof, claims = stated.predicate.condition, certificate.array_proof, certificate.claims
    return build(system, stated.predicate.verdict, condition.name, condition.version, proof, claims)


def open_document(document: bytes) -> tuple[Envelope, Statement]:
    """Envelope and statement of a certificate file.

    Raises:
        InputError: ``malformed`` or ``unsupported-format``.
    """
    envelope = Envelope.from_bytes(document)
    check_payload_type(envelope)
    return envelope, Statement.from_bytes(envelope.payload)


def check_payload_type(envelope: Envelope) -> None:
    """Raise InputError (``unsupported-format``) unless the payload is an in-toto statement."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InputError("payloadType", repr(envelope.payload_type), repr(PAYLOAD_TYPE), "unsupported-format")


def check_proof_digest(statement: Statement, proof: bytes) -> None:
    """Raise InputError (``wrong-proof``) unless the proof file is the one that the statement names."""
    digest, stated = hashlib.sha256(proof).hexdigest(), statement.predicate.proof.sha256
    if digest != stated:
        raise InputError("proof", f"a proof file with sha256 {digest}", f"the one with sha256 {stated}", "wrong-proof")


def write_proof(proof: ArrayProof, claims: Claims) -> bytes:
    """The proof file: the same arrays give the same bytes."""
    arrays: dict[str, object] = dict(proof.to_arrays())
    if claims.largest_step is not None:
        arrays.update({_STEP + name: array for name, array in claims.largest_step.proof.to_arrays().items()})
    if claims.bound is not None:
        arrays.update({_BOUND + name: array for name, array in claims.bound.proof.to_arrays().items()})
    return to_bytes(arrays)


class ProofFile(NamedTuple):
    """What a proof file holds: the proof, and those of the largest step and of the bound, if they are claimed."""

    main: ArrayProof
    step: LureProof | None
    bound: BoundProof | None


def read_proof(statement: Statement, proof: bytes) -> ProofFile:
    """Inverse of :func:`write_proof`.

    Raises:
        InputError: arrays that are no proof of the stated kind (``malformed-proof``).
    """
    stated = statement.predicate.proof
    try:
        arrays = proof_arrays(proof)
        step, bound = _taken(arrays, _STEP), _taken(arrays, _BOUND)
        if stated.bound_kind is not None and stated.bound_kind not in _BOUNDS:
            raise InputError(
                "proof.bound_kind", repr(stated.bound_kind), f"one of {sorted(_BOUNDS)}", "unknown-condition"
            )
        if (stated.bound_kind is None) != (not bound):
            given = "a kind of bound stated without arrays 'bound.*', or the reverse"
            raise InputError("proof", given, "both or neither", "malformed-proof")
        return ProofFile(
            proof_from_arrays(stated.kind, arrays),
            LureProof.from_arrays(step) if step else None,
            None if stated.bound_kind is None else _BOUNDS[stated.bound_kind].from_arrays(bound),
        )
    except InputError as error:
        slug = "unknown-condition" if error.slug == "unknown-condition" else "malformed-proof"
        raise InputError(error.field, error.given, error.expected, slug) from error


def proof_arrays(proof: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a proof file; floats, exponents and bools only.

    Raises:
        InputError: another kind of array, or a file that is no safetensors file.
    """
    file = read_weights(proof, _LIMITS, name="proof")
    arrays = {name: entry.array() for name, entry in file.tensors.items()}
    if wrong := [name for name, entry in file.tensors.items() if entry.dtype not in ("F64", "I64", "BOOL")]:
        raise InputError(f"proof.{wrong[0]}", file.tensors[wrong[0]].dtype, "F64, I64 or BOOL", "malformed-proof")
    for name, array in arrays.items():
        # far from the ends of int64, so that no difference of two exponents wraps around
        if array.dtype == np.int64 and array.size and not -_EXPONENT < int(array.min()) <= int(array.max()) < _EXPONENT:
            given = f"exponents from {array.min()} to {array.max()}"
            raise InputError(f"proof.{name}", given, f"exponents within +-{_EXPONENT}", "malformed-proof")
    return arrays


def _taken(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Take the arrays with a prefix out, and the prefix off."""
    return {name.removeprefix(prefix): arrays.pop(name) for name in sorted(arrays) if name.startswith(prefix)}


def read_document(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a certificate file (or of the only one in a folder).

    Raises:
        InputError: it cannot be read.
    """
    target = _certificate_path(Path(path))
    try:
        with target.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(
            "certificate", f"{target.name!r}, which cannot be read", "a certificate file", "unreadable"
        ) from error
    if len(data) > MAX_BYTES:
        raise TooLargeError("certificate", f"more than {MAX_BYTES} bytes", MAX_BYTES)
    return data


def find_proof(path: str | os.PathLike[str], statement: Statement) -> bytes | None:
    """The proof file beside a certificate, or None if there is none.

    Raises:
        TooLargeError: it is beyond the limit of weight files.
    """
    return proof_beside(_certificate_path(Path(path)).parent, statement.predicate.proof.sha256)


def proof_beside(folder: Path, sha256: str) -> bytes | None:
    """The proof file of a digest in a folder, or None if there is none.

    Raises:
        TooLargeError: it is beyond the limit of weight files.
    """
    target = folder / f"{sha256}{PROOF_SUFFIX}"
    try:
        status = target.stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_size > _LIMITS.file_bytes:
            raise TooLargeError("proof", f"{status.st_size} bytes", _LIMITS.file_bytes)
        return target.read_bytes()
    except OSError:
        return None


def _certificate_path(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"*{CERTIFICATE_SUFFIX}"))
    if len(found) != 1:
        given = f"a folder with {len(found)} certificates"
        raise InputError("certificate", given, f"a file *{CERTIFICATE_SUFFIX}, or a folder with one", "unreadable")
    return found[0]


def write_whole(target: Path, data: bytes) -> None:
    """Write under another name, then rename: nobody ever sees half a file."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
