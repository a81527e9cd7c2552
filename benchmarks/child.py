"""Work in a fresh process: its own number of BLAS threads, and a peak of memory that is its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(module: str, *arguments: object, threads: int | None = None) -> Any:
    """What ``python -m benchmarks.MODULE ARGUMENTS`` prints, read as JSON.

    Args:
        module: name of a module of this package.
        arguments: of its command line.
        threads: BLAS threads of the process; None: as in this one.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    settings = {} if threads is None else dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), str(threads))
    environment = {**os.environ, **settings}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent, env=environment
    )
    return json.loads(done.stdout)


def peak() -> int:
    """Peak resident memory of this process in bytes.

    Not ru_maxrss where it can be had otherwise: Linux hands the parent's peak on to a child.
    """
    found = _status("VmHWM")
    if found is not None:
        return found
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let the peak start anew from what is resident now, where the system can do that (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident() -> int:
    """Resident memory of this process in bytes now (its peak so far, where that cannot be had)."""
    return _status("VmRSS") or peak()


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))
    except (OSError, StopIteration):
        return None
