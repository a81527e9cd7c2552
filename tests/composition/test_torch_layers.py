"""Stacked and bidirectional torch.nn.RNN: torch is the judge of what the assemblies mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.assemblies import MapProof
from certes.composition import torch_layers
from certes.composition.compose import compose
from certes.errors import InputError
from certes.spec import SystemSpec
from certes.systems import RateNetwork
from certes.weights import WeightFile, read_weights, to_bytes

STACKED = Path(__file__).parents[2] / "examples" / "assemblies" / "stacked.safetensors"
torch = pytest.importorskip("torch")


def module(scale: float = 1.0, **options: Any) -> Any:
    torch.manual_seed(1)
    found = torch.nn.RNN(3, 4, **options).double()
    with torch.no_grad():
        for name, value in found.named_parameters():
            if "weight_hh" in name:
                value.mul_(scale / np.linalg.norm(value.numpy(), 2))
            elif "weight_ih" in name:
                value.mul_(3.0)
    return found


def saved(given: Any, prefix: str = "") -> WeightFile:
    return read_weights(to_bytes({prefix + name: value.numpy() for name, value in given.state_dict().items()}))


def test_a_stack_is_the_pipeline_of_its_layers() -> None:
    """Run torch, run the assembly, compare: layer k is the same, k steps later."""
    rnn = module(num_layers=3)
    ((name, assembly),) = torch_layers.read(saved(rnn, "enc.rnn."))
    assert (name, list(assembly.modules)) == ("enc.rnn", ["layer0", "layer1", "layer2"])
    steps, rng = 12, np.random.default_rng(0)
    inputs, first = rng.standard_normal((steps, 3)), rng.standard_normal((3, 4))
    x = torch.tensor(first)
    theirs = [first]
    for u in inputs:
        x = rnn(torch.tensor(u)[None], x)[1].detach()
        theirs.append(x.numpy())
    states = {k: theirs[0][k] for k in range(3)}
    feeds = {edge.to: edge.matrix for edge in assembly.couplings}
    for t in range(steps + 2):  # layer k does its step s at time s + k
        new = dict(states)
        for k, layer in enumerate(assembly.modules.values()):
            assert isinstance(layer, RateNetwork)
            assert layer.input_matrix is not None
            if not k <= t < steps + k:
                continue
            below = layer.input_matrix @ inputs[t] if k == 0 else feeds[f"layer{k}"] @ states[k - 1]
            new[k] = np.tanh(layer.W @ states[k] + below + layer.bias)
            assert np.allclose(new[k], theirs[t - k + 1][k], atol=1e-12)
        states = new


def test_torchs_own_step_has_the_factor_that_is_proven() -> None:
    """The metric of the docstring, rebuilt; the Jacobian of torch's step of all layers, for random slopes."""
    ((_, assembly),) = torch_layers.read(saved(module(0.9, num_layers=4)))
    found = compose(assembly, mode="interface")
    assert found.verdict == "contracting"
    assert found.root is not None
    proof = found.root.proof
    assert isinstance(proof, MapProof)
    r = np.ldexp(proof.right, proof.right_exponent.astype(int))
    left = np.ldexp(proof.left, proof.left_exponent.astype(int))
    N = np.zeros((4, 4))
    for edge, norm in zip(assembly.couplings, proof.norms, strict=True):
        N[int(edge.to[-1]), int(edge.source[-1])] = norm
    m = (np.eye(4) - N).T @ left
    assert (m > 0).all()
    leaves = [child.proof for child in found.root.children.values()]
    roots = [np.linalg.cholesky(leaf.metric).T * np.sqrt(m[k] / r[k]) for k, leaf in enumerate(leaves)]  # type: ignore[union-attr]
    W = [layer.W for layer in assembly.modules.values()]  # type: ignore[union-attr]
    U = {int(edge.to[-1]): edge.matrix for edge in assembly.couplings}
    worst, rng = 0.0, np.random.default_rng(3)
    for trial in range(300):
        J = np.zeros((16, 16))
        for k in range(4):
            D = rng.integers(0, 2, 4).astype(float) if trial % 2 else rng.uniform(0, 1, 4)
            rows = slice(4 * k, 4 * k + 4)
            if k:
                J[rows] = D[:, None] * (U[k] @ J[4 * k - 4 : 4 * k])
            J[rows, rows] += D[:, None] * W[k]
        R = np.zeros((16, 16))
        for k, root in enumerate(roots):
            R[4 * k : 4 * k + 4, 4 * k : 4 * k + 4] = root
        worst = max(worst, float(np.linalg.norm(R @ J @ np.linalg.inv(R), 2)))
    assert found.factor is not None
    assert 0.5 * found.factor < worst <= found.factor * (1 + 1e-9)


def test_the_factor_of_a_stack_is_that_of_its_slowest_layer() -> None:
    found = compose(torch_layers.read(read_weights(STACKED))[0][1])
    assert found.factor is not None
    assert found.limiting == "layer2"
    assert found.factor == pytest.approx(max(found.module_levels.values()), rel=1e-4)


def test_one_unstable_layer_refutes_the_stack() -> None:
    rnn = module(num_layers=2)
    with torch.no_grad():
        rnn.weight_hh_l1.copy_(3.0 * torch.eye(4))
    found = compose(torch_layers.read(saved(rnn))[0][1])
    assert found.verdict == "not_contracting"
    assert found.refutation is not None


def test_directions_are_networks_of_their_own() -> None:
    rnn = module(bidirectional=True, nonlinearity="relu")
    found = dict(torch_layers.read(saved(rnn), activation="relu"))
    assert list(found) == ["forward", "reverse"]
    for name, end in (("forward", ""), ("reverse", "_reverse")):
        layer = found[name].modules["layer0"]
        assert isinstance(layer, RateNetwork)
        assert np.array_equal(layer.W, getattr(rnn, f"weight_hh_l0{end}").detach().numpy())
        assert layer.slope.activation is not None
        assert layer.slope.activation.name == "relu"
        assert (layer.step, layer.tensors["W"].subjects[0].name) == (1.0, f"weight_hh_l0{end}")
        assert compose(found[name]).verdict == "contracting"


def test_a_bidirectional_stack_is_every_layer_and_direction() -> None:
    found = torch_layers.read(saved(module(num_layers=2, bidirectional=True)))
    assert [name for name, _ in found] == ["layer0", "layer0_reverse", "layer1", "layer1_reverse"]
    assert all(len(assembly.modules) == 1 and not assembly.couplings for _, assembly in found)
    second = found[2][1].modules["layer1"]
    assert isinstance(second, RateNetwork)
    assert second.input_matrix is not None
    assert second.input_matrix.shape == (4, 8)
    assert "no one factor" in torch_layers.claim(found, "interface")


def test_one_layer_and_a_spec() -> None:
    file = saved(module(bias=False))
    spec = SystemSpec.parse({"form": "torch-rnn", "slope": [0, 1]})
    ((name, assembly),) = torch_layers.of_spec(spec, file)
    layer = assembly.modules["layer0"]
    assert isinstance(layer, RateNetwork)
    assert (name, layer.bias, layer.slope.activation) == ("rnn", None, None)


def test_several_networks_need_a_name() -> None:
    both = {**saved(module(num_layers=2), "a.").tensors, **saved(module(), "b.").tensors}
    file = read_weights(to_bytes({name: entry.array() for name, entry in both.items()}))
    with pytest.raises(InputError):
        torch_layers.read(file)
    assert torch_layers.read(file, "a.weight_hh_l0")[0][0] == "a"


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_gated_cells_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match=kind):
        torch_layers.read(saved(getattr(torch.nn, kind)(3, 4, num_layers=2)))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("weight_ih_l1", (4, 3)), ("weight_ih_l1", None), ("weight_hh_l1", (3, 3)), ("weight_hh_l1", (3, 4)),
        ("bias_hh_l1", (3,)), ("weight_ih_l0", (3, 3)), ("weight_ih_l0", (3,)),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit(name: str, shape: tuple[int, ...] | None) -> None:
    arrays = {key: value.numpy() for key, value in module(num_layers=2).state_dict().items()}
    if shape is None:
        del arrays[name]
    else:
        arrays[name] = np.zeros(shape)
    with pytest.raises(InputError) as caught:
        torch_layers.read(read_weights(to_bytes(arrays)))
    assert caught.value.field in (name, "W")
