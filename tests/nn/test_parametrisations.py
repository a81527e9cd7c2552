"""Every value of the parameters is stable, and stays so through every step of an optimiser; the gradient is right."""

from __future__ import annotations

from typing import Any

import certes
import numpy as np
import pytest
import scipy.linalg
import torch
from certes.activations import activation
from certes.conditions.uniform import UniformLeak, system_weights
from certes.errors import InputError
from certes.nn.parametrisations import Lure
from certes.systems import System
from torch.nn.utils import parametrize

N = 5
SYSTEMS: dict[str, tuple[type[Any], dict[str, Any], float]] = {
    "leaky": (certes.RateNetwork, {"activation": "tanh", "step": 0.2}, 0.95),
    "disk": (certes.RateNetwork, {"activation": "relu", "step": 1.0}, 0.9),
    "long step, tau": (certes.RateNetwork, {"activation": "tanh", "step": 3.0, "tau": 2.0}, 0.9),
    "continuous": (certes.RateNetwork, {"activation": "tanh"}, 0.3),
    "hopfield": (certes.HopfieldNetwork, {"activation": "sigmoid", "step": 0.5}, 0.9),
    "slopes per neuron": (certes.HopfieldNetwork, {"slope": (0.0, [0.5, 1.0, 2.0, 0.7, 1.3]), "step": 0.4}, 0.9),
    "symmetric slopes": (certes.RateNetwork, {"slope": (-1.5, 1.5), "step": 0.5}, 0.9),
    "gelu": (certes.RateNetwork, {"activation": "gelu", "step": 0.5}, 0.9),
}


def network(name: str, seed: int = 0) -> tuple[System, float]:
    kind, options, number = SYSTEMS[name]
    return kind(2.0 * np.random.default_rng(seed).standard_normal((N, N)), **options), number


def parameters(lure: Lure, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    z, _ = lure.start(np.zeros((N, N)), np.ones(N))
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal(z.shape)), torch.from_numpy(rng.standard_normal(N))


@pytest.mark.cases(4)
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_value_is_certified_at_the_number(name: str) -> None:
    system, number = network(name)
    lure = Lure(system, number)
    for seed in range(3):
        W = lure(*parameters(lure, seed)).numpy()
        result = certes.certify(system.with_weights(W), lure.condition, number, refute=False)  # type: ignore[attr-defined]
        assert result.verdict == "contracting", (seed, result.detail)


@pytest.mark.parametrize("name", ["leaky", "disk", "continuous", "hopfield"])
def test_the_field_of_values_is_inside_and_comes_near_the_border(name: str) -> None:
    """By scipy's eigenvalues: Re(h A) <= t for all h, and comes near t as the third factor goes to 0."""
    system, number = network(name)
    lure, leak = Lure(system, number), UniformLeak.of(system)
    assert leak is not None
    functional = leak.family.functional(leak.level(number))
    z, d = parameters(lure, 3)
    found = []
    for third in (1.0, 1e-4):
        W = lure(torch.stack([z[0], z[1], third * z[2]]), d).numpy()
        root = np.exp(d.numpy())
        A = system_weights(system.with_weights(W)) * root[:, None] / root[None, :]  # type: ignore[attr-defined]
        largest = -np.inf
        for theta in np.linspace(0, 2 * np.pi, 721):
            h = functional.c0 + functional.r0 * np.exp(1j * theta)
            largest = max(largest, scipy.linalg.eigvalsh(0.5 * (h * A + np.conj(h) * A.T))[-1])
        found.append(largest / functional.t)
    assert found[0] < found[1] <= 1.0
    assert found[1] > 0.9


@pytest.mark.parametrize("name", SYSTEMS)
def test_weights_inside_come_back(name: str) -> None:
    system, number = network(name)
    lure = Lure(system, number)
    W = lure(*parameters(lure, 1)).numpy()
    z, d = lure.right_inverse(torch.from_numpy(W))
    np.testing.assert_allclose(lure(z, d).numpy(), W, rtol=0, atol=2e-3 * np.abs(W).max())
    z, d = lure.start(0.9 * W)  # strictly inside: no drawing
    np.testing.assert_allclose(lure(z, d).numpy(), 0.9 * W, rtol=0, atol=1e-9 * np.abs(W).max())


@pytest.mark.parametrize("name", ["leaky", "hopfield", "symmetric slopes"])
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    lure = Lure(*network(name))
    z, d = parameters(lure, 2)
    assert torch.autograd.gradcheck(lure, (z.requires_grad_(), d.requires_grad_()), atol=1e-6)


def test_a_registered_weight_stays_stable_through_every_step() -> None:
    """On torch's own layer; each step is followed by a certificate, not by a simulation."""
    torch.manual_seed(0)
    rnn = torch.nn.RNN(3, N, batch_first=True)
    system = certes.RateNetwork(rnn.weight_hh_l0.detach(), activation="tanh", step=1.0)
    parametrize.register_parametrization(rnn, "weight_hh_l0", Lure(system, 0.9))
    optimiser = torch.optim.SGD(rnn.parameters(), 5.0)  # steps that would leave any set
    x = torch.randn(20, 6, 3)
    seen = []
    for _ in range(6):
        optimiser.zero_grad()
        (-rnn(x)[0].square().mean()).backward()  # rewards large states
        optimiser.step()
        W = rnn.weight_hh_l0.detach()
        seen.append(W.clone())
        assert W.dtype == torch.float32
        answer = certes.certify(certes.RateNetwork(W, activation="tanh", step=1.0), "lure", 0.9, refute=False)
        assert answer.verdict == "contracting"
    assert float((seen[-1] - seen[0]).norm()) > 0.05


@pytest.mark.parametrize(
    ("system", "number"),
    [
        (certes.RateNetwork(np.eye(2), "tanh", step=0.5, tau=[1.0, 2.0]), 0.9),
        (certes.RateNetwork(np.eye(2), "tanh", step=2.5), 0.9),
        (certes.RateNetwork(np.eye(2), "tanh", step=0.2), 0.7),
        (certes.RateNetwork(np.eye(2), slope=(-1, 1), step=0.2), 0.7),
        (certes.RateNetwork(np.eye(2), slope=(0, [0.0, 1.0]), step=0.2), 0.9),
        (certes.LureSystem(np.eye(2), np.eye(2), np.eye(2), (0, 1)), 0.9),
    ],
)
def test_refuses(system: System, number: float) -> None:
    with pytest.raises(InputError):
        Lure(system, number)


def test_slopes_are_read_by_their_largest_size() -> None:
    lure = Lure(certes.RateNetwork(np.eye(2), "gelu", step=0.5), 0.9)
    W = lure(*lure.start(100.0 * np.eye(2))).numpy()
    assert lure.condition == "singular"
    assert np.linalg.norm(W, 2) * activation("gelu").upper <= 0.8  # (0.9 - 0.5) / 0.5
