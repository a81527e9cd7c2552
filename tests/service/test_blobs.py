"""Blobs in a directory and in a real S3 server: what is read is what was written, or an error; never half of it."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from certes_service.storage.blobs import Blobs
from certes_service.storage.errors import CorruptedError, StorageError, sha256
from certes_service.tenancy.callers import LOCAL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.asking import assert_problem, post_file, weights
from tests.service.conftest import Running, environment

DATA = bytes(range(256)) * 40
Make = Callable[[], Blobs]


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """A real server of the S3 protocol on loopback; the options that reach it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    import s3fs

    s3fs.S3FileSystem(**options, skip_instance_cache=True).mkdir("bucket")
    yield options
    server.stop()


@pytest.fixture(params=["directory", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Opens the same place again and again, as several processes would."""
    if request.param == "directory":
        return lambda: Blobs(str(tmp_path / "blobs"))
    options = request.getfixturevalue("s3")
    return lambda: Blobs(f"s3://bucket/{tmp_path.name}", options)


def spoil(blobs: Blobs, tenant: str, digest: str, data: bytes) -> None:
    """Other bytes under the name."""
    blobs.place.write(f"{tenant}/{digest[:2]}/{digest}", data)


@given(data=st.binary(max_size=2000))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_what_was_written(make: Make, data: bytes) -> None:
    digest = make().put("one", data)
    assert digest == hashlib.sha256(data).hexdigest()
    again = make()
    assert again.get("one", digest) == data
    assert again.get("two", digest) is None, "tenants share nothing"
    assert again.put("one", data) == digest
    assert again.missing("one", {digest, "0" * 64}) == {"0" * 64}


@pytest.mark.parametrize("change", ["cut", "longer", "flipped", "empty", "another"])
def test_other_bytes_are_never_handed_out(make: Make, change: str) -> None:
    blobs = make()
    digest = blobs.put("one", DATA)
    changed = {
        "cut": DATA[:-1], "longer": DATA + b"x", "flipped": bytes([DATA[0] ^ 1]) + DATA[1:], "empty": b"",
        "another": b"other",
    }[change]  # fmt: skip
    spoil(blobs, "one", digest, changed)
    with pytest.raises(CorruptedError):
        make().get("one", digest)
    blobs.put("one", DATA)
    assert make().get("one", digest) == DATA, "written anew, it is whole again"


@pytest.mark.parametrize("bad", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n", "0" * 64 + "/x"])
def test_only_digests_and_tenants_become_names(make: Make, bad: str) -> None:
    blobs = make()
    with pytest.raises(StorageError):
        blobs.get("one", bad)
    for tenant in ("..", "", "a/b", "a" * 65, ".hidden"):
        with pytest.raises(StorageError):
            blobs.put(tenant, DATA)


def test_walking_removing_and_sizes(make: Make) -> None:
    blobs = make()
    digests = {tenant: {blobs.put(tenant, f"{tenant}{k}".encode() * 10) for k in range(3)} for tenant in ("a", "b")}
    found = list(make().walk())
    assert {(blob.tenant, blob.digest) for blob in found} == {(t, d) for t, all in digests.items() for d in all}
    assert all(-5 < blob.age_seconds < 60 for blob in found)
    assert make().size("a") == sum(blob.size for blob in found if blob.tenant == "a")
    gone = digests["a"].pop()
    blobs.remove("a", gone)
    blobs.remove("a", gone)
    assert make().get("a", gone) is None
    blobs.check()
    blobs.sweep()


def test_many_writers_of_the_same_bytes(make: Make) -> None:
    blobs = make()
    with ThreadPoolExecutor(8) as pool:
        assert {pool.submit(blobs.put, "one", DATA).result() for _ in range(24)} == {sha256(DATA)}
    assert make().get("one", sha256(DATA)) == DATA


def test_a_bucket_that_is_not_there(s3: dict[str, Any]) -> None:
    blobs = Blobs("s3://nothing/here", s3)
    with pytest.raises(StorageError):
        blobs.put("one", DATA)
    with pytest.raises(StorageError):
        blobs.check()


@pytest.mark.slow
def test_an_s3_server_that_is_away() -> None:
    options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}
    blobs = Blobs("s3://bucket/x", options)
    for call in (lambda: blobs.put("one", DATA), lambda: blobs.get("one", sha256(DATA)), blobs.check):
        with pytest.raises(StorageError) as caught:
            call()
        assert "127.0.0.1" not in str(caught.value), "callers are told nothing of the inside"


@pytest.mark.parametrize("call", ["mkstemp", "fsync", "replace"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    blobs = Blobs(str(tmp_path))

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp" if call == "mkstemp" else f"os.{call}", full)
    with pytest.raises(StorageError, match="No space left"):
        blobs.put("one", DATA)
    monkeypatch.undo()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert blobs.get("one", blobs.put("one", DATA)) == DATA


LIMITED = """
import resource, sys
from certes_service.storage.blobs import Blobs
from certes_service.storage.errors import StorageError
blobs = Blobs(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    blobs.put("one", bytes(5000))
except StorageError as error:
    print("refused:", error)
"""


def test_the_kernel_refuses_a_large_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused:")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


KILLED = """
import os, sys
from certes_service.storage.blobs import Blobs
from tests.service.test_blobs import DATA
left = int(sys.argv[2])
def dying(function):
    def call(*args, **kwargs):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return function(*args, **kwargs)
    return call
blobs = Blobs(sys.argv[1])
for name in ("replace", "fsync", "fdopen"):
    setattr(os, name, dying(getattr(os, name)))
blobs.put("one", DATA)
"""


@pytest.mark.slow
def test_killed_at_any_point_leaves_all_or_nothing(tmp_path: Path) -> None:
    outcomes = []
    for point in range(8):
        root = tmp_path / str(point)
        command = [sys.executable, "-c", KILLED, str(root), str(point)]
        done = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
        assert done.returncode in (0, 9), done.stderr.decode()
        blobs = Blobs(str(root))
        found = blobs.get("one", sha256(DATA))
        assert found in (None, DATA)
        assert blobs.put("one", DATA) == sha256(DATA)
        assert blobs.get("one", sha256(DATA)) == DATA
        outcomes.append((done.returncode, found is not None))
    assert outcomes[0] == (9, False)
    assert outcomes[-1] == (0, True)


WRITER = """
import sys
from certes_service.storage.blobs import Blobs
blobs = Blobs(sys.argv[1])
print("ready", flush=True)
while True:
    for k in range(50):
        blobs.put("one", bytes([k]) * 200_000)
"""


def test_a_writer_killed_in_the_middle(tmp_path: Path) -> None:
    for wait in (0.02, 0.05, 0.11):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait(20)
        writer.stdout.close()
        blobs = Blobs(str(tmp_path))
        for blob in blobs.walk():
            assert blobs.get(blob.tenant, blob.digest) is not None  # raises if it is not whole


def test_old_left_overs_are_swept_and_young_ones_stay(tmp_path: Path) -> None:
    Blobs(str(tmp_path))
    old, young = tmp_path / ".incoming" / "w-old", tmp_path / ".incoming" / "w-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    Blobs(str(tmp_path))
    assert (old.exists(), young.exists()) == (False, True)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        Blobs(str(tmp_path / "file"))


def test_the_service_over_s3(serve: Callable[..., Running], s3: dict[str, Any]) -> None:
    server = serve(blobs="s3://bucket/service", **_as_settings(s3))
    with server.client() as http:
        link = post_file(http, weights()).json()["certificate"]
        assert http.get(link["href"]).status_code == 200
        assert post_file(http, weights()).json()["cached"] is True
        assert http.get("/readyz").status_code == 200
    blobs = Blobs("s3://bucket/service", s3)
    kept = [blob for blob in blobs.walk() if blob.tenant == LOCAL.tenant]
    assert len(kept) == 3
    for blob in kept:
        spoil(blobs, blob.tenant, blob.digest, b"spoiled")
    with server.client() as http:
        assert_problem(http.get(link["href"]), 503, "storage")


def _as_settings(options: dict[str, Any]) -> dict[str, Any]:
    """For the environment of the service: mappings have no common spelling in TOML and JSON."""
    import json

    return {"env": {"CERTES_BLOB_OPTIONS": json.dumps(options)}}


def test_room_is_counted_at_once_and_anew_each_minute(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on what a tenant keeps is one also for who writes quickly."""
    clock = [100.0]
    monkeypatch.setattr("certes_service.storage.blobs.time.monotonic", lambda: clock[0])
    here, there = make(), make()
    assert here.size("one") == 0
    digest = here.put("one", b"x" * 60)
    here.put("one", b"x" * 60)
    here.put("two", b"x" * 7)
    assert (here.size("one"), here.size("two")) == (60, 7), "the same bytes count once, another's not at all"
    there.put("one", b"y" * 40)
    clock[0] += 59.0
    assert here.size("one") == 60
    here.put("one", b"z")
    clock[0] += 2.0
    assert here.size("one") == 101, "a minute since it was counted, not since it grew"
    here.remove("one", digest)
    assert here.size("one") == 41


def test_what_is_no_blob_is_not_found(tmp_path: Path) -> None:
    """So no collector touches it."""
    blobs = Blobs(str(tmp_path))
    digest = blobs.put("one", DATA)
    for name in (f"one/{digest}", f"one/00/{digest}", "one/00/notes", ".hidden/ab/" + "ab" * 32, "a b/ab/" + "ab" * 32):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert [(blob.tenant, blob.digest) for blob in blobs.walk()] == [("one", digest)]
