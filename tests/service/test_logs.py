"""The log's middleware by itself: every request has a name and an end, and nobody writes lines of his own."""

from __future__ import annotations

import asyncio
import contextlib
import re
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from certes_service.operations import logs
from certes_service.operations.logs import Requests
from certes_service.operations.metrics import Metrics
from structlog.testing import capture_logs


def asked(
    app: Any, *names: str, method: str = "GET", route: str | None = "/v1/jobs", **state: Any
) -> tuple[Metrics, list[dict[str, Any]], list[Any]]:
    """One request: what was counted, logged and sent."""
    metrics, sent = Metrics(), list[Any]()
    scope: dict[str, Any] = {"type": "http", "method": method, "path": "/v1/jobs/../x", "state": state}
    scope["headers"] = [(b"x-request-id", name.encode("latin-1")) for name in names]
    if route is not None:
        scope["route"] = SimpleNamespace(path=route)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    merge = structlog.contextvars.merge_contextvars
    with capture_logs(processors=[merge]) as found, contextlib.suppress(RuntimeError):
        asyncio.run(Requests(app, metrics)(scope, receive, send))
    return metrics, [dict(entry) for entry in found], sent


async def answers(_: Any, __: Any, send: Any) -> None:
    structlog.stdlib.get_logger("certes.requests").info("inside")
    await send({"type": "http.response.start", "status": 204, "headers": []})


async def crashes(*_: Any) -> None:
    raise RuntimeError("inside")


def named(sent: list[Any]) -> str:
    return next(value for name, value in sent[0]["headers"] if name.lower() == b"x-request-id").decode()


@pytest.mark.parametrize(
    "names", [["a b"], [""], ["x" * 65], ["a\nb"], ["a\n"], ["\xe9"], ["one", "two"], ["one", "one"], []]
)
def test_a_name_that_is_none_is_not_taken(names: list[str]) -> None:
    _, _, sent = asked(answers, *names)
    assert re.fullmatch("[0-9a-f]{32}", named(sent))


def test_a_request_keeps_its_name_on_every_line() -> None:
    _, found, sent = asked(answers, "mine-1", caller=SimpleNamespace(tenant="one"))
    assert named(sent) == "mine-1"
    assert [(entry["event"], entry["request"]) for entry in found] == [("inside", "mine-1"), ("request", "mine-1")]
    end = found[-1]
    assert (end["method"], end["route"], end["status"], end["tenant"]) == ("GET", "/v1/jobs", 204, "one")


def test_a_crash_is_counted_and_logged_as_one() -> None:
    metrics, found, _ = asked(crashes)
    labels = {"route": "/v1/jobs", "method": "GET", "status": "500"}
    assert metrics.registry.get_sample_value("certes_requests_total", labels) == 1
    assert (found[-1]["status"], found[-1]["tenant"]) == (500, None)


def test_a_path_that_leads_nowhere_is_not_repeated() -> None:
    metrics, found, _ = asked(answers, method="BREW" * 50, route=None)
    assert (found[-1]["route"], found[-1]["method"]) == ("none", "BREW" * 4)
    labels = {"route": "none", "method": "other", "status": "204"}
    assert metrics.registry.get_sample_value("certes_requests_total", labels) == 1
    assert "x" not in found[-1]["route"]


@pytest.mark.parametrize(("route", "level"), [("/healthz", "debug"), ("/metrics", "debug"), ("/v1/jobs", "info")])
def test_monitors_are_quiet(route: str, level: str) -> None:
    assert asked(answers, route=route)[1][-1]["log_level"] == level


def test_no_line_break_begins_a_line() -> None:
    event = logs._one_line(None, "info", {"event": "a\r\nERROR b\n"})
    assert event["event"] == "a\\r\\nERROR b\\n"
