"""OpenAPI of ``/v1/jobs``, and of what every question has in common: how it is asked, and that it may become a job."""

from __future__ import annotations

from typing import Any

from certes_service.problem_samples import problems

RUNNING: dict[str, Any] = {
    "id": "0c7d1c2f5be84c0fa9f0d1b8c1f5a001",
    "kind": "projection",
    "state": "running",
    "name": "net.safetensors",
    "created": "2026-01-01T12:00:00.000Z",
    "started": "2026-01-01T12:00:00.250Z",
    "finished": None,
    "deadline": None,
    "priority": 0,
    "attempt": 1,
    "progress": {"phase": "lure", "fraction": None, "message": "iteration 12"},
    "answer": None,
    "error": None,
    "href": "/v1/jobs/0c7d1c2f5be84c0fa9f0d1b8c1f5a001",
    "events": "/v1/jobs/0c7d1c2f5be84c0fa9f0d1b8c1f5a001/events",
}
_CANCELLED = RUNNING | {"state": "cancelled", "finished": "2026-01-01T12:00:03.000Z"}
_STREAM = (
    "event: progress\nid: 5f1c...\ndata: {...the job, without its answer...}\n\n"
    "event: end\nid: 9b07...\ndata: {...the job...}\n\n"
)


def _answer(description: str, example: Any, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"description": description, "content": {"application/json": {"example": example}}}
    return found if headers is None else found | {"headers": headers}


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


#: Idempotency keys: visible ASCII, spaces inside.
KEY_PATTERN = "^[!-~]([ -~]{0,253}[!-~])?$"
#: The answer of a call whose question goes on as a job.
ACCEPTED: dict[str, Any] = {
    "description": "Not answered in time: the job that goes on",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobAnswer"}, "example": RUNNING}},
    "headers": {"Location": _header("The job"), "Retry-After": _header("Seconds until it is worth asking")},
}
#: Headers by which it is said how something is asked.
HEADERS: list[dict[str, Any]] = [
    {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": "`wait=N`: wait N seconds for the answer; `respond-async`: do not wait (RFC 7240)",
        "schema": {"type": "string"},  # what is not understood is left aside, as RFC 7240 has it
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The same key again is the same job; with another question it is refused",
        "schema": {"type": "string", "pattern": KEY_PATTERN},
    },
]
#: The parts of a multipart body by which it is said how something is asked.
FIELDS: dict[str, Any] = {
    "store": {"type": "string", "enum": ["true", "false"], "description": "false: answered in the call, nothing kept"},
    "priority": {"type": "string", "pattern": "^-?[0-9]$", "description": "-9 to 9, the highest first"},
    "deadline": {"type": "string", "pattern": "^[1-9][0-9]{0,6}$", "description": "seconds until it is given up"},
}

JOBS: dict[str, Any] = {
    "responses": {
        200: _answer("The jobs", {"jobs": [RUNNING], "next": None}),
        **problems(401, 422, 429, 503),
    }
}
JOB: dict[str, Any] = {"responses": {200: _answer("The job", RUNNING), **problems(401, 404, 429, 503)}}
CANCEL: dict[str, Any] = {
    "responses": {200: _answer("The job as it is now", _CANCELLED), **problems(401, 404, 429, 503)}
}
EVENTS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Events until the job ends: `state`, `progress`, `end`; each carries the job as JSON",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _STREAM}},
        },
        204: {"description": "The job has ended, and `Last-Event-ID` is that of its end"},
        **problems(401, 404, 429, 503),
    }
}
