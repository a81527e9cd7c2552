"""The page without a browser: who may see and do what, what is escaped, what it looks like in numbers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
import struct
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from certes.words import claimed
from certes_service.settings import Settings
from certes_service.web.pages import STATIC, Pages, address, static
from hypothesis import given
from hypothesis import strategies as st

from tests.service.asking import SMALL, UNSTABLE, assert_problem, post_file, weights
from tests.service.conftest import CERTES, Running, create_key, environment, running
from tests.service.inside import wait_for

Serve = Callable[..., Running]
MODULE = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}
FIELDS = {"what": "certify", "tensor": "W", "form": "rate", "activation": "tanh", "step": "", "condition": "auto"}


@dataclass
class Team:
    """A tenant with a key, and the page's session that came of it."""

    key: str
    page: httpx.Client
    csrf: str


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("guarded") / "data", keys=True, solvers=1) as server:
        yield server


@pytest.fixture(scope="module")
def teams(guarded: Running) -> Iterator[dict[str, Team]]:
    made: dict[str, Team] = {}
    for name in ("one", "two"):
        key = create_key(name, "--data", str(guarded.data))
        page = guarded.client()
        assert page.post("/login", data={"key": key, "next": "/jobs"}).headers["location"] == "/jobs"
        found = re.search(r'name="csrf" value="([^"]+)"', page.get("/jobs").text)
        assert found is not None
        made[name] = Team(key, page, found.group(1))
    yield made
    for team in made.values():
        team.page.close()


def ask(client: httpx.Client, data: bytes, name: str = "net.safetensors", **fields: str) -> httpx.Response:
    """The form of the first page, as a browser sends it."""
    headers = {"Accept": "text/html"} | ({"X-CSRF-Token": fields.pop("csrf")} if "csrf" in fields else {})
    return client.post("/ask", files={"weights": (name, data)}, data={**FIELDS, **fields}, headers=headers)


def test_the_form_becomes_a_job_and_its_page(http: httpx.Client) -> None:
    where = _job_of(http, weights(W=np.array(SMALL) * 0.77))
    page = http.get(where)
    assert page.status_code == 200
    assert "Contracting" in page.text
    again = ask(http, weights(W=np.array(SMALL) * 0.77))
    assert again.status_code == 303
    assert again.headers["location"] == where, "remembered: the same page"


def test_a_script_is_sent_on(http: httpx.Client) -> None:
    response = http.post("/ask", files={"weights": ("w", weights())}, data=FIELDS, headers={"HX-Request": "true"})
    assert response.status_code == 204
    assert response.headers["hx-redirect"].startswith("/jobs/")


@pytest.mark.parametrize(("change", "words"), [
    ({"step": "fast"}, "a number"), ({"tensor": ""}, "name of a matrix"), ({"tensor": "V"}, "tensors"),
    ({"activation": "swoosh"}, "activation"), ({"what": "assembly", "spec": "{"}, "spec"),
    ({"what": "assembly", "spec": "[]"}, "JSON object"), ({"condition": "hope"}, "condition"), ({"tau": "-1"}, "tau"),
])  # fmt: skip
def test_errors_are_told(http: httpx.Client, change: dict[str, str], words: str) -> None:
    response = ask(http, weights(), **change)
    assert 400 <= response.status_code < 500, response.status_code
    assert "text/html" in response.headers["content-type"]
    assert words in response.text
    assert "Traceback" not in response.text


def test_no_file_and_broken_files(http: httpx.Client) -> None:
    assert http.post("/ask", data=FIELDS).status_code == 422
    for data in (b"", b"\x00", b"\x80\x04K.", b"\xff" * 9):
        for path in ("/ask", "/inspect"):
            response = http.post(path, files={"weights": ("x", data)}, data=FIELDS)
            assert 400 <= response.status_code < 500
    assert http.post("/ask", content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code < 500


def test_another_tenants_things_are_not_there(teams: dict[str, Team]) -> None:
    one, two = teams["one"], teams["two"]
    job = ask(one.page, weights(W=UNSTABLE), csrf=one.csrf).headers["location"]
    assert one.page.get(job).status_code == 200
    assert two.page.get(job).status_code == 404
    for action in ("cancel", "project"):
        denied = two.page.post(f"{job}/{action}", headers={"X-CSRF-Token": two.csrf})
        assert denied.status_code == 404
    digest = re.findall(r'"/certificates/([0-9a-f]{64})"', one.page.get(job).text)[0]
    for path in (
        f"/certificates/{digest}",
        f"/v1/certificates/{digest}/figure.svg",
        f"/v1/certificates/{digest}/badge.svg",
    ):
        assert one.page.get(path).status_code == 200
        assert two.page.get(path).status_code == 404
    assert digest[:16] not in two.page.get("/certificates").text
    assert job not in two.page.get("/jobs").text
    assert two.page.get(f"/jobs/{'0' * 32}?before={job.removeprefix('/jobs/')}").status_code == 404
    denied = two.page.post(f"/certificates/{digest}/publish", data={"public": "true", "csrf": two.csrf})
    assert denied.status_code == 404
    with httpx.Client(base_url=one.page.base_url) as stranger:
        assert stranger.get(f"/certificates/{digest}").status_code == 404
        allowed = one.page.post(f"/certificates/{digest}/publish", data={"public": "true", "csrf": one.csrf})
        assert allowed.status_code == 303
        page = stranger.get(f"/certificates/{digest}")
        assert page.status_code == 200
        assert "csrf" not in page.text
        assert stranger.get(f"/v1/certificates/{digest}/badge.svg").status_code == 200
        assert stranger.get(f"/v1/certificates/{digest}/figure.svg").status_code == 200
        assert stranger.get(f"/v1/certificates/{digest}/weights").status_code == 401
        one.page.post(f"/certificates/{digest}/publish", data={"public": "false", "csrf": one.csrf})
        assert stranger.get(f"/certificates/{digest}").status_code == 404


def test_a_public_assembly_does_not_show_its_private_modules(teams: dict[str, Team]) -> None:
    one = teams["one"]
    spec = {"modules": {"a": MODULE, "b": MODULE}, "couplings": [{"to": "a", "from": "b", "tensor": "L"}]}
    where = _job_of(
        one.page, weights(W=SMALL, L=0.1 * np.eye(2)), what="assembly", spec=json.dumps(spec), csrf=one.csrf
    )
    link = one.page.get(f"/v1{where}").json()["answer"]["certificate"]
    mine = one.page.get(f"/certificates/{link['digest']}/graph").text
    inside = {entry["digest"] for entry in link["documents"]} - {link["digest"]}
    assert all(f"/certificates/{digest}" in mine for digest in inside)
    with httpx.Client(base_url=one.page.base_url) as stranger:
        assert stranger.get(f"/certificates/{link['digest']}/graph").status_code == 404
        one.page.post(f"/certificates/{link['digest']}/publish", data={"public": "true", "csrf": one.csrf})
        shown = stranger.get(f"/certificates/{link['digest']}/graph")
        assert shown.status_code == 200
        assert "<svg" in shown.text
        assert "/certificates/" not in shown.text
        assert "certified at" not in shown.text, "nor what their certificates say"
        figure = f"/v1/certificates/{link['digest']}/figure.svg"
        assert "none with a certified rate" in stranger.get(figure).text
        assert "none with a certified rate" not in one.page.get(figure).text
        for digest in inside:
            assert stranger.get(f"/certificates/{digest}").status_code == 404


def test_nothing_changes_without_the_token(teams: dict[str, Team]) -> None:
    one = teams["one"]
    for csrf in ({}, {"csrf": "wrong"}, {"csrf": teams["two"].csrf}):
        refused = ask(one.page, weights(W=[[0.11]]), **csrf)
        assert refused.status_code == 403
        assert "X-CSRF-Token" in refused.text
        assert "<h1>" in refused.text, "what the gate refuses is a page, too"
    assert_problem(one.page.post("/inspect", files={"weights": ("w", weights())}), 403, "csrf-refused")


def test_the_page_wants_the_scope(guarded: Running, teams: dict[str, Team]) -> None:
    command = [
        *CERTES,
        "keys",
        "create",
        "--tenant",
        "one",
        "--scope",
        "certify",
        "--json",
        "--data",
        str(guarded.data),
    ]
    key = json.loads(subprocess.run(command, capture_output=True, check=True, env=environment()).stdout)["key"]
    with guarded.client() as page:
        page.post("/login", data={"key": key})
        csrf = re.findall(r'name="csrf" value="([^"]+)"', page.get("/jobs").text)[0]
        assert ask(page, weights(W=[[0.21]]), csrf=csrf).status_code == 303
        denied = ask(page, weights(W=[[0.22]]), csrf=csrf, what="project")
        assert denied.status_code == 403
        assert "project" in denied.text


def test_a_browser_is_led_to_the_login(guarded: Running) -> None:
    with guarded.client() as http:
        response = http.get("/jobs", headers={"Accept": "text/html"})
        assert response.status_code == 303
        assert response.headers["location"].startswith("/login?next=")
        assert http.get("/").status_code == 401
        for bad in ("https://evil.example", "//evil.example", "javascript:alert(1)", "/\\evil"):
            page = http.get("/login", params={"next": bad}).text
            assert 'name="next" value="/"' in page


def test_the_page_can_be_turned_off(serve: Serve) -> None:
    with serve(page=False).client() as http:
        assert_problem(http.get("/"), 404, "not-found")
        link = post_file(http, weights()).json()["certificate"]
        assert http.get(f"{link['href']}/badge.svg").status_code == 200, "drawings are the API's"


def test_figures_of_every_kind_of_answer(http: httpx.Client) -> None:
    for scale in (1.0, 40.0):
        link = post_file(http, weights(W=np.array(SMALL) * scale)).json()["certificate"]
        for theme in ("light", "dark"):
            response = http.get(f"{link['href']}/figure.svg", params={"theme": theme})
            assert response.status_code == 200, response.text
            assert response.headers["content-type"] == "image/svg+xml"
            assert "sandbox" in response.headers["content-security-policy"]
            assert ET.fromstring(response.content).tag.endswith("svg")
    assert_problem(http.get(f"/v1/certificates/{'0' * 64}/figure.svg"), 404, "unknown-digest")
    assert_problem(http.get(f"{link['href']}/figure.svg?theme=pink"), 422, "invalid-value")


def _job_of(http: httpx.Client, data: bytes, **fields: str) -> str:
    """Where the answer of the form is shown."""
    where = ask(http, data, **fields).headers["location"]
    assert wait_for(lambda: http.get(f"/v1{where.partition('?')[0]}").json()["state"] == "done", 60)
    return str(where)


BROWSER = {"Accept": "text/html"}


def test_problems_are_pages_for_browsers_only(http: httpx.Client) -> None:
    """Whatever goes wrong, wherever: a page with the way back; for programs and for paths of programs it stays JSON."""
    for path in ("/nowhere", "/jobs/0", f"/certificates/{'0' * 64}", "/jobs?before=x"):
        page = http.get(path, headers=BROWSER)
        assert page.status_code == 404, path
        assert "There is no such page" in page.text
        assert int(page.headers["content-length"]) == len(page.content)
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert http.get(path).headers["content-type"] == "application/problem+json"
    assert http.get("/v1/nowhere", headers=BROWSER).headers["content-type"] == "application/problem+json"
    part = http.post("/ask", data=FIELDS, headers={"HX-Request": "true"})
    assert part.status_code == 422
    assert part.headers["hx-retarget"] == "#said"
    assert part.text.startswith("<section")


def test_refused_answers_say_what_refutes(http: httpx.Client) -> None:
    page = http.get(_job_of(http, weights(W=np.array(SMALL) * 41.0))).text
    for words in ("Not contracting", "two starts", "have parted", "contracts in no norm", "Project it"):
        assert words in page, words


def test_undecided_answers_say_why_and_what_to_try(http: httpx.Client) -> None:
    where = _job_of(http, weights(W=[[0.0, -2.5], [2.5, 0.0]]), step="0.1")
    page = http.get(where).text
    said = ("Undecided", "no constant quadratic metric", "What to do next", "Project it", "Find the largest step")
    for words in (*said, "times all recurrent weights"):
        assert words in page, words
    smaller = http.post(f"{where}/step", headers=BROWSER)
    assert smaller.status_code == 303
    assert smaller.headers["location"].startswith("/jobs/")


def test_an_answer_outlives_its_job(serve: Serve) -> None:
    """Answers are remembered longer than jobs: then the certificate is shown."""
    server = serve()
    with server.client() as http:
        first = _job_of(http, weights())
        digest = http.get(f"/v1{first}").json()["answer"]["certificate"]["digest"]
        with sqlite3.connect(server.data / "certes.db") as database:
            database.execute("DELETE FROM jobs")
        database.close()
        assert ask(http, weights()).headers["location"] == f"/certificates/{digest}"
        assert http.get(first).status_code == 404


def test_a_job_that_failed(serve: Serve) -> None:
    server = serve()
    with server.client() as http:
        where = _job_of(http, weights())
        with sqlite3.connect(server.data / "certes.db") as database:
            problem = {"type": "urn:certes:error:internal", "title": "<b>Internal", "status": 500, "detail": "<i>Sorry"}
            database.execute("UPDATE jobs SET state = 'failed', answer = NULL, error = ?", (json.dumps(problem),))
        database.close()
        page = http.get(where)
        assert page.status_code == 200
        assert "&lt;b&gt;Internal" in page.text
        assert "&lt;i&gt;Sorry" in page.text
        assert "Failed" in http.get("/jobs").text


def test_figures_without_weights_say_so(serve: Serve) -> None:
    server = serve()
    with server.client() as http:
        digest = post_file(http, weights()).json()["certificate"]["digest"]
        assert "<figcaption>Field of values" in http.get(f"/certificates/{digest}/figure").text
        digest = post_file(http, weights(W=[[0.25]])).json()["certificate"]["digest"]
        kept = hashlib.sha256(weights(W=[[0.25]])).hexdigest()
        for blob in (server.data / "blobs").rglob(kept):
            blob.unlink()
        part = http.get(f"/certificates/{digest}/figure")
        assert part.status_code == 200
        assert "not kept here any longer" in part.text
        assert "<img" not in part.text


def test_a_projection_is_compared_with_what_it_was_made_of(http: httpx.Client) -> None:
    where = _job_of(http, weights(W=UNSTABLE, other=np.ones(3)), what="project")
    part = http.get(f"{where}/comparison").text
    assert "spectral radius" in part
    assert part.count("data:image/png;base64,") == 2
    for found in re.findall(r"data:image/png;base64,([^\"]+)", part):
        pixels = base64.b64decode(found)
        assert pixels.startswith(b"\x89PNG")
        assert struct.unpack(">II", pixels[16:24]) == (2, 2)
    certificate = _job_of(http, weights(W=np.array(SMALL) * 0.3))
    assert http.get(f"{certificate}/comparison").text.strip() == ""


def test_graphs_of_assemblies(http: httpx.Client) -> None:
    """Modules with links to their certificates, also inside others; names are text."""
    name = '<svg onload=alert(1)>"'
    inner = {"modules": {"v1": MODULE, "v2": MODULE}, "couplings": [{"to": "v2", "from": "v1", "tensor": "L"}]}
    spec = {"modules": {name: MODULE, "brain": inner}, "couplings": [{"to": name, "from": "brain", "tensor": "K"}]}
    data = weights(W=SMALL, L=0.1 * np.eye(2), K=0.05 * np.ones((2, 4)))
    where = _job_of(http, data, what="assembly", spec=json.dumps(spec))
    digest = http.get(f"/v1{where}").json()["answer"]["certificate"]["digest"]
    part = http.get(f"/certificates/{digest}/graph")
    assert part.status_code == 200
    drawing = ET.fromstring(part.text[part.text.index("<svg") : part.text.index("</svg>") + 6])
    assert {element.tag for element in drawing.iter()} <= {
        "svg", "g", "a", "title", "circle", "rect", "path", "polygon", "text",
    }  # fmt: skip
    links = [element.get("href", "") for element in drawing.iter("a")]
    assert len(links) == 4, "a network, an assembly, and the two networks in it"
    for link in links:
        assert http.get(link).status_code == 200
    assert len(list(drawing.iter("polygon"))) == 2
    assert [element for element in drawing.iter() if "limit" in str(element.get("class"))]
    page = http.get(f"/certificates/{digest}").text
    assert "<svg onload" not in page + part.text
    network = post_file(http, weights()).json()["certificate"]["digest"]
    assert http.get(f"/certificates/{network}/graph").status_code == 404


def test_modules_of_an_euler_map_have_rates(http: httpx.Client) -> None:
    """The whole has a factor; the modules are certified in continuous time, and no rate is called a factor."""
    couplings = [{"to": "b", "from": "a", "tensor": "L"}]
    spec = {"modules": {"a": MODULE, "b": MODULE}, "couplings": couplings, "step": 0.1, "mode": "whole"}
    where = _job_of(http, weights(W=SMALL, L=0.1 * np.eye(2)), what="assembly", spec=json.dumps(spec))
    answer = http.get(f"/v1{where}").json()["answer"]
    digest, rates = answer["certificate"]["digest"], answer["modules"]
    assert answer["factor"] is not None
    part = http.get(f"/certificates/{digest}/graph").text
    assert '<th scope="col">Rate</th>' in part
    assert "Factor" not in part
    assert "colour by certified rate" in part
    assert "certified factor" in part, "of the whole"
    assert all(f"<td>{claimed(rate, up=False)}</td>" in part for rate in rates.values())
    drawing = http.get(f"/v1/certificates/{digest}/figure.svg").text
    assert "colour by certified rate" in drawing


@pytest.mark.slow
def test_lists_go_on(serve: Serve) -> None:
    with serve().client() as http:
        for k in range(43):
            post_file(http, weights(W=[[0.01 * (k + 1)]]))
        for path in ("/jobs", "/certificates"):
            first = http.get(path).text
            older = re.findall(rf'href="({path}[?]before=[^"]+)"', first)
            assert len(older) == 1
            second = http.get(older[0]).text
            pattern = rf'href="({path}/[0-9a-f]+)"'
            seen = [*re.findall(pattern, first), *re.findall(pattern, second)]
            assert len(seen) == len(set(seen)) == 43
            assert "before=" not in second


def test_the_script_of_others_is_what_it_says_it_is() -> None:
    notice = (STATIC / "NOTICE.txt").read_text()
    script = (STATIC / "htmx.min.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() in notice
    version = re.findall(rb'version:"([0-9.]+)"', script)
    assert [f"htmx {found.decode()}" in notice for found in version] == [True]


def test_a_badge_says_what_is_certified(http: httpx.Client) -> None:
    for scale, words in ((1.0, "contracting, rate 0."), (40.0, "not contracting")):
        link = post_file(http, weights(W=np.array(SMALL) * scale)).json()["certificate"]
        badge = ET.fromstring(http.get(f"{link['href']}/badge.svg").content)
        assert words in "".join(badge.itertext())


@given(text=st.text(max_size=60))
def test_whatever_a_file_calls_itself_is_text(text: str) -> None:
    """The templates escape: what comes out is what went in, once the page is read."""
    pages = Pages(Settings())
    clean = "".join(letter for letter in text if letter.isprintable())
    problem = {"title": clean, "field": clean or "x", "given": clean, "expected": clean}
    shown = pages.text("_problem.html", problem=problem)
    tree = ET.fromstring(shown)
    assert {element.tag for element in tree.iter()} == {"section", "h2", "dl", "dt", "dd", "code"}
    assert [element.text or "" for element in tree.iter("dd")][1:] == [clean, clean]


def test_nothing_is_loaded_from_elsewhere() -> None:
    for template in (STATIC / "..").resolve().joinpath("templates").iterdir():  # type: ignore[attr-defined]
        text = template.read_text()
        assert not re.search(r'(src|href|srcset|action|hx-\w+)="(https?:)?//', text), template.name
        assert " style=" not in text
        assert " onclick=" not in text
        assert "<style" not in text
        assert not re.search(r"<script(?! src=)", text)
    css = (STATIC / "certes.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_static_files_and_no_others(http: httpx.Client) -> None:
    response = http.get(address("certes.css"))
    assert response.status_code == 200
    assert "immutable" in response.headers["cache-control"]
    plain = http.get("/static/certes.css")
    assert plain.headers["cache-control"] == "no-cache", "it may change under this address"
    known = http.get("/static/certes.css", headers={"If-None-Match": plain.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    for name in ("..%2fpages.py", "%2e%2e/pages.py", "pages.py", "nothing.css", ".", "certes.css/x"):
        assert http.get(f"/static/{name}").status_code == 404, name
    assert static("../pages.py") is None


def _luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str) -> None:
    """WCAG 2 AA: 4.5 to 1 for every text on every ground that it stands on."""
    css = (STATIC / "certes.css").read_text()
    found = re.findall(r":root \{(.*?)\}", css, re.S)[0 if scheme == "light" else 1]
    colours: dict[str, Any] = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", found))
    pairs = [
        (text, ground) for text in ("text", "quiet", "accent", "yes", "no", "open")
        for ground in ("ground", "raised", "sunk")
    ]  # fmt: skip
    verdicts = [(text, f"{kind}-ground") for kind in ("yes", "no", "open") for text in (kind, "text", "quiet")]
    for text, ground in [*pairs, *verdicts, ("on-accent", "accent")]:
        assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for border in ("edge", "accent", "no"):  # of fields, of what has the focus, of what is wrong
        for ground in ("ground", "raised", "sunk"):
            assert _contrast(colours[border], colours[ground]) >= 3.0, (border, ground)


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
