"""Conversations with a service, as generators: they yield what is to be done and get what came of it.

One driver sleeps and blocks (:mod:`certes_client.remote.client`), another awaits
(:mod:`certes_client.remote.aclient`); what is asked, when it is asked again and what is believed stands here, once.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from certes_client.remote.answers import Job, name_of
from certes_client.remote.calls import Broken, Call, Effect, Outcome, Part, Pause, Reply, Send, Sink, parsed
from certes_client.remote.errors import ServiceError, TimedOut, Unreachable
from certes_client.remote.events import Parser
from certes_client.remote.retry import Retry, retry_after, retryable

Tell = Callable[[Job], object]
#: Seconds that a call with a question waits for its answer before it becomes a job that is followed.
_WAIT = 3
#: The service gives a sign of life every ten seconds: a stream that is silent for so long is dead.
_SILENCE = 35.0
#: Streams in a row that told nothing, after which the job is only asked for.
_DUMB = 3


@dataclass(frozen=True)
class Talk:
    """How one client talks.

    Attributes:
        retry: when something is tried again.
        clock: seconds, monotonic.
        chance: uniform on [0, 1).
    """

    retry: Retry = field(default_factory=Retry)
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random

    def called(
        self, call: Call, until: float | None = None, sink: Sink | None = None
    ) -> Generator[Effect, Outcome, Reply]:
        """Send a call until it is answered; it must be one that may come twice.

        Returns:
            An answer that is no problem.

        Raises:
            ServiceError: the service refused. Unreachable: no answer. TimedOut: not in time.
        """
        tried = 0
        while True:
            outcome = yield Send(call, sink, until)
            tried += 1
            if isinstance(outcome, Reply) and outcome.ok:
                return outcome
            if isinstance(outcome, Reply) and not retryable(outcome.status, outcome.headers, outcome.is_problem):
                raise outcome.error()
            pause = self.retry.pause(tried, _asked(outcome), self.chance())
            if tried >= self.retry.attempts:
                raise _gave_up(outcome, tried)
            yield Pause(self._within(pause, until, outcome))

    def asked(
        self,
        path: str,
        parts: Mapping[str, Part],
        *,
        key: str | None = None,
        until: float | None = None,
        tell: Tell | None = None,
    ) -> Generator[Effect, Outcome, Mapping[str, Any]]:
        """Ask a question and wait for what comes of it.

        Args:
            path: where.
            parts: spec and file.
            key: idempotency key; None: a new one. However often the question is sent, it is one job.
            until: time of the clock after which nobody waits any more.
            tell: called with the job whenever it has changed.

        Raises:
            ServiceError, Unreachable, TimedOut, BadAnswer.
        """
        found = yield from self.begun(path, parts, key=key, until=until, wait=_WAIT if tell is None else 0)
        if not isinstance(found, Job):
            return found
        return (yield from self.waited(found.id, until=until, tell=tell)).outcome

    def begun(
        self, path: str, parts: Mapping[str, Part], *, key: str | None, until: float | None, wait: int = 0
    ) -> Generator[Effect, Outcome, Job | Mapping[str, Any]]:
        """Ask a question; the job that goes on, or the answer if it came within ``wait`` seconds."""
        prefer = f"wait={wait}" if wait else "respond-async"
        call = Call("POST", path, {"Prefer": prefer, "Idempotency-Key": key or uuid.uuid4().hex}, parts)
        reply = yield from self.called(call, until)
        if reply.status == 202:
            return Job.of(reply.object())
        return reply.object()

    def waited(
        self, job: str, *, until: float | None = None, tell: Tell | None = None
    ) -> Generator[Effect, Outcome, Job]:
        """Follow a job to its end, whatever happens to the connection or the service in between.

        Its events are followed as long as that works; where it does not, the job is asked for now and then.

        Raises:
            ServiceError: there is no such job, or it may not be read. Unreachable: nobody has answered for longer
                than :attr:`Retry.patience`. TimedOut: it has not ended in time; it goes on.
        """
        watch, path = _Watch(tell), f"/v1/jobs/{name_of(job)}"
        tried = dumb = 0
        contact = self.clock()
        while True:
            watch.heard = False
            if dumb < _DUMB:
                yield Send(_events(path, watch.last_id), watch, until)
                if watch.ended is not None:
                    return watch.ended
                contact, tried = (self.clock(), 0) if watch.heard else (contact, tried)
            outcome = yield Send(Call("GET", path, silence=30.0), None, until)
            if isinstance(outcome, Reply) and outcome.ok:
                if (found := watch.saw(Job.of(outcome.object()))).ended:
                    return found
                contact, tried, dumb = self.clock(), 0, 0 if watch.heard else dumb + 1
            elif isinstance(outcome, Reply) and not retryable(outcome.status, outcome.headers, outcome.is_problem):
                raise outcome.error()
            tried += 1
            if self.clock() - contact > self.retry.patience:
                raise _gave_up(outcome, tried)
            asked = _asked(outcome)
            yield Pause(self._within(self.retry.pause(tried, asked, self.chance()), until, outcome, job))

    def _within(self, pause: float, until: float | None, outcome: Outcome, job: str | None = None) -> float:
        """The pause, unless it ends after nobody waits any more, or is longer than anybody would wait."""
        if pause <= self.retry.longest and (until is None or self.clock() + pause < until):
            return pause
        if job is not None:
            raise TimedOut(f"the job {job} has not ended in time; it goes on, and can be waited for again", job)
        if isinstance(outcome, Reply):
            raise outcome.error()
        raise TimedOut(f"the service did not answer in time: {outcome.detail if outcome else 'nothing came'}")


class _Watch:
    """A sink for events of a job.

    Args:
        tell: called with the job whenever it has changed, also after a stream that broke has told it before.
    """

    def __init__(self, tell: Tell | None) -> None:
        self._tell = tell
        self._told: tuple[Any, ...] | None = None
        self._parser = Parser()
        self.last_id = ""
        self.heard = False
        self.ended: Job | None = None

    def begin(self) -> None:
        """A new stream."""
        self._parser, self.heard = Parser(), False

    def feed(self, chunk: bytes) -> bool:
        """A piece of it; enough once the job has ended."""
        for event in self._parser.feed(chunk):
            self.last_id = event.id or self.last_id
            self.saw(Job.of(parsed(event.data)))
        self.heard = self._parser.alive  # where nothing has changed, a service that resumes says only that
        return self.ended is not None

    def saw(self, job: Job) -> Job:
        """The job as it is now."""
        if job.told != self._told:
            self._told = job.told
            if self._tell is not None:
                self._tell(job)
        if job.ended:
            self.ended = job
        return job


def _events(path: str, last_id: str) -> Call:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    return Call("GET", f"{path}/events", headers, silence=_SILENCE)


def _asked(outcome: Outcome) -> float | None:
    return retry_after(outcome.headers.get("retry-after")) if isinstance(outcome, Reply) else None


def _gave_up(outcome: Outcome, tried: int) -> ServiceError | Unreachable:
    if isinstance(outcome, Reply):
        return outcome.error()
    detail = outcome.detail if isinstance(outcome, Broken) else "nothing came"
    return Unreachable(f"the service cannot be reached ({tried} attempts): {detail}")
