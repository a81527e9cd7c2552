"""What comes of training a network whose input gates its steps: folders, proofs, words, and what was tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
import safetensors.numpy
from certes.composition.description import read
from certes.composition.picture import picture
from certes.errors import InputError
from certes.input_gate import InputGate
from certes.nn.architecture import Architecture
from certes.nn.train import train
from certes.nn.trainer import Plan
from certes.weights import read_weights
from certes.words import claimed, gated
from certes_client.pytest_plugin import assert_contracting

from tests.client.running import inside

from .test_gated_steps import net
from .test_train import problem

ARCHITECTURE = Architecture.parse({"kind": "singular", "modules": [4, 3], "step": [0.05, 0.4], "gate": 0.05})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gated")
    train(ARCHITECTURE, problem(60), Plan(epochs=2), out, checkpoint=out / "state", draw=False)
    return out


def test_the_folder_tells_both_factors(trained: Path) -> None:
    report = json.loads((trained / "report.json").read_text())
    gate = InputGate(0.05)
    assert report["gate"] == {"least": 0.05, "rate": None, "factor": gate.factor(report["factor"])}
    described = json.loads((trained / "assembly.json").read_text())
    assert described["gate"] == {"least": 0.05, "weight": "gate.weight", "bias": "gate.bias"}
    page = (trained / "report.html").read_text()
    assert f"factor of at most {claimed(report['gate']['factor'], up=True)} a step, whatever its gate does" in page
    assert "for every share of the step from 0.05 to 1" in page
    assert f"{claimed(report['factor'], up=True)} per step, where the gate is open" in page
    found = read(trained / "assembly.json").compose()
    assert found.gated == report["gate"]
    assert found.to_json()["gate"] == report["gate"]
    assert found.what_if(scale={("m0", "m1"): 0.5}).gate == gate


def test_who_has_the_folder_can_run_the_network(trained: Path) -> None:
    """By numpy, from the files alone."""
    file, content = read_weights(trained / "weights.safetensors"), json.loads((trained / "assembly.json").read_text())
    data = problem(60).test.inputs.astype(np.float64)
    get = {name: file.get(name).floats() for name in file.tensors}
    e = 1.0 / np.concatenate([content["modules"][m]["tau"] for m in ("m0", "m1")])
    W = np.zeros((7, 7))
    W[:4, :4], W[4:, 4:] = e[:4, None] * get["m0.W"], e[4:, None] * get["m1.W"]
    G = np.zeros((7, 7))
    G[:4, 4:], G[4:, :4] = get["m0<-m1"], get["m1<-m0"]
    x, least = np.zeros((len(data), 7)), content["gate"]["least"]
    for t in range(data.shape[1]):
        u = (data[:, t] - get["input.shift"]) / get["input.scale"]
        share = least + (1 - least) / (1 + np.exp(-(u @ get["gate.weight"].T + get["gate.bias"])))
        moved = np.maximum(x, 0.0) @ W.T + x @ G.T + e * (u @ get["input.weight"].T + get["input.bias"] - x)
        x = x + share * moved
    right = (x @ get["readout.weight"].T + get["readout.bias"]).argmax(1) == problem(60).test.labels
    assert right.mean() == pytest.approx(json.loads((trained / "report.json").read_text())["test_accuracy"], abs=1e-9)


def test_resumed_it_ends_with_the_same_bits(trained: Path, tmp_path: Path) -> None:
    """Cut off after an epoch, and gone on with; an architecture without the gate is another question."""

    class Cut(Exception):
        pass

    def cut(_: object) -> None:
        raise Cut

    with pytest.raises(Cut):
        train(ARCHITECTURE, problem(60), Plan(epochs=2), tmp_path / "out", checkpoint=tmp_path / "s", progress=cut)
    plain = ARCHITECTURE.model_copy(update={"gate": None})
    with pytest.raises(InputError) as caught:
        train(plain, problem(60), Plan(epochs=2), tmp_path / "out", checkpoint=tmp_path / "s")
    assert caught.value.slug == "wrong-checkpoint"
    train(ARCHITECTURE, problem(60), Plan(epochs=2), tmp_path / "out", checkpoint=tmp_path / "s", draw=False)
    one, two = ((folder / "weights.safetensors").read_bytes() for folder in (trained, tmp_path / "out"))
    assert one == two


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"gate": {"least": 0.0, "weight": "gate.weight", "bias": "gate.bias"}}, "assembly.gate.least"),
        ({"gate": {"least": 1.0, "weight": "gate.weight", "bias": "gate.bias"}}, "assembly.gate.least"),
        ({"gate": {"least": True, "weight": "gate.weight", "bias": "gate.bias"}}, "assembly.gate.least"),
        ({"gate": {"least": 0.1, "weight": "none", "bias": "gate.bias"}}, "assembly.gate.weight"),
        ({"gate": {"least": 0.1, "weight": "input.weight", "bias": "gate.bias"}}, "assembly.gate.weight"),
        ({"gate": {"least": 0.1, "weight": "gate.weight", "bias": "input.bias"}}, "assembly.gate.bias"),
        ({"gate": {"least": 0.1}}, "assembly.gate.weight"),
        ({"gate": [0.1]}, "assembly.gate"),
    ],
)
def test_gates_that_are_none(trained: Path, tmp_path: Path, change: dict[str, Any], field: str) -> None:
    (tmp_path / "weights.safetensors").write_bytes((trained / "weights.safetensors").read_bytes())
    content = json.loads((trained / "assembly.json").read_text()) | change
    (tmp_path / "assembly.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read(tmp_path / "assembly.json")
    assert caught.value.field.startswith(field)


@pytest.mark.parametrize("inline", [True, False])
def test_a_gate_of_a_module_is_refused(trained: Path, tmp_path: Path, inline: bool) -> None:
    """It would scale some states and not others, of which the certificate says nothing."""
    for name in ("weights.safetensors", "assembly.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    inner: dict[str, Any] = {"assembly": "assembly.json"}
    if inline:
        inner = json.loads((trained / "assembly.json").read_text())
        inner.pop("mode")
    (tmp_path / "outer.json").write_text(json.dumps({"modules": {"a": inner}}))
    with pytest.raises(InputError) as caught:
        read(tmp_path / "outer.json")
    assert caught.value.field == "assembly.modules.a.gate"


def changed(trained: Path, folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> tuple[Any, ...]:
    """A copy of a folder with a changed file; the arguments of ``certes verify`` for it."""
    shutil.copytree(trained, folder)
    content = json.loads((folder / name).read_text())
    digest = json.loads((folder / "report.json").read_text())["certificate"]
    change(content)
    (folder / name).write_text(json.dumps(content))
    return "verify", folder / f"{digest}.assembly.json", "--weights", folder


def quicker(content: dict[str, Any]) -> None:
    """Steps three times as large: outside what was certified."""
    for module in content["modules"].values():
        module["tau"] = [tau / 3 for tau in module["tau"]]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("assembly.json", quicker, "another network than the certified one"),
        ("assembly.json", lambda c: c.update(step=2.0), "another network than the certified one"),
        ("assembly.json", lambda c: c["gate"].update(most=2.0), "assembly.gate.most"),
        ("assembly.json", lambda c: c["gate"].update(least=1.5), "assembly.gate.least"),
        ("assembly.json", lambda c: c["gate"].update(least=0.01), "report.gate"),
        ("assembly.json", lambda c: c["gate"].update(least=0.5), "report.gate"),
        ("assembly.json", lambda c: c.pop("gate"), "report.gate"),
        ("report.json", lambda c: c["gate"].update(factor=0.5), "report.gate"),
        ("report.json", lambda c: c.update(gate=None), "report.gate"),
    ],
)
def test_a_folder_that_was_tampered_with_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, change: Any, said: str
) -> None:
    asked = changed(trained, tmp_path / "copy", name, change)
    refused = inside(capsys, *asked)
    assert refused.code == 2
    assert said in " ".join(refused.err.split())
    assert "valid" not in refused.out


def test_verify_states_the_shares_and_their_factor(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From what is verified, with and without the report, and whatever the gate's weights are."""
    asked = changed(trained, tmp_path / "copy", "assembly.json", lambda content: None)
    report = json.loads((trained / "report.json").read_text())
    factor = claimed(report["gate"]["factor"], up=True)
    expected = f"factor {factor} per step, for every share of the step from 0.05 to 1"
    assert expected in " ".join(inside(capsys, *asked).out.split())
    (tmp_path / "copy" / "report.json").unlink()
    weights = tmp_path / "copy" / "weights.safetensors"
    assert inside(capsys, *asked[:-1], weights, "--json").json["gate"] == report["gate"]
    content = safetensors.numpy.load_file(weights)
    content["gate.weight"] += 100.0
    safetensors.numpy.save_file(content, weights)
    assert inside(capsys, *asked, "--json").json["gate"] == report["gate"]
    content["gate.weight"][0, 0] = np.nan
    safetensors.numpy.save_file(content, weights)
    refused = inside(capsys, *asked)
    assert refused.code == 2
    assert "gate.weight" in refused.err


def test_steps_beyond_the_certified_one_are_not_composed(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(trained, tmp_path / "copy", "assembly.json", lambda content: content.update(step=50.0))
    found = inside(capsys, "compose", tmp_path / "copy" / "assembly.json", "--json")
    assert found.json["verdict"] != "contracting"
    assert found.json["gate"] is None, "nothing is proven"
    assert found.code != 0


def test_a_witness_against_the_open_gate_is_told_as_such(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(trained, tmp_path / "copy", "assembly.json", lambda content: content.update(step=50.0))
    found = inside(capsys, "compose", tmp_path / "copy" / "assembly.json")
    assert "refuted where the gate is open" in " ".join(found.out.split())


def test_pictures_and_pytest_say_what_holds_with_the_gate() -> None:
    found: Any = certes.certify(net(0.1), refute=False)
    assert picture(found).level == found.gated["factor"]

    class Exporting:
        """No module of torch."""

        input_gate = InputGate(0.1)

        def system(self) -> Any:
            return net(0.1).system()

        def metrics(self) -> Any:
            return net(0.1).metrics()

    assert assert_contracting(Exporting(), factor_at_most=found.gated["factor"]).verdict == "contracting"
    with pytest.raises(AssertionError, match="factor of at most"):
        assert_contracting(Exporting(), factor_at_most=0.5 * (found.factor + found.gated["factor"]))


def test_words_claim_no_more_than_the_numbers() -> None:
    factor = gated({"least": 0.12345678, "rate": None, "factor": 0.9876541})
    assert factor == "factor 0.987655 per step, for every share of the step from 0.12345678 to 1"
    assert gated({"least": 0.1, "rate": 0.1234567, "factor": None}).startswith("rate 0.123456, for every share")


def test_the_command_line_trains_verifies_and_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = problem(40)
    test = {"test_inputs": data.test.inputs, "test_labels": data.test.labels}
    np.savez("data.npz", inputs=data.train.inputs, labels=data.train.labels, **test)
    asked = ("data.npz", "--modules", "3,2", "--epochs", 1, "--step", "0.3", "--gate", 0.2)
    whole = "for every share of the step from 0.2 to 1"
    assert whole in " ".join(inside(capsys, "train", *asked, "--out", "out").out.split())
    report = json.loads(Path("out/report.json").read_text())
    assert report["gate"]["least"] == 0.2
    verified = inside(capsys, "verify", f"out/{report['certificate']}.assembly.json", "--weights", "out", "--json")
    assert verified.json["valid"] is True
    assert whole in " ".join(inside(capsys, "compose", "out/assembly.json").out.split())
    between = 0.5 * (report["factor"] + report["gate"]["factor"])
    for most, expected in ((between, 1), (report["gate"]["factor"], 0)):
        Path("certes.toml").write_text(f'[models.net]\nassembly = "out"\nfactor_at_most = {most!r}\n')
        assert inside(capsys, "check").code == expected
    assert inside(capsys, "check", "--accept").code == 0
    with Path("certes.toml").open("a") as file:
        file.write("allowed_regression = 0.5\n")
    refused = inside(capsys, "check")
    assert refused.code == 1, "no certificate says which gate was accepted"
    assert "gate" in refused.out
    bad = inside(capsys, "train", "data.npz", "--gate", 2, "--out", "other")
    assert bad.code == 2
    assert "--gate" in bad.err
