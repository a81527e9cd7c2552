"""The weighting that data give, against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from certes.errors import InputError
from certes.projection.moments import moment_of_sequences, moment_of_states
from certes.systems import HopfieldNetwork, RateNetwork

RNG = np.random.default_rng(5)
W, U, B = RNG.standard_normal((3, 3)) / 2, RNG.standard_normal((3, 2)), RNG.standard_normal(3)
STATES, INPUTS = RNG.standard_normal((4, 5, 3)), RNG.standard_normal((2, 6, 2))


def test_states() -> None:
    rate, hopfield = RateNetwork(W, "tanh"), HopfieldNetwork(W, "tanh")
    expected = sum(np.outer(x, x) for x in STATES.reshape(-1, 3)) / 20
    np.testing.assert_allclose(moment_of_states(rate, STATES), expected, rtol=1e-12)
    expected = sum(np.outer(np.tanh(x), np.tanh(x)) for x in STATES.reshape(-1, 3)) / 20
    np.testing.assert_allclose(moment_of_states(hopfield, STATES), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", [RateNetwork, HopfieldNetwork])
def test_sequences(kind: Any) -> None:
    tau = np.array([1.0, 2.0, 1.5])
    network = kind(W, "tanh", step=0.4, tau=tau, input_matrix=U, bias=B)
    total = np.zeros((3, 3))
    for sequence in INPUTS:
        x = np.zeros(3)
        for s in sequence:
            z = np.tanh(x) if kind is HopfieldNetwork else x
            total += np.outer(z, z)
            inner = W @ z + U @ s + B
            x = x + 0.4 / tau * (-x + (inner if kind is HopfieldNetwork else np.tanh(inner)))
    np.testing.assert_allclose(moment_of_sequences(network, INPUTS), total / 12, rtol=1e-12)


def test_as_torch_runs_it() -> None:
    torch = pytest.importorskip("torch")
    cell = torch.nn.RNN(2, 3, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        states = cell(torch.tensor(INPUTS))[0].numpy()
    entering = np.concatenate([np.zeros((2, 1, 3)), states[:, :-1]], axis=1)
    weights, drive, one, two = (value.detach().numpy() for value in cell.parameters())
    first, second = (weights, drive) if weights.shape == (3, 3) else (drive, weights)
    network = RateNetwork(first, "tanh", step=1.0, input_matrix=second, bias=one + two)
    np.testing.assert_allclose(
        moment_of_sequences(network, INPUTS), moment_of_states(network, entering), rtol=1e-9, atol=1e-12
    )


MAP: dict[str, Any] = {"step": 1.0, "input_matrix": U}


@pytest.mark.parametrize(
    ("network", "inputs", "slug"),
    [
        (RateNetwork(W, "tanh", input_matrix=U), INPUTS, "conflict"),
        (RateNetwork(W, "tanh", step=1.0), INPUTS, "missing-value"),
        (RateNetwork(W, slope=(0, 1), **MAP), INPUTS, "conflict"),
        (RateNetwork(W, "tanh", **MAP), INPUTS[0], "wrong-shape"),
        (RateNetwork(W, "tanh", **MAP), INPUTS[:, :0], "wrong-shape"),
        (RateNetwork(W, "tanh", **MAP), INPUTS[..., :1], "wrong-shape"),
        (RateNetwork(W, "tanh", **MAP), INPUTS * np.nan, "not-finite"),
        (RateNetwork(W, "tanh", **MAP), np.array(["a"]), "wrong-dtype"),
        (RateNetwork(W, "tanh", **MAP), [[1.0], [1.0, 2.0]], "wrong-type"),
        (RateNetwork(1e200 * W, "relu", **MAP), 1e200 * np.ones((1, 9, 2)), "not-finite"),
    ],
)
def test_what_cannot_be_run(network: Any, inputs: Any, slug: str) -> None:
    with pytest.raises(InputError) as caught:
        moment_of_sequences(network, inputs)
    assert caught.value.slug == slug


@pytest.mark.parametrize(
    ("states", "slug"),
    [(STATES[..., :2], "wrong-shape"), (STATES[:0], "wrong-shape"), (3.0, "wrong-shape"),
     (STATES * np.inf, "not-finite"), (1e200 * STATES, "not-finite"), (np.array([None]), "wrong-dtype")],
)  # fmt: skip
def test_what_are_no_states(states: Any, slug: str) -> None:
    with pytest.raises(InputError) as caught:
        moment_of_states(RateNetwork(W, "tanh"), states)
    assert caught.value.slug == slug
    with pytest.raises(InputError, match="activation"):
        moment_of_states(HopfieldNetwork(W, slope=(0, 1)), STATES)
