"""The page without a browser: who may see and do what, what is escaped, what it looks like in numbers."""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from certes_service.settings import Settings
from certes_service.web.pages import STATIC, Pages, address, static
from hypothesis import given
from hypothesis import strategies as st

from tests.service.asking import SMALL, UNSTABLE, assert_problem, post_file, weights
from tests.service.conftest import CERTES, Running, environment, running

Serve = Callable[..., Running]
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
        command = [*CERTES, "keys", "create", "--tenant", name, "--json", "--data", str(guarded.data)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
        key = json.loads(done.stdout)["key"]
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
    response = ask(http, weights(W=np.array(SMALL) * 0.77))
    assert response.status_code == 303
    page = http.get(response.headers["location"])
    assert page.status_code == 200
    assert "Contracting" in page.text
    again = ask(http, weights(W=np.array(SMALL) * 0.77))
    assert again.headers["location"] == response.headers["location"], "remembered: the same page"


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
