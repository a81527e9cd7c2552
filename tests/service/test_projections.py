"""POST /v1/projections: a certified weight file or none, over real sockets; errors, attacks, trouble."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import certes
import httpx
import numpy as np
import pytest
from certes.certificate import Certificate, verify_certificate
from certes.weights import pack, read_weights
from certes_client import Client, ServiceError
from certes_service.questions import projections
from certes_service.questions.base import Context, Limits
from certes_service.settings import Settings
from certes_service.tenancy.callers import LOCAL

from tests.service.asking import SMALL, assert_problem, post_file, weights
from tests.service.conftest import Running

Serve = Callable[..., Running]
DENSE = np.array([[0.0, -2.5], [2.5, 0.3]], np.float32)
#: quick: closed form, no search
SPEC: dict[str, Any] = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh", "condition": "absolute"}


def ask(
    http: httpx.Client, data: bytes | None = None, spec: Any = SPEC, name: str = "net.safetensors"
) -> httpx.Response:
    files = {
        "spec": (None, json.dumps(spec), "application/json"),
        "weights": (name, weights(W=DENSE) if data is None else data, "application/octet-stream"),
    }
    return http.post("/v1/projections", files=files)


def inline(http: httpx.Client, spec: Any = SPEC, tensors: Any = None) -> httpx.Response:
    body = {"spec": spec, "tensors": {"W": DENSE.tolist()} if tensors is None else tensors}
    return http.post("/v1/projections", content=json.dumps(body), headers={"Content-Type": "application/json"})


def downloaded(http: httpx.Client, answer: Any) -> bytes:
    """The new weight file, verified offline with the certificate that comes with it."""
    link, made = answer["certificate"], answer["weights"]
    response = http.get(made["href"])
    assert response.headers["content-type"] == "application/octet-stream"
    data = response.content
    certificate = Certificate.from_parts(http.get(link["href"]).content, http.get(link["proof"]).content)
    report = verify_certificate(certificate, data)
    assert (report.valid, report.verdict) == (True, "contracting")
    assert certificate.digest == link["digest"] == answer["result"]["certificate"]["digest"]
    subject = certificate.statement.file_subject()
    assert subject is not None
    assert (subject.name, subject.digest.sha256) == (made["name"], made["sha256"])
    assert read_weights(data).sha256 == made["sha256"]
    return data


def test_same_words_and_weights_as_python(http: httpx.Client) -> None:
    given = weights(W=DENSE, other=np.arange(3.0), M=np.eye(2, dtype=bool))
    answer, found = ask(http, given).json(), certes.project(certes.RateNetwork(DENSE, "tanh"), "absolute")
    plain = found.to_json()
    assert list(answer) == ["verdict", *plain, "weights", "certificate", "cached"]
    for name in plain:
        if name != "result":
            assert answer[name] == plain[name], name
    assert {**answer["result"], "certificate": None} == {**plain["result"], "certificate": None}
    old, new = read_weights(given), read_weights(downloaded(http, answer))
    np.testing.assert_array_equal(new.tensors["W"].floats(), found.system.W)
    assert list(new) == list(old)
    assert [name for name in old if old.tensors[name].sha256 != new.tensors[name].sha256] == ["W"]
    assert answer["weights"]["changed"] == ["W"]
    assert answer["weights"]["name"] == "net-projected.safetensors"


def test_the_command_line_gives_the_same_certificate(http: httpx.Client, tmp_path: Any, capsys: Any) -> None:
    from tests.client.running import inside

    (tmp_path / "net.safetensors").write_bytes(weights(W=DENSE))
    options = ("--form", "rate", "--tensor", "W", "--activation", "tanh", "--condition", "absolute")
    target = tmp_path / "net-projected.safetensors"
    local = inside(capsys, "project", tmp_path / "net.safetensors", *options, "--out", target, "--json").json
    remote = ask(http).json()
    assert local["certificate"]["digest"] == remote["certificate"]["digest"]
    assert target.read_bytes() == downloaded(http, remote)


def test_json_tensors(http: httpx.Client) -> None:
    raw = {"dtype": "F16", "shape": [2, 2], "data": base64.b64encode(DENSE.astype("<f2").tobytes()).decode()}
    answer = inline(http, tensors={"W": raw}).json()
    entry = read_weights(downloaded(http, answer)).tensors["W"]
    assert entry.dtype == "F16"
    assert answer["weights"]["name"] == "weights-projected.safetensors"


def test_unchanged(http: httpx.Client) -> None:
    data = weights(W=np.array(SMALL))
    data = (int.from_bytes(data[:8], "little") + 8).to_bytes(8, "little") + data[8:].replace(b"}}", b"}}" + b" " * 8, 1)
    answer = ask(http, data).json()
    assert (answer["unchanged"], answer["distance"], answer["weights"]["changed"]) == (True, 0.0, [])
    assert downloaded(http, answer) == data


def test_undecided_is_an_answer(http: httpx.Client) -> None:
    data = weights(W=np.diag([3.0, 0.5]), M=np.zeros((2, 2), bool))
    response = ask(http, data, {**SPEC, "keep": {"mask": "M"}})
    answer = response.json()
    assert response.status_code == 200
    assert (answer["verdict"], answer["certificate"], answer["weights"], answer["distance"]) == (
        "undecided", None, None, None,
    )  # fmt: skip
    assert answer["cached"] is False
    assert answer["result"]["reason"]


def test_keep_and_weighting(http: httpx.Client) -> None:
    mask = np.array([[True, True], [False, True]])
    data = weights(W=DENSE, M=mask, N=mask.astype(np.float32), S=np.diag([1.0, 100.0]))
    for name in ("M", "N"):
        W = read_weights(downloaded(http, ask(http, data, {**SPEC, "keep": {"mask": name}}).json())).tensors["W"]
        assert W.floats()[1, 0] == DENSE[1, 0]
    kept = ask(http, data, {**SPEC, "keep": {"zeros": True, "diagonal": True}}).json()
    W = read_weights(downloaded(http, kept)).tensors["W"].floats()
    assert (np.diag(W) == np.diag(DENSE)).all()
    weighted = ask(http, data, {**SPEC, "condition": "singular", "weighting": "S", "rate": 0.2}).json()
    assert (weighted["norm"], weighted["rate"]) == ("weighted", 0.2)
    downloaded(http, weighted)


def test_bfloat16_and_names_in_unicode(http: httpx.Client) -> None:
    import ml_dtypes

    name = "модуль ü\u2028.W"
    values = np.random.default_rng(0).standard_normal((3, 3)).astype(ml_dtypes.bfloat16)
    data = pack({name: ("BF16", [3, 3], values.tobytes())})
    answer = ask(http, data, {**SPEC, "tensors": {"W": name}}, name='né "t;x.safetensors').json()
    new = downloaded(http, answer)
    assert read_weights(new).tensors[name].dtype == "BF16"
    disposition = http.get(answer["weights"]["href"]).headers["content-disposition"]
    assert disposition.startswith("attachment; filename*=UTF-8''n%C3%A9")
    assert '"' not in disposition


def test_same_question_is_cached_and_solved_once(http: httpx.Client) -> None:
    data = weights(W=DENSE * np.float32(1.25))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask(http, data).json(), range(6)))
    assert sum(not answer["cached"] for answer in answers) == 1
    assert len({json.dumps({**answer, "cached": None}, sort_keys=True) for answer in answers}) == 1
    for spec in ({**SPEC, "seed": 1}, {**SPEC, "rate": 0.02}, {**SPEC, "keep": {"zeros": True}}):
        assert ask(http, data, spec).json()["cached"] is False
    assert post_file(http, data, SPEC).json()["cached"] is False, "to certify is another question"


def test_certifying_the_new_file_loses_no_weights(http: httpx.Client) -> None:
    """The same certificate may be issued again by another call; the weights stay where they are."""
    answer = ask(http).json()
    data = downloaded(http, answer)
    asked = {**SPEC, "rate": answer["rate"]}
    post_file(http, data, asked, answer["weights"]["name"])
    assert downloaded(http, answer) == data


def test_weights_of_other_certificates_are_not_kept(http: httpx.Client) -> None:
    digest = post_file(http, weights(W=np.array(SMALL) * 0.3)).json()["certificate"]["digest"]
    assert_problem(http.get(f"/v1/certificates/{digest}/weights"), 404, "no-weights", "digest")
    for unknown in ("0" * 64, "A" * 64, "x"):
        assert_problem(http.get(f"/v1/certificates/{unknown}/weights"), 404, "unknown-digest", "digest")


BIG = np.zeros((301, 301)).tolist()
#: name -> (entries of the spec, status, slug, field)
BAD: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "lure": ({"form": "lure", "tensors": {"A": "W", "B": "W", "C": "W"}}, 422, "conflict", "spec.form"),
    "step max": ({"step": "max"}, 422, "wrong-type", "spec.step"),
    "step too long": ({"step": 2.5}, 422, "invalid-value", "spec.step"),
    "condition": ({"condition": "product"}, 422, "unknown-condition", "spec.condition"),
    "rate best": ({"rate": "best"}, 422, "wrong-type", "spec.rate"),
    "rate zero": ({"rate": 0}, 422, "not-positive", "spec.rate"),
    "rate unreachable": ({"rate": 1.5}, 422, "invalid-value", "spec.rate"),
    "factor unreachable": ({"step": 0.5, "rate": 0.25}, 422, "invalid-value", "spec.rate"),
    "rank zero": ({"keep": {"rank": 0}}, 422, "wrong-type", "spec.keep.rank"),
    "rank text": ({"keep": {"rank": "1"}}, 422, "wrong-type", "spec.keep.rank"),
    "rank and zeros": ({"keep": {"rank": 1, "zeros": True}}, 422, "conflict", "spec.keep"),
    "keep unknown": ({"keep": {"ranks": 1}}, 422, "unknown-field", "spec.keep.ranks"),
    "keep list": ({"keep": []}, 422, "wrong-type", "spec.keep"),
    "mask unknown": ({"keep": {"mask": "nowhere"}}, 422, "unknown-tensor", "spec.keep.mask"),
    "mask shape": ({"keep": {"mask": "V"}}, 422, "wrong-shape", "spec.keep.mask"),
    "mask values": ({"keep": {"mask": "W"}}, 422, "wrong-dtype", "spec.keep.mask"),
    "weighting shape": ({"weighting": "V"}, 422, "wrong-shape", "spec.weighting"),
    "weighting indefinite": ({"weighting": "D"}, 422, "invalid-value", "spec.weighting"),
    "weighting nan": ({"weighting": "N"}, 422, "not-finite", "N"),
    "weighting unknown": ({"weighting": "nowhere"}, 422, "unknown-tensor", "spec.weighting"),
    "seed": ({"seed": -1}, 422, "wrong-type", "spec.seed"),
    "seed huge": ({"seed": 10**30}, 422, "wrong-type", "spec.seed"),
    "starts": ({"starts": 10**9}, 422, "wrong-type", "spec.starts"),
    "seconds": ({"seconds": 0}, 422, "not-positive", "spec.seconds"),
    "unknown entry": ({"backend": "auto"}, 422, "unknown-field", "spec.backend"),
    "too many states": ({"tensors": {"W": "B"}}, 413, "too-large", "spec.tensors.W"),
    "gru": ({"form": "torch-rnn", "tensors": {"W": "g.weight_hh_l0"}}, 422, "unsupported", "spec.form"),
    "not square": ({"tensors": {"W": "V"}}, 422, "not-square", "W"),
}  # fmt: skip
NAN = base64.b64encode(np.full((2, 2), np.nan).tobytes()).decode()
TENSORS = {
    "W": DENSE.tolist(), "V": [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], "D": [[1.0, 0.0], [0.0, -1.0]], "B": BIG,
    "N": {"dtype": "F64", "shape": [2, 2], "data": NAN}, "g.weight_hh_l0": [[0.0]] * 3,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_question(http: httpx.Client, name: str) -> None:
    entries, status, slug, field = BAD[name]
    problem = assert_problem(inline(http, {**SPEC, **entries}, TENSORS), status, slug)
    assert problem["field"] == field, problem


def test_bad_bodies(http: httpx.Client) -> None:
    post = lambda **body: http.post("/v1/projections", json=body)  # noqa: E731
    assert_problem(post(tensors={"W": [[1.0]]}), 422, "missing-value", "spec")
    assert_problem(post(spec=SPEC), 422, "missing-value", "tensors")
    assert_problem(post(spec=[1], tensors={"W": [[1.0]]}), 422, "wrong-type", "spec")
    assert_problem(post(spec=SPEC, tensors={"W": [[1.0]]}, key="x"), 422, "unknown-field", "key")
    assert_problem(http.post("/v1/projections", content=b"x"), 415, "unsupported-media-type")
    assert_problem(ask(http, b"\x80\x04K."), 400, "pickle")
    assert_problem(http.get("/v1/projections"), 405, "method-not-allowed")


RATE = {"form": "rate", "activation": "tanh"}
ASSEMBLY: dict[str, Any] = {
    "modules": {"a": {**RATE, "tensors": {"W": "Wa"}}, "b/c": {**RATE, "tensors": {"W": "Wb"}}},
    "interconnection": {"a/b/c": "forth", "b/c/a": "back"},
    "rate": 0.2,
}
PARTS: dict[str, Any] = {
    "Wa": np.array([[0.2, 0.1], [0.0, 0.3]]), "Wb": np.array([[0.1]], np.float32),
    "forth": np.array([[2.0], [1.0]], np.float32), "back": np.array([[1.0, 0.0]]),
}  # fmt: skip


def test_interconnection(http: httpx.Client) -> None:
    """The new file holds the new matrices and the whole that they make; the certificate is about the whole."""
    answer = ask(http, weights(**PARTS), ASSEMBLY).json()
    assert answer["verdict"] == "contracting"
    assert answer["weights"]["changed"] == ["assembly.A", "assembly.B", "assembly.C", "back", "forth"]
    new = read_weights(downloaded(http, answer))
    assert new.tensors["forth"].dtype == "F32"
    values = {name: new.tensors[name].floats() for name in new}
    np.testing.assert_array_equal(values["Wa"], PARTS["Wa"])
    expected = -np.eye(3)
    expected[:2, 2:], expected[2:, :2] = values["forth"], values["back"]
    np.testing.assert_array_equal(values["assembly.A"], expected)
    blocks = {(entry["to"], entry["from"]): np.array(entry["values"]) for entry in answer["blocks"]}
    np.testing.assert_array_equal(blocks["a", "b/c"], values["forth"])
    again = ask(http, weights(**PARTS), ASSEMBLY).json()
    assert again["cached"] is True
    back = ask(http, weights(**{n: new.tensors[n].array() for n in PARTS}), ASSEMBLY).json()
    assert back["unchanged"], "idempotent"
    downloaded(http, back)


def test_interconnection_masks_and_filling(http: httpx.Client) -> None:
    data = weights(**PARTS, M=np.array([[False, True]]))
    masked = ask(http, data, {**ASSEMBLY, "masks": {"b/c/a": "M"}}).json()
    assert read_weights(downloaded(http, masked)).tensors["back"].floats()[0, 0] == 1.0
    one_way = {**ASSEMBLY, "interconnection": {"a/b/c": "forth"}, "fill": True}
    filled = ask(http, data, one_way).json()
    new = read_weights(downloaded(http, filled))
    assert ("b/c/a" in new.tensors) == any(block["to"] == "b/c" for block in filled["blocks"])


#: name -> (entries of the spec, slug, field)
BAD_ASSEMBLIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no modules": ({"modules": {}}, "wrong-type", "spec.modules"),
    "modules list": ({"modules": []}, "wrong-type", "spec.modules"),
    "module unknown": ({"interconnection": {"a/x": "forth"}}, "unknown-module", "spec.interconnection.a/x"),
    "no slash": ({"interconnection": {"a": "forth"}}, "unknown-module", "spec.interconnection.a"),
    "itself": ({"interconnection": {"a/a": "Wa"}}, "conflict", "spec.interconnection.a/a"),
    "tensor twice": ({"interconnection": {"a/b/c": "forth", "b/c/a": "forth"}}, "conflict",
                     "spec.interconnection.b/c/a"),
    "tensor of a module": ({"interconnection": {"a/b/c": "Wa"}}, "conflict", "spec.interconnection.a/b/c"),
    "tensor unknown": ({"interconnection": {"a/b/c": "nowhere"}}, "unknown-tensor", "spec.interconnection"),
    "shape": ({"interconnection": {"a/b/c": "back"}}, "wrong-shape", "spec.interconnection.a.b/c"),
    "mask shape": ({"masks": {"a/b/c": "M"}}, "wrong-shape", "spec.masks.a.b/c"),
    "mask values": ({"masks": {"a/b/c": "forth"}}, "wrong-dtype", "spec.masks.a/b/c"),
    "rate too high": ({"rate": 5.0}, "invalid-value", "spec.rate"),
    "rate zero": ({"rate": 0.0}, "not-positive", "spec.rate"),
    "norm": ({"norm": "nuclear"}, "unknown-value", "spec.norm"),
    "unknown entry": ({"condition": "lure"}, "unknown-field", "spec.condition"),
    "a map": ({"modules": {"a": {**RATE, "tensors": {"W": "Wa"}, "step": 1.0}}, "interconnection": {}}, "wrong-time",
              "spec.modules.a"),
    "bad module": ({"modules": {"a": {**RATE, "tensors": {}}}, "interconnection": {}}, "missing-value",
                   "spec.modules.a.tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ASSEMBLIES)
def test_bad_assembly(http: httpx.Client, name: str) -> None:
    entries, slug, field = BAD_ASSEMBLIES[name]
    problem = assert_problem(ask(http, weights(**PARTS, M=np.ones((1, 3), bool)), {**ASSEMBLY, **entries}), 422, slug)
    assert problem["field"] == field, problem


def test_names_that_are_taken(http: httpx.Client) -> None:
    data = weights(**PARTS, **{"assembly.B": np.eye(2)})
    assert_problem(ask(http, data, ASSEMBLY), 422, "conflict", "weights")
    twice = {"a": ASSEMBLY["modules"]["a"], "a/a": ASSEMBLY["modules"]["b/c"], "a/a/a": ASSEMBLY["modules"]["a"]}
    problem = assert_problem(
        ask(http, weights(**PARTS), {"modules": twice, "interconnection": {"a/a/a/a": "forth"}}), 422, "unknown-module"
    )
    assert "two ways" in problem["given"]


def test_client(http: httpx.Client) -> None:
    with Client(str(http.base_url)) as client:
        answer = client.project(SPEC, weights(W=DENSE), "net.safetensors")
        digest = answer["certificate"]["digest"]
        certificate = Certificate.from_parts(client.envelope(digest), client.proof(digest))
        assert certes.verify(certificate, client.weights(digest)).valid
        with pytest.raises(ServiceError) as caught:
            client.weights("0" * 64)
        assert caught.value.status == 404


def test_signed(serve: Serve) -> None:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    with serve(signing_key=pem).client() as http:
        answer = ask(http).json()
        assert answer["certificate"]["signed"] is True
        downloaded(http, answer)


def test_damaged_weights_are_never_handed_out(serve: Serve) -> None:
    server = serve()
    with server.client() as http:
        answer = ask(http).json()
        sha256 = answer["weights"]["sha256"]
        blob = server.data / "blobs" / LOCAL.tenant / sha256[:2] / sha256
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
        assert_problem(http.get(answer["weights"]["href"]), 503, "storage")
        again = ask(http).json()
        assert again["cached"] is False, "asked anew, and the store is whole again"
        assert downloaded(http, again)
        blob.unlink()
        assert_problem(http.get(answer["weights"]["href"]), 503, "storage")
        assert downloaded(http, ask(http).json())


@pytest.mark.parametrize(("asked", "given"), [(None, 7.0), (3.0, 3.0), (30.0, 7.0)])
def test_the_limit_on_time_holds(monkeypatch: pytest.MonkeyPatch, asked: float | None, given: float) -> None:
    seen: list[float] = []
    real = projections.project

    def noting(*args: Any, **options: Any) -> Any:
        seen.append(options["seconds"])
        return real(*args, **options)

    monkeypatch.setattr(projections, "project", noting)
    question = projections.question({**SPEC, "seconds": asked}, weights(W=DENSE), "net.safetensors")
    question.solve(Context(Limits.of(Settings()), 7.0))
    assert seen == [given]
