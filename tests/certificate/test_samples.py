"""Every released format keeps samples that must verify for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from certes.certificate import Certificate, verify_certificate
from certes.certificate.envelope import Envelope
from certes.certificate.statement import FORMATS, SECOND

from tests.certificate.certificate_cases import NAMES, cases
from tests.certificate.tampering import canonical, edited

TESTS = Path(__file__).parents[1]
STORED = TESTS / "assets" / "certificates"
SAMPLES = [
    pytest.param(manifest.parent, name, entry, id=f"{manifest.parent.name}-{name}")
    for manifest in sorted(STORED.glob("v*/manifest.json"))
    for name, entry in json.loads(manifest.read_text()).items()
]


def test_every_format_has_samples() -> None:
    """15 samples of format 1, one of every case in format 2, cells in format 3: none may be lost."""
    stored = {path.parent.name: set(json.loads(path.read_text())) for path in STORED.glob("v*/manifest.json")}
    assert set(stored) == {f"v{version}" for version in FORMATS}
    assert len(stored["v1"]) == 15
    assert set(NAMES) < stored["v2"]
    assert stored["v3"] == {f"{cell}-{word}" for cell in ("gru", "lstm") for word in ("proven", "refuted")}


@pytest.mark.parametrize(("folder", "name", "entry"), SAMPLES)
def test_stored_certificate_is_written_again_byte_for_byte(folder: Path, name: str, entry: dict[str, str]) -> None:
    certificate = Certificate.read(folder / name)
    assert f"v{certificate.statement.predicate.format}" == folder.name
    assert certificate.statement.to_bytes() == certificate.payload


FIRST = STORED / "v1" / "lure-rate"
#: What format 2 has and format 1 has not, put into a certificate of format 1.
LATER = [
    (("predicate", "claims", "rate_bound"), None, "malformed"),
    (("predicate", "claims", "rate_bound"), 0.95, "malformed"),
    (("predicate", "claims", "factor_bound"), None, "malformed"),
    (("predicate", "proof", "bound_kind"), None, "malformed"),
    (("predicate", "proof", "bound_kind"), "conic-bound", "malformed"),
    (("predicate", "verdict"), "undecided", "malformed"),
    (("predicate", "condition", "name"), "no-quadratic-metric", "unknown-condition"),
    (("predicate", "condition", "name"), "switching", "unknown-condition"),
    (("predicate", "proof", "kind"), "switching", "unknown-condition"),
    (("predicate", "format"), 2, "malformed"),  # it lacks the entries for a bound
]


@pytest.mark.parametrize(("path", "value", "reason"), LATER)
def test_format_1_knows_nothing_of_format_2(path: tuple[str, ...], value: object, reason: str) -> None:
    certificate = Certificate.read(FIRST)
    report = verify_certificate((edited(certificate, path, value), certificate.proof), FIRST / "weights.safetensors")
    assert report.reason == reason, report.detail


@pytest.mark.parametrize("name", ["no-metric", "switching"])
def test_a_new_condition_in_format_1_is_unknown(name: str) -> None:
    """A statement with exactly the entries of format 1, and a condition that came later."""
    case = cases()[name]
    content = json.loads(case.certificate.payload)
    content["predicate"]["format"] = 1
    for part, entries in SECOND.items():
        for entry in entries:
            del content["predicate"][part][entry]
    document = Envelope(canonical(content)).to_bytes()
    report = verify_certificate((document, case.certificate.proof), case.file)
    assert report.reason == ("malformed" if name == "no-metric" else "unknown-condition"), report.detail


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
