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
#: n of the refutations; n and seeds of the distances; aims for the median and the largest ratio.
FULL = ((50, 100), 50, 3, (1.04, 1.06))
QUICK = ((30,), 4, 1, (None, None))


def rows(quick: bool) -> Iterator[Row]:
    """Times of refutation, then ratios."""
    sizes, size, seeds, (median, largest) = QUICK if quick else FULL
    for n in sizes:
        seconds = Spread.of([_refute(n, seed) for seed in range(ROUNDS)])
        yield Row("refute and verify, gain 1", f"n = {n}, Gaussian, {ROUNDS} seeds", seconds, "s", None, seconds)
    ratios, times = zip(*(_distances(size, seed) for seed in range(seeds)), strict=True)
    label, seconds = f"n = {size}, Gaussian, {seeds} seeds", Spread.of(times)
    because = "the slope search and the certificates leave more room between them"
    every, worst = Spread.of(ratios), Spread.of([max(ratios)])
    yield Row("refuted scale over certified scale, median", label, every, "", median, seconds, because=because)
    yield Row("refuted scale over certified scale, largest", label, worst, "", largest, because=because)


def _network(size: int, seed: int) -> RateNetwork:
    return RateNetwork(gaussian_weights(size, GAIN, seed), activation="tanh")


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
    found = distances(_network(size, seed))
    seconds = time.perf_counter() - start
    if found.certified_scale is None or found.refuted_scale is None:
        raise AssertionError(f"one side is missing: n = {size}, seed {seed}")
    return found.refuted_scale / found.certified_scale, seconds
