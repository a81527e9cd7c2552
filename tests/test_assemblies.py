"""Assemblies, couplings and their proofs as values: what they refuse, and what they say of themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from certes.assemblies import DEEPEST, Assembly, Coupling, FlowProof, InterfaceProof, MapProof, WholeProof
from certes.errors import InputError
from certes.proofs import ArrayProof
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System, tensor

RATE = RateNetwork(np.zeros((2, 2)), "relu")
HOPFIELD = HopfieldNetwork(np.zeros((3, 3)), "relu")
LURE = LureSystem(-np.eye(2), np.ones((2, 1)), np.ones((1, 2)), (0.0, 1.0))
MAP = RateNetwork(np.zeros((2, 2)), "relu", step=0.5)
MODULES: dict[str, System | Assembly] = {"r": RATE, "h": HOPFIELD, "l": LURE}


def edge(to: str, source: str, shape: tuple[int, ...], inside: Any = False) -> Coupling:
    return Coupling(to, source, tensor("L", np.ones(shape)), inside)


def refusal(*arguments: Any, **named: Any) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        Assembly(*arguments, **named)
    return caught.value.field, caught.value.slug


@pytest.mark.parametrize("name", ["", "a/b", "/", "x" * 201, 3, None])
def test_names_are_refused(name: Any) -> None:
    assert refusal({name: RATE}) == ("modules", "wrong-type")


def test_modules_are_refused() -> None:
    sparse = RateNetwork(scipy.sparse.csr_matrix(np.eye(2)), "relu")
    assert refusal({}) == ("modules", "missing-value")
    assert refusal({"a": sparse}) == ("modules.a", "sparse")
    assert refusal({"a": RATE, "b": MAP}) == ("modules.b", "wrong-time")
    assert refusal({"a": MAP, "b": RATE}) == ("modules.b", "wrong-time")
    assert refusal({"a": RATE, "b": Assembly({"c": RATE}, step=0.1)}) == ("modules.b", "wrong-time")
    assert not Assembly({"a": MAP, "b": Assembly({"c": RATE}, step=0.1)}).continuous


@pytest.mark.parametrize("step", [0.0, -0.1, np.nan, np.inf, -np.inf])
def test_steps_are_refused(step: float) -> None:
    assert refusal({"a": RATE}, step=step) == ("step", "conflict")


def test_a_step_of_maps_is_refused() -> None:
    assert refusal({"a": MAP}, step=0.1) == ("step", "conflict")
    assert refusal({"a": Assembly({"a": RATE}, step=0.1)}, step=0.1) == ("step", "conflict")


@pytest.mark.parametrize(
    ("coupling", "slug"),
    [
        (edge("r", "x", (2, 2)), "unknown-module"),
        (edge("x", "r", (2, 2)), "unknown-module"),
        (edge("r", "r", (2, 2)), "conflict"),
        (edge("r", "h", (3, 2)), "wrong-shape"),
        (edge("r", "h", (2, 2)), "wrong-shape"),
        (edge("l", "h", (1, 3)), "wrong-shape"),
        (edge("l", "h", (2, 3), inside=True), "wrong-shape"),
        (edge("h", "r", (3, 2), inside=True), "conflict"),
        (Coupling("r", "h", tensor("L", scipy.sparse.csr_matrix(np.ones((2, 3))))), "sparse"),
    ],
)
def test_couplings_are_refused(coupling: Coupling, slug: str) -> None:
    assert refusal(MODULES, (coupling,)) == (f"couplings.{coupling.to}.{coupling.source}", slug)


@pytest.mark.parametrize("inside", [None, 0, 1, "", "yes", 0.0, np.True_])
def test_inside_is_a_bool(inside: Any) -> None:
    """Two kinds of "no" would pass for two couplings, of which a verifier that sorts them by kind saw only one."""
    both = (edge("r", "l", (2, 2), inside), edge("r", "l", (2, 2), bool(inside)))
    assert refusal(MODULES, both) == ("couplings.r.l", "wrong-type")


def test_one_coupling_of_a_kind() -> None:
    twice = (edge("r", "l", (2, 2)), edge("r", "l", (2, 2)))
    assert refusal(MODULES, twice) == ("couplings.r.l", "duplicate-key")
    both = (edge("r", "l", (2, 2)), edge("r", "l", (2, 2), inside=True))
    assert [one.name for one in Assembly(MODULES, both).couplings] == ["r<-l", "r<-l (inside)"]


def test_inside_an_assembly_there_is_no_phi() -> None:
    nest: dict[str, System | Assembly] = {"n": Assembly({"r": RATE}), "r": RATE}
    assert refusal(nest, (edge("n", "r", (2, 2), inside=True),)) == ("couplings.n.r", "conflict")
    assert Assembly(nest, (edge("r", "n", (2, 2), inside=True),)).size == 4


def test_an_assembly_keeps_what_it_was_given() -> None:
    modules, edges = dict(MODULES), [edge("r", "l", (2, 2))]
    assembly = Assembly(modules, edges)  # type: ignore[arg-type]
    modules["r"] = HOPFIELD
    edges.append(edge("l", "h", (7, 7)))
    assert list(assembly.modules.values()) == [RATE, HOPFIELD, LURE]
    assert len(assembly.couplings) == 1


def test_sizes_places_and_paths() -> None:
    inner = Assembly(MODULES, (edge("l", "h", (2, 3)), edge("l", "h", (1, 3), inside=True)))
    outer = Assembly({"a": inner, "b": RATE, "c": inner})
    assert (inner.size, outer.size, inner.depth, outer.depth) == (7, 16, 1, 2)
    assert outer.places == {"a": slice(0, 7), "b": slice(7, 9), "c": slice(9, 16)}
    paths = ["a/r", "a/h", "a/l", "b", "c/r", "c/h", "c/l"]
    assert [path for path, _ in outer.leaves()] == paths
    assert [system for _, system in outer.leaves()] == [RATE, HOPFIELD, LURE, RATE, RATE, HOPFIELD, LURE]
    assert outer.continuous
    assert not Assembly({"a": outer}, step=0.1).continuous


def test_the_depth_is_limited() -> None:
    assembly = Assembly({"a": RATE})
    for _ in range(DEEPEST - 1):
        assembly = Assembly({"a": assembly})
    assert assembly.depth == DEEPEST
    assert [path for path, _ in assembly.leaves()] == ["/".join("a" * DEEPEST)]
    assert refusal({"a": assembly}) == ("modules", "too-deep")


ONE, ZERO = np.ones(1), np.zeros(1, np.int64)
PROOFS: list[ArrayProof] = [
    InterfaceProof(np.eye(1), ONE, ONE, 0.5, 1.0),
    FlowProof(ONE, ZERO, False, np.array([0, 1]), ONE, ONE, ONE, ONE, 0.1, 1.0, 0.0),
    MapProof(ONE, ZERO, ONE, ZERO, ONE, ONE, 0.5),
    WholeProof(np.eye(2), np.full(2, np.pi), 0.1 + 0.2),
]


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.kind)
def test_proofs_survive_as_arrays(proof: ArrayProof) -> None:
    arrays = proof.to_arrays()
    again = type(proof).from_arrays(arrays).to_arrays()
    for name, array in arrays.items():
        assert array.dtype == again[name].dtype
        assert array.tobytes() == again[name].tobytes()
        changed = arrays | {name: array.astype(np.float32)}
        for wrong in (changed, {key: value for key, value in arrays.items() if key != name}):
            with pytest.raises(InputError):
                type(proof).from_arrays(wrong)
    with pytest.raises(InputError):
        type(proof).from_arrays(arrays | {"more": ONE})


def test_kinds_differ() -> None:
    assert len({proof.kind for proof in PROOFS}) == len(PROOFS)


def test_modules_that_multiply_are_counted_without_being_seen() -> None:
    module: Assembly | RateNetwork = RateNetwork([[0.1]], "tanh")
    with pytest.raises(InputError, match="networks"):
        for _ in range(40):
            module = Assembly({"a": module, "b": module})
