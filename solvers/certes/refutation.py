"""Refutation by one unstable equilibrium: slopes, the input that attains them, the proof's numbers, parting starts.

If some attained Jacobian J(D) has an eigenvalue beyond the stability border, and an equilibrium with exactly those
slopes exists under a constant input, the network contracts in no norm: trajectories near that equilibrium part. The
search for D is :mod:`certes.engines.ascent`; this module turns what it finds into an
:class:`~certes.proofs.InstabilityWitness`.
Everything here is float arithmetic and proves nothing: :func:`certes.verify.verify_instability` decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.activations import DERIVATIVE_ERROR, Activation
from certes.engines.ascent import ENOUGH, search
from certes.engines.monitor import Monitor
from certes.engines.slopes import LEAST, Linearisation, Mode, excess, isolated, leading_mode
from certes.errors import CertesError
from certes.proofs import InstabilityWitness
from certes.systems import HopfieldNetwork, LureSystem, System
from certes.verify.instability import Evidence, distance, trajectories

Array = NDArray[np.float64]

#: How far two starts must part, relative to their first distance, for a witness to be given out; and what is aimed at.
LEAST_PARTING, PARTING = 10.5, 100.0
#: Half the first distance of the two starts, seen by the nonlinearities (their scale is 1).
_NUDGE = 1e-6
#: Shares of the slope interval that the slopes stay away from ends a smooth activation reaches only at infinity.
_INSETS = (1e-2, 1e-3, 1e-5, 1e-8)

_EPS = float(np.finfo(float).eps)


def refute(
    system: System,
    seconds: float | None = None,
    *,
    budget: int | None = None,
    stop: Callable[[], bool] | None = None,
) -> InstabilityWitness | None:
    """Look for an unstable equilibrium; None says nothing about the network.

    Args:
        system: the network. Sparse weights are not searched.
        seconds: wall-clock limit of the search, and again of making a witness (default: none; the answer is then
            deterministic).
        budget: number of eigenvalue problems the search may solve (default: seconds of work at any size).
        stop: asked between two pieces of work, at any moment and perhaps from another thread's flag; True: give up.

    Returns:
        A witness whose replay has parted by at least :data:`LEAST_PARTING`, for the verifier to judge; or None.
        A general Lur'e system whose linear part admits no equilibrium under v = 0 is searched at the origin only.
    """
    if system.is_sparse:
        return None
    searching = Monitor(seconds, stop)
    mode = fastest(system, budget=budget, stop=lambda: searching.over)
    making = Monitor(seconds, stop)
    return None if mode is None else witness_at(system, mode, stop=lambda: making.over)


def fastest(
    system: System,
    *,
    budget: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    enough: float = ENOUGH,
    starts: Sequence[Array] = (),
) -> Mode | None:
    """The fastest growing mode that the search finds among the attained slopes, stable or not; None if it finds none.

    Args: see :func:`certes.engines.ascent.search`.
    """
    entry = system.slope.activation
    vertices = entry is not None and entry.attained == "ends"
    problem = Linearisation.of(system)
    with np.errstate(all="ignore"):  # extreme weights overflow here; every result is checked to be finite
        try:
            return search(problem, vertices=vertices, budget=budget, stop=stop, enough=enough, starts=starts)
        except (np.linalg.LinAlgError, ValueError):
            return None


def witness_at(system: System, mode: Mode, *, stop: Callable[[], bool] | None = None) -> InstabilityWitness | None:
    """The witness that a mode beyond the stability border gives, or None.

    Args:
        system: the network, dense.
        mode: slopes and growth, of this system.
        stop: asked between two pieces of work; True: give up.
    """
    problem = Linearisation.of(system)
    with np.errstate(all="ignore"):
        try:
            modes = (entry for entry in (mode, isolated(problem, mode)) if entry is not None)
            for at in itertools.chain.from_iterable(_equilibria(system, problem, entry) for entry in modes):
                if stop is not None and stop():
                    return None
                if (witness := _witness(system, problem, at, stop)) is not None:
                    return witness
            return None
        except (np.linalg.LinAlgError, CertesError, FloatingPointError, ValueError):
            return None


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """x with constant input u, and the mode of the Jacobian there.

    Attributes:
        points: arguments of phi, shape (m,) (0 for a bare slope interval).
        state: x, shape (n,).
        input: u, shape (n,) (rate, hopfield) or (m,) (lure).
        mode: slopes at the equilibrium and what grows there.
    """

    points: Array
    state: Array
    input: Array
    mode: Mode


def _equilibria(system: System, problem: Linearisation, mode: Mode) -> Iterator[Equilibrium]:
    """Unstable equilibria at, or near, the slopes of a mode; the most robust first."""
    if excess(problem, mode) <= LEAST:
        return
    entry = system.slope.activation
    zero = np.zeros_like(mode.slopes)
    if entry is None:
        points = [zero]
    else:
        found = [points_of(entry, mode.slopes, inset) for inset in _INSETS]
        points = [*(found if entry.attained == "interior" else found[:1]), zero]
    for s in points:
        at = mode if entry is None else leading_mode(problem, entry.derivative(s))
        if at is not None and excess(problem, at) > LEAST:
            x, u = place(system, s)
            if _rests(system, s, x, u):
                yield Equilibrium(s, x, u, at)


def points_of(entry: Activation, slopes: Array, inset: float) -> Array:
    """Arguments s with phi'(s) at, or close to, given slopes; shape as ``slopes``.

    Piecewise linear: s lies 0.5 or more inside a linear piece whose slope is nearest. Smooth: bisection of phi' between
    an argument where it is largest and one where it is smallest (phi' is continuous: no monotonicity is needed). Ends
    of the interval that are reached only at infinity are kept away from by ``inset`` times the interval's length.
    """
    if entry.attained == "ends":
        inside = np.array([0.0, 1.0, -1.0, 2.0, -2.0])
        value = entry.derivative(inside)
        flat = (entry.derivative(inside - 0.5) == value) & (entry.derivative(inside + 0.5) == value)
        inside, value = inside[flat], value[flat]
        return np.asarray(inside[np.argmin(np.abs(slopes[:, None] - value[None, :]), axis=1)])
    size = np.concatenate([np.arange(0.0, 6.0, 2.0**-10), np.geomspace(6.0, 1e5, 400)])
    grid = np.stack([size, -size], axis=1).ravel()  # by modulus: ties go to the smallest argument
    value = entry.derivative(grid)
    low, high = int(np.argmin(value)), int(np.argmax(value))
    room = inset * (value[high] - value[low])
    least = value[low] + (room if abs(grid[low]) > 6.0 else 0.0)
    most = value[high] - (room if abs(grid[high]) > 6.0 else 0.0)
    wanted = np.clip(slopes, least, most)
    below, above = np.full_like(wanted, grid[low]), np.full_like(wanted, grid[high])
    for _ in range(80):
        middle = 0.5 * (below + above)
        under = entry.derivative(middle) < wanted
        below, above = np.where(under, middle, below), np.where(under, above, middle)
    return np.where(wanted >= value[high], grid[high], above)


def place(system: System, points: Array) -> tuple[Array, Array]:
    """State x and constant input u with an equilibrium at x whose nonlinearities see ``points``.

    rate: x = phi(s), u = s - W x. hopfield: x = s, u = s - W phi(s). lure: u = s - C x with A x + B phi(s) = 0 (map:
    = x), least squares. The same for every tau and step. A bare slope interval has phi(0) = 0: x = 0, u = 0.
    """
    entry = system.slope.activation
    value = points * 0.0 if entry is None else entry.function(points)
    if isinstance(system, LureSystem):
        A = system.matrix("A")
        rest = A - np.eye(system.size) if system.discrete else A
        drive = system.matrix("B") @ value
        x = np.linalg.lstsq(rest, -drive, rcond=None)[0] if drive.any() else np.zeros(system.size)
        return np.asarray(x), np.asarray(points - system.matrix("C") @ x)
    W = system.matrix("W")
    x = points if isinstance(system, HopfieldNetwork) else value
    return x, np.asarray(points - W @ value)


def _rests(system: System, points: Array, x: Array, u: Array) -> bool:
    """Whether x is an equilibrium in float64, too.

    Weights may be too large for that, and the linear part of a lure system may admit no equilibrium with v = 0.
    """
    entry = system.slope.activation
    if isinstance(system, HopfieldNetwork) or entry is None:
        return bool(np.isfinite(u).all())
    seen = system.matrix("C" if isinstance(system, LureSystem) else "W") @ x + u
    if not (np.abs(seen - points) <= 1e-8 * (1.0 + np.abs(points))).all():
        return False
    if not isinstance(system, LureSystem):
        return True
    A, drive = system.matrix("A"), system.matrix("B") @ entry.function(points)
    rest = A - np.eye(system.size) if system.discrete else A
    size = float((np.abs(drive) + np.abs(rest) @ np.abs(x)).max())
    return float(np.abs(rest @ x + drive).max()) <= 1e-11 * size


def _witness(
    system: System, problem: Linearisation, at: Equilibrium, stop: Callable[[], bool] | None
) -> InstabilityWitness | None:
    """The proof's numbers and the parting starts of one equilibrium."""
    numbers = inertia_numbers(problem, at.mode, exact=system.slope.activation is None, stop=stop)
    if numbers is None:
        return None
    for nudge, parting in itertools.product((1.0, 1e-3, 1e2), (PARTING, PARTING**1.5, 1.5 * LEAST_PARTING)):
        step, horizon = _nudge(problem, at, nudge), _horizon(problem, at.mode, parting)
        witness = InstabilityWitness(
            points=at.points,
            slopes=at.mode.slopes,
            lyapunov=numbers.lyapunov,
            direction=numbers.direction,
            growth=numbers.growth,
            input=at.input,
            start=at.state + step,
            start_other=at.state - step,
            horizon=horizon,
        )
        if _parted(Evidence(system, witness), stop):
            return witness
    return None


def _parted(evidence: Evidence, stop: Callable[[], bool] | None) -> bool:
    """Whether the verifier's replay will part by :data:`LEAST_PARTING`."""
    final = 0.0
    for states in trajectories(evidence):
        if stop is not None and stop():
            return False
        final = distance(states)
    return final >= LEAST_PARTING * distance(evidence.starts) > 0.0


def _nudge(problem: Linearisation, at: Equilibrium, factor: float) -> Array:
    """Half the difference of the two starts: the real part of the leading eigenvector at its largest phase."""
    x = at.mode.eigenvector
    phase = np.exp(-0.5j * np.angle((x * x).sum()))
    direction = np.real(phase * x)
    direction = direction / np.abs(direction).max()
    seen = max(1.0, float(np.abs(problem.C @ direction).max()))
    least = 1e6 * _EPS * float(np.abs(at.state).max())
    return np.asarray(direction * max(_NUDGE * factor / seen, least))


def _horizon(problem: Linearisation, mode: Mode, parting: float) -> float:
    """Time or steps after which the linearised difference has grown by a factor."""
    if problem.continuous:
        return math.log(parting) / mode.growth
    return float(max(1, math.ceil(math.log(parting) / math.log(mode.growth))))


@dataclass(frozen=True, eq=False)
class InertiaNumbers:
    """X, v and sigma of docs/theory.md section 6, with the relative margins that the float computation sees."""

    lyapunov: Array
    direction: Array
    growth: float
    margin: float


def inertia_numbers(
    problem: Linearisation, mode: Mode, *, exact: bool = False, stop: Callable[[], bool] | None = None
) -> InertiaNumbers | None:
    """Numbers that prove an eigenvalue beyond the border: X symmetric, v, and a growth sigma.

    Continuous: K = J - sigma I, -(K^T X + X K) > 0; a map: K = J / sigma, X - K^T X K > 0; both: v^T X v < 0. X is the
    solution of the Lyapunov (Stein) equation with right-hand side I in balanced coordinates; sigma is chosen among the
    gaps of the spectrum for the largest margin (the equation is singular where lambda_i + lambda_j = 2 sigma).

    Args:
        problem: the network's linearisation.
        mode: slopes whose growth is beyond the border.
        exact: the slopes are exact (a bare slope interval), so X need not tolerate the error of phi'.
        stop: asked between two pieces of work; True: give up.

    Returns:
        The numbers with the best margin, or None if none has a positive one.
    """
    jacobian = problem.jacobian(mode.slopes)
    balanced, scaling = _balance(jacobian)
    error = 0.0 if exact else 2.0 * DERIVATIVE_ERROR
    radius = error * (np.abs(problem.B) @ np.abs(problem.C))
    terms = np.abs(problem.A) + (np.abs(problem.B) * np.abs(mode.slopes)) @ np.abs(problem.C)
    radius = np.asarray(radius + 4.0 * _EPS * terms, dtype=np.float64) * (scaling[None, :] / scaling[:, None])
    best: InertiaNumbers | None = None
    values = np.linalg.eigvals(balanced)
    for growth in _growths(problem, values):
        if stop is not None and stop():
            return None
        found = _solve(problem.continuous, balanced, radius, growth)
        if found is not None and (best is None or found.margin > best.margin):
            best = found
            if best.margin > 1e-5:
                break
    if best is None:
        return None
    lyapunov = best.lyapunov / scaling[:, None] / scaling[None, :]
    return InertiaNumbers(0.5 * (lyapunov + lyapunov.T), best.direction * scaling, best.growth, best.margin)


def _balance(matrix: Array) -> tuple[Array, Array]:
    """S^-1 M S with rows and columns of like norms, and the diagonal of S (powers of two)."""
    balanced, (scaling, _) = scipy.linalg.matrix_balance(matrix, permute=False, separate=True)
    return np.asarray(balanced, dtype=np.float64), np.asarray(scaling, dtype=np.float64)


def _growths(problem: Linearisation, values: NDArray[np.inexact[Any]]) -> list[float]:
    """Candidates for sigma: middles of the widest gaps of the spectrum beyond the border, then fixed shares."""
    size = values.real if problem.continuous else np.abs(values)
    marks = np.unique(np.concatenate([[problem.border], size[size > problem.border]]))
    width = np.diff(marks)
    order = np.argsort(-width, kind="stable")[:6]
    top = float(marks[-1])
    shares = [problem.border + share * (top - problem.border) for share in (0.5, 0.3, 0.7, 0.1, 0.9)]
    middles = [float(0.5 * (marks[k] + marks[k + 1])) for k in order]
    inside = [growth for growth in [*middles, *shares] if problem.border <= growth < top]
    return [growth for growth in inside if _solvable(problem.continuous, values, growth)]


def _solvable(continuous: bool, values: NDArray[np.inexact[Any]], growth: float) -> bool:
    """Whether no two eigenvalues cancel in the Lyapunov (Stein) equation at a sigma."""
    if continuous:
        shifted = values - growth
        return bool(np.abs(shifted[:, None] + shifted[None, :]).min() > 1e-10 * np.abs(shifted).max())
    ratio = values / growth
    return bool(np.abs(1.0 - ratio[:, None] * ratio[None, :]).min() > 1e-10 and np.abs(1.0 + ratio).min() > 1e-10)


def _solve(continuous: bool, jacobian: Array, radius: Array, growth: float) -> InertiaNumbers | None:
    """X, v at one sigma, in the coordinates given; None if the margin is not positive."""
    eye = np.eye(len(jacobian))
    if continuous:
        scale = 2.0 ** -math.frexp(float(np.abs(jacobian - growth * eye).max()))[1]
        K = scale * (jacobian - growth * eye)
        solution = scipy.linalg.solve_continuous_lyapunov(K.T, -eye)
    else:
        scale, K = 1.0 / growth, jacobian / growth
        solution = scipy.linalg.solve_discrete_lyapunov(K.T, eye)
    if not np.isfinite(solution).all():
        return None
    X: Array = np.asarray(0.5 * (solution + solution.T), dtype=np.float64)
    X = np.ldexp(
        X, -math.frexp(float(np.abs(X).max()))[1]
    )  # the sign is what counts: keep away from over- and underflow
    _, vectors = np.linalg.eigh(X)
    direction = vectors[:, 0]
    size = np.abs(direction) @ np.abs(X) @ np.abs(direction)
    descent = -float(direction @ X @ direction / size)
    left = _definiteness(continuous, K, X, scale * radius)
    return InertiaNumbers(X, direction, growth, min(left, descent)) if left > 0.0 and descent > 1e-9 else None


def _definiteness(continuous: bool, K: Array, X: Array, radius: Array) -> float:
    """Smallest eigenvalue of the equilibrated block, less twice what the errors of K and of rounding can take away."""
    size, product = len(K), np.abs(X) @ np.abs(K)
    if continuous:
        block = -(K.T @ X + X @ K)
        error = radius.T @ np.abs(X) + np.abs(X) @ radius
    else:
        block = X - K.T @ X @ K
        error = radius.T @ product + product.T @ radius + size * _EPS * (np.abs(K).T @ product)
    diagonal = np.diag(block)
    if not (diagonal > 0).all():
        return 0.0
    equal = 1.0 / np.sqrt(diagonal)
    least = float(np.linalg.eigvalsh(block * equal[:, None] * equal[None, :])[0])
    lost = float((error * equal[:, None] * equal[None, :]).sum(axis=1).max()) + 4.0 * size**2 * _EPS
    return least - 2.0 * lost
