"""The alternative to our engines: the Lur'e inequality at one level as a feasibility problem, through cvxpy.

Unknowns are P, symmetric, and q, the diagonal of Q; the block must be positive semidefinite and q >= 1, which excludes
the solution zero. P > 0 is left out because the block's corner implies it. The solver's own clock counts, setup and
solution, without cvxpy's compilation.

It gets the number of BLAS threads with which SCS is faster in a probe of a few iterations; ours has one, as wherever
Certes certifies (:mod:`certes.engines.threads`).
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from certes.engines.sdp import Inequality

from benchmarks import child
from benchmarks.measure import Spread
from benchmarks.problems import Array
from benchmarks.report import Row

#: Seconds that a solver gets; iterations of SCS in a probe.
LIMIT, PROBE = 400.0, 50


@dataclass(frozen=True)
class Answer:
    """One solve.

    Attributes:
        name: solver and setting.
        seconds: setup and solution by the solver's own clock.
        iterations: how many it took.
        status: the solver's, in cvxpy's words.
        capped: whether it stopped at its time limit, so that ``seconds`` is a lower bound.
    """

    name: str
    seconds: float
    iterations: int
    status: str
    capped: bool

    @property
    def words(self) -> str:
        """Name and outcome."""
        if self.capped:
            return f"{self.name}, stopped at {self.seconds:.0f} s: at least"
        return f"{self.name}, {self.iterations} iterations, {self.status}"


class Feasibility:
    """The inequality at a rate, ready to solve."""

    def __init__(self, corner: Callable[[Any], Any], row: Callable[[Any, Any], Any], size: int) -> None:
        """Write [[corner(P), -row(P, Q)], [., 2 Q]] >= 0, Q >= I."""
        cp: Any = importlib.import_module("cvxpy")  # only here: it takes a second
        metric, multipliers = cp.Variable((size, size), symmetric=True), cp.Variable(size)
        coupling = -row(metric, cp.diag(multipliers))
        block = cp.bmat([[corner(metric), coupling], [coupling.T, 2.0 * cp.diag(multipliers)]])
        self.problem: Any = cp.Problem(cp.Minimize(0), [block >> 0, multipliers >= 1.0])

    @classmethod
    def uniform(cls, weights: Array, rate: float) -> Feasibility:
        """x' = -x + phi(W x), slopes in [0, 1]; rows and columns of P scaled so that the corner is 2 P."""
        root = (1.0 - rate) ** -0.5
        return cls(lambda P: 2.0 * P, lambda P, Q: root * (P + weights.T @ Q), len(weights))

    @classmethod
    def general(cls, form: Inequality, rate: float) -> Feasibility:
        """Any normal form in continuous time with as many channels as states; A + rate I has to be Hurwitz."""
        shifted = form.A + rate * np.eye(len(form.A))
        lift = form.C.T * form.gap
        return cls(lambda P: -(P @ shifted + shifted.T @ P), lambda P, Q: P @ form.B + lift @ Q, len(shifted))

    def solve(self, solver: str = "SCS", limit: float = LIMIT, **options: Any) -> Answer:
        """One solve with the defaults of cvxpy, but for a time limit and the options given."""
        clock = {"SCS": "time_limit_secs", "CLARABEL": "time_limit"}[solver]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.problem.solve(solver=solver, warm_start=False, **{clock: limit}, **options)
        stats = self.problem.solver_stats
        seconds = stats.solve_time + (stats.setup_time or 0.0)
        name = ", ".join([solver, *(f"{key} {value:g}" for key, value in options.items())])
        return Answer(name, seconds, int(stats.num_iters), str(self.problem.status), seconds >= 0.99 * limit)


def contest(
    ours: Callable[[], Sequence[float]], others: Sequence[Callable[[], Answer]], rounds: int
) -> dict[str, list[Any]]:
    """Ours half before and half after the others, so that a slow spell of the machine hits both.

    Args:
        ours: seconds of our stages.
        others: the solves.
        rounds: how often ours is run; it should have run before, to warm up.
    """
    times = [ours() for _ in range((rounds + 1) // 2)]
    answers = [asdict(other()) for other in others]
    times += [ours() for _ in range(rounds // 2)]
    return {"ours": [list(stage) for stage in zip(*times, strict=True)], "others": answers}


def probe(problem: Feasibility) -> float:
    """Seconds of a few iterations of SCS, with the threads of this process."""
    problem.solve(max_iters=2)
    return problem.solve(max_iters=PROBE).seconds


@dataclass(frozen=True)
class Threads:
    """How many BLAS threads the alternative gets.

    Attributes:
        count: with these SCS is faster in the probe.
        seconds: number of threads -> seconds of the probe.
    """

    count: int
    seconds: dict[int, float]

    @classmethod
    def of(cls, module: str, size: int, most: int = os.cpu_count() or 1) -> Threads:
        """Probe with one thread and with as many as there are cores (or ``most``)."""
        seconds = {count: child.run(module, "probe", size, threads=count) for count in sorted({1, most})}
        return cls(min(seconds, key=lambda count: seconds[count]), seconds)

    @property
    def words(self) -> str:
        """For the table."""
        return f"BLAS threads: 1, alternative {self.count}"

    def rows(self, label: str) -> Iterator[Row]:
        """All cores against one thread."""
        few, many = min(self.seconds), max(self.seconds)
        if many > few:
            before, after = Spread.of([self.seconds[few]]), Spread.of([self.seconds[many]])
            what = f"probe: SCS, {PROBE} iterations, {many} BLAS threads against {few}"
            yield Row(what, label, Spread.of([after.median / before.median]), "x", None, after, before, "1 thread")


def faster(
    what: str, label: str, ours: Sequence[float], answer: Answer, aim: float | None = None, because: str = ""
) -> Row:
    """How many times faster ours was, run by run, than one solve."""
    speed = Spread.of([answer.seconds / seconds for seconds in ours])
    other = Spread.of([answer.seconds])
    note = asdict(answer)
    return Row(what, label, speed, "times faster", aim, Spread.of(ours), other, answer.words, because, note)
