"""The log: one line per event on stderr, JSON or for people, whoever it comes from (us, uvicorn, the queue).

Every line that belongs to a request or a job says which: ``request`` and ``job`` are bound to the context of the
thread or task that works on them. Values are data: no line break in one can begin a line of its own.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import uuid
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from certes_service.operations.metrics import Metrics
from certes_service.settings import Settings

log = structlog.stdlib.get_logger("certes.requests")
_GIVEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
HEADER = "X-Request-Id"
#: Routes that a monitor asks all day.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


def configure(settings: Settings) -> None:
    """Write the log as the settings say; once per process."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.log_format == "json":
        last: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        last = [_one_line, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error", "dbos", "alembic"):
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
        other.setLevel(max(logging.WARNING, root.level))


def _one_line(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """Line breaks as what they are written as."""
    event["event"] = str(event.get("event", "")).replace("\r", "\\r").replace("\n", "\\n")
    return event


class Requests:
    """ASGI middleware: names every request, logs its end, and counts it.

    Args:
        app: the application.
        metrics: what counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).getlist(HEADER.lower())
        name = given[0] if len(given) == 1 and _GIVEN.fullmatch(given[0]) else uuid.uuid4().hex
        began, status = time.monotonic(), 500

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        with structlog.contextvars.bound_contextvars(request=name):
            try:
                await self.app(scope, receive, named)
            finally:
                self._end(scope, status, time.monotonic() - began)

    def _end(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = route_of(scope), str(scope["method"])
        self.metrics.request(route, method, status, seconds)
        caller = scope.get("state", {}).get("caller")
        say = log.debug if route in _QUIET else log.info
        say(
            "request", method=method[:16], route=route, status=status, seconds=round(seconds, 6),
            tenant=None if caller is None else caller.tenant,
        )  # fmt: skip


def route_of(scope: Scope) -> str:
    """The template of the path that was asked for: one of few, whatever a stranger asks."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else "none"
