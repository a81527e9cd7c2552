"""Back up a running service, lose everything, restore it elsewhere: every answer is as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes_service.storage.backup import MANIFEST

from tests.service.asking import SMALL, SPEC, post_file, weights
from tests.service.conftest import CERTES, Running, environment, running, settings_file
from tests.service.test_workers import ask, ended

Serve = Callable[..., Running]


def certes(*arguments: object, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = environment() if config is None else environment(CERTES_CONFIG=str(config))
    command = [*CERTES, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=120)


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


@pytest.mark.parametrize("change", CHANGES)
def test_a_backup_that_was_changed_is_refused(tmp_path: Path, saved: Path, change: str) -> None:
    shutil.copytree(saved, tmp_path / "copy")
    CHANGES[change](tmp_path / "copy")
    done = certes("storage", "restore", tmp_path / "copy", "--data", tmp_path / "new")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    new = tmp_path / "new" / "blobs"
    assert [path for path in new.rglob("*") if path.is_file() and len(path.name) == 64] == [], "nothing was changed"
    assert certes("storage", "restore", saved, "--data", tmp_path / "new").returncode == 0


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
