"""API keys: made, kept as a hash, refused for every reason alike; the command line; the public keys of signatures."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certes
import httpx
import pytest
import sqlalchemy as sa
from certes.certificate.check import verify_certificate
from certes.errors import InputError
from certes_service.storage.database import Database
from certes_service.storage.tables import keys as table
from certes_service.storage.tables import sessions, signing_keys
from certes_service.tenancy import commands, signing
from certes_service.tenancy.callers import SCOPES
from certes_service.tenancy.keys import Keys, alive
from certes_service.tenancy.sessions import Sessions
from typer.testing import CliRunner

from tests.service.asking import SMALL, assert_problem
from tests.service.gated import ALL, Gated, gated
from tests.service.test_verifications import PRIVATE, PUBLIC


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    with gated(tmp_path_factory.mktemp("keys"), keys=True, requests_per_minute=100_000) as running:
        yield running


@pytest.fixture(autouse=True)
def _forgiven(server: Gated) -> None:
    server.registry.failures.forget()  # other tests have failed often enough


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'certes.db'}")
    made.migrate()
    yield made
    made.close()


def _set(database: Database, key: str, **values: Any) -> None:
    with database.begin() as connection:
        connection.execute(sa.update(table).where(table.c.id == key).values(**values))


def _row(database: Database, key: str) -> Any:
    with database.read() as connection:
        return connection.execute(sa.select(table).where(table.c.id == key)).one()


def _now(database: Database) -> float:
    with database.read() as connection:
        return database.now(connection)


# --- what is kept


def test_only_the_hash_is_kept(database: Database, tmp_path: Path) -> None:
    made, secret = Keys(database).create("team", frozenset({"certify"}), "ci")
    assert re.fullmatch(rf"certes_{made.id}_[A-Za-z0-9_-]{{43}}", secret)
    assert _row(database, made.id).hash == hashlib.sha256(secret.encode()).hexdigest()
    database.close()
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert any(made.id.encode() in data for data in files)
    assert not any(secret[-43:].encode() in data for data in files)


def test_no_two_keys_alike(database: Database) -> None:
    secrets = {Keys(database).create("team", ALL)[1] for _ in range(20)}
    assert len({secret[-43:] for secret in secrets}) == len({secret[:23] for secret in secrets}) == 20


def test_tenants_are_made_once(database: Database) -> None:
    """Also by two who make one at once."""
    made: list[Any] = []
    threads = [threading.Thread(target=lambda: made.append(Keys(database).create("new", ALL)[1])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    callers = [Keys(database).authenticate(secret) for secret in made]
    assert len(callers) == 6
    assert len({caller.tenant for caller in callers if caller}) == 1


def test_the_tenant_local_goes_on_with_what_was_made_without_keys(database: Database) -> None:
    caller = Keys(database).authenticate(Keys(database).create("local", ALL)[1])
    assert caller is not None
    assert caller.tenant == "local"


@pytest.mark.parametrize(("given", "field"), [
    ({"tenant": ""}, "tenant"), ({"tenant": " a"}, "tenant"), ({"tenant": "a\nb"}, "tenant"),
    ({"tenant": "a" * 101}, "tenant"), ({"tenant": "\x1b[31m"}, "tenant"),
    ({"scopes": frozenset()}, "scope"), ({"scopes": frozenset({"root"})}, "scope"),
    ({"name": "n" * 201}, "name"), ({"name": "\x9b"}, "name"),
    ({"expires_days": 0.0}, "expires-days"), ({"expires_days": -1.0}, "expires-days"),
    ({"expires_days": float("nan")}, "expires-days"), ({"expires_days": float("inf")}, "expires-days"),
])  # fmt: skip
def test_impossible_keys(database: Database, given: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        Keys(database).create(**({"tenant": "team", "scopes": ALL} | given))
    assert caught.value.field == field
    assert Keys(database).list() == ()


# --- who is let in


def test_a_key_says_who_asks(server: Gated) -> None:
    secret = server.key("team", frozenset({"project", "certify"}))
    with server.client(secret) as http:
        caller = http.get("/v1/whoami").json()["caller"]
    assert caller["scopes"] == ["certify", "project"]
    assert caller["key"] == secret.split("_")[1]
    assert server.client(server.key("other")).get("/v1/whoami").json()["caller"]["tenant"] != caller["tenant"]


@pytest.mark.parametrize("held", SCOPES)
@pytest.mark.parametrize("needed", SCOPES)
def test_scopes(server: Gated, held: str, needed: str) -> None:
    """Each is good for itself and for nothing else: admin does not include the others."""
    response = server.client(server.key("team", frozenset({held}))).get(f"/v1/scope/{needed}")
    if held == needed:
        assert response.status_code == 200
        return
    problem = assert_problem(response, 403, "scope-missing", "Authorization")
    assert needed in problem["expected"]
    assert f'scope="{needed}"' in response.headers["www-authenticate"]


def test_nobody(server: Gated) -> None:
    for path in ("/v1/whoami", "/v1/nothing", "/", "/metrics"):
        response = server.client().get(path)
        assert_problem(response, 401, "key-required", "Authorization")
        assert response.headers["www-authenticate"] == 'Bearer realm="certes"'


def _wrong(server: Gated) -> dict[str, str]:
    """Keys that are good for nothing, each for its own reason."""
    manager, good = server.registry.keys, server.key()
    revoked, expired, border = server.key(), server.key(), server.key()
    manager.revoke(revoked.split("_")[1])
    _set(server.database, expired.split("_")[1], expires=1.0)
    _set(server.database, border.split("_")[1], expires=_now(server.database))
    other = server.key()
    return {
        "unknown": "certes_" + "0" * 16 + "_" + good[-43:],
        "revoked": revoked,
        "expired": expired,
        "at the border": border,
        "another's secret": good[:24] + other[-43:],
        "one letter": good[:-1] + ("A" if good[-1] != "A" else "E"),
    }


def test_wrong_keys_are_all_alike(server: Gated) -> None:
    """Nobody learns from an answer whether a key exists, or existed."""
    answers = set()
    for reason, secret in _wrong(server).items():
        response = server.client(secret).get("/v1/whoami")
        assert_problem(response, 401, "key-refused", "Authorization")
        assert secret not in response.text, reason
        answers.add((response.text, response.headers["www-authenticate"]))
    assert len(answers) == 1


def test_wrong_keys_cost_alike(server: Gated) -> None:
    """The same questions to the database, whether or not there is such a key: its speed tells nothing."""
    asked: list[str] = []

    def listener(*event: Any) -> None:
        asked.append(event[2])

    sa.event.listen(server.database.engine, "before_cursor_execute", listener)
    try:
        costs = {}
        for reason, secret in _wrong(server).items():
            asked.clear()
            assert server.registry.keys.authenticate(secret) is None
            costs[reason] = tuple(asked)
    finally:
        sa.event.remove(server.database.engine, "before_cursor_execute", listener)
    assert len(set(costs.values())) == 1, costs
    assert any("FROM keys" in statement for statement in costs["unknown"])


def test_the_moment_of_expiry() -> None:
    assert alive(None, None, 10.0)
    assert alive(None, 10.0, 9.999)
    assert not alive(None, 10.0, 10.0)
    assert not alive(1.0, None, 10.0)


def test_expiry_in_days(database: Database) -> None:
    made, secret = Keys(database).create("team", ALL, expires_days=0.5)
    assert made.expires is not None
    assert made.expires - made.created == pytest.approx(43200)
    assert Keys(database).authenticate(secret) is not None


@pytest.mark.parametrize("lines", [
    ["Authorization: Bearer KEY", "Authorization: Bearer KEY"],
    ["Authorization: Bearer KEY", "Authorization: Basic eDp5"],
    ["Authorization: Basic KEY"],
    ["Authorization: KEY"],
    ["Authorization: Bearer"],
    ["Authorization: Bearer "],
    ["Authorization:"],
    ["Authorization: Bearer KEY KEY"],
    ["Authorization: Bearer KEY,KEY"],
    ["Authorization: Bearer KEYx"],
    ["Authorization: Bearer \xff\xe9" + "a" * 60],
    ["Authorization: Bearer certes_" + "\xb2" * 16 + "_" + "a" * 43],
    ["Authorization: Bearer " + "A" * 30_000],
    ["Authorization: Bearer certes_0000000000000000_" + "A" * 30_000],
])  # fmt: skip
def test_headers_that_are_no_key(server: Gated, lines: list[str]) -> None:
    secret = server.key()
    status, problem = server.get("Host: x", *(line.replace("KEY", secret) for line in lines))
    assert status == 401, problem
    assert secret not in json.dumps(problem)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_the_scheme_is_read_generously(server: Gated, scheme: str) -> None:
    assert server.get("Host: x", f"Authorization: {scheme}{server.key()}")[0] == 200


def test_a_bomb_of_headers(server: Gated) -> None:
    assert server.raw("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + "A" * 200_000 + "\r\n\r\n")[0] == 400


def test_revoking_is_at_once(server: Gated) -> None:
    secret = server.key()
    with server.client(secret) as http:
        assert http.get("/v1/whoami").status_code == 200
        assert server.registry.keys.revoke(secret).state(0.0) == "revoked"
        assert_problem(http.get("/v1/whoami"), 401, "key-refused")


def test_revoking_twice_keeps_the_first_time(database: Database) -> None:
    made, _ = Keys(database).create("team", ALL)
    first = Keys(database).revoke(made.id).revoked
    assert Keys(database).revoke(f"certes_{made.id}").revoked == first
    with pytest.raises(InputError) as caught:
        Keys(database).revoke("f" * 16)
    assert caught.value.slug == "unknown-key"


def test_an_unknown_key_is_not_repeated_when_it_cannot_be_revoked(database: Database) -> None:
    secret = "certes_" + "f" * 16 + "_" + "s" * 43
    with pytest.raises(InputError) as caught:
        Keys(database).revoke(secret)
    assert "s" * 43 not in str(caught.value)


def test_use_is_noted_once_a_minute(database: Database) -> None:
    keys = Keys(database)
    made, secret = keys.create("team", ALL)
    assert _row(database, made.id).used is None
    keys.authenticate(secret)
    first = _row(database, made.id).used
    assert first is not None
    keys.authenticate(secret)
    assert _row(database, made.id).used == first
    _set(database, made.id, used=first - 61)
    keys.authenticate(secret)
    assert _row(database, made.id).used >= first
    keys.authenticate(secret[:-1] + "!")
    assert _row(database, made.id).used >= first


def test_who_only_reads_is_served_by_a_database_that_cannot_be_written(database: Database) -> None:
    secret = Keys(database).create("team", ALL)[1]
    database.close()
    sa.event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = ON"))
    assert Keys(database).authenticate(secret) is not None


def test_a_lost_database_lets_nobody_in(tmp_path: Path) -> None:
    with gated(tmp_path, keys=True) as server:
        secret = server.key()
        with server.database.begin() as connection:
            connection.execute(sa.text("DROP TABLE sessions"))
            connection.execute(sa.text("DROP TABLE keys"))
        response = server.client(secret).get("/v1/whoami")
        assert_problem(response, 503, "storage")
        assert response.headers["retry-after"]
        assert_problem(server.client(cookies={"certes_session": "a" * 43}).get("/v1/whoami"), 503, "storage")
        assert server.client().get("/healthz").status_code == 200


# --- the public keys of signatures


def _certificate(private: bytes) -> Any:
    found = certes.certify(certes.RateNetwork(SMALL, "tanh"), condition="absolute").certificate
    assert found is not None
    return found.sign(private)


def test_rotation_keeps_old_certificates_verifiable(tmp_path: Path) -> None:
    old = _certificate(PRIVATE[0])
    with gated(tmp_path, signing_key=PRIVATE[0], keys=True) as server:
        only = server.client().get("/v1/keys").json()["keys"]
    assert [(entry["public"], entry["current"]) for entry in only] == [(PUBLIC[0], True)]
    with gated(tmp_path, signing_key=PRIVATE[1]) as server:
        listed = server.client().get("/v1/keys").json()["keys"]
    assert {entry["public"]: entry["current"] for entry in listed} == {PUBLIC[0]: False, PUBLIC[1]: True}
    signer = json.loads(old.document)["signatures"][0]["keyid"]
    public = next(entry["public"] for entry in listed if entry["keyid"] == signer)
    assert verify_certificate(old, SMALL, key=public.encode()).valid
    newer = next(entry["public"] for entry in listed if entry["current"])
    assert verify_certificate(old, SMALL, key=newer.encode()).reason == "untrusted-key"
    assert verify_certificate(_certificate(PRIVATE[1]), SMALL, key=newer.encode()).valid
    with gated(tmp_path) as server:
        assert not any(entry["current"] for entry in server.client().get("/v1/keys").json()["keys"])


def test_a_key_is_recorded_once(database: Database) -> None:
    threads = [threading.Thread(target=signing.record, args=(database, PRIVATE[0])) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(signing.recorded(database)) == 1
    assert b"PRIVATE" not in repr(signing.recorded(database)).encode()
    assert signing.record(database, None) is None


def test_a_list_that_somebody_has_changed(database: Database) -> None:
    signing.record(database, PRIVATE[0])
    with database.begin() as connection:
        connection.execute(sa.update(signing_keys).values(public=PUBLIC[1]))
    with pytest.raises(InputError, match="another public key"):
        signing.record(database, PRIVATE[0])


def test_the_list_answers_only_reading(server: Gated) -> None:
    assert server.client().get("/v1/keys").status_code == 200
    assert server.client("certes_nonsense").get("/v1/keys").status_code == 200, "nobody has to say who he is"
    assert_problem(server.client().post("/v1/keys"), 401, "key-required")


# --- the command line


def run(data: Path, *arguments: str) -> Any:
    return CliRunner().invoke(commands.keys, [*arguments, "--data", str(data)])


def test_commands(tmp_path: Path) -> None:
    created = run(tmp_path, "create", "--tenant", "Team A", "--name", "ci", "--scope", "train", "--scope", "certify")
    secret = created.stdout.strip()
    assert created.exit_code == 0
    assert re.fullmatch(r"certes_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", secret), "stdout is the key and nothing else"
    assert secret not in created.stderr
    listed = run(tmp_path, "list")
    assert "Team A" in listed.stdout
    assert "certify,train" in listed.stdout
    assert secret[-43:] not in listed.output
    with gated(tmp_path, keys=True) as server:
        assert server.client(secret).get("/v1/whoami").json()["caller"]["scopes"] == ["certify", "train"]
        assert run(tmp_path, "revoke", secret.split("_")[1]).exit_code == 0
        assert server.client(secret).get("/v1/whoami").status_code == 401
    assert "revoked" in run(tmp_path, "list", "--tenant", "Team A").stdout
    assert "Team A" not in run(tmp_path, "list", "--tenant", "Team B").stdout


def test_commands_as_json(tmp_path: Path) -> None:
    made = json.loads(run(tmp_path, "create", "--tenant", "a", "--expires-days", "1", "--json").stdout)
    assert made["scopes"] == ["certify", "project", "train"]
    assert made["key"].startswith(f"certes_{made['id']}_")
    assert made["expires"].endswith("Z")
    listed = json.loads(run(tmp_path, "list", "--json").stdout)["keys"]
    assert [(entry["id"], entry["state"], entry["used"]) for entry in listed] == [(made["id"], "valid", None)]
    assert "hash" not in listed[0]
    assert "key" not in listed[0]
    assert json.loads(run(tmp_path, "revoke", made["id"], "--json").stdout)["revoked"]
    limited = json.loads(run(tmp_path, "limit", "--tenant", "a", "--queue", "3", "--json").stdout)
    assert limited["limits"] == {"queue": 3}
    assert json.loads(run(tmp_path, "tenants", "--json").stdout)["tenants"][0]["limits"] == {"queue": 3}
    assert json.loads(run(tmp_path, "limit", "--tenant", "a", "--queue", "0", "--json").stdout)["limits"] == {}


def test_commands_say_what_is_wrong(tmp_path: Path) -> None:
    for arguments in (["create", "--tenant", "a", "--scope", "root"], ["revoke", "nothing"]):
        assert isinstance(run(tmp_path, *arguments).exception, InputError)
    assert run(tmp_path, "create").exit_code == 2


def test_a_client_that_follows_a_redirect_takes_no_key_along(server: Gated) -> None:
    """A login leads nowhere else, so no key can be sent there."""
    response = httpx.post(server.url + "/login", data={"key": server.key(), "next": "https://example.org/"})
    assert response.headers["location"] == "/"


# --- only the key that is meant


def test_revoking_one_key_leaves_the_others(database: Database) -> None:
    """Its sessions go, from the table too: a key that is put right by hand lets no old page in again."""
    keys = Keys(database)
    logins = Sessions(database, keys)
    (one, first), (_, second) = keys.create("team", ALL), keys.create("team", ALL)
    opened = [logins.open(secret) for secret in (first, second)]
    assert None not in opened
    keys.revoke(one.id)
    assert keys.authenticate(first) is None
    assert keys.authenticate(second) is not None
    with database.read() as connection:
        left = connection.execute(sa.select(sessions.c.hash)).scalars().all()
    assert left == [entry[0].hash for entry in opened[1:] if entry is not None]


def test_the_use_of_one_key_is_not_that_of_another(database: Database) -> None:
    keys = Keys(database)
    (_, secret), (other, _) = keys.create("team", ALL), keys.create("team", ALL)
    keys.authenticate(secret)
    assert _row(database, other.id).used is None


def test_use_is_written_once_a_minute(database: Database) -> None:
    """Reading does not become writing: within a minute no transaction is opened that may write."""
    keys = Keys(database)
    _, secret = keys.create("team", ALL)
    keys.authenticate(secret)
    asked: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *event: asked.append(event[2]))
    assert keys.authenticate(secret) is not None
    assert not any("UPDATE" in statement or "IMMEDIATE" in statement for statement in asked), asked


def test_expired_and_revoked_keys_are_none_that_somebody_could_use(database: Database) -> None:
    keys = Keys(database)
    assert not keys.usable()
    made, _ = keys.create("team", ALL)
    assert keys.usable()
    _set(database, made.id, expires=1.0)
    assert not keys.usable()
    keys.revoke(made.id)
    assert not keys.usable()
    keys.create("team", ALL)
    assert keys.usable()


def test_signing_keys_stay_newest_first(database: Database) -> None:
    for k, private in enumerate(PRIVATE[:2]):
        keyid = signing.record(database, private)
        with database.begin() as connection:
            connection.execute(sa.update(signing_keys).where(signing_keys.c.id == keyid).values(created=float(k)))
    assert [key.public for key in signing.recorded(database)] == [PUBLIC[1], PUBLIC[0]]
    signing.record(database, PRIVATE[0])
    assert [key.created for key in signing.recorded(database)] == [1.0, 0.0], "since when it first signed"
