"""certes repair: the file and certificate that it writes, the summary, exit codes, bad input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.certificate import Certificate
from certes.weights import read_weights, write_weights
from certes_client import repairing

from tests.client.running import Done, inside, process
from tests.nn.problems import arrays, sequences

Capture = pytest.CaptureFixture[str]
SYSTEM = ("--form", "rate", "--tensor", "rec.weight", "--activation", "tanh", "--step", "0.5")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "net.safetensors", arrays(), {"note": "kept"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    inputs, labels = sequences(count=200)
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=labels)
    return tmp_path / "data.npz"


def run(capsys: Capture, net: Path, data: object, *options: object) -> Done:
    out = net.parent / "out" / "new.safetensors"
    return inside(capsys, "repair", net, "--data", data, "--out", out, *SYSTEM, "--epochs", "3", *options)


def test_object_file_and_certificate(capsys: Capture, net: Path, data: Path) -> None:
    done = run(capsys, net, data, "--json")
    assert done.code == 0
    answer = done.json
    assert answer["verdict"] == "contracting"
    new = Path(answer["weights"])
    assert new == net.parent / "out" / "new.safetensors"
    certificate = answer["result"]["certificate"]
    assert Certificate.read(certificate["path"]).statement.file_subject().name == "new.safetensors"  # type: ignore[union-attr]
    checked = inside(capsys, "verify", certificate["path"], "--weights", new, "--json")
    assert checked.code == 0
    assert inside(capsys, "verify", certificate["path"], "--weights", net, "--json").code == 1
    before, after = read_weights(net), read_weights(new)
    assert after.metadata == before.metadata
    changed = [name for name in after if after.tensors[name].sha256 != before.tensors[name].sha256]
    assert sorted(answer["changed"]) == sorted(changed)
    for name in ("accuracy_before", "accuracy_projected", "accuracy_refitted", "accuracy", "validation_accuracy"):
        assert 0.0 <= answer[name] <= 1.0
    assert answer["epochs"] == len(answer["curve"]) == 3
    certified = inside(capsys, "certify", new, *SYSTEM, "--out", net.parent / "own", "--json")
    assert certified.code == 0


def test_summary(capsys: Capture, net: Path, data: Path) -> None:
    done = run(capsys, net, data)
    assert done.code == 0
    for words in ("contracting", "before", "projected", "refitted", "repaired", "epochs", "factor", "distance"):
        assert words in done.out, words
    assert f"--weights {net.parent / 'out' / 'new.safetensors'}" in done.out
    command = next(line for line in done.out.splitlines() if "certes verify" in line).split("certes ")[1].split()
    assert inside(capsys, *command).code == 0


def test_the_name_of_the_new_file(capsys: Capture, net: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (net.parent / "here").mkdir()
    monkeypatch.chdir(net.parent / "here")
    assert inside(capsys, "repair", net, "--data", data, *SYSTEM, "--epochs", "0").code == 0
    assert len(list(Path().glob("*"))) == 3
    assert Path("net-repaired.safetensors").is_file()


def test_seed_and_checkpoint(capsys: Capture, net: Path, data: Path, tmp_path: Path) -> None:
    new, folder = tmp_path / "out" / "new.safetensors", tmp_path / "state"
    assert run(capsys, net, data, "--seed", "1", "--checkpoint", folder).code == 0
    first = new.read_bytes()
    new.unlink()
    assert run(capsys, net, data, "--seed", "1", "--checkpoint", folder).code == 0
    assert new.read_bytes() == first
    refused = run(capsys, net, data, "--seed", "2", "--checkpoint", folder, "--json")
    assert refused.code == 2
    assert refused.json["field"] == "--checkpoint"
    assert refused.json["type"].endswith("wrong-checkpoint")


def test_a_network_that_passes(capsys: Capture, tmp_path: Path, data: Path) -> None:
    net = write_weights(tmp_path / "net.safetensors", arrays(gain=0.3))
    done = run(capsys, net, data)
    assert done.code == 0
    assert "nothing was changed" in done.out
    assert (tmp_path / "out" / "new.safetensors").read_bytes() == net.read_bytes()


def test_nothing_certified_exits_3(capsys: Capture, net: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import certes.nn  # noqa: F401

    monkeypatch.setattr(sys.modules["certes.nn.repair"], "settle", lambda *args, **options: None)
    done = run(capsys, net, data)
    assert done.code == 3
    assert "no file was written" in done.out
    assert not list((net.parent / "out").glob("*"))


def test_slopes_with_an_activation(capsys: Capture, net: Path, data: Path) -> None:
    done = run(capsys, net, data, "--slope", "-1,1", "--json")
    assert done.code == 0
    assert Certificate.read(done.json["result"]["certificate"]["path"]).statement.predicate.system.activation is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--data", "nope.npz"), "--data"),
        (("--data", "weights.csv"), "--data"),
        (("--data", "mnist-rows:nowhere"), "--data"),
        (("--rate", "0.2"), "--rate"),
        (("--epochs", "-1"), "--epochs"),
        (("--learning-rate", "-1"), "--learning-rate"),
        (("--seconds", "0"), "--seconds"),
        (("--device", "abacus"), "--device"),
        (("--input", "nope"), "--input"),
        (("--bias", "nope"), "--bias"),
        (("--readout", "nope"), "--readout"),
        (("--readout-bias", "nope"), "--readout-bias"),
        (("--step", "max"), "--step"),
        (("--out", "net.txt"), "--out"),
        (("--form", "mlp"), "--form"),
        (("--activation", "step"), "--activation"),
        (("--tensor", "inp.weight"), "W"),
    ],
)
def test_bad_input(capsys: Capture, net: Path, data: Path, options: tuple[str, str], field: str) -> None:
    done = run(capsys, net, data, "--json", *options)
    assert done.code == 2
    assert done.json["field"] == field
    assert not (net.parent / "out" / "new.safetensors").exists()


def test_bad_data(capsys: Capture, net: Path, tmp_path: Path) -> None:
    inputs, labels = sequences(count=50)
    holed = inputs.copy()
    holed[3, 1, 0] = np.nan
    cases: list[tuple[Any, Any, str]] = [
        (holed, labels, "data.inputs"),
        (inputs[:, :, :1], labels, "data.inputs"),
        (inputs, labels + 1, "data.labels"),
        (inputs[:1], labels[:1], "--data"),
    ]
    for given, marks, field in cases:
        np.savez(tmp_path / "bad.npz", inputs=given, labels=marks)
        done = run(capsys, net, tmp_path / "bad.npz", "--json")
        assert (done.code, done.json["field"]) == (2, field)


def test_the_given_weights_are_never_overwritten(capsys: Capture, net: Path, data: Path) -> None:
    before = net.read_bytes()
    done = inside(capsys, "repair", net, "--data", data, "--out", net, *SYSTEM, "--json")
    assert (done.code, done.json["field"]) == (2, "--out")
    assert net.read_bytes() == before


def test_torch_missing_is_named(net: Path, data: Path) -> None:
    before = "import sys; sys.modules['torch'] = None"
    done = process("repair", net, "--data", data, *SYSTEM, "--json", before=before)
    assert done.code == 2
    assert done.json["type"].endswith("missing-extra")
    assert done.json["extra"] == "train"
    assert "certes[train]" in done.json["detail"]


def test_the_verb_is_light() -> None:
    assert repairing.repair.__doc__ is not None
    before = "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules))"
    assert process("--help", before=before).out.rstrip().endswith("False")


def test_a_network_that_passes_keeps_every_byte_of_its_file(capsys: Capture, tmp_path: Path, data: Path) -> None:
    """Also those of a header that Certes would write otherwise; and the certificate names the new file."""
    net = tmp_path / "net.safetensors"
    held = write_weights(net, arrays(gain=0.3), {"note": "kept"}).read_bytes()
    length = int.from_bytes(held[:8], "little")
    header = held[8 : 8 + length].replace(b",", b", ") + b"  "
    net.write_bytes(len(header).to_bytes(8, "little") + header + held[8 + length :])
    done = run(capsys, net, data, "--json")
    assert (done.code, done.json["unchanged"]) == (0, True)
    assert Path(done.json["weights"]).read_bytes() == net.read_bytes()
    path = done.json["result"]["certificate"]["path"]
    assert inside(capsys, "verify", path, "--weights", done.json["weights"], "--json").code == 0
    assert Certificate.read(path).statement.file_subject().name == "new.safetensors"  # type: ignore[union-attr]
