"""Gated cells from weights to a certificate: values, specs, files, modules of torch, documents and their tampering."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes.cells import CELLS, GatedNetwork, GRUNetwork, LSTMNetwork
from certes.certificate.document import Certificate
from certes.certificate.envelope import Envelope
from certes.certify import certify
from certes.errors import InputError
from certes.recognise import recognise
from certes.spec import SystemSpec
from certes.systems import RateNetwork, UnsupportedCell
from certes.weights import read_weights, to_bytes
from certes.words import claim_lines, statement_line, system_line

from tests.verify.gated_cases import bistable, calm

KINDS = ("gru", "lstm")
TORCH = {"W": "rnn.weight_ih_l0", "U": "rnn.weight_hh_l0", "b": "rnn.bias_ih_l0", "c": "rnn.bias_hh_l0"}
MODELS = Path(__file__).parents[1] / "examples" / "models"


def file_of(weights: dict[str, np.ndarray], **more: np.ndarray) -> bytes:
    return to_bytes({**{TORCH[role]: value for role, value in weights.items()}, **more})


@pytest.fixture(scope="module", params=KINDS)
def certified(request: pytest.FixtureRequest) -> tuple[str, dict[str, np.ndarray], bytes, Certificate]:
    weights, _ = calm(request.param)
    data = file_of(weights)
    cell = SystemSpec.parse({"form": request.param, "inputs": [-1, 1]}).system(
        read_weights(data, name="calm.safetensors")
    )
    assert isinstance(cell, GatedNetwork)
    result = certify(cell)
    assert (result.verdict, result.condition) == ("contracting", "gated")
    assert result.certificate is not None
    assert result.factor is not None
    assert 0 < result.factor < 1
    return request.param, weights, data, result.certificate


@pytest.mark.parametrize(
    ("change", "field", "slug"),
    [
        ({"U": np.zeros((5, 2))}, "U", "wrong-shape"),
        ({"U": np.zeros((8, 2))}, "U", "wrong-shape"),
        ({"W": np.zeros((5, 2))}, "W", "wrong-shape"),
        ({"b": np.zeros(5)}, "b", "wrong-shape"),
        ({"b": np.zeros((6, 1))}, "b", "wrong-shape"),
        ({"c": np.full(6, np.nan)}, "c", "not-finite"),
        ({"W": None}, "W", "missing-value"),
        ({"U": np.zeros((6, 2), np.int64)}, "U", "wrong-dtype"),
        ({"W": np.zeros((0, 2))}, "W", "wrong-shape"),
        ({"inputs": (1, -1)}, "inputs", "box-order"),
        ({"inputs": (0, np.inf)}, "inputs", "not-finite"),
        ({"inputs": (0, 1, 2)}, "inputs", "wrong-type"),
        ({"inputs": "wide"}, "inputs", "wrong-type"),
        ({"inputs": ([0, 0, 0], 1)}, "inputs", "wrong-shape"),
        ({"inputs": ("low", "high")}, "inputs", "wrong-type"),
    ],
)
def test_what_is_no_cell(change: dict[str, Any], field: str, slug: str) -> None:
    given: dict[str, Any] = {"W": np.zeros((6, 2)), "U": np.zeros((6, 2)), "b": None, "c": None, "inputs": (-1, 1)}
    given.update(change)
    with pytest.raises(InputError) as caught:
        GRUNetwork(given["W"], given["U"], given["b"], given["c"], inputs=given["inputs"])
    assert (caught.value.field, caught.value.slug) == (field, slug)


def test_a_cell_is_frozen_and_says_what_it_is() -> None:
    cell = LSTMNetwork(np.zeros((8, 3), np.float32), np.zeros((8, 2)), inputs=([0, 0, -1], 1))
    assert (cell.size, cell.states, cell.width) == (2, 4, 3)
    assert [subject.dtype for subject in cell.subjects] == ["F32", "F64"]
    assert cell.inputs is not None
    for array in (*cell.inputs, cell.stacked("U")):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 1.0
    assert system_line(cell) == "LSTM, n = 2, a box of inputs declared for each, a map"
    assert not isinstance(cell, certes.System)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_box_it_is_undecided_and_says_so(kind: str) -> None:
    _, cell = calm(kind)
    result = certify(cell.with_inputs(None))
    assert (result.verdict, result.reason, result.certificate) == ("undecided", "no_input_box", None)
    assert "inputs=(low, high)" in result.detail
    assert certify(cell.with_inputs(None), inputs=(-1, 1)).verdict == "contracting"
    assert json.dumps(result.to_json(), allow_nan=False)


def test_the_certificate_is_verified_offline(certified, tmp_path: Path) -> None:
    kind, weights, data, certificate = certified
    path = certificate.write(tmp_path)
    (tmp_path / "calm.safetensors").write_bytes(data)
    report = certes.verify(path, tmp_path / "calm.safetensors")
    assert report.valid, report.detail
    assert report.verdict == "contracting"
    assert [check.name for check in report.checks][-5:] == ["shapes", "starts", "invariant", "entry", "rate"]
    assert certes.verify(path, weights).valid
    line = statement_line(certificate.statement)
    assert f": {kind}, inputs in [-1.0, 1.0], a map" in line
    (factor, what), (states, which) = claim_lines(certificate.claims, certificate)
    assert (factor, states) == ("factor", "states")
    assert "states named below, under the same admissible inputs" in what
    assert ("from any start with |h| <= 1 and |c| <= " if kind == "lstm" else "from any start with |h| <= 1,") in which
    assert certificate.statement.predicate.format == 3
    assert Certificate.read(path).statement.to_bytes() == certificate.payload


def test_the_same_question_gives_the_same_certificate(certified) -> None:
    kind, _, data, certificate = certified
    cell = SystemSpec.parse({"form": kind, "inputs": [-1, 1]}).system(read_weights(data, name="calm.safetensors"))
    again = certify(cell).certificate
    assert again is not None
    assert again.digest == certificate.digest


def _edited(certificate: Certificate, *path: str, value: Any) -> tuple[bytes, bytes]:
    content = json.loads(certificate.payload)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    payload = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return Envelope(payload).to_bytes(), certificate.proof


EDITS: dict[str, tuple[tuple[str, ...], Any, set[str]]] = {
    "a better factor": (("claims", "factor"), 0.01, {"false-claim"}),
    "a factor of one": (("claims", "factor"), 1.0, {"false-claim"}),
    "a rate": (("claims", "rate"), 0.1, {"false-claim"}),
    "a gain": (("claims", "gain"), 1.0, {"false-claim"}),
    "a radius": (("claims", "weight_radius"), 0.1, {"false-claim"}),
    "a condition number": (("claims", "metric_condition_log2"), 1.0, {"false-claim"}),
    "a growth": (("claims", "growth"), 2.0, {"false-claim"}),
    "another norm": (("claims", "norm"), "sqrt(x^T P x), P = metric", {"false-claim"}),
    "no norm": (("claims", "norm"), None, {"false-claim"}),
    "a margin": (("margin",), 1e-3, {"false-claim"}),
    "a wider box": (("system", "inputs"), [-9.0, 9.0], {"obligation-failed", "false-claim"}),
    "no box": (("system", "inputs"), None, {"obligation-failed"}),
    "a box upside down": (("system", "inputs"), [1.0, -1.0], {"malformed"}),
    "another verdict": (("verdict",), "not_contracting", {"false-claim"}),
    "undecided": (("verdict",), "undecided", {"false-claim"}),
    "another condition": (("condition", "name"), "absolute", {"unknown-condition"}),
    "another version": (("condition", "version"), 2, {"unknown-condition"}),
    "another kind of proof": (("proof", "kind"), "gated-instability", {"unknown-condition"}),
    "an older format": (("format",), 2, {"malformed"}),
    "the form rate": (("system", "form"), "rate", {"malformed"}),
    "an activation": (("system", "activation"), "tanh", {"malformed"}),
    "a step": (("system", "step"), 0.5, {"malformed"}),
    "without a bias": (("system", "tensors"), {"W": TORCH["W"], "U": TORCH["U"], "b": TORCH["b"]}, {"malformed"}),
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_statements_are_refused(certified, name: str) -> None:
    _, _, data, certificate = certified
    path, value, reasons = EDITS[name]
    report = certes.verify(_edited(certificate, "predicate", *path, value=value), data)  # type: ignore[arg-type]
    assert not report.valid
    assert report.reason in reasons, report.detail


def test_other_weights_and_systems_are_refused(certified) -> None:
    kind, weights, data, certificate = certified
    assert certes.verify(certificate, {**weights, "U": weights["U"] * 1.01}).reason == "wrong-weights"
    assert certes.verify(certificate, file_of({**weights, "b": weights["b"] + 1.0})).reason == "wrong-weights"
    assert certes.verify(certificate, {role: weights[role] for role in ("W", "U", "b")}).reason == "wrong-weights"
    cell = SystemSpec.parse({"form": kind, "inputs": [-2, 2]}).system(read_weights(data))
    assert isinstance(cell, GatedNetwork)
    assert certes.verify(certificate, cell).reason == "wrong-system"  # type: ignore[arg-type]
    assert certes.verify(certificate, cell.with_inputs((-1, 1))).valid  # type: ignore[arg-type]
    assert certes.verify(certificate, data, exact=True).reason == "exact-audit-undecided"


def test_a_swapped_proof_is_refused(certified) -> None:
    """A proof of another network, digest and all."""
    kind, _, data, certificate = certified
    _, other = calm(kind, seed=1)
    found = certify(other).certificate
    assert found is not None
    swapped = certes.verify((certificate.document, found.proof), data)  # type: ignore[arg-type]
    assert swapped.reason == "wrong-proof"


@pytest.mark.parametrize("kind", KINDS)
def test_a_refutation_is_a_certificate_too(kind: str, tmp_path: Path) -> None:
    weights, cell = bistable(kind)
    result = certify(cell)
    assert (result.verdict, result.condition) == ("not_contracting", "instability")
    assert result.certificate is not None
    report = certes.verify(result.certificate.write(tmp_path), weights)
    assert report.verdict == "not_contracting", report.detail
    assert json.dumps(result.to_json(), allow_nan=False)
    wider = _edited(result.certificate, "predicate", "claims", "growth", value=9.0)
    assert certes.verify(wider, weights).reason == "false-claim"  # type: ignore[arg-type]
    elsewhere = _edited(result.certificate, "predicate", "system", "inputs", value=[5.0, 6.0])
    assert certes.verify(elsewhere, weights).reason == "obligation-failed"  # type: ignore[arg-type]


def test_an_undecided_cell_says_which_row_failed_and_by_how_much() -> None:
    """An update gate that the state moves: too much for the bound, too little for a saddle."""
    U = np.array([[0.0], [2.5], [0.9]])
    cell = GRUNetwork([[0.0], [0.0], [1.0]], U, [2.0, 0.5, 0.0], inputs=(-0.5, 3.0))
    result = certify(cell)
    assert (result.verdict, result.reason) == ("undecided", "margin"), result.detail
    assert "the row of h[0] sums up to" in result.detail
    assert "1 is the limit" in result.detail
    assert result.attempts[0].factor is not None
    assert result.attempts[0].factor >= 1.0
    assert [attempt.condition for attempt in result.attempts] == ["gated", "instability"]


def test_a_factor_that_is_asked_for() -> None:
    _, cell = calm("gru")
    best = certify(cell).factor
    assert best is not None
    loose = certify(cell, rate=0.5 + 0.5 * best)
    assert loose.factor == 0.5 + 0.5 * best
    tight = certify(cell, rate=0.5 * best)
    assert (tight.verdict, tight.reason) == ("undecided", "margin")
    assert "was asked for" in tight.detail


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"condition": "lure"}, "condition"),
        ({"condition": "nonsense"}, "condition"),
        ({"step": "max"}, "step"),
        ({"backend": "cvxpy-scs"}, "backend"),
        ({"rate": 1.5}, "rate"),
        ({"inputs": (2, 1)}, "inputs"),
    ],
)
def test_questions_that_make_no_sense_for_a_cell(options: dict[str, Any], field: str) -> None:
    _, cell = calm("gru")
    with pytest.raises(InputError) as caught:
        certify(cell, **options)
    assert caught.value.field == field


def test_only_cells_take_a_box() -> None:
    with pytest.raises(InputError, match="only a gated cell"):
        certify(RateNetwork([[0.5]], "tanh"), inputs=(-1, 1))  # type: ignore[call-overload]
    with pytest.raises(InputError) as caught:
        SystemSpec.parse({"form": "rate", "tensors": {"W": "W"}, "activation": "tanh", "inputs": [-1, 1]})
    assert caught.value.field == "spec.inputs"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"activation": "tanh"}, "spec.activation"),
        ({"slope": [0, 1]}, "spec.slope"),
        ({"step": 0.5}, "spec.step"),
        ({"tau": 2.0}, "spec.tau"),
        ({"discrete": True}, "spec.discrete"),
        ({"bias_tensor": "b"}, "spec.bias_tensor"),
        ({"tensors": {"A": "a"}}, "spec.tensors"),
        ({"tensors": {"W": "w"}}, "spec.tensors"),
        ({"tensors": {"U": "u", "b": "b"}}, "spec.tensors"),
        ({"inputs": [1]}, "spec.inputs"),
        ({"inputs": [0, "x"]}, "spec.inputs.1"),
    ],
)
def test_specs_that_make_no_sense(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        SystemSpec.parse({"form": "gru", **spec})
    assert caught.value.field == field


def test_recognition_of_files() -> None:
    for kind in KINDS:
        weights, _ = calm(kind)
        file = read_weights(file_of(weights))
        found = recognise(file)
        assert (found.kind, found.spec) == (kind, {"form": kind, "tensors": {"U": TORCH["U"]}})
        named = SystemSpec.parse({"form": kind, "tensors": dict(TORCH), "inputs": [-1, 1]}).system(file)
        short = SystemSpec.parse({"form": kind, "tensors": {"U": TORCH["U"]}, "inputs": [-1, 1]}).system(file)
        assert isinstance(named, GatedNetwork)
        assert isinstance(short, GatedNetwork)
        assert named.subjects == short.subjects
        assert SystemSpec.of(named) == SystemSpec.of(short)
        other = "lstm" if kind == "gru" else "gru"
        with pytest.raises(InputError, match="recurrent tensor of a torch"):
            SystemSpec.parse({"form": other}).system(file)
    plain = read_weights(to_bytes({"rnn.weight_hh_l0": np.zeros((2, 2))}))
    with pytest.raises(InputError, match=r"torch\.nn\.RNN"):
        SystemSpec.parse({"form": "gru"}).system(plain)
    with pytest.raises(InputError, match="no tensor named"):
        SystemSpec.parse({"form": "gru"}).system(read_weights(to_bytes({"W": np.zeros((2, 2))})))
    without = read_weights(to_bytes({"rnn.weight_hh_l0": np.zeros((6, 2)), "rnn.weight_ih_l0": np.zeros((6, 1))}))
    cell = SystemSpec.parse({"form": "gru", "inputs": [0, 1]}).system(without)
    assert isinstance(cell, GatedNetwork)
    assert sorted(cell.tensors) == ["U", "W"]


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_several_layers_are_not_certified_as_one(kind: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, kind.upper())(3, 4, **options)
    with pytest.raises(InputError, match="one layer"):
        certify(module, inputs=(-1, 1))
    file = read_weights(to_bytes({name: value.numpy() for name, value in module.state_dict().items()}))
    found = SystemSpec.parse({"form": kind, "inputs": [-1, 1]}).system(file)
    assert isinstance(found, UnsupportedCell)
    assert certify(found).reason == "unsupported_cell"


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", KINDS)
def test_modules_of_torch(kind: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = getattr(torch.nn, kind.upper())(2, 3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.3)
    assert certify(module).reason == "no_input_box"
    result = certify(module, inputs=(-1, 1))
    assert result.verdict == "contracting", result.detail
    file = to_bytes({name: value.numpy() for name, value in module.state_dict().items()})
    assert certes.verify(result.certificate, file).valid  # from memory: the bytes decide, not their names
    names = {"W": "weight_ih_l0", "U": "weight_hh_l0", "b": "bias_ih_l0", "c": "bias_hh_l0"}
    arrays = {role: getattr(module, name).detach().numpy() for role, name in names.items()}
    assert certes.verify(result.certificate, arrays).valid


@pytest.mark.cases(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_single_cells_of_torch(kind: str, bias: bool) -> None:
    """A GRUCell or LSTMCell, with or without biases, as a module and as the file of its state_dict."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    module = getattr(torch.nn, kind.upper() + "Cell")(2, 3, bias=bias)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.3)
    result = certify(module, inputs=(-1, 1))
    assert result.verdict == "contracting", result.detail
    assert result.certificate is not None
    assert len(result.certificate.statement.predicate.system.tensors) == (4 if bias else 2)
    file = read_weights(to_bytes({"a.cell." + name: value.numpy() for name, value in module.state_dict().items()}))
    found = recognise(file)
    assert (found.kind, found.spec) == (kind, {"form": kind, "tensors": {"U": "a.cell.weight_hh"}})
    cell = SystemSpec.parse({"form": kind, "inputs": [-1, 1]}).system(file)
    assert isinstance(cell, GatedNetwork)
    again = certify(cell)
    assert again.factor == result.factor
    assert certes.verify(again.certificate, file).valid


@pytest.mark.parametrize("kind", KINDS)
def test_a_named_layer_of_several_is_certified_alone(kind: str) -> None:
    """Its own tensors and no others: those of layer 1, which run backwards."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(2)
    module = getattr(torch.nn, kind.upper())(2, 3, num_layers=2, bidirectional=True)
    file = read_weights(to_bytes({"rnn." + name: 0.2 * value.numpy() for name, value in module.state_dict().items()}))
    given = {"form": kind, "tensors": {"U": "rnn.weight_hh_l1_reverse"}, "inputs": [-1, 1]}
    cell = SystemSpec.parse(given).system(file)
    assert isinstance(cell, GatedNetwork)
    assert [subject.name for subject in cell.subjects] == [
        f"rnn.{stem}_l1_reverse" for stem in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert (cell.size, cell.width) == (3, 6)
    assert certify(cell).verdict == "contracting"


def test_a_class_derived_from_a_module_of_torch_is_not_taken_for_it() -> None:
    torch = pytest.importorskip("torch")

    class Other(torch.nn.GRU):  # type: ignore[misc, name-defined]
        def forward(self, *given: Any) -> Any:
            return [3.0 * entry for entry in super().forward(*given)]

    with pytest.raises((InputError, TypeError)):
        certify(Other(2, 3), inputs=(-1, 1))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_short_weights_are_read_exactly(dtype: str) -> None:
    """The certificate is about the stored bytes: the cell in float64 is the same, to the last bit."""
    torch = pytest.importorskip("torch")
    saving = pytest.importorskip("safetensors.torch")
    torch.manual_seed(3)
    module = torch.nn.GRU(2, 3).to({"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}[dtype])
    file = read_weights(saving.save(module.state_dict()))
    cell = SystemSpec.parse({"form": "gru"}).system(file)
    assert isinstance(cell, GatedNetwork)
    for role, name in (("W", "weight_ih_l0"), ("U", "weight_hh_l0"), ("b", "bias_ih_l0"), ("c", "bias_hh_l0")):
        assert (cell.stacked(role) == getattr(module, name).detach().double().numpy()).all()
    assert {subject.dtype for subject in cell.subjects} == {dtype}


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_box_never_certifies_a_smaller_factor(kind: str) -> None:
    _, cell = calm(kind)
    factors = [certify(cell, inputs=(-size, size)).factor for size in (0.0, 0.5, 1.0, 2.0)]
    assert None not in factors
    assert all(a <= b * (1 + 1e-6) for a, b in pairwise(factors)), factors  # type: ignore[operator]


@pytest.mark.parametrize("kind", KINDS)
def test_any_cell_is_certified_once_its_weights_are_scaled_to_nothing(kind: str) -> None:
    weights, cell = bistable(kind)
    assert certify(cell).verdict == "not_contracting"
    small = {role: 1e-3 * value for role, value in weights.items()}
    assert certify(CELLS[kind](*(small[role] for role in "WUbc"), inputs=(-1, 1))).verdict == "contracting"


@pytest.mark.cases(2)
@pytest.mark.parametrize("box", [(0, 0), (-1e9, 1e9), (-1e308, 1e308), (-5, -4), (-0.0, 0.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_odd_boxes_are_answered(kind: str, box: tuple[float, float]) -> None:
    _, cell = calm(kind)
    result = certify(cell, inputs=box)
    assert result.verdict in ("contracting", "undecided")
    assert result.certificate is None or certes.verify(result.certificate, cell.with_inputs(box)).valid  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_trained_cells_are_answered_honestly(kind: str) -> None:
    """Trained on rows of MNIST and never asked to be stable: no yes; whatever is said is said with a reason."""
    file = read_weights(MODELS / f"mnist-{kind}-64.safetensors")
    cell = SystemSpec.parse({"form": kind, "inputs": [0, 1]}).system(file)
    result = certify(cell, seconds=60.0)
    assert result.verdict in ("undecided", "not_contracting")
    if result.verdict == "undecided":
        assert "the row of" in result.detail or result.reason == "deadline"
