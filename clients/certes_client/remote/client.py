"""The blocking client."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx
from certes.certificate.assembly import AssemblyBundle
from certes.certificate.document import Certificate

from certes_client.remote import answers
from certes_client.remote.answers import Job
from certes_client.remote.asking import Asking, Exchange, File, How, Steps, Theme
from certes_client.remote.calls import Outcome, Pause, Send
from certes_client.remote.retry import Retry

T = TypeVar("T")
_NAME = "weights.safetensors"


class Client:
    """Talks to a Certes service. Every call is tried again where that can help, and makes one job at most.

    What it returns is what the service says. ``certes.verify(client.certificate(DIGEST), "weights.safetensors")`` is
    what proves it.

    Args:
        url: where it listens (``http://127.0.0.1:8080``); None: what ``CERTES_SERVER`` says.
        timeout: seconds that one call may take in all, waiting for its job included; None: no limit.
        key: API key; None: what ``CERTES_API_KEY`` says.
        retry: when something is tried again.

    Attributes:
        jobs: what the caller has asked.

    Raises:
        InputError: no address, or a key that cannot be one.
    """

    def __init__(
        self,
        url: str | None = None,
        timeout: float | None = 600.0,
        *,
        key: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        self._asking = Asking(url, timeout, key=key, retry=retry)
        self._http = httpx.Client(**self._asking.options)
        self.jobs = Jobs(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def certify(
        self, spec: Mapping[str, Any], weights: File, name: str = _NAME, **how: Unpack[How]
    ) -> answers.CertificateAnswer:
        """Certify or refute a network (POST /v1/certificates).

        Args:
            spec: the system and what is asked about it.
            weights: a safetensors file, which is read while it is sent; or its bytes.
            name: the file's name, if bytes are given.
            how: see :class:`certes_client.remote.asking.How`.

        Raises:
            ServiceError: the service refused. Unreachable, TimedOut: no answer. BadAnswer: one that is none.
        """
        return answers.CertificateAnswer(
            self._run(self._asking.question("/v1/certificates", spec, weights, name, **how))
        )

    def project(
        self, spec: Mapping[str, Any], weights: File, name: str = _NAME, **how: Unpack[How]
    ) -> answers.ProjectionAnswer:
        """The nearest weights that are certified (POST /v1/projections); the new file is at :meth:`weights`.

        Args:
            spec: the system, and what has to be reached and kept; or modules and their interconnection.
            weights: as for :meth:`certify`.
            name: as for :meth:`certify`.
            how: as for :meth:`certify`.

        Raises:
            ServiceError, Unreachable, TimedOut, BadAnswer: as :meth:`certify`.
        """
        return answers.ProjectionAnswer(self._run(self._asking.question("/v1/projections", spec, weights, name, **how)))

    def compose(
        self, spec: Mapping[str, Any], weights: File, name: str = _NAME, **how: Unpack[How]
    ) -> answers.AssemblyAnswer:
        """Certify an assembly from its modules (POST /v1/assemblies); the couplings are at :meth:`weights`.

        Args:
            spec: modules and couplings, as in a description file; no files in it.
            weights: a safetensors file with every tensor, or its bytes.
            name: as for :meth:`certify`.
            how: as for :meth:`certify`.

        Raises:
            ServiceError, Unreachable, TimedOut, BadAnswer: as :meth:`certify`.
        """
        return answers.AssemblyAnswer(self._run(self._asking.question("/v1/assemblies", spec, weights, name, **how)))

    def train(
        self,
        spec: Mapping[str, Any],
        data: File,
        name: str = "data.npz",
        *,
        others: Mapping[str, File] | None = None,
        **how: Unpack[How],
    ) -> answers.TrainingAnswer:
        """Train a network that is stable by construction (POST /v1/trainings); its tensors are at :meth:`weights`.

        Args:
            spec: architecture and plan.
            data: a safetensors, .npz, ``.ts`` or IDX file, or its bytes.
            name: as for :meth:`certify`.
            others: files that belong to it, by part: ``test`` of a ``.ts`` file; ``labels``, ``test`` and
                ``test_labels`` of IDX files (:func:`certes.uploads.parts` finds those of a folder).
            how: as for :meth:`certify`.

        Raises:
            ServiceError, Unreachable, TimedOut, BadAnswer: as :meth:`certify`.
        """
        steps = self._asking.question("/v1/trainings", spec, data, name, "data", others, **how)
        return answers.TrainingAnswer(self._run(steps))

    def verify(
        self,
        envelope: bytes,
        proof: bytes,
        weights: File | None = None,
        *,
        key: bytes | None = None,
        exact: bool = False,
    ) -> answers.VerificationAnswer:
        """Let the service verify (POST /v1/verifications); ``certes.verify`` does it here.

        Args:
            envelope: the certificate file.
            proof: the file beside it.
            weights: what it is meant to be about.
            key: Ed25519 public key (PEM) that must have signed.
            exact: also audit in exact rational arithmetic.

        Raises:
            ServiceError, Unreachable, TimedOut, BadAnswer: as :meth:`certify`.
        """
        return self._run(self._asking.verification(envelope, proof, weights, key, exact))

    def verify_assembly(
        self, bundle: AssemblyBundle, weights: Mapping[str, bytes], *, key: bytes | None = None
    ) -> answers.VerificationAnswer:
        """Let the service verify the certificate of an assembly, with all that it names.

        Args:
            bundle: as ``AssemblyBundle.read`` gives it.
            weights: name -> safetensors file, of every file that has some of the weights.
            key: Ed25519 public key (PEM) that must have signed the certificate of the whole.

        Raises:
            ServiceError, Unreachable, TimedOut, BadAnswer: as :meth:`certify`.
        """
        return self._run(self._asking.assembly_verification(bundle, weights, key))

    def certificate(self, digest: str) -> Certificate:
        """A certificate with its proof, as ``certes.verify`` takes it; nothing about it is verified yet.

        Raises:
            ServiceError: there is none. BadAnswer: it is not the one of that digest.
        """
        return self._run(self._asking.certificate(digest))

    def envelope(self, digest: str) -> bytes:
        """The certificate file (GET /v1/certificates/DIGEST).

        Raises:
            ServiceError: there is none.
        """
        return bytes(self._run(self._asking.bytes_of(digest)))

    def proof(self, digest: str) -> bytes:
        """The proof file (GET /v1/certificates/DIGEST/proof).

        Raises:
            ServiceError: there is none.
        """
        return bytes(self._run(self._asking.bytes_of(digest, "/proof")))

    def weights(self, digest: str) -> bytes:
        """The file that a projection or a training made, or the couplings of an assembly.

        Raises:
            ServiceError: there is none.
        """
        return bytes(self._run(self._asking.bytes_of(digest, "/weights")))

    def save_weights(self, digest: str, target: Path | str) -> Path:
        """As :meth:`weights`, into a file while it arrives; there is the whole file or none.

        Raises:
            ServiceError: there is none. InputError: the file cannot be written.
        """
        return self._run(self._asking.saved(digest, "/weights", Path(target)))

    def figure(self, digest: str, theme: Theme = "light") -> bytes:
        """The picture of a certificate as SVG, drawn there.

        Raises:
            ServiceError: there is none.
        """
        return bytes(self._run(self._asking.bytes_of(digest, "/figure.svg", {"theme": theme})))

    def health(self) -> answers.Health:
        """Whether the service answers, and its version (GET /healthz)."""
        return self._run(self._asking.health())

    def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                effect = steps.send(outcome)
                if isinstance(effect, Pause):
                    time.sleep(effect.seconds)
                    outcome = None
                else:
                    exchange = Exchange(effect)
                    for _ in self._exchanged(effect, exchange):
                        pass
                    outcome = exchange.outcome
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            steps.close()

    def _exchanged(self, send: Send, exchange: Exchange) -> Iterator[None]:
        """Do it; yields after each piece of the body."""
        try:
            with ExitStack() as stack:
                response = stack.enter_context(self._http.stream(**exchange.request(stack)))
                exchange.begin(response)
                for chunk in response.iter_bytes():
                    enough = exchange.feed(chunk)
                    yield
                    if enough:
                        break
                exchange.end(response)
        except httpx.HTTPError as error:
            exchange.broke(error)

    def _told(self, begin: Callable[[Callable[[Job], object]], Steps[Job]]) -> Iterator[Job]:
        """A conversation about a job, and the job whenever it has changed."""
        found: deque[Job] = deque()
        steps = begin(found.append)
        outcome: Outcome = None
        try:
            while True:
                effect = steps.send(outcome)
                if isinstance(effect, Pause):
                    time.sleep(effect.seconds)
                    outcome = None
                    continue
                exchange = Exchange(effect)
                for _ in self._exchanged(effect, exchange):
                    while found:
                        yield found.popleft()
                outcome = exchange.outcome
        except StopIteration:
            yield from found
        finally:
            steps.close()


class Jobs:
    """What the caller has asked, and what came of it.

    Args:
        client: whose.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, state: str | None = None, limit: int = 50) -> list[Job]:
        """The youngest first, without their answers.

        Args:
            state: only these, by commas (``queued,running``).
            limit: how many at most, up to 200.
        """
        return self._client._run(self._client._asking.jobs(state, limit))

    def begin(
        self, path: str, spec: Mapping[str, Any], file: File, name: str = _NAME, **how: Unpack[How]
    ) -> Job | answers.Answer:
        """Ask without waiting: the job, or the answer where it is known.

        Args:
            path: ``/v1/certificates``, ``/v1/projections``, ``/v1/assemblies`` or ``/v1/trainings``.
            spec: of the question.
            file: the weights, or the data.
            name: the file's name, if bytes are given.
            how: as for :meth:`Client.certify`; nobody waits, and nothing is told.
        """
        part = "data" if path.endswith("trainings") else "weights"
        found = self._client._run(self._client._asking.begun(path, spec, file, name, part, **how))
        return found if isinstance(found, Job) else answers.Answer(found)

    def get(self, job: str) -> Job:
        """As it is now.

        Raises:
            ServiceError: there is none of that name.
        """
        return self._client._run(self._client._asking.job("GET", job))

    def wait(self, job: str, *, timeout: float | None = None, progress: Callable[[Job], object] | None = None) -> Job:
        """Follow it to its end, over dropped connections and restarts of the service.

        Args:
            job: its name.
            timeout: seconds; None: the client's.
            progress: called with the job whenever it has changed.

        Raises:
            ServiceError: there is none of that name. TimedOut: it has not ended in time, and goes on. Unreachable.
        """
        return self._client._run(self._client._asking.waited(job, timeout, progress))

    def events(self, job: str, *, timeout: float | None = None) -> Iterator[Job]:
        """The job whenever it has changed, the last time when it has ended; as :meth:`wait`."""
        return self._client._told(lambda tell: self._client._asking.waited(job, timeout, tell))

    def cancel(self, job: str) -> Job:
        """End its computation; one that has ended stays as it is."""
        return self._client._run(self._client._asking.job("DELETE", job))
