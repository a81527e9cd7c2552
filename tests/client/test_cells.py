"""GRU and LSTM through every door: command line, policy, service, and a service that the command line asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.weights import write_weights

from tests.client.running import Done, inside
from tests.service.asking import assert_problem, post_file
from tests.service.conftest import Running, running
from tests.verify.gated_cases import bistable, calm

Capture = pytest.CaptureFixture[str]
KINDS = ("gru", "lstm")
NAMES = {"W": "rnn.weight_ih_l0", "U": "rnn.weight_hh_l0", "b": "rnn.bias_ih_l0", "c": "rnn.bias_hh_l0"}


def stored(folder: Path, kind: str, *, stable: bool = True) -> Path:
    weights, _ = (calm if stable else bistable)(kind)
    return write_weights(folder / f"{kind}.safetensors", {NAMES[role]: value for role, value in weights.items()})


def certify(capsys: Capture, file: Path, *options: object) -> Done:
    return inside(capsys, "certify", file, "--form", file.stem, "--out", file.parent / "out", "--json", *options)


@pytest.mark.parametrize("kind", KINDS)
def test_from_a_file_to_a_verified_certificate(capsys: Capture, tmp_path: Path, kind: str) -> None:
    file = stored(tmp_path, kind)
    shown = inside(capsys, "inspect", file)
    assert f"--form {kind} --tensor rnn.weight_hh_l0 --inputs=LOW,HIGH" in shown.out.replace("\n", " ")
    done = certify(capsys, file, "--inputs=-1,1")
    assert (done.code, done.json["verdict"], done.json["condition"]) == (0, "contracting", "gated")
    (path,) = (tmp_path / "out").glob("*.certificate.json")
    verified = inside(capsys, "verify", path, "--weights", file)
    assert verified.code == 0
    words = " ".join(verified.out.split())
    assert "states named below, under the same admissible inputs" in words
    assert "nothing is said of other starts or inputs" in words
    named = inside(capsys, "certify", file, "--form", kind, "--tensor", NAMES["U"], "--inputs=-1,1", "--out", tmp_path)
    assert "nothing is said of other starts or inputs" in " ".join(named.out.split())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_proven(capsys: Capture, tmp_path: Path, kind: str) -> None:
    file = stored(tmp_path, kind)
    without = certify(capsys, file)
    assert (without.code, without.json["reason"]) == (3, "no_input_box")
    refuted = certify(capsys, stored(tmp_path, kind, stable=False), "--inputs=-1,1")
    assert refuted.json["verdict"] == "not_contracting"
    (path,) = (tmp_path / "out").glob("*.certificate.json")
    assert inside(capsys, "verify", path, "--weights", file, "--json").json["verdict"] == "not_contracting"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--inputs=1,-1",), "inputs"),
        (("--inputs=1",), "--inputs"),
        (("--inputs=low,high",), "--inputs"),
        (("--inputs=nan,1",), "--inputs"),
        (("--inputs=-1,1", "--activation", "tanh"), "--activation"),
        (("--inputs=-1,1", "--step", "0.5"), "--step"),
        (("--inputs=-1,1", "--tensor", "rnn.bias_hh_l0"), "--tensor"),
        (("--inputs=-1,1", "--condition", "lure"), "condition"),
    ],
)
def test_bad_options(capsys: Capture, tmp_path: Path, options: tuple[str, ...], field: str) -> None:
    done = certify(capsys, stored(tmp_path, "gru"), *options)
    assert done.code == 2
    assert field in done.err + done.out


def test_a_box_belongs_to_gated_cells(capsys: Capture, tmp_path: Path) -> None:
    net = write_weights(tmp_path / "net.safetensors", {"W": np.zeros((2, 2))})
    done = inside(capsys, "certify", net, "--form", "rate", "--tensor", "W", "--activation", "tanh", "--inputs=-1,1")
    assert done.code == 2
    assert "--inputs" in done.err + done.out


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_names_the_box(capsys: Capture, tmp_path: Path, kind: str) -> None:
    stored(tmp_path, kind)
    policy = tmp_path / "certes.toml"
    text = f'[models.cell]\nfile = "{kind}.safetensors"\nform = "{kind}"\ninputs = [-1, 1]\nfactor_at_most = 0.999\n'
    policy.write_text(text)
    for _ in range(2):  # the second time with the certificate that is kept
        done = inside(capsys, "check", "--policy", policy, "--json")
        assert done.code == 0, done.out + done.err
        assert done.json["models"][0]["state"] == "passed"
    policy.write_text(text.replace("0.999", "0.01"))
    assert inside(capsys, "check", "--policy", policy, "--json").code == 1
    policy.write_text(text.replace("inputs = [-1, 1]\n", ""))
    undeclared = inside(capsys, "check", "--policy", policy, "--json")
    assert undeclared.json["models"][0]["state"] == "undecided"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running(tmp_path_factory.mktemp("cells") / "data") as found:
        yield found


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", KINDS)
def test_the_service_certifies_cells(capsys: Capture, tmp_path: Path, server: Running, kind: str) -> None:
    file = stored(tmp_path, kind)
    with server.client() as http:
        answer = post_file(http, file.read_bytes(), {"form": kind, "inputs": [-1, 1]}, file.name)
        assert answer.status_code in (200, 201), answer.text
        assert answer.json()["verdict"] == "contracting"
        undeclared = post_file(http, file.read_bytes(), {"form": kind}, file.name).json()
        assert (undeclared["verdict"], undeclared["reason"]) == ("undecided", "no_input_box")
        wrong = post_file(http, file.read_bytes(), {"form": kind, "inputs": [1, -1]}, file.name)
        assert_problem(wrong, 422, "box-order")
    here, there = (
        certify(capsys, file, "--inputs=-1,1", *more).json["factor"] for more in ((), ("--server", server.url))
    )
    assert here == there
    refuted = stored(tmp_path, kind, stable=False)
    assert certify(capsys, refuted, "--inputs=-1,1", "--server", server.url).json["verdict"] == "not_contracting"
