"""From what a solver found to what is kept and answered: signed, and with links. The solver has no key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from certes.certificate.assembly import digest_of, open_assembly, speaks_of_an_assembly
from certes.certificate.document import open_document
from certes.certificate.envelope import Envelope
from certes.errors import InputError

from certes_service.questions.base import Finished, Solved
from certes_service.solving.process import SolverCrashed
from certes_service.storage.store import Document, Kind


def finished(solved: Solved, key: bytes | None, about: str | None = None) -> Finished:
    """Sign what was found, and link it.

    Args:
        solved: of a solver process.
        key: Ed25519 private key (PEM); None: nothing is signed.
        about: sha256 of the weight file that was asked about; None: not looked at.

    Raises:
        InputError: not such a key.
        SolverCrashed: the documents are not what the solver says they are; nothing is signed.
    """
    if solved.root is None:
        if solved.documents:
            raise SolverCrashed("certificates that answer nothing")
        return Finished(solved.answer | _without(solved))
    stated = {digest: _checked(digest, document, solved) for digest, document in solved.documents.items()}
    if solved.root not in stated or stated[solved.root].verdict != solved.answer.get("verdict"):
        raise SolverCrashed(f"the certificate {solved.root} does not state the answer")
    _check_whole(solved, stated)
    _check_weights(solved, stated[solved.root], about)
    documents = []
    for digest, document in sorted(solved.documents.items(), key=lambda entry: entry[0] == solved.root):
        envelope = document if key is None else Envelope.from_bytes(document).sign(key).to_bytes()
        made = solved.weights if digest == solved.root else None
        documents.append(
            Document(digest, stated[digest].kind, envelope, solved.proofs[stated[digest].proof.sha256], made)
        )
    linked = _linked(solved, signed=key is not None)
    return Finished(linked, tuple(documents), documents[-1].envelope, solved.lasting)


def links(digest: str) -> dict[str, str]:
    """A certificate's digest, and where it and its proof are."""
    return {"digest": digest, "href": f"/v1/certificates/{digest}", "proof": f"/v1/certificates/{digest}/proof"}


def _without(solved: Solved) -> dict[str, Any]:
    """A verification's answer has no certificate and no room for one."""
    return {"certificate": None} if "checks" not in solved.answer else {}


def _linked(solved: Solved, *, signed: bool) -> dict[str, Any]:
    """The answer with links to its certificate, and to what was made."""
    assert solved.root is not None
    answer, link = dict(solved.answer), links(solved.root) | {"signed": signed}
    made = None if solved.weights is None else hashlib.sha256(solved.weights).hexdigest()
    if solved.assembly:
        listed = [
            {"kind": "assembly" if speaks_of_an_assembly(document) else "network"} | links(digest)
            for digest, document in solved.documents.items()
        ]
        # of a training it is all tensors of the network
        name = "weights" if "weights" in answer else "couplings"
        answer[name] = None
        if made is not None:
            answer[name] = {"href": f"/v1/certificates/{solved.root}/weights", "sha256": made}
        return answer | {"certificate": {**link, "documents": listed}}
    return answer | {"certificate": link}


@dataclass(frozen=True)
class _Stated:
    """What a document says, as far as it is looked at here."""

    kind: Kind
    statement: Any

    @property
    def proof(self) -> Any:
        return self.statement.predicate.proof

    @property
    def verdict(self) -> str:
        return str(self.statement.predicate.verdict)

    @property
    def modules(self) -> set[str]:
        """The certificates that it names."""
        if self.kind == "network":
            return set()
        return {module.certificate for module in self.statement.predicate.modules}


def _checked(digest: str, document: bytes, solved: Solved) -> _Stated:
    """What a document says.

    Raises:
        SolverCrashed: it has another digest, is signed by somebody, or its proof is not there.
    """
    kind: Kind = "assembly" if speaks_of_an_assembly(document) else "network"
    try:
        if digest_of(document) != digest:
            raise SolverCrashed(f"a certificate that is not {digest}")
        envelope, statement = (open_assembly if kind == "assembly" else open_document)(document)
    except InputError as error:
        raise SolverCrashed(f"a document that is no certificate: {error}") from error
    if envelope.signatures:  # a solver has no key
        raise SolverCrashed(f"the certificate {digest} with a signature")
    found = _Stated(kind, statement)
    proof = solved.proofs.get(found.proof.sha256)
    if proof is None or hashlib.sha256(proof).hexdigest() != found.proof.sha256:
        raise SolverCrashed(f"the certificate {digest} without its proof")
    return found


def _check_whole(solved: Solved, stated: dict[str, _Stated]) -> None:
    """Raise SolverCrashed unless the documents are the root and all that it names, and nothing else."""
    assert solved.root is not None
    wanted, found = [solved.root], set[str]()
    while wanted:
        digest = wanted.pop()
        if digest not in stated:
            raise SolverCrashed(f"the certificate {solved.root} without {digest}, which it names")
        if digest not in found:
            found.add(digest)
            wanted += stated[digest].modules
    if found != set(stated):
        raise SolverCrashed(f"certificates that {solved.root} does not name")
    if solved.assembly != (stated[solved.root].kind == "assembly"):
        raise SolverCrashed(f"the certificate {solved.root} is of another kind than the answer")


def _check_weights(solved: Solved, root: _Stated, about: str | None) -> None:
    """Raise SolverCrashed if a network's certificate is about another file than that which was asked about, or made."""
    wanted = about if solved.weights is None else hashlib.sha256(solved.weights).hexdigest()
    if root.kind == "assembly" or wanted is None:
        return
    subject = root.statement.file_subject()
    if subject is None or subject.digest.sha256 != wanted:
        raise SolverCrashed(f"the certificate {solved.root} is about another file")
