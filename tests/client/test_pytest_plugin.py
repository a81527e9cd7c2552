"""The pytest plugin, in runs of pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.client.running import STABLE, UNSTABLE, network
from tests.client.test_check import MODEL
from tests.service.conftest import running

#: As an installed plugin is loaded; named, so that the test needs no reinstallation after a change of entry points.
PLUGIN = ("-p", "certes_client.pytest_plugin")


def run(folder: Path, *arguments: str, plugin: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(PLUGIN if plugin else ()), *arguments]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=120, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    network(tmp_path, STABLE, "fine.safetensors")
    network(tmp_path, np.asarray(UNSTABLE), "wild.safetensors")
    text = MODEL.format(name="fine", more="rate_at_least = 0.3") + MODEL.format(name="wild", more="")
    (tmp_path / "certes.toml").write_text(text.replace('"absolute"', '"auto"'))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("def test_it():\n    assert True\n")
    return tmp_path


def test_every_model_is_a_test(repository: Path) -> None:
    done = run(repository, "--certes", "-rA")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 2 passed in" in done.stdout
    assert "wild (wild.safetensors) failed: not contracting" in done.stdout
    assert "Traceback" not in done.stdout
    assert run(repository, "--certes", "-k", "fine").returncode == 0


def test_the_policy_is_part_of_the_run_wherever_the_tests_are(repository: Path) -> None:
    done = run(repository, "--certes", "-vv", "tests")
    assert "certes.toml::fine PASSED" in done.stdout
    assert "test_it.py::test_it PASSED" in done.stdout
    assert run(repository, "tests").stdout.count("certes.toml") == 0, "only if asked for"


def test_a_policy_elsewhere(repository: Path) -> None:
    (repository / "ci").mkdir()
    for name in ("certes.toml", "fine.safetensors", "wild.safetensors"):
        (repository / name).rename(repository / "ci" / name)
    assert "certes.toml::wild FAILED" in run(repository, "--certes=ci/certes.toml", "-vv").stdout


def test_no_policy_is_an_error(repository: Path) -> None:
    done = run(repository, "--certes=none.toml")
    assert done.returncode == 4
    assert "no policy file" in done.stderr
    (repository / "certes.toml").write_text("[models.x]\nfile = 3\n")
    done = run(repository, "--certes")
    assert done.returncode != 0
    assert "models.x" in done.stdout + done.stderr


def test_undecided_is_no_pass(repository: Path) -> None:
    text = (repository / "certes.toml").read_text().replace('"auto"', '"absolute"')
    (repository / "certes.toml").write_text(text)
    network(repository, [[0.0, -1.2], [1.2, 0.0]], "wild.safetensors")
    done = run(repository, "--certes")
    assert done.returncode == 1
    assert "wild (wild.safetensors) undecided" in done.stdout


def test_a_service_searches(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "conftest.py").write_text(
        "from certes_client.policy import subjects\nfrom certes_client.remote import talk\n"
        "def refuse(*_, **__):\n    raise AssertionError('a proof was looked for here')\n"
        "subjects.certify = refuse\ntalk.Retry.pause = lambda *_: 0.01\n"
    )
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setenv("CERTES_SERVER", nowhere)
    away = run(repository, "--certes")
    assert away.returncode == 1
    assert "fine: the service was asked, and nothing is certified: " in away.stdout
    assert "Traceback" not in away.stdout
    with running(tmp_path / "data") as server:
        done = run(repository, "--certes", "--certes-server", server.url)
    assert "wild (wild.safetensors) failed: not contracting" in done.stdout
    assert "1 failed, 2 passed" in done.stdout, "the option goes before the environment"
    assert run(repository, "--certes", "-k", "fine").returncode == 0, "what is known already, nobody is asked"


def test_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_nets.py").write_text(
        """
import certes
import pytest
from certes_client.pytest_plugin import assert_contracting

STABLE = certes.RateNetwork([[0.2, -0.5], [0.4, 0.1]], activation="tanh")
UNSTABLE = certes.RateNetwork([[3.0, 0.0], [0.0, 0.5]], activation="tanh")

def test_stable(certified):
    found = certified(STABLE, rate_at_least=0.5)
    assert found.verdict == "contracting"

def test_fails_with_words(certified):
    with pytest.raises(AssertionError, match="found not contracting"):
        certified(UNSTABLE)
    with pytest.raises(AssertionError, match="rate of at least 0.9, found 0.6"):
        certified(STABLE, rate_at_least=0.9)
    with pytest.raises(AssertionError, match="factor of at most 0.9, found none"):
        certified(STABLE, factor_at_most=0.9)

def test_torch():
    import torch
    rnn = torch.nn.RNN(2, 3)
    with torch.no_grad():
        rnn.weight_hh_l0.mul_(0.3)
    assert assert_contracting(rnn, factor_at_most=0.99).factor <= 0.99
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(3.0 * torch.eye(3))
    with pytest.raises(AssertionError, match="not contracting"):
        assert_contracting(rnn)

def test_this_one_fails(certified):
    certified(UNSTABLE)
"""
    )
    done = run(tmp_path)
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    assert "wanted a contracting network, found not contracting" in done.stdout


def test_loading_the_plugin_loads_nothing_of_certes(tmp_path: Path) -> None:
    heavy = ("certes", "numpy", "scipy", "torch")
    code = f"import sys, certes_client.pytest_plugin; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
