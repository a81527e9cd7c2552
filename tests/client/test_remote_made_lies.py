"""A service that makes weights (project, train) is measured here: each check refuses what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes import words
from certes.certificate.assembly_check import verify_assembly
from certes.errors import InputError
from certes.input_gate import InputGate
from certes.spec import SystemSpec
from certes.trainings import Architecture, Plan
from certes.weights import read_weights, to_bytes, write_weights
from certes_client import BadAnswer, Untrusted
from certes_client.remote import training
from certes_client.remote.answers import Answer
from scipy import sparse

from tests.client.running import inside
from tests.client.scripted import Asked, says, scripted

PLAIN = ("--form", "rate", "--tensor", "W", "--activation", "tanh")
GIVEN = np.array([[3.0, 0.0], [0.5, 0.5]])
MADE = np.array([[0.6, 0.0], [0.5, 0.5]])
SPEC = SystemSpec.parse({"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"})


def _projected(made: Any, **lies: Any) -> Any:
    """A service with these new weights, an honest certificate of them, and an honest distance; but for the lies."""
    data = to_bytes({"W": made})
    found = certes.certify(SPEC.system(read_weights(data, name="bad.safetensors"))).certificate
    assert found is not None
    link = {"certificate": {"digest": found.digest}}
    dense, given = (np.asarray(value.todense() if sparse.issparse(value) else value) for value in (made, GIVEN))
    said = {"verdict": "contracting", "detail": "", "attempts": []}
    answer = said | link | {
        "distance": float(np.linalg.norm(dense - given)), "unchanged": False, "condition": "lure",
        "result": said | link,
    } | lies  # fmt: skip

    def script(asked: Asked) -> Any:
        if asked.method == "POST":
            return says(answer)
        if asked.path.endswith("/weights"):
            return says(data)
        return says(found.proof if asked.path.endswith("/proof") else found.document)

    return script


def _run(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, script: Any, *more: str, given: Any = GIVEN
) -> int:
    write_weights(folder / "bad.safetensors", {"W": given})
    monkeypatch.chdir(folder)
    with scripted(script) as server:
        done = inside(capsys, "project", "bad.safetensors", *PLAIN, *more, "--server", server.url)
    assert (folder / "bad-projected.safetensors").exists() == (done.code == 0), done.err
    return int(done.code)


MOVED = np.array([[0.6, 0.1], [0.5, 0.5]])
OTHER = {"certificate": {"digest": "0" * 64}}
CASES: dict[str, tuple[Callable[[], Any], tuple[str, ...], int]] = {
    "honest": (lambda: _projected(MADE), (), 0),
    "honest, zeros kept": (lambda: _projected(MADE), ("--keep-zeros",), 0),
    "honest, of that rate": (lambda: _projected(MADE), ("--rate", "0.01"), 0),
    "a zero has moved": (lambda: _projected(MOVED), ("--keep-zeros",), 4),
    "the diagonal has moved": (lambda: _projected(MADE), ("--keep-diagonal",), 4),
    "the rank is another": (lambda: _projected(MADE), ("--rank", "1"), 4),
    "the distance is another": (lambda: _projected(MADE, distance=1.0), (), 4),
    "no distance": (lambda: _projected(MADE, distance=None), (), 4),
    "two certificates": (lambda: _projected(MADE, **OTHER), (), 4),
    "a verdict of weights that were made": (lambda: _projected(MADE, verdict="not_contracting"), (), 4),
    "no certificate": (lambda: _projected(MADE, certificate=None), (), 4),
    "a lower rate": (lambda: _projected(MADE), ("--rate", "0.9"), 4),
    "another dtype": (lambda: _projected(MADE.astype(np.float32)), (), 4),
    "stored otherwise": (lambda: _projected(sparse.csr_matrix(MADE)), (), 4),
    "attempts that are none": (lambda: _projected(MADE, attempts=[3]), (), 4),
    "an outcome that is none": (lambda: _projected(MADE, attempts=[{"outcome": "certainly"}]), (), 4),
}


@pytest.mark.parametrize("case", CASES)
def test_projected_weights(case: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script, more, code = CASES[case]
    assert _run(tmp_path, capsys, monkeypatch, script(), *more) == code


@pytest.mark.parametrize(
    ("made", "lies", "code"),
    [(MADE, {}, 0), (MOVED, {}, 4), (np.array([[0.6, 0.5], [0.0, 0.5]]), {"distance": 2.4}, 4)],
    ids=["honest", "one more", "one elsewhere, as far in what is stored"],
)
def test_the_pattern_of_sparse_weights_stays(
    made: Any, lies: dict[str, Any], code: int, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _projected(sparse.csr_matrix(made), **lies)
    assert _run(tmp_path, capsys, monkeypatch, script, given=sparse.csr_matrix(GIVEN)) == code


COLUMNS = ("epoch", "loss", "validation_loss", "validation_accuracy")
ASKED = {"kind": "singular", "modules": [3, 2], "activation": "tanh", "form": "rate", "step": 0.2}


def _trained(folder: Path, factor: float = 1.0, gate: float | None = None, **lies: Any) -> tuple[Any, Path]:
    """A service that has trained what was asked (untrained weights are as good), and the data."""
    pytest.importorskip("torch")
    from certes.nn.architecture import network
    from certes.nn.product import description, tensors

    net = network(Architecture.parse(ASKED | {"gate": gate}), 2, 2, seed=0)
    found = tensors(net)
    found |= {name: value * np.float32(factor) for name, value in found.items() if name.endswith(".W")}
    scores = {"test_accuracy": 0.5, "validation_accuracy": 0.5, "parameters": 9, "epoch": 1, "epochs": 1}
    answer = {
        "verdict": "contracting", "certificate": {"digest": "1" * 64, "documents": []}, "assembly": description(net),
        "task": "classification", "ended": "epochs", "notes": [], "curve": [dict.fromkeys(COLUMNS, 1)],
    } | scores | lies  # fmt: skip
    data = folder / "data.npz"
    np.savez(data, inputs=np.zeros((4, 3, 2), np.float32), labels=np.arange(4) % 2)
    weights = to_bytes(found)
    return (lambda asked: says(answer if asked.method == "POST" else weights)), data


def _train(folder: Path, asked: dict[str, Any], script: Any, data: Path) -> training.Made:
    with scripted(script) as server:
        out, plan = folder / "out", Plan(epochs=1)
        return training.train(server.url, str(data), Architecture.parse(asked), plan, out, None, {}, lambda _: None)


def test_an_honest_training_is_taken(tmp_path: Path) -> None:
    script, data = _trained(tmp_path)
    made = _train(tmp_path, ASKED, script, data)
    assert verify_assembly(made.certificate, made.folder).valid
    assert 0.0 < made.report["factor"] < 1.0


def test_a_gate_is_taken_with_what_follows_from_it_here(tmp_path: Path) -> None:
    script, data = _trained(tmp_path, gate=0.2)
    made = _train(tmp_path, ASKED | {"gate": 0.2}, script, data)
    report = made.report
    assert report["gate"] == InputGate(0.2).to_json(None, report["factor"])
    assert report["factor"] < report["gate"]["factor"] < 1.0


@pytest.mark.parametrize(("asked", "sent"), [(0.2, None), (None, 0.2), (0.2, 0.1)])
def test_another_gate_than_the_one_asked_for(asked: float | None, sent: float | None, tmp_path: Path) -> None:
    script, data = _trained(tmp_path, gate=sent)
    with pytest.raises(Untrusted, match="asked for the gate"):
        _train(tmp_path, ASKED | {"gate": asked}, script, data)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "other",
    [{"modules": [2, 2]}, {"activation": "relu"}, {"form": "hopfield"}, {"guarantee": "continuous"}],
    ids=["sizes", "activation", "form", "guarantee"],
)
def test_another_network_than_the_one_asked_for(other: dict[str, Any], tmp_path: Path) -> None:
    script, data = _trained(tmp_path)
    with pytest.raises(Untrusted, match="asked for"):
        _train(tmp_path, ASKED | other, script, data)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("factor", "lies"),
    [
        (20.0, {}),
        (1.0, {"certificate": None}),
        (1.0, {"assembly": {}}),
        (1.0, {"curve": [3]}),
        (1.0, {"curve": []}),
        (1.0, {"curve": [{"epoch": 1}]}),
    ],
    ids=["unstable", "no certificate", "no network", "no list", "no curve", "half a curve"],
)
def test_a_training_that_does_not_hold_leaves_no_certificate(
    factor: float, lies: dict[str, Any], tmp_path: Path
) -> None:
    script, data = _trained(tmp_path, factor, **lies)
    with pytest.raises(certes.CertesError) as refused:
        _train(tmp_path, ASKED, script, data)
    assert not isinstance(refused.value, InputError), words.printable(str(refused.value))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("value", ["certainly", None, 3, ["proven"]])
def test_a_word_that_is_none_is_an_answer_that_is_none(value: Any) -> None:
    assert Answer({"outcome": "proven"}).one_of("outcome", {"proven": 1}) == 1
    with pytest.raises(BadAnswer, match="outcome"):
        Answer({"outcome": value}).one_of("outcome", {"proven": 1})
