"""Cells whose answers the tests of the gated verifier share."""

from __future__ import annotations

import numpy as np
from certes.cells import CELLS, GatedNetwork

from tests.judges import cells as judge

Weights = dict[str, np.ndarray]


def cell_of(kind: str, weights: Weights, inputs: object = (-1.0, 1.0)) -> GatedNetwork:
    return CELLS[kind](weights["W"], weights["U"], weights["b"], weights["c"], inputs=inputs)


def calm(kind: str, n: int = 3, seed: int = 0) -> tuple[Weights, GatedNetwork]:
    """A cell that is certified."""
    weights = judge.random_cell(np.random.default_rng(seed), kind, n, 2, scale=0.2, bias=0.2, drive=0.3)
    return weights, cell_of(kind, weights)


def bistable(kind: str, n: int = 2) -> tuple[Weights, GatedNetwork]:
    """A cell with two resting places under the input 0, and a saddle at 0 between them."""
    k = len(judge.ORDER[kind])
    zero = {"W": np.zeros((k * n, 1)), "U": np.zeros((k * n, n)), "b": np.zeros(k * n), "c": np.zeros(k * n)}
    new = judge.ORDER[kind].index("n" if kind == "gru" else "g")
    zero["U"][new * n : (new + 1) * n] = np.diag(np.r_[6.0, np.full(n - 1, 0.5)])  # one mode grows, the others fade
    zero["U"][new * n] += 0.1
    zero["W"][0, 0] = 0.25
    return zero, cell_of(kind, zero)


def points(random: np.random.Generator, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """A point of a box; every third one is a corner."""
    share = random.random(lower.shape)
    return np.where(share < 0.5, lower, upper) if random.random() < 0.3 else lower + share * (upper - lower)
