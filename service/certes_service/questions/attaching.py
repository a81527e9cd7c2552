"""What is kept of the certificates that a question refers to, read for the solver: it has no store."""

from __future__ import annotations

from collections.abc import Iterable

from certes.certificate.document import Certificate

from certes_service.questions.base import Attachment
from certes_service.storage.store import Store, Stored


def attachments(store: Store, tenant: str, digests: Iterable[str]) -> dict[str, Attachment]:
    """Those certificates that the tenant keeps, with the weights that they name.

    Args:
        store: where they are kept.
        tenant: whose they are; those of others are as good as none.
        digests: of :meth:`Question.needs`.

    Raises:
        StorageError: one cannot be read, or is not intact.
    """
    found = {}
    for digest in sorted(digests):
        stored = store.certificate(tenant, digest)
        if stored is not None:
            found[digest] = Attachment(stored.envelope, stored.proof, _weights(store, tenant, stored))
    return found


def _weights(store: Store, tenant: str, stored: Stored) -> bytes | None:
    """The weight file that a network's certificate names, by its digest: no other bytes can be meant."""
    if stored.kind != "network":
        return None
    subject = Certificate.from_parts(stored.envelope, stored.proof).statement.file_subject()
    return None if subject is None else store.blobs.get(tenant, subject.digest.sha256)
