"""The map that is run: torch's own layer, the table of activations, and the accuracies the models came with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from certes.activations import ACTIVATIONS, activation
from certes.errors import InputError
from certes.nn import Classifier, Roles, read_data
from certes.nn.activations import torch_activation
from certes.weights import read_weights, to_bytes

from tests.nn.problems import LEAKY, MNIST, TORCH, arrays, classifier, data_set, model, sequences, system_of


@pytest.mark.parametrize("name", [*ACTIVATIONS, "leaky_relu", "leaky_relu:0.3"])
def test_activations_are_those_of_the_table(name: str) -> None:
    s = np.concatenate([np.linspace(-40, 40, 4001), np.linspace(-2, 2, 401), [0.0]])
    np.testing.assert_allclose(
        torch_activation(name)(torch.from_numpy(s)).numpy(), activation(name).function(s), rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("form", ["rate", "hopfield"])
@pytest.mark.parametrize("name", ["tanh", "relu", "softplus"])
def test_the_recurrence_is_the_equation(form: str, name: str) -> None:
    """Against the equation in numpy, float64."""
    net = classifier(
        LEAKY | {"form": form, "activation": name, "step": 0.6, "tau": 2.0}, n=4, gain=0.7, dtype=np.float64
    )
    data, given, phi = data_set(count=10), net.parameters(), activation(name).function
    states = []
    for sequence in data.train.inputs:
        x = np.zeros(4)
        for u in sequence:
            drive = given.U @ u + given.b
            x = x + 0.3 * (-x + (phi(given.W @ x + drive) if form == "rate" else given.W @ phi(x) + drive))
        states.append(x)
    np.testing.assert_allclose(net.dynamics().last_states(given, data.train), states, rtol=1e-12, atol=1e-13)


def test_step_one_is_torch_nn_rnn() -> None:
    torch.manual_seed(0)
    rnn, head = torch.nn.RNN(3, 5, batch_first=True), torch.nn.Linear(5, 4)
    held = {f"rnn.{k}": v for k, v in rnn.state_dict().items()} | {f"fc.{k}": v for k, v in head.state_dict().items()}
    file = read_weights(to_bytes({name: value.numpy() for name, value in held.items()}))
    net = Classifier.of(file, system_of(file, TORCH))
    assert net.roles.biases == ("rnn.bias_ih_l0", "rnn.bias_hh_l0")
    x = torch.randn(7, 6, 3)
    dynamics = net.dynamics()
    with torch.no_grad():
        ours = dynamics.logits(dynamics.run(net.parameters()), x)
        torch.testing.assert_close(ours, head(rnn(x)[0][:, -1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "spec", "accuracy"),
    [
        ("mnist-rnn-tanh-64", TORCH, 0.847),
        ("mnist-rnn-relu-32", TORCH | {"activation": "relu"}, 0.7815),
        ("mnist-leaky-tanh-128", LEAKY | {"step": 0.2}, 0.916),
    ],
)
def test_published_accuracies_come_out(name: str, spec: dict[str, Any], accuracy: float) -> None:
    net, data = model(name, spec), read_data(MNIST)
    assert (len(data.train), len(data.test)) == (8000, 2000)
    assert net.dynamics().accuracy(net.parameters(), data.test) == accuracy


@pytest.mark.parametrize("form", ["rate", "hopfield"])
def test_second_moment_is_of_what_the_weights_multiply(form: str) -> None:
    net = classifier(LEAKY | {"form": form, "step": 0.5}, n=3, gain=0.5, dtype=np.float64)
    data, given = data_set(count=8), net.parameters()
    seen = []
    for sequence in data.train.inputs:
        x = np.zeros(3)
        for u in sequence:
            drive = given.U @ u + given.b
            z = x if form == "rate" else np.tanh(x)
            seen.append(z)
            x = 0.5 * x + 0.5 * (np.tanh(given.W @ x + drive) if form == "rate" else given.W @ z + drive)
    np.testing.assert_allclose(
        net.dynamics().second_moment(given, data.train), np.mean([np.outer(z, z) for z in seen], axis=0), atol=1e-14
    )


def test_changes_are_written_to_the_first_bias_and_only_where_there_are_some() -> None:
    net = model("mnist-rnn-tanh-64", TORCH)
    given = net.parameters()
    assert net.tensors(given) == {}
    moved = type(given)(given.W, given.U, given.b + 0.5, given.V, given.v)
    changed = net.tensors(moved)
    assert list(changed) == ["rnn.bias_ih_l0"]
    rest = net.file.tensors["rnn.bias_hh_l0"].floats()
    np.testing.assert_allclose(changed["rnn.bias_ih_l0"] + rest, moved.b, atol=1e-7)


def without(*names: str, **more: Any) -> Any:
    held = {name: value for name, value in arrays().items() if name not in names} | more
    return read_weights(to_bytes(held))


@pytest.mark.parametrize(
    ("file", "spec", "named", "field"),
    [
        (without("inp.weight"), LEAKY, {}, "input"),
        (without("readout.weight"), LEAKY, {}, "readout"),
        (without(), LEAKY, {"input": "nope"}, "input"),
        (without(), LEAKY, {"readout": "rec.weight"}, "tensors"),
        (without(), LEAKY, {"readout": "inp.weight"}, "inp.weight"),
        (without(), LEAKY, {"biases": ("other",)}, "other"),
        (without(**{"readout.weight": np.ones((1, 6))}), LEAKY, {}, "readout.weight"),
        (without(), {k: v for k, v in LEAKY.items() if k != "step"}, {}, "step"),
        (without(), LEAKY | {"tau": [1, 1, 1, 1, 1, 2]}, {}, "tau"),
        (without(), {k: v for k, v in LEAKY.items() if k != "activation"} | {"slope": [0, 1]}, {}, "activation"),
    ],
)
def test_refuses(file: Any, spec: dict[str, Any], named: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        system = system_of(file, spec)
        Classifier.of(file, system, Roles.of(file, system, **named))
    assert caught.value.field == field


def test_an_activation_must_keep_to_the_slopes() -> None:
    file = without()
    system = system_of(file, {"form": "rate", "tensors": {"W": "rec.weight"}, "slope": [0, 1], "step": 0.5})
    assert Classifier.of(file, system, activation="relu").activation == "relu"
    with pytest.raises(InputError, match="activation"):
        Classifier.of(file, system, activation="gelu")


def test_biases_may_be_missing() -> None:
    file = without("inp.bias", "readout.bias")
    net = Classifier.of(file, system_of(file, LEAKY))
    assert net.roles.biases == ()
    assert net.roles.readout_bias is None
    assert 0.0 <= net.dynamics().accuracy(net.parameters(), data_set().test) <= 1.0
    assert len(sequences()[0]) == 120
