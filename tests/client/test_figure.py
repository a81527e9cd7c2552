"""certes figure: images of certificates that hold, and nothing else."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import certes
import numpy as np
import pytest
import scipy.sparse
from certes.weights import write_weights

from tests.client.running import RATE, STABLE, UNSTABLE, inside, network, process

Capture = pytest.CaptureFixture[str]
MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"
EXAMPLES = {
    "stable-leaky-tanh-24": (
        ("--form", "rate", "--tensor", "rec.weight", "--activation", "tanh", "--step", "0.2"),
        ("--condition", "lure", "--rate", "0.98"),
        "ellipse",
    ),
    "mnist-leaky-tanh-128": (
        ("--form", "rate", "--tensor", "rec.weight", "--activation", "tanh", "--step", "0.2"),
        (),
        "unit circle",
    ),
    "mnist-rnn-relu-32": (("--form", "torch-rnn", "--activation", "relu"), (), "unit circle"),
}


@pytest.fixture
def certificate(capsys: Capture, tmp_path: Path) -> tuple[Path, Path]:
    """(certificate, weights) of a small contracting network."""
    net = network(tmp_path, STABLE)
    return Path(inside(capsys, "certify", net, *RATE, "--out", tmp_path, "--json").json["certificate"]["path"]), net


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_models(capsys: Capture, tmp_path: Path, name: str) -> None:
    system, question, word = EXAMPLES[name]
    file = MODELS / f"{name}.safetensors"
    assert inside(capsys, "certify", file, *system, *question, "--out", tmp_path).code in (0, 1)
    light, dark = tmp_path / "light.svg", tmp_path / "dark.svg"
    for target, theme in ((light, "--light"), (dark, "--dark")):
        done = inside(capsys, "figure", tmp_path, "--weights", file, "--out", target, theme)
        assert done.code == 0, done
        assert word in " ".join(done.out.split())
        assert ET.parse(target).getroot().tag.endswith("svg")
        assert target.stat().st_size < 150_000
    assert light.read_bytes() != dark.read_bytes()


def test_the_same_command_gives_the_same_bytes(capsys: Capture, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    assert inside(capsys, "figure", certificate[0], "--out", first).code == 0
    assert process("figure", certificate[0], "--out", second, env={"PYTHONHASHSEED": "7"}).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_png_has_the_size_of_a_column(capsys: Capture, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    from PIL import Image

    answer = inside(capsys, "figure", certificate[0], "--out", tmp_path / "a.png", "--json").json
    assert list(answer) == ["figure", "digest", "caption"]
    with Image.open(answer["figure"]) as image:
        assert image.format == "PNG"
        assert image.size[0] == 1020
        assert 500 < image.size[1] < 1400
        assert image.info["Description"] == answer["caption"]


def test_default_names(
    capsys: Capture, tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image lands in the working directory; the weights are found there or beside the certificate."""
    path, net = certificate
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert inside(capsys, "figure", path).code == 0, "beside the certificate"
    assert [entry.name for entry in elsewhere.iterdir()] == [path.name.split(".")[0] + ".svg"]
    shutil.move(net, elsewhere / net.name)
    assert inside(capsys, "figure", path, "--dark").code == 0, "in the working directory"
    network(tmp_path, UNSTABLE, net.name)  # another file of that name beside the certificate does not get in the way
    assert inside(capsys, "figure", path).code == 0
    (elsewhere / net.name).unlink()
    done = inside(capsys, "figure", path, "--json")
    assert (done.code, done.json["type"], done.json["field"]) == (2, "urn:certes:error:missing-weights", "--weights")


def test_weights_of_another_format_are_found_beside_the_certificate(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("net.npz", W=np.asarray(STABLE))
    assert inside(capsys, "certify", "net.npz", *RATE).code == 0
    (tmp_path / "net.onnx").write_bytes(b"nothing of the kind")
    assert inside(capsys, "figure", ".", "--out", "f.svg").code == 0
    np.savez("net.npz", W=np.asarray(UNSTABLE))
    done = inside(capsys, "figure", ".", "--out", "g.svg", "--json")
    assert (done.code, done.json["type"]) == (2, "urn:certes:error:missing-weights"), "of that name, and not that file"
    network(tmp_path, STABLE, "net.safetensors")
    assert inside(capsys, "figure", ".", "--out", "g.svg").code == 0


def test_a_name_with_a_folder_is_not_followed(capsys: Capture, tmp_path: Path) -> None:
    from certes_client.figuring import _places  # what a certificate may make Certes read

    network(tmp_path, STABLE)
    assert list(_places(tmp_path / "inner" / "c.json", "../net.safetensors")) == []
    assert list(_places(tmp_path / "inner" / "c.json", str(tmp_path / "net.safetensors"))) == []
    assert list(_places(tmp_path / "c.json", "net.safetensors")) == [tmp_path / "net.safetensors"]


def test_what_does_not_hold_is_not_drawn(capsys: Capture, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    other = network(tmp_path, UNSTABLE, "other.safetensors")
    done = inside(capsys, "figure", certificate[0], "--weights", other, "--out", tmp_path / "no.svg", "--json")
    assert done.code == 2
    assert (done.json["type"], done.json["field"]) == ("urn:certes:error:wrong-weights", "certificate")
    assert not (tmp_path / "no.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "slug"),
    [
        (("--out", "figure.pdf"), "unknown-value"),
        (("--out", "figure"), "unknown-value"),
        (("--out", "no/such/folder/figure.svg"), "unwritable"),
        (("--weights", "nonexistent.safetensors"), "unreadable"),
        (("--sepia",), "usage"),
    ],
)
def test_bad_options(capsys: Capture, certificate: tuple[Path, Path], arguments: tuple[str, ...], slug: str) -> None:
    done = inside(capsys, "figure", certificate[0], *arguments, "--json")
    assert (done.code, done.json["type"]) == (2, f"urn:certes:error:{slug}")


def test_bad_certificates(capsys: Capture, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    assert inside(capsys, "figure", tmp_path / "none.certificate.json").code == 2
    certificate[0].write_bytes(b"{}")
    done = inside(capsys, "figure", certificate[0])
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error  ")


def test_no_picture_of_sparse_weights_is_bad_input(capsys: Capture, tmp_path: Path) -> None:
    W = scipy.sparse.csr_matrix(np.array(STABLE))
    certificate = certes.certify(certes.RateNetwork(W, activation="tanh")).certificate
    assert certificate is not None
    parts = {"W.data": W.data, "W.indices": W.indices, "W.indptr": W.indptr, "W.shape": np.array(W.shape)}
    net = write_weights(tmp_path / "net.safetensors", {name: np.asarray(part) for name, part in parts.items()})
    done = inside(capsys, "figure", certificate.write(tmp_path), "--weights", net, "--json")
    assert (done.code, done.json["type"]) == (2, "urn:certes:error:no-picture")


def test_without_matplotlib(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    done = process("figure", certificate[0], "--json", before="import sys; sys.modules['matplotlib'] = None")
    assert (done.code, done.json["type"]) == (2, "urn:certes:error:missing-extra")
    assert done.json["extra"] == "figures"
