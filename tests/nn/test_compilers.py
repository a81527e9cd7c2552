"""Assemblies under compilers, exporters and on other devices: the same numbers, and nothing is spoilt on the way."""

from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import certes
import pytest
import torch
from certes.nn import Assembly, Singular
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

HAS_COMPILER = shutil.which("g++") is not None or shutil.which("clang++") is not None
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


def dense(**options: Any) -> Assembly:
    torch.manual_seed(3)
    return Assembly(2, [Singular(k, 0.5) for k in (4, 3, 4)], 2, activation="relu", step=(0.05, 0.2), **options)


def blocks(**options: Any) -> Assembly:
    """Large enough for products block by block."""
    torch.manual_seed(4)
    sizes = (24, 24, 16, 24)
    return Assembly(2, [Singular(k, 0.5) for k in sizes], 2, topology="ring", step=(0.05, 0.2), **options)


NETS: dict[str, Callable[..., Assembly]] = {"dense": dense, "blocks": blocks}


def answers(net: Callable[..., Any], parameters: list[Tensor], inputs: Tensor) -> list[Tensor]:
    outputs, state = net(inputs)
    return [outputs, state, *torch.autograd.grad((outputs**2).sum() + state.sum(), parameters)]


def same(one: list[Tensor], two: list[Tensor]) -> None:
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


# --- exporters


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", NETS)
def test_an_export_spoils_nothing(name: str) -> None:
    """The network was never run before: whatever it keeps for later is made while it is traced."""
    net, twin, inputs = NETS[name]().eval(), NETS[name]().eval(), torch.randn(4, 20, 2)
    exported = torch.export.export(net, (inputs,))
    expected = answers(twin, list(twin.parameters()), inputs)
    assert torch.equal(exported.module()(inputs)[0], expected[0])  # type: ignore[operator]
    same(answers(net, list(net.parameters()), inputs), expected)
    assert any("certes.recurrence" in str(node.target) for node in exported.graph.nodes)
    one, two = (certes.certify(each, refute=False) for each in (net, twin))
    assert one.verdict == "contracting"
    assert one.factor == two.factor


def test_an_export_is_for_every_batch_and_length() -> None:
    net = dense().eval()
    batch, time = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("time", min=2, max=1000)
    exported = torch.export.export(net, (torch.randn(4, 20, 2),), dynamic_shapes=({0: batch, 1: time},))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for shape in ((2, 2, 2), (7, 31, 2), (64, 5, 2)):
        inputs = torch.randn(*shape)
        assert torch.equal(again(inputs)[0], net(inputs)[0])  # type: ignore[operator]


def test_a_trace_spoils_nothing() -> None:
    net, twin, inputs = dense().eval(), dense().eval(), torch.randn(4, 20, 2)
    torch.export.export(net, (inputs,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(net, (inputs,))  # type: ignore[no-untyped-call]
    assert torch.equal(traced(inputs)[0], twin(inputs)[0])


# --- compilers


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", NETS)
def test_compiled_before_it_ever_ran(name: str) -> None:
    net, twin, inputs = NETS[name](keep=0), NETS[name](keep=0), torch.randn(4, 20, 2)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    expected = answers(twin, list(twin.parameters()), inputs)
    same(answers(compiled, list(net.parameters()), inputs), expected)
    same(answers(net, list(net.parameters()), inputs), expected)


def test_one_graph_for_every_batch() -> None:
    net = dense()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True, dynamic=True)
    compiled(torch.randn(3, 7, 2))
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch, steps in ((4, 20), (5, 21), (9, 33)):
            inputs = torch.randn(batch, steps, 2)
            torch.testing.assert_close(compiled(inputs)[0], net(inputs)[0])


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="inductor needs a compiler of C++")
@pytest.mark.parametrize("name", NETS)
def test_inductor(name: str) -> None:
    net, inputs = NETS[name](), torch.randn(4, 20, 2)
    expected = answers(net, list(net.parameters()), inputs)
    compiled = torch.compile(net, backend="inductor", fullgraph=True)
    same(answers(compiled, list(net.parameters()), inputs), expected)


# --- devices


class Seen(TorchDispatchMode):
    """Names of torch's operations, those of our operators among them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


#: What makes a device wait for the host, or the host for the device.
WAITS = ("_local_scalar_dense", "nonzero", "item", "_to_copy", "lift_fresh", "is_nonzero", "equal")


@pytest.mark.parametrize("name", NETS)
def test_nothing_goes_between_host_and_device_in_the_loop(name: str) -> None:
    """Forward and back, of the second run on: not once, however many steps there are."""
    net = NETS[name]()
    for steps in (16, 200):
        inputs = torch.randn(3, steps, 2)
        net(inputs)[0].sum().backward()
        with Seen() as seen:
            net(inputs)[0].sum().backward()
        assert any("recurrence" in entry for entry in seen.names) or len(seen.names) > steps
        inside = [entry for entry in seen.names if any(word in entry.split(".")[1] for word in WAITS)]
        assert inside == []


@pytest.mark.parametrize("name", NETS)
def test_where_the_network_is_there_is_all_of_it(name: str) -> None:
    """Indices go with it, and are no part of what is saved."""
    net = NETS[name]()
    assert not {entry for entry in net.state_dict() if "rows" in entry or "columns" in entry}
    assert [entry for entry, _ in net.skew.named_buffers()]
    there = net.to("meta")
    assert {value.device.type for value in (*there.parameters(), *there.buffers())} == {"meta"}
    with Seen() as seen:
        values = there.skew.values(torch.zeros(net.size, device="meta"))
    assert {value.device.type for value in values} == {"meta"}
    assert not [entry for entry in seen.names if "_to_copy" in entry or "lift_fresh" in entry], "from elsewhere"


@CUDA
@pytest.mark.parametrize("name", NETS)
def test_on_cuda_it_is_the_same_network(name: str) -> None:
    net, twin, inputs = NETS[name]().cuda(), NETS[name](), torch.randn(4, 20, 2)
    assert {value.device.type for value in (*net.parameters(), *net.buffers())} == {"cuda"}
    found = answers(net, list(net.parameters()), inputs.cuda())
    for a, b in zip(found, answers(twin, list(twin.parameters()), inputs), strict=True):
        torch.testing.assert_close(a.cpu(), b, atol=1e-4, rtol=1e-3)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    same(answers(compiled, list(net.parameters()), inputs.cuda()), found)
    assert certes.certify(net, refute=False).verdict == "contracting"


@CUDA
@pytest.mark.parametrize("name", NETS)
def test_on_cuda_nothing_waits_in_the_loop(name: str) -> None:
    net, inputs = NETS[name]().cuda(), torch.randn(4, 50, 2, device="cuda")
    parts = net.parts_of_run(inputs)
    certes.nn.recurrence.run(*parts, last=True).sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    torch.cuda.set_sync_debug_mode("error")
    try:
        certes.nn.recurrence.run(*parts, last=True).sum().backward()  # type: ignore[no-untyped-call]
    finally:
        torch.cuda.set_sync_debug_mode("default")


@CUDA
def test_on_cuda_mixed_precision_stops_at_the_states() -> None:
    net, inputs = dense().cuda(), torch.randn(4, 20, 2, device="cuda")
    exact = net(inputs)[1]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        outputs, state = net(inputs)
    assert outputs.dtype == torch.bfloat16
    assert torch.equal(state, exact)
