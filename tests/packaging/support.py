"""Shared by the tests of the package as a user gets it: a clean copy of the sources, and a child interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("solvers", "service", "clients")
PACKAGES = {"certes": "solvers", "certes_service": "service", "certes_client": "clients"}
BUILD_FILES = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt", "Dockerfile")


def copy_sources(target: Path) -> Path:
    """Copy what a build needs, and nothing that an earlier build left behind: stale files must not reach a wheel."""
    for room in ROOMS:
        shutil.copytree(
            REPOSITORY / room, target / room, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
        )
    for name in BUILD_FILES:
        shutil.copy(REPOSITORY / name, target / name)
    return target


def run(
    *command: str | Path, cwd: Path, check: bool = True, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command away from the sources, without settings for Python or pytest but those in `environment`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def run_python(code: str, *, cwd: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter of this environment."""
    return run(sys.executable, "-c", code, cwd=cwd, check=check, **environment)


def build_wheel(source: Path, target: Path) -> Path:
    """Build the wheel offline, with the build tools that are installed, and return its path."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-build-isolation", "--no-deps")
    run(*pip, "--wheel-dir", target, source, cwd=target.parent)
    [wheel] = target.glob("certes-*.whl")
    return wheel
