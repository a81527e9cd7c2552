"""ONNX graphs: the converted weights compute what onnx's own reference computes, and other mathematics is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes import formats
from certes.errors import InputError, TooLargeError
from certes.formats.contents import Contents
from certes.guess import guess
from certes.recognise import recognise
from certes.spec import SystemSpec
from certes.systems import RateNetwork
from certes.weights import Limits, WeightFile, read_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.problems import STATES, module, onnx_model, onnx_outputs, outputs

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from certes.formats import onnx as reader  # noqa: E402

KINDS = ("rnn", "gru", "lstm")
RECOGNISED = {"rnn": "torch-rnn", "gru": "gru", "lstm": "lstm"}


def contents(data: bytes, folder: Path = Path("/nonexistent"), limits: Limits | None = None) -> Contents:
    """The reader in this process: the files are our own."""
    return reader.read(io.BytesIO(data), folder, limits or Limits())


def file_of(model: Any) -> WeightFile:
    return read_weights(contents(model.SerializeToString()).safetensors())


def arrays(file: WeightFile) -> dict[str, Any]:
    return {name: entry.floats() for name, entry in file.tensors.items()}


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_the_one_that_onnx_evaluates(kind: str, constants: bool) -> None:
    for seed in range(3):
        model = onnx_model(kind, seed, dtype=np.float64, constants=constants)
        inputs = np.random.default_rng(seed).standard_normal((7, 2))
        theirs, ours = onnx_outputs(model, inputs), outputs(module(kind, arrays(file_of(model))), inputs)
        assert np.abs(theirs - ours).max() < 1e-12
        assert np.abs(theirs).max() > 0.05  # the judge says something


@pytest.mark.parametrize("name", ["Relu", "Tanh"])
def test_the_activation_is_told(name: str) -> None:
    model = onnx_model("rnn", 1, dtype=np.float64, activations=[name])
    file, inputs = file_of(model), np.random.default_rng(1).standard_normal((7, 2))
    assert file.metadata == {"activation": name.lower()}
    expected = onnx_outputs(model, inputs)
    assert np.abs(expected - outputs(module("rnn", arrays(file), name.lower()), inputs)).max() < 1e-12
    found = guess(file)
    assert found.spec is not None
    assert found.spec["activation"] == name.lower()
    system = SystemSpec.parse(found.spec).system(file)
    assert isinstance(system, RateNetwork)
    x = np.zeros(STATES)
    for u, y in zip(inputs, expected, strict=True):  # the equation that a certificate is about, at step 1
        s = system.matrix("W") @ x + system.input_matrix @ u + system.bias
        x = np.tanh(s) if name == "Tanh" else np.maximum(s, 0)
        assert np.abs(x - y).max() < 1e-12


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_kept(kind: str, dtype: type[np.floating[Any]]) -> None:
    model = onnx_model(kind, 2, dtype=dtype, biased=False)
    file = file_of(model)
    assert recognise(file).kind == RECOGNISED[kind]
    assert set(file.tensors) == {"weight_ih_l0", "weight_hh_l0"}
    given = onnx.numpy_helper.to_array(model.graph.initializer[1])[0]
    stored = file.tensors["weight_hh_l0"].array()
    assert stored.dtype == dtype
    assert sorted(map(bytes, stored)) == sorted(map(bytes, given))  # the same rows, in another order


def test_bfloat16_is_kept() -> None:
    import ml_dtypes

    model = onnx_model("rnn", dtype=np.float32)
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    file = file_of(model)
    assert {entry.dtype for entry in file.tensors.values()} == {"BF16"}
    expected = onnx.numpy_helper.to_array(model.graph.initializer[1])[0].astype(np.float64)
    assert (file.tensors["weight_hh_l0"].floats() == expected).all()


@pytest.mark.cases(1)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_what_torch_exports_comes_back_bit_for_bit(kind: str) -> None:
    """The gates go from torch's order into ONNX's by torch's own hand, and back by ours."""
    import torch

    torch.manual_seed(0)
    layer = getattr(torch.nn, kind.upper())(2, 3).eval()
    buffer = io.BytesIO()
    torch.onnx.export(layer, (torch.zeros(5, 1, 2),), buffer, dynamo=False)
    found = read_weights(contents(buffer.getvalue()).safetensors())
    assert {name: entry.raw() for name, entry in found.tensors.items()} == {
        name: value.numpy().tobytes() for name, value in layer.state_dict().items()
    }


def test_several_layers_keep_their_names() -> None:
    file = file_of(onnx_model("rnn", names=("/a/RNN", "/b/RNN")))
    assert {name.partition(".")[0] for name in file.tensors} == {"a_RNN", "b_RNN"}
    assert "several" in recognise(file).detail
    with pytest.raises(InputError, match="two layers"):
        file_of(onnx_model("rnn", names=("a/b", "a-b", "a:b")))


Change = Callable[[Any], None]


def _attribute(**given: Any) -> Change:
    def change(model: Any) -> None:
        for name, value in given.items():
            model.graph.node[0].attribute.append(onnx.helper.make_attribute(name, value))

    return change


def _peephole(model: Any) -> None:
    node = model.graph.node[0]
    node.input.extend(["", "", "", "layer.P"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 9), np.float32), "layer.P"))


def _reset_before(model: Any) -> None:
    node = model.graph.node[0]
    kept = [entry for entry in node.attribute if entry.name != "linear_before_reset"]
    del node.attribute[:]
    node.attribute.extend(kept)


def _computed(model: Any) -> None:
    model.graph.initializer[1].name = "elsewhere"


def _twice(model: Any) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def _none(model: Any) -> None:
    del model.graph.node[:]


def _other_domain(model: Any) -> None:
    model.graph.node[0].domain = "com.example"


def _shape(model: Any) -> None:
    model.graph.initializer[1].dims[:] = [1, STATES * STATES, 1]


def _short(model: Any) -> None:
    model.graph.initializer[1].raw_data = b"1234"


def _two_directions(model: Any) -> None:
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.concatenate([value, value]), tensor.name))


def _replaced(role: int, *shape: int) -> Change:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[role]
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), tensor.name))

    return change


def _integers(model: Any) -> None:
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor).astype(np.int32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))


REFUSED: dict[str, tuple[str, Change, str]] = {
    "clip": ("rnn", _attribute(clip=1.0), "unsupported"),
    "backwards": ("rnn", _attribute(direction="reverse"), "unsupported"),
    "both ways": ("rnn", _attribute(direction="bidirectional"), "unsupported"),
    "sigmoid": ("rnn", _attribute(activations=["Sigmoid"]), "unsupported"),
    "scaled tanh": ("rnn", _attribute(activations=["ScaledTanh"]), "unsupported"),
    "hard gates": ("lstm", _attribute(activations=["HardSigmoid", "Tanh", "Tanh"]), "unsupported"),
    "hard gru": ("gru", _attribute(activations=["Sigmoid", "Relu"]), "unsupported"),
    "coupled": ("lstm", _attribute(input_forget=1), "unsupported"),
    "peephole": ("lstm", _peephole, "unsupported"),
    "resets before": ("gru", _reset_before, "unsupported"),
    "computed": ("rnn", _computed, "unsupported"),
    "twice": ("rnn", _twice, "duplicate-key"),
    "no node": ("rnn", _none, "no-weights"),
    "another's operator": ("rnn", _other_domain, "no-weights"),
    "shape": ("rnn", _shape, "wrong-shape"),
    "short": ("rnn", _short, "unreadable"),
    "two directions": ("rnn", _two_directions, "wrong-shape"),
    "size": ("rnn", lambda model: model.graph.node[0].attribute[0].__setattr__("i", 4), "wrong-shape"),
    "rows": ("rnn", _replaced(0, 1, 6, 2), "wrong-shape"),
    "columns": ("gru", _replaced(1, 1, 12, 3), "wrong-shape"),
    "biases": ("rnn", _replaced(2, 1, 8), "wrong-shape"),
    "odd biases": ("rnn", _replaced(2, 1, 7), "wrong-shape"),
    "gates": ("lstm", _replaced(0, 1, 11, 2), "wrong-shape"),
    "no inputs": ("rnn", _replaced(0, 1, 3), "wrong-shape"),
    "integers": ("rnn", _integers, "wrong-dtype"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_mathematics_is_refused(name: str) -> None:
    kind, change, slug = REFUSED[name]
    model = onnx_model(kind)
    change(model)
    with pytest.raises(InputError) as refused:
        file_of(model)
    assert refused.value.slug == slug


def external(folder: Path, location: str, **told: str) -> bytes:
    """A model whose recurrent weights lie in a file."""
    model = onnx_model("rnn")
    tensor = model.graph.initializer[1]
    data = tensor.raw_data
    (folder / "net.data").write_bytes(b"12345678" + data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "8", "length": str(len(data)), **told}.items():
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    return bytes(model.SerializeToString())


def test_external_data_are_read_from_the_folder(tmp_path: Path) -> None:
    found = contents(external(tmp_path, "net.data"), tmp_path)
    assert found.safetensors() == contents(onnx_model("rnn").SerializeToString()).safetensors()


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("../out/net.data", {}),
        ("/etc/hostname", {}),
        ("link", {}),
        ("", {}),
        ("nothing", {}),
        (".", {}),
        ("net.data", {"offset": "-1"}),
        ("net.data", {"offset": "9"}),
        ("net.data", {"length": "x"}),
        ("net.data", {"length": "4"}),
    ],
)
def test_external_data_elsewhere_are_refused(tmp_path: Path, location: str, told: dict[str, str]) -> None:
    inner, outer = tmp_path / "in", tmp_path / "out"
    inner.mkdir()
    outer.mkdir()
    external(outer, "net.data")
    (inner / "link").symlink_to(outer / "net.data")
    with pytest.raises(InputError):
        contents(external(inner, location, **told), inner)


def test_limits_come_first() -> None:
    model = onnx_model("rnn")
    model.graph.initializer[1].dims[:] = [1, 2**30, 2**30]
    with pytest.raises(TooLargeError):
        file_of(model)
    with pytest.raises(TooLargeError):
        contents(onnx_model("rnn").SerializeToString(), limits=Limits(tensors=2))


WHOLE = onnx_model("lstm").SerializeToString()


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_refused_or_changes_the_digest(position: int, bit: int, cut: bool) -> None:
    """No bit of a number can change unnoticed: a certificate names the digest of the file that comes out."""
    damaged = WHOLE[:position] if cut else bytearray(WHOLE)
    if isinstance(damaged, bytearray):
        damaged[position] ^= 1 << bit
    try:
        found = contents(bytes(damaged))
    except InputError:
        return
    whole, same = contents(WHOLE), found.safetensors() == contents(WHOLE).safetensors()
    assert same == (dict(found.tensors) == dict(whole.tensors) and found.metadata == whole.metadata)


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_model("gru").SerializeToString())
    file = formats.read(path)
    assert file.name == "net.safetensors"
    assert file.sha256 == file_of(onnx_model("gru")).sha256
    path.write_bytes(b"no model at all")
    with pytest.raises(InputError) as refused:
        formats.read(path)
    assert refused.value.slug in ("unreadable", "no-weights")
