"""Errors on the wire: RFC 9457 problem details, one shape for all of them.

``type`` is ``urn:certes:error:SLUG`` with a stable slug; ``field``, ``given`` and ``expected`` say what was wrong with
the request, where that makes sense; a 413 carries ``limit``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from certes.errors import CertesError, InputError, MissingExtraError, TooLargeError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from certes_service.questions.base import clip
from certes_service.storage.errors import StorageError

MEDIA_TYPE = "application/problem+json"
PREFIX = "urn:certes:error:"

#: Slugs that are about the transport or the syntax and not about the content: 400 instead of 422.
SYNTAX = frozenset(
    {"malformed-json", "json-depth", "duplicate-key", "malformed-multipart", "malformed-base64", "pickle"}
)

_BY_STATUS = {
    400: "malformed-request",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    413: "too-large",
    415: "unsupported-media-type",
    429: "too-many-requests",
    503: "unavailable",
}
log = logging.getLogger("certes.service")


class ProblemResponse(JSONResponse):
    """A JSON response of the problem media type."""

    media_type = MEDIA_TYPE


class Unsupported(InputError):
    """A body of a media type that is not read here (HTTP 415)."""


class Unknown(InputError):
    """A digest that names nothing here (HTTP 404)."""


class Busy(Exception):
    """Too many requests wait for a solver (HTTP 503)."""


class Killed(Exception):
    """The system, or somebody, ended the solver (HTTP 503): the same question may be asked again."""


class Crowded(Exception):
    """Too many jobs of one tenant wait or run (HTTP 429)."""


class JobFailed(Exception):
    """A job that ended in a problem: the call that waited for it answers with that problem.

    Args:
        job: its name.
        members: of the problem.
    """

    def __init__(self, job: str, members: Mapping[str, Any]) -> None:
        super().__init__(job)
        self.job, self.members = job, dict(members)


#: The slug of jobs and calls whose solver was ended from outside.
KILLED = "solver-killed"
#: What is told of an error inside: nothing of the inside.
INTERNAL = "An error inside the service. It has been logged; nothing was certified."


def body(status: int, slug: str, detail: str, **members: Any) -> dict[str, Any]:
    """The members of a problem; those that are None are left out."""
    found: dict[str, Any] = {"type": PREFIX + slug, "title": _title(slug), "status": status, "detail": detail}
    return found | {key: value for key, value in members.items() if value is not None}


def problem(
    status: int, slug: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> ProblemResponse:
    """Build a problem response; members that are None are left out."""
    return ProblemResponse(body(status, slug, detail, **members), status, headers=dict(headers or {}))


def members(error: CertesError) -> dict[str, Any]:
    """The members of the problem that an error of the library is."""
    if isinstance(error, MissingExtraError):
        return body(501, "missing-extra", str(error), extra=error.extra)
    if not isinstance(error, InputError):
        return body(500, "internal", INTERNAL)
    limit = error.limit if isinstance(error, TooLargeError) else None
    status = HTTPStatus.UNPROCESSABLE_ENTITY.value
    if limit is not None:
        status = 413
    elif isinstance(error, Unsupported):
        status = 415
    elif isinstance(error, Unknown):
        status = 404
    elif error.slug in SYNTAX:
        status = 400
    return body(
        status, error.slug, clip(str(error), 2000),
        field=clip(error.field), given=clip(error.given), expected=clip(error.expected), limit=limit,
    )  # fmt: skip


def of_members(found: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> ProblemResponse:
    """A problem response with these members."""
    return ProblemResponse(dict(found), int(found.get("status", 500)), headers=dict(headers or {}))


def of_input_error(error: InputError) -> ProblemResponse:
    """The problem that an :class:`InputError` is."""
    return of_members(members(error))


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""

    @app.exception_handler(InputError)
    async def input_error(_: Request, error: InputError) -> ProblemResponse:
        return of_input_error(error)

    @app.exception_handler(MissingExtraError)
    async def missing_extra(_: Request, error: MissingExtraError) -> ProblemResponse:
        return of_members(members(error))

    @app.exception_handler(StorageError)
    async def storage(_: Request, error: StorageError) -> ProblemResponse:
        log.error("storage: %s", error)
        return problem(503, "storage", str(error), {"Retry-After": "30"})

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> ProblemResponse:
        return problem(503, "busy", str(error), {"Retry-After": "5"})

    @app.exception_handler(Killed)
    async def killed(_: Request, error: Killed) -> ProblemResponse:
        log.error("%s", error)
        return problem(503, KILLED, str(error), {"Retry-After": "30"})

    @app.exception_handler(Crowded)
    async def crowded(_: Request, error: Crowded) -> ProblemResponse:
        return problem(429, "crowded", str(error), {"Retry-After": "10"})

    @app.exception_handler(JobFailed)
    async def job_failed(_: Request, error: JobFailed) -> ProblemResponse:
        headers = {"Retry-After": "30"} if error.members.get("status") == 503 else {}
        return of_members(error.members, headers | {"Content-Location": f"/v1/jobs/{error.job}"})

    @app.exception_handler(RequestValidationError)
    async def validation(_: Request, error: RequestValidationError) -> ProblemResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        given = clip(repr(first.get("input")))
        return problem(
            422, "invalid-value", f"{field}: {first['msg']}", field=field, given=given, expected=first["msg"]
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> ProblemResponse:
        slug = _BY_STATUS.get(error.status_code, f"http-{error.status_code}")
        detail = str(error.detail)
        members: dict[str, Any] = {}
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods_of(request))
        if error.status_code in (404, 405):
            members = {"field": "path", "given": clip(f"{request.method} {request.url.path}")}
            members["expected"] = "a call of /openapi.json"
        elif error.status_code == 400:
            members = {"field": "body"}
        return problem(error.status_code, slug, detail, headers, **members)

    @app.exception_handler(Exception)
    async def crash(_: Request, error: Exception) -> ProblemResponse:
        # Starlette re-raises after answering: the server logs the traceback and closes the connection, which the
        # client has to know before it sends its next request. The answer tells nothing of the inside.
        return problem(500, "internal", INTERNAL, {"Connection": "close"})


def _methods_of(request: Request) -> list[str]:
    """What a path can be asked for: by all of its routes, of which Starlette names the first one's only."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


def _title(slug: str) -> str:
    return slug.replace("-", " ").capitalize()
