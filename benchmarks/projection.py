"""The nearest stable weights against one convex problem of cvxpy with SCS, for multipliers that stay fixed.

The network is a rate network in continuous time with Gaussian weights whose best 1 - rate is 1.5 times what is asked
for. Both sides are handed the multipliers that allow the largest shrink. Ours descends from them, and moves them on the
way; the alternative finds the nearest weights that *they* certify: with Q fixed the Lur'e inequality is linear in
(P, W'). It is written in the coordinates A = Q^1/2 W' Q^-1/2, X = Q^-1/2 P Q^-1/2, in which it is well scaled,

    [[2 g X, -(X + A^T)], [., 2 I]] >= 0,    g = 1 - rate,

with SCS's own quadratic objective. The solver's clock counts setup and solution; cvxpy's compilation is a row of its
own. What it returns satisfies the inequality to its tolerance only. A row of its own has all of ``certes.project`` with
the condition ``lure``: multipliers, descent, rounding, the verified certificate and its claims, the plain shrink and
the bound.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import certes
import numpy as np
from certes.conditions.uniform import UniformLeak
from certes.engines import conic, scaling
from certes.projection.base import Problem
from certes.projection.descent import Descent, Frame
from certes.projection.lure import Goal
from certes.systems import RateNetwork

from benchmarks import child
from benchmarks.alternative import Answer, Feasibility, contest, faster
from benchmarks.measure import Spread
from benchmarks.problems import Array, gaussian_weights
from benchmarks.report import Row

#: n, rounds of ours, whether SCS is asked as well.
FULL = ((50, 3, True), (100, 1, False), (200, 1, False), (400, 1, False))
QUICK = ((4, 1, True), (6, 1, False))
#: The rate asked for, and the best 1 - rate of the weights over the one asked for.
RATE, RATIO = 0.1, 1.5
WHAT, DESCENT = "project (lure), certified", "nearest weights from given multipliers"


def rows(quick: bool) -> Iterator[Row]:
    """For each size time and distance, with SCS up to n = 50; then the exponent."""
    runs = []
    for size, rounds, other in QUICK if quick else FULL:
        label = f"n = {size}, Gaussian, BLAS threads: 1"
        found = child.run("projection", size, rounds, int(other), threads=1)
        seconds = Spread.of(found["whole"])
        runs.append((size, seconds.median))
        if other:
            yield from _against(label, found, quick)
        yield Row(WHAT, label, seconds, "s", None, seconds)
        share = Spread.of([found["distance"] / found["shrink"]])
        yield Row("project: distance over that of the plain shrink", label, share, "")
    sizes, times = np.array(runs).T
    exponent = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    label = f"n = {sizes[0]:.0f} to {sizes[-1]:.0f}, BLAS threads: 1"
    # at toy sizes it may well be negative, and measures nothing
    yield Row(
        "project: fitted exponent of n in the time above", label, Spread.of([abs(exponent) if quick else exponent]), ""
    )


def _against(label: str, found: dict[str, Any], quick: bool) -> Iterator[Row]:
    """Faster, and nearer, than SCS."""
    for entry, distance in zip(found["others"], found["their_distances"], strict=True):
        answer = Answer(**entry)
        because = f"the descent takes {Spread.of(found['ours']).median:.2g} s, and SCS {answer.seconds:.3g} s"
        yield faster(DESCENT, label, found["ours"], answer, None if quick else 1.0, because)
        nearer = Spread.of([found["descended"] / distance])
        because = "the descent stopped at a local minimum"
        what = "its distance over that of SCS for fixed Q"
        yield Row(what, label, nearer, "", None if quick else 1.0, None, None, answer.name, because)
    compiled = Spread.of([found["compilation"]])
    yield Row("cvxpy: compilation of that problem", label, compiled, "s", None, None, compiled, "cvxpy")


class Nearest(Feasibility):
    """The nearest weights for fixed multipliers, ready to solve."""

    def __init__(self, weights: Array, q: Array, rate: float) -> None:
        """Minimise the squared distance of W' over the inequality in (X, A)."""
        cp: Any = importlib.import_module("cvxpy")
        n, root = len(weights), np.sqrt(q)
        self.back = root[None, :] / root[:, None]  # W' = back * A, entry by entry
        self.given, self.a = weights, cp.Variable((n, n))
        x = cp.Variable((n, n), symmetric=True)
        side = -(x + self.a.T)
        block = cp.bmat([[2.0 * (1.0 - rate) * x, side], [side.T, 2.0 * np.eye(n)]])
        objective = cp.sum_squares(cp.multiply(self.back, self.a) - weights)
        self.problem = cp.Problem(cp.Minimize(objective), [block >> 0])

    @property
    def distance(self) -> float:
        """From the given weights to the solution, as it is."""
        return float(np.linalg.norm(self.back * self.a.value - self.given))


def _ours(network: RateNetwork) -> tuple[float, certes.Projection]:
    start = time.perf_counter()
    found = certes.project(network, "lure", RATE)
    seconds = time.perf_counter() - start
    if found.result.verdict != "contracting":
        raise AssertionError(found.attempts)
    return seconds, found


def _descent(network: RateNetwork, q: Array) -> tuple[float, float]:
    """Seconds and distance of the descent from multipliers q."""
    start = time.perf_counter()
    leak = UniformLeak.of(network)
    assert leak is not None
    goal, weights = Goal(leak, RATE), network.matrix("W")
    problem = Problem(network, RATE, certes.Keep().structure(network))
    descent = Descent(problem, goal.parametrisation, Frame(np.ones(len(weights)), False))
    a = conic.scaled(weights, q)
    level = conic.best_level(a, goal.family)
    assert level is not None
    point = descent.start(goal.functional.t / level * (1.0 - 1e-6) * a, q)
    assert point is not None
    found, _ = descent.run(point)
    return time.perf_counter() - start, problem.distance(found)


def _main(size: int, rounds: int, other: int) -> object:
    _ours(RateNetwork(gaussian_weights(3, 3.0), slope=(0.0, 1.0)))  # everything is imported from here on
    weights = gaussian_weights(size)
    best = scaling.optimise(weights, conic.Rate(), tolerance=1e-6)
    weights *= RATIO * (1.0 - RATE) / (1.0 - best.level)  # 1 - rate is proportional to the weights
    network = RateNetwork(weights, slope=(0.0, 1.0))
    if not other:
        runs = [_ours(network) for _ in range(rounds)]
        measured: dict[str, Any] = {"whole": [seconds for seconds, _ in runs]}
        found = runs[0][1]
    else:
        runs = [_ours(network) for _ in range(rounds)]
        found = runs[0][1]
        problem = Nearest(weights, best.q, RATE)
        start = time.perf_counter()
        problem.problem.get_problem_data("SCS")
        compilation = time.perf_counter() - start
        distances: list[float] = []

        def solved(**options: Any) -> Answer:
            answer = problem.solve(**options)
            distances.append(problem.distance)
            return answer

        solves = [solved, lambda: solved(eps_abs=1e-4, eps_rel=1e-4)]
        descended = _descent(network, best.q)[1]
        both = contest(lambda: [_descent(network, best.q)[0]], solves, rounds)
        measured = both | {"ours": both["ours"][0], "their_distances": distances, "compilation": compilation}
        measured |= {"whole": [seconds for seconds, _ in runs], "descended": descended}
    return measured | {"distance": found.distance, "shrink": found.shrink_distance}


if __name__ == "__main__":
    print(json.dumps(_main(*map(int, sys.argv[1:]))))
