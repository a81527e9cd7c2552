"""The frozen API document: no call changes unless the changelog says so. And every error is a problem."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from certes_service.operations import reference

from tests.packaging.support import REPOSITORY
from tests.service.asking import PREFIX
from tests.service.conftest import Running

FOLDER = REPOSITORY / "docs" / "service"
COMMAND = "python -m certes_service.operations.reference docs/service"


@pytest.fixture(scope="module")
def served(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def test_the_frozen_document_is_what_is_served(served: dict[str, Any]) -> None:
    kept = (FOLDER / "openapi.json").read_text()
    assert reference.frozen(served) == kept, f"the API changed: {COMMAND}, and say so in CHANGELOG.md"


def test_the_changelog_names_the_frozen_document() -> None:
    kept = (FOLDER / "openapi.json").read_text()
    named = re.findall(r"API document: sha256 ([0-9a-f]{64})", (REPOSITORY / "CHANGELOG.md").read_text())
    assert named[:1] == [reference.digest(kept)], "say what changed, with the line that the command prints"


def test_the_reference_is_made_from_it(served: dict[str, Any]) -> None:
    assert (FOLDER / "api.md").read_text() == reference.page(served), COMMAND
    for path, calls in served["paths"].items():
        for method in calls:
            assert f"## `{method.upper()} {path}`" in (FOLDER / "api.md").read_text()


def test_a_change_of_the_api_is_noticed(served: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(served))
    del changed["paths"]["/v1/jobs"]["get"]["parameters"][0]
    assert reference.frozen(changed) != reference.frozen(served)
    versioned = {**served, "info": {**served["info"], "version": "9.9.9"}}
    assert reference.frozen(versioned) == reference.frozen(served), "a release alone changes nothing"


ODD = (
    "/", "/v1", "/v1/", "/v1/certificates/", "/v1/nothing", "/v1/certificates/x", "/v1/certificates/x/y",
    "/v1/jobs/x/events/z", "/static/none", "/%00", "/v1/%2e%2e/keys", "//v1/jobs", "/v1/jobs?limit=x",
    "/v1/certificates?before=x", "/v1/jobs?state=a&state=b", "/openapi.json/", "/healthz/x", "/V1/JOBS",
)  # fmt: skip


@pytest.mark.cases(3)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_whatever_is_asked_the_answer_is_as_documented(service: Running, served: dict[str, Any], method: str) -> None:
    """Every path with every method, with and without a body: never a 5xx, and every error a problem."""
    paths = [path.replace("{digest}", "ab" * 32).replace("{job}", "cd" * 16) for path in served["paths"]]
    bodies: list[dict[str, Any]] = [
        {}, {"content": b"{", "headers": {"Content-Type": "application/json"}}, {"json": {}}, {"json": []},
        {"content": b"\xff\xfe", "headers": {"Content-Type": "text/plain"}}, {"data": {"a": "b"}},
        {"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ]  # fmt: skip
    with service.client(follow_redirects=False) as http:
        for path in (*paths, *ODD):
            for body in bodies:
                response = http.request(method, path, **body)
                assert response.status_code < 500, (method, path, body, response.text)
                assert "server" not in response.headers
                assert response.headers["x-content-type-options"] == "nosniff"
                is_page = response.headers.get("content-type", "").startswith("text/html")
                if response.status_code >= 400 and method != "HEAD" and not is_page:
                    assert response.headers["content-type"] == "application/problem+json", (method, path)
                    problem = response.json()
                    assert problem["type"].startswith(PREFIX)
                    assert problem["status"] == response.status_code
                    assert problem["title"]
                    assert problem["detail"]


def test_pages_are_no_api(served: dict[str, Any]) -> None:
    assert all(path.startswith(("/v1/", "/healthz", "/readyz", "/metrics")) for path in served["paths"])


@pytest.mark.parametrize(("header", "value"), [("Host", "evil.example"), ("Origin", "https://evil.example")])
def test_refusals_of_the_gate_are_problems(service: Running, header: str, value: str) -> None:
    with service.client() as http:
        response = http.get("/v1/jobs", headers={header: value})
        assert response.status_code == 403
        assert response.headers["content-type"] == "application/problem+json"
