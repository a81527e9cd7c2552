"""Names out of strangers' files, in drawings that a browser shows: text, never markup."""

from __future__ import annotations

import base64
import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import certes
import numpy as np
import pytest
from certes.composition.picture import picture as graph_of
from certes.figure import picture, render_assembly
from certes.figure.drawing import render
from certes.proofs import Claims, SymmetricProof
from certes.weights import to_bytes

from tests.client.running import inside
from tests.service.asking import SMALL

NASTY = '<script>alert(1)</script>"><svg onload=alert(2)>&amp;]]><!--'


def _assert_harmless(svg: bytes) -> None:
    for element in ET.fromstring(svg).iter():
        assert element.tag.rsplit("}", 1)[-1] not in ("script", "foreignObject", "iframe", "image")
        assert not [name for name in element.attrib if name.lower().startswith("on")]
    assert b"<script" not in svg


def test_a_tensor_and_a_file_of_such_a_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Through the certificate, whose subjects they are, to the drawing of it."""
    net = tmp_path / "<script>alert(3)<svg onload=x>.safetensors"
    net.write_bytes(to_bytes({NASTY: np.array(SMALL)}))
    asked = ("certify", net, "--form", "rate", "--activation", "tanh", "--tensor", NASTY, "--out", tmp_path, "--json")
    made = Path(inside(capsys, *asked).json["certificate"]["path"])
    statement = base64.b64decode(json.loads(made.read_bytes())["payload"])
    assert b"<script>alert(1)" in statement
    assert b"<script>alert(3)" in statement
    done = inside(capsys, "figure", made, "--weights", net, "--out", tmp_path / "figure.svg")
    assert done.code == 0, done
    _assert_harmless((tmp_path / "figure.svg").read_bytes())


def test_a_caption_of_such_a_text() -> None:
    """Whatever a caption may name one day."""
    system = certes.RateNetwork([[-1.0]], activation="tanh")
    shown = dataclasses.replace(picture(system, SymmetricProof(True), Claims(rate=1.0)), caption=NASTY)
    svg = render(shown, "svg")
    _assert_harmless(svg)
    assert b"&lt;script&gt;" in svg


def test_modules_of_such_a_name() -> None:
    name = NASTY.replace("/", "\\")  # which is what separates levels of modules
    module = certes.RateNetwork(SMALL, "tanh")
    made = certes.compose({name: module, "b": module}, {("b", name): 0.1 * np.eye(2)}, mode="interface")
    svg = render_assembly(graph_of(made, title=NASTY), "svg")
    _assert_harmless(svg)
    assert b"&lt;script&gt;" in svg
