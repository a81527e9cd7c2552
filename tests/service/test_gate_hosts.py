"""Without keys: names under which the service may be asked, whose page asks, and where it may listen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from certes.errors import InputError
from certes_service.settings import Settings
from certes_service.tenancy.callers import LOCAL
from certes_service.tenancy.hosts import Authority, check_allowed, check_binding, host_is_ours, origin_is_ours

from tests.service.gated import DIGEST, Gated, gated


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with gated(tmp_path_factory.mktemp("hosts"), keys=False) as running:
        yield running


@pytest.mark.parametrize(
    "host", ["localhost:PORT", "127.0.0.1:PORT", "[::1]:PORT", "localhost", "LOCALHOST.", "127.9.9.9"]
)
def test_our_own_names(server: Gated, host: str) -> None:
    assert server.get(f"Host: {host.replace('PORT', str(server.port))}")[0] == 200


@pytest.mark.parametrize("path", ["/v1/whoami", "/healthz", "/", "/v1/nothing", "/v1/keys"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:PORT", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0:PORT",
             "user@localhost", "localhost:99999", "[::1", "10.9.8.7", "", "x localhost", "[fe80::1%25lo]",
             "2130706433"],
)  # fmt: skip
def test_other_names_are_refused(server: Gated, host: str, path: str) -> None:
    """DNS rebinding: a site points its own name at this machine, and the browser takes it for one site."""
    status, problem = server.get(f"Host: {host.replace('PORT', str(server.port))}", path=path)
    assert (status, problem["type"]) == (403, "urn:certes:error:host-refused")


def test_a_request_without_a_name(server: Gated) -> None:
    assert server.get(version="1.0")[0] == 403


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1.evil.example"]
)
def test_pages_of_other_sites(server: Gated, origin: str, method: str) -> None:
    lines = [f"Host: localhost:{server.port}", "Content-Length: 0", f"Origin: {origin}"]
    status, problem = server.get(*lines, path="/v1/echo", method=method)
    assert (status, problem["type"]) == (403, "urn:certes:error:origin-refused")


def test_our_own_page(server: Gated) -> None:
    host = f"localhost:{server.port}"
    assert (
        server.get(f"Host: {host}", "Content-Length: 0", f"Origin: http://{host}", path="/v1/echo", method="POST")[0]
        == 200
    )


def test_without_keys_everybody_here_is_the_same_caller(server: Gated) -> None:
    """Also where nobody has to say who he is; probes want to know nothing."""
    for path in ("/v1/whoami", f"/v1/certificates/{DIGEST}"):
        caller = server.client().get(path).json()["caller"]
        assert (caller["tenant"], caller["key"]) == (LOCAL.tenant, LOCAL.key)
    assert server.client().get("/healthz").json()["caller"] is None


def test_what_proxies_say_is_not_believed(server: Gated) -> None:
    assert server.get("Host: evil.example", "X-Forwarded-Host: localhost", "Forwarded: host=localhost")[0] == 403


@pytest.mark.parametrize(
    ("given", "own", "ours"),
    [(["10.0.0.5:80"], "10.0.0.5", True), (["10.0.0.5"], "::ffff:10.0.0.5", True), (["10.0.0.6"], "10.0.0.5", False),
     (["[fd00::1]"], "fd00:0::1", True), (["name"], "name", False), (["localhost", "localhost"], None, False),
     (["certes.example"], None, True), (["certes.example:443"], None, True), (["x.certes.example"], None, False),
     (["ported.example"], None, False), (["ported.example:8443"], None, True)],
)  # fmt: skip
def test_hosts(given: list[str], own: str | None, ours: bool) -> None:
    assert host_is_ours(given, ("certes.example", "ported.example:8443"), own) is ours


def test_no_origin_is_no_page() -> None:
    assert origin_is_ours([], ["x"], secure=True)
    assert not origin_is_ours(["http://x"], ["x", "x"], secure=False)


def test_spellings() -> None:
    assert Authority.parse("LOCALHOST.:80") == Authority("localhost", 80)
    assert Authority.parse("[0:0::1]") == Authority("::1", None)
    assert Authority.parse("a:") == Authority("a", None)
    for text in ("a..", ".", "[1]", "a:65536", "a b", "\u212a", "http://a"):
        assert Authority.parse(text) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.5", "example.org", "::ffff:127.0.0.1"])
def test_beyond_loopback_needs_keys(host: str) -> None:
    with pytest.raises(InputError) as caught:
        check_binding(Settings(), host)
    assert (caught.value.field, caught.value.slug) == ("host", "remote-refused")
    check_binding(Settings(keys=True), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    check_binding(Settings(), host)


@pytest.mark.parametrize("text", ["https://certes.example", "*", "*.example", "a b", ""])
def test_hosts_that_could_never_match(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="allowed_hosts"):
        check_allowed(("fine.example", text))


def test_keys_without_any_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), gated(tmp_path, keys=True) as server:
        assert "certes keys create" in caplog.text
        secret = server.key()
    caplog.clear()
    with gated(tmp_path, keys=True) as server:
        assert "certes keys create" not in caplog.text
        server.registry.keys.revoke(secret.split("_")[1])
    with gated(tmp_path, keys=True):
        assert "certes keys create" in caplog.text
