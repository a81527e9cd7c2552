"""The fixed exit codes, as a shell sees them. A crash is never 1."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from certes_client import certifying
from certes_client.output import Progress

from tests.client.running import RATE, ROTATION, UNSTABLE, inside, network, process

Capture = pytest.CaptureFixture[str]

CRASH = "import certes_client.certifying as c\ndef boom(*a, **k): raise {error}\nc.certify = boom"
SLOW = """
import time, certes_client.certifying as c
real = c.certify
def slow(*a, progress=None, **k):
    progress("thinking")
    time.sleep(2)
    return real(*a, progress=progress, **k)
c.certify = slow
"""
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"fastapi", "uvicorn", "starlette"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


def test_certify_then_verify(capsys: Capture, tmp_path: Path) -> None:
    net = network(tmp_path)
    done = process("certify", net, *RATE, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    certificate = done.json["certificate"]["path"]
    assert process("verify", certificate, "--weights", net).code == 0
    other = network(tmp_path, UNSTABLE, "other.safetensors")
    assert process("verify", certificate, "--weights", other).code == 1
    assert inside(capsys, "verify", tmp_path / "none", "--weights", net).code == 2


def test_not_contracting_and_undecided(capsys: Capture, tmp_path: Path) -> None:
    assert inside(capsys, "certify", network(tmp_path, UNSTABLE), *RATE, "--out", tmp_path).code == 1
    assert process("certify", network(tmp_path, ROTATION), *RATE, cwd=tmp_path).code == 3


def test_bad_input(capsys: Capture, tmp_path: Path) -> None:
    assert process("certify", tmp_path / "none", *RATE).code == 2
    assert inside(capsys, "certify").code == 2
    assert inside(capsys, "nonsense").code == 2
    bare = inside(capsys)
    assert bare.code == 2
    assert bare.out.startswith("Usage: certes")
    assert inside(capsys, "--help").code == 0


CRASHES = ["RuntimeError('x')", "SystemExit(1)", "MemoryError()", "AssertionError()", "OSError(5, 'io')"]


@pytest.mark.parametrize(("error", "flags"), list(zip(CRASHES, [("--json",), (), (), ("--json",), ()], strict=True)))
def test_a_crash_is_4(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, flags: tuple[str, ...]
) -> None:
    monkeypatch.setattr(certifying, "certify", certifying.certify)  # put back afterwards
    exec(CRASH.format(error=error), {})
    done = inside(capsys, "certify", network(tmp_path), *RATE, *flags, "--out", tmp_path)
    assert done.code == 4
    assert "internal error" in done.err
    if flags:
        assert done.json["type"] == "urn:certes:error:internal"
        assert done.json["verdict"] is None


def test_a_broken_installation_is_4(tmp_path: Path) -> None:
    """Even what fails before the first verb is known."""
    (tmp_path / "typer.py").write_text("raise RuntimeError('broken')")
    assert process("certify", env={"PYTHONPATH": str(tmp_path)}).code == 4
    broken = "import certes_client\nimport sys\nsys.modules['certes_client.commands'] = None"
    assert process("certify", before=broken).code == 4


def test_interrupted_is_130(tmp_path: Path) -> None:
    done = process("certify", network(tmp_path), *RATE, before=CRASH.format(error="KeyboardInterrupt()"), cwd=tmp_path)
    assert done.code == 130


def test_an_answer_that_nobody_could_read_is_no_success(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        assert process("inspect", network(tmp_path), "--json", cwd=tmp_path, stdout=full).code == 4
        assert process("certify", network(tmp_path), *RATE, cwd=tmp_path, stdout=full).code == 4


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = process("inspect", network(tmp_path), stdout=writing)
    finally:
        os.close(writing)
    assert done.code == 4
    assert "Traceback" not in done.err


def test_missing_extra_is_named(tmp_path: Path) -> None:
    done = process("serve", "--port", "0", "--data", tmp_path, before=BLOCK)
    assert done.code == 2
    assert "certes[service]" in done.err
    assert "serve" in process("--help", before=BLOCK).out


def test_a_crash_is_4_to_a_shell(tmp_path: Path) -> None:
    assert process("certify", network(tmp_path), *RATE, before=CRASH.format(error="SystemExit(1)")).code == 4


def test_piped_output_is_plain(capsys: Capture, tmp_path: Path) -> None:
    for arguments in (
        ("certify", network(tmp_path), *RATE),
        ("inspect", network(tmp_path)),
        ("verify", "none", "--weights", "none"),
        ("--help",),
    ):
        done = process(*arguments, cwd=tmp_path) if arguments[0] == "certify" else inside(capsys, *arguments)
        assert "\x1b" not in done.out + done.err
        assert "\r" not in done.out + done.err


def test_progress_when_piped(tmp_path: Path) -> None:
    slow = process("certify", network(tmp_path), *RATE, "--json", before=SLOW, cwd=tmp_path)
    assert slow.code == 0
    assert "certify: thinking\n" in slow.err
    assert slow.json["verdict"] == "contracting"


def test_no_progress_for_what_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert Progress("certify").patience == 1.0
    with Progress("certify", patience=60.0).running() as progress:
        progress("thinking")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal one line is rewritten, and stdout stays clean."""
    ours, theirs = pty.openpty()
    code = f"{SLOW}\nfrom certes_client.cli import main\nmain()"
    command = [sys.executable, "-c", code, "certify", str(network(tmp_path)), *RATE, "--json"]
    env = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=theirs, env=env, cwd=tmp_path, check=False, timeout=60
    )
    os.close(theirs)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "certify: thinking (1 s)" in seen
    assert b"\x1b" not in done.stdout
