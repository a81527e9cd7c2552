"""Bad input on the command line: exit 2, the field named, with --json in the shape of the service's problems."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.client.running import STABLE, inside, network

BASE: dict[str, str | None] = {"--form": "rate", "--tensor": "W", "--activation": "tanh", "--condition": "absolute"}
NAN = float("nan")

#: name -> (matrix, options that change, field, slug)
CASES: dict[str, tuple[Any, dict[str, str | None], str, str]] = {
    "nan": ([[NAN, 0.0], [0.0, 0.0]], {}, "W", "not-finite"),
    "infinite": ([[float("inf"), 0.0], [0.0, 0.0]], {}, "W", "not-finite"),
    "not square": ([[1.0, 2.0]], {}, "W", "not-square"),
    "vector": ([1.0, 2.0], {}, "W", "wrong-shape"),
    "empty": (np.zeros((0, 0)), {}, "W", "wrong-shape"),
    "integers": (np.zeros((2, 2), np.int32), {}, "W", "wrong-dtype"),
    "no such tensor": (STABLE, {"--tensor": "V"}, "--tensor", "unknown-tensor"),
    "no tensor": (STABLE, {"--tensor": None}, "--tensor (lure: --A, --B, --C)", "missing-value"),
    "no form": (STABLE, {"--form": None}, "--form", "missing-value"),
    "unknown form": (STABLE, {"--form": "mlp"}, "--form", "unknown-value"),
    "unknown activation": (STABLE, {"--activation": "mish"}, "--activation", "unknown-activation"),
    "no activation": (STABLE, {"--activation": None}, "--activation", "missing-value"),
    "both": (STABLE, {"--slope": "0,1"}, "--activation", "missing-value"),
    "slope order": (STABLE, {"--activation": None, "--slope": "1,0"}, "--slope", "slope-order"),
    "slope of three": (STABLE, {"--activation": None, "--slope": "1,0,2"}, "--slope", "wrong-type"),
    "slope in words": (STABLE, {"--activation": None, "--slope": "a,b"}, "--slope", "wrong-type"),
    "slope nan": (STABLE, {"--activation": None, "--slope": "nan,1"}, "--slope.0", "not-finite"),
    "step zero": (STABLE, {"--step": "0"}, "--step", "not-positive"),
    "step negative": (STABLE, {"--step": "-1"}, "--step", "not-positive"),
    "step nan": (STABLE, {"--step": "nan"}, "--step", "not-finite"),
    "step in words": (STABLE, {"--step": "small"}, "--step", "wrong-type"),
    "largest step of a map": (STABLE, {"--step": "max", "--discrete": ""}, "--discrete", "conflict"),
    "tau zero": (STABLE, {"--tau": "0"}, "--tau", "not-positive"),
    "tau negative": (STABLE, {"--tau": "1,-1"}, "--tau.1", "not-positive"),
    "tau length": (STABLE, {"--tau": "1,1,1"}, "--tau", "wrong-shape"),
    "tau in words": (STABLE, {"--tau": "long"}, "--tau", "wrong-type"),
    "tau matrix": (STABLE, {"--tau": "W"}, "--tau", "wrong-shape"),
    "discrete": (STABLE, {"--discrete": ""}, "--discrete", "conflict"),
    "unknown condition": (STABLE, {"--condition": "magic"}, "condition", "unknown-condition"),
    "rate in words": (STABLE, {"--rate": "fast"}, "--rate", "wrong-type"),
    "rate negative": (STABLE, {"--rate": "-1"}, "--rate", "not-positive"),
    "rate infinite": (STABLE, {"--rate": "inf"}, "--rate", "not-positive"),
    "unknown backend": (STABLE, {"--backend": "mosek"}, "--backend", "unknown-value"),
    "no seconds": (STABLE, {"--seconds": "0"}, "--seconds", "not-positive"),
    "no key": (STABLE, {"--sign": "/nonexistent.pem"}, "--sign", "unreadable"),
    "unknown option": (STABLE, {"--fast": ""}, "fast", "usage"),
}  # fmt: skip


@pytest.mark.cases(14)
@pytest.mark.parametrize("name", CASES)
def test_bad_question(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    W, changes, field, slug = CASES[name]
    options = [part for key, value in {**BASE, **changes}.items() if value is not None for part in (key, value) if part]
    arguments = ("certify", network(tmp_path, W), *options, "--out", tmp_path / "out")
    done = inside(capsys, *arguments, "--json")
    assert done.code == 2, done
    assert done.err == ""
    problem = done.json
    assert problem["type"] == f"urn:certes:error:{slug}", problem
    assert problem["field"] == field, problem
    assert {"title", "status", "detail", "given", "expected"} <= set(problem)
    assert problem["verdict"] is None
    plain = inside(capsys, *arguments)
    assert (plain.code, plain.out) == (2, "")
    assert plain.err.startswith("error  ")
    assert list((tmp_path / "out").glob("*")) == [] if (tmp_path / "out").exists() else True


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("verb", ["certify", "inspect"])
def test_bad_files(capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str) -> None:
    good = network(tmp_path).read_bytes()
    options = (
        ("--form", "rate", "--tensor", "W", "--activation", "tanh", "--out", tmp_path) if verb == "certify" else ()
    )
    files = {
        "pickle": pickle.dumps(Bomb()),
        "malformed-safetensors": good[:-3],
        "unreadable": None,
        "malformed-json": (4).to_bytes(8, "little") + b"nope",
    }
    for slug, data in files.items():
        path = tmp_path / f"{slug}.bin"
        if data is not None:
            path.write_bytes(data)
        done = inside(capsys, verb, path, *options, "--json")
        assert (done.code, done.json["type"], done.json["field"]) == (2, f"urn:certes:error:{slug}", "weights")
    done = inside(capsys, verb, tmp_path, *options, "--json")
    assert (done.code, done.json["type"]) == (2, "urn:certes:error:unreadable"), "a folder"


def test_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    net = network(tmp_path)
    options = ("--form", "rate", "--tensor", "W", "--activation", "tanh", "--condition", "absolute")
    done = inside(capsys, "certify", net, *options, "--out", net / "below", "--json")
    assert (done.code, done.json["field"], done.json["type"]) == (2, "--out", "urn:certes:error:unwritable")


def test_wrong_command_lines_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["certify", "--json"], ["nonsense", "--json"], ["verify", "x", "--json"], ["--json"]):
        done = inside(capsys, *arguments)
        assert done.code == 2
        assert done.json["type"] == "urn:certes:error:usage"
        assert done.json["field"]
