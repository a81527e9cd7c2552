"""The Dockerfile, without an engine: its rules are read, and the steps that need no network are run as written."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import site
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.support import PACKAGES, REPOSITORY, copy_sources, run


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile and the number of the stage it belongs to."""

    stage: int
    name: str
    value: str


def parse(text: str) -> list[Instruction]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[Instruction] = []
    stage = -1
    for line in lines.replace("\\\n", " ").splitlines():
        name, _, value = line.strip().partition(" ")
        if name:
            stage += name == "FROM"
            found.append(Instruction(stage, name, " ".join(value.split())))
    return found


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    return parse((REPOSITORY / "Dockerfile").read_text())


def values(instructions: list[Instruction], name: str, stage: int) -> list[str]:
    return [item.value for item in instructions if item.name == name and item.stage == stage]


def test_the_image_is_slim_and_its_user_is_not_root(instructions: list[Instruction]) -> None:
    assert max(item.stage for item in instructions) == 1
    assert all("-slim" in item.value for item in instructions if item.name == "FROM")
    [user] = values(instructions, "USER", 1)
    assert user not in {"root", "0"}
    names = [item.name for item in instructions if item.stage == 1]
    assert names.index("USER") < names.index("CMD")
    assert any(f" {user}" in command for command in values(instructions, "RUN", 1) if "useradd" in command)
    assert [value.split()[0] for value in values(instructions, "COPY", 1)] == ["--from=builder"], (
        "no sources in the image"
    )


def test_the_health_check_asks_the_port_that_is_served(instructions: list[Instruction]) -> None:
    [check] = values(instructions, "HEALTHCHECK", 1)
    [command] = values(instructions, "CMD", 1)
    program = json.loads(check.partition("CMD ")[2])
    compile(program[-1], "healthcheck", "exec")
    port = json.loads(command)[json.loads(command).index("--port") + 1]
    assert f"http://127.0.0.1:{port}/healthz" in program[-1]
    assert values(instructions, "EXPOSE", 1) == [port]


def test_installations_are_pinned_and_name_no_host(instructions: list[Instruction]) -> None:
    commands = values(instructions, "RUN", 0)
    assert not re.search(r"https?://|index-url", " ".join(commands))
    assert all("-c constraints.txt" in command for command in commands if " install " in command)
    pins = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line) for line in pins)


def test_copied_files_survive_dockerignore(instructions: list[Instruction]) -> None:
    kept = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = {name for value in values(instructions, "COPY", 0) for name in value.split()[:-1]}
    assert copied <= kept


@pytest.fixture(scope="module")
def image(instructions: list[Instruction], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the builder's steps on a copy of what it copies; pip gets no network and no dependencies."""
    source, root = tmp_path_factory.mktemp("builder"), tmp_path_factory.mktemp("root")
    whole = copy_sources(tmp_path_factory.mktemp("whole"))
    for value in values(instructions, "COPY", 0):
        *names, target = value.split()
        for name in names:
            if (whole / name).is_dir():
                shutil.copytree(whole / name, source / target)
            else:
                shutil.copy(whole / name, source / target)
    for command in values(instructions, "RUN", 0):
        if command.endswith("setuptools wheel"):
            continue  # the one step that is network and nothing else: the build tools are here already
        moved = command.replace("/opt/certes", str(root / "opt/certes"))
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        run("sh", "-euc", moved, cwd=source, PATH=path, PIP_NO_INDEX="1", PIP_NO_DEPS="1")
    [wheel] = (source / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    return root


@pytest.mark.slow
def test_the_command_of_the_image_is_one_that_certes_knows(instructions: list[Instruction], image: Path) -> None:
    program, verb, *options = json.loads(values(instructions, "CMD", 1)[0])
    [environment] = values(instructions, "ENV", 1)
    assert "PATH=/opt/certes/bin:$PATH" in shlex.split(environment)
    help_text = run(
        image / "opt/certes/bin" / program,
        verb,
        "--help",
        cwd=image,
        PYTHONPATH=site.getsitepackages()[0],
        COLUMNS="200",
    ).stdout
    for option in options:
        assert not option.startswith("--") or option in help_text, option
