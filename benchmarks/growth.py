"""The condition ``lure`` from weights to a verified proof with its bound: time against n, where it goes, and memory.

Every size runs in a process of its own. What is timed is what ``certify`` does for this condition: the candidates, then
the verifier on the first of them that it accepts, bound included.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from certes.conditions.base import Goal, NothingFound
from certes.conditions.lure import CONDITION
from certes.engines import conic, duality, scaling
from certes.engines.eigen import Field
from certes.proofs import Claims
from certes.systems import RateNetwork
from certes.verify import contraction

from benchmarks import child
from benchmarks.measure import Spread
from benchmarks.problems import gaussian_weights
from benchmarks.report import Row
from benchmarks.stopwatch import Stopwatch

#: n, rounds and the aim in seconds; the condition works with one BLAS thread.
FULL = ((50, 5, None), (100, 5, None), (200, 3, None), (400, 1, None), (500, 1, 20.0), (700, 1, None), (1000, 1, 60.0))
QUICK = ((3, 1, None), (5, 1, None))
#: Aim for the memory, in n^2 doubles.
MEMORY = 40.0
WHAT = "lure: proof and bound found and verified"
#: Where the clock listens.
PLACES = (
    (Field, "look", "eigenproblems"),
    (scaling, "advise", "QP"),
    (Field, "missed", "exact test"),
    (conic, "reaches", "exact test"),
    (conic, "metric", "metric"),
    (duality, "prove", "bound"),
    (contraction, "verify_bound", "verify the bound"),
)


def rows(quick: bool) -> Iterator[Row]:
    """Time and shares for each size, then memory, and the exponent."""
    runs = []
    for size, rounds, aim in QUICK if quick else FULL:
        found = child.run("growth", size, rounds, threads=1)
        runs.append((size, found["seconds"]))
        yield from _rows(size, aim, found)
    sizes, seconds = np.array(runs).T
    exponent = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    label = f"n = {sizes[0]:.0f} to {sizes[-1]:.0f}, BLAS threads: 1"
    # at toy sizes it may well be negative, and measures nothing
    shown = Spread.of([abs(exponent) if quick else exponent])
    yield Row("lure: fitted exponent of n in the time above", label, shown, "")


def _rows(size: int, aim: float | None, found: dict[str, Any]) -> Iterator[Row]:
    label = f"n = {size}, Gaussian, BLAS threads: 1"
    seconds = Spread.of([found["seconds"]])
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found["shares"].items() if share >= 0.005)
    because = f"{next(iter(found['shares']))} takes {next(iter(found['shares'].values())):.0%} of it"
    yield Row(WHAT, label, seconds, "s", aim, seconds, None, shares, because, found)
    if aim is not None:
        memory = Spread.of([found["bytes"] / (8.0 * size * size)])
        yield Row("lure: peak memory beyond the start", label, memory, "n^2 doubles", MEMORY)
        yield Row("lure: gap of the verified bound, relative to 1 - rate", label, Spread.of([found["gap"]]), "")


def _certify(system: RateNetwork, watch: Stopwatch) -> Claims:
    """The claims, bound included, that the verifier accepts first."""
    verify = watch.timed("verify the proof", contraction.verify_contraction)
    decision = CONDITION.decide(system, Goal())
    for candidate in () if isinstance(decision, NothingFound) else decision:
        claims = replace(candidate.claims, bound=candidate.bound)
        if claims.bound is not None and verify(system, candidate.proof, claims).valid:
            return claims
    raise AssertionError(f"nothing found: {decision}")


def _main(size: int, rounds: int) -> object:
    _certify(RateNetwork(gaussian_weights(4), slope=(0.0, 1.0)), Stopwatch())  # everything is imported from here on
    child.forget_peak()
    before = child.resident()
    system = RateNetwork(gaussian_weights(size), slope=(0.0, 1.0))
    seconds = []
    watch = Stopwatch()
    with watch.watching(PLACES):
        for _ in range(rounds):
            start = time.perf_counter()
            claims = watch.timed("all", _certify)(system, watch)
            seconds.append(time.perf_counter() - start)
    assert claims.rate is not None
    assert claims.bound is not None
    return {
        "seconds": statistics.median(seconds),
        "bytes": child.peak() - before,
        "shares": watch.shares("all"),
        "rate": claims.rate,
        "gap": (claims.bound.level - claims.rate) / (1.0 - claims.rate),
    }


if __name__ == "__main__":
    print(json.dumps(_main(*map(int, sys.argv[1:]))))
