"""What both clients say: the address, the key, and the calls that the service knows, as conversations."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import httpx
from certes._version import __version__
from certes.certificate.assembly import AssemblyBundle
from certes.certificate.assembly_archive import packed
from certes.certificate.document import Certificate
from certes.errors import InputError

from certes_client.remote import answers
from certes_client.remote.answers import Job
from certes_client.remote.calls import MOST, Broken, Call, Effect, Outcome, Part, Reply, Saved, Send, Sink
from certes_client.remote.errors import BadAnswer
from certes_client.remote.retry import Retry
from certes_client.remote.talk import Talk, Tell

#: Environment variables: where the service is, and the key for it.
SERVER, KEY = "CERTES_SERVER", "CERTES_API_KEY"
T = TypeVar("T")
#: A conversation that ends with a value.
Steps = Generator[Effect, Outcome, T]
File = Path | str | os.PathLike[str] | bytes
Theme = Literal["light", "dark"]


class How(TypedDict, total=False):
    """How something is asked, and waited for.

    Attributes:
        key: idempotency key; a new one unless given.
        timeout: seconds in all, instead of the client's.
        progress: called with the job whenever it has changed.
        priority: -9 to 9, the highest first.
        deadline: seconds after which the service gives the job up.
    """

    key: str | None
    timeout: float | None
    progress: Tell | None
    priority: int | None
    deadline: float | None


class Asking:
    """A service and how it is talked to; the conversations of every call.

    Args:
        url: where it listens (``http://127.0.0.1:8080``); None: what ``CERTES_SERVER`` says.
        timeout: seconds that one call may take in all, pauses and waiting for a job included; None: no limit.
        key: API key; None: what ``CERTES_API_KEY`` says, if it says anything.
        retry: when something is tried again.

    Raises:
        InputError: no address, or a key that no header can carry.
    """

    def __init__(
        self,
        url: str | None = None,
        timeout: float | None = 600.0,
        *,
        key: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        self.url = checked_url(os.environ.get(SERVER, "") if url is None else url)
        self._timeout = timeout
        self._talk = Talk(retry or Retry())
        given = os.environ.get(KEY, "") if key is None else key
        if not given.isascii() or any(not letter.isprintable() or letter == " " for letter in given):
            raise InputError("key", "a text that is not shown", "an API key, as `certes keys create` prints it")
        self._headers = {"User-Agent": f"certes/{__version__}"}
        if given:
            self._headers["Authorization"] = f"Bearer {given}"

    @property
    def options(self) -> dict[str, Any]:
        """Of httpx. Redirects are not followed: the key goes to nobody else."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        return {"base_url": self.url, "headers": self._headers, "limits": limits, "follow_redirects": False}

    def until(self, timeout: float | None = None) -> float | None:
        """When nobody waits any more."""
        seconds = self._timeout if timeout is None else timeout
        return None if seconds is None else time.monotonic() + seconds

    def question(
        self,
        path: str,
        spec: Mapping[str, Any],
        weights: File,
        name: str,
        part: str = "weights",
        others: Mapping[str, File] | None = None,
        **how: Unpack[How],
    ) -> Steps[Mapping[str, Any]]:
        """A question about a file; ``part``: what the file's part is called; ``others``: further files by part."""
        parts = {"spec": Part.json(dict(spec)), part: Part.file(weights, name)}
        parts |= {further: Part.file(file, further) for further, file in (others or {}).items()}
        parts |= manner(how.get("priority"), how.get("deadline"))
        return self._talk.asked(
            path, parts, key=how.get("key"), until=self.until(how.get("timeout")), tell=how.get("progress")
        )

    def begun(
        self, path: str, spec: Mapping[str, Any], weights: File, name: str, part: str = "weights", **how: Unpack[How]
    ) -> Steps[Job | Mapping[str, Any]]:
        """As :meth:`question`, without waiting."""
        parts = {"spec": Part.json(dict(spec)), part: Part.file(weights, name)}
        parts |= manner(how.get("priority"), how.get("deadline"))
        return self._talk.begun(path, parts, key=how.get("key"), until=self.until(how.get("timeout")))

    def verification(
        self, envelope: bytes, proof: bytes, weights: File | None, key: bytes | None, exact: bool
    ) -> Steps[answers.VerificationAnswer]:
        """Let the service verify."""
        parts = {
            "certificate": Part(envelope, "application/json"),
            "proof": Part.file(proof, "proof.safetensors"),
        }
        if weights is not None:
            parts["weights"] = Part.file(weights, "weights.safetensors")
        if key is not None:
            parts["key"] = Part(key, "application/x-pem-file")
        if exact:
            parts["exact"] = Part(b"true", "text/plain")
        return (yield from self._verified(parts))

    def assembly_verification(
        self, bundle: AssemblyBundle, weights: Mapping[str, bytes], key: bytes | None
    ) -> Steps[answers.VerificationAnswer]:
        """Let the service verify the certificate of an assembly."""
        parts = {
            "certificate": Part(bundle.documents[bundle.root], "application/json"),
            "modules": Part.file(packed(bundle, weights), "modules.safetensors"),
        }
        if key is not None:
            parts["key"] = Part(key, "application/x-pem-file")
        return (yield from self._verified(parts))

    def _verified(self, parts: Mapping[str, Part]) -> Steps[answers.VerificationAnswer]:
        call = Call("POST", "/v1/verifications", parts=parts, silence=self._timeout or 3600.0)
        reply = yield from self._talk.called(call, self.until())
        return answers.VerificationAnswer(reply.object())

    def waited(self, job: str, timeout: float | None = None, progress: Tell | None = None) -> Steps[Job]:
        """Follow a job to its end."""
        return self._talk.waited(job, until=self.until(timeout), tell=progress)

    def job(self, method: str, job: str) -> Steps[Job]:
        """Ask for a job, or cancel it."""
        reply = yield from self._talk.called(Call(method, f"/v1/jobs/{answers.name_of(job)}"), self.until())
        return Job.of(reply.object())

    def jobs(self, state: str | None, limit: int) -> Steps[list[Job]]:
        """The caller's jobs, the youngest first."""
        query = {"limit": str(limit)} | ({} if state is None else {"state": state})
        reply = yield from self._talk.called(Call("GET", "/v1/jobs", query=query), self.until())
        found = reply.object().get("jobs")
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise BadAnswer("the service answered with something that is no list of jobs")
        return [Job.of(entry) for entry in found]

    def health(self) -> Steps[answers.Health]:
        """Whether the service answers."""
        reply = yield from self._talk.called(Call("GET", "/healthz"), self.until())
        return answers.Health(reply.object())

    def bytes_of(self, digest: str, what: str = "", query: Mapping[str, str] | None = None) -> Steps[bytes]:
        """What belongs to a certificate, in memory."""
        reply = yield from self._talk.called(Call("GET", place(digest, what), query=query or {}), self.until())
        return reply.body

    def saved(self, digest: str, what: str, target: Path, query: Mapping[str, str] | None = None) -> Steps[Path]:
        """What belongs to a certificate, as a file that is there whole or not at all."""
        sink = Saved(target)
        try:
            yield from self._talk.called(Call("GET", place(digest, what), query=query or {}), self.until(), sink)
            return sink.finish()
        except OSError as error:
            given = f"{target}: {error.strerror}"
            raise InputError("out", given, "a place that can be written", "unwritable") from error
        finally:
            sink.discard()

    def certificate(self, digest: str) -> Steps[Certificate]:
        """A certificate with its proof; well-formed and of that name, and not verified yet."""
        document = yield from self.bytes_of(digest)
        proof = yield from self.bytes_of(digest, "/proof")
        return certificate_of(digest, document, proof)


def certificate_of(digest: str, document: bytes, proof: bytes) -> Certificate:
    """A certificate from its two files.

    Raises:
        BadAnswer: they are none, or it is another.
    """
    try:
        found = Certificate.from_parts(document, proof)
    except InputError as error:
        raise BadAnswer(f"the service sent a certificate that is none: {error}") from error
    if found.digest != digest:
        raise BadAnswer(f"the service sent the certificate {found.digest} for {digest}")
    return found


def place(digest: str, what: str = "") -> str:
    """Where a certificate is, or what belongs to it.

    Raises:
        InputError: no digest.
    """
    try:
        return f"/v1/certificates/{answers.digest(digest)}{what}"
    except BadAnswer:
        raise InputError("digest", repr(digest)[:80], "64 hex digits", "malformed") from None


def manner(priority: int | None, deadline: float | None) -> dict[str, Part]:
    """How something is asked, besides what."""
    given = {"priority": priority, "deadline": deadline}
    return {name: Part(str(value).encode(), "text/plain") for name, value in given.items() if value is not None}


def checked_url(url: str) -> str:
    """An address of http or https.

    Raises:
        InputError: anything else.
    """
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        found = httpx.URL("")
    if found.scheme not in ("http", "https") or not found.host:
        raise InputError("server", repr(url)[:200], "an address such as http://127.0.0.1:8080", "malformed")
    return url


class Exchange:
    """One sending of a call: what httpx is given, and what came of it; the parts that do not block.

    Args:
        send: what is to be done.

    Attributes:
        outcome: None until it is over.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._body = bytearray()
        self._sink: Sink | None = None
        self.outcome: Reply | Broken | None = None

    def request(self, stack: ExitStack | AsyncExitStack) -> dict[str, Any]:
        """Of httpx's ``stream``; files are opened anew for each attempt, and read while they are sent."""
        call = self._send.call
        left = None if self._send.until is None else max(self._send.until - time.monotonic(), 0.05)
        silence = call.silence if left is None else min(call.silence, left)
        found: dict[str, Any] = {
            "method": call.method, "url": call.path, "headers": dict(call.headers),
            "timeout": httpx.Timeout(silence, connect=min(10.0, silence), pool=None),
        }  # fmt: skip
        if call.query:
            found["params"] = dict(call.query)
        if call.parts:
            found["files"] = {name: part.opened(stack) for name, part in call.parts.items()}
        return found

    def begin(self, response: httpx.Response) -> None:
        """Status and headers are here."""
        self._sink = self._send.sink if response.is_success else None
        if self._sink is not None:
            self._sink.begin()

    def feed(self, chunk: bytes) -> bool:
        """A piece of the body; returns whether it is enough.

        Raises:
            BadAnswer: a body without end. httpx.ReadTimeout: it takes too long.
        """
        if self._send.until is not None and time.monotonic() > self._send.until:
            raise httpx.ReadTimeout("the answer takes too long")
        if self._sink is not None:
            return self._sink.feed(chunk)
        self._body += chunk
        if len(self._body) > MOST:
            raise BadAnswer(f"the service sent more than {MOST} bytes")
        return False

    def end(self, response: httpx.Response) -> None:
        """It is whole."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.outcome = Reply(response.status_code, headers, bytes(self._body))

    def broke(self, error: httpx.HTTPError) -> None:
        """It is not."""
        self.outcome = Broken(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
