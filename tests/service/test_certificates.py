"""POST /v1/certificates and what can be had back, over real sockets."""

from __future__ import annotations

import base64
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import certes
import httpx
import numpy as np
import pytest
from certes.certificate import Certificate, verify_certificate
from certes_client import Client, ServiceError
from certes_service.certificates import file_name, kept
from certes_service.storage.store import Stored

from tests.service.asking import SMALL, SPEC, UNSTABLE, assert_problem, post_file, post_json, weights


def test_json_and_multipart_give_the_same_certificate(http: httpx.Client) -> None:
    inline = post_json(http).json()
    file = post_file(http, weights(), name="weights.safetensors").json()
    assert inline["verdict"] == "contracting"
    # the file differs in its header's layout, so only the tensor's digest is the same
    subjects = [
        json.loads(base64.b64decode(a["certificate"]["envelope"]["payload"]))["subject"] for a in (inline, file)
    ]
    assert subjects[0][1] == subjects[1][1]
    assert inline["rate"] == file["rate"]


def test_answer_has_the_names_of_python(http: httpx.Client) -> None:
    answer = post_json(http).json()
    result = certes.certify(certes.RateNetwork(SMALL, "tanh"), condition="absolute")
    for name in ("verdict", "rate", "factor", "rate_bound", "factor_bound", "condition", "reason", "detail", "also"):
        assert answer[name] == (list(result.also) if name == "also" else getattr(result, name)), name
    assert set(answer) - set(result.to_json()) == {"cached"}
    assert [attempt["condition"] for attempt in answer["attempts"]] == ["absolute"]


def test_download_verifies_offline(http: httpx.Client) -> None:
    data = weights()
    link = post_file(http, data).json()["certificate"]
    envelope, proof = http.get(link["href"]), http.get(link["proof"])
    assert envelope.headers["content-type"] == "application/vnd.dsse.envelope.v1+json"
    certificate = Certificate.from_parts(envelope.content, proof.content)
    assert certificate.digest == link["digest"]
    assert verify_certificate(certificate, data).valid
    assert json.loads(envelope.content) == link["envelope"]


def test_not_contracting_carries_a_witness(http: httpx.Client) -> None:
    answer = post_json(http, tensors={"W": UNSTABLE}).json()
    assert answer["verdict"] == "not_contracting"
    assert answer["condition"] == "instability"
    assert answer["witness"]["growth"] > 0
    assert answer["rate"] is None
    digest = answer["certificate"]["digest"]
    parts = http.get(f"/v1/certificates/{digest}").content, http.get(f"/v1/certificates/{digest}/proof").content
    assert verify_certificate(Certificate.from_parts(*parts), {"W": np.array(UNSTABLE)}).verdict == "not_contracting"


def test_undecided_is_an_answer(http: httpx.Client) -> None:
    answer = post_json(http, tensors={"W": [[0.0, -1.2], [1.2, 0.0]]})
    assert answer.status_code == 200
    assert answer.json()["verdict"] == "undecided"
    assert answer.json()["certificate"] is None
    assert answer.json()["reason"] == "margin"


def test_gru_is_undecided(http: httpx.Client) -> None:
    data = weights(**{"rnn.weight_hh_l0": np.zeros((6, 2), np.float32)})
    answer = post_file(http, data, {"form": "torch-rnn", "activation": "tanh"}).json()
    assert (answer["verdict"], answer["reason"]) == ("undecided", "unsupported_cell")


def test_same_question_same_certificate_cached(http: httpx.Client) -> None:
    data = weights(W=np.array(SMALL) * 0.5)
    first, second = post_file(http, data).json(), post_file(http, data).json()
    assert (first["cached"], second["cached"]) == (False, True)
    assert {**first, "cached": None} == {**second, "cached": None}
    other = post_file(http, data, {**SPEC, "rate": 0.1}).json()
    assert other["cached"] is False
    assert other["rate"] == 0.1


def test_same_question_at_once_is_solved_once(http: httpx.Client) -> None:
    data = weights(W=np.array(SMALL) * 0.75)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post_file(http, data).json(), range(8)))
    assert sum(not answer["cached"] for answer in answers) == 1
    assert len({answer["certificate"]["digest"] for answer in answers}) == 1


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_inline_bytes(http: httpx.Client, dtype: str) -> None:
    import ml_dtypes

    kind = {"F16": "<f2", "BF16": ml_dtypes.bfloat16, "F32": "<f4", "F64": "<f8"}[dtype]
    given = {"dtype": dtype, "shape": [2, 2], "data": base64.b64encode(np.array(SMALL).astype(kind).tobytes()).decode()}
    answer = post_json(http, tensors={"W": given}).json()
    assert answer["verdict"] == "contracting"
    subject = json.loads(base64.b64decode(answer["certificate"]["envelope"]["payload"]))["subject"][1]
    assert subject["annotations"] == {"dtype": dtype, "shape": [2, 2]}


def test_file_name_is_only_a_name(http: httpx.Client) -> None:
    answer = post_file(http, weights(), name="../../etc/pass\x07wd").json()
    subject = json.loads(base64.b64decode(answer["certificate"]["envelope"]["payload"]))["subject"][0]
    assert "/" not in subject["name"]
    assert subject["name"].isprintable()


@pytest.mark.parametrize("digest", ["0" * 64, "0" * 63, "A" * 64, "..%2f..%2fetc%2fpasswd", "é", "%00"])
@pytest.mark.parametrize("part", ["", "/proof"])
def test_unknown_digest_is_404(http: httpx.Client, digest: str, part: str) -> None:
    response = http.get(f"/v1/certificates/{digest}{part}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] in ("urn:certes:error:unknown-digest", "urn:certes:error:not-found")


def test_client_round_trip(service: object, http: httpx.Client) -> None:
    data = weights()
    with Client(str(http.base_url)) as client:
        link = client.certify(SPEC, data)["certificate"]
        report = client.verify(client.envelope(link["digest"]), client.proof(link["digest"]), data, exact=True)
        assert report["valid"]
        assert report["exact"]
        with pytest.raises(ServiceError, match="digest") as caught:
            client.envelope("0" * 64)
    assert caught.value.status == 404
    assert caught.value.problem["field"] == "digest"


def test_healthz(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok", "version": certes.__version__}


def test_unknown_call_and_method(http: httpx.Client) -> None:
    assert_problem(http.get("/nowhere"), 404, "not-found", "path")
    problem = http.put("/v1/certificates")
    assert_problem(problem, 405, "method-not-allowed", "path")
    assert problem.headers["allow"] == "GET, POST"


def test_pages_of_certificates(http: httpx.Client) -> None:
    """Each once, the youngest first, and the last page says that it is."""
    for k in range(3):
        post_json(http, tensors={"W": [[0.01 + k / 1000]]})
    whole = http.get("/v1/certificates?limit=200").json()
    paged: list[object] = []
    before = ""
    while True:
        page = http.get(f"/v1/certificates?limit=2{before}").json()
        assert 0 < len(page["certificates"]) <= 2
        paged += page["certificates"]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert (paged, whole["next"]) == (whole["certificates"], None)
    assert len(paged) >= 3


def test_what_is_forgotten_is_gone(http: httpx.Client) -> None:
    link = post_json(http, tensors={"W": [[0.123]]}).json()["certificate"]
    assert http.delete(link["href"]).status_code == 204
    assert_problem(http.delete(link["href"]), 404, "unknown-digest")
    assert_problem(http.get(link["proof"]), 404, "unknown-digest")
    assert_problem(http.patch(link["href"], json={"public": True}), 404, "unknown-digest")
    assert post_json(http, tensors={"W": [[0.123]]}).json()["cached"] is False


def test_copies_are_kept_by_who_may_read_them(http: httpx.Client) -> None:
    """What is public may cease to be; what is not is in no shared cache; the tag is that of the bytes."""
    link = post_json(http, tensors={"W": [[0.124]]}).json()["certificate"]
    private = http.get(link["href"])
    assert private.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert private.headers["etag"] == f'"{hashlib.sha256(private.content).hexdigest()}"'
    http.patch(link["href"], json={"public": True})
    for path in (link["href"], link["proof"]):
        assert http.get(path).headers["cache-control"] == "public, max-age=300"
    proof = http.get(link["proof"])
    assert hashlib.sha256(proof.content).hexdigest() in proof.headers["content-disposition"]
    assert link["digest"] in private.headers["content-disposition"]
    assert proof.headers["etag"] != private.headers["etag"]


def test_weights_are_in_no_shared_cache() -> None:
    """Their certificate may be public; they are not."""
    stored = Stored(b"", b"", None, "network", True, 1.0)
    assert kept("x", stored)["Cache-Control"].startswith("public")
    assert kept("x", stored, private=True)["Cache-Control"].startswith("private")


@pytest.mark.parametrize("name", ['a"; x="b', "a\r\nSet-Cookie: a=b", "\u00fc", "a b", "..\\x", "\ud800", ""])
def test_a_name_that_is_more_than_letters_is_percent_encoded(name: str) -> None:
    value = file_name(name)["Content-Disposition"]
    assert value.startswith("attachment; filename*=UTF-8''")
    assert value.isascii()
    assert not set(value.removeprefix("attachment; filename*=UTF-8''")) & set('"\r\n ;\\')
    assert file_name("a.b-c_1")["Content-Disposition"] == 'attachment; filename="a.b-c_1"'
