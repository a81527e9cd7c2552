"""Cascades: what is run is what is exported, their bound judged by numpy and rationals, and their certificates."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import certes
import numpy as np
import pytest
import torch
from certes.certificate.assembly_check import verify_assembly
from certes.composition.description import read
from certes.composition.outcome import Composition
from certes.composition.whole import flattened
from certes.errors import InputError
from certes.nn import CascadeNet
from certes.nn.assembly import Guarantee
from certes.nn.cascade import DelayLine
from certes.nn.newton import parallel_plan
from certes.nn.product import DESCRIPTION, WEIGHTS, description, tensors
from certes.nn.train import train
from certes.nn.trainer import Plan
from certes.sequences import DataSet, Sequences
from certes.trainings import Architecture
from certes.weights import write_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

Array = NDArray[np.float64]
GUARANTEES: tuple[Guarantee, ...] = ("euler", "continuous")
GIVEN = {"kind": "cascade", "modules": [12, 5], "form": "rate", "step": 1.0}


def cascade(sizes: tuple[int, int] = (6, 4), features: int = 2, **options: Any) -> CascadeNet:
    torch.manual_seed(5)
    return CascadeNet(features, sizes, 2, **options)


def push(net: CascadeNet, scale: float, generator: torch.Generator) -> None:
    """A step of learning rate 1 along a gradient that wants no good."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def exported(net: CascadeNet) -> tuple[Array, Array, Array]:
    """S, W and C of the network as it is certified."""
    system = net.system()
    line, stage = (cast(Any, module).matrix("W") for module in system.modules.values())
    return line, stage, system.couplings[0].matrix


def step_by_step(net: CascadeNet, inputs: Array, state: Array, phi: Any) -> Array:
    """All states in float64 by the two equations of the exported network, shape (T, batch, n)."""
    s, w, c = exported(net)
    u, b = (part.detach().double().numpy() for part in net.entry())
    n, found, x = len(s), [], state
    seen = (inputs - net.shift.numpy()) / net.scale.numpy()
    for t in range(inputs.shape[1]):
        drive = seen[:, t] @ u.T + b
        line, stage = x[:, :n], x[:, n:]
        x = np.concatenate(
            [line @ s.T + drive[:, :n], phi(stage @ w.T + line @ c.T + drive[:, n:])], axis=1
        )  # fmt: skip
        found.append(x)
    return np.stack(found)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6), features=st.integers(1, 3), length=st.integers(1, 9), size=st.integers(1, 5),
    steps=st.integers(1, 70), guarantee=st.sampled_from(GUARANTEES), activation=st.sampled_from(["relu", "tanh"]),
    level=st.sampled_from([0.05, 0.5, 0.9]),
)  # fmt: skip
def test_what_is_run_is_what_is_exported(
    seed: int, features: int, length: int, size: int, steps: int, guarantee: Guarantee, activation: str, level: float
) -> None:
    """To 1e-6, from any state; and the last state alone, for which most steps of the stage may be left out."""
    torch.manual_seed(seed)
    sizes = (features * length, size)
    net = CascadeNet(features, sizes, 2, guarantee=guarantee, activation=activation, level=level)
    net.standardise(torch.randn(features), torch.rand(features) + 0.5)
    inputs, state = torch.randn(2, steps, features), torch.randn(2, sum(sizes))
    phi = np.tanh if activation == "tanh" else lambda s: np.maximum(s, 0.0)
    wanted = step_by_step(net, inputs.double().numpy(), state.double().numpy(), phi)
    with torch.no_grad():
        assert np.abs(net.states(inputs, state).numpy() - wanted).max() < 1e-6 * max(1.0, np.abs(wanted).max())
        logits, last = net(inputs, state)
        assert np.abs(last.numpy() - wanted[-1]).max() < 1e-6 * max(1.0, np.abs(wanted).max())
        net.every = True
        every, also = net(inputs, state)
    assert every.shape == (2, steps, 2)
    assert torch.allclose(every[:, -1], logits, atol=1e-5)
    assert torch.allclose(also, last, atol=1e-5)


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_only_what_is_forgotten_is_left_out(level: float) -> None:
    """In float64 as well; without the Euler guarantee as much as the weights allow, which may be nothing."""
    net = cascade(level=level, activation="tanh").double()
    memory = net.memory(net.stage())
    assert memory is not None
    assert level**memory * np.exp(3.0) < 2.0**-68
    inputs, state = torch.randn(3, memory + 9, 2).double(), torch.randn(3, 10).double()
    assert torch.allclose(net(inputs, state)[1], net.states(inputs, state)[-1], rtol=0, atol=1e-15)
    assert torch.equal(net(inputs, state)[1][:, 6:], net(inputs, torch.zeros_like(state))[1][:, 6:])
    free = cascade(guarantee="continuous")
    for norm in (0.0, 0.3, 0.99):
        memory = free.memory(norm * torch.eye(4))
        assert memory is not None
        assert norm**memory < 2.0**-39
    assert free.memory(-1.0 * torch.eye(4)) is None
    assert free.memory(torch.diag(torch.tensor([0.1, 0.1, 1.5, 0.1]))) is None


@pytest.mark.parametrize("steps", [5, 60])
@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_gradients_against_finite_differences(guarantee: Guarantee, steps: int) -> None:
    net = cascade(guarantee=guarantee, activation="tanh", level=0.3).double()
    inputs = torch.randn(2, steps, 2, dtype=torch.float64)
    state = torch.randn(2, 10, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in net.named_parameters()]

    def outputs(start: Tensor, *values: Tensor) -> Any:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(net, given, (inputs, start))

    values = [value.detach().clone().requires_grad_() for value in net.parameters()]
    assert torch.autograd.gradcheck(outputs, (state, *values), fast_mode=True)


def test_a_run_goes_on_where_it_stopped() -> None:
    net = cascade(guarantee="continuous")
    inputs = torch.randn(3, 20, 2)
    middle = net(inputs[:, :7])[1]
    assert torch.allclose(net(inputs[:, 7:], middle)[1], net(inputs)[1], atol=1e-6)


def test_sequences_of_several_lengths() -> None:
    net, inputs = cascade(), torch.randn(2, 80, 2)
    logits = net(inputs, None, torch.tensor([80, 50]))[0]
    assert torch.allclose(logits[:1], net(inputs[:1])[0], atol=1e-6)
    assert torch.allclose(logits[1:], net(inputs[1:, :50])[0], atol=1e-6)


def test_state_dict_and_mixed_precision() -> None:
    net, other = cascade(), CascadeNet(2, [6, 4], 2)
    other.load_state_dict(net.state_dict())
    inputs = torch.randn(2, 60, 2)
    assert torch.equal(net(inputs)[0], other(inputs)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, last = net(inputs)
    assert logits.dtype == torch.bfloat16
    assert torch.equal(last, net(inputs)[1])


def test_a_delay_line_is_one() -> None:
    line = DelayLine(6, 2)
    x = torch.arange(6.0)
    assert torch.equal(line() @ x, torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 3.0]))
    theta = np.exp(line.exponent().double().numpy())
    assert np.linalg.norm(theta[:, None] * line().numpy() / theta, 2) == pytest.approx(line.level, rel=1e-5)


def certified_after(steps: int, net: CascadeNet, worst: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(3)
    for k in range(steps):
        push(net, (1.0, 10.0, 0.1)[k % 3], generator)
        answer = certes.certify(net, refute=False)
        assert answer.verdict == "contracting", (k, answer.detail)
        if net.guarantee == "euler":
            assert answer.factor is not None
            assert 0.0 < answer.factor < worst
        else:
            assert answer.factor is None
            assert answer.rate is not None
            assert answer.rate > 0.0


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_it_certifies_after_large_steps(guarantee: Guarantee) -> None:
    certified_after(4, cascade(guarantee=guarantee), worst=0.6)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_it_certifies_after_many_large_steps(guarantee: Guarantee, activation: str) -> None:
    certified_after(50, cascade(guarantee=guarantee, activation=activation))


@pytest.mark.slow
@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_it_certifies_at_the_size_of_images(guarantee: Guarantee) -> None:
    certified_after(3, cascade((672, 64), 1, guarantee=guarantee))


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_no_coupling_is_too_strong(guarantee: Guarantee, scale: float) -> None:
    """Nor too weak: nothing keeps it small, and nothing has to."""
    net = cascade(guarantee=guarantee)
    with torch.no_grad():
        net.coupling.mul_(scale)
    assert certes.certify(net, refute=False).verdict == "contracting"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), length=st.integers(1, 6), level=st.floats(0.05, 0.95), above=st.floats(0.01, 0.9),
    scale=st.sampled_from([0.01, 1.0, 100.0]),
)  # fmt: skip
def test_the_bound_holds_at_all_slopes(seed: int, length: int, level: float, above: float, scale: float) -> None:
    """The law of the module's docstring, by numpy's singular values at all vertices of the slopes."""
    torch.manual_seed(seed)
    net = CascadeNet(1, [length, 3], 2, level=level)
    push(net, scale, torch.Generator().manual_seed(seed))
    r = net.line.level
    s, w, c = exported(net)
    root = np.exp(net.exponent().detach().double().numpy())
    line, stage = root[:length], root[length:]
    size = np.linalg.norm(stage[:, None] * c / line, 2)
    rho = max(r, level) + above * (1.0 - max(r, level))
    epsilon = 0.999 * np.sqrt((rho**2 - r**2) * (rho**2 - level**2)) / rho / size
    whole = np.concatenate([line, epsilon * stage])
    for slopes in itertools.product([0.0, 1.0], repeat=3):
        d = np.array(slopes)[:, None]
        jacobian = np.block([[s, np.zeros((length, 3))], [d * c, d * w]])
        assert np.linalg.norm(whole[:, None] * jacobian / whole, 2) <= rho * (1.0 + 1e-6)


def definite(matrix: list[list[Fraction]]) -> bool:
    """Whether a symmetric matrix is positive definite: elimination without a rounding."""
    rows = [list(row) for row in matrix]
    for k, pivot in enumerate(rows):
        if pivot[k] <= 0:
            return False
        for row in rows[k + 1 :]:
            ratio = row[k] / pivot[k]
            for j in range(k, len(rows)):
                row[j] -= ratio * pivot[j]
    return True


def residual(p: Array, jacobian: Array, rho: float) -> list[list[Fraction]]:
    """rho^2 P - J^T P J, exact."""
    n = len(p)
    metric = [[Fraction(float(value)) for value in row] for row in p]
    j = [[Fraction(float(value)) for value in row] for row in jacobian]
    pj = [[sum((metric[a][k] * j[k][b] for k in range(n)), Fraction(0)) for b in range(n)] for a in range(n)]
    square = Fraction(rho) ** 2
    return [
        [square * metric[a][b] - sum((j[k][a] * pj[k][b] for k in range(n)), Fraction(0)) for b in range(n)]
        for a in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_the_certified_factor_in_exact_arithmetic(scale: float) -> None:
    """At every vertex of the slopes, in the metric of the certificate; and no much smaller factor holds in it."""
    net = cascade((4, 3), 1)
    push(net, scale, torch.Generator().manual_seed(1))
    found = certes.certify(net, refute=False)
    assert isinstance(found, Composition)
    assert found.root is not None
    assert found.factor is not None
    blocks = [np.array(block.mid) for block in found.root.interface.blocks]
    metric = np.zeros((7, 7))
    metric[:4, :4], metric[4:, 4:] = blocks
    metric = 0.5 * (metric + metric.T)
    s, w, c = exported(net)
    jacobians = [
        np.block([[s, np.zeros((4, 3))], [np.array(d)[:, None] * c, np.array(d)[:, None] * w]])
        for d in itertools.product([0.0, 1.0], repeat=3)
    ]
    rho = found.factor * (1.0 + 1e-9)  # the blocks are midpoints of what is certified
    assert all(definite(residual(metric, jacobian, rho)) for jacobian in jacobians)
    assert not all(definite(residual(metric, jacobian, 0.05 * rho)) for jacobian in jacobians)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_the_guarantees_differ(guarantee: Guarantee) -> None:
    """Without the Euler guarantee W may be what no map of step 1 could bear: x' contracts, and the map does not."""
    net = cascade(guarantee=guarantee, level=0.9)
    with torch.no_grad():
        net.parts[1].free.copy_(-1e4 * torch.eye(4))
    w = exported(net)[1]
    assert bool(np.abs(np.linalg.eigvals(w)).max() > 1.5) is (guarantee == "continuous")
    found = certes.certify(net, refute=False)
    assert found.verdict == "contracting"
    assert (found.factor is None) is (guarantee == "continuous")


def ramps(count: int = 80) -> DataSet:
    """Up or down, two features."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    ramp = np.linspace(-1.0, 1.0, 16)[None, :] * np.where(labels, 1.0, -1.0)[:, None]
    inputs = (ramp[:, :, None] + 0.3 * rng.standard_normal((count, 16, 2))).astype(np.float32)
    found = Sequences(inputs, labels.astype(np.int64))
    return DataSet(found.take(np.arange(count - 20)), found.take(np.arange(count - 20, count)))


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_what_comes_out_is_certified_and_learnt(tmp_path: Path, guarantee: Guarantee) -> None:
    out = tmp_path / "out"
    made = train(Architecture.parse(GIVEN | {"guarantee": guarantee}), ramps(), Plan(epochs=8), out, draw=False)
    assert made.report["test_accuracy"] > 0.9
    assert (made.report["factor"] is None) is (guarantee == "continuous")
    assert made.report["couplings"] == 1
    assert verify_assembly(made.certificate, out).valid
    assert read(out / DESCRIPTION).compose().verdict == "contracting"
    described = json.loads((out / DESCRIPTION).read_text())
    assert [module["activation"] for module in described["modules"].values()] == ["identity", "relu"]
    for name in ("m0.W", "m1.W", "m1<-m0"):
        good = (out / WEIGHTS).read_bytes()
        spoiled = load_file(out / WEIGHTS)
        save_file(spoiled | {name: spoiled[name] + np.float32(1e-3)}, out / WEIGHTS)
        assert not verify_assembly(made.certificate, out).valid, name
        (out / WEIGHTS).write_bytes(good)
    assert verify_assembly(made.certificate, out).valid


def test_the_folder_holds_the_map_that_is_run(tmp_path: Path) -> None:
    """Weights and description are read back, put together and stepped in float64, by the normal form of the whole."""
    net = cascade()
    net.standardise(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.7]))
    write_weights(tmp_path / WEIGHTS, tensors(net))
    (tmp_path / DESCRIPTION).write_text(json.dumps(description(net)))
    kept, system = load_file(tmp_path / WEIGHTS), flattened(read(tmp_path / DESCRIPTION).assembly)
    a, b, c = (system.matrix(name) for name in "ABC")
    upper, lower = (np.asarray(side) for side in (system.slope.upper, system.slope.lower))
    inputs = torch.randn(1, 30, 2)
    seen = (inputs[0].numpy() - kept["input.shift"]) / kept["input.scale"]
    x, states = np.zeros(10), []
    for t in range(30):
        s = c @ x + kept["input.weight"] @ seen[t] + kept["input.bias"]
        x = a @ x + b @ np.where(s > 0, upper * s, lower * s)
        states.append(x)
    with torch.no_grad():
        assert np.abs(net.states(inputs)[:, 0].numpy() - np.stack(states)).max() < 1e-6
        logits = net(inputs)[0]
    assert np.allclose(kept["readout.weight"] @ x + kept["readout.bias"], logits.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"modules": [12]}, "modules"),
        ({"modules": [12, 5, 5]}, "modules"),
        ({"form": "hopfield"}, "form"),
        ({"step": 0.5}, "step"),
        ({"step": [0.1, 1.0]}, "step"),
        ({"gate": 0.1}, "gate"),
        ({"topology": "ring"}, "topology"),
        ({"topology": "random", "couplings": 1}, "topology"),
    ],
)
def test_what_no_cascade_is(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        Architecture.parse(GIVEN | changed)
    assert caught.value.field == f"architecture.{field}"


def test_impossible_networks() -> None:
    for sizes, features in (([5, 4], 2), ([0, 4], 1), ([4, 0], 1), ([4], 1)):
        with pytest.raises(InputError):
            CascadeNet(features, sizes, 2)
    with pytest.raises(InputError, match="less than 1"):
        CascadeNet(1, [4, 4], 2, level=0.95, activation="gelu")
    net = cascade()
    with pytest.raises(InputError, match="steps"):
        net(torch.zeros(2, 0, 2))
    with pytest.raises(InputError, match="mode whole"):
        parallel_plan(net, 3)
    with pytest.raises(InputError, match="one activation"):
        net.parts_of_run(torch.zeros(2, 3, 2))
