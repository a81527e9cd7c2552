"""Every released format keeps samples that must verify for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from certes.certificate import Certificate, verify_certificate
from certes.certificate.statement import FORMAT

TESTS = Path(__file__).parents[1]
STORED = TESTS / "assets" / "certificates"
SAMPLES = [
    pytest.param(manifest.parent, name, entry, id=f"{manifest.parent.name}-{name}")
    for manifest in sorted(STORED.glob("v*/manifest.json"))
    for name, entry in json.loads(manifest.read_text()).items()
]


def test_every_format_has_samples() -> None:
    """15 samples of format 1: none may be lost."""
    counts = {path.parent.name: len(json.loads(path.read_text())) for path in STORED.glob("v*/manifest.json")}
    assert set(counts) == {f"v{version}" for version in range(1, FORMAT + 1)}
    assert counts["v1"] == 15


@pytest.mark.parametrize(("folder", "name", "entry"), SAMPLES)
def test_stored_certificate_verifies(folder: Path, name: str, entry: dict[str, str]) -> None:
    weights = folder / name / entry["weights"]
    if not weights.exists():
        weights = TESTS.parent / "examples" / "models" / entry["weights"]
    path = folder / name / entry["certificate"]
    report = verify_certificate(path, weights, key=folder / "key.pem")
    assert report.valid, report.detail
    assert report.verdict == entry["verdict"]
    certificate = Certificate.read(path.parent)
    assert (certificate.digest, certificate.condition) == (entry["digest"], entry["condition"])
    assert path.name.startswith(entry["digest"])
