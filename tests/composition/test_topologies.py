"""Topologies: counts, symmetry, relabelling; random blocks: sizes, streams of their own, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from certes.composition import topologies
from certes.composition.topologies import Pair
from certes.errors import InputError
from hypothesis import given
from hypothesis import strategies as st

NAMED: dict[str, Callable[[list[str]], tuple[Pair, ...]]] = {
    "all": topologies.all_to_all,
    "chain": topologies.chain,
    "hierarchy": topologies.hierarchy,
    "ring": topologies.ring,
    "ring, both": lambda names: topologies.ring(names, both=True),
    "hub": lambda names: topologies.hub(names, names[len(names) // 2]),
    "random": lambda names: topologies.random_pairs(names, len(names) * (len(names) - 1) // 3, seed=4),
    "random, both": lambda names: topologies.random_pairs(names, len(names) * (len(names) - 1) // 4, seed=4, both=True),
    "mask": lambda names: topologies.from_mask(names, np.subtract.outer(range(len(names)), range(len(names))) == 2),
}
COUNTS: dict[str, Callable[[int], int]] = {
    "all": lambda k: k * (k - 1),
    "chain": lambda k: k - 1,
    "hierarchy": lambda k: k * (k - 1) // 2,
    "ring": lambda k: k if k > 1 else 0,
    "ring, both": lambda k: 2 * k if k > 2 else 2 * (k - 1),
    "hub": lambda k: 2 * (k - 1),
    "random": lambda k: k * (k - 1) // 3,
    "random, both": lambda k: 2 * (k * (k - 1) // 4),
    "mask": lambda k: max(k - 2, 0),
}
SYMMETRIC = {"all", "ring, both", "hub", "random, both"}
TRIANGULAR = {"chain", "hierarchy", "mask"}


def letters(k: int) -> list[str]:
    return [f"m{i}" for i in range(k)]


@pytest.mark.parametrize("name", NAMED)
@given(k=st.integers(1, 9), data=st.data())
def test_laws(name: str, k: int, data: Any) -> None:
    names = letters(k)
    pairs = NAMED[name](names)
    assert len(pairs) == COUNTS[name](k)
    assert len(set(pairs)) == len(pairs), "no pair twice"
    assert all(to != source for to, source in pairs), "no module with itself"
    assert pairs == NAMED[name](names), "the same again"
    if name in SYMMETRIC:
        assert {(source, to) for to, source in pairs} == set(pairs)
        assert 2 * len(topologies.unordered(pairs)) == len(pairs)
    if name in TRIANGULAR:
        assert all(names.index(to) > names.index(source) for to, source in pairs)
    others = data.draw(st.permutations([f"x{i}" for i in range(k)]))
    renamed = dict(zip(names, others, strict=True))
    assert NAMED[name](others) == tuple((renamed[to], renamed[source]) for to, source in pairs), "renaming"


def test_known_graphs() -> None:
    assert topologies.chain(["a", "b", "c"]) == (("b", "a"), ("c", "b"))
    assert topologies.hierarchy(["a", "b", "c"]) == (("b", "a"), ("c", "a"), ("c", "b"))
    assert topologies.ring(["a", "b", "c"]) == (("a", "c"), ("b", "a"), ("c", "b"))
    assert topologies.hub(["a", "hub", "c"], "hub") == (("a", "hub"), ("hub", "a"), ("hub", "c"), ("c", "hub"))
    assert topologies.from_mask(["a", "b"], [[False, True], [False, False]]) == (("a", "b"),)


def test_random_pairs_are_uniform() -> None:
    """Each of the six ordered pairs of three modules is as likely: 3000 draws of two of them."""
    counts: dict[Pair, int] = {}
    for seed in range(3000):
        for pair in topologies.random_pairs(["a", "b", "c"], 2, seed=seed):
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 6
    assert max(abs(count - 1000) for count in counts.values()) < 110, "four standard deviations"


def test_thousand_modules() -> None:
    assert len(topologies.random_pairs(letters(1000), 10_000, seed=0)) == 10_000


def test_unordered_keeps_the_first_direction() -> None:
    assert topologies.unordered([("b", "a"), ("a", "b"), ("a", "c"), ("b", "a")]) == (("b", "a"), ("a", "c"))


def test_blocks_have_sizes_density_and_streams_of_their_own() -> None:
    sizes = {"a": 30, "b": 20, "c": 1}
    pairs = topologies.all_to_all(list(sizes))
    found = topologies.blocks(pairs, sizes, seed=3, scale=0.5, density=0.1, dtype="float32")
    assert list(found) == list(pairs)
    for (to, source), block in found.items():
        assert block.shape == (sizes[to], sizes[source])
        assert block.dtype == np.float32
        assert not block.flags.writeable
        assert np.count_nonzero(block) == max(1, round(0.1 * block.size))
    fewer = topologies.blocks(pairs[2:3], sizes, seed=3, scale=0.5, density=0.1, dtype="float32")
    assert np.array_equal(fewer[pairs[2]], found[pairs[2]]), "a pair more or less changes no other block"
    assert not np.array_equal(found["a", "b"], found["b", "a"].T)
    other = topologies.blocks(pairs, sizes, seed=4, scale=0.5, density=0.1, dtype="float32")
    assert not np.array_equal(other["a", "b"], found["a", "b"])


@pytest.mark.parametrize("density", [1.0, 0.2])
def test_blocks_contribute_scale(density: float) -> None:
    block = topologies.blocks([("a", "b")], {"a": 400, "b": 300}, seed=0, scale=0.7, density=density)["a", "b"]
    inputs = np.random.default_rng(1).standard_normal((300, 200))
    assert np.std(block @ inputs) == pytest.approx(0.7, rel=0.02)


@pytest.mark.parametrize(
    ("call", "slug"),
    [
        (lambda: topologies.ring("abc"), "wrong-type"),
        (lambda: topologies.ring(["a", "b/c"]), "wrong-type"),
        (lambda: topologies.ring(["a", ""]), "wrong-type"),
        (lambda: topologies.chain(["a", "b", "a"]), "duplicate-key"),
        (lambda: topologies.hub(["a", "b"], "c"), "unknown-module"),
        (lambda: topologies.random_pairs(["a", "b"], 3, seed=0), "out-of-range"),
        (lambda: topologies.random_pairs(["a", "b"], 2, seed=0, both=True), "out-of-range"),
        (lambda: topologies.random_pairs(["a", "b"], -1, seed=0), "out-of-range"),
        (lambda: topologies.from_mask(["a", "b"], np.eye(2)), "wrong-dtype"),
        (lambda: topologies.from_mask(["a", "b"], np.zeros((2, 3), dtype=bool)), "wrong-shape"),
        (lambda: topologies.from_mask(["a", "b"], np.eye(2, dtype=bool)), "self-coupling"),
        (lambda: topologies.blocks([("a", "c")], {"a": 1, "b": 1}, seed=0), "unknown-module"),
        (lambda: topologies.blocks([("a", "a")], {"a": 1, "b": 1}, seed=0), "self-coupling"),
        (lambda: topologies.blocks([], {"a": 0}, seed=0), "out-of-range"),
        (lambda: topologies.blocks([], {"a": 1}, seed=-1), "out-of-range"),
        (lambda: topologies.blocks([], {"a": 1}, seed=0, scale=float("nan")), "out-of-range"),
        (lambda: topologies.blocks([], {"a": 1}, seed=0, density=0.0), "out-of-range"),
        (lambda: topologies.blocks([], {"a": 1}, seed=0, dtype="int8"), "wrong-dtype"),  # type: ignore[arg-type]
    ],
)
def test_refusals(call: Callable[[], object], slug: str) -> None:
    with pytest.raises(InputError) as refused:
        call()
    assert refused.value.slug == slug
