"""The gate with keys on: header before cookie, whose page it was, the CSRF token, and what is open to everybody."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from certes_service.storage.tables import sessions as table
from certes_service.tenancy.headers import SecurityHeaders
from certes_service.tenancy.paths import Need, need_of
from certes_service.tenancy.rates import Buckets
from certes_service.tenancy.refusals import safe_target

from tests.service.asking import assert_problem
from tests.service.gated import DIGEST, Gated, gated

COOKIE = "certes_session"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with gated(tmp_path_factory.mktemp("gate"), keys=True, requests_per_minute=100_000) as running:
        yield running


@pytest.fixture(autouse=True)
def _forgiven(server: Gated) -> None:
    server.registry.failures = Buckets()


def login(server: Gated, secret: str, **headers: str) -> tuple[str, str]:
    """A session's cookie and its CSRF token."""
    response = httpx.post(server.url + "/login", data={"key": secret}, headers=headers)
    assert response.status_code == 303, response.text
    cookie = response.cookies[COOKIE]
    return cookie, server.client(cookies={COOKIE: cookie}).get("/v1/whoami").json()["session"]


# --- header and cookie


def test_a_session_is_its_key(server: Gated) -> None:
    secret = server.key("team", frozenset({"certify"}))
    cookie, csrf = login(server, secret)
    with server.client(cookies={COOKIE: cookie}) as http:
        answer = http.get("/v1/whoami").json()
        assert answer["caller"]["key"] == secret.split("_")[1]
        assert answer["caller"]["scopes"] == ["certify"]
        assert answer["session"] == csrf
        assert http.get("/v1/scope/certify").status_code == 200
        assert_problem(http.get("/v1/scope/train"), 403, "scope-missing")


def test_a_header_wins_over_a_cookie(server: Gated) -> None:
    """The header alone counts, also where it is wrong; and it needs no token."""
    cookie, _ = login(server, server.key("one"))
    other = server.key("two")
    with server.client(other, cookies={COOKIE: cookie}) as http:
        answer = http.get("/v1/whoami").json()
        assert answer["caller"]["key"] == other.split("_")[1]
        assert answer["session"] is None
        assert http.post("/v1/echo", content=b"x").content == b"x"
        assert http.post("/v1/echo", content=b"x", headers={"Origin": "https://evil.example"}).status_code == 200
    for wrong in ("Bearer " + other[:-1] + "!", "Basic eDp5", ""):
        with server.client(cookies={COOKIE: cookie}, headers={"Authorization": wrong}) as http:
            assert_problem(http.get("/v1/whoami"), 401, "key-refused")


@pytest.mark.parametrize("value", ["", "x", "a" * 43, "a" * 5000, "\xe9" * 43, "' OR 1=1 --" + "a" * 32])
def test_cookies_that_are_no_session(server: Gated, value: str) -> None:
    status, problem = server.get("Host: x", f"Cookie: {COOKIE}={value}")
    assert (status, problem["type"]) == (401, "urn:certes:error:key-required")


def test_a_planted_cookie(server: Gated) -> None:
    """Another service on this host may set cookies of that name: of two that differ none counts."""
    cookie, _ = login(server, server.key())
    for lines in (
        [f"Cookie: {COOKIE}={cookie}; {COOKIE}={'b' * 43}"],
        [f"Cookie: {COOKIE}={'b' * 43}", f"Cookie: {COOKIE}={cookie}"],
    ):
        assert server.get("Host: x", *lines)[0] == 401
    for k in range(8):
        assert server.get("Host: x", f"Cookie: {COOKIE}={cookie}; {COOKIE}={str(k) * 43}")[0] == 401
    assert server.get("Host: x", f"Cookie: a=1; {COOKIE}={cookie}; {COOKIE}={cookie}")[0] == 200
    assert server.get("Host: x", f"Cookie: x{COOKIE}={cookie}")[0] == 401


def test_the_hash_of_a_cookie_is_kept_and_not_the_cookie(server: Gated) -> None:
    cookie, _ = login(server, server.key())
    with server.database.read() as connection:
        rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
    assert rows
    assert cookie not in json.dumps(rows)


# --- the end of a session


def test_a_revoked_key_ends_its_sessions_at_once(server: Gated) -> None:
    secret, other = server.key(), server.key()
    (cookie, _), (another, _) = login(server, secret), login(server, other)
    server.registry.keys.revoke(secret.split("_")[1])
    assert server.client(cookies={COOKIE: cookie}).get("/v1/whoami").status_code == 401
    assert server.client(cookies={COOKIE: another}).get("/v1/whoami").status_code == 200
    assert httpx.post(server.url + "/login", data={"key": secret}).status_code == 401


@pytest.mark.parametrize("what", ["the key is revoked", "the key expires", "the session expires"])
def test_a_session_is_looked_up_each_time(server: Gated, what: str) -> None:
    """Each by itself is enough, whatever else is left in the tables."""
    secret = server.key()
    cookie, _ = login(server, secret)
    number = secret.split("_")[1]
    change = {
        "the key is revoked": "UPDATE keys SET revoked = 1 WHERE id = :key",
        "the key expires": "UPDATE keys SET expires = 1 WHERE id = :key",
        "the session expires": "UPDATE sessions SET expires = 1 WHERE key = :key",
    }[what]
    with server.client(cookies={COOKIE: cookie}) as http:
        assert http.get("/v1/whoami").status_code == 200
        with server.database.begin() as connection:
            connection.execute(sa.text(change), {"key": number})
        assert http.get("/v1/whoami").status_code == 401


def test_a_login_ends_the_session_it_came_with(server: Gated) -> None:
    """Whoever has planted a session, or has seen one, does not know the next."""
    secret = server.key()
    cookie, csrf = login(server, secret)
    again, token = login(server, secret, Cookie=f"{COOKIE}={cookie}")
    assert again != cookie
    assert token != csrf
    assert server.client(cookies={COOKIE: cookie}).get("/v1/whoami").status_code == 401
    assert server.client(cookies={COOKIE: again}).get("/v1/whoami").status_code == 200


def test_logout(server: Gated) -> None:
    cookie, csrf = login(server, server.key())
    with server.client(cookies={COOKIE: cookie}) as http:
        assert_problem(http.post("/logout"), 403, "csrf-refused")
        assert http.get("/v1/whoami").status_code == 200
        response = http.post("/logout", data={"csrf": csrf})
        assert (response.status_code, response.headers["location"]) == (303, "/login")
        assert "Max-Age=0" in response.headers["set-cookie"]
    assert server.client(cookies={COOKIE: cookie}).get("/v1/whoami").status_code == 401
    with server.database.read() as connection:
        assert connection.execute(sa.select(table.c.csrf).where(table.c.csrf == csrf)).all() == []


def test_attributes_of_the_cookie(server: Gated) -> None:
    response = httpx.post(server.url + "/login", data={"key": server.key()})
    parts = response.headers["set-cookie"].split("; ")
    assert parts[0].startswith(COOKIE + "=")
    assert set(parts[1:]) == {"Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=43200"}
    assert response.headers["cache-control"] == "no-store"


def test_attributes_of_the_cookie_by_https_only(server: Gated) -> None:
    with gated(server.registry.settings.data, keys=True, secure_cookies=True) as secure:
        response = httpx.post(secure.url + "/login", data={"key": server.key()})
        name, _, rest = response.headers["set-cookie"].partition("=")
        value, *parts = rest.split("; ")
        assert name == "__Host-certes_session", "no other host of the domain can set a cookie with that prefix"
        assert set(parts) == {"Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=43200", "Secure"}
        assert secure.get("Host: x", f"Cookie: {name}={value}")[0] == 200
        assert secure.get("Host: x", f"Cookie: {COOKIE}={value}")[0] == 401, "without the prefix it may be planted"
        origins = ("Origin: https://x", 200), ("Origin: http://x", 403)
        for line, status in origins:
            assert secure.get("Host: x", f"Cookie: {name}={value}", line)[0] == status


# --- whose page, and the token


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_unsafe_methods_need_the_token(server: Gated, method: str) -> None:
    cookie, csrf = login(server, server.key())
    stranger = login(server, server.key())[1]
    with server.client(cookies={COOKIE: cookie}) as http:
        for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": stranger}, {"X-CSRF-Token": csrf[:-1]}):
            assert_problem(http.request(method, "/v1/echo", headers=headers), 403, "csrf-refused", "X-CSRF-Token")
        passed = http.request(method, "/v1/echo", headers={"X-CSRF-Token": csrf}).status_code
        assert passed == (200 if method == "POST" else 405)


def test_two_tokens_are_none(server: Gated) -> None:
    cookie, csrf = login(server, server.key())
    lines = ["Host: x", "Content-Length: 0", f"Cookie: {COOKIE}={cookie}"]
    assert server.get(*lines, f"X-CSRF-Token: {csrf}", path="/v1/echo", method="POST")[0] == 200
    status, problem = server.get(*lines, *[f"X-CSRF-Token: {csrf}"] * 2, path="/v1/echo", method="POST")
    assert (status, problem["type"]) == (403, "urn:certes:error:csrf-refused")
    assert csrf not in json.dumps(problem)


def test_the_token_in_a_form(server: Gated) -> None:
    """The route sees the whole form all the same. A token in a query, a JSON or a second field is none."""
    cookie, csrf = login(server, server.key())
    with server.client(cookies={COOKIE: cookie}) as http:
        response = http.post("/v1/echo", data={"a": "1", "csrf": csrf, "b": "2"})
        assert response.text == f"a=1&csrf={csrf}&b=2"
        wrong: list[dict[str, object]] = [
            {"data": {"csrf": "x"}}, {"data": {"csrf": [csrf, "x"]}}, {"data": {"CSRF": csrf}},
            {"data": {}, "params": {"csrf": csrf}}, {"json": {"csrf": csrf}},
            {"data": {"csrf": csrf}, "headers": {"X-CSRF-Token": "x"}}, {"data": {str(k): "" for k in range(2000)}},
        ]  # fmt: skip
        for given in wrong:
            assert_problem(http.post("/v1/echo", **given), 403, "csrf-refused")  # type: ignore[arg-type]


def test_the_token_before_files(server: Gated) -> None:
    """As a browser sends a form without scripts: the first field, and the file after it arrives whole."""
    cookie, csrf = login(server, server.key())
    large = bytes(range(256)) * 1000
    with server.client(cookies={COOKIE: cookie}) as http:
        response = http.post("/v1/echo", files=[("csrf", (None, csrf)), ("weights", ("net", large))])
        assert response.status_code == 200
        assert csrf in response.text
        assert len(response.content) > len(large), "nothing of it is lost"
        quoted = {"Content-Type": 'multipart/form-data; boundary="a b"'}
        body = f'--a b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{csrf}\r\n--a b--\r\n'
        assert http.post("/v1/echo", content=body, headers=quoted).status_code == 200
        wrong: list[list[tuple[str, Any]]] = [
            [("csrf", (None, "x"))], [("csrf", (None, csrf + "x"))],
            [("weights", ("net", b"x")), ("csrf", (None, csrf))], [("a", (None, csrf))],
            [("csrf", ("csrf", csrf))], [("csrf2", (None, csrf))], [("csrf", (None, "x" * 5000))],
            [("csrf", (None, f"{csrf}\r\nx"))], [("csrf", (None, csrf, "text/html"))],
        ]  # fmt: skip
        for files in wrong:
            assert_problem(http.post("/v1/echo", files=files), 403, "csrf-refused")
        for change in (body.replace("--a b--", "--a c--"), body[:-20], body.replace("--a b\r\n", "\r\n--a b\r\n"), ""):
            assert_problem(http.post("/v1/echo", content=change, headers=quoted), 403, "csrf-refused")


def test_a_form_that_is_refused_is_answered_at_once(server: Gated) -> None:
    """Nothing more is waited for when the body has been read to its end."""
    cookie, csrf = login(server, server.key())
    with server.client(cookies={COOKIE: cookie}) as http:
        for form in ({"csrf": "x"}, {"csrf": "x" * 70_000}, {"padding": "x" * 70_000, "csrf": csrf}):
            begun = time.monotonic()
            assert_problem(http.post("/v1/echo", data=form), 403, "csrf-refused")
            assert time.monotonic() - begun < 2.5


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://x", 200), ("https://x", 200), ("http://x:80", 200), ("HTTP://X", 200), ("http://x.", 200),
     ("http://evil.example", 403), ("null", 403), ("http://x:81", 403), ("http://x.evil.example", 403),
     ("http://evil.example@x", 403), ("file://", 403), ("", 403), ("http://", 403), ("x", 403), ("http://x/", 403)],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_cookie_counts_for_our_own_page_only(server: Gated, origin: str, status: int, method: str) -> None:
    """Whatever page makes the browser ask, the cookie comes along, and the browser says whose page it was."""
    cookie, csrf = login(server, server.key())
    lines = ["Host: x", "Content-Length: 0", f"Cookie: {COOKIE}={cookie}", f"X-CSRF-Token: {csrf}", f"Origin: {origin}"]
    path = "/v1/whoami" if method == "GET" else "/v1/echo"
    found, problem = server.get(*lines, path=path, method=method)
    assert found == status
    if status == 403:
        assert problem["type"] == "urn:certes:error:origin-refused"


def test_two_origins_are_none(server: Gated) -> None:
    cookie, _ = login(server, server.key())
    lines = ["Host: x", f"Cookie: {COOKIE}={cookie}", "Origin: http://x", "Origin: http://x"]
    assert server.get(*lines)[0] == 403


def test_nobody_else_logs_a_browser_in_or_out(server: Gated) -> None:
    """A page of another site could otherwise make one work under another's key."""
    evil = {"Origin": "https://evil.example"}
    assert_problem(
        httpx.post(server.url + "/login", data={"key": server.key()}, headers=evil), 403, "origin-refused", "Origin"
    )
    assert_problem(httpx.post(server.url + "/logout", headers=evil), 403, "origin-refused", "Origin")


# --- hosts, once keys are on


def test_with_keys_the_host_is_checked_where_hosts_are_named(server: Gated) -> None:
    """Without any named, the key is what counts: it does not come along by itself."""
    assert server.get("Host: any.example", f"Authorization: Bearer {server.key()}")[0] == 200
    with gated(server.registry.settings.data, keys=True, allowed_hosts=("certes.example",)) as named:
        bearer = f"Authorization: Bearer {server.key()}"
        assert named.get("Host: certes.example:8443", bearer)[0] == 200
        assert named.get("Host: localhost", bearer)[0] == 200
        status, problem = named.get("Host: evil.example", bearer)
        assert (status, problem["type"]) == (403, "urn:certes:error:host-refused")
        assert named.get("Host: 10.9.8.7", path="/healthz")[0] == 200, "probes come by any address"


# --- what is open


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [("GET", "/healthz", Need.NOTHING), ("HEAD", "/readyz", Need.NOTHING), ("GET", "/static/a.css", Need.NOTHING),
     ("POST", "/healthz", Need.CALLER), ("GET", "/healthz/", Need.CALLER), ("GET", "/healthz\n", Need.CALLER),
     ("POST", "/static/a", Need.CALLER), ("GET", "/v1/keys", Need.ADDRESS), ("DELETE", "/v1/keys", Need.CALLER),
     ("GET", "/openapi.json", Need.ADDRESS), ("POST", "/login", Need.ADDRESS), ("POST", "/logout", Need.MAYBE),
     ("GET", f"/v1/certificates/{DIGEST}", Need.MAYBE), ("GET", f"/v1/certificates/{DIGEST}/proof", Need.MAYBE),
     ("GET", f"/v1/certificates/{DIGEST}/badge.svg", Need.MAYBE), ("GET", f"/certificates/{DIGEST}", Need.MAYBE),
     ("GET", f"/v1/certificates/{DIGEST}/weights", Need.CALLER), ("DELETE", f"/v1/certificates/{DIGEST}", Need.CALLER),
     ("GET", f"/v1/certificates/{DIGEST}\n", Need.CALLER), ("GET", f"/v1/certificates/{DIGEST.upper()}", Need.CALLER),
     ("GET", f"/v1/certificates/{DIGEST}/badgexsvg", Need.CALLER), ("GET", f"/v1/certificates/{DIGEST}/", Need.CALLER),
     ("GET", "/", Need.CALLER), ("GET", "/metrics", Need.CALLER), ("GET", "/v1/jobs", Need.CALLER),
     ("GET", "//healthz", Need.CALLER), ("GET", "/v1/keys/../jobs", Need.CALLER), ("GET", "", Need.CALLER)],
)  # fmt: skip
def test_what_a_path_needs(method: str, path: str, need: Need) -> None:
    assert need_of(method, path) is need


def test_a_public_certificate_is_asked_for_by_nobody_or_by_somebody(server: Gated) -> None:
    path = f"/v1/certificates/{DIGEST}"
    assert server.client().get(path).json() == {"caller": None, "session": None}
    assert server.client(server.key()).get(path).json()["caller"]["key"]
    assert_problem(server.client("certes_nonsense").get(path), 401, "key-refused")
    assert server.client(cookies={COOKIE: "a" * 43}).get(path).json()["caller"] is None
    assert_problem(server.client().get(path + "/weights"), 401, "key-required")
    assert_problem(server.client().delete(path), 401, "key-required")


def test_a_browser_is_shown_the_login(server: Gated) -> None:
    html = {"Accept": "text/html,*/*"}
    with server.client(headers=html) as http:
        response = http.get("/jobs?state=done&x=//y")
        assert (response.status_code, response.headers["location"]) == (
            303,
            "/login?next=/jobs%3Fstate%3Ddone%26x%3D//y",
        )
        assert_problem(http.get("/v1/whoami"), 401, "key-required")
        part = http.get("/jobs", headers={"HX-Request": "true"})
        assert_problem(part, 401, "key-required")
        assert part.headers["hx-redirect"] == "/login"


@pytest.mark.parametrize(
    ("given", "target"),
    [("/jobs?a=1", "/jobs?a=1"), ("/", "/"), (None, "/"), ("", "/"), ("//evil.example", "/"), ("/\\evil.example", "/"),
     ("https://evil.example", "/"), ("javascript:alert(1)", "/"), ("/a\\b", "/"), ("/\t/evil.example", "/"),
     ("/a\r\nSet-Cookie: a=b", "/"), ("/\u2028", "/"), ("/" + "a" * 2000, "/")],
)  # fmt: skip
def test_a_login_leads_to_our_own_pages(given: str | None, target: str) -> None:
    assert safe_target(given) == target


def test_a_login_that_fails(server: Gated) -> None:
    bad = {"key": "certes_nonsense", "next": "//evil.example"}
    assert_problem(httpx.post(server.url + "/login", data=bad), 401, "key-refused")
    response = httpx.post(server.url + "/login", data=bad, headers={"Accept": "text/html"})
    assert response.headers["location"] == "/login?failed=1&next=/"
    assert "set-cookie" not in response.headers
    for data in ({}, {"key": ["a", "b"]}):
        assert httpx.post(server.url + "/login", data=data).status_code == 401
    assert httpx.post(server.url + "/login", files={"key": ("k", b"x")}).status_code == 400


def test_web_sockets_are_closed(server: Gated) -> None:
    """The application behind never sees one."""
    import anyio
    from certes_service.tenancy.gate import Gate

    async def never(*_: object) -> None:
        raise AssertionError("let through")

    sent: list[object] = []

    async def ask() -> None:
        async def send(message: object) -> None:
            sent.append(message)

        gate = SecurityHeaders(Gate(never, server.registry))
        await gate({"type": "websocket", "headers": [], "path": "/"}, never, send)  # type: ignore[arg-type]

    anyio.run(ask)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]


# --- the table of sessions


def test_a_login_clears_away_what_is_over_and_nothing_else(server: Gated) -> None:
    secret, other = server.key(), server.key()
    (over, _), (kept, _) = login(server, secret), login(server, other)
    with server.database.begin() as connection:
        ended = sa.update(table).where(table.c.key == secret.split("_")[1])
        connection.execute(ended.values(expires=1.0))
    last = server.key()
    login(server, last, Cookie=f"{COOKIE}={login(server, last)[0]}")
    with server.database.read() as connection:
        left = set(connection.execute(sa.select(table.c.key)).scalars())
    assert secret.split("_")[1] not in left
    assert other.split("_")[1] in left
    assert server.client(cookies={COOKIE: kept}).get("/v1/whoami").status_code == 200
    assert server.client(cookies={COOKIE: over}).get("/v1/whoami").status_code == 401


def test_a_session_ends_after_twelve_hours_and_with_a_logout_alone(server: Gated) -> None:
    secret = server.key()
    (one, csrf), (other, another) = login(server, secret), login(server, secret)
    assert csrf != another
    with server.database.read() as connection:
        rows = connection.execute(sa.select(table).where(table.c.key == secret.split("_")[1])).all()
    assert {round(row.expires - row.created) for row in rows} == {12 * 3600}
    assert server.client(cookies={COOKIE: one}).post("/logout", data={"csrf": csrf}).status_code == 303
    assert server.client(cookies={COOKIE: one}).get("/v1/whoami").status_code == 401
    assert server.client(cookies={COOKIE: other}).get("/v1/whoami").status_code == 200
