"""Certificates and answers: rows that name blobs, written blobs first, and read only if everything is intact.

Whoever wants to keep something stages it (blobs are written, nothing names them yet) and then enters it, in one
transaction with whatever else belongs to it. A process that dies in between leaves blobs that nothing names; they are
collected one day (:mod:`certes_service.storage.retention`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from certes.certificate.assembly import COUPLINGS_SUFFIX, digest_of, open_assembly, speaks_of_an_assembly
from certes.certificate.document import Certificate
from certes.errors import InputError

from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.errors import CorruptedError, is_digest, sha256
from certes_service.storage.sealing import sealed, unsealed
from certes_service.storage.tables import answers, certificates

log = logging.getLogger("certes.service")
Kind = Literal["network", "assembly"]


@dataclass(frozen=True)
class Document:
    """A certificate that is to be kept.

    Attributes:
        digest: its name.
        kind: ``network`` or ``assembly``.
        envelope: the document.
        proof: the proof file.
        weights: a weight file that was made here and that it names; of an assembly, the tensors of all couplings.
    """

    digest: str
    kind: Kind
    envelope: bytes = field(repr=False)
    proof: bytes = field(repr=False)
    weights: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Row:
    """A certificate whose blobs are written: what its row will say, and the bytes, should they be needed again."""

    digest: str
    kind: Kind
    envelope: str
    proof: str
    weights: str | None
    blobs: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Stored:
    """A certificate that is kept.

    Attributes:
        envelope: the document.
        proof: the proof file.
        weights: digest of the blob that was made with it.
        kind: ``network`` or ``assembly``.
        public: whether everybody may read it.
        created: when it was entered first, in seconds since 1970.
    """

    envelope: bytes = field(repr=False)
    proof: bytes = field(repr=False)
    weights: str | None
    kind: Kind
    public: bool
    created: float


class Entry(NamedTuple):
    """A line of a tenant's list."""

    digest: str
    kind: Kind
    public: bool
    created: float


class Store:
    """What tenants keep.

    Args:
        database: rows.
        blobs: bytes.
    """

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self.database = database
        self.blobs = blobs

    def stage(self, tenant: str, documents: Iterable[Document]) -> tuple[Row, ...]:
        """Write the blobs of certificates; what is named comes before what names it. Nothing is visible yet.

        Raises:
            StorageError: not all could be written. CorruptedError: a document under a name that is not its own.
        """
        return tuple(self._stage(tenant, document) for document in documents)

    def _stage(self, tenant: str, document: Document) -> Row:
        if (document.kind, document.digest) != _identity(document.envelope, document.proof):
            raise CorruptedError(f"what is to be stored as {document.digest[:80]} is another certificate")
        parts = [part for part in (document.weights, document.proof, document.envelope) if part is not None]
        blobs = {self.blobs.put(tenant, part): part for part in parts}
        weights = None if document.weights is None else sha256(document.weights)
        envelope, proof = sha256(document.envelope), sha256(document.proof)
        return Row(document.digest, document.kind, envelope, proof, weights, blobs)

    def enter(
        self,
        connection: sa.Connection,
        tenant: str,
        rows: Sequence[Row],
        question: str | None = None,
        answer: dict[str, Any] | None = None,
    ) -> None:
        """Make staged certificates visible, and remember an answer that names them.

        The same certificate again changes nothing; it stays public, and keeps the weights it was made with.

        Args:
            connection: a writing transaction.
            tenant: whose they are.
            rows: of :meth:`stage`.
            question: digest of the question.
            answer: JSON; its certificate's envelope is left out and put in again when it is read.

        Raises:
            StorageError: it could not be written; the transaction has to be given up.
        """
        self.hold(connection, tenant, {digest: data for row in rows for digest, data in row.blobs.items()})
        now = self.database.now(connection)
        for row in rows:
            values = {
                "tenant": tenant,
                "digest": row.digest,
                "kind": row.kind,
                "envelope": row.envelope,
                "proof": row.proof,
                "weights": row.weights,
                "public": False,
                "created": now,
            }
            # What is there may be damaged, or signed by a key that was replaced: the documents are those of now.
            self.database.upsert(connection, certificates, values, ("kind", "envelope", "proof", "weights"))
        if question is not None and answer is not None:
            body = sealed(without_envelope(answer), tenant, question)
            values = {"tenant": tenant, "question": question, "answer": body, "created": now}
            self.database.upsert(connection, answers, values, ("answer", "created"))

    def hold(self, connection: sa.Connection, tenant: str, blobs: Mapping[str, bytes]) -> None:
        """Be sure, until the end of the transaction, that blobs which it is about to name are there.

        Args:
            connection: a writing transaction.
            tenant: whose they are.
            blobs: digest -> bytes, written before; those that were collected since are written again.

        Raises:
            StorageError: they could not be written.
        """
        self.database.naming(connection)
        for digest in self.blobs.missing(tenant, blobs):
            self.blobs.put(tenant, blobs[digest])

    def certificate(self, tenant: str, digest: str) -> Stored | None:
        """The tenant's certificate of that name, or None.

        Raises:
            CorruptedError: what is stored is not what was written, or is another certificate.
        """
        if not is_digest(digest):
            return None
        with self.database.read() as connection:
            mine = (certificates.c.tenant == tenant, certificates.c.digest == digest)
            row = connection.execute(sa.select(certificates).where(*mine)).mappings().first()
        return None if row is None else self._stored(row)

    def public(self, digest: str) -> tuple[str, Stored] | None:
        """A certificate that somebody made public, and whose it is; None if there is none.

        Raises:
            CorruptedError: there is one, and it is not intact.
        """
        if not is_digest(digest):
            return None
        with self.database.read() as connection:
            shown = (certificates.c.digest == digest, certificates.c.public.is_(True))
            rows = connection.execute(sa.select(certificates).where(*shown)).mappings().all()
        failure: CorruptedError | None = None
        for row in rows:
            try:
                return row["tenant"], self._stored(row)
            except CorruptedError as error:
                failure = error
        if failure is not None:
            raise failure
        return None

    def publish(self, tenant: str, digest: str, public: bool) -> bool:
        """Let everybody read a certificate, or nobody else any more; False if the tenant has none of that name.

        Raises:
            StorageError: it could not be written.
        """
        mine = (certificates.c.tenant == tenant, certificates.c.digest == digest)
        with self.database.begin() as connection:
            return connection.execute(sa.update(certificates).where(*mine).values(public=public)).rowcount == 1

    def weights(self, tenant: str, digest: str) -> tuple[bytes, str] | None:
        """The weight file that was made with a certificate, and its name; None if there is none.

        A network's certificate names the file by its digest, and that is the name of the blob: no other bytes can be
        meant. Of an assembly it is the file of its couplings' tensors.

        Raises:
            CorruptedError: it is not intact, or not the one that the certificate names.
        """
        stored = self.certificate(tenant, digest)
        if stored is None or stored.weights is None:
            return None
        if stored.kind == "assembly":
            name = f"{stored.weights}{COUPLINGS_SUFFIX}"
        else:
            subject = Certificate.from_parts(stored.envelope, stored.proof).statement.file_subject()
            if subject is None or subject.digest.sha256 != stored.weights:
                raise CorruptedError(f"the weights that are stored with {digest} are not those that it names")
            name = subject.name
        return self._blob(tenant, stored.weights), name

    def answer(self, tenant: str, question: str) -> dict[str, Any] | None:
        """The remembered answer, with its certificate's envelope; None if there is none.

        It is also None if the answer, or anything that it names, is not intact: then it has to be asked anew.

        Raises:
            StorageError: storage cannot be read.
        """
        mine = (answers.c.tenant == tenant, answers.c.question == question)
        with self.database.read() as connection:
            text = connection.execute(sa.select(answers.c.answer).where(*mine)).scalar()
        if text is None:
            return None
        try:
            return self._whole(tenant, unsealed(text, tenant, question))
        except CorruptedError as error:
            log.error("storage: %s; asking anew", error)
            return None

    def _whole(self, tenant: str, answer: dict[str, Any]) -> dict[str, Any] | None:
        """The answer with its envelope, if every document that it names is there."""
        named = answer.get("certificate")
        if named is None:
            return answer
        others = {entry["digest"] for entry in named.get("documents", ())} - {named["digest"]}
        if any(self.certificate(tenant, digest) is None for digest in others):
            return None
        made = answer.get("weights") or answer.get("couplings")
        if isinstance(made, dict) and "sha256" in made:
            self._blob(tenant, made["sha256"])
        root = self.certificate(tenant, named["digest"])
        if root is None:
            return None
        return answer | {"certificate": named | {"envelope": json.loads(root.envelope)}}

    def list(self, tenant: str, limit: int = 50, before: tuple[float, str] | None = None) -> list[Entry]:
        """A tenant's certificates, the youngest first.

        Args:
            tenant: whose.
            limit: how many at most.
            before: ``created`` and ``digest`` of the last one of the page before.

        Raises:
            StorageError: the database cannot be read.
        """
        at = sa.tuple_(certificates.c.created, certificates.c.digest)
        query = sa.select(*(certificates.c[name] for name in Entry._fields)).where(certificates.c.tenant == tenant)
        if before is not None:
            query = query.where(at < sa.tuple_(*map(sa.literal, before)))
        query = query.order_by(certificates.c.created.desc(), certificates.c.digest.desc()).limit(limit)
        with self.database.read() as connection:
            return [Entry(*row) for row in connection.execute(query)]

    def remove(self, tenant: str, digest: str) -> bool:
        """Forget a certificate, and with it every answer that names it; False if the tenant has none of that name.

        Its blobs go with the next collection, unless something else names them.

        Raises:
            StorageError: it could not be written.
        """
        mine = (certificates.c.tenant == tenant, certificates.c.digest == digest)
        with self.database.begin() as connection:
            return connection.execute(sa.delete(certificates).where(*mine)).rowcount == 1

    def _stored(self, row: sa.RowMapping) -> Stored:
        envelope, proof = (self._blob(row["tenant"], row[name]) for name in ("envelope", "proof"))
        if _identity(envelope, proof) != (row["kind"], row["digest"]):
            raise CorruptedError(f"what is stored as {row['digest']} is another certificate")
        return Stored(envelope, proof, row["weights"], row["kind"], row["public"], row["created"])

    def _blob(self, tenant: str, digest: str) -> bytes:
        data = self.blobs.get(tenant, digest)
        if data is None:
            raise CorruptedError(f"the stored bytes of {digest} are missing")
        return data


def _identity(envelope: bytes, proof: bytes) -> tuple[Kind, str]:
    """Kind and name of a certificate, by its bytes: those of the statement, which names its proof.

    Raises:
        CorruptedError: they are no certificate, or the proof of another.
    """
    try:
        if not speaks_of_an_assembly(envelope):
            return "network", Certificate.from_parts(envelope, proof).digest
        if open_assembly(envelope)[1].predicate.proof.sha256 != sha256(proof):
            raise CorruptedError("what is stored as a proof is another one")
        return "assembly", digest_of(envelope)
    except InputError as error:
        raise CorruptedError("what is stored as a certificate is none") from error


def without_envelope(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as it is kept: the envelope of its certificate is a blob."""
    named = answer.get("certificate")
    if not isinstance(named, dict) or "envelope" not in named:
        return answer
    return answer | {"certificate": {name: value for name, value in named.items() if name != "envelope"}}
