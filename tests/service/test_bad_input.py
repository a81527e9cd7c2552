"""Bad input over HTTP: each case a 4xx in the one error shape, naming the field."""

from __future__ import annotations

import io
import json
import pickle
import socket
import zipfile
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.asking import SMALL, SPEC, assert_problem, post_file, post_json, post_raw, weights

NAN = float("nan")
RATE = {key: SPEC[key] for key in ("form", "tensors", "activation")}

#: name -> (spec, tensors, status, slug, field)
QUESTIONS: dict[str, tuple[Any, Any, int, str, str]] = {
    "nan": (SPEC, {"W": [[NAN, 0.0], [0.0, 0.0]]}, 422, "not-finite", "tensors.W"),
    "infinity": (SPEC, {"W": [[float("inf"), 0.0], [0.0, 0.0]]}, 422, "not-finite", "tensors.W"),
    "not square": (SPEC, {"W": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]}, 422, "not-square", "W"),
    "ragged": (SPEC, {"W": [[1.0], [1.0, 2.0]]}, 422, "wrong-shape", "tensors.W"),
    "vector": (SPEC, {"W": [1.0, 2.0]}, 422, "wrong-shape", "W"),
    "empty network": (SPEC, {"W": [[]]}, 422, "wrong-shape", "W"),
    "no tensors": (SPEC, {}, 422, "missing-value", "tensors"),
    "text in a matrix": (SPEC, {"W": [["1", 2.0], [0.0, 0.0]]}, 422, "wrong-type", "tensors.W"),
    "true in a matrix": (SPEC, {"W": [[True, 2.0], [0.0, 0.0]]}, 422, "wrong-type", "tensors.W"),
    "unknown tensor": ({**SPEC, "tensors": {"W": "V"}}, {"W": SMALL}, 422, "unknown-tensor", "tensors.W"),
    "no tensor named": ({**SPEC, "tensors": {}}, {"W": SMALL}, 422, "missing-value", "spec.tensors"),
    "unknown role": ({**SPEC, "tensors": {"W": "W", "Z": "W"}}, {"W": SMALL}, 422, "unknown-role", "spec.tensors"),
    "integers": (SPEC, {"W": {"dtype": "I64", "shape": [1, 1], "data": "AAAAAAAAAAA="}}, 422, "wrong-dtype", "W"),
    "unknown dtype": (SPEC, {"W": {"dtype": "F128", "shape": [1], "data": ""}}, 422, "wrong-dtype", "tensors.W.dtype"),
    "short bytes": (SPEC, {"W": {"dtype": "F64", "shape": [2], "data": "AAAA"}}, 422, "wrong-shape", "tensors.W.data"),
    "not base64": (SPEC, {"W": {"dtype": "F64", "shape": [1], "data": "!"}}, 400, "malformed-base64", "tensors.W.data"),
    "negative shape": (SPEC, {"W": {"dtype": "F64", "shape": [-1], "data": ""}}, 422, "wrong-shape", "tensors.W.shape"),
    "slope order": ({**RATE, "activation": None, "slope": [1.0, 0.0]}, {"W": SMALL}, 422, "slope-order", "slope"),
    "slope and activation": ({**RATE, "slope": [0.0, 1.0]}, {"W": SMALL}, 422, "missing-value", "spec.activation"),
    "neither": ({**RATE, "activation": None}, {"W": SMALL}, 422, "missing-value", "spec.activation"),
    "unknown activation": ({**RATE, "activation": "mish"}, {"W": SMALL}, 422, "unknown-activation", "activation"),
    "step zero": ({**RATE, "step": 0}, {"W": SMALL}, 422, "not-positive", "spec.step"),
    "step negative": ({**RATE, "step": -0.1}, {"W": SMALL}, 422, "not-positive", "spec.step"),
    "step nan": ({**RATE, "step": NAN}, {"W": SMALL}, 422, "not-finite", "spec.step"),
    "step text": ({**RATE, "step": "0.1"}, {"W": SMALL}, 422, "wrong-type", "spec.step"),
    "tau negative": ({**RATE, "tau": [1.0, -1.0]}, {"W": SMALL}, 422, "not-positive", "spec.tau.1"),
    "tau length": ({**RATE, "tau": [1.0, 1.0, 1.0]}, {"W": SMALL}, 422, "wrong-shape", "tau"),
    "unknown form": ({**RATE, "form": "mlp"}, {"W": SMALL}, 422, "unknown-value", "spec.form"),
    "unknown entry": ({**RATE, "stepp": 1}, {"W": SMALL}, 422, "unknown-field", "spec.stepp"),
    "unknown condition": ({**RATE, "condition": "magic"}, {"W": SMALL}, 422, "unknown-condition", "condition"),
    "rate negative": ({**RATE, "rate": -1.0}, {"W": SMALL}, 422, "unknown-value", "spec.rate"),
    "rate text": ({**RATE, "rate": "good"}, {"W": SMALL}, 422, "unknown-value", "spec.rate"),
    "unknown backend": ({**RATE, "backend": "mosek"}, {"W": SMALL}, 422, "unknown-value", "spec.backend"),
    "spec is a list": ([1], {"W": SMALL}, 422, "wrong-type", "spec"),
    "tensors are a list": (SPEC, [SMALL], 422, "wrong-type", "tensors"),
    "too many states": (SPEC, {"W": np.zeros((301, 301)).tolist()}, 413, "too-large", "spec.tensors.W"),
}  # fmt: skip


@pytest.mark.parametrize("name", QUESTIONS)
def test_bad_question(http: httpx.Client, name: str) -> None:
    spec, tensors, status, slug, field = QUESTIONS[name]
    problem = assert_problem(post_json(http, spec, tensors), status, slug, field)
    if status == 413:
        assert problem["limit"] == 300


BODIES: dict[str, tuple[bytes, int, str, str]] = {
    "not json": (b"{nope", 400, "malformed-json", "body"),
    "not utf-8": (b'{"spec": "\xff"}', 400, "malformed-json", "body"),
    "empty": (b"", 400, "malformed-json", "body"),
    "not an object": (b"[]", 422, "wrong-type", "body"),
    "deep": (b'{"tensors": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "json-depth", "body"),
    "deep unclosed": (b"[" * 500_000, 400, "json-depth", "body"),
    "key twice": (b'{"spec": {}, "spec": {}, "tensors": {}}', 400, "duplicate-key", "body"),
    "tensor twice": (b'{"spec": {}, "tensors": {"W": [[1]], "W": [[2]]}}', 400, "duplicate-key", "body"),
    "huge number": (b'{"spec": {"step": 1e999}, "tensors": {}}', 422, "not-finite", "spec.step"),
    "huge integer": (b'{"spec": {"step": ' + b"9" * 5000 + b'}, "tensors": {}}', 400, "malformed-json", "body"),
    "huge json": (b'{"spec": {"form": "' + b"x" * 2**20 + b'"}}', 413, "too-large", "body"),
    "unknown part": (b'{"spec": {}, "tensors": {}, "wieghts": 1}', 422, "unknown-field", "wieghts"),
    "no spec": (b'{"tensors": {"W": [[1.0]]}}', 422, "missing-value", "spec"),
    "no tensors": (json.dumps({"spec": SPEC}).encode(), 422, "missing-value", "tensors"),
    "lone surrogate": (b'{"spec": {"form": "\\ud800"}, "tensors": {}}', 422, "wrong-type", "spec.form"),
    "surrogate tensor": (json.dumps({"spec": SPEC, "tensors": {"\ud800": []}}).encode(), 422,
         "invalid-value", "tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_bad_json(http: httpx.Client, name: str) -> None:
    data, status, slug, field = BODIES[name]
    assert_problem(post_raw(http, data), status, slug, field)


class Bomb:
    """Unpickling it would be noticed."""

    opened = False

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


def _torch_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    return buffer.getvalue()


def _text(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def _header(entries: dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    return _text(json.dumps(entries).encode(), data, length)


GOOD = {"dtype": "F64", "shape": [1, 1], "data_offsets": [0, 8]}
FILES: dict[str, tuple[bytes, int, str]] = {
    "pickle": (pickle.dumps(Bomb()), 400, "pickle"),
    "torch archive": (_torch_archive(), 400, "pickle"),
    "empty": (b"", 422, "malformed-safetensors"),
    "truncated": (weights()[:-1], 422, "malformed-safetensors"),
    "trailing": (weights() + b"x", 422, "malformed-safetensors"),
    "header bomb": (_header({}, length=2**62), 422, "malformed-safetensors"),
    "header too long": ((17 * 2**20).to_bytes(8, "little") + b" " * 100, 422, "malformed-safetensors"),
    "header not json": ((4).to_bytes(8, "little") + b"nope", 400, "malformed-json"),
    "deep header": ((2000).to_bytes(8, "little") + b"[" * 2000, 400, "json-depth"),
    "overlap": (_header({"A": GOOD, "B": GOOD}, bytes(8)), 422, "malformed-safetensors"),
    "huge shape": (_header({"W": {**GOOD, "shape": [2**40, 2**40]}}, bytes(8)), 422, "malformed-safetensors"),
    "twice": (_text(b'{"W":%b,"W":%b}' % (2 * (json.dumps(GOOD).encode(),)), bytes(8)), 400, "duplicate-key"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_bad_file(http: httpx.Client, name: str) -> None:
    data, status, slug = FILES[name]
    assert_problem(post_file(http, data), status, slug, "weights")


def test_bad_values_in_a_file(http: httpx.Client) -> None:
    assert_problem(post_file(http, weights(W=np.full((2, 2), np.nan))), 422, "not-finite", "W")
    assert_problem(post_file(http, weights(W=np.zeros((2, 2), np.int64))), 422, "wrong-dtype", "W")
    assert_problem(post_file(http, weights(W=np.zeros((0, 0)))), 422, "wrong-shape", "W")


def test_bad_multipart(http: httpx.Client) -> None:
    spec = (None, json.dumps(SPEC), "application/json")
    file = ("w.safetensors", weights(), "application/octet-stream")
    assert_problem(post_raw(http, b"x", "multipart/form-data"), 400, "malformed-multipart", "body")
    assert_problem(post_raw(http, b"x", "multipart/form-data; boundary=b"), 400, "malformed-multipart", "body")
    assert_problem(http.post("/v1/certificates", files={"spec": spec}), 422, "missing-value", "weights")
    assert_problem(http.post("/v1/certificates", files={"weights": file}), 422, "missing-value", "spec")
    twice = [("spec", spec), ("weights", file), ("weights", file)]
    assert_problem(http.post("/v1/certificates", files=twice), 400, "duplicate-key", "weights")
    field = http.post("/v1/certificates", files={"spec": spec, "weights": (None, b"abc")})
    assert_problem(field, 400, "malformed-multipart", "weights")
    bad = {"spec": (None, "{", "application/json"), "weights": file}
    assert_problem(http.post("/v1/certificates", files=bad), 400, "malformed-json", "spec")


@pytest.mark.parametrize("media", ["text/csv", "application/x-www-form-urlencoded", "application/octet-stream", ""])
def test_other_media_types(http: httpx.Client, media: str) -> None:
    assert_problem(post_raw(http, b"x", media), 415, "unsupported-media-type", "Content-Type")


def test_too_large_body_declared(http: httpx.Client) -> None:
    problem = assert_problem(post_raw(http, bytes(9 * 2**20)), 413, "too-large", "body")
    assert problem["limit"] == 8 * 2**20


def test_too_large_body_streamed_is_cut_off(http: httpx.Client) -> None:
    """No length is declared; the server stops reading long before the end."""
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(1024):
            sent += 2**18
            yield bytes(2**18)

    try:
        response = http.post("/v1/certificates", content=chunks(), headers={"Content-Type": "application/json"})
        assert_problem(response, 413, "too-large", "body")
    except httpx.WriteError:
        pass  # the connection was closed while we were still sending
    assert sent < 128 * 2**20


def test_header_bomb(http: httpx.Client) -> None:
    host, port = http.base_url.host, http.base_url.port
    assert port is not None
    with socket.create_connection((host, port), timeout=10) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Bomb: " + b"a" * 2**17 + b"\r\n\r\n")
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["type"] == "urn:certes:error:malformed-request"


def test_not_http(http: httpx.Client) -> None:
    assert http.base_url.port is not None
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as sock:
        sock.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 400")
