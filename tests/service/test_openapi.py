"""The OpenAPI document: complete, its examples true, and the service keeps to it (schemathesis)."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
import schemathesis
from certes.certificate import Certificate, verify_certificate
from certes.certificate.assembly import open_assembly
from certes.certificate.document import open_document
from certes_service import samples
from certes_service.samples_assembly import ASSEMBLY, ASSEMBLY_REQUEST
from certes_service.samples_projection import INTERCONNECTION_REQUEST, PROJECTION, PROJECTION_REQUEST
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.service.conftest import Running

CALLS = {
    ("/v1/certificates", "post"),
    ("/v1/certificates", "get"),
    ("/v1/certificates/{digest}", "get"),
    ("/v1/certificates/{digest}", "patch"),
    ("/v1/certificates/{digest}", "delete"),
    ("/v1/certificates/{digest}/proof", "get"),
    ("/v1/certificates/{digest}/weights", "get"),
    ("/v1/certificates/{digest}/figure.svg", "get"),
    ("/v1/certificates/{digest}/badge.svg", "get"),
    ("/v1/projections", "post"),
    ("/v1/assemblies", "post"),
    ("/v1/verifications", "post"),
    ("/v1/jobs", "get"),
    ("/v1/jobs/{job}", "get"),
    ("/v1/jobs/{job}", "delete"),
    ("/v1/jobs/{job}/events", "get"),
    ("/v1/keys", "get"),
    ("/healthz", "get"),
    ("/readyz", "get"),
    ("/metrics", "get"),
}


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def test_every_call_has_examples_and_problems(document: dict[str, Any]) -> None:
    calls = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert calls == CALLS
    for path, method in calls:
        call = document["paths"][path][method]
        assert call["description"]
        for status, response in call["responses"].items():
            for media, content in response.get("content", {}).items():
                if media != "application/octet-stream":
                    assert "example" in content or "examples" in content, (path, status)
                if int(status) >= 400:
                    assert media == "application/problem+json"
        if method == "post":
            body = call["requestBody"]["content"]
            assert set(body) == {"application/json", "multipart/form-data"}
            assert body["application/json"].get("example") or body["application/json"]["examples"]
            assert {"413", "415", "422", "503"} <= set(call["responses"])


def test_references_resolve(document: dict[str, Any]) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert value["$ref"].removeprefix("#/components/schemas/") in document["components"]["schemas"]
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)


def test_request_example_is_answered_as_shown(http: httpx.Client) -> None:
    answer = http.post("/v1/certificates", json=samples.REQUEST).json()
    assert set(answer) == set(samples.ANSWER)
    assert (answer["verdict"], answer["condition"]) == (samples.ANSWER["verdict"], samples.ANSWER["condition"])
    assert answer["rate"] == pytest.approx(samples.ANSWER["rate"], abs=1e-4)
    assert set(answer["certificate"]) == set(samples.ANSWER["certificate"])
    assert set(answer["claims"]) == set(samples.ANSWER["claims"])


def test_projection_example_is_answered_as_shown(http: httpx.Client) -> None:
    answer, shown = http.post("/v1/projections", json=PROJECTION_REQUEST).json(), PROJECTION
    assert list(answer) == list(shown)
    for name in ("verdict", "unchanged", "norm", "rate", "factor", "condition"):
        assert answer[name] == shown[name], name
    for name in ("distance", "relative", "shrink_distance"):
        assert answer[name] == pytest.approx(shown[name], rel=1e-2), name
    assert [entry["condition"] for entry in answer["attempts"]] == [entry["condition"] for entry in shown["attempts"]]
    for name in ("result", "weights", "certificate"):
        assert list(answer[name]) == list(shown[name]), name
    assert answer["weights"]["changed"] == shown["weights"]["changed"]
    document = json.dumps(shown["certificate"]["envelope"], sort_keys=True, separators=(",", ":")).encode()
    assert open_document(document)[1].predicate.verdict == "contracting"


def test_interconnection_example(http: httpx.Client) -> None:
    answer = http.post("/v1/projections", json=INTERCONNECTION_REQUEST).json()
    assert (answer["verdict"], answer["rate"], answer["unchanged"]) == ("contracting", 0.2, False)
    assert {(block["to"], block["from"]) for block in answer["blocks"]} == {("hand", "eye"), ("eye", "hand")}


def test_assembly_example_is_answered_as_shown(http: httpx.Client) -> None:
    answer, shown = http.post("/v1/assemblies", json=ASSEMBLY_REQUEST).json(), ASSEMBLY
    assert list(answer) == list(shown)
    for name in ("verdict", "factor", "states", "limiting", "proved"):
        assert answer[name] == shown[name], name
    for name in ("rate", "lipschitz"):
        assert answer[name] == pytest.approx(shown[name], rel=1e-2), name
    for name in ("modes", "modules", "couplings", "certificate", "largest_step", "whole_step"):
        assert list(answer[name]) == list(shown[name]), name
    document = json.dumps(shown["certificate"]["envelope"], sort_keys=True, separators=(",", ":")).encode()
    statement = open_assembly(document)[1]
    assert [module.certificate for module in statement.predicate.modules] == [
        entry["digest"] for entry in shown["certificate"]["documents"][:2]
    ]


def test_undecided_example(http: httpx.Client) -> None:
    answer = http.post("/v1/certificates", json={**samples.REQUEST, "tensors": {"W": [[0.0, -2.5], [2.5, 0.0]]}}).json()
    for name in ("verdict", "reason", "rate", "factor"):
        assert answer[name] == samples.UNDECIDED[name], name
    assert set(answer) == set(samples.UNDECIDED)
    assert set(answer["certificate"]) == set(samples.UNDECIDED["certificate"])
    assert answer["rate_bound"] == pytest.approx(samples.UNDECIDED["rate_bound"], abs=1e-4)
    assert answer["certified_scale"] == pytest.approx(samples.UNDECIDED["certified_scale"], rel=1e-2)


def test_the_largest_step_can_be_asked_for(http: httpx.Client) -> None:
    spec = {**samples.REQUEST["spec"], "step": "max"}
    answer = http.post("/v1/certificates", json={**samples.REQUEST, "spec": spec}).json()
    assert answer["verdict"] == "contracting"
    assert answer["claims"]["largest_step"]["step"] == pytest.approx(0.5, rel=2e-2)
    assert answer["rate"] is None
    assert 0 < answer["factor"] < 1
    wrong = http.post("/v1/certificates", json={**samples.REQUEST, "spec": {**spec, "rate": 0.5}})
    assert wrong.status_code == 422


def test_stored_sample_verifies_for_ever(http: httpx.Client) -> None:
    body = {
        "certificate": samples.ENVELOPE_SAMPLE,
        "proof": samples.PROOF_SAMPLE,
        "tensors": samples.REQUEST["tensors"],
    }
    report = http.post("/v1/verifications", json=body).json()
    assert report["valid"]
    assert (set(report), report["digest"]) == (set(samples.REPORT), samples.REPORT["digest"])
    document = json.dumps(samples.ENVELOPE_SAMPLE, sort_keys=True, separators=(",", ":")).encode()
    certificate = Certificate.from_parts(document, base64.b64decode(samples.PROOF_SAMPLE))
    assert verify_certificate(certificate, {"W": samples.REQUEST["tensors"]["W"]}, exact=True).valid


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    # what a path may hold is any text, so that only bodies can be wrong
    [(*call, mode) for call in sorted(CALLS) for mode in GenerationMode if call[1] == "post" or mode.is_positive],
)
def test_service_keeps_to_its_document(service: Running, path: str, method: str, mode: GenerationMode) -> None:
    """What schemathesis makes up from the document, valid and not, is answered as the document says; never a 5xx."""
    operation = schemathesis.openapi.from_url(f"{service.url}/openapi.json")[path][method.upper()]

    @settings(
        max_examples=40 if method == "post" else 8,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def conforms(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=30)

    conforms()
