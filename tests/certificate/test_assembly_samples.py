"""Every released format of assemblies keeps samples that must verify for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from certes.certificate import AssemblyBundle, Certificate, verify_assembly
from certes.certificate.assembly import open_assembly, speaks_of_an_assembly
from certes.certificate.assembly_statement import CONDITIONS, FORMAT, FORMATS
from certes.certificate.document import open_document

from tests.certificate.assembly_cases import ASSEMBLIES, assembly_case

STORED = Path(__file__).parents[1] / "assets" / "certificates"
SAMPLES = [
    pytest.param(manifest.parent, name, entry, id=f"{manifest.parent.name}-{name}")
    for manifest in sorted(STORED.glob("composition-v*/manifest.json"))
    for name, entry in json.loads(manifest.read_text()).items()
]


def test_every_format_and_condition_has_samples() -> None:
    manifests = {path.parent.name: json.loads(path.read_text()) for path in STORED.glob("composition-v*/manifest.json")}
    assert set(manifests) == {f"composition-v{version}" for version in FORMATS}
    assert set(ASSEMBLIES) <= set(manifests["composition-v1"])
    for version in FORMATS:
        found = {entry["condition"] for entry in manifests[f"composition-v{version}"].values()}
        assert found == {name for name, _ in CONDITIONS[version]}


@pytest.mark.parametrize(("folder", "name", "entry"), SAMPLES)
def test_stored_assembly_verifies(folder: Path, name: str, entry: dict[str, Any]) -> None:
    path = folder / name / entry["certificate"]
    for certificate in (path, folder / name):
        report = verify_assembly(certificate, folder / name / "networks.safetensors", key=folder / "key.pem")
        assert report.valid, report.detail
        assert report.verdict == "contracting"
    bundle = AssemblyBundle.read(path)
    assert (bundle.root, len(bundle.documents)) == (entry["digest"], entry["documents"])
    assert report.leaves_checked + report.steps_checked == entry["documents"]
    assert path.name.startswith(entry["digest"])


@pytest.mark.parametrize(("folder", "name", "entry"), SAMPLES)
def test_stored_documents_are_written_again_byte_for_byte(
    folder: Path, name: str, entry: dict[str, Any], tmp_path: Path
) -> None:
    bundle = AssemblyBundle.read(folder / name)
    for document in bundle.documents.values():
        opened = open_assembly(document) if speaks_of_an_assembly(document) else open_document(document)
        assert opened[1].to_bytes() == opened[0].payload
    bundle.write(tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (folder / name / file.name).read_bytes()
    assert len(list(tmp_path.iterdir())) == len(list((folder / name).iterdir())) - 1  # the weights are not of it


def test_the_samples_are_of_the_cases() -> None:
    """As long as the format and the engine are the same, the same statements are made (numbers may differ)."""
    folder = STORED / f"composition-v{FORMAT}" / "nested"
    stored, made = AssemblyBundle.read(folder).statement, assembly_case("nested").bundle.statement
    names = [[module.name for module in one.predicate.modules] for one in (stored, made)]
    assert names[0] == names[1]
    assert [s.digest for s in stored.subject[2:]] == [s.digest for s in made.subject[2:]]


def test_a_network_of_a_stored_assembly_is_an_ordinary_certificate() -> None:
    folder = STORED / "composition-v1" / "exact"
    for path in folder.glob("*.certificate.json"):
        assert Certificate.read(path).condition == "lure"
