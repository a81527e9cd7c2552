"""Refutation by switching: a periodic input whose periodic orbit is unstable, where no single equilibrium is.

The search for slopes and times is :mod:`certes.engines.switching`; this module finds arguments of phi with those
slopes, the orbit, the proof's numbers and two starts that part. What it gives out, the verifier has accepted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.monitor import Monitor
from certes.engines.slopes import Linearisation, Mode, leading_mode
from certes.engines.switching import LARGEST, Cycle, search, tuned
from certes.errors import CertesError
from certes.proofs import SwitchingWitness
from certes.refutation import inertia_numbers, points_of
from certes.systems import System
from certes.verify.switching import (
    Switching,
    direction,
    lyapunov,
    measured_input,
    monodromy,
    steps_of,
    verify_switching,
)

Array = NDArray[np.float64]

#: Shares of the slope interval that the slopes stay away from ends a smooth activation reaches only at infinity.
_INSETS = (5e-2, 1e-2, 1e-3, 1e-5)
#: Durations of the ramps, as shares of what the growth of one period would pay for.
_RAMPS = (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
#: Half the first distance of the two starts, and how far apart they are to end.
_NUDGES, _PARTINGS = (1e-6, 1e-8, 1e-4), (100.0, 15.0)
#: The longest replay, in steps.
_LONGEST = 60_000


def refute_by_switching(
    system: System, seconds: float | None = None, *, stop: Callable[[], bool] | None = None
) -> SwitchingWitness | None:
    """Look for a switching between slopes under which trajectories part; None says nothing about the network.

    Args:
        system: the network. Sparse weights and networks beyond :data:`certes.engines.switching.LARGEST` states are not
            searched.
        seconds: wall-clock limit (default: none; the search is then deterministic).
        stop: asked between two pieces of work; True gives up.

    Returns:
        A witness that :func:`certes.verify.switching.verify_switching` accepts, or None.
    """
    if system.is_sparse or system.size > LARGEST:
        return None
    monitor = Monitor(seconds, stop)
    problem = Linearisation.of(system)
    with np.errstate(all="ignore"):  # extreme weights overflow; every result is checked
        try:
            cycle = search(problem, stop=lambda: monitor.over)
            if cycle is None:
                return None
            drafts = _drafts(system, problem, cycle, monitor)
            witnesses = (witness for draft, mode in drafts for witness in _parting(system, problem, draft, mode))
            return next((witness for witness in witnesses if not monitor.over and _accepted(system, witness)), None)
        except (np.linalg.LinAlgError, CertesError, FloatingPointError, ValueError):
            return None


def _drafts(
    system: System, problem: Linearisation, cycle: Cycle, monitor: Monitor
) -> Iterator[tuple[SwitchingWitness, Mode]]:
    """Witnesses that only lack two starts, the smallest inputs first, each with the leading mode of its period map."""
    for points, slopes in _attained(system, cycle.slopes):
        there = tuned(problem, slopes, cycle.durations, stop=lambda: monitor.over)
        if there is None or there.growth <= 0.0:
            continue
        for ramp in _ramps(system, problem, there):
            if not monitor.over and (found := _draft(system, problem, points, there, ramp)) is not None:
                yield found


def _accepted(system: System, witness: SwitchingWitness) -> bool:
    """Whether the verifier takes it, and the replay is short."""
    return (
        steps_of(Switching(system, witness)) * witness.periods <= _LONGEST and verify_switching(system, witness).valid
    )


def _attained(system: System, slopes: Array) -> Iterator[tuple[Array, Array]]:
    """Arguments of phi and their slopes, shapes (k, m), at or near the slopes of a cycle; small arguments first."""
    entry = system.slope.activation
    if entry is None:
        yield np.broadcast_to(np.arange(len(slopes), dtype=np.float64)[:, None], slopes.shape), slopes
        return
    for inset in _INSETS if entry.attained == "interior" else _INSETS[:1]:
        points = points_of(entry, slopes.ravel(), inset).reshape(slopes.shape)
        yield points, np.asarray(entry.derivative(points))


def _ramps(system: System, problem: Linearisation, cycle: Cycle) -> Iterator[float]:
    """Durations of the ramps to try: 0 if the arguments of phi may jump."""
    if system.form != "hopfield" or not system.continuous:
        yield 0.0
        return
    reach = np.abs(problem.A) + (np.abs(problem.B) * system.slope.bound) @ np.abs(problem.C)
    unit = cycle.growth * cycle.period / (len(cycle.slopes) * float(np.linalg.norm(reach, 2)))
    yield from (share * unit for share in _RAMPS)


def _draft(
    system: System, problem: Linearisation, points: Array, cycle: Cycle, ramp: float
) -> tuple[SwitchingWitness, Mode] | None:
    """The numbers of the proof, with both starts on the orbit; None if the verifier would refuse the numbers."""
    n = system.size
    blank = np.zeros(n)
    draft = SwitchingWitness(points, cycle.slopes, cycle.durations, ramp, np.eye(n), blank, 1.0, 0.0, blank, blank, 1.0)
    period_map = monodromy(Switching(system, draft)).mid
    if not np.isfinite(period_map).all():
        return None
    still = Linearisation(period_map, np.zeros((n, 1)), np.zeros((1, n)), np.zeros(1), np.zeros(1), False)
    mode = leading_mode(still, np.zeros(1))
    if mode is None or mode.growth <= 1.0:
        return None
    numbers = inertia_numbers(still, mode, exact=True)
    if numbers is None:
        return None
    centre = points[0] if system.form == "hopfield" else _orbit(system, problem, points, cycle)
    draft = replace(
        draft,
        lyapunov=numbers.lyapunov,
        direction=numbers.direction,
        growth=numbers.growth,
        start=centre,
        start_other=centre,
    )
    case = Switching(system, draft)
    if not (lyapunov(case).held and direction(case).held and steps_of(case) <= _LONGEST):
        return None
    return replace(draft, largest_input=measured_input(case)[0]), mode


def _parting(system: System, problem: Linearisation, draft: SwitchingWitness, mode: Mode) -> Iterator[SwitchingWitness]:
    """The draft with starts on both sides of the orbit, along the leading eigenvector."""
    leading = np.real(np.exp(-0.5j * np.angle((mode.eigenvector**2).sum())) * mode.eigenvector)
    leading = leading / max(float(np.abs(leading).max()), float(np.abs(problem.C @ leading).max()))
    for nudge, parting in itertools.product(_NUDGES, _PARTINGS):
        yield replace(
            draft,
            start=draft.start + nudge * leading,
            start_other=draft.start - nudge * leading,
            periods=float(math.ceil(math.log(parting) / math.log(mode.growth))),
        )


def _orbit(system: System, problem: Linearisation, points: Array, cycle: Cycle) -> Array:
    """Where the periodic solution of x' = A x + B phi(s(t)), or of x+ = the same, begins; shape (n,)."""
    n, entry = system.size, system.slope.activation
    values = entry.function(points) if entry is not None else _member(cycle.slopes)
    total = np.eye(n + 1)
    for value, duration in zip(values, cycle.durations, strict=True):
        affine = np.zeros((n + 1, n + 1))
        affine[:n, :n], affine[:n, n] = problem.A, problem.B @ value
        if system.continuous:
            step = scipy.linalg.expm(affine * duration)
        else:
            affine[n, n] = 1.0
            step = np.linalg.matrix_power(affine, int(duration))
        total = step @ total
    return np.asarray(np.linalg.solve(np.eye(n) - total[:n, :n], total[:n, n]))


def _member(slopes: Array) -> Array:
    """Values at 0, 1, 2, ... of the function with phi(0) = 0 and slope j from j - 1/2 to j + 1/2; shape (k, m)."""
    rises = 0.5 * (slopes[1:] + slopes[:-1])
    return np.concatenate([np.zeros((1, slopes.shape[1])), np.cumsum(rises, axis=0)])
