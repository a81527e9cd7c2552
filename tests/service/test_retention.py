"""Garbage goes; what a row names stays, whoever writes at the same moment. On SQLite and on PostgreSQL."""

from __future__ import annotations

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
from certes_service.storage.tables import metadata, tenants

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
