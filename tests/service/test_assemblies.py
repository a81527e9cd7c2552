"""POST /v1/assemblies: a graph of certificates or none, over real sockets; errors, attacks, trouble."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import certes
import httpx
import numpy as np
import pytest
from certes.certificate.assembly_check import verify_assembly
from certes.composition.feedback import metrics_of, skewness
from certes.weights import read_weights
from certes_client import Client, ServiceError
from certes_service.tenancy.callers import LOCAL

from tests.service.asking import assert_problem, post_file, weights
from tests.service.conftest import Running

Serve = Callable[..., Running]
A: dict[str, Any] = {"form": "rate", "tensors": {"W": "a"}, "activation": "tanh"}
B: dict[str, Any] = {"form": "hopfield", "tensors": {"W": "b"}, "activation": "relu", "tau": 2.0}
PARTS: dict[str, Any] = {
    "a": np.array([[0.2, -0.3], [0.4, 0.1]]), "b": np.array([[0.3]], np.float32), "up": np.array([[0.1, 0.0]]),
    "down": np.array([[0.2], [0.1]], np.float32), "B": np.array([[2.0, -1.0]]), "big": np.array([[9.0, 9.0]]),
    "wide": np.zeros((301, 301)), "back": np.array([[9.0], [9.0]]),
}  # fmt: skip
SPEC: dict[str, Any] = {
    "modules": {"a": A, "b": B},
    "couplings": [{"to": "b", "from": "a", "tensor": "up"}, {"to": "a", "from": "b", "tensor": "down"}],
}


def ask(http: httpx.Client, spec: Any = SPEC, data: bytes | None = None, name: str = "net.safetensors") -> Any:
    files = {
        "spec": (None, json.dumps(spec), "application/json"),
        "weights": (name, weights(**PARTS) if data is None else data, "application/octet-stream"),
    }
    return http.post("/v1/assemblies", files=files)


def downloaded(http: httpx.Client, answer: Any, folder: Path, data: bytes | None = None) -> Path:
    """Every document under the name that the service gives it; verified offline as a whole."""
    folder.mkdir(exist_ok=True)
    link = answer["certificate"]
    for entry in link["documents"]:
        for part in ("href", "proof"):
            response = http.get(entry[part])
            assert response.status_code == 200
            name = response.headers["content-disposition"].partition("filename=")[2].strip('"')
            (folder / name).write_bytes(response.content)
    (folder / "net.safetensors").write_bytes(weights(**PARTS) if data is None else data)
    if answer["couplings"] is not None:
        content = http.get(answer["couplings"]["href"]).content
        assert read_weights(content).sha256 == answer["couplings"]["sha256"]
        (folder / "couplings.safetensors").write_bytes(content)
    root = folder / f"{link['digest']}.assembly.json"
    assert json.loads(root.read_bytes()) == link["envelope"]
    report = verify_assembly(root, folder)
    assert report.valid, report
    return root


def test_same_words_as_python(http: httpx.Client, tmp_path: Path) -> None:
    answer = ask(http).json()
    modules = {
        "a": certes.RateNetwork(PARTS["a"], "tanh"),
        "b": certes.HopfieldNetwork(PARTS["b"], "relu", tau=2.0),
    }
    found = certes.compose(modules, {("b", "a"): PARTS["up"], ("a", "b"): PARTS["down"]}).to_json()
    assert list(answer) == [*found, "couplings", "certificate", "cached"]
    for name in ("verdict", "mode", "states", "limiting", "proved", "reason"):
        assert answer[name] == found[name], name
    assert answer["rate"] == pytest.approx(found["rate"], rel=1e-6)
    assert [entry["kind"] for entry in answer["certificate"]["documents"]] == ["network", "network", "assembly"]
    root = downloaded(http, answer, tmp_path / "all")
    assert certes.verify(root, tmp_path / "all").valid
    stored = read_weights((tmp_path / "all" / "couplings.safetensors").read_bytes())
    assert np.array_equal(stored.tensors["b<-a"].array(), PARTS["up"])
    assert stored.tensors["a<-b"].dtype == "F32"


def test_what_holds_with_a_gate_stands_beside_what_is_certified(http: httpx.Client) -> None:
    """And nothing does where nothing is proven; a gate that cannot be is named."""
    gated: dict[str, Any] = {"gate": {"least": 0.25, "weight": "up", "bias": "bias"}}
    data = weights(**PARTS, bias=np.zeros(1))
    plain, answer = ask(http, data=data).json(), ask(http, SPEC | gated, data).json()
    assert plain["gate"] is None
    assert answer["rate"] == plain["rate"]
    assert answer["gate"] == {"least": 0.25, "rate": 0.25 * plain["rate"], "factor": None}  # a power of 2: exact
    wild = {"modules": SPEC["modules"], "couplings": [
        {"to": "b", "from": "a", "tensor": "big"}, {"to": "a", "from": "b", "tensor": "back"}
    ]}  # fmt: skip
    lost = ask(http, wild | gated, data).json()
    assert lost["verdict"] != "contracting"
    assert lost["gate"] is None
    for change, slug, field in (({"least": 1.0}, "wrong-type", "least"), ({"bias": "up"}, "wrong-shape", "bias")):
        refused = ask(http, SPEC | {"gate": gated["gate"] | change}, data)
        assert_problem(refused, 422, slug, f"spec.gate.{field}")


def test_altered_weights_are_found(http: httpx.Client, tmp_path: Path) -> None:
    root = downloaded(http, ask(http).json(), tmp_path / "all")
    changed = weights(**{**PARTS, "a": PARTS["a"] * 1.001})
    (tmp_path / "all" / "net.safetensors").write_bytes(changed)
    report = verify_assembly(root, tmp_path / "all")
    assert not report.valid
    assert "a" in report.detail


def test_json_nested_feedback_and_step(http: httpx.Client, tmp_path: Path) -> None:
    tensors = {name: np.asarray(value).tolist() for name, value in PARTS.items() if name != "wide"}
    inner = {"modules": {"x": A, "y": B}, "couplings": [{"feedback": {"between": ["y", "x"], "tensor": "B"}}]}
    spec = {"modules": {"in": inner, "out": A}, "topology": {"kind": "chain", "scale": 0.1, "seed": 3}}
    answer = http.post("/v1/assemblies", json={"spec": spec, "tensors": tensors}).json()
    assert answer["verdict"] == "contracting"
    assert [entry["kind"] for entry in answer["certificate"]["documents"]].count("assembly") == 2
    from certes_service.intake import weights_from_json

    downloaded(http, answer, tmp_path / "all", weights_from_json(tensors))
    stored = read_weights((tmp_path / "all" / "couplings.safetensors").read_bytes())
    assert set(stored.tensors) == {"in/x<-y", "in/y<-x", "out<-in"}
    modules = {"x": certes.RateNetwork(PARTS["a"], "tanh"), "y": certes.HopfieldNetwork(PARTS["b"], "relu", tau=2.0)}
    alone = certes.compose(modules, mode="interface")
    assert alone.root is not None
    metrics = metrics_of({name: child.interface for name, child in alone.root.children.items()})
    made = {(to, source): stored.tensors[f"in/{to}<-{source}"].array() for to, source in (("x", "y"), ("y", "x"))}
    assert skewness(made, metrics) < 1e-9
    step = answer["largest_step"]["step"]
    stepped = http.post("/v1/assemblies", json={"spec": {**spec, "step": 0.5 * step}, "tensors": tensors}).json()
    assert (stepped["verdict"], stepped["rate"]) == ("contracting", None)
    assert stepped["factor"] < 1.0


def test_a_module_by_the_digest_of_its_certificate(http: httpx.Client, tmp_path: Path) -> None:
    data = weights(**PARTS)
    digest = post_file(http, data, {**A, "condition": "lure"}).json()["certificate"]["digest"]
    spec = {**SPEC, "modules": {"a": {"certificate": digest}, "b": B}}
    answer = ask(http, spec).json()
    assert answer["verdict"] == "contracting"
    assert answer["rate"] == ask(http).json()["rate"]
    downloaded(http, answer, tmp_path / "all")
    other = weights(**{**PARTS, "a": PARTS["a"] * 1.01})
    problem = assert_problem(ask(http, spec, other), 422, "invalid-certificate", "spec.modules.a")
    assert "wrong" in problem["given"]
    for unknown in ("0" * 64, "x", "../" + digest, answer["certificate"]["digest"]):
        wrong = {**SPEC, "modules": {"a": {"certificate": unknown}, "b": B}}
        assert_problem(ask(http, wrong), 422, "unknown-digest", "spec.modules.a.certificate")


def test_a_module_by_the_certificate_of_a_projection(http: httpx.Client) -> None:
    """Its weights were made here, and are kept here."""
    dense = np.array([[0.0, -2.5], [2.5, 0.3]], np.float32)
    files = {
        "spec": (None, json.dumps({**A, "condition": "absolute"}), "application/json"),
        "weights": ("w.safetensors", weights(a=dense), "application/octet-stream"),
    }
    projected = http.post("/v1/projections", files=files).json()
    spec = {**SPEC, "modules": {"a": {"certificate": projected["certificate"]["digest"]}, "b": B}, "couplings": []}
    answer = ask(http, spec).json()
    assert answer["verdict"] == "contracting"
    assert answer["couplings"] is None


def test_undecided_and_refuted_are_answers(http: httpx.Client) -> None:
    couplings = [{"to": "b", "from": "a", "tensor": "big"}, {"to": "a", "from": "b", "tensor": "back"}]
    refuted = ask(http, {**SPEC, "couplings": couplings})
    answer = refuted.json()
    assert (refuted.status_code, answer["verdict"]) == (200, "not_contracting")
    assert (answer["certificate"], answer["couplings"], answer["cached"]) == (None, None, False)
    assert answer["refutation"]["verdict"] == "not_contracting"
    hard = {"modules": {"m": {**A, "tensors": {"W": "rotation"}}}}
    data = weights(rotation=np.array([[0.0, -2.5], [2.5, 0.0]]))
    undecided = ask(http, {**hard, "seconds": 5.0}, data)
    assert undecided.status_code == 200
    assert undecided.json()["certificate"] is None
    assert undecided.json()["verdict"] != "contracting"


def test_same_question_is_cached(http: httpx.Client) -> None:
    spec = {**SPEC, "mode": "interface"}
    data = weights(**{**PARTS, "up": PARTS["up"] * 0.5})
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(http, spec, data).json(), range(4)))
    assert sum(not answer["cached"] for answer in answers) == 1
    turned = {**spec, "modules": {"b": B, "a": A}}
    other = ask(http, turned, data).json()
    assert other["cached"] is False, "the order of the modules is that of the states"
    assert list(other["modules"]) == ["b", "a"]


#: name -> (entries of the spec, status, slug, field)
BAD: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no modules": ({"modules": {}}, 422, "wrong-type", "spec.modules"),
    "modules list": ({"modules": []}, 422, "wrong-type", "spec.modules"),
    "no form": ({"modules": {"a": {}}}, 422, "missing-value", "spec.modules.a"),
    "a file": ({"modules": {"a": {**A, "file": "x"}}}, 422, "conflict", "spec.modules.a.file"),
    "the file": ({"file": "/etc/passwd"}, 422, "conflict", "spec.modules.a.file"),
    "a description": ({"modules": {"a": {"assembly": "x.yaml"}}}, 422, "conflict", "spec.modules.a.assembly"),
    "weights of a certificate": ({"modules": {"a": {"certificate": "0" * 64, "weights": "x"}}}, 422, "conflict",
                                 "spec.modules.a.weights"),
    "tensor": ({"modules": {"a": {**A, "tensors": {"W": "gone"}}}}, 422, "unknown-tensor", "spec.modules.a.tensors.W"),
    "coupling": ({"couplings": [{"to": "a", "from": "z", "tensor": "up"}]}, 422, "unknown-module", "spec.couplings.0"),
    "shape": ({"couplings": [{"to": "a", "from": "b", "tensor": "up"}]}, 422, "wrong-shape", "spec.couplings.0"),
    "mode": ({"mode": "best"}, 422, "unknown-value", "spec.mode"),
    "seconds": ({"seconds": 0}, 422, "not-positive", "spec.seconds"),
    "step": ({"step": -1.0}, 422, "not-positive", "spec.step"),
    "a step of maps": ({"modules": {"a": {**A, "step": 1.0}}, "couplings": [], "step": 0.1}, 422, "conflict",
                       "spec.step"),
    "unknown entry": ({"rate": 1.0}, 422, "unknown-field", "spec.rate"),
    "too wide": ({"modules": {"a": {**A, "tensors": {"W": "wide"}}}, "couplings": []}, 413, "too-large",
                 "spec.modules.a"),
    "too many": ({"modules": {f"m{k}": A for k in range(160)}, "couplings": [], "mode": "whole"}, 413, "too-large",
                 "spec.modules"),
    "surrogate": ({"modules": {"\ud800": A}}, 400, "malformed-json", "spec"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_question(http: httpx.Client, name: str) -> None:
    entries, status, slug, field = BAD[name]
    problem = assert_problem(ask(http, {**SPEC, **entries}), status, slug)
    assert problem["field"] == field, problem


def test_bad_bodies(http: httpx.Client) -> None:
    post = lambda **body: http.post("/v1/assemblies", json=body)  # noqa: E731
    assert_problem(post(tensors={"W": [[1.0]]}), 422, "missing-value", "spec")
    assert_problem(post(spec=SPEC), 422, "missing-value", "tensors")
    assert_problem(post(spec=[1], tensors={"W": [[1.0]]}), 422, "wrong-type", "spec")
    assert_problem(ask(http, SPEC, b"\x80\x04K."), 400, "pickle")
    assert_problem(http.get("/v1/assemblies"), 405, "method-not-allowed")


def test_client(http: httpx.Client) -> None:
    with Client(str(http.base_url)) as client:
        answer = client.compose(SPEC, weights(**PARTS), "net.safetensors")
        digest = answer["certificate"]["digest"]
        assert json.loads(client.envelope(digest)) == answer["certificate"]["envelope"]
        assert set(read_weights(client.weights(digest)).tensors) == {"b<-a", "a<-b"}
        with pytest.raises(ServiceError) as caught:
            client.weights(answer["certificate"]["documents"][0]["digest"])
        assert caught.value.status == 404


def test_signed(serve: Serve, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    public = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    with serve(signing_key=pem).client() as http:
        answer = ask(http).json()
        assert answer["certificate"]["signed"] is True
        root = downloaded(http, answer, tmp_path / "all")
        assert verify_assembly(root, tmp_path / "all", key=public).valid


def test_damage_is_noticed(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with server.client() as http:
        answer = ask(http).json()
        for entry in answer["certificate"]["documents"]:
            for path in (entry["href"], entry["proof"]):
                sha256 = hashlib.sha256(http.get(path).content).hexdigest()
                blob = server.data / "blobs" / LOCAL.tenant / sha256[:2] / sha256
                content = blob.read_bytes()
                blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
                assert_problem(http.get(path), 503, "storage")
                again = ask(http).json()
                assert again["cached"] is False
                downloaded(http, again, tmp_path / "all")


def test_assemblies_of_one_module_with_many_states(http: httpx.Client) -> None:
    spec = {"modules": {f"m{k}": A for k in range(160)}, "mode": "interface"}
    answer = ask(http, spec).json()
    assert (answer["verdict"], answer["states"]) == ("contracting", 320)
    assert len(answer["certificate"]["documents"]) == 2, "one network, many times"
