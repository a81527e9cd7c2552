"""Requests that the tests share."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
from certes.weights import to_bytes

SMALL = [[0.2, -0.5], [0.4, 0.1]]
SPEC: dict[str, Any] = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh", "condition": "absolute"}
UNSTABLE = [[3.0, 0.0], [0.0, 0.5]]
PREFIX = "urn:certes:error:"


def post_json(http: httpx.Client, spec: Any = SPEC, tensors: Any = None, **extra: Any) -> httpx.Response:
    """POST /v1/certificates as JSON; Python's own JSON, which lets NaN through."""
    body = {"spec": spec, "tensors": {"W": SMALL} if tensors is None else tensors, **extra}
    return post_raw(http, json.dumps(body).encode())


def post_raw(
    http: httpx.Client, data: bytes, media: str = "application/json", path: str = "/v1/certificates"
) -> httpx.Response:
    return http.post(path, content=data, headers={"Content-Type": media})


def weights(**arrays: Any) -> bytes:
    return to_bytes({name: np.asarray(value) for name, value in (arrays or {"W": SMALL}).items()})


def post_file(http: httpx.Client, data: bytes, spec: Any = SPEC, name: str = "net.safetensors") -> httpx.Response:
    """POST /v1/certificates as multipart."""
    files = {
        "spec": (None, json.dumps(spec), "application/json"),
        "weights": (name, data, "application/octet-stream"),
    }
    return http.post("/v1/certificates", files=files)


def assert_problem(response: httpx.Response, status: int, slug: str, field: str | None = None) -> dict[str, Any]:
    """The one error shape."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == PREFIX + slug, problem
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    if field is not None:
        assert problem["field"] == field, problem
        assert problem["given"]
        assert problem["expected"]
    return problem
