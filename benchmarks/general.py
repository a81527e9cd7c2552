"""The best rate of a general Lur'e system against one feasibility solve just below it.

Time constants from 0.5 to 2 and a small skew coupling, so that the answer is not a condition on the multipliers alone.
Ours includes the metric, its confirmation and the dual bound.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence

from certes.conditions.reference import reduced
from certes.engines import frequency
from certes.engines.sdp import Inequality
from certes.engines.threads import one_blas_thread

from benchmarks import child
from benchmarks.alternative import Answer, Feasibility, Threads, contest, faster, probe
from benchmarks.measure import Spread
from benchmarks.problems import heterogeneous
from benchmarks.report import Row

#: N, rounds, aim (times faster).
FULL, QUICK = (100, 2, 40.0), (4, 1, None)
#: Relative tolerance of the rate, and the share of it that the alternative is asked for.
TOLERANCE, SHARE = 2e-3, 0.99


def rows(quick: bool) -> Iterator[Row]:
    """Threads, ours against SCS, and the gap that was left."""
    size, rounds, aim = QUICK if quick else FULL
    threads = Threads.of("general", size, *[1] * quick)
    label = f"N = {size}, tau 0.5 to 2, {threads.words}"
    yield from threads.rows(f"N = {size}, tau 0.5 to 2")
    found = child.run("general", "race", size, rounds, threads=threads.count)
    scs = Answer(**found["others"][0])
    because = f"Newton steps and exact tests take {Spread.of(found['ours'][0]).median:.3g} s"
    yield faster("general: best rate to 2e-3, metric and bound", label, found["ours"][0], scs, aim, because)
    gap, aim = Spread.of([found["gap"]]), None if quick else TOLERANCE
    yield Row(
        "general: gap to the bound, relative to the rate", label, gap, "", aim, because="the proof stopped too early"
    )


def _stages(inequality: Inequality) -> Sequence[float]:
    with one_blas_thread():
        start = time.perf_counter()
        frequency.optimise(inequality, tolerance=TOLERANCE)
        return (time.perf_counter() - start,)


def _main(what: str, size: int, rounds: int = 1) -> object:
    inequality = reduced(heterogeneous(size))
    best = frequency.optimise(inequality, tolerance=TOLERANCE)
    problem = Feasibility.general(inequality, SHARE * best.strength)
    if what == "probe":
        return probe(problem)
    if best.columns is None:
        raise AssertionError("no bound")
    gap = (best.bound - best.strength) / best.strength
    return {**contest(lambda: _stages(inequality), [problem.solve], rounds), "gap": gap}


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], *map(int, sys.argv[2:]))))
