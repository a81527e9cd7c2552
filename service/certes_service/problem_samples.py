"""OpenAPI: the problems that calls may answer with, each with an example."""

from __future__ import annotations

from typing import Any

from certes_service.problems import INTERNAL, MEDIA_TYPE, PREFIX

#: status -> description, slug and detail of an example.
_ERRORS = {
    400: (
        "The body cannot be read",
        "malformed-json",
        "body: got text that is not JSON; expected one JSON document in UTF-8",
    ),
    401: ("Nobody is known to ask", "unidentified", "this needs an API key"),
    403: ("The caller may not", "scope-missing", "this needs a key of the scope 'project'"),
    404: ("Nothing of that name", "unknown-digest", "digest: got an unknown digest; expected one that was issued here"),
    409: ("The job was cancelled", "cancelled", "The job was cancelled before it came to an answer."),
    413: ("Larger than the limit", "too-large", "body: got 300000000 bytes; expected at most 268435456 bytes"),
    415: ("Not a media type that is read here", "unsupported-media-type", "Content-Type: got 'text/csv'"),
    422: ("The question makes no sense", "not-positive", "spec.step: got -0.1; expected greater than 0"),
    429: ("Too many requests or jobs of one tenant", "too-many-requests", "requests: 1200 in a minute are allowed"),
    500: ("An error inside the service", "internal", INTERNAL),
    501: ("An optional part is not installed", "missing-extra", "the exact audit needs the package 'flint'"),
    503: (
        "Try again later: storage, or too many requests",
        "storage",
        "writing to the store failed: No space left on device",
    ),
    504: ("The deadline passed", "deadline", "the deadline passed before a worker was free"),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses by status."""
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    description, slug, detail = _ERRORS[status]
    example = {
        "type": PREFIX + slug,
        "title": slug.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    return {"description": description, "content": content}
