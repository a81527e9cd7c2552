"""The reference backend: the Lur'e inequality as a semidefinite program, through cvxpy with Clarabel or SCS.

At a level (rate c, or factor rho) the solver maximises the normalised margin t,

    continuous   [[-(P A + A^T P + 2 c P), -(P B + C^T G Q)], [., 2 Q]] >= t I
    map          [[rho^2 P - A^T P A, -(A^T P B + C^T G Q)], [., 2 Q - B^T P B]] >= t I      trace P + trace Q = n + m

with G folded into C. The best level is searched by bisection; what makes it short is a *score*: the best level of the
(P, Q) just found, in closed form, jumps far beyond the level that was probed. A solver's status is never believed: the
score is computed from the numbers alone, and only the verifier says yes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.monitor import Monitor
from certes.errors import MissingExtraError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Point:
    """A metric and multipliers; ``strength`` is the rate, or minus the factor, that they reach (larger is better)."""

    metric: Array
    multipliers: Array
    strength: float = -np.inf


@dataclass(frozen=True, eq=False)
class Inequality:
    """The Lur'e inequality of a normal form x' = A x + B psi(C x), or x+ = the same, psi with slopes in [0, gap].

    Attributes:
        A, B, C: shapes (n, n), (n, m), (m, n); already transposed for a dual proof.
        gap: slopes' gap, shape (m,).
        continuous: levels are rates (strength = c), else factors (strength = -rho).
    """

    A: Array
    B: Array
    C: Array
    gap: Array
    continuous: bool

    def level(self, strength: float) -> float:
        """The rate or factor of a strength."""
        return strength if self.continuous else -strength

    def rescaled(self, state: Array, channel: Array) -> Inequality:
        """The inequality for P^ = D^-1 P D^-1 with D = diag(state), Q^ = E^-1 Q E^-1 with E = diag(channel)."""
        A = self.A * state[:, None] / state[None, :]
        B = self.B * state[:, None] / channel[None, :]
        C = self.C * channel[:, None] / state[None, :]
        return Inequality(A, B, C, self.gap, self.continuous)

    def score(self, metric: Array, multipliers: Array) -> float:
        """The largest strength for given P and Q: a generalised eigenvalue; -inf if there is none."""
        P, q, coupling = metric, multipliers, (self.C.T * (self.gap * multipliers))
        if not (np.isfinite(P).all() and np.isfinite(q).all() and (q > 0).all()):
            return -np.inf
        try:
            if self.continuous:
                row = P @ self.B + coupling
                rest = -(P @ self.A + self.A.T @ P) - 0.5 * (row / q) @ row.T
                return float(0.5 * scipy.linalg.eigh(rest, P, eigvals_only=True, subset_by_index=[0, 0])[0])
            row = self.A.T @ P @ self.B + coupling
            lower = scipy.linalg.cholesky(2.0 * np.diag(q) - self.B.T @ P @ self.B, lower=True)
            half = scipy.linalg.solve_triangular(lower, row.T, lower=True)
            last = len(P) - 1
            grown = self.A.T @ P @ self.A + half.T @ half
            need = scipy.linalg.eigh(grown, P, eigvals_only=True, subset_by_index=[last, last])
            return -float(np.sqrt(max(need[0], 0.0)))
        except (np.linalg.LinAlgError, ValueError):
            return -np.inf

    def ceiling(self, samples: int = 8) -> float:
        """A strength that no metric can beat: that of the slowest of some Jacobians (slopes 0, highest, random)."""
        random = np.random.default_rng(0)
        patterns = [np.zeros_like(self.gap), self.gap]
        patterns += [self.gap * (random.random(len(self.gap)) < 0.5) for _ in range(samples)]
        worst = -np.inf
        with np.errstate(over="ignore", invalid="ignore"):
            for slopes in patterns:
                jacobian = self.A + (self.B * slopes) @ self.C
                if not np.isfinite(jacobian).all():
                    return np.inf  # beyond the float range: nothing is known
                values = np.linalg.eigvals(jacobian)
                worst = max(worst, float(values.real.max() if self.continuous else np.abs(values).max()))
        return -worst


class CvxpyBackend:
    """A cvxpy solver. Capabilities are class attributes; a new backend is a new subclass and a line in the table.

    Attributes:
        name: the name users ask for.
        solver: cvxpy's name of the solver.
        package: the package that must be installed besides cvxpy.
        max_order: largest order n + m of the inequality that is attempted.
        clock: the solver's own option for a time limit in seconds.
        options: fixed options.
    """

    name: ClassVar[str]
    solver: ClassVar[str]
    package: ClassVar[str]
    max_order: ClassVar[int]
    clock: ClassVar[str]
    options: ClassVar[dict[str, Any]]

    def load(self) -> Any:
        """Import cvxpy, and the solver.

        Raises:
            MissingExtraError: one of them is not installed.
        """
        for package in ("cvxpy", self.package):
            try:
                __import__(package)
            except ImportError as error:
                raise MissingExtraError(package, "sdp", f"the backend {self.name!r} of the condition 'lure'") from error
        import cvxpy

        # Inaccurate solutions are scored from their numbers. A lasting filter for this one message, rather than
        # catch_warnings around each solve: that would switch filters under the feet of other threads.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate", category=UserWarning)
        return cvxpy


class ClarabelBackend(CvxpyBackend):
    """Interior point: accurate, for small systems."""

    name = "cvxpy-clarabel"
    solver = "CLARABEL"
    package = "clarabel"
    max_order = 80
    clock = "time_limit"
    options: ClassVar[dict[str, Any]] = {}


class ScsBackend(CvxpyBackend):
    """First order: less accurate, for medium systems."""

    name = "cvxpy-scs"
    solver = "SCS"
    package = "scs"
    max_order = 240
    clock = "time_limit_secs"
    options: ClassVar[dict[str, Any]] = {"eps_abs": 1e-6, "eps_rel": 1e-6, "max_iters": 2500}


BACKENDS: dict[str, type[CvxpyBackend]] = {entry.name: entry for entry in (ClarabelBackend, ScsBackend)}


class Margin:
    """The program "largest margin at a level", compiled once; the level is a parameter (DPP)."""

    def __init__(self, inequality: Inequality, backend: CvxpyBackend, state: Array, channel: Array) -> None:
        """Compile.

        Args:
            inequality: what must hold.
            backend: who solves.
            state: coordinates of the state, shape (n,), in which the metric is expected to be near the identity.
            channel: likewise for the multipliers, shape (m,).
        """
        self.inequality, self.backend, self.state, self.channel = inequality, backend, state, channel
        cp = backend.load()
        self.error: type[Exception] = cp.error.SolverError
        form = inequality.rescaled(state, channel)
        n, m = form.B.shape
        self.P, self.q, margin = cp.Variable((n, n), symmetric=True), cp.Variable(m), cp.Variable()
        self.parameter = cp.Parameter()
        Q = cp.diag(self.q)
        coupling = (form.C.T * form.gap) @ Q
        if form.continuous:
            corner = -(self.P @ form.A + form.A.T @ self.P + self.parameter * self.P)
            row, last = -(self.P @ form.B + coupling), 2 * Q
        else:
            corner = self.parameter * self.P - form.A.T @ self.P @ form.A
            row, last = -(form.A.T @ self.P @ form.B + coupling), 2 * Q - form.B.T @ self.P @ form.B
        block = cp.bmat([[corner, row], [row.T, last]])
        constraints = [
            0.5 * (block + block.T) - margin * np.eye(n + m) >> 0,
            cp.trace(self.P) + cp.sum(self.q) == n + m,
            self.q >= 1e-9,
        ]
        self.problem = cp.Problem(cp.Maximize(margin), constraints)

    def solve(self, strength: float, seconds: float | None) -> Point | None:
        """The largest margin at a level, in the user's coordinates, unscored; None: no numbers came back."""
        level = self.inequality.level(strength)
        self.parameter.value = 2.0 * level if self.inequality.continuous else level * level
        limit = {} if seconds is None else {self.backend.clock: max(seconds, 0.01)}
        try:
            self.problem.solve(solver=self.backend.solver, **self.backend.options, **limit)
        except (self.error, ValueError, ArithmeticError):
            return None
        metric, multipliers = self.P.value, self.q.value
        if metric is None or multipliers is None:
            return None
        metric = 0.5 * (metric + metric.T) * self.state[:, None] * self.state[None, :]
        return Point(np.asarray(metric), np.asarray(np.maximum(multipliers, 1e-12) * self.channel**2))


@dataclass(frozen=True, eq=False)
class Found:
    """Outcome of a search.

    Attributes:
        point: the best point, or None if no solve gave numbers.
        ceiling: no point beats this strength, as far as the probes tell (not rigorous).
        stopped: None, ``"deadline"``, ``"cancelled"`` or ``"solver"``: why the search ended before its tolerance.
    """

    point: Point | None
    ceiling: float
    stopped: str | None


def search(
    program: Margin,
    refine: Callable[[Point], Point | None],
    start: Point,
    monitor: Monitor,
    *,
    target: float | None = None,
    tolerance: float = 1e-4,
) -> Found:
    """The best strength, to a relative tolerance.

    A probe at the best strength known usually improves it much (the largest margin there makes a good ratio); when it
    no longer does, a probe one tolerance above confirms that nothing is left, and bisection takes over where it fails.

    Args:
        program: the inequality.
        refine: turns a point without a score into a scored one (None: worthless).
        start: a first scored point (strength -inf: none).
        monitor: limits, and who is told about each probe.
        target: stop as soon as this strength is reached, or known to be out of reach.
        tolerance: relative to the larger of the two bounds.
    """
    best, high = start, program.inequality.ceiling()
    low = start.strength if np.isfinite(start.strength) else high - 4.0 * max(abs(high), 1.0)
    probe, repeat = 0.5 * (low + high) if target is None else target, True
    if target is not None and target > high:
        return Found(best if np.isfinite(best.strength) else None, high, None)
    stopped: str | None = None
    for count in range(40):
        if (why := monitor.why) is not None:
            stopped = why
            break
        monitor.say(f"lure: solve {count + 1}, {_words(program.inequality, low, high)}")
        raw = program.solve(probe, monitor.left)
        found = None if raw is None else refine(raw)
        if found is None and raw is None:
            stopped = monitor.why or "solver"
            break
        before = low
        if found is not None and found.strength > best.strength:
            best, low = found, max(low, found.strength)
        if found is None or found.strength < probe:
            high = min(high, max(probe, low))
        unit = tolerance * max(abs(low), abs(high))
        if high - low <= unit or (target is not None and (low >= target or high < target)):
            break
        if low > before + 0.25 * unit and repeat:
            probe = low  # still climbing: ask for the largest margin where we stand
        elif repeat:
            probe, repeat = low + unit, False
        else:
            probe = 0.5 * (low + high)
    return Found(best if np.isfinite(best.strength) else None, high, stopped)


def _words(inequality: Inequality, low: float, high: float) -> str:
    name = "rate" if inequality.continuous else "factor"
    return f"{name} between {inequality.level(low):.5g} and {inequality.level(high):.5g}"
