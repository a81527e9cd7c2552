"""What a certificate says of convergence, against numpy: norms at slope vertices, remainders, and runs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import certes
import numpy as np
import pytest
import torch
from certes.activations import ACTIVATIONS
from certes.composition.outcome import Composition
from certes.errors import InputError
from certes.nn import convergence
from certes.nn.assembly import Assembly
from certes.nn.convergence import Guarantee, parallel_plan
from certes.nn.newton import evaluate
from certes.nn.stable import Diagonal, Singular
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[np.float64]


def network(form: str = "hopfield", activation: str = "tanh", level: float = 0.5, step: Any = (0.1, 0.5), seed: int = 0,
            gain: float = 5.0) -> Assembly:  # fmt: skip
    torch.manual_seed(seed)
    net = Assembly(2, [Singular(3, level), Diagonal(2, level), Singular(3, level)], 0, activation=activation,
                   form=form, step=step)  # type: ignore[arg-type]  # fmt: skip
    with torch.no_grad():
        net.input.weight.mul_(3.0)
        for part in net.parts:
            if hasattr(part, "spread"):
                part.spread.add_(torch.randn(3))  # a metric that is none of the trivial ones
        for block in net.skew.blocks:
            block.mul_(gain)
    return net.double()


def certified(net: Assembly) -> Composition:
    found = certes.certify(net)
    assert isinstance(found, Composition)
    assert found.verdict == "contracting"
    return found


def equation(net: Assembly) -> tuple[Array, Array, Array]:
    """x+ = A x + B phi(C x + ...) as it is run, from the network's own functions at unit vectors."""
    n = net.size
    eye = torch.eye(n, dtype=torch.float64)
    parts = net.parts_of_run(torch.zeros(1, 1, 2, dtype=torch.float64))
    W = sum(layout.apply(value, eye).mT for layout, value in zip(net._layouts, parts.weights, strict=True))
    G = sum(layout.apply(value, eye).mT for layout, value in zip(net.skew.layouts, parts.couplings, strict=True))
    W, G, e = (np.asarray(part.detach()) for part in (W, G, parts.step))  # type: ignore[union-attr]
    A = np.eye(n) - np.diag(e) + np.diag(e) @ G
    return (A, np.diag(e) @ W, np.eye(n)) if net.form == "hopfield" else (A, np.diag(e), W)


@pytest.mark.parametrize("form", ["hopfield", "rate"])
@pytest.mark.parametrize("activation", ["tanh", "gelu", "leaky_relu:0.3"])
def test_norms_at_all_slopes(form: str, activation: str) -> None:
    """A convex function of the slopes is largest at a vertex: all 256 are tried, and all pairs of some."""
    net = network(form, activation)
    known = Guarantee.of(certified(net))
    A, B, C = equation(net)
    root = known.root.numpy()
    over, entry = np.linalg.inv(root), ACTIVATIONS.get(activation)
    low, high = (entry.lower, entry.upper) if entry is not None else (0.3, 1.0)
    known = known.at(convergence.Form(*(torch.from_numpy(part) for part in (A, B, C))))
    jacobians = [root @ (A + B * d @ C) @ over for d in map(np.array, itertools.product((low, high), repeat=len(C)))]
    worst = max(np.linalg.norm(jacobian, 2) for jacobian in jacobians)
    assert 0.8 * known.factor < worst <= known.factor < 1.0
    apart = max(np.linalg.norm(one - other, 2) for one, other in itertools.combinations(jacobians[::5], 2))
    assert 0.3 * known.spread < apart <= known.spread * (1.0 + 1e-12)
    assert np.abs(over).sum() > 0.0
    x = np.random.default_rng(0).standard_normal((500, len(A)))
    assert (np.abs(x).max(axis=1) <= np.linalg.norm(x @ root.T, axis=1) * (1.0 + 1e-12)).all()


@pytest.mark.parametrize("form", ["hopfield", "rate"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "gelu", "silu", "softsign", "elu"])
def test_the_remainder_is_quadratic(form: str, activation: str) -> None:
    net = network(form, activation, 0.3)
    known = Guarantee.of(certified(net))
    A, B, C = equation(net)
    root, entry, rng = known.root.numpy(), ACTIVATIONS[activation], np.random.default_rng(1)
    share = 0.0
    for size in (0.1, 1.0, 5.0):
        s, x, d = (scale * rng.standard_normal((2000, len(A))) for scale in (1.0, 1.0, size))
        at = x @ C.T + s
        moved = d @ A.T + (entry.function(at + d @ C.T) - entry.function(at)) @ B.T
        left = moved - d @ A.T - (entry.derivative(at) * (d @ C.T)) @ B.T
        share = max(
            share, float((np.linalg.norm(left @ root.T, axis=1) / np.linalg.norm(d @ root.T, axis=1) ** 2).max())
        )
    assert 0.02 * known.bend < share <= known.bend


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_lipschitz_constants_of_derivatives(name: str) -> None:
    grid = np.linspace(-6.0, 8.0, 280_001) + 1e-7  # beside the kinks, not on them
    found = float(np.abs(np.diff(ACTIVATIONS[name].derivative(grid)) / np.diff(grid)).max())
    if name in convergence._BENDS:
        claimed = convergence._BENDS[name]
        assert claimed - 1e-3 < found <= claimed + 1e-9
    else:
        assert found > 1e3, "a kink, and no constant is claimed"


def test_the_floor_is_that_of_the_linear_system() -> None:
    """The least singular value of the residuals' Jacobian, in the metric, for random slopes."""
    plan = parallel_plan(network(), 12)
    A, B, C = equation(network())
    root, rng, n = plan.guarantee.root.numpy(), np.random.default_rng(0), len(A)
    over = np.linalg.inv(root)
    for _ in range(20):
        whole = np.eye(12 * n)
        for t in range(1, 12):
            J = A + B * rng.integers(0, 2, len(C)) @ C
            whole[t * n : (t + 1) * n, (t - 1) * n : t * n] = -root @ J @ over
        assert np.linalg.svd(whole, compute_uv=False)[-1] >= plan.floor
    assert plan.floor == 1.0 - plan.guarantee.factor
    assert plan.condition == pytest.approx(np.linalg.cond(root) ** 2)


@pytest.mark.slow
@given(
    seed=st.integers(0, 10**6), level=st.sampled_from([0.05, 0.2, 0.5, 0.8, 0.95]),
    step=st.sampled_from([0.05, 0.3, 0.9]),
    form=st.sampled_from(["hopfield", "rate"]), activation=st.sampled_from(["tanh", "relu", "gelu", "softplus"]),
    steps=st.integers(1, 80), gain=st.sampled_from([0.0, 1.0, 10.0]), jacobian=st.sampled_from(["full", "diagonal"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None, derandomize=True)
def test_no_run_takes_more_than_the_bound(
    seed: int, level: float, step: float, form: str, activation: str, steps: int, gain: float, jacobian: Any
) -> None:
    try:
        net = network(form, activation, level, step, seed, gain)
    except InputError:
        return  # gelu's slopes leave no room at this level
    known = Guarantee.of(certified(net))
    inputs = torch.randn(2, steps, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = evaluate(net, known, inputs, tolerance=1e-9, jacobian=jacobian)
    assert found.converged
    assert found.iterations <= found.bound <= steps
    off = (found.states - net.states(inputs)).detach().abs().max()
    assert float(off) <= found.error + 1e-13
    assert found.error <= 1e-9


@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_each_iteration_leaves_what_is_said(activation: str, jacobian: Any) -> None:
    """Every count of iterations is enough for the tolerance that it is said to reach, and none is needed below."""
    net = network(activation=activation, level=0.3, step=0.2)
    known = Guarantee.of(certified(net))
    inputs = torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for tolerance in 10.0 ** np.arange(1.0, -11.0, -0.5):
        found = evaluate(net, known, inputs, tolerance=float(tolerance), jacobian=jacobian)
        assert found.converged
        assert found.iterations <= found.bound


@pytest.mark.cases(4)
@pytest.mark.parametrize("steps", [256, 1024])
@pytest.mark.parametrize(
    ("level", "step", "factor"), [(0.1, 0.9, 0.15), (0.5, 0.2, 0.8), (0.8, 0.05, 0.95), (0.5, 0.02, 0.98)]
)
def test_few_iterations_up_to_a_factor_of_99_hundredths(level: float, step: float, factor: float, steps: int) -> None:
    for activation, seed in itertools.product(("tanh", "relu"), range(2)):
        net = network("hopfield", activation, level, step, seed, gain=0.5)
        plan = parallel_plan(net, steps, 1e-8)
        assert factor < plan.guarantee.factor <= 0.99
        inputs = torch.randn(1, steps, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = evaluate(net, plan.guarantee, inputs, tolerance=1e-8)
        assert found.converged
        assert found.iterations <= 10


def test_a_smooth_network_is_bounded_by_far_fewer() -> None:
    plans = {
        name: parallel_plan(network("hopfield", name, 0.2, 0.1, gain=0.5), 10_000, 1e-8) for name in ("tanh", "relu")
    }
    linear = {name: plan.guarantee.iterations(1.0, 1e-8, 10_000, newton=False) for name, plan in plans.items()}
    smooth, kinked = (plans[name].guarantee.iterations(1.0, 1e-8, 10_000) for name in ("tanh", "relu"))
    assert smooth < kinked < 0.3 * min(linear.values())
    assert smooth < 12


def test_a_forged_or_foreign_certificate_is_refused() -> None:
    net = network()
    found = certified(net)
    assert found.whole is not None
    low = replace(found, whole=replace(found.whole, level=0.5 * found.whole.level), factor=0.1)
    flipped = replace(found, whole=replace(found.whole, metric=-found.whole.metric))
    swapped = replace(found, assembly=network(seed=9).system())
    for forged in (low, flipped, swapped):
        with pytest.raises(InputError, match="does not hold"):
            Guarantee.of(forged)
    for said in (replace(found, whole=None), replace(found, verdict="undecided"), replace(found, factor=None)):
        with pytest.raises(InputError, match="certificate"):
            Guarantee.of(said)


def test_a_plan_of_what_is_not_certified_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(InputError, match="continuous time"):
        parallel_plan(Assembly(2, [Singular(3, 0.5)], 0, step=0.2, guarantee="continuous"), 10)
    for steps, tolerance in ((0, 1e-5), (4, 0.0), (4, np.nan), (4, np.inf)):
        with pytest.raises(InputError, match="steps, tolerance"):
            parallel_plan(network(), steps, tolerance)
    system = certes.HopfieldNetwork(np.zeros((2, 2)), activation="tanh", step=0.5)
    other = certes.HopfieldNetwork(np.zeros((2, 2)), activation="relu", step=0.5)
    with pytest.raises(InputError, match="several activations"):
        parallel_plan(certes.compose({"a": system, "b": other}, {}, mode="whole"), 4)
