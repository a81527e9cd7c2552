"""Running the command line: in this process for breadth, as a process where exit codes and streams matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.weights import write_weights
from certes_client import cli

STABLE = [[0.2, -0.5], [0.4, 0.1]]
UNSTABLE = [[3.0, 0.0], [0.0, 0.5]]
ROTATION = [[0.0, -1.2], [1.2, 0.0]]  # contracting, but not for the condition absolute


@dataclass
class Done:
    """What a run came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)  # fails unless stdout is exactly one JSON value
        assert isinstance(found, dict)
        return found


def inside(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """The command line in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, captured.out, captured.err)


def process(*arguments: object, before: str = "", env: dict[str, str] | None = None, **options: Any) -> Done:
    """The command line as a process; ``before`` is code that runs first in it."""
    code = f"{before}\nfrom certes_client.cli import main\nmain()"
    command: Sequence[str] = [sys.executable, "-c", code, *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    done = subprocess.run(command, text=True, check=False, env={**os.environ, **(env or {})}, timeout=120, **options)
    return Done(done.returncode, done.stdout or "", done.stderr or "")


def network(folder: Path, W: Any = STABLE, name: str = "net.safetensors", **more: Any) -> Path:
    """A weight file with the tensor W."""
    arrays = {"W": W, **more}
    return write_weights(folder / name, {key: np.asarray(value) for key, value in arrays.items()})


RATE = ("--form", "rate", "--tensor", "W", "--activation", "tanh", "--condition", "absolute")
