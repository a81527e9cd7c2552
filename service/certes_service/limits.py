"""A limit on the request body that is enforced while it arrives, before anything is parsed or kept."""

from __future__ import annotations

import asyncio

from certes.errors import TooLargeError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from certes_service.problems import of_input_error

#: How much of an oversized body is read and thrown away, and for how long, before the connection is closed. A client
#: that is still sending when the connection closes may otherwise never see the answer.
_DRAIN_BYTES = 16 * 2**20
_DRAIN_SECONDS = 3.0


class BodyLimit:
    """ASGI middleware: answers 413 with the limit as soon as a body is known to exceed it.

    Args:
        app: the application.
        limit: largest body in bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with a counted ``receive``."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _declared(scope)
        if declared is not None and declared > self.limit:
            await drain(receive)
            await self._refuse(f"{declared} bytes", scope, receive, send)
            return
        seen = 0
        started = complete = False

        async def counted() -> Message:
            nonlocal seen, complete
            message = await receive()
            if message["type"] == "http.request":
                complete = not message.get("more_body", False)
                seen += len(message.get("body", b""))
                if seen > self.limit:
                    raise _Exceeded
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except _Exceeded:
            if started:
                raise
            if not complete:  # after its end nothing comes but the client's farewell
                await drain(receive)
            await self._refuse(f"more than {self.limit} bytes", scope, receive, send)

    async def _refuse(self, given: str, scope: Scope, receive: Receive, send: Send) -> None:
        response = of_input_error(TooLargeError("body", given, self.limit))
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


class _Exceeded(BaseException):
    """Not an Exception, so that no handler on the way mistakes it for its own."""


def _declared(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:18])  # more digits than that exceed any limit just the same
    return None


async def drain(receive: Receive) -> None:
    """Read a body and throw it away, some of it and for a while, before a refusal."""
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
