"""What ``make demo`` runs and what examples/README.md says, for real."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.running import process

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")], capture_output=True, text=True, check=False, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("not contracting") == 4
    assert done.stdout.count("unsupported_cell") == 2
    assert len(re.findall(r" contracting +factor 0\.96", done.stdout)) == 1
    assert len(re.findall(r"… +\S+ +valid", done.stdout)) == 5
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.slow
def test_commands_of_the_readme(tmp_path: Path) -> None:
    block = (EXAMPLES / "README.md").read_text().split("```")[1]
    commands = [shlex.split(line) for line in block.strip().splitlines()]
    assert [words[1] for words in commands] == ["inspect", "certify", "verify"]
    (tmp_path / "examples").symlink_to(EXAMPLES)
    for words in commands:
        done = process(*words[1:], cwd=tmp_path)
        assert done.code == 0, done.err
