"""certes verify on the certificate of an assembly: a tree with a mark per place, exit codes, JSON."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.weights import read_weights
from certes_client import cli

from tests.client.running import inside

Capture = pytest.CaptureFixture[str]
STORED = Path(cli.__file__).parents[2] / "tests" / "assets" / "certificates" / "composition-v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The stored assembly brain, body with its weights beside it."""
    copied = tmp_path / "assembly"
    shutil.copytree(STORED / "nested", copied)
    return copied


def whole(folder: Path) -> Path:
    """The certificate that no other names."""
    from certes.certificate import AssemblyBundle

    return folder / f"{AssemblyBundle.read(folder).root}.assembly.json"


def test_valid(capsys: Capture, folder: Path) -> None:
    for certificate in (whole(folder), folder):
        done = inside(capsys, "verify", certificate, "--weights", folder)
        assert done.code == 0
        assert done.out.startswith("valid")
        assert "NOT CHECKED" in done.out
        rows = [line.rstrip() for line in done.out.splitlines() if "ok  " in line]
        assert [row.split("ok  ")[1].split()[0] for row in rows] == [
            "(the", "brain", "v1", "layer1", "layer2", "pfc", "body",
        ]  # fmt: skip
        assert "FAILED" not in done.out
    done = inside(capsys, "verify", folder, "--weights", folder / "networks.safetensors", "--key", STORED / "key.pem")
    assert done.code == 0
    assert "signed by the key of key.pem" in done.out


def test_json(capsys: Capture, folder: Path) -> None:
    answer = inside(capsys, "verify", folder, "--weights", folder, "--json").json
    assert answer["valid"] is True
    assert answer["path"] is None
    assert answer["claims"]["rate"] > 0
    assert (answer["networks_checked"], answer["steps_checked"]) == (3, 3)
    nodes: dict[str, Any] = {node["path"]: node for node in answer["nodes"]}
    assert set(nodes) == {"", "brain", "brain/v1", "brain/v1/layer1", "brain/v1/layer2", "brain/pfc", "body"}
    assert nodes["brain/v1/layer2"]["digest"] == nodes["body"]["digest"]
    assert nodes[""]["level"] == answer["claims"]["rate"]


def test_what_was_altered_is_named(capsys: Capture, folder: Path) -> None:
    nodes = inside(capsys, "verify", folder, "--weights", folder, "--json").json["nodes"]
    digest = next(node["digest"] for node in nodes if node["path"] == "brain/pfc")
    root = whole(folder)
    (folder / f"{digest}.certificate.json").unlink()
    done = inside(capsys, "verify", root, "--weights", folder)
    assert done.code == 1
    assert done.out.startswith("invalid")
    assert "missing-child" in done.out
    assert "brain/pfc" in done.out
    marks = {line.split()[-1]: line for line in done.out.splitlines() if "FAILED" in line}
    assert list(marks) == ["missing-child"]
    assert sum("rests on what failed" in line for line in done.out.splitlines()) == 2  # brain, and the whole
    assert sum("ok  " in line for line in done.out.splitlines()) == 4  # v1 and its layers, body
    answer = inside(capsys, "verify", root, "--weights", folder, "--json").json
    assert (answer["valid"], answer["reason"], answer["path"]) == (False, "missing-child", "brain/pfc")
    assert answer["claims"] is None
    assert [node["path"] for node in answer["nodes"] if node["blamed"] == "brain/pfc"] == ["", "brain", "brain/pfc"]


def test_couplings_missing(capsys: Capture, folder: Path) -> None:
    for file in folder.glob("*.couplings.safetensors"):
        file.unlink()
    done = inside(capsys, "verify", folder, "--weights", folder / "networks.safetensors")
    assert done.code == 1
    assert "body<-brain" in done.out


def test_weights_of_another_format_are_found_in_the_folder(capsys: Capture, folder: Path) -> None:
    stored = folder / "networks.safetensors"
    arrays = {name: entry.array() for name, entry in read_weights(stored).tensors.items()}
    stored.unlink()
    done = inside(capsys, "verify", folder, "--weights", folder)
    assert (done.code, "missing-weights" in done.out) == (1, True)
    np.savez(folder / "networks.npz", **arrays)
    assert inside(capsys, "verify", folder, "--weights", folder).code == 0
    name = next(iter(arrays))
    np.savez(folder / "networks.npz", **{**arrays, name: arrays[name] * 1.0000001})
    done = inside(capsys, "verify", folder, "--weights", folder)
    assert (done.code, "wrong-weights" in done.out or "missing-weights" in done.out) == (1, True)
    (folder / "networks.npz").write_bytes(b"no archive")
    done = inside(capsys, "verify", folder, "--weights", folder)
    assert (done.code, "networks.npz cannot be read" in " ".join(done.out.split())) == (1, True)


def test_what_is_not_needed_is_not_read(capsys: Capture, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint beside the weights costs nothing, whatever it is."""
    from certes import formats

    def refuse(*_: object) -> None:
        raise AssertionError("it was read")

    (folder / "training.pt").write_bytes(b"anything")
    monkeypatch.setattr(formats.reading, "converted", refuse)
    assert inside(capsys, "verify", folder, "--weights", folder).code == 0


def test_bad_input(capsys: Capture, folder: Path, tmp_path: Path) -> None:
    done = inside(capsys, "verify", folder, "--weights", folder, "--exact", "--json")
    assert done.code == 2
    assert done.json["field"] == "--exact"
    assert inside(capsys, "verify", folder, "--weights", tmp_path / "none.safetensors", "--json").code == 2
    assert inside(capsys, "verify", tmp_path / "none.assembly.json", "--weights", folder, "--json").code == 2
    for other in (STORED / "maps").glob("*.json"):
        shutil.copy(other, folder)
    done = inside(capsys, "verify", folder, "--weights", folder, "--json")
    assert done.code == 2
    assert "2 assemblies" in done.json["given"]


def test_a_damaged_root(capsys: Capture, folder: Path) -> None:
    root = whole(folder)
    root.write_bytes(root.read_bytes()[:-5])
    answer = inside(capsys, "verify", root, "--weights", folder, "--json").json
    assert (answer["valid"], answer["reason"], answer["path"]) == (False, "malformed", "")
    done = inside(capsys, "verify", root, "--weights", folder)
    assert done.code == 1
    assert "the assembly itself" in done.out
