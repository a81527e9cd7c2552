"""Certificates and other formats: made from one, they hold for what it converts to, and the other way round."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes import formats
from certes.certificate.assembly_check import verify_assembly
from certes.errors import InputError
from certes.weights import read_weights, rewritten, write_weights
from certes_client.policy.inspecting import weight_files

from tests.client.running import STABLE, UNSTABLE, inside
from tests.formats.problems import keras_archive, keras_config, keras_weights, onnx_model

pytest.importorskip("onnx")
pytest.importorskip("h5py")

Capture = pytest.CaptureFixture[str]
RNN = ("--form", "torch-rnn", "--activation", "tanh", "--condition", "auto")
RATE = ("--form", "rate", "--tensor", "W", "--activation", "tanh", "--condition", "absolute")


def _npz(path: Path, size: float) -> None:
    np.savez(path, W=np.asarray(STABLE) * size)


def _onnx(path: Path, size: float) -> None:
    import onnx

    model = onnx_model("rnn")
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor) * np.float32(0.3 * size)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    path.write_bytes(model.SerializeToString())


def _keras(path: Path, size: float) -> None:
    weights = [value * np.float32(0.3 * size) for value in keras_weights("rnn")]
    path.write_bytes(keras_archive(keras_config(("rnn", "memory")), {"simple_rnn": weights}))


FORMATS: dict[str, tuple[Callable[[Path, float], None], tuple[str, ...]]] = {
    ".npz": (_npz, RATE),
    ".onnx": (_onnx, RNN),
    ".keras": (_keras, RNN),
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("ending", FORMATS)
def test_a_certificate_holds_for_the_file_and_for_what_it_converts_to(
    capsys: Capture, tmp_path: Path, ending: str
) -> None:
    make, options = FORMATS[ending]
    given, made = tmp_path / f"net{ending}", tmp_path / "made.safetensors"
    make(given, 1.0)
    converted = inside(capsys, "convert", given, made, "--json")
    assert converted.code == 0, converted
    assert converted.json["sha256"] == hashlib.sha256(made.read_bytes()).hexdigest()
    for source, other in ((given, made), (made, given))[: 2 if ending == ".npz" else 1]:
        out = tmp_path / source.name.replace(".", "-")
        done = inside(capsys, "certify", source, *options, "--out", out, "--json")
        assert done.code == 0, done
        for weights in (source, other):
            assert inside(capsys, "verify", out, "--weights", weights).code == 0
    make(given, 0.99)
    done = inside(capsys, "verify", out, "--weights", given, "--json")
    assert (done.code, done.json["reason"]) == (1, "wrong-weights")


def test_the_bytes_that_are_sent_are_those_that_are_certified(tmp_path: Path) -> None:
    _npz(tmp_path / "net.npz", 1.0)
    file = formats.read(tmp_path / "net.npz")
    assert formats.as_safetensors(tmp_path / "net.npz", file) == formats.converted(tmp_path / "net.npz")
    assert hashlib.sha256(rewritten(file, {})).hexdigest() == file.sha256
    plain = write_weights(tmp_path / "plain.safetensors", {"W": np.eye(2)})
    assert formats.as_safetensors(plain, read_weights(plain)) == plain


def test_the_ending_decides_and_bytes_are_safetensors(tmp_path: Path) -> None:
    """A name that promises safetensors gets no other reader, whatever is inside; neither do bytes from anywhere."""
    _npz(tmp_path / "net.npz", 1.0)
    data = (tmp_path / "net.npz").read_bytes()
    (tmp_path / "net.safetensors").write_bytes(data)
    for source in (tmp_path / "net.safetensors", data):
        with pytest.raises(InputError, match="certes convert") as refused:
            formats.read(source)
        assert refused.value.slug == "pickle"
    assert formats.read(tmp_path / "net.npz").tensors
    (tmp_path / "NET.NPZ").write_bytes(data)
    assert formats.read(str(tmp_path / "NET.NPZ")).name == "NET.safetensors"


def test_every_verb_takes_other_formats(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = tmp_path / "net.npz"
    np.savez(net, W=np.asarray(UNSTABLE, np.float32))
    shown = inside(capsys, "inspect", net, "--json").json
    assert [entry["name"] for entry in shown["tensors"]] == ["W"]
    done = inside(capsys, "project", net, *RATE, "--json")
    assert done.code == 0, done
    assert Path(done.json["out"]["path"]).name == "net-projected.safetensors"
    refused = inside(capsys, "project", net, *RATE, "--out", net, "--json")
    assert (refused.code, refused.json["field"]) == (2, "--out")  # it would no longer be what its name says
    np.savez(net, W=np.asarray(STABLE, np.float32))
    same = inside(capsys, "project", net, *RATE, "--out", "same.safetensors", "--json")
    assert same.code == 0
    assert Path("same.safetensors").read_bytes() == formats.converted(net)
    certificate = inside(capsys, "certify", net, *RATE, "--json").json["certificate"]["path"]
    assert inside(capsys, "attest", certificate, "--weights", net).code == 0
    assert certes.verify(certificate, net).valid
    assert certes.verify(certificate, str(net)).valid


def test_assemblies_take_other_formats(capsys: Capture, tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", W=np.asarray(STABLE))
    module = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}
    (tmp_path / "all.json").write_text(json.dumps({"file": "net.npz", "modules": {"a": module}}))
    answer = inside(capsys, "compose", tmp_path / "all.json", "--out", tmp_path / "out", "--json").json
    assert answer["verdict"] == "contracting"
    for weights in (tmp_path / "net.npz", {"a": tmp_path / "net.npz"}, {"a": formats.converted(tmp_path / "net.npz")}):
        assert verify_assembly(answer["certificate"]["path"], weights).valid
    np.savez(tmp_path / "net.npz", W=np.asarray(STABLE) * 0.99)
    assert not verify_assembly(answer["certificate"]["path"], tmp_path / "net.npz").valid


def test_init_and_check_find_and_take_them(capsys: Capture, tmp_path: Path) -> None:
    _npz(tmp_path / "tanh.npz", 1.0)
    _onnx(tmp_path / "net.onnx", 1.0)
    _keras(tmp_path / "memory.keras", 1.0)
    (tmp_path / "memory.safetensors").write_bytes(formats.converted(tmp_path / "memory.keras"))
    (tmp_path / "broken.pt.npz").write_bytes(b"PK")
    found = [path.name for path in weight_files(tmp_path)]
    assert found == ["broken.pt.npz", "memory.safetensors", "net.onnx", "tanh.npz"]  # of two that are one, the latter
    shown = inside(capsys, "init", tmp_path)
    assert shown.code == 0, shown
    assert "broken.pt.npz" in shown.out
    done = inside(capsys, "check", "--policy", tmp_path / "certes.toml", "--json")
    assert done.code == 0, done.out
    assert {model["state"] for model in done.json["models"]} == {"passed"}
    again = inside(capsys, "check", "--policy", tmp_path / "certes.toml", "--json").json["models"]
    assert all(model["cached"] for model in again)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("plain.safetensors", "out.safetensors"), "IN"),
        (("none.npz", "out.safetensors"), "weights"),
        (("broken.npz", "out.safetensors"), "weights"),
        (("net.npz", "out.npz"), "OUT"),
        (("net.npz", "folder.safetensors"), "OUT"),
        (("net.npz", "plain.safetensors"), "OUT"),
        (("net.npz", "net.npz/out.safetensors"), "--out"),
    ],
)
def test_convert_refuses(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, str], field: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _npz(Path("net.npz"), 1.0)
    Path("broken.npz").write_bytes(b"0")
    Path("folder.safetensors").mkdir()
    plain = write_weights("plain.safetensors", {"W": np.eye(2)}).read_bytes()
    before = sorted(tmp_path.iterdir())
    done: Any = inside(capsys, "convert", *arguments, "--json")
    assert (done.code, done.json["field"]) == (2, field)
    assert sorted(tmp_path.iterdir()) == before
    assert Path("plain.safetensors").read_bytes() == plain
    assert inside(capsys, "convert", "net.npz", "plain.safetensors", "--force").code == 0
    assert Path("plain.safetensors").read_bytes() == formats.converted(Path("net.npz"))
