"""Back up a running service, lose everything, restore it elsewhere: every answer is as it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from certes.errors import InputError
from certes_service.jobs.board import Board, Wanted
from certes_service.storage.backup import FORMAT, MANIFEST, TABLES, backup, restore
from certes_service.storage.blobs import Blobs
from certes_service.storage.database import Database
from certes_service.storage.errors import CorruptedError, sha256
from certes_service.storage.tables import executors, idempotency, jobs, sessions, signing_keys
from certes_service.tenancy import signing
from certes_service.tenancy.callers import SCOPES
from certes_service.tenancy.keys import Keys
from certes_service.tenancy.sessions import Sessions

from tests.client.running import inside
from tests.service.asking import SMALL, SPEC, post_file, weights
from tests.service.conftest import Running, environment, running, settings_file
from tests.service.forked import completed
from tests.service.test_verifications import PRIVATE
from tests.service.test_workers import ask, ended

Serve = Callable[..., Running]


def certes(*arguments: object, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = environment() if config is None else environment(CERTES_CONFIG=str(config))
    return completed(arguments, env)


def filled(server: Running) -> dict[str, Any]:
    """Certificates, a projection, a job that is not done; what the service says of them."""
    with server.client() as http:
        answers = [post_file(http, weights(W=np.array(SMALL) * k)).json() for k in (1.0, 0.5, 40.0)]
        files = {"spec": (None, json.dumps(SPEC), "application/json"), "weights": ("w", weights(W=np.array(SMALL) * 9))}
        projected = http.post("/v1/projections", files=files, headers={"Prefer": "wait=30"}).json()
        http.patch(answers[0]["certificate"]["href"], json={"public": True})
        said: dict[str, Any] = {
            "certificates": http.get("/v1/certificates").json(),
            "keys": http.get("/v1/keys").json(),
        }
        for answer in (*answers, projected):
            for path in (answer["certificate"]["href"], answer["certificate"]["proof"]):
                said[path] = http.get(path).content
        said[projected["weights"]["href"]] = http.get(projected["weights"]["href"]).content
        said["job"] = ask(http, 1, 2.0)
    return said


def compare(server: Running, said: dict[str, Any]) -> None:
    with server.client() as http:
        for path, content in said.items():
            if path.startswith("/v1/") and isinstance(content, bytes):
                assert http.get(path).content == content, path
        kept = http.get("/v1/certificates").json()["certificates"]
        assert [entry for entry in said["certificates"]["certificates"] if entry not in kept] == []
        assert post_file(http, weights()).json()["cached"] is True
        found = ended(http, said["job"])
        assert found["state"] == "done", "what was under way begins anew"


@pytest.mark.slow
def test_backup_and_restore_on_another_disk(tmp_path: Path) -> None:
    with running(tmp_path / "old", solvers=1) as server:
        said = filled(server)
        done = certes("storage", "backup", tmp_path / "saved", "--data", server.data, "--json")
        assert done.returncode == 0, done.stderr
        saved = json.loads(done.stdout)
        assert saved["blobs"] > 8
    shutil.rmtree(tmp_path / "old")
    done = certes("storage", "restore", tmp_path / "saved", "--data", tmp_path / "new", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == saved
    with running(tmp_path / "new", solvers=1) as server:
        compare(server, said)
    again = certes("storage", "restore", tmp_path / "saved", "--data", tmp_path / "new")
    assert again.returncode == 2
    assert "nothing yet" in again.stderr


@pytest.mark.slow
def test_from_sqlite_to_postgresql(tmp_path: Path, postgres_url: str) -> None:
    with running(tmp_path / "old", solvers=1) as server:
        said = filled(server)
        assert certes("storage", "backup", tmp_path / "saved", "--data", server.data).returncode == 0
    file = settings_file(tmp_path / "new", database=postgres_url)
    done = certes("storage", "restore", tmp_path / "saved", config=file)
    assert done.returncode == 0, done.stderr
    with running(tmp_path / "new", database=postgres_url, solvers=1) as server:
        compare(server, said)
    assert certes("storage", "backup", tmp_path / "again", config=file).returncode == 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    with running(folder / "old") as server, server.client() as http:
        post_file(http, weights())
        done = certes("storage", "backup", folder / "backup", "--data", server.data)
        assert done.returncode == 0, done.stderr
    return folder / "backup"


def _first(folder: Path) -> Path:
    return sorted((folder / "blobs").glob("*/*/*"))[0]


def _link(folder: Path) -> None:
    """A blob that is somebody else's file."""
    target = folder / "blobs" / "x" / "ab" / ("ab" * 32)
    target.parent.mkdir(parents=True)
    target.symlink_to("/etc/passwd")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a row": lambda f: (f / "rows/certificates.jsonl").write_text(
        (f / "rows/certificates.jsonl").read_text().replace("network", "netw0rk")
    ),
    "no rows": lambda f: (f / "rows/jobs.jsonl").unlink(),
    "a blob": lambda f: _first(f).write_bytes(b"other"),
    "a blob is gone": lambda f: _first(f).unlink(),
    "a blob by another name": lambda f: _first(f).rename(_first(f).with_name("0" * 64)),
    "a link": _link,
    "the manifest": lambda f: (f / MANIFEST).write_text("{}"),
    "no manifest": lambda f: (f / MANIFEST).unlink(),
}  # fmt: skip


@pytest.mark.cases(4)
@pytest.mark.parametrize("change", CHANGES)
def test_a_backup_that_was_changed_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, saved: Path, change: str
) -> None:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    shutil.copytree(saved, tmp_path / "copy")
    CHANGES[change](tmp_path / "copy")
    done = inside(capsys, "storage", "restore", tmp_path / "copy", "--data", tmp_path / "new")
    assert done.code == 2, done.out + done.err
    assert "Traceback" not in done.err
    new = tmp_path / "new" / "blobs"
    assert [path for path in new.rglob("*") if path.is_file() and len(path.name) == 64] == [], "nothing was changed"
    assert inside(capsys, "storage", "restore", saved, "--data", tmp_path / "new").code == 0


@pytest.mark.slow
def test_a_damaged_service_has_no_backup(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server, server.client() as http:
        post_file(http, weights())
        blob = next(path for path in (server.data / "blobs").rglob("*") if len(path.name) == 64)
        blob.write_bytes(b"damaged")
        done = certes("storage", "backup", tmp_path / "saved", "--data", server.data)
        assert done.returncode != 0
        assert not (tmp_path / "saved" / MANIFEST).exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    done = certes("storage", "backup", tmp_path / "full", "--data", tmp_path / "data")
    assert done.returncode == 2
    assert "empty folder" in done.stderr


@pytest.mark.slow
def test_collect_as_a_command(tmp_path: Path) -> None:
    with running(tmp_path / "data", blob_grace_seconds=0.0) as server, server.client() as http:
        http.delete(post_file(http, weights()).json()["certificate"]["href"])
        file = tmp_path / "data.toml"
        done = certes("storage", "collect", "--json", config=file)
        assert json.loads(done.stdout)["blobs"] == 2, done.stderr
        assert "Thrown away" in certes("storage", "collect", config=file).stdout


# --- without a process


Place = tuple[Database, Blobs]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[[str], Place]]:
    """Opens an empty service in a folder of that name."""
    with ExitStack() as stack:

        def make(name: str) -> Place:
            database = Database(f"sqlite:///{tmp_path / name / 'certes.db'}")
            stack.callback(database.close)
            database.migrate()
            return database, Blobs(str(tmp_path / name / "blobs"))

        yield make


def lived_in(database: Database, blobs: Blobs) -> tuple[str, str]:
    """A key, a login, a signing key, a process, a job under way and one that waits; names of the jobs."""
    secret = Keys(database).create("team", frozenset(SCOPES))[1]
    assert Sessions(database, Keys(database)).open(secret) is not None
    signing.record(database, PRIVATE[0])
    board, found = Board(database), []
    for k, key in enumerate(("mine", None)):
        data = blobs.put("one", b"weights of %d" % k)
        found.append(board.open(Wanted("one", "training", f"{k}" * 64, {"parts": {}}, data, "net", key=key), 10)[0])
    taken = board.take(found[0].id, "worker")
    assert taken is not None
    board.note(taken, checkpoint=blobs.put("one", b"where it goes on"))
    with database.begin() as connection:
        beat = {"id": "worker", "host": "h", "pid": 1, "queues": "train", "version": "0", "started": 1.0, "beat": 1.0}
        connection.execute(sa.insert(executors).values(beat))
    return found[0].id, found[1].id


def rows(database: Database, table: sa.Table) -> list[dict[str, Any]]:
    with database.read() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def test_everything_comes_back_but_who_was_there(tmp_path: Path, place: Callable[[str], Place]) -> None:
    """Logins and signs of life are left out. What was under way waits again, with its checkpoint, and is nobody's."""
    (old, blobs), (new, others) = place("old"), place("new")
    running, waiting = lived_in(old, blobs)
    made = backup(old, blobs, tmp_path / "saved")
    assert made.blobs == 3
    assert restore(tmp_path / "saved", new, others) == made
    for table in TABLES:
        if table is not jobs:
            assert rows(new, table) == rows(old, table), table.name
            assert rows(new, table) or table.name in ("certificates", "answers"), table.name
    assert {table.name for table in TABLES} >= {signing_keys.name, idempotency.name}
    assert rows(new, sessions) == rows(new, executors) == []
    board = Board(new)
    for name in (running, waiting):
        was, now = Board(old).get(name), board.get(name)
        assert was is not None
        assert now is not None
        assert (now.state, now.owner, now.attempt, now.checkpoint) == ("queued", None, was.attempt, was.checkpoint)
    assert {row["dispatched"] for row in rows(new, jobs)} == {False}
    assert {(blob.tenant, blob.digest) for blob in others.walk()} == {(b.tenant, b.digest) for b in blobs.walk()}


def test_a_backup_is_for_its_owner_alone(tmp_path: Path, place: Callable[[str], Place]) -> None:
    folder = tmp_path / "saved"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    backup(*place("old"), folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_not_empty_stays_as_it_is(tmp_path: Path, place: Callable[[str], Place]) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "x").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        backup(*place("old"), folder)
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_a_service_that_keeps_something_takes_no_backup(tmp_path: Path, place: Callable[[str], Place]) -> None:
    old, new = place("old"), place("new")
    lived_in(*old)
    backup(*old, tmp_path / "saved")
    Keys(new[0]).create("other", frozenset(SCOPES))
    with pytest.raises(InputError, match="nothing yet"):
        restore(tmp_path / "saved", *new)
    assert list(new[1].walk()) == []


def test_a_backup_without_a_blob_is_none(tmp_path: Path, place: Callable[[str], Place]) -> None:
    """Also one that only a job names."""
    database, blobs = place("old")
    lived_in(database, blobs)
    blobs.remove("one", sha256(b"where it goes on"))
    with pytest.raises(CorruptedError, match="missing"):
        backup(database, blobs, tmp_path / "saved")
    assert not (tmp_path / "saved" / MANIFEST).exists()


def test_nothing_is_collected_meanwhile(
    tmp_path: Path, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    (old, blobs), (new, others) = place("old"), place("new")
    lived_in(old, blobs)
    alone: list[bool] = []

    def watched(database: Database, function: Any) -> Any:
        def call(*given: Any) -> Any:
            with database.sole_collector() as free:
                alone.append(free)
            return function(*given)

        return call

    monkeypatch.setattr(blobs, "get", watched(old, blobs.get))
    monkeypatch.setattr(others, "put", watched(new, others.put))
    backup(old, blobs, tmp_path / "saved")
    assert alone == [False] * 3
    restore(tmp_path / "saved", new, others)
    assert alone == [False] * 6


def _forge(folder: Path, table: str, change: Callable[[str], str]) -> None:
    """Change rows, and put the digest right: whoever can write a backup can do that too."""
    file, manifest = folder / "rows" / f"{table}.jsonl", json.loads((folder / MANIFEST).read_text())
    file.write_text(change(file.read_text()))
    manifest["tables"][table]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], object]:
    return lambda folder: (folder / MANIFEST).write_text(
        json.dumps(change(json.loads((folder / MANIFEST).read_text())))
    )


def _moved(folder: Path) -> None:
    """The blobs of one tenant in the folder of another."""
    (folder / "blobs" / "one").rename(folder / "blobs" / "two")


def _note(folder: Path) -> None:
    (folder / "blobs" / "one" / "ab").mkdir(exist_ok=True)
    (folder / "blobs" / "one" / "ab" / "notes").write_text("x")


def _elsewhere(folder: Path) -> None:
    """A blob that is a link to the same bytes, which somebody may change between two looks at them."""
    blob = sorted((folder / "blobs").glob("*/*/*"))[0]
    blob.rename(folder / "elsewhere")
    blob.symlink_to(folder / "elsewhere")


FORGED: dict[str, Callable[[Path], object]] = {
    "another format": _manifest(lambda said: said | {"format": "certes.backup/0"}),
    "no format": _manifest(lambda said: {name: value for name, value in said.items() if name != "format"}),
    "no tables": _manifest(lambda said: {"format": FORMAT}),
    "tables that are none": _manifest(lambda said: said | {"tables": []}),
    "a table that is none": _manifest(lambda said: said | {"tables": dict.fromkeys(said["tables"], 1)}),
    "a list": _manifest(lambda said: [said]),
    "a blob of another tenant": _moved,
    "a checkpoint that is not there": lambda f: _forge(
        f, "jobs", lambda text: text.replace(sha256(b"where it goes on"), "0" * 64)
    ),
    "weights that are not there": lambda f: _forge(
        f, "jobs", lambda text: text.replace(sha256(b"weights of 1"), "0" * 64)
    ),
    "no digest": lambda f: _forge(f, "jobs", lambda text: text.replace(sha256(b"weights of 1"), "../../x")),
    "a row that is no JSON": lambda f: _forge(f, "jobs", lambda text: text + "{\n"),
    "a row that is a list": lambda f: _forge(f, "jobs", lambda text: text + "[]\n"),
    "a row without columns": lambda f: _forge(f, "jobs", lambda text: text + "{}\n"),
    "a row with a column too many": lambda f: _forge(
        f, "tenants", lambda text: text.replace('{"id"', '{"root":1,"id"')
    ),
    "a row twice": lambda f: _forge(f, "tenants", lambda text: text * 2),
    "a key of no tenant": lambda f: _forge(f, "tenants", lambda _: ""),
    "a tenant that is a list": lambda f: _forge(f, "jobs", lambda text: text.replace('"one"', "[]")),
    "no text": lambda f: (f / MANIFEST).write_bytes(b"\xff"),
    "a note": _note,
    "a link to a blob": _elsewhere,
}


@pytest.mark.parametrize("change", FORGED)
def test_a_backup_that_was_forged_is_refused(tmp_path: Path, place: Callable[[str], Place], change: str) -> None:
    old, new = place("old"), place("new")
    lived_in(*old)
    backup(*old, tmp_path / "saved")
    FORGED[change](tmp_path / "saved")
    with pytest.raises(InputError) as caught:
        restore(tmp_path / "saved", *new)
    assert caught.value.field == "folder"
    if change not in ("a row twice", "a key of no tenant"):  # only the database finds these: what is left is garbage
        assert list(new[1].walk()) == []
    assert [row for table in TABLES for row in rows(new[0], table)] == []
