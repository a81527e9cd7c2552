"""Importing Certes is cheap: the heavy libraries wait until something needs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.support import run_python

HEAVY = (
    "scipy",
    "cvxpy",
    "clarabel",
    "scs",
    "torch",
    "flint",
    "matplotlib",
    "fastapi",
    "uvicorn",
    "starlette",
    "onnx",
    "h5py",
)
WITH_OTHERS = ("cvxpy", "scs", "torch", "flint", "matplotlib", "onnx", "h5py", "fastapi", "uvicorn", "starlette")


def loaded_by(statement: str, folder: Path) -> set[str]:
    done = run_python(f"{statement}\nimport sys\nprint('loaded:', *sys.modules)", cwd=folder)
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import certes", HEAVY),
        ("import certes.verify", HEAVY),
        ("import certes; certes.RateNetwork([[0.5]], activation='tanh')", HEAVY),
        ("import certes.formats, certes.certificate.check", (*WITH_OTHERS, "clarabel")),
        ("import certes_client.cli", WITH_OTHERS),
        ("import certes_client.output, certes_client.verifying, certes_client.policy.document", HEAVY),
        (
            "import certes_client.client, certes_client.remote.certifying, certes_client.remote.projecting, "
            "certes_client.remote.composing, certes_client.remote.training, certes_client.remote.verifying",
            WITH_OTHERS,
        ),
        ("import certes_client.remote.option", HEAVY),
        ("import certes_service", WITH_OTHERS[:-3]),
    ],
)
def test_an_import_loads_nothing_heavy(tmp_path: Path, statement: str, heavy: tuple[str, ...]) -> None:
    assert loaded_by(statement, tmp_path).isdisjoint(heavy)


def test_this_test_would_notice(tmp_path: Path) -> None:
    assert "scipy" in loaded_by("import certes, scipy", tmp_path)
