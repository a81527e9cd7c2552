"""Evaluation parallel over time: the same run as step by step, within the iterations that the certificate allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import certes
import numpy as np
import pytest
import torch
from certes.errors import InputError
from certes.nn import newton
from certes.nn.assembly import Assembly
from certes.nn.newton import Guarantee, evaluate, run_parallel
from certes.nn.operators import Dense
from certes.nn.scan import scan
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


class Explicit(Assembly):
    """An assembly whose weights are given, in float64: those that were exported."""

    def parts_of_run(self, inputs: torch.Tensor, state: torch.Tensor | None = None) -> Any:
        parts = super().parts_of_run(inputs, state)
        W, G = (torch.from_numpy(part) for part in matrices(self))
        equation = replace(parts.equation, weights=(Dense(),), couplings=(Dense(),))
        return parts._replace(equation=equation, weights=[W], couplings=[G])


def as_exported(net: Assembly) -> Assembly:
    net.__class__ = Explicit
    return net.double()


def matrices(net: Assembly) -> tuple[Array, Array]:
    """W and G of the exported network."""
    system, n = net.system(), net.size
    W, G, e = np.zeros((n, n)), np.zeros((n, n)), net.steps().double().detach().numpy()
    first = dict(zip((f"m{k}" for k in range(len(net.sizes))), net.skew.first, strict=True))
    for name, leaf in system.leaves():
        a = first[name]
        W[a : a + leaf.size, a : a + leaf.size] = leaf.matrix("W")
    for edge in system.couplings:
        i, j, block = first[edge.to], first[edge.source], np.asarray(edge.matrix, dtype=np.float64)
        rows = slice(i, i + block.shape[0])
        G[rows, j : j + block.shape[1]] = block / e[rows][:, None]
    return W, G


def by_numpy(net: Assembly, inputs: torch.Tensor, start: Array | None = None) -> Array:
    """The run step by step, from the exported network, in float64 by numpy."""
    (W, G), n, e = matrices(net), net.size, net.steps().double().detach().numpy()
    phi = np.tanh if net.activation == "tanh" else lambda s: np.maximum(s, 0.0)
    drive = net.input(inputs).double().detach().numpy()
    x = np.zeros((len(inputs), n)) if start is None else start
    states = []
    for k in range(inputs.shape[1]):
        own = phi(x) @ W.T + drive[:, k] if net.form == "hopfield" else phi(x @ W.T + drive[:, k])
        x = x + e * (-x + own + x @ G.T)
        states.append(x)
    return np.stack(states)


@pytest.mark.cases(14)
@pytest.mark.parametrize("form", ["hopfield", "rate"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("steps", [1, 2, 7, 256, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_run(form: str, activation: str, steps: int, dtype: torch.dtype) -> None:
    net = network(form, activation)
    known = guarantee(net)
    inputs = torch.randn(2, steps, 3, generator=torch.Generator().manual_seed(steps))
    start = torch.randn(2, net.size, generator=torch.Generator().manual_seed(1))
    if dtype == torch.float64:  # of the very weights that are run, which float32 rounds
        net = as_exported(net)
    found = evaluate(net, known, inputs.to(dtype), start.to(dtype))
    wanted = by_numpy(net, inputs.to(dtype), start.double().numpy())
    off = np.abs(found.states.detach().numpy() - wanted).max()
    assert off < (1e-5 if dtype == torch.float32 else 1e-10)
    assert off <= found.error + 1e-6 * (dtype == torch.float32) + 1e-13
    assert found.converged
    assert found.iterations <= min(found.bound, 10)


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
    found = evaluate(net, known, inputs, tolerance=1e-6, jacobian="diagonal")
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
    """Counted by hand."""
    known = Guarantee(0.5, torch.eye(2, dtype=torch.float64))
    assert known.iterations(1.0, 2.0**-9, 100) == 10  # 2^-10 = tolerance (1 - rho)
    assert known.iterations(1.0, 2.0**-9, 4) == 4
    assert known.iterations(1e-9, 1.0, 100) == 0
    assert known.iterations(np.inf, 1.0, 100) == known.iterations(np.nan, 1.0, 100) == 100
    less = replace(known, spread=0.125)  # w = 2 for long runs: a quarter is left
    assert less.iterations(1.0, 2.0**-9, 100) == 5
    assert less.iterations(1.0, 2.0**-9, 100, newton=False) == 10
    smooth = replace(known, bend=0.25)  # N' = min(N / 2, N^2): 1, 1/2, 1/4, 2^-4, 2^-8, 2^-16
    assert smooth.iterations(1.0, 2.0**-9, 100) == 5
    assert smooth.iterations(1.0, 2.0**-9, 1) == 1
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


def test_a_certificate_of_other_weights_guarantees_nothing() -> None:
    """The error of weights that no longer contract would be claimed too small."""
    net = network(step=0.1).double()
    known = guarantee(net)
    inputs = torch.zeros(1, 5, 3, dtype=torch.float64)
    honest = evaluate(net, known, inputs).error
    with torch.no_grad():
        for parameter in net.parts.parameters():
            parameter.mul_(1.0 + 1e-9)
    assert evaluate(net, known, inputs).error == pytest.approx(honest, rel=1e-3, abs=1e-12)
    with torch.no_grad():
        net.skew.blocks[0].mul_(1.2)
    with pytest.raises(InputError, match="not the certified"):
        evaluate(net, known, inputs)
    found = run_parallel(net, inputs, guarantee=known)
    assert found.sequential
    assert "not the certified" in found.note
    for other in (network("rate", step=0.1), network(activation="relu", step=0.1)):
        with pytest.raises(InputError):
            evaluate(other.double(), known, inputs)


def test_a_network_that_is_not_certified_is_run_step_by_step() -> None:
    torch.manual_seed(0)
    net = Assembly(3, [Singular(4, 0.5), Singular(4, 0.5)], 0, step=0.9, guarantee="continuous")
    with torch.no_grad():
        net.skew.blocks[0].mul_(100.0)
    inputs = torch.randn(2, 9, 3)
    found = run_parallel(net, inputs)
    assert (found.sequential, found.converged, found.iterations, found.error) == (True, False, 0, np.inf)
    assert "continuous time" in found.note
    assert torch.equal(found.states, net.states(inputs))


def test_what_is_not_finite_is_run_step_by_step_and_stays_where_it_is() -> None:
    net = network()
    known = guarantee(net)
    inputs = torch.randn(2, 9, 3)
    inputs[1, 4, 0] = torch.nan
    found = run_parallel(net, inputs, guarantee=known)
    assert "not finite" in found.note
    assert found.states[:, 0].isfinite().all()
    assert found.states[:4].isfinite().all()
    with pytest.raises(InputError, match="tolerance"):
        run_parallel(net, inputs, guarantee=known, tolerance=-1.0)


@pytest.mark.parametrize(("batch", "steps"), [(0, 5), (2, 0), (0, 0)])
def test_nothing_takes_nothing(batch: int, steps: int) -> None:
    net = network()
    known = guarantee(net)
    for run in (evaluate(net, known, torch.zeros(batch, steps, 3)), run_parallel(net, torch.zeros(batch, steps, 3))):
        assert run.states.shape == (steps, batch, net.size)
        assert (run.iterations, run.error, run.converged) == (0, 0.0, True)


def test_inputs_of_any_size() -> None:
    """Saturated and with huge states: what rounding permits is reached, and told."""
    net = network().double()
    known = guarantee(net)
    for size in (0.0, 1e-300, 1e6, 1e150):
        inputs = size * torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found = evaluate(net, known, inputs)
        straight = net.states(inputs).detach()
        scale = float(straight.abs().max())
        assert float((found.states.detach() - straight).abs().max()) <= 1e-10 + 1e-12 * scale
        assert found.error <= 1e-10 + 1e-12 * scale


def test_a_residual_beyond_the_range_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    known = guarantee(net)
    monkeypatch.setattr(Guarantee, "norm", lambda self, x: np.inf)
    found = evaluate(net, known, torch.ones(1, 6, 3))
    assert found.sequential
    assert torch.allclose(found.states, net.states(torch.ones(1, 6, 3)), atol=1e-6)


@pytest.mark.parametrize("form", ["hopfield", "rate"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_gradients_are_those_of_the_run(
    form: str, activation: str, jacobian: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(form, activation, step=(0.1, 0.4)).double()
    known = guarantee(net)
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(2, 23, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    start = torch.randn(2, net.size, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(23, 2, net.size, generator=generator, dtype=torch.float64)
    wanted = [*net.parameters(), inputs, start]
    straight = torch.autograd.grad((net.states(inputs, start) * weights).sum(), wanted, allow_unused=True)
    for room in (newton._ROOM, 5 * 2 * net.size**2 * 8, 1):  # one window, several, and steps one by one
        monkeypatch.setattr(newton, "_ROOM", room)
        found = evaluate(net, known, inputs, start, jacobian=jacobian)
        assert found.converged
        grads = torch.autograd.grad((found.states * weights).sum(), wanted, allow_unused=True)
        for one, other in zip(grads, straight, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)


def test_gradients_by_finite_differences() -> None:
    net = network(step=0.3).double()
    known = guarantee(net)
    inputs = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: evaluate(net, known, given, tolerance=1e-12).states, (inputs,))


def test_without_gradients_nothing_is_recorded() -> None:
    net = network()
    known = guarantee(net)
    with torch.no_grad():
        assert not evaluate(net, known, torch.zeros(1, 3, 3)).states.requires_grad
    assert evaluate(net, known, torch.zeros(1, 3, 3)).states.requires_grad
    net.requires_grad_(False)
    assert not evaluate(net, known, torch.zeros(1, 3, 3)).states.requires_grad


@pytest.mark.parametrize("steps", [*range(1, 10), 31, 64])
@pytest.mark.parametrize("diagonal", [False, True])
def test_the_scan_is_the_loop(steps: int, diagonal: bool) -> None:
    rng = np.random.default_rng(steps)
    a, b = rng.standard_normal((steps, 2, 3, *([] if diagonal else [3]))), rng.standard_normal((steps, 2, 3))
    a[0] = 1e9 if diagonal else 1e9 * np.eye(3)  # not used
    y, wanted = np.zeros((2, 3)), []
    for k in range(steps):
        moved = np.zeros((2, 3)) if k == 0 else a[k] * y if diagonal else np.einsum("bij,bj->bi", a[k], y)
        y = moved + b[k]
        wanted.append(y)
    found = scan(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.allclose(found, np.stack(wanted), rtol=1e-9, atol=1e-9 * np.abs(wanted).max())
