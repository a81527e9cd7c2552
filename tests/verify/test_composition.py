"""The composition verifier never says yes wrongly: random assemblies, tampered proofs, judged at all slope vertices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from certes.assemblies import Assembly, Coupling, FlowProof, InterfaceProof, MapProof
from certes.systems import RateNetwork
from certes.verify.composition import Node, verify_maps
from certes.verify.interface import Interface
from certes.verify.intervals import Box

from tests.verify.composing import Made, edge

# By hand: modules x' = -x + relu(u), M = 1, rate 0.5, norm of the Jacobian <= 1.2 --------------------------------


def unit() -> Made:
    proof = InterfaceProof(np.eye(1), np.ones(1), np.full(1, 9.0), 0.5, 1.2)
    return Made(RateNetwork(np.zeros((1, 1)), "relu"), proof)


def by_hand(edges: tuple[Coupling, ...], names: tuple[str, ...] = ("a", "b"), **changed: object) -> Made:
    k = len(names)
    numbers: dict[str, object] = {
        "scale": np.ones(k),
        "exponent": np.zeros(k, np.int64),
        "exact": False,
        "pairs": np.zeros(0, np.int64),
        "sigma": np.zeros(0),
        "vector": np.ones(k),
        "norms": np.zeros(len(edges)),
        "multipliers": np.zeros(0),
        "level": 0.1,
        "lipschitz": 0.0,
        "factor": 0.0,
    }
    children = [unit() for _ in names]
    assembly = Assembly({name: child.module for name, child in zip(names, children, strict=True)}, edges)
    return Made(assembly, FlowProof(**(numbers | changed)), children)  # type: ignore[arg-type]


def refused(made: Made, name: str) -> None:
    report, interface = made.verified()
    assert interface is None
    assert report.failed is not None
    assert report.failed.name == name


PAIR = {"pairs": np.array([0, 1]), "sigma": np.array([0.0301])}
LINEAR = (edge("a", "b", 0.02), edge("b", "a", 0.01))


def test_the_plain_pair_is_accepted() -> None:
    assert by_hand(LINEAR, **PAIR).verified()[1] is not None


def test_a_negative_vector_proves_nothing() -> None:
    """With v < 0 the rows of H v turn their sign: strong symmetric excitation would pass."""
    strong = (edge("a", "b", 100.0), edge("b", "a", 100.0))
    for vector in ([-1e6, -1e6], [-1e6, 1.0], [1.0, -1e6], [0.0, 1.0]):
        refused(by_hand(strong, pairs=np.array([0, 1]), sigma=np.array([201.0]), vector=np.array(vector)), "vector")


def test_names_that_look_alike_do_not_hide_a_coupling() -> None:
    """The linear edge a <- "b (inside)" was called like the edge a <- b inside phi, whose norm then went unproven."""
    names = ("a", "b", "a (inside)", "b (inside)")
    edges = (edge("a", "b", 100.0, True), edge("b", "a", 100.0, True))
    edges += (edge("a", "b (inside)", 1e-3), edge("b", "a (inside)", 1e-3))
    numbers = {"pairs": np.array([0, 3, 1, 2]), "sigma": np.full(2, 0.01), "multipliers": np.ones(2)}
    refused(by_hand(edges, names, **numbers), "coupling-norm")
    edges = (edge("a", "b", 1e-3, True), edge("a", "b (inside)", 0.1))
    numbers = {"pairs": np.array([0, 3]), "sigma": np.full(1, 0.11), "multipliers": np.full(1, 2.0)}
    fine = by_hand(edges, names, **numbers, norms=np.array([0.01, 0.11]), lipschitz=1.5)
    assert fine.verified()[1] is not None
    refused(replace(fine, proof=replace(fine.proof, norms=np.array([0.01, 0.0]), lipschitz=1.3)), "coupling-norm")


def test_extreme_scales_do_not_hide_a_coupling_from_the_lipschitz_constant() -> None:
    """s_a / s_b = 2^-980 against L = 2^489: a coupling of 1/2 in the metric, taken for 2^-411 before."""
    numbers = {
        "scale": np.array([2.0**510, 2.0**-510]),
        "exponent": np.array([-500, 500]),
        "pairs": np.array([0, 1]),
        "sigma": np.array([0.5001]),
        "vector": np.array([1.0, 2.0**510]),
        "norms": np.array([2.0**489 * 1.0001]),
        "level": 1e-6,
    }
    edges = (edge("a", "b", 2.0**489),)
    assert by_hand(edges, **numbers, lipschitz=1.71).verified()[1] is not None
    refused(by_hand(edges, **numbers, lipschitz=1.2001), "lipschitz")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("exponent", [[2000, 0], [0, 2000], [4000, -4000], [-4000, 4000]])
def test_the_ends_of_the_range_of_exponents_are_answered(exponent: list[int]) -> None:
    numbers = PAIR | {"exponent": np.array(exponent), "lipschitz": 1.3, "norms": np.array([0.03, 0.02])}
    refused(by_hand(LINEAR, **numbers), "pair")
    zero = (edge("a", "b", 0.0),)
    numbers = PAIR | {"sigma": np.full(1, 0.01), "exponent": np.array(exponent), "lipschitz": 1.3}
    assert by_hand(zero, **numbers).verified()[1] is not None


LEAST = np.iinfo(np.int64).min


@pytest.mark.parametrize("exponent", [4001, -4001, 10**9, -(10**9), LEAST, LEAST + 1, np.iinfo(np.int64).max])
def test_exponents_out_of_range_are_refused_at_once(exponent: int) -> None:
    """The modulus of the least integer is negative; exact rationals of such exponents would never end."""
    inside = (edge("a", "b", 0.01, True),)
    for exponents in ([exponent, 0], [0, exponent]):
        numbers = {"exponent": np.array(exponents), "norms": np.full(1, 0.1), "multipliers": np.full(1, 2.0)}
        refused(by_hand(inside, **numbers), "scales")
    child = Interface((Box.exact(np.eye(1)),), False, 0.5, 0.5)
    maps = RateNetwork(np.zeros((1, 1)), "relu", step=1.0)
    node = Node(Assembly({"a": maps, "b": maps}, (edge("a", "b", 0.1),)), [child, child])
    one, zero, large = np.ones(2), np.zeros(2, np.int64), np.array([exponent, 0])
    for right, left in ((large, zero), (zero, large)):
        report, _ = verify_maps(node, MapProof(one, right, one, left, np.full(1, 0.11), np.zeros(0), 0.9))
        assert report.failed is not None
        assert report.failed.name == "vectors"
