"""Networks are told from their tensors: the six example models, and variants that torch itself writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.cells import CELLS
from certes.errors import InputError
from certes.recognise import recognise
from certes.spec import SystemSpec
from certes.systems import RateNetwork, UnsupportedCell
from certes.weights import WeightFile, read_weights, to_bytes

MODELS = Path(__file__).parents[1] / "examples" / "models"
TORCH = SystemSpec.parse({"form": "torch-rnn", "activation": "tanh"})


@pytest.mark.parametrize(
    ("name", "kind", "candidates"),
    [
        ("mnist-rnn-tanh-64", "torch-rnn", ("rnn.weight_hh_l0",)),
        ("mnist-rnn-relu-32", "torch-rnn", ("rnn.weight_hh_l0",)),
        ("mnist-leaky-tanh-128", "matrices", ("rec.weight",)),
        ("mnist-leaky-relu-256", "matrices", ("rec.weight",)),
        ("mnist-gru-64", "gru", ()),
        ("mnist-lstm-64", "lstm", ()),
    ],
)
def test_example_models(name: str, kind: str, candidates: tuple[str, ...]) -> None:
    weights = read_weights(MODELS / f"{name}.safetensors")
    found = recognise(weights)
    assert (found.kind, found.candidates) == (kind, candidates)
    if kind in CELLS:  # what is suggested works, once the box of inputs is added
        assert found.spec is not None
        gated = SystemSpec.parse({**found.spec, "inputs": [0, 1]}).system(weights)
        assert isinstance(gated, CELLS[kind])
        assert gated.size == 64
        assert set(gated.tensors) == {"W", "U", "b", "c"}
        other = TORCH.system(weights)
        assert isinstance(other, UnsupportedCell)
        assert other.cell == kind
        assert "64 states" in other.detail
    else:  # likewise, once the activation is added
        assert found.spec is not None
        system = SystemSpec.parse({**found.spec, "activation": "relu"}).system(weights)
        assert isinstance(system, RateNetwork)
        assert system.size == int(name.rpartition("-")[2])


def test_torch_rnn_is_the_map_with_step_one() -> None:
    weights = read_weights(MODELS / "mnist-rnn-tanh-64.safetensors")
    system = TORCH.system(weights)
    assert isinstance(system, RateNetwork)
    assert (system.step, system.continuous, system.slope.activation and system.slope.activation.name) == (
        1.0,
        False,
        "tanh",
    )
    assert system.input_matrix is not None
    assert system.input_matrix.shape == (64, 28)
    biases = [weights.tensors[f"rnn.bias_{side}_l0"].floats() for side in ("ih", "hh")]
    assert np.array_equal(system.bias, biases[0] + biases[1])
    rate = {"form": "rate", "tensors": {"W": "rnn.weight_hh_l0"}, "activation": "tanh", "step": 1.0}
    assert SystemSpec.of(system) == SystemSpec.parse(rate)


def saved(module: Any) -> WeightFile:
    safetensors_torch = pytest.importorskip("safetensors.torch")
    return read_weights(safetensors_torch.save(module.state_dict()))


@pytest.mark.parametrize(
    ("options", "cell"),
    [
        ({}, "torch-rnn"),
        ({"bias": False}, "torch-rnn"),
        ({"num_layers": 2}, "stacked-rnn"),
        ({"bidirectional": True}, "bidirectional-rnn"),
        ({"num_layers": 2, "bidirectional": True}, "bidirectional-rnn"),
    ],
)
def test_what_torch_writes(options: dict[str, Any], cell: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    for module in (torch.nn.RNN(3, 4, **options), torch.nn.ModuleDict({"body": torch.nn.RNN(3, 4, **options)})):
        weights = saved(module)
        assert recognise(weights).kind == cell
        found = TORCH.system(weights)
        if cell == "torch-rnn":
            assert isinstance(found, RateNetwork)
            assert (found.bias is None) == ("bias" in options)
        else:
            assert isinstance(found, UnsupportedCell)
            assert found.cell == cell
            assert "composed" in found.detail


def test_torch_network_runs_as_we_read_it() -> None:
    """torch is the judge: one step of its RNN is one step of the map."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.RNN(3, 4).double()
    system = TORCH.system(saved(module))
    assert isinstance(system, RateNetwork)
    assert system.input_matrix is not None
    u, x = torch.randn(1, 3).double(), torch.randn(1, 4).double()
    theirs = module(u, x)[1].detach().numpy()[0]
    ours = np.tanh(system.matrix("W") @ x.numpy()[0] + system.input_matrix @ u.numpy()[0] + system.bias)
    assert np.allclose(theirs, ours, atol=1e-14)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_gated_cells(kind: str) -> None:
    torch = pytest.importorskip("torch")
    for options in ({}, {"num_layers": 2}, {"bidirectional": True}):
        found = TORCH.system(saved(getattr(torch.nn, kind)(3, 4, **options)))
        assert isinstance(found, UnsupportedCell)
        assert found.cell == kind.lower()
    if kind == "LSTM":
        found = TORCH.system(saved(torch.nn.LSTM(3, 4, proj_size=2)))
        assert isinstance(found, UnsupportedCell)
        assert found.cell == "lstm"


def file_of(**shapes: tuple[int, ...]) -> WeightFile:
    return read_weights(to_bytes({name.replace("__", "."): np.zeros(shape) for name, shape in shapes.items()}))


def test_several_layers_need_a_name() -> None:
    weights = file_of(a__weight_hh_l0=(2, 2), b__weight_hh_l0=(3, 3))
    assert recognise(weights).spec is None
    with pytest.raises(InputError, match=r"a\.weight_hh_l0, b\.weight_hh_l0") as caught:
        TORCH.system(weights)
    assert caught.value.field == "tensors.W"
    named = SystemSpec.parse({"form": "torch-rnn", "tensors": {"W": "b.weight_hh_l0"}, "activation": "relu"})
    found = named.system(weights)
    assert isinstance(found, RateNetwork)
    assert found.size == 3


def test_files_without_a_torch_layer() -> None:
    assert recognise(file_of(x=(2, 3), y=(4,))).kind == "nothing"
    assert recognise(file_of()).kind == "nothing"
    assert recognise(file_of(x=(0, 0))).kind == "nothing"
    assert recognise(file_of(w=(2, 2), rec__w=(3, 3), z=(1, 2))).candidates == ("rec.w", "w")
    for weights in (file_of(x=(2, 2)), file_of()):
        with pytest.raises(InputError, match="weight_hh_l0"):
            TORCH.system(weights)


@pytest.mark.parametrize("shape", [(5, 2), (2, 4), (3,), (0, 0), (4, 0), (4, 2)])
def test_shapes_that_fit_no_torch_layer(shape: tuple[int, ...]) -> None:
    weights = file_of(weight_hh_l0=shape)
    recognise(weights)
    with pytest.raises(InputError) as caught:
        TORCH.system(weights)
    assert caught.value.field == "weight_hh_l0"


@pytest.mark.parametrize(
    "shapes", [{"weight_ih_l0": (3, 1)}, {"weight_ih_l0": (2,)}, {"bias_ih_l0": (3,)}, {"bias_hh_l0": (2, 1)}]
)
def test_input_weights_that_do_not_fit(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(InputError) as caught:
        TORCH.system(file_of(weight_hh_l0=(2, 2), **shapes))
    assert caught.value.field == next(iter(shapes))


def test_a_torch_tensor_by_another_name() -> None:
    spec = SystemSpec.parse({"form": "torch-rnn", "tensors": {"W": "w"}, "activation": "tanh"})
    with pytest.raises(InputError, match="weight_hh_l0"):
        spec.system(file_of(w=(2, 2)))
