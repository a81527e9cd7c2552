"""Tenants: limits, room, queue; and that none sees anything of another, in the store or on the board."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certes
import pytest
import sqlalchemy as sa
from certes.errors import InputError, TooLargeError
from certes_service import problems
from certes_service.jobs.board import Board, Wanted
from certes_service.problems import Crowded
from certes_service.settings import Settings
from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.errors import CorruptedError
from certes_service.storage.store import Document, Store
from certes_service.storage.tables import tenants as table
from certes_service.tenancy.tenants import FRESH_SECONDS, Limits, Tenants, check_room

from tests.service.asking import SMALL

D = "d" * 64


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'certes.db'}")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "blobs"))


SETTINGS = Settings(queue=5, max_body_bytes=1000, tenant_bytes=100, requests_per_minute=9)


# --- limits


def test_limits(database: Database) -> None:
    tenants = Tenants(database, SETTINGS)
    one = tenants.change("one", {"queue": 2, "tenant_bytes": 7}).id
    assert tenants.limits_of(one) == Limits(9, 2, 1000, 7)
    assert tenants.queue_limit(one) == 2
    assert tenants.queue_limit("nobody") == 5
    assert tenants.change("one", {"queue": None}).limits == {"tenant_bytes": 7}
    assert tenants.queue_limit(one) == 5, "a change shows at once where it is made"
    assert [entry.name for entry in tenants.list()] == ["one"]


def test_other_processes_follow_within_seconds(database: Database) -> None:
    now = [0.0]
    here, there = Tenants(database, SETTINGS), Tenants(database, SETTINGS, clock=lambda: now[0])
    one = here.change("one", {"queue": 2}).id
    assert there.queue_limit(one) == 2
    here.change("one", {"queue": 3})
    now[0] = FRESH_SECONDS - 0.1
    assert there.queue_limit(one) == 2
    now[0] = FRESH_SECONDS
    assert there.queue_limit(one) == 3


@pytest.mark.parametrize(
    ("limits", "field"), [({"x": 1}, "limits"), ({"queue": 0}, "queue"), ({"queue": 2**63}, "queue")]
)
def test_impossible_limits(database: Database, limits: dict[str, int | None], field: str) -> None:
    with pytest.raises(InputError) as caught:
        Tenants(database, SETTINGS).change("one", limits)
    assert caught.value.field == field
    assert Tenants(database, SETTINGS).list() == ()


@pytest.mark.parametrize(
    "text", ["", "[1]", "null", "{", '{"queue": "2"}', '{"queue": -1}', '{"queue": true}', '{"x": 1}']
)
def test_limits_that_somebody_has_garbled(database: Database, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """The service's own apply, and the log says so: never none."""
    tenants = Tenants(database, SETTINGS)
    one = tenants.change("one", {}).id
    with database.begin() as connection:
        connection.execute(sa.update(table).where(table.c.id == one).values(limits=text))
    assert Tenants(database, SETTINGS).limits_of(one) == Limits(9, 5, 1000, 100)
    assert "cannot be read" in caplog.text


# --- room


def test_room(database: Database, blobs: Blobs) -> None:
    tenants = Tenants(database, SETTINGS)
    one, two = tenants.change("one", {}).id, tenants.change("two", {"tenant_bytes": 10}).id
    check_room(blobs, tenants, one, 100)
    blobs.put(one, b"x" * 60)
    check_room(blobs, tenants, one, 40)
    with pytest.raises(TooLargeError) as caught:
        check_room(blobs, tenants, one, 41)
    found = problems.members(caught.value)
    assert (found["status"], found["limit"], found["type"]) == (413, 100, "urn:certes:error:too-large")
    assert "60 bytes" in found["detail"]
    check_room(blobs, tenants, two, 10)
    with pytest.raises(TooLargeError):
        check_room(blobs, tenants, two, 11)


# --- none sees anything of another


def _kept(store: Store, tenant: str) -> str:
    certificate = certes.certify(certes.RateNetwork(SMALL, "tanh"), condition="absolute").certificate
    assert certificate is not None
    rows = store.stage(tenant, [Document(certificate.digest, "network", certificate.document, certificate.proof)])
    with store.database.begin() as connection:
        store.enter(connection, tenant, rows, D, {"verdict": "contracting"})
    return str(certificate.digest)


def test_certificates_and_answers_of_another(database: Database, blobs: Blobs) -> None:
    store = Store(database, blobs)
    digest = _kept(store, "one")
    assert store.certificate("one", digest) is not None
    assert store.answer("one", D) is not None
    assert store.certificate("two", digest) is None
    assert store.answer("two", D) is None
    assert store.weights("two", digest) is None
    assert store.list("two") == []
    assert not store.publish("two", digest, True)
    assert not store.remove("two", digest)
    assert store.public(digest) is None
    assert store.publish("one", digest, True)
    shown = store.public(digest)
    assert shown is not None
    assert shown[0] == "one"
    assert store.certificate("two", digest) is None, "public is for the links, not for another's list"


def test_the_same_bytes_are_kept_twice(blobs: Blobs) -> None:
    digest = blobs.put("one", b"same")
    assert blobs.get("two", digest) is None
    assert blobs.put("two", b"same") == digest
    blobs.remove("one", digest)
    assert blobs.get("two", digest) == b"same"


@pytest.mark.parametrize("tenant", ["..", "../one", "a/b", "", ".incoming", "a\x00"])
def test_tenants_that_would_leave_their_folder(blobs: Blobs, tenant: str) -> None:
    with pytest.raises(CorruptedError):
        blobs.put(tenant, b"x")


def _wanted(tenant: str, question: str = D, key: str | None = None) -> Wanted:
    return Wanted(tenant, "certificate", question, {}, None, "w", key=key)


def test_jobs_of_another(database: Database) -> None:
    board = Board(database)
    mine, new = board.open(_wanted("one", key="k"), 2)
    theirs, theirs_new = board.open(_wanted("two", key="k"), 2)
    assert new
    assert theirs_new
    assert mine.id != theirs.id, "the same question of another is another job"
    assert board.get(mine.id, "two") is None
    assert [job.id for job in board.page("two")] == [theirs.id]
    assert board.cancel(mine.id, "two") is None
    found = board.get(mine.id, "one")
    assert found is not None
    assert found.state == "queued"
    kept: Any = board.keyed("two", "k", D)
    assert kept.id == theirs.id


def test_the_queue_of_one_does_not_fill_that_of_another(database: Database) -> None:
    board, tenants = Board(database), Tenants(database, SETTINGS)
    one = tenants.change("one", {"queue": 1}).id
    board.open(_wanted(one), tenants.queue_limit(one))
    with pytest.raises(Crowded):
        board.open(_wanted(one, "e" * 64), tenants.queue_limit(one))
    board.open(_wanted("two", "e" * 64), tenants.queue_limit("two"))


def test_a_change_is_for_one_tenant(database: Database) -> None:
    tenants = Tenants(database, SETTINGS)
    one, two = (tenants.change(name, {"queue": k}).id for k, name in ((2, "one"), (3, "two")))
    tenants.change("two", {"tenant_bytes": 7})
    fresh = Tenants(database, SETTINGS)
    assert (fresh.limits_of(one), fresh.limits_of(two)) == (Limits(9, 2, 1000, 100), Limits(9, 3, 1000, 7))
