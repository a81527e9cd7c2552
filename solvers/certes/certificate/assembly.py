"""The certificates of an assembly as documents: a graph of files that lie side by side, each named by its digest.

``DIGEST.certificate.json`` for every network and ``DIGEST.assembly.json`` for every composition step are DSSE envelopes
(DIGEST is the sha256 of the statement), ``SHA256.proof.safetensors`` their proofs. A network's certificate knows
nothing of the assembly: the same network, used twice, has one. What an assembly needs of a network besides its rate or
factor, the Lipschitz constant, is proven in the proof file of the step that uses it, as ``modules.lipschitz`` (one per
module, 0: none) and ``modules.lipschitz_multipliers`` (those of the networks, one after the other).
``SHA256.couplings.safetensors`` holds the tensors of one step's couplings for whoever has them in no file of his own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.assemblies import DEEPEST, Assembly, CompositionProof, FlowProof, InterfaceProof
from certes.certificate import assembly_statement as statements
from certes.certificate import document as documents
from certes.certificate.assembly_statement import PREDICATE_TYPE, AssemblyClaims, AssemblyStatement
from certes.certificate.document import CERTIFICATE_SUFFIX, PROOF_SUFFIX, write_whole
from certes.certificate.envelope import Envelope, read_key
from certes.certificate.statement import Statement
from certes.dtypes import encoded
from certes.errors import InputError
from certes.proofs import Claims, LureProof, Verdict
from certes.systems import System
from certes.weights import pack, to_bytes

ASSEMBLY_SUFFIX = ".assembly.json"
COUPLINGS_SUFFIX = ".couplings.safetensors"
_MODULES = "modules."
_MARK = b'"predicateType":"' + PREDICATE_TYPE.encode() + b'"'

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AssemblyBundle:
    """Every document that the certificate of an assembly consists of, as bytes; whether it is true is for the verifier.

    Attributes:
        root: digest of the certificate of the whole.
        documents: digest -> envelope, of networks and composition steps; modules before what they are modules of.
        proofs: sha256 -> proof file.
        couplings: sha256 -> weight file with the tensors of one step's couplings.
    """

    root: str
    documents: Mapping[str, bytes] = field(repr=False)
    proofs: Mapping[str, bytes] = field(repr=False)
    couplings: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def envelope(self) -> Envelope:
        """Payload and signatures of the certificate of the whole.

        Raises:
            InputError: ``malformed``.
        """
        return Envelope.from_bytes(self.documents[self.root])

    @property
    def statement(self) -> AssemblyStatement:
        """What is stated of the whole.

        Raises:
            InputError: ``malformed`` or ``unsupported-format``.
        """
        return AssemblyStatement.from_bytes(self.envelope.payload)

    @property
    def digest(self) -> str:
        """Of the certificate of the whole: as :attr:`certes.certificate.document.Certificate.digest`."""
        return self.root

    @property
    def verdict(self) -> Verdict:
        """What is stated of the whole."""
        return self.statement.predicate.verdict

    @property
    def signed(self) -> bool:
        """Whether the certificate of the whole has a signature (not: whether it is valid)."""
        return bool(self.envelope.signatures)

    @property
    def keyids(self) -> tuple[str, ...]:
        """Ids of the keys that claim to have signed the certificate of the whole."""
        return tuple(keyid for keyid, _ in self.envelope.signatures)

    def sign(self, private_key: bytes | str | os.PathLike[str], *, every: bool = False) -> AssemblyBundle:
        """The same with a signature by an Ed25519 key (PEM bytes, or the path of a PEM file).

        The certificate of the whole names all the others by digest, so its signature covers them.

        Args:
            private_key: the key.
            every: sign each document.

        Raises:
            InputError: not such a key.
        """
        pem = read_key(private_key)
        signed = {
            digest: Envelope.from_bytes(document).sign(pem).to_bytes() if every or digest == self.root else document
            for digest, document in self.documents.items()
        }
        return replace(self, documents=signed)

    def write(self, directory: str | os.PathLike[str], *, couplings: bool = True) -> Path:
        """Write all files, each at once or not at all, what is named before what names it; returns the whole's path.

        Args:
            directory: where; made if need be.
            couplings: whether the tensors of the couplings are written too.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        for sha256, data in self.proofs.items():
            write_whole(folder / f"{sha256}{PROOF_SUFFIX}", data)
        for sha256, data in self.couplings.items() if couplings else ():
            write_whole(folder / f"{sha256}{COUPLINGS_SUFFIX}", data)
        target = folder / f"{self.root}{ASSEMBLY_SUFFIX}"
        for digest, document in self.documents.items():
            if digest != self.root:
                suffix = ASSEMBLY_SUFFIX if speaks_of_an_assembly(document) else CERTIFICATE_SUFFIX
                write_whole(folder / f"{digest}{suffix}", document)
        write_whole(target, self.documents[self.root])
        return target

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> AssemblyBundle:
        """Read the certificate of an assembly and all that it names, as far as it lies beside it.

        Args:
            path: the file ``DIGEST.assembly.json``, or a folder in which exactly one of these is named by no other.

        Raises:
            InputError: the file itself cannot be read. What is missing or malformed beside it is for the verifier.
        """
        target = _root_path(Path(path))
        reading = _Reading(target.parent)
        data = documents.read_document(target)
        root = digest_of(data)
        reading.walk(root, data, DEEPEST + 1)
        for other in sorted(target.parent.glob(f"*{COUPLINGS_SUFFIX}")):
            sha256 = other.name.removesuffix(COUPLINGS_SUFFIX)
            try:
                content = other.read_bytes()
            except OSError:
                continue
            if hashlib.sha256(content).hexdigest() == sha256:
                reading.couplings[sha256] = content
        return cls(root, reading.documents, reading.proofs, reading.couplings)


def speaks_of_an_assembly(document: bytes) -> bool:
    """Whether a certificate's file is about an assembly; nothing of the payload is parsed for that."""
    try:
        return _MARK in Envelope.from_bytes(document).payload  # canonical: quotes inside a text would be escaped
    except InputError:
        return False


def is_assembly(certificate: object) -> bool:
    """Whether a certificate, or the file or folder at a path, is that of an assembly."""
    if isinstance(certificate, AssemblyBundle):
        return True
    if not isinstance(certificate, (str, os.PathLike)):
        return False
    try:
        path = Path(certificate)
        if path.is_dir():
            return next(path.glob(f"*{ASSEMBLY_SUFFIX}"), None) is not None
        return path.name.endswith(ASSEMBLY_SUFFIX) or speaks_of_an_assembly(documents.read_document(path))
    except (OSError, ValueError):
        return False


def digest_of(document: bytes) -> str:
    """The name of a certificate: the sha256 of its payload, or of what it is if it is no envelope."""
    with contextlib.suppress(InputError):
        document = Envelope.from_bytes(document).payload
    return hashlib.sha256(document).hexdigest()


def open_assembly(document: bytes) -> tuple[Envelope, AssemblyStatement]:
    """Envelope and statement of the certificate of a composition step.

    Raises:
        InputError: ``malformed`` or ``unsupported-format``.
    """
    envelope = Envelope.from_bytes(document)
    documents.check_payload_type(envelope)
    return envelope, AssemblyStatement.from_bytes(envelope.payload)


class _Reading:
    """Follows the digests from document to document, within one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.documents: dict[str, bytes] = {}
        self.proofs: dict[str, bytes] = {}
        self.couplings: dict[str, bytes] = {}
        self._seen: set[str] = set()

    def walk(self, digest: str, data: bytes, levels: int) -> None:
        """Take a document and all below it, those below first."""
        self._seen.add(digest)
        statement: Statement | AssemblyStatement | None = None
        with contextlib.suppress(InputError):  # the verifier says what is wrong with it
            statement = open_assembly(data)[1] if speaks_of_an_assembly(data) else documents.open_document(data)[1]
        if isinstance(statement, AssemblyStatement) and levels > 0:
            for module in statement.predicate.modules:
                self._follow(module.certificate, module.kind, levels - 1)
        if statement is not None:
            sha256 = statement.predicate.proof.sha256
            proof = documents.proof_beside(self.folder, sha256)
            if proof is not None:
                self.proofs[sha256] = proof
        self.documents[digest] = data

    def _follow(self, digest: str, kind: str, levels: int) -> None:
        if digest in self._seen:
            return
        suffix = ASSEMBLY_SUFFIX if kind == "assembly" else CERTIFICATE_SUFFIX
        target = self.folder / f"{digest}{suffix}"
        try:
            if target.is_file():
                self.walk(digest, documents.read_document(target), levels)
        except InputError:
            return  # unreadable: as if it were not there


def _root_path(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"*{ASSEMBLY_SUFFIX}"))
    named: set[str] = set()
    for entry in found:
        try:
            statement = open_assembly(documents.read_document(entry))[1]
        except InputError:
            continue
        named.update(module.certificate for module in statement.predicate.modules)
    roots = [entry for entry in found if entry.name.removesuffix(ASSEMBLY_SUFFIX) not in named]
    if len(roots) != 1:
        given = f"a folder with {len(roots)} assemblies that are no modules of another"
        raise InputError("certificate", given, f"a file *{ASSEMBLY_SUFFIX}, or a folder with one", "unreadable")
    return roots[0]


class Builder:
    """Puts the documents of an assembly together, modules first. Nothing is verified here."""

    def __init__(self) -> None:
        self._documents: dict[str, bytes] = {}
        self._proofs: dict[str, bytes] = {}
        self._couplings: dict[str, bytes] = {}

    def network(self, system: System, proof: InterfaceProof) -> str:
        """Add the certificate of a network: metric, multipliers and level of its interface.

        Returns:
            Its digest.

        Raises:
            InputError: something that a certificate cannot say.
        """
        level = proof.level
        claims = Claims(rate=level) if system.continuous else Claims(factor=level)
        lure = LureProof(proof.metric, proof.multipliers, False, 0.0, np.inf, 0.0, 0.0)
        made = documents.build(system, "contracting", "lure", 1, lure, claims)
        return self._add(made.document, made.proof)

    def step(
        self,
        assembly: Assembly,
        certificates: Mapping[str, str],
        proof: CompositionProof,
        claims: AssemblyClaims,
        interfaces: Mapping[str, InterfaceProof],
    ) -> str:
        """Add the certificate of a composition step.

        Args:
            assembly: modules and couplings.
            certificates: name of a module -> digest of its certificate.
            proof: of the step.
            claims: what it proves.
            interfaces: name -> interface of each module that is a network, for its Lipschitz constant.

        Returns:
            Its digest.

        Raises:
            InputError: something that a certificate cannot say.
        """
        data = to_bytes(proof.to_arrays() | _lipschitz_arrays(assembly, proof, interfaces))
        sha256 = hashlib.sha256(data).hexdigest()
        statement = statements.state(assembly, certificates, proof, claims, sha256)
        if assembly.couplings:
            stored = couplings_file(assembly)
            self._couplings[hashlib.sha256(stored).hexdigest()] = stored
        return self._add(Envelope(statement.to_bytes()).to_bytes(), data)

    def bundle(self, root: str) -> AssemblyBundle:
        """All that was added, with ``root`` as the certificate of the whole."""
        return AssemblyBundle(root, dict(self._documents), dict(self._proofs), dict(self._couplings))

    def _add(self, document: bytes, proof: bytes) -> str:
        digest = digest_of(document)
        self._documents[digest] = document
        self._proofs[hashlib.sha256(proof).hexdigest()] = proof
        return digest


def _lipschitz_arrays(
    assembly: Assembly, proof: CompositionProof, interfaces: Mapping[str, InterfaceProof]
) -> dict[str, Any]:
    if not isinstance(proof, FlowProof):
        return {}
    known = [interfaces.get(name) for name in assembly.modules]
    parts = [entry.lipschitz_multipliers for entry in known if entry is not None]
    return {
        f"{_MODULES}lipschitz": np.array([0.0 if entry is None else entry.lipschitz for entry in known]),
        f"{_MODULES}lipschitz_multipliers": np.concatenate([*parts, np.zeros(0)]),
    }


@dataclass(frozen=True, eq=False)
class StepProof:
    """What the proof file of a composition step holds.

    Attributes:
        proof: of the step.
        lipschitz: of each module, shape (k,); 0: none, or an assembly, which states its own.
        multipliers: name of a network -> multipliers of its Lipschitz constant.
    """

    proof: CompositionProof
    lipschitz: Array
    multipliers: Mapping[str, Array]


def read_step(statement: AssemblyStatement, kind: type[CompositionProof], data: bytes) -> StepProof:
    """The arrays of a proof file, taken apart.

    Raises:
        InputError: arrays that are no proof of that kind (``malformed-proof``).
    """
    try:
        arrays = documents.proof_arrays(data)
        own = {name.removeprefix(_MODULES): arrays.pop(name) for name in sorted(arrays) if name.startswith(_MODULES)}
        proof = kind.from_arrays(arrays)
        if kind is not FlowProof:
            if own:
                raise InputError("proof", f"arrays {sorted(own)}", "none of the modules", "malformed-proof")
            return StepProof(proof, np.zeros(len(statement.predicate.modules)), {})
        return _with_modules(statement, proof, own)
    except InputError as error:
        raise InputError(error.field, error.given, error.expected, "malformed-proof") from error


def _with_modules(statement: AssemblyStatement, proof: CompositionProof, own: Mapping[str, Any]) -> StepProof:
    modules = statement.predicate.modules
    counts = [module.channels if module.kind == "network" else 0 for module in modules]
    lipschitz, flat = own.get("lipschitz"), own.get("lipschitz_multipliers")
    shapes = {"lipschitz": (len(modules),), "lipschitz_multipliers": (sum(counts),)}
    right = set(own) == set(shapes) and all(own[n].shape == s and own[n].dtype == np.float64 for n, s in shapes.items())
    if not right or lipschitz is None or flat is None:
        given = f"arrays {sorted(own)} of the modules"
        raise InputError("proof", given, f"float64 arrays of shapes {shapes}", "malformed-proof")
    if any(value != 0.0 for value, module in zip(lipschitz, modules, strict=True) if module.kind == "assembly"):
        raise InputError("proof.modules.lipschitz", "one of an assembly", "0 (it states its own)", "malformed-proof")
    ends = np.cumsum(counts)
    parts = {
        module.name: flat[end - count : end] for module, count, end in zip(modules, counts, ends, strict=True) if count
    }
    return StepProof(proof, lipschitz, parts)


def couplings_file(assembly: Assembly) -> bytes:
    """A weight file with the tensors of an assembly's own couplings, in their own dtypes."""
    found: dict[str, tuple[str, list[int], bytes]] = {}
    for k, edge in enumerate(assembly.couplings):
        (subject,) = edge.weights.subjects
        name = edge.name if edge.name not in found else f"{edge.name} [{k}]"
        found[name] = (subject.dtype, list(subject.shape), encoded(edge.matrix, subject.dtype))
    return pack(found)
