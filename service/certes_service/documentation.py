"""OpenAPI: what FastAPI cannot see by itself (bodies in two encodings, problems, examples)."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from certes_service.problem_samples import problems
from certes_service.problems import MEDIA_TYPE
from certes_service.samples import ANSWER, ENVELOPE_SAMPLE, PROOF_SAMPLE, REPORT, REQUEST, UNDECIDED
from certes_service.samples_assembly import ASSEMBLY, ASSEMBLY_REQUEST
from certes_service.samples_projection import INTERCONNECTION_REQUEST, PROJECTION, PROJECTION_REQUEST
from certes_service.schema import (
    CertificateAnswer,
    CertificateRequest,
    Health,
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


_FILE = {"type": "string", "format": "binary", "description": "safetensors file"}

CERTIFY: dict[str, Any] = {
    "openapi_extra": _body(
        "CertificateRequest",
        REQUEST,
        {"spec": _ref("Specification"), "weights": _FILE},
        ["spec", "weights"],
        {"spec": {"contentType": "application/json"}, "weights": {"contentType": "application/octet-stream"}},
    ),
    "responses": {
        200: {
            "description": "The answer: contracting, not_contracting or undecided",
            "content": {
                "application/json": {
                    "examples": {"contracting": {"value": ANSWER}, "undecided": {"value": UNDECIDED}},
                }
            },
        },
        **problems(400, 413, 415, 422, 501, 503),
    },
}

PROJECT: dict[str, Any] = {
    "openapi_extra": _body(
        "ProjectionRequest",
        PROJECTION_REQUEST,
        {
            "spec": {"anyOf": [_ref("ProjectionSpecification"), _ref("InterconnectionSpecification")]},
            "weights": _FILE,
        },
        ["spec", "weights"],
        {"spec": {"contentType": "application/json"}, "weights": {"contentType": "application/octet-stream"}},
        interconnection=INTERCONNECTION_REQUEST,
    ),
    "responses": {
        200: {
            "description": "The answer: contracting (a new weight file and its certificate) or undecided (neither)",
            "content": {"application/json": {"example": PROJECTION}},
        },
        **problems(400, 413, 415, 422, 501, 503),
    },
}

COMPOSE: dict[str, Any] = {
    "openapi_extra": _body(
        "AssemblyRequest",
        ASSEMBLY_REQUEST,
        {"spec": _ref("AssemblySpecification"), "weights": _FILE},
        ["spec", "weights"],
        {"spec": {"contentType": "application/json"}, "weights": {"contentType": "application/octet-stream"}},
    ),
    "responses": {
        200: {
            "description": "The answer: contracting, not_contracting or undecided",
            "content": {"application/json": {"example": ASSEMBLY}},
        },
        **problems(400, 413, 415, 422, 501, 503),
    },
}

VERIFY: dict[str, Any] = {
    "openapi_extra": _body(
        "VerificationRequest",
        {"certificate": ENVELOPE_SAMPLE, "proof": PROOF_SAMPLE, "tensors": REQUEST["tensors"]},
        {
            "certificate": {"type": "object", "description": "the DSSE envelope"},
            "proof": _FILE,
            "weights": _FILE,
            "key": {"type": "string", "description": "trusted Ed25519 public key (PEM)"},
            "exact": {"type": "string", "enum": ["true", "false"]},
        },
        ["certificate", "proof"],
        {"certificate": {"contentType": "application/json"}, "proof": {"contentType": "application/octet-stream"}},
    ),
    "responses": {
        200: {
            "description": "The verifier's report; a certificate that fails is an answer too",
            "content": {"application/json": {"example": REPORT}},
        },
        **problems(400, 413, 415, 422, 501, 503),
    },
}

ENVELOPE: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The certificate",
            "content": {
                "application/vnd.dsse.envelope.v1+json": {"schema": {"type": "object"}, "example": ENVELOPE_SAMPLE}
            },
        },
        **problems(404, 503),
    }
}

PROOF: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The proof's arrays",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(404, 503),
    }
}

WEIGHTS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The weight file that a projection made, or the couplings of an assembly",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(404, 503),
    }
}

HEALTH: dict[str, Any] = {
    "responses": {200: {"content": {"application/json": {"example": {"status": "ok", "version": "0.1.0"}}}}}
}

_MODELS = (
    AssemblyAnswer, AssemblyRequest, AssemblySpecification, CertificateAnswer, CertificateRequest, Health,
    InterconnectionSpecification, Problem, ProjectionAnswer, ProjectionRequest, ProjectionSpecification, Specification,
    VerificationAnswer, VerificationRequest,
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
            for path in schema["paths"].values():
                for call in path.values():
                    _without_fastapi_422(call)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _without_fastapi_422(call: dict[str, Any]) -> None:
    """FastAPI announces its own error shape for path parameters; no call answers in that shape."""
    found = call["responses"].get("422")
    if found is not None and MEDIA_TYPE not in found.get("content", {}):
        del call["responses"]["422"]
