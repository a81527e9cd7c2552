"""certes certify: every option, the JSON object, the summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes.certificate import Certificate
from certes.weights import read_weights, write_weights
from certes.words import claimed, printable
from hypothesis import given
from hypothesis import strategies as st

from tests.client.running import RATE, ROTATION, STABLE, UNSTABLE, inside, network

Capture = pytest.CaptureFixture[str]

SHAPE: dict[str, type | tuple[type, ...]] = {
    "verdict": str,
    "rate": (float, type(None)),
    "factor": (float, type(None)),
    "rate_bound": (float, type(None)),
    "factor_bound": (float, type(None)),
    "certified_scale": (float, type(None)),
    "refuted_scale": (float, type(None)),
    "condition": (str, type(None)),
    "reason": (str, type(None)),
    "detail": str,
    "claims": (dict, type(None)),
    "witness": (dict, type(None)),
    "attempts": list,
    "also": list,
    "certificate": (dict, type(None)),
}


def certify(capsys: Capture, folder: Path, net: Path, *options: object) -> Any:
    return inside(capsys, "certify", net, "--out", folder / "out", "--json", *options)


@pytest.mark.parametrize(
    ("W", "code", "verdict"), [(STABLE, 0, "contracting"), (UNSTABLE, 1, "not_contracting"), (ROTATION, 3, "undecided")]
)
def test_shape_of_the_object(capsys: Capture, tmp_path: Path, W: Any, code: int, verdict: str) -> None:
    done = certify(capsys, tmp_path, network(tmp_path, W), *RATE)
    assert done.code == code
    answer = done.json
    assert answer["verdict"] == verdict
    assert set(answer) == set(SHAPE)
    for name, kind in SHAPE.items():
        assert isinstance(answer[name], kind), name
    assert (answer["certificate"] is None) == (answer["reason"] not in (None, "no_quadratic_metric"))
    assert (answer["reason"] is None) == (verdict != "undecided")
    if answer["certificate"] is not None:
        link = answer["certificate"]
        assert list(link) == ["path", "digest", "proof", "signed"]
        certificate = Certificate.read(link["path"])
        assert (certificate.digest, certificate.verdict) == (link["digest"], verdict)
        assert Path(link["proof"]).read_bytes() == certificate.proof
        assert link["signed"] is False


def test_the_largest_step_is_found_and_certified(capsys: Capture, tmp_path: Path) -> None:
    net = network(tmp_path, ROTATION)
    answer = certify(
        capsys, tmp_path, net, "--form", "rate", "--activation", "tanh", "--tensor", "W", "--step", "max"
    ).json
    assert answer["verdict"] == "contracting"
    assert Certificate.read(answer["certificate"]["path"]).statement.predicate.system.step == pytest.approx(
        0.8, rel=2e-2
    )


def test_same_answer_as_python(capsys: Capture, tmp_path: Path) -> None:
    answer = certify(capsys, tmp_path, network(tmp_path), *RATE).json
    result = certes.certify(certes.RateNetwork(STABLE, "tanh"), condition="absolute")
    assert (answer["rate"], answer["condition"]) == (result.rate, result.condition)
    again = certify(capsys, tmp_path, network(tmp_path), *RATE).json
    assert again["certificate"]["digest"] == answer["certificate"]["digest"]


def test_default_folder_is_the_current_one(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = inside(capsys, "certify", network(tmp_path), *RATE, "--json")
    assert Path(done.json["certificate"]["path"]).resolve().parent == tmp_path.resolve()


TANH = ("--tensor", "W", "--activation", "tanh")
LURE = ("--form", "lure", "--C", "C", "--slope", "0,1", "--condition", "lure")
#: name -> (options, what the certificate then states)
SYSTEMS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "step": (("--form", "rate", *TANH, "--step", "0.2"), {"step": 0.2, "activation": "tanh"}),
    "hopfield": (("--form", "hopfield", *TANH), {"form": "hopfield"}),
    "slope": (("--form", "rate", "--tensor", "W", "--slope", "-1,1"), {"slope": [-1.0, 1.0], "activation": None}),
    "slope tensors": (("--form", "rate", "--tensor", "W", "--slope", "low,high"), {"slope": [[0.0, -0.5], [1.0, 0.5]]}),
    "tau": (("--form", "rate", *TANH, "--tau", "2"), {"tau": 2.0}),
    "tau list": (("--form", "rate", *TANH, "--tau", "1,2.5"), {"tau": [1.0, 2.5]}),
    "tau tensor": (("--form", "rate", *TANH, "--tau", "times"), {"tau": [3.0, 4.0]}),
    "lure": ((*LURE, "--A", "A", "--B", "W"), {"form": "lure"}),
    "lure map": ((*LURE, "--A", "H", "--B", "S", "--discrete"), {"discrete": True}),
    "torch": (("--form", "torch-rnn", "--activation", "tanh"), {"form": "rate", "step": 1.0}),
}


@pytest.mark.cases(5)
@pytest.mark.parametrize("name", SYSTEMS)
def test_systems(capsys: Capture, tmp_path: Path, name: str) -> None:
    options, expected = SYSTEMS[name]
    W, eye = np.array(STABLE), np.eye(2)
    more = {"A": -2 * eye, "C": eye, "H": 0.3 * eye, "S": 0.5 * W, "times": np.array([3.0, 4.0])}
    more |= {"low": np.array([0.0, -0.5]), "high": np.array([1.0, 0.5]), "rnn.weight_hh_l0": W}
    done = certify(capsys, tmp_path, network(tmp_path, W, **more), *options)
    assert done.code == 0, (done.out, done.err)
    stated = Certificate.read(done.json["certificate"]["path"]).statement.predicate.system.model_dump()
    assert {key: stated[key] for key in expected} == expected


def test_rate_to_reach(capsys: Capture, tmp_path: Path) -> None:
    assert certify(capsys, tmp_path, network(tmp_path), *RATE, "--rate", "0.1").json["rate"] == 0.1
    assert certify(capsys, tmp_path, network(tmp_path), *RATE, "--rate", "0.99").code == 3


def test_gru_is_undecided(capsys: Capture, tmp_path: Path) -> None:
    net = write_weights(tmp_path / "gru.safetensors", {"rnn.weight_hh_l0": np.zeros((6, 2), np.float32)})
    done = certify(capsys, tmp_path, net, "--form", "torch-rnn", "--activation", "tanh")
    assert (done.code, done.json["reason"]) == (3, "unsupported_cell")
    done = inside(capsys, "certify", net, "--form", "torch-rnn", "--activation", "tanh", "--out", tmp_path)
    assert "GRU" in done.out
    assert "try next" in done.out


def test_summary_contracting(capsys: Capture, tmp_path: Path) -> None:
    done = inside(capsys, "certify", network(tmp_path), *RATE, "--out", tmp_path)
    first, *rest = done.out.splitlines()
    assert first == "contracting  net.safetensors: rate network, n = 2, tanh, continuous time"
    text = "\n".join(rest)
    for word in (
        "rate",
        "exp(-",
        "proven by",
        "absolute",
        "certificate",
        "unsigned",
        "certes verify",
        ".certificate.json",
    ):
        assert word in text


def test_summary_not_contracting(capsys: Capture, tmp_path: Path) -> None:
    done = inside(capsys, "certify", network(tmp_path, UNSTABLE), *RATE, "--out", tmp_path)
    assert done.out.startswith("not contracting  net.safetensors")
    for word in ("equilibrium", "in no norm", "parted after"):
        assert word in done.out


@pytest.mark.parametrize(("drive", "words"), [(np.eye(2), "can produce it"), ([[0.0], [1.0]], "cannot produce it")])
def test_summary_says_whether_the_input_can_be_produced(
    capsys: Capture, tmp_path: Path, drive: Any, words: str
) -> None:
    arrays = {"rnn.weight_hh_l0": np.array(UNSTABLE), "rnn.weight_ih_l0": np.array(drive)}
    arrays |= {f"rnn.bias_{side}_l0": np.full(2, 0.125) for side in ("ih", "hh")}
    net = write_weights(tmp_path / "rnn.safetensors", arrays)
    done = inside(capsys, "certify", net, "--form", "torch-rnn", "--activation", "tanh", "--out", tmp_path)
    assert (done.code, words in done.out) == (1, True), done.out


def test_summary_undecided(capsys: Capture, tmp_path: Path) -> None:
    done = inside(capsys, "certify", network(tmp_path, ROTATION), *RATE, "--out", tmp_path)
    assert done.out.startswith("undecided  net.safetensors")
    for word in ("reason", "margin", "tried", "absolute: ", "try next"):
        assert word in done.out


def test_names_from_files_cannot_speak_to_the_terminal(capsys: Capture, tmp_path: Path) -> None:
    name = "[bold]W\x1b[31m\x07\n"
    net = write_weights(tmp_path / "evil[red].safetensors", {name: np.array(STABLE)}, {"k\x1b": "v\x1b[2J"})
    options = ("--form", "rate", "--tensor", name, "--activation", "tanh", "--condition", "absolute", "--out", tmp_path)
    for done in (inside(capsys, "inspect", net), inside(capsys, "certify", net, *options)):
        assert done.code == 0, done.err
        assert "\x1b" not in done.out
        assert "\x07" not in done.out
    assert "evil[red]" in done.out
    wrong = inside(capsys, "certify", net, *RATE, "--out", tmp_path)
    assert (wrong.code, "\x1b" in wrong.err, "[bold]W" in wrong.err) == (2, False, True)


def test_inspect(capsys: Capture, tmp_path: Path) -> None:
    net = write_weights(
        tmp_path / "my net.safetensors", {"rnn.weight_hh_l0": np.zeros((2, 2), np.float16)}, {"note": "hi"}
    )
    answer = inside(capsys, "inspect", net, "--json").json
    entry = read_weights(net).tensors["rnn.weight_hh_l0"]
    assert list(answer) == ["file", "sha256", "metadata", "tensors", "recognised", "detail", "candidates", "command"]
    assert answer["tensors"] == [{"name": "rnn.weight_hh_l0", "dtype": "F16", "shape": [2, 2], "sha256": entry.sha256}]
    assert (answer["recognised"], answer["metadata"]) == ("torch-rnn", {"note": "hi"})
    text = inside(capsys, "inspect", net).out
    assert answer["command"] in text
    assert "2 x 2" in text
    assert f"'{net}'" in answer["command"], "a path with a space is quoted"


def test_the_suggested_command_works(capsys: Capture, tmp_path: Path) -> None:
    import shlex

    net = network(tmp_path)
    command = inside(capsys, "inspect", net, "--json").json["command"]
    words = shlex.split(command.replace("NAME", "tanh").replace("--step H", "--step 0.2"))
    assert inside(capsys, *words[1:], "--out", tmp_path, "--condition", "absolute").code == 0


def test_version(capsys: Capture) -> None:
    assert inside(capsys, "--version").out == f"certes {certes.__version__}\n"


@given(st.floats(min_value=1e-300, max_value=1e300), st.booleans())
def test_a_printed_claim_never_exceeds_the_certificate(value: float, up: bool) -> None:
    from fractions import Fraction

    said = Fraction(claimed(value, up=up))
    assert said >= Fraction(value) if up else said <= Fraction(value)
    assert abs(said - Fraction(value)) <= Fraction(value) / 10**5


@given(st.text())
def test_printable_is_printable(text: str) -> None:
    assert printable(text).isprintable()
