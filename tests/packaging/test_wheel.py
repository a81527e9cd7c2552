"""The built wheel, away from the sources: what is in it, what it can do, and what it says when an extra is missing."""

from __future__ import annotations

import configparser
import json
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.packaging.support import PACKAGES, REPOSITORY, run, run_python

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def files_in_the_sources() -> set[str]:
    return {
        path.relative_to(REPOSITORY / room).as_posix()
        for package, room in PACKAGES.items()
        for path in (REPOSITORY / room / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == files_in_the_sources()
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_wheel_carries_its_licence_and_its_version(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [licence] = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
    assert archive.read(licence) == (REPOSITORY / "LICENSE").read_bytes()
    [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    assert f"Version: {wheel.name.split('-')[1]}\n" in text
    assert f"## {wheel.name.split('-')[1]} - " in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_extras_are_the_ones_that_the_design_names(wheel: Path) -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(declared) == {
        *("sdp", "service", "s3", "train", "exact", "figures", "onnx", "keras", "docs", "dev", "all"),
    }


def test_the_installed_packages_are_the_wheels(site: Path, tmp_path: Path) -> None:
    names = sorted(PACKAGES)
    code = f"import json, {', '.join(names)}\nprint(json.dumps([m.__file__ for m in ({', '.join(names)})]))"
    files = json.loads(run_python(code, cwd=tmp_path, PYTHONPATH=str(site)).stdout)
    assert files == [str(site / name / "__init__.py") for name in names]


def test_every_entry_point_resolves(site: Path, tmp_path: Path) -> None:
    [declared] = site.glob("certes-*.dist-info/entry_points.txt")
    parser = configparser.ConfigParser(delimiters="=")
    parser.read(declared)
    assert {"certify", "verify", "inspect", "serve"} <= set(parser["certes.commands"])
    targets = [*parser["console_scripts"].values(), *parser["certes.commands"].values()]
    lines = [f"assert callable(importlib.import_module({t.split(':')[0]!r}).{t.split(':')[1]}), {t!r}" for t in targets]
    run_python("import importlib\n" + "\n".join(lines), cwd=tmp_path, PYTHONPATH=str(site))


def test_the_wheel_certifies_and_verifies(site: Path, tmp_path: Path) -> None:
    code = """
import certes
result = certes.certify(certes.RateNetwork([[0.5, 0.2], [0.1, 0.4]], activation="tanh"))
assert result.verdict == "contracting", result
print(certes.__file__)
"""
    assert str(site) in run_python(code, cwd=tmp_path, PYTHONPATH=str(site)).stdout


# Without the reference backends, asking for one is answered by an honest "undecided" that says what is missing.
LURE = """
import certes
system = certes.RateNetwork([[0.0, -1.5], [1.5, 0.0]], activation="tanh")
assert certes.certify(system, condition="lure").verdict == "contracting"  # our own engine needs no extra
result = certes.certify(system, condition="lure", backend="cvxpy-scs")
assert (result.verdict, result.reason) == ("undecided", "missing-extra"), result
raise SystemExit(result.detail)
"""
READ = """
import pathlib, certes.formats
pathlib.Path("net{suffix}").write_bytes(b"0")
certes.formats.read("net{suffix}")
"""
# For each extra, the packages that it brings and something that cannot be done without them.
EXTRAS = {
    "sdp": (("cvxpy", "scs"), LURE),
    "service": (("fastapi", "uvicorn", "starlette"), "from certes_client.cli import main; main(['serve'])"),
    "train": (("torch",), READ.format(suffix=".pt")),
    "onnx": (("onnx",), READ.format(suffix=".onnx")),
    "keras": (("h5py",), READ.format(suffix=".keras")),
    "exact": (("flint",), "from certes.exact import audit; audit(None, None, None)"),
}


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_a_missing_extra_is_named(site: Path, tmp_path: Path, extra: str) -> None:
    packages, code = EXTRAS[extra]
    done = run_python(BLOCKER.format(blocked=set(packages)) + code, cwd=tmp_path, check=False, PYTHONPATH=str(site))
    assert done.returncode != 0
    assert f"certes[{extra}]" in done.stdout + done.stderr, done.stderr


def test_the_installed_command_answers(site: Path, tmp_path: Path) -> None:
    script = shutil.copy(site / "bin" / "certes", tmp_path / "certes")
    help_text = run(sys.executable, script, "--help", cwd=tmp_path, PYTHONPATH=str(site)).stdout
    assert all(verb in help_text for verb in ("certify", "verify", "inspect", "serve"))
