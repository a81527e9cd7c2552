"""Assemblies of torch modules: certified after every step of an adversary, and the gradients are right."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import certes
import numpy as np
import pytest
import torch
from certes.errors import InputError
from certes.nn import (
    Absolute,
    AdaDiagNet,
    Assembly,
    GlobalWorkspaceNet,
    Singular,
    SparseComboNet,
    SVDComboNet,
    Symmetric,
    operators,
    recurrence,
    skew,
)
from certes.nn.stable import Fixed, sparse_weights

NETS: dict[str, Callable[..., Assembly]] = {
    "singular": lambda **o: GlobalWorkspaceNet(2, [3, 2, 4], 2, step=0.1, **o),
    "orthogonal": lambda **o: SVDComboNet(2, [3, 2, 4], 2, step=(0.02, 0.2), level=0.6, **o),
    "absolute": lambda **o: Assembly(2, [Absolute(3, 0.7), Absolute(4, 0.6)], 2, step=0.3, **o),
    "symmetric": lambda **o: Assembly(2, [Symmetric(3, 0.7), Symmetric(4, 0.5)], 2, step=0.5, form="rate", **o),
    "fixed": lambda **o: SparseComboNet(2, [5, 6], 2, density=0.3, step=0.05, **o),
    "diagonal": lambda **o: AdaDiagNet(2, [3, 4], 2, **o),
    "leaky slopes": lambda **o: Assembly(2, [Singular(3, 0.4)] * 1 + [Singular(3, 0.4)], 2, activation="gelu", **o),
}


def adversary(net: Assembly, generator: torch.Generator, scale: float) -> None:
    """A step of learning rate 1 along a gradient that wants no good."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.mark.cases(5)
@pytest.mark.parametrize("guarantee", ["euler", "continuous"])
@pytest.mark.parametrize("name", NETS)
def test_it_certifies_after_every_large_step(name: str, guarantee: str) -> None:
    torch.manual_seed(7)
    net, generator = NETS[name](guarantee=guarantee), torch.Generator().manual_seed(3)
    for k in range(18):  # as many of each size of step
        adversary(net, generator, (0.1, 1.0, 10.0)[k % 3])
        answer = certes.certify(net, refute=False)
        assert answer.verdict == "contracting", (k, answer.detail)
        if guarantee == "euler":
            assert answer.factor is not None
            assert answer.factor < 1.0
        else:
            assert answer.rate is not None
            assert answer.rate > 0.0


def test_the_flag_makes_a_difference() -> None:
    """With the continuous guarantee alone the map that is run need not contract, and Certes says so."""
    torch.manual_seed(0)
    net = GlobalWorkspaceNet(2, [4, 4], 2, step=0.3, guarantee="continuous")
    with torch.no_grad():
        for block in net.skew.blocks:
            block.mul_(100.0)
    system = net.system()
    assert certes.certify(net).verdict == "contracting"
    stepped = certes.Assembly(system.modules, system.couplings, 1.0)
    assert certes.certify(stepped).verdict == "not_contracting"


@pytest.mark.parametrize("step", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.8])
def test_the_bound_holds_at_all_slopes_and_is_reached(step: float, level: float) -> None:
    """Against numpy: the norm of the map's Jacobian at the bound, for random and for the worst matrices."""
    bound = skew.largest_coupling(level, step)
    rng = np.random.default_rng(1)
    worst = 0.0
    for _ in range(200):
        raw = rng.standard_normal((4, 4))
        gamma = raw - raw.T
        gamma *= bound / np.linalg.norm(gamma, 2)
        e = step * rng.uniform(0.05, 1.0, 4)
        a = rng.standard_normal((4, 4))
        a *= level / np.linalg.norm(a, 2)
        d = rng.uniform(-1.0, 1.0, 4)
        root = np.sqrt(e)
        y = np.eye(4) - a * d - gamma
        worst = max(worst, float(np.linalg.norm(np.eye(4) - root[:, None] * y * root, 2)))
    assert worst < 1.0
    # Sharp: A D turns (1 - h) I + h Gamma, a multiple of a rotation, into the direction that grows most.
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    for slack, stable in ((1.0, True), (1.02, False)):
        base = (1.0 - step) * np.eye(2) + step * slack * bound * rotation
        grown = base + step * level * base / np.linalg.norm(base, 2)
        assert (float(np.abs(np.linalg.eigvals(grown)).max()) < 1.0) is stable


def test_there_is_no_room_for_steps_that_are_too_large() -> None:
    assert skew.largest_coupling(1.0, 0.1) == 0.0
    assert skew.largest_coupling(0.9, 1.0) > 0.0
    with pytest.raises(InputError) as caught:
        Assembly(2, [Singular(3, 1.2)], 2)
    assert caught.value.field == "modules"
    for step in (0.0, 1.5, (0.2, 0.1), -1.0, math.nan):
        with pytest.raises(InputError):
            Assembly(2, [Singular(3, 0.5)], 2, step=step)


def _equations() -> list[Any]:
    blocks = operators.Blocks(5, [0, 3], [3, 0], (2, 2))
    layouts = {
        "dense": ((operators.Dense(),), (operators.Dense(),)),
        "diagonal": ((operators.Diagonal(),), (blocks,)),
        "two": ((operators.Dense(),), (blocks, operators.Dense())),
        "none": ((operators.Dense(),), ()),
    }
    return [
        pytest.param(recurrence.Equation(hopfield, name, *layouts[kind], keep), id=f"{hopfield}-{name}-{kind}-{keep}")
        for hopfield in (True, False)
        for name in ("tanh", "relu", "gelu")
        for kind in layouts
        for keep in (0, 1, 3)
    ]


def _values(layout: operators.Operator, generator: torch.Generator) -> torch.Tensor:
    shape = (5,) if isinstance(layout, operators.Diagonal) else (
        (2, 2, 2) if isinstance(layout, operators.Blocks) else (5, 5)
    )  # fmt: skip
    return 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.cases(8)
@pytest.mark.parametrize("equation", _equations())
def test_gradients_against_finite_differences(equation: recurrence.Equation) -> None:
    g = torch.Generator().manual_seed(5)
    start, drive = torch.randn(2, 5, generator=g).double(), torch.randn(4, 2, 5, generator=g).double()
    step = 0.1 + 0.5 * torch.rand(5, generator=g).double()
    w = [_values(layout, g) for layout in equation.weights]
    c = [_values(layout, g) for layout in equation.couplings]

    def run(start: torch.Tensor, drive: torch.Tensor, step: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return recurrence.run(equation, start, drive, step, values[: len(w)], values[len(w) :])

    given = [value.requires_grad_() for value in (start, drive, step, *w, *c)]
    assert torch.autograd.gradcheck(run, given, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_gradients_of_all_parameters(name: str) -> None:
    """The parametrisations too: a directional derivative in float64."""
    torch.manual_seed(2)
    net = NETS[name]().double()
    inputs = torch.randn(3, 6, 2, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (net(inputs)[0] ** 2).sum()

    loss().backward()  # type: ignore[no-untyped-call]
    direction = [torch.randn_like(parameter) for parameter in net.parameters()]
    slope = sum(
        float((p.grad * d).sum()) for p, d in zip(net.parameters(), direction, strict=True) if p.grad is not None
    )
    values, small = [p.detach().clone() for p in net.parameters()], 1e-6
    sides = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for parameter, value, d in zip(net.parameters(), values, direction, strict=True):
                parameter.copy_(value + sign * small * d)
            sides.append(float(loss()))
    assert slope == pytest.approx((sides[0] - sides[1]) / (2 * small), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", NETS)
def test_the_exported_network_runs_the_same(name: str) -> None:
    """x+ = x + x' of the exported weights, in numpy and float64, against the module's states."""
    torch.manual_seed(4)
    net = NETS[name]()
    inputs = torch.randn(2, 40, 2)
    states = net.states(inputs).detach().double().numpy()
    system = net.system()
    drive = net.input(inputs).detach().double().numpy()
    phi = certes.activations.activation(net.activation).function
    places, x = system.places, np.zeros((2, net.size))
    for k in range(40):
        moved = x.copy()
        for module, place in places.items():
            leaf, u = system.modules[module], drive[:, k, place]
            assert isinstance(leaf, certes.HopfieldNetwork | certes.RateNetwork)
            W, tau = leaf.matrix("W"), np.asarray(leaf.tau)
            inner = phi(x[:, place]) @ W.T + u if net.form == "hopfield" else phi(x[:, place] @ W.T + u)
            moved[:, place] += (inner - x[:, place]) / tau
        for edge in system.couplings:
            moved[:, places[edge.to]] += x[:, places[edge.source]] @ edge.matrix.T
        x = moved
        assert np.abs(x - states[k]).max() < 2e-6 * max(1.0, np.abs(states[k]).max())


def test_states_go_in_and_out() -> None:
    torch.manual_seed(1)
    net = SVDComboNet(3, [4, 4], 2, every=True)
    inputs = torch.randn(2, 10, 3)
    whole, last = net(inputs)
    first, state = net(inputs[:, :4])
    second, end = net(inputs[:, 4:], state)
    assert whole.shape == (2, 10, 2)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-6)
    assert torch.allclose(last, end, atol=1e-6)
    again = SVDComboNet(3, [4, 4], 2, every=True)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(inputs)[0], whole)


@pytest.mark.parametrize("sizes", [[16] * 16, [96, 100, 60, 30]])
def test_blocks_are_the_dense_product(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> Assembly:
        torch.manual_seed(3)
        return GlobalWorkspaceNet(2, sizes, 2, step=0.1)

    net = build()
    monkeypatch.setattr(operators, "_SMALL", 10**9)
    dense = build()
    assert isinstance(net.skew.layouts[0], operators.Blocks) or isinstance(net._layouts[0], operators.Blocks)
    assert isinstance(dense.skew.layouts[0], operators.Dense)
    inputs = torch.randn(3, 8, 2)
    results = [model(inputs)[0] for model in (net, dense)]
    assert torch.allclose(*results, atol=1e-5)
    for result in results:
        (result**2).sum().backward()
    for one, two in zip(net.parameters(), dense.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None and two.grad is not None:
            assert torch.allclose(one.grad, two.grad, atol=1e-4, rtol=1e-3)


def test_bfloat16_autocast() -> None:
    torch.manual_seed(1)
    net = SVDComboNet(3, [8, 8], 2)
    inputs = torch.randn(4, 12, 3)
    exact = net(inputs)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, state = net(inputs)
        loss = rough.float().square().sum()
    loss.backward()
    assert state.dtype == torch.float32
    assert torch.allclose(rough.float(), exact, atol=0.05)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_topologies() -> None:
    assert skew.pairs_of("all", 3, None, 0) == [(0, 1), (0, 2), (1, 2)]
    assert skew.pairs_of("ring", 4, None, 0) == [(0, 1), (0, 3), (1, 2), (2, 3)]
    assert skew.pairs_of("ring", 2, None, 0) == [(0, 1)]
    assert skew.pairs_of("hub", 4, None, 0) == [(0, 3), (1, 3), (2, 3)]
    drawn = skew.pairs_of("random", 16, 20, 5)
    assert len(set(drawn)) == 20
    assert drawn == skew.pairs_of("random", 16, 20, 5) != skew.pairs_of("random", 16, 20, 6)
    for topology, couplings in (("star", None), ("random", None), ("random", 4)):
        with pytest.raises(InputError):
            skew.pairs_of(topology, 3, couplings, 0)  # type: ignore[arg-type]
    for wrong in ([(0, 0)], [(0, 5)], [(0, 1, 1)]):
        with pytest.raises(InputError):
            Assembly(2, [Singular(2, 0.5), Singular(2, 0.5)], 2, topology=wrong)  # type: ignore[list-item]


def test_a_module_of_the_workspace_can_be_removed() -> None:
    """A module that is taken out leaves a network that is certified, in the same metrics."""
    torch.manual_seed(5)
    net = GlobalWorkspaceNet(2, [3, 4, 3], 2, step=0.2)
    adversary(net, torch.Generator().manual_seed(1), 1.0)
    system, metrics = net.system(), net.metrics()
    left = {name: module for name, module in system.modules.items() if name != "m1"}
    couplings = tuple(edge for edge in system.couplings if "m1" not in (edge.to, edge.source))
    answer = certes.compose(certes.Assembly(left, couplings, system.step), mode="whole", metrics=metrics)
    assert answer.verdict == "contracting"


@pytest.mark.parametrize("seed", range(5))
def test_sparse_draws_pass_absolute(seed: int) -> None:
    weights = sparse_weights(16, 0.1, 0.7, seed)
    assert not np.diag(weights).any()
    scaled = np.abs(weights).astype(np.float64)
    assert float(np.abs(np.linalg.eigvals(scaled)).max()) <= 0.7
    module = Fixed(weights)
    d = module.exponent().double().numpy()
    assert np.linalg.norm(np.exp(d)[:, None] * weights * np.exp(-d), 2) <= module.level <= 0.7
    with pytest.raises(InputError):
        sparse_weights(16, 1.0, 1e-9, seed, tries=5)


def test_copies_are_independent() -> None:
    net = SVDComboNet(2, [3, 3], 2)
    other = copy.deepcopy(net)
    adversary(other, torch.Generator().manual_seed(0), 1.0)
    inputs = torch.randn(1, 4, 2)
    assert not torch.allclose(net(inputs)[0], other(inputs)[0])


@pytest.mark.parametrize("bad", ["negative", "nan", "wrong size", "far off"])
def test_a_wrong_metric_is_no_proof_and_no_harm(bad: str) -> None:
    """A metric that is handed over is a proposal: what it does not prove is searched as if there were none."""
    torch.manual_seed(5)
    net = GlobalWorkspaceNet(2, [3, 4], 2, step=0.2)
    metrics = {name: metric.copy() for name, metric in net.metrics().items()}
    change = {
        "negative": lambda m: -m,
        "nan": lambda m: m * np.nan,
        "wrong size": lambda m: m[:2, :2],
        "far off": lambda m: np.diag(10.0 ** np.arange(0.0, 12.0, 12.0 / len(m))),
    }[bad]
    metrics["m0"] = change(metrics["m0"])
    plain = certes.compose(net.system(), mode="interface", refute=False)
    answer = certes.compose(net.system(), mode="interface", metrics=metrics, refute=False)
    assert answer.verdict == plain.verdict
    if answer.verdict == "contracting":
        from certes.certificate.assembly_check import verify_assembly
        from certes.composition.certificates import certified

        assert verify_assembly(certified(answer), net.system()).valid
