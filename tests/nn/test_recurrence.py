"""The recurrence against a plain loop under autograd, under compilers, in mixed precision, saved and loaded."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import certes
import pytest
import torch
from certes.errors import InputError
from certes.nn import Assembly, Singular, SVDComboNet, activations, operators, recurrence, skew, stable, steppers
from certes.nn.recurrence import Equation, Pushes
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SIZE, STEPS, BATCH, FEATURES = 6, 7, 3, 2
BLOCKS = {
    "straight": operators.Blocks(6, [0, 2, 4], [0, 2, 4], (2, 2)),
    "aligned": operators.Blocks(6, [0, 4, 0], [2, 0, 4], (2, 2)),
    "anywhere": operators.Blocks(6, [0, 3], [4, 1], (3, 2)),
    "overlapping": operators.Blocks(6, [0, 1], [3, 4], (2, 2)),
}
LAYOUTS: dict[str, tuple[Sequence[operators.Operator], Sequence[operators.Operator]]] = {
    "dense": ([operators.Dense()], [operators.Dense()]),
    "uncoupled": ([operators.Dense()], []),
    "diagonal": ([operators.Diagonal()], [operators.Dense()]),
    "blocks": ([BLOCKS["straight"]], [BLOCKS["aligned"]]),
    "two shapes": ([BLOCKS["straight"]], [BLOCKS["anywhere"], BLOCKS["overlapping"]]),
    "all": ([BLOCKS["anywhere"], operators.Diagonal()], [operators.Dense(), BLOCKS["straight"]]),
}


def _numbers(layout: operators.Operator, generator: torch.Generator) -> Tensor:
    shape: tuple[int, ...] = (SIZE, SIZE)
    if isinstance(layout, operators.Diagonal):
        shape = (SIZE,)
    elif isinstance(layout, operators.Blocks):
        shape = (len(layout.to.first), *layout.shape)
    return 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)


def _matrix(layouts: Sequence[operators.Operator], values: Sequence[Tensor]) -> Tensor:
    """The sum as a dense matrix, entry by entry."""
    found = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    for layout, value in zip(layouts, values, strict=True):
        if isinstance(layout, operators.Blocks):
            rows, columns = layout.shape
            for i, j, block in zip(layout.to.first, layout.source.first, value, strict=True):
                padding = (j, SIZE - j - columns, i, SIZE - i - rows)
                found = found + torch.nn.functional.pad(block, padding)
        else:
            found = found + (torch.diag(value) if value.ndim == 1 else value)
    return found


class Problem:
    """An equation with random numbers, and the plain loop that it stands for."""

    def __init__(self, hopfield: bool, name: str, layouts: str, keep: int, made: bool) -> None:
        g = torch.Generator().manual_seed(5)
        weights, couplings = LAYOUTS[layouts]
        self.equation = Equation(hopfield, name, tuple(weights), tuple(couplings), keep)
        start = torch.randn(BATCH, SIZE, generator=g, dtype=torch.float64)
        step = 0.1 + 0.5 * torch.rand(SIZE, generator=g, dtype=torch.float64)
        inputs = torch.randn(STEPS, BATCH, FEATURES if made else SIZE, generator=g, dtype=torch.float64)
        pushes = [inputs]
        if made:
            pushes += [torch.randn(SIZE, FEATURES, generator=g).double(), torch.randn(SIZE, generator=g).double()]
        values = [_numbers(layout, g) for layout in (*weights, *couplings)]
        self.count, self.pushes = len(weights), len(pushes)
        self.given = [value.requires_grad_() for value in (start, step, *pushes, *values)]

    def _parts(self) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        start, step, *rest = self.given
        values = rest[self.pushes :]
        return start, step, rest[: self.pushes], values[: self.count], values[self.count :]

    def ours(self, last: bool) -> Tensor:
        """The operation."""
        start, step, pushes, w, g = self._parts()
        return recurrence.run(self.equation, start, Pushes(*pushes), step, w, g, last=last)

    def plain(self, last: bool) -> Tensor:
        """The loop."""
        x, step, pushes, w, g = self._parts()
        drive = torch.nn.functional.linear(*pushes) if len(pushes) > 1 else pushes[0]
        phi, found = activations.torch_activation(self.equation.activation), []
        W, G = _matrix(self.equation.weights, w), _matrix(self.equation.couplings, g)
        for p in drive:
            inner = phi(x) @ W.T + p if self.equation.hopfield else phi(x @ W.T + p)
            x = x + step * (-x + inner + x @ G.T)
            found.append(x)
        return x if last else torch.stack(found)


@pytest.mark.cases(12)
@pytest.mark.parametrize("small", [0, 10**9], ids=["parts", "whole"])
@pytest.mark.parametrize("layouts", LAYOUTS)
@pytest.mark.parametrize("hopfield", [True, False])
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_it_is_the_plain_loop(
    hopfield: bool, name: str, layouts: str, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and all gradients, in float64, for every stride and stretch."""
    monkeypatch.setattr(steppers, "_SMALL", small)
    for keep, made, last, stretch in itertools.product((0, 1, 3, 99), (True, False), (True, False), (2, 100)):
        monkeypatch.setattr(recurrence, "_stretch", lambda x, stretch=stretch: stretch)
        problem = Problem(hopfield, name, layouts, keep, made)
        ours, plain = problem.ours(last), problem.plain(last)
        assert ours.shape == plain.shape
        torch.testing.assert_close(ours, plain)
        seen = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found = [torch.autograd.grad((values * seen).sum(), problem.given) for values in (ours, plain)]
        for one, two in zip(*found, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.cases(1)
@pytest.mark.parametrize("layouts", ["dense", "blocks", "all"])
def test_gradients_against_finite_differences(layouts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steppers, "_SMALL", 0)
    for hopfield in (True, False):
        problem = Problem(hopfield, "tanh", layouts, 0, True)

        def run(*given: Tensor, problem: Problem = problem) -> Tensor:
            problem.given = list(given)
            return problem.ours(False)

        assert torch.autograd.gradcheck(run, problem.given, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", BLOCKS.values(), ids=BLOCKS)
def test_layouts_are_their_words_and_their_matrix(layout: operators.Blocks) -> None:
    again = operators.of_spec(layout.spec)
    assert isinstance(again, operators.Blocks)
    assert again.spec == layout.spec
    values = _numbers(layout, torch.Generator().manual_seed(0))
    matrix, x = _matrix([layout], [values]), torch.randn(4, SIZE, dtype=torch.float64)
    torch.testing.assert_close(again.whole(values, SIZE), matrix)
    torch.testing.assert_close(again.apply(values, x), x @ matrix.T)
    rows = torch.rand(SIZE, dtype=torch.float64)
    torch.testing.assert_close(_matrix([again], [again.scaled(values, rows)]), rows[:, None] * matrix)


@pytest.mark.parametrize("name", [*activations._TORCH, "leaky_relu:0.2"])
def test_slopes_are_those_of_autograd(name: str) -> None:
    s = torch.linspace(-9.0, 9.0, 361, dtype=torch.float64)[:, None].repeat(1, 2).requires_grad_()  # kinks among them
    value = activations.torch_activation(name)(s)
    (slope,) = torch.autograd.grad(value.sum(), s)
    found = activations.slopes_of(name, s.detach())
    torch.testing.assert_close(found[0], value.detach())
    torch.testing.assert_close(found[1], slope)
    out = torch.empty_like(s)
    assert steppers._into(name)(s.detach(), out) is out
    assert torch.equal(out, value.detach())


class _Count(TorchDispatchMode):
    """Operations of torch by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("hopfield", "forward"), [(True, 2), (False, 3)])
def test_few_operations_per_step_and_no_answer_awaited(hopfield: bool, forward: int) -> None:
    """What grows with the number of steps; and nothing is read back, for which a device would have to finish."""
    counts, n, views = [], 6, ("unbind", "slice", "select", "view", "transpose", "expand", "detach")
    for steps in (64, 128):
        spec = Equation(hopfield, "tanh", (operators.Dense(),), (operators.Dense(),)).spec
        given = (torch.zeros(3, n), torch.zeros(steps, 3, 2), torch.zeros(n, 2), torch.zeros(n), torch.full((n,), 0.1))
        values = [torch.zeros(n, n), torch.zeros(n, n)]
        with _Count() as there:
            _, kept = recurrence._forward(*given, values, spec, True, None)
        with _Count() as back:
            recurrence._backward(torch.ones(n, 3), *given, values, kept, spec, True, False, True, None)
        work = [[name for name in mode.seen if not any(view in name for view in views)] for mode in (there, back)]
        counts.append([len(names) for names in work])
        assert not any("_local_scalar_dense" in name or "nonzero" in name for name in (*there.seen, *back.seen))
    assert [(two - one) / 64 for one, two in zip(*counts, strict=True)] == [forward, 2]


def _net(**options: Any) -> Assembly:
    torch.manual_seed(3)
    return Assembly(2, [Singular(k, 0.5) for k in (4, 3, 4)], 2, activation="relu", step=(0.05, 0.2), **options)


def _answers(net: Callable[..., Any], parameters: Sequence[Tensor], inputs: Tensor) -> list[Tensor]:
    """Outputs, state and gradients."""
    outputs, state = net(inputs)
    gradients = torch.autograd.grad((outputs**2).sum() + state.sum(), [*parameters, inputs])
    return [outputs, state, *gradients]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("every", [True, False])
def test_compilers_see_one_node(backend: str, every: bool) -> None:
    """No break in the graph, and the same bits; neither backend needs a compiler of C++."""
    net, inputs = _net(every=every, keep=0), torch.randn(4, 20, 2).requires_grad_()
    parameters = list(net.parameters())
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    for one, two in zip(_answers(compiled, parameters, inputs), _answers(net, parameters, inputs), strict=True):
        torch.testing.assert_close(one, two)


def test_it_keeps_what_torch_asks_of_operators() -> None:
    problem = Problem(True, "tanh", "all", 3, True)
    start, step, (inputs, weight, bias), w, g = problem._parts()
    for last in (True, False):
        arguments = (start, inputs, weight, bias, step, [*w, *g], problem.equation.spec, last, None)
        torch.library.opcheck(recurrence._recurrence, arguments, test_utils=("test_schema", "test_faketensor"))


def test_gradients_of_gradients_are_refused() -> None:
    problem = Problem(True, "tanh", "dense", 1, True)
    (gradient,) = torch.autograd.grad(problem.ours(True).sum(), problem.given[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="recurrence_back"):
        gradient.sum().backward()  # type: ignore[no-untyped-call]


def test_there_has_to_be_a_step() -> None:
    with pytest.raises(InputError) as caught:
        _net()(torch.zeros(2, 0, 2))
    assert caught.value.field == "inputs"


@pytest.mark.parametrize("net", [_net, lambda: SVDComboNet(2, [3, 4], 2)], ids=["singular", "orthogonal"])
def test_mixed_precision_stops_at_the_states(net: Callable[[], Assembly]) -> None:
    """The states are those of float32, bit by bit; the readout is not; and the network is still certified."""
    model, inputs = net(), torch.randn(4, 30, 2)
    exact, state = model(inputs)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, again = model(inputs.bfloat16().float())
        same = model(inputs)[1]
        loss = rough.float().square().sum()
    loss.backward()
    assert rough.dtype == torch.bfloat16
    assert torch.equal(same, state)
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)
    assert again.dtype == torch.float32
    for parameter in model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    optimiser.step()
    assert certes.certify(model, refute=False).verdict == "contracting"


@pytest.mark.parametrize("layouts", LAYOUTS)
@pytest.mark.parametrize("small", [0, 10**9], ids=["parts", "whole"])
def test_mixed_precision_changes_no_bit(layouts: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and back, inside and outside."""
    monkeypatch.setattr(steppers, "_SMALL", small)
    for hopfield in (True, False):
        problem, found = Problem(hopfield, "gelu", layouts, 3, True), []
        problem.given = [value.detach().float().requires_grad_() for value in problem.given]
        for enabled in (True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                last = problem.ours(True)
                found.append([last, *torch.autograd.grad(last.sum(), problem.given)])
        assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_couplings_block_by_block_are_those_of_the_matrix(scale: float) -> None:
    """Few blocks of two shapes, up to far beyond the bound: values, norm and gradients."""
    torch.manual_seed(2)
    sizes = [40, 40, 30, 40, 60]
    part = skew.Skew(sizes, [(0, 1), (1, 2), (3, 4)], 1.3).double()
    assert part.sparse
    with torch.no_grad():
        for block in part.blocks:
            block.mul_(scale)
    exponent = torch.randn(sum(sizes), dtype=torch.float64).mul_(0.3).requires_grad_()
    values = part.values(exponent)
    whole = sum(layout.whole(value, part.size) for layout, value in zip(part.layouts, values, strict=True))
    matrix = part.matrix(exponent)
    assert isinstance(whole, Tensor)
    torch.testing.assert_close(whole, matrix)
    gamma = part.whitened().detach()
    assert torch.equal(gamma, -gamma.T)
    assert float(torch.linalg.matrix_norm(gamma, 2)) < 1.3
    seen = torch.randn_like(matrix)
    one, two = (torch.autograd.grad((m * seen).sum(), [*part.parameters(), exponent]) for m in (whole, matrix))
    for first, second in zip(one, two, strict=True):
        torch.testing.assert_close(first, second)


def test_modules_made_together_are_those_made_alone() -> None:
    torch.manual_seed(1)
    parts = [Singular(4, 0.5), Singular(3, 0.5), Singular(4, 0.5), Singular(4, 0.7), stable.Absolute(4, 0.6)]
    with torch.no_grad():
        for parameter in (p for part in parts for p in part.parameters()):
            parameter.add_(0.5 * torch.randn(parameter.shape))
    for one, part in zip(stable.weights_of(parts), parts, strict=True):
        torch.testing.assert_close(one, part())
        gradients = [
            torch.autograd.grad((w**2).sum(), list(part.parameters()), retain_graph=True) for w in (one, part())
        ]
        for first, second in zip(*gradients, strict=True):
            torch.testing.assert_close(first, second)
    assert torch.equal(stable.exponents(parts), torch.cat([part.exponent() for part in parts]))
    mixed = [stable.Symmetric(3, 0.4), parts[0]]
    assert torch.equal(stable.exponents(mixed), torch.cat([part.exponent() for part in mixed]))


def _saved(net: Assembly) -> Assembly:
    other = _net()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(net.state_dict())
    return other


def _tensors(net: Assembly, path: Path) -> Assembly:
    save_file(net.state_dict(), path / "net.safetensors")
    other = _net()
    other.load_state_dict(load_file(path / "net.safetensors"))
    return other


def _stored(net: Assembly) -> Assembly:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    found: Assembly = torch.load(file, weights_only=False)
    return found


WAYS: dict[str, Callable[[Assembly, Path], Assembly]] = {
    "state_dict": lambda net, _: _saved(net),
    "safetensors": _tensors,
    "deepcopy": lambda net, _: copy.deepcopy(net),
    "pickle": lambda net, _: pickle.loads(pickle.dumps(net)),
    "torch.save": lambda net, _: _stored(net),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_saved_runs_the_same(way: str, tmp_path: Path) -> None:
    net, inputs = _net(), torch.randn(3, 9, 2).requires_grad_()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1)
    one = _answers(net, list(net.parameters()), inputs)  # what was run before is saved, too
    other = WAYS[way](net, tmp_path)
    two = _answers(other, list(other.parameters()), inputs)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("keep", [0, 1])
def test_what_is_kept_for_the_way_back(keep: int) -> None:
    """States in numbers: all of them, or about a root; pushes never."""
    net, sizes = _net(keep=keep), []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x)
    with hooks:
        net(torch.randn(8, 400, 2))
    inputs, one = 400 * 8 * 2, 8 * net.size
    assert sorted(sizes)[-2:] == sorted([inputs, (20 if keep == 0 else 400) * one])
    assert sum(sizes) < inputs + (20 if keep == 0 else 400) * one + 2000


def test_the_bits_are_the_same_again() -> None:
    net, inputs = _net(keep=0), torch.randn(5, 40, 2).requires_grad_()
    one, two = (_answers(net, list(net.parameters()), inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no such device")
def test_on_a_device_nothing_waits() -> None:
    net, inputs = _net(), torch.randn(4, 20, 2).requires_grad_()
    exact = _answers(net, list(net.parameters()), inputs)
    net, inputs = net.cuda(), inputs.detach().cuda().requires_grad_()
    parts = net.parts_of_run(inputs)
    recurrence.run(*parts)  # indices go there once
    torch.cuda.set_sync_debug_mode("error")
    try:
        recurrence.run(*parts, last=True).sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, two in zip(_answers(net, list(net.parameters()), inputs), exact, strict=True):
        torch.testing.assert_close(one.cpu(), two, atol=1e-4, rtol=1e-3)
