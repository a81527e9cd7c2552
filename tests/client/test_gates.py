"""The gates of examples/gate, each exercised as its users would: the action, GitLab's script, pre-commit, pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from certes.weights import read_weights, write_weights

from tests.client.test_pytest_plugin import run as run_pytest

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "clients" / "github-action" / "action.yml").read_text())
GITLAB = ROOT / "clients" / "gitlab" / "certes.gitlab-ci.yml"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The example as a repository of its own, with `certes` on the path as this environment has it."""
    folder = tmp_path / "gate"
    shutil.copytree(ROOT / "examples" / "gate", folder, ignore=shutil.ignore_patterns(".certes", "__pycache__"))
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with `certes`, and none of this run's settings."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "certes"
    script.write_text(f"#!{sys.executable}\nfrom certes_client.cli import main\nmain()\n")
    script.chmod(0o755)
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "OPENBLAS_NUM_THREADS") if name in os.environ}
    return kept | {"PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


def wilder(folder: Path) -> None:
    """Weights that lost their guarantee."""
    path = folder / "models" / "controller.safetensors"
    weights = read_weights(path)
    write_weights(path, {name: 3.0 * entry.floats() for name, entry in weights.tensors.items()})


def bash(script: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As GitHub's runner runs `shell: bash`."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


class Runner:
    """What GitHub's runner does with a composite action, for the steps that are scripts."""

    def __init__(self, folder: Path, env: dict[str, str], **inputs: str) -> None:
        self.folder = folder
        unknown = set(inputs) - set(ACTION["inputs"])
        assert not unknown
        self.inputs = {name: entry["default"] for name, entry in ACTION["inputs"].items()} | inputs
        self.output, self.summary = folder.parent / "output", folder.parent / "summary"
        for path in (self.output, self.summary):
            path.write_text("")
        self.env = env | {"GITHUB_OUTPUT": str(self.output), "GITHUB_STEP_SUMMARY": str(self.summary)}

    def step(self, name: str) -> subprocess.CompletedProcess[str]:
        (step,) = [entry for entry in ACTION["runs"]["steps"] if entry["name"] == name]
        assert "${{" not in step["run"], "what users write never becomes part of a script"
        env = {key: self._expanded(value) for key, value in step.get("env", {}).items()}
        return bash(step["run"], self.folder, self.env | env)

    def _expanded(self, value: str) -> str:
        for name, given in self.inputs.items():
            value = value.replace(f"${{{{ inputs.{name} }}}}", given)
        assert "${{" not in value
        return value


def test_the_action_lets_a_kept_promise_through(gate: Path, env: dict[str, str]) -> None:
    runner = Runner(gate, env, sarif="certes.sarif")
    done = runner.step("Check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""
    assert runner.output.read_text() == "exit-code=0\n"
    assert "| controller | **passed** |" in runner.summary.read_text()
    assert '"results": []' in (gate / "certes.sarif").read_text()


def test_the_action_refuses_a_lost_guarantee(gate: Path, env: dict[str, str]) -> None:
    wilder(gate)
    runner = Runner(gate, env)
    done = runner.step("Check")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("::error file=models/controller.safetensors,title=certes%3A controller failed::not")
    assert runner.output.read_text() == "exit-code=1\n"
    assert "**failed**" in runner.summary.read_text()


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", ["$(touch pwned)", "; touch pwned", "`touch pwned`", "--accept"])
def test_what_users_write_is_no_script(gate: Path, env: dict[str, str], name: str) -> None:
    for inputs in ({"models": name}, {"policy": name}):
        done = Runner(gate, env, **inputs).step("Check")
        assert done.returncode in (0, 2), done.stdout + done.stderr
        assert not (gate / "pwned").exists()


def test_the_action_is_whole() -> None:
    """Every step is pinned or a script with a shell, and what it says of itself exists."""
    assert ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        if "uses" in step:
            name, _, revision = step["uses"].partition("@")
            assert len(revision) == 40, f"{name} is not pinned to a commit"
        else:
            assert step["shell"] == "bash"
    ids = {step.get("id") for step in ACTION["runs"]["steps"]}
    for output in ACTION["outputs"].values():
        assert output["value"].split(".")[1] in ids
    workflow = yaml.safe_load((ROOT / "examples/gate/.github/workflows/certes.yml").read_text())
    uses: list[dict[str, Any]] = workflow["jobs"]["certes"]["steps"]
    assert set(uses[1]["with"]) <= set(ACTION["inputs"])


def test_versions_are_the_one_of_this_distribution() -> None:
    from certes._version import __version__

    assert ACTION["inputs"]["version"]["default"] == __version__
    assert yaml.safe_load(GITLAB.read_text())["certes"]["variables"]["CERTES_VERSION"] == __version__


def test_gitlab(gate: Path, env: dict[str, str]) -> None:
    assert (ROOT / "examples/gate/certes.gitlab-ci.yml").read_text() == GITLAB.read_text()
    assert yaml.safe_load((gate / ".gitlab-ci.yml").read_text()) == {"include": [{"local": "certes.gitlab-ci.yml"}]}
    job = yaml.safe_load(GITLAB.read_text())["certes"]
    report = gate / job["artifacts"]["reports"]["junit"]
    script = "\n".join(job["script"])
    assert bash(script, gate, env | job["variables"]).returncode == 0
    assert 'failures="0"' in report.read_text()
    wilder(gate)
    assert bash(script, gate, env | job["variables"]).returncode == 1
    assert 'failures="1"' in report.read_text()


def test_pre_commit(gate: Path, env: dict[str, str]) -> None:
    """The hook through pre-commit itself: a commit goes through, and one that breaks the promise does not."""
    env = env | {"PRE_COMMIT_HOME": str(gate.parent / "pre-commit"), "GIT_CONFIG_GLOBAL": "/dev/null"}
    env |= {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["git", *words]
        return subprocess.run(command, cwd=gate, env=env, capture_output=True, text=True, timeout=120, check=False)

    (gate / ".gitignore").write_text(".certes/\n")
    assert git("init", "-q").returncode == 0
    hook = subprocess.run(
        [sys.executable, "-m", "pre_commit", "install"], cwd=gate, env=env, capture_output=True, text=True, check=False
    )
    assert hook.returncode == 0, hook.stdout + hook.stderr
    git("add", "-A")
    first = git("commit", "-m", "first")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "certes check" in first.stderr + first.stdout
    wilder(gate)
    git("add", "-A")
    second = git("commit", "-m", "second")
    assert second.returncode == 1
    assert "not contracting" in second.stdout + second.stderr
    (gate / "README.md").write_text("other files do not wake the hook\n")
    git("restore", "--staged", "models")
    git("restore", "models")
    git("add", "README.md")
    third = git("commit", "-m", "third")
    assert third.returncode == 0
    assert "Skipped" in third.stdout + third.stderr


def test_the_published_hook_says_the_same_as_the_local_one() -> None:
    (published,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (local,) = yaml.safe_load((ROOT / "examples/gate/.pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for key in ("id", "entry", "files", "pass_filenames"):
        assert published[key] == local[key]


def test_pytest(gate: Path) -> None:
    done = run_pytest(gate, "--certes", "-vv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    wilder(gate)
    done = run_pytest(gate, "--certes", "-vv")
    assert done.returncode == 1
    assert "2 failed" in done.stdout
