"""Evaluation parallel over time: the same run as step by step, within the iterations that the certificate allows."""

from __future__ import annotations

from typing import Any

import certes
import numpy as np
import pytest
import torch
from certes.errors import InputError
from certes.nn import newton
from certes.nn.assembly import Assembly
from certes.nn.newton import Guarantee, evaluate
from certes.nn.stable import Diagonal, Singular
from numpy.typing import NDArray

Array = NDArray[np.float64]


def network(form: str = "hopfield", activation: str = "tanh", level: float = 0.5, step: Any = (0.2, 0.6), seed: int = 0,
            gain: float = 1.0) -> Assembly:  # fmt: skip
    torch.manual_seed(seed)
    net = Assembly(3, [Singular(5, level), Diagonal(3, level), Singular(4, level)], 0, activation=activation,
                   form=form, step=step)  # type: ignore[arg-type]  # fmt: skip
    with torch.no_grad():
        net.input.weight.mul_(gain)
        for block in net.skew.blocks:
            block.mul_(5.0)
    return net


def guarantee(net: Assembly) -> Guarantee:
    found = certes.certify(net)
    assert found.verdict == "contracting"
    return Guarantee.of(found)  # type: ignore[arg-type]


def by_numpy(net: Assembly, inputs: torch.Tensor, start: Array | None = None) -> Array:
    """The run step by step, from the exported network, in float64."""
    system, n = net.system(), net.size
    W, G, e = np.zeros((n, n)), np.zeros((n, n)), net.steps().double().detach().numpy()
    first = dict(zip((f"m{k}" for k in range(len(net.sizes))), net.skew.first, strict=True))
    for name, leaf in system.leaves():
        a = first[name]
        size = leaf.size
        W[a : a + size, a : a + size] = leaf.matrix("W")  # type: ignore[union-attr]
    for edge in system.couplings:
        i, j, block = first[edge.to], first[edge.source], np.asarray(edge.matrix, dtype=np.float64)
        rows = slice(i, i + block.shape[0])
        G[rows, j : j + block.shape[1]] = block / e[rows][:, None]
    phi = np.tanh if net.activation == "tanh" else lambda s: np.maximum(s, 0.0)
    drive = net.input(inputs.float()).double().detach().numpy()
    x = np.zeros((len(inputs), n)) if start is None else start
    states = []
    for k in range(inputs.shape[1]):
        own = phi(x) @ W.T + drive[:, k] if net.form == "hopfield" else phi(x @ W.T + drive[:, k])
        x = x + e * (-x + own + x @ G.T)
        states.append(x)
    return np.stack(states)


@pytest.mark.parametrize("form", ["hopfield", "rate"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("steps", [1, 2, 7, 256])
def test_the_same_run(form: str, activation: str, steps: int) -> None:
    net = network(form, activation)
    known = guarantee(net)
    inputs = torch.randn(4, steps, 3, generator=torch.Generator().manual_seed(steps))
    start = torch.randn(4, net.size, generator=torch.Generator().manual_seed(1))
    found = evaluate(net, known, inputs, start)
    wanted = by_numpy(net, inputs, start.double().numpy())
    assert np.abs(found.states.numpy() - wanted).max() < 1e-5
    assert not found.sequential
    assert found.iterations <= found.bound


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_iterations_stay_within_the_bound_and_are_few(seed: int, jacobian: Any) -> None:
    level = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95)[seed]
    net = network("hopfield", ("tanh", "relu")[seed % 2], level, (0.1, 0.5), seed, gain=3.0).double()
    known = guarantee(net)
    assert known.factor < 1
    inputs = torch.randn(2, 256, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = evaluate(net, known, inputs, tolerance=1e-8, jacobian=jacobian)
    straight = net.states(inputs).detach()
    error = known.norm(found.states - straight)
    assert error <= found.error + 1e-12
    assert found.error <= 1e-8
    assert found.iterations <= found.bound
    if jacobian == "full":
        assert found.iterations <= 10, "as the laboratory saw: 3 to 8"


def test_the_guaranteed_step_alone_keeps_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any help by Newton's: the residual falls by the factor in each iteration, and no faster is promised."""
    net = network(step=0.5).double()
    known = guarantee(net)
    monkeypatch.setattr(
        newton, "_newton", lambda system, before, ahead, drive, jacobian: torch.full_like(ahead, torch.nan)
    )
    inputs = torch.randn(2, 256, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = evaluate(net, known, inputs, tolerance=1e-6)
    assert not found.sequential
    assert 5 < found.iterations <= found.bound < 256
    assert known.norm(found.states - net.states(inputs).detach()) <= 1e-6


def test_a_newton_step_that_makes_it_worse_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(step=0.5).double()
    known = guarantee(net)
    honest = newton._newton
    monkeypatch.setattr(newton, "_newton", lambda *given: 1e6 * honest(*given))
    inputs = torch.randn(1, 32, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = evaluate(net, known, inputs, tolerance=1e-6)
    assert known.norm(found.states - net.states(inputs).detach()) <= 1e-6


def test_windows_are_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network().double()
    known = guarantee(net)
    inputs = torch.randn(3, 50, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    whole = evaluate(net, known, inputs, tolerance=1e-10)
    monkeypatch.setattr(newton, "_ROOM", 7 * 3 * net.size**2 * 8)
    windows = evaluate(net, known, inputs, tolerance=1e-10)
    assert known.norm(whole.states - windows.states) < 1e-9
    assert known.norm(windows.states - net.states(inputs).detach()) < 1e-9


def test_what_rounding_forbids_is_run_step_by_step() -> None:
    net = network(gain=100.0)
    known = guarantee(net)
    inputs = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(6))
    found = evaluate(net, known, inputs, tolerance=1e-12)  # in float32
    assert found.sequential
    assert torch.allclose(found.states, net.states(inputs).detach(), rtol=1e-5, atol=1e-5)


def test_the_bound_is_the_stated_one() -> None:
    known = Guarantee(0.5, torch.eye(2, dtype=torch.float64))
    assert known.iterations(1.0, 2.0**-9, 100) == 10  # 2^-10 = tolerance (1 - rho)
    assert known.iterations(1.0, 2.0**-9, 4) == 4
    assert known.iterations(1e-9, 1.0, 100) == 0
    assert known.norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]])) == pytest.approx(5.0)


def test_without_a_certificate_of_the_map_there_is_none() -> None:
    torch.manual_seed(0)
    net = Assembly(2, [Singular(3, 0.5)], 0, step=0.2, guarantee="continuous")
    with pytest.raises(InputError, match="continuous time"):
        Guarantee.of(certes.certify(net))  # type: ignore[arg-type]
    known = guarantee(network())
    with pytest.raises(InputError, match="states for"):
        evaluate(net, known, torch.zeros(1, 2, 2))
    for inputs in (torch.full((1, 3, 3), torch.nan), torch.full((1, 3, 3), torch.inf)):
        with pytest.raises(InputError, match="not finite"):
            evaluate(network(), known, inputs)
    with pytest.raises(InputError, match="tolerance"):
        evaluate(network(), known, torch.zeros(1, 2, 3), tolerance=0.0)
