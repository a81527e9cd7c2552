"""Folders of solvers: those of a worker that was killed are swept by the next one, and nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from certes_service.solving import scratch

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="tells who owns a folder by /proc")
WORKER = """
import sys, time
from pathlib import Path
from certes_service.solving import scratch
from certes_service.solving.process import Process
made = Process(2**30, "")
(Path(made._scratch) / "checkpoint").write_bytes(b"x" * 1000)
print(made._scratch, flush=True)
time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@LINUX
def test_what_a_killed_worker_left_goes(temporary: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        left = Path(worker.stdout.readline().strip())
        assert left.parent == temporary
        assert scratch.sweep() == 0, "it lives"
        assert (left / "checkpoint").exists()
        worker.send_signal(signal.SIGKILL)
    assert left.exists(), "nobody cleaned up"
    assert scratch.sweep() == 1
    assert not left.exists()


@LINUX
def test_nothing_else_goes(temporary: Path) -> None:
    mine = Path(scratch.make() or "")
    place, pid, start = mine.name.removeprefix("certes-solver-").split("-")[:3]
    assert int(pid) == os.getpid()
    (temporary / "target").mkdir()
    (temporary / "target" / "kept").write_text("")
    gone = f"certes-solver-{place}-{2**31 - 5}-{start}-abc"
    (temporary / f"{gone}L").symlink_to(temporary / "target")
    (temporary / f"{gone}F").write_text("a file")
    others = ["certes-solver-abc", f"certes-solver-{'0' * 16}-{2**31 - 5}-{start}-abc", f"x{gone}",
              f"certes-solver-{place}-0-{start}-abc", f"certes-solver-{place}-{pid}-abc", f"{gone}.d"]  # fmt: skip
    for name in others:
        (temporary / name).mkdir(exist_ok=True)
    (temporary / gone).mkdir(exist_ok=True)
    reused = temporary / f"certes-solver-{place}-{pid}-{int(start) + 1}-abc"  # another process had our number
    reused.mkdir()
    stays = {path.name for path in temporary.iterdir()} - {gone, reused.name}
    assert mine.name in stays
    assert scratch.sweep() == 2
    assert {path.name for path in temporary.iterdir()} == stays
    assert (temporary / "target" / "kept").exists()


@LINUX
def test_of_another_user_nothing_goes(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = temporary / f"certes-solver-{scratch._place()}-{2**31 - 5}-1-abc"
    left.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert scratch.sweep() == 0
    assert left.exists()


def test_where_nothing_is_known_nothing_goes(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_place", lambda: None)
    made = Path(scratch.make() or "")
    assert made.is_dir()
    assert made.parent == temporary
    assert scratch.sweep() == 0
    monkeypatch.setenv("TMPDIR", str(temporary / "nowhere"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "nowhere"))
    assert scratch.make() is None
    assert scratch.sweep() == 0
