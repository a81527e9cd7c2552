"""Refuting unstable networks, and how little is left between the largest certified and the smallest refuted scale.

Nobody else's tool is known to us that gives such witnesses, so there is no alternative beside these times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from certes.distances import distances
from certes.refutation import refute
from certes.systems import RateNetwork
from certes.verify.instability import verify_instability

from benchmarks.measure import Spread
from benchmarks.problems import gaussian_weights
from benchmarks.report import Row

#: Gain of the unstable weights, and how many of them are refuted.
GAIN, ROUNDS = 1.0, 3
#: n of the refutations.
SIZES = (50, 100)
#: Ratios: n, aims for their median and for the largest, and why the largest is missed, if it is.
FULL = (
    (10, 1.03, 1.10, "for one of the networks no slopes at all refute below 1.24, by enumeration of its vertices"),
    (50, 1.04, 1.06, "no better slopes are known for these networks"),
    (100, 1.05, 1.07, "no better slopes are known for these networks"),
)
#: Networks for each n.
SEEDS = 10


def rows(quick: bool) -> Iterator[Row]:
    """Times of refutation, then ratios."""
    for n in (30,) if quick else SIZES:
        seconds = Spread.of([_refute(n, seed) for seed in range(ROUNDS)])
        yield Row("refute and verify, gain 1", f"n = {n}, Gaussian, {ROUNDS} seeds", seconds, "s", None, seconds)
    for n, median, largest, because in ((4, None, None, ""),) if quick else FULL:
        seeds = 1 if quick else SEEDS
        ratios, times = zip(*(_distances(n, 1000 * n + seed) for seed in range(seeds)), strict=True)
        label, each = f"n = {n}, Gaussian, {seeds} seeds", Spread.of(times)
        every, worst = Spread.of(ratios), Spread.of([max(ratios)])
        yield Row("refuted scale over certified scale, median", label, every, "", median, each, because=because)
        yield Row("refuted scale over certified scale, largest", label, worst, "", largest, because=because)


def _network(size: int, seed: int, activation: str = "tanh") -> RateNetwork:
    return RateNetwork(gaussian_weights(size, GAIN, seed), activation=activation)


def _refute(size: int, seed: int) -> float:
    system = _network(size, seed)
    start = time.perf_counter()
    witness = refute(system)
    if witness is None or verify_instability(system, witness).verdict != "not_contracting":
        raise AssertionError(f"not refuted: n = {size}, seed {seed}")
    return time.perf_counter() - start


def _distances(size: int, seed: int) -> tuple[float, float]:
    """The ratio of the two verified scales, and seconds."""
    start = time.perf_counter()
    found = distances(_network(size, seed, "relu"))
    seconds = time.perf_counter() - start
    if found.certified_scale is None or found.refuted_scale is None:
        raise AssertionError(f"one side is missing: n = {size}, seed {seed}")
    return found.refuted_scale / found.certified_scale, seconds
