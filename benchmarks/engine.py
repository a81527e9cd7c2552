"""The best rate of networks with uniform leak against one feasibility solve of the Lur'e inequality just below it.

Ours searches for the best rate; the alternative only answers yes or no at 0.99 of it. Ours is shown three times: the
multipliers of the optimum alone, with the metric, and with the dual bound that proves how good it is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence

from certes.engines import conic, duality, scaling
from certes.engines.threads import one_blas_thread

from benchmarks import child
from benchmarks.alternative import Answer, Feasibility, Threads, contest, faster, probe
from benchmarks.measure import Spread
from benchmarks.problems import Array, gaussian_weights
from benchmarks.report import Row

#: n, rounds, aim (times faster than SCS), what else is tried.
FULL = ((50, 9, 20.0, ("loose", "clarabel")), (100, 7, 60.0, ("loose",)), (200, 5, 80.0, ()))
QUICK = ((5, 2, None, ("loose", "clarabel")),)
#: Relative tolerance of the optimum; that of the level which the alternative is asked about; the gap asked of a proof.
TOLERANCE, ACCURATE, GAP = 1e-3, 1e-4, 2e-4
#: The best rate, to which the weights are scaled, and the share of it that the alternative is asked for.
RATE, SHARE = 0.3, 0.99
STAGES = ("optimum to 1e-3", "optimum to 1e-3 and metric", "optimum to 1e-3, metric and proven bound")
FAMILY = conic.Rate()


def rows(quick: bool) -> Iterator[Row]:
    """For each size: threads, three stages against SCS, other solvers, the gap that was left."""
    for size, rounds, aim, extra in QUICK if quick else FULL:
        threads = Threads.of("engine", size, *[1] * quick)
        label = f"n = {size}, Gaussian, {threads.words}"
        yield from threads.rows(f"n = {size}, Gaussian")
        found = child.run("engine", "race", size, rounds, *extra, threads=threads.count)
        scs, *others = (Answer(**entry) for entry in found["others"])
        for number, (stage, seconds) in enumerate(zip(STAGES, found["ours"], strict=True)):
            because = f"the search takes {Spread.of(seconds).median:.2g} s, and SCS only {scs.seconds:.3g} s"
            yield faster(stage, label, seconds, scs, None if number else aim, because)
        for answer in others:
            yield faster(STAGES[0], label, found["ours"][0], answer)
        because = "the search or the proof stopped too early"
        gap = Spread.of([found["gap"]])
        yield Row(
            "gap to the proven bound, relative to 1 - rate", label, gap, "", None if quick else 1e-3, because=because
        )


def _stages(weights: Array) -> Sequence[float]:
    """Seconds from the start to the end of each stage."""
    with one_blas_thread():
        start = time.perf_counter()
        found = scaling.optimise(weights, FAMILY, tolerance=TOLERANCE)
        optimum = time.perf_counter()
        metric = conic.metric(weights, found.q, FAMILY, FAMILY.relax(found.level, 1e-5))
        recovered = time.perf_counter()
        proof = duality.prove(weights, FAMILY, found.q, found.level, gap=TOLERANCE)
        proven = time.perf_counter()
    if metric is None or proof is None:
        raise AssertionError("no metric or no bound")
    return optimum - start, recovered - start, proven - start


def _gap(weights: Array, q: Array) -> float:
    """By how much the level of the timed search may at most be improved, relative to 1 - rate."""
    found = scaling.optimise(weights, FAMILY, tolerance=TOLERANCE)
    proof = duality.prove(weights, FAMILY, q, FAMILY.relax(RATE, 1e-6), gap=GAP)
    if proof is None:
        raise AssertionError("no bound")
    return (proof.level - found.level) / (1.0 - found.level)


def _main(what: str, size: str, rounds: str = "1", *extra: str) -> object:
    weights = gaussian_weights(int(size))
    best = scaling.optimise(weights, FAMILY, tolerance=ACCURATE)
    weights *= (1.0 - RATE) / (1.0 - best.level)  # 1 - rate is proportional to the weights
    problem = Feasibility.uniform(weights, SHARE * RATE)
    if what == "probe":
        return probe(problem)
    _stages(weights)  # to warm up
    solves = {
        "loose": lambda: problem.solve(eps_abs=1e-4, eps_rel=1e-4),
        "clarabel": lambda: problem.solve("CLARABEL", 120.0),
    }
    return {
        **contest(lambda: _stages(weights), [problem.solve, *(solves[name] for name in extra)], int(rounds)),
        "gap": _gap(weights, best.q),
    }


if __name__ == "__main__":
    print(json.dumps(_main(*sys.argv[1:])))
