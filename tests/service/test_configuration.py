"""Every setting with its value and its source; secrets never."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from certes_service.operations.configuration import as_toml, entries, unknown_variables
from certes_service.operations.settings_page import page
from certes_service.settings import SECRETS, Settings

from tests.service.conftest import CERTES, environment


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    file = tmp_path / "certes.toml"
    file.write_text('queue = 7\nport = 1234\nblob_options = { key = "hidden" }\n')
    monkeypatch.setenv("CERTES_CONFIG", str(file))
    monkeypatch.setenv("CERTES_PORT", "4321")
    monkeypatch.setenv("CERTES_DATABASE", "postgresql://user:hidden@host/name")
    return Settings.read(solvers=3)


def test_each_setting_says_where_it_comes_from(settings: Settings) -> None:
    found = {entry.name: entry for entry in entries(settings, {"solvers"})}
    assert list(found) == list(Settings.model_fields)
    said = {name: (found[name].value, found[name].source) for name in ("solvers", "port", "queue", "max_states")}
    assert said == {
        "solvers": (3, "option"),
        "port": (4321, "environment"),
        "queue": (7, "file"),
        "max_states": (4096, "default"),
    }
    assert all(entry.description and entry.group for entry in found.values())


def test_secrets_are_never_shown(settings: Settings) -> None:
    found = entries(settings)
    shown = json.dumps([entry.json() for entry in found]) + "\n".join(as_toml(found)) + page()
    assert "hidden" not in shown
    assert {entry.name for entry in found if entry.secret} == set(SECRETS)
    assert {entry.name: entry.json()["value"] for entry in found if entry.secret} == {
        "database": "set",
        "signing_key": "unset",
        "blob_options": "set",
    }


def test_what_is_printed_is_a_file_of_settings(settings: Settings) -> None:
    again = tomllib.loads("\n".join(as_toml(entries(settings))))
    assert {name: again[name] for name in ("solvers", "port", "queue")} == {"solvers": 3, "port": 4321, "queue": 7}
    assert set(again) <= set(Settings.model_fields) - set(SECRETS)


def test_slips_of_the_pen_are_named() -> None:
    assert unknown_variables({"CERTES_QUEU": "1", "CERTES_QUEUE": "1", "CERTES_CONFIG": "x", "PATH": "y"}) == [
        "CERTES_QUEU"
    ]


def test_the_page_names_every_setting() -> None:
    text = page()
    kept = Path(__file__).parents[2] / "docs" / "service" / "settings.md"
    assert kept.read_text() == text, "python -m certes_service.operations.settings_page docs/service/settings.md"
    for name in Settings.model_fields:
        assert f"| `{name}` | `CERTES_{name.upper()}` |" in text


def test_config_as_a_command(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("solvers = 3\n")
    command = [*CERTES, "config"]
    env = environment(CERTES_CONFIG=str(file), CERTES_DATABASE="postgresql://user:hidden@h/x", CERTES_QUEU="1")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=env)
    assert tomllib.loads(done.stdout)["solvers"] == 3
    assert "CERTES_QUEU" in done.stderr
    shown = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=60, env=env)
    assert json.loads(shown.stdout)["unknown"] == ["CERTES_QUEU"]
    assert "hidden" not in done.stdout + done.stderr + shown.stdout + shown.stderr
