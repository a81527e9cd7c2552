"""The client for async code: the same conversations as :mod:`certes_client.remote.client`, awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
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


class AsyncClient:
    """Talks to a Certes service: as :class:`certes_client.remote.client.Client`, awaited.

    What it returns is what the service says; ``certes.verify`` of :meth:`certificate` is what proves it.

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
        self._http = httpx.AsyncClient(**self._asking.options)
        self.jobs = AsyncJobs(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def certify(
        self, spec: Mapping[str, Any], weights: File, name: str = _NAME, **how: Unpack[How]
    ) -> answers.CertificateAnswer:
        """As :meth:`Client.certify`."""
        return answers.CertificateAnswer(
            await self._run(self._asking.question("/v1/certificates", spec, weights, name, **how))
        )

    async def project(
        self, spec: Mapping[str, Any], weights: File, name: str = _NAME, **how: Unpack[How]
    ) -> answers.ProjectionAnswer:
        """As :meth:`Client.project`."""
        return answers.ProjectionAnswer(
            await self._run(self._asking.question("/v1/projections", spec, weights, name, **how))
        )

    async def compose(
        self, spec: Mapping[str, Any], weights: File, name: str = _NAME, **how: Unpack[How]
    ) -> answers.AssemblyAnswer:
        """As :meth:`Client.compose`."""
        return answers.AssemblyAnswer(
            await self._run(self._asking.question("/v1/assemblies", spec, weights, name, **how))
        )

    async def train(
        self,
        spec: Mapping[str, Any],
        data: File,
        name: str = "data.npz",
        *,
        others: Mapping[str, File] | None = None,
        **how: Unpack[How],
    ) -> answers.TrainingAnswer:
        """As :meth:`Client.train`."""
        steps = self._asking.question("/v1/trainings", spec, data, name, "data", others, **how)
        return answers.TrainingAnswer(await self._run(steps))

    async def verify(
        self,
        envelope: bytes,
        proof: bytes,
        weights: File | None = None,
        *,
        key: bytes | None = None,
        exact: bool = False,
    ) -> answers.VerificationAnswer:
        """As :meth:`Client.verify`."""
        return await self._run(self._asking.verification(envelope, proof, weights, key, exact))

    async def verify_assembly(
        self, bundle: AssemblyBundle, weights: Mapping[str, bytes], *, key: bytes | None = None
    ) -> answers.VerificationAnswer:
        """As :meth:`Client.verify_assembly`."""
        return await self._run(self._asking.assembly_verification(bundle, weights, key))

    async def certificate(self, digest: str) -> Certificate:
        """As :meth:`Client.certificate`."""
        return await self._run(self._asking.certificate(digest))

    async def envelope(self, digest: str) -> bytes:
        """As :meth:`Client.envelope`."""
        return bytes(await self._run(self._asking.bytes_of(digest)))

    async def proof(self, digest: str) -> bytes:
        """As :meth:`Client.proof`."""
        return bytes(await self._run(self._asking.bytes_of(digest, "/proof")))

    async def weights(self, digest: str) -> bytes:
        """As :meth:`Client.weights`."""
        return bytes(await self._run(self._asking.bytes_of(digest, "/weights")))

    async def save_weights(self, digest: str, target: Path | str) -> Path:
        """As :meth:`Client.save_weights`."""
        return await self._run(self._asking.saved(digest, "/weights", Path(target)))

    async def figure(self, digest: str, theme: Theme = "light") -> bytes:
        """The picture of a certificate as SVG, drawn there.

        Raises:
            ServiceError: there is none.
        """
        return bytes(await self._run(self._asking.bytes_of(digest, "/figure.svg", {"theme": theme})))

    async def health(self) -> answers.Health:
        """As :meth:`Client.health`."""
        return await self._run(self._asking.health())

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                effect = steps.send(outcome)
                if isinstance(effect, Pause):
                    await asyncio.sleep(effect.seconds)
                    outcome = None
                else:
                    exchange = Exchange(effect)
                    async for _ in self._exchanged(effect, exchange):
                        pass
                    outcome = exchange.outcome
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            steps.close()

    async def _exchanged(self, send: Send, exchange: Exchange) -> AsyncIterator[None]:
        """Do it; yields after each piece of the body."""
        try:
            async with AsyncExitStack() as stack:
                response = await stack.enter_async_context(self._http.stream(**exchange.request(stack)))
                exchange.begin(response)
                async for chunk in response.aiter_bytes():
                    enough = exchange.feed(chunk)
                    yield
                    if enough:
                        break
                exchange.end(response)
        except httpx.HTTPError as error:
            exchange.broke(error)

    async def _told(self, begin: Callable[[Callable[[Job], object]], Steps[Job]]) -> AsyncIterator[Job]:
        """A conversation about a job, and the job whenever it has changed."""
        found: deque[Job] = deque()
        steps = begin(found.append)
        outcome: Outcome = None
        try:
            while True:
                effect = steps.send(outcome)
                if isinstance(effect, Pause):
                    await asyncio.sleep(effect.seconds)
                    outcome = None
                    continue
                exchange = Exchange(effect)
                async for _ in self._exchanged(effect, exchange):
                    while found:
                        yield found.popleft()
                outcome = exchange.outcome
        except StopIteration:
            for job in found:
                yield job
        finally:
            steps.close()


class AsyncJobs:
    """What the caller has asked, and what came of it.

    Args:
        client: whose.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self, state: str | None = None, limit: int = 50) -> list[Job]:
        """As :meth:`Jobs.list`."""
        return await self._client._run(self._client._asking.jobs(state, limit))

    async def begin(
        self, path: str, spec: Mapping[str, Any], file: File, name: str = _NAME, **how: Unpack[How]
    ) -> Job | answers.Answer:
        """As :meth:`Jobs.begin`."""
        part = "data" if path.endswith("trainings") else "weights"
        found = await self._client._run(self._client._asking.begun(path, spec, file, name, part, **how))
        return found if isinstance(found, Job) else answers.Answer(found)

    async def get(self, job: str) -> Job:
        """As :meth:`Jobs.get`."""
        return await self._client._run(self._client._asking.job("GET", job))

    async def wait(
        self, job: str, *, timeout: float | None = None, progress: Callable[[Job], object] | None = None
    ) -> Job:
        """As :meth:`Jobs.wait`."""
        return await self._client._run(self._client._asking.waited(job, timeout, progress))

    def events(self, job: str, *, timeout: float | None = None) -> AsyncIterator[Job]:
        """As :meth:`Jobs.events`."""
        return self._client._told(lambda tell: self._client._asking.waited(job, timeout, tell))

    async def cancel(self, job: str) -> Job:
        """As :meth:`Jobs.cancel`."""
        return await self._client._run(self._client._asking.job("DELETE", job))
