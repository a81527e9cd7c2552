"""Problems as pages: whoever asked with a browser sees what was wrong, and what was expected, and not JSON.

One place for all of them: what the gate refuses, paths that lead nowhere, bad input, trouble inside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from certes_service.problems import INTERNAL, MEDIA_TYPE, PREFIX

#: Paths of programs: what they answer is never a page.
_PROGRAMS = ("/v1/", "/static/")
_PROBES = frozenset({"/openapi.json", "/healthz", "/readyz", "/metrics"})
#: Longest problem that is read; all of ours are far shorter.
_LONGEST = 64 * 1024

#: Writes the page of a problem: request's scope, members of the problem -> HTML.
Write = Callable[[Scope, Mapping[str, Any]], str]


class ProblemPages:
    """ASGI middleware: turns an answer of the problem media type into a page, for browsers.

    Args:
        app: the application.
        write: makes the page.
    """

    def __init__(self, app: ASGIApp, write: Write) -> None:
        self.app = app
        self.write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; hold back the head of a problem until its body is there."""
        if scope["type"] != "http" or not wants_page(scope):
            await self.app(scope, receive, send)
            return
        held: list[Message] = []
        body = b""

        async def watched(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start" and _is_problem(message):
                held.append(message)
            elif held and message["type"] == "http.response.body":
                body += message.get("body", b"")[: _LONGEST - len(body)]
                if not message.get("more_body", False):
                    await self._show(scope, held.pop(), body, send)
            else:
                await send(message)

        await self.app(scope, receive, watched)

    async def _show(self, scope: Scope, start: Message, body: bytes, send: Send) -> None:
        text = self.write(scope, _members(body, start["status"])).encode()
        headers = MutableHeaders(raw=list(start["headers"]))
        headers["Content-Type"] = "text/html; charset=utf-8"
        headers["Content-Length"] = str(len(text))
        headers["Cache-Control"] = "no-store"
        headers.add_vary_header("Accept, HX-Request")
        if "hx-request" in Headers(scope=scope):  # wherever its answer would have stood
            headers["HX-Retarget"], headers["HX-Reswap"] = "#said", "innerHTML"
        await send({**start, "headers": headers.raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})


def wants_page(scope: Scope) -> bool:
    """Whether a browser asks for something that is not for programs."""
    path = scope["path"]
    if path.startswith(_PROGRAMS) or path in _PROBES:
        return False
    headers = Headers(scope=scope)
    return "hx-request" in headers or "text/html" in headers.get("accept", "")


def _is_problem(message: Message) -> bool:
    kind = Headers(raw=message["headers"]).get("content-type", "")
    return bool(kind.partition(";")[0].strip() == MEDIA_TYPE)


def _members(body: bytes, status: int) -> dict[str, Any]:
    """The members of a problem, as texts of a sane kind; what cannot be read is told as trouble inside."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {"type": PREFIX + "internal", "title": "Internal", "detail": INTERNAL}
    names = ("title", "detail", "field", "given", "expected")
    texts: dict[str, Any] = {name: found[name] if isinstance(found.get(name), str) else None for name in names}
    return texts | {"status": status, "slug": str(found.get("type", "")).removeprefix(PREFIX)}
