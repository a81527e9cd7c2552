"""Which modules are coupled: pairs (to, from) of named graphs, and random blocks for them.

Every function takes the modules' names in the order of their states and returns ordered pairs without repetitions,
sorted by the positions of head and tail; what it does depends on positions only, so renaming the modules renames the
pairs. A module is never coupled to itself: such weights belong inside the module.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certes.assemblies import SEPARATOR
from certes.errors import InputError

Pair = tuple[str, str]
Mask = NDArray[np.bool_]

_DTYPES = ("float16", "float32", "float64")


def all_to_all(names: Sequence[str]) -> tuple[Pair, ...]:
    """Every module listens to every other one: k (k - 1) pairs."""
    k = len(_names(names))
    return _pairs(names, ~np.eye(k, dtype=np.bool_))


def chain(names: Sequence[str]) -> tuple[Pair, ...]:
    """Every module listens to the one before it: k - 1 pairs."""
    k = len(_names(names))
    return _pairs(names, np.eye(k, k=-1, dtype=np.bool_))


def hierarchy(names: Sequence[str]) -> tuple[Pair, ...]:
    """Every module listens to all before it (lower triangular): k (k - 1) / 2 pairs."""
    k = len(_names(names))
    return _pairs(names, np.tri(k, k=-1, dtype=np.bool_))


def ring(names: Sequence[str], *, both: bool = False) -> tuple[Pair, ...]:
    """Every module listens to the one before it, the first to the last.

    Args:
        names: the modules.
        both: also to the one after it.
    """
    k = len(_names(names))
    mask = np.roll(np.eye(k, dtype=np.bool_), 1, axis=0) & ~np.eye(k, dtype=np.bool_)
    return _pairs(names, mask | mask.T if both else mask)


def hub(names: Sequence[str], centre: str) -> tuple[Pair, ...]:
    """A global workspace: every module with the hub, both directions, 2 (k - 1) pairs.

    Args:
        names: the modules, the hub among them.
        centre: the name of the hub.

    Raises:
        InputError: the hub is none of the modules.
    """
    listed = _names(names)
    if centre not in listed:
        raise InputError("centre", repr(centre), "one of the modules' names", "unknown-module")
    mask = np.zeros((len(listed), len(listed)), dtype=np.bool_)
    k = listed.index(centre)
    mask[k, :] = mask[:, k] = True
    mask[k, k] = False
    return _pairs(names, mask)


def random_pairs(names: Sequence[str], count: int, *, seed: int, both: bool = False) -> tuple[Pair, ...]:
    """A random graph: ``count`` of all sets of that many pairs, each as likely.

    Args:
        names: the modules.
        count: number of pairs; with ``both`` the number of unordered pairs, of which both directions are returned.
        seed: of the draw.
        both: couple in both directions.

    Raises:
        InputError: more pairs than there are, or a negative number.
    """
    k = len(_names(names))
    heads, tails = np.tril_indices(k, -1)
    if not both:
        heads, tails = np.concatenate([heads, tails]), np.concatenate([tails, heads])
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= len(heads):
        raise InputError("count", repr(count), f"a number of pairs from 0 to {len(heads)}", "out-of-range")
    chosen = np.random.default_rng(seed).choice(len(heads), count, replace=False)
    mask = np.zeros((k, k), dtype=np.bool_)
    mask[heads[chosen], tails[chosen]] = True
    return _pairs(names, mask | mask.T if both else mask)


def from_mask(names: Sequence[str], mask: ArrayLike) -> tuple[Pair, ...]:
    """The pairs of an adjacency matrix.

    Args:
        names: the modules.
        mask: booleans, shape (k, k), row: to, column: from.

    Raises:
        InputError: no booleans, another shape, or a module that is coupled to itself.
    """
    listed = _names(names)
    given = np.asarray(mask)
    if given.dtype != np.bool_:
        raise InputError("mask", f"dtype {given.dtype}", "booleans", "wrong-dtype")
    if given.shape != (len(listed), len(listed)):
        raise InputError("mask", f"shape {given.shape}", f"shape {(len(listed), len(listed))}", "wrong-shape")
    if given.diagonal().any():
        own = listed[int(np.argmax(given.diagonal()))]
        raise InputError("mask", f"{own!r} coupled to itself", "such weights inside the module", "self-coupling")
    return _pairs(names, given)


def unordered(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """One direction of each coupled pair, the first that is met: what :func:`certes.feedback` needs blocks for."""
    seen: dict[frozenset[str], Pair] = {}
    for pair in pairs:
        seen.setdefault(frozenset(pair), pair)
    return tuple(seen.values())


def blocks(
    pairs: Iterable[Pair],
    sizes: Mapping[str, int],
    *,
    seed: int,
    scale: float = 1.0,
    density: float = 1.0,
    dtype: Literal["float16", "float32", "float64"] = "float64",
) -> dict[Pair, NDArray[Any]]:
    """Random coupling blocks: normal entries of variance scale^2 / (density n_from), the others 0.

    A module whose inputs are independent of size 1 sends contributions of size ``scale``, whatever its size and the
    density. Each block has a stream of its own, by seed and positions of the two modules: a pair more or less changes
    no other block.

    Args:
        pairs: (to, from).
        sizes: name -> number of states, in the order of the states.
        seed: of the draw, at least 0.
        scale: size of the contributions.
        density: share of entries that are drawn, rounded to whole entries, at least one per block; in (0, 1].
        dtype: of the blocks.

    Returns:
        (to, from) -> block of shape (n_to, n_from), read-only.

    Raises:
        InputError: an argument out of range, or a pair of unknown or equal names.
    """
    places = {name: k for k, name in enumerate(_names(list(sizes)))}
    _check_draw(sizes, seed, scale, density, dtype)
    found: dict[Pair, NDArray[Any]] = {}
    for to, source in pairs:
        for end in (to, source):
            if end not in places:
                raise InputError("pairs", f"an unknown module {end!r}", "the names in sizes", "unknown-module")
        if to == source:
            raise InputError("pairs", f"{to!r} coupled to itself", "such weights inside the module", "self-coupling")
        rng = np.random.default_rng((seed, places[to], places[source]))
        rows, columns = sizes[to], sizes[source]
        count = max(1, round(density * rows * columns))
        values = np.zeros(rows * columns)
        where = rng.choice(rows * columns, count, replace=False) if count < rows * columns else slice(None)
        values[where] = scale / math.sqrt(density * columns) * rng.standard_normal(count)
        block = values.reshape(rows, columns).astype(dtype)
        block.setflags(write=False)
        found[to, source] = block
    return found


def _check_draw(sizes: Mapping[str, int], seed: int, scale: float, density: float, dtype: str) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"sizes.{name}", repr(size), "a number of states, at least 1", "out-of-range")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError("seed", repr(seed), "a whole number, at least 0", "out-of-range")
    if not 0.0 <= scale < math.inf:
        raise InputError("scale", repr(scale), "a finite number, at least 0", "out-of-range")
    if not 0.0 < density <= 1.0:
        raise InputError("density", repr(density), "a share above 0, at most 1", "out-of-range")
    if dtype not in _DTYPES:
        raise InputError("dtype", repr(dtype), " or ".join(_DTYPES), "wrong-dtype")


def _names(names: Sequence[str]) -> list[str]:
    """The names as a list.

    Raises:
        InputError: one string, an unusable name, or one name twice.
    """
    if isinstance(names, str):
        raise InputError("names", f"the text {names!r}", "a list of names", "wrong-type")
    listed = list(names)
    for name in listed:
        if not isinstance(name, str) or not name or SEPARATOR in name:
            raise InputError("names", f"the name {name!r}", f"a name without {SEPARATOR!r}", "wrong-type")
    if len(set(listed)) < len(listed):
        twice = next(name for name in listed if listed.count(name) > 1)
        raise InputError("names", f"{twice!r} twice", "different names", "duplicate-key")
    return listed


def _pairs(names: Sequence[str], mask: Mask) -> tuple[Pair, ...]:
    return tuple((names[to], names[source]) for to, source in np.argwhere(mask).tolist())
