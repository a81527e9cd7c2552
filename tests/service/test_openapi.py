"""The OpenAPI document: complete, its examples true, and the service keeps to it (schemathesis)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
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
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import GenerationMode

from tests.service.conftest import Running, create_key, running

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
    ("/v1/trainings", "post"),
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


load_all_checks()
#: That what the document allows is accepted cannot be: no schema says that a file has the tensors that a spec names, or
#: that a matrix is square. Such questions are refused with 4xx, each with the field.
UNSAYABLE = {"positive_data_acceptance"}
#: The server of these tests asks nobody who he is; another one below does.
WITHOUT_KEYS = {"ignored_auth"}
EVERY = {check.__name__: check for check in CHECKS.get_all()}


def checks(method: str, *, keys: bool) -> list[Any]:
    left_out = (UNSAYABLE if method == "post" else set()) | (set() if keys else WITHOUT_KEYS)
    return [check for name, check in EVERY.items() if name not in left_out]


def test_every_check_is_run() -> None:
    names = {check.__name__ for method in ("get", "post") for check in checks(method, keys=True)}
    assert names == set(EVERY)
    assert {"not_a_server_error", "negative_data_rejection", "response_schema_conformance", "ignored_auth"} <= names


def conform(url: str, path: str, method: str, mode: GenerationMode, examples: int, key: str | None = None) -> None:
    """What schemathesis makes up from the document is answered as the document says."""
    raw = httpx.get(f"{url}/openapi.json").json()
    if key is None:  # whoever sits at the machine is known: there is no credential that could be wrong
        for calls in raw["paths"].values():
            for call in calls.values():
                call.pop("security", None)
    document = schemathesis.openapi.from_dict(raw)
    document.config.update(base_url=url)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=document[path][method.upper()].as_strategy(generation_mode=mode))
    def conforms(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=checks(method, keys=key is not None), headers=headers, timeout=30)

    conforms()


@pytest.mark.cases(12)
@pytest.mark.parametrize(
    ("path", "method", "mode"),
    # what a path may hold is any text, so that only bodies and queries can be wrong
    [
        (*call, mode)
        for call in sorted(CALLS)
        for mode in GenerationMode
        if mode.is_positive
        or call[1] in ("post", "patch")
        or call in (("/v1/jobs", "get"), ("/v1/certificates", "get"))
    ],
)
def test_service_keeps_to_its_document(service: Running, path: str, method: str, mode: GenerationMode) -> None:
    conform(service.url, path, method, mode, 20 if method == "post" else 8)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str]]:
    """A server that asks for keys, and one."""
    with running(tmp_path_factory.mktemp("keyed") / "data", keys=True, max_states=300, train_seconds=20) as server:
        scopes = [part for scope in ("certify", "project", "train", "admin") for part in ("--scope", scope)]
        yield server, create_key("team", "--data", str(server.data), *scopes)


@pytest.mark.cases(8)
@pytest.mark.parametrize(("path", "method"), sorted(CALLS))
def test_keys_are_asked_for_as_documented(keyed: tuple[Running, str], path: str, method: str) -> None:
    """With a key as the document says, and never without one."""
    server, key = keyed
    conform(server.url, path, method, GenerationMode.POSITIVE, 5, key)
