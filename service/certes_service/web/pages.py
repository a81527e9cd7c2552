"""Pages from templates. Everything that is put in is escaped, unless this package made it itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import HTTPConnection
from starlette.types import Scope

from certes_service.settings import Settings
from certes_service.tenancy.callers import caller_of, session_of

STATIC = files("certes_service.web") / "static"
_TYPES = {"css": "text/css", "js": "text/javascript", "txt": "text/plain", "svg": "image/svg+xml"}


class Pages:
    """The templates.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._keys = settings.keys
        self._environment = Environment(
            loader=PackageLoader("certes_service.web"),
            autoescape=select_autoescape(["html", "svg"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["static"] = address

    def text(self, template: str, **values: Any) -> str:
        """A template filled in."""
        return self._environment.get_template(template).render(**values)

    def page(self, asked: HTTPConnection, template: str, **values: Any) -> str:
        """A page, or a part of one, for whoever asks."""
        session = session_of(asked)
        known = {
            "path": asked.scope["path"],
            "keys": self._keys,
            "known": caller_of(asked) is not None,
            "csrf": None if session is None else session.csrf,
        }
        return self.text(template, **(known | values))

    def answer(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """The same as an answer."""
        return HTMLResponse(self.page(request, template, **values), status, headers={"Cache-Control": "no-store"})

    def problem(self, scope: Scope, problem: Mapping[str, Any]) -> str:
        """A problem as a page, or as the part of one that a script asked for."""
        asked = HTTPConnection(scope)
        return self.page(asked, "_problem.html" if "hx-request" in asked.headers else "error.html", problem=problem)


@lru_cache(maxsize=64)
def static(name: str) -> tuple[bytes, str] | None:
    """A file of the page and its media type; None if there is none of that name."""
    kind = _TYPES.get(name.rpartition(".")[2])
    known = {entry.name for entry in STATIC.iterdir() if entry.is_file()}
    return (STATIC.joinpath(name).read_bytes(), kind) if kind and name in known else None


def address(name: str) -> str:
    """Where a file of the page is: with its digest, so that a copy may be kept for ever."""
    found = static(name)
    assert found is not None, name
    return f"/static/{name}?{hashlib.sha256(found[0]).hexdigest()[:16]}"
