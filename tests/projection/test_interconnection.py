"""The nearest interconnection: cvxpy with Clarabel as the judge of nearness, the verifier and spectra of the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import permutations
from typing import Any

import certes
import cvxpy as cp
import numpy as np
import pytest
from certes.engines.monitor import Monitor
from certes.errors import InputError
from certes.projection import coupling
from certes.projection.interconnection import InterconnectionProjection, project_interconnection
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from numpy.typing import NDArray
from scipy.linalg import block_diag

Array = NDArray[np.float64]
Blocks = dict[tuple[str, str], Any]

ACCURACY = {"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9}


@pytest.fixture(autouse=True)
def only_the_proof(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the claims that cost more than the proof (largest step, radius), except where a test is about them."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr("certes.claims.LARGEST", 0)


def gaussian(rng: np.random.Generator, rows: int, columns: int, scale: float = 1.0) -> Array:
    return np.asarray(scale * rng.standard_normal((rows, columns)) / np.sqrt(columns))


def mixed(seed: int = 0) -> dict[str, System]:
    """Every form, different time constants, shifted slopes, a neuron without nonlinearity."""
    rng = np.random.default_rng(seed)
    return {
        "rate": RateNetwork(gaussian(rng, 3, 3, 0.6), "tanh"),
        "hopfield": HopfieldNetwork(gaussian(rng, 4, 4, 0.5), slope=(0.0, [1.0, 1.0, 0.0, 0.5]), tau=[0.5, 1, 1.5, 2]),
        "lure": LureSystem(-2 * np.eye(2), gaussian(rng, 2, 3, 0.5), gaussian(rng, 3, 2, 0.5), slope=(-0.2, 0.9)),
    }


def all_to_all(
    modules: Mapping[str, System], rng: np.random.Generator, scale: float, dtype: Any = np.float64
) -> Blocks:
    return {
        (to, source): gaussian(rng, modules[to].size, modules[source].size, scale).astype(dtype)
        for to, source in permutations(modules, 2)
    }


def whole(modules: Mapping[str, System], blocks: Mapping[tuple[str, str], Any]) -> Array:
    zero = {(a, b): np.zeros((modules[a].size, modules[b].size)) for a in modules for b in modules}
    filled = zero | dict(blocks)
    return np.block([[np.asarray(filled[a, b], dtype=np.float64) for b in modules] for a in modules])


def frame(modules: Mapping[str, System], found: InterconnectionProjection) -> tuple[Array, Array]:
    """R of the metrics, by an eigendecomposition (any root will do), and the room of each state."""
    assert found.rate is not None
    roots = []
    for name in modules:
        values, vectors = np.linalg.eigh(found.metrics[name])
        roots.append((vectors * np.sqrt(values)) @ vectors.T)
    room = np.concatenate([np.full(modules[name].size, found.module_rates[name] - found.rate) for name in modules])
    return np.asarray(block_diag(*roots)), room


def judged(start: Array, movable: Array, root: Array, room: Array, norm: str) -> float:
    """Clarabel's smallest distance."""
    move, inverse = cp.Variable(start.shape), np.linalg.inv(root)
    changed = cp.multiply(movable, move)
    whitened = root @ (start + changed) @ inverse
    length = cp.sum_squares(root @ changed @ inverse if norm == "whitened" else changed)
    slack = np.diag(room) - 0.5 * (whitened + whitened.T)
    problem = cp.Problem(cp.Minimize(length), [slack >> 0])
    problem.solve(solver=cp.CLARABEL, **ACCURACY)
    assert problem.status == "optimal"
    return float(np.sqrt(problem.value))


def assert_certified(modules: Mapping[str, System], found: InterconnectionProjection) -> None:
    """The certificate holds, speaks of the blocks returned, and random slopes agree with it."""
    result, system = found.result, found.system
    assert result.verdict == "contracting"
    assert result.rate == found.rate
    assert certes.verify(result.certificate, system).valid
    A = block_diag(*(linear(module) for module in modules.values()))
    np.testing.assert_allclose(system.matrix("A"), A + whole(modules, found.blocks), rtol=1e-15)
    P = block_diag(*(found.metrics[name] for name in modules))
    rng = np.random.default_rng(9)
    for _ in range(20):
        corner = np.where(rng.random(len(system.slope.lower)) < 0.5, system.slope.lower, system.slope.upper)
        PJ = P @ (system.matrix("A") + (system.matrix("B") * corner) @ system.matrix("C"))
        assert np.linalg.eigvalsh(PJ + PJ.T + 2 * found.rate * P)[-1] <= 1e-9 * np.abs(PJ).max()


def linear(module: System) -> Array:
    return module.matrix("A") if module.form == "lure" else np.diag(-1.0 / module.tau)


def assert_same(given: Mapping[tuple[str, str], Any], found: InterconnectionProjection) -> None:
    assert found.unchanged
    assert found.distance == found.distance_frobenius == 0.0
    assert set(given) == set(found.blocks)
    for pair, block in given.items():
        assert found.blocks[pair].dtype == block.dtype
        assert found.blocks[pair].tobytes() == block.tobytes()


@pytest.mark.parametrize("size", [1, 2, 5, 10])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_closed_form_is_the_nearest(size: int, scale: float) -> None:
    rng = np.random.default_rng(size)
    start, room = gaussian(rng, size, size, scale), rng.uniform(0.1, 1.0, size)
    distance = np.linalg.norm(coupling.clipped(start, room) - start)
    assert coupling.excess(coupling.clipped(start, room), room) < 1e-13
    assert distance == pytest.approx(judged(start, np.ones(start.shape), np.eye(size), room, "whitened"), abs=1e-6)


def test_without_a_pattern_the_search_is_the_closed_form() -> None:
    rng = np.random.default_rng(4)
    start, room = gaussian(rng, 8, 8, 2.0), rng.uniform(0.1, 1.0, 8)
    pattern = coupling.Pattern([np.eye(8)], np.ones((8, 8), dtype=bool))
    found = coupling.nearest(pattern, start, room, -start, Monitor())
    np.testing.assert_allclose(start + found.move, coupling.clipped(start, room), atol=1e-8)


@pytest.mark.parametrize("norm", ["whitened", "frobenius"])
@pytest.mark.parametrize("seed", range(3))
def test_nearest_with_block_zeros(norm: Any, seed: int) -> None:
    modules, rng = mixed(seed), np.random.default_rng(seed)
    blocks = all_to_all(modules, rng, 3.0)
    blocks["rate", "lure"][:] = 0.0
    del blocks["lure", "hopfield"]
    found = project_interconnection(modules, blocks, norm=norm)
    assert_certified(modules, found)
    assert set(found.blocks) == set(blocks)
    assert not found.blocks["rate", "lure"].any()
    start = whole(modules, blocks)
    best = judged(start, start != 0.0, *frame(modules, found), norm)
    distance = found.distance if norm == "whitened" else found.distance_frobenius
    assert distance == pytest.approx(best, rel=1e-4)
    assert found.distance_bound is not None
    assert best * (1 - 1e-4) <= found.distance_bound <= best * (1 + 1e-6)


@pytest.mark.parametrize("norm", ["whitened", "frobenius"])
@pytest.mark.parametrize("iterative", [False, True])
def test_nearest_with_masks(norm: Any, iterative: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if iterative:
        monkeypatch.setattr(coupling, "_DENSE", 0)
    modules, rng = mixed(5), np.random.default_rng(5)
    blocks = all_to_all(modules, rng, 2.0)
    mask = {pair: rng.random(block.shape) < 0.6 for pair, block in blocks.items()}
    for pair, block in blocks.items():  # what may not move is weak, or there would be nothing to find
        block[~mask[pair]] *= 0.01
    found = project_interconnection(modules, blocks, mask=mask, norm=norm)
    assert_certified(modules, found)
    for pair, block in blocks.items():
        assert (found.blocks[pair][~mask[pair]] == block[~mask[pair]]).all()
        assert (found.blocks[pair][mask[pair]] != block[mask[pair]]).all()
    best = judged(whole(modules, blocks), whole(modules, mask), *frame(modules, found), norm)
    distance = found.distance if norm == "whitened" else found.distance_frobenius
    assert distance == pytest.approx(best, rel=1e-4)
    assert found.shrink_distance is None


def test_filling_is_nearer_and_fills_zero_blocks() -> None:
    modules, rng = mixed(), np.random.default_rng(6)
    blocks: Blocks = {("rate", "lure"): gaussian(rng, 3, 2, 6.0).astype(np.float32)}
    blocks["lure", "hopfield"] = gaussian(rng, 2, 4, 6.0).astype(np.float32)
    blocks["hopfield", "rate"] = gaussian(rng, 4, 3, 6.0).astype(np.float32)
    kept, filled = (project_interconnection(modules, blocks, fill=fill) for fill in (False, True))
    assert set(kept.blocks) == set(blocks)
    assert set(filled.blocks) == set(permutations(modules, 2))
    assert {block.dtype for block in filled.blocks.values()} == {np.dtype(np.float32)}
    assert filled.distance < 0.95 * kept.distance
    assert_certified(modules, filled)
    start = whole(modules, blocks)
    movable = np.ones(start.shape) - block_diag(*(np.ones((n.size, n.size)) for n in modules.values()))
    assert filled.distance == pytest.approx(judged(start, movable, *frame(modules, filled), "whitened"), rel=1e-4)


@pytest.mark.cases(3)
@pytest.mark.parametrize("norm", ["whitened", "frobenius"])
@pytest.mark.parametrize("scale", [0.5, 3.0, 100.0])
def test_never_farther_than_scaling_down_and_idempotent(norm: Any, scale: float) -> None:
    modules = mixed(2)
    blocks = all_to_all(modules, np.random.default_rng(7), scale, np.float32)
    found = project_interconnection(modules, blocks, norm=norm)
    assert_certified(modules, found)
    distance = found.distance if norm == "whitened" else found.distance_frobenius
    assert found.shrink_distance is not None
    assert 0.0 < distance <= found.shrink_distance
    assert {block.dtype for block in found.blocks.values()} == {np.dtype(np.float32)}
    assert_same(found.blocks, project_interconnection(modules, found.blocks, norm=norm))


def test_feedback_comes_back_unchanged() -> None:
    modules, rng = mixed(), np.random.default_rng(8)
    metrics = project_interconnection(modules, {}).metrics
    for dtype in (np.float32, np.float64):
        blocks: Blocks = {}
        for a, b in [("rate", "hopfield"), ("hopfield", "lure"), ("lure", "rate")]:
            B = gaussian(rng, modules[a].size, modules[b].size, 20.0)
            blocks[a, b] = B.astype(dtype)
            blocks[b, a] = (-np.linalg.solve(metrics[b], B.T @ metrics[a])).astype(dtype)
        found = project_interconnection(modules, blocks)
        assert_same(blocks, found)
        assert_certified(modules, found)


def test_a_hierarchy_comes_back_unchanged_however_strong() -> None:
    modules, rng = mixed(), np.random.default_rng(10)
    blocks = {("hopfield", "rate"): gaussian(rng, 4, 3, 200.0), ("lure", "hopfield"): gaussian(rng, 2, 4, 200.0)}
    blocks["lure", "hopfield"][0, 0] = -0.0
    found = project_interconnection(modules, blocks)
    assert_same(blocks, found)
    assert_certified(modules, found)


def test_strong_excitation_of_each_other_is_cut_back_to_what_the_room_allows() -> None:
    """Two scalars x' = -x, coupled by 5: the eigenvalue -1 + l must be -c, so l = 1 - c."""
    modules = {name: LureSystem([[-1.0]], [[1.0]], [[0.0]], slope=(0.0, 1.0)) for name in "ab"}
    found = project_interconnection(modules, {("a", "b"): [[5.0]], ("b", "a"): [[5.0]]}, rate=0.25)
    assert_certified(modules, found)
    room = min(found.module_rates.values()) - 0.25
    assert 0.7 < room < 0.75
    for block in found.blocks.values():
        assert block.item() == pytest.approx(room, rel=1e-4)
    assert found.distance_frobenius == pytest.approx(np.sqrt(2.0) * (5.0 - room), rel=1e-4)


@pytest.mark.slow
def test_the_certificate_carries_what_any_other_carries() -> None:
    modules = mixed()
    found = project_interconnection(modules, all_to_all(modules, np.random.default_rng(1), 1.0))
    assert_certified(modules, found)
    claims = found.result.claims
    assert claims is not None
    assert claims.margin > 0.0
    assert claims.gain is not None
    assert claims.largest_step is not None


def test_the_certificate_stands_an_exact_audit_and_refuses_other_weights() -> None:
    pytest.importorskip("flint")
    modules = {name: RateNetwork([[0.25, -0.5], [0.5, 0.0]], "tanh") for name in "ab"}
    blocks = {("a", "b"): np.ones((2, 2)), ("b", "a"): np.ones((2, 2))}
    found = project_interconnection(modules, blocks)
    parts = {role: found.system.matrix(role) for role in "ABC"}
    assert certes.verify(found.result.certificate, parts, exact=True).valid
    assert not certes.verify(found.result.certificate, parts | {"A": parts["A"] + np.eye(4)}).valid
    assert found.system.slope.activation is not None  # a name that all modules share is kept


@pytest.mark.parametrize("scale", [1e-12, 1e8, 1e16, 1e100])
@pytest.mark.parametrize("size", [1, 3])
def test_sizes_beyond_all_reason(scale: float, size: int) -> None:
    rng = np.random.default_rng(11)
    modules = {name: RateNetwork(gaussian(rng, size, size, 0.3), "relu") for name in "abc"}
    found = project_interconnection(modules, all_to_all(modules, rng, scale))
    assert_certified(modules, found)
    assert found.unchanged == (scale < 1.0)
    assert_same(found.blocks, project_interconnection(modules, found.blocks))


def test_float16_is_rounded_before_it_is_certified() -> None:
    modules = mixed(3)
    found = project_interconnection(modules, all_to_all(modules, np.random.default_rng(12), 4.0, np.float16))
    assert {block.dtype for block in found.blocks.values()} == {np.dtype(np.float16)}
    assert_certified(modules, found)
    assert found.shrink_distance is not None
    assert found.distance < 0.9 * found.shrink_distance


@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
def test_modules_with_triangular_weights_have_metrics_that_measure_something(form: Any) -> None:
    rng = np.random.default_rng(3)
    modules = {name: form(np.triu(gaussian(rng, 4, 4, 2.0), 1), "tanh") for name in "ab"}
    found = project_interconnection(modules, all_to_all(modules, rng, 2.0))
    assert_certified(modules, found)
    assert max(np.linalg.cond(metric) for metric in found.metrics.values()) < 1e8
    assert found.shrink_distance is not None
    assert found.distance < 0.9 * found.shrink_distance


def test_one_module_and_no_blocks() -> None:
    modules = mixed()
    for chosen in ({"rate": modules["rate"]}, modules):
        found = project_interconnection(chosen, {})
        assert_same({}, found)
        assert_certified(chosen, found)
        own = certes.certify(next(iter(chosen.values())), "lure", refute=False).rate
        assert found.rate is not None
        assert own is not None
        assert found.rate <= 0.5 * own


def test_a_module_that_does_not_contract_is_named() -> None:
    modules = mixed() | {"wild": RateNetwork([[3.0]], "tanh")}
    blocks = {("wild", "rate"): np.ones((1, 3))}
    found = project_interconnection(modules, blocks)
    assert found.result.verdict == "undecided"
    assert found.result.certificate is None
    assert "'wild'" in found.result.detail
    assert_same(blocks, found)


def test_entries_that_must_stay_and_cannot_are_undecided() -> None:
    modules = mixed()
    blocks = {("rate", "lure"): 50 * np.ones((3, 2)), ("lure", "rate"): 50 * np.ones((2, 3))}
    mask = {pair: np.zeros(block.shape, dtype=bool) for pair, block in blocks.items()}
    found = project_interconnection(modules, blocks, mask=mask)
    assert found.result.verdict == "undecided"
    assert found.result.reason == "margin"
    assert_same(blocks, found)


def test_entries_that_must_stay_may_ask_others_to_move() -> None:
    """One direction is fixed and strong: the other one has to turn into its feedback, also from zero."""
    modules = {name: RateNetwork(np.zeros((2, 2)), "tanh") for name in "ab"}
    blocks = {("a", "b"): 30 * np.ones((2, 2)), ("b", "a"): 30 * np.eye(2)}
    mask = {("a", "b"): np.zeros((2, 2), dtype=bool), ("b", "a"): np.ones((2, 2), dtype=bool)}
    found = project_interconnection(modules, blocks, mask=mask)
    assert_certified(modules, found)
    assert (found.blocks["a", "b"] == 30.0).all()


def test_the_deadline_and_cancelling_end_in_an_answer() -> None:
    modules = mixed()
    blocks = all_to_all(modules, np.random.default_rng(1), 3.0)
    for limits in ({"seconds": 1e-9}, {"cancelled": lambda: True}):
        found = project_interconnection(modules, blocks, **limits)  # type: ignore[arg-type]
        if found.result.verdict == "contracting":
            assert_certified(modules, found)
        else:
            assert found.result.reason in {"deadline", "cancelled"}
    lines: list[str] = []
    project_interconnection(modules, blocks, progress=lines.append)
    assert any("module rate" in line for line in lines)


def test_json() -> None:
    modules = mixed()
    found = project_interconnection(modules, all_to_all(modules, np.random.default_rng(1), 3.0, np.float32))
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["result"]["verdict"] == "contracting"
    first = plain["blocks"][0]
    assert (np.float32(first["values"]) == found.blocks[first["to"], first["from"]]).all()


RATE = RateNetwork([[0.1, 0.2], [0.0, 0.1]], "tanh")
TWO: dict[str, Any] = {"a": RATE, "b": RATE}
E = np.eye(2)


@pytest.mark.parametrize(
    ("modules", "blocks", "options", "field", "slug"),
    [
        ({}, {}, {}, "modules", "wrong-type"),
        ([RATE], {}, {}, "modules", "wrong-type"),
        ({"a": 3}, {}, {}, "modules.a", "wrong-type"),
        ({"": RATE}, {}, {}, "modules", "wrong-type"),
        ({"a": RATE.with_step(0.1)}, {}, {}, "modules.a", "wrong-time"),
        ({"a": LureSystem(0 * E, E, E, slope=(0, 0.5), discrete=True)}, {}, {}, "modules.a", "wrong-time"),
        (TWO, [E], {}, "blocks", "wrong-type"),
        (TWO, {"ab": E}, {}, "blocks", "wrong-type"),
        (TWO, {("a", "c"): E}, {}, "blocks.a.c", "unknown-module"),
        (TWO, {("a", "a"): E}, {}, "blocks.a.a", "self-coupling"),
        (TWO, {("a", "b"): np.ones((2, 3))}, {}, "blocks.a.b", "wrong-shape"),
        (TWO, {("a", "b"): np.ones(2)}, {}, "blocks.a.b", "wrong-shape"),
        (TWO, {("a", "b"): np.nan * E}, {}, "blocks.a.b", "not-finite"),
        (TWO, {("a", "b"): np.full((2, 2), np.inf)}, {}, "blocks.a.b", "not-finite"),
        (TWO, {("a", "b"): np.eye(2, dtype=int)}, {}, "blocks.a.b", "wrong-dtype"),
        (TWO, {}, {"mask": {("a", "b"): E}}, "mask.a.b", "wrong-dtype"),
        (TWO, {}, {"mask": {("a", "b"): [[True], [True, False]]}}, "mask.a.b", "wrong-shape"),
        (TWO, {}, {"mask": {("a", "b"): np.ones(3, dtype=bool)}}, "mask.a.b", "wrong-shape"),
        (TWO, {}, {"mask": {("b", "b"): E > 0}}, "mask.b.b", "self-coupling"),
        (TWO, {}, {"rate": 5.0}, "rate", "invalid-value"),
        (TWO, {}, {"rate": -1.0}, "rate", "not-positive"),
        (TWO, {}, {"rate": np.nan}, "rate", "not-positive"),
        (TWO, {}, {"rate": True}, "rate", "not-positive"),
        (TWO, {}, {"seconds": 0}, "seconds", "not-positive"),
        (TWO, {}, {"norm": "l1"}, "norm", "unknown-value"),
    ],
)
def test_bad_input_is_named(modules: Any, blocks: Any, options: dict[str, Any], field: str, slug: str) -> None:
    with pytest.raises(InputError) as caught:
        project_interconnection(modules, blocks, **options)
    assert caught.value.field == field
    assert caught.value.slug == slug
