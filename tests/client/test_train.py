"""``certes train``: exit codes, one JSON object, options named in errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.client.running import inside, process


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Up or down."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    ramp = np.linspace(-1.0, 1.0, 12)[None, :] * np.where(labels, 1.0, -1.0)[:, None]
    inputs = (ramp + 0.2 * rng.standard_normal((120, 12)))[:, :, None].astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "ramps.npz"
    np.savez(path, inputs=inputs, labels=labels)
    return path


SMALL: tuple[Any, ...] = ("--modules", "2x5", "--epochs", "6", "--learning-rate", "0.02")


def test_trained_and_certified(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    done = inside(capsys, "train", data, "--out", tmp_path / "net", *SMALL, "--json")
    assert done.code == 0
    assert done.json["verdict"] == "contracting"
    assert 0 < done.json["factor"] < 1
    certificate = tmp_path / "net" / f"{done.json['certificate']}.assembly.json"
    checked = inside(capsys, "verify", certificate, "--weights", tmp_path / "net", "--json")
    assert checked.code == 0
    shown = inside(capsys, "train", data, "--out", tmp_path / "again", *SMALL, "--guarantee", "continuous")
    assert shown.code == 0
    assert "certes verify" in shown.out
    assert "rate" in shown.out
    assert "accuracy" in shown.out
    assert "report.html" in shown.out
    assert (tmp_path / "again" / "report.html").exists()


def test_numbers_instead_of_classes(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    with np.load(data) as file:
        inputs = file["inputs"]
    path = tmp_path / "ramps.npz"
    np.savez(path, inputs=inputs, targets=1000.0 * inputs[:, -1, 0])
    done = inside(capsys, "train", path, "--out", tmp_path / "net", *SMALL, "--json")
    assert done.code == 0
    assert done.json["task"] == "regression"
    assert done.json["test_rmse"] > 1.0
    shown = inside(capsys, "train", path, "--out", tmp_path / "again", *SMALL)
    assert f"{done.json['test_rmse']:.6g} (root mean square), R squared {done.json['test_r2']:.4f}" in shown.out
    assert "accuracy" not in shown.out


def test_a_name_without_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    done = inside(capsys, "train", "digits", "--out", tmp_path / "net", "--modules", "2x8", "--epochs", "1", "--json")
    assert done.code == 0
    assert done.json["task"] == "classification"


def test_of_several_processes_one_speaks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    done = inside(capsys, "train", data, "--out", tmp_path / "net", *SMALL, "--json")
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize(("options", "named"), [
    (("--modules", "none"), "--modules"), (("--modules", "2x0"), "--modules"), (("--step", "2"), "--step"),
    (("--step", "a,b"), "--step"), (("--level", "1.5"), "--level"), (("--epochs", "0"), "--epochs"),
    (("--kind", "gru"), "--kind"), (("--topology", "random"), "--couplings"),
    (("--learning-rate", "-1"), "--learning-rate"), (("--weight-decay", "-1"), "--weight-decay"),
    (("--smoothing", "0.9"), "--smoothing"), (("--clip", "0"), "--clip"), (("--device", "abacus"), "--device"),
    (("--step", "1", "--level", "0.9", "--activation", "gelu"), "--step"),
])  # fmt: skip
def test_errors_name_the_option(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path, options: tuple[str, ...], named: str
) -> None:
    done = inside(capsys, "train", data, "--out", tmp_path / "net", "--json", *options)
    assert done.code == 2
    assert done.json["field"] == named, done.json
    assert not (tmp_path / "net").exists()


def test_data_that_are_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in (
        "nothing.npz",
        "nothing.ts",
        "nothing.csv",
        "nothing",
        "digits:nowhere",
        "japanese-vowels:nowhere",
        "mnist-rows:nowhere",
    ):
        done = inside(capsys, "train", tmp_path / name if ":" not in name else name, "--out", tmp_path / "x", "--json")
        assert done.code == 2
        assert done.json["field"] == "DATA"


def test_no_time_is_no_result(capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Path) -> None:
    done = inside(capsys, "train", data, "--out", tmp_path / "net", "--seconds", "0.000001", "--json")
    assert done.code == 3
    assert done.json["certificate"] is None
    assert not (tmp_path / "net").exists()


@pytest.mark.slow
def test_as_a_process(tmp_path: Path, data: Path) -> None:
    done = process("train", data, "--out", tmp_path / "net", *SMALL, "--json")
    assert (done.code, done.json["verdict"]) == (0, "contracting")
