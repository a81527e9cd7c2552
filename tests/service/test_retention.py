"""Garbage goes; what a row names stays, whoever writes at the same moment. On SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from certes_service.jobs.board import Board, Wanted
from certes_service.questions import certificates as questions
from certes_service.questions.signing import finished
from certes_service.settings import Settings
from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.retention import NAMING, collect
from certes_service.storage.store import Document, Store
from certes_service.storage.tables import answers, idempotency, jobs, keys, metadata, sessions, tenants

from tests.service.asking import SPEC, weights


@dataclass
class Kept:
    """Storage, and settings under which everything old is garbage at once."""

    database: Database
    blobs: Blobs
    store: Store
    settings: Settings

    def collect(self, **more: Any) -> Any:
        return collect(self.database, self.blobs, self.settings, **more)


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    settings = Settings(data=tmp_path, database=url, blob_grace_seconds=0.0)
    database = Database(settings.database_url)
    database.migrate()
    blobs = Blobs(settings.blobs_url)
    yield Kept(database, blobs, Store(database, blobs), settings)
    database.close()


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    """Certificates of ten networks."""
    found = []
    for k in range(10):
        question = questions.question(dict(SPEC), weights(W=[[0.05 * k + 0.1]]), "net.safetensors")
        from certes_service.questions.base import Context, Limits

        found += finished(question.solve(Context(Limits.of(Settings()), 60.0)), None).documents
    return found


def enter(kept: Kept, document: Document, tenant: str = "one") -> None:
    rows = kept.store.stage(tenant, [document])
    with kept.database.begin() as connection:
        kept.store.enter(connection, tenant, rows)


def test_what_nothing_names_goes_and_what_is_named_stays(kept: Kept, documents: list[Document]) -> None:
    enter(kept, documents[0])
    orphan = kept.blobs.put("one", b"nobody names me")
    time.sleep(0.05)
    done = kept.collect()
    assert (done.blobs, done.bytes) == (1, 15)
    assert kept.blobs.get("one", orphan) is None
    assert kept.store.certificate("one", documents[0].digest) is not None
    assert kept.store.remove("one", documents[0].digest)
    time.sleep(0.05)
    assert kept.collect().blobs == 2
    assert list(kept.blobs.walk()) == []


def test_the_grace_is_kept(kept: Kept) -> None:
    """What was just written may be about to be named."""
    kept.settings = kept.settings.model_copy(update={"blob_grace_seconds": 600.0})
    young = kept.blobs.put("one", b"young")
    assert kept.collect().blobs == 0
    assert kept.blobs.get("one", young) is not None


def test_another_tenants_name_keeps_only_his_own(kept: Kept, documents: list[Document]) -> None:
    for tenant in ("one", "two"):
        enter(kept, documents[1], tenant)
    kept.store.remove("one", documents[1].digest)
    time.sleep(0.05)
    assert kept.collect().blobs == 2
    assert kept.store.certificate("two", documents[1].digest) is not None
    assert {blob.tenant for blob in kept.blobs.walk()} == {"two"}


def test_blobs_of_living_jobs_stay_and_old_jobs_go(kept: Kept) -> None:
    board = Board(kept.database)
    data = kept.blobs.put("one", b"weights of a question")
    job, _ = board.open(Wanted("one", "certificate", "q" * 64, {"parts": {}}, data, "net"), 10)
    time.sleep(0.05)
    assert kept.collect().blobs == 0
    board.cancel(job.id, "one")
    assert kept.collect().jobs == 0, "it ended just now"
    with kept.database.read() as connection:
        later = kept.database.now(connection) + 86400.0 * (kept.settings.job_days + 1)
    done = kept.collect(now=later)
    assert (done.jobs, done.blobs) == (1, 1)


def test_every_column_of_digests_is_known_to_the_collector() -> None:
    """A new column that names blobs has to be in the list, or its blobs are garbage."""
    suspects = {
        column
        for table in metadata.sorted_tables
        for column in table.columns
        if column.name in ("envelope", "proof", "weights", "checkpoint", "data", "blob")
    }
    assert suspects == set(NAMING)


@pytest.mark.cases(1)
def test_nothing_is_lost_while_others_write(kept: Kept, documents: list[Document]) -> None:
    """Writers stage, wait, and enter while collectors run all the time with no grace at all."""
    over, failures = threading.Event(), list[str]()
    collected = [0]

    def collecting() -> None:
        while not over.is_set():
            collected[0] += kept.collect().blobs

    def writing(tenant: str) -> None:
        for _ in range(4):
            for document in documents:
                rows = kept.store.stage(tenant, [document])
                time.sleep(0.003)
                with kept.database.begin() as connection:
                    kept.store.enter(connection, tenant, rows)
                if kept.store.certificate(tenant, document.digest) is None:
                    failures.append(document.digest)
                kept.store.remove(tenant, document.digest)

    collectors = [threading.Thread(target=collecting) for _ in range(2)]
    writers = [threading.Thread(target=writing, args=(tenant,)) for tenant in ("one", "two")]
    for thread in (*collectors, *writers):
        thread.start()
    for thread in writers:
        thread.join(120)
    over.set()
    for thread in collectors:
        thread.join(60)
    assert failures == []
    assert collected[0] > 0, "the collectors had something to do"


def test_a_backup_holds_collectors_off(kept: Kept) -> None:
    kept.blobs.put("one", b"garbage")
    with kept.database.keeping():
        assert kept.collect().alone is False
    time.sleep(0.05)
    assert kept.collect().blobs == 1


def test_tables_are_empty_of_surprises(kept: Kept) -> None:
    """A collection of nothing changes nothing."""
    with kept.database.read() as connection:
        before = connection.execute(sa.select(sa.func.count()).select_from(tenants)).scalar()
    done = kept.collect()
    assert (done.jobs, done.answers, done.blobs, done.sessions) == (0, 0, 0, 0)
    with kept.database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tenants)).scalar() == before


def later(kept: Kept, days: float) -> float:
    """The database's time in so many days."""
    with kept.database.read() as connection:
        return kept.database.now(connection) + days * 86400.0


def insert(kept: Kept, table: sa.Table, *rows: dict[str, Any]) -> None:
    with kept.database.begin() as connection:
        connection.execute(sa.insert(table), list(rows))


def left(kept: Kept, column: sa.Column[Any]) -> set[Any]:
    with kept.database.read() as connection:
        return set(connection.execute(sa.select(column)).scalars())


def test_a_job_is_as_old_as_its_end(kept: Kept) -> None:
    """Whatever it came to; and one that is alive is kept however old it is."""
    board, now = Board(kept.database), later(kept, 0.0)
    kept.settings = kept.settings.model_copy(update={"job_days": 5.0})
    made = {}
    for k, state in enumerate(("queued", "running", "done", "failed", "cancelled")):
        job, _ = board.open(Wanted("one", "certificate", f"{k}" * 64, {}, None, "net"), 10)
        ended = None if state in ("queued", "running") else now
        made[job.id] = state
        with kept.database.begin() as connection:
            change = sa.update(jobs).where(jobs.c.id == job.id)
            connection.execute(change.values(state=state, created=now - 40 * 86400.0, finished=ended))
    assert kept.collect(now=later(kept, 4.9)).jobs == 0
    assert kept.collect(now=later(kept, 5.1)).jobs == 3
    assert {made[job] for job in left(kept, jobs.c.id)} == {"queued", "running"}


def test_answers_are_remembered_for_their_days(kept: Kept) -> None:
    kept.settings = kept.settings.model_copy(update={"answer_days": 5.0})
    now = later(kept, 0.0)
    row = {"tenant": "one", "answer": "{}"}
    insert(kept, answers, *({**row, "question": f"{k}" * 64, "created": now - k * 86400.0} for k in (1, 4, 6)))
    assert kept.collect().answers == 1
    assert left(kept, answers.c.question) == {"1" * 64, "4" * 64}


def test_idempotency_keys_last_two_days_and_as_long_as_their_job(kept: Kept) -> None:
    board, now = Board(kept.database), later(kept, 0.0)
    found = [board.open(Wanted("one", "certificate", f"{k}" * 64, {}, None, "net"), 10)[0].id for k in range(3)]
    board.cancel(found[1], "one")
    board.cancel(found[2], "one")
    rows = [("alive", found[0], 3.0), ("ended", found[1], 3.0), ("young", found[2], 1.0), ("gone", "0" * 32, 3.0)]
    insert(kept, idempotency, *(
        {"tenant": "one", "key": key, "question": "d" * 64, "job": job, "created": now - days * 86400.0}
        for key, job, days in rows
    ))  # fmt: skip
    assert kept.collect().idempotency == 2
    assert left(kept, idempotency.c.key) == {"alive", "young"}


def test_sessions_go_when_they_are_over(kept: Kept) -> None:
    now = later(kept, 0.0)
    insert(kept, tenants, {"id": "one", "name": "one", "created": now})
    key = {"id": "0" * 16, "tenant": "one", "name": "", "hash": "a" * 64, "scopes": "certify", "created": now}
    insert(kept, keys, key)
    row = {"key": "0" * 16, "csrf": "x", "created": now}
    insert(
        kept, sessions, {**row, "hash": "b" * 64, "expires": now - 1}, {**row, "hash": "c" * 64, "expires": now + 60}
    )
    assert kept.collect().sessions == 1
    assert left(kept, sessions.c.hash) == {"c" * 64}


def test_more_than_a_batch_goes(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certes_service.storage.retention._BATCH", 3)
    row = {"tenant": "one", "answer": "{}", "created": 1.0}
    insert(kept, answers, *({**row, "question": f"{k:064d}"} for k in range(8)))
    for k in range(7):
        kept.blobs.put("one", bytes([k]))
    time.sleep(0.05)
    done = kept.collect()
    assert (done.answers, done.blobs) == (8, 7)
    assert left(kept, answers.c.question) == set()


def test_what_is_written_again_while_it_is_looked_at_stays(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or named: both are looked at once more just before it goes."""
    kept.settings = kept.settings.model_copy(update={"blob_grace_seconds": 0.3})
    board = Board(kept.database)
    again, named = kept.blobs.put("one", b"again"), kept.blobs.put("one", b"named")
    time.sleep(0.4)
    look = kept.database.collecting

    def meanwhile(connection: sa.Connection) -> bool:
        kept.blobs.put("one", b"again")
        values = {"weights": named, "id": "0" * 32, "tenant": "one", "kind": "certificate", "queue": "solve"}
        values |= {"question": "d" * 64, "request": "{}", "name": "net", "state": "queued", "created": 1.0}
        connection.execute(sa.insert(jobs).values(**values))
        return look(connection)

    monkeypatch.setattr(kept.database, "collecting", meanwhile)
    assert kept.collect().blobs == 0
    assert kept.blobs.missing("one", (again, named)) == set()
    assert board.get("0" * 32) is not None


def test_nothing_goes_while_somebody_names_blobs_all_the_time(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    garbage = kept.blobs.put("one", b"garbage")
    time.sleep(0.05)
    monkeypatch.setattr(kept.database, "collecting", lambda _: False)
    assert kept.collect().blobs == 0
    assert kept.blobs.has("one", garbage)


def test_what_killed_writers_left_goes_too(kept: Kept) -> None:
    left_over = kept.settings.data / "blobs" / ".incoming" / "w-old"
    left_over.write_bytes(b"half")
    os.utime(left_over, (1, 1))
    kept.collect()
    assert not left_over.exists()
