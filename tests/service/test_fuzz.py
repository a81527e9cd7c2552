"""Two thousand broken uploads: never a 5xx, and neither memory nor files nor descriptors grow."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.asking import SMALL, SPEC, weights
from tests.service.conftest import MIB, Running, running
from tests.service.workers import children

SEED = 20261127
GOOD = weights(W=np.array(SMALL), other=np.zeros((3, 4), np.float32))
PATHS = ("/v1/certificates", "/v1/projections", "/v1/assemblies", "/v1/verifications")
Case = tuple[str, dict[str, Any]]


def files(data: bytes, spec: Any = SPEC) -> dict[str, Any]:
    text = spec if isinstance(spec, str | bytes) else json.dumps(spec)
    return {
        "files": {
            "spec": (None, text, "application/json"),
            "weights": ("net.safetensors", data, "application/octet-stream"),
        }
    }


def header(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A safetensors file with another header."""
    size = struct.unpack("<Q", GOOD[:8])[0]
    value = json.loads(GOOD[8 : 8 + size])
    text = json.dumps(change(value) or value).encode()
    return struct.pack("<Q", len(text)) + text + GOOD[8 + size :]


def flipped(chance: random.Random) -> bytes:
    data = bytearray(GOOD)
    for _ in range(chance.randrange(1, 6)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def spliced(chance: random.Random) -> bytes:
    first, second = sorted(chance.randrange(len(GOOD) + 1) for _ in range(2))
    return GOOD[:first] + chance.randbytes(chance.randrange(40)) + GOOD[second:]


def lying(chance: random.Random) -> bytes:
    length = chance.choice([0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1, chance.randrange(2**20)])
    return struct.pack("<Q", length) + GOOD[8:]


def shaped(chance: random.Random) -> bytes:
    def change(value: dict[str, Any]) -> None:
        entry = value["W"]
        entry[chance.choice(["shape", "dtype", "data_offsets"])] = chance.choice(
            [[2**40, 2**40], [-1, 2], [2, 2, 2], [], [0, 0], "F128", "F16", None, [9, 1], [0, 2**62], [[2]], {"a": 1},
             1e308, [2.5, 2]]
        )  # fmt: skip

    return header(change)


def named(chance: random.Random) -> bytes:
    name = chance.choice(["", "\u0000", "../../x", "W" * 3000, "\ud800", "__metadata__", "é\n", "<script>"])

    def change(value: dict[str, Any]) -> dict[str, Any]:
        return {name if key == "W" else key: entry for key, entry in value.items()}

    return header(change)


def not_finite(chance: random.Random) -> bytes:
    W = np.array(SMALL)
    W[chance.randrange(2), chance.randrange(2)] = chance.choice([np.nan, np.inf, -np.inf, 1e308, -1e-320])
    return weights(W=W)


OTHERS = (b"", b"\x80\x04K.", b"PK\x03\x04" + bytes(60), b"--- !!python/object/apply:os.system ['x']\n", b"{" * 3000,
          b"\x89HDF\r\n\x1a\n", b"\x00" * 100, b"GIF89a", bytes(range(256)))  # fmt: skip
VALUES = (None, True, -1, 0, 1e308, -1e-320, 10**400, "", "x" * 5000, "\u0000", "../..", [], {}, [[]], {"a": {"b": []}},
          "NaN", "auto", "\ud83d", [None] * 50)  # fmt: skip


def specified(chance: random.Random) -> Any:
    """A spec with one entry changed, left out, or added."""
    spec = json.loads(json.dumps(SPEC)) | {"tensors": {"W": "W"}}
    name = chance.choice([*spec, "step", "tau", "slope", "rate", "seconds", "keep", "modules", "couplings", "extra"])
    if chance.random() < 0.2:
        spec.pop(name, None)
    else:
        spec[name] = chance.choice(VALUES)
    return spec


def raw(chance: random.Random) -> dict[str, Any]:
    """JSON bodies, many of them not JSON."""
    body = {
        "spec": specified(chance),
        "tensors": {"W": chance.choice([SMALL, [[1]], [[1, 2]], [["a"]], [[1e400]], None, "x"])},
    }
    text = json.dumps(body).encode()
    kind = chance.randrange(6)
    if kind == 0:
        text = text[: chance.randrange(len(text))]
    elif kind == 1:
        text = text.replace(b"0.2", chance.choice([b"NaN", b"Infinity", b"1" * 400, b"0.2.3", b"--1", b"0x1"]), 1)
    elif kind == 2:
        text = b"[" * chance.choice([10, 100, 50_000]) + text
    elif kind == 3:
        text = text.replace(b'"spec"', b'"spec": {}, "spec"', 1)
    elif kind == 4:
        data = bytearray(text)
        data[chance.randrange(len(data))] = chance.randrange(256)
        text = bytes(data)
    return {"content": text, "headers": {"Content-Type": "application/json"}}


def broken_form(chance: random.Random) -> dict[str, Any]:
    """Multipart bodies that are cut, or whose boundary is another."""
    request = httpx.Request("POST", "http://x/", **files(GOOD))
    data = request.read()
    cut = data[: chance.randrange(len(data))] if chance.random() < 0.5 else data.replace(b"spec", b"sp\xffec", 1)
    return {"content": cut, "headers": {"Content-Type": request.headers["content-type"]}}


def case(chance: random.Random) -> Case:
    make = chance.choice([flipped, spliced, lying, shaped, named, not_finite])
    kind = chance.randrange(10)
    path = chance.choice(PATHS)
    if kind < 5:
        return path, files(make(chance))
    if kind == 5:
        return path, files(chance.choice(OTHERS))
    if kind == 6:
        return path, files(GOOD, specified(chance))
    if kind == 7:
        return path, files(GOOD, chance.choice([b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":' * 500]))
    return path, raw(chance) if kind == 8 else broken_form(chance)


def resources(server: Running) -> tuple[int, int, int]:
    """Memory of the service and its solvers in kB, open descriptors of the service, files that it keeps."""
    pids = [server.process.pid, *children(server.process.pid)]
    memory = 0
    for pid in pids:
        try:
            memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        except (FileNotFoundError, ProcessLookupError):
            continue
    descriptors = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    left = [path for path in (server.data / "blobs").rglob("*") if path.is_file()]
    return memory, descriptors, len(left)


def fuzz(server: Running, http: httpx.Client, count: int, seed: int) -> dict[int, int]:
    chance = random.Random(seed)
    seen: dict[int, int] = {}
    for k in range(count):
        path, body = case(chance)
        response = http.post(path, **body)
        seen[response.status_code] = seen.get(response.status_code, 0) + 1
        assert response.status_code < 500, (seed, k, path, response.text[:500])
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["type"].startswith("urn:certes:error:")
        else:
            answer = response.json()
            assert answer.get("verdict") in ("contracting", "not_contracting", "undecided")
            assert "envelope" not in answer or path == PATHS[3]
    return seen


def test_some_broken_uploads(service: Running) -> None:
    with service.client() as http:
        seen = fuzz(service, http, 150, SEED)
        assert sum(count for status, count in seen.items() if status >= 400) > 100
        assert http.get("/healthz").status_code == 200


@pytest.mark.slow
def test_two_thousand_broken_uploads(tmp_path: Path) -> None:
    """After the first 500 everything is loaded that ever will be: from there on nothing grows."""
    limits = {"max_body_bytes": 8 * MIB, "max_json_bytes": MIB, "max_states": 300}
    with running(tmp_path / "data", **limits) as server, server.client() as http:
        fuzz(server, http, 500, SEED + 1)
        memory, descriptors, kept = resources(server)
        seen = fuzz(server, http, 1500, SEED + 2)
        after = resources(server)
        assert len(seen) >= 3
        assert after[0] < 1.25 * memory + 50_000, (memory, after[0])
        assert after[1] <= descriptors + 8
        assert after[2] <= kept + 3 * seen.get(200, 0), "what is kept are questions that were answered, and answers"
        assert not list((server.data / "blobs" / ".incoming").iterdir())
