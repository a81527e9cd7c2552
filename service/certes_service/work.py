"""What the service does for a question: look it up, or solve it in a worker thread, store it, answer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from certes import strictjson
from certes._version import __version__
from certes.certificate.assembly import (
    COUPLINGS_SUFFIX,
    AssemblyBundle,
    digest_of,
    open_assembly,
    speaks_of_an_assembly,
)
from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate, open_document
from certes.certificate.statement import Statement
from certes.certify import certify
from certes.errors import InputError, TooLargeError
from certes.results import Result, scalars
from certes.spec import SystemSpec
from certes.systems import System, UnsupportedCell
from certes.verify.report import Report
from certes.weights import Limits, WeightFile, read_weights
from starlette.concurrency import run_in_threadpool

from certes_service.problems import Busy
from certes_service.schema import Options
from certes_service.settings import Settings
from certes_service.store import CorruptedError, Store, Stored

log = logging.getLogger("certes.service")
T = TypeVar("T")


@dataclass(frozen=True)
class Solved:
    """What a question came to.

    Attributes:
        answer: as JSON, without its certificate.
        certificate: unsigned; None if nothing was certified.
        weights: a weight file that was made and that the certificate names; None if it names the given one. Of an
            assembly: the tensors of all couplings.
        assembly: the certificates of an assembly, unsigned, instead of one certificate.
    """

    answer: dict[str, Any]
    certificate: Certificate | None
    weights: bytes | None = None
    assembly: AssemblyBundle | None = None


class Asked(Protocol):
    """A question that can be looked up, and solved."""

    def digest(self, settings: Settings) -> str:
        """Same bytes and same question, same digest. The version and the key are part of the question."""
        ...

    def solve(self, desk: Desk) -> Solved:
        """Answer it, in a worker thread.

        Raises:
            InputError: the weights do not fit the question.
        """
        ...


def question_digest(kind: str, settings: Settings, weights: bytes, parts: dict[str, Any]) -> str:
    """The digest of a question of some kind: of its parts, the weights, the version and the key."""
    key = None if settings.private_key is None else hashlib.sha256(settings.private_key).hexdigest()
    question = {"version": __version__, "weights": hashlib.sha256(weights).hexdigest(), "key": key, "kind": kind}
    return hashlib.sha256(strictjson.canonical(question | parts)).hexdigest()


@dataclass(frozen=True)
class Question:
    """One certificate request, validated as far as it can be without the weights.

    Attributes:
        spec: the system.
        options: what is asked about it.
        weights: bytes of a safetensors file.
        name: the file's name, as the certificate will call it.
    """

    spec: SystemSpec
    options: Options
    weights: bytes
    name: str

    def digest(self, settings: Settings) -> str:
        """Same bytes and same question, same digest. The version and the key are part of the question."""
        options = self.options.model_dump(mode="json")
        parts = {"spec": self.spec.model_dump(mode="json"), "options": options, "name": self.name}
        return question_digest("certificate", settings, self.weights, parts)

    def solve(self, desk: Desk) -> Solved:
        """Certify or refute."""
        system = self.spec.system(desk.read(self.weights, self.name))
        desk.check_size(system)
        asked, seconds = self.options, desk.seconds(self.options.seconds)
        result = certify(system, asked.condition, asked.rate, step=asked.step, backend=asked.backend, seconds=seconds)
        return Solved(result_json(result), result.certificate)


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

    async def answer(self, question: Asked) -> dict[str, Any]:
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

    async def verification(
        self,
        envelope: bytes,
        proof: bytes,
        weights: bytes | None,
        key: bytes | None,
        exact: bool,
    ) -> dict[str, Any]:
        """Verify a certificate; trusts nothing that is stored here.

        Raises:
            InputError: a document that is not a certificate, or weights that are no weight file. Busy: too many wait.
        """

        def work() -> dict[str, Any]:
            file = None if weights is None else self.read(weights, None)
            parts = envelope, self._bounded_proof(proof)
            report = verify_certificate(parts, file, key=key, exact=exact)
            try:
                certificate = Certificate.from_parts(*parts)
            except InputError:  # not well-formed: the report says so
                certificate = None
            return report_json(report, certificate, exact)

        return await self._in_worker(work)

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

        def find() -> tuple[bytes, str] | None:
            stored = self._intact(digest)
            if stored is not None and speaks_of_an_assembly(stored.envelope):
                made = None if stored.weights is None else self.store.blob(stored.weights)
                return None if made is None else (made, f"{stored.weights}{COUPLINGS_SUFFIX}")
            subject = None if stored is None else _statement(stored).file_subject()
            data = None if subject is None else self.store.blob(subject.digest.sha256)
            return None if subject is None or data is None else (data, subject.name)

        return await run_in_threadpool(find)

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
        return _with_envelope(answer, stored.envelope) | {"cached": True}

    def _solve(self, question: Asked, digest: str) -> dict[str, Any]:
        """Solve, keep what was found (what is named before what names it), answer."""
        solved = question.solve(self)
        if solved.assembly is not None:
            return self._keep_assembly(solved.answer, solved.assembly, solved.weights, digest)
        answer, certificate = solved.answer, solved.certificate
        if certificate is None:
            return answer | {"certificate": None, "cached": False}
        if self.settings.private_key is not None:
            certificate = certificate.sign(self.settings.private_key)
        envelope = certificate.document
        if solved.weights is not None:
            self.store.put_blob(solved.weights)
        self.store.put_certificate(certificate.digest, envelope, certificate.proof)
        answer["certificate"] = links(certificate.digest) | {"signed": certificate.signed}
        self.store.put_answer(digest, answer)
        return _with_envelope(answer, envelope) | {"cached": False}

    def _keep_assembly(
        self, answer: dict[str, Any], bundle: AssemblyBundle, couplings: bytes | None, digest: str
    ) -> dict[str, Any]:
        """Keep every document of an assembly, modules before what they are modules of, and answer."""
        if self.settings.private_key is not None:
            bundle = bundle.sign(self.settings.private_key, every=True)
        made = None if couplings is None else self.store.put_blob(couplings)
        for name, document in sorted(bundle.documents.items(), key=lambda entry: entry[0] == bundle.root):
            proof = bundle.proofs[_proof_digest(document)]
            self.store.put_certificate(name, document, proof, made if name == bundle.root else None)
        documents = [
            {"kind": "assembly" if speaks_of_an_assembly(document) else "network"} | links(name)
            for name, document in bundle.documents.items()
        ]
        answer["couplings"] = None
        if made is not None:
            answer["couplings"] = {"href": f"/v1/certificates/{bundle.root}/weights", "sha256": made}
        answer["certificate"] = links(bundle.root) | {"signed": bundle.signed, "documents": documents}
        self.store.put_answer(digest, answer)
        return _with_envelope(answer, bundle.documents[bundle.root]) | {"cached": False}

    def seconds(self, asked: float | None) -> float:
        """The time limit of one question."""
        limit = self.settings.solve_seconds
        return limit if asked is None else min(asked, limit)

    def read(self, weights: bytes, name: str | None) -> WeightFile:
        """A weight file, within the limits."""
        return read_weights(weights, Limits(file_bytes=self.settings.max_body_bytes), name=name)

    def check_size(self, system: System | UnsupportedCell) -> None:
        """Raise TooLargeError if a dense system has more states than may be solved."""
        if isinstance(system, UnsupportedCell) or system.is_sparse:
            return
        widest = max(max(entry.value.shape) for entry in system.tensors.values())
        if widest > self.settings.max_states:
            name = "spec.tensors." + next(iter(system.tensors))
            raise TooLargeError(name, f"{widest} states", self.settings.max_states, "states")

    def _bounded_proof(self, proof: bytes) -> bytes:
        try:
            tensors = read_weights(proof).tensors
        except InputError:
            return proof  # the certificate's own check says what is wrong with it
        for entry in tensors.values():
            if len(entry.shape) > 1 and max(entry.shape) > self.settings.max_states:
                raise TooLargeError("proof", f"{max(entry.shape)} states", self.settings.max_states, "states")
        return proof

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


def result_json(result: Result) -> dict[str, Any]:
    """A result without its certificate, as JSON; Python names. The witness's arrays are in the proof file."""
    answer = result.to_json()
    del answer["certificate"]
    if answer["witness"] is not None:
        answer["witness"] = scalars(answer["witness"])
    return answer


def finite(value: Any) -> Any:
    """JSON has no infinity: null, at any depth."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def report_json(report: Report, certificate: Certificate | None, exact: bool) -> dict[str, Any]:
    """A report as JSON."""
    checks = [
        {"name": check.name, "held": check.held, "detail": check.detail, "missing": finite(check.missing)}
        for check in report.checks
    ]
    return {
        "valid": report.valid,
        "verdict": report.verdict,
        "reason": report.reason,
        "detail": report.detail,
        "checks": checks,
        "digest": None if certificate is None else certificate.digest,
        "signed": None if certificate is None else certificate.signed,
        "exact": exact,
    }


def links(digest: str) -> dict[str, str]:
    """A certificate's digest, and where it and its proof are."""
    return {"digest": digest, "href": f"/v1/certificates/{digest}", "proof": f"/v1/certificates/{digest}/proof"}


def _digest(stored: Stored) -> str:
    """The digest that a stored certificate has; that of an assembly is that of one composition step."""
    if not speaks_of_an_assembly(stored.envelope):
        return Certificate.from_parts(stored.envelope, stored.proof).digest
    if hashlib.sha256(stored.proof).hexdigest() != _proof_digest(stored.envelope):
        raise CorruptedError("what is stored as a proof is another one")
    return digest_of(stored.envelope)


def _proof_digest(document: bytes) -> str:
    """The sha256 of the proof that a certificate names."""
    if speaks_of_an_assembly(document):
        return open_assembly(document)[1].predicate.proof.sha256
    return open_document(document)[1].predicate.proof.sha256


def _statement(stored: Stored) -> Statement:
    return Certificate.from_parts(stored.envelope, stored.proof).statement


def _with_envelope(answer: dict[str, Any], envelope: bytes) -> dict[str, Any]:
    return answer | {"certificate": answer["certificate"] | {"envelope": json.loads(envelope)}}
