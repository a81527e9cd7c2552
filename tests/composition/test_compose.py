"""Composition: laws between the proof modes, Euler maps, nesting, what-if, and assemblies that must not pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from certes import HopfieldNetwork, InputError, LureSystem, RateNetwork, System, certify
from certes.assemblies import Assembly
from certes.composition.compose import Inside, compose
from certes.composition.outcome import Composition
from certes.spec import SystemSpec
from certes.verify.composition import Node, verify_flow, verify_maps
from certes.verify.interface import verify_interface
from certes.verify.whole import verify_whole
from certes.weights import read_weights, write_weights
from numpy.typing import NDArray

Array = NDArray[np.float64]
ACTIVATIONS = ("tanh", "relu", "sigmoid", "leaky_relu:0.1")


def network(random: np.random.Generator, size: int, gain: float = 0.4, **options: object) -> System:
    kind = (RateNetwork, HopfieldNetwork)[int(random.integers(2))]
    W = gain * random.standard_normal((size, size)) / np.sqrt(size)
    return kind(W, ACTIVATIONS[int(random.integers(4))], **options)  # type: ignore[arg-type]


def some(random: np.random.Generator, count: int, **options: object) -> dict[str, System]:
    return {f"m{k}": network(random, int(random.integers(1, 4)), **options) for k in range(count)}


def coupling(random: np.random.Generator, modules: Mapping[str, System], to: str, source: str, size: float) -> Array:
    return size * random.standard_normal((modules[to].size, modules[source].size))


def loop(random: np.random.Generator, modules: Mapping[str, System], size: float) -> dict[tuple[str, str], Array]:
    names = list(modules)
    pairs = zip(names, names[1:] + names[:1], strict=True)
    return {(to, source): coupling(random, modules, to, source, size) for to, source in pairs if to != source}


def check(composition: Composition) -> None:
    """Every node of the tree, verified anew from its stored numbers."""
    assert composition.root is not None

    def node(entry: object) -> object:
        if not entry.children:  # type: ignore[attr-defined]
            report, interface = verify_interface(entry.module, entry.proof)  # type: ignore[attr-defined]
        else:
            children = [node(child) for child in entry.children.values()]  # type: ignore[attr-defined]
            step = Node(entry.module, children)  # type: ignore[attr-defined, arg-type]
            verify = verify_maps if entry.proof.kind == "map-composition" else verify_flow  # type: ignore[attr-defined]
            report, interface = verify(step, entry.proof)  # type: ignore[attr-defined, arg-type]
        assert report.valid, report.detail
        return interface

    node(composition.root)
    if composition.whole is not None:
        assert verify_whole(composition.assembly, composition.whole).valid


def jacobians(assembly: Assembly, random: np.random.Generator, count: int) -> list[Array]:
    """Jacobians of the whole at random slopes, written from the definition."""
    leaves, sizes = list(assembly.leaves()), [system.size for _, system in assembly.leaves()]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    places = {path: slice(starts[k], starts[k + 1]) for k, (path, _) in enumerate(leaves)}
    found = []
    for _ in range(count):
        J = np.zeros((assembly.size, assembly.size))
        slopes = {}
        for path, system in leaves:
            low, high = system.slope.lower, system.slope.upper
            slopes[path] = d = low + (high - low) * random.integers(0, 2, len(low))
            W, tau, eye = system.matrix("W"), system.tau, np.eye(system.size)
            inner = (d[:, None] * W if system.form == "rate" else W * d) - eye
            J[places[path], places[path]] = inner / tau[:, None]
        for edge in assembly.couplings:
            block = edge.matrix
            if edge.inside:
                block = (slopes[edge.to] / assembly.modules[edge.to].tau)[:, None] * block  # type: ignore[union-attr]
            J[places[edge.to], places[edge.source]] += block
        found.append(J if assembly.step is None else np.eye(len(J)) + assembly.step * J)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_modes_are_ordered_and_true(seed: int) -> None:
    random = np.random.default_rng(seed)
    modules = some(random, 3, tau=1.5 if seed % 2 else None)
    answer = compose(modules, loop(random, modules, 0.05), mode="all", refute=False)
    assert answer.verdict == "contracting"
    check(answer)
    modes = answer.modes
    assert modes["interface"] is not None
    assert modes["whole"] is not None
    assert modes["monolithic"] is not None
    assert modes["exact"] is not None
    assert modes["interface"] <= modes["exact"] * (1 + 1e-6)
    assert modes["interface"] <= modes["whole"] * (1 + 1e-6)
    assert modes["whole"] <= modes["monolithic"] * (1 + 1e-4)
    assert answer.rate == modes[str(answer.mode)]
    assert answer.rate >= max(number for number in modes.values() if number is not None) * (1.0 - 1e-4)
    for J in jacobians(answer.assembly, random, 40):
        assert np.linalg.eigvals(J).real.max() <= -answer.rate + 1e-9


def test_feedback_costs_nothing() -> None:
    random = np.random.default_rng(5)
    modules = some(random, 2)
    alone = compose(modules, {}, refute=False)
    assert alone.root is not None
    first, second = (child.proof.metric for child in alone.root.children.values())
    B = 20.0 * random.standard_normal((modules["m0"].size, modules["m1"].size))
    back = -np.linalg.solve(second, B.T @ first)
    answer = compose(modules, {("m0", "m1"): B, ("m1", "m0"): back}, known=alone, refute=False, mode="interface")
    slowest = min(answer.module_levels.values())
    assert answer.rate == pytest.approx(slowest, rel=1e-6)
    assert "feedback" in answer.modes
    assert answer.proved == ()
    check(answer)
    inverse = -np.linalg.solve(np.linalg.inv(second), B.T @ np.linalg.inv(first))
    wrong = compose(modules, {("m0", "m1"): B, ("m1", "m0"): inverse}, known=alone, refute=False, mode="interface")
    assert wrong.verdict == "undecided"


def test_a_hierarchy_costs_nothing_whatever_its_strength() -> None:
    random = np.random.default_rng(6)
    modules = some(random, 4)
    chain = {(f"m{k + 1}", f"m{k}"): coupling(random, modules, f"m{k + 1}", f"m{k}", 50.0) for k in range(3)}
    answer = compose(modules, chain, refute=False, mode="interface")
    assert answer.rate == pytest.approx(min(answer.module_levels.values()), rel=1e-3)
    assert "hierarchy" in answer.modes
    check(answer)


@pytest.mark.parametrize("seed", range(3))
def test_the_claimed_step_is_certified_and_true(seed: int) -> None:
    random = np.random.default_rng(seed)
    modules = some(random, 2)
    edges = loop(random, modules, 0.1)
    answer = compose(modules, edges, refute=False, mode="interface")
    assert answer.largest_step is not None
    step, factor = answer.largest_step
    assert 0.0 < factor < 1.0
    euler = compose(modules, edges, step=0.99 * step, known=answer, refute=False)
    assert euler.verdict == "contracting"
    check(euler)
    for J in jacobians(euler.assembly, random, 40):
        assert np.abs(np.linalg.eigvals(J)).max() <= euler.factor + 1e-9  # type: ignore[operator]


def test_an_unstable_step_is_refused_or_refuted() -> None:
    modules = {"a": RateNetwork([[0.0]], "tanh"), "b": RateNetwork([[0.0]], "tanh")}
    edges = {("a", "b"): [[5.0]], ("b", "a"): [[-5.0]]}  # skew: continuous time is fine, large steps are not
    assert compose(modules, edges).rate == pytest.approx(1.0, rel=0.05)
    assert compose(modules, edges, step=0.05).verdict == "contracting"
    assert compose(modules, edges, step=0.2).verdict in ("undecided", "not_contracting")  # 0.64 + 1 > 1


def test_skew_coupling_is_not_free_with_time_constants() -> None:
    random = np.random.default_rng(0)
    tau = np.array([0.1, 5.0])
    module = RateNetwork(np.zeros((2, 2)), "tanh", tau=tau)
    skew = 3.0 * random.standard_normal((2, 2))
    modules = {"a": module, "b": RateNetwork(np.zeros((2, 2)), "tanh", tau=tau[::-1].copy())}
    edges = {("a", "b"): skew / tau[:, None], ("b", "a"): -skew.T / tau[::-1][:, None]}
    answer = compose(modules, edges, mode="interface")
    plain = compose(
        {name: RateNetwork(np.zeros((2, 2)), "tanh") for name in modules},
        {("a", "b"): skew, ("b", "a"): -skew.T},
        mode="interface",
    )
    assert plain.rate == pytest.approx(0.98, rel=0.03)
    slowest = min(answer.module_levels.values(), default=0.0)
    assert answer.rate is None or answer.rate < slowest * 0.999


def test_strong_excitation_is_refuted() -> None:
    modules = {"a": RateNetwork([[0.5]], "tanh"), "b": HopfieldNetwork([[0.5]], "tanh")}
    answer = compose(modules, {("a", "b"): [[3.0]], ("b", "a"): [[3.0]]})
    assert answer.verdict == "not_contracting"
    assert answer.refutation is not None
    assert answer.refutation.witness is not None
    assert answer.reason is None


def test_a_module_that_does_not_contract_is_named_by_its_path() -> None:
    inner = Assembly({"good": RateNetwork([[0.5]], "tanh"), "bad": RateNetwork([[2.0]], "tanh")})
    answer = compose({"brain": inner, "other": RateNetwork([[0.1]], "relu")}, refute=False)
    assert answer.verdict == "undecided"
    assert "brain/bad" in answer.detail


def test_nesting_is_valid_and_flat_is_as_good() -> None:
    random = np.random.default_rng(8)
    modules = some(random, 4, gain=0.3)
    edges = loop(random, modules, 0.03)
    flat = compose(modules, edges, refute=False, mode="interface")
    left = compose(
        {k: modules[k] for k in ("m0", "m1")}, {("m0", "m1"): edges["m0", "m1"]}, known=flat, mode="interface"
    )
    right = compose(
        {k: modules[k] for k in ("m2", "m3")}, {("m2", "m3"): edges["m2", "m3"]}, known=flat, mode="interface"
    )
    sizes = {k: modules[k].size for k in modules}
    up, down = np.zeros((left.assembly.size, right.assembly.size)), np.zeros((right.assembly.size, left.assembly.size))
    up[sizes["m0"] :, : sizes["m2"]] = edges["m1", "m2"]
    down[sizes["m2"] :, : sizes["m0"]] = edges["m3", "m0"]
    nested = compose({"left": left, "right": right}, {("left", "right"): up, ("right", "left"): down}, known=flat)
    assert nested.verdict == "contracting"
    assert nested.proved == ()
    check(nested)
    assert flat.rate is not None
    assert nested.modes["interface"] is not None
    assert nested.modes["interface"] <= flat.rate * (1 + 1e-3)


def test_ten_levels_deep() -> None:
    module: Assembly | System = RateNetwork([[0.2]], "tanh")
    for _ in range(10):
        module = Assembly({"inner": module, "more": RateNetwork([[0.1]], "relu")}, ())
    answer = compose({"top": module}, refute=False, mode="interface")
    assert answer.verdict == "contracting"
    assert len(answer.proved) == 2  # equal networks are proven once
    check(answer)


def test_only_what_changed_is_proven_anew() -> None:
    random = np.random.default_rng(9)
    modules = some(random, 5)
    edges = loop(random, modules, 0.02)
    before = compose(modules, edges, refute=False, mode="interface")
    assert len(before.proved) == 5
    modules["m3"] = network(random, modules["m3"].size)
    after = compose(modules, edges, known=before, refute=False, mode="interface")
    assert after.proved == ("m3",)


def test_what_if_answers_from_the_interfaces() -> None:
    random = np.random.default_rng(10)
    modules = some(random, 4)
    answer = compose(modules, loop(random, modules, 0.1), refute=False, mode="interface")
    assert answer.rate is not None
    cut = answer.what_if(scale={("m0", "m1"): 0.0})
    gone = answer.what_if(without=["m1"])
    stronger = answer.what_if(scale={("m0", "m1"): 1.5})
    assert cut.proved == gone.proved == stronger.proved == ()
    assert cut.rate is not None
    assert cut.rate >= answer.rate - 1e-9
    assert gone.rate is not None
    assert gone.rate >= answer.rate - 1e-9
    assert stronger.rate is None or stronger.rate <= answer.rate + 1e-9
    assert set(gone.assembly.modules) == {"m0", "m2", "m3"}
    with pytest.raises(InputError, match="without"):
        answer.what_if(without=["nobody"])


def test_a_path_inside_is_removed_with_its_states() -> None:
    random = np.random.default_rng(11)
    inner = Assembly({"a": network(random, 2), "b": network(random, 3)})
    outer = compose(
        {"left": inner, "right": network(random, 2)}, {("left", "right"): 0.01 * np.ones((5, 2))}, refute=False
    )
    smaller = outer.what_if(without=["left/a"])
    assert smaller.assembly.size == 5
    assert smaller.assembly.couplings[0].matrix.shape == (3, 2)


def test_the_sensitivity_names_the_edge_that_costs() -> None:
    modules = {name: RateNetwork([[0.2]], "tanh") for name in "abc"}
    edges = {("a", "b"): [[0.3]], ("b", "a"): [[0.3]], ("a", "c"): [[0.01]], ("c", "a"): [[0.01]]}
    answer = compose(modules, edges, mode="interface")
    costs = {(edge.to, edge.source): edge for edge in answer.edges}
    assert costs["a", "b"].limiting
    assert not costs["a", "c"].limiting
    assert answer.rate is not None
    # the slope is a derivative: grow both by 1 %
    grown = answer.what_if(scale={("a", "b"): 1.01, ("b", "a"): 1.01})
    assert grown.rate is not None
    predicted = 0.01 * (costs["a", "b"].slope + costs["b", "a"].slope)
    assert answer.rate - grown.rate == pytest.approx(predicted, rel=0.05)


def test_layers_coupled_inside_phi() -> None:
    random = np.random.default_rng(12)
    layers = {f"layer{k}": RateNetwork(0.25 * random.standard_normal((3, 3)), "tanh", step=1.0) for k in range(3)}
    inside = {(f"layer{k + 1}", f"layer{k}"): Inside(5.0 * random.standard_normal((3, 3))) for k in range(2)}
    answer = compose(layers, inside, refute=False)
    assert answer.verdict == "contracting"
    check(answer)
    assert answer.modes["interface"] is not None
    assert answer.modes["interface"] < 1.0


def test_lure_modules_and_maps_mix_with_their_own_kind_only() -> None:
    flow = LureSystem([[-2.0]], [[0.5]], [[1.0]], slope=(0.0, 1.0))
    good = compose({"a": flow, "b": RateNetwork([[0.3]], "gelu")}, {("a", "b"): [[0.1]]}, refute=False)
    assert good.verdict == "contracting"
    with pytest.raises(InputError, match="kind"):
        compose({"a": flow, "b": RateNetwork([[0.3]], "tanh", step=0.1)})


@pytest.mark.parametrize(
    ("edges", "field"),
    [
        ({("a", "z"): [[1.0]]}, "unknown module"),
        ({("a", "a"): [[1.0]]}, "itself"),
        ({("a", "b"): [[1.0, 2.0]]}, "shape"),
        ({("a", "b"): [[np.nan]]}, "finite"),
        ({"ab": [[1.0]]}, "pairs"),
        ({("b", "a"): Inside([[1.0]])}, "inside phi"),
    ],
)
def test_malformed_couplings_are_named(edges: dict[object, object], field: str) -> None:
    modules = {"a": RateNetwork([[0.1]], "tanh"), "b": HopfieldNetwork([[0.1]], "tanh")}
    with pytest.raises(InputError, match=field):
        compose(modules, edges)  # type: ignore[arg-type]


def test_the_time_limit_ends_in_an_answer() -> None:
    random = np.random.default_rng(13)
    modules = {f"m{k}": network(random, 12) for k in range(4)}
    answer = compose(modules, {}, seconds=0.01)
    assert answer.verdict in ("contracting", "undecided")
    if answer.verdict == "undecided":
        assert answer.reason in ("deadline", "margin")


def test_a_changed_module_recomposes_its_ancestors_only() -> None:
    random = np.random.default_rng(14)
    groups = {f"g{k}": Assembly(some(random, 3)) for k in range(4)}
    before = compose(groups, {}, refute=False, mode="interface")
    assert set(before.recomposed) == {"", "g0", "g1", "g2", "g3"}
    inner = dict(groups["g2"].modules)
    inner["m1"] = network(random, inner["m1"].size)
    groups["g2"] = Assembly(inner)
    after = compose(groups, {}, known=before, refute=False, mode="interface")
    assert after.proved == ("g2/m1",)
    assert set(after.recomposed) == {"", "g2"}
    check(after)


def test_the_step_of_the_whole_is_certified_when_it_is_asked_for() -> None:
    random = np.random.default_rng(15)
    modules = some(random, 3)
    edges = loop(random, modules, 0.1)
    answer = compose(modules, edges, refute=False)
    assert answer.whole_step is not None
    assert answer.largest_step is not None
    step, factor = answer.whole_step
    assert step > answer.largest_step[0]
    assert 0.0 < factor < 1.0
    asked = compose(modules, edges, step=step, mode="whole", known=answer, refute=False)
    assert asked.verdict == "contracting"
    check_whole = asked.whole
    assert check_whole is not None
    assert verify_whole(asked.assembly, check_whole).valid
    for J in jacobians(asked.assembly, random, 40):
        assert np.abs(np.linalg.eigvals(J)).max() <= asked.factor + 1e-9  # type: ignore[operator]


def test_an_inner_hierarchy_of_maps_can_be_coupled_again() -> None:
    layers = {"x": RateNetwork([[0.3]], "tanh", step=1.0), "y": RateNetwork([[0.7]], "tanh", step=1.0)}
    inner = compose(layers, {("x", "y"): [[0.5]]}, refute=False)
    loop_of = {("a", "b"): 0.02 * np.eye(2), ("b", "a"): 0.02 * np.eye(2)}
    answer = compose({"a": inner, "b": inner}, loop_of, known=inner, refute=False, mode="interface")
    assert answer.verdict == "contracting"
    check(answer)


def test_a_module_can_be_a_certificate_with_its_weights(tmp_path: Path) -> None:
    W = np.array([[0.0, -0.5], [0.5, 0.0]])
    file = write_weights(tmp_path / "v1.safetensors", {"W": W})
    system = SystemSpec.parse({"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}).system(read_weights(file))
    certificate = certify(system).certificate
    assert certificate is not None
    path = certificate.write(tmp_path)
    for given in ((certificate, file), (path, read_weights(file))):
        assert compose({"v1": given, "v2": RateNetwork([[0.1]], "relu")}, refute=False).verdict == "contracting"
    other = write_weights(tmp_path / "other.safetensors", {"W": 3.0 * W})
    with pytest.raises(InputError, match="v1"):
        compose({"v1": (path, other)})
