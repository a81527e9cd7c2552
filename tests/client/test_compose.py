"""certes compose, and certes certify of stacked torch layers: answers, what if, files, the summary, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from certes.certificate.assembly_check import verify_assembly
from certes.composition.description import read
from certes.weights import read_weights, write_weights

from tests.client.running import Done, inside, process

Capture = pytest.CaptureFixture[str]
EXAMPLES = Path(__file__).parents[2] / "examples" / "assemblies"
A = {"form": "rate", "tensors": {"W": "a"}, "activation": "tanh"}
B = {"form": "rate", "tensors": {"W": "b"}, "activation": "tanh"}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """Two modules, coupled both ways, weakly enough."""
    arrays = {"a": np.diag([0.2, -0.3]), "b": np.diag([0.4, 0.1]), "up": 0.3 * np.eye(2), "down": 0.1 * np.eye(2)}
    write_weights(tmp_path / "w.safetensors", {**arrays, "strong": 9.0 * np.eye(2), "big": 3.0 * np.eye(2, k=1)})
    return put(tmp_path)


def put(folder: Path, name: str = "net.yaml", **changes: Any) -> Path:
    couplings = [{"to": "b", "from": "a", "tensor": "up"}, {"to": "a", "from": "b", "tensor": "down"}]
    given = {"file": "w.safetensors", "modules": {"a": A, "b": B}, "couplings": couplings, **changes}
    (folder / name).write_text(yaml.safe_dump(given, sort_keys=False))
    return folder / name


def ask(capsys: Capture, net: Path, *options: object) -> Done:
    return inside(capsys, "compose", net, "--json", *options)


def strong(net: Path) -> Path:
    couplings = [{"to": "b", "from": "a", "tensor": "strong"}, {"to": "a", "from": "b", "tensor": "strong"}]
    return put(net.parent, "strong.yaml", couplings=couplings)


def test_the_same_answer_as_python(capsys: Capture, net: Path) -> None:
    done, found = ask(capsys, net), read(net).compose()
    assert (done.code, found.verdict) == (0, "contracting")
    expected = json.loads(json.dumps(found.to_json()))
    answer = done.json
    assert list(answer) == [*expected, "certificate", "before", "figure"]
    assert {key: answer[key] for key in expected} == expected
    assert (answer["certificate"], answer["before"], answer["figure"]) == (None, None, None)
    assert answer["rate"] > 0.3
    assert set(answer["modules"]) == {"a", "b"}
    assert answer["limiting"] == "b"


def test_modes_and_step(capsys: Capture, net: Path) -> None:
    everything = ask(capsys, net, "--mode", "all").json
    assert {"interface", "exact", "whole", "monolithic"} <= set(everything["modes"])
    step = everything["largest_step"]["step"]
    assert list(ask(capsys, net, "--mode", "interface").json["modes"]) == ["interface"]
    done = ask(capsys, net, "--mode", "interface", "--step", 0.9 * step)
    assert (done.code, done.json["rate"]) == (0, None)
    assert done.json["factor"] < 1.0
    stepped = put(net.parent, "stepped.yaml", step=0.9 * step)
    assert ask(capsys, stepped, "--mode", "interface").json["factor"] == done.json["factor"]
    assert ask(capsys, stepped, "--mode", "interface", "--step", "none").json["factor"] is None


def test_undecided_names_what_to_try(capsys: Capture, net: Path) -> None:
    """a2 drives b1, b2 drives a1: no loop, but a strong one as far as the interfaces can tell."""
    couplings = [{"to": "b", "from": "a", "tensor": "big"}, {"to": "a", "from": "b", "tensor": "big"}]
    path = put(net.parent, "middling.yaml", couplings=couplings)
    done = inside(capsys, "compose", path, "--mode", "interface")
    assert done.code == 3
    assert "reason" in done.out
    assert "--scale b/a=0.5" in done.out
    assert "all couplings times 0." in done.out
    assert "feedback" in done.out
    assert "--mode all" in done.out
    assert ask(capsys, path, "--mode", "all").json["mode"] == "monolithic"


def test_refuted(capsys: Capture, net: Path) -> None:
    done = ask(capsys, strong(net))
    assert (done.code, done.json["verdict"]) == (1, "not_contracting")
    witness = done.json["refutation"]["witness"]
    assert not any(isinstance(value, list) and len(value) > 4 for value in witness.values())
    text = inside(capsys, "compose", strong(net)).out
    assert "not contracting" in text
    assert "unstable" in text


def test_a_module_that_fails_is_named(capsys: Capture, net: Path) -> None:
    path = put(net.parent, "bad.yaml", modules={"a": {**A, "tensors": {"W": "strong"}}, "b": B}, couplings=[])
    done = inside(capsys, "compose", path)
    assert done.code in (1, 3)
    path = put(net.parent, "one.yaml", modules={"a": {**A, "tensors": {"W": "a"}}}, couplings=[])
    assert inside(capsys, "compose", path).code == 0


def test_what_if(capsys: Capture, net: Path) -> None:
    plain = ask(capsys, net, "--mode", "interface").json
    stronger = ask(capsys, net, "--scale", "b/a=1.5", "--scale", "a/b=2").json
    assert stronger["proved"] == []
    assert stronger["before"]["rate"] == plain["rate"]
    assert stronger["rate"] < plain["rate"]
    cut = ask(capsys, net, "--scale", "b/a=0").json
    assert cut["rate"] > plain["rate"]
    assert len(cut["edges"]) == 1
    gone = ask(capsys, net, "--without", "b").json
    assert list(gone["modules"]) == ["a"]
    text = inside(capsys, "compose", net, "--without", "b").out
    assert "before" in text
    assert "after" in text
    assert "answered from the interfaces" in text
    assert ask(capsys, net, "--scale", "b/a=200", "--scale", "a/b=200").code == 1


def test_nested_paths(capsys: Capture) -> None:
    done = ask(capsys, EXAMPLES / "workspace.yaml", "--without", "action/motor")
    assert (done.code, done.json["states"], done.json["before"]["states"]) == (0, 46, 52)
    text = inside(capsys, "compose", EXAMPLES / "workspace.yaml", "--mode", "interface").out
    assert "action/memory" in text
    assert "limits" in text


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--mode", "best"], "--mode"), (["--step", "0"], "--step"), (["--step", "x"], "--step"),
        (["--without", "z"], "--without"), (["--without", "a", "--without", "b"], "--without"),
        (["--scale", "b/a"], "--scale"), (["--scale", "b/z=1"], "--scale"), (["--scale", "b/a=x"], "--scale"),
        (["--scale", "b/a=inf"], "--scale"), (["--scale", "b/a=1", "--scale", "b/a=2"], "--scale"),
        (["--seconds", "-1"], "--seconds"), (["--sign", "gone.pem"], "--sign"), (["--figure", "x.pdf"], None),
        (["--out", "w.safetensors"], "--out"),
    ],
)  # fmt: skip
def test_wrong_options(
    capsys: Capture, net: Path, options: list[str], field: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(net.parent)
    done = ask(capsys, net, *options)
    assert (done.code, done.json["verdict"]) == (2, None)
    if field is not None:
        assert done.json["field"] == field


def test_wrong_descriptions(capsys: Capture, net: Path) -> None:
    path = put(net.parent, "wrong.yaml", modules={"a": {**A, "file": "../x"}})
    assert ask(capsys, path).json["field"] == "assembly.modules.a.file"
    assert ask(capsys, net.parent / "gone.yaml").code == 2
    (net.parent / "text.yaml").write_text("a: [")
    done = inside(capsys, "compose", net.parent / "text.yaml")
    assert (done.code, done.out) == (2, "")
    assert "YAML" in done.err
    stepped = put(net.parent, "map.yaml", modules={"a": {**A, "step": 1.0}}, couplings=[])
    assert ask(capsys, stepped, "--step", "0.1").json["field"] == "--step"


def test_certificates_verify_with_the_weights_beside_the_description(capsys: Capture, net: Path) -> None:
    out = net.parent / "out"
    for options in ((), ("--mode", "interface")):
        shutil.rmtree(out, ignore_errors=True)
        answer = ask(capsys, net, "--out", out, *options).json
        link = answer["certificate"]
        assert Path(link["path"]).is_file()
        assert link["digest"] in link["path"]
        report = verify_assembly(link["path"], net.parent)
        assert report.valid, report
        assert inside(capsys, "verify", link["path"], "--weights", net.parent).code == 0
    text = inside(capsys, "compose", net, "--out", out).out
    assert "certes verify" in text
    assert ask(capsys, strong(net), "--out", out).json["certificate"] is None


def test_signed(capsys: Capture, net: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = net.parent / "key.pem"
    private = Ed25519PrivateKey.generate()
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    assert ask(capsys, net, "--sign", key).json["field"] == "--sign"  # nothing would be written
    answer = ask(capsys, net, "--sign", key, "--out", net.parent / "out").json
    assert answer["certificate"]["signed"] is True


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", ["two.yaml", "workspace.yaml"])
def test_figures(capsys: Capture, tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "net.svg"
    done = ask(capsys, EXAMPLES / name, "--mode", "interface", "--figure", target)
    assert (done.code, done.json["figure"]) == (0, str(target))
    assert b"<svg" in target.read_bytes()


def test_a_figure_of_what_is_not_certified(capsys: Capture, net: Path) -> None:
    pytest.importorskip("matplotlib")
    path = put(net.parent, "bad.yaml", modules={"a": {**A, "tensors": {"W": "strong"}}, "b": B})
    target = net.parent / "bad.png"
    assert ask(capsys, path, "--figure", target).code in (1, 3)
    assert target.read_bytes()[:4] == b"\x89PNG"


def test_as_a_process(capsys: Capture, net: Path) -> None:
    done = process("compose", net, "--mode", "interface")
    assert done.code == 0
    assert done.out.startswith("contracting  net.yaml: 2 networks, 2 couplings, 4 states, continuous time")
    assert "largest step" in done.out
    assert "compose" in inside(capsys, "--help").out


def stacked(folder: Path, **changes: Any) -> Path:
    found = {name: entry.array() for name, entry in read_weights(EXAMPLES / "stacked.safetensors").tensors.items()}
    return write_weights(folder / "net.safetensors", {**found, **changes})


LAYERS = ("--form", "torch-rnn", "--activation", "tanh")


def test_a_stacked_torch_network_is_composed(capsys: Capture, tmp_path: Path) -> None:
    net = stacked(tmp_path)
    done = inside(capsys, "certify", net, *LAYERS, "--out", tmp_path / "out", "--json")
    assert (done.code, list(done.json)) == (0, ["verdict", "claim", "networks"])
    answer = done.json["networks"]["rnn"]
    assert answer["factor"] < 0.7
    assert "pipeline" in done.json["claim"]
    assert verify_assembly(answer["certificate"]["path"], net).valid
    text = inside(capsys, "certify", net, *LAYERS, "--out", tmp_path / "out").out
    assert text.startswith("contracting  net.safetensors: 3 networks")
    assert "of torch" in text
    found = inside(capsys, "inspect", net, "--json").json
    assert found["recognised"] == "stacked-rnn"
    assert "--form torch-rnn" in found["command"]


def test_a_stack_with_an_unstable_layer(capsys: Capture, tmp_path: Path) -> None:
    net = stacked(tmp_path, **{"rnn.weight_hh_l1": 2.0 * np.eye(10, dtype=np.float32)})
    done = inside(capsys, "certify", net, *LAYERS, "--json", "--out", tmp_path)
    assert (done.code, done.json["verdict"], done.json["claim"]) == (1, "not_contracting", None)


def test_a_bidirectional_network(capsys: Capture, tmp_path: Path) -> None:
    tensors = {name: entry.array() for name, entry in read_weights(EXAMPLES / "stacked.safetensors").tensors.items()}
    both = {name.replace("rnn.", ""): value for name, value in tensors.items() if name.endswith("_l0")}
    both |= {f"{name}_reverse": 0.5 * value for name, value in both.items()}
    net = write_weights(tmp_path / "net.safetensors", both)
    done = inside(capsys, "certify", net, *LAYERS, "--json", "--out", tmp_path / "out")
    assert done.code == 0
    assert list(done.json["networks"]) == ["forward", "reverse"]
    for answer in done.json["networks"].values():
        assert verify_assembly(answer["certificate"]["path"], net).valid
    text = inside(capsys, "certify", net, *LAYERS, "--out", tmp_path / "out").out
    assert "each in its own time" in text
    assert "slowest: forward" in text


@pytest.mark.parametrize(
    ("option", "value"),
    [("--condition", "lure"), ("--rate", "0.5"), ("--backend", "cvxpy-scs"), ("--step", "max")],
)
def test_options_without_a_meaning_for_layers(capsys: Capture, tmp_path: Path, option: str, value: str) -> None:
    done = inside(capsys, "certify", stacked(tmp_path), *LAYERS, option, value, "--json")
    assert (done.code, done.json["field"]) == (2, option)
