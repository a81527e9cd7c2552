"""compose.yaml: read against what Certes knows, and its steps run as a script over a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from certes_service.settings import PREFIX, Settings

from tests.packaging.support import REPOSITORY
from tests.service.asking import SPEC, weights
from tests.service.conftest import CERTES, environment
from tests.service.inside import wait_for


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    return found


def ours(compose: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in compose["services"].items() if entry.get("image") == "certes"}


def test_every_variable_is_a_setting_that_can_be_read(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, entry in ours(compose).items():
        for variable, value in entry["environment"].items():
            assert variable.startswith(PREFIX), name
            assert variable.removeprefix(PREFIX).lower() in Settings.model_fields, variable
            monkeypatch.setenv(variable, value)
    secret = tmp_path / "secret"
    secret.write_text("word")
    monkeypatch.setenv("CERTES_DATABASE_PASSWORD_FILE", str(secret))
    settings = Settings.read()
    assert settings.keys is True
    assert settings.database_url == "postgresql+psycopg://certes:word@database/certes"
    assert settings.grace_seconds + 5 < float(ours(compose)["api"]["stop_grace_period"].removesuffix("s"))


def test_every_command_is_one_that_certes_knows(compose: dict[str, Any]) -> None:
    for entry in ours(compose).values():
        program, verb, *options = entry["command"]
        assert program == "certes"
        shown = subprocess.run(
            [*CERTES, verb, "--help"], capture_output=True, text=True, check=True, env=environment(COLUMNS="200")
        ).stdout
        for option in options:
            assert not option.startswith("--") or option in shown, option


def test_it_is_hardened_and_keeps_secrets_in_files(compose: dict[str, Any]) -> None:
    services = ours(compose)
    assert {"api", "worker"} <= set(services)
    assert services["worker"]["deploy"]["replicas"] == 2
    for entry in services.values():
        assert entry["read_only"] is True
        assert entry["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in entry["security_opt"]
        assert set(entry["secrets"]) == set(compose["secrets"])
        mounted = {f"/run/secrets/{name}" for name in entry["secrets"]}
        files = {value for name, value in entry["environment"].items() if name.endswith("_FILE")}
        assert {Path(file).name for file in files} <= {Path(name).name for name in mounted}
    assert all(port.startswith("127.0.0.1:") for port in services["api"]["ports"])
    used = {volume.partition(":")[0] for entry in compose["services"].values() for volume in entry["volumes"]}
    assert used == set(compose["volumes"])


@pytest.mark.slow
def test_the_steps_of_compose(tmp_path: Path, compose: dict[str, Any], postgres_url: str) -> None:
    """Keys, an API that works on nothing, two workers; one of them ends in the middle, and all of it ends cleanly."""
    (tmp_path / "password").write_text("unused\n")
    entry = ours(compose)["api"]["environment"]
    own = environment(
        **{name: value for name, value in entry.items() if name not in ("CERTES_SIGNING_KEY_FILE",)}
        | {
            "CERTES_DATABASE": postgres_url,
            "CERTES_DATABASE_PASSWORD_FILE": str(tmp_path / "password"),
            "CERTES_DATA": str(tmp_path / "data"),
            "CERTES_BLOBS": str(tmp_path / "data" / "blobs"),
            "CERTES_GRACE_SECONDS": "0.5",
            "CERTES_BEAT_SECONDS": "0.5",
            "CERTES_LEASE_SECONDS": "3",
            "CERTES_SOLVERS": "1",
        }
    )
    made = subprocess.run(
        [*CERTES, "keys", "create", "--tenant", "team", "--json"], capture_output=True, text=True, check=True, env=own
    )
    key = json.loads(made.stdout)["key"]
    serving = [*CERTES, *["0" if word == "8080" else word for word in ours(compose)["api"]["command"][1:]]]
    api = subprocess.Popen(serving, stdout=subprocess.PIPE, text=True, env=own)
    workers = [
        subprocess.Popen([*CERTES, *ours(compose)["worker"]["command"][1:]], stdout=subprocess.PIPE, text=True, env=own)
        for _ in range(2)
    ]
    everybody = [api, *workers]
    try:
        assert api.stdout is not None
        port = api.stdout.readline().strip().rpartition(":")[2]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline().startswith("Certes works as ")
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, headers={"Authorization": f"Bearer {key}"}
        ) as http:
            assert http.get("/readyz", headers={"Authorization": ""}).status_code == 200
            files = {"spec": (None, json.dumps(SPEC), "application/json"), "weights": ("w", weights())}
            answer = http.post("/v1/certificates", files=files, headers={"Prefer": "wait=30"}).json()
            assert answer["verdict"] == "contracting"
            assert http.get(answer["certificate"]["href"]).status_code == 200
            matrix = 0.6 * np.random.default_rng(1).standard_normal((60, 60)) / np.sqrt(60)
            spec = {**SPEC, "condition": "lure", "backend": "cvxpy-scs", "seconds": 4.0}
            job = http.post(
                "/v1/certificates", json={"spec": spec, "tensors": {"W": matrix.tolist()}},
                headers={"Prefer": "respond-async"},
            ).headers["location"]  # fmt: skip
            assert wait_for(lambda: http.get(job).json()["state"] == "running", 20)
            workers[0].terminate()  # it may be the one that works on it, or not: the job ends in any case
            assert workers[0].wait(20) == 0
            ended = wait_for(lambda: (now := http.get(job).json())["state"] == "done" and now, 60)
            assert ended
            assert ended["answer"]["verdict"] in ("contracting", "undecided")
            assert http.get("/v1/jobs", headers={"Authorization": ""}).status_code == 401
        for process in (api, workers[1]):
            process.terminate()
        until = time.monotonic() + 20
        assert [process.wait(max(until - time.monotonic(), 0.1)) for process in (api, workers[1])] == [0, 0]
    finally:
        for process in everybody:
            process.kill()
            process.communicate()
