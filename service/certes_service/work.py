"""The desk: looks up what was answered before, hands the rest to a few solvers, keeps and signs what they find."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from certes.certificate.assembly import COUPLINGS_SUFFIX, digest_of, open_assembly, speaks_of_an_assembly
from certes.certificate.document import Certificate
from starlette.concurrency import run_in_threadpool

from certes_service.problems import Busy
from certes_service.questions.base import Attachment, Context, Finished, Limits, Question, Solved
from certes_service.questions.signing import finished
from certes_service.settings import Settings
from certes_service.store import CorruptedError, Store, Stored, sha256

log = logging.getLogger("certes.service")
T = TypeVar("T")


@dataclass
class _Turn:
    """Whose turn it is with one question, and how many want it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class Desk:
    """Answers questions, a few at a time.

    Args:
        settings: limits.
        store: where certificates and answers are kept.

    Attributes:
        waiting: how many requests are being solved or wait for it.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self._solvers = asyncio.Semaphore(settings.solvers)
        self.waiting = 0
        self._turns: dict[str, _Turn] = {}

    async def answer(self, question: Question) -> dict[str, Any]:
        """Answer a question; the same one asked twice at once is solved once.

        Raises:
            InputError: the weights do not fit the question. StorageError: it could not be kept. Busy: too many wait.
        """
        digest = await run_in_threadpool(question.digest, self.settings)
        async with self._one_at_a_time(digest):
            known = await run_in_threadpool(self._recall, digest)
            if known is not None:
                return known
            return await self._in_worker(lambda: self._solve(question, digest))

    async def verification(self, question: Question) -> dict[str, Any]:
        """Verify a certificate; trusts nothing that is stored here, and keeps nothing.

        Raises:
            InputError: a document that is not a certificate, or weights that are no weight file. Busy: too many wait.
        """
        return await self._in_worker(lambda: self._solved(question).answer)

    async def stored(self, digest: str) -> Stored | None:
        """A stored certificate, or None.

        Raises:
            StorageError: it cannot be read intact.
        """
        return await run_in_threadpool(self._intact, digest)

    async def weights(self, digest: str) -> tuple[bytes, str] | None:
        """The weight file that a stored certificate names, and its name; None if it is not kept here.

        The statement names the file by its digest, and that is the name of a blob: no other bytes can be meant.

        Raises:
            StorageError: it cannot be read intact.
        """
        return await run_in_threadpool(self._weights, digest)

    def _weights(self, digest: str) -> tuple[bytes, str] | None:
        stored = self._intact(digest)
        if stored is not None and speaks_of_an_assembly(stored.envelope):
            made = None if stored.weights is None else self.store.blob(stored.weights)
            return None if made is None else (made, f"{stored.weights}{COUPLINGS_SUFFIX}")
        subject = None if stored is None else Certificate.from_parts(*_parts(stored)).statement.file_subject()
        data = None if subject is None else self.store.blob(subject.digest.sha256)
        return None if subject is None or data is None else (data, subject.name)

    def _intact(self, digest: str) -> Stored | None:
        stored = self.store.certificate(digest)
        if stored is not None and _digest(stored) != digest:
            raise CorruptedError(f"what is stored as {digest} is another certificate")
        return stored

    def _recall(self, digest: str) -> dict[str, Any] | None:
        answer = self.store.answer(digest)
        if answer is None:
            return None
        try:
            stored = self._intact(answer["certificate"]["digest"])
            made = answer.get("weights") or answer.get("couplings")
            if made is not None and self.store.blob(made["sha256"]) is None:
                return None
            if any(self._intact(entry["digest"]) is None for entry in answer["certificate"].get("documents", ())):
                return None
        except CorruptedError as error:
            log.error("storage: %s; asking anew", error)
            return None
        if stored is None:
            return None
        return Finished(answer, envelope=stored.envelope).inline() | {"cached": True}

    def _solve(self, question: Question, digest: str) -> dict[str, Any]:
        """Solve, keep what was found (what is named before what names it), answer."""
        solved = self._solved(question)
        made = finished(solved, self.settings.private_key, sha256(question.weights))
        for document in made.documents:
            kept = None if document.weights is None else self.store.put_blob(document.weights)
            named = kept if document.kind == "assembly" else None  # a network's certificate names its file itself
            self.store.put_certificate(document.digest, document.envelope, document.proof, named)
        if made.documents:
            self.store.put_answer(digest, made.answer)
        return made.inline() | {"cached": False}

    def _solved(self, question: Question) -> Solved:
        question.check(self.settings)
        attachments = {digest: kept for digest in question.needs() if (kept := self._attached(digest)) is not None}
        attachments |= question.attached()
        return question.solve(Context(Limits.of(self.settings), self.settings.solve_seconds, attachments=attachments))

    def _attached(self, digest: str) -> Attachment | None:
        stored = self.store.certificate(digest)
        if stored is None:
            return None
        made = None if speaks_of_an_assembly(stored.envelope) else self._weights(digest)
        return Attachment(*_parts(stored), None if made is None else made[0])

    @contextlib.asynccontextmanager
    async def _one_at_a_time(self, digest: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(digest, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[digest]

    async def _in_worker(self, work: Callable[[], T]) -> T:
        if self.waiting >= self.settings.solvers + self.settings.queue:
            raise Busy(f"{self.waiting} requests are being solved or wait for it")
        self.waiting += 1
        try:
            async with self._solvers:
                return await run_in_threadpool(work)
        finally:
            self.waiting -= 1


def _parts(stored: Stored) -> tuple[bytes, bytes]:
    return stored.envelope, stored.proof


def _digest(stored: Stored) -> str:
    """The digest that a stored certificate has; that of an assembly is that of one composition step."""
    if not speaks_of_an_assembly(stored.envelope):
        return Certificate.from_parts(*_parts(stored)).digest
    if sha256(stored.proof) != open_assembly(stored.envelope)[1].predicate.proof.sha256:
        raise CorruptedError("what is stored as a proof is another one")
    return digest_of(stored.envelope)
