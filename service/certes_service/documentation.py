"""OpenAPI: what FastAPI cannot see by itself (bodies in two encodings, problems, examples)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from certes_service.jobs import documentation as jobs
from certes_service.problem_samples import problems
from certes_service.problems import MEDIA_TYPE
from certes_service.samples import ANSWER, ENVELOPE_SAMPLE, PROOF_SAMPLE, REPORT, REQUEST, UNDECIDED
from certes_service.samples_assembly import ASSEMBLY, ASSEMBLY_REQUEST
from certes_service.samples_projection import INTERCONNECTION_REQUEST, PROJECTION, PROJECTION_REQUEST
from certes_service.samples_training import TRAINING, TRAINING_REQUEST
from certes_service.schema import (
    CertificateAnswer,
    CertificateRequest,
    InterconnectionSpecification,
    Problem,
    ProjectionAnswer,
    ProjectionRequest,
    ProjectionSpecification,
    Specification,
    VerificationAnswer,
    VerificationRequest,
)
from certes_service.schema_assembly import AssemblyAnswer, AssemblyRequest, AssemblySpecification
from certes_service.schema_training import TrainingAnswer, TrainingRequest, TrainingSpecification
from certes_service.tenancy.paths import Need, need_of

DESCRIPTION = (
    "Stability certificates for recurrent neural networks. Hand over weights; the answer is `contracting` with a "
    "certificate, `not_contracting` with a witness, or `undecided` with the reason. Everything that proves something "
    "has been verified in rigorous arithmetic and can be verified again offline: `certes verify`."
)


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _body(
    json_model: str, example: Any, parts: dict[str, Any], needed: list[str], encoding: dict[str, Any], **others: Any
) -> dict[str, Any]:
    """A body in both encodings; ``others``: further examples by name."""
    multipart = {"type": "object", "properties": parts, "required": needed, "additionalProperties": False}
    shown = {"example": example}
    if others:
        shown = {"examples": {name: {"value": value} for name, value in {"system": example, **others}.items()}}
    content = {
        "application/json": {"schema": _ref(json_model), **shown},
        "multipart/form-data": {"schema": multipart, "encoding": encoding},
    }
    return {"requestBody": {"required": True, "content": content}}


def _question(
    json_model: str,
    example: Any,
    spec: Any,
    answers: dict[str, Any],
    file: str = "weights",
    files: Mapping[str, str] = MappingProxyType({}),
    **others: Any,
) -> dict[str, Any]:
    """A call that asks something about the tensors of a file: it may become a job."""
    more = {name: _FILE | {"description": description} for name, description in files.items()}
    encoded = {name: {"contentType": "application/octet-stream"} for name in (file, *more)}
    body = _body(
        json_model,
        example,
        {"spec": spec, file: _FILE if file == "weights" else _DATA, **more, **jobs.FIELDS},
        ["spec", file],
        {"spec": {"contentType": "application/json"}, **encoded},
        **others,
    )
    errors = problems(400, 401, 403, 409, 413, 415, 422, 429, 500, 501, 503, 504)
    return {
        "openapi_extra": body | {"parameters": jobs.HEADERS},
        "responses": {200: answers, 202: jobs.ACCEPTED, **errors},
    }


_FILE = {"type": "string", "format": "binary", "description": "safetensors file"}
_DATA = _FILE | {
    "description": "safetensors or .npz file with the arrays, .ts file, or IDX file of images (gzipped or not)"
}

CERTIFY = _question(
    "CertificateRequest",
    REQUEST,
    _ref("Specification"),
    {
        "description": "The answer: contracting, not_contracting or undecided",
        "content": {
            "application/json": {
                "examples": {"contracting": {"value": ANSWER}, "undecided": {"value": UNDECIDED}},
            }
        },
    },
)

PROJECT = _question(
    "ProjectionRequest",
    PROJECTION_REQUEST,
    {"anyOf": [_ref("ProjectionSpecification"), _ref("InterconnectionSpecification")]},
    {
        "description": "The answer: contracting (a new weight file and its certificate) or undecided (neither)",
        "content": {"application/json": {"example": PROJECTION}},
    },
    interconnection=INTERCONNECTION_REQUEST,
)

COMPOSE = _question(
    "AssemblyRequest",
    ASSEMBLY_REQUEST,
    _ref("AssemblySpecification"),
    {
        "description": "The answer: contracting, not_contracting or undecided",
        "content": {"application/json": {"example": ASSEMBLY}},
    },
)

TRAIN = _question(
    "TrainingRequest",
    TRAINING_REQUEST,
    _ref("TrainingSpecification"),
    {
        "description": "The trained network and its certificate, if it was waited for",
        "content": {"application/json": {"example": TRAINING}},
    },
    file="data",
    files={
        "labels": "IDX file of the classes, where data is one of images",
        "test": "a .ts file, or an IDX file of images, to test on; otherwise a fifth of the data",
        "test_labels": "IDX file of the classes of test",
    },
)

VERIFY: dict[str, Any] = {
    "openapi_extra": _body(
        "VerificationRequest",
        {"certificate": ENVELOPE_SAMPLE, "proof": PROOF_SAMPLE, "tensors": REQUEST["tensors"]},
        {
            "certificate": {"type": "object", "description": "the DSSE envelope"},
            "proof": _FILE,
            "weights": _FILE,
            "modules": _FILE,
            "key": {"type": ["string", "null"], "description": "trusted Ed25519 public key (PEM)"},
            "exact": {"type": "string", "enum": ["true", "false"]},
        },
        ["certificate"],
        {"certificate": {"contentType": "application/json"}, "proof": {"contentType": "application/octet-stream"}},
    ),
    "responses": {
        200: {
            "description": "The verifier's report; a certificate that fails is an answer too",
            "content": {"application/json": {"example": REPORT}},
        },
        **problems(400, 401, 403, 413, 415, 422, 429, 500, 501, 503),
    },
}

_LISTED: dict[str, Any] = {
    "digest": REPORT["digest"],
    "kind": "network",
    "public": False,
    "created": "2026-01-01T12:00:00.000Z",
    "href": f"/v1/certificates/{REPORT['digest']}",
}

CERTIFICATES: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The certificates",
            "content": {"application/json": {"example": {"certificates": [_LISTED], "next": None}}},
        },
        **problems(401, 422, 429, 503),
    }
}

_PUBLIC: dict[str, Any] = {
    "type": "object",
    "properties": {"public": {"type": "boolean"}},
    "required": ["public"],
    "additionalProperties": False,
}
PUBLISH: dict[str, Any] = {
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _PUBLIC, "example": {"public": True}}},
        }
    },
    "responses": {
        200: {
            "description": "The certificate as it is now",
            "content": {"application/json": {"example": _LISTED | {"public": True}}},
        },
        **problems(400, 401, 404, 413, 415, 422, 429, 503),
    },
}

FORGET: dict[str, Any] = {
    "responses": {204: {"description": "It is forgotten"}, **problems(401, 404, 429, 503)},
}

ENVELOPE: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The certificate",
            "content": {
                "application/vnd.dsse.envelope.v1+json": {"schema": {"type": "object"}, "example": ENVELOPE_SAMPLE}
            },
        },
        **problems(401, 404, 429, 503),
    }
}

PROOF: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The proof's arrays",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(401, 404, 429, 503),
    }
}

WEIGHTS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The weight file that a projection made, or the couplings of an assembly",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(401, 404, 429, 503),
    }
}

_MODELS = (
    AssemblyAnswer, AssemblyRequest, AssemblySpecification, CertificateAnswer, CertificateRequest,
    InterconnectionSpecification, Problem, ProjectionAnswer, ProjectionRequest, ProjectionSpecification, Specification,
    TrainingAnswer, TrainingRequest, TrainingSpecification, VerificationAnswer, VerificationRequest,
)  # fmt: skip


def install(app: FastAPI) -> None:
    """Make ``/openapi.json`` complete: every model, every problem."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, found = models_json_schema(
                [(model, "validation") for model in _MODELS], ref_template="#/components/schemas/{model}"
            )
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            components.update(found["$defs"])
            for unused in ("HTTPValidationError", "ValidationError"):
                components.pop(unused, None)
            schema["components"]["securitySchemes"] = {"key": _KEY}
            for path, calls in schema["paths"].items():
                for method, call in calls.items():
                    _without_fastapi_422(call)
                    if security := _security(method.upper(), path):
                        call["security"] = security
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


_KEY = {"type": "http", "scheme": "bearer", "description": "An API key, where the service asks for keys"}


def _security(method: str, path: str) -> list[dict[str, list[str]]]:
    """How a call says who asks: as the gate has it."""
    need = need_of(method, path.replace("{digest}", "0" * 64))
    known: dict[Need, list[dict[str, list[str]]]] = {Need.CALLER: [{"key": []}], Need.MAYBE: [{"key": []}, {}]}
    return known.get(need, [])


def _without_fastapi_422(call: dict[str, Any]) -> None:
    """FastAPI announces its own error shape for path parameters; no call answers in that shape."""
    found = call["responses"].get("422")
    if found is not None and MEDIA_TYPE not in found.get("content", {}):
        del call["responses"]["422"]
