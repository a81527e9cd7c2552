"""Headers of every answer, also of errors and crashes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certes_service.tenancy.headers import BARE, DRAWING_POLICY, OTHER_POLICY, PAGE_POLICY, add
from starlette.datastructures import MutableHeaders

from tests.service.gated import Gated, gated


@pytest.fixture(scope="module", params=[True, False], ids=["keys", "no keys"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with gated(tmp_path_factory.mktemp("headers"), keys=request.param, max_body_bytes=1000) as running:
        yield running


def test_every_answer(server: Gated) -> None:
    with server.client(server.key()) as http:
        answers = {
            200: http.get("/v1/whoami"), 404: http.get("/v1/nothing"), 405: http.put("/v1/echo"),
            413: http.post("/v1/echo", content=b"x" * 1001), 500: http.get("/v1/crash"),
        }  # fmt: skip
        if server.registry.settings.keys:
            answers[401] = server.client("certes_wrong").get("/v1/whoami")
        else:
            answers[403] = http.get("/v1/whoami", headers={"Host": "evil.example"})
        for expected, answer in answers.items():
            assert answer.status_code == expected
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["content-security-policy"] == OTHER_POLICY
            assert answer.headers["referrer-policy"] == "no-referrer"
        assert b"inside" not in answers[500].content.replace(b"inside the service", b"")
        assert answers[500].headers["content-type"] == "application/problem+json"


def test_pages_and_drawings(server: Gated) -> None:
    with server.client(server.key()) as http:
        page, drawing = http.get("/"), http.get("/drawing.svg")
    assert page.headers["content-security-policy"] == PAGE_POLICY
    assert page.headers["referrer-policy"] == "same-origin", "with no-referrer a form's Origin would be null"
    assert drawing.headers["content-security-policy"] == DRAWING_POLICY


def _directives(policy: str) -> dict[str, list[str]]:
    parts = [part.split() for part in policy.split(";")]
    return {part[0]: part[1:] for part in parts}


def test_policies() -> None:
    page = _directives(PAGE_POLICY)
    assert page["default-src"] == page["frame-ancestors"] == page["base-uri"] == ["'none'"]
    assert page["script-src"] == page["style-src"] == page["form-action"] == ["'self'"]
    assert page["img-src"] == ["'self'", "data:"]
    for policy in (PAGE_POLICY, DRAWING_POLICY, OTHER_POLICY):
        assert _directives(policy)["default-src"] == _directives(policy)["frame-ancestors"] == ["'none'"]
        assert "unsafe-eval" not in policy
        assert "script-src 'unsafe-inline'" not in policy
    assert "sandbox" in _directives(DRAWING_POLICY)


def test_answers_for_one_caller_are_not_kept(tmp_path: Path) -> None:
    with gated(tmp_path, keys=True) as server, server.client(server.key()) as http:
        headers = http.get("/v1/whoami").headers
        assert headers["cache-control"] == "no-store"
        assert headers["vary"] == "Authorization, Cookie"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "cache-control" not in server.client().get("/healthz").headers


def test_an_answer_may_say_otherwise_itself() -> None:
    given: dict[str, Any] = {"headers": [(b"cache-control", b"max-age=1"), (b"content-type", b"text/html; charset=x")]}
    headers = MutableHeaders(scope=given)
    add(headers, personal=True)
    assert headers["cache-control"] == "max-age=1"
    assert headers["content-security-policy"] == PAGE_POLICY


def test_bare_answers_have_them_too() -> None:
    assert {name.lower() for name, _ in BARE} >= {"x-content-type-options", "content-security-policy"}
    assert dict(BARE)["Content-Security-Policy"] == OTHER_POLICY
