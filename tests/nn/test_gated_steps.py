"""Steps that the input opens and closes, judged by plain loops, by numpy at corners of the slopes, and by files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import certes
import numpy as np
import pytest
import torch
from certes.errors import InputError
from certes.input_gate import LEAST, InputGate
from certes.nn import (
    AdaDiagNet,
    Assembly,
    GlobalWorkspaceNet,
    LureModule,
    Singular,
    Symmetric,
    activations,
    recurrence,
    steppers,
)  # fmt: skip
from certes.nn.architecture import Architecture
from certes.nn.callback import Certify
from certes.nn.newton import Guarantee, evaluate, parallel_plan, run_parallel
from certes.nn.product import description, tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from .test_recurrence import BATCH, LAYOUTS, SIZE, STEPS, Problem, _matrix

SHARES = st.floats(LEAST, 1.0, exclude_max=True)


def net(least: float = 0.1, **options: Any) -> Assembly:
    torch.manual_seed(3)
    return Assembly(2, [Singular(k, 0.5) for k in (2, 3)], 2, step=(0.05, 0.4), gate=least, **options)


# --- the arithmetic


@given(SHARES, st.floats(0.0, 1.0))
def test_what_follows_is_rounded_outwards(least: float, level: float) -> None:
    gate = InputGate(least)
    factor, rate = 1 - Fraction(least) * (1 - Fraction(level)), Fraction(least) * Fraction(level)
    assert 0 <= Fraction(gate.factor(level)) - factor <= Fraction(2) ** -52
    assert 0 <= rate - Fraction(gate.rate(level)) <= Fraction(2) ** -52 * rate + Fraction(2) ** -1074


@pytest.mark.parametrize("least", [0.0, LEAST / 2, 1.0, 1.5, -0.1, float("nan"), float("inf"), True, "0.1"])
def test_shares_that_are_none_are_refused(least: Any) -> None:
    with pytest.raises(InputError) as caught:
        net(least)
    assert caught.value.field == "gate"
    with pytest.raises(InputError) as caught:
        Architecture.parse({"modules": [2], "gate": least if isinstance(least, float) else "much"})
    assert caught.value.field == "architecture.gate"


# --- the law


def corners(size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(list(itertools.product((0.0, 1.0), repeat=size)))


def jacobians(model: Assembly) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """E (W D - I + G), or with D W, at every corner D of the slopes, from the exported network alone; and E."""
    system, n = model.system(), model.size
    W, G, e, first, at = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n), {}, 0
    for name, leaf in system.leaves():
        end = at + leaf.size
        first[name], W[at:end, at:end], e[at:end] = slice(at, end), leaf.matrix("W"), 1.0 / np.asarray(leaf.tau)
        at = end
    for edge in system.couplings:
        G[first[edge.to], first[edge.source]] += edge.matrix  # in x', E included
    bent = [W * d if model.form == "hopfield" else d[:, None] * W for d in corners(n)]
    return np.array([e[:, None] * (each - np.eye(n)) + G for each in bent]), e


def certified(model: Assembly) -> tuple[Any, np.ndarray[Any, Any]]:
    """What is found, and a root of the metric in which it is proven."""
    found: Any = certes.certify(model, refute=False)
    assert found.verdict == "contracting", found.detail
    metric = block(model) if found.whole is None else np.array(found.whole.metric)
    return found, np.linalg.cholesky(metric).T


def block(model: Assembly) -> np.ndarray[Any, Any]:
    """The metric of all modules together."""
    return torch.block_diag(*[torch.from_numpy(m) for m in model.metrics().values()]).numpy()  # type: ignore[no-untyped-call, no-any-return]


MODELS: dict[str, Callable[..., Assembly]] = {
    "steps of their own": net,
    "one step": lambda least, **o: GlobalWorkspaceNet(2, [3, 2], 2, step=0.3, gate=least, **o),
    "diagonal": lambda least, **o: AdaDiagNet(2, [3, 3], 2, gate=least, **o),
    "rate": lambda least, **o: Assembly(2, [Symmetric(3, 0.7)], 2, form="rate", step=0.5, gate=least, **o),
    "lure": lambda least, **o: lure("hopfield", least, **o),
    "lure, rate": lambda least, **o: lure("rate", least, **o),
}


def lure(form: Any, least: float, **options: Any) -> Assembly:
    """A metric that is not diagonal beside one that is, one step in the one and a step per state in the other."""
    modules = [LureModule(3, 0.5, form), Singular(2, 0.5)]
    return Assembly(2, modules, 2, form=form, activation="relu", step=(0.02, 0.2), gate=least, **options)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(MODELS)), st.floats(0.01, 0.9), st.integers(0, 2**31), st.floats(0.1, 3.0))
def test_products_of_gated_steps_contract_as_stated(name: str, least: float, seed: int, scale: float) -> None:
    """At every corner of the slopes and whatever the shares, in the certified metric, by numpy's norms."""
    model, rng = MODELS[name](least), np.random.default_rng(seed)
    adversary(model, torch.Generator().manual_seed(seed), scale)
    found, root = certified(model)
    stated = found.gated["factor"]
    assert found.factor <= stated < 1.0
    steps, inverse = jacobians(model)[0], np.linalg.inv(root)
    product = np.eye(model.size)
    for k, d in enumerate(rng.integers(len(steps), size=12)):
        share = (least, 1.0, rng.uniform(least, 1.0))[k % 3]
        one = np.eye(model.size) + share * steps[d]
        assert np.linalg.norm(root @ one @ inverse, 2) <= 1.0 - share * (1.0 - found.factor) + 1e-9
        assert np.linalg.norm(root @ one @ inverse, 2) <= stated + 1e-9
        product = one @ product
    assert np.linalg.norm(root @ product @ inverse, 2) <= stated**12 + 1e-9


def test_the_factor_is_reached() -> None:
    """Uncoupled, diagonal, at the least share: no smaller factor holds."""
    model = Assembly(1, [Singular(1, 0.5)], step=0.4, gate=0.25, activation="relu")
    with torch.no_grad():
        for parameter in model.parts.parameters():
            parameter.fill_(3.0)
    found, _ = certified(model)
    worst = max(abs(1.0 + 0.25 * step[0, 0]) for step in jacobians(model)[0])
    assert found.gated["factor"] == pytest.approx(worst, abs=2e-3)
    assert found.gated["factor"] >= worst


def test_shares_below_the_least_are_not_what_is_stated() -> None:
    """The law can fail: a share below the least has a larger factor than the one that is stated."""
    model = net(0.5)
    found, root = certified(model)
    norms = [np.linalg.norm(root @ (np.eye(5) + 0.02 * step) @ np.linalg.inv(root), 2) for step in jacobians(model)[0]]
    assert max(norms) > found.gated["factor"]


def test_in_continuous_time_the_rate_is_the_least_share_of_it() -> None:
    """Logarithmic norms at every corner, times shares."""
    model = MODELS["one step"](0.2, guarantee="continuous")
    adversary(model, torch.Generator().manual_seed(0), 3.0)
    found, root = certified(model)
    assert found.factor is None
    assert found.gated == {"least": 0.2, "rate": pytest.approx(0.2 * found.rate, rel=1e-12), "factor": None}
    worst = -np.inf
    for step in jacobians(model)[0]:
        moved = root @ step @ np.linalg.inv(root)
        worst = max(worst, float(np.linalg.eigvalsh(0.5 * (moved + moved.T))[-1]))
    for share in (0.2, 0.5, 1.0):
        assert share * worst <= -found.gated["rate"] + 1e-9


def adversary(model: Assembly, generator: torch.Generator, scale: float) -> None:
    """A step of learning rate 1 along a gradient that wants no good."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("guarantee", ["euler", "continuous"])
@pytest.mark.parametrize("name", MODELS)
def test_it_certifies_after_large_steps_and_shares_stay_inside(name: str, guarantee: str) -> None:
    certified_after(3, name, guarantee)


@pytest.mark.slow
@pytest.mark.parametrize("guarantee", ["euler", "continuous"])
@pytest.mark.parametrize("name", MODELS)
def test_it_certifies_after_many_large_steps(name: str, guarantee: str) -> None:
    certified_after(50, name, guarantee)


def certified_after(steps: int, name: str, guarantee: str) -> None:
    """Steps of learning rate 1, and of 10 and 0.1: all parameters move, those of the gate among them."""
    torch.manual_seed(7)
    least, generator = 0.1, torch.Generator().manual_seed(3)
    model = MODELS[name](least, guarantee=guarantee)
    for k in range(steps):
        adversary(model, generator, (0.1, 1.0, 10.0)[k % 3])
        found: Any = certes.certify(model, refute=False)
        assert found.verdict == "contracting", (k, found.detail)
        gate, exact = found.gated, Fraction(least)
        if guarantee == "euler":
            assert found.factor < gate["factor"] < 1.0
            assert Fraction(gate["factor"]) >= 1 - exact * (1 - Fraction(found.factor))
        else:
            assert 0.0 < gate["rate"] < found.rate
            assert Fraction(gate["rate"]) <= exact * Fraction(found.rate)
        shares = model.parts_of_run(10.0 * torch.randn(4, 50, 2, generator=generator)).shares
        assert shares is not None
        shares = shares.detach()
        assert float(shares.min()) >= least
        assert float(shares.max()) <= 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@given(least=SHARES)
@settings(max_examples=50, deadline=None)
def test_no_share_is_rounded_below_the_least(dtype: torch.dtype, least: float) -> None:
    """At both ends of the logistic function, in the numbers of the network; compared exactly."""
    model = Assembly(1, [Singular(1, 0.5)], gate=least).to(dtype)
    assert model.gate is not None
    with torch.no_grad():
        model.gate.weight.fill_(1.0)
        model.gate.bias.zero_()
    shares = model.shares(torch.tensor([[[-1e4]], [[-20.0]], [[0.0]], [[1e4]]], dtype=dtype))
    assert shares is not None
    found = [float(value.detach()) for value in shares.flatten()]
    assert all(Fraction(least) <= Fraction(value) <= 1 for value in found)
    assert found[0] < least + 0.01
    assert found[-1] == 1.0


# --- the operation


class Gated(Problem):
    """A problem of the recurrence, with shares."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        g = torch.Generator().manual_seed(9)
        self.shares = (0.05 + 0.95 * torch.rand(STEPS, BATCH, generator=g, dtype=torch.float64)).requires_grad_()
        self.asked = [*self.given, self.shares]

    def ours(self, last: bool) -> Tensor:
        start, step, pushes, w, g = self._parts()
        return recurrence.run(
            self.equation, start, recurrence.Pushes(*pushes), step, w, g, self.shares, last=last
        )  # fmt: skip

    def plain(self, last: bool) -> Tensor:
        x, step, pushes, w, g = self._parts()
        drive = torch.nn.functional.linear(*pushes) if len(pushes) > 1 else pushes[0]
        phi, found = activations.torch_activation(self.equation.activation), []
        W, G = _matrix(self.equation.weights, w), _matrix(self.equation.couplings, g)
        for p, share in zip(drive, self.shares, strict=True):
            inner = phi(x) @ W.T + p if self.equation.hopfield else phi(x @ W.T + p)
            x = x + share[:, None] * step * (-x + inner + x @ G.T)
            found.append(x)
        return x if last else torch.stack(found)


@pytest.mark.parametrize("small", [0, 10**9], ids=["parts", "whole"])
@pytest.mark.parametrize("hopfield", [True, False])
def test_it_is_the_plain_loop(hopfield: bool, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and all gradients, in float64, for every stride and stretch."""
    monkeypatch.setattr(steppers, "_SMALL", small)
    monkeypatch.setattr(recurrence, "_stretch", lambda x: 2)
    for keep, made, last in itertools.product((0, 1, 99), (True, False), (True, False)):
        case = Gated(hopfield, "gelu", "all", keep, made)
        ours, plain = case.ours(last), case.plain(last)
        torch.testing.assert_close(ours, plain)
        seen = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found = [torch.autograd.grad((values * seen).sum(), case.asked) for values in (ours, plain)]
        for one, two in zip(*found, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("small", [0, 10**9], ids=["parts", "whole"])
def test_gradients_against_finite_differences(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steppers, "_SMALL", small)
    for hopfield in (True, False):
        case = Gated(hopfield, "tanh", "uncoupled", 0, False)

        def run(*asked: Tensor, case: Gated = case) -> Tensor:
            case.given, case.shares = list(asked[:-1]), asked[-1]
            return case.ours(False)

        assert torch.autograd.gradcheck(run, case.asked, eps=1e-6, atol=1e-6, fast_mode=True)


def test_shares_of_one_change_no_bit_of_where_steps_are_whole() -> None:
    for layouts in LAYOUTS:
        case = Gated(True, "tanh", layouts, 1, True)
        case.shares = torch.ones(STEPS, BATCH, dtype=torch.float64)
        start, step, pushes, w, g = case._parts()
        whole = recurrence.run(case.equation, start, recurrence.Pushes(*pushes), step, w, g)
        assert torch.equal(case.ours(False), whole)
        assert whole.shape == (STEPS, BATCH, SIZE)


def test_torch_takes_it_for_an_operator() -> None:
    case = Gated(True, "tanh", "all", 3, True)
    start, step, (inputs, weight, bias), w, g = case._parts()
    for last in (True, False):
        arguments = (start, inputs, weight, bias, step, [*w, *g], case.equation.spec, last, case.shares)
        torch.library.opcheck(recurrence._recurrence, arguments, test_utils=("test_schema", "test_faketensor"))


# --- the module


def answers(model: Callable[..., Any], parameters: list[Tensor], inputs: Tensor) -> list[Tensor]:
    outputs, state = model(inputs)
    return [outputs, state, *torch.autograd.grad((outputs**2).sum() + state.sum(), parameters)]


@pytest.mark.parametrize("name", ["steps of their own", "lure, rate"])
def test_gradients_of_the_module_against_finite_differences(name: str) -> None:
    """Of every parameter and the inputs, in float64: through the gate, and through all that it scales."""
    torch.manual_seed(5)
    model, inputs = MODELS[name](0.2).double(), torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    model.activation = "tanh"  # finite differences across a kink are none
    names = [each for each, _ in model.named_parameters()]

    def answer(given: Tensor, *parameters: Tensor) -> Tensor:
        outputs, state = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (given,))
        return torch.cat([outputs.flatten(), state.flatten()])

    asked = [value.detach().clone().requires_grad_() for value in model.parameters()]
    assert torch.autograd.gradcheck(answer, (inputs, *asked), eps=1e-6, atol=1e-7)
    found = torch.autograd.grad(answer(inputs, *asked).sum(), asked)
    assert all(bool(found[names.index(each)].abs().max() > 1e-6) for each in ("gate.weight", "gate.bias"))


def test_gradients_in_float32_are_those_of_float64() -> None:
    """Near the least share, where the difference of two states is divided by a small number."""
    model, twin, inputs = net(LEAST), net(LEAST).double(), torch.randn(4, 60, 2)
    for each in (model, twin):
        assert each.gate is not None
        with torch.no_grad():
            each.gate.bias.fill_(-6.0)
            each.gate.weight.copy_(torch.tensor([[0.4, -0.3]]))
    found = answers(model, list(model.parameters()), inputs)
    for one, two in zip(found, answers(twin, list(twin.parameters()), inputs.double()), strict=True):
        assert torch.linalg.vector_norm(one.double() - two) <= 1e-3 * torch.linalg.vector_norm(two)


@pytest.mark.slow
def test_compilers_and_exporters() -> None:
    model, inputs = net(keep=0), torch.randn(4, 20, 2)
    expected = answers(model, list(model.parameters()), inputs)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for one, two in zip(answers(compiled, list(model.parameters()), inputs), expected, strict=True):
        torch.testing.assert_close(one, two)
    exported = torch.export.export(net(keep=0).eval(), (inputs,))
    assert torch.equal(exported.module()(inputs)[0], expected[0])  # type: ignore[operator]


def test_in_mixed_precision_it_runs_what_is_certified() -> None:
    model, inputs = net(keep=0), torch.randn(4, 20, 2)
    expected = answers(model, list(model.parameters()), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, state = model(inputs)
    assert outputs.dtype == torch.bfloat16
    assert torch.equal(state, expected[1])


def test_the_gate_is_saved_and_a_network_without_one_is_as_before() -> None:
    plain, again = net(), net()
    again.load_state_dict(plain.state_dict())
    assert {"gate.weight", "gate.bias"} <= set(plain.state_dict())
    torch.manual_seed(3)
    without = Assembly(2, [Singular(k, 0.5) for k in (2, 3)], 2, step=(0.05, 0.4))
    assert set(plain.state_dict()) - set(without.state_dict()) == {"gate.weight", "gate.bias"}
    for name, value in without.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), "the gate is drawn last"


def test_callbacks_record_what_holds_with_the_gate() -> None:
    found: Any = certes.certify(net(0.1), refute=False)
    recorded = Certify(net(0.1), 1).now()
    assert recorded.factor == found.gated["factor"] > found.factor


@pytest.mark.parametrize("name", MODELS)
def test_the_exported_numbers_take_the_steps_of_the_module(name: str) -> None:
    """A loop over what is written into the folder, in float64, against the module in float32."""
    torch.manual_seed(11)
    model, inputs, n = MODELS[name](0.1), torch.randn(3, 30, 2), MODELS[name](0.1).size
    model.standardise(torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5]))
    get, told = {key: np.float64(value) for key, value in tensors(model).items()}, description(model)
    e = 1.0 / np.concatenate([module["tau"] for module in told["modules"].values()])
    ends = np.cumsum([0, *(len(module["tau"]) for module in told["modules"].values())])
    parts = {key: slice(*ends[k : k + 2]) for k, key in enumerate(told["modules"])}
    W, G = np.zeros((n, n)), np.zeros((n, n))
    for key, part in parts.items():
        W[part, part] = get[f"{key}.W"]
    for edge in told["couplings"]:
        G[parts[edge["to"]], parts[edge["from"]]] = get[edge["tensor"]]
    phi = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0)}[model.activation]
    x, least, states = np.zeros((3, n)), told["gate"]["least"], model.states(inputs).detach().numpy()
    for t, seen in enumerate(inputs.numpy().astype(np.float64).swapaxes(0, 1)):
        u = (seen - get["input.shift"]) / get["input.scale"]
        share = least + (1 - least) / (1 + np.exp(-(u @ get["gate.weight"].T + get["gate.bias"])))
        push = u @ get["input.weight"].T + get["input.bias"]
        inner = phi(x) @ W.T + push if model.form == "hopfield" else phi(x @ W.T + push)
        x = x + share * (e * (inner - x) + x @ G.T)
        np.testing.assert_allclose(states[t], x, atol=1e-6)


# --- evaluation parallel over time


def test_no_bound_on_iterations_is_quoted_for_a_network_with_a_gate() -> None:
    model, inputs = net(), torch.randn(3, 9, 2)
    torch.manual_seed(3)
    plain = Assembly(2, [Singular(k, 0.5) for k in (2, 3)], 2, step=(0.05, 0.4))
    of_plain = parallel_plan(plain, 9).guarantee
    found: Any = certes.certify(model)
    for call in (
        lambda: parallel_plan(model, 9), lambda: parallel_plan(found, 9), lambda: Guarantee.of(found),
        lambda: evaluate(model, of_plain, inputs),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.slug == "unsupported"
    run = run_parallel(model, inputs)
    assert run.sequential
    assert "gate" in run.note
    assert run.error == np.inf
    assert torch.equal(run.states, model.states(inputs))
