"""How often and how much: requests, wrong keys, bodies; per tenant."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from certes_service.tenancy.gate import FAILURES_PER_MINUTE, FORM_BYTES
from certes_service.tenancy.rates import Buckets, neighbourhood

from tests.service.asking import assert_problem
from tests.service.gated import DIGEST, Gated, gated
from tests.service.test_gate import COOKIE, login


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Gated, Clock]]:
    with gated(tmp_path, keys=True, requests_per_minute=3, max_body_bytes=1000) as running:
        clock = Clock()
        running.registry.requests, running.registry.failures = Buckets(clock=clock), Buckets(clock=clock)
        yield running, clock


def test_requests_of_a_tenant(server: tuple[Gated, Clock]) -> None:
    """All its keys together; another tenant has its own."""
    running, clock = server
    one, same, other = running.key("one"), running.key("one"), running.key("two")
    for secret in (one, same, one):
        assert running.client(secret).get("/v1/whoami").status_code == 200
    refused = running.client(same).get("/v1/whoami")
    assert_problem(refused, 429, "too-many-requests")
    assert refused.headers["retry-after"] == "20"
    assert running.client(other).get("/v1/whoami").status_code == 200
    clock.now += 19.9
    assert running.client(one).get("/v1/whoami").status_code == 429
    clock.now += 0.2
    assert running.client(one).get("/v1/whoami").status_code == 200
    for _ in range(5):
        assert running.client().get("/healthz").status_code == 200, "probes are not counted"


def test_requests_by_session_and_by_address(server: tuple[Gated, Clock]) -> None:
    running, clock = server
    secret = running.key("team")
    cookie, _ = login(running, secret)  # the login counts for the address, the look at the session for the tenant
    for _ in range(2):
        assert running.client(cookies={COOKIE: cookie}).get("/v1/whoami").status_code == 200
    assert running.client(cookies={COOKIE: cookie}).get("/v1/whoami").status_code == 429
    for _ in range(2):
        assert running.client().get("/v1/keys").status_code == 200
    assert running.client().get("/v1/keys").status_code == 429
    assert httpx.post(running.url + "/login", data={"key": secret}).status_code == 429
    clock.now += 60
    assert running.client().get("/v1/keys").status_code == 200


def test_who_looks_at_public_certificates_is_counted_too(server: tuple[Gated, Clock]) -> None:
    running, _ = server
    path = f"/v1/certificates/{DIGEST}"
    assert [running.client().get(path).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_login_is_a_small_form(tmp_path: Path) -> None:
    with gated(tmp_path, keys=True) as running:
        form = {"key": running.key(), "padding": "x" * FORM_BYTES}
        assert_problem(httpx.post(running.url + "/login", data=form), 413, "too-large", "body")


def test_limits_of_one_tenant(server: tuple[Gated, Clock]) -> None:
    running, _ = server
    running.registry.tenants.change("one", {"requests_per_minute": 1, "max_body_bytes": 10})
    one, two = running.key("one"), running.key("two")
    problem = assert_problem(running.client(one).post("/v1/echo", content=b"x" * 11), 413, "too-large", "body")
    assert problem["limit"] == 10
    assert running.client(one).get("/v1/whoami").status_code == 429
    assert running.client(two).post("/v1/echo", content=b"x" * 11).status_code == 200
    assert running.client(two).post("/v1/echo", content=b"x" * 1001).status_code == 413


def test_a_tenant_gets_no_larger_bodies_than_the_service(server: tuple[Gated, Clock]) -> None:
    running, _ = server
    running.registry.tenants.change("one", {"max_body_bytes": 10**9})
    assert running.client(running.key("one")).post("/v1/echo", content=b"x" * 1001).status_code == 413


def test_a_body_that_is_refused_is_answered_at_once(server: tuple[Gated, Clock]) -> None:
    running, _ = server
    begun = time.monotonic()
    answer = running.client(running.key()).post("/v1/echo", content=iter([b"x" * 1001]))
    assert answer.status_code == 413
    assert time.monotonic() - begun < 2.5


def test_wrong_keys(server: tuple[Gated, Clock]) -> None:
    """After too many nobody new is looked up from there; who is known goes on, and waiting helps."""
    running, clock = server
    good, fresh = running.key("one"), running.key("two")
    assert running.client(good).get("/v1/whoami").status_code == 200
    with running.client("certes_wrong") as http:
        for _ in range(FAILURES_PER_MINUTE):
            assert http.get("/v1/whoami").status_code == 401
        refused = http.get("/v1/whoami")
    assert_problem(refused, 429, "too-many-requests")
    assert refused.headers["retry-after"] == "1"
    assert_problem(running.client(fresh).get("/v1/whoami"), 429, "too-many-requests")
    login_refused = httpx.post(running.url + "/login", data={"key": fresh})
    assert_problem(login_refused, 429, "too-many-requests")
    assert running.client(good).get("/v1/whoami").status_code == 200
    clock.now += 1.1
    assert running.client(fresh).get("/v1/whoami").status_code == 200


def test_wrong_logins_count_with_the_keys(server: tuple[Gated, Clock]) -> None:
    running, _ = server
    assert httpx.post(running.url + "/login", data={"key": "wrong"}).status_code == 401
    with running.client("certes_wrong") as http:
        codes = [http.get("/v1/whoami").status_code for _ in range(FAILURES_PER_MINUTE)]
    assert codes == [401] * (FAILURES_PER_MINUTE - 1) + [429]


def test_a_forgotten_page_keeps_nobody_from_logging_in(server: tuple[Gated, Clock]) -> None:
    running, _ = server
    with running.client(cookies={COOKIE: "a" * 43}) as http:
        codes = [http.get("/v1/whoami").status_code for _ in range(FAILURES_PER_MINUTE + 2)]
    assert codes[-1] == 429
    assert httpx.post(running.url + "/login", data={"key": running.key()}).status_code == 303


def test_no_secret_is_logged(server: tuple[Gated, Clock], caplog: pytest.LogCaptureFixture) -> None:
    running, _ = server
    with caplog.at_level(logging.DEBUG):
        secret = running.key("team")
        cookie, _ = login(running, secret)
        running.client(secret).get("/v1/whoami")
        running.client(secret[:-1] + "!").get("/v1/whoami")
        running.client(cookies={COOKIE: cookie}).get("/v1/whoami")
        session = running.registry.sessions.find(cookie)
        caller = running.registry.keys.authenticate(secret)
        shown = repr((session, caller, running.registry, running.registry.keys.list()))
    mine = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith(("http", "hpack")))
    for text in (mine, shown):
        assert secret[-43:-1] not in text
        assert cookie not in text
        assert session is not None
        assert session.csrf not in text
    files = b"".join(path.read_bytes() for path in running.registry.settings.data.iterdir() if path.is_file())
    assert secret[-43:].encode() not in files
    assert cookie.encode() not in files


# --- buckets


def test_buckets_fill_up_within_a_minute() -> None:
    clock = Clock()
    buckets = Buckets(clock=clock)
    assert [buckets.take("a", 2) for _ in range(3)] == [None, None, 30.0]
    assert buckets.take("b", 2) is None
    clock.now += 3600
    assert [buckets.take("a", 2) for _ in range(3)] == [None, None, 30.0]


def test_buckets_are_bounded() -> None:
    buckets = Buckets(most=10)
    for k in range(100):
        buckets.take(str(k), 2)
    assert len(buckets) == 10


@pytest.mark.parametrize(
    ("address", "whose"),
    [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8::1", "2001:db8::/64"),
     ("2001:db8:0:0:ffff::9", "2001:db8::/64"), (None, "unknown"), ("x", "unknown")],
)  # fmt: skip
def test_neighbourhoods(address: str | None, whose: str) -> None:
    assert neighbourhood(address) == whose


# --- who is counted, and who is known


def test_who_is_alone_at_his_machine_is_counted_only_if_he_says_so(tmp_path: Path) -> None:
    with gated(tmp_path / "a", keys=False) as running:
        assert not running.registry.limited()
    with gated(tmp_path / "b", keys=False, requests_per_minute=3) as running:
        codes = [running.client().get("/v1/whoami").status_code for _ in range(4)]
        assert codes == [200, 200, 200, 429]
        assert running.client().get("/healthz").status_code == 200


def _exhausted(running: Gated) -> None:
    with running.client("certes_wrong") as http:
        for _ in range(FAILURES_PER_MINUTE):
            http.get("/v1/whoami")


def test_a_revoked_key_is_a_stranger_again(server: tuple[Gated, Clock]) -> None:
    """Behind an address with too many failures it is looked up once, not for ever."""
    running, _ = server
    secret = running.key("one")
    running.client(secret).get("/v1/whoami")
    _exhausted(running)
    running.registry.keys.revoke(secret)
    assert [running.client(secret).get("/v1/whoami").status_code for _ in range(3)] == [401, 429, 429]


@pytest.mark.slow
def test_the_known_are_so_many(server: tuple[Gated, Clock], monkeypatch: pytest.MonkeyPatch) -> None:
    running, _ = server
    monkeypatch.setattr("certes_service.tenancy.gate._REMEMBERED", 1)
    secrets = [running.key(tenant) for tenant in ("one", "two")]
    assert [running.client(secret).get("/v1/whoami").status_code for secret in secrets] == [200, 200]
    _exhausted(running)
    assert [running.client(secret).get("/v1/whoami").status_code for secret in secrets] == [429, 200]


def test_a_connection_ends_with_a_refusal_of_its_body(server: tuple[Gated, Clock]) -> None:
    """What was not read of the body must not be taken for the next request."""
    running, _ = server
    lines = ["POST /v1/echo HTTP/1.1", "Host: x", "Content-Length: 5", "", "hello"]
    status, headers, _ = running.raw("\r\n".join(lines))
    assert (status, headers.get("connection")) == (401, "close")
    assert "connection" not in running.raw("GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n")[1]
