"""What the gate says to those whom it does not let in: problems, and for a browser the way to the login."""

from __future__ import annotations

import math
from collections.abc import Mapping
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope

from certes_service.problems import ProblemResponse, problem
from certes_service.questions.base import clip
from certes_service.storage.errors import StorageError
from certes_service.tenancy.callers import Forbidden

_REALM = 'Bearer realm="certes"'
_KEY_EXPECTED = "Authorization: Bearer KEY, with a key of this service"
LOGIN = "/login"


class Refused(Exception):
    """The request goes no further.

    Attributes:
        response: what is answered.
        receive: how the rest of the body is read, if some of it was read already.
    """

    def __init__(self, response: Response, receive: Receive | None = None) -> None:
        super().__init__(response.status_code)
        self.response = response
        self.receive = receive


def host(given: list[str]) -> ProblemResponse:
    """403: asked under a name that is not ours."""
    return _denied("host-refused", "Host", _shown(given), "the name or address of this service (setting allowed_hosts)")


def origin(given: list[str]) -> ProblemResponse:
    """403: asked by a page of another site."""
    return _denied("origin-refused", "Origin", _shown(given), "no page, or a page of this service itself")


def csrf() -> ProblemResponse:
    """403: asked with the page's cookie, but not by the page."""
    expected = "the page's token, in the header X-CSRF-Token or in the field csrf of a form; load the page anew"
    return _denied("csrf-refused", "X-CSRF-Token", "none, or not that of this session", expected)


def scope_missing(error: Forbidden) -> ProblemResponse:
    """403: the key is not good for it."""
    headers = {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{error.scope}"'}
    return problem(
        403, "scope-missing", str(error), headers,
        field="Authorization", given=f"a key of the scopes {', '.join(error.has)}", expected=f"the scope {error.scope}",
    )  # fmt: skip


def unidentified(scope: Scope | None, headers: Mapping[str, str]) -> Response:
    """401: nobody has said who asks. A browser that wants to see a page is sent to the login instead."""
    if scope is not None and _wants_page(scope, headers):
        there = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
        return RedirectResponse(f"{LOGIN}?next={quote(there, safe='/')}", 303)
    more = {"WWW-Authenticate": _REALM}
    if "hx-request" in headers:  # a part of the page: the page as a whole has to go
        more["HX-Redirect"] = LOGIN
    detail = "this needs an API key"
    return problem(401, "key-required", detail, more, field="Authorization", given="nothing", expected=_KEY_EXPECTED)


def bad_key() -> ProblemResponse:
    """401: the key is unknown, expired or revoked; which of them is not told, nor is the key repeated."""
    more = {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
    given = "something that is not a valid key"
    detail = "the key is not known here, has expired, or was revoked"
    return problem(401, "key-refused", detail, more, field="Authorization", given=given, expected=_KEY_EXPECTED)


def too_many(seconds: float, what: str) -> ProblemResponse:
    """429, with the time to wait."""
    wait = max(1, math.ceil(seconds))
    return problem(429, "too-many-requests", f"too many {what}; try again in {wait} s", {"Retry-After": str(wait)})


def storage(error: StorageError) -> ProblemResponse:
    """503: who asks cannot be found out, so nobody is let in."""
    return problem(503, "storage", str(error), {"Retry-After": "30"})


def safe_target(text: str | None) -> str:
    """Where a login leads: a path of this service, never another site."""
    if text is None or len(text) > 2000 or not text.startswith("/") or text[1:2] in ("/", "\\"):
        return "/"
    return text if all(33 <= ord(letter) < 127 and letter != "\\" for letter in text) else "/"


def _wants_page(scope: Scope, headers: Mapping[str, str]) -> bool:
    reading = scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/v1/")
    return reading and "text/html" in headers.get("accept", "") and "hx-request" not in headers


def _denied(slug: str, field: str, given: str, expected: str) -> ProblemResponse:
    return problem(403, slug, f"{field}: got {given}; expected {expected}", field=field, given=given, expected=expected)


def _shown(values: list[str]) -> str:
    return clip(", ".join(repr(value) for value in values), 200) or "none"
