"""Modules with the Lur'e condition: their bound at all slopes, and certificates of what is exported."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import certes
import numpy as np
import pytest
import torch
from certes import trainings
from certes.errors import InputError
from certes.nn import Assembly, Diagonal, LureModule, Singular
from certes.nn.architecture import Architecture
from certes.nn.convergence import parallel_plan
from certes.nn.train import train
from certes.nn.trainer import Plan
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.test_train import problem

Form = Literal["hopfield", "rate"]
FORMS: tuple[Form, ...] = ("hopfield", "rate")


def mixed(form: Form, guarantee: str = "euler", activation: str = "relu", level: float = 0.5) -> Assembly:
    modules = [LureModule(4, level, form), Singular(3, level), LureModule(4, 0.8 * level, form), Diagonal(2, level)]
    options: dict[str, Any] = {"guarantee": guarantee, "activation": activation, "form": form}
    return Assembly(2, modules, 2, step=(0.02, 0.2), **options)


def push(net: Assembly, scale: float, generator: torch.Generator) -> None:
    """A step of learning rate 1 along a gradient that wants no good."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def certified_after(steps: int, form: Form, guarantee: str, activation: str) -> None:
    torch.manual_seed(7)
    net, generator = mixed(form, guarantee, activation), torch.Generator().manual_seed(3)
    for k in range(steps):
        push(net, (1.0, 10.0, 0.1)[k % 3], generator)
        answer = certes.certify(net, refute=False)
        assert answer.verdict == "contracting", (k, answer.detail)
        number = answer.factor if guarantee == "euler" else answer.rate
        assert number is not None
        assert 0.0 < number < 1.0


@pytest.mark.parametrize("guarantee", ["euler", "continuous"])
@pytest.mark.parametrize("form", FORMS)
def test_it_certifies_after_large_steps(form: Form, guarantee: str) -> None:
    certified_after(3, form, guarantee, "tanh" if form == "rate" else "relu")


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("guarantee", ["euler", "continuous"])
@pytest.mark.parametrize("form", FORMS)
def test_it_certifies_after_many_large_steps(form: Form, guarantee: str, activation: str) -> None:
    certified_after(50, form, guarantee, activation)


def blocks(module: Any, scale: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """W and the root R = N Theta of its metric, float64."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
        w, n, d = module().numpy(), module.inner()[0].numpy(), module.exponent().numpy()
    return w, n * np.exp(d)[None, :]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), form=st.sampled_from(FORMS), level=st.floats(0.02, 0.95),
    step=st.floats(0.001, 1.0), scale=st.sampled_from([0.3, 1.0, 5.0, 100.0]),
)  # fmt: skip
def test_the_bound_holds_at_all_slopes(seed: int, form: Form, level: float, step: float, scale: float) -> None:
    """With numpy, at all vertices of the slopes: rate of a module, and norm of the coupled map, with unequal steps."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    made = []
    for size in (3, 2):
        module = LureModule(size, level, form)
        push(module, 1.0, torch.Generator().manual_seed(seed + size))  # type: ignore[arg-type]
        made.append(blocks(module, scale))
    root = np.zeros((5, 5))
    root[:3, :3], root[3:, 3:] = made[0][1], made[1][1]
    w = np.zeros((5, 5))
    w[:3, :3], w[3:, 3:] = made[0][0], made[1][0]
    skew = np.zeros((5, 5))
    skew[:3, 3:] = rng.standard_normal((3, 2))
    skew -= skew.T
    coupling = trainings.lure_coupling(level, step)
    gamma = skew * coupling / np.linalg.norm(skew, 2)
    e = step * np.repeat(rng.uniform(0.1, 1.0, 2) if rng.random() < 0.5 else np.ones(2), [3, 2])
    inverse = np.linalg.inv(root)
    for slopes in itertools.product([0.0, 1.0], repeat=5):
        d = np.array(slopes)
        m = root @ (d[:, None] * w if form == "rate" else w * d) @ inverse
        assert np.linalg.eigvalsh(m + m.T)[-1] <= 2.0 * level + 1e-9
        grown = np.linalg.norm((1.0 - step) * np.eye(5) + step * (m + gamma), 2) ** 2
        assert grown <= trainings.lure_growth(level, step, coupling) + 1e-9
        if coupling > 0.0:
            half = np.sqrt(e)
            assert np.linalg.norm(np.eye(5) - half[:, None] * (np.eye(5) - m - gamma) * half, 2) < 1.0


@pytest.mark.parametrize(("level", "step"), [(0.5, 0.2), (0.3, 0.4), (0.8, 0.05)])
def test_the_bound_is_the_largest_over_the_radius(level: float, step: float) -> None:
    """Against a grid over r of the inequality in the module's docstring; and couplings do not go to waste."""
    e, found = np.exp(trainings.REACH), trainings.lure_coupling(level, step)
    r = np.linspace(0.0, 2.0 + e, 20_001)

    def worst(coupling: float) -> float:
        inner = 2.0 * step * (1.0 - step) * level * (2.0 * r - r * r)
        return float(((1.0 - step) ** 2 + inner + step**2 * (level * e * r + coupling) ** 2).max())

    assert worst(found) < 1.0 < worst(found * (1.0 + 3.0 * trainings.MARGIN))
    assert worst(found) == pytest.approx(trainings.lure_growth(level, step, found), abs=1e-7)


def test_a_rotation_reaches_most_of_the_bound() -> None:
    """For weights of 0 the map is (1 - h) I + h Gamma: couplings much beyond the bound make it unstable."""
    level, step = 1e-6, 0.3
    gamma = trainings.lure_coupling(level, step)
    factors = [abs(complex(1.0 - step, step * s * gamma)) for s in (1.0, 1.01)]
    assert factors[0] < 1.0 < factors[1]


def test_weights_are_larger_than_singular_allows() -> None:
    """Inhibition of up to about three times the level, in any diagonal metric."""
    module = LureModule(3, 0.9, "rate")
    with torch.no_grad():
        module.free.copy_(-1e4 * torch.eye(3))
    assert float(torch.linalg.eigvalsh(module()).min().detach()) < -2.6


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_all_parameters(form: Form) -> None:
    torch.manual_seed(2)
    net = mixed(form, activation="tanh").double()
    push(net, 0.3, torch.Generator().manual_seed(1))
    inputs = torch.randn(3, 6, 2, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (net(inputs)[0] ** 2).sum()

    loss().backward()  # type: ignore[no-untyped-call]
    slope, small = 0.0, 1e-6
    values = [parameter.detach().clone() for parameter in net.parameters()]
    directions = [torch.randn_like(value) for value in values]
    for parameter, direction in zip(net.parameters(), directions, strict=True):
        if parameter.numel():
            assert parameter.grad is not None
            slope += float((parameter.grad * direction).sum())
    sides = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for parameter, value, direction in zip(net.parameters(), values, directions, strict=True):
                parameter.copy_(value + sign * small * direction)
            sides.append(float(loss()))
    assert slope == pytest.approx((sides[0] - sides[1]) / (2 * small), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_the_exported_network_runs_the_same(form: Form) -> None:
    torch.manual_seed(4)
    net = mixed(form)
    push(net, 0.5, torch.Generator().manual_seed(2))
    inputs = torch.randn(2, 30, 2)
    states, drive = (value.detach().double().numpy() for value in (net.states(inputs), net.input(inputs)))
    system, x = net.system(), np.zeros((2, net.size))
    for k in range(30):
        moved = x.copy()
        for name, place in system.places.items():
            leaf, u = system.modules[name], drive[:, k, place]
            assert isinstance(leaf, certes.HopfieldNetwork | certes.RateNetwork)
            w, seen = leaf.matrix("W"), x[:, place]
            inner = np.maximum(seen, 0) @ w.T + u if form == "hopfield" else np.maximum(seen @ w.T + u, 0)
            moved[:, place] += (inner - seen) / np.asarray(leaf.tau)
        for edge in system.couplings:
            moved[:, system.places[edge.to]] += x[:, system.places[edge.source]] @ edge.matrix.T
        x = moved
        assert np.abs(x - states[k]).max() < 1e-5 * max(1.0, np.abs(states[k]).max())


@pytest.mark.parametrize("form", FORMS)
def test_couplings_are_skew_in_the_metrics(form: Form) -> None:
    net = mixed(form)
    push(net, 1.0, torch.Generator().manual_seed(5))
    metrics, system = net.metrics(), net.system()
    edges = {(edge.to, edge.source): edge.matrix for edge in system.couplings}
    for (to, source), block in edges.items():
        off = metrics[to] @ block + (metrics[source] @ edges[source, to]).T
        assert np.abs(off).max() < 1e-5 * np.abs(metrics[to] @ block).max()
    assert np.abs(metrics["m0"] - np.diag(np.diag(metrics["m0"]))).max() > 0.01


def test_blocks_are_the_dense_product() -> None:
    torch.manual_seed(3)
    net = Assembly(2, [LureModule(16, 0.5) for _ in range(8)] + [Singular(16, 0.5)] * 1, 2, topology="ring", step=0.1)
    push(net, 0.2, torch.Generator().manual_seed(5))
    values = net.skew.values(net.exponent(), net.inner())
    whole = net.skew.matrix(net.exponent(), net.inner())
    net.skew.sparse = True
    sparse = net.skew._whole(net.skew.values(net.exponent(), net.inner()))
    assert torch.allclose(sparse, whole, atol=1e-5)
    assert len(values) == len(net.skew.layouts)


def test_states_of_a_lure_module_share_a_step() -> None:
    net = mixed("rate")
    push(net, 2.0, torch.Generator().manual_seed(6))
    steps = net.steps().detach().split(net.sizes)
    assert [len(set(part.tolist())) for part in steps] == [1, 3, 1, 2]


def test_parallel_evaluation_is_bounded_in_the_full_metric() -> None:
    """Differences of one step's states shrink by the factor, in the norm of the certificate's metric."""
    torch.manual_seed(1)
    net = mixed("hopfield").double()
    push(net, 0.5, torch.Generator().manual_seed(2))
    known = parallel_plan(net, 20).guarantee
    inputs, starts = torch.zeros(2, 1, 2, dtype=torch.float64), torch.randn(2, net.size, dtype=torch.float64)
    ends = net.states(inputs, starts)[0].detach()
    assert known.norm(ends[:1] - ends[1:]) <= known.factor * known.norm(starts[:1] - starts[1:]) * (1.0 + 1e-6)


def test_what_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        Assembly(2, [LureModule(3, 0.9)], 2, step=0.5)
    assert (caught.value.field, caught.value.slug) == ("step", "out-of-reach")
    with pytest.raises(InputError, match="slopes down to"):
        Assembly(2, [LureModule(3, 0.3)], 2, activation="gelu")
    with pytest.raises(InputError, match="one form"):
        Assembly(2, [LureModule(3, 0.5, "rate")], 2, form="hopfield")
    with pytest.raises(InputError, match="hopfield or rate"):
        LureModule(3, 0.5, "other")  # type: ignore[arg-type]
    for wrong, field in (({"step": 1.0}, "step"), ({"activation": "gelu"}, "activation")):
        with pytest.raises(InputError) as caught:
            Architecture.parse({"kind": "lure", "modules": [3]} | wrong)
        assert caught.value.field == f"architecture.{field}"
    assert trainings.lure_coupling(1.0, 0.1) == trainings.lure_coupling(0.5, 0.0) == 0.0


@pytest.mark.parametrize("form", FORMS)
def test_trained_and_verified(tmp_path: Path, form: Form) -> None:
    from certes.certificate.assembly_check import verify_assembly

    asked = Architecture.parse({"kind": "lure", "modules": [5, 4], "form": form})
    made = train(asked, problem(60), Plan(epochs=2, learning_rate=1.0), tmp_path / "out", draw=False)
    assert made.report["factor"] < 1.0
    assert verify_assembly(made.certificate, made.folder).valid
