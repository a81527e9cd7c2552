"""The embedded store: atomic, verified on read, nothing half-written whenever the process dies."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from certes_service.store import CorruptedError, StorageError, Store, sha256

DIGEST = sha256(b"statement")
ENVELOPE, PROOF = b'{"payload": "..."}' * 100, bytes(range(256)) * 50


def _files(root: Path, *, incoming: bool = False) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file() and (incoming or p.parent.name != "incoming"))


def test_round_trip_and_second_write(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.certificate(DIGEST) is None
    for _ in range(2):
        store.put_certificate(DIGEST, ENVELOPE, PROOF)
        found = Store(tmp_path).certificate(DIGEST)
        assert found is not None
        assert (found.envelope, found.proof) == (ENVELOPE, PROOF)
        assert len(_files(tmp_path, incoming=True)) == 3


@pytest.mark.parametrize("digest", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_digests_become_paths(tmp_path: Path, digest: str) -> None:
    store = Store(tmp_path)
    assert store.certificate(digest) is None
    with pytest.raises(StorageError):
        store.put_certificate(digest, ENVELOPE, PROOF)


def test_every_damaged_file_is_detected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_certificate(DIGEST, ENVELOPE, PROOF)
    for path in _files(tmp_path):
        original = path.read_bytes()
        for damaged in (original[:-1], original + b"x", bytes([original[0] ^ 1]) + original[1:], b""):
            path.write_bytes(damaged)
            with pytest.raises(CorruptedError):
                store.certificate(DIGEST)
        path.write_bytes(original)
        assert store.certificate(DIGEST) is not None


def test_missing_blob_is_detected_and_repaired_by_writing_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_certificate(DIGEST, ENVELOPE, PROOF)
    blob = next(p for p in _files(tmp_path) if p.name == sha256(PROOF))
    blob.unlink()
    with pytest.raises(CorruptedError, match="missing"):
        store.certificate(DIGEST)
    store.put_certificate(DIGEST, ENVELOPE, PROOF)
    assert store.certificate(DIGEST) is not None


def test_damaged_answer_is_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_answer(DIGEST, {"verdict": "undecided"})
    assert store.answer(DIGEST) == {"verdict": "undecided"}
    path = _files(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b"undecided", b"contracti"))
    assert store.answer(DIGEST) is None


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    store = Store(tmp_path)

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        monkeypatch.setattr("tempfile.mkstemp", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match="No space left"):
        store.put_certificate(DIGEST, ENVELOPE, PROOF)
    monkeypatch.undo()
    assert _files(tmp_path, incoming=True) == []
    assert store.certificate(DIGEST) is None
    store.put_certificate(DIGEST, ENVELOPE, PROOF)
    assert store.certificate(DIGEST) is not None


KILLED = """
import os, sys
from pathlib import Path
from certes_service import store
from tests.service.test_store import DIGEST, ENVELOPE, PROOF
left = int(sys.argv[2])
def dying(function):
    def call(*args, **kwargs):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return function(*args, **kwargs)
    return call
keep = store.Store(Path(sys.argv[1]))
for name in ("replace", "fsync", "fdopen"):
    setattr(os, name, dying(getattr(os, name)))
keep.put_certificate(DIGEST, ENVELOPE, PROOF)
"""


def test_killed_at_any_point_leaves_no_half_certificate(tmp_path: Path) -> None:
    outcomes = []
    for point in range(14):
        root = tmp_path / str(point)
        command = [sys.executable, "-c", KILLED, str(root), str(point)]
        done = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
        assert done.returncode in (0, 9), done.stderr.decode()
        found = Store(root).certificate(DIGEST)  # raises if anything is half-written
        assert found is None or (found.envelope, found.proof) == (ENVELOPE, PROOF)
        for path in _files(root / "blobs"):
            assert sha256(path.read_bytes()) == path.name
        outcomes.append((done.returncode, found is not None))
    assert outcomes[0] == (9, False)
    assert outcomes[-1] == (0, True)


def test_old_leftovers_are_removed_young_ones_stay(tmp_path: Path) -> None:
    Store(tmp_path)
    old, young = tmp_path / "incoming" / "w-old", tmp_path / "incoming" / "w-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    Store(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)


def test_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        Store(tmp_path / "file")
