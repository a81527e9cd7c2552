"""The child process that reads a file: however it ends, the answer is a refusal in plain words."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from certes import formats
from certes.errors import InputError, MissingExtraError
from certes.formats import sandbox
from certes.weights import Limits

SLEEPER = """
import os, resource, signal, sys, time
def prepare(): pass
def read(stream, folder, limits):
    {}
"""


@pytest.fixture
def acting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A reader that misbehaves, in a real child: its module lies in a folder that the child finds first."""

    def act(code: str) -> InputError:
        room = tmp_path / "certes" / "formats"
        if not room.exists():
            room.parent.mkdir()
            real = Path(formats.__file__).parents[1]
            for entry in real.iterdir():
                if entry.name not in ("formats", "__pycache__"):
                    (room.parent / entry.name).symlink_to(entry)
            room.mkdir()
            for entry in (real / "formats").glob("*.py"):
                (room / entry.name).symlink_to(entry)
        (room / "acting.py").write_text(SLEEPER.format(code))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(sandbox, "SECONDS", 8.0)
        monkeypatch.setattr(sandbox, "PROCESSOR_SECONDS", 1)
        path = tmp_path / "file"
        path.write_bytes(b"")
        with path.open("rb") as stream, pytest.raises(InputError) as refused:
            sandbox.convert(sandbox.Reader("acting", "a file", "numpy", "train"), stream, tmp_path, Limits())
        return refused.value

    return act


@pytest.mark.cases(4)
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("\n    while True: pass", "too long"),
        ("os.kill(os.getpid(), signal.SIGKILL)", f"signal {signal.SIGKILL.value}"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", f"signal {signal.SIGSEGV.value}"),
        ("bytearray(4 * 2**30)", "more memory"),
        ("return", "AttributeError"),
        ("print('x' * 10**6); sys.stdout.flush(); raise KeyError(3)", "KeyError: 3"),
        ("open('big', 'wb').truncate(4 * 2**30)", "File too large"),
        ("os._exit(7)", "exit code 7"),
        ("os._exit(0)", "nothing was read"),
        ("assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0); raise ValueError('limited')", "limited"),
        ("raise ValueError(sorted(k for k in os.environ if 'SECRET' in k))", r"ValueError: \[\]"),
        ("open('/proc/self/fd/0').read(); raise RecursionError()", "more memory"),
    ],
)
def test_a_child_that_ends_badly_is_a_refusal(
    acting: Any, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setenv("MY_SECRET", "hidden")
    error = acting(code)
    assert error.slug == "unreadable"
    assert re.search(words, str(error)), str(error)


def test_a_child_that_sleeps_is_ended(acting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = sandbox._run
    monkeypatch.setattr(sandbox, "_run", lambda task, stream, private, seconds: wait(task, stream, private, 1.5))
    assert "too long" in str(acting("time.sleep(60)"))


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, extra in (("torch", "train"), ("onnx", "onnx"), ("h5py", "keras")):
        monkeypatch.setitem(sys.modules, name, None)
        path = tmp_path / {"torch": "n.pt", "onnx": "n.onnx", "h5py": "n.h5"}[name]
        path.write_bytes(b"0")
        with pytest.raises(MissingExtraError, match=rf"certes\[{extra}\]"):
            formats.read(path)
