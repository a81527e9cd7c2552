"""The client and the verifier where nothing else is installed: no solver, no torch, and for most verbs no scipy."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.client.running import UNSTABLE, network
from tests.packaging.support import REPOSITORY, run
from tests.service.conftest import Running, running

PLAIN = ("--form", "rate", "--tensor", "W", "--activation", "tanh", "--json")
POLICY = """
[models.net]
file = "net.safetensors"
form = "rate"
tensors = { W = "W" }
activation = "tanh"
"""
RATE = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}
NUMERICS = ("scipy", "threadpoolctl")
PAIR = {"file": "net.safetensors", "modules": {"a": RATE, "b": RATE}}


def needed() -> list[Requirement]:
    lines = (REPOSITORY / "clients" / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def closure(wanted: list[Requirement]) -> dict[str, importlib.metadata.Distribution]:
    """The distributions that pip would install for these."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        for extra in ("", *sorted(requirement.extras)):
            if (key := (canonicalize_name(requirement.name), extra)) in seen:
                continue
            seen.add(key)
            distribution = found.setdefault(key[0], importlib.metadata.distribution(requirement.name))
            more = [Requirement(text) for text in distribution.requires or ()]
            wanted += [entry for entry in more if entry.marker is None or entry.marker.evaluate({"extra": extra})]
    return found


def installed(distributions: Iterable[importlib.metadata.Distribution], folder: Path) -> Path:
    """A folder with these packages alone."""
    for distribution in distributions:
        for name in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (folder / name).symlink_to(Path(str(distribution.locate_file(name))))
    return folder


@pytest.fixture(scope="module")
def lean(site: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Certes and what it needs, without what it computes with."""
    wanted = [entry for entry in needed() if entry.name not in NUMERICS]
    return f"{site}:{installed(closure(wanted).values(), tmp_path_factory.mktemp('lean'))}"


@pytest.fixture(scope="module")
def whole(lean: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """All that clients/requirements.txt lists."""
    found = [importlib.metadata.distribution(name) for name in NUMERICS]
    return f"{lean}:{installed(found, tmp_path_factory.mktemp('numerics'))}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("alone") / "data") as found:
        yield found


def certes(path: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in an interpreter without site packages."""
    command = (sys.executable, "-S", "-m", "certes_client", *map(str, arguments))
    return run(*command, cwd=folder, check=False, PYTHONPATH=path)


def ask(path: str, folder: Path, server: Running, *arguments: object, code: int = 0) -> Any:
    """What the command line prints with the server's help."""
    done = certes(path, folder, *arguments, "--server", server.url)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return json.loads(done.stdout)


def test_they_are_dependencies_of_the_distribution() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    own, everything = {str(requirement) for requirement in needed()}, {str(Requirement(text)) for text in declared}
    assert own < everything
    assert {Requirement(text).name for text in everything - own} == {"clarabel"}


def test_nothing_else_is_there(lean: str, whole: str, tmp_path: Path) -> None:
    solvers = ("clarabel", "cvxpy", "scs", "torch", "fastapi", "flint")
    for name, path in [*((name, whole) for name in solvers), *((name, lean) for name in NUMERICS)]:
        done = run(sys.executable, "-S", "-c", f"import {name}", cwd=tmp_path, check=False, PYTHONPATH=path)
        assert "ModuleNotFoundError" in done.stderr, name


def test_without_scipy(lean: str, tmp_path: Path, server: Running) -> None:
    network(tmp_path)
    network(tmp_path, UNSTABLE, "bad.safetensors")
    found = ask(lean, tmp_path, server, "certify", "net.safetensors", *PLAIN)
    assert found["verdict"] == "contracting"
    verify = ("verify", found["certificate"]["path"], "--weights", "net.safetensors")
    assert certes(lean, tmp_path, *verify).returncode == 0
    assert certes(lean, tmp_path, "verify", verify[1], "--weights", "bad.safetensors").returncode == 1
    assert ask(lean, tmp_path, server, "certify", "bad.safetensors", *PLAIN, code=1)["verdict"] == "not_contracting"
    (tmp_path / "certes.toml").write_text(POLICY)
    ask(lean, tmp_path, server, "check", "--json")
    assert certes(lean, tmp_path, "check", "--json").returncode == 0, "what is known, nobody is asked"


def test_with_all_that_is_listed(whole: str, tmp_path: Path, server: Running) -> None:
    network(tmp_path, UNSTABLE, "bad.safetensors")
    project = ("project", "bad.safetensors", *PLAIN, "--out", "net.safetensors")
    assert ask(whole, tmp_path, server, *project)["verdict"] == "contracting"
    (tmp_path / "pair.json").write_text(json.dumps(PAIR))
    assert ask(whole, tmp_path, server, "compose", "pair.json", "--json")["verdict"] == "contracting"
    random = np.random.default_rng(0)
    inputs = random.standard_normal((32, 6, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=random.integers(2, size=32))
    train = ("train", "data.npz", "--out", "made", "--epochs", "1", "--modules", "2x3", "--json")
    assert ask(whole, tmp_path, server, *train)["verdict"] == "contracting"
    [proof] = (tmp_path / "made").glob("*.assembly.json")
    assert certes(whole, tmp_path, "verify", proof, "--weights", "made").returncode == 0


def test_what_is_missing_is_named(lean: str, tmp_path: Path) -> None:
    network(tmp_path)
    done = certes(lean, tmp_path, "certify", "net.safetensors", *PLAIN[:-1])
    assert (done.returncode, done.stdout) == (2, "")
    said = " ".join(done.stderr.split())
    assert "what is not left to a service (--server) needs the package 'scipy': pip install certes" in said
    done = certes(lean, tmp_path, "certify", "net.safetensors", *PLAIN)
    assert (done.returncode, json.loads(done.stdout)["type"]) == (2, "urn:certes:error:missing-extra")
