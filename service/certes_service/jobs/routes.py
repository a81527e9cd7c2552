"""``/v1/jobs``: list, state and progress, events as they happen, cancel."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from certes_service import problems
from certes_service.jobs import documentation
from certes_service.jobs.answering import as_json
from certes_service.jobs.desk import Desk
from certes_service.jobs.job import STATES, Job
from certes_service.jobs.schema import JobAnswer, JobsAnswer
from certes_service.questions.base import clip
from certes_service.tenancy.callers import identified

_NAME = re.compile(r"[0-9a-f]{32}")
_STATES = f"^({'|'.join(STATES)})(,({'|'.join(STATES)}))*$"
_CURSOR = r"^[0-9]{1,12}(\.[0-9]{1,12})?~[0-9a-f]{32}$"


def install(app: FastAPI, desk: Desk) -> None:
    """Add the routes."""

    @app.get("/v1/jobs", response_model=JobsAnswer, **documentation.JOBS)
    async def jobs(
        request: Request,
        state: Annotated[str | None, Query(description="Only these, by commas", pattern=_STATES)] = None,
        limit: Annotated[int, Query(description="How many at most", ge=1, le=200)] = 50,
        before: Annotated[str | None, Query(description="`next` of the page before", pattern=_CURSOR)] = None,
    ) -> Response:
        """The caller's jobs, the youngest first."""
        caller = identified(request)
        wanted = tuple(entry for entry in STATES if state is not None and entry in state.split(","))
        found = await desk.jobs(caller.tenant, limit + 1, _last(before), wanted)
        page = found[:limit]
        following = f"{page[-1].created!r}~{page[-1].id}" if len(found) > limit else None
        return await as_json({"jobs": [_brief(job) for job in page], "next": following}, desk)

    @app.get("/v1/jobs/{job}", response_model=JobAnswer, **documentation.JOB)
    async def job(request: Request, job: str) -> Response:
        """State and progress of a job, and what it came to."""
        found = await _job(desk, request, job)
        waiting = {} if found.ended else {"Retry-After": "1"}
        return await as_json(await desk.told(found), desk, headers=waiting)

    @app.delete("/v1/jobs/{job}", response_model=JobAnswer, **documentation.CANCEL)
    async def cancel(request: Request, job: str) -> Response:
        """Cancel a job: its computation ends within two seconds. One that has ended stays as it is."""
        caller = identified(request)
        found = await desk.cancel(caller.tenant, job) if _NAME.fullmatch(job) else None
        if found is None:
            raise _unknown(job)
        return await as_json(await desk.told(found), desk)

    @app.get("/v1/jobs/{job}/events", response_class=StreamingResponse, **documentation.EVENTS)
    async def events(
        request: Request,
        job: str,
        last_event_id: Annotated[str | None, Header(description="`id` of the event that came last")] = None,
    ) -> Response:
        """The job as it goes on, as server-sent events: `state`, `progress`, and `end` with what it came to.

        With `Last-Event-ID` only what has changed since then is told; 204 if that was the end.
        """
        found = await _job(desk, request, job)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if found.ended and _id(found) == last_event_id:
            return Response(status_code=204, headers=headers)  # an EventSource does not come again
        return StreamingResponse(_stream(desk, found, last_event_id), media_type="text/event-stream", headers=headers)


async def _job(desk: Desk, request: Request, name: str) -> Job:
    caller = identified(request)
    found = await desk.job(caller.tenant, name) if _NAME.fullmatch(name) else None
    if found is None:
        raise _unknown(name)
    return found


async def _stream(desk: Desk, job: Job, last: str | None) -> AsyncIterator[bytes]:
    """Each event is the job as it is now, so whoever comes late, or comes again, has missed nothing.

    Args:
        desk: tells of changes.
        job: which.
        last: id of the event that came last; what it told is not told again.
    """
    state: tuple[str, int] | None = None
    async for found in desk.events(job.tenant, job.id):
        if found is None:
            yield b": still here\n\n"
            continue
        kind = "end" if found.ended else "progress" if (found.state, found.attempt) == state else "state"
        state, name = (found.state, found.attempt), _id(found)
        if name == last:
            yield b": nothing new\n\n"
        else:
            yield _event(kind, name, await desk.told(found) if found.ended else _brief(found))
        last = name
        if found.ended:
            return


def _id(job: Job) -> str:
    """What an event is called: whatever it tells, by digest, so that any worker and any restart calls it the same."""
    told = [job.id, job.state, job.attempt, job.progress]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _event(kind: str, name: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\nid: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def _brief(job: Job) -> dict[str, Any]:
    """A job without its answer, which may be long."""
    return job.json() | {"answer": None}


def _unknown(name: str) -> problems.Unknown:
    return problems.Unknown("job", clip(repr(name), 80), "a job of this caller", "unknown-job")


def _last(cursor: str | None) -> tuple[float, str] | None:
    """Time and name of the last job of the page before."""
    if cursor is None:
        return None
    created, _, name = cursor.partition("~")
    return float(created), name
