"""What a training leaves in its folder: figure and page beside the certificate, and nothing on it that is not so."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from certes import trained_page as page
from certes.assemblies import Assembly
from certes.composition.compose import compose
from certes.composition.description import read, with_step
from certes.nn import product, skew
from certes.nn.architecture import Architecture
from certes.nn.train import train
from certes.nn.trainer import Plan

from tests.nn.test_train import ARCHITECTURE, problem, ramps


class Text(HTMLParser):
    """Words and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]


def test_the_folder_of_a_classifier(tmp_path: Path) -> None:
    made = train(ARCHITECTURE, problem(), Plan(epochs=2), tmp_path / "out")
    seen = Text((made.folder / product.PAGE).read_text())
    words = " ".join(seen.words)
    assert f"{made.report['test_accuracy']:.4f}" in words
    assert f"certes verify {made.certificate.name} --weights ." in words
    assert sorted(seen.links) == ["report-dark.svg", "report.svg"], "nothing from elsewhere"
    assert "script" not in seen.tags
    assert made.report["figure"] == "report.svg"
    for name in seen.links:
        assert (made.folder / name).read_text().lstrip().startswith("<?xml")
    listed = [name for row in re.findall(r"<th>([^<]*)</th>", (made.folder / product.PAGE).read_text())
              for name in row.split(", ") if "." in name]  # fmt: skip
    assert all((made.folder / name).exists() for name in listed)
    assert len(listed) == 7


def test_no_number_claims_more_than_the_certificate(tmp_path: Path) -> None:
    for guarantee in ("euler", "continuous"):
        given = Architecture.parse({"modules": [6, 5], "step": [0.05, 0.3], "guarantee": guarantee})
        made = train(given, problem(), Plan(epochs=1), tmp_path / guarantee)
        words = " ".join(Text((made.folder / product.PAGE).read_text()).words)
        if guarantee == "euler":
            shown = re.search(r"factor of at most (\S+) a step", words)
            assert shown is not None
            assert made.report["factor"] <= float(shown[1]) < made.report["factor"] + 1e-5
        else:
            shown = re.search(r"the rate (\S+) or more", words)
            assert shown is not None
            assert made.report["rate"] - 1e-5 < float(shown[1]) <= made.report["rate"]


def test_an_earlier_result_makes_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the next one comes to nothing: no report of other weights is left."""
    first = train(ARCHITECTURE, problem(), Plan(epochs=1), tmp_path / "out")
    (first.folder / "notes.txt").write_text("mine")
    second = train(ARCHITECTURE, problem(), Plan(epochs=1, seed=1), tmp_path / "out", draw=False)
    assert [path.name for path in second.folder.glob("*.assembly.json")] == [second.certificate.name]
    assert second.certificate.name != first.certificate.name
    assert not list(second.folder.glob("*.svg"))
    monkeypatch.setattr(skew.Skew, "_shrink", lambda self, gamma: torch.full((), 300.0))
    with pytest.raises(product.NotCertified):
        train(ARCHITECTURE, problem(), Plan(epochs=1, seed=2), tmp_path / "out")
    left = {path.name for path in second.folder.iterdir()}
    assert {product.WEIGHTS, "notes.txt"} <= left
    assert not left & {product.REPORT, product.PAGE, product.CURVE, second.certificate.name}


@pytest.mark.parametrize("text", ["", "[]", '{"certificate": 3}', '{"certificate": "../x"}', "{", "\udcff"])
def test_a_report_that_is_none_is_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.assembly.json").write_text("theirs")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / product.REPORT).write_bytes(text.encode("utf-8", "surrogateescape"))
    train(ARCHITECTURE, problem(), Plan(epochs=1), tmp_path / "out", draw=False)
    assert (tmp_path / "x.assembly.json").read_text() == "theirs"


def test_every_smaller_step_is_safe(tmp_path: Path) -> None:
    """The factor of the map at a smaller step, proven anew: at most that of averaging with the identity."""
    made = train(ARCHITECTURE, problem(), Plan(epochs=2), tmp_path / "out")
    assert made.report["largest_step"] == 1.0
    whole = read(made.folder / product.DESCRIPTION).assembly
    for share in (0.5, 0.1):
        slower = Assembly(whole.modules, whole.couplings, share)
        found = compose(slower, mode="whole", metrics=ARCHITECTURE.build(2, 2, 0).metrics())
        assert found.factor is not None
        assert found.factor <= 1.0 - share * (1.0 - made.report["factor"]) + 1e-3


def test_the_largest_step_that_is_told_is_no_upper_bound(tmp_path: Path) -> None:
    """It is what the certificate says; larger steps are a question of their own, and some contract as well."""
    made = train(ARCHITECTURE, problem(), Plan(epochs=2), tmp_path / "out", draw=False)
    described = read(made.folder / product.DESCRIPTION)
    assert made.report["largest_step"] == 1.0 == described.assembly.step
    assert with_step(described, 3.0).compose(refute=False).verdict == "contracting"
    assert with_step(described, 300.0).compose(refute=False).verdict == "undecided"
    words = " ".join(Text((made.folder / product.PAGE).read_text()).words)
    assert "every smaller one; larger ones were not tried" in words


def test_the_folder_of_a_regression(tmp_path: Path) -> None:
    made = train(ARCHITECTURE, ramps(), Plan(epochs=2), tmp_path / "out")
    words = " ".join(Text((made.folder / product.PAGE).read_text()).words)
    assert f"{made.report['test_rmse']:.6g} (root mean square), R² {made.report['test_r2']:.4f}" in words
    assert "accuracy" not in words


def test_without_matplotlib_there_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    made = train(ARCHITECTURE, problem(), Plan(epochs=1), tmp_path / "out")
    assert made.report["figure"] is None
    assert "certes[figures]" in made.report["notes"][-1]
    words = " ".join(Text((made.folder / product.PAGE).read_text()).words)
    assert "certes[figures]" in words
    assert not list(made.folder.glob("*.svg"))
    assert train(ARCHITECTURE, problem(), Plan(epochs=1), tmp_path / "b", draw=False).report["notes"] == []


def test_one_module_has_a_curve_alone(tmp_path: Path) -> None:
    made = train(Architecture.parse({"modules": [5]}), problem(), Plan(epochs=1), tmp_path / "out")
    assert "Right" not in (made.folder / product.PAGE).read_text()
    assert made.report["figure"] == "report.svg"


def test_words_are_words() -> None:
    """Whatever a note says, it is text."""
    report: dict[str, Any] = {
        "task": "classification", "test_accuracy": 0.5, "validation_accuracy": 0.5, "epoch": 1, "epochs": 1,
        "ended": "deadline", "notes": ["<script>alert(1)</script>"], "factor": None, "rate": np.nextafter(0.1, 0.0),
        "largest_step": 1.23456789, "modules": 1, "states": 1, "couplings": 0, "parameters": 3, "data": "0" * 64,
        "architecture": {"activation": "<b>"}, "plan": {},
    }  # fmt: skip
    seen = Text(page.page(report, "x.json", {"a&b": "<i>"}, None))
    assert not {"script", "b<", "i", "img", "figure"} & set(seen.tags)
    words = " ".join(seen.words)
    assert "<script>alert(1)</script>" in words
    assert "up to 1.23456 times" in words
    assert "0.0999999" in words
    assert "by deadline" in words
