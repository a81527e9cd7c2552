"""The interconnection as the user writes it, blocks by pairs of names, and as one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError
from certes.systems import SparseMatrix, System, tensor

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Pair = tuple[str, str]

_DTYPES: dict[str, type[np.floating[Any]]] = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


@dataclass(frozen=True, eq=False)
class Wiring:
    """Interconnections L_ij between named modules, and which of their entries may move.

    Attributes:
        places: module name -> its states in the whole.
        given: L, shape (N, N), float64.
        movable: which entries of L may move, shape (N, N).
        dtypes: block -> dtype that it is rounded to; the given blocks, and those that may be filled.
        blocks: the blocks as they were given.
    """

    places: Mapping[str, slice]
    given: Array
    movable: Mask
    dtypes: Mapping[Pair, type[np.floating[Any]]]
    blocks: Mapping[Pair, NDArray[Any]]

    @classmethod
    def read(
        cls, modules: Mapping[str, System], blocks: Mapping[Pair, Any], mask: Mapping[Pair, Any] | None, *, fill: bool
    ) -> Wiring:
        """Check blocks and masks and put them together.

        Raises:
            InputError: naming ``blocks.TO.FROM`` or ``mask.TO.FROM``.
        """
        ends = np.cumsum([system.size for system in modules.values()])
        places = {
            name: slice(int(end) - system.size, int(end))
            for (name, system), end in zip(modules.items(), ends, strict=True)
        }
        size = int(ends[-1])
        given, movable = np.zeros((size, size)), np.zeros((size, size), dtype=np.bool_)
        kept: dict[Pair, NDArray[Any]] = {}
        for pair, block in _pairs("blocks", blocks, places):
            field, shape = f"blocks.{pair[0]}.{pair[1]}", (modules[pair[0]].size, modules[pair[1]].size)
            kept[pair] = _block(field, block, shape)
            given[places[pair[0]], places[pair[1]]] = kept[pair]
            movable[places[pair[0]], places[pair[1]]] = bool(kept[pair].any())
        dtypes = {pair: block.dtype.type for pair, block in kept.items()}
        common = np.result_type(*dtypes.values()).type if dtypes else np.float64
        if fill:
            for pair in ((to, source) for to in places for source in places if to != source):
                movable[places[pair[0]], places[pair[1]]] = True
                dtypes.setdefault(pair, common)
        for pair, chosen in _pairs("mask", {} if mask is None else mask, places):
            field, shape = f"mask.{pair[0]}.{pair[1]}", (modules[pair[0]].size, modules[pair[1]].size)
            movable[places[pair[0]], places[pair[1]]] = _mask(field, chosen, shape)
            dtypes.setdefault(pair, common)
        return cls(places, given, movable, dtypes, kept)

    def rounded(self, weights: Array) -> Array | None:
        """Every movable entry rounded to its block's dtype, every other as given; None beyond the range of a dtype."""
        found = self.given.copy()
        for (to, source), dtype in self.dtypes.items():
            at = (self.places[to], self.places[source])
            with np.errstate(over="ignore", under="ignore"):
                block = weights[at].astype(dtype).astype(np.float64)
            block[np.abs(block) < np.finfo(np.float64).tiny] = 0.0
            found[at] = np.where(self.movable[at], block, found[at])
        return found if np.isfinite(found).all() else None

    def split(self, weights: Array) -> dict[Pair, NDArray[Any]]:
        """The blocks of rounded weights, each in its own dtype, read-only; a block that stayed absent stays absent."""
        found: dict[Pair, NDArray[Any]] = {}
        for pair, dtype in self.dtypes.items():
            block = weights[self.places[pair[0]], self.places[pair[1]]].astype(dtype)
            if pair in self.blocks or block.any():
                block.setflags(write=False)
                found[pair] = block
        return found


def _pairs(field: str, given: object, places: Mapping[str, slice]) -> list[tuple[Pair, Any]]:
    """The entries of a mapping of pairs of names.

    Raises:
        InputError: no mapping, a key that is no pair, an unknown name, or a module coupled to itself.
    """
    if not isinstance(given, Mapping):
        raise InputError(field, f"a {type(given).__name__}", "a mapping {('to', 'from'): array}", "wrong-type")
    found = []
    for key, value in given.items():
        if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(name, str) for name in key)):
            raise InputError(field, f"the key {key!r}", "pairs of names ('to', 'from')", "wrong-type")
        name = f"{field}.{key[0]}.{key[1]}"
        for end in key:
            if end not in places:
                raise InputError(name, f"an unknown module {end!r}", f"one of {', '.join(places)}", "unknown-module")
        if key[0] == key[1]:
            raise InputError(name, "a block from a module to itself", "such weights inside the module", "self-coupling")
        found.append((key, value))
    return found


def _block(field: str, given: object, shape: tuple[int, int]) -> NDArray[Any]:
    """A finite dense block as float64 values in the dtype it came in."""
    entry = tensor(field, given)
    if isinstance(entry.value, SparseMatrix):
        raise InputError(field, "a sparse matrix", "a dense matrix", "sparse")
    dtype = entry.subjects[0].dtype
    if dtype not in _DTYPES:
        raise InputError(field, f"dtype {dtype}", "float16, float32 or float64", "wrong-dtype")
    if entry.value.shape != shape:
        raise InputError(field, f"shape {entry.value.shape}", f"shape {shape}", "wrong-shape")
    block = entry.value.astype(_DTYPES[dtype])
    block.setflags(write=False)
    return block


def _mask(field: str, given: object, shape: tuple[int, int]) -> Mask:
    try:
        mask = np.asarray(given)
    except ValueError as error:
        raise InputError(field, "rows of different lengths", f"shape {shape}", "wrong-shape") from error
    if mask.dtype != np.bool_:
        raise InputError(field, f"dtype {mask.dtype}", "booleans, True where an entry may move", "wrong-dtype")
    if mask.shape != shape:
        raise InputError(field, f"shape {mask.shape}", f"shape {shape}", "wrong-shape")
    return mask
