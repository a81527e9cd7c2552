"""From what a solver found to what is kept and answered: signed, and with links. The solver has no key."""

from __future__ import annotations

import hashlib
from typing import Any

from certes.certificate.assembly import digest_of, open_assembly, speaks_of_an_assembly
from certes.certificate.document import open_document
from certes.certificate.envelope import Envelope
from certes.errors import InputError

from certes_service.questions.base import Finished, Solved
from certes_service.solving.process import SolverCrashed
from certes_service.storage.store import Document, Kind


def finished(solved: Solved, key: bytes | None) -> Finished:
    """Sign what was found, and link it.

    Args:
        solved: of a solver process.
        key: Ed25519 private key (PEM); None: nothing is signed.

    Raises:
        InputError: not such a key.
        SolverCrashed: the documents are not what the solver says they are; nothing is signed.
    """
    if solved.root is None:
        return Finished(solved.answer | _without(solved))
    stated = {digest: _checked(digest, document, solved) for digest, document in solved.documents.items()}
    if solved.root not in stated or stated[solved.root][1] != solved.answer.get("verdict"):
        raise SolverCrashed(f"the certificate {solved.root} does not state the answer")
    documents = []
    for digest, document in sorted(solved.documents.items(), key=lambda entry: entry[0] == solved.root):
        envelope = document if key is None else Envelope.from_bytes(document).sign(key).to_bytes()
        kind: Kind = "assembly" if speaks_of_an_assembly(document) else "network"
        made = solved.weights if digest == solved.root else None
        documents.append(Document(digest, kind, envelope, solved.proofs[stated[digest][0]], made))
    return Finished(_linked(solved, signed=key is not None), tuple(documents), documents[-1].envelope)


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
        answer["couplings"] = None
        if made is not None:
            answer["couplings"] = {"href": f"/v1/certificates/{solved.root}/weights", "sha256": made}
        return answer | {"certificate": {**link, "documents": listed}}
    return answer | {"certificate": link}


def _checked(digest: str, document: bytes, solved: Solved) -> tuple[str, str]:
    """The proof that a document names, and its verdict.

    Raises:
        SolverCrashed: it has another digest, or its proof is not there.
    """
    try:
        if digest_of(document) != digest:
            raise SolverCrashed(f"a certificate that is not {digest}")
        opened: Any = open_assembly(document) if speaks_of_an_assembly(document) else open_document(document)
    except InputError as error:
        raise SolverCrashed(f"a document that is no certificate: {error}") from error
    predicate = opened[1].predicate
    proof: str = predicate.proof.sha256
    if proof not in solved.proofs or hashlib.sha256(solved.proofs[proof]).hexdigest() != proof:
        raise SolverCrashed(f"the certificate {digest} without its proof")
    return proof, str(predicate.verdict)
