"""Run a network in float64, in the user's own terms: evidence that anyone can look at, never a proof."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.errors import CertesError, InputError
from certes.proofs import InstabilityWitness
from certes.systems import HopfieldNetwork, LureSystem, System

Array = NDArray[np.float64]

#: Beyond this product of horizon and fastest rate an explicit integrator is given up for an implicit one.
_STIFF = 1e4


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A sampled trajectory.

    Attributes:
        t: times in the unit of tau (continuous) or numbers of steps (a map), shape (k,).
        x: states, shape (k, n).
    """

    t: Array
    x: Array


@dataclass(frozen=True, eq=False)
class Replay:
    """Two trajectories of one network under one constant input.

    Attributes:
        first, second: the trajectories, sampled at the same times.
        distance: Euclidean distance between them, shape (k,).
    """

    first: Trajectory
    second: Trajectory
    distance: Array

    @property
    def ratio(self) -> float:
        """Distance at the end over distance at the start; nan if the starts coincide or a trajectory overflows."""
        with np.errstate(all="ignore"):
            return float(self.distance[-1] / self.distance[0]) if self.distance[0] > 0 else math.nan


@dataclass(frozen=True)
class InputRange:
    """Whether a constant input can be produced through a network's own input weights.

    Attributes:
        size: Euclidean norm of the input u.
        largest: largest modulus of an entry of u.
        residual: Euclidean distance of u - bias from the range of the input matrix; None if that matrix is unknown.
        relative: ``residual`` over the norm of u - bias (0 if both vanish); None if the matrix is unknown.
    """

    size: float
    largest: float
    residual: float | None
    relative: float | None

    @property
    def reachable(self) -> bool | None:
        """Whether u lies in the range up to 1e-9, relative; None if the input matrix is unknown."""
        return None if self.relative is None else self.relative <= 1e-9


def simulate(
    system: System,
    start: Array,
    input: Array,
    horizon: float,
    *,
    slopes: Array | None = None,
    samples: int = 200,
) -> Trajectory:
    """Trajectory under a constant input, float64: the map iterated, or the differential equation integrated.

    Args:
        system: the network, dense.
        start: initial state, shape (n,).
        input: constant input u: shape (n,) for rate and hopfield; (m,) for lure (inside phi, v = 0).
        horizon: time in the unit of tau, or number of steps (a whole number) for a map.
        slopes: for a system given by a bare slope interval, the member phi_i(s) = slopes_i s to run, shape (m,).
        samples: number of intervals between the stored states (a map stores at most every step).

    Raises:
        InputError: wrong shapes, a horizon that is not positive, no nonlinearity to run, or sparse weights.
        CertesError: the integrator gave up.
    """
    flow = _Flow(system, _column("input", input, _inputs(system)), slopes)
    x = _column("start", start, system.size)
    if not (math.isfinite(horizon) and horizon > 0) or samples < 1:
        raise InputError("horizon", f"{horizon} with {samples} samples", "positive finite numbers", "not-positive")
    return _integrate(flow, x, horizon, samples) if system.continuous else _iterate(flow, x, horizon, samples)


def replay(system: System, witness: InstabilityWitness, *, samples: int = 200) -> Replay:
    """Run both starts of a witness under its input, up to its horizon.

    Raises:
        InputError: as :func:`simulate`.
        CertesError: the integrator gave up.
    """
    slopes = None if system.slope.activation is not None else witness.slopes
    first, second = (
        simulate(system, start, witness.input, witness.horizon, slopes=slopes, samples=samples)
        for start in (witness.start, witness.start_other)
    )
    with np.errstate(all="ignore"):
        return Replay(first, second, np.linalg.norm(first.x - second.x, axis=1))


@np.errstate(all="ignore")  # inputs near the end of the float range
def input_in_range(system: System, witness: InstabilityWitness) -> InputRange:
    """Size of a witness' input, and its distance from range(input_matrix) + bias (least squares).

    Contraction quantifies over every input; what a narrow input matrix can produce may be less, so a 'no' says this
    too.
    """
    u = witness.input
    size, largest = float(np.linalg.norm(u)), float(np.abs(u).max())
    if system.input_matrix is None:
        return InputRange(size, largest, None, None)
    target = u if system.bias is None else u - system.bias
    matrix = np.asarray(system.input_matrix, dtype=np.float64)
    solution = np.linalg.lstsq(matrix, target, rcond=None)[0]
    residual, norm = float(np.linalg.norm(target - matrix @ solution)), float(np.linalg.norm(target))
    return InputRange(size, largest, residual, residual / norm if norm > 0 else 0.0)


def _inputs(system: System) -> int:
    return len(system.slope.lower) if isinstance(system, LureSystem) else system.size


def _column(name: str, given: Array, size: int) -> Array:
    array = np.asarray(given, dtype=np.float64)
    if array.shape != (size,):
        raise InputError(name, f"shape {array.shape}", f"shape {(size,)}", "wrong-shape")
    return array


class _Flow:
    """The right-hand side f of x' = f(x) (or of x+ = f(x) for a lure map), and its Jacobian."""

    def __init__(self, system: System, u: Array, slopes: Array | None) -> None:
        self.system, self.u = system, u
        self.phi, self.slope = _nonlinearity(system, slopes)
        if isinstance(system, LureSystem):
            self.A, self.B, self.C = (system.matrix(role) for role in "ABC")
        else:
            self.W = system.matrix("W")

    def __call__(self, x: Array) -> Array:
        system, u = self.system, self.u
        if isinstance(system, LureSystem):
            return np.asarray(self.A @ x + self.B @ self.phi(self.C @ x + u))
        if isinstance(system, HopfieldNetwork):
            return np.asarray((-x + self.W @ self.phi(x) + u) / system.tau)
        return np.asarray((-x + self.phi(self.W @ x + u)) / system.tau)

    def jacobian(self, x: Array) -> Array:
        system, u = self.system, self.u
        if isinstance(system, LureSystem):
            return np.asarray(self.A + (self.B * self.slope(self.C @ x + u)) @ self.C)
        if isinstance(system, HopfieldNetwork):
            inner = self.W * self.slope(x)
        else:
            inner = self.slope(self.W @ x + u)[:, None] * self.W
        return np.asarray((inner - np.eye(system.size)) / system.tau[:, None])

    def next(self, x: Array) -> Array:
        """One step of the map."""
        return self(x) if self.system.discrete else x + (self.system.step or 0.0) * self(x)


def _nonlinearity(system: System, slopes: Array | None) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    entry = system.slope.activation
    if entry is not None:
        return entry.function, entry.derivative
    if slopes is None:
        raise InputError(
            "slopes", "none, with a bare slope interval", "slopes of a member of the class", "missing-value"
        )
    member = _column("slopes", slopes, len(system.slope.lower))
    return (lambda s: member * s), (lambda s: member)


def _iterate(flow: _Flow, x: Array, horizon: float, samples: int) -> Trajectory:
    steps = round(horizon)
    if steps != horizon:
        raise InputError("horizon", f"{horizon} steps", "a whole number of steps", "invalid-value")
    kept = np.unique(np.linspace(0, steps, min(samples, steps) + 1).round().astype(int))
    states = np.empty((len(kept), len(x)))
    states[0], row = x, 1
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(1, steps + 1):
            x = flow.next(x)
            if k == kept[row]:
                states[row], row = x, row + 1
    return Trajectory(kept.astype(np.float64), states)


def _integrate(flow: _Flow, x: Array, horizon: float, samples: int) -> Trajectory:
    times = np.linspace(0.0, horizon, samples + 1)
    with np.errstate(all="ignore"):
        fastest = float(np.abs(flow.jacobian(x)).sum(axis=1).max())
        if not math.isfinite(fastest * horizon):
            raise CertesError("the trajectory could not be integrated: the weights overflow")
        stiff = horizon * fastest > _STIFF
        method: dict[str, Any] = (
            {"method": "Radau", "jac": lambda t, y: flow.jacobian(y)} if stiff else {"method": "DOP853"}
        )
        from scipy.integrate import solve_ivp  # half of the time that a verb takes to start, and few simulate

        scale = max(float(np.abs(x).max()), 1e-3)
        options = {"t_eval": times, "rtol": 1e-10, "atol": 1e-14 * scale, **method}
        try:
            solution = solve_ivp(lambda t, y: flow(y), (0.0, horizon), x, **options)
        except (ValueError, np.linalg.LinAlgError) as error:
            raise CertesError(f"the trajectory could not be integrated: {error}") from error
    if not solution.success:
        raise CertesError(f"the trajectory could not be integrated: {solution.message}")
    return Trajectory(times, np.ascontiguousarray(solution.y.T))
